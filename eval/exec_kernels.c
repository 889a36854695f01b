/* exec_kernels.c - convolutions, outer products and elementwise loops in GCC/Clang vector extensions.
 *
 * Compiled once per instruction set (-DNAS_ISA=base|avx2|avx512). A register tile is P pixels x V vectors of outputs. With
 * sixteen registers it has twelve accumulators at most, so that they, the weights and one broadcast fit; with the
 * thirty-two of AVX-512 two vectors of the layout make one of the tile. Accumulators are named variables, because arrays
 * of them end up in memory. A pixel's sum runs over taps, then channels, whatever tile it falls into: results do not
 * depend on how images are cut into chunks and threads. */
#include "eval/exec_kernels.h"

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed to inlined functions only */

#define INLINE static inline __attribute__((always_inline))

#define VECTOR_TYPE(vec, lanes)                                                                    \
    typedef float vec __attribute__((vector_size((lanes)*4), may_alias));                          \
    typedef float vec##_unaligned __attribute__((vector_size((lanes)*4), may_alias, aligned(4)));  \
    typedef int32_t vec##_mask __attribute__((vector_size((lanes)*4), may_alias));                 \
    INLINE vec vec##_splat(float s) {                                                              \
        return s - (vec){0};                                                                       \
    }                                                                                              \
    INLINE vec vec##_choose(vec##_mask mask, vec a, vec b) {                                       \
        return (vec)((mask & (vec##_mask)a) | (~mask & (vec##_mask)b));                            \
    }                                                                                              \
    INLINE vec vec##_clamped(vec a, vec lo, vec hi) {                                              \
        a = vec##_choose(a < lo, lo, a);                                                           \
        return vec##_choose(a > hi, hi, a);                                                        \
    }

enum { LANES = NAS__EXEC_LANES };
VECTOR_TYPE(vec, LANES)
#if defined(__AVX512F__)
VECTOR_TYPE(wide, 2 * LANES)
#endif

#define LOAD(p) (*(const vec_unaligned *)(p))
#define STORE(p, v) (*(vec_unaligned *)(p) = (v))

INLINE int32_t smaller(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* ---- register tiles ---------------------------------------------------------------------------------------- */

#define EACH_4(M) M(0) M(1) M(2) M(3)
#define EACH_6(M) EACH_4(M) M(4) M(5)
#define EACH_8(M) EACH_6(M) M(6) M(7)
#define EACH_16(M) EACH_8(M) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define VECTORS_1(M) M(0)
#define VECTORS_2(M) M(0) M(1)
#define VECTORS_3(M) M(0) M(1) M(2)
#define ROW_1(M, p) M(p, 0)
#define ROW_2(M, p) M(p, 0) M(p, 1)
#define ROW_3(M, p) M(p, 0) M(p, 1) M(p, 2)
#define EACH_4X3(M) ROW_3(M, 0) ROW_3(M, 1) ROW_3(M, 2) ROW_3(M, 3)
#define EACH_4X2(M) ROW_2(M, 0) ROW_2(M, 1) ROW_2(M, 2) ROW_2(M, 3)
#define EACH_6X2(M) EACH_4X2(M) ROW_2(M, 4) ROW_2(M, 5)
#define EACH_8X2(M) EACH_6X2(M) ROW_2(M, 6) ROW_2(M, 7)
#define EACH_4X1(M) ROW_1(M, 0) ROW_1(M, 1) ROW_1(M, 2) ROW_1(M, 3)
#define EACH_8X1(M)                                                                                \
    ROW_1(M, 0)                                                                                    \
    ROW_1(M, 1) ROW_1(M, 2) ROW_1(M, 3) ROW_1(M, 4) ROW_1(M, 5) ROW_1(M, 6) ROW_1(M, 7)
#define EACH_16X1(M)                                                                               \
    EACH_8X1(M)                                                                                    \
    ROW_1(M, 8)                                                                                    \
    ROW_1(M, 9) ROW_1(M, 10) ROW_1(M, 11) ROW_1(M, 12) ROW_1(M, 13) ROW_1(M, 14) ROW_1(M, 15)

/* Of the tile's own vector type; TILE_LANES is an enum of the function. */
#define TILE_LOAD(p) (*(const tile_unaligned *)(p))
#define TILE_STORE(p, v) (*(tile_unaligned *)(p) = (v))
#define TILE_OF(type)                                                                              \
    typedef type tile;                                                                             \
    typedef type##_unaligned tile_unaligned;                                                       \
    enum { TILE_LANES = sizeof(tile) / sizeof(float) };

/* Past the last pixel of the job the last one is repeated, which computes and stores the same values again. */
#define PLACE(p)                                                                                   \
    const int32_t i##p = smaller(first + p, job->pixels - 1);                                      \
    const float *restrict x##p = job->in + job->in_at[i##p];
#define ZERO(p, v) tile s##p##v = (tile){0};
#define WEIGHT(v) const tile w##v = TILE_LOAD(w + TILE_LANES * v);
#define MULTIPLY(p, v) s##p##v += w##v * x##p[at];
#define BIAS(p, v) s##p##v += TILE_LOAD(bias + TILE_LANES * v);
#define OLD(p, v) s##p##v += TILE_LOAD(job->out + job->out_at[i##p] + shift + TILE_LANES * v);
#define FINISH(p, v)                                                                               \
    TILE_STORE(job->out + job->out_at[i##p] + shift + TILE_LANES * v, CLAMPED(s##p##v, lo, hi));

/* `shift`: first output of the block. */
#define CONV_TILE(name, type, PIXELS, EACH, VECTORS, n_vectors)                                    \
    INLINE void name(const nas__exec_conv *job, int32_t first, const float *restrict w,            \
                     ptrdiff_t shift) {                                                            \
        TILE_OF(type)                                                                              \
        PIXELS(PLACE)                                                                              \
        EACH(ZERO)                                                                                 \
        for (int32_t t = 0; t < job->n_taps; t++) {                                                \
            const ptrdiff_t end = job->taps[t] + job->channels;                                    \
            for (ptrdiff_t at = job->taps[t]; at < end; at++) {                                    \
                VECTORS(WEIGHT)                                                                    \
                EACH(MULTIPLY)                                                                     \
                w += (n_vectors)*TILE_LANES;                                                       \
            }                                                                                      \
        }                                                                                          \
        const float *bias = job->bias + shift;                                                     \
        EACH(BIAS)                                                                                 \
        /* All of `out` is read before anything is stored: a repeated pixel is added to once. */   \
        if (job->accumulate) {                                                                     \
            EACH(OLD)                                                                              \
        }                                                                                          \
        const tile lo = type##_splat(job->lo), hi = type##_splat(job->hi);                         \
        EACH(FINISH)                                                                               \
    }

/* Tiles for blocks of `n` vectors, from the largest on: TILES(M) calls M(n, pixels, name). */
#if defined(__AVX512F__)
#define CLAMPED wide_clamped
CONV_TILE(conv_tile_4, wide, EACH_8, EACH_8X2, VECTORS_2, 2)
CONV_TILE(conv_tile_2, wide, EACH_8, EACH_8X1, VECTORS_1, 1)
#undef CLAMPED
#define CLAMPED vec_clamped
CONV_TILE(conv_tile_1, vec, EACH_8, EACH_8X1, VECTORS_1, 1)
#define CONV_TILES(M) M(4, 8) M(2, 8) M(1, 8)

static int32_t block(int32_t left) {
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}
#else
#define CLAMPED vec_clamped
CONV_TILE(conv_tile_3, vec, EACH_4, EACH_4X3, VECTORS_3, 3)
CONV_TILE(conv_tile_2, vec, EACH_6, EACH_6X2, VECTORS_2, 2)
CONV_TILE(conv_tile_1, vec, EACH_8, EACH_8X1, VECTORS_1, 1)
#define CONV_TILES(M) M(3, 4) M(2, 6) M(1, 8)

/* Three while that leaves no single one behind. */
static int32_t block(int32_t left) {
    return left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
}
#endif

static void conv(const nas__exec_conv *job) {
    enum { STRIP = 96 }; /* pixels whose taps stay in the first cache while all outputs pass */
    for (int32_t begin = 0; begin < job->pixels; begin += STRIP) {
        const int32_t end = smaller(begin + STRIP, job->pixels);
        const float *w = job->weights;
        for (int32_t v = 0; v < job->vectors;) {
            const int32_t n = block(job->vectors - v);
            const ptrdiff_t shift = (ptrdiff_t)v * LANES;
#define CONV_BLOCK(vectors, pixels)                                                                \
    for (int32_t p = begin; n == (vectors) && p < end; p += (pixels))                              \
        conv_tile_##vectors(job, p, w, shift);
            CONV_TILES(CONV_BLOCK)
            w += (ptrdiff_t)job->n_taps * job->channels * n * LANES;
            v += n;
        }
    }
}

static void depthwise(const nas__exec_conv *job) {
    const vec lo = vec_splat(job->lo), hi = vec_splat(job->hi);
    const ptrdiff_t width = (ptrdiff_t)job->vectors * LANES;
    for (int32_t p = 0; p < job->pixels; p++) {
        const float *restrict in = job->in + job->in_at[p];
        float *restrict out = job->out + job->out_at[p];
        for (ptrdiff_t c = 0; c < width; c += LANES) {
            vec sum = (vec){0};
            for (int32_t t = 0; t < job->n_taps; t++)
                sum += LOAD(in + job->taps[t] + c) * LOAD(job->weights + t * width + c);
            STORE(out + c, vec_clamped(sum + LOAD(job->bias + c), lo, hi));
        }
    }
}

/* ---- outer products ---------------------------------------------------------------------------------------- */

/* `whole`: the tile has all its rows of a; constant offsets then, otherwise its last row is repeated. */
#define A_PLACE(p) const ptrdiff_t a##p = whole ? p : smaller(first + p, job->n_a - 1) - first;
#define OUTER(p, v) s##p##v += w##v * a[a##p];
#define OUT_OLD(p, v) s##p##v += TILE_LOAD(out + a##p * job->out_row + TILE_LANES * v);
#define OUT_STORE(p, v) TILE_STORE(out + a##p * job->out_row + TILE_LANES * v, s##p##v);

#define OUTER_TILE(name, type, PIXELS, EACH, VECTORS)                                              \
    INLINE void name(const nas__exec_outer *job, int32_t first, ptrdiff_t shift, bool whole) {     \
        TILE_OF(type)                                                                              \
        PIXELS(A_PLACE)                                                                            \
        EACH(ZERO)                                                                                 \
        for (int32_t r = 0; r < job->rows; r++) {                                                  \
            const float *restrict a = job->a + job->a_at[r] + first;                               \
            const float *restrict w = job->b + job->b_at[r] + shift;                               \
            VECTORS(WEIGHT)                                                                        \
            EACH(OUTER)                                                                            \
        }                                                                                          \
        float *out = job->out + first * job->out_row + shift;                                      \
        EACH(OUT_OLD)                                                                              \
        EACH(OUT_STORE)                                                                            \
    }

/* From the tile of most rows on, W(vectors, rows) takes whole ones and R(vectors, rows) what is left after them. */
#if defined(__AVX512F__)
OUTER_TILE(outer_tile_4x8, wide, EACH_8, EACH_8X2, VECTORS_2)
OUTER_TILE(outer_tile_4x4, wide, EACH_4, EACH_4X2, VECTORS_2)
OUTER_TILE(outer_tile_2x16, wide, EACH_16, EACH_16X1, VECTORS_1)
OUTER_TILE(outer_tile_2x8, wide, EACH_8, EACH_8X1, VECTORS_1)
OUTER_TILE(outer_tile_2x4, wide, EACH_4, EACH_4X1, VECTORS_1)
OUTER_TILE(outer_tile_1x16, vec, EACH_16, EACH_16X1, VECTORS_1)
OUTER_TILE(outer_tile_1x8, vec, EACH_8, EACH_8X1, VECTORS_1)
OUTER_TILE(outer_tile_1x4, vec, EACH_4, EACH_4X1, VECTORS_1)
#define OUTER_TILES(W, R)                                                                          \
    W(4, 8) W(4, 4) R(4, 4) W(2, 16) W(2, 8) W(2, 4) R(2, 4) W(1, 16) W(1, 8) W(1, 4) R(1, 4)
#else
OUTER_TILE(outer_tile_3x4, vec, EACH_4, EACH_4X3, VECTORS_3)
OUTER_TILE(outer_tile_2x6, vec, EACH_6, EACH_6X2, VECTORS_2)
OUTER_TILE(outer_tile_1x8, vec, EACH_8, EACH_8X1, VECTORS_1)
#define OUTER_TILES(W, R) W(3, 4) R(3, 4) W(2, 6) R(2, 6) W(1, 8) R(1, 8)
#endif

static void outer(const nas__exec_outer *job) {
    for (int32_t v = 0; v < job->vectors;) {
        const int32_t n = block(job->vectors - v);
        const ptrdiff_t shift = (ptrdiff_t)v * LANES;
        int32_t i = 0;
#define OUTER_WHOLE(vectors, tile_rows)                                                            \
    for (; n == (vectors) && job->n_a - i >= (tile_rows); i += (tile_rows))                        \
        outer_tile_##vectors##x##tile_rows(job, i, shift, true);
#define OUTER_REST(vectors, tile_rows)                                                             \
    if (n == (vectors) && i < job->n_a) outer_tile_##vectors##x##tile_rows(job, i, shift, false);
        OUTER_TILES(OUTER_WHOLE, OUTER_REST)
        v += n;
    }
}

/* ---- flat loops -------------------------------------------------------------------------------------------- */

static void add_clamp(const float *a, const float *b, float *out, size_t n, float lo, float hi) {
    const vec l = vec_splat(lo), h = vec_splat(hi);
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, vec_clamped(LOAD(a + i) + LOAD(b + i), l, h));
}

static void clamp(const float *a, float *out, size_t n, float lo, float hi) {
    const vec l = vec_splat(lo), h = vec_splat(hi);
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, vec_clamped(LOAD(a + i), l, h));
}

static void max(const float *a, float *inout, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        STORE(inout + i, vec_choose(LOAD(a + i) > LOAD(inout + i), LOAD(a + i), LOAD(inout + i)));
}

static void add_scaled(const float *a, float factor, float *inout, size_t n) {
    const vec f = vec_splat(factor);
    for (size_t i = 0; i < n; i += LANES)
        STORE(inout + i, LOAD(inout + i) + f * LOAD(a + i));
}

static void multiply_add(const float *a, const float *b, float *inout, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        STORE(inout + i, LOAD(inout + i) + LOAD(a + i) * LOAD(b + i));
}

static void affine(const float *a, const float *scale, const float *bias, float *out, size_t n,
                   float lo, float hi) {
    const vec l = vec_splat(lo), h = vec_splat(hi);
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, vec_clamped(LOAD(a + i) * LOAD(scale + i) + LOAD(bias + i), l, h));
}

static void gate(const float *y, const float *dy, float *out, size_t n, float lo, float hi) {
    const vec l = vec_splat(lo), h = vec_splat(hi);
    for (size_t i = 0; i < n; i += LANES) {
        const vec at = LOAD(y + i);
        STORE(out + i, (vec)((vec_mask)LOAD(dy + i) & (at > l) & (at < h)));
    }
}

/* ---- normalisations ---------------------------------------------------------------------------------------- */

/* Four chains of sums: a single one would wait for each addition. */
static void norm_moments(const nas__exec_norm_row *row) {
    const ptrdiff_t step = row->x_step;
    for (int32_t c = 0; c < row->channels; c += LANES) {
        const vec center = LOAD(row->center + c);
        const float *x = row->x + c;
        vec sums[2] = {{0}}, squares[2] = {{0}};
        int32_t p = 0;
        for (; p + 1 < row->pixels; p += 2, x += 2 * step) {
            const vec a = LOAD(x) - center, b = LOAD(x + step) - center;
            sums[0] += a;
            sums[1] += b;
            squares[0] += a * a;
            squares[1] += b * b;
        }
        if (p < row->pixels) {
            const vec a = LOAD(x) - center;
            sums[0] += a;
            squares[0] += a * a;
        }
        STORE(row->sums + c, LOAD(row->sums + c) + (sums[0] + sums[1]));
        STORE(row->products + c, LOAD(row->products + c) + (squares[0] + squares[1]));
    }
}

typedef double sum_vec __attribute__((vector_size(LANES * 8), may_alias, aligned(8)));

/* Squares of floats are exact in doubles: the same bits with every instruction set. */
static void moments(const float *x, ptrdiff_t step, int32_t pixels, int32_t channels, double *sums,
                    double *squares) {
    int32_t c = 0;
    for (; c + LANES <= channels; c += LANES) {
        sum_vec s = *(const sum_vec *)(sums + c), q = *(const sum_vec *)(squares + c);
        for (int32_t p = 0; p < pixels; p++) {
            const sum_vec v = __builtin_convertvector(LOAD(x + p * step + c), sum_vec);
            s += v;
            q += v * v;
        }
        *(sum_vec *)(sums + c) = s;
        *(sum_vec *)(squares + c) = q;
    }
    for (; c < channels; c++) {
        for (int32_t p = 0; p < pixels; p++) {
            const double v = (double)x[p * step + c];
            sums[c] += v;
            squares[c] += v * v;
        }
    }
}

static void norm_apply(const nas__exec_norm_row *row, float lo, float hi) {
    const vec l = vec_splat(lo), h = vec_splat(hi);
    for (int32_t c = 0; c < row->channels; c += LANES) {
        const vec scale = LOAD(row->scale + c), shift = LOAD(row->shift + c);
        const float *x = row->x + c;
        float *y = row->y + c;
        for (int32_t p = 0; p < row->pixels; p++, x += row->x_step, y += row->y_step)
            STORE(y, vec_clamped(LOAD(x) * scale + shift, l, h));
    }
}

static void norm_slopes(const nas__exec_norm_row *row) {
    for (int32_t c = 0; c < row->channels; c += LANES) {
        const vec center = LOAD(row->center + c);
        const float *x = row->x + c, *dy = row->dy + c;
        vec sums[2] = {{0}}, products[2] = {{0}};
        int32_t p = 0;
        for (; p + 1 < row->pixels; p += 2, x += 2 * row->x_step, dy += 2 * row->y_step) {
            const vec a = LOAD(dy), b = LOAD(dy + row->y_step);
            sums[0] += a;
            sums[1] += b;
            products[0] += a * (LOAD(x) - center);
            products[1] += b * (LOAD(x + row->x_step) - center);
        }
        if (p < row->pixels) {
            const vec a = LOAD(dy);
            sums[0] += a;
            products[0] += a * (LOAD(x) - center);
        }
        STORE(row->sums + c, LOAD(row->sums + c) + (sums[0] + sums[1]));
        STORE(row->products + c, LOAD(row->products + c) + (products[0] + products[1]));
    }
}

static void norm_back(const nas__exec_norm_row *row) {
    for (int32_t c = 0; c < row->channels; c += LANES) {
        const vec center = LOAD(row->center + c), slope = LOAD(row->slope + c);
        const vec scale = LOAD(row->scale + c), shift = LOAD(row->shift + c);
        const float *x = row->x + c, *dy = row->dy + c;
        float *dx = row->dx + c;
        for (int32_t p = 0; p < row->pixels; p++) {
            STORE(dx, LOAD(dx) + (scale * LOAD(dy) + (slope * (LOAD(x) - center) + shift)));
            x += row->x_step;
            dx += row->x_step;
            dy += row->y_step;
        }
    }
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

const nas__exec_kernels JOIN(nas__exec_kernels_, NAS_ISA) = {
    .name = TEXT(NAS_ISA),
    .block = block,
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
    .norm_moments = norm_moments,
    .moments = moments,
    .norm_apply = norm_apply,
    .norm_slopes = norm_slopes,
    .norm_back = norm_back,
};
