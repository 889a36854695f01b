/* quantizer.c - rounding to a grid, and the search for its step. */
#include "compress/quantizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Shares of the range that a fit tries. */
enum { SHARES = 80 };

static const char *const kind_names[NAS_GRID_KIND_COUNT] = {"symmetric", "affine", "power"};
static const char *const method_names[NAS_CALIBRATION_COUNT] = {"minmax", "percentile", "mse"};

static int find(const char *const *names, int n, const char *name) {
    int i = 0;
    while (i < n && strcmp(names[i], name) != 0)
        i++;
    return i;
}

const char *nas_grid_kind_name(nas_grid_kind kind) {
    return kind < NAS_GRID_KIND_COUNT ? kind_names[kind] : "none";
}

nas_grid_kind nas_grid_kind_find(const char *name) {
    return (nas_grid_kind)find(kind_names, NAS_GRID_KIND_COUNT, name);
}

const char *nas_calibration_name(nas_calibration method) {
    return method < NAS_CALIBRATION_COUNT ? method_names[method] : "none";
}

nas_calibration nas_calibration_find(const char *name) {
    return (nas_calibration)find(method_names, NAS_CALIBRATION_COUNT, name);
}

/* ---- rounding ------------------------------------------------------------------------------------------------------- */

/* Neighbours scale*2^-i and half of it meet at 0.75 of the larger; the smallest meets 0 at its half. */
static float round_power(const nas_grid *g, float x) {
    float level = g->scale;
    const float size = fabsf(x);
    for (int32_t i = 0; i < (1 << (g->bits - 1)) - 2 && size < 0.75F * level; i++)
        level *= 0.5F;
    return size < 0.5F * level ? 0 : copysignf(level, x);
}

float nas_grid_round(const nas_grid *g, float x) {
    if (isnan(x)) return 0;
    const float most = (float)((1 << (g->bits - 1)) - 1);
    switch (g->kind) {
    case NAS_GRID_SYMMETRIC: return g->scale * fminf(fmaxf(rintf(x / g->scale), -most), most);
    case NAS_GRID_AFFINE: {
        const float zero = (float)g->zero_point, top = 2 * most + 1;
        return g->scale * (fminf(fmaxf(rintf(x / g->scale) + zero, 0), top) - zero);
    }
    case NAS_GRID_POWER: return round_power(g, x);
    case NAS_GRID_KIND_COUNT: break;
    }
    return x;
}

/* ---- ranges --------------------------------------------------------------------------------------------------------- */

nas_grid nas_grid_of_range(nas_grid_kind kind, int32_t bits, float low, float high, float share) {
    low = fminf(low, 0) * share;
    high = fmaxf(high, 0) * share;
    const float most = (float)((1 << (bits - 1)) - 1), top = 2 * most + 1;
    const float reach = fmaxf(-low, high);
    nas_grid g = {.kind = kind, .bits = bits, .scale = 1};
    switch (kind) {
    case NAS_GRID_SYMMETRIC: g.scale = reach / most; break;
    case NAS_GRID_AFFINE: g.scale = (high - low) / top; break;
    case NAS_GRID_POWER: g.scale = reach; break;
    case NAS_GRID_KIND_COUNT: break;
    }
    if (!(g.scale >= 1e-30F) || !isfinite(g.scale)) g.scale = 1; /* nothing but zeros */
    if (kind == NAS_GRID_AFFINE)
        g.zero_point = (int32_t)fminf(fmaxf(rintf(-low / g.scale), 0), top);
    return g;
}

static double error_of(const nas_grid *g, const float *x, const double *weight, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = (double)nas_grid_round(g, x[i]) - (double)x[i];
        sum += (weight == NULL ? 1 : weight[i]) * e * e;
    }
    return sum;
}

nas_grid nas_grid_fit(nas_grid_kind kind, int32_t bits, const float *x, const double *weight,
                      size_t n) {
    float low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    nas_grid best = nas_grid_of_range(kind, bits, low, high, 1);
    double least = error_of(&best, x, weight, n);
    for (int k = 1; k < SHARES; k++) {
        const nas_grid g = nas_grid_of_range(kind, bits, low, high, 1 - 0.01F * (float)k);
        const double error = error_of(&g, x, weight, n);
        if (error < least) {
            least = error;
            best = g;
        }
    }
    return best;
}

/* ---- activations ------------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

nas_status nas_grid_calibrate(nas_ctx *ctx, nas_calibration method, int32_t bits, float *x,
                              size_t n, nas_grid *out) {
    if (n == 0 || bits < 2 || bits > 8)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "calibration of %zu samples to %d bits: samples, and 2 to 8 bits, are "
                        "needed",
                        n, (int)bits);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return nas_fail(ctx, NAS_ERR_INVALID, "calibration: sample %zu is not finite", i);
    }
    qsort(x, n, sizeof *x, ascending);
    const size_t cut = n / 10000;
    switch (method) {
    case NAS_CALIBRATION_MIN_MAX:
        *out = nas_grid_of_range(NAS_GRID_AFFINE, bits, x[0], x[n - 1], 1);
        break;
    case NAS_CALIBRATION_PERCENTILE:
        *out = nas_grid_of_range(NAS_GRID_AFFINE, bits, x[cut], x[n - 1 - cut], 1);
        break;
    case NAS_CALIBRATION_MSE: *out = nas_grid_fit(NAS_GRID_AFFINE, bits, x, NULL, n); break;
    case NAS_CALIBRATION_COUNT:
        return nas_fail(ctx, NAS_ERR_INVALID, "calibration: no such method");
    }
    return NAS_OK;
}
