/* layer_qconv_matrix.c - integer convolutions on matrix units: geometry, estimates and text.
 *
 * The pixels of the output are one list, so that tiles are full whatever the width of the image; `o` and `r` of a kernel are
 * tables of where the pixels of the strip lie in the output and the residual. Staging puts the inputs of a strip in the
 * order in which the products read them (im2col): sums of few channels, above all those of the first layer, then waste at
 * most one group in all. It costs a copy of each input for each of its taps, a few percent of the products from 64
 * channels on. Neither sign needs a correction: there are products of both. */
#include "compiler/layer_qconv_internal.h"

#include <stdio.h>

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
    UNITS = 16        /* at least, for many threads */
};

/* Contiguous bytes of one pixel: a kernel row or a tap. */
static int32_t run_bytes(const nas__conv *c, bool joined) {
    return (joined ? c->kernel_w : 1) * (c->in_c / c->groups);
}

/* Strips as long as their inputs stay near, and short enough to share the work. */
static void split(const nas_target *target, const nas__conv *c, int32_t blocks, nas__q_matrix *m) {
    const int32_t near =
        target->l2_bytes / 4 > target->l1_bytes / 2 ? target->l2_bytes / 4 : target->l1_bytes / 2;
    const int64_t tile = (int64_t)m->wide * m->depth * c->groups;
    const int64_t most = near / tile;
    m->strips = most < 1 ? m->tiles : ceil_div(m->tiles, min_i32((int32_t)most, m->tiles));
    const int32_t least = min_i32(ceil_div(UNITS, blocks * c->groups), m->tiles);
    if (m->strips < least) m->strips = least;
    m->strip_tiles = ceil_div(m->tiles, m->strips);
    m->strips = ceil_div(m->tiles, m->strip_tiles);
    m->strip_pixels = m->strip_tiles * m->wide;
}

nas__q_matrix nas__q_matrix_of(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    nas__q_matrix m = {.dot = nas__matrix_of(target), .unit = 2, .pixels = c->out_h * c->out_w};
    m.group = nas__dot_group(m.dot);
    m.steps = ceil_div(c->kernel_h * c->kernel_w * (c->in_c / c->groups), m.group);
    m.depth = m.steps * m.group;
    m.joined = c->groups == 1 && c->dilation_w == 1 && c->in_pitch == c->in_c;
    m.copies = run_bytes(c, m.joined) % m.group != 0;
    const int32_t units = ceil_div(m.pixels, m.unit);
    m.tiles = ceil_div(units, way->pixels / m.unit);
    const int32_t wide = ceil_div(units, m.tiles);
    m.wide = wide * m.unit;
    m.wide_tiles = m.tiles - (wide * m.tiles - units);
    split(target, c, nas__q_block(target, c, way->vectors).count, &m);
    const size_t offsets = round_64(OFFSET_BYTES * (size_t)m.strip_pixels);
    m.residuals_at = offsets;
    m.copies_at = m.residuals_at + (c->has_residual ? offsets : 0);
    m.staged_at = m.copies_at + (m.copies ? round_64((size_t)(m.unit * m.depth)) : 0);
    m.scratch_bytes = m.staged_at + (size_t)c->groups * (size_t)m.strip_pixels * (size_t)m.depth;
    return m;
}

nas__q_run nas__q_matrix_run(const nas__q_matrix *m, int32_t k) {
    const int32_t narrow = m->wide - m->unit,
                  missing = ceil_div(m->pixels, m->unit) * m->unit - m->pixels;
    const bool has_narrow = m->wide_tiles<m->tiles, odd = missing> 0;
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

/* Two vectors of weights, of a pair of channels each, share the nibbles. */
size_t nas__q_matrix_place(const nas_target *target, const nas__q_matrix *m,
                           const nas__qconv_way *way, int32_t vectors, int32_t o, int32_t e,
                           bool *high) {
    const size_t step =
        (size_t)(e / m->group) * (size_t)nas__q_matrix_step(target, m, way, vectors);
    const int32_t pair = o / 2, within = o % 2 * m->group + e % m->group, bytes = 2 * m->group;
    *high = way->stored_bits == 4 && pair % 2 != 0;
    return step + (size_t)((way->stored_bits == 4 ? pair / 2 : pair) * bytes + within);
}

/* ---- estimates --------------------------------------------------------------------------------------------------- */

static const double l2_bytes_cycle = 32, far_bytes_cycle = 10, call_cycles = 16;

/* Cycles of one step of a tile. Cores with i8mm start as many matrix products a cycle as dot products of vectors, two on
 * most of them (Neoverse N2, Cortex-A715; four on Neoverse V1: Arm's Software Optimization Guides), and load two vectors. */
static double step_cycles(const nas__qconv_way *way, int32_t units, int32_t vectors) {
    const double weights = 2 * vectors,
                 products = units * weights * 0.5 + (way->stored_bits == 4 ? weights * 0.75 : 0);
    const double loads = (units + weights) / 2;
    return (products > loads ? products : loads) + 0.1 * loads;
}

static double stage_cycles(const nas__qconv *q, const nas__q_matrix *m) {
    const nas__conv *c = &q->conv;
    const int32_t runs = c->kernel_h * (m->joined ? 1 : c->kernel_w) * c->groups;
    const double bytes = (double)m->depth * c->groups;
    return m->pixels * (8 + runs * (m->copies ? 6 : 2) + bytes / 16 * (m->copies ? 2 : 1));
}

static double matrix_cycles(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const nas__q_matrix m = nas__q_matrix_of(target, q, way);
    const nas__q_blocks b = nas__q_block(target, c, way->vectors);
    const double finish = c->has_residual ? 6.5 : 4.5;
    double cycles = 0;
    for (int32_t k = 0; k < NAS__Q_RUNS; k++) {
        const nas__q_run run = nas__q_matrix_run(&m, k);
        const int32_t units = ceil_div(run.pixels, m.unit);
        for (int32_t last = 0; last < 2; last++) {
            const int32_t vectors = last ? b.last_vectors : b.vectors;
            const double bytes = nas__q_matrix_step(target, &m, way, vectors);
            double step = step_cycles(way, units, vectors);
            if (bytes * m.steps > 0.5 * target->l1_bytes) step += 0.25 * bytes / l2_bytes_cycle;
            if (m.strip_pixels * m.depth > target->l1_bytes / 2)
                step += 0.25 * units * m.unit * m.group / l2_bytes_cycle;
            cycles += (double)(run.to - run.from) * (last ? 1 : b.count - 1) *
                      (m.steps * step + call_cycles + run.pixels * (1 + finish * vectors));
        }
    }
    cycles *= c->groups;
    const double weights =
        (double)m.steps * nas__q_matrix_step(target, &m, way, b.vectors) * b.count * c->groups;
    if (weights > 0.5 * target->l2_bytes) cycles += 0.3 * weights * m.strips / far_bytes_cycle;
    return cycles + stage_cycles(q, &m);
}

/* {pixels, vectors}: sums, the weights or the pixels of a step and one of the others fit 32 registers. */
static const int32_t tiles_mmla[][2] = {{12, 2}, {8, 3}, {6, 4}, {4, 6}, {24, 1}};

int32_t nas__q_matrix_ways(const nas_target *target, const nas__qconv *q, int32_t n,
                           nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    const nas__conv *c = &q->conv;
    const int32_t pixels = c->out_h * c->out_w,
                  most = ceil_div(c->out_c / c->groups, target->vector_bytes / 4), old = n;
    if (nas__matrix_of(target) != NAS__DOT_MMLA || pixels < 2) return n;
    for (size_t i = 0; i < sizeof tiles_mmla / sizeof tiles_mmla[0]; i++) {
        for (int32_t bits = q->weight_bits <= 4 ? 4 : 8; bits <= 8; bits += 4) {
            nas__qconv_way way = {.algorithm = NAS__QCONV_MATRIX,
                                  .pixels = min_i32(tiles_mmla[i][0], ceil_div(pixels, 2) * 2),
                                  .vectors = min_i32(tiles_mmla[i][1], most),
                                  .stored_bits = bits};
            bool listed = false;
            for (int32_t k = old; k < n; k++) {
                listed = listed || (out[k].pixels == way.pixels && out[k].vectors == way.vectors &&
                                    out[k].stored_bits == way.stored_bits);
            }
            if (listed) continue;
            way.cycles = matrix_cycles(target, q, &way);
            out[n++] = way;
        }
    }
    return n;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

typedef struct matrix {
    const nas_target *target;
    const nas__qconv *q;
    const nas__qconv_way *way;
    nas__q_matrix m;
    nas__q_blocks blocks;
    const char *name;
} matrix;

/* Bias of a pair of channels for both pixels. */
static void emit_sums(int32_t units, int32_t vectors, int32_t bytes, nas_buf *out) {
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "    const vi d%d = q_i32(w + %d);\n", v, v * bytes);
        for (int32_t half = 0; half < 2; half++) {
            const int32_t j = 2 * v + half;
            nas_buf_printf(out, "    vi c0_%d = q_%s(d%d, d%d)", j, half ? "high" : "low", v, v);
            for (int32_t i = 1; i < units; i++)
                nas_buf_printf(out, ", c%d_%d = c0_%d", i, j, j);
            nas_buf_puts(out, ";\n");
        }
    }
    nas_buf_printf(out, "    const unsigned char *m = w + %d;\n    w += %d;\n", vectors * bytes,
                   2 * vectors * bytes);
}

static void weight_load(const matrix *d, int32_t j, int32_t at, nas_buf *out) {
    const int32_t bytes = 2 * d->m.group;
    if (d->way->stored_bits == 4)
        nas_buf_printf(out, "q_w4_%s(w + %d)", j % 2 == 0 ? "low" : "high", at + j / 2 * bytes);
    else
        nas_buf_printf(out, "q_w8(w + %d)", at + j * bytes);
}

/* Operand `k` of step `u`: pixels or weights. */
static void load_operand(const matrix *d, bool pixels, int32_t k, int32_t u, int32_t vectors,
                         nas_buf *out) {
    const int32_t pixel = d->m.unit * d->m.depth, step = d->m.unit * d->m.group;
    if (pixels)
        nas_buf_printf(out, "q_i32(s + %d)", k * pixel + u * step);
    else
        weight_load(d, k, u * nas__q_matrix_step(d->target, &d->m, d->way, vectors), out);
}

/* One step: the operand with fewer vectors stays in registers; the others are loaded one ahead of their products, for cores
 * that run in order. */
static void emit_step(const matrix *d, int32_t units, int32_t vectors, int32_t u, nas_buf *out) {
    const char type = d->q->in_signed ? 's' : 'u';
    const int32_t pairs = 2 * vectors;
    const bool pixels = units <= pairs; /* are held */
    const int32_t held = pixels ? units : pairs, others = pixels ? pairs : units;
    nas_buf_puts(out, "        {\n            const vi ");
    for (int32_t k = 0; k < held; k++) {
        nas_buf_printf(out, "%sx%d = ", k > 0 ? ", " : "", k);
        load_operand(d, pixels, k, u, vectors, out);
    }
    nas_buf_puts(out, ";\n");
    for (int32_t k = 0; k < others; k++) {
        for (int32_t ahead = k == 0 ? 0 : k + 1; ahead <= k + 1 && ahead < others; ahead++) {
            nas_buf_printf(out, "            const vi b%d = ", ahead);
            load_operand(d, !pixels, ahead, u, vectors, out);
            nas_buf_puts(out, ";\n");
        }
        nas_buf_puts(out, "           ");
        for (int32_t h = 0; h < held; h++) {
            const int32_t i = pixels ? h : k, j = pixels ? k : h;
            nas_buf_printf(out, " c%d_%d = q_mm_%c(c%d_%d, %c%d, %c%d);", i, j, type, i, j,
                           pixels ? 'x' : 'b', i, pixels ? 'b' : 'x', j);
        }
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "        }\n");
}

static void emit_places(const nas__qconv *q, int32_t p, nas_buf *out) {
    nas_buf_printf(out, "    out = y + o[%d];\n", p);
    if (q->conv.has_residual) nas_buf_printf(out, "    residual = z + r[%d];\n", p);
}

static void emit_tile(const matrix *d, int32_t pixels, int32_t vectors, int32_t last,
                      nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t channels = (vectors - 1) * d->blocks.lanes + last,
                  units = ceil_div(pixels, d->m.unit);
    const int32_t round = nas__q_unroll(d->m.steps, pixels * vectors);
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_%d_%d(const unsigned char *s, unsigned char *restrict y, const "
                   "long *o,%s const unsigned char *w, const int *h) {\n",
                   pixels, channels, d->name, pixels, channels,
                   c->has_residual ? " const unsigned char *z, const long *r," : "");
    emit_sums(units, vectors, d->target->vector_bytes, out);
    nas_buf_printf(out, "    for (int k = 0; k < %d; k += %d, s += %d, w += %d) {\n", d->m.steps,
                   round, round * d->m.unit * d->m.group,
                   round * nas__q_matrix_step(d->target, &d->m, d->way, vectors));
    for (int32_t u = 0; u < round; u++)
        emit_step(d, units, vectors, u, out);
    nas_buf_puts(out, "    }\n");
    nas__q_emit_multipliers(d->target, vectors, out);
    nas_buf_printf(out, "    unsigned char *out;\n%s",
                   c->has_residual ? "    const unsigned char *residual;\n" : "");
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_puts(out, "    {\n");
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "    const vi a%d_%d = q_%s(c%d_%d, c%d_%d);\n", p, v,
                           p % 2 == 0 ? "low" : "high", p / 2, 2 * v, p / 2, 2 * v + 1);
        }
        emit_places(d->q, p, out);
        nas__q_emit_epilogue(d->target, d->q, p, vectors, last, 0, 0, out);
        nas_buf_puts(out, "    }\n");
    }
    nas_buf_puts(out, "}\n");
}

/* Where pixel `pixel` of the list is: pointer `in`, tables at `at`. */
static void emit_place(const nas__conv *c, const char *pixel, const char *in, const char *at,
                       nas_buf *out) {
    nas_buf_printf(out,
                   "        const long %s_y = %s / %d, %s_x = %s %% %d;\n"
                   "        const unsigned char *%s = in + %s_y * %zu + %s_x * %d;\n"
                   "        o[%s] = %s_y * %zu + %s_x * %d;\n",
                   in, pixel, c->out_w, in, pixel, c->out_w, in, in,
                   (size_t)c->stride_h * c->in_row, in, c->stride_w * c->in_pitch, at, in,
                   c->out_row, in, c->out_pitch);
    if (c->has_residual) {
        nas_buf_printf(out, "        r[%s] = %s_y * %zu + %s_x * %d;\n", at, in, c->residual_row,
                       in, c->residual_pitch);
    }
}

/* The taps of pixels a and b, one group of channels after the other. */
static void emit_taps(const matrix *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_matrix *m = &d->m;
    const int32_t run = run_bytes(c, m->joined), in_c = c->in_c / c->groups;
    const size_t group = (size_t)m->strip_pixels * (size_t)m->depth;
    char start[48];
    (void)snprintf(start, sizeof start, m->copies ? "e" : "s + g * %zu", group);
    nas_buf_printf(out,
                   "        for (long g = 0; g < %d; g++) {\n"
                   "            unsigned char *t = %s;\n"
                   "            for (long k = 0; k < %d; k++) {\n"
                   "                const long tap = g * %d + ",
                   c->groups, start, c->kernel_h * (m->joined ? 1 : c->kernel_w), in_c);
    if (m->joined)
        nas_buf_printf(out, "k * %zu;\n", (size_t)c->dilation_h * c->in_row);
    else
        nas_buf_printf(out, "k / %d * %zu + k %% %d * %d;\n", c->kernel_w,
                       (size_t)c->dilation_h * c->in_row, c->kernel_w, c->dilation_w * c->in_pitch);
    if (m->copies) {
        nas_buf_printf(out,
                       "                __builtin_memcpy(t, a + tap, %d);\n"
                       "                __builtin_memcpy(t + %d, b + tap, %d);\n"
                       "                t += %d;\n            }\n"
                       "            q_mix(e, e + %d, s + g * %zu, %d);\n        }\n",
                       run, m->depth, run, run, m->depth, group, m->depth);
    } else {
        nas_buf_printf(out,
                       "                q_mix(a + tap, b + tap, t, %d);\n"
                       "                t += %d;\n            }\n        }\n",
                       run, m->unit * run);
    }
}

/* `n` pixels from `first` on; the second of the last pair may be the first once more. */
static void emit_stage(const matrix *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_matrix *m = &d->m;
    const int32_t used = c->kernel_h * c->kernel_w * (c->in_c / c->groups);
    nas_buf_printf(out,
                   "TILE void %s_stage(const unsigned char *in, unsigned char *s, long *o,%s%s "
                   "long first, long n) {\n",
                   d->name, c->has_residual ? " long *r," : "",
                   m->copies ? " unsigned char *e," : "");
    for (int32_t i = 0; m->copies && used < m->depth && i < m->unit; i++) {
        nas_buf_printf(out, "    __builtin_memset(e + %d, 0, %d);\n", i * m->depth + used,
                       m->depth - used);
    }
    nas_buf_printf(out,
                   "    for (long i = 0; i < n; i += %d, s += %d) {\n"
                   "        const long p = first + i, q = i + 1 < n ? p + 1 : p;\n",
                   m->unit, m->unit * m->depth);
    emit_place(c, "p", "a", "i", out);
    emit_place(c, "q", "b", "i + 1", out);
    emit_taps(d, out);
    nas_buf_puts(out, "    }\n}\n");
}

/* The first pixel of tile `t`. */
static void emit_first(const matrix *d, nas_buf *out) {
    const nas__q_matrix *m = &d->m;
    const int32_t narrow = m->wide - m->unit;
    nas_buf_printf(out,
                   "HELPER long %s_first(long t) {\n"
                   "    const long p = t < %d ? t * %d : %d + (t - %d) * %d;\n"
                   "    return p < %d ? p : %d;\n}\n",
                   d->name, m->wide_tiles, m->wide, m->wide_tiles * m->wide, m->wide_tiles, narrow,
                   m->pixels, m->pixels);
}

/* All tiles of a strip and block. */
static void emit_strip(const matrix *d, int32_t channels, nas_buf *out) {
    const bool residual = d->q->conv.has_residual;
    for (int32_t k = 0; k < NAS__Q_RUNS; k++) {
        const nas__q_run run = nas__q_matrix_run(&d->m, k);
        if (run.from >= run.to) continue;
        nas_buf_printf(out,
                       "            for (long t = t0 > %d ? t0 : %d; t < (t1 < %d ? t1 : %d); t++) "
                       "{\n"
                       "                const long i = %s_first(t) - first;\n"
                       "                %s_%d_%d(s + i * %d, y, o + i, %sw, h);\n            }\n",
                       run.from, run.from, run.to, run.to, d->name, d->name, run.pixels, channels,
                       d->m.depth, residual ? "z, r + i, " : "");
    }
}

static void emit_tiles(const matrix *d, int32_t vectors, int32_t last, nas_buf *out) {
    for (int32_t k = 0; k < NAS__Q_RUNS; k++) {
        const nas__q_run run = nas__q_matrix_run(&d->m, k);
        if (run.from < run.to) emit_tile(d, run.pixels, vectors, last, out);
    }
}

/* The tables and rows in the scratch of a thread. */
static void emit_scratch(const matrix *d, nas_buf *out) {
    const nas__q_matrix *m = &d->m;
    nas_buf_puts(out, "    unsigned char *const rows = scratch;\n"
                      "    long *const o = scratch;\n");
    if (d->q->conv.has_residual)
        nas_buf_printf(out, "    long *const r = (void *)(rows + %zu);\n", m->residuals_at);
    nas_buf_printf(out,
                   "    long staged = -1;\n"
                   "    for (int u = begin; u < end; u++) {\n"
                   "        const long strip = u / %d, column = u %% %d;\n"
                   "        const long group = column / %d, block = column %% %d;\n"
                   "        const long t0 = strip * %d, t1 = t0 + %d < %d ? t0 + %d : %d;\n"
                   "        const long first = %s_first(t0);\n"
                   "        if (strip != staged) {\n"
                   "            %s_stage(in, rows + %zu, o, ",
                   d->q->conv.groups * d->blocks.count, d->q->conv.groups * d->blocks.count,
                   d->blocks.count, d->blocks.count, m->strip_tiles, m->strip_tiles, m->tiles,
                   m->strip_tiles, m->tiles, d->name, d->name, m->staged_at);
    if (d->q->conv.has_residual) nas_buf_puts(out, "r, ");
    if (m->copies) nas_buf_printf(out, "rows + %zu, ", m->copies_at);
    nas_buf_printf(out,
                   "first, %s_first(t1) - first);\n            staged = strip;\n        }\n"
                   "        const unsigned char *s = rows + %zu + group * %zu;\n",
                   d->name, m->staged_at, (size_t)m->strip_pixels * (size_t)m->depth);
}

void nas__q_matrix_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                        const char *name, nas_buf *out) {
    matrix d = {.target = target, .q = q, .way = way, .name = name};
    d.m = nas__q_matrix_of(target, q, way);
    d.blocks = nas__q_block(target, &q->conv, way->vectors);
    const nas__q_blocks *b = &d.blocks;
    const int32_t last = (b->last_vectors - 1) * b->lanes + b->last_lanes,
                  full = b->vectors * b->lanes;
    const bool has_full = b->count > 1 || last == full, has_last = last != full;
    if (has_full) emit_tiles(&d, b->vectors, b->lanes, out);
    if (has_last) emit_tiles(&d, b->last_vectors, b->last_lanes, out);
    emit_stage(&d, out);
    emit_first(&d, out);
    nas__q_emit_head(q, name, out);
    emit_scratch(&d, out);
    const size_t block = nas__q_block_bytes(target, q, way, b->vectors);
    const size_t group =
        block * (size_t)(b->count - 1) + nas__q_block_bytes(target, q, way, b->last_vectors);
    nas_buf_printf(out,
                   "        const long at = group * %d + block * %d;\n"
                   "        unsigned char *const y = (unsigned char *)out + at;\n%s"
                   "        const unsigned char *w = (const unsigned char *)weights + %d + group * "
                   "%zu + block * %zu;\n",
                   b->out_c, full,
                   q->conv.has_residual
                       ? "        const unsigned char *const z = (const unsigned char *)residual + "
                         "at;\n"
                       : "",
                   4 * NAS__Q_HEAD, group, block);
    for (int32_t k = 0; k < 2; k++) {
        if (k == 0 ? !has_full : !has_last) continue;
        nas_buf_printf(out, "        if (block %s %d) {\n",
                       has_last ? (k == 0 ? "<" : "==") : "<=", b->count - 1);
        emit_strip(&d, k == 0 ? full : last, out);
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n}\n\n");
}
