/* layer_qconv_emit.c - text of the direct integer convolutions.
 *
 * Direct: input rows of a band are staged once (widened or re-signed, channels padded to whole groups of the dot product),
 * then register tiles of pixels x vectors run over taps and channel groups as in layer_conv_direct.c. */
#include "compiler/layer_qconv_internal.h"

#include <stdio.h>

static void epilogue_value(const nas__qconv *q, int32_t pixel, int32_t v, int32_t lanes, int32_t n,
                           size_t residual_at, nas_buf *out) {
    nas_buf_printf(out, "        %st%d = ", v == 0 ? "const vi " : "", v);
    if (q->conv.has_residual) nas_buf_puts(out, q->joins ? "q_join(" : "q_plus(");
    nas_buf_printf(out, q->has_left ? "q_round(q_left(a%d_%d, h), m%d)" : "q_round(a%d_%d, m%d)",
                   pixel, v, v);
    if (q->conv.has_residual) {
        nas_buf_printf(out, ", q_get_%c(residual + %zu, %d), h)", q->residual_signed ? 's' : 'u',
                       residual_at + (size_t)(v * lanes), n);
    }
}

void nas__q_emit_epilogue(const nas_target *target, const nas__qconv *q, int32_t pixel,
                          int32_t vectors, int32_t last, size_t out_at, size_t residual_at,
                          nas_buf *out) {
    const int32_t lanes = target->vector_bytes / 4;
    const char type = q->out_signed ? 's' : 'u';
    nas_buf_puts(out, "    {\n");
    for (int32_t v = 0; v < vectors; v++) {
        epilogue_value(q, pixel, v, lanes, v + 1 == vectors ? last : lanes, residual_at, out);
        nas_buf_puts(out, v + 1 < vectors ? ",\n        " : ";\n");
    }
    for (int32_t v = 0; v < vectors; v += 2) {
        const size_t at = out_at + (size_t)(v * lanes);
        const int32_t n = v + 2 >= vectors ? last : lanes;
        if (v + 1 < vectors) {
            nas_buf_printf(out, "        q_put2_%c(out + %zu, t%d, t%d, %d, h);\n", type, at, v,
                           v + 1, lanes + n);
        } else {
            nas_buf_printf(out, "        q_put_%c(out + %zu, t%d, %d, h);\n", type, at, v, n);
        }
    }
    nas_buf_puts(out, "    }\n");
}

/* Multipliers of the block, after its biases at `w`. */
void nas__q_emit_multipliers(const nas_target *target, int32_t vectors, nas_buf *out) {
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "    const vi m%d = q_i32(m + %d);\n", v, v * target->vector_bytes);
    }
}

/* Two sums of each output become one, in order: whole vectors of outputs from pairs of vectors. */
static void emit_folds(int32_t pixels, int32_t vectors, nas_buf *out) {
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t v = 0; v < vectors; v += 2) {
            nas_buf_printf(out, "    a%d_%d = q_fold(a%d_%d, a%d_%d) + s%d;\n", p, v / 2, p, v, p,
                           v + 1 < vectors ? v + 1 : v, v / 2);
        }
    }
}

/* Sums begin at 0 where they are split. */
static void emit_zeros(const nas_target *target, int32_t pixels, int32_t vectors, int32_t arrays,
                       nas_buf *out) {
    const int32_t bytes = target->vector_bytes, heads = (vectors + 1) / 2;
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "    vi a0_%d = {0}", v);
        for (int32_t p = 1; p < pixels; p++)
            nas_buf_printf(out, ", a%d_%d = a0_%d", p, v, v);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "    const unsigned char *m = w + %d;\n    w += %d;\n", heads * bytes,
                   arrays * heads * bytes);
}

void nas__q_emit_biases(const nas_target *target, int32_t pixels, int32_t vectors, int32_t arrays,
                        nas_buf *out) {
    const int32_t bytes = target->vector_bytes;
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "    vi a0_%d = q_i32(w + %d)", v, v * bytes);
        for (int32_t p = 1; p < pixels; p++)
            nas_buf_printf(out, ", a%d_%d = a0_%d", p, v, v);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "    const unsigned char *m = w + %d;\n    w += %d;\n", vectors * bytes,
                   arrays * vectors * bytes);
}

static const char *residual_argument(const nas__qconv *q) {
    return q->conv.has_residual ? " const unsigned char *residual," : "";
}

/* ---- direct ------------------------------------------------------------------------------------------------------ */

typedef struct direct {
    const nas_target *target;
    const nas__qconv *q;
    const nas__qconv_way *way;
    nas__conv_tiling tiling;
    nas__q_blocks blocks;
    nas__q_stage stage;
    const char *name, *index; /* index: type of the entries of a list */
} direct;

static bool is_list(const direct *d) {
    return d->way->algorithm == NAS__QCONV_SPARSE;
}

int32_t nas__q_unroll(int32_t length, int32_t products) {
    const int32_t most = products >= 8 ? 2 : 4;
    for (int32_t u = most; u > 1; u--) {
        if (length % u == 0) return u;
    }
    return 1;
}

static void emit_weight(const direct *d, int32_t v, int32_t at, nas_buf *out) {
    const int32_t elements = d->blocks.lanes * d->stage.group;
    if (d->way->sums16 > 0) {
        nas_buf_printf(out, "q_i32(w + %d)", at + v * elements);
    } else if (d->way->stored_bits == 2) {
        nas_buf_printf(out, "q_w2_%d(w + %d)", v % 4, at + v / 4 * elements);
    } else if (d->way->stored_bits == 4) {
        nas_buf_printf(out, "q_%c4_%s(w + %d)", nas__qconv_exponents(d->q, d->way) ? 'p' : 'w',
                       v % 2 == 0 ? "low" : "high", at + v / 2 * elements);
    } else {
        nas_buf_printf(out, "q_w%d(w + %d)", d->way->stored_bits,
                       at + v * elements * (d->way->stored_bits / 8));
    }
}

static void emit_weight_loads(const direct *d, int32_t vectors, int32_t at, nas_buf *out) {
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "%sb%d = ", v == 0 ? "const vi " : ", ", v);
        emit_weight(d, v, at, out);
    }
    nas_buf_puts(out, ";\n");
}

/* Bytes from `s` to pixel `p` of a tile. */
static int32_t pixel_at(const direct *d, int32_t p, int32_t columns) {
    return p / columns * d->stage.stride_h * d->stage.row +
           p % columns * d->stage.stride_w * d->stage.pixel;
}

/* ---- sdot by element: one load of a pixel is for up to four steps ---- */

/* Steps of one load; the pixels or the weights stay in registers for all of them, the others are loaded `ahead` products
 * before they are needed, best 1. gcc 12 spills when all registers are in use. */
typedef struct by_element {
    int32_t steps, ahead;
} by_element;

static by_element by_element_of(const direct *d, int32_t length, int32_t pixels, int32_t vectors) {
    if (nas__dot_of(d->target) != NAS__DOT_NEON) return (by_element){1, 0};
    for (int32_t ahead = 1; ahead >= 0; ahead--) {
        for (int32_t steps = 4; steps > 1; steps /= 2) {
            const int32_t held = pixels <= steps * vectors ? pixels : steps * vectors;
            const int32_t registers = pixels * vectors + held + 1 + ahead;
            if (length % steps == 0 && registers < d->target->vector_registers)
                return (by_element){steps, ahead};
        }
    }
    return (by_element){1, 0};
}

/* Operand `k`: a pixel, or weights of step k / vectors. */
static void emit_operand(const direct *d, bool pixels, int32_t k, int32_t steps, int32_t columns,
                         int32_t vectors, nas_buf *out) {
    if (pixels) {
        nas_buf_printf(out, "q_x%d(s + %d)", steps, pixel_at(d, k, columns));
    } else {
        const int32_t step = nas__q_step_bytes(d->target, d->way, vectors);
        emit_weight(d, k % vectors, k / vectors * step, out);
    }
}

static void emit_steps_by_element(const direct *d, int32_t length, by_element by, int32_t pixels,
                                  int32_t columns, int32_t vectors, const char *indent,
                                  nas_buf *out) {
    const int32_t steps = by.steps, weights = steps * vectors;
    const bool stay = pixels <= weights; /* the pixels do */
    const int32_t held = stay ? pixels : weights, others = stay ? weights : pixels;
    nas_buf_printf(out, "%sfor (int i = 0; i < %d; i += %d, s += %d, w += %d) {\n", indent, length,
                   steps, steps * d->stage.group,
                   steps * nas__q_step_bytes(d->target, d->way, vectors));
    nas_buf_printf(out, "%s    Q_ANY(s);\n", indent);
    for (int32_t k = 0; k < held; k++) {
        nas_buf_printf(out, "%s    const vi x%d = ", indent, k);
        emit_operand(d, stay, k, steps, columns, vectors, out);
        nas_buf_puts(out, ";\n");
    }
    for (int32_t k = 0, loaded = 0; k < others; k++) {
        for (; loaded <= k + by.ahead && loaded < others; loaded++) {
            nas_buf_printf(out, "%s    const vi b%d = ", indent, loaded);
            emit_operand(d, !stay, loaded, steps, columns, vectors, out);
            nas_buf_puts(out, ";\n");
        }
        nas_buf_printf(out, "%s   ", indent);
        for (int32_t h = 0; h < held; h++) {
            const int32_t p = stay ? h : k, at = stay ? k : h, v = at % vectors;
            nas_buf_printf(out, " a%d_%d = q_dot_%d(a%d_%d, %c%d, %c%d);", p, v, at / vectors, p, v,
                           stay ? 'x' : 'b', p, stay ? 'b' : 'x', at);
        }
        nas_buf_puts(out, "\n");
    }
    nas_buf_printf(out, "%s}\n", indent);
}

/* Elements of a staged row: those of the target's own products, or bytes. */
static const char *element_of(const direct *d) {
    return d->way->sums16 > 0 ? "unsigned char" : "qx";
}

/* What a product adds to: its 16-bit sum, or, one by one, the 32-bit sum itself. */
static void emit_product16(const direct *d, int32_t at, int32_t columns, int32_t pixels,
                           int32_t vectors, bool alone, const char *indent, nas_buf *out) {
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_printf(out, "%s        x = q_xb(s + %d);", indent, pixel_at(d, p, columns) + at);
        for (int32_t v = 0; v < vectors; v++) {
            if (alone) {
                nas_buf_printf(out, " a%d_%d = q_widen(a%d_%d, q_first16(x, b%d));", p, v, p, v, v);
            } else {
                nas_buf_printf(out, " t%d_%d = q_sum16(t%d_%d, x, b%d);", p, v, p, v, v);
            }
        }
        nas_buf_puts(out, "\n");
    }
}

/* `count` times `sums` steps whose products are added in 16 bits. */
static void emit_sums16(const direct *d, int32_t count, int32_t sums, int32_t columns,
                        int32_t pixels, int32_t vectors, const char *indent, nas_buf *out) {
    const int32_t step = nas__q_step_bytes(d->target, d->way, vectors), group = d->stage.group;
    const int32_t unroll = sums <= 4 ? sums : sums % 3 == 0 ? 3 : sums % 2 == 0 ? 2 : 1;
    nas_buf_printf(out, "%sfor (int i = 0; i < %d; i++) {\n", indent, count);
    for (int32_t p = 0; p < pixels && sums > 1; p++) {
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%s%st%d_%d = {0}", v == 0 ? indent : "", v == 0 ? "    vi " : ", ",
                           p, v);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "%s    for (int k = 0; k < %d; k += %d, s += %d, w += %d) {\n", indent,
                   sums, unroll, unroll * group, unroll * step);
    for (int32_t u = 0; u < unroll; u++) {
        nas_buf_printf(out, "%s    {\n%s        ", indent, indent);
        emit_weight_loads(d, vectors, u * step, out);
        nas_buf_printf(out, "%s        vi x;\n", indent);
        emit_product16(d, u * group, columns, pixels, vectors, sums == 1, indent, out);
        nas_buf_printf(out, "%s    }\n", indent);
    }
    nas_buf_printf(out, "%s    }\n", indent);
    for (int32_t p = 0; p < pixels && sums > 1; p++) {
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%s    a%d_%d = q_widen(a%d_%d, t%d_%d);\n", indent, p, v, p, v, p,
                           v);
    }
    nas_buf_printf(out, "%s}\n", indent);
}

/* Of one step, `at` elements behind `s`; the weights are loaded. */
static void emit_products(const direct *d, int32_t pixels, int32_t columns, int32_t vectors,
                          int32_t at, const char *indent, nas_buf *out) {
    nas_buf_printf(out, "%s        vi x;\n", indent);
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_printf(out, "%s        x = q_x%s(s + %d);", indent, d->way->split > 1 ? "2" : "",
                       pixel_at(d, p, columns) + at);
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, " a%d_%d = q_dot(a%d_%d, x, b%d);", p, v, p, v, v);
        nas_buf_puts(out, "\n");
    }
}

/* The steps of a list, advancing `w`. */
static void emit_list(const direct *d, int32_t rows, int32_t columns, int32_t vectors,
                      nas_buf *out) {
    nas_buf_printf(out,
                   "    for (; i < to; i++, w += %d) {\n        const %s *s = in + *i;\n        ",
                   nas__q_step_bytes(d->target, d->way, vectors), element_of(d));
    emit_weight_loads(d, vectors, 0, out);
    emit_products(d, rows * columns, columns, vectors, 0, "", out);
    nas_buf_puts(out, "    }\n");
}

/* `length` product steps at `s`, advancing `s` and `w`. */
static void emit_steps(const direct *d, int32_t length, int32_t rows, int32_t columns,
                       int32_t vectors, const char *indent, nas_buf *out) {
    const int32_t pixels = rows * columns, round = nas__q_unroll(length, pixels * vectors);
    const int32_t sums = d->way->sums16;
    if (sums > 0) { /* as many whole sums as there are, then what is left */
        if (length / sums > 0)
            emit_sums16(d, length / sums, sums, columns, pixels, vectors, indent, out);
        if (length % sums > 0)
            emit_sums16(d, 1, length % sums, columns, pixels, vectors, indent, out);
        return;
    }
    const by_element by = by_element_of(d, length, pixels, vectors);
    if (by.steps > 1) {
        emit_steps_by_element(d, length, by, pixels, columns, vectors, indent, out);
        return;
    }
    const int32_t step = nas__q_step_bytes(d->target, d->way, vectors), group = d->stage.group;
    nas_buf_printf(out, "%sfor (int i = 0; i < %d; i += %d, s += %d, w += %d) {\n", indent, length,
                   round, round * group, round * step);
    for (int32_t u = 0; u < round; u++) {
        nas_buf_printf(out, "%s    {\n%s        ", indent, indent);
        emit_weight_loads(d, vectors, u * step, out);
        emit_products(d, pixels, columns, vectors, u * group, indent, out);
        nas_buf_printf(out, "%s    }\n", indent);
    }
    nas_buf_printf(out, "%s}\n", indent);
}

static void emit_taps(const direct *d, int32_t rows, int32_t columns, int32_t vectors,
                      nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const bool joined = d->stage.joined;
    const int32_t taps = joined ? 1 : c->kernel_w;
    const char *indent = "    ";
    nas_buf_printf(out, "    const %s *s = in;\n", element_of(d));
    if (c->kernel_h > 1) {
        nas_buf_printf(out, "    for (int y = 0; y < %d; y++) {\n", c->kernel_h);
        indent = "        ";
        if (taps == 1)
            nas_buf_printf(out, "        s = in + y * %d;\n", c->dilation_h * d->stage.row);
    }
    if (taps > 1) {
        nas_buf_printf(out, "%sfor (int x_tap = 0; x_tap < %d; x_tap++) {\n%s    s = in + ", indent,
                       taps, indent);
        if (c->kernel_h > 1) nas_buf_printf(out, "y * %d + ", c->dilation_h * d->stage.row);
        nas_buf_printf(out, "x_tap * %d;\n", c->dilation_w * d->stage.pixel);
        indent = c->kernel_h > 1 ? "            " : "        ";
    }
    emit_steps(d, joined ? d->stage.steps : d->stage.channels / d->stage.group, rows, columns,
               vectors, indent, out);
    if (taps > 1) nas_buf_printf(out, "%s}\n", c->kernel_h > 1 ? "        " : "    ");
    if (c->kernel_h > 1) nas_buf_puts(out, "    }\n");
}

/* One tile: rows x columns pixels, `vectors` vectors of which the last has `last` lanes. */
static void emit_tile(const direct *d, int32_t rows, int32_t columns, int32_t vectors, int32_t last,
                      nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t channels = (vectors - 1) * d->blocks.lanes + last;
    nas_buf_printf(
        out,
        "/* %d x %d pixels, %d channels */\n"
        "TILE void %s_%dx%d_%d(const %s *in, unsigned char *restrict out,%s const unsigned char "
        "*w, const int *h%s%s%s%s%s) {\n",
        rows, columns, channels, d->name, rows, columns, channels, element_of(d),
        residual_argument(d->q), is_list(d) ? ", const " : "", is_list(d) ? d->index : "",
        is_list(d) ? " *i, const " : "", is_list(d) ? d->index : "", is_list(d) ? " *to" : "");
    const int32_t heads = nas__q_heads(d->way, vectors), lanes = d->target->vector_bytes / 4;
    const int32_t arrays = nas__q_head_vectors(d->target, d->q, d->way);
    if (d->way->split > 1) {
        emit_zeros(d->target, rows * columns, vectors, arrays, out);
    } else {
        nas__q_emit_biases(d->target, rows * columns, vectors, arrays, out);
    }
    if (is_list(d))
        emit_list(d, rows, columns, vectors, out);
    else
        emit_taps(d, rows, columns, vectors, out);
    if (d->way->split > 1) {
        for (int32_t v = 0; v < heads; v++)
            nas_buf_printf(out, "    const vi s%d = q_i32(m - %d);\n", v,
                           (heads - v) * d->target->vector_bytes);
        emit_folds(rows * columns, vectors, out);
    }
    const bool deals = nas__q_deals_outputs(d->target, d->way);
    if (deals)
        nas__q_emit_dealt_constants(d->target, d->q, d->way, out);
    else
        nas__q_emit_multipliers(d->target, heads, out);
    for (int32_t p = 0; p < rows * columns; p++) {
        const size_t row = (size_t)(p / columns), column = (size_t)(p % columns);
        const size_t out_at = row * c->out_row + column * (size_t)c->out_pitch,
                     residual_at = row * c->residual_row + column * (size_t)c->residual_pitch;
        if (deals)
            nas__q_emit_dealt_epilogue(d->target, d->q, d->way, p, heads, channels, out_at,
                                       residual_at, out);
        else
            nas__q_emit_epilogue(d->target, d->q, p, heads, channels - (heads - 1) * lanes, out_at,
                                 residual_at, out);
    }
    nas_buf_puts(out, "}\n");
}

/* Staged rows: contiguous ones in one run, others pixel by pixel and group by group. */
static void emit_stage(const direct *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_stage *s = &d->stage;
    const int32_t in_c = c->in_c / c->groups;
    const char type = d->q->in_signed ? 's' : 'u';
    nas_buf_printf(out,
                   "TILE void %s_stage(const unsigned char *in, %s *s, int rows, int zero) {\n"
                   "    for (int y = 0; y < rows; y++, in += %zu, s += %d) {\n",
                   d->name, element_of(d), (size_t)s->step_h * c->in_row, s->row);
    const char *copy = d->way->sums16 > 0 ? "q_keep" : "q_stage";
    if (s->step_w == 1 && c->in_pitch == c->in_c && s->pixel == c->in_c) {
        nas_buf_printf(out, "        %s_%c(in, s, %d, zero);\n", copy, type, s->row);
    } else {
        nas_buf_printf(out,
                       "        const unsigned char *p = in;\n        %s *t = s;\n"
                       "        for (int x = 0; x < %d; x++, p += %d) {\n"
                       "            for (int g = 0; g < %d; g++, t += %d) {\n"
                       "                %s_%c(p + g * %d, t, %d, zero);\n",
                       element_of(d), s->columns, s->step_w * c->in_pitch, c->groups, s->channels,
                       copy, type, in_c, in_c);
        for (int32_t i = in_c; i < s->channels; i++)
            nas_buf_printf(out, "                t[%d] = 0;\n", i);
        nas_buf_puts(out, "            }\n        }\n");
    }
    nas_buf_puts(out, "    }\n}\n");
}

/* All tiles of one band and block. */
static void emit_band(const direct *d, int32_t rows, int32_t channels, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__conv_tiling *t = &d->tiling;
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t columns = t->columns - narrow, n = narrow ? t->narrow : t->wide;
        if (n == 0) continue;
        nas_buf_printf(out,
                       "            for (long t = 0; t < %d; t++) {\n"
                       "                const long x = %d + t * %d;\n"
                       "                %s_%dx%d_%d(s + x * %d, o + x * %d",
                       n, narrow ? t->wide * t->columns : 0, columns, d->name, rows, columns,
                       channels, d->stage.stride_w * d->stage.pixel, c->out_pitch);
        if (c->has_residual) nas_buf_printf(out, ", r + x * %d", c->residual_pitch);
        nas_buf_printf(out, ", w, h%s);\n            }\n",
                       is_list(d) ? ", list + starts[block], list + starts[block + 1]" : "");
    }
}

static void emit_tiles(const direct *d, bool has_full, bool has_last, nas_buf *out) {
    const nas__conv_tiling *t = &d->tiling;
    const nas__q_blocks *b = &d->blocks;
    for (int32_t r = 0; r < 2; r++) {
        if (r == 1 && t->last_rows == t->rows) continue;
        for (int32_t narrow = 0; narrow < 2; narrow++) {
            const int32_t rows = r == 0 ? t->rows : t->last_rows;
            if ((narrow ? t->narrow : t->wide) == 0) continue;
            if (r == 0 && t->bands == 1 && t->last_rows != t->rows) continue;
            if (has_full) emit_tile(d, rows, t->columns - narrow, b->vectors, b->lanes, out);
            if (has_last)
                emit_tile(d, rows, t->columns - narrow, b->last_vectors, b->last_lanes, out);
        }
    }
}

void nas__q_emit_head(const nas__qconv *q, const char *name, nas_buf *out) {
    nas_buf_printf(out,
                   "KERNEL void %s(const void *in, void *out, const void *residual,\n"
                   "    const void *weights, void *scratch, int begin, int end) {\n"
                   "    const int *h = (const int *)weights;\n%s%s",
                   name, q->conv.has_residual ? "" : "    (void)residual;\n",
                   "    (void)scratch;\n");
}

/* The loop over units: band, group and block of a unit, and where its input is, staged or not. */
static void emit_place(const direct *d, bool staged, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__conv_tiling *t = &d->tiling;
    const int32_t columns = c->groups * d->blocks.count;
    const size_t band_bytes = (size_t)(t->rows * c->stride_h) * c->in_row;
    nas_buf_printf(out, "%s    for (int u = begin; u < end; u++) {\n",
                   staged ? "    int staged = -1;\n" : "");
    if (nas__q_by_blocks(d->target, d->q, d->way)) {
        nas_buf_printf(out,
                       "        const int band = u %% %d;\n"
                       "        const long group = 0, block = u / %d;\n",
                       t->bands, t->bands);
    } else {
        nas_buf_printf(out,
                       "        const int band = u / %d, column = u %% %d;\n"
                       "        const long group = column / %d, block = column %% %d;\n",
                       columns, columns, d->blocks.count, d->blocks.count);
    }
    if (!staged) {
        nas_buf_printf(out, "        const %s *s = (const %s *)in + (long)band * %zu;\n",
                       element_of(d), element_of(d), band_bytes);
        return;
    }
    nas_buf_printf(
        out,
        "        if (band != staged) {\n"
        "            %s_stage((const unsigned char *)in + (long)band * %zu, scratch, band < %d "
        "? %d : %d, h[0]);\n"
        "            staged = band;\n        }\n"
        "        const %s *s = (const %s *)scratch + group * %d;\n",
        d->name, band_bytes, t->bands - 1, d->stage.rows_of_band,
        nas__q_staged_rows(d->q, t->last_rows), element_of(d), element_of(d), d->stage.channels);
}

void nas__qconv_direct_emit(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way, const char *name, nas_buf *out) {
    const nas__conv *c = &q->conv;
    direct d = {.target = target, .q = q, .way = way, .name = name};
    d.tiling = nas__conv_tile(c, way->pixels);
    d.blocks = nas__q_block_of(target, c, way);
    d.stage = nas__q_stage_of(target, q, way, d.tiling.rows);
    d.index = is_list(&d) && !nas__q_lists_of(target, q, way).small ? "int" : "unsigned short";
    const nas__conv_tiling *t = &d.tiling;
    const nas__q_blocks *b = &d.blocks;
    const int32_t last = (b->last_vectors - 1) * b->lanes + b->last_lanes,
                  full = b->vectors * b->lanes;
    const bool has_full = b->count > 1 || last == full, has_last = last != full;
    const bool staged = !nas__q_unstaged(target, q, way);
    if (!staged) {
        d.stage.row = d.stage.step_h * (int32_t)c->in_row;
        d.stage.pixel = d.stage.step_w * c->in_pitch;
    }
    emit_tiles(&d, has_full, has_last, out);
    if (staged) emit_stage(&d, out);
    nas__q_emit_head(q, name, out);
    const size_t block_bytes = nas__q_block_bytes(target, q, way, b->vectors);
    const size_t group_bytes =
        block_bytes * (size_t)(b->count - 1) + nas__q_block_bytes(target, q, way, b->last_vectors);
    emit_place(&d, staged, out);
    nas_buf_printf(out,
                   "        const long at = group * %d + block * %d;\n"
                   "        unsigned char *o = (unsigned char *)out + (long)band * %zu + at;\n",
                   b->out_c, full, (size_t)t->rows * c->out_row);
    if (c->has_residual) {
        nas_buf_printf(
            out,
            "        const unsigned char *r = (const unsigned char *)residual + (long)band * %zu + "
            "at;\n",
            (size_t)t->rows * c->residual_row);
    }
    if (is_list(&d)) {
        const nas__q_lists l = nas__q_lists_of(target, q, way);
        nas_buf_printf(out,
                       "        const unsigned char *const all = weights;\n"
                       "        const unsigned char *w = all + ((const int *)(all + %zu))[block];\n"
                       "        const int *const starts = (const int *)(all + %zu);\n"
                       "        const %s *const list = (const %s *)(all + %zu);\n",
                       l.blocks_at, l.starts, d.index, d.index, l.indices);
    } else {
        nas_buf_printf(out,
                       "        const unsigned char *w = (const unsigned char *)weights + %d + "
                       "group * %zu + block * %zu;\n",
                       4 * NAS__Q_HEAD, group_bytes, block_bytes);
    }
    /* cases: full or last block, full or last band */
    for (int32_t r = 0; r < 2; r++) {
        if (r == 0 && t->bands == 1) continue; /* the only band is the last one */
        for (int32_t k = 0; k < 2; k++) {
            if (k == 0 ? !has_full : !has_last) continue;
            nas_buf_printf(out, "        if (band %s %d && block %s %d) {\n",
                           r == 0 ? "<" : "==", t->bands - 1,
                           has_last ? (k == 0 ? "<" : "==") : "<=", b->count - 1);
            emit_band(&d, r == 0 ? t->rows : t->last_rows, k == 0 ? full : last, out);
            nas_buf_puts(out, "        }\n");
        }
    }
    nas_buf_puts(out, "    }\n}\n\n");
}
