/* layer.c - one layer: its weights to a matrix, the moments to a damped H and its inverse, a solver, and back. */
#include "compress/layer.h"
#include "compress/obs_internal.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

/* H is damped ten times more until it can be factored, so often at most. */
enum { DAMP_TRIES = 8 };

static const char *const solver_names[NAS_SOLVER_COUNT] = {"auto", "exact", "blocked", "magnitude"};

nas_layer_scheme nas_layer_scheme_default(void) {
    return (nas_layer_scheme){.grid = NAS_GRID_SYMMETRIC};
}

nas_layer_options nas_layer_options_default(void) {
    return (nas_layer_options){.damp = 0.001, .exact_macs = 2e10, .threads = 2};
}

const char *nas_layer_solver_name(nas_layer_solver solver) {
    return solver < NAS_SOLVER_COUNT ? solver_names[solver] : "none";
}

double nas_layer_exact_macs(const int32_t dims[4], const nas_layer_scheme *scheme) {
    const double n = (double)dims[1] * dims[2] * dims[3], row = n * n * n / 3;
    /* elimination and refit of each row; then its factor, and rounding in greedy order */
    return dims[0] * row * ((scheme->is_sparse ? 2 : 0) + (scheme->bits > 0 ? 2 : 0));
}

/* ---- checks ------------------------------------------------------------------------------------------------------------ */

static nas_status check_moments(nas_ctx *ctx, const nas_node *node, const nas_param *weight,
                                const nas_moments *m) {
    const size_t n = weight->count / (size_t)weight->dims[0], size = n + 1;
    if (node->conv.groups != 1)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "moments of a convolution in %d groups: give none, it is rounded to the "
                        "nearest",
                        (int)node->conv.groups);
    if ((size_t)m->size != size)
        return nas_fail(ctx, NAS_ERR_INVALID, "moments of size %d; its patches need %zu",
                        (int)m->size, size);
    for (size_t i = 0; i < size * size; i++) {
        if (!isfinite(m->gram[i]))
            return nas_fail(ctx, NAS_ERR_INVALID, "moments: element %zu is not finite", i);
    }
    if (m->gram[size * size - 1] < 1)
        return nas_fail(ctx, NAS_ERR_INVALID, "moments of no sample at all");
    return NAS_OK;
}

static nas_status check(nas_ctx *ctx, const nas_graph *graph, nas_value v,
                        const nas_layer_scheme *scheme, const nas_moments *moments,
                        const nas_layer_options *options) {
    const nas_node *node = nas_graph_node(graph, v);
    if (node->op != NAS_OP_CONV)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "a %s has no weights that are left out or rounded: only convolutions and "
                        "fully connected layers",
                        nas_op_name(node->op));
    const nas_param *weight = nas_graph_param_const(graph, node->params[0]);
    if (weight->data == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "no weights");
    for (size_t i = 0; i < weight->count; i++) {
        if (!isfinite(weight->data[i]))
            return nas_fail(ctx, NAS_ERR_INVALID, "weight %zu is not finite", i);
    }
    if (scheme->bits != 0 && (scheme->bits < 2 || scheme->bits > 8))
        return nas_fail(ctx, NAS_ERR_RANGE, "%d bits; weights have 2 to 8, or 0 for floats",
                        (int)scheme->bits);
    if (!(options->damp > 0) || options->threads < 1)
        return nas_fail(ctx, NAS_ERR_RANGE, "damp %g and %d threads: both have to be > 0",
                        options->damp, (int)options->threads);
    nas_status status = NAS_OK;
    if (scheme->is_sparse)
        status = nas_sparsity_check(ctx, &scheme->sparsity, weight->dims, node->conv.groups);
    if (status == NAS_OK && moments != NULL) status = check_moments(ctx, node, weight, moments);
    return status;
}

/* ---- the matrix --------------------------------------------------------------------------------------------------------- */

static nas_status load(nas_ctx *ctx, const nas_graph *graph, nas_value v,
                       const nas_moments *moments, nas__obs *o) {
    const nas_node *node = nas_graph_node(graph, v);
    const nas_param *weight = nas_graph_param_const(graph, node->params[0]);
    memcpy(o->dims, weight->dims, sizeof o->dims);
    o->rows = weight->dims[0];
    o->n = (int32_t)(weight->count / (size_t)o->rows);
    o->bias = node->conv.has_bias;
    o->size = o->n + o->bias;
    const size_t rows = (size_t)o->rows, n = (size_t)o->n, size = (size_t)o->size;
    const size_t square = moments != NULL ? size * size : 0;
    o->w = nas_alloc_array(ctx, rows * size, sizeof *o->w);
    o->kept = nas_alloc_array(ctx, rows * n, 1);
    o->grids = nas_alloc_array(ctx, rows, sizeof *o->grids);
    o->h = nas_alloc_array(ctx, square, sizeof *o->h);
    o->inverse = nas_alloc_array(ctx, square, sizeof *o->inverse);
    if (o->w == NULL || o->kept == NULL || o->grids == NULL || o->h == NULL || o->inverse == NULL)
        return NAS_ERR_NOMEM;
    memset(o->kept, 1, rows * n);
    for (size_t r = 0; r < rows; r++) {
        for (size_t k = 0; k < n; k++)
            o->w[r * size + k] = (double)weight->data[r * n + k];
        if (o->bias != 0)
            o->w[r * size + n] = (double)nas_graph_param_const(graph, node->params[1])->data[r];
    }
    return NAS_OK;
}

static void unload(nas__obs *o) {
    nas_free(o->w);
    nas_free(o->kept);
    nas_free(o->grids);
    nas_free(o->h);
    nas_free(o->inverse);
}

static void fill_h(nas__obs *o, const nas_moments *m, double lift) {
    const size_t size = (size_t)o->size, row = (size_t)m->size;
    const double samples = m->gram[row * row - 1];
    for (size_t i = 0; i < size; i++) {
        for (size_t j = 0; j < size; j++)
            o->h[i * size + j] = m->gram[i * row + j] / samples;
        if (i < (size_t)o->n) o->h[i * size + i] += lift; /* the bias is always well determined */
    }
}

/* h and its inverse, damped as much as it takes. */
static nas_status invert(nas_ctx *ctx, nas__obs *o, const nas_moments *m, double *damp,
                         double *lift) {
    const size_t size = (size_t)o->size;
    double mean = 0;
    fill_h(o, m, 0);
    for (size_t k = 0; k < (size_t)o->n; k++)
        mean += o->h[k * size + k] / o->n;
    if (!(mean > 0))
        mean = 1; /* inputs that are always zero: nothing is known, all weights are free */
    *damp = o->options->damp;
    for (int tries = 0; tries < DAMP_TRIES; tries++, *damp *= 10) {
        *lift = *damp * mean;
        fill_h(o, m, *lift);
        memcpy(o->inverse, o->h, size * size * sizeof *o->h);
        if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', o->size, o->inverse, o->size) != 0 ||
            LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', o->size, o->inverse, o->size) != 0)
            continue;
        bool finite = true;
        for (size_t i = 0; i < size; i++) {
            for (size_t j = 0; j < i; j++)
                o->inverse[i * size + j] = o->inverse[j * size + i];
            finite = finite && isfinite(o->inverse[i * size + i]);
        }
        if (finite) return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "moments cannot be inverted, even damped by %g of their mean: calibrate with "
                    "more images",
                    *damp);
}

/* ---- magnitude ------------------------------------------------------------------------------------------------------------ */

static nas_status by_magnitude(nas_ctx *ctx, const nas_param *weight, nas__obs *o) {
    const nas_layer_scheme *scheme = o->scheme;
    const size_t n = (size_t)o->n, size = (size_t)o->size;
    nas_status status = NAS_OK;
    if (scheme->is_sparse)
        status = nas_sparsity_mask(ctx, &scheme->sparsity, weight->data, o->dims, o->kept);
    float *kept = nas_alloc_array(ctx, weight->count, sizeof *kept);
    if (kept == NULL) status = NAS_ERR_NOMEM;
    for (size_t i = 0; status == NAS_OK && i < weight->count; i++)
        kept[i] = o->kept[i] != 0 ? weight->data[i] : 0;
    for (size_t r = 0; status == NAS_OK && r < (size_t)o->rows; r++) {
        if (scheme->bits > 0)
            o->grids[r] = scheme->per_tensor && r > 0
                              ? o->grids[0]
                              : nas_grid_fit(scheme->grid, scheme->bits, kept + r * n, NULL,
                                             scheme->per_tensor ? weight->count : n);
        for (size_t k = 0; k < n; k++) {
            const float w = kept[r * n + k];
            o->w[r * size + k] = (double)(scheme->bits > 0 ? nas_grid_round(&o->grids[r], w) : w);
        }
    }
    nas_free(kept);
    return status;
}

/* ---- result --------------------------------------------------------------------------------------------------------------- */

/* x^T G x over the rows' differences (or the rows themselves), per sample. */
static nas_status energy(nas_ctx *ctx, const nas__obs *o, const nas_moments *m, const double *x,
                         double *out) {
    const size_t size = (size_t)o->size;
    double *product = nas_alloc_array(ctx, (size_t)o->rows * size, sizeof *product);
    if (product == NULL) return NAS_ERR_NOMEM;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, o->rows, o->size, o->size, 1, x, o->size,
                m->gram, m->size, 0, product, o->size);
    double sum = 0;
    for (size_t i = 0; i < (size_t)o->rows * size; i++)
        sum += product[i] * x[i];
    *out = fmax(sum, 0) / m->gram[(size_t)m->size * (size_t)m->size - 1];
    nas_free(product);
    return NAS_OK;
}

/* Against targets: |XW' - T|^2 from the moments. */
static nas_status measure_targets(nas_ctx *ctx, const nas__obs *o, const nas_moments *m,
                                  nas_layer_result *result) {
    const size_t size = (size_t)o->size, rows = (size_t)o->rows;
    double own = 0, cross = 0, whole = 0;
    const nas_status status = energy(ctx, o, m, o->w, &own);
    for (size_t r = 0; status == NAS_OK && r < rows; r++) {
        whole += m->square[r];
        for (size_t k = 0; k < size; k++)
            cross += o->w[r * size + k] * m->cross[k * rows + r];
    }
    const double samples = m->gram[(size_t)m->size * (size_t)m->size - 1];
    result->loss = fmax(own + (whole - 2 * cross) / samples, 0);
    result->relative_loss = whole > 0 ? result->loss / (whole / samples) : 0;
    result->has_loss = true;
    return status;
}

static nas_status measure(nas_ctx *ctx, const nas__obs *o, const nas_moments *m,
                          const double *dense, nas_layer_result *result) {
    if (m->cross != NULL) return measure_targets(ctx, o, m, result);
    const size_t count = (size_t)o->rows * (size_t)o->size;
    double *change = nas_alloc_array(ctx, count, sizeof *change);
    if (change == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < count; i++)
        change[i] = o->w[i] - dense[i];
    double whole = 0;
    nas_status status = energy(ctx, o, m, change, &result->loss);
    if (status == NAS_OK) status = energy(ctx, o, m, dense, &whole);
    result->relative_loss = whole > 0 ? result->loss / whole : 0;
    result->has_loss = true;
    nas_free(change);
    return status;
}

static nas_status store(nas_ctx *ctx, nas_graph *graph, nas_value v, const nas__obs *o) {
    const nas_node *node = nas_graph_node(graph, v);
    const size_t n = (size_t)o->n, size = (size_t)o->size;
    for (size_t i = 0; i < (size_t)o->rows * size; i++) {
        if (!isfinite((float)o->w[i]))
            return nas_fail(ctx, NAS_ERR_INTERNAL, "a compressed weight is not finite");
    }
    if (o->scheme->bits > 0 && o->scheme->grid == NAS_GRID_SYMMETRIC) {
        float *scales = nas_alloc_array(ctx, (size_t)o->rows, sizeof *scales);
        if (scales == NULL) return NAS_ERR_NOMEM;
        for (size_t r = 0; r < (size_t)o->rows; r++)
            scales[r] = o->grids[r].scale;
        const nas_status status =
            nas_graph_set_weight_scales(ctx, graph, node->params[0], o->scheme->bits, scales);
        nas_free(scales);
        if (status != NAS_OK) return status;
    }
    float *weight = nas_graph_param(graph, node->params[0])->data;
    for (size_t r = 0; r < (size_t)o->rows; r++) {
        for (size_t k = 0; k < n; k++)
            weight[r * n + k] = (float)o->w[r * size + k];
        if (o->bias != 0)
            nas_graph_param(graph, node->params[1])->data[r] = (float)o->w[r * size + n];
    }
    return NAS_OK;
}

/* The dense weights that come nearest to the targets, (H + damp) W = X^T T + damp W: what OBS then starts from. */
static nas_status aim(nas_ctx *ctx, nas__obs *o, const nas_moments *m, double lift) {
    const size_t size = (size_t)o->size, rows = (size_t)o->rows;
    const double samples = m->gram[(size_t)m->size * (size_t)m->size - 1];
    double *to = nas_alloc_array(ctx, rows * size, sizeof *to);
    if (to == NULL) return NAS_ERR_NOMEM;
    for (size_t r = 0; r < rows; r++) {
        for (size_t k = 0; k < size; k++)
            to[r * size + k] = m->cross[k * rows + r] / samples +
                               (k < (size_t)o->n ? lift * o->w[r * size + k] : 0);
    }
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, o->rows, o->size, o->size, 1, to,
                o->size, o->inverse, o->size, 0, o->w, o->size);
    nas_free(to);
    return NAS_OK;
}

static nas_status solve(nas_ctx *ctx, nas__obs *o, const nas_moments *moments,
                        nas_layer_result *result) {
    const nas_layer_scheme *scheme = o->scheme;
    result->solver = o->options->solver;
    if (result->solver == NAS_SOLVER_AUTO)
        result->solver = nas_layer_exact_macs(o->dims, scheme) <= o->options->exact_macs
                             ? NAS_SOLVER_EXACT
                             : NAS_SOLVER_BLOCKED;
    double lift = 0;
    nas_status status = invert(ctx, o, moments, &result->damp, &lift);
    if (status == NAS_OK && moments->cross != NULL) status = aim(ctx, o, moments, lift);
    if (status == NAS_OK && result->solver == NAS_SOLVER_BLOCKED) return nas__obs_blocked(ctx, o);
    if (status == NAS_OK && scheme->is_sparse) {
        status = nas__obs_choose(ctx, o);
        if (status == NAS_OK) status = nas__obs_refit(ctx, o);
    }
    if (status == NAS_OK && scheme->bits > 0) status = nas__obs_round(ctx, o);
    return status;
}

static nas_status compress(nas_ctx *ctx, nas_graph *graph, nas_value v, const nas_moments *moments,
                           nas__obs *o, nas_layer_result *r) {
    const nas_param *weight = nas_graph_param_const(graph, nas_graph_node(graph, v)->params[0]);
    nas_status status = load(ctx, graph, v, moments, o);
    const size_t count = (size_t)o->rows * (size_t)o->size;
    double *dense = status == NAS_OK ? nas_alloc_array(ctx, count, sizeof *dense) : NULL;
    if (dense == NULL) return NAS_ERR_NOMEM;
    memcpy(dense, o->w, count * sizeof *dense);
    r->solver = NAS_SOLVER_MAGNITUDE;
    status = moments == NULL || o->options->solver == NAS_SOLVER_MAGNITUDE
                 ? by_magnitude(ctx, weight, o)
                 : solve(ctx, o, moments, r);
    if (status == NAS_OK && moments != NULL) status = measure(ctx, o, moments, dense, r);
    if (status == NAS_OK) status = store(ctx, graph, v, o);
    for (size_t i = 0; status == NAS_OK && i < weight->count; i++)
        r->zeros += weight->data[i] == 0;
    r->weights = weight->count;
    nas_free(dense);
    return status;
}

nas_status nas_layer_compress(nas_ctx *ctx, nas_graph *graph, nas_value v,
                              const nas_layer_scheme *scheme, const nas_moments *moments,
                              const nas_layer_options *options, nas_layer_result *result) {
    nas__obs o = {.scheme = scheme, .options = options};
    nas_layer_result r = {0};
    nas_status status = check(ctx, graph, v, scheme, moments, options);
    if (status == NAS_OK) status = compress(ctx, graph, v, moments, &o, &r);
    unload(&o);
    if (status == NAS_OK && result != NULL) *result = r;
    return nas_wrap(ctx, status, "layer '%s'", nas_graph_node(graph, v)->name);
}
