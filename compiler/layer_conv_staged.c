/* layer_conv_staged.c - convolutions of the layer form whose products are of bf16, on x86-64: geometry, ways, estimates and
 * weight blocks; the text is in layer_conv_staged_emit.c.
 *
 * Two kinds of products: tile registers (AMX-BF16, 16 positions x 16 outputs x 32 values at once) and dot products of pairs in
 * vectors (AVX512-BF16). Input values are rounded once for a strip of rows (nas__staged), to nearest, even; weights when they
 * are packed; sums and what lies between layers are floats. Both count what is smaller than a normal float as 0. */
#include "compiler/layer_conv_internal.h"

#include <string.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static size_t round_64(size_t n) {
    return (n + 63) / 64 * 64;
}

bool nas__conv_is_staged(const nas__conv_way *way) {
    return way->algorithm == NAS__CONV_BF16_TILE || way->algorithm == NAS__CONV_BF16_DOT;
}

bool nas__conv_is_bf16(const nas__conv_way *way) {
    return way->algorithm == NAS__CONV_BF16 || nas__conv_is_staged(way);
}

/* ---- geometry ---------------------------------------------------------------------------------------------------------- */

enum { TILE = 16, TILE_STEP = 32, PAIR = 2 };

static int32_t common_divisor(int32_t a, int32_t b) {
    return b == 0 ? a : common_divisor(b, a % b);
}

/* Taps lie `dilation` apart: so many of them after which the phase of the stride is the same again. */
static int32_t period(int32_t stride, int32_t dilation) {
    return stride / common_divisor(stride, dilation);
}

/* The last of `taps` in `phase`, in steps of the stride. */
static int32_t farthest(int32_t taps, int32_t phase, int32_t stride, int32_t dilation) {
    const int32_t each = period(stride, dilation);
    return (phase + (taps - 1 - phase) / each * each) * dilation / stride;
}

int32_t nas__staged_tap_rows(const nas__conv *c, const nas__staged *s, int32_t phase) {
    return s->taps_h > 1 ? farthest(s->taps_h, phase, c->stride_h, c->dilation_h) : 0;
}

int32_t nas__staged_tap_columns(const nas__conv *c, const nas__staged *s, int32_t phase) {
    return s->taps_w > 1 ? farthest(s->taps_w, phase, c->stride_w, c->dilation_w) : 0;
}

int32_t nas__staged_positions(const nas__conv *c, const nas__staged *s, int32_t rows) {
    return (rows - 1) * s->width + c->out_w;
}

size_t nas__staged_first(const nas__conv *c, const nas__staged *s, int32_t y, int32_t x) {
    const int32_t plane = y % s->phases_h * s->phases_w + x % s->phases_w;
    const int32_t at = y * c->dilation_h / c->stride_h * s->width + x * c->dilation_w / c->stride_w;
    return (size_t)plane * s->plane + (size_t)at * (size_t)s->depth * sizeof(uint16_t);
}

static void split_kernel(const nas__conv *c, int32_t fold, nas__staged *s) {
    s->taps_h = fold == 2 ? 1 : c->kernel_h;
    s->taps_w = fold > 0 ? 1 : c->kernel_w;
    s->run = c->kernel_h / s->taps_h * (c->kernel_w / s->taps_w) * c->in_c;
    s->depth = ceil_div(s->run, s->step) * s->step;
    s->phases_h = min_i32(s->taps_h, period(c->stride_h, c->dilation_h));
    s->phases_w = min_i32(s->taps_w, period(c->stride_w, c->dilation_w));
}

nas__staged nas__staged_of(const nas__conv *c, const nas__conv_way *way) {
    const bool tile = way->algorithm == NAS__CONV_BF16_TILE;
    nas__staged s = {.unit = tile ? TILE : 1, .step = tile ? TILE_STEP : PAIR};
    split_kernel(c, way->joined, &s);
    int32_t columns = 0, rows = 0;
    for (int32_t i = 0; i < s.phases_w; i++) {
        const int32_t n = nas__staged_tap_columns(c, &s, i);
        columns = n > columns ? n : columns;
    }
    for (int32_t i = 0; i < s.phases_h; i++) {
        const int32_t n = nas__staged_tap_rows(c, &s, i);
        rows = n > rows ? n : rows;
    }
    s.width = c->out_w + columns;
    s.rows = min_i32(way->batch, c->out_h);
    s.strips = ceil_div(c->out_h, s.rows);
    s.last_rows = c->out_h - (s.strips - 1) * s.rows;
    const size_t position = (size_t)s.depth * sizeof(uint16_t);
    s.plane = round_64((size_t)(s.rows + rows) * (size_t)s.width * position);
    s.staged_at = round_64((size_t)(way->pixels * way->vectors) * 64);
    /* The last tile goes up to 15 positions on, the last store of a position up to 64 bytes. */
    s.scratch_bytes = s.staged_at + (size_t)(s.phases_h * s.phases_w) * s.plane +
                      round_64((size_t)s.unit * position) + 64;
    return s;
}

static int32_t steps_of(const nas__staged *s) {
    return s->taps_h * s->taps_w * (s->depth / s->step);
}

int32_t nas__staged_floats(const nas__conv *c, const nas__conv_way *way) {
    const nas__staged s = nas__staged_of(c, way);
    return steps_of(&s) * s.step / 2;
}

bool nas__staged_far_weights(const nas_target *target, const nas__conv *c,
                             const nas__conv_way *way) {
    return nas__staged_of(c, way).strips <= 2 &&
           4.0 * nas__staged_floats(c, way) * c->out_c >= target->l2_bytes / 16.0;
}

bool nas__staged_far_results(const nas_target *target, const nas__conv *c) {
    return 4.0 * c->out_h * c->out_w * c->out_c >= target->l2_bytes;
}

/* ---- ways -------------------------------------------------------------------------------------------------------------- */

typedef struct list {
    const nas_target *target;
    const nas__conv *conv;
    nas__conv_way *out;
    int32_t n;
} list;

/* Strips that leave room in L1, strips that leave it in L2, and single rows, which go through layers depth first: a layer
 * that reads no row twice, whose weights are always near and whose values leave the cache has these alone. */
static void add_strips(list *l, nas__conv_way way) {
    enum { UNITS = 16, CHOICES = 4 };
    const nas__conv *c = l->conv;
    way.batch = 1;
    const nas__staged one = nas__staged_of(c, &way);
    const double row = (double)one.width * one.depth * 2 * one.phases_h * one.phases_w;
    const double near[CHOICES] = {0, 0.5 * l->target->l1_bytes, 0.0625 * l->target->l2_bytes,
                                  0.1875 * l->target->l2_bytes};
    const double pixels = 4.0 * c->out_h * c->out_w;
    const double values = pixels * (c->in_c > c->out_c ? c->in_c : c->out_c);
    const bool deep = c->kernel_h == 1 && c->out_h > 1 && values > 0.5 * l->target->l2_bytes &&
                      4.0 * nas__staged_floats(c, &way) * c->out_c <= l->target->l1_bytes;
    const int32_t blocks = nas__conv_block(l->target, c, way.vectors).count;
    const int32_t least = min_i32(ceil_div(UNITS, blocks), c->out_h);
    int32_t before = 0;
    for (int32_t i = c->kernel_h > 1; i < (deep ? 1 : CHOICES) && l->n < NAS__STAGED_WAYS_MAX;
         i++) {
        const double fits = near[i] / row - (c->kernel_h - 1) / 2.0;
        int32_t rows = fits < 1 ? 1 : fits > c->out_h ? c->out_h : (int32_t)fits;
        rows = min_i32(rows, ceil_div(c->out_h, least));
        way.batch = ceil_div(c->out_h, ceil_div(c->out_h, rows));
        if (way.batch != before) l->out[l->n++] = way;
        before = way.batch;
    }
}

/* What to stage for a position: more of the kernel only where that saves steps. */
static void add_folds(list *l, nas__conv_way way) {
    const nas__conv *c = l->conv;
    int32_t steps = 0;
    for (way.joined = 0; way.joined < 3; way.joined++) {
        if (way.joined > 0 && (way.joined == 1 ? c->kernel_w : c->kernel_h) == 1) continue;
        const nas__staged s = nas__staged_of(c, &way);
        if (steps > 0 && steps_of(&s) >= steps) continue;
        steps = steps_of(&s);
        add_strips(l, way);
    }
}

/* {registers of positions, vectors}: the sums, the inputs or weights of a step and one of the others fit 8 tiles. */
static const int32_t tiles[][2] = {{2, 2}, {4, 1}, {1, 4}, {6, 1}, {1, 6}};
/* The same of vectors: sums, weights of a step and an input fit 32. */
static const int32_t dots[][2] = {{12, 2}, {8, 3}, {6, 4}, {28, 1}};

static void add_tiles(list *l) {
    const int32_t pixels = l->conv->out_h * l->conv->out_w, most = ceil_div(l->conv->out_c, 16);
    for (size_t i = 0; i < sizeof tiles / sizeof tiles[0]; i++) {
        const nas__conv_way way = {.algorithm = NAS__CONV_BF16_TILE,
                                   .batch = 1,
                                   .pixels = TILE * min_i32(tiles[i][0], ceil_div(pixels, TILE)),
                                   .vectors = min_i32(tiles[i][1], most)};
        add_folds(l, way);
    }
}

static void add_dots(list *l) {
    const int32_t pixels = l->conv->out_h * l->conv->out_w, most = ceil_div(l->conv->out_c, 16);
    if (pixels == 1) {
        for (int32_t v = 8; v >= 4; v -= 4)
            add_folds(l, (nas__conv_way){.algorithm = NAS__CONV_BF16_DOT,
                                         .batch = 1,
                                         .pixels = 1,
                                         .vectors = min_i32(v, most)});
        return;
    }
    for (size_t i = 0; i < sizeof dots / sizeof dots[0]; i++)
        add_folds(l, (nas__conv_way){.algorithm = NAS__CONV_BF16_DOT,
                                     .batch = 1,
                                     .pixels = min_i32(dots[i][0], pixels),
                                     .vectors = min_i32(dots[i][1], most)});
}

/* Where there are tiles, vectors are left the single pixel, whose tiles would be one sixteenth full. */
int32_t nas__staged_ways(const nas_target *target, const nas__conv *c,
                         nas__conv_way out[NAS__STAGED_WAYS_MAX]) {
    list l = {.target = target, .conv = c, .out = out};
    if (!target->bf16 || target->vector_bytes != 64 || c->groups > 1) return 0;
    if (strstr(target->needs, "amx_bf16") != NULL && c->out_h * c->out_w > 1)
        add_tiles(&l);
    else
        add_dots(&l);
    return l.n;
}

/* ---- estimates --------------------------------------------------------------------------------------------------------- */

/* Cycles of a tile: a product takes 16, a load 8 in a loop of its own (Intel 64 and IA-32 Architectures Optimization Reference
 * Manual, chapter on AMX). The others, and those below, fit 382 ways of bench_layer_conv on a Xeon (Granite Rapids), 23 % rms. */
static const double product = 16, load_near = 10, load_far = 30;
static const double near_weights = 0.42, near_all = 0.7; /* of L1: what stays there */

/* One step; inputs, weights: cycles of their loads. */
static double tile_step(int32_t units, int32_t vectors, double inputs, double weights) {
    const double loads = units * inputs + vectors * weights, work = product * units * vectors;
    return work > loads ? work : loads;
}

/* A dot product of pairs takes as long as four multiply-adds of floats on Intel's processors (measured), and is taken to be as
 * fast as one where vectors of 64 bytes are computed in halves (Zen 4, not measured). */
static double dot_step(const nas_target *target, int32_t pixels, int32_t vectors) {
    const double each = target->splits_vectors ? 0.5 : 2;
    const double work = each * pixels * vectors, loads = (pixels + vectors) / 2.0;
    return (work > loads ? work : loads) + 0.1 * loads;
}

static double stage_cycles(const nas__conv *c, const nas__staged *s, const nas__conv_way *way) {
    const bool joined = c->in_pitch == c->in_c && c->dilation_w == 1;
    const int32_t pieces =
        (way->joined == 2 ? c->kernel_h : 1) * (way->joined > 0 && !joined ? c->kernel_w : 1);
    const int32_t length = s->run / pieces, rest = length % 32;
    const double piece = 3.2 * (length / 32) + (rest > 0 ? 3 : 0);
    const double position = 1 + pieces * piece + (s->depth - s->run >= 16 ? 1 : 0);
    double positions = 0;
    for (int32_t y = 0; y < s->phases_h; y++) {
        const double rows = (s->strips - 1) * (double)(s->rows + nas__staged_tap_rows(c, s, y)) +
                            s->last_rows + nas__staged_tap_rows(c, s, y);
        for (int32_t x = 0; x < s->phases_w; x++)
            positions += rows * (c->out_w + nas__staged_tap_columns(c, s, x));
    }
    return positions * position;
}

/* All positions of a strip of `rows` for a block of `vectors`. */
static double strip_cycles(const nas_target *target, const nas__conv *c, const nas__staged *s,
                           const nas__conv_way *way, int32_t rows, int32_t vectors) {
    const int32_t units = ceil_div(nas__staged_positions(c, s, rows), s->unit);
    const int32_t most = way->pixels / s->unit, steps = steps_of(s);
    const bool tile = way->algorithm == NAS__CONV_BF16_TILE;
    const double each = (double)s->step * 2; /* bytes of a position, of an output */
    const double weights = each * steps * 16 * vectors;
    const double inputs = (double)s->plane * s->phases_h * s->phases_w;
    const double load_weights = weights > near_weights * target->l1_bytes ? load_far : load_near;
    /* every second load of inputs that other taps read too finds them near */
    const double again = s->taps_h * s->taps_w > 1 ? 0.5 : 1;
    const double load_inputs = inputs + weights > near_all * target->l1_bytes
                                   ? load_near + again * (load_far - load_near)
                                   : load_near;
    const double finish = (c->has_residual ? 4 : 3) * vectors + 3.5;
    /* Each block goes over all pixels of the strip: what they take of L2, and of pages, is gone when the next one comes. */
    const double results = 4.0 * rows * c->out_w * c->out_c;
    const bool gone = results > target->l2_bytes / 16.0 && vectors * 16 < c->out_c;
    const double again_each = !gone ? 0 : c->has_residual ? 12 : 4;
    double cycles = rows * c->out_w * (finish + again_each * vectors);
    for (int32_t k = 0; k < 2; k++) {
        const int32_t n = k == 0 ? most : units % most, times = k == 0 ? units / most : 1;
        if (n == 0) continue;
        const double step =
            tile ? tile_step(n, vectors, load_inputs, load_weights) : dot_step(target, n, vectors);
        const double start = tile ? 10 + 4.0 * n * vectors : 25 + 1.0 * n * vectors;
        cycles += times * (steps * step + start);
    }
    return cycles;
}

double nas__staged_cycles(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas__staged s = nas__staged_of(c, way);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    double cycles = stage_cycles(c, &s, way) + 60;
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from >= kind.to) continue;
        cycles += (kind.to - kind.from) *
                  ((s.strips - 1) * strip_cycles(target, c, &s, way, s.rows, kind.vectors) +
                   strip_cycles(target, c, &s, way, s.last_rows, kind.vectors));
    }
    return cycles;
}

/* ---- weights ----------------------------------------------------------------------------------------------------------- */

/* [block]: bias, slopes, then [step][vector of 16 outputs][pair of values][output][value], zeros behind what there is. */
void nas__staged_pack(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                      const float *weight, const float *bias, const float *slope, float *out) {
    const nas__staged s = nas__staged_of(c, way);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const int32_t taps = s.taps_h * s.taps_w, all = taps * s.depth;
    for (int32_t k = 0; k < b.count; k++) {
        const int32_t first = nas__conv_block_first(&b, k);
        const int32_t wide = nas__conv_block_first(&b, k + 1) - first;
        const int32_t n = b.out_c - first < wide ? b.out_c - first : wide;
        out = nas__conv_head(c, bias, slope, first, n, wide, out);
        memset(out, 0, (size_t)wide * (size_t)all * sizeof(uint16_t));
        for (int32_t o = 0; o < n; o++) {
            const float *from = weight + (size_t)(first + o) * (size_t)(taps * s.run);
            for (int32_t e = 0; e < all; e++) {
                if (e % s.depth >= s.run) continue;
                const uint16_t value = nas__bf16_of(*from++);
                const size_t vector = (size_t)(e / s.step * (wide / 16) + o / 16);
                const size_t at = vector * (size_t)(16 * s.step) +
                                  (size_t)(e % s.step / 2 * 32 + o % 16 * 2 + e % 2);
                memcpy((char *)out + at * sizeof value, &value, sizeof value);
            }
        }
        out += (size_t)wide * (size_t)all / 2;
    }
}
