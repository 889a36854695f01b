/* recipe_sparsity.h - what a recipe says about weights that are left out:
 *   in "layers": {"<node>": {"sparsity": S}}      one layer
 *   "sparsity": {"kernels": "1x1", ...S}          every convolution with kernels of that size: "1x1", "3x3" ..., "fc" (fully
 *                                                 connected), or "all"; before the settings of single layers
 *   S: {"pattern": NAME, "rate": 0..1, ...}       makes the mask by magnitude (ir/sparsity.h); the other keys are "n",
 *                                                 "keep", "group", "outputs", "inputs", "entries", "period", "rearrange"
 *      {"from": "weights"}                        the zeros that the model has */
#ifndef NAS_TOOLS_RECIPE_SPARSITY_H
#define NAS_TOOLS_RECIPE_SPARSITY_H

#include "ir/graph.h"
#include "ir/sparsity.h"

#include <jansson.h>

/* nas_recipe_sparsity - S of one layer, applied to the weights. Errors: PARSE, RANGE, UNSUPPORTED, NOTFOUND, INVALID (no
 * zeros where they are expected). */
nas_status nas_recipe_sparsity(nas_ctx *ctx, nas_graph *graph, nas_value v, const json_t *value);
/* nas_recipe_sparsity_all - the same for every convolution that "kernels" names. NOTFOUND when there is none. */
nas_status nas_recipe_sparsity_all(nas_ctx *ctx, nas_graph *graph, const json_t *value);
/* nas_recipe_sparsity_read - S alone, without "from". */
nas_status nas_recipe_sparsity_read(nas_ctx *ctx, const json_t *value, nas_sparsity *out);

#endif
