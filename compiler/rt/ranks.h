/* ranks.h - order statistics of sorted samples: quantiles, and the ranks that enclose the median. */
#ifndef RANKS_H
#define RANKS_H

#include <stddef.h>

enum {
    INTERVAL_MIN = 6,         /* samples from which ranks of a 95 % interval exist */
    EXACT_BINOMIAL_MAX = 1000 /* above it the normal approximation is good to a rank */
};

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile_sorted(const double *sorted, size_t n, double p) {
    const double at = p * (double)(n - 1);
    const size_t low = (size_t)at;
    if (low + 1 >= n) return sorted[n - 1];
    return sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low]);
}

/* Largest rank l (1-based) with P(Binomial(n, 1/2) < l) <= 0.025: x(l) .. x(n+1-l) covers the median with 95 %.
 * At least 1: below six samples the interval is the whole range. */
static size_t median_rank(size_t n) {
    if (n > EXACT_BINOMIAL_MAX) { /* (n - 1.96 sqrt(n)) / 2, without a square root */
        size_t l = n / 2;
        while (l > 1) {
            const double d = (double)n - 2.0 * (double)l;
            if (d * d >= 1.959963984540054 * 1.959963984540054 * (double)n) break;
            l--;
        }
        return l;
    }
    double p = 1.0;
    for (size_t i = 0; i < n; i++)
        p *= 0.5;
    double below = 0.0;
    for (size_t l = 1; l <= n; l++) { /* p = P(X = l - 1); below = P(X < l - 1) */
        below += p;
        if (below > 0.025) return l > 1 ? l - 1 : 1;
        p *= (double)(n - l + 1) / (double)l;
    }
    return 1;
}

#endif
