/* statistics.c - order statistics of latency samples: means say little when a few batches are several times slower. */
#include "latency/latency.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <limits.h>
#include <math.h>
#include <string.h>

/* Largest rank l (1-based) with P(Binomial(n, 1/2) < l) <= 0.025: [x(l), x(n+1-l)] covers the median with at least
 * 95 %. Below six samples no such rank exists: 1, the whole range. (David & Nagaraja, Order Statistics, 7.1) */
static size_t median_rank(size_t n) {
    size_t low = 0, high = n / 2; /* invariant: rank low + 1 is good, unless low is 0 */
    while (low < high) {
        const size_t middle = (low + high + 1) / 2;
        if (gsl_cdf_binomial_P((unsigned)(middle - 1), 0.5, (unsigned)n) <= 0.025) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low > 0 ? low : 1;
}

nas_status nas_sample_stats_of(nas_ctx *ctx, const double *samples, size_t n,
                               nas_sample_stats *out) {
    if (n < 1 || n > INT_MAX)
        return nas_fail(ctx, NAS_ERR_INVALID, "statistics of %zu samples: need 1 or more", n);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(samples[i]))
            return nas_fail(ctx, NAS_ERR_INVALID, "sample %zu is not finite", i);
    }
    double *sorted = nas_alloc_array(ctx, n, sizeof *sorted);
    if (sorted == NULL) return NAS_ERR_NOMEM;
    memcpy(sorted, samples, n * sizeof *sorted);
    gsl_sort(sorted, 1, n);
    const size_t rank = median_rank(n);
    nas_sample_stats s = {
        .n = n,
        .median = gsl_stats_median_from_sorted_data(sorted, 1, n),
        .median_lo = sorted[rank - 1],
        .median_hi = sorted[n - rank],
        .p10 = gsl_stats_quantile_from_sorted_data(sorted, 1, n, 0.1),
        .p90 = gsl_stats_quantile_from_sorted_data(sorted, 1, n, 0.9),
        .min = sorted[0],
        .max = sorted[n - 1],
    };
    for (size_t i = 0; i < n; i++)
        sorted[i] = fabs(sorted[i] - s.median);
    gsl_sort(sorted, 1, n);
    s.mad = gsl_stats_median_from_sorted_data(sorted, 1, n);
    nas_free(sorted);
    *out = s;
    return NAS_OK;
}
