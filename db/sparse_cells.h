/* sparse_cells.h - what sparse layers gain on which device, as `nas-compile --break-even` measured it, and the question a
 * search asks of it: does this pattern at this rate win on this layer, and by how much.
 *
 * A cell is one layer shape, pattern, rate and precision on one device, beside the fastest dense kernel of the same layer.
 * A device is known by its fingerprint (nas_device_fingerprint: processor, features, kernel), so numbers of another machine
 * never answer. Nothing is guessed: a layer that was not measured there is `known` false. Layer 1: includes core only. */
#ifndef NAS_DB_SPARSE_CELLS_H
#define NAS_DB_SPARSE_CELLS_H

#include "db/db.h"

/* A convolution in one group with a square kernel. */
typedef struct nas_db_sparse_layer {
    int32_t kernel, stride;
    int32_t in_c, out_c;
    int32_t out_h, out_w;
    int32_t bits; /* of weights and activations: 32 (float) or 8 */
} nas_db_sparse_layer;

enum { NAS_DB_SPARSE_TEXT_MAX = 96 };

typedef struct nas_db_sparse_cell {
    char fingerprint[NAS_SHA256_HEX];
    char device[NAS_DB_SPARSE_TEXT_MAX]; /* as people call it: "native", "adb:SERIAL" */
    char target[NAS_DB_SPARSE_TEXT_MAX]; /* and compiler: what the code was made by */
    nas_db_sparse_layer layer;
    char pattern[NAS_DB_SPARSE_TEXT_MAX]; /* as --patterns has it: "1x4", "N:8x4", "punched4x4" */
    double rate;                          /* share of the weights that is zero, 0..1 */
    char dense[NAS_DB_SPARSE_TEXT_MAX], sparse[NAS_DB_SPARSE_TEXT_MAX]; /* kernels */
    double dense_ns, sparse_ns;
    nas_opt_double direct_ns;   /* the fastest dense kernel that is not Winograd */
    nas_opt_double peak_gflops; /* of a loop of multiply-adds beside it */
} nas_db_sparse_cell;

/* nas_db_sparse_put - replaces the cell of the same fingerprint, layer, pattern and rate. `passport`: JSON of what the
 * device says of itself, NULL when unknown. INVALID: not finite; DB: a number out of range. */
nas_status nas_db_sparse_put(nas_ctx *ctx, nas_db *db, const nas_db_sparse_cell *cell,
                             const char *passport);

typedef struct nas_db_sparse_answer {
    bool known;      /* at least one cell of this layer and pattern on this device */
    bool measured;   /* the rate lies between measured ones; else the nearest cell speaks */
    double gain;     /* time of dense over time of sparse; above 1 the pattern wins */
    double dense_ns; /* of the nearest cell */
    nas_opt_double
        even; /* from this rate on every measured cell wins; absent: not even the last does */
} nas_db_sparse_answer;

/* nas_db_sparse_gain - what `pattern` at `rate` gains for `layer` on the device of `fingerprint`. Between two cells the
 * ratio of times follows a straight line over the rate.
 * Errors: INVALID (rate not in 0..1), DB. */
nas_status nas_db_sparse_gain(nas_ctx *ctx, nas_db *db, const char *fingerprint,
                              const nas_db_sparse_layer *layer, const char *pattern, double rate,
                              nas_db_sparse_answer *out);

/* nas_db_sparse_device - the fingerprint of the device that `name` says: its name or its fingerprint; NULL: the only one with
 * cells. Errors: NOTFOUND (no cells at all; none of that name), INVALID (several: the message lists them). */
nas_status nas_db_sparse_device(nas_ctx *ctx, nas_db *db, const char *name,
                                char out[NAS_SHA256_HEX]);

#endif
