/* model_internal.h - what the files of device models share: features as coordinates, the fitted model itself. */
#ifndef NAS_LATENCY_MODEL_INTERNAL_H
#define NAS_LATENCY_MODEL_INTERNAL_H

#include "latency/gp.h"
#include "latency/model.h"

enum {
    NAS__FEATURES_MAX = 512,
    NAS__CODE_MAX = 31,
    NAS__FIT_ROWS_MIN = 8,
    NAS__TRANSFER_ROWS_MIN = 3,
    NAS__TRANSFER_ROWS_MAX = 100,
    NAS__SOURCES_MAX = 64,
    NAS__FEATURE_NAME_MAX = 63
};

/* A coordinate: a feature standardised, or one code of a feature as 0 or 1, standardised. */
typedef struct nas__coordinate {
    size_t feature;
    int32_t code; /* -1: the number itself */
    double center, spread;
} nas__coordinate;

typedef struct nas__encoder {
    size_t n_features, d;
    nas_feature *features; /* [n_features], names owned */
    nas__coordinate *coordinates;
} nas__encoder;

/* nas__encoder_of - coordinates that are not constant over the table; one constant coordinate when all are. */
nas_status nas__encoder_of(nas_ctx *ctx, const nas_latency_table *table, nas__encoder *out);
void nas__encoder_deinit(nas__encoder *encoder);
void nas__encode(const nas__encoder *encoder, const double *x, double *out); /* [d] */
nas_status nas__encode_rows(nas_ctx *ctx, const nas__encoder *encoder, const double *x, size_t n,
                            double **out); /* [n][d], caller frees */
/* nas__same_features - INVALID naming the first feature of `table` that is not that of `features`. */
nas_status nas__same_features(nas_ctx *ctx, const char *what, const nas_feature *features, size_t n,
                              const nas_latency_table *table);

/* Rows of a table with equal features merged: mean of log y, weight = count. */
typedef struct nas__merged_rows {
    size_t n;
    double *x, *log_y, *weight; /* raw features [n][n_features] */
    size_t *of_row;             /* [rows of the table] where each went; NULL in a loaded model */
} nas__merged_rows;
nas_status nas__merge_rows(nas_ctx *ctx, const nas_latency_table *table, nas__merged_rows *out);
void nas__merged_rows_deinit(nas__merged_rows *rows);

/* nas__quantile_of_scores - the conformal quantile: the ceil((n+1) level)-th smallest; sorts scores; n >= 1. */
double nas__quantile_of_scores(double *scores, size_t n, double level);

typedef struct nas__transfer nas__transfer; /* model_transfer.c */

struct nas_device_model {
    char *device;
    char id[96];
    double level, quantile; /* interval = exp(log mean -+ quantile * sd) */
    double fit_s;
    uint64_t seed;
    size_t n_train; /* rows before merging */
    nas__encoder encoder;
    nas__merged_rows rows;   /* what the posterior is made of; kept for saving */
    nas__gp gp;              /* a model of its own rows */
    nas__transfer *transfer; /* or one by way of other devices; NULL */
};

nas_status nas__check_options(nas_ctx *ctx, const nas_device_model_options *options);

/* nas__transfer_new - from merged rows of the new device; sources (all with the same features) are borrowed until
 * nas__transfer_own hands them over. quantile NULL: not calibrated (it is known from an earlier fit). */
nas_status nas__transfer_new(nas_ctx *ctx, const nas_device_model *const *sources, size_t n_sources,
                             const nas__merged_rows *target, double level, uint64_t seed,
                             double *quantile, nas__transfer **out);
void nas__transfer_own(nas__transfer *t, nas_device_model **take_sources);
nas_status nas__transfer_pick(nas_ctx *ctx, const nas_device_model *const *sources,
                              size_t n_sources, const nas__merged_rows *candidates, size_t count,
                              uint64_t seed, size_t *picks);
/* nas__transfer_predict - raw features x [n][n_features]; sd may be NULL. */
nas_status nas__transfer_predict(nas_ctx *ctx, const nas__transfer *t, const double *x, size_t n,
                                 double *log_mean, double *sd);
void nas__transfer_free(nas__transfer *t);
/* nas__transfer_explain - key "sources": each with its agreement (correlation on the target's rows), and "shares". */
void nas__transfer_explain(const nas__transfer *t, nas_json *json);
double nas__transfer_noise(const nas__transfer *t); /* relative standard deviation */
size_t nas__transfer_sources(const nas__transfer *t, const nas_device_model *const **sources);

/* nas__model_predict_log - log mean and (sd not NULL) standard deviation before calibration, of raw features. */
nas_status nas__model_predict_log(nas_ctx *ctx, const nas_device_model *model, const double *x,
                                  size_t n, double *log_mean, double *sd);

#endif
