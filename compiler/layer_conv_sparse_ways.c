/* layer_conv_sparse_ways.c - which sparse ways of a convolution make sense, and what they cost. The dense ways stay in the
 * list beside them. */
#include "compiler/layer_conv_internal.h"

#include <math.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static double max_double(double a, double b) {
    return a > b ? a : b;
}

/* ---- cost --------------------------------------------------------------------------------------------------------- */

/* Two multiply-adds and two loads a cycle, a multiply-add takes four; the rest is fitted (bench_sparse). */
static const double fma_latency = 4, call_cycles = 20, entry_cycles = 0.7, move_cycles = 3,
                    pixel_cycles = 6, l2_cycles_vector = 1.5, code_slack = 1.1, arm_slack = 1.2,
                    far_share = 0.8, far_bytes_cycle = 20, near_bytes_cycle = 128;

static double direct_cycles(const nas_target *target, const nas__conv *c,
                            const nas__conv_way *way) {
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const double pixels = way->pixels, vectors = b.vectors, loads = pixels + vectors + 0.5;
    double step = max_double(max_double(pixels * vectors, loads) / 2, fma_latency) + 0.15 * pixels +
                  0.05 * vectors;
    if (way->algorithm == NAS__CONV_SPARSE_RUN) /* and a permutation for each product */
        step = pixels * vectors * (way->group == 4 ? 0.6 : 1.15) + 0.1 * pixels + 0.75 * vectors;
    const double tiles = (double)t.bands * (t.wide + t.narrow);
    return tiles * (way->entries * (step + entry_cycles) +
                    b.count * (call_cycles + 2.5 * pixels * vectors));
}

static double panel_cycles(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas__panel_tiling t = nas__panel_tile(target, c, way);
    const double steps = (double)c->kernel_h * c->kernel_w * c->in_c;
    double cycles = 0;
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const double vectors = way->vectors - narrow, products = way->group * vectors;
        const double loads = vectors + way->group + 1;
        double step = max_double(max_double(products, loads) / 2, fma_latency) + entry_cycles;
        if (t.depth * vectors * target->vector_bytes > target->l1_bytes)
            step = max_double(step, l2_cycles_vector * vectors);
        const double lists = (double)t.parts * t.groups;
        cycles += (narrow ? t.narrow : t.wide) *
                  (way->entries * step + lists * (call_cycles + products) +
                   move_cycles * vectors * (steps + c->out_c) +
                   pixel_cycles * vectors * (target->vector_bytes / 4) + 4 * call_cycles);
    }
    return cycles * t.lines;
}

static double code_bytes(const nas_target *target, const nas__conv_way *way) {
    return (double)way->entries * nas__sparse_code_writer(target)->weight_bytes;
}

/* What reading them once costs beside running them: they come from L2, or from beyond it. */
static double code_reads(const nas_target *target, const nas__conv_way *way) {
    const double bytes = code_bytes(target, way);
    if (bytes <= target->l1_bytes) return 0;
    return bytes / (bytes > far_share * target->l2_bytes ? far_bytes_cycle : near_bytes_cycle);
}

/* Of the mask as machine code: multiply-adds of a block for each weight and where it needs one a broadcast, the vectors of
 * each step that a group keeps. On 64-bit Arm nothing was measured: the slack is for code and panels that do not come from
 * L1. */
static double code_cycles(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas__panel_tiling t = nas__panel_tile(target, c, way);
    const double steps = (double)c->kernel_h * c->kernel_w * c->in_c, vectors = way->vectors;
    const double passes =
        ceil_div(t.vectors, way->pixels); /* those of pixels that are none do not run */
    const double kept = way->entries / (steps * c->out_c); /* of the weights */
    const double loads = t.groups * steps * (1 - pow(1 - kept, way->group)) * way->pixels;
    const double products = (double)way->entries * way->pixels;
    const bool broadcasts = nas__sparse_code_writer(target)->round == 1;
    const double busy = broadcasts ? max_double(loads + way->entries, products) / 2 * code_slack
                                   : max_double(products, loads + products / 4) / 2 * arm_slack;
    const double stores = (double)t.parts * c->out_c * way->pixels; /* and as many loads, of sums */
    return passes * (busy + (broadcasts ? stores : 0)) +
           t.wide * ((broadcasts ? code_reads(target, way) : 0) +
                     move_cycles * vectors * (steps + c->out_c) +
                     pixel_cycles * vectors * (target->vector_bytes / 4) + 4 * call_cycles);
}

double nas__sparse_cycles(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    if (way->algorithm == NAS__CONV_SPARSE_CODE) return code_cycles(target, c, way);
    return nas__sparse_by_blocks(way) ? direct_cycles(target, c, way)
                                      : panel_cycles(target, c, way);
}

double nas__sparse_products(const nas_target *target, const nas__conv *c,
                            const nas__conv_way *way) {
    const int32_t lanes = target->vector_bytes / 4;
    if (way->algorithm == NAS__CONV_SPARSE_PANEL) return (double)way->entries * way->group;
    if (way->algorithm == NAS__CONV_SPARSE_CODE) return way->entries;
    return (double)way->entries * nas__conv_block(target, c, way->vectors).vectors * lanes;
}

/* ---- candidates --------------------------------------------------------------------------------------------------- */

static int32_t steps_of(const nas__conv *c) {
    return c->kernel_h * c->kernel_w * c->in_c;
}

static double sum_of(const uint8_t *kept, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += kept[i] != 0;
    return sum;
}

/* Does the way leave anything out? */
static bool leaves_out(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const int64_t steps = (int64_t)c->kernel_h * c->kernel_w * c->in_c;
    const int32_t lists = nas__sparse_by_blocks(way)
                              ? nas__conv_block(target, c, way->vectors).count
                              : ceil_div(c->out_c, way->group);
    return way->entries < steps * lists;
}

static int32_t direct_ways(const nas_target *target, const nas__conv *c, nas__conv_way *out) {
    static const int32_t few[][2] = {{12, 1}, {6, 2}}, many[][2] = {{28, 1}, {12, 2}};
    const int32_t most = ceil_div(c->out_c, target->vector_bytes / 4);
    int32_t n = 0;
    for (int32_t i = 0; i < 2; i++) {
        const int32_t *tile = target->vector_registers >= 32 ? many[i] : few[i];
        const nas__conv_tiling t = nas__conv_tile(c, tile[0]);
        nas__conv_way way = {.algorithm = NAS__CONV_SPARSE, .pixels = t.rows * t.columns};
        way.vectors = tile[1] < most ? tile[1] : most;
        way.entries = nas__sparse_entries(target, c, &way);
        if (leaves_out(target, c, &way)) out[n++] = way;
    }
    return n;
}

/* The way of runs of so many inputs; false: it is not offered, or too many lanes would find nothing to pick. */
static bool run_way(const nas_target *target, const nas__conv *c, int32_t run, nas__conv_way *out) {
    const nas__conv_tiling t = nas__conv_tile(c, 4);
    const int32_t most = ceil_div(c->out_c, target->vector_bytes / 4);
    if (!nas__run_offered(target, c, run)) return false;
    nas__conv_way way = {
        .algorithm = NAS__CONV_SPARSE_RUN, .pixels = t.rows * t.columns, .group = run};
    way.vectors = most < 2 ? most : 2;
    way.entries = nas__sparse_entries(target, c, &way);
    const double kept = sum_of(c->kept, (size_t)steps_of(c) * (size_t)c->out_c);
    if (!leaves_out(target, c, &way) || kept < 0.5 * nas__sparse_products(target, c, &way))
        return false;
    *out = way;
    return true;
}

/* Of eight inputs picking takes twice as long as of four: only where that saves entries. */
static int32_t run_ways(const nas_target *target, const nas__conv *c, nas__conv_way *out) {
    nas__conv_way four = {0}, eight = {0};
    const bool has_four = run_way(target, c, 4, &four), has_eight = run_way(target, c, 8, &eight);
    if (!has_four && !has_eight) return 0;
    *out = has_four && (!has_eight || four.entries < 2 * eight.entries) ? four : eight;
    return 1;
}

/* Steps of the sum whose panel takes `share` of L1; 0: all of them, or they cannot be cut into whole vectors of channels. */
static int32_t depth_of(const nas_target *target, const nas__conv *c, int32_t vectors,
                        double share) {
    const int32_t lanes = target->vector_bytes / 4, steps = steps_of(c);
    const int32_t most = (int32_t)(target->l1_bytes * share) / (vectors * target->vector_bytes);
    if (steps <= most || c->in_c % lanes != 0) return 0;
    const int32_t parts = ceil_div(steps, most);
    return ceil_div(ceil_div(steps, parts), lanes) * lanes;
}

/* The way, and with a panel that leaves room in L1. Where few outputs share what is loaded, only that is worth a try. */
static int32_t with_depths(const nas_target *target, const nas__conv *c, nas__conv_way way,
                           nas__conv_way *out) {
    int32_t n = 0;
    if (!leaves_out(target, c, &way)) return 0;
    const int32_t depth = depth_of(target, c, way.vectors, 0.75);
    if (depth == 0 || way.group > 2) out[n++] = way;
    way.depth = depth;
    if (depth > 0) out[n++] = way;
    return n;
}

/* Registers for sums. Where sums are short what a tile reads and writes takes most of L1 beside them: on AVX-512 (Granite
 * Rapids) fewer pixels are faster then, 16 -> 96 channels with half of the weights by a sixth. */
static int32_t sums_of(const nas_target *target, const nas__conv *c) {
    enum { LINE = 64, SHORT_SUM = 64 };
    if (target->vector_registers < 32) return 12;
    return target->vector_bytes == LINE && steps_of(c) <= SHORT_SUM ? 16 : 24;
}

/* The way of one group size and tiling, with the best of both orders of outputs. */
static int32_t group_ways(const nas_target *target, const nas__conv *c, int32_t group,
                          int32_t outer, nas__conv_way *out) {
    enum { JOINED_GROUP = 4, LINE = 64 }; /* a quad of lanes; see nas__panel_staged */
    const int32_t accumulators = sums_of(target, c);
    nas__conv_way way = {.algorithm = NAS__CONV_SPARSE_PANEL,
                         .pixels = 1,
                         .outer = outer,
                         .group = group,
                         .vectors = accumulators / group};
    const nas__panel_tiling t = nas__panel_tile(target, c, &way);
    if (outer == 1) { /* does the image as one line differ from its rows? */
        nas__conv_way rows = way;
        rows.outer = 0;
        if (nas__panel_tile(target, c, &rows).lines == 1) return 0;
    }
    way.vectors = ceil_div(t.vectors, t.wide + t.narrow); /* evenly */
    way.joined = (group == JOINED_GROUP || target->vector_bytes == LINE) && c->out_c % group == 0;
    way.entries = nas__sparse_entries(target, c, &way);
    int32_t n = with_depths(target, c, way, out);
    if (way.joined == 0) return n;
    const int32_t entries = way.entries;
    way.joined = 0; /* other outputs together have shorter lists? */
    way.entries = nas__sparse_entries(target, c, &way);
    return way.entries < entries ? n + with_depths(target, c, way, out + n) : n;
}

static int32_t panel_ways(const nas_target *target, const nas__conv *c, nas__conv_way *out) {
    const int32_t most = target->vector_registers >= 32 ? 8 : 4;
    int32_t n = 0;
    for (int32_t group = 1; group <= most; group *= 2) {
        n += group_ways(target, c, group, 0, out + n);
        n += group_ways(target, c, group, 1, out + n);
    }
    return n;
}

/* A tile is one block, which leaves most of L1 to the values and the sums; code that takes much of L2 is read once for a few
 * of them. */
static int32_t code_ways(const nas_target *target, const nas__conv *c, nas__conv_way *out) {
    enum { STEPS_MAX = 65536, FEW_BLOCKS = 3 };
    const nas__code_writer *w = nas__sparse_code_writer(target);
    if (w == NULL || steps_of(c) > STEPS_MAX) return 0;
    nas__conv_way way = {
        .algorithm = NAS__CONV_SPARSE_CODE, .pixels = w->block, .vectors = w->block};
    way.group = ceil_div(c->out_c, ceil_div(c->out_c, w->sums / w->block)); /* evenly */
    way.outer = !nas__panel_tile(target, c, &way).runs;
    way.entries = nas__sparse_entries(target, c, &way);
    const int32_t blocks = ceil_div(nas__panel_tile(target, c, &way).vectors, w->block);
    int32_t most = code_bytes(target, &way) > target->l2_bytes / 8.0 ? FEW_BLOCKS : 1;
    if (!w->parts) most = NAS__CODE_VECTORS;
    way.vectors = w->block * ceil_div(blocks, ceil_div(blocks, most)); /* evenly too */
    if (w->parts) way.depth = depth_of(target, c, way.vectors, 0.625);
    if (way.entries > w->weights_max) return 0;
    out[0] = way;
    return 1;
}

int32_t nas__sparse_ways(const nas_target *target, const nas__conv *c,
                         nas__conv_way out[NAS__SPARSE_WAYS_MAX]) {
    if (c->kept == NULL || c->groups != 1) return 0;
    int32_t n = direct_ways(target, c, out);
    if (c->out_h * c->out_w == 1) return n;
    n += run_ways(target, c, out + n);
    n += panel_ways(target, c, out + n);
    return n + code_ways(target, c, out + n);
}
