/* layer_qconv_amx.c - integer convolutions on the tile registers of x86: geometry and estimates.
 *
 * A product adds 16 pixels x 16 channels, up to 64 inputs each, in 16 cycles, which is 16 vectors of VNNI products a cycle; so
 * the loads of tiles, staging and what makes codes of sums decide. A tile is loaded in 8 cycles where its 16 rows each lie in
 * one line of the cache, in about 37 where they lie in two (timed, Granite Rapids). */
#include "compiler/layer_qconv_internal.h"

enum {
    UNIT = 16,  /* pixels of a tile register */
    DEPTH = 64, /* bytes of one of its rows */
    LONG = 8,   /* bytes of a table's entry */
    MANY_WEIGHTS = 64 * 1024
};

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

/* The most inputs of a step in place: runs are whole steps of words. 0: there are none. */
static int32_t step_of_run(int32_t run) {
    for (int32_t n = run < DEPTH ? run : DEPTH; n >= 4; n--) {
        if (n % 4 == 0 && run % n == 0) return n;
    }
    return 0;
}

/* The share of the rows of tiles in place that lie in two lines, if the input begins with one. */
static double split_share(const nas__conv *c, const nas__q_matrix *m) {
    int32_t split = 0, rows = 0;
    for (int32_t x = 0; x < (m->joined ? 1 : c->kernel_w); x++) {
        for (int32_t at = x * c->dilation_w * c->in_pitch, to = at + m->run; at < to;
             at += m->group) {
            for (int32_t i = 0; i < UNIT; i++, rows++)
                split += (at + i * c->in_pitch) % DEPTH + m->group > DEPTH;
        }
    }
    return (double)split / rows;
}

static double load_cycles(double split) {
    return 8 + 29 * split;
}

/* Products and loads of a layer, without what is far. */
static double multiply_cycles(const nas__q_matrix *m, int32_t columns, int32_t blocks,
                              double load) {
    const double products = 16.0 * columns, loads = blocks * load + 8.0 * columns;
    return (double)ceil_div(m->pixels, UNIT) * m->steps * (products > loads ? products : loads);
}

static double stage_cycles(const nas__conv *c, const nas__q_matrix *m) {
    if (m->in_place) return m->pixels * 1.5;
    const int32_t runs = c->kernel_h * (m->joined ? 1 : c->kernel_w) * c->groups;
    return m->pixels * (6 + runs * (2 + 1.5 * ceil_div(m->run, DEPTH)));
}

/* The list as staged, or in place. */
static nas__q_matrix list_of(const nas__conv *c, bool in_place) {
    nas__q_matrix m = {.dot = NAS__DOT_AMX, .unit = UNIT, .in_place = in_place};
    m.used = c->kernel_h * c->kernel_w * (c->in_c / c->groups);
    m.joined = c->groups == 1 && c->dilation_w == 1 && c->in_pitch == c->in_c;
    m.run = (m.joined ? c->kernel_w : 1) * (c->in_c / c->groups);
    m.group = in_place ? step_of_run(m.run) : 4 * min_i32(DEPTH / 4, ceil_div(m.used, 4));
    m.steps = m.group > 0 ? ceil_div(m.used, m.group) : 0;
    m.depth = m.steps * DEPTH; /* rows begin with a line of the cache */
    m.row = in_place ? (int32_t)(c->in_row / (size_t)c->in_pitch) : c->out_w;
    m.pixels = (c->out_h - 1) * m.row + c->out_w;
    return m;
}

/* Are pixels read where they are? It must be possible, and dearer neither by rows in two lines nor by what is no output. */
static bool may_stay(const nas__conv *c, int32_t columns, int32_t blocks) {
    if (c->groups > 1 || c->stride_h > 1 || c->stride_w > 1 || c->in_row % (size_t)c->in_pitch != 0)
        return false;
    const nas__q_matrix there = list_of(c, true), staged = list_of(c, false);
    if (there.group == 0 || there.pixels < UNIT) return false;
    return multiply_cycles(&there, columns, blocks, load_cycles(split_share(c, &there))) +
               stage_cycles(c, &there) <
           multiply_cycles(&staged, columns, blocks, load_cycles(0)) + stage_cycles(c, &staged);
}

nas__q_matrix nas__q_amx_of(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const nas__q_blocks b = nas__q_block(target, c, way->vectors);
    const int32_t columns = (b.count - 1) * b.vectors + b.last_vectors;
    nas__q_matrix m = list_of(c, may_stay(c, columns, b.count));
    m.asks = c->groups == 1 && (int64_t)m.used * c->out_c >= MANY_WEIGHTS;
    const int32_t units = ceil_div(m.pixels, UNIT);
    m.wide = min_i32(way->pixels, units * UNIT);
    m.tiles = ceil_div(units, m.wide / UNIT);
    nas__q_matrix_strips(target, c, b.count,
                         (int64_t)m.wide * (m.in_place ? c->in_pitch : m.depth * c->groups), &m);
    const size_t table = LONG * (size_t)m.strip_pixels, units_table = round_64(table / UNIT);
    m.counts_at = units_table; /* places of the units begin */
    m.lines_at = m.counts_at + units_table;
    m.residuals_at = m.lines_at + 2 * table; /* offsets in the output are behind the lines */
    m.sums_at = round_64(m.residuals_at + (c->has_residual ? table : 0));
    m.staged_at = m.sums_at + 2 * (size_t)(m.wide * way->vectors * target->vector_bytes);
    m.scratch_bytes =
        m.staged_at +
        (m.in_place ? 0 : (size_t)c->groups * (size_t)m.strip_pixels * (size_t)m.depth);
    return m;
}

/* ---- estimate ----------------------------------------------------------------------------------------------------- */

/* What makes codes hardly runs beside tile instructions: they take the ports of loads, stores and vectors (timed). */
static const double l2_bytes_cycle = 40, far_bytes_cycle = 10, beside = 0.85;

/* Codes of all vectors of one pixel, timed. */
static double codes_cycles(const nas__qconv *q, int32_t vectors) {
    const int32_t four = vectors / 4 * 4, two = (vectors - four) / 2 * 2,
                  one = vectors - four - two;
    const bool single = q->single && !q->has_left;
    return (single ? 2.4 : 5) * four + (single ? 3 : 5.5) * two + (single ? 4 : 6) * one +
           (q->conv.has_residual ? 4 : 0) * vectors + 1.5;
}

/* Bytes of weights and pixels of one step that do not stay in the first cache. */
static double far_bytes(const nas_target *target, const nas__conv *c, const nas__q_matrix *m,
                        int32_t units, double weights) {
    double bytes = 0;
    if (weights * m->steps > 0.5 * target->l1_bytes) bytes += weights;
    if ((double)m->strip_pixels * (m->in_place ? c->in_pitch : m->depth) > 0.5 * target->l1_bytes)
        bytes += (double)units * UNIT * m->group / (m->in_place ? c->kernel_h * c->kernel_w : 1);
    return bytes; /* in place, what one tap reads is near for the others */
}

double nas__q_amx_cycles(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const nas__q_matrix m = nas__q_amx_of(target, q, way);
    const nas__q_blocks b = nas__q_block(target, c, way->vectors);
    const double load = load_cycles(m.in_place ? split_share(c, &m) : 0);
    const int32_t units = ceil_div(m.pixels, UNIT), wide = m.wide / UNIT;
    double cycles = 0;
    for (int32_t last = 0; last < 2; last++) {
        const int32_t vectors = last ? b.last_vectors : b.vectors;
        const double weights = nas__q_matrix_step(target, &m, way, vectors),
                     far = far_bytes(target, c, &m, wide, weights) / l2_bytes_cycle;
        const double products = 16.0 * wide * vectors, loads = wide * load + 8.0 * vectors;
        double step = products > loads ? products : loads;
        if (step < far) step = far;
        step += 0.15 * (loads + far);
        const double codes = (double)wide * UNIT * codes_cycles(q, vectors);
        cycles += (double)units / wide * (last ? 1 : b.count - 1) *
                  (m.steps * step + 24.0 * wide * vectors + 40 + beside * codes);
    }
    cycles *= c->groups;
    const double weights =
        (double)m.steps * nas__q_matrix_step(target, &m, way, b.vectors) * b.count * c->groups;
    if (weights > 0.5 * target->l2_bytes) cycles += 0.3 * weights * m.strips / far_bytes_cycle;
    return cycles + stage_cycles(c, &m);
}
