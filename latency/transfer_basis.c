/* transfer_basis.c - architectures as the sources of a transferred model see them: what each predicts, logarithms of
 * work among the features, coordinates of each kernel; and the products of two rows that the covariance is made of. */
#include "latency/transfer_internal.h"

#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <string.h>

#define WIDEST_STRETCH 2.0 /* of the kernels' lengths; the others 1 and 1/2 */
#define ALIKE_LENGTH 1.4   /* times the root of the coordinates: of the kernel that favours none */
#define ALIKE_SHARE 0.5
#define FOLLOWED 0.8 /* correlation with a source from which a shape feature may be a device */
#define CLIP 3.0     /* standardised predictions bend towards it */

/* ---- sources as functions --------------------------------------------------------------------------------------- */

void nas__view_deinit(nas__view *v, size_t n_sources) {
    for (size_t s = 0; v->coordinates != NULL && s <= n_sources; s++)
        nas_free(v->coordinates[s]);
    nas_free(v->coordinates);
    nas_free(v->common);
    nas_free(v->z);
    *v = (nas__view){0};
}

static nas_status raw_predictions(nas_ctx *ctx, const nas__basis *b, const double *x, size_t rows,
                                  double *out) {
    double *column = nas_alloc_array(ctx, rows, sizeof *column);
    nas_status status = column == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t s = 0; s < b->n && status == NAS_OK; s++) {
        status = nas__model_predict_log(ctx, b->sources[s], x, rows, column, NULL);
        for (size_t i = 0; i < rows && status == NAS_OK; i++)
            out[i * b->width + s] = column[i];
    }
    const size_t n_features = b->sources[0]->encoder.n_features;
    for (size_t i = 0; i < rows; i++) {
        for (size_t s = b->n; s < b->width; s++)
            out[i * b->width + s] = x[i * n_features + b->shapes[s - b->n]];
    }
    nas_free(column);
    return status;
}

/* Distances need the coordinates over the lengths; stored so. */
static nas_status source_coordinates(nas_ctx *ctx, const nas_device_model *source, const double *x,
                                     size_t rows, bool alike, double **out) {
    const size_t d = source->encoder.d, n = source->encoder.n_features;
    double *z = nas_alloc_array(ctx, rows * d, sizeof *z);
    if (z == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < rows; i++) {
        nas__encode(&source->encoder, x + i * n, z + i * d);
        for (size_t k = 0; k < d; k++)
            z[i * d + k] *= alike ? 1 / (ALIKE_LENGTH * sqrt((double)d))
                                  : exp(source->gp.hyper.log_inverse_length[k]);
    }
    *out = z;
    return NAS_OK;
}

nas_status nas__view_of(nas_ctx *ctx, const nas__basis *b, const double *x, size_t rows,
                        nas__view *out) {
    nas__view v = {.rows = rows,
                   .z = nas_alloc_array(ctx, rows * b->width, sizeof(double)),
                   .common = nas_alloc_array(ctx, rows, sizeof(double)),
                   .coordinates = nas_alloc_array(ctx, b->n + 1, sizeof(double *))};
    nas_status status = v.z == NULL || v.common == NULL || v.coordinates == NULL
                            ? NAS_ERR_NOMEM
                            : raw_predictions(ctx, b, x, rows, v.z);
    for (size_t s = 0; s < b->n && status == NAS_OK; s++)
        status = source_coordinates(ctx, b->sources[s], x, rows, false, &v.coordinates[s]);
    if (status == NAS_OK) {
        status = source_coordinates(ctx, b->sources[0], x, rows, true, &v.coordinates[b->n]);
    }
    for (size_t i = 0; i < rows && status == NAS_OK; i++) {
        for (size_t s = 0; s < b->width; s++) {
            double *z = &v.z[i * b->width + s];
            *z = CLIP * tanh((*z - b->center[s]) / (b->spread[s] * CLIP));
            if (s < b->n) v.common[i] += *z / (double)b->n;
        }
    }
    if (status != NAS_OK) {
        nas__view_deinit(&v, b->n);
        return status;
    }
    *out = v;
    return NAS_OK;
}

/* One exponential for all stretches: each is half the next. */
static void add_shape(size_t d, const double *a, size_t i, const double *b, size_t j, double part,
                      double *shape) {
    const double distance = nas__dense()->distance(a + i * d, b + j * d, d);
    double value = exp(-0.5 * distance / (WIDEST_STRETCH * WIDEST_STRETCH));
    for (size_t t = NAS__STRETCHES; t-- > 0;) {
        shape[t] += part * value;
        value *= value;
        value *= value;
    }
}

nas__parts nas__parts_of(const nas__basis *b, const nas__view *va, size_t i, const nas__view *vb,
                         size_t j, size_t skip) {
    const double *za = va->z + i * b->width, *zb = vb->z + j * b->width;
    const double n = (double)b->n;
    double ma = va->common[i], mb = vb->common[j];
    if (skip < b->n) {
        ma = (ma * n - za[skip]) / (n - 1);
        mb = (mb * n - zb[skip]) / (n - 1);
    }
    nas__parts p = {.common = ma * mb};
    const double part = (1 - ALIKE_SHARE) / (skip < b->n ? n - 1 : n);
    for (size_t s = 0; s < b->n; s++) {
        if (s == skip) continue;
        p.spread += (za[s] - ma) * (zb[s] - mb);
        add_shape(b->sources[s]->encoder.d, va->coordinates[s], i, vb->coordinates[s], j, part,
                  p.shape);
    }
    for (size_t s = b->n; s < b->width; s++)
        p.spread += b->shape_weight * (za[s] - ma) * (zb[s] - mb);
    add_shape(b->sources[0]->encoder.d, va->coordinates[b->n], i, vb->coordinates[b->n], j,
              ALIKE_SHARE, p.shape);
    return p;
}

/* ---- pool ------------------------------------------------------------------------------------------------------- */

/* Rows of the sources' tables, raw features, at most NAS__POOL_MAX, chosen by the seed. */
nas_status nas__transfer_pool(nas_ctx *ctx, const nas_device_model *const *sources,
                              size_t n_sources, uint64_t seed, double **x, size_t *n) {
    const size_t width = sources[0]->encoder.n_features;
    size_t total = 0;
    for (size_t s = 0; s < n_sources; s++)
        total += sources[s]->rows.n;
    const size_t count = total < NAS__POOL_MAX ? total : NAS__POOL_MAX;
    double *pool = nas_alloc_array(ctx, count * width, sizeof *pool);
    if (pool == NULL) return NAS_ERR_NOMEM;
    nas_rng rng = nas_rng_stream(seed, total, "transfer-pool");
    size_t seen = 0, taken = 0; /* selection sampling (Knuth, algorithm S) */
    for (size_t s = 0; s < n_sources; s++) {
        for (size_t i = 0; i < sources[s]->rows.n; i++, seen++) {
            if (nas_rng_uniform(&rng) * (double)(total - seen) >= (double)(count - taken)) continue;
            memcpy(pool + taken++ * width, sources[s]->rows.x + i * width, width * sizeof *pool);
        }
    }
    *x = pool;
    *n = taken;
    return NAS_OK;
}

void nas__basis_deinit(nas__basis *b) {
    nas_free(b->center);
    nas_free(b->spread);
    *b = (nas__basis){0};
}

/* Shape features that no source follows (shares, say) are no device: they leave the basis and `all` [rows][width]. */
static void keep_followed(nas__basis *b, double *all, size_t rows) {
    const size_t before = b->width;
    bool kept[NAS__SOURCES_MAX + NAS__SHAPES_MAX] = {false};
    b->width = b->n;
    for (size_t s = 0; s < before; s++) {
        double best = s < b->n ? 1 : -1;
        for (size_t t = 0; t < b->n && s >= b->n; t++) {
            const double r = gsl_stats_correlation(all + s, before, all + t, before, rows);
            if (r > best) best = r; /* a constant has none */
        }
        kept[s] = best >= FOLLOWED;
        if (kept[s] && s >= b->n) {
            b->shapes[b->width - b->n] = b->shapes[s - b->n];
            b->width++;
        }
    }
    double *to = all;
    for (size_t i = 0; i < rows * before; i++)
        if (kept[i % before]) *to++ = all[i];
    b->shape_weight = b->width > b->n ? 1.0 / (double)(b->width - b->n) : 0;
}

nas_status nas__basis_of(nas_ctx *ctx, const nas_device_model *const *sources, size_t n,
                         const double *pool, size_t rows, nas__basis *out) {
    nas__basis b = {.n = n, .width = n, .sources = sources};
    const nas__encoder *encoder = &sources[0]->encoder;
    for (size_t k = 0; k < encoder->n_features && b.width < n + NAS__SHAPES_MAX; k++) {
        if (encoder->features[k].kind == NAS_FEATURE_SHAPE) b.shapes[b.width++ - n] = k;
    }
    b.center = nas_alloc_array(ctx, b.width, sizeof(double));
    b.spread = nas_alloc_array(ctx, b.width, sizeof(double));
    double *all = nas_alloc_array(ctx, rows * b.width, sizeof *all);
    nas_status status = b.center == NULL || b.spread == NULL || all == NULL
                            ? NAS_ERR_NOMEM
                            : raw_predictions(ctx, &b, pool, rows, all);
    if (status == NAS_OK) keep_followed(&b, all, rows);
    for (size_t s = 0; s < b.width && status == NAS_OK; s++) {
        double *column = all + s;
        gsl_sort(column, b.width, rows);
        b.center[s] = gsl_stats_median_from_sorted_data(column, b.width, rows);
        b.spread[s] = (gsl_stats_quantile_from_sorted_data(column, b.width, rows, 0.84) -
                       gsl_stats_quantile_from_sorted_data(column, b.width, rows, 0.16)) /
                      2;
        if (!(b.spread[s] > 1e-9)) b.spread[s] = 1;
        if (s < n) b.scale += b.spread[s] / (double)n;
    }
    nas_free(all);
    if (status != NAS_OK) {
        nas__basis_deinit(&b);
        return status;
    }
    *out = b;
    return NAS_OK;
}
