/* layer_conv_cost.c - what a way of a dense convolution is expected to take, in cycles. */
#include "compiler/layer_conv_internal.h"
#include "compiler/layer_conv_winograd.h"

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

/* What the parts of a kernel take, in the time of two multiply-adds of vectors: a cycle where there are two units for them.
 * Fitted to measurements (bench_layer_conv). */
typedef struct pace {
    double latency;        /* of a multiply-add */
    double call;           /* of a tile, with the branch that it mispredicts */
    double pixel, vector;  /* loads disturb the products a little even when they fit */
    double result;         /* of a vector of outputs */
    double product_result; /* of a product of Winograd, which has no activation */
    double transform;      /* of a point: about three additions, a load, a store */
    double crowd;          /* of a pixel that others of the tile drive out of L1 */
    double part;           /* of a vector of sums that goes on with the next part of the sum */
    double l2, l3, memory; /* bytes */
} pace;
static const pace two_units = {4, 20, 0.15, 0.05, 2.5, 1, 3, 1.5, 2.5, 32, 10, 5};
/* A64FX, the one with vectors of SVE as long as a line, waits for 9 cycles; nothing else of it was measured. */
static const pace late = {9, 20, 0.15, 0.05, 2.5, 1, 3, 1.5, 2.5, 32, 10, 5};
/* Zen 4 computes vectors of 64 bytes in halves: everything else is twice as fast beside them. */
static const pace in_halves = {2, 10, 0.02, 0.02, 1.5, 0.8, 1.2, 1.5, 1.5, 64, 20, 7};
/* Two units for vectors of 64 bytes, Intel's servers: broadcasts are operands in memory, loads and multiply-adds keep up
 * with one another, and it is the way of the weights to L1 and of the sums between parts that shows. */
static const pace wide = {4, 15, 0.1, 0.02, 2, 1, 2, 1.5, 0.32, 30, 10, 5.4};

static const pace *pace_of(const nas_target *target) {
    if (target->sve_bytes >= 64) return &late;
    if (target->vector_bytes != 64) return &two_units;
    return target->splits_vectors ? &in_halves : &wide;
}

/* How much longer a multiply-add takes than one of vectors of 16 bytes, where the way is on SVE. */
static double slowness(const nas_target *target, const nas__conv_way *way) {
    return nas__conv_is_sve(way) && target->sve_halves ? 2 : 1;
}

static double product_cycles(const pace *p, double slow, int32_t pixels, int32_t vectors) {
    const double fma = pixels * vectors / 2.0, loads = pixels + vectors;
    const double busy = slow * (fma > loads / 2 ? fma : loads / 2);
    return (busy > p->latency ? busy : p->latency) + p->pixel * pixels + p->vector * vectors;
}

/* A step with products of bf16: a quarter of what four input channels take. A conversion of four values takes as long as a
 * multiply-add. */
static double bf16_cycles(const pace *p, int32_t pixels, int32_t vectors) {
    const double even = (pixels + 1) / 2 * 2, work = even * vectors + even;
    const double loads = even + 2.0 * vectors, busy = (work > loads ? work : loads) / 2;
    return ((busy > p->latency ? busy : p->latency) + p->pixel * pixels + p->vector * vectors) / 4;
}

/* What reading `bytes` as a stream costs beside the products. From L2 and the next cache most of it is hidden; data that
 * exceeds what one core may expect there comes from memory. */
static double stream_cycles(const nas_target *target, double bytes) {
    const pace *p = pace_of(target);
    if (bytes <= 0.5 * target->l2_bytes) return 0.3 * bytes / p->l2;
    if (p == &wide) return 0.3 * bytes / p->memory; /* of a network nothing else is near */
    return bytes <= 8.0 * target->l2_bytes ? 0.3 * bytes / p->l3 : bytes / p->memory;
}

/* The same for weights that are asked for ahead during `work` cycles of products: from memory half of it still shows, or
 * all that the products do not last for. */
static double hidden_stream_cycles(const nas_target *target, double bytes, double work) {
    const double all = stream_cycles(target, bytes);
    if (bytes <= 8.0 * target->l2_bytes || pace_of(target) == &wide) return all;
    return all - work > 0.5 * all ? all - work : 0.5 * all;
}

/* Pixels of a tile that lie a multiple of 4 KiB apart share a set of L1, which has room for eight lines, or for as many as
 * make up its size where the sets are 64: how many more there are, each of them fetched again for every step. */
static int32_t crowded(const nas_target *target, const nas__conv *c, int32_t rows,
                       int32_t columns) {
    enum { WAYS = 8, LINE = 64, SETS_WIDE = 64, SETS_MAX = 256 };
    const bool is_wide = pace_of(target) == &wide;
    const int32_t sets = is_wide ? SETS_WIDE : target->l1_bytes / (WAYS * LINE);
    const int32_t ways = is_wide ? target->l1_bytes / (SETS_WIDE * LINE) : WAYS;
    int32_t held[SETS_MAX] = {0}, over = 0;
    if (sets < 1 || sets > SETS_MAX) return 0;
    for (int32_t i = 0; i < rows * columns; i++) {
        const size_t at = (size_t)(i / columns * c->stride_h) * c->in_row +
                          (size_t)(i % columns * c->stride_w) * (size_t)c->in_pitch;
        held[at * sizeof(float) / LINE % (size_t)sets]++;
    }
    for (int32_t i = 0; i < sets; i++)
        over += held[i] >= ways ? held[i] : 0; /* the weights need a line, too */
    return over;
}

/* What a step takes longer because weights that do not stay in L1, `block` bytes of a block of outputs, come from L2 or,
 * beside those of the next block that are asked for ahead, do not stay there either. */
static double weights_cycles(const nas_target *target, double block, int32_t vectors, double step) {
    const pace *unit = pace_of(target);
    const double width = (double)vectors * target->vector_bytes;
    if (block <= 0.75 * target->l1_bytes) return 0;
    if (unit != &wide) {
        const double excess = width / unit->l2 - 0.5 * step; /* above half its rate */
        return excess > 0 ? 2 * excess : 0;
    }
    const double line = 0.45, odd = 0.5, far_bytes = 18; /* lines come in pairs */
    double cycles = line * (vectors - 1) + (vectors == 3 ? odd : 0);
    if (block > 0.25 * target->l2_bytes) {
        const double excess = width / far_bytes - 0.8 * step;
        cycles += excess > 0.1 * step ? excess : 0.1 * step;
    }
    return cycles;
}

/* What the sums of a tile cost beside its products: results, and sums that wait for another part. The more of them there are,
 * the fewer products pass by meanwhile. */
static double sums_cycles(const pace *unit, double parts, int32_t vectors) {
    const double part = unit == &wide ? unit->part * vectors : unit->part;
    return parts * unit->call + (unit->result + (parts - 1) * part) * vectors;
}

static double direct_cycles(const nas_target *target, const nas__conv *c,
                            const nas__conv_way *way) {
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const nas__conv_runs runs = nas__conv_run(c, way->depth);
    const bool bf16 = way->algorithm == NAS__CONV_BF16;
    const double size = bf16 ? 2 : 4; /* of a weight */
    const double steps =
        bf16 ? 2.0 * nas__bf16_floats(c) : (double)c->kernel_h * c->kernel_w * b.in_c;
    const double parts = way->depth > 0 ? c->kernel_h * runs.taps * runs.parts : 1;
    const pace *unit = pace_of(target);
    const double slow = slowness(target, way);
    double cycles = 0;
    for (int32_t last_band = 0; last_band < 2; last_band++) {
        const int32_t rows = last_band ? t.last_rows : t.rows, bands = last_band ? 1 : t.bands - 1;
        for (int32_t narrow = 0; narrow < 2; narrow++) {
            const int32_t pixels = rows * (t.columns - narrow), n = narrow ? t.narrow : t.wide;
            const double crowd = unit->crowd * crowded(target, c, rows, t.columns - narrow);
            for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
                const nas__conv_kind kind = nas__conv_kind_of(&b, i);
                double step = bf16 ? bf16_cycles(unit, pixels, kind.vectors)
                                   : product_cycles(unit, slow, pixels, kind.vectors);
                step += crowd * size / 4;
                if (way->depth == 0 && pixels > 1)
                    step += size / 4 *
                            weights_cycles(target,
                                           size / 4 * steps * kind.vectors * target->vector_bytes,
                                           kind.vectors, step * 4 / size);
                cycles += (double)bands * n * (kind.to - kind.from) *
                          (steps * step + sums_cycles(unit, parts, pixels * kind.vectors));
            }
        }
    }
    const int32_t units = ceil_div(t.bands, nas__conv_unit_bands(target, c, way));
    const double weights = steps * c->out_c * size;
    if (c->groups == 1 && c->out_h * c->out_w == 1 && weights > 0.5 * target->l2_bytes) {
        return cycles > weights / 16 ? cycles : weights / 16; /* bound by the weights */
    }
    const double input = (double)c->out_h * c->stride_h * c->out_w * c->stride_w * c->in_c * 4;
    const double output = (double)c->out_h * c->out_w * c->out_c * 4;
    const double passes = way->outer == 0 ? units : 1;
    cycles = cycles * c->groups + stream_cycles(target, input) * (way->outer == 1 ? b.count : 1);
    if (unit == &wide || unit == &in_halves) {
        if (way->outer == 1 && output > 0.5 * target->l2_bytes)
            cycles += stream_cycles(target, output); /* no chain of layers goes on with it */
        if (weights <= 0.5 * target->l1_bytes) return cycles; /* they stay there */
    }
    return cycles + hidden_stream_cycles(target, weights, cycles / passes) * passes;
}

static double depthwise_cycles(const nas_target *target, const nas__conv *c,
                               const nas__conv_way *way) {
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const int32_t vectors = ceil_div(c->out_c, target->vector_bytes / 4);
    const pace *unit = pace_of(target);
    const double slow = slowness(target, way);
    double cycles = 0;
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t columns = t.columns - narrow, n = narrow ? t.narrow : t.wide;
        const double loads = (columns - 1) * c->stride_w + 2.0 * c->kernel_w;
        const double fma = columns * c->kernel_w, work = slow * (fma > loads ? fma : loads) / 2;
        const double chain = unit->latency * c->kernel_w, row = work > chain ? work : chain;
        cycles += n * (c->kernel_h * row + unit->call + 2.0 * columns);
    }
    return cycles * vectors * c->out_h;
}

int32_t nas__conv_winograd_tiles(const nas__conv *c, const nas__conv_way *way) {
    const int32_t m = nas__conv_winograd_edge(way);
    return ceil_div(c->out_h, m) * ceil_div(c->out_w, m);
}

/* What pixels that are asked for ahead drive out of L2, where weights and scratch take `held` bytes. */
static double crowd_cycles(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                           double held) {
    const int32_t m = nas__conv_winograd_edge(way);
    const double pixels = 4.0 * way->batch * (m + 2) * m * c->in_pitch;
    const double over = held + pixels - 0.43 * target->l2_bytes;
    return over > 0 && nas__conv_winograd_asks(target, c) ? over / pace_of(target)->l3 : 0;
}

/* What memory adds to the `work` of one of the batches. */
static double winograd_streams(const nas_target *target, const nas__conv *c,
                               const nas__conv_way *way, double work, int32_t batches) {
    const int32_t a = nas__conv_winograd_edge(way) + 2;
    const double weights = 4.0 * a * a * c->in_c * c->out_c;
    const double scratch = 4.0 * (double)nas__conv_winograd_scratch(target, c, way);
    const pace *p = pace_of(target);
    if (p == &wide) {
        /* So few products hardly hide what comes from memory for the first batch, and from L2 what V and M leave it. */
        const double over = scratch - 0.125 * target->l2_bytes;
        const double near = (0.3 * weights + (over > 0 ? 2 * over : 0)) / p->l2;
        const double first = weights > 0.3 * target->l2_bytes ? 0.8 * weights / p->memory : 0;
        if (weights + scratch <= 0.6 * target->l2_bytes) return near + first / batches;
        const double spill = scratch > 0.5 * target->l2_bytes ? 2 * scratch / p->l3 : 0;
        return near + spill + (first + 0.8 * weights * (batches - 1) / p->l3) / batches;
    }
    if (p == &in_halves) {
        const double held = weights + scratch, beyond = held - 0.9 * target->l2_bytes;
        if (beyond <= 0) return 0.3 * weights / p->l2;
        if (weights <= 8.0 * target->l2_bytes)
            return 0.3 * weights / p->l3 + (scratch < beyond ? scratch : beyond) / p->l3;
    }
    /* V and M written and read again, in pieces that no prefetcher follows once they leave L2 */
    const double spill = scratch > 0.5 * target->l2_bytes ? 2 * scratch / p->memory : 0;
    return hidden_stream_cycles(target, weights, work) + spill +
           crowd_cycles(target, c, way, weights + scratch);
}

/* What a way may take longer in one thread and be preferred to one that a second thread could not shorten at all. */
static const double UNEVEN = 0.1;

/* A vector that two tiles share, for one of them: 8 -> 16 channels at 32x32 on a Granite Rapids. */
static const double PAIR = 0.55;

static double winograd_cycles(const nas_target *target, const nas__conv *c,
                              const nas__conv_way *way) {
    const nas__wino g = nas__wino_of(target, c, way);
    const int32_t tiles = g.tiles, batches = ceil_div(tiles, way->batch);
    const int32_t last = tiles - (batches - 1) * way->batch;
    const double products = (double)(batches - 1) * ceil_div(way->batch, way->pixels) +
                            (double)ceil_div(last, way->pixels);
    const pace *unit = pace_of(target);
    double mul = 0;
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&g.blocks, i);
        double step = product_cycles(unit, 1, way->pixels, kind.vectors);
        if (unit == &wide)
            step += weights_cycles(target, (double)c->in_c * kind.vectors * target->vector_bytes,
                                   kind.vectors, step);
        mul += (kind.to - kind.from) *
               (c->in_c * step + unit->call + unit->product_result * way->pixels * kind.vectors);
    }
    if (g.out_pair > 0) /* to add sums takes as long as to store the other half would */
        mul += nas__wino_steps(c) * product_cycles(unit, 1, way->pixels, 1) + unit->call +
               unit->product_result * way->pixels;
    double vectors = ceil_div(g.in_whole, g.lanes) + ceil_div(g.out_whole, g.lanes);
    vectors += PAIR * ((g.in_pair > 0) + (g.out_pair > 0));
    /* Part of a vector takes longer to load: measured with 3 channels. */
    vectors += unit != &wide && unit != &in_halves && g.in_whole % g.lanes > 0;
    const double transform = tiles * g.points * unit->transform * vectors;
    const double work = g.points * products * mul;
    const double all =
        work + transform + batches * winograd_streams(target, c, way, work / batches, batches);
    const int32_t units = nas__conv_winograd_units(target, c, way);
    return all * (1 + UNEVEN * (2.0 * ceil_div(units, 2) / units - 1));
}

/* A single pixel is bound by its weights; the image comes once, the weights for every strip. */
static double staged_cycles(const nas_target *target, const nas__conv *c,
                            const nas__conv_way *way) {
    const double work = nas__staged_cycles(target, c, way);
    const double pixels = (double)c->out_h * c->out_w;
    const double weights = 4.0 * nas__staged_floats(c, way) * c->out_c;
    if (pixels == 1)
        return weights > 0.5 * target->l2_bytes && weights / 16 > work ? weights / 16 : work;
    const int32_t strips = nas__staged_of(c, way).strips;
    return work + stream_cycles(target, 4 * pixels * c->stride_h * c->stride_w * c->in_c) +
           stream_cycles(target, 4 * pixels * c->out_c) + stream_cycles(target, weights) * strips;
}

double nas__conv_cycles(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas_target view = nas__conv_view(target, way);
    switch (way->algorithm) {
    case NAS__CONV_DIRECT:
    case NAS__CONV_GROUPED:
    case NAS__CONV_VECTOR:
    case NAS__CONV_SVE:
    case NAS__CONV_BF16: return direct_cycles(&view, c, way);
    case NAS__CONV_BF16_DOT:
    case NAS__CONV_BF16_TILE: return staged_cycles(target, c, way);
    case NAS__CONV_DEPTHWISE:
    case NAS__CONV_SVE_DEPTHWISE: return depthwise_cycles(&view, c, way);
    case NAS__CONV_WINOGRAD_2:
    case NAS__CONV_WINOGRAD_4: return winograd_cycles(target, c, way);
    case NAS__CONV_SPARSE:
    case NAS__CONV_SPARSE_RUN:
    case NAS__CONV_SPARSE_PANEL:
    case NAS__CONV_SPARSE_CODE: return nas__sparse_cycles(target, c, way);
    }
    return 0;
}
