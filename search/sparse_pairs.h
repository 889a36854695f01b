/* sparse_pairs.h - which compressed forms of a layer a study does not try, because they were measured on its device and are
 * slower there than the dense layer. The numbers are those of `nas-compile --break-even --db` (db/sparse_cells.h).
 *
 *     nas__sparse_judge judge = {.db = db, .fingerprint = nas_device_fingerprint(device)};
 *     bool use[N];
 *     nas__sparse_drop(ctx, &judge, graph, conv, candidates, N, use, &text);   (text: what was dropped and why, for the log)
 *
 * A form that was not measured on this device stays: the study's own measurement decides. Shared inside search/ only. */
#ifndef NAS_SEARCH_SPARSE_PAIRS_H
#define NAS_SEARCH_SPARSE_PAIRS_H

#include "db/sparse_cells.h"
#include "ir/sparsity.h"

typedef struct nas__sparse_judge {
    nas_db *db;              /* borrowed; may be another file than the study's */
    const char *fingerprint; /* of the device; borrowed */
    int32_t bits;            /* 32, or 8 for layers of integers */
    double margin; /* a gain below 1 + margin loses; 0: whatever is no faster than dense */
} nas__sparse_judge;

/* nas__sparse_layer_of - the layer as the table names it; false for what has no sparse kernels (not a CONV, groups, kernel
 * not square, dilation). */
bool nas__sparse_layer_of(const nas_graph *graph, nas_value conv, int32_t bits,
                          nas_db_sparse_layer *out);
/* nas__sparse_gain_of - what this form gains for this layer; `known` false when nobody measured it there. */
nas_status nas__sparse_gain_of(nas_ctx *ctx, const nas__sparse_judge *judge, const nas_graph *graph,
                               nas_value conv, const nas_sparsity *form, nas_db_sparse_answer *out);
/* nas__sparse_drop - use[i] false for the forms that lose; each of them becomes a line of `dropped`:
 *     "conv3: 1x4 at 25 % is 0.82 times as fast as dense here (faster from 38 %)\n"
 * Errors: DB, NOMEM. */
nas_status nas__sparse_drop(nas_ctx *ctx, const nas__sparse_judge *judge, const nas_graph *graph,
                            nas_value conv, const nas_sparsity *forms, size_t n, bool use[],
                            nas_buf *dropped);

#endif
