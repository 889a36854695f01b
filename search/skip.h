/* skip.h - what is not worth measuring, as pure functions: no study, no database, no clock.
 *
 * A forecast is an interval for a latency that was not measured. It may cost a candidate its measurement, and only when
 * even the end of the interval that speaks for the candidate does not save it; it never becomes a value of a candidate.
 * Shared inside search/ only. */
#ifndef NAS_SEARCH_SKIP_H
#define NAS_SEARCH_SKIP_H

#include "core/core.h"
#include "search/strategies/strategy.h"

typedef struct nas__forecast {
    bool is_set;
    double p50_us, lo_us, hi_us;
} nas__forecast;

/* nas__foretold_error - what forecasts of this study were off by: the share-th quantile, corrected for few pairs, of
 * |log(measured / forecast)|; the largest while the pairs are too few for it, 0 without any. An interval narrower than
 * that promises more than the device keeps, whatever the predictor's own rows say: on a machine that drifts they lie.
 * share      0.5..0.999
 * Unset forecasts are left out. */
nas_status nas__foretold_error(nas_ctx *ctx, const nas__forecast *forecasts,
                               const double *measured_us, size_t n, double share, double *out);
/* nas__widened - the forecast with an interval of at least exp(+-error) around its median, whose lower end is then
 * divided by `drift`: rows taken while the device was slower than at its calmest foretell too much by that.
 * error >= 0, drift >= 1 */
nas__forecast nas__widened(nas__forecast forecast, double error, double drift);

/* nas__certain_excess - by how much a latency certainly misses an upper bound, relative: 0 while the interval touches
 * (1 + margin) * bound, else lo / bound - 1. INFINITY as a bound is never missed.
 * bound_us > 0, margin >= 0 */
double nas__certain_excess(const nas__forecast *forecast, double bound_us, double margin);

/* nas__certainly_beaten - is there a member that is at least as good in all n objectives (minimised) as the best the
 * candidate may turn out to be? *which: the first such member.
 * best_case  [n]
 * members    [n_members][NAS_OBJECTIVES_MAX], measured ones */
bool nas__certainly_beaten(int32_t n, const double *best_case,
                           const double (*members)[NAS_OBJECTIVES_MAX], size_t n_members,
                           size_t *which);

/* How good forecasts were that were made before the measurement. */
typedef struct nas__foresight {
    size_t n;
    bool is_set;     /* three pairs at least */
    double spearman; /* 0 when one side is constant */
    double coverage; /* share of measurements inside the interval */
    double mape;     /* fraction */
} nas__foresight;

/* nas__foresight_of - forecasts[i] against measured_us[i]; unset forecasts are left out. */
nas_status nas__foresight_of(nas_ctx *ctx, const nas__forecast *forecasts,
                             const double *measured_us, size_t n, nas__foresight *out);

#endif
