/* layer_qconv_matrix_emit.c - text of the integer convolutions on matrix units; see nas__q_matrix.
 *
 * One function stages a strip, one for each shape of a tile multiplies and requantizes. `o` and `r` are tables of where the
 * pixels of the strip lie in the output and in the residual. */
#include "compiler/layer_qconv_internal.h"

#include <stdio.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

typedef struct matrix {
    const nas_target *target;
    const nas__qconv *q;
    const nas__qconv_way *way;
    nas__q_matrix m;
    nas__q_blocks blocks;
    const char *name;
} matrix;

/* The first lines of a tile; `s`: its staged pixels, `w`: its block. */
static void emit_tile_head(const matrix *d, int32_t pixels, int32_t channels, nas_buf *out) {
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_%d_%d(const unsigned char *s, unsigned char *restrict y, const "
                   "long *o,%s const unsigned char *w, const int *h) {\n",
                   pixels, channels, d->name, pixels, channels,
                   d->q->conv.has_residual ? " const unsigned char *z, const long *r," : "");
}

/* ---- Arm: products of vectors of two pixels and two channels ------------------------------------------------------- */

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
    for (int32_t k = 0, loaded = 0; k < others; k++) {
        for (; loaded <= k + 1 && loaded < others; loaded++) {
            nas_buf_printf(out, "            const vi b%d = ", loaded);
            load_operand(d, !pixels, loaded, u, vectors, out);
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

static void emit_mmla_tile(const matrix *d, int32_t pixels, int32_t vectors, int32_t last,
                           nas_buf *out) {
    const bool residual = d->q->conv.has_residual;
    const int32_t units = ceil_div(pixels, d->m.unit),
                  round = nas__q_unroll(d->m.steps, pixels * vectors);
    emit_tile_head(d, pixels, (vectors - 1) * d->blocks.lanes + last, out);
    emit_sums(units, vectors, d->target->vector_bytes, out);
    nas_buf_printf(out, "    for (int k = 0; k < %d; k += %d, s += %d, w += %d) {\n", d->m.steps,
                   round, round * d->m.unit * d->m.group,
                   round * nas__q_matrix_step(d->target, &d->m, d->way, vectors));
    for (int32_t u = 0; u < round; u++)
        emit_step(d, units, vectors, u, out);
    nas_buf_puts(out, "    }\n");
    nas__q_emit_multipliers(d->target, vectors, out);
    nas_buf_printf(out, "    unsigned char *out;\n%s",
                   residual ? "    const unsigned char *residual;\n" : "");
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_puts(out, "    {\n");
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "    const vi a%d_%d = q_%s(c%d_%d, c%d_%d);\n", p, v,
                           p % 2 == 0 ? "low" : "high", p / 2, 2 * v, p / 2, 2 * v + 1);
        }
        nas_buf_printf(out, "    out = y + o[%d];\n", p);
        if (residual) nas_buf_printf(out, "    residual = z + r[%d];\n", p);
        nas__q_emit_epilogue(d->target, d->q, p, vectors, last, 0, 0, out);
        nas_buf_puts(out, "    }\n");
    }
    nas_buf_puts(out, "}\n");
}

/* ---- kernels ------------------------------------------------------------------------------------------------------- */

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

/* The taps of pixel a (and b), one group of channels after the other. */
static void emit_taps(const matrix *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_matrix *m = &d->m;
    const size_t group = (size_t)m->strip_pixels * (size_t)m->depth;
    nas_buf_printf(
        out, "        for (long g = 0; g < %d; g++) {\n            unsigned char *t = ", c->groups);
    if (m->copies)
        nas_buf_puts(out, "e");
    else
        nas_buf_printf(out, "s + g * %zu", group);
    nas_buf_printf(out,
                   ";\n            for (long k = 0; k < %d; k++) {\n"
                   "                const long tap = g * %d + ",
                   c->kernel_h * (m->joined ? 1 : c->kernel_w), c->in_c / c->groups);
    const size_t row = (size_t)c->dilation_h * c->in_row;
    if (m->joined) {
        nas_buf_printf(out, "k * %zu;\n", row);
    } else {
        nas_buf_printf(out, "k / %d * %zu + k %% %d * %d;\n", c->kernel_w, row, c->kernel_w,
                       c->dilation_w * c->in_pitch);
    }
    const int32_t together = m->copies ? 1 : m->unit;
    if (together > 1) {
        nas_buf_printf(out, "                q_mix(a + tap, b + tap, t, %d);\n", m->run);
    } else {
        nas_buf_printf(out, "                __builtin_memcpy(t, a + tap, %d);\n", m->run);
        if (m->copies)
            nas_buf_printf(out, "                __builtin_memcpy(t + %d, b + tap, %d);\n",
                           m->depth, m->run);
    }
    nas_buf_printf(out, "                t += %d;\n            }\n", together * m->run);
    if (m->copies) {
        nas_buf_printf(out, "            q_mix(e, e + %d, s + g * %zu, %d);\n", m->depth, group,
                       m->depth);
    } else if (m->used < m->depth) {
        nas_buf_printf(out, "            __builtin_memset(t, 0, %d);\n", m->depth - m->used);
    }
    nas_buf_puts(out, "        }\n");
}

/* `n` pixels from `first` on. The second of the last pair may be the first once more; what a tile register has beyond the
 * last pixel is not looked at. */
static void emit_stage(const matrix *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_matrix *m = &d->m;
    const int32_t together = m->unit;
    nas_buf_printf(out,
                   "TILE void %s_stage(const unsigned char *in, unsigned char *s, long *o,%s%s "
                   "long first, long n) {\n",
                   d->name, c->has_residual ? " long *r," : "",
                   m->copies ? " unsigned char *e," : "");
    for (int32_t i = 0; m->copies && m->used < m->depth && i < together; i++) {
        nas_buf_printf(out, "    __builtin_memset(e + %d, 0, %d);\n", i * m->depth + m->used,
                       m->depth - m->used);
    }
    nas_buf_printf(out,
                   "    for (long i = 0; i < n; i += %d, s += %d) {\n"
                   "        const long p = first + i;\n",
                   together, together * m->depth);
    emit_place(c, "p", "a", "i", out);
    if (together > 1) {
        nas_buf_puts(out, "        const long q = i + 1 < n ? p + 1 : p;\n");
        emit_place(c, "q", "b", "i + 1", out);
    }
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
        if (run.from >= run.to) continue;
        emit_mmla_tile(d, run.pixels, vectors, last, out);
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

void nas__q_emit_block_places(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, nas_buf *out) {
    const nas__q_blocks b = nas__q_block(target, &q->conv, way->vectors);
    const size_t block = nas__q_block_bytes(target, q, way, b.vectors),
                 group = block * (size_t)(b.count - 1) +
                         nas__q_block_bytes(target, q, way, b.last_vectors);
    nas_buf_printf(out,
                   "        const long to = group * %d + block * %d;\n"
                   "        unsigned char *const y = (unsigned char *)out + to;\n%s"
                   "        const unsigned char *const w = (const unsigned char *)weights + %d + "
                   "group * %zu + block * %zu;\n",
                   b.out_c, b.vectors * b.lanes,
                   q->conv.has_residual
                       ? "        const unsigned char *const z = (const unsigned char *)residual + "
                         "to;\n"
                       : "",
                   4 * NAS__Q_HEAD, group, block);
}

void nas__q_matrix_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                        const char *name, nas_buf *out) {
    if (nas__matrix_of(target) == NAS__DOT_AMX) {
        nas__q_amx_emit(target, q, way, name, out);
        return;
    }
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
    nas__q_emit_block_places(target, q, way, out);
    for (int32_t k = 0; k < 2; k++) {
        if (k == 0 ? !has_full : !has_last) continue;
        nas_buf_printf(out, "        if (block %s %d) {\n",
                       has_last ? (k == 0 ? "<" : "==") : "<=", b->count - 1);
        emit_strip(&d, k == 0 ? full : last, out);
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n}\n\n");
}
