/* layer_qconv_pixels_emit.c - text of the integer convolutions with pixels in lanes.
 *
 * A tile adds its products in registers. Products and what makes codes of sums go to different ports of a processor, but one
 * after the other they do not overlap: all sums of a tile are done at once. So the sums of a small tile go to memory, and
 * become codes between the products of the next one. */
#include "compiler/layer_qconv_internal.h"

#include <stdio.h>

enum { LANES = NAS__Q_PIXEL_LANES, GROUP = NAS__Q_PIXEL_GROUP };
enum { MIXED_PRODUCTS = 8 }; /* of each sum, at least, between which codes are made */

typedef struct pixels {
    const nas__qconv *q;
    const nas__qconv_way *way;
    nas__q_steps s;
    const char *name;
} pixels;

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static int32_t padded_of(int32_t outputs) {
    return ceil_div(outputs, GROUP) * GROUP;
}

static const char *residual_argument(const nas__qconv *q) {
    return q->conv.has_residual ? " const unsigned char *residual," : "";
}

/* ---- codes -------------------------------------------------------------------------------------------------------- */

/* Vectors that all sums are scaled with. */
static void emit_constants(const nas__qconv *q, nas_buf *out) {
    const bool between = q->joins || q->prelu, zero = !between && !q->conv.has_residual;
    if (q->single) {
        nas_buf_printf(out, "    const vf shift = splat(0x1.8p+23f%s);\n",
                       zero ? " + (float)h[1]" : "");
    } else if (q->half) {
        nas_buf_printf(out, "    const MI half = _mm512_set1_epi64(%s0x80000000LL);\n",
                       zero ? "((long long)h[1] * 65536 * 65536) + " : "");
    }
    if (between && q->single) {
        nas_buf_printf(
            out, "    const vi least = q_splat(h[9] - h[8] + 0x4b400000), most = q_splat(h[10] - "
                 "h[8] + 0x4b400000);\n");
        nas_buf_puts(out, q->prelu
                              ? "    const vf above = (vf)q_splat(h[12]), end = splat(0x1.8p+23f + "
                                "(float)h[1]);\n"
                              : "    const vi m1 = q_splat(h[11]), round = q_splat((int)(32768u + "
                                "(unsigned)h[1] * 65536u - (unsigned)h[6] * (unsigned)h[7] - "
                                "0x4b400000u * (unsigned)h[11]));\n");
    } else if (between) {
        nas_buf_printf(
            out,
            "    const vi least = q_splat(h[9] - h[8]), most = q_splat(h[10] - h[8]);\n"
            "    const vi round = q_splat(32768 + h[1] * 65536%s), m1 = q_splat(h[11]);\n",
            q->joins ? " - h[6] * h[7]" : "");
    }
    if (q->conv.has_residual) nas_buf_puts(out, "    const vi m2 = q_splat(h[7]);\n");
    nas_buf_puts(out, "    const MI low = _mm512_set1_epi8((char)h[2]), high = "
                      "_mm512_set1_epi8((char)h[3]);\n");
}

/* What each output is scaled with, from `heads`. */
static void emit_multipliers(const nas__qconv *q, int32_t outputs, nas_buf *out) {
    for (int32_t o = 0; o < outputs; o++) {
        nas_buf_printf(out,
                       q->single ? "    const vf m_%d = (vf)q_splat4(heads + %d);\n"
                       : q->half ? "    const MI m_%d = q_splat8(heads + %d);\n"
                                 : "    const vi m_%d = q_splat4(heads + %d);\n",
                       o, 8 * o);
        if (q->prelu)
            nas_buf_printf(out, "    const vi below_%d = q_splat4(heads + %d);\n", o,
                           12 * padded_of(outputs) + 4 * o);
    }
}

/* The residual of output k of a group, from the words of the pixels: with its zero point. */
static void residual_text(const nas__qconv *q, int32_t k, nas_buf *out) {
    if (q->residual_signed)
        nas_buf_printf(out, "(r << %d >> 24)", 24 - 8 * k);
    else
        nas_buf_printf(out, "((r >> %d) & 255)", 8 * k);
}

/* The code, not clamped yet, of the sum `sum` of output o; k: place in its group. */
static void emit_code(const nas__qconv *q, const char *sum, int32_t o, int32_t k, nas_buf *out) {
    nas_buf_printf(out, "    t%d = ", k);
    if (q->single)
        nas_buf_printf(out, "q_single(%s, m_%d, shift)", sum, o);
    else if (q->half)
        nas_buf_printf(out, "q_upper(%s, m_%d, half)", sum, o);
    else
        nas_buf_printf(out, q->has_left ? "q_round(q_left(%s, h), m_%d)" : "q_round(%s, m_%d)", sum,
                       o);
    const bool residual = q->conv.has_residual;
    if (!q->single && !q->half && !residual && !q->prelu) nas_buf_puts(out, " + h[1]");
    if (q->single && residual && !q->joins) nas_buf_puts(out, " - 0x4b400000");
    nas_buf_puts(out, ";\n");
    if (q->joins || q->prelu)
        nas_buf_printf(out, "    t%d = q_min(q_max(t%d, least), most);\n", k, k);
    if (q->prelu && q->single)
        nas_buf_printf(out, "    t%d = q_bent(t%d, above, (vf)below_%d, end);\n", k, k, o);
    else if (q->prelu)
        nas_buf_printf(out, "    t%d = (t%d * q_below(t%d, m1, below_%d) + round) >> 16;\n", k, k,
                       k, o);
    if (!residual) return;
    nas_buf_printf(out, "    t%d = ", k);
    if (q->joins) {
        nas_buf_printf(out, "(t%d * m1 + (", k);
        residual_text(q, k, out);
        nas_buf_puts(out, " * m2 + round)) >> 16;\n");
    } else {
        nas_buf_printf(out, "((t%d + (((", k);
        residual_text(q, k, out);
        nas_buf_puts(out, " - h[6]) * m2 + 512) >> 10) + 32) >> 6) + h[1];\n");
    }
}

/* The codes of a group, from output `first` of the tile on, at vector v. */
typedef struct group {
    int32_t first, outputs, v, pixels;
} group;

static void emit_residual(const nas__qconv *q, const group *g, nas_buf *out) {
    if (!q->conv.has_residual) return;
    nas_buf_printf(out, "    r = q_pixels(residual + %zu, %d);\n",
                   (size_t)(g->first / GROUP) * q->residual_plane + (size_t)(g->v * LANES * GROUP),
                   g->pixels);
}

static void emit_put(const nas__qconv *q, const group *g, nas_buf *out) {
    nas_buf_printf(out, "    q_put_pixels(out + %zu, q_%s_%c(",
                   (size_t)(g->first / GROUP) * q->out_plane + (size_t)(g->v * LANES * GROUP),
                   q->single && !q->conv.has_residual ? "cut" : "pack", q->out_signed ? 's' : 'u');
    for (int32_t k = 0; k < GROUP; k++) {
        if (g->first + k < g->outputs)
            nas_buf_printf(out, "t%d, ", k);
        else
            nas_buf_puts(out, "(vi){0}, ");
    }
    nas_buf_printf(out, "low, high), %d);\n", g->pixels);
}

static void emit_codes(const nas__qconv *q, const group *g, nas_buf *out) {
    emit_residual(q, g, out);
    for (int32_t o = g->first; o < min_i32(g->outputs, g->first + GROUP); o++) {
        char sum[32];
        (void)snprintf(sum, sizeof sum, "a%d_%d", o, g->v);
        emit_code(q, sum, o, o - g->first, out);
    }
    emit_put(q, g, out);
}

static void emit_variables(const nas__qconv *q, int32_t outputs, nas_buf *out) {
    nas_buf_puts(out, "    vi t0");
    for (int32_t k = 1; k < min_i32(GROUP, outputs); k++)
        nas_buf_printf(out, ", t%d", k);
    nas_buf_puts(out, q->conv.has_residual ? ", r;\n" : ";\n");
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

/* Sums begin with the bias; `w` moves on to the weights. */
static void emit_begin(const pixels *d, int32_t outputs, int32_t vectors, nas_buf *out) {
    const int32_t padded = padded_of(outputs);
    if (d->q->in_signed && !d->s.staged) /* int8 to uint8: see zero_left */
        nas_buf_puts(out, "    const vi flip = q_splat((int)0x80808080u);\n");
    for (int32_t o = 0; o < outputs; o++) {
        nas_buf_printf(out, "    vi a%d_0 = q_splat4(w + %d)", o, 8 * padded + 4 * o);
        for (int32_t v = 1; v < vectors; v++)
            nas_buf_printf(out, ", a%d_%d = a%d_0", o, v, o);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "    w += %d;\n", 4 * NAS__Q_PIXEL_HEAD * padded);
}

static void emit_loads(const pixels *d, int32_t vectors, const char *from, size_t at,
                       nas_buf *out) {
    const char *flip = d->q->in_signed && !d->s.staged ? " ^ flip" : "";
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "    const vi x%d = q_i32(%s + %zu)%s;\n", v, from,
                       at + (size_t)(GROUP * v * LANES), flip);
    }
}

static void emit_products(int32_t o, int32_t vectors, int32_t at, nas_buf *out) {
    nas_buf_printf(out, "    const vi b%d = q_splat4(w + %d);\n   ", o, at);
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, " a%d_%d = q_dot(a%d_%d, x%d, b%d);", o, v, o, v, v, o);
    nas_buf_puts(out, "\n");
}

/* Planes [from, to) of `rows` kernel rows, advancing `in` by them, and `w`. */
static void emit_loop(const pixels *d, int32_t outputs, int32_t vectors, int32_t rows, int32_t from,
                      int32_t to, nas_buf *out) {
    const int32_t padded = padded_of(outputs);
    if (rows == 0 || from == to) return;
    nas_buf_printf(out,
                   "    for (int y = 0; y < %d; y++, in += %zu) {\n"
                   "    const unsigned char *s = in + %zu;\n"
                   "    for (int g = 0; g < %d; g++, s += %zu, w += %d) {\n",
                   rows, (size_t)d->q->conv.dilation_h * d->s.row, (size_t)from * d->s.plane,
                   to - from, d->s.plane, 4 * padded * d->s.columns);
    for (int32_t x = 0; x < d->s.columns; x++) {
        nas_buf_puts(out, "    {\n");
        emit_loads(d, vectors, "s", (size_t)(GROUP * x * d->s.apart), out);
        for (int32_t o = 0; o < outputs; o++)
            emit_products(o, vectors, 4 * (x * padded + o), out);
        nas_buf_puts(out, "    }\n");
    }
    nas_buf_puts(out, "    }\n    }\n");
}

/* ---- tiles -------------------------------------------------------------------------------------------------------- */

/* `vectors` vectors of pixels, `last` pixels of the last one, by `outputs` outputs. */
static void emit_tile(const pixels *d, int32_t outputs, int32_t vectors, int32_t last,
                      nas_buf *out) {
    const nas__qconv *q = d->q;
    const int32_t n = (vectors - 1) * LANES + last;
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_%d_%d(const unsigned char *in, unsigned char *restrict out,%s "
                   "const unsigned char *w, const int *h) {\n"
                   "    const unsigned char *const heads = w;\n",
                   n, outputs, d->name, n, outputs, residual_argument(q));
    emit_begin(d, outputs, vectors, out);
    emit_loop(d, outputs, vectors, q->conv.kernel_h, 0, d->s.groups, out);
    emit_constants(q, out);
    emit_multipliers(q, outputs, out);
    emit_variables(q, outputs, out);
    for (int32_t v = 0; v < vectors; v++) {
        for (int32_t first = 0; first < outputs; first += GROUP) {
            const group g = {first, outputs, v, v + 1 < vectors ? LANES : last};
            emit_codes(q, &g, out);
        }
    }
    nas_buf_puts(out, "}\n");
}

/* Piece `i` of the codes of the waiting sums: a group is its outputs, then what stores them. */
static void emit_piece(const pixels *d, int32_t i, nas_buf *out) {
    const group g = {0, GROUP, i / (GROUP + 1), LANES};
    const int32_t o = i % (GROUP + 1);
    if (o == 0) emit_residual(d->q, &g, out);
    if (o == GROUP) {
        emit_put(d->q, &g, out);
        return;
    }
    char sum[64];
    (void)snprintf(sum, sizeof sum, "Q_SUM(sums, %d)", o * d->way->pixels + g.v);
    emit_code(d->q, sum, o, o, out);
}

/* The first products of all sums, one after the other, and between them the codes of the waiting ones. */
static void emit_mixed(const pixels *d, int32_t planes, nas_buf *out) {
    const int32_t vectors = d->way->pixels, pieces = vectors * (GROUP + 1),
                  turns = planes * d->s.columns * GROUP;
    for (int32_t turn = 0, done = 0; turn < turns; turn++) {
        const int32_t step = turn / GROUP, o = turn % GROUP, plane = step / d->s.columns,
                      x = step % d->s.columns;
        if (o == 0) {
            nas_buf_puts(out, "    {\n");
            emit_loads(d, vectors, "in",
                       (size_t)(plane / d->s.groups * d->q->conv.dilation_h) * d->s.row +
                           (size_t)(plane % d->s.groups) * d->s.plane +
                           (size_t)(GROUP * x * d->s.apart),
                       out);
        }
        emit_products(o, vectors, 4 * (step * GROUP + o), out);
        for (; done < (turn + 1) * pieces / turns; done++)
            emit_piece(d, done, out);
        if (o == GROUP - 1) nas_buf_puts(out, "    }\n");
    }
    nas_buf_printf(out, "    w += %d;\n", 4 * GROUP * planes * d->s.columns);
}

/* Adds a whole tile, whose sums then wait, and stores the one that waited. */
static void emit_next(const pixels *d, nas_buf *out) {
    const nas__qconv *q = d->q;
    const int32_t groups = d->s.groups, rows = q->conv.kernel_h, vectors = d->way->pixels;
    int32_t planes = min_i32(ceil_div(MIXED_PRODUCTS, d->s.columns), rows * groups);
    if (planes > groups) planes = ceil_div(planes, groups) * groups;
    const int32_t mixed_rows = planes / groups, rest = planes % groups;
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_next(const unsigned char *in, unsigned char *restrict out,%s "
                   "const unsigned char *w, const unsigned char *heads, vi *sums, const int *h) "
                   "{\n",
                   vectors * LANES, (int)GROUP, d->name, residual_argument(q));
    emit_constants(q, out);
    emit_multipliers(q, GROUP, out);
    emit_variables(q, GROUP, out);
    emit_begin(d, GROUP, vectors, out);
    emit_mixed(d, planes, out);
    if (mixed_rows > 0)
        nas_buf_printf(out, "    in += %zu;\n",
                       (size_t)(mixed_rows * q->conv.dilation_h) * d->s.row);
    if (rest > 0) emit_loop(d, GROUP, vectors, 1, rest, groups, out);
    emit_loop(d, GROUP, vectors, rows - mixed_rows - (rest > 0), 0, groups, out);
    for (int32_t o = 0; o < GROUP; o++) {
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "    Q_SUM(sums, %d) = a%d_%d;\n", o * vectors + v, o, v);
    }
    nas_buf_puts(out, "}\n");
    nas_buf_printf(out,
                   "TILE void %s_last(unsigned char *restrict out,%s const unsigned char *heads, "
                   "vi *sums, const int *h) {\n",
                   d->name, residual_argument(q));
    emit_constants(q, out);
    emit_multipliers(q, GROUP, out);
    emit_variables(q, GROUP, out);
    for (int32_t i = 0; i < vectors * (GROUP + 1); i++)
        emit_piece(d, i, out);
    nas_buf_puts(out, "}\n");
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* Rows of one channel: the lane of each pixel holds it and the next three; what lies beyond the row is 0. */
static void emit_stage(const pixels *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t columns = c->out_w + c->kernel_w - 1, pitch = c->in_pitch;
    const int32_t words = c->out_w + GROUP * (d->s.columns - 1);
    const int32_t whole = pitch != 1 || columns < GROUP ? 0 : min_i32(words, columns - GROUP + 1);
    nas_buf_printf(out,
                   "TILE void %s_stage(const unsigned char *in, unsigned char *s, int rows) {\n"
                   "    for (int y = 0; y < rows; y++, in += %zu, s += %zu) {\n"
                   "        for (int x = 0; x < %d; x++) {\n"
                   "            unsigned v;\n            __builtin_memcpy(&v, in + x, 4);\n"
                   "            v ^= %s;\n            __builtin_memcpy(s + 4 * x, &v, 4);\n"
                   "        }\n"
                   "        for (int x = %d; x < %d; x++) {\n"
                   "            for (int i = 0; i < 4; i++)\n"
                   "                s[4 * x + i] = x + i < %d ? in[(x + i) * %d] ^ %d : 0;\n"
                   "        }\n    }\n}\n",
                   d->name, c->in_row, d->s.row, whole, d->q->in_signed ? "0x80808080u" : "0u",
                   whole, words, columns, pitch, d->q->in_signed ? 128 : 0);
}

/* Block b of the tile of `n` pixels at x. */
static void emit_call(const pixels *d, int32_t outputs, int32_t n, const char *x, nas_buf *out) {
    const nas__qconv *q = d->q;
    const size_t planes = (size_t)(d->way->vectors / GROUP);
    const bool residual = q->conv.has_residual;
    if (nas__q_pixels_waits(q, d->way) && outputs == GROUP && n == d->way->pixels * LANES) {
        nas_buf_printf(
            out, "                %s_next(s + %s, last_o, %sw + b * %zu, last_w, sums, h);\n",
            d->name, x, residual ? "last_r, " : "", nas__q_pixels_block(q, d->way->vectors));
        nas_buf_printf(out, "                last_o = o + b * %zu + %s;\n", planes * q->out_plane,
                       x);
        if (residual)
            nas_buf_printf(out, "                last_r = r + b * %zu + %s;\n",
                           planes * q->residual_plane, x);
        nas_buf_printf(out, "                last_w = w + b * %zu;\n",
                       nas__q_pixels_block(q, d->way->vectors));
        return;
    }
    nas_buf_printf(out, "                %s_%d_%d(s + %s, o + b * %zu + %s", d->name, n, outputs, x,
                   planes * q->out_plane, x);
    if (residual) nas_buf_printf(out, ", r + b * %zu + %s", planes * q->residual_plane, x);
    nas_buf_printf(out, ", w + b * %zu, h);\n", nas__q_pixels_block(q, d->way->vectors));
}

/* All blocks of outputs of the tile of `n` pixels at x. */
static void emit_blocks(const pixels *d, int32_t n, const char *x, nas_buf *out) {
    const int32_t blocks = ceil_div(d->q->conv.out_c, d->way->vectors);
    const int32_t last = nas__q_pixels_outputs(d->q, d->way, blocks - 1);
    const int32_t whole = last == d->way->vectors ? blocks : blocks - 1;
    if (whole > 0) {
        nas_buf_printf(out, "            for (long b = 0; b < %d; b++) {\n", whole);
        emit_call(d, d->way->vectors, n, x, out);
        nas_buf_puts(out, "            }\n");
    }
    if (whole < blocks) {
        nas_buf_printf(out, "            {\n                const long b = %d;\n", whole);
        emit_call(d, last, n, x, out);
        nas_buf_puts(out, "            }\n");
    }
}

static void emit_rows(const pixels *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t wide = d->way->pixels * LANES, tiles = c->out_w / wide, rest = c->out_w % wide;
    nas_buf_printf(out, "        unsigned char *const o = (unsigned char *)out + u * %zu;\n",
                   c->out_row);
    if (c->has_residual) {
        nas_buf_printf(out,
                       "        const unsigned char *const r = (const unsigned char *)residual + u "
                       "* %zu;\n",
                       c->residual_row);
    }
    if (tiles > 0) {
        nas_buf_printf(out, "        for (long x = 0; x < %d; x += %d) {\n", tiles * wide * GROUP,
                       wide * GROUP);
        emit_blocks(d, wide, "x", out);
        nas_buf_puts(out, "        }\n");
    }
    if (rest > 0) {
        nas_buf_printf(out, "        {\n            const long x = %d;\n", tiles * wide * GROUP);
        emit_blocks(d, rest, "x", out);
        nas_buf_puts(out, "        }\n");
    }
}

static void emit_tiles(const pixels *d, nas_buf *out) {
    const nas__qconv *q = d->q;
    const nas__qconv_way *way = d->way;
    const int32_t wide = way->pixels * LANES, rest = q->conv.out_w % wide,
                  last = nas__q_pixels_outputs(q, way, (q->conv.out_c - 1) / way->vectors);
    const bool waits = nas__q_pixels_waits(q, way);
    for (int32_t k = 0; k < 2; k++) { /* whole blocks, then the last one where it is not */
        if (k == 0 ? q->conv.out_c < way->vectors : last == way->vectors) continue;
        const int32_t outputs = k == 0 ? way->vectors : last;
        if (q->conv.out_w >= wide && !(waits && k == 0))
            emit_tile(d, outputs, way->pixels, LANES, out);
        if (rest > 0) emit_tile(d, outputs, ceil_div(rest, LANES), (rest - 1) % LANES + 1, out);
    }
    if (waits) emit_next(d, out);
}

void nas__q_pixels_emit(const nas__qconv *q, const nas__qconv_way *way, const char *name,
                        nas_buf *out) {
    const nas__conv *c = &q->conv;
    const pixels d = {.q = q, .way = way, .s = nas__q_steps_of(q), .name = name};
    const bool waits = nas__q_pixels_waits(q, way);
    emit_tiles(&d, out);
    if (d.s.staged) emit_stage(&d, out);
    nas__q_emit_head(q, name, out);
    nas_buf_printf(out, "    const unsigned char *const w = (const unsigned char *)weights + %d;\n",
                   4 * NAS__Q_HEAD);
    if (waits) { /* the codes of what waits at first go to the scratch */
        const size_t at = nas__q_pixels_staged(q);
        nas_buf_printf(out,
                       "    vi *const sums = (vi *)(void *)((unsigned char *)scratch + %zu);\n"
                       "    unsigned char *last_o = (unsigned char *)scratch + %zu;\n"
                       "    const unsigned char *last_w = w;\n%s",
                       at, at + (size_t)(64 * GROUP * way->pixels),
                       c->has_residual ? "    const unsigned char *last_r = last_o;\n" : "");
    }
    if (d.s.staged) {
        nas_buf_printf(out,
                       "    long from = begin, to = begin; /* rows whose inputs are staged */\n"
                       "    for (long u = begin; u < end; u++) {\n"
                       "        if (u == to) {\n"
                       "            from = u;\n"
                       "            to = end - u < %d ? end : u + %d;\n"
                       "            %s_stage((const unsigned char *)in + u * %zu, scratch, "
                       "(int)(to - u) + %d);\n        }\n"
                       "        const unsigned char *const s = (const unsigned char *)scratch + "
                       "(u - from) * %zu;\n",
                       (int)NAS__Q_PIXEL_ROWS, (int)NAS__Q_PIXEL_ROWS, name, c->in_row,
                       nas__q_staged_rows(q, 1) - 1, d.s.row);
    } else {
        nas_buf_printf(out,
                       "    for (long u = begin; u < end; u++) {\n"
                       "        const unsigned char *const s = (const unsigned char *)in + u * "
                       "%zu;\n",
                       c->in_row);
    }
    emit_rows(&d, out);
    nas_buf_puts(out, "    }\n");
    if (waits)
        nas_buf_printf(out, "    if (begin < end) %s_last(last_o, %slast_w, sums, h);\n", name,
                       c->has_residual ? "last_r, " : "");
    nas_buf_puts(out, "}\n\n");
}
