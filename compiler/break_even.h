/* break_even.h - from which rate on a sparse layer is faster than the best dense kernel of the same layer, measured here,
 * in floats or in integers of 8 bits.
 *
 * A cell is one layer shape, pattern and rate. Its sparse kernels and the dense ones run by turns in one process, one
 * thread, so that what slows the machine down slows all of them. Only the ratio of one cell means something: times of
 * different cells were measured at different moments. Weights are random, masks their projections by magnitude. */
#ifndef NAS_COMPILER_BREAK_EVEN_H
#define NAS_COMPILER_BREAK_EVEN_H

#include "compiler/compiler.h"
#include "ir/sparsity.h"

/* A convolution with a square kernel in one group. */
typedef struct nas_sparse_shape {
    int32_t kernel, stride; /* 1..15, 1..8 */
    int32_t in_c, out_c;    /* 1..8192 */
    int32_t out_h, out_w;   /* 1..4096; more than one pixel */
} nas_sparse_shape;

enum { NAS_BREAK_EVEN_WAY_MAX = 40 };

typedef struct nas_sparse_cell {
    double
        rate; /* share of the weights that is zero; as close to what was asked as the pattern goes */
    double sparse_ns; /* the fastest sparse kernel */
    double dense_ns;  /* the fastest dense kernel, beside it */
    double direct_ns; /* the fastest that is not Winograd, beside it */
    double
        peak_gflops; /* a loop of multiply-adds in registers, beside it; 0 when the times are remembered */
    char way[NAS_BREAK_EVEN_WAY_MAX]; /* which sparse kernel that was */
    nas_sparsity_bytes bytes; /* of weights of `bits`; lists shared as the pattern has them */
} nas_sparse_cell;

typedef struct nas_break_even_options {
    const nas_compile_options *
        compile; /* target (has to run here), cache, memory: cells it knows are not measured again */
    const double *rates; /* ascending, 0..1 */
    int32_t n_rates;     /* 1..NAS_BREAK_EVEN_RATES_MAX */
    int32_t bits;        /* of weights and activations: 32, floats, or 8, integers */
    double seconds;      /* of measuring one cell, > 0 */
} nas_break_even_options;
enum { NAS_BREAK_EVEN_RATES_MAX = 32 };

/* nas_break_even_measure - the cells of one shape and pattern, out[n_rates]; N:M keeps round((1 - rate)*group) of a group,
 * at least one; 3x3 patterns alone reach their own rate, connectivity does the rest.
 * dense     which dense kernel is the fastest here
 * Errors: INVALID, RANGE (a number outside its bounds), UNSUPPORTED (target does not run here; pattern and shape do not
 * fit), those of nas_compile. */
nas_status nas_break_even_measure(nas_ctx *ctx, const nas_break_even_options *options,
                                  const nas_sparse_shape *shape, const nas_sparsity *pattern,
                                  char dense[NAS_BREAK_EVEN_WAY_MAX], nas_sparse_cell out[]);

/* nas_break_even_rate - the rate from which on every cell is faster than dense (`direct`: than the best kernel that is not
 * Winograd), between cells by a straight line through the ratios; 1 of n cells at least. False when there is none. */
bool nas_break_even_rate(const nas_sparse_cell *cells, int32_t n, bool direct, double *rate);

/* nas_sparsity_with_rate - the pattern at (about) this rate. */
nas_sparsity nas_sparsity_with_rate(const nas_sparsity *pattern, double rate);

#endif
