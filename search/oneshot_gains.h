/* oneshot_gains.h - what a device gains by leaving weights out, asked before a layer is compressed: a (layer, pattern, rate)
 * that was measured there to be no faster than the dense layer costs accuracy for nothing. The numbers are those of
 * `nas-compile --break-even --db FILE`. */
#ifndef NAS_SEARCH_ONESHOT_GAINS_H
#define NAS_SEARCH_ONESHOT_GAINS_H

#include "db/db.h"
#include "search/oneshot.h"

/* The file, opened, and whose times of it count. */
typedef struct nas_oneshot_times {
    nas_db *db;
    char fingerprint[NAS_SHA256_HEX];
    nas_sparsity form; /* whose cells give the time of a dense layer; its rate too */
    bool
        integers; /* layers with integer weights run on 8-bit codes, not as floats on their grids */
} nas_oneshot_times;

/* nas_oneshot_times_open - errors: NOTFOUND (file, device), INVALID (several devices: they are listed), DB. */
nas_status nas_oneshot_times_open(nas_ctx *ctx, const char *file, const char *device,
                                  const nas_sparsity *form, bool integers, nas_oneshot_times *out);
nas_status nas_oneshot_times_close(nas_ctx *ctx, nas_oneshot_times *times);
/* nas_oneshot_time_us - of layer i under a scheme: the dense time that was measured there, over the gain of the pattern. A
 * pattern at a rate beyond the measured ones has the gain of the nearest. Not set: nobody measured the layer. */
nas_status nas_oneshot_time_us(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_times *times,
                               size_t layer, const nas_layer_scheme *scheme, nas_opt_double *out);

typedef struct nas_oneshot_gains {
    nas_buf dropped; /* a line for each (layer, pattern, rate) left out, with the reason */
    size_t asked,
        unmeasured; /* (layer, level) pairs with a pattern; of these unknown to the file */
} nas_oneshot_gains;

/* nas_oneshot_gains_drop - schemes [n_levels][n_layers]: those with a pattern by which the device does not gain lose it and
 * keep their bits. What was not measured stays. Errors: DB. */
nas_status nas_oneshot_gains_drop(nas_ctx *ctx, const nas_oneshot *o,
                                  const nas_oneshot_times *times, nas_layer_scheme *schemes,
                                  size_t n_levels, nas_oneshot_gains *out);
void nas_oneshot_gains_deinit(nas_oneshot_gains *gains);

#endif
