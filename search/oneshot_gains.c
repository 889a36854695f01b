/* oneshot_gains.c - levels of layers held against the table of sparse cells. */
#include "search/oneshot_gains.h"
#include "search/sparse_pairs.h"

#include <math.h>
#include <string.h>

static bool same_pattern(const nas_layer_scheme *a, const nas_layer_scheme *b) {
    char x[NAS_SPARSITY_SHORT_MAX], y[NAS_SPARSITY_SHORT_MAX];
    nas_sparsity_short(&a->sparsity, x);
    nas_sparsity_short(&b->sparsity, y);
    return a->is_sparse && b->is_sparse && strcmp(x, y) == 0 &&
           fabs(a->sparsity.rate - b->sparsity.rate) < 1e-9;
}

/* Levels that differ in bits alone ask the same question: one line for all of them. */
static nas_status judge_level(nas_ctx *ctx, const nas_oneshot *o, const nas__sparse_judge *judge,
                              const nas_layer_scheme *asked, nas_layer_scheme *schemes,
                              size_t level, size_t layer, nas_oneshot_gains *out) {
    const nas_layer_scheme *s = &asked[level * o->n_layers + layer];
    const nas_value v = o->layers[layer];
    nas_buf none = {0};
    nas_db_sparse_answer a;
    bool use = true, repeated = false;
    if (!s->is_sparse) return NAS_OK;
    for (size_t k = 0; k < level; k++)
        repeated = repeated || same_pattern(&asked[k * o->n_layers + layer], s);
    nas_status status = nas__sparse_gain_of(ctx, judge, o->model, v, &s->sparsity, &a);
    if (status == NAS_OK)
        status = nas__sparse_drop(ctx, judge, o->model, v, &s->sparsity, 1, &use,
                                  repeated ? &none : &out->dropped);
    if (status == NAS_OK) {
        out->asked++;
        out->unmeasured += !a.known;
        if (!use) schemes[level * o->n_layers + layer].is_sparse = false;
    }
    nas_buf_deinit(&none);
    return status;
}

static nas_status judge_all(nas_ctx *ctx, const nas_oneshot *o, nas_db *db, const char *device,
                            nas_layer_scheme *schemes, size_t n_levels, nas_oneshot_gains *out) {
    char fingerprint[NAS_SHA256_HEX];
    /* weights of few bits run as floats on their grids */
    const nas__sparse_judge judge = {.db = db, .fingerprint = fingerprint, .bits = 32};
    const size_t cells = n_levels * o->n_layers;
    nas_layer_scheme *asked = nas_alloc_array(ctx, cells, sizeof *asked);
    nas_status status =
        asked == NULL ? NAS_ERR_NOMEM : nas_db_sparse_device(ctx, db, device, fingerprint);
    if (status == NAS_OK) memcpy(asked, schemes, cells * sizeof *asked);
    for (size_t i = 0; i < o->n_layers; i++) {
        for (size_t k = 0; k < n_levels && status == NAS_OK; k++)
            status = judge_level(ctx, o, &judge, asked, schemes, k, i, out);
    }
    nas_free(asked);
    return status;
}

nas_status nas_oneshot_gains_drop(nas_ctx *ctx, const nas_oneshot *o, const char *file,
                                  const char *device, nas_layer_scheme *schemes, size_t n_levels,
                                  nas_oneshot_gains *out) {
    nas_db *db = NULL;
    *out = (nas_oneshot_gains){0};
    nas_status status = nas_db_open_readonly(ctx, file, &db);
    if (status == NAS_OK) status = judge_all(ctx, o, db, device, schemes, n_levels, out);
    const nas_status closed = nas_db_close(ctx, db);
    if (status == NAS_OK) status = closed;
    if (status != NAS_OK) nas_oneshot_gains_deinit(out);
    return nas_wrap(ctx, status, "--gains %s", file);
}

void nas_oneshot_gains_deinit(nas_oneshot_gains *gains) {
    nas_buf_deinit(&gains->dropped);
    *gains = (nas_oneshot_gains){0};
}
