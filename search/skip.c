/* skip.c - see skip.h. */
#include "search/skip.h"

#include "latency/model.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

nas_status nas__foretold_error(nas_ctx *ctx, const nas__forecast *forecasts,
                               const double *measured_us, size_t n, double share, double *out) {
    double *errors = nas_alloc_array(ctx, n, sizeof *errors);
    if (errors == NULL) return NAS_ERR_NOMEM;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (forecasts[i].is_set) errors[count++] = fabs(log(measured_us[i] / forecasts[i].p50_us));
    }
    qsort(errors, count, sizeof *errors, ascending);
    const size_t rank = (size_t)ceil(((double)count + 1) * share);
    *out = count == 0 ? 0 : errors[(rank < count ? rank : count) - 1];
    nas_free(errors);
    return NAS_OK;
}

nas__forecast nas__widened(nas__forecast f, double error, double drift) {
    f.lo_us = fmin(f.lo_us, f.p50_us * exp(-error)) / fmax(drift, 1);
    f.hi_us = fmax(f.hi_us, f.p50_us * exp(error));
    return f;
}

double nas__certain_excess(const nas__forecast *forecast, double bound_us, double margin) {
    if (!forecast->is_set || !(forecast->lo_us > bound_us * (1 + margin))) return 0;
    return forecast->lo_us / bound_us - 1;
}

bool nas__certainly_beaten(int32_t n, const double *best_case,
                           const double (*members)[NAS_OBJECTIVES_MAX], size_t n_members,
                           size_t *which) {
    for (size_t i = 0; i < n_members; i++) {
        bool beaten = true;
        for (int32_t k = 0; k < n && beaten; k++)
            beaten = members[i][k] <= best_case[k];
        if (!beaten) continue;
        *which = i;
        return true;
    }
    return false;
}

nas_status nas__foresight_of(nas_ctx *ctx, const nas__forecast *forecasts,
                             const double *measured_us, size_t n, nas__foresight *out) {
    enum { PAIRS_MIN = 3 };
    nas__foresight f = {0};
    double *predicted = nas_alloc_array(ctx, n, sizeof *predicted);
    double *measured = nas_alloc_array(ctx, n, sizeof *measured);
    nas_status status = predicted == NULL || measured == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        if (!forecasts[i].is_set) continue;
        f.mape += fabs(forecasts[i].p50_us / measured_us[i] - 1);
        f.coverage +=
            forecasts[i].lo_us <= measured_us[i] && measured_us[i] <= forecasts[i].hi_us ? 1 : 0;
        predicted[f.n] = forecasts[i].p50_us;
        measured[f.n++] = measured_us[i];
    }
    f.is_set = f.n >= PAIRS_MIN;
    if (f.n > 0) {
        f.mape /= (double)f.n;
        f.coverage /= (double)f.n;
    }
    if (status == NAS_OK && f.is_set)
        status = nas_rank_correlation(ctx, predicted, measured, f.n, &f.spearman, NULL);
    nas_free(measured);
    nas_free(predicted);
    if (status == NAS_OK) *out = f;
    return status;
}
