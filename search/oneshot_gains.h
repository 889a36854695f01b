/* oneshot_gains.h - what a device gains by leaving weights out, asked before a layer is compressed: a (layer, pattern, rate)
 * that was measured there to be no faster than the dense layer costs accuracy for nothing. The numbers are those of
 * `nas-compile --break-even --db FILE`. */
#ifndef NAS_SEARCH_ONESHOT_GAINS_H
#define NAS_SEARCH_ONESHOT_GAINS_H

#include "search/oneshot.h"

typedef struct nas_oneshot_gains {
    nas_buf dropped; /* a line for each (layer, pattern, rate) left out, with the reason */
    size_t asked,
        unmeasured; /* (layer, level) pairs with a pattern; of these unknown to the file */
} nas_oneshot_gains;

/* nas_oneshot_gains_drop - schemes [n_levels][n_layers]: those with a pattern by which the device does not gain lose it and
 * keep their bits. What was not measured stays. device: a name or fingerprint of the file, NULL when it has one alone.
 * Errors: NOTFOUND (file, device), INVALID (several devices: they are listed), DB. */
nas_status nas_oneshot_gains_drop(nas_ctx *ctx, const nas_oneshot *o, const char *file,
                                  const char *device, nas_layer_scheme *schemes, size_t n_levels,
                                  nas_oneshot_gains *out);
void nas_oneshot_gains_deinit(nas_oneshot_gains *gains);

#endif
