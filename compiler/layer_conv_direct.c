/* layer_conv_direct.c - direct convolution: a register tile of pixels x vectors of output channels; taps and input
 * channels inside. Grouped convolutions and fully connected layers are the same text with other tiles.
 *
 * Every distance is a constant of the layer, so the pixels of a tile are constant displacements from one pointer, also
 * when the tile spans rows. Tiles are functions of their own: the register allocator sees one loop nest at a time. */
#include "compiler/layer_conv_internal.h"

#include <stdio.h>

static int32_t unroll_of(int32_t length, int32_t products) {
    const int32_t most = products >= 16 ? 2 : 4;
    for (int32_t u = most; u > 1; u--) {
        if (length % u == 0) return u;
    }
    return length < 8 ? length : 1;
}

void nas__conv_emit_loop(int32_t length, const size_t *offsets, int32_t pixels, int32_t vectors,
                         int32_t lanes, const char *indent, nas_buf *out) {
    const int32_t round = unroll_of(length, pixels * vectors);
    nas_buf_printf(out, "%sfor (int i = 0; i < %d; i += %d, s += %d, w += %d) {\n", indent, length,
                   round, round, round * vectors * lanes);
    for (int32_t u = 0; u < round; u++) {
        nas_buf_printf(out, "%s    {\n%s        const vf ", indent, indent);
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "%sb%d = load(w + %d)", v > 0 ? ", " : "", v,
                           (u * vectors + v) * lanes);
        }
        nas_buf_printf(out, ";\n%s        vf x;\n", indent);
        for (int32_t p = 0; p < pixels; p++) {
            nas_buf_printf(out, "%s        x = splat(s[%zu]);", indent, offsets[p] + (size_t)u);
            for (int32_t v = 0; v < vectors; v++)
                nas_buf_printf(out, " a%d_%d += x * b%d;", p, v, v);
            nas_buf_puts(out, "\n");
        }
        nas_buf_printf(out, "%s    }\n", indent);
    }
    nas_buf_printf(out, "%s}\n", indent);
}

/* One tile: rows x columns pixels, `vectors` vectors of which the last has `last` lanes. */
static void emit_tile(const nas__conv *c, const nas__conv_blocks *b, const char *name, int32_t rows,
                      int32_t columns, int32_t vectors, int32_t last, nas_buf *out) {
    const int32_t lanes = b->lanes, wide = vectors * lanes, pixels = rows * columns;
    size_t offsets[NAS__CONV_PIXELS_MAX] = {0};
    for (int32_t p = 0; p < pixels; p++) {
        offsets[p] = (size_t)(p / columns * c->stride_h) * c->in_row +
                     (size_t)(p % columns * c->stride_w) * (size_t)c->in_pitch;
    }
    nas_buf_printf(out,
                   "/* %d x %d pixels, %d channels */\n"
                   "TILE void %s_%dx%d_%d(const float *in, float *out%s, const float *w) {\n",
                   rows, columns, wide - lanes + last, name, rows, columns, wide - lanes + last,
                   c->has_residual ? ", const float *residual" : "");
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "    vf a0_%d = load(w + %d)", v, v * lanes);
        for (int32_t p = 1; p < pixels; p++)
            nas_buf_printf(out, ", a%d_%d = a0_%d", p, v, v);
        nas_buf_puts(out, ";\n");
    }
    if (c->act == NAS__LACT_PRELU) nas_buf_printf(out, "    const float *slope = w + %d;\n", wide);
    nas_buf_printf(out, "    w += %d;\n", nas__conv_heads(c) * wide);
    /* Taps of a row that lie one after another in memory are one run. */
    const bool joined = c->in_pitch == b->in_c && c->dilation_w == 1;
    const int32_t taps = joined ? 1 : c->kernel_w;
    const char *indent = "    ";
    nas_buf_puts(out, "    const float *s = in;\n");
    if (c->kernel_h > 1) {
        nas_buf_printf(out, "    for (int y = 0; y < %d; y++) {\n", c->kernel_h);
        indent = "        ";
        if (taps == 1) {
            nas_buf_printf(out, "        s = in + (long)y * %zu;\n",
                           (size_t)c->dilation_h * c->in_row);
        }
    }
    if (taps > 1) {
        nas_buf_printf(out, "%sfor (int x_tap = 0; x_tap < %d; x_tap++) {\n", indent, taps);
        nas_buf_printf(out, "%s    s = in + %s(long)x_tap * %d;\n", indent,
                       c->kernel_h > 1 ? "(long)y * ROW + " : "", c->dilation_w * c->in_pitch);
        indent = c->kernel_h > 1 ? "            " : "        ";
    }
    nas__conv_emit_loop(joined ? c->kernel_w * b->in_c : b->in_c, offsets, pixels, vectors, lanes,
                        indent, out);
    if (taps > 1) nas_buf_printf(out, "%s}\n", c->kernel_h > 1 ? "        " : "    ");
    if (c->kernel_h > 1) nas_buf_puts(out, "    }\n");
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t v = 0; v < vectors; v++) {
            const bool partial = v + 1 == vectors && last < lanes;
            char value[160], slope[32], count[16] = "";
            int n = snprintf(value, sizeof value, "a%d_%d", p, v);
            if (partial) (void)snprintf(count, sizeof count, ", %d", last);
            if (c->has_residual) {
                n = snprintf(value, sizeof value, "a%d_%d + %s(residual + %zu%s)", p, v,
                             partial ? "load_n" : "load",
                             (size_t)(p / columns) * c->residual_row +
                                 (size_t)(p % columns) * (size_t)c->residual_pitch +
                                 (size_t)(v * lanes),
                             count);
            }
            (void)n;
            (void)snprintf(slope, sizeof slope, "slope + %d", v * lanes);
            nas_buf_printf(out, "    %s(out + %zu, ", partial ? "store_n" : "store",
                           (size_t)(p / columns) * c->out_row +
                               (size_t)(p % columns) * (size_t)c->out_pitch + (size_t)(v * lanes));
            nas__conv_finish(c, value, slope, out);
            nas_buf_printf(out, "%s);\n", count);
        }
    }
    nas_buf_puts(out, "}\n");
}

/* All tiles of one band and block. */
static void emit_band(const nas__conv *c, const nas__conv_tiling *t, const char *name, int32_t rows,
                      int32_t channels, const char *indent, nas_buf *out) {
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t columns = t->columns - narrow, n = narrow ? t->narrow : t->wide;
        if (n == 0) continue;
        const int32_t first = narrow ? t->wide * t->columns : 0;
        nas_buf_printf(out, "%sfor (long t = 0; t < %d; t++) {\n", indent, n);
        nas_buf_printf(out, "%s    const long x = %d + t * %d;\n", indent, first, columns);
        nas_buf_printf(out, "%s    %s_%dx%d_%d(s + x * %d, o + x * %d", indent, name, rows, columns,
                       channels, c->stride_w * c->in_pitch, c->out_pitch);
        if (c->has_residual) nas_buf_printf(out, ", r + x * %d", c->residual_pitch);
        nas_buf_printf(out, ", w);\n%s}\n", indent);
    }
}

void nas__conv_direct_emit(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                           const char *name, nas_buf *out) {
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const int32_t last = (b.last_vectors - 1) * b.lanes + b.last_lanes, full = b.vectors * b.lanes;
    const int32_t steps = c->kernel_h * c->kernel_w * b.in_c + nas__conv_heads(c);
    const bool has_full = b.count > 1 || last == full, has_last = last != full;
    nas_buf_printf(out, "#define ROW %zu\n", (size_t)c->dilation_h * c->in_row);
    for (int32_t r = 0; r < 2; r++) {
        const int32_t rows = r == 0 ? t.rows : t.last_rows;
        if (r == 1 && t.last_rows == t.rows) continue;
        for (int32_t narrow = 0; narrow < 2; narrow++) {
            if ((narrow ? t.narrow : t.wide) == 0) continue;
            if (has_full) emit_tile(c, &b, name, rows, t.columns - narrow, b.vectors, b.lanes, out);
            if (has_last) {
                emit_tile(c, &b, name, rows, t.columns - narrow, b.last_vectors, b.last_lanes, out);
            }
        }
    }
    nas_buf_printf(out,
                   "#undef ROW\n"
                   "KERNEL void %s(const float *in, float *out, const float *residual,\n"
                   "    const void *weights, void *scratch, int begin, int end) {\n"
                   "    (void)residual; (void)scratch;\n"
                   "    for (int u = begin; u < end; u++) {\n",
                   name);
    const int32_t columns = c->groups * b.count;
    if (way->outer == 0) {
        nas_buf_printf(out, "        const int band = u / %d, column = u %% %d;\n", columns,
                       columns);
    } else {
        nas_buf_printf(out, "        const int band = u %% %d, column = u / %d;\n", t.bands,
                       t.bands);
    }
    nas_buf_printf(out, "        const long group = column / %d, block = column %% %d;\n", b.count,
                   b.count);
    nas_buf_printf(out, "        const float *s = in + (long)band * %zu + group * %d;\n",
                   (size_t)(t.rows * c->stride_h) * c->in_row, b.in_c);
    nas_buf_printf(out, "        const long at = group * %d + block * %d;\n", b.out_c, full);
    nas_buf_printf(out, "        float *o = out + (long)band * %zu + at;\n",
                   (size_t)t.rows * c->out_row);
    if (c->has_residual) {
        nas_buf_printf(out, "        const float *r = residual + (long)band * %zu + at;\n",
                       (size_t)t.rows * c->residual_row);
    }
    const size_t block_floats = (size_t)steps * (size_t)full;
    const size_t group_floats =
        block_floats * (size_t)(b.count - 1) + (size_t)steps * (size_t)(b.last_vectors * b.lanes);
    nas_buf_printf(out,
                   "        const float *w = (const float *)weights + group * %zu + block * %zu;\n",
                   group_floats, block_floats);
    /* cases: full or last block, full or last band */
    for (int32_t r = 0; r < 2; r++) {
        const int32_t rows = r == 0 ? t.rows : t.last_rows;
        if (r == 0 && t.bands == 1) continue; /* the only band is the last one */
        for (int32_t k = 0; k < 2; k++) {
            if (k == 0 ? !has_full : !has_last) continue;
            nas_buf_printf(out, "        if (band %s %d && block %s %d) {\n",
                           r == 0 ? "<" : "==", t.bands - 1,
                           has_last ? (k == 0 ? "<" : "==") : "<=", b.count - 1);
            emit_band(c, &t, name, rows, k == 0 ? full : last, "            ", out);
            nas_buf_puts(out, "        }\n");
        }
    }
    nas_buf_puts(out, "    }\n}\n\n");
}
