/* layer_conv.c - the ways to compute a convolution of the layer form: which make sense, what they cost, their names. */
#include "compiler/layer_conv_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* ---- geometry ---------------------------------------------------------------------------------------------------- */

nas__conv_tiling nas__conv_tile(const nas__conv *c, int32_t pixels) {
    nas__conv_tiling t = {.rows = 1};
    const int32_t tiles = ceil_div(c->out_w, pixels);
    t.columns = ceil_div(c->out_w, tiles);
    t.narrow = t.columns * tiles - c->out_w;
    t.wide = tiles - t.narrow;
    if (tiles == 1) t.rows = min_i32(pixels / c->out_w, c->out_h);
    t.bands = ceil_div(c->out_h, t.rows);
    t.last_rows = c->out_h - (t.bands - 1) * t.rows;
    return t;
}

nas__conv_blocks nas__conv_block(const nas_target *target, const nas__conv *c, int32_t vectors) {
    nas__conv_blocks b = {.lanes = target->vector_bytes / 4};
    b.in_c = c->in_c / c->groups;
    b.out_c = c->out_c / c->groups;
    const int32_t all = ceil_div(b.out_c, b.lanes);
    b.count = ceil_div(all, vectors);
    b.vectors = ceil_div(all, b.count); /* fewer when that fills the same number of blocks */
    b.narrow = b.count * b.vectors - all;
    b.last_lanes = b.out_c - (all - 1) * b.lanes;
    return b;
}

nas__conv_kind nas__conv_kind_of(const nas__conv_blocks *b, int32_t kind) {
    const int32_t wide = b->count - b->narrow, whole = b->count - (b->last_lanes < b->lanes);
    nas__conv_kind k = {.vectors = b->vectors, .last = b->lanes};
    if (kind == 0) {
        k.to = min_i32(wide, whole);
    } else if (kind == 1) {
        k.from = wide;
        k.to = whole > wide ? whole : wide;
        k.vectors--;
    } else {
        k.from = whole;
        k.to = b->count;
        k.vectors -= b->narrow > 0;
        k.last = b->last_lanes;
    }
    return k;
}

int32_t nas__conv_block_first(const nas__conv_blocks *b, int32_t k) {
    const int32_t wide = b->count - b->narrow;
    return b->lanes * (k * b->vectors - (k > wide ? k - wide : 0));
}

nas__conv_runs nas__conv_run(const nas__conv *c, int32_t depth) {
    const int32_t in_c = c->in_c / c->groups;
    const bool joined = c->in_pitch == in_c && c->dilation_w == 1;
    nas__conv_runs r = {.taps = joined ? 1 : c->kernel_w,
                        .length = joined ? c->kernel_w * in_c : in_c};
    r.depth = depth > 0 ? min_i32(depth, r.length) : r.length;
    r.parts = ceil_div(r.length, r.depth);
    return r;
}

int32_t nas__conv_unit_bands(const nas_target *target, const nas__conv *c,
                             const nas__conv_way *way) {
    enum { TILES_UNIT = 16, UNITS = 8 };
    if (way->depth == 0) return 1;
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const int32_t blocks = c->groups * nas__conv_block(target, c, way->vectors).count;
    int32_t n = min_i32(ceil_div(TILES_UNIT, t.wide + t.narrow), t.bands);
    while (n > 1 && ceil_div(t.bands, n) * blocks < UNITS)
        n--;
    return n;
}

/* ---- epilogue ---------------------------------------------------------------------------------------------------- */

void nas__conv_finish(const nas__conv *c, const char *value, const char *slope, nas_buf *out) {
    switch (c->act) {
    case NAS__LACT_NONE: nas_buf_puts(out, value); return;
    case NAS__LACT_RELU: nas_buf_printf(out, "relu(%s)", value); return;
    case NAS__LACT_CLIP:
        nas_buf_printf(out, "vmin(vmax(%s, splat(%af)), splat(%af))", value, (double)c->lo,
                       (double)c->hi);
        return;
    case NAS__LACT_PRELU: nas_buf_printf(out, "prelu(%s, load(%s))", value, slope); return;
    case NAS__LACT_LEAKY:
        nas_buf_printf(out, "prelu(%s, splat(%af))", value, (double)c->lo);
        return;
    case NAS__LACT_HARD_SWISH: nas_buf_printf(out, "hard_swish(%s)", value); return;
    }
}

int32_t nas__conv_heads(const nas__conv *c) {
    return c->act == NAS__LACT_PRELU ? 2 : 1;
}

float *nas__conv_head(const nas__conv *c, const float *bias, const float *slope, int32_t first,
                      int32_t n, int32_t padded, float *out) {
    for (int32_t i = 0; i < padded; i++)
        *out++ = i < n && bias != NULL ? bias[first + i] : 0;
    if (c->act != NAS__LACT_PRELU) return out;
    for (int32_t i = 0; i < padded; i++)
        *out++ = i < n && slope != NULL ? slope[first + i] : 0;
    return out;
}

/* ---- candidates -------------------------------------------------------------------------------------------------- */

typedef struct way_list {
    const nas_target *target;
    const nas__conv *conv;
    nas__conv_way *out;
    int32_t n;
} way_list;

static void add(way_list *list, nas__conv_way way) {
    if (list->n == NAS__CONV_WAYS_MAX) return;
    way.cycles = nas__conv_cycles(list->target, list->conv, &way);
    for (int32_t i = 0; i < list->n; i++) {
        const nas__conv_way *o = &list->out[i];
        if (o->algorithm == way.algorithm && o->pixels == way.pixels && o->vectors == way.vectors &&
            o->outer == way.outer && o->batch == way.batch && o->depth == way.depth &&
            o->group == way.group && o->joined == way.joined)
            return;
    }
    list->out[list->n++] = way;
}

/* {pixels, vectors}: accumulators plus weights plus one broadcast fit the registers. */
static const int32_t tiles_16[][2] = {{6, 2}, {4, 3}, {12, 1}};
static const int32_t tiles_32[][2] = {{12, 2}, {8, 3}, {28, 1}, {14, 2}, {6, 4}};

/* Weights of one part of the sum that leave most of L1 to the input; 0 when the whole sum does. */
static int32_t depth_of(const nas_target *target, const nas__conv *c, int32_t vectors) {
    enum {
        MOST = 12 << 10
    }; /* of vectors of 64 bytes; larger parts crowd the pixels: measured with L1 of 48 KiB */
    const nas__conv_runs r = nas__conv_run(c, 0);
    const double step = (double)vectors * target->vector_bytes, share = 0.4 * target->l1_bytes;
    const double room = target->vector_bytes == 64 && share > MOST ? MOST : share;
    if (c->kernel_h * r.taps * r.length * step <= room || r.length % 4 != 0) return 0;
    const int32_t parts = (int32_t)ceil(r.length * step / room);
    return (ceil_div(r.length, parts) + 3) / 4 * 4;
}

static void add_direct(way_list *list, nas__conv_algorithm algorithm) {
    const nas__conv *c = list->conv;
    const nas_target view = nas__conv_view(list->target, &(nas__conv_way){.algorithm = algorithm});
    const bool many = view.vector_registers >= 32;
    const int32_t lanes = view.vector_bytes / 4;
    const int32_t most = ceil_div(c->out_c / c->groups, lanes);
    for (int32_t i = 0; i < (many ? 5 : 3); i++) {
        const int32_t *tile = many ? tiles_32[i] : tiles_16[i];
        const nas__conv_tiling t = nas__conv_tile(c, tile[0]);
        const int32_t vectors = min_i32(tile[1], most);
        nas__conv_way way = {
            .algorithm = algorithm, .pixels = t.rows * t.columns, .vectors = vectors};
        for (int32_t outer = 0; outer < (t.bands > 1 && most > vectors ? 2 : 1); outer++) {
            way.outer = outer;
            way.depth = 0;
            add(list, way);
            way.depth = depth_of(&view, c, vectors);
            if (way.depth > 0) add(list, way);
        }
    }
}

static void add_vector(way_list *list, nas__conv_algorithm algorithm) {
    nas__conv_way way = {.algorithm = algorithm, .pixels = 1};
    const int32_t lanes = nas__conv_view(list->target, &way).vector_bytes / 4;
    const int32_t most = ceil_div(list->conv->out_c, lanes);
    for (int32_t v = 8; v >= 4; v -= 4) {
        way.vectors = min_i32(v, most);
        add(list, way);
    }
}

static void add_depthwise(way_list *list, nas__conv_algorithm algorithm) {
    const bool many = list->target->vector_registers >= 32;
    const int32_t room = (many ? 32 : 16) - 1 - list->conv->kernel_w;
    /* Longer runs crowd L1: measured. A64FX needs 18 sums to keep its units busy. */
    const int32_t longest = list->target->sve_bytes >= 64 ? 18 : 8;
    const int32_t most = min_i32(room > 4 ? room : 4, longest);
    const int32_t first = list->n;
    for (int32_t p = most; p >= 4; p -= 2) {
        const int32_t columns = min_i32(p, list->conv->out_w);
        const nas__conv_way way = {.algorithm = algorithm, .pixels = columns};
        if (list->n < first + 6) add(list, way);
    }
}

static void add_sve(way_list *list) {
    const nas__conv *c = list->conv;
    if (c->groups > 1 && c->groups == c->in_c && c->out_c == c->in_c)
        add_depthwise(list, NAS__CONV_SVE_DEPTHWISE);
    else if (c->groups == 1 && c->out_h * c->out_w == 1)
        add_vector(list, NAS__CONV_SVE);
    else
        add_direct(list, NAS__CONV_SVE);
}

/* {pixels, vectors}: the sums, and inputs or weights of a step, whichever are fewer, fit the registers. */
static const int32_t tiles_bf16[][2] = {{8, 3}, {12, 2}, {6, 4}, {4, 6}, {24, 1}};
enum { TILES_BF16 = sizeof tiles_bf16 / sizeof tiles_bf16[0] };

static void add_bf16(way_list *list) {
    const nas__conv *c = list->conv;
    const int32_t most = ceil_div(c->out_c, list->target->vector_bytes / 4);
    nas__conv_way way = {.algorithm = NAS__CONV_BF16};
    for (int32_t v = 8; v >= 4 && c->out_h * c->out_w == 1; v -= 4) {
        way.pixels = 1;
        way.vectors = min_i32(v, most);
        add(list, way);
    }
    for (int32_t i = 0; i < TILES_BF16 && c->out_h * c->out_w > 1; i++) {
        const nas__conv_tiling t = nas__conv_tile(c, tiles_bf16[i][0]);
        way.pixels = t.rows * t.columns;
        way.vectors = min_i32(tiles_bf16[i][1], most);
        for (way.outer = 0; way.outer < (t.bands > 1 && most > way.vectors ? 2 : 1); way.outer++)
            add(list, way);
    }
}

static void add_winograd_few(way_list *list, nas__conv_algorithm algorithm) {
    const nas__conv *c = list->conv;
    const bool many = list->target->vector_registers >= 32;
    const int32_t lanes = list->target->vector_bytes / 4;
    const int32_t most = ceil_div(c->out_c, lanes);
    const int32_t own = most - (nas__conv_winograd_pair(list->target, c->out_c) > 0);
    for (int32_t i = 0; i < 2; i++) {
        const int32_t *tile = many ? tiles_32[i == 0 ? 0 : 2] : tiles_16[i];
        nas__conv_way way = {.algorithm = algorithm};
        const int32_t tiles = nas__conv_winograd_tiles(c, &way);
        way.pixels = min_i32(tile[0], tiles);
        way.vectors = min_i32(tile[1], own > 0 ? own : 1);
        const int32_t points = algorithm == NAS__CONV_WINOGRAD_2 ? 16 : 36;
        const double bytes =
            4.0 * points * (ceil_div(c->in_c, lanes) * lanes + ceil_div(c->out_c, lanes) * lanes);
        const int32_t fits = (int32_t)(0.25 * list->target->l2_bytes / bytes);
        const double weights = 4.0 * points * c->in_c * c->out_c;
        const int32_t all = ceil_div(tiles, way.pixels) * way.pixels;
        /* enough units for threads: batches times blocks of outputs */
        const int32_t units = ceil_div(8, ceil_div(most, way.vectors));
        int32_t batch = min_i32(fits, ceil_div(tiles, units)) / way.pixels * way.pixels;
        if (batch < way.pixels) batch = way.pixels;
        way.batch = batch;
        add(list, way);
        if (batch / 2 >= way.pixels) {
            way.batch = ceil_div(batch / 2, way.pixels) * way.pixels;
            add(list, way);
        }
        if (batch < all && units <= 2 && weights > 4.0 * list->target->l2_bytes) {
            way.batch = all; /* reads the weights once */
            add(list, way);
        }
    }
}

/* For vectors of 64 bytes: their tiles are full whatever the shape, so that the batch can divide the tiles evenly. Most of
 * L2 belongs to the weights. */
static void add_winograd_even(way_list *list, nas__conv_algorithm algorithm) {
    static const int32_t shapes[][2] = {{14, 2}, {8, 3}, {6, 4}, {28, 1}};
    static const double shares[] = {0.0625, 0.125, 0.25}; /* of L2 for a batch */
    enum { FEW = 6 };                                     /* tiles that are not worth a batch */
    const nas__conv *c = list->conv;
    const int32_t lanes = list->target->vector_bytes / 4, most = ceil_div(c->out_c, lanes);
    const int32_t own = most - (nas__conv_winograd_pair(list->target, c->out_c) > 0);
    nas__conv_way way = {.algorithm = algorithm};
    const int32_t tiles = nas__conv_winograd_tiles(c, &way);
    const int32_t points = algorithm == NAS__CONV_WINOGRAD_2 ? 16 : 36;
    const double bytes = 4.0 * points * lanes * (ceil_div(c->in_c, lanes) + most);
    const double weights = 4.0 * points * c->in_c * c->out_c;
    for (int32_t i = 0; i < 4; i++) {
        way.vectors = min_i32(shapes[i][1], own > 0 ? own : 1); /* without one that tiles share */
        /* enough units for threads: batches times blocks of outputs */
        const int32_t units = ceil_div(8, ceil_div(most, way.vectors));
        for (int32_t k = 0; k < 4; k++) {
            int32_t batches = units;
            if (k < 3) {
                const double fits = shares[k] * list->target->l2_bytes / bytes;
                batches = ceil_div(tiles, fits > 1 ? (int32_t)fits : 1);
                if (batches < units) batches = units;
                if (batches > ceil_div(tiles, FEW)) batches = ceil_div(tiles, FEW);
            } else if (units > 2 || weights <= 4.0 * list->target->l2_bytes) {
                continue;
            } else {
                batches = 1; /* reads the weights once */
            }
            const int32_t each = ceil_div(tiles, batches), rounds = ceil_div(each, shapes[i][0]);
            way.pixels = ceil_div(each, rounds);
            way.batch = rounds * way.pixels;
            add(list, way);
        }
    }
}

static void add_winograd(way_list *list, nas__conv_algorithm algorithm) {
    if (list->target->vector_bytes == 64)
        add_winograd_even(list, algorithm);
    else
        add_winograd_few(list, algorithm);
}

static int by_cycles(const void *a, const void *b) {
    const nas__conv_way *x = a, *y = b;
    if (x->cycles != y->cycles) return x->cycles < y->cycles ? -1 : 1;
    if (x->algorithm != y->algorithm) return x->algorithm < y->algorithm ? -1 : 1;
    if (x->pixels != y->pixels) return x->pixels < y->pixels ? 1 : -1;
    if (x->vectors != y->vectors) return x->vectors < y->vectors ? -1 : 1;
    if (x->batch != y->batch) return x->batch < y->batch ? 1 : -1;
    if (x->depth != y->depth) return x->depth < y->depth ? 1 : -1;
    if (x->group != y->group) return x->group < y->group ? 1 : -1;
    if (x->joined != y->joined) return y->joined - x->joined;
    return x->outer - y->outer;
}

int32_t nas__conv_ways(const nas_target *target, const nas__conv *c,
                       nas__conv_way out[NAS__CONV_WAYS_MAX]) {
    way_list list = {.target = target, .conv = c, .out = out};
    nas__conv_way sparse[NAS__SPARSE_WAYS_MAX];
    const int32_t n_sparse = nas__sparse_ways(target, c, sparse);
    for (int32_t i = 0; i < n_sparse; i++)
        add(&list, sparse[i]);
    if (target->bf16 && c->groups == 1 && target->vector_bytes == 16) add_bf16(&list);
    nas__conv_way staged[NAS__STAGED_WAYS_MAX];
    const int32_t n_staged = nas__staged_ways(target, c, staged);
    for (int32_t i = 0; i < n_staged; i++)
        add(&list, staged[i]);
    if (target->sve_bytes > 16) add_sve(&list); /* as long as the others are, they gain nothing */
    if (c->groups > 1) {
        if (c->groups == c->in_c && c->out_c == c->in_c) {
            add_depthwise(&list, NAS__CONV_DEPTHWISE);
        } else {
            add_direct(&list, NAS__CONV_GROUPED);
        }
    } else {
        if (c->out_h == 1 && c->out_w == 1) {
            add_vector(&list, NAS__CONV_VECTOR);
        } else {
            add_direct(&list, NAS__CONV_DIRECT);
        }
        if (c->kernel_h == 3 && c->kernel_w == 3 && c->stride_h == 1 && c->stride_w == 1 &&
            c->dilation_h == 1 && c->dilation_w == 1 && c->out_h * c->out_w >= 4) {
            add_winograd(&list, NAS__CONV_WINOGRAD_2);
            add_winograd(&list, NAS__CONV_WINOGRAD_4);
        }
    }
    qsort(out, (size_t)list.n, sizeof *out, by_cycles);
    return list.n;
}

const char *nas__conv_algorithm_name(nas__conv_algorithm algorithm) {
    switch (algorithm) {
    case NAS__CONV_DIRECT: return "direct";
    case NAS__CONV_DEPTHWISE: return "depthwise";
    case NAS__CONV_GROUPED: return "grouped";
    case NAS__CONV_WINOGRAD_2: return "winograd2";
    case NAS__CONV_WINOGRAD_4: return "winograd4";
    case NAS__CONV_VECTOR: return "vector";
    case NAS__CONV_SPARSE: return "sparse";
    case NAS__CONV_SPARSE_RUN: return "sparse_run";
    case NAS__CONV_SPARSE_PANEL: return "sparse_px";
    case NAS__CONV_SPARSE_CODE: return "sparse_code";
    case NAS__CONV_SVE: return "sve";
    case NAS__CONV_SVE_DEPTHWISE: return "sve_depthwise";
    case NAS__CONV_BF16: return "bf16";
    case NAS__CONV_BF16_DOT: return "bf16_dot";
    case NAS__CONV_BF16_TILE: return "bf16_tile";
    }
    return "";
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

int32_t nas__conv_units(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas_target view = nas__conv_view(target, way);
    switch (way->algorithm) {
    case NAS__CONV_DIRECT:
    case NAS__CONV_GROUPED:
    case NAS__CONV_VECTOR:
    case NAS__CONV_SVE:
    case NAS__CONV_BF16:
        return ceil_div(nas__conv_tile(c, way->pixels).bands, nas__conv_unit_bands(&view, c, way)) *
               c->groups * nas__conv_block(&view, c, way->vectors).count;
    case NAS__CONV_DEPTHWISE:
    case NAS__CONV_SVE_DEPTHWISE:
        return c->out_h *
               ceil_div(ceil_div(c->out_c, view.vector_bytes / 4), nas__conv_depthwise_chunk());
    case NAS__CONV_WINOGRAD_2:
    case NAS__CONV_WINOGRAD_4: return nas__conv_winograd_units(target, c, way);
    case NAS__CONV_SPARSE:
    case NAS__CONV_SPARSE_RUN:
        return nas__conv_tile(c, way->pixels).bands *
               nas__conv_block(target, c, way->vectors).count;
    case NAS__CONV_BF16_DOT:
    case NAS__CONV_BF16_TILE:
        return nas__staged_of(c, way).strips * nas__conv_block(target, c, way->vectors).count;
    case NAS__CONV_SPARSE_PANEL:
    case NAS__CONV_SPARSE_CODE: {
        const nas__panel_tiling t = nas__panel_tile(target, c, way);
        if (t.runs) return c->out_h;
        return t.lines > 1 ? t.lines : t.wide + t.narrow;
    }
    }
    return 0;
}

int32_t nas__conv_rows_of_unit(const nas_target *target, const nas__conv *c,
                               const nas__conv_way *way) {
    const nas_target view = nas__conv_view(target, way);
    switch (way->algorithm) {
    case NAS__CONV_SVE:
    case NAS__CONV_BF16:
        if (c->out_h * c->out_w == 1) return 0;
        /* fallthrough */
    case NAS__CONV_DIRECT:
    case NAS__CONV_GROUPED:
        return way->outer != 0
                   ? 0
                   : nas__conv_tile(c, way->pixels).rows * nas__conv_unit_bands(&view, c, way);
    case NAS__CONV_SPARSE:
    case NAS__CONV_SPARSE_RUN: return way->outer != 0 ? 0 : nas__conv_tile(c, way->pixels).rows;
    case NAS__CONV_SPARSE_PANEL:
    case NAS__CONV_SPARSE_CODE: {
        const nas__panel_tiling t = nas__panel_tile(target, c, way);
        return t.lines > 1 || t.runs ? 1 : 0;
    }
    case NAS__CONV_BF16_DOT:
    case NAS__CONV_BF16_TILE: return nas__staged_of(c, way).rows;
    case NAS__CONV_DEPTHWISE:
    case NAS__CONV_SVE_DEPTHWISE: return 1;
    case NAS__CONV_WINOGRAD_2:
    case NAS__CONV_WINOGRAD_4:
    case NAS__CONV_VECTOR: return 0;
    }
    return 0;
}

size_t nas__conv_scratch_floats(const nas_target *target, const nas__conv *c,
                                const nas__conv_way *way) {
    const bool winograd =
        way->algorithm == NAS__CONV_WINOGRAD_2 || way->algorithm == NAS__CONV_WINOGRAD_4;
    if (winograd) return nas__conv_winograd_scratch(target, c, way);
    if (way->algorithm == NAS__CONV_SPARSE_PANEL || way->algorithm == NAS__CONV_SPARSE_CODE)
        return nas__panel_scratch(target, c, way);
    if (nas__conv_is_staged(way)) return nas__staged_of(c, way).scratch_bytes / sizeof(float);
    if (way->depth == 0) return 0;
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas_target view = nas__conv_view(target, way);
    return (size_t)(nas__conv_unit_bands(&view, c, way) * t.rows) * (size_t)c->out_w *
           (size_t)(way->vectors * view.vector_bytes / 4);
}

size_t nas__conv_weight_floats(const nas_target *target, const nas__conv *c,
                               const nas__conv_way *way) {
    const nas_target view = nas__conv_view(target, way);
    const int32_t lanes = view.vector_bytes / 4, heads = nas__conv_heads(c);
    const int32_t taps = c->kernel_h * c->kernel_w;
    const size_t padded = (size_t)(ceil_div(c->out_c / c->groups, lanes) * lanes);
    switch (way->algorithm) {
    case NAS__CONV_DIRECT:
    case NAS__CONV_GROUPED:
    case NAS__CONV_VECTOR:
    case NAS__CONV_SVE:
        return (size_t)c->groups * padded *
               ((size_t)heads + (size_t)taps * (size_t)(c->in_c / c->groups));
    case NAS__CONV_DEPTHWISE:
    case NAS__CONV_SVE_DEPTHWISE:
        return (size_t)(ceil_div(c->out_c, lanes) * lanes) * (size_t)(heads + taps);
    case NAS__CONV_BF16: return padded * ((size_t)heads + (size_t)nas__bf16_floats(c));
    case NAS__CONV_BF16_DOT:
    case NAS__CONV_BF16_TILE: return padded * ((size_t)heads + (size_t)nas__staged_floats(c, way));
    case NAS__CONV_WINOGRAD_2:
    case NAS__CONV_WINOGRAD_4: return nas__conv_winograd_weights(target, c, way);
    case NAS__CONV_SPARSE:
    case NAS__CONV_SPARSE_RUN:
    case NAS__CONV_SPARSE_PANEL:
    case NAS__CONV_SPARSE_CODE: return nas__sparse_layout_of(target, c, way).floats;
    }
    return 0;
}

/* ---- names and text ---------------------------------------------------------------------------------------------- */

/* What the kernel asks for ahead, as a number. */
static int32_t asked_ahead(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    enum { FAR_OUTPUTS = 4, FAR_INPUTS = 8, SPARSE_ASKS = 16, PAIRS = 64 };
    int32_t memory = (int32_t)nas__conv_streams(target, c);
    if (way->algorithm == NAS__CONV_WINOGRAD_2 || way->algorithm == NAS__CONV_WINOGRAD_4) {
        memory += nas__conv_winograd_far(target, c) ? FAR_OUTPUTS : 0;
        memory += nas__conv_winograd_asks(target, c) ? FAR_INPUTS : 0;
        if (nas__conv_winograd_pair(target, c->in_c) > 0 ||
            nas__conv_winograd_pair(target, c->out_c) > 0)
            memory += PAIRS; /* another text and other weights */
    }
    if (nas__conv_is_staged(way)) {
        memory += nas__staged_far_results(target, c) ? FAR_OUTPUTS : 0;
        memory += nas__staged_far_weights(target, c, way) ? FAR_INPUTS : 0;
    }
    if (nas__conv_is_sparse(way) && !nas__sparse_by_blocks(way))
        memory += SPARSE_ASKS * (int32_t)nas__sparse_asks(target, c);
    return memory;
}

void nas__conv_name(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                    nas_buf *out) {
    char all[512];
    const int n = snprintf(
        all, sizeof all,
        "%d %d|%d %d %d|%d %d|%d %d %d %d %d %d|%d %d %d|%zu %zu %zu|%d %d|%a "
        "%a|%d %d %d %d %d %d %d %d|%d",
        nas__conv_view(target, way).vector_bytes, target->vector_registers, c->in_c, c->out_c,
        c->groups, c->out_h, c->out_w, c->kernel_h, c->kernel_w, c->stride_h, c->stride_w,
        c->dilation_h, c->dilation_w, c->in_pitch, c->out_pitch, c->residual_pitch, c->in_row,
        c->out_row, c->residual_row, (int)c->has_residual, (int)c->act, (double)c->lo,
        (double)c->hi, (int)way->algorithm, way->pixels, way->vectors, way->outer, way->batch,
        way->depth, way->group, way->joined, asked_ahead(target, c, way));
    char hash[NAS_SHA256_HEX];
    nas_sha256 h;
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_init(&h);
    nas_sha256_update(&h, all, n > 0 ? (size_t)n : 0);
    if (way->algorithm == NAS__CONV_SPARSE_CODE) /* here the mask is the text */
        nas_sha256_update(&h, c->kept,
                          (size_t)c->out_c * (size_t)(c->kernel_h * c->kernel_w * c->in_c));
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, hash);
    nas_buf_printf(out, "conv_%s_%dx%d_%d_%d_%dx%d_%.12s", nas__conv_algorithm_name(way->algorithm),
                   c->kernel_h, c->kernel_w, c->in_c, c->out_c, c->out_h, c->out_w, hash);
}

void nas__conv_emit(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                    nas_buf *out) {
    nas__machine_code code = {0};
    nas_buf name = {0};
    nas__conv_emit_apart(target, c, way, out, &code);
    nas__conv_name(target, c, way, &name);
    if (name.failed || name.data == NULL)
        out->failed = true;
    else if (code.bytes.len > 0 || code.bytes.failed)
        nas__machine_code_text(&code, name.data, out);
    nas_buf_deinit(&name);
    nas_buf_deinit(&code.bytes);
}

void nas__conv_emit_apart(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                          nas_buf *out, nas__machine_code *code) {
    nas_buf name = {0};
    const nas_target view = nas__conv_view(target, way);
    nas__conv_name(target, c, way, &name);
    if (name.failed || name.data == NULL) {
        out->failed = true;
        nas_buf_deinit(&name);
        return;
    }
    nas_buf_printf(out,
                   "/* %s: %d -> %d channels%s, %dx%d taps, stride %d, %dx%d outputs; tile %d x %d "
                   "*/\n",
                   nas__conv_algorithm_name(way->algorithm), c->in_c, c->out_c,
                   c->groups > 1 ? " in groups" : "", c->kernel_h, c->kernel_w, c->stride_h,
                   c->out_h, c->out_w, way->pixels, way->vectors);
    switch (way->algorithm) {
    case NAS__CONV_DIRECT:
    case NAS__CONV_GROUPED:
    case NAS__CONV_VECTOR:
    case NAS__CONV_SPARSE:
    case NAS__CONV_SPARSE_RUN:
    case NAS__CONV_SVE:
    case NAS__CONV_BF16: nas__conv_direct_emit(&view, c, way, name.data, out); break;
    case NAS__CONV_BF16_DOT:
    case NAS__CONV_BF16_TILE: nas__staged_emit(target, c, way, name.data, out); break;
    case NAS__CONV_SPARSE_PANEL:
    case NAS__CONV_SPARSE_CODE: nas__sparse_emit_panel(target, c, way, name.data, out); break;
    case NAS__CONV_DEPTHWISE:
    case NAS__CONV_SVE_DEPTHWISE: nas__conv_depthwise_emit(&view, c, way, name.data, out); break;
    case NAS__CONV_WINOGRAD_2:
    case NAS__CONV_WINOGRAD_4: nas__conv_winograd_emit(target, c, way, name.data, out); break;
    }
    if (way->algorithm == NAS__CONV_SPARSE_CODE) *code = nas__sparse_code(target, c, way);
    nas_buf_deinit(&name);
}
