/* model.h - latency (or energy) of a device learned from a table: features of architectures in, a value with an
 * interval out; from its own rows, or from ten of them and the tables of other devices.
 *
 * Knows no graph, file or database: a caller brings numbers. Values keep the caller's unit, whatever it is. Everything
 * is deterministic for a seed and independent of the number of threads. Layer 3: includes core, ir by latency.h. */
#ifndef NAS_LATENCY_MODEL_H
#define NAS_LATENCY_MODEL_H

#include "latency/latency.h"

/* ---- tables ---------------------------------------------------------------------------------------------------- */

/* What a feature is, which decides how a model may use it. */
typedef enum nas_feature_kind {
    NAS_FEATURE_TERM, /* an amount of work, >= 0: MACs of a kernel family, bytes, counts. Latency is
                          close to a sum of them, each with a cost >= 0. */
    NAS_FEATURE_SHAPE, /* any finite number the latency varies with smoothly: logarithms, shares */
    NAS_FEATURE_CODE   /* a choice, a whole number 0..31 without order: operation of an edge */
} nas_feature_kind;

typedef struct nas_feature {
    const char *name; /* unique within a table, at most 63 characters */
    nas_feature_kind kind;
} nas_feature;

/* A table borrows everything; rows may repeat an architecture (equal features), which is then never on both sides of
 * an internal split. */
typedef struct nas_latency_table {
    const char *device;          /* name, for messages and explanations */
    const nas_feature *features; /* [n_features] */
    size_t n_features;           /* 1..512 */
    size_t n_rows;
    const double *x; /* [n_rows][n_features], finite */
    const double *y; /* [n_rows], finite, > 0; NULL where only features are asked for */
} nas_latency_table;

/* nas_latency_table_check - INVALID or RANGE naming device, row (from 0) and feature: nothing to learn from (zero rows
 * or features), a NaN, a negative term, a code that is none, y missing or not above 0, a name twice. Every function
 * below checks its tables so. with_y false: y is not looked at. */
nas_status nas_latency_table_check(nas_ctx *ctx, const nas_latency_table *table, bool with_y);

/* ---- fit ------------------------------------------------------------------------------------------------------- */

typedef struct nas_device_model_options {
    const char *model; /* "auto", or one of nas_device_model_names */
    uint64_t seed;     /* of folds and picks */
    double level;      /* share of measurements the interval is to hold, 0.5..0.99; 0.90 */
} nas_device_model_options;

nas_device_model_options nas_device_model_options_default(void); /* "auto", seed 1, 0.90 */

/* nas_device_model_names - NULL-terminated names that options.model may have besides "auto". */
const char *const *nas_device_model_names(void);

typedef struct nas_device_model nas_device_model;

/* nas_device_model_fit - learns from the rows of one device. Eight rows at least, else INVALID ("transfer" serves
 * fewer). The interval is conformal: held-out errors of the fit's own folds, so it holds for architectures like these.
 * Caller frees *out. */
nas_status nas_device_model_fit(nas_ctx *ctx, const nas_latency_table *table,
                                const nas_device_model_options *options, nas_device_model **out);

/* nas_device_model_transfer - learns a device from a few rows of its own (`target`, 3..100 different ones) and the tables of
 * other devices (all with the target's features, same order; any rows, eight at least; at most 64 devices). The
 * sources need not hold the target's architectures. NAS_ERR_INVALID naming the first feature that differs.
 * n_sources >= 1. */
nas_status nas_device_model_transfer(nas_ctx *ctx, const nas_latency_table *sources,
                                     size_t n_sources, const nas_latency_table *target,
                                     const nas_device_model_options *options,
                                     nas_device_model **out);

/* nas_device_model_transfer_from - the same from models fitted before (never transferred ones), which are borrowed and
 * must outlive *out: one set of sources serves many new devices. */
nas_status nas_device_model_transfer_from(nas_ctx *ctx, const nas_device_model *const *sources,
                                          size_t n_sources, const nas_latency_table *target,
                                          const nas_device_model_options *options,
                                          nas_device_model **out);

void nas_device_model_free(nas_device_model *model);

/* ---- which architectures to measure ---------------------------------------------------------------------------- */

typedef enum nas_pick {
    NAS_PICK_ACTIVE, /* those that tell the most about a device, judged from the sources alone */
    NAS_PICK_RANDOM
} nas_pick;

/* nas_device_model_pick - `count` different rows of `candidates` (y unused) to measure on a new device before
 * nas_device_model_transfer. index: [count], rows of candidates in the order to measure them. Rows with equal features
 * count once. INVALID when count is 0 or above the number of different rows. n_sources 0 is allowed for RANDOM. */
nas_status nas_device_model_pick(nas_ctx *ctx, const nas_latency_table *sources, size_t n_sources,
                                 const nas_latency_table *candidates, nas_pick how, size_t count,
                                 uint64_t seed, size_t *index);

nas_status nas_device_model_pick_from(nas_ctx *ctx, const nas_device_model *const *sources,
                                      size_t n_sources, const nas_latency_table *candidates,
                                      nas_pick how, size_t count, uint64_t seed, size_t *index);

/* ---- predict --------------------------------------------------------------------------------------------------- */

/* nas_device_model_predict - out: [n_rows], value and interval of options.level (fields of nas_prediction carry the
 * table's unit here). table: the features of the fit, same order, else INVALID; y unused. Rows are shared out to
 * threads (OpenMP); the values do not depend on how many. */
nas_status nas_device_model_predict(nas_ctx *ctx, const nas_device_model *model,
                                    const nas_latency_table *table, nas_prediction *out);

/* nas_device_model_predict_fast - the value alone, without interval: for filtering whole search spaces. The same value
 * as p50_us of nas_device_model_predict. */
nas_status nas_device_model_predict_fast(nas_ctx *ctx, const nas_device_model *model,
                                         const nas_latency_table *table, double *out);

/* ---- judge ----------------------------------------------------------------------------------------------------- */

typedef struct nas_device_model_quality {
    size_t n_train, n_test;
    double spearman,
        kendall;       /* rank correlation (ties: average ranks, tau-b); 0 when all are equal */
    double mape, rmse; /* fraction; the table's unit */
    double within5, within10; /* share of test rows within 5 and 10 % of the measurement */
    double coverage90;        /* share of test rows inside their interval (of options.level) */
    double width90;           /* median of (hi - lo) / measurement */
    double fit_s; /* wall time of the fit: the only number that is not deterministic ... */
    double predictions_per_s; /* ... besides this: rows of nas_device_model_predict_fast a second */
} nas_device_model_quality;

/* nas_device_model_evaluate - on rows with y that the fit has not seen. Two rows at least. */
nas_status nas_device_model_evaluate(nas_ctx *ctx, const nas_device_model *model,
                                     const nas_latency_table *test, nas_device_model_quality *out);
/* nas_device_model_quality_json - one JSON object with the keys above, appended to `out`. */
void nas_device_model_quality_json(const nas_device_model_quality *quality, nas_buf *out);

/* nas_rank_correlation - Spearman (average ranks) and Kendall tau-b of two columns; either output may be NULL. n >= 2;
 * 0 when one column is constant. */
nas_status nas_rank_correlation(nas_ctx *ctx, const double *a, const double *b, size_t n,
                                double *spearman, double *kendall);

/* ---- look inside, keep ------------------------------------------------------------------------------------------ */

/* nas_device_model_id - "gp/1 n=900", "transfer-gp/1 n=10 sources=9": stored with each prediction. Borrowed. */
const char *nas_device_model_id(const nas_device_model *model);
size_t nas_device_model_n_train(const nas_device_model *model);
double nas_device_model_level(const nas_device_model *model);
/* nas_device_model_features - the features a table for prediction must have; borrowed. *n: how many. */
const nas_feature *nas_device_model_features(const nas_device_model *model, size_t *n);

/* nas_device_model_explain - a JSON object appended to `out`: model, rows, noise (relative standard deviation the
 * model ascribes to the measurement), sources with their weights, and what each feature is worth: "features":
 * [{"name", "kind", "effect"}], effect = standard deviation of the log prediction when that feature alone moves over
 * the rows of the fit. */
nas_status nas_device_model_explain(nas_ctx *ctx, const nas_device_model *model, nas_buf *out);

/* nas_device_model_save - the whole model as one JSON object, appended to `out`; load gives back a model with equal
 * predictions, bit for bit. PARSE, RANGE or INVALID for a text that is not one; text need not end in NUL. */
nas_status nas_device_model_save(nas_ctx *ctx, const nas_device_model *model, nas_buf *out);
nas_status nas_device_model_load(nas_ctx *ctx, const char *text, size_t length,
                                 nas_device_model **out);

#endif
