/* exec_tiles.c - the kernel of exec_tiles.h. Compiled for AMX-BF16 where the compiler is for x86-64, and called only where
 * processor and system have it. Two tiles of pixels by two blocks of outputs use all eight registers with the fewest loads;
 * a last single block takes four tiles of pixels. */
#include "eval/exec_tiles.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <immintrin.h>
#include <string.h>

const bool nas__exec_tiles_built = true;

/* The compiler does not know what tile instructions read. */
#define WRITTEN(p) __asm__ volatile("" : : "r"(p) : "memory")

/* Past the last tile of a strip the last one is repeated, which stores the same values again. */
enum { TOGETHER = 4, SUM_FLOATS = NAS__TILE_PIXELS * NAS__TILE_OUTPUTS };

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static void configure(void) {
    tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = NAS__TILE_DEPTH * sizeof(nas__bf16);
        c.rows[i] = NAS__TILE_PIXELS;
    }
    WRITTEN(&c);
    _tile_loadconfig(&c);
}

/* n floats, a multiple of 8, and zeros behind them for runs that reach too far. */
static void round_values(const float *from, size_t n, nas__bf16 *to) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16),
                                                                 _mm512_loadu_ps(from + i)));
    for (; i < n; i += 8)
        _mm_storeu_si128((void *)(to + i), (__m128i)_mm256_cvtneps_pbh(_mm256_loadu_ps(from + i)));
    memset(to + n, 0, NAS__TILE_DEPTH * sizeof *to);
    WRITTEN(to);
}

/* The tiles [first, first + TOGETHER) of a strip. */
typedef struct place {
    const nas__bf16 *in[TOGETHER];
    const int32_t *out_at[TOGETHER];
    float *out[TOGETHER];
} place;

static void place_tiles(const nas__exec_tiles_job *job, int32_t begin, int32_t total, int32_t first,
                        int32_t count, place *p) {
    const nas__exec_tiles *plan = job->plan;
    for (int32_t i = 0; i < count; i++) {
        const int32_t at = first + i < total ? first + i : total - 1;
        const int32_t image = at / plan->n_tiles, tile = at % plan->n_tiles;
        p->in[i] = job->strip + image * job->in_image + plan->in_at[tile];
        p->out_at[i] = plan->out_at + (ptrdiff_t)tile * NAS__TILE_PIXELS;
        p->out[i] = job->out + (begin + image) * job->out_image;
    }
}

/* Bias, activation, and each pixel to its place. */
static void finish(const nas__exec_tiles_job *job, const float *sums, int32_t block,
                   const int32_t *out_at, float *out) {
    const int32_t shift = block * NAS__TILE_OUTPUTS, left = job->outputs - shift;
    const __mmask16 lanes = left >= NAS__TILE_OUTPUTS ? 0xffff : 0xff;
    const __m512 bias = _mm512_maskz_loadu_ps(lanes, job->bias + shift);
    const __m512 lo = _mm512_set1_ps(job->lo), hi = _mm512_set1_ps(job->hi);
    for (int32_t r = 0; r < NAS__TILE_PIXELS; r++) {
        if (out_at[r] < 0) continue;
        __m512 x = _mm512_load_ps(sums + r * NAS__TILE_OUTPUTS);
        x = _mm512_min_ps(hi, _mm512_max_ps(lo, _mm512_add_ps(x, bias))); /* a NaN stays */
        _mm512_mask_storeu_ps(out + out_at[r] + shift, lanes, x);
    }
}

static void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static void store_sums(float *sums) {
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + SUM_FLOATS, 64);
    _tile_stored(2, sums + 2 * SUM_FLOATS, 64);
    _tile_stored(3, sums + 3 * SUM_FLOATS, 64);
    WRITTEN(sums);
}

static void two_by_two(const nas__exec_tiles_job *job, int32_t block, const place *p) {
    _Alignas(64) float sums[4 * SUM_FLOATS];
    const nas__exec_tiles *plan = job->plan;
    const size_t step = (size_t)plan->pixel_step * sizeof(nas__bf16);
    const ptrdiff_t each = (ptrdiff_t)plan->n_runs * plan->steps * NAS__TILE_WEIGHTS;
    const nas__bf16 *w = job->weights + block * each;
    clear_sums();
    for (int32_t r = 0; r < plan->n_runs; r++) {
        for (int32_t k = 0; k < plan->steps; k++, w += NAS__TILE_WEIGHTS) {
            const ptrdiff_t at = plan->runs[r] + (ptrdiff_t)k * NAS__TILE_DEPTH;
            _tile_loadd(6, w, 64);
            _tile_loadd(4, p->in[0] + at, step);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, p->in[1] + at, step);
            _tile_dpbf16ps(1, 5, 6);
            _tile_loadd(7, w + each, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    store_sums(sums);
    for (int32_t i = 0; i < 4; i++)
        finish(job, sums + i * SUM_FLOATS, block + i / 2, p->out_at[i % 2], p->out[i % 2]);
}

static void four_by_one(const nas__exec_tiles_job *job, int32_t block, const place *p) {
    _Alignas(64) float sums[4 * SUM_FLOATS];
    const nas__exec_tiles *plan = job->plan;
    const size_t step = (size_t)plan->pixel_step * sizeof(nas__bf16);
    const nas__bf16 *w =
        job->weights + (ptrdiff_t)block * plan->n_runs * plan->steps * NAS__TILE_WEIGHTS;
    clear_sums();
    for (int32_t r = 0; r < plan->n_runs; r++) {
        for (int32_t k = 0; k < plan->steps; k++, w += NAS__TILE_WEIGHTS) {
            const ptrdiff_t at = plan->runs[r] + (ptrdiff_t)k * NAS__TILE_DEPTH;
            _tile_loadd(7, w, 64);
            _tile_loadd(4, p->in[0] + at, step);
            _tile_dpbf16ps(0, 4, 7);
            _tile_loadd(5, p->in[1] + at, step);
            _tile_dpbf16ps(1, 5, 7);
            _tile_loadd(6, p->in[2] + at, step);
            _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(4, p->in[3] + at, step);
            _tile_dpbf16ps(3, 4, 7);
        }
    }
    store_sums(sums);
    for (int32_t i = 0; i < 4; i++)
        finish(job, sums + i * SUM_FLOATS, block, p->out_at[i], p->out[i]);
}

static void run_strip(const nas__exec_tiles_job *job, int32_t begin, int32_t images) {
    const nas__exec_tiles *plan = job->plan;
    const int32_t total = images * plan->n_tiles;
    place p;
    round_values(job->in + begin * job->in_image, (size_t)images * (size_t)job->in_image,
                 job->strip);
    int32_t block = 0;
    for (; block + 2 <= plan->blocks; block += 2) {
        for (int32_t t = 0; t < total; t += 2) {
            place_tiles(job, begin, total, t, 2, &p);
            two_by_two(job, block, &p);
        }
    }
    for (int32_t t = 0; block < plan->blocks && t < total; t += TOGETHER) {
        place_tiles(job, begin, total, t, TOGETHER, &p);
        four_by_one(job, block, &p);
    }
}

void nas__exec_tiles_run(const nas__exec_tiles_job *job) {
    configure();
    for (int32_t begin = 0; begin < job->images; begin += job->plan->strip) {
        const int32_t left = job->images - begin;
        run_strip(job, begin, left < job->plan->strip ? left : job->plan->strip);
    }
    _tile_release();
}

#else

const bool nas__exec_tiles_built = false;

void nas__exec_tiles_run(const nas__exec_tiles_job *job) {
    (void)job; /* nas_exec_has_bf16 is false */
}

#endif
