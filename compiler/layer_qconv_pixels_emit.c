/* layer_qconv_pixels_emit.c - text of the integer convolutions with pixels in lanes.
 *
 * A tile adds its products in registers. Products and what makes codes of sums go to different ports of a processor, but one
 * after the other they do not overlap: all sums of a tile are done at once. So small tiles take turns: the sums of one, in
 * registers a<output>_<vector>, become codes between the products of the next one, in c<output>_<vector>, and so on. */
#include "compiler/layer_qconv_internal.h"

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

/* Bounds of the bytes of all channels; where they are of each channel they lie in front of its weights. */
static void emit_bounds(const nas__qconv *q, nas_buf *out) {
    if (q->late) return;
    if (!q->open_low) nas_buf_puts(out, "    const MI low = _mm512_set1_epi8((char)h[2]);\n");
    if (!q->open_high) nas_buf_puts(out, "    const MI high = _mm512_set1_epi8((char)h[3]);\n");
}

/* Codes between, minus their zero point, are words; so are the parts of the multipliers. A residual lies beside them. */
static void emit_join_constants(const nas__qconv *q, nas_buf *out) {
    nas_buf_printf(out,
                   "    const MI least = _mm512_set1_epi16((short)(h[9] - h[8])), most = "
                   "_mm512_set1_epi16((short)(h[10] - h[8]));\n"
                   "    const vi round = q_splat((int)(32768u + (unsigned)h[1] * 65536u - "
                   "(unsigned)(h[6] + %d) * (unsigned)h[7]));\n",
                   q->residual_signed ? 128 : 0);
    for (int32_t i = 0; i < q->dots; i++) {
        const int32_t at = NAS__Q_PAIRS + i;
        nas_buf_printf(
            out,
            "    const vi front_%d = q_splat(h[%d]), behind_%d = q_splat((int)((unsigned)"
            "h[%d] << 16 | (unsigned)h[%d] >> 16));\n",
            i, at, i, at, at);
    }
}

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
    if (q->dots > 0) {
        emit_join_constants(q, out);
    } else if (between && q->single) {
        if (!q->late)
            nas_buf_puts(out, "    const vi least = q_splat(h[9] - h[8] + 0x4b400000), most = "
                              "q_splat(h[10] - h[8] + 0x4b400000);\n");
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
    if (q->conv.has_residual && q->dots == 0)
        nas_buf_puts(out, "    const vi m2 = q_splat(h[7]);\n");
    emit_bounds(q, out);
}

/* What each output is scaled with, from `w` on. */
static void emit_multipliers(const nas__qconv *q, int32_t outputs, nas_buf *out) {
    for (int32_t o = 0; o < outputs; o++) {
        nas_buf_printf(out,
                       q->single ? "    const vf m_%d = (vf)q_splat4(w + %d);\n"
                       : q->half ? "    const MI m_%d = q_splat8(w + %d);\n"
                                 : "    const vi m_%d = q_splat4(w + %d);\n",
                       o, 8 * o);
        if (q->prelu)
            nas_buf_printf(out, "    const vi below_%d = q_splat4(w + %d);\n", o,
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

/* The code, not clamped yet, of the sum of output o at vector v, in registers `sums`; k: place in its group. */
static void emit_code(const nas__qconv *q, char sums, int32_t v, int32_t o, int32_t k,
                      nas_buf *out) {
    const char *scale = q->single     ? "q_single("
                        : q->half     ? "q_upper("
                        : q->has_left ? "q_round(q_left("
                                      : "q_round(";
    const char *with = q->single || q->half ? "" : q->has_left ? ", h)" : "";
    nas_buf_printf(out, "    t%d = %s%c%d_%d%s, m_%d%s", k, scale, sums, o, v, with, o,
                   q->single ? ", shift)"
                   : q->half ? ", half)"
                             : ")");
    const bool residual = q->conv.has_residual;
    if (!q->single && !q->half && !residual && !q->prelu) nas_buf_puts(out, " + h[1]");
    if (q->single && residual && !q->joins) nas_buf_puts(out, " - 0x4b400000");
    nas_buf_puts(out, ";\n");
    if (q->dots > 0) return;
    if ((q->joins || q->prelu) && !q->late)
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
    nas_buf_printf(out, "    r = q_pixels(residual + %zu, %d)%s;\n",
                   (size_t)(g->first / GROUP) * q->residual_plane + (size_t)(g->v * LANES * GROUP),
                   g->pixels,
                   q->dots > 0 && q->residual_signed ? " ^ q_splat((int)0x80808080u)" : "");
}

/* Channels k and k + 1 of a group, if there are two, and the residual: their sums end in the upper halves. */
static void emit_join(const nas__qconv *q, const group *g, int32_t k, nas_buf *out) {
    static const char *const places[] = {"front", "behind"};
    const bool two = g->first + k + 1 < g->outputs;
    nas_buf_printf(out, "    words = q_between(t%d, ", k);
    nas_buf_printf(out, two ? "t%d, least, most);\n" : "(vi){0}, least, most);\n", k + 1);
    for (int32_t i = 0; i < (two ? 2 : 1); i++) {
        nas_buf_printf(out, "    pairs = q_%s(words, r, q_of_%d_%d());\n    t%d = ", places[i], k,
                       k + 1, k + i);
        for (int32_t n = 0; n < q->dots; n++)
            nas_buf_puts(out, "q_dot_words(");
        nas_buf_puts(out, "round");
        for (int32_t n = 0; n < q->dots; n++)
            nas_buf_printf(out, ", pairs, %s_%d)", places[i], n);
        nas_buf_puts(out, ";\n");
    }
}

/* What is to be done with channel k of a group once its sum, and perhaps those in front of it, are scaled. */
static void emit_scaled(const nas__qconv *q, const group *g, int32_t k, nas_buf *out) {
    if (q->dots > 0 && (k % 2 == 1 || g->first + k + 1 == g->outputs))
        emit_join(q, g, k / 2 * 2, out);
}

static void channel_text(const group *g, int32_t k, nas_buf *out) {
    if (g->first + k < g->outputs)
        nas_buf_printf(out, "t%d", k);
    else
        nas_buf_puts(out, "(vi){0}");
}

/* Bytes of the codes in registers t<k>: floats behind 0x1.8p+23 end in 16 bits of them. */
static void emit_bytes(const nas__qconv *q, const group *g, nas_buf *out) {
    const char type = q->out_signed ? 's' : 'u', *half = q->dots > 0 ? "higher" : "lower";
    if (q->single && (!q->conv.has_residual || q->dots > 0)) {
        nas_buf_printf(out, "    bytes = q_narrow_%c(", type);
        for (int32_t k = 0; k < GROUP; k += 2) {
            nas_buf_printf(out, "q_%s(", half);
            channel_text(g, k, out);
            nas_buf_puts(out, ", ");
            channel_text(g, k + 1, out);
            nas_buf_puts(out, k == 0 ? "), " : "));\n");
        }
    } else {
        nas_buf_printf(out, "    bytes = q_pack_%c(", type);
        for (int32_t k = 0; k < GROUP; k++) {
            channel_text(g, k, out);
            nas_buf_puts(out, k + 1 < GROUP ? ", " : ");\n");
        }
    }
    for (int32_t k = 0; k < 2; k++) {
        const char *name = k == 0 ? "low" : "high";
        if (k == 0 ? q->open_low : q->open_high) continue;
        nas_buf_printf(out, "    bytes = q_%s_%c(bytes, ", k == 0 ? "least" : "most", type);
        if (q->late)
            nas_buf_printf(out, "(MI)q_splat4(w + %d));\n", 8 * (g->first + k) + 4);
        else
            nas_buf_printf(out, "%s);\n", name);
    }
}

static void emit_put(const nas__qconv *q, const group *g, nas_buf *out) {
    emit_bytes(q, g, out);
    nas_buf_printf(out, "    q_put_pixels(out + %zu, bytes, %d);\n",
                   (size_t)(g->first / GROUP) * q->out_plane + (size_t)(g->v * LANES * GROUP),
                   g->pixels);
}

static void emit_codes(const nas__qconv *q, const group *g, nas_buf *out) {
    emit_residual(q, g, out);
    for (int32_t o = g->first; o < min_i32(g->outputs, g->first + GROUP); o++) {
        emit_code(q, 'a', g->v, o, o - g->first, out);
        emit_scaled(q, g, o - g->first, out);
    }
    emit_put(q, g, out);
}

static void emit_variables(const nas__qconv *q, int32_t outputs, nas_buf *out) {
    nas_buf_puts(out, "    vi t0");
    for (int32_t k = 1; k < min_i32(GROUP, outputs); k++)
        nas_buf_printf(out, ", t%d", k);
    nas_buf_puts(out, q->conv.has_residual ? ", r;\n" : ";\n");
    nas_buf_puts(out, q->dots > 0 ? "    MI bytes, words, pairs;\n" : "    MI bytes;\n");
}

void nas__q_pixels_constants_emit(const nas__qconv *q, nas_buf *out) {
    emit_constants(q, out);
}

void nas__q_pixels_codes_emit(const nas__qconv *q, int32_t outputs, int32_t n, nas_buf *out) {
    const group g = {0, outputs, 0, n};
    emit_multipliers(q, outputs, out);
    emit_variables(q, outputs, out);
    emit_codes(q, &g, out);
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

/* Sums begin with the bias, which is behind the multipliers at `w`. */
static void emit_begin(char sums, int32_t outputs, int32_t vectors, nas_buf *out) {
    for (int32_t o = 0; o < outputs; o++) {
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "    %c%d_%d = ", sums, o, v);
            if (v == 0)
                nas_buf_printf(out, "q_splat4(w + %d);", 8 * padded_of(outputs) + 4 * o);
            else
                nas_buf_printf(out, "%c%d_0;", sums, o);
        }
        nas_buf_puts(out, "\n");
    }
}

static void emit_registers(char sums, int32_t outputs, int32_t vectors, nas_buf *out) {
    nas_buf_puts(out, "    vi ");
    for (int32_t i = 0; i < outputs * vectors; i++)
        nas_buf_printf(out, "%s%c%d_%d", i > 0 ? ", " : "", sums, i / vectors, i % vectors);
    nas_buf_puts(out, ";\n");
}

static void emit_loads(const pixels *d, int32_t vectors, const char *from, size_t at,
                       nas_buf *out) {
    const char *flip = d->q->in_signed && !d->s.staged ? " ^ flip" : "";
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "    const vi x%d = q_i32(%s + %zu)%s;\n", v, from,
                       at + (size_t)(GROUP * v * LANES), flip);
    }
}

static void emit_products(char sums, int32_t o, int32_t vectors, int32_t at, nas_buf *out) {
    nas_buf_printf(out, "    const vi b%d = q_splat4(k + %d);\n   ", o, at);
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, " %c%d_%d = q_dot(%c%d_%d, x%d, b%d);", sums, o, v, sums, o, v, v, o);
    nas_buf_puts(out, "\n");
}

/* One kernel row: the columns of a plane, without the taps that the outputs from `first` on leave out. */
static void emit_columns(const pixels *d, char sums, int32_t first, int32_t outputs,
                         int32_t vectors, int32_t y, nas_buf *out) {
    const int32_t padded = padded_of(outputs);
    for (int32_t x = 0; x < d->s.columns; x++) {
        nas_buf_puts(out, "    {\n");
        bool loaded = false;
        for (int32_t o = 0; o < outputs; o++) {
            if (nas__q_pixels_absent(d->q, first + o, y, x)) continue;
            if (!loaded) emit_loads(d, vectors, "s", (size_t)(GROUP * x * d->s.apart), out);
            loaded = true;
            emit_products(sums, o, vectors, 4 * (x * padded + o), out);
        }
        nas_buf_puts(out, "    }\n");
    }
}

/* Planes [from, to) of `rows` kernel rows from `i` on, with the weights at `k`; both move on. */
static void emit_loop(const pixels *d, char sums, int32_t outputs, int32_t vectors, int32_t rows,
                      int32_t from, int32_t to, nas_buf *out) {
    if (rows == 0 || from == to) return;
    nas_buf_printf(out,
                   "    for (int y = 0; y < %d; y++, i += %zu) {\n"
                   "    const unsigned char *s = i + %zu;\n"
                   "    for (int g = 0; g < %d; g++, s += %zu, k += %d) {\n",
                   rows, (size_t)d->q->conv.dilation_h * d->s.row, (size_t)from * d->s.plane,
                   to - from, d->s.plane, 4 * padded_of(outputs) * d->s.columns);
    emit_columns(d, sums, 0, outputs, vectors, 0, out);
    nas_buf_puts(out, "    }\n    }\n");
}

/* All kernel rows, each by itself, as other taps are left out. */
static void emit_gaps(const pixels *d, int32_t first, int32_t outputs, int32_t vectors,
                      nas_buf *out) {
    for (int32_t y = 0; y < d->q->conv.kernel_h; y++) {
        nas_buf_printf(
            out,
            "    for (const unsigned char *s = i, *to = i + %zu; s < to; s += %zu, k += %d) "
            "{\n",
            (size_t)d->s.groups * d->s.plane, d->s.plane, 4 * padded_of(outputs) * d->s.columns);
        emit_columns(d, 'a', first, outputs, vectors, y, out);
        nas_buf_printf(out, "    }\n    i += %zu;\n", (size_t)d->q->conv.dilation_h * d->s.row);
    }
}

/* What products and codes of a tile need; `heads` is the begin of the block. */
static void emit_prologue(const pixels *d, int32_t outputs, nas_buf *out) {
    if (d->q->in_signed && !d->s.staged) /* int8 to uint8: see zero_left */
        nas_buf_puts(out, "    const vi flip = q_splat((int)0x80808080u);\n");
    emit_constants(d->q, out);
    emit_multipliers(d->q, outputs, out);
    emit_variables(d->q, outputs, out);
}

/* ---- tiles -------------------------------------------------------------------------------------------------------- */

/* The name of a tile: blocks that leave out other taps have functions of their own. */
static void emit_tile_name(const pixels *d, int32_t block, int32_t n, int32_t outputs,
                           nas_buf *out) {
    nas_buf_printf(out, "%s_%d_%d", d->name, n, outputs);
    if (d->q->absent != NULL) nas_buf_printf(out, "_%d", block);
}

/* `vectors` vectors of pixels, `last` pixels of the last one, by `outputs` outputs of a block. */
static void emit_tile(const pixels *d, int32_t block, int32_t outputs, int32_t vectors,
                      int32_t last, nas_buf *out) {
    const nas__qconv *q = d->q;
    const int32_t n = (vectors - 1) * LANES + last;
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void ",
                   n, outputs);
    emit_tile_name(d, block, n, outputs, out);
    nas_buf_printf(out,
                   "(const unsigned char *in, unsigned char *restrict out,%s "
                   "const unsigned char *w, const int *h) {\n"
                   "    const unsigned char *i = in, *k = w + %d;\n",
                   residual_argument(q), 4 * NAS__Q_PIXEL_HEAD * padded_of(outputs));
    emit_registers('a', outputs, vectors, out);
    emit_begin('a', outputs, vectors, out);
    emit_prologue(d, outputs, out);
    if (q->absent != NULL)
        emit_gaps(d, block * d->way->vectors, outputs, vectors, out);
    else
        emit_loop(d, 'a', outputs, vectors, q->conv.kernel_h, 0, d->s.groups, out);
    for (int32_t v = 0; v < vectors; v++) {
        for (int32_t first = 0; first < outputs; first += GROUP) {
            const group g = {first, outputs, v, v + 1 < vectors ? LANES : last};
            emit_codes(q, &g, out);
        }
    }
    nas_buf_puts(out, "}\n");
}

/* Piece `i` of the codes of the sums: a group is its outputs, then what stores them. */
static void emit_piece(const pixels *d, char sums, int32_t i, nas_buf *out) {
    const group g = {0, GROUP, i / (GROUP + 1), LANES};
    const int32_t o = i % (GROUP + 1);
    if (o == 0) emit_residual(d->q, &g, out);
    if (o == GROUP) emit_put(d->q, &g, out);
    if (o == GROUP) return;
    emit_code(d->q, sums, g.v, o, o, out);
    emit_scaled(d->q, &g, o, out);
}

/* The first products of each of `sums`, one after the other, and between them the codes of `others`. */
static void emit_mixed(const pixels *d, char sums, char others, int32_t planes, nas_buf *out) {
    const int32_t vectors = d->way->pixels, pieces = vectors * (GROUP + 1),
                  turns = planes * d->s.columns * GROUP;
    for (int32_t turn = 0, done = 0; turn < turns; turn++) {
        const int32_t step = turn / GROUP, o = turn % GROUP, plane = step / d->s.columns,
                      x = step % d->s.columns;
        if (o == 0) {
            nas_buf_puts(out, "    {\n");
            emit_loads(d, vectors, "i",
                       (size_t)(plane / d->s.groups * d->q->conv.dilation_h) * d->s.row +
                           (size_t)(plane % d->s.groups) * d->s.plane +
                           (size_t)(GROUP * x * d->s.apart),
                       out);
        }
        emit_products(sums, o, vectors, 4 * (step * GROUP + o), out);
        for (; done < (turn + 1) * pieces / turns; done++)
            emit_piece(d, others, done, out);
        if (o == GROUP - 1) nas_buf_puts(out, "    }\n");
    }
}

/* The next tile in registers `sums`, while that in `others` becomes codes. */
static void emit_turn(const pixels *d, char sums, char others, nas_buf *out) {
    const nas__qconv *q = d->q;
    const int32_t groups = d->s.groups, rows = q->conv.kernel_h, vectors = d->way->pixels,
                  step = GROUP * vectors * LANES;
    int32_t planes = min_i32(ceil_div(MIXED_PRODUCTS, d->s.columns), rows * groups);
    if (planes > groups) planes = ceil_div(planes, groups) * groups;
    const int32_t mixed_rows = planes / groups, rest = planes % groups;
    nas_buf_printf(out,
                   "    if (--n == 0) break;\n"
                   "    in += %d;\n    i = in;\n    k = w + %d;\n",
                   step, 4 * NAS__Q_PIXEL_HEAD * GROUP);
    emit_begin(sums, GROUP, vectors, out);
    emit_mixed(d, sums, others, planes, out);
    nas_buf_printf(out, "    out += %d;\n", step);
    if (q->conv.has_residual) nas_buf_printf(out, "    residual += %d;\n", step);
    if (planes == rows * groups) return;
    nas_buf_printf(out, "    k += %d;\n", 4 * GROUP * planes * d->s.columns);
    if (mixed_rows > 0)
        nas_buf_printf(out, "    i += %zu;\n",
                       (size_t)(mixed_rows * q->conv.dilation_h) * d->s.row);
    if (rest > 0) emit_loop(d, sums, GROUP, vectors, 1, rest, groups, out);
    emit_loop(d, sums, GROUP, vectors, rows - mixed_rows - (rest > 0), 0, groups, out);
}

/* `n` whole tiles side by side. */
static void emit_turns(const pixels *d, nas_buf *out) {
    const nas__qconv *q = d->q;
    const int32_t vectors = d->way->pixels, pieces = vectors * (GROUP + 1);
    nas_buf_printf(out,
                   "/* times %d pixels, %d channels */\n"
                   "TILE void %s_row(const unsigned char *in, unsigned char *restrict out,%s "
                   "const unsigned char *w, const int *h, int n) {\n"
                   "    const unsigned char *i = in, *k = w + %d;\n    int odd = 0;\n",
                   vectors * LANES, (int)GROUP, d->name, residual_argument(q),
                   4 * NAS__Q_PIXEL_HEAD * GROUP);
    emit_registers('a', GROUP, vectors, out);
    emit_registers('c', GROUP, vectors, out);
    emit_prologue(d, GROUP, out);
    emit_begin('a', GROUP, vectors, out);
    emit_begin('c', GROUP, vectors, out);
    emit_loop(d, 'a', GROUP, vectors, q->conv.kernel_h, 0, d->s.groups, out);
    nas_buf_puts(out, "    for (;; odd = 0) {\n");
    emit_turn(d, 'c', 'a', out);
    nas_buf_puts(out, "    odd = 1;\n");
    emit_turn(d, 'a', 'c', out);
    nas_buf_puts(out, "    }\n    if (odd) {\n");
    for (int32_t i = 0; i < pieces; i++)
        emit_piece(d, 'c', i, out);
    nas_buf_puts(out, "    } else {\n");
    for (int32_t i = 0; i < pieces; i++)
        emit_piece(d, 'a', i, out);
    nas_buf_puts(out, "    }\n}\n");
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* Rows of one channel: the lane of each pixel holds it and the next three; what lies beyond the row is 0. */
void nas__q_pixels_stage_emit(const nas__qconv *q, bool turns, const char *name, nas_buf *out) {
    const nas__conv *c = &q->conv;
    const nas__q_steps s = nas__q_steps_of(q);
    const bool turned = turns && q->in_signed;
    const int32_t columns = c->out_w + c->kernel_w - 1, pitch = c->in_pitch;
    const int32_t words = c->out_w + GROUP * (s.columns - 1);
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
                   name, c->in_row, s.row, whole, turned ? "0x80808080u" : "0u", whole, words,
                   columns, pitch, turned ? 128 : 0);
}

void nas__q_pixels_rows_emit(const nas__qconv *q, const char *name, nas_buf *out) {
    const nas__conv *c = &q->conv;
    const nas__q_steps s = nas__q_steps_of(q);
    if (!s.staged) {
        nas_buf_printf(out,
                       "    for (long u = begin; u < end; u++) {\n"
                       "        const unsigned char *const s = (const unsigned char *)in + u * "
                       "%zu;\n",
                       c->in_row);
        return;
    }
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
                   nas__q_staged_rows(q, 1) - 1, s.row);
}

/* Block b of the tile of `n` pixels at x; `block` is b where that is known. */
static void emit_call(const pixels *d, int32_t block, int32_t outputs, int32_t n, const char *x,
                      nas_buf *out) {
    const nas__qconv *q = d->q;
    const size_t planes = (size_t)(d->way->vectors / GROUP);
    const bool residual = q->conv.has_residual;
    nas_buf_puts(out, "                ");
    emit_tile_name(d, block, n, outputs, out);
    nas_buf_printf(out, "(s + %s, o + b * %zu + %s", x, planes * q->out_plane, x);
    if (residual) nas_buf_printf(out, ", r + b * %zu + %s", planes * q->residual_plane, x);
    nas_buf_printf(out, ", w + b * %zu, h);\n", nas__q_pixels_block(q, d->way->vectors));
}

/* All blocks of outputs of the tile of `n` pixels at x, or the last one alone where it is not whole. */
static void emit_blocks(const pixels *d, int32_t n, const char *x, bool alone, nas_buf *out) {
    const int32_t blocks = ceil_div(d->q->conv.out_c, d->way->vectors);
    const int32_t last = nas__q_pixels_outputs(d->q, d->way, blocks - 1);
    const int32_t whole = last == d->way->vectors ? blocks : blocks - 1;
    for (int32_t b = 0; b < whole && d->q->absent != NULL; b++) {
        nas_buf_printf(out, "            {\n                const long b = %d;\n", b);
        emit_call(d, b, d->way->vectors, n, x, out);
        nas_buf_puts(out, "            }\n");
    }
    if (whole > 0 && !alone && d->q->absent == NULL) {
        nas_buf_printf(out, "            for (long b = 0; b < %d; b++) {\n", whole);
        emit_call(d, 0, d->way->vectors, n, x, out);
        nas_buf_puts(out, "            }\n");
    }
    if (whole < blocks) {
        nas_buf_printf(out, "            {\n                const long b = %d;\n", whole);
        emit_call(d, whole, last, n, x, out);
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
    const bool turns = nas__q_pixels_turns(d->q, d->way);
    if (turns) {
        nas_buf_printf(out,
                       "        for (long b = 0; b < %d; b++)\n"
                       "            %s_row(s, o + b * %zu, ",
                       c->out_c / GROUP, d->name, d->q->out_plane);
        if (c->has_residual) nas_buf_printf(out, "r + b * %zu, ", d->q->residual_plane);
        nas_buf_printf(out, "w + b * %zu, h, %d);\n", nas__q_pixels_block(d->q, GROUP), tiles);
    }
    if (tiles > 0 && (!turns || c->out_c % GROUP > 0)) {
        nas_buf_printf(out, "        for (long x = 0; x < %d; x += %d) {\n", tiles * wide * GROUP,
                       wide * GROUP);
        emit_blocks(d, wide, "x", turns, out);
        nas_buf_puts(out, "        }\n");
    }
    if (rest > 0) {
        nas_buf_printf(out, "        {\n            const long x = %d;\n", tiles * wide * GROUP);
        emit_blocks(d, rest, "x", false, out);
        nas_buf_puts(out, "        }\n");
    }
}

static void emit_tiles(const pixels *d, nas_buf *out) {
    const nas__qconv *q = d->q;
    const nas__qconv_way *way = d->way;
    const int32_t wide = way->pixels * LANES, rest = q->conv.out_w % wide,
                  last = nas__q_pixels_outputs(q, way, (q->conv.out_c - 1) / way->vectors);
    const bool turns = nas__q_pixels_turns(q, way);
    for (int32_t k = 0; k < 2; k++) { /* whole blocks, then the last one where it is not */
        if (k == 0 ? q->conv.out_c < way->vectors : last == way->vectors) continue;
        const int32_t outputs = k == 0 ? way->vectors : last, whole = q->conv.out_c / way->vectors;
        const int32_t from = k == 0 ? 0 : whole, to = k > 0               ? whole + 1
                                                      : q->absent != NULL ? whole
                                                                          : 1;
        for (int32_t b = from; b < to; b++) {
            if (q->conv.out_w >= wide && !(turns && k == 0))
                emit_tile(d, b, outputs, way->pixels, LANES, out);
            if (rest > 0)
                emit_tile(d, b, outputs, ceil_div(rest, LANES), (rest - 1) % LANES + 1, out);
        }
    }
    if (turns) emit_turns(d, out);
}

void nas__q_pixels_emit(const nas__qconv *q, const nas__qconv_way *way, const char *name,
                        nas_buf *out) {
    const pixels d = {.q = q, .way = way, .s = nas__q_steps_of(q), .name = name};
    emit_tiles(&d, out);
    if (d.s.staged) nas__q_pixels_stage_emit(q, true, name, out);
    nas__q_emit_head(q, name, out);
    nas_buf_printf(out, "    const unsigned char *const w = (const unsigned char *)weights + %d;\n",
                   4 * NAS__Q_HEAD);
    nas__q_pixels_rows_emit(q, name, out);
    emit_rows(&d, out);
    nas_buf_puts(out, "    }\n}\n\n");
}
