/* exec_kernels.c - convolutions, outer products and elementwise loops in GCC/Clang vector extensions.
 *
 * Compiled once per instruction set (-DNAS_ISA=base|avx2|avx512). A register tile is P pixels x V vectors of outputs,
 * twelve accumulators at most so that they, the weights and one broadcast fit sixteen registers; they are named
 * variables, because arrays of them end up in memory. A pixel's sum runs over taps, then channels, whatever tile it
 * falls into: results do not depend on how images are cut into chunks and threads. */
#include "eval/exec_kernels.h"

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed to inlined functions only */

enum { LANES = NAS__EXEC_LANES };
typedef float vec __attribute__((vector_size(LANES * 4), may_alias));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), may_alias, aligned(4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), may_alias));

#define LOAD(p) (*(const vec_unaligned *)(p))
#define STORE(p, v) (*(vec_unaligned *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))

INLINE vec splat(float s) {
    return s - (vec){0};
}

INLINE vec choose(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

INLINE vec larger(vec a, vec b) {
    return choose(a > b, a, b);
}

INLINE vec clamped(vec a, vec lo, vec hi) {
    a = choose(a < lo, lo, a);
    return choose(a > hi, hi, a);
}

INLINE int32_t smaller(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* ---- register tiles ---------------------------------------------------------------------------------------- */

#define PIXELS_4(M) M(0) M(1) M(2) M(3)
#define PIXELS_6(M) PIXELS_4(M) M(4) M(5)
#define PIXELS_8(M) PIXELS_6(M) M(6) M(7)
#define VECTORS_1(M) M(0)
#define VECTORS_2(M) M(0) M(1)
#define VECTORS_3(M) M(0) M(1) M(2)
#define ROW_1(M, p) M(p, 0)
#define ROW_2(M, p) M(p, 0) M(p, 1)
#define ROW_3(M, p) M(p, 0) M(p, 1) M(p, 2)
#define EACH_4X3(M) ROW_3(M, 0) ROW_3(M, 1) ROW_3(M, 2) ROW_3(M, 3)
#define EACH_6X2(M) ROW_2(M, 0) ROW_2(M, 1) ROW_2(M, 2) ROW_2(M, 3) ROW_2(M, 4) ROW_2(M, 5)
#define EACH_8X1(M)                                                                                \
    ROW_1(M, 0)                                                                                    \
    ROW_1(M, 1) ROW_1(M, 2) ROW_1(M, 3) ROW_1(M, 4) ROW_1(M, 5) ROW_1(M, 6) ROW_1(M, 7)

/* Past the last pixel of the job the last one is repeated, which computes and stores the same values again. */
#define PLACE(p)                                                                                   \
    const int32_t i##p = smaller(first + p, job->pixels - 1);                                      \
    const float *restrict x##p = job->in + job->in_at[i##p];
#define ZERO(p, v) vec s##p##v = (vec){0};
#define WEIGHT(v) const vec w##v = LOAD(w + LANES * v);
#define MULTIPLY(p, v) s##p##v += w##v * x##p[at];
#define BIAS(p, v) s##p##v += LOAD(bias + LANES * v);
#define OLD(p, v) s##p##v += LOAD(job->out + job->out_at[i##p] + shift + LANES * v);
#define FINISH(p, v)                                                                               \
    STORE(job->out + job->out_at[i##p] + shift + LANES * v, clamped(s##p##v, lo, hi));

/* `shift`: first output of the block. */
#define CONV_TILE(name, PIXELS, EACH, VECTORS, n_vectors)                                          \
    INLINE void name(const nas__exec_conv *job, int32_t first, const float *restrict w,            \
                     ptrdiff_t shift) {                                                            \
        PIXELS(PLACE)                                                                              \
        EACH(ZERO)                                                                                 \
        for (int32_t t = 0; t < job->n_taps; t++) {                                                \
            const ptrdiff_t end = job->taps[t] + job->channels;                                    \
            for (ptrdiff_t at = job->taps[t]; at < end; at++) {                                    \
                VECTORS(WEIGHT)                                                                    \
                EACH(MULTIPLY)                                                                     \
                w += (n_vectors)*LANES;                                                            \
            }                                                                                      \
        }                                                                                          \
        const float *bias = job->bias + shift;                                                     \
        EACH(BIAS)                                                                                 \
        /* All of `out` is read before anything is stored: a repeated pixel is added to once. */   \
        if (job->accumulate) {                                                                     \
            EACH(OLD)                                                                              \
        }                                                                                          \
        const vec lo = splat(job->lo), hi = splat(job->hi);                                        \
        EACH(FINISH)                                                                               \
    }

CONV_TILE(conv_tile_3, PIXELS_4, EACH_4X3, VECTORS_3, 3)
CONV_TILE(conv_tile_2, PIXELS_6, EACH_6X2, VECTORS_2, 2)
CONV_TILE(conv_tile_1, PIXELS_8, EACH_8X1, VECTORS_1, 1)

static void conv(const nas__exec_conv *job) {
    enum { STRIP = 96 }; /* pixels whose taps stay in the first cache while all outputs pass */
    for (int32_t begin = 0; begin < job->pixels; begin += STRIP) {
        const int32_t end = smaller(begin + STRIP, job->pixels);
        const float *w = job->weights;
        for (int32_t v = 0; v < job->vectors;) {
            const int32_t n = nas__exec_block(job->vectors - v);
            const ptrdiff_t shift = (ptrdiff_t)v * LANES;
            if (n == 3) {
                for (int32_t p = begin; p < end; p += 4)
                    conv_tile_3(job, p, w, shift);
            } else if (n == 2) {
                for (int32_t p = begin; p < end; p += 6)
                    conv_tile_2(job, p, w, shift);
            } else {
                for (int32_t p = begin; p < end; p += 8)
                    conv_tile_1(job, p, w, shift);
            }
            w += (ptrdiff_t)job->n_taps * job->channels * n * LANES;
            v += n;
        }
    }
}

static void depthwise(const nas__exec_conv *job) {
    const vec lo = splat(job->lo), hi = splat(job->hi);
    const ptrdiff_t width = (ptrdiff_t)job->vectors * LANES;
    for (int32_t p = 0; p < job->pixels; p++) {
        const float *restrict in = job->in + job->in_at[p];
        float *restrict out = job->out + job->out_at[p];
        for (ptrdiff_t c = 0; c < width; c += LANES) {
            vec sum = (vec){0};
            for (int32_t t = 0; t < job->n_taps; t++)
                sum += LOAD(in + job->taps[t] + c) * LOAD(job->weights + t * width + c);
            STORE(out + c, clamped(sum + LOAD(job->bias + c), lo, hi));
        }
    }
}

/* ---- outer products ---------------------------------------------------------------------------------------- */

#define A_PLACE(p) const ptrdiff_t a##p = smaller(first + p, job->n_a - 1);
#define OUTER(p, v) s##p##v += w##v * a[a##p];
#define OUT_OLD(p, v) s##p##v += LOAD(out + a##p * job->out_row + LANES * v);
#define OUT_STORE(p, v) STORE(out + a##p * job->out_row + LANES * v, s##p##v);

#define OUTER_TILE(name, PIXELS, EACH, VECTORS)                                                    \
    INLINE void name(const nas__exec_outer *job, int32_t first, ptrdiff_t shift) {                 \
        PIXELS(A_PLACE)                                                                            \
        EACH(ZERO)                                                                                 \
        for (int32_t r = 0; r < job->rows; r++) {                                                  \
            const float *restrict a = job->a + job->a_at[r];                                       \
            const float *restrict w = job->b + job->b_at[r] + shift;                               \
            VECTORS(WEIGHT)                                                                        \
            EACH(OUTER)                                                                            \
        }                                                                                          \
        float *out = job->out + shift;                                                             \
        EACH(OUT_OLD)                                                                              \
        EACH(OUT_STORE)                                                                            \
    }

OUTER_TILE(outer_tile_3, PIXELS_4, EACH_4X3, VECTORS_3)
OUTER_TILE(outer_tile_2, PIXELS_6, EACH_6X2, VECTORS_2)
OUTER_TILE(outer_tile_1, PIXELS_8, EACH_8X1, VECTORS_1)

static void outer(const nas__exec_outer *job) {
    for (int32_t v = 0; v < job->vectors;) {
        const int32_t n = nas__exec_block(job->vectors - v);
        const ptrdiff_t shift = (ptrdiff_t)v * LANES;
        if (n == 3) {
            for (int32_t i = 0; i < job->n_a; i += 4)
                outer_tile_3(job, i, shift);
        } else if (n == 2) {
            for (int32_t i = 0; i < job->n_a; i += 6)
                outer_tile_2(job, i, shift);
        } else {
            for (int32_t i = 0; i < job->n_a; i += 8)
                outer_tile_1(job, i, shift);
        }
        v += n;
    }
}

/* ---- flat loops -------------------------------------------------------------------------------------------- */

static void add_clamp(const float *a, const float *b, float *out, size_t n, float lo, float hi) {
    const vec l = splat(lo), h = splat(hi);
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, clamped(LOAD(a + i) + LOAD(b + i), l, h));
}

static void clamp(const float *a, float *out, size_t n, float lo, float hi) {
    const vec l = splat(lo), h = splat(hi);
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, clamped(LOAD(a + i), l, h));
}

static void max(const float *a, float *inout, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        STORE(inout + i, larger(LOAD(a + i), LOAD(inout + i)));
}

static void add_scaled(const float *a, float factor, float *inout, size_t n) {
    const vec f = splat(factor);
    for (size_t i = 0; i < n; i += LANES)
        STORE(inout + i, LOAD(inout + i) + f * LOAD(a + i));
}

static void multiply_add(const float *a, const float *b, float *inout, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        STORE(inout + i, LOAD(inout + i) + LOAD(a + i) * LOAD(b + i));
}

static void affine(const float *a, const float *scale, const float *bias, float *out, size_t n,
                   float lo, float hi) {
    const vec l = splat(lo), h = splat(hi);
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, clamped(LOAD(a + i) * LOAD(scale + i) + LOAD(bias + i), l, h));
}

static void gate(const float *y, const float *dy, float *out, size_t n, float lo, float hi) {
    const vec l = splat(lo), h = splat(hi);
    for (size_t i = 0; i < n; i += LANES) {
        const vec at = LOAD(y + i);
        STORE(out + i, (vec)((ivec)LOAD(dy + i) & (at > l) & (at < h)));
    }
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

const nas__exec_kernels JOIN(nas__exec_kernels_, NAS_ISA) = {
    .name = TEXT(NAS_ISA),
    .conv = conv,
    .depthwise = depthwise,
    .outer = outer,
    .add_clamp = add_clamp,
    .clamp = clamp,
    .max = max,
    .add_scaled = add_scaled,
    .multiply_add = multiply_add,
    .affine = affine,
    .gate = gate,
};
