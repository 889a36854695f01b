/* layer_qconv_matrix.c - integer convolutions on matrix units: geometry, ways and their estimates. */
#include "compiler/layer_qconv_internal.h"

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static size_t round_64(size_t n) {
    return (n + 63) / 64 * 64;
}

/* ---- geometry ---------------------------------------------------------------------------------------------------- */

enum {
    OFFSET_BYTES = 8, /* of a long */
    UNITS = 16,       /* at least, for many threads */
    FEW_UNITS = 4
};

/* Strips as long as their inputs stay near, and short enough to share the work. */
void nas__q_matrix_strips(const nas_target *target, const nas__conv *c, int32_t blocks,
                          int64_t tile_bytes, nas__q_matrix *m) {
    const int32_t first = target->l1_bytes / 2, second = target->l2_bytes / 4;
    const int64_t weights = (int64_t)c->out_c * m->used; /* that are read for each strip */
    const int64_t most = (second > first && weights > first ? second : first) / tile_bytes;
    m->strips = most < 1 ? m->tiles : ceil_div(m->tiles, min_i32((int32_t)most, m->tiles));
    const int32_t units = m->asks ? FEW_UNITS : UNITS; /* weights are read once a strip */
    const int32_t least = min_i32(ceil_div(units, blocks * c->groups), m->tiles);
    if (m->strips < least) m->strips = least;
    m->strip_tiles = ceil_div(m->tiles, m->strips);
    m->strips = ceil_div(m->tiles, m->strip_tiles);
    m->strip_pixels = m->strip_tiles * m->wide;
}

static nas__q_matrix mmla_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    nas__q_matrix m = {.dot = NAS__DOT_MMLA, .unit = 2, .pixels = c->out_h * c->out_w};
    m.used = c->kernel_h * c->kernel_w * (c->in_c / c->groups);
    m.group = nas__dot_group(m.dot);
    m.steps = ceil_div(m.used, m.group);
    m.depth = m.steps * m.group;
    m.joined = c->groups == 1 && c->dilation_w == 1 && c->in_pitch == c->in_c;
    m.run = (m.joined ? c->kernel_w : 1) * (c->in_c / c->groups);
    m.copies = m.run % m.group != 0;
    const int32_t units = ceil_div(m.pixels, m.unit);
    m.tiles = ceil_div(units, way->pixels / m.unit);
    const int32_t wide = ceil_div(units, m.tiles);
    m.wide = wide * m.unit;
    m.wide_tiles = m.tiles - (wide * m.tiles - units);
    nas__q_matrix_strips(target, c, nas__q_block(target, c, way->vectors).count,
                         (int64_t)m.wide * m.depth * c->groups, &m);
    const size_t offsets = round_64(OFFSET_BYTES * (size_t)m.strip_pixels);
    m.residuals_at = offsets;
    m.copies_at = m.residuals_at + (c->has_residual ? offsets : 0);
    m.staged_at = m.copies_at + (m.copies ? round_64((size_t)(m.unit * m.depth)) : 0);
    m.scratch_bytes = m.staged_at + (size_t)c->groups * (size_t)m.strip_pixels * (size_t)m.depth;
    return m;
}

nas__q_matrix nas__q_matrix_of(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way) {
    return nas__matrix_of(target) == NAS__DOT_AMX ? nas__q_amx_of(target, q, way)
                                                  : mmla_of(target, q, way);
}

nas__q_run nas__q_matrix_run(const nas__q_matrix *m, int32_t k) {
    const int32_t narrow = m->wide - m->unit,
                  missing = ceil_div(m->pixels, m->unit) * m->unit - m->pixels;
    const bool has_narrow = m->tiles > m->wide_tiles;
    const bool odd = missing > 0;
    switch (k) {
    case 0: return (nas__q_run){0, m->wide_tiles - (odd && !has_narrow), m->wide};
    case 1: return (nas__q_run){m->wide_tiles, m->tiles - (odd && has_narrow), narrow};
    default:
        return (nas__q_run){m->tiles - odd, m->tiles, (has_narrow ? narrow : m->wide) - missing};
    }
}

int32_t nas__q_matrix_step(const nas_target *target, const nas__q_matrix *m,
                           const nas__qconv_way *way, int32_t vectors) {
    return vectors * (target->vector_bytes / 4) * m->group * way->stored_bits / 8;
}

/* MMLA: two vectors of weights, of a pair of channels each, share the nibbles. */
size_t nas__q_matrix_place(const nas_target *target, const nas__q_matrix *m,
                           const nas__qconv_way *way, int32_t vectors, int32_t o, int32_t e,
                           bool *high) {
    const size_t step =
        (size_t)(e / m->group) * (size_t)nas__q_matrix_step(target, m, way, vectors);
    const int32_t depth = e % m->group, pair = o / 2;
    *high = way->stored_bits == 4 && pair % 2 != 0;
    if (m->dot == NAS__DOT_AMX) { /* tiles of 16 channels */
        return step + (size_t)(o / 16 * 16 * m->group + depth / 4 * 64 + o % 16 * 4 + depth % 4);
    }
    const int32_t vector = way->stored_bits == 4 ? pair / 2 : pair;
    return step + (size_t)(vector * 2 * m->group + o % 2 * m->group + depth);
}

/* ---- estimates --------------------------------------------------------------------------------------------------- */

static const double l2_bytes_cycle = 32, far_bytes_cycle = 10, call_cycles = 16;

/* Cycles of one step of a tile of `units` by `vectors`, but for what comes from far: cores with i8mm start as many matrix
 * products a cycle as dot products of vectors, two on most of them (Neoverse N2, Cortex-A710, Cortex-A715; four on
 * Neoverse V1: Arm's Software Optimization Guides), and load two vectors. */
static double step_cycles(const nas__qconv_way *way, int32_t units, int32_t vectors) {
    const double columns = 2 * vectors;
    const double products = units * columns * 0.5 + (way->stored_bits == 4 ? columns * 0.75 : 0);
    const double loads = (units + columns) * 0.5;
    return (products > loads ? products : loads) + 0.1 * loads;
}

/* Bytes of weights and pixels of one step that do not stay in the first cache. */
static double far_bytes(const nas_target *target, const nas__q_matrix *m, int32_t units,
                        double weights) {
    double bytes = 0;
    if (weights * m->steps > 0.5 * target->l1_bytes) bytes += weights;
    if ((double)m->strip_pixels * m->depth > 0.5 * target->l1_bytes)
        bytes += units * m->unit * m->group;
    return bytes;
}

static double stage_cycles(const nas_target *target, const nas__qconv *q, const nas__q_matrix *m) {
    const nas__conv *c = &q->conv;
    const int32_t runs = c->kernel_h * (m->joined ? 1 : c->kernel_w) * c->groups;
    const double vectors = (double)m->depth * c->groups / target->vector_bytes;
    return m->pixels * (8 + runs * (m->copies ? 6 : 2) + vectors * (m->copies ? 2 : 1));
}

static double matrix_cycles(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const nas__q_matrix m = nas__q_matrix_of(target, q, way);
    const nas__q_blocks b = nas__q_block(target, c, way->vectors);
    const double finish = nas__q_finish_cycles(target, q) + 0.5; /* out of matrices */
    double cycles = 0;
    for (int32_t k = 0; k < NAS__Q_RUNS; k++) {
        const nas__q_run run = nas__q_matrix_run(&m, k);
        const int32_t units = ceil_div(run.pixels, m.unit);
        for (int32_t last = 0; last < 2; last++) {
            const int32_t vectors = last ? b.last_vectors : b.vectors;
            const double far =
                far_bytes(target, &m, units, nas__q_matrix_step(target, &m, way, vectors));
            double step = step_cycles(way, units, vectors) + 0.25 * far / l2_bytes_cycle;
            if (step < far / l2_bytes_cycle) step = far / l2_bytes_cycle;
            cycles += (double)(run.to - run.from) * (last ? 1 : b.count - 1) *
                      (m.steps * step + call_cycles + run.pixels * (1 + finish * vectors));
        }
    }
    cycles *= c->groups;
    const double weights =
        (double)m.steps * nas__q_matrix_step(target, &m, way, b.vectors) * b.count * c->groups;
    if (weights > 0.5 * target->l2_bytes) cycles += 0.3 * weights * m.strips / far_bytes_cycle;
    return cycles + stage_cycles(target, q, &m);
}

/* {pixels, vectors}: sums, the weights or the pixels of a step and one of the others fit the registers: 32 vectors, or 8
 * tiles of 16 pixels x 16 channels. */
enum { TILES = 5 };
static const int32_t tiles_mmla[TILES][2] = {{12, 2}, {8, 3}, {6, 4}, {4, 6}, {24, 1}};
static const int32_t tiles_amx[TILES][2] = {{16, 4}, {32, 2}, {64, 1}, {16, 6}, {96, 1}};

int32_t nas__q_matrix_ways(const nas_target *target, const nas__qconv *q, int32_t n,
                           nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    const nas__conv *c = &q->conv;
    const nas__dot dot = nas__matrix_of(target);
    const int32_t pixels = c->out_h * c->out_w, unit = dot == NAS__DOT_AMX ? 16 : 2,
                  most = ceil_div(c->out_c / c->groups, target->vector_bytes / 4), old = n;
    if (dot == nas__dot_of(target) || pixels < 2) return n;
    const bool nibbles = dot == NAS__DOT_MMLA && q->weight_bits <= 4;
    for (int32_t i = 0; i < TILES; i++) {
        const int32_t *tile = dot == NAS__DOT_AMX ? tiles_amx[i] : tiles_mmla[i];
        if (dot == NAS__DOT_AMX && tile[1] > 4 && most > tile[1])
            continue; /* fours are packed best */
        for (int32_t bits = nibbles ? 4 : 8; bits <= 8; bits += 4) {
            nas__qconv_way way = {.algorithm = NAS__QCONV_MATRIX,
                                  .pixels = min_i32(tile[0], ceil_div(pixels, unit) * unit),
                                  .vectors = min_i32(tile[1], most),
                                  .stored_bits = bits};
            bool listed = false;
            for (int32_t k = old; k < n; k++) {
                listed = listed || (out[k].pixels == way.pixels && out[k].vectors == way.vectors &&
                                    out[k].stored_bits == way.stored_bits);
            }
            if (listed) continue;
            way.cycles = dot == NAS__DOT_AMX ? nas__q_amx_cycles(target, q, &way)
                                             : matrix_cycles(target, q, &way);
            out[n++] = way;
        }
    }
    return n;
}
