/* train_kernels.c - convolution, weight-gradient and elementwise loops in GCC/Clang vector extensions.
 *
 * Compiled once per instruction set (-DNAS_ISA=base|avx2|avx512); train_dispatch.c chooses. A register tile is
 * 4 outputs x VECTORS pixel vectors for convolutions and 4 x VECTORS channel pairs for weight gradients; its
 * accumulators are named variables, because arrays of them end up in memory. Sums run in an order that depends on
 * the job alone, so results do not depend on how an image is cut into rows or threads. */
#include "eval/train_kernels.h"

#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 6 };
#define EACH_VECTOR(M) M(0) M(1) M(2) M(3) M(4) M(5)
#define EACH_OF(M, o) M(o, 0) M(o, 1) M(o, 2) M(o, 3) M(o, 4) M(o, 5)
#elif defined(__AVX2__)
enum { LANES = 8, VECTORS = 3 };
#define EACH_VECTOR(M) M(0) M(1) M(2)
#define EACH_OF(M, o) M(o, 0) M(o, 1) M(o, 2)
#else
enum { LANES = 4, VECTORS = 3 };
#define EACH_VECTOR(M) M(0) M(1) M(2)
#define EACH_OF(M, o) M(o, 0) M(o, 1) M(o, 2)
#endif
#define EACH_TILE(M) EACH_OF(M, 0) EACH_OF(M, 1) EACH_OF(M, 2) EACH_OF(M, 3)

typedef float vec __attribute__((vector_size(LANES * 4), may_alias));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), may_alias, aligned(4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), may_alias));
typedef int32_t ivec_unaligned __attribute__((vector_size(LANES * 4), may_alias, aligned(4)));

#define LOAD(p) (*(const vec_unaligned *)(p))
#define STORE(p, v) (*(vec_unaligned *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))

INLINE vec splat(float s) {
    return s - (vec){0};
}

INLINE vec positive_part(vec a) {
    return (vec)((ivec)a & (a > (vec){0}));
}

INLINE vec choose(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

static int32_t vectors_in(int32_t width) {
    return (width + LANES - 1) / LANES;
}

/* Lanes of the last vector of a row that are inside: LOAD_MASK(count) has `count` ones, then zeros. */
static const int32_t mask_table[2 * NAS__LANES_MAX] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                       -1, -1, -1, -1, -1, -1, -1, -1};

INLINE ivec lanes_below(int32_t count) {
    return *(const ivec_unaligned *)(mask_table + NAS__LANES_MAX - count);
}

/* ---- convolution ------------------------------------------------------------------------------------------- */

/* Where the vectors of one register tile lie; past the last vector of the job the last one is repeated, which
 * computes and stores the same values again. */
typedef struct tile_place {
    ptrdiff_t in[VECTORS], out[VECTORS], extra[VECTORS];
    ivec mask[VECTORS];
} tile_place;

static void place_tile(const nas__conv_job *job, int32_t first, int32_t total, int32_t per_row,
                       tile_place *p) {
    int32_t y = first / per_row, x = first % per_row;
    for (int32_t v = 0; v < VECTORS; v++) {
        p->in[v] = y * job->in.row + x * LANES;
        p->out[v] = y * job->out.row + x * LANES;
        p->extra[v] = y * job->extra.row + x * LANES;
        const int32_t inside = job->width - x * LANES;
        p->mask[v] = lanes_below(inside < LANES ? inside : LANES);
        if (first + v + 1 >= total) continue;
        x++;
        if (x == per_row) {
            x = 0;
            y++;
        }
    }
}

INLINE vec finish_vector(const tile_place *p, nas__finish finish, bool masked, int32_t v, vec sum,
                         vec extra) {
    switch (finish) {
    case NAS__FINISH_PLAIN: break;
    case NAS__FINISH_RELU: sum = positive_part(sum); break;
    case NAS__FINISH_ADD: sum += extra; break;
    case NAS__FINISH_GATE: sum = (vec)((ivec)sum & (extra > (vec){0})); break;
    }
    return masked ? (vec)((ivec)sum & p->mask[v]) : sum;
}

/* Four outputs from `first` on, VECTORS pixel vectors. */
INLINE void conv_tile(const nas__conv_job *job, const tile_place *p, int32_t first,
                      nas__finish finish, bool masked) {
#define OFFSET(v) const ptrdiff_t at##v = p->in[v];
    EACH_VECTOR(OFFSET)
#define BEGIN(o, v) vec s##o##v = (vec){0};
    EACH_TILE(BEGIN)
    const float *restrict w = job->weights + (first / NAS__BLOCK) * job->weight_block;
    const ptrdiff_t channel = job->in.channel;
    for (int32_t t = 0; t < job->n_taps; t++) {
        const float *restrict in = job->in.at + job->taps[t];
        for (int32_t i = job->inputs; i > 0; i--) {
#define FETCH(v) const vec x##v = LOAD(in + at##v);
            EACH_VECTOR(FETCH)
#define MULTIPLY(o, v) s##o##v += w[o] * x##v;
            EACH_TILE(MULTIPLY)
            in += channel;
            w += NAS__BLOCK;
        }
    }
    const int32_t left = job->outputs - first;
    const bool with_extra = finish == NAS__FINISH_ADD || finish == NAS__FINISH_GATE;
/* All of `extra` is read before anything is stored: a repeated vector must not be added to twice. */
#define READ_EXTRA(o, v) const vec e##v = with_extra ? LOAD(extra + p->extra[v]) : (vec){0};
#define FINISH(o, v)                                                                               \
    STORE(out + p->out[v], finish_vector(p, finish, masked, v, bias + s##o##v, e##v));
#define FINISH_OUTPUT(o)                                                                           \
    if (left > o) {                                                                                \
        const vec bias = splat(job->bias == NULL ? 0.0f : job->bias[first + o]);                   \
        const float *extra = job->extra.at + (first + o) * job->extra.channel;                     \
        float *out = job->out.at + (first + o) * job->out.channel;                                 \
        EACH_OF(READ_EXTRA, o)                                                                     \
        EACH_OF(FINISH, o)                                                                         \
    }
    FINISH_OUTPUT(0)
    FINISH_OUTPUT(1)
    FINISH_OUTPUT(2)
    FINISH_OUTPUT(3)
}

#define CONV_LOOP(name, finish, masked)                                                            \
    static void name(const nas__conv_job *job) {                                                   \
        const int32_t per_row = vectors_in(job->width), total = per_row * job->rows;               \
        for (int32_t v = 0; v < total; v += VECTORS) {                                             \
            tile_place place;                                                                      \
            place_tile(job, v, total, per_row, &place);                                            \
            for (int32_t o = 0; o < job->outputs; o += NAS__BLOCK) {                               \
                conv_tile(job, &place, o, finish, masked);                                         \
            }                                                                                      \
        }                                                                                          \
    }
CONV_LOOP(conv_plain, NAS__FINISH_PLAIN, false)
CONV_LOOP(conv_relu, NAS__FINISH_RELU, false)
CONV_LOOP(conv_add, NAS__FINISH_ADD, false)
CONV_LOOP(conv_gate, NAS__FINISH_GATE, false)
CONV_LOOP(conv_plain_masked, NAS__FINISH_PLAIN, true)
CONV_LOOP(conv_relu_masked, NAS__FINISH_RELU, true)
CONV_LOOP(conv_add_masked, NAS__FINISH_ADD, true)
CONV_LOOP(conv_gate_masked, NAS__FINISH_GATE, true)

static void conv(const nas__conv_job *job) {
    const bool masked = job->zero_tail && job->width % LANES != 0;
    switch (job->finish) {
    case NAS__FINISH_PLAIN: (masked ? conv_plain_masked : conv_plain)(job); return;
    case NAS__FINISH_RELU: (masked ? conv_relu_masked : conv_relu)(job); return;
    case NAS__FINISH_ADD: (masked ? conv_add_masked : conv_add)(job); return;
    case NAS__FINISH_GATE: (masked ? conv_gate_masked : conv_gate)(job); return;
    }
}

/* ---- weight gradients ---------------------------------------------------------------------------------------- */

enum { TILE_PAIRS = NAS__BLOCK * VECTORS };

/* Which operand is cut into blocks of 4 and which into blocks of VECTORS: the choice that wastes fewer slots. */
static bool four_of_a(int32_t n_a, int32_t n_b) {
    const int32_t straight =
        ((n_a + NAS__BLOCK - 1) / NAS__BLOCK) * ((n_b + VECTORS - 1) / VECTORS);
    const int32_t swapped = ((n_b + NAS__BLOCK - 1) / NAS__BLOCK) * ((n_a + VECTORS - 1) / VECTORS);
    return straight <= swapped;
}

static size_t pairs_tiles(int32_t n_a, int32_t n_b) {
    const bool straight = four_of_a(n_a, n_b);
    const int32_t four = straight ? n_a : n_b, many = straight ? n_b : n_a;
    return (size_t)((four + NAS__BLOCK - 1) / NAS__BLOCK) *
           (size_t)((many + VECTORS - 1) / VECTORS);
}

static size_t pairs_size(int32_t n_a, int32_t n_b, int32_t n_taps) {
    return pairs_tiles(n_a, n_b) * (size_t)n_taps * TILE_PAIRS * LANES;
}

/* lanes[o][v] += p[channel o] * q[channel v] over rows x vectors. */
static void pairs_tile(nas__view p, nas__view q, int32_t rows, int32_t vectors,
                       float *restrict lanes) {
    vec *restrict sums = (vec *)lanes;
#define RESUME(o, v) vec s##o##v = sums[o * VECTORS + v];
    EACH_TILE(RESUME)
    const ptrdiff_t pc = p.channel, qc = q.channel;
    for (int32_t y = 0; y < rows; y++) {
        const float *restrict a = p.at + y * p.row;
        const float *restrict b = q.at + y * q.row;
        for (int32_t x = vectors; x > 0; x--) {
#define FETCH_MANY(v) const vec q##v = LOAD(b + v * qc);
            EACH_VECTOR(FETCH_MANY)
#define MULTIPLY_PAIR(o, v) s##o##v += p##o * q##v;
#define FOUR(o)                                                                                    \
    {                                                                                              \
        const vec p##o = LOAD(a + o * pc);                                                         \
        EACH_OF(MULTIPLY_PAIR, o)                                                                  \
    }
            FOUR(0) FOUR(1) FOUR(2) FOUR(3) a += LANES;
            b += LANES;
        }
    }
#define SUSPEND(o, v) sums[o * VECTORS + v] = s##o##v;
    EACH_TILE(SUSPEND)
}

/* Pixels of a row strip: with more than one tap, both operands' strips and the sums of all taps together stay in the
 * first-level cache. */
enum { STRIP_FLOATS = 192 };

static void pairs(const nas__pairs_job *job) {
    const int32_t vectors = vectors_in(job->width);
    const bool straight = four_of_a(job->n_a, job->n_b);
    const nas__view four = straight ? job->a : job->b, many = straight ? job->b : job->a;
    const int32_t n_four = straight ? job->n_a : job->n_b, n_many = straight ? job->n_b : job->n_a;
    const int32_t fit = job->n_taps == 1 ? job->rows : STRIP_FLOATS / (vectors * LANES);
    const int32_t strip = fit < 1 ? 1 : fit;
    float *lanes = job->lanes;
    for (int32_t f = 0; f < n_four; f += NAS__BLOCK) {
        for (int32_t m = 0; m < n_many; m += VECTORS) {
            for (int32_t y = 0; y < job->rows; y += strip) {
                const int32_t rows = job->rows - y < strip ? job->rows - y : strip;
                for (int32_t t = 0; t < job->n_taps; t++) {
                    nas__view p = four, q = many;
                    p.at += y * p.row + f * p.channel + (straight ? 0 : job->taps[t]);
                    q.at += y * q.row + m * q.channel + (straight ? job->taps[t] : 0);
                    pairs_tile(p, q, rows, vectors, lanes + t * TILE_PAIRS * LANES);
                }
            }
            lanes += job->n_taps * TILE_PAIRS * LANES;
        }
    }
}

#if defined(__AVX512F__)
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#endif

/* Sums of LANES vectors, one per lane of the result: adding even to odd lanes of neighbours halves the number of
 * vectors and keeps their order. */
INLINE vec sum_two(vec a, vec b) {
    return __builtin_shufflevector(a, b, EVEN) + __builtin_shufflevector(a, b, ODD);
}

INLINE vec sum_four(const vec *v) {
    return sum_two(sum_two(v[0], v[1]), sum_two(v[2], v[3]));
}

INLINE vec sum_each(const vec *v) {
#if defined(__AVX512F__)
    return sum_two(sum_two(sum_four(v), sum_four(v + 4)),
                   sum_two(sum_four(v + 8), sum_four(v + 12)));
#elif defined(__AVX2__)
    return sum_two(sum_four(v), sum_four(v + 4));
#else
    return sum_four(v);
#endif
}

INLINE float sum_lanes(vec v) {
    float s = 0.0f;
    for (int32_t i = 0; i < LANES; i++)
        s += v[i];
    return s;
}

typedef struct pair_strides {
    ptrdiff_t four, many;
} pair_strides;

static void add_tile_sums(const float *lanes, int32_t four, int32_t many, pair_strides stride,
                          float *sums) {
    float each[TILE_PAIRS];
    for (int32_t i = 0; i < TILE_PAIRS; i += LANES) {
        const int32_t from = i + LANES <= TILE_PAIRS ? i : TILE_PAIRS - LANES;
        STORE(each + from, sum_each((const vec *)lanes + from));
    }
    for (int32_t f = 0; f < four; f++) {
        for (int32_t m = 0; m < many; m++) {
            sums[f * stride.four + m * stride.many] += each[f * VECTORS + m];
        }
    }
}

static void pairs_reduce(const float *lanes, int32_t n_a, int32_t n_b, int32_t n_taps,
                         ptrdiff_t stride_a, ptrdiff_t stride_b, ptrdiff_t stride_tap,
                         float *sums) {
    const bool straight = four_of_a(n_a, n_b);
    const int32_t n_four = straight ? n_a : n_b, n_many = straight ? n_b : n_a;
    const pair_strides stride = {.four = straight ? stride_a : stride_b,
                                 .many = straight ? stride_b : stride_a};
    for (int32_t f = 0; f < n_four; f += NAS__BLOCK) {
        for (int32_t m = 0; m < n_many; m += VECTORS) {
            for (int32_t t = 0; t < n_taps; t++) {
                const int32_t four = n_four - f < NAS__BLOCK ? n_four - f : NAS__BLOCK;
                const int32_t many = n_many - m < VECTORS ? n_many - m : VECTORS;
                add_tile_sums(lanes, four, many, stride,
                              sums + f * stride.four + m * stride.many + t * stride_tap);
                lanes += TILE_PAIRS * LANES;
            }
        }
    }
}

static void channel_lanes(nas__view a, int32_t channels, int32_t rows, int32_t width,
                          float *lanes) {
    const int32_t vectors = vectors_in(width);
    for (int32_t c = 0; c < channels; c++) {
        vec total = LOAD(lanes + c * LANES);
        for (int32_t y = 0; y < rows; y++) {
            const float *p = a.at + y * a.row + c * a.channel;
            for (int32_t x = 0; x < vectors; x++)
                total += LOAD(p + x * LANES);
        }
        STORE(lanes + c * LANES, total);
    }
}

static void lanes_sum(const float *lanes, int32_t n, float *sums) {
    for (int32_t c = 0; c < n; c++)
        sums[c] += sum_lanes(LOAD(lanes + c * LANES));
}

/* ---- elementwise --------------------------------------------------------------------------------------------- */

static void add(const float *a, const float *b, float *out, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, LOAD(a + i) + LOAD(b + i));
}

static void relu(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        STORE(out + i, positive_part(LOAD(x + i)));
}

static void relu_back(const float *y, const float *dy, float *dx, size_t n, bool accumulate) {
    for (size_t i = 0; i < n; i += LANES) {
        vec d = (vec)((ivec)LOAD(dy + i) & (LOAD(y + i) > (vec){0}));
        if (accumulate) d += LOAD(dx + i);
        STORE(dx + i, d);
    }
}

static void prelu(const float *x, float slope, float *out, size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        const vec v = LOAD(x + i);
        STORE(out + i, choose(v > (vec){0}, v, slope * v));
    }
}

static float prelu_back(const float *x, const float *dy, float slope, float *dx, size_t n,
                        bool accumulate) {
    vec total = (vec){0};
    for (size_t i = 0; i < n; i += LANES) {
        const vec v = LOAD(x + i), d = LOAD(dy + i);
        const ivec up = v > (vec){0};
        total += (vec)(~up & (ivec)(d * v));
        vec back = choose(up, d, slope * d);
        if (accumulate) back += LOAD(dx + i);
        STORE(dx + i, back);
    }
    return sum_lanes(total);
}

static double l1(const float *y, const float *target, float *dy, float step, int32_t n) {
    const vec up = splat(step), none = (vec){0};
    vec total = none;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec d = LOAD(y + i) - LOAD(target + i);
        const ivec above = d > none, below = d < none;
        total += choose(above, d, -d);
        STORE(dy + i, (vec)((above & (ivec)up) | (below & (ivec)-up)));
    }
    double sum = (double)sum_lanes(total);
    for (; i < n; i++) {
        const float d = y[i] - target[i];
        sum += (double)(d > 0.0f ? d : -d);
        dy[i] = d > 0.0f ? step : d < 0.0f ? -step : 0.0f;
    }
    return sum;
}

static void zip(const float *even, const float *odd, float *out, int32_t n) {
    for (int32_t i = 0; i < n; i += LANES) {
        const vec a = LOAD(even + i), b = LOAD(odd + i);
        STORE(out + 2 * i, __builtin_shufflevector(a, b, ZIP_LOW));
        STORE(out + 2 * i + LANES, __builtin_shufflevector(a, b, ZIP_HIGH));
    }
}

static void unzip(const float *in, float *even, float *odd, int32_t n) {
    for (int32_t i = 0; i < n; i += LANES) {
        const vec a = LOAD(in + 2 * i), b = LOAD(in + 2 * i + LANES);
        STORE(even + i, __builtin_shufflevector(a, b, EVEN));
        STORE(odd + i, __builtin_shufflevector(a, b, ODD));
    }
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

const nas__kernels JOIN(nas__kernels_, NAS_ISA) = {
    .name = TEXT(NAS_ISA),
    .lanes = LANES,
    .conv = conv,
    .pairs_size = pairs_size,
    .pairs = pairs,
    .pairs_reduce = pairs_reduce,
    .channel_lanes = channel_lanes,
    .lanes_sum = lanes_sum,
    .add = add,
    .relu = relu,
    .relu_back = relu_back,
    .prelu = prelu,
    .prelu_back = prelu_back,
    .l1 = l1,
    .zip = zip,
    .unzip = unzip,
};
