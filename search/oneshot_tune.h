/* oneshot_tune.h - a compressed network trained on, with its zeros and its codes, by the original as teacher. */
#ifndef NAS_SEARCH_ONESHOT_TUNE_H
#define NAS_SEARCH_ONESHOT_TUNE_H

#include "search/oneshot_codes.h"

/* nas_oneshot_tune - `steps` steps of nas_tune_codes on TUNE images at `rate` (of batches of 64, falling to 0 by a cosine),
 * o->model as teacher: integer weights and their steps, the grids in `codes` (n 0: activations are floats), floats of the other
 * layers. Weights that a pattern left out stay 0. results [n_layers] get their counts of zeros anew and lose their errors, which
 * no longer hold. Errors: those of nas_tune_codes; UNSUPPORTED: a grid that values of a concatenation share. */
nas_status nas_oneshot_tune(nas_ctx *ctx, nas_oneshot *o, nas_graph *graph,
                            const nas_layer_scheme *schemes, int32_t steps, double rate,
                            nas_oneshot_codes *codes, nas_layer_result *results);

#endif
