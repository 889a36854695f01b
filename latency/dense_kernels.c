/* dense_kernels.c - inner products and Gaussian kernels in GCC vector extensions.
 *
 * Compiled once per instruction set (-DNAS_ISA=base|avx2|avx512); dense.c chooses. */
#include "latency/dense.h"

#if defined(__AVX512F__)
enum { LANES = 8 };
#elif defined(__AVX2__)
enum { LANES = 4 };
#else
enum { LANES = 2 };
#endif

typedef double vec __attribute__((vector_size(LANES * 8), may_alias));
typedef double vec_unaligned __attribute__((vector_size(LANES * 8), may_alias, aligned(8)));
typedef int64_t ivec __attribute__((vector_size(LANES * 8), may_alias));

#define LOAD(p) (*(const vec_unaligned *)(p))
#define STORE(p, v) (*(vec_unaligned *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))

INLINE double sum_of(vec v) {
    double sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += v[i];
    return sum;
}

static double dot(const double *a, const double *b, size_t n) {
    vec s0 = {0}, s1 = {0};
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        s0 += LOAD(a + i) * LOAD(b + i);
        s1 += LOAD(a + i + LANES) * LOAD(b + i + LANES);
    }
    double sum = sum_of(s0 + s1);
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double distance(const double *a, const double *b, size_t n) {
    vec s0 = {0}, s1 = {0};
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        const vec t0 = LOAD(a + i) - LOAD(b + i), t1 = LOAD(a + i + LANES) - LOAD(b + i + LANES);
        s0 += t0 * t0;
        s1 += t1 * t1;
    }
    double sum = sum_of(s0 + s1);
    for (; i < n; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* Four rows of a with one row of b. */
#define COLUMN(j)                                                                                  \
    do {                                                                                           \
        const vec y = LOAD(b + (j)*ldb + i);                                                       \
        s0##j += x0 * y;                                                                           \
        s1##j += x1 * y;                                                                           \
        s2##j += x2 * y;                                                                           \
        s3##j += x3 * y;                                                                           \
    } while (0)
#define FINISH(j)                                                                                  \
    do {                                                                                           \
        out[j] = sum_of(s0##j);                                                                    \
        out[NAS__TILE + (j)] = sum_of(s1##j);                                                      \
        out[2 * NAS__TILE + (j)] = sum_of(s2##j);                                                  \
        out[3 * NAS__TILE + (j)] = sum_of(s3##j);                                                  \
    } while (0)
#define ACCUMULATORS(j) vec s0##j = {0}, s1##j = {0}, s2##j = {0}, s3##j = {0}

static void tile(const double *a, size_t lda, const double *b, size_t ldb, size_t n, double *out) {
    ACCUMULATORS(0);
    ACCUMULATORS(1);
    ACCUMULATORS(2);
    ACCUMULATORS(3);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec x0 = LOAD(a + i), x1 = LOAD(a + lda + i), x2 = LOAD(a + 2 * lda + i),
                  x3 = LOAD(a + 3 * lda + i);
        COLUMN(0);
        COLUMN(1);
        COLUMN(2);
        COLUMN(3);
    }
    FINISH(0);
    FINISH(1);
    FINISH(2);
    FINISH(3);
    for (; i < n; i++) {
        for (size_t r = 0; r < NAS__TILE; r++) {
            for (size_t c = 0; c < NAS__TILE; c++)
                out[r * NAS__TILE + c] += a[r * lda + i] * b[c * ldb + i];
        }
    }
}

/* exp for v <= 0: 2^k times the Taylor series of degree 11 on |r| <= ln(2)/2, error below 1e-14. */
INLINE vec exp_of(vec v) {
    const double magic = 0x1.8p52;
    const vec least = (vec){0} - 700.0;
    const ivec under = v < least;
    v = (vec)((under & (ivec)least) | (~under & (ivec)v));
    const vec shifted = v * 0x1.71547652b82fep0 + magic;
    const ivec k = (ivec)shifted - (ivec)((vec){0} + magic);
    const vec whole = shifted - magic;
    const vec r = (v - whole * 0x1.62e42fefa0000p-1) - whole * 0x1.cf79abc9e3b3ap-40;
    vec p = r * (1.0 / 39916800) + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return (vec)((ivec)p + (k << 52));
}

static void gauss(const double *zt, size_t m, size_t d, const double *x, double *out) {
    for (size_t j = 0; j < m; j += 2 * LANES) {
        vec s0 = {0}, s1 = {0};
        for (size_t k = 0; k < d; k++) {
            const vec t0 = x[k] - LOAD(zt + k * m + j), t1 = x[k] - LOAD(zt + k * m + j + LANES);
            s0 += t0 * t0;
            s1 += t1 * t1;
        }
        STORE(out + j, exp_of(-0.5 * s0));
        STORE(out + j + LANES, exp_of(-0.5 * s1));
    }
}

/* Two vectors of columns for one of the four rows. */
#define SUMS_STEP(r)                                                                               \
    do {                                                                                           \
        const vec value = x[k * NAS__TILE + (r)] + (vec){0};                                       \
        a##r += value * z0;                                                                        \
        b##r += value * z1;                                                                        \
    } while (0)
#define SUMS_ADD(r) sum##r += w0 * exp_of(a##r - h0 - own[r]) + w1 * exp_of(b##r - h1 - own[r])

static void gauss_sums(const double *zt, size_t m, size_t d, const double *half,
                       const double *weight, const double *x, double *out) {
    double own[NAS__TILE] = {0};
    for (size_t k = 0; k < d; k++)
        for (size_t r = 0; r < NAS__TILE; r++)
            own[r] += 0.5 * x[k * NAS__TILE + r] * x[k * NAS__TILE + r];
    vec sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
    for (size_t j = 0; j < m; j += 2 * LANES) {
        vec a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
        for (size_t k = 0; k < d; k++) {
            const vec z0 = LOAD(zt + k * m + j), z1 = LOAD(zt + k * m + j + LANES);
            SUMS_STEP(0);
            SUMS_STEP(1);
            SUMS_STEP(2);
            SUMS_STEP(3);
        }
        const vec h0 = LOAD(half + j), h1 = LOAD(half + j + LANES), w0 = LOAD(weight + j),
                  w1 = LOAD(weight + j + LANES);
        SUMS_ADD(0);
        SUMS_ADD(1);
        SUMS_ADD(2);
        SUMS_ADD(3);
    }
    out[0] = sum_of(sum0);
    out[1] = sum_of(sum1);
    out[2] = sum_of(sum2);
    out[3] = sum_of(sum3);
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
const nas__dense_kernels JOIN(nas__dense_kernels_, NAS_ISA) = {.name = TEXT(NAS_ISA),
                                                               .tile = tile,
                                                               .dot = dot,
                                                               .distance = distance,
                                                               .gauss = gauss,
                                                               .gauss_sums = gauss_sums};
