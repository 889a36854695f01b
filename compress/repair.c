/* repair.c - least-squares repair of convolutions that lost inputs (He et al., arXiv:1707.06168). The second moments of what
 * a layer reads are gathered once; each candidate then costs one Cholesky factorisation of a sub-matrix a layer. */
#include "compress/compress_internal.h"

#include <cblas.h>
#include <lapacke.h>
#include <string.h>

/* One layer: rows of the moments that stay, its old and new weights. */
typedef struct layer {
    const nas_moments *m;
    const nas_param *old_weight, *old_bias;
    nas_param *weight, *bias;
    int32_t *rows; /* kept rows of the moments */
    int32_t n_rows;
    int32_t *outputs;
    int32_t n_outputs;
    int32_t size; /* rows of the moments that count: without the last when there is no bias */
} layer;

static void list_rows(const nas_channels *ch, const nas_graph *g, const nas_node *node,
                      const bool *keep, layer *l) {
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    const int32_t c = l->old_weight->dims[3];
    const int32_t *of = ch->of[node->inputs[0]];
    l->n_rows = 0;
    for (int32_t t = 0; t < taps; t++) {
        for (int32_t i = 0; i < c; i++) {
            if (of[i] == NAS_CLASS_FIXED || keep[of[i]]) l->rows[l->n_rows++] = t * c + i;
        }
    }
    if (l->old_bias != NULL) l->rows[l->n_rows++] = taps * c;
    l->size = taps * c + (l->old_bias != NULL);
    l->n_outputs = nas__kept_channels(ch, g, (nas_value)(l->m->conv), keep, l->outputs);
}

/* gs [n_rows][size], w [size][n_outputs], a [n_rows][n_rows]. */
static void gather(const layer *l, double ridge, double *gs, double *w, double *a) {
    const size_t size = (size_t)l->size, n = (size_t)l->n_rows;
    double trace = 0;
    for (size_t r = 0; r < n; r++) {
        const double *row = l->m->gram + (size_t)l->rows[r] * (size_t)l->m->size;
        memcpy(gs + r * size, row, size * sizeof *gs);
        trace += row[l->rows[r]];
        for (size_t k = 0; k < n; k++)
            a[r * n + k] = row[l->rows[k]];
    }
    const double lift = ridge * trace / (double)n + 1e-12;
    for (size_t r = 0; r < n; r++)
        a[r * n + r] += lift;
    for (int32_t o = 0; o < l->n_outputs; o++) {
        const float *filter =
            l->old_weight->data +
            (size_t)l->outputs[o] * (l->old_weight->count / (size_t)l->old_weight->dims[0]);
        const size_t weights = size - (l->old_bias != NULL);
        for (size_t k = 0; k < weights; k++)
            w[k * (size_t)l->n_outputs + (size_t)o] = (double)filter[k];
        if (l->old_bias != NULL)
            w[weights * (size_t)l->n_outputs + (size_t)o] =
                (double)l->old_bias->data[l->outputs[o]];
    }
}

/* Products with given targets, v [n_rows][n_outputs]. */
static void gather_targets(const layer *l, double *v) {
    const size_t all = (size_t)l->old_weight->dims[0], n = (size_t)l->n_outputs;
    for (size_t r = 0; r < (size_t)l->n_rows; r++) {
        for (size_t o = 0; o < n; o++)
            v[r * n + o] = l->m->cross[(size_t)l->rows[r] * all + (size_t)l->outputs[o]];
    }
}

static void write_back(const layer *l, const double *v) {
    const int32_t weights = l->n_rows - (l->old_bias != NULL);
    for (int32_t o = 0; o < l->n_outputs; o++) {
        for (int32_t k = 0; k < weights; k++)
            l->weight->data[o * weights + k] = (float)v[k * l->n_outputs + o];
        if (l->old_bias != NULL) l->bias->data[o] = (float)v[weights * l->n_outputs + o];
    }
}

/* Leaves the sliced weights when the moments are not positive definite: too few samples for the layer. */
static nas_status solve(nas_ctx *ctx, const layer *l, double ridge, bool *solved) {
    const size_t n = (size_t)l->n_rows, size = (size_t)l->size, outputs = (size_t)l->n_outputs;
    double *gs = nas_alloc_array(ctx, n * size, sizeof *gs);
    double *w = nas_alloc_array(ctx, size * outputs, sizeof *w);
    double *a = nas_alloc_array(ctx, n * n, sizeof *a);
    double *v = nas_alloc_array(ctx, n * outputs, sizeof *v);
    nas_status status = gs == NULL || w == NULL || a == NULL || v == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) {
        gather(l, ridge, gs, w, a);
        if (l->m->cross != NULL) {
            gather_targets(l, v);
        } else {
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)outputs, (int)size,
                        1, gs, (int)size, w, (int)outputs, 0, v, (int)outputs);
        }
        const lapack_int info =
            LAPACKE_dposv(LAPACK_ROW_MAJOR, 'U', (lapack_int)n, (lapack_int)outputs, a,
                          (lapack_int)n, v, (lapack_int)outputs);
        *solved = info == 0;
        if (*solved) write_back(l, v);
    }
    nas_free(gs);
    nas_free(w);
    nas_free(a);
    nas_free(v);
    return status;
}

static nas_status repair_layer(nas_ctx *ctx, const nas_channels *ch, const nas_graph *g,
                               const bool *keep, const nas_moments *m, double ridge,
                               nas_graph *sliced, int32_t *repaired) {
    const nas_node *node = nas_graph_node(g, m->conv), *made = nas_graph_node(sliced, m->conv);
    const nas_param *weight = nas_graph_param_const(g, node->params[0]);
    const int32_t expected = (int32_t)(weight->count / (size_t)weight->dims[0]) + 1;
    if (node->op != NAS_OP_CONV || node->conv.groups > 1 || m->size != expected)
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "repair: moments of size %d for node '%s', which needs a convolution with %d",
            (int)m->size, node->name, (int)expected);
    layer l = {.m = m, .old_weight = weight, .weight = nas_graph_param(sliced, made->params[0])};
    if (node->conv.has_bias) {
        l.old_bias = nas_graph_param_const(g, node->params[1]);
        l.bias = nas_graph_param(sliced, made->params[1]);
    }
    if (l.weight->dims[3] == weight->dims[3] && m->cross == NULL) return NAS_OK; /* lost nothing */
    l.rows = nas_alloc_array(ctx, (size_t)m->size, sizeof *l.rows);
    l.outputs = nas_alloc_array(ctx, (size_t)node->shape.c, sizeof *l.outputs);
    nas_status status = l.rows == NULL || l.outputs == NULL ? NAS_ERR_NOMEM : NAS_OK;
    bool solved = false;
    if (status == NAS_OK) {
        list_rows(ch, g, node, keep, &l);
        status = solve(ctx, &l, ridge, &solved);
    }
    *repaired += solved;
    nas_free(l.rows);
    nas_free(l.outputs);
    return status;
}

nas_status nas_channels_repair(nas_ctx *ctx, const nas_channels *ch, const nas_graph *g,
                               const bool *keep, const nas_moments *moments, size_t n_moments,
                               double ridge, nas_graph *sliced, int32_t *repaired) {
    if (!nas_graph_has_weights(g) || !nas_graph_has_weights(sliced) || !(ridge >= 0))
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "repair of '%s': both networks need weights, ridge >= 0",
                        nas_graph_name(g));
    *repaired = 0;
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n_moments && status == NAS_OK; i++)
        status = repair_layer(ctx, ch, g, keep, &moments[i], ridge, sliced, repaired);
    return status;
}
