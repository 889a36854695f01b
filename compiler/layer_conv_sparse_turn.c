/* layer_conv_sparse_turn.c - what a sparse kernel with pixels in lanes does before and after its lists: from images with
 * channels in lanes to the panel [step][pixel], and from sums [output][pixel] back to images.
 *
 * One vector of pixels after another, all channels of it: images whose pixels lie a large power of two apart have few places
 * in L1, and lines that are read or written in halves have to stay there until their other half comes. */
#include "compiler/layer_conv_internal.h"

#include <stdio.h>

enum { EIGHT = 8, SIXTEEN = 16 }; /* lanes of AVX2 and AVX-512 */

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

/* Quads of lanes to and from memory. */
static const char helpers[] =
    "#ifndef QUAD_OUT\n"
    "typedef float vq __attribute__((vector_size(16), aligned(4), may_alias));\n"
    "#if defined(__AVX__) && !defined(__AVX512F__) /* one instruction */\n"
    "#define QUAD_OUT(p, v, q) (*(vq *)(p) = (vq)__builtin_ia32_vextractf128_ps256(v, q))\n"
    "#elif __GNUC__ >= 12 || defined(__clang__)\n"
    "#define QUAD_OUT(p, v, q) (*(vq *)(p) = (vq)__builtin_shufflevector(v, v, 4 * (q), 4 * (q) + "
    "1, 4 * (q) + 2, 4 * (q) + 3))\n"
    "#else\n"
    "#define QUAD_OUT(p, v, q) __builtin_memcpy(p, (const char *)&(v) + 16 * (q), 16)\n"
    "#endif\n"
    "#define QUAD_IN(v, q, p) __builtin_memcpy((char *)&(v) + 16 * (q), p, 16)\n"
    "#endif\n";

/* Sixteen lanes: four each at a, b, c and d. */
static const char four_quads[] =
    "#if !defined(QUADS_OF_FOUR) && defined(__AVX512F__)\n"
    "typedef float vq_anywhere __attribute__((vector_size(16), aligned(4), may_alias));\n"
    "#define QUADS_OF_FOUR(v, a, b, c, d) __asm__(\"vmovups %1, %x0\\n\\tvinsertf32x4 $1, %2, %0, "
    "%0\\n\\tvinsertf32x4 $2, %3, %0, %0\\n\\tvinsertf32x4 $3, %4, %0, %0\" : \"=&v\"(v) : "
    "\"m\"(*(const vq_anywhere *)(a)), \"m\"(*(const vq_anywhere *)(b)), \"m\"(*(const "
    "vq_anywhere *)(c)), \"m\"(*(const vq_anywhere *)(d)))\n"
    "#elif !defined(QUADS_OF_FOUR)\n"
    "#define QUADS_OF_FOUR(v, a, b, c, d) (__builtin_memcpy(&(v), a, 16), __builtin_memcpy((char "
    "*)&(v) + 16, b, 16), __builtin_memcpy((char *)&(v) + 32, c, 16), __builtin_memcpy((char "
    "*)&(v) + 48, d, 16))\n#endif\n";

/* Eight lanes: four each at a and b. */
static const char two_quads[] =
    "#if !defined(QUADS_OF_TWO) && defined(__AVX__)\n"
    "typedef float vq_anywhere __attribute__((vector_size(16), aligned(4), may_alias));\n"
    "#define QUADS_OF_TWO(v, a, b) __asm__(\"vmovups %1, %x0\\n\\tvinsertf128 $1, %2, %0, %0\" : "
    "\"=&x\"(v) : \"m\"(*(const vq_anywhere *)(a)), \"m\"(*(const vq_anywhere *)(b)))\n"
    "#elif !defined(QUADS_OF_TWO)\n"
    "#define QUADS_OF_TWO(v, a, b) (__builtin_memcpy(&(v), a, 16), __builtin_memcpy((char *)&(v) + "
    "16, b, 16))\n#endif\n";

const char *nas__turn_quads_helper(void) {
    return four_quads;
}

void nas__turn_emit_helpers(const nas__conv_way *way, int32_t lanes, nas_buf *out) {
    if (lanes < SIXTEEN && way->joined) nas_buf_puts(out, helpers);
    if (lanes == SIXTEEN) nas_buf_puts(out, nas__turn_quads_helper());
    if (lanes == EIGHT) nas_buf_puts(out, two_quads);
}

/* ---- transposition ------------------------------------------------------------------------------------------------ */

/* out[to] = lanes of a and b: quads of lanes, each with the picks of `quad` (0..3 of a, 4..7 of b). */
static void in_quads(const char *to, int32_t i, const char *a, int32_t x, int32_t y, int32_t lanes,
                     const int quad[4], nas_buf *out) {
    nas_buf_printf(out, " %s%d = SHUFFLE(%s%d, %s%d", to, i, a, x, a, y);
    for (int32_t q = 0; q < lanes; q += 4) {
        for (int32_t k = 0; k < 4; k++)
            nas_buf_printf(out, ", %d", q + (quad[k] < 4 ? quad[k] : quad[k] - 4 + lanes));
    }
    nas_buf_puts(out, ");");
}

/* Whole quads: the picks are numbers of quads, those of b after those of a. */
static void of_quads(const char *to, int32_t i, const char *a, int32_t x, int32_t y, int32_t lanes,
                     const int *picks, nas_buf *out) {
    nas_buf_printf(out, " %s%d = SHUFFLE(%s%d, %s%d", to, i, a, x, a, y);
    for (int32_t q = 0; q < lanes / 4; q++) {
        for (int32_t k = 0; k < 4; k++)
            nas_buf_printf(out, ", %d", 4 * picks[q] + k);
    }
    nas_buf_puts(out, ");");
}

static void declare(const char *name, int32_t n, const char *indent, nas_buf *out) {
    nas_buf_printf(out, "%svf ", indent);
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(out, "%s%s%d", i > 0 ? ", " : "", name, i);
    nas_buf_puts(out, ";\n");
}

void nas__emit_transpose(int32_t lanes, const char *indent, nas_buf *out) {
    static const int low[] = {0, 4, 1, 5}, high[] = {2, 6, 3, 7};
    static const int first[] = {0, 1, 4, 5}, second[] = {2, 3, 6, 7};
    declare("u", lanes, indent, out);
    declare("t", lanes, indent, out);
    for (int32_t i = 0; i < lanes; i += 2) {
        nas_buf_puts(out, indent);
        in_quads("u", i, "r", i, i + 1, lanes, low, out);
        in_quads("u", i + 1, "r", i, i + 1, lanes, high, out);
        nas_buf_puts(out, "\n");
    }
    /* now pairs of rows; then quads of rows: column 4*quad + k in the k-th of each four */
    const char *to = lanes == 4 ? "t" : "r";
    for (int32_t i = 0; i < lanes; i += 4) {
        nas_buf_puts(out, indent);
        in_quads(to, i, "u", i, i + 2, lanes, first, out);
        in_quads(to, i + 1, "u", i, i + 2, lanes, second, out);
        in_quads(to, i + 2, "u", i + 1, i + 3, lanes, first, out);
        in_quads(to, i + 3, "u", i + 1, i + 3, lanes, second, out);
        nas_buf_puts(out, "\n");
    }
    static const int front2[] = {0, 2}, back2[] = {1, 3};
    for (int32_t k = 0; k < 4 && lanes == 8; k++) {
        nas_buf_puts(out, indent);
        of_quads("t", k, "r", k, k + 4, lanes, front2, out);
        of_quads("t", k + 4, "r", k, k + 4, lanes, back2, out);
        nas_buf_puts(out, "\n");
    }
    static const int front[] = {0, 1, 4, 5}, back[] = {2, 3, 6, 7}, even[] = {0, 2, 4, 6},
                     odd[] = {1, 3, 5, 7};
    for (int32_t k = 0; k < 4 && lanes == 16; k++) {
        nas_buf_puts(out, indent);
        of_quads("u", k, "r", k, k + 4, lanes, front, out);
        of_quads("u", k + 4, "r", k, k + 4, lanes, back, out);
        of_quads("u", k + 8, "r", k + 8, k + 12, lanes, front, out);
        of_quads("u", k + 12, "r", k + 8, k + 12, lanes, back, out);
        nas_buf_printf(out, "\n%s", indent);
        of_quads("t", k, "u", k, k + 8, lanes, even, out);
        of_quads("t", k + 4, "u", k, k + 8, lanes, odd, out);
        of_quads("t", k + 8, "u", k + 4, k + 12, lanes, even, out);
        of_quads("t", k + 12, "u", k + 4, k + 12, lanes, odd, out);
        nas_buf_puts(out, "\n");
    }
}

/* Where the rows of a block are: before, number * stride, after. */
typedef struct block_rows {
    const char *before, *after;
    int32_t stride;
} block_rows;

/* Quads of the rows r0 .. r3 as columns: t<at + k> has the k-th lane of each quad of the four. */
static void emit_turned_four(int32_t at, int32_t lanes, const char *indent, nas_buf *out) {
    static const int low[] = {0, 4, 1, 5}, high[] = {2, 6, 3, 7};
    static const int first[] = {0, 1, 4, 5}, second[] = {2, 3, 6, 7};
    declare("u", 4, indent, out);
    nas_buf_puts(out, indent);
    for (int32_t i = 0; i < 4; i += 2) {
        in_quads("u", i, "r", i, i + 1, lanes, low, out);
        in_quads("u", i + 1, "r", i, i + 1, lanes, high, out);
    }
    nas_buf_printf(out, "\n%s", indent);
    for (int32_t i = 0; i < 2; i++) {
        in_quads("t", at + 2 * i, "u", i, i + 2, lanes, first, out);
        in_quads("t", at + 2 * i + 1, "u", i, i + 2, lanes, second, out);
    }
    nas_buf_puts(out, "\n");
}

/* Eight or sixteen rows: as many of them lie in a vector as it has quads, a quad of each. Inserting from memory spares the
 * shuffles that bring quads together: on AVX-512 these share one of two units (Intel, Emerald Rapids: 54.6 us of 69.3 for 3136
 * blocks from L1), and where vectors of 32 bytes are computed in halves each is eight operations (AMD, Zen 1). */
static void emit_turned_quads(const block_rows *rows, int32_t lanes, const char *indent,
                              nas_buf *out) {
    declare("t", lanes, indent, out);
    for (int32_t at = 0; at < lanes; at += 4) {
        nas_buf_printf(out, "%s{\n", indent);
        declare("r", 4, indent, out);
        for (int32_t j = 0; j < 4; j++) {
            nas_buf_printf(out, "%s%s(r%d", indent,
                           lanes == SIXTEEN ? "QUADS_OF_FOUR" : "QUADS_OF_TWO", j);
            for (int32_t k = j; k < lanes; k += 4)
                nas_buf_printf(out, ", %s%d%s + %d", rows->before, k * rows->stride, rows->after,
                               at);
            nas_buf_puts(out, ");\n");
        }
        emit_turned_four(at, lanes, indent, out);
        nas_buf_printf(out, "%s}\n", indent);
    }
}

/* A block of `lanes` rows as columns t0 ..; only `width` columns and `height` rows are there. */
static void emit_turned(const block_rows *rows, int32_t lanes, int32_t height, int32_t width,
                        const char *indent, nas_buf *out) {
    if (lanes > 4 && height == lanes && width == lanes) {
        emit_turned_quads(rows, lanes, indent, out);
        return;
    }
    declare("r", lanes, indent, out);
    for (int32_t j = 0; j < lanes; j++) {
        if (j >= height)
            nas_buf_printf(out, "%sr%d = (vf){0};\n", indent, j);
        else if (width == lanes)
            nas_buf_printf(out, "%sr%d = load(%s%d%s);\n", indent, j, rows->before,
                           j * rows->stride, rows->after);
        else
            nas_buf_printf(out, "%sr%d = load_n(%s%d%s, %d);\n", indent, j, rows->before,
                           j * rows->stride, rows->after, width);
    }
    nas__emit_transpose(lanes, indent, out);
}

/* ---- the input ---------------------------------------------------------------------------------------------------- */

/* Where the panel has a vector of pixels of a step: blocks of vectors lie one after another, in each of them the vectors of
 * a step together. Floats from step to step, from block to block. */
typedef struct panel_strides {
    int32_t step, block, vectors; /* vectors of a block */
} panel_strides;

/* Lists take all vectors of a step together, machine code takes one block after another. */
static panel_strides strides_of(const nas__conv *c, const nas__conv_way *way, int32_t lanes,
                                int32_t vectors) {
    const int32_t depth = way->depth > 0 ? way->depth : c->kernel_h * c->kernel_w * c->in_c;
    const bool code = way->algorithm == NAS__CONV_SPARSE_CODE;
    const int32_t row = lanes == SIXTEEN ? way->vectors : vectors; /* see nas__panel_scale */
    const int32_t of = code ? way->pixels : row;
    return (panel_strides){of * lanes, depth * of * lanes, of};
}

/* Channels [c, c + n) of the pixels at q0 ..; n < lanes is the rest of the channels. */
static void emit_gather_block(int32_t lanes, const panel_strides *s, int32_t n, nas_buf *out) {
    const char *indent = "                ";
    const block_rows rows = {"q", " + o", 1};
    emit_turned(&rows, lanes, lanes, n, indent, out);
    for (int32_t j = 0; j < n; j++)
        nas_buf_printf(out, "%sstore(d + %d, t%d);\n", indent, j * s->step, j);
    for (int32_t j = n; j < lanes; j++)
        nas_buf_printf(out, "%s(void)t%d;\n", indent, j);
    nas_buf_printf(out, "%sd += %d;\n%sk += %d;\n", indent, n * s->step, indent, n);
}

/* q0 ...: where the pixels of a vector begin. */
static void emit_pixels(const char *type, const char *base, int32_t lanes, const char *indent,
                        nas_buf *out) {
    nas_buf_printf(out, "%s%s *const q0 = %s[0]", indent, type, base);
    for (int32_t j = 1; j < lanes; j++)
        nas_buf_printf(out, ", *const q%d = %s[%d]", j, base, j);
    nas_buf_puts(out, ";\n");
}

void nas__turn_emit_gather(const nas__conv *c, const nas__conv_way *way, const char *name,
                           int32_t lanes, int32_t vectors, nas_buf *out) {
    const int32_t pixels = vectors * lanes, rest = c->in_c % lanes;
    const panel_strides s = strides_of(c, way, lanes, vectors);
    nas_buf_printf(out,
                   "/* the panel of %d pixels, steps [from, to) of the sum */\n"
                   "TILE void %s_gather%d(const float *const *at, float *panel, int from, int to) "
                   "{\n    for (int v = 0; v < %d; v++, at += LANES) {\n"
                   "        float *d = panel + ",
                   pixels, name, vectors, vectors);
    if (s.vectors < vectors)
        nas_buf_printf(out, "v / %d * %dL + v %% %d", s.vectors, s.block, s.vectors);
    nas_buf_printf(out, "%s * LANES;\n", s.vectors < vectors ? "" : "v");
    emit_pixels("const float", "at", lanes, "        ", out);
    nas_buf_puts(out, "        for (int k = from; k < to;) {\n");
    if (c->kernel_h * c->kernel_w == 1)
        nas_buf_puts(out, "            const int c = k;\n            const long o = k;\n");
    else
        nas_buf_printf(out,
                       "            const int tap = k / %d, c = k %% %d;\n"
                       "            const long o = tap / %d * %zuL + tap %% %d * %dL + c;\n",
                       c->in_c, c->in_c, c->kernel_w, (size_t)c->dilation_h * c->in_row,
                       c->kernel_w, c->dilation_w * c->in_pitch);
    if (c->in_c >= lanes) {
        nas_buf_printf(out, "            if (c + LANES <= %d) {\n", c->in_c);
        emit_gather_block(lanes, &s, lanes, out);
        nas_buf_puts(out, "                continue;\n            }\n");
    } else {
        nas_buf_puts(out, "            (void)c;\n");
    }
    if (rest > 0) {
        nas_buf_puts(out, "            {\n");
        emit_gather_block(lanes, &s, rest, out);
        nas_buf_puts(out, "            }\n");
    }
    nas_buf_puts(out, "        }\n    }\n}\n");
}

/* ---- the output --------------------------------------------------------------------------------------------------- */

/* Stores one pixel's vector `value` of channels [c, c + n); to, more: text of where the pixel is. */
static void emit_store(const nas__conv *c, const char *value, const char *to, const char *more,
                       int32_t n, int32_t lanes, nas_buf *out) {
    char sum[160], count[16] = "";
    const bool partial = n < lanes;
    if (partial) (void)snprintf(count, sizeof count, ", %d", n);
    (void)snprintf(sum, sizeof sum, "%s", value);
    if (c->has_residual)
        (void)snprintf(sum, sizeof sum, "%s + %s(residual + %s + c%s)", value,
                       partial ? "load_n" : "load", more, count);
    nas_buf_printf(out, "                %s(%s + c, ", partial ? "store_n" : "store", to);
    nas__conv_finish(c, sum, "slope + c", out);
    nas_buf_printf(out, "%s);\n", count);
}

/* Channels [c, c + n) of a vector of pixels; all: of pixels that are all there. */
static void emit_finish_block(const nas__conv *c, int32_t lanes, int32_t vectors, int32_t n,
                              bool all, bool staged, nas_buf *out) {
    const char *indent = "                ";
    const block_rows rows = {"s + ", "", vectors * lanes};
    nas_buf_printf(out, "%sconst float *const s = sums", indent);
    if (!staged) nas_buf_printf(out, " + (long)c * %d", vectors * lanes);
    nas_buf_puts(out, ";\n");
    emit_turned(&rows, lanes, n, lanes, indent, out);
    if (!all) {
        nas_buf_printf(out, "%sconst vf some[LANES] = {", indent);
        for (int32_t j = 0; j < lanes; j++)
            nas_buf_printf(out, "%st%d", j > 0 ? ", " : "", j);
        nas_buf_printf(out, "};\n%sfor (int j = 0; j < n; j++)\n", indent);
        emit_store(c, "some[j]", "out + to[j]", "more[j]", n, lanes, out);
        return;
    }
    for (int32_t j = 0; j < lanes; j++) {
        char value[24], to[24], more[24];
        (void)snprintf(value, sizeof value, "t%d", j);
        (void)snprintf(to, sizeof to, "q%d", j);
        (void)snprintf(more, sizeof more, "more[%d]", j);
        emit_store(c, value, to, more, n, lanes, out);
    }
}

/* All channels of a vector of pixels; staged: those from c on, a vector or what is left. */
static void emit_finish_vector(const nas__conv *c, int32_t lanes, int32_t vectors, bool all,
                               bool staged, nas_buf *out) {
    const int32_t rest = c->out_c % lanes, whole = c->out_c - rest;
    if (whole > 0) {
        if (staged)
            nas_buf_printf(out, "            if (c < %d) {\n", whole);
        else
            nas_buf_printf(out, "            for (int c = 0; c < %d; c += LANES) {\n", whole);
        emit_finish_block(c, lanes, vectors, lanes, all, staged, out);
        nas_buf_puts(out, "            }\n");
    }
    if (rest > 0) {
        if (staged)
            nas_buf_printf(out, "            if (c >= %d) {\n", whole);
        else
            nas_buf_printf(out, "            {\n                const int c = %d;\n", whole);
        emit_finish_block(c, lanes, vectors, rest, all, staged, out);
        nas_buf_puts(out, "            }\n");
    }
}

void nas__turn_emit_finish(const nas__conv *c, const nas__conv_way *way, const char *name,
                           int32_t lanes, int32_t vectors, nas_buf *out) {
    const bool staged = nas__panel_staged(way, lanes);
    nas_buf_printf(out,
                   "/* n pixels from [output][pixel] to where they belong */\n"
                   "TILE void %s_finish%d(const float *sums, const float *head, float *out, const "
                   "long *to%s, int n%s) {\n",
                   name, vectors,
                   c->has_residual ? ", const float *residual, const long *more" : "",
                   staged ? ", int c" : "");
    nas_buf_puts(out, "    (void)head;\n");
    if (c->act == NAS__LACT_PRELU)
        nas_buf_printf(out, "    const float *slope = head + %d;\n",
                       ceil_div(c->out_c, lanes) * lanes);
    nas_buf_printf(out,
                   "    for (int v = 0; v < %d && n > 0; v++, n -= LANES, to += LANES, sums += "
                   "LANES%s) {\n        if (n >= LANES) {\n",
                   vectors, c->has_residual ? ", more += LANES" : "");
    emit_pixels("float", "out + to", lanes, "            ", out);
    emit_finish_vector(c, lanes, vectors, true, staged, out);
    nas_buf_puts(out, "        } else { /* the last pixels */\n");
    emit_finish_vector(c, lanes, vectors, false, staged, out);
    nas_buf_puts(out, "        }\n    }\n}\n");
}

/* Four outputs of a vector of pixels from registers: t<k> holds pixels k, k + 4 ... as quads of channels. */
static void emit_joined_vector(const nas__conv *c, int32_t v, int32_t lanes, bool all,
                               nas_buf *out) {
    const char *indent = all ? "            " : "                ";
    nas_buf_printf(out, "%svf", indent);
    for (int32_t g = 0; g < 4; g++)
        nas_buf_printf(out, "%s r%d = a%d_%d", g > 0 ? "," : "", g, g, v);
    nas_buf_puts(out, ";\n");
    declare("t", 4, indent, out);
    emit_turned_four(0, lanes, indent, out);
    const bool done = !c->has_residual && c->act == NAS__LACT_NONE;
    for (int32_t k = 0; k < 4 && !done; k++) {
        char sum[64];
        (void)snprintf(sum, sizeof sum, "t%d%s", k, c->has_residual ? " + q" : "");
        if (c->has_residual) { /* pixels that are none lie where the last one does */
            nas_buf_printf(out, "%s{\n%s    vf q = {0};\n", indent, indent);
            for (int32_t q = 0; q < lanes; q += 4)
                nas_buf_printf(out, "%s    QUAD_IN(q, %d, residual + more[%d]);\n", indent, q / 4,
                               v * lanes + q + k);
            nas_buf_printf(out, "%s    t%d = ", indent, k);
        } else {
            nas_buf_printf(out, "%st%d = ", indent, k);
        }
        nas__conv_finish(c, sum, "slopes", out);
        nas_buf_puts(out, ";\n");
        if (c->has_residual) nas_buf_printf(out, "%s}\n", indent);
    }
    for (int32_t k = 0; k < 4; k++) {
        for (int32_t q = 0; q < lanes; q += 4) {
            const int32_t pixel = v * lanes + q + k;
            nas_buf_puts(out, indent);
            if (!all) nas_buf_printf(out, "if (%d < n) ", pixel);
            nas_buf_printf(out, "QUAD_OUT(out + place[%d], t%d, %d);\n", pixel, k, q / 4);
        }
    }
}

void nas__turn_emit_joined(const nas__conv *c, int32_t vectors, int32_t lanes, nas_buf *out) {
    if (c->act == NAS__LACT_PRELU) {
        nas_buf_puts(out,
                     "    float slopes[LANES];\n    for (int k = 0; k < LANES; k++) slopes[k] = ");
        nas_buf_printf(out, "head[%d + k %% 4];\n", ceil_div(c->out_c, lanes) * lanes);
    }
    nas_buf_printf(out, "    if (n >= %d) {\n", vectors * lanes);
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_puts(out, "        {\n");
        emit_joined_vector(c, v, lanes, true, out);
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    } else { /* the last pixels */\n");
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "        if (%d < n) {\n", v * lanes);
        emit_joined_vector(c, v, lanes, false, out);
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n");
}
