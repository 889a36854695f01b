/* model_quality.c - how well a device model predicts rows it has not seen. */
#include "latency/model_internal.h"

#include <gsl/gsl_sort.h>
#include <math.h>
#include <string.h>

/* ---- rank correlation ------------------------------------------------------------------------------------------- */

/* Average ranks of a; order: [n] scratch. */
static void ranks_of(const double *a, size_t n, size_t *order, double *ranks) {
    gsl_sort_index(order, a, 1, n);
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && a[order[end]] == a[order[i]])
            end++;
        for (size_t j = i; j < end; j++)
            ranks[order[j]] = 0.5 * (double)(i + end - 1);
        i = end;
    }
}

static double pearson(const double *a, const double *b, size_t n) {
    double mean_a = 0, mean_b = 0, ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        mean_a += a[i] / (double)n;
        mean_b += b[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        ab += (a[i] - mean_a) * (b[i] - mean_b);
        aa += (a[i] - mean_a) * (a[i] - mean_a);
        bb += (b[i] - mean_b) * (b[i] - mean_b);
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static double tied_pairs(const double *sorted, size_t n) {
    double pairs = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && sorted[end] == sorted[i])
            end++;
        const double count = (double)(end - i);
        pairs += 0.5 * count * (count - 1);
        i = end;
    }
    return pairs;
}

/* Exchanges that sort a[0..n) by merging: the discordant pairs. scratch: [n]. */
static double exchanges(double *a, size_t n, double *scratch) {
    double count = 0;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            const size_t middle = start + width < n ? start + width : n;
            const size_t end = start + 2 * width < n ? start + 2 * width : n;
            size_t i = start, j = middle;
            for (size_t k = start; k < end; k++) {
                if (i < middle && (j >= end || a[i] <= a[j])) {
                    scratch[k] = a[i++];
                } else {
                    scratch[k] = a[j++];
                    count += (double)(middle - i);
                }
            }
        }
        memcpy(a, scratch, n * sizeof *a);
    }
    return count;
}

/* Kendall's tau-b by Knight's algorithm (1966); ranks are overwritten. */
static double kendall_of(const double *rank_a, const double *rank_b, size_t n, size_t *order,
                         double *sorted, double *scratch) {
    /* Sort by a, then by b: one key of both, ranks being multiples of 1/2 below n. */
    for (size_t i = 0; i < n; i++)
        scratch[i] = 2 * rank_a[i] * (2 * (double)n + 1) + 2 * rank_b[i];
    gsl_sort_index(order, scratch, 1, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = scratch[order[i]];
    const double tied_both = tied_pairs(sorted, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = rank_a[order[i]];
    const double tied_a = tied_pairs(sorted, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = rank_b[order[i]];
    const double discordant = exchanges(sorted, n, scratch);
    const double tied_b = tied_pairs(sorted, n);
    const double pairs = 0.5 * (double)n * ((double)n - 1);
    const double scale = sqrt((pairs - tied_a) * (pairs - tied_b));
    return scale > 0 ? (pairs - tied_a - tied_b + tied_both - 2 * discordant) / scale : 0;
}

nas_status nas_rank_correlation(nas_ctx *ctx, const double *a, const double *b, size_t n,
                                double *spearman, double *kendall) {
    if (n < 2) {
        return nas_fail(ctx, NAS_ERR_INVALID, "rank correlation of %zu rows: two at least", n);
    }
    for (size_t i = 0; i < n; i++) {
        if (isfinite(a[i]) && isfinite(b[i])) continue;
        return nas_fail(ctx, NAS_ERR_INVALID, "rank correlation: row %zu is not finite", i);
    }
    double *ranks = nas_alloc_array(ctx, 4 * n, sizeof *ranks);
    size_t *order = nas_alloc_array(ctx, n, sizeof *order);
    const bool ok = ranks != NULL && order != NULL;
    if (ok) {
        ranks_of(a, n, order, ranks);
        ranks_of(b, n, order, ranks + n);
        if (spearman != NULL) *spearman = pearson(ranks, ranks + n, n);
        if (kendall != NULL)
            *kendall = kendall_of(ranks, ranks + n, n, order, ranks + 2 * n, ranks + 3 * n);
    }
    nas_free(order);
    nas_free(ranks);
    return ok ? NAS_OK : NAS_ERR_NOMEM;
}

/* ---- a model on a test table ------------------------------------------------------------------------------------ */

enum { RATE_ROWS = 2000 }; /* rows predicted at once to tell the rate */
#define RATE_SECONDS 0.02

static nas_status rate(nas_ctx *ctx, const nas_device_model *model, const nas_latency_table *test,
                       double *fast, double *per_s) {
    nas_latency_table part = *test;
    if (part.n_rows > RATE_ROWS) part.n_rows = RATE_ROWS;
    const int64_t start = nas_now_ns();
    double rows = 0, seconds = 0;
    while (seconds < RATE_SECONDS) {
        const nas_status status = nas_device_model_predict_fast(ctx, model, &part, fast);
        if (status != NAS_OK) return status;
        rows += (double)part.n_rows;
        seconds = (double)(nas_now_ns() - start) * 1e-9;
    }
    *per_s = rows / seconds;
    return NAS_OK;
}

static void sum_up(const nas_latency_table *test, const nas_prediction *predicted, double *width,
                   nas_device_model_quality *q) {
    const double n = (double)test->n_rows;
    double squares = 0;
    for (size_t i = 0; i < test->n_rows; i++) {
        const double y = test->y[i], off = predicted[i].p50_us - y, relative = fabs(off) / y;
        squares += off * off;
        q->mape += relative / n;
        q->within5 += relative <= 0.05 ? 1 / n : 0;
        q->within10 += relative <= 0.10 ? 1 / n : 0;
        q->coverage90 += predicted[i].lo_us <= y && y <= predicted[i].hi_us ? 1 / n : 0;
        width[i] = (predicted[i].hi_us - predicted[i].lo_us) / y;
    }
    q->rmse = sqrt(squares / n);
    gsl_sort(width, 1, test->n_rows);
    q->width90 = 0.5 * (width[(test->n_rows - 1) / 2] + width[test->n_rows / 2]);
}

nas_status nas_device_model_evaluate(nas_ctx *ctx, const nas_device_model *model,
                                     const nas_latency_table *test, nas_device_model_quality *out) {
    nas_status status = nas_latency_table_check(ctx, test, true);
    if (status != NAS_OK) return status;
    if (test->n_rows < 2) {
        return nas_fail(ctx, NAS_ERR_INVALID, "table of device '%s': %zu test row, two at least",
                        test->device != NULL ? test->device : "?", test->n_rows);
    }
    nas_prediction *predicted = nas_alloc_array(ctx, test->n_rows, sizeof *predicted);
    double *values = nas_alloc_array(ctx, test->n_rows, sizeof *values);
    nas_device_model_quality q = {
        .n_train = model->n_train, .n_test = test->n_rows, .fit_s = model->fit_s};
    status = predicted == NULL || values == NULL
                 ? NAS_ERR_NOMEM
                 : nas_device_model_predict(ctx, model, test, predicted);
    if (status == NAS_OK) {
        sum_up(test, predicted, values, &q);
        for (size_t i = 0; i < test->n_rows; i++)
            values[i] = predicted[i].p50_us;
        status = nas_rank_correlation(ctx, values, test->y, test->n_rows, &q.spearman, &q.kendall);
    }
    if (status == NAS_OK) status = rate(ctx, model, test, values, &q.predictions_per_s);
    nas_free(values);
    nas_free(predicted);
    if (status == NAS_OK) *out = q;
    return status;
}

void nas_device_model_quality_json(const nas_device_model_quality *q, nas_buf *out) {
    nas_json json = nas_json_begin(out);
    nas_json_object(&json);
    nas_json_key(&json, "n_train");
    nas_json_int(&json, (int64_t)q->n_train);
    nas_json_key(&json, "n_test");
    nas_json_int(&json, (int64_t)q->n_test);
    const struct {
        const char *key;
        double value;
    } values[] = {{"spearman", q->spearman},
                  {"kendall", q->kendall},
                  {"mape", q->mape},
                  {"rmse", q->rmse},
                  {"within5", q->within5},
                  {"within10", q->within10},
                  {"coverage90", q->coverage90},
                  {"width90", q->width90},
                  {"fit_s", q->fit_s},
                  {"predictions_per_s", q->predictions_per_s}};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        nas_json_key(&json, values[i].key);
        nas_json_double(&json, values[i].value);
    }
    nas_json_object_end(&json);
}
