/* predictor_internal.h - what the predictor's files share: a network as one row of numbers, and the model over rows.
 *
 * Latency of a generated network is close to a sum of physical terms (work of each kernel family, stores, per-row
 * bookkeeping of each layer, a fixed cost a frame) times a correction that varies slowly with the network's shape
 * (register tiles, caches). The terms are fitted first, the correction second; see predictor_model.c. */
#ifndef NAS_LATENCY_PREDICTOR_INTERNAL_H
#define NAS_LATENCY_PREDICTOR_INTERNAL_H

#include "latency/latency.h"

/* Terms of the sum, each with a cost per unit that is never negative. */
enum {
    NAS__TERM_FRAME,      /* 1: start and end of an inference */
    NAS__TERM_MACS_1X1,   /* 1e9 padded MACs of pointwise convolutions */
    NAS__TERM_MACS_3X3,   /* 1e9 padded MACs */
    NAS__TERM_MACS_OTHER, /* 1e9 padded MACs of every other convolution */
    NAS__TERM_OUTPUTS,    /* 1e6 padded outputs of convolutions: start values, activation, stores */
    NAS__TERM_ELEMENTS,   /* 1e6 padded elements of elementwise and shuffle nodes */
    NAS__TERM_ROWS, /* 1e3 rows times convolutions: loop and ring bookkeeping of a row pipeline */
    NAS__TERMS
};

/* Coordinates of a network's shape, all logarithms, in which the correction varies. */
enum {
    NAS__SHAPE_WORK,      /* all padded MACs */
    NAS__SHAPE_POINTWISE, /* share of them in 1x1 convolutions, not a logarithm: 0..1 */
    NAS__SHAPE_DEPTH,     /* convolutions */
    NAS__SHAPE_REUSE,     /* padded MACs an output: long sums amortise start and store */
    NAS__SHAPE_RING,      /* bytes of input rows at hand over all layers */
    NAS__SHAPES
};

typedef struct nas__network_row {
    double terms[NAS__TERMS];
    double shape[NAS__SHAPES];
    double latency_us;
    double weight; /* 1, less for noisy measurements */
    size_t
        group; /* rows of equal features share one: they are never split between training and test */
} nas__network_row;

nas_status nas__check_lanes(nas_ctx *ctx, int32_t lanes);
/* nas__network_features - terms and shape of a graph; UNSUPPORTED without any convolution. */
nas_status nas__network_features(nas_ctx *ctx, const nas_graph *graph, int32_t lanes,
                                 nas__network_row *out);

/* The correction is a Gaussian process over at most so many rows, the newest; the terms use every row. */
enum { NAS__CORRECTION_ROWS_MAX = 128 };

typedef struct nas__latency_hyper {
    double length;      /* of the correction, in standard deviations of the shape coordinates */
    double noise_share; /* of the residual's variance, (0, 1]; 1 = no correction at all */
} nas__latency_hyper;

typedef struct nas__latency_model {
    double cost[NAS__TERMS]; /* us per unit of each term, >= 0 */
    double center[NAS__SHAPES], spread[NAS__SHAPES];
    nas__latency_hyper hyper;
    double variance; /* of the log residual: correction and noise together */
    size_t n, cap;   /* rows of the correction */
    double *shape;   /* [n][NAS__SHAPES] standardised */
    double *factor;  /* [n][n] Cholesky factor of the kernel matrix, lower */
    double *alpha;   /* [n] kernel matrix ^-1 times log residuals */
} nas__latency_model;

/* nas__latency_model_init - room for `rows` rows (fewer are used when rows exceeds the maximum of the correction). */
nas_status nas__latency_model_init(nas_ctx *ctx, size_t rows, nas__latency_model *out);
void nas__latency_model_deinit(nas__latency_model *model);
/* nas__latency_model_fit - on rows[index[0..n)]; `fixed` NULL: chooses the hyper-parameters by likelihood. */
nas_status nas__latency_model_fit(nas_ctx *ctx, nas__latency_model *model,
                                  const nas__network_row *rows, const size_t *index, size_t n,
                                  const nas__latency_hyper *fixed);
/* nas__latency_model_predict - log of the latency in us, and its standard deviation before calibration. */
void nas__latency_model_predict(const nas__latency_model *model, const nas__network_row *row,
                                double *log_us, double *sd);

#endif
