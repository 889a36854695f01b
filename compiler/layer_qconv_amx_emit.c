/* layer_qconv_amx_emit.c - text of the integer convolutions on tile registers; see nas__q_matrix.
 *
 * A unit is 16 pixels of the list, which is what a register holds. Tables say of each unit of a strip where its pixels begin,
 * how many it has to store, and of each of those its row of the sums and its place in the output and the residual; the last
 * unit of a list in place begins early, so that nothing behind the image is read, and stores what is new in it. Sums go
 * through memory to vectors that make codes of them, while the next tile is multiplied: there are two buffers. */
#include "compiler/layer_qconv_internal.h"
#include "compiler/tile_registers.h"

#include <stdio.h>

enum { UNIT = 16, DEPTH = 64, LINE = 64, UNROLL = 4, AHEAD = 8 /* pixels */ };

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

typedef struct amx {
    const nas_target *target;
    const nas__qconv *q;
    const nas__qconv_way *way;
    nas__q_matrix m;
    nas__q_blocks blocks;
    const char *name;
} amx;

/* ---- registers ---------------------------------------------------------------------------------------------------- */

static nas__tiles tiles_of(const amx *d) {
    return nas__tiles_of(d->m.wide / UNIT, d->way->vectors);
}

static void emit_config(const amx *d, nas_buf *out) {
    const nas__tiles r = tiles_of(d);
    uint8_t rows[NAS__TILE_REGISTERS], bytes[NAS__TILE_REGISTERS];
    for (int32_t t = 0; t < NAS__TILE_REGISTERS; t++) {
        const bool sum = t < r.stay, pixels = (t < r.turn) == r.pixels;
        bytes[t] = (uint8_t)(!sum && pixels ? d->m.group : DEPTH);
        rows[t] = (uint8_t)(!sum && !pixels ? d->m.group / 4 : UNIT);
    }
    nas__tiles_config(d->name, rows, bytes, out);
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

static void load_text(const void *arg, bool pixels, int32_t k, int32_t into, nas_buf *out) {
    const amx *d = arg;
    if (pixels)
        nas_buf_printf(out, "        _tile_loadd(%d, s%d + a, %d);\n", into, k,
                       d->m.in_place ? d->q->conv.in_pitch : d->m.depth);
    else
        nas_buf_printf(out, "        _tile_loadd(%d, w + %d, 64);\n", into, k * UNIT * d->m.group);
}

static void multiply_text(const void *arg, int32_t sum, int32_t pixels, int32_t outputs,
                          nas_buf *out) {
    const amx *d = arg;
    nas_buf_printf(out, "        _tile_dpb%csd(%d, %d, %d);\n", d->q->in_signed ? 's' : 'u', sum,
                   pixels, outputs);
}

/* One step, of the inputs at `a` of each unit; the weights move on. */
static void emit_step(const amx *d, int32_t units, int32_t vectors, nas_buf *out) {
    static const nas__tiles_text text = {load_text, multiply_text};
    const nas__tiles r = tiles_of(d);
    nas__tiles_step(&r, &text, d, units, vectors, out);
    const int32_t bytes = nas__q_matrix_step(d->target, &d->m, d->way, vectors),
                  lines = ceil_div(bytes, LINE * d->m.strip_tiles);
    for (int32_t i = 0; d->m.asks && i < lines; i++)
        nas_buf_printf(out, "        __builtin_prefetch(w + ahead + %d, 0, 2);\n", i * LINE);
    nas_buf_printf(out, "        w += %d;\n", bytes);
}

/* A loop of `name` over n steps of `apart` bytes, if there are several; returns whether there are. */
static bool emit_loop(const char *name, int32_t n, size_t apart, nas_buf *out) {
    if (n > 1)
        nas_buf_printf(out, "    for (long %s = 0; %s < %zu; %s += %zu)\n", name, name,
                       (size_t)n * apart, name, apart);
    return n > 1;
}

/* All steps: staged inputs lie one after the other, those in place by runs. */
static void emit_steps(const amx *d, int32_t units, int32_t vectors, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const bool there = d->m.in_place;
    const int32_t steps = there ? d->m.run / d->m.group : d->m.steps,
                  round = steps % UNROLL == 0 ? UNROLL : 1;
    const bool rows =
        there && emit_loop("row", c->kernel_h, (size_t)c->dilation_h * c->in_row, out);
    const bool taps = there && emit_loop("tap", d->m.joined ? 1 : c->kernel_w,
                                         (size_t)(c->dilation_w * c->in_pitch), out);
    const bool many = emit_loop("k", steps / round, (size_t)(round * d->m.group), out);
    nas_buf_puts(out, "    {\n");
    for (int32_t i = 0; i < round; i++) {
        nas_buf_printf(out, "        %sa = %s%s%s%d;\n", i == 0 ? "long " : "",
                       rows ? "row + " : "", taps ? "tap + " : "", many ? "k + " : "",
                       i * d->m.group);
        emit_step(d, units, vectors, out);
    }
    nas_buf_puts(out, "    }\n");
}

/* Sums of a tile begin with the bias in every row. */
static void emit_tile(const amx *d, int32_t units, int32_t vectors, nas_buf *out) {
    const nas__qconv *q = d->q;
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_sums_%d_%d(const unsigned char *s, const long *at, const unsigned "
                   "char *w%s) {\n",
                   units * UNIT, vectors * UNIT, d->name, units, vectors,
                   d->m.asks ? ", long ahead" : "");
    for (int32_t i = 0; i < units; i++)
        nas_buf_printf(out, "    const unsigned char *const s%d = s + at[%d];\n", i, i);
    nas_buf_puts(out, "    q_fence();\n");
    for (int32_t t = 0; t < units * vectors; t++) {
        nas_buf_printf(out, "    _tile_loadd(%d, w + %d, 0);\n",
                       t / vectors * d->way->vectors + t % vectors, t % vectors * 64);
    }
    nas_buf_printf(out, "    w += %d;\n", nas__q_head_vectors(d->target, q, d->way) * vectors * 64);
    emit_steps(d, units, vectors, out);
    nas_buf_puts(out, "}\n");
}

/* What a tile left in the registers, to `sums`. */
static void emit_stores(const amx *d, int32_t units, int32_t vectors, nas_buf *out) {
    for (int32_t t = 0; t < units * vectors; t++) {
        nas_buf_printf(out, "                _tile_stored(%d, sums + t %% 2 * %d + %d, 64);\n",
                       t / vectors * d->way->vectors + t % vectors,
                       d->m.wide * d->way->vectors * d->target->vector_bytes, t * 1024);
    }
    nas_buf_puts(out, "                q_fence();\n");
}

/* ---- codes -------------------------------------------------------------------------------------------------------- */

/* Sums of the pixel `first` + i of a list, as a<i>_<vector>. */
static void emit_loads(int32_t i, int32_t vectors, nas_buf *out) {
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, "    const vi a%d_%d = q_i32(sums + line[p + %d] + %d);\n", i, v, i,
                       v * 1024);
}

/* Lines that are written and read a few pixels on. */
static void emit_ahead(const nas__conv *c, int32_t pixels, int32_t channels, nas_buf *out) {
    for (int32_t i = 0; i < pixels * channels; i += LINE) {
        nas_buf_printf(out, "    __builtin_prefetch(out + %d, 1);\n", AHEAD * c->out_pitch + i);
        if (c->has_residual)
            nas_buf_printf(out, "    __builtin_prefetch(residual + %d);\n",
                           AHEAD * c->residual_pitch + i);
    }
}

/* The codes of `units` units in `sums`; tables as in the strip, from the first of them on. */
static void emit_codes(const amx *d, int32_t vectors, int32_t last, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const bool residual = c->has_residual;
    const int32_t channels = (vectors - 1) * d->blocks.lanes + last,
                  together = nas__q_dealt_pixels(d->target, d->q, d->way, vectors, channels);
    nas_buf_printf(out,
                   "/* %d channels */\n"
                   "TILE void %s_codes_%d(const unsigned char *sums, const long *n, const long "
                   "*line, unsigned char *restrict y, const long *o,%s const unsigned char *w, "
                   "const int *h, long units) {\n"
                   "    const unsigned char *m = w + %d;\n",
                   channels, d->name, channels,
                   residual ? " const unsigned char *z, const long *r," : "", vectors * 64);
    nas__q_emit_dealt_constants(d->target, d->q, d->way, out);
    nas_buf_printf(out,
                   "    for (long i = 0; i < units; i++, sums += %d) {\n"
                   "    for (long p = %d * i, to = p + n[i]; p < to;) {\n"
                   "    unsigned char *out = y + o[p];\n%s",
                   vectors * 1024, UNIT,
                   residual ? "    const unsigned char *residual = z + r[p];\n" : "");
    emit_ahead(c, together, channels, out);
    if (together > 1) {
        const int32_t k = together - 1;
        nas_buf_printf(out, "    if (p + %d < to && o[p + %d] - o[p] == %d", k, k,
                       k * c->out_pitch);
        if (residual) nas_buf_printf(out, " && r[p + %d] - r[p] == %d", k, k * c->residual_pitch);
        nas_buf_puts(out, ") {\n");
        for (int32_t i = 0; i < together; i++)
            emit_loads(i, vectors, out);
        nas__q_emit_dealt_pixels(d->target, d->q, d->way, vectors, out);
        nas_buf_printf(out, "    p += %d;\n    continue;\n    }\n", together);
    }
    emit_loads(0, vectors, out);
    nas__q_emit_dealt_epilogue(d->target, d->q, d->way, 0, vectors, channels, 0, 0, out);
    nas_buf_puts(out, "    p++;\n    }\n    }\n}\n");
}

/* ---- tables and rows ---------------------------------------------------------------------------------------------- */

/* The tables of `units` units from `first` on. */
static void emit_places(const amx *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_matrix *m = &d->m;
    nas_buf_printf(out,
                   "TILE void %s_places(long *at, long *n, long *line, long *o,%s long first, long "
                   "units) {\n"
                   "    for (long u = 0; u < units; u++) {\n"
                   "        const long from = (first + u) * %d, to = from + %d < %d ? from + %d : "
                   "%d;\n",
                   d->name, c->has_residual ? " long *r," : "", UNIT, UNIT, m->pixels, UNIT,
                   m->pixels);
    if (m->in_place)
        nas_buf_printf(out,
                       "        const long start = from < %d ? from : %d;\n"
                       "        at[u] = start * %d;\n",
                       m->pixels - UNIT, m->pixels - UNIT, c->in_pitch);
    else
        nas_buf_printf(out, "        const long start = from;\n        at[u] = u * %d;\n",
                       UNIT * m->depth);
    nas_buf_printf(out,
                   "        long k = %d * u, y = from / %d, x = from %% %d;\n"
                   "        for (long p = from; p < to; p++) {\n",
                   UNIT, m->row, m->row);
    if (m->row > c->out_w) nas_buf_printf(out, "            if (x < %d) {\n", c->out_w);
    nas_buf_printf(out,
                   "            line[k] = (p - start) * 64;\n"
                   "            o[k] = y * %zu + x * %d;\n",
                   c->out_row, c->out_pitch);
    if (c->has_residual)
        nas_buf_printf(out, "            r[k] = y * %zu + x * %d;\n", c->residual_row,
                       c->residual_pitch);
    nas_buf_printf(out,
                   "            k++;\n%s"
                   "            if (++x == %d) x = 0, y++;\n"
                   "        }\n"
                   "        n[u] = k - %d * u;\n"
                   "    }\n}\n",
                   m->row > c->out_w ? "            }\n" : "", m->row, UNIT);
}

/* Bytes [0, run) of a run to place `at` of the row of a pixel, by vectors of 16 to 64 bytes: what they have beyond its end are
 * zeros, as far as the row goes. Returns the end of what was written. */
static int32_t emit_copy(const nas__q_matrix *m, int32_t at, nas_buf *out) {
    int32_t width = DEPTH;
    for (int32_t i = 0; i < m->run; i += width) {
        const int32_t left = m->run - i;
        while (width > 16 && left <= width / 2)
            width /= 2;
        const int32_t n = min_i32(left, width), kept = min_i32(m->depth - at - i, width);
        nas_buf_printf(out, "            q_keep_%s%d(t + %d, ", kept < width ? "part_" : "", width,
                       at + i);
        if (n < width)
            nas_buf_printf(out, "q_part_%d(b + %d, %d)", width, i, n);
        else
            nas_buf_printf(out, "q_bytes_%d(b + %d)", width, i);
        if (kept < width) nas_buf_printf(out, ", %d", kept);
        nas_buf_puts(out, ");\n");
        if (i + width >= m->run) return at + i + kept;
    }
    return at + m->run;
}

/* Rows of `n` pixels from `first` on, one group of channels after the other. */
static void emit_stage(const amx *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_matrix *m = &d->m;
    const int32_t columns = m->joined ? 1 : c->kernel_w;
    nas_buf_printf(out,
                   "TILE void %s_stage(const unsigned char *in, unsigned char *s, long first, long "
                   "n) {\n"
                   "    long y = first / %d, x = first %% %d;\n"
                   "    for (long i = 0; i < n; i++, s += %d) {\n"
                   "        const unsigned char *const a = in + y * %zu + x * %d;\n"
                   "        for (long g = 0; g < %d; g++) {\n"
                   "            unsigned char *const t = s + g * %zu;\n"
                   "            const unsigned char *b;\n",
                   d->name, m->row, m->row, m->depth, (size_t)c->stride_h * c->in_row,
                   c->stride_w * c->in_pitch, c->groups,
                   (size_t)m->strip_pixels * (size_t)m->depth);
    int32_t covered = 0;
    for (int32_t k = 0; k < c->kernel_h * columns; k++) {
        nas_buf_printf(out, "            b = a + %zu + g * %d;\n",
                       (size_t)(k / columns * c->dilation_h) * c->in_row +
                           (size_t)(k % columns * c->dilation_w * c->in_pitch),
                       c->in_c / c->groups);
        covered = emit_copy(m, k * m->run, out);
    }
    if (covered < m->depth)
        nas_buf_printf(out, "            q_keep_part_64(t + %d, (__m512i){0}, %d);\n", covered,
                       m->depth - covered);
    nas_buf_printf(out,
                   "        }\n"
                   "        if (++x == %d) x = 0, y++;\n"
                   "    }\n}\n",
                   m->row);
}

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

/* What a thread has, and the tables and rows of the strip of unit u. */
static void emit_strips(const amx *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_matrix *m = &d->m;
    const int32_t columns = c->groups * d->blocks.count, units = ceil_div(m->pixels, UNIT),
                  strip = m->strip_pixels / UNIT;
    nas_buf_printf(out,
                   "    unsigned char *const rows = scratch, *const sums = rows + %zu;\n"
                   "    long *const at = scratch, *const n = (void *)(rows + %zu);\n"
                   "    long *const line = (void *)(rows + %zu), *const o = line + %d;\n",
                   m->sums_at, m->counts_at, m->lines_at, m->strip_pixels);
    if (c->has_residual)
        nas_buf_printf(out, "    long *const r = (void *)(rows + %zu);\n", m->residuals_at);
    nas_buf_printf(out,
                   "    _tile_loadconfig(%s_tiles);\n"
                   "    long known = -1;\n"
                   "    for (int u = begin; u < end; u++) {\n"
                   "        const long strip = u / %d, column = u %% %d;\n"
                   "        const long group = column / %d, block = column %% %d;\n"
                   "        const long first = strip * %d, units = first + %d < %d ? %d : %d - "
                   "first;\n"
                   "        if (strip != known) {\n"
                   "            %s_places(at, n, line, o,%s first, units);\n",
                   d->name, columns, columns, d->blocks.count, d->blocks.count, strip, strip, units,
                   strip, units, d->name, c->has_residual ? " r," : "");
    if (!m->in_place) {
        nas_buf_printf(out,
                       "            const long p = first * %d, q = %d - p < units * %d ? %d - p : "
                       "units * %d;\n"
                       "            %s_stage(in, rows + %zu, p, q);\n",
                       UNIT, m->pixels, UNIT, m->pixels, UNIT, d->name, m->staged_at);
    }
    nas_buf_puts(out, "            known = strip;\n        }\n");
    if (m->in_place)
        nas_buf_puts(out, "        const unsigned char *const s = in;\n");
    else
        nas_buf_printf(out, "        const unsigned char *const s = rows + %zu + group * %zu;\n",
                       m->staged_at, (size_t)m->strip_pixels * (size_t)m->depth);
}

static void emit_codes_call(const amx *d, int32_t channels, const char *indent, const char *units,
                            nas_buf *out) {
    const int32_t wide = d->m.wide / UNIT;
    nas_buf_printf(out,
                   "%s%s_codes_%d(sums + (t - 1) %% 2 * %d, n + (t - 1) * %d, line + (t - 1) * %d, "
                   "y, o + (t - 1) * %d,",
                   indent, d->name, channels, d->m.wide * d->way->vectors * d->target->vector_bytes,
                   wide, d->m.wide, d->m.wide);
    if (d->q->conv.has_residual) nas_buf_printf(out, " z, r + (t - 1) * %d,", d->m.wide);
    nas_buf_printf(out, " w, h, %s);\n", units);
}

/* All tiles of a strip and block: whole ones, then the rest; codes are one tile behind. Stores come after the codes of the tile
 * before: loads that lie 4096 bytes from stores which wait for products would wait, too. */
static void emit_tiles(const amx *d, int32_t vectors, int32_t last, nas_buf *out) {
    const int32_t channels = (vectors - 1) * d->blocks.lanes + last, wide = d->m.wide / UNIT,
                  rest = ceil_div(d->m.pixels, UNIT) % wide;
    /* each tile asks for a part of every step of the next block */
    char ahead[64] = "";
    if (d->m.asks)
        (void)snprintf(ahead, sizeof ahead, ", %zu + t * %d",
                       nas__q_block_bytes(d->target, d->q, d->way, vectors),
                       LINE * ceil_div(nas__q_matrix_step(d->target, &d->m, d->way, vectors),
                                       LINE * d->m.strip_tiles));
    nas_buf_printf(out,
                   "            long t = 0;\n"
                   "            for (; (t + 1) * %d <= units; t++) {\n"
                   "                %s_sums_%d_%d(s, at + t * %d, w%s);\n"
                   "                if (t > 0)\n",
                   wide, d->name, wide, vectors, wide, ahead);
    char whole[16];
    (void)snprintf(whole, sizeof whole, "%d", wide);
    emit_codes_call(d, channels, "                    ", whole, out);
    emit_stores(d, wide, vectors, out);
    nas_buf_puts(out, "            }\n");
    if (rest > 0) {
        nas_buf_printf(out,
                       "            if (t * %d < units) {\n"
                       "                %s_sums_%d_%d(s, at + t * %d, w%s);\n"
                       "                if (t > 0)\n",
                       wide, d->name, rest, vectors, wide, ahead);
        emit_codes_call(d, channels, "                    ", whole, out);
        emit_stores(d, rest, vectors, out);
        nas_buf_puts(out, "                t++;\n            }\n");
    }
    char left[48];
    (void)snprintf(left, sizeof left, "units - (t - 1) * %d", wide);
    emit_codes_call(d, channels, "            ", left, out);
}

static void emit_functions(const amx *d, int32_t vectors, int32_t last, bool new_sums,
                           nas_buf *out) {
    const int32_t wide = d->m.wide / UNIT, units = ceil_div(d->m.pixels, UNIT);
    if (new_sums) emit_tile(d, wide, vectors, out);
    if (new_sums && units % wide > 0) emit_tile(d, units % wide, vectors, out);
    emit_codes(d, vectors, last, out);
}

void nas__q_amx_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                     const char *name, nas_buf *out) {
    amx d = {.target = target, .q = q, .way = way, .name = name};
    d.m = nas__q_amx_of(target, q, way);
    d.blocks = nas__q_block(target, &q->conv, way->vectors);
    const nas__q_blocks *b = &d.blocks;
    const int32_t last = (b->last_vectors - 1) * b->lanes + b->last_lanes,
                  full = b->vectors * b->lanes;
    const bool has_full = b->count > 1 || last == full, has_last = last != full;
    if (has_full) emit_functions(&d, b->vectors, b->lanes, true, out);
    if (has_last)
        emit_functions(&d, b->last_vectors, b->last_lanes,
                       !has_full || b->last_vectors != b->vectors, out);
    emit_config(&d, out);
    emit_places(&d, out);
    if (!d.m.in_place) emit_stage(&d, out);
    nas__q_emit_head(q, name, out);
    emit_strips(&d, out);
    nas__q_emit_block_places(target, q, way, out);
    for (int32_t k = 0; k < 2; k++) {
        if (k == 0 ? !has_full : !has_last) continue;
        nas_buf_printf(out, "        if (block %s %d) {\n",
                       has_last ? (k == 0 ? "<" : "==") : "<=", b->count - 1);
        emit_tiles(&d, k == 0 ? b->vectors : b->last_vectors, k == 0 ? b->lanes : b->last_lanes,
                   out);
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n    _tile_release();\n}\n\n");
}
