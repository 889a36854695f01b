/* oneshot_gains.c - levels of layers held against the table of sparse cells. */
#include "search/oneshot_gains.h"
#include "search/sparse_pairs.h"

#include <math.h>
#include <string.h>

/* Levels that ask the same question. */
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

nas_status nas_oneshot_times_open(nas_ctx *ctx, const char *file, const char *device,
                                  const nas_sparsity *form, bool integers, nas_oneshot_times *out) {
    *out = (nas_oneshot_times){.form = *form, .integers = integers};
    nas_status status = nas_db_open_readonly(ctx, file, &out->db);
    if (status == NAS_OK) status = nas_db_sparse_device(ctx, out->db, device, out->fingerprint);
    if (status != NAS_OK) {
        (void)nas_db_close(ctx, out->db); /* nothing was written */
        out->db = NULL;
    }
    return nas_wrap(ctx, status, "--gains %s", file);
}

nas_status nas_oneshot_times_close(nas_ctx *ctx, nas_oneshot_times *times) {
    nas_db *db = times->db;
    times->db = NULL;
    return nas_db_close(ctx, db);
}

/* Without integers, weights of few bits run as floats on their grids. */
static nas__sparse_judge judge_of(const nas_oneshot_times *times, const nas_layer_scheme *s) {
    return (nas__sparse_judge){.db = times->db,
                               .fingerprint = times->fingerprint,
                               .bits = times->integers && s->bits > 0 ? 8 : 32};
}

nas_status nas_oneshot_time_us(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_times *times,
                               size_t layer, const nas_layer_scheme *scheme, nas_opt_double *out) {
    const nas__sparse_judge judge = judge_of(times, scheme);
    nas_db_sparse_answer dense, sparse = {.gain = 1};
    nas_status status =
        nas__sparse_gain_of(ctx, &judge, o->model, o->layers[layer], &times->form, &dense);
    if (status == NAS_OK && scheme->is_sparse)
        status = nas__sparse_gain_of(ctx, &judge, o->model, o->layers[layer], &scheme->sparsity,
                                     &sparse);
    *out = (nas_opt_double){0};
    if (status == NAS_OK && dense.known && sparse.gain > 0)
        *out = nas_some_double(dense.dense_ns / 1e3 / sparse.gain);
    return status;
}

nas_status nas_oneshot_gains_drop(nas_ctx *ctx, const nas_oneshot *o,
                                  const nas_oneshot_times *times, nas_layer_scheme *schemes,
                                  size_t n_levels, nas_oneshot_gains *out) {
    const size_t cells = n_levels * o->n_layers;
    nas_layer_scheme *asked = nas_alloc_array(ctx, cells, sizeof *asked);
    *out = (nas_oneshot_gains){0};
    nas_status status = asked == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) memcpy(asked, schemes, cells * sizeof *asked);
    for (size_t i = 0; i < o->n_layers; i++) {
        for (size_t k = 0; k < n_levels && status == NAS_OK; k++) {
            const nas__sparse_judge judge = judge_of(times, &asked[k * o->n_layers + i]);
            status = judge_level(ctx, o, &judge, asked, schemes, k, i, out);
        }
    }
    nas_free(asked);
    if (status != NAS_OK) nas_oneshot_gains_deinit(out);
    return status;
}

void nas_oneshot_gains_deinit(nas_oneshot_gains *gains) {
    nas_buf_deinit(&gains->dropped);
    *gains = (nas_oneshot_gains){0};
}
