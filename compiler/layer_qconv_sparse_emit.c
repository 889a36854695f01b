/* layer_qconv_sparse_emit.c - text of the integer convolutions that leave zeros out.
 *
 * As layer_conv_sparse_panel.c: the inputs of a tile of pixels become a panel [step of the sum][pixel], groups of outputs
 * walk their lists over it, sums lie as [output][pixel] until all are there, are transposed back and requantized like those
 * of the dense kernels. Rows of an entry are interleaved in registers, so that a lane has the inputs of one pixel. */
#include "compiler/layer_qconv_internal.h"

enum {
    PIXELS = 16,
    CHANNELS = 8, /* transposed together: 16 registers are enough */
    WIDE = 16     /* those of AVX-512 */
};

typedef struct panel {
    const nas_target *target;
    const nas__qconv *q;
    const nas__qconv_way *way;
    nas__q_panel p;
    const char *name;
} panel;

/* ---- helpers ------------------------------------------------------------------------------------------------------ */

static const char block_helpers[] =
    "typedef unsigned char q_t16 __attribute__((vector_size(16)));\n"
    "typedef unsigned char q_t16_in __attribute__((vector_size(16), aligned(1), may_alias));\n"
    "#if defined(__clang__) || __GNUC__ >= 12\n"
    "#define Q_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)\n"
    "#else\n"
    "#define Q_PICK(a, b, ...) __builtin_shuffle(a, b, (q_t16){__VA_ARGS__})\n"
    "#endif\n"
    "#define Q_LOW(a, b) Q_PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)\n"
    "#define Q_HIGH(a, b) Q_PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, "
    "31)\n"
    "typedef long long q_two64 __attribute__((vector_size(16)));\n"
    /* Not by bytes: gcc 12 takes a vector of eight bytes through memory. */
    "HELPER q_t16 q_take(const unsigned char *p, int n) {\n"
    "    long long v = 0;\n    __builtin_memcpy(&v, p, (unsigned)n);\n"
    "    return (q_t16)(q_two64){v, 0};\n}\n";

static const char words_rows[] =
    "HELPER void q_row_u(qx *s, q_t16 v, int zero) {\n"
    "    *(q_words_out *)s = __builtin_convertvector((q_in_u)v, q_words) - (short)zero;\n}\n"
    "HELPER void q_row_s(qx *s, q_t16 v, int zero) {\n"
    "    *(q_words_out *)s = __builtin_convertvector((q_in_s)v, q_words) - (short)zero;\n}\n";
static const char bytes_rows[] =
    "#define q_row_u(s, v, zero) ((void)(zero), *(q_t16_in *)(s) = (v) ^ (unsigned char)Q_FLIP_U)\n"
    "#define q_row_s(s, v, zero) \\\n"
    "    ((void)(zero), *(q_t16_in *)(s) = (v) ^ (unsigned char)(Q_FLIP_U ^ 128))\n";

/* Elements of two rows by turns, within each 16 bytes. */
static const char x86_mixes[] =
    "#define Q_LOW8(a, b) ((vi)MM(unpacklo_epi8)((MI)(a), (MI)(b)))\n"
    "#define Q_HIGH8(a, b) ((vi)MM(unpackhi_epi8)((MI)(a), (MI)(b)))\n"
    "#define Q_LOW16(a, b) ((vi)MM(unpacklo_epi16)((MI)(a), (MI)(b)))\n"
    "#define Q_HIGH16(a, b) ((vi)MM(unpackhi_epi16)((MI)(a), (MI)(b)))\n";
static const char neon_mixes[] =
    "#define Q_LOW8(a, b) ((vi)vzip1q_u8((uint8x16_t)(a), (uint8x16_t)(b)))\n"
    "#define Q_HIGH8(a, b) ((vi)vzip2q_u8((uint8x16_t)(a), (uint8x16_t)(b)))\n"
    "#define Q_LOW16(a, b) ((vi)vzip1q_u16((uint16x8_t)(a), (uint16x8_t)(b)))\n"
    "#define Q_HIGH16(a, b) ((vi)vzip2q_u16((uint16x8_t)(a), (uint16x8_t)(b)))\n";
static const char plain_row[] =
    "typedef short q_short __attribute__((vector_size(2 * LANES), aligned(2), may_alias));\n"
    "#define Q_ROW(p) __builtin_convertvector(*(const q_short *)(p), vi)\n";

/* Quarters of a vector of 64 bytes from and to memory: neither takes the port that shuffles take. */
static const char wide_rows[] =
    "#ifndef Q_QUARTER_OUT\n#ifdef __AVX512F__\n"
    "#define Q_QUARTER_OUT(p, v, k) __asm__(\"vextracti32x4 $\" #k \", %1, %0\" : "
    "\"=m\"(*(q_t16_in "
    "*)(p)) : \"v\"(v))\n"
    "#else\n"
    "#define Q_QUARTER_OUT(p, v, k) __builtin_memcpy(p, (const char *)&(v) + 16 * (k), 16)\n"
    "#endif\n"
    "/* lane k: what the four lanes have as their k-th four bytes */\n"
    "#define Q_FOURS(v) SHUFFLE(v, v, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)\n"
    "#define Q_FLIP_4(flip) ((int)((flip)*0x01010101u))\n#endif\n";

/* Bytes, and vectors of 64 of them. */
static bool is_wide(const panel *d) {
    return d->p.element == 1 && d->target->vector_bytes == 64;
}

static void emit_helpers(const panel *d, nas_buf *out) {
    nas_buf_printf(out, "#ifndef Q_PICK\n%s%s", block_helpers,
                   d->p.element == 2 ? words_rows : bytes_rows);
    if (d->p.dot == NAS__DOT_PLAIN)
        nas_buf_puts(out, plain_row);
    else
        nas_buf_puts(out, d->p.dot == NAS__DOT_NEON ? neon_mixes : x86_mixes);
    nas_buf_puts(out, "#endif\n");
    if (d->p.lanes == WIDE) nas_buf_puts(out, nas__turn_quads_helper());
    if (is_wide(d)) nas_buf_puts(out, wide_rows);
}

/* ---- the panel ---------------------------------------------------------------------------------------------------- */

/* Channels [c, c + n) of 16 pixels: their bytes are dealt out four times, which swaps pixels and channels. */
static void emit_gather_block(const panel *d, int32_t n, const char *indent, nas_buf *out) {
    for (int32_t i = 0; i < CHANNELS; i++)
        nas_buf_printf(out,
                       "%sq_t16 u%d, r%d = Q_LOW(q_take(p[%d] + o, %d), q_take(p[%d] + o, %d));\n",
                       indent, i, i, i, n, i + PIXELS / 2, n);
    for (int32_t round = 0; round < 3; round++) {
        const char *from = round % 2 == 0 ? "r" : "u", *to = round % 2 == 0 ? "u" : "r";
        for (int32_t i = 0; i < CHANNELS / 2; i++) {
            const int32_t k = i + CHANNELS / 2;
            nas_buf_printf(out, "%s%s%d = Q_LOW(%s%d, %s%d); %s%d = Q_HIGH(%s%d, %s%d);\n", indent,
                           to, 2 * i, from, i, from, k, to, 2 * i + 1, from, i, from, k);
        }
    }
    for (int32_t i = 0; i < CHANNELS; i++) {
        if (i < n)
            nas_buf_printf(out, "%sq_row_%c(panel + v + %d, u%d, zero);\n", indent,
                           d->q->in_signed ? 's' : 'u', i * d->p.row, i);
        else
            nas_buf_printf(out, "%s(void)u%d;\n", indent, i);
    }
}

/* 16 channels of 16 pixels, four pixels a vector: bytes and pairs are interleaved, then fours dealt out. 12 shuffles, 64 are
 * those of two blocks of 8 channels in vectors of 16 bytes. */
static void emit_gather_wide(const panel *d, const char *indent, nas_buf *out) {
    nas_buf_printf(out, "%svi r0, r1, r2, r3;\n", indent);
    for (int32_t i = 0; i < 4; i++)
        nas_buf_printf(out, "%sQUADS_OF_FOUR(r%d, p[%d] + o, p[%d] + o, p[%d] + o, p[%d] + o);\n",
                       indent, i, i, i + 4, i + 8, i + 12);
    nas_buf_printf(out,
                   "%sconst vi t0 = Q_LOW8(r0, r1), t1 = Q_HIGH8(r0, r1), t2 = Q_LOW8(r2, r3), "
                   "t3 = Q_HIGH8(r2, r3);\n",
                   indent);
    for (int32_t i = 0; i < 4; i++) {
        nas_buf_printf(out,
                       "%sr%d = Q_%s16(t%d, t%d);\n%sr%d = Q_FOURS(r%d) ^ Q_FLIP_4(Q_FLIP_U%s);\n",
                       indent, i, i % 2 == 0 ? "LOW" : "HIGH", i / 2, i / 2 + 2, indent, i, i,
                       d->q->in_signed ? " ^ 128" : "");
        for (int32_t k = 0; k < 4; k++)
            nas_buf_printf(out, "%sQ_QUARTER_OUT(panel + v + %d, r%d, %d);\n", indent,
                           (4 * i + k) * d->p.row, i, k);
    }
    nas_buf_printf(out, "%s(void)zero;\n", indent);
}

static void emit_gather(const panel *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t wide = is_wide(d) ? c->in_c / WIDE * WIDE : 0;
    const int32_t rest = c->in_c % CHANNELS, whole = c->in_c - rest - wide;
    nas_buf_printf(out,
                   "/* panel[step][pixel]; the pixels of `at` are in the order of a row */\n"
                   "TILE void %s_gather(const unsigned char *const *at, qx *panel, int zero) {\n"
                   "    for (int tap = 0; tap < %d; tap++) {\n"
                   "        long o = tap / %d * %zuL + tap %% %d * %dL;\n",
                   d->name, c->kernel_h * c->kernel_w, c->kernel_w,
                   (size_t)c->dilation_h * c->in_row, c->kernel_w, c->dilation_w * c->in_pitch);
    for (int32_t part = 0; part < 3; part++) {
        const int32_t all = part == 0 ? wide : part == 1 ? whole : rest;
        const int32_t n = part == 0 ? WIDE : part == 1 ? CHANNELS : rest;
        if (all == 0) continue;
        nas_buf_printf(out,
                       "        for (int c = 0; c < %d; c += %d, o += %d, panel += %d) {\n"
                       "            for (int v = 0; v < %d; v += %d) {\n"
                       "                const unsigned char *const *p = at + v;\n",
                       all, n, n, n * d->p.row, d->p.row, PIXELS);
        if (part == 0)
            emit_gather_wide(d, "                ", out);
        else
            emit_gather_block(d, n, "                ", out);
        nas_buf_puts(out, "            }\n        }\n");
    }
    nas_buf_puts(out, "    }\n}\n");
}

/* ---- lists -------------------------------------------------------------------------------------------------------- */

/* Vectors [from, to) of an entry as x<v>; its rows are at p<k>. */
static void emit_vectors(const panel *d, int32_t from, int32_t to, nas_buf *out) {
    const nas__q_panel *p = &d->p;
    const int32_t unit = from / p->inputs, at = unit * p->unit;
    if (p->inputs == 1) {
        for (int32_t v = from; v < to; v++)
            nas_buf_printf(out, "        const vi x%d = Q_ROW(p0 + %d);\n", v, v * p->lanes);
        return;
    }
    for (int32_t k = 0; k < p->inputs; k++)
        nas_buf_printf(out, "        const vi r%d_%d = q_i32(p%d + %d);\n", unit, k, k, at);
    if (p->inputs == 2) {
        for (int32_t v = from; v < to; v++)
            nas_buf_printf(out, "        const vi x%d = Q_%s16(r%d_0, r%d_1);\n", v,
                           v == from ? "LOW" : "HIGH", unit, unit);
        return;
    }
    for (int32_t half = 0; half < 2 && from + 2 * half < to; half++) {
        const char *which = half == 0 ? "LOW" : "HIGH";
        for (int32_t k = 0; k < 2; k++)
            nas_buf_printf(out, "        const vi t%d_%d = Q_%s8(r%d_%d, r%d_%d);\n", unit,
                           2 * half + k, which, unit, 2 * k, unit, 2 * k + 1);
        for (int32_t v = from + 2 * half; v < to && v < from + 2 * half + 2; v++)
            nas_buf_printf(out, "        const vi x%d = Q_%s16(t%d_%d, t%d_%d);\n", v,
                           v % 2 == 0 ? "LOW" : "HIGH", unit, 2 * half, unit, 2 * half + 1);
    }
}

static void emit_weight(const panel *d, int32_t o, nas_buf *out) {
    if (d->p.inputs == 1)
        nas_buf_printf(out, "q_splat(((const short *)w)[%d])", o);
    else
        nas_buf_printf(out, "q_x((const qx *)(w + %d))", 4 * o);
}

/* Products of vectors [from, to). By element of a vector of weights where that is one instruction. */
static void emit_products(const panel *d, int32_t from, int32_t to, nas_buf *out) {
    const int32_t group = d->way->group;
    const bool by_element = d->p.dot == NAS__DOT_NEON && group % 4 == 0;
    for (int32_t o = 0; o < group; o++) {
        nas_buf_puts(out, "       ");
        for (int32_t v = from; v < to; v++) {
            if (by_element)
                nas_buf_printf(out, " a%d_%d = q_dot_%d(a%d_%d, b%d, x%d);", o, v, o % 4, o, v,
                               o / 4, v);
            else
                nas_buf_printf(out, " a%d_%d = q_dot(a%d_%d, x%d, b%d);", o, v, o, v, v, o);
        }
        nas_buf_puts(out, "\n");
    }
}

static void emit_entry(const panel *d, int32_t vectors, nas_buf *out) {
    const nas__q_panel *p = &d->p;
    const int32_t group = d->way->group;
    const bool by_element = p->dot == NAS__DOT_NEON && group % 4 == 0;
    for (int32_t k = 0; k < p->inputs; k++)
        nas_buf_printf(out,
                       "        const qx *p%d = (const qx *)((const char *)panel + (long)i[%d] * "
                       "%d);\n",
                       k, k, p->scale);
    for (int32_t o = 0; o < (by_element ? group / 4 : group); o++) {
        nas_buf_printf(out, "        const vi b%d = ", o);
        if (by_element)
            nas_buf_printf(out, "q_i32(w + %d)", 16 * o);
        else
            emit_weight(d, o, out);
        nas_buf_puts(out, ";\n");
    }
    for (int32_t from = 0; from < vectors; from += p->inputs) {
        const int32_t to = from + p->inputs < vectors ? from + p->inputs : vectors;
        emit_vectors(d, from, to, out);
        emit_products(d, from, to, out);
    }
}

static void emit_sum(const panel *d, int32_t vectors, nas_buf *out) {
    const nas__q_panel *p = &d->p;
    const int32_t group = d->way->group;
    const char *index = p->small ? "unsigned short" : "int";
    nas_buf_printf(out,
                   "/* one list: %d outputs, %d vectors of pixels */\n"
                   "TILE void %s_sum%d(const qx *panel, int *sums, const int *order, const %s *i, "
                   "const %s *to,\n    const unsigned char *w) {\n",
                   group, vectors, d->name, vectors, index, index);
    for (int32_t o = 0; o < group; o++) {
        nas_buf_puts(out, "    vi");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%s a%d_%d = {0}", v > 0 ? "," : "", o, v);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "    for (; i < to; i += %d, w += %d) {\n", p->inputs,
                   group * p->inputs * p->element);
    emit_entry(d, vectors, out);
    nas_buf_puts(out, "    }\n");
    for (int32_t o = 0; o < group; o++) {
        nas_buf_printf(out, "    int *const s%d = sums + (long)order[%d] * %d;\n", o, o, p->row);
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "    *(q_lanes *)(s%d + %d) = a%d_%d;\n", o, v * p->lanes, o, v);
    }
    nas_buf_puts(out, "}\n");
}

/* ---- the output --------------------------------------------------------------------------------------------------- */

/* `vectors` vectors of outputs from c on, the last of `last` of them, for a vector of pixels. */
static void emit_finish_block(const panel *d, int32_t vectors, int32_t last, nas_buf *out) {
    const nas__q_panel *p = &d->p;
    const int32_t lanes = p->lanes, bytes = d->target->vector_bytes;
    nas_buf_printf(out, "        const unsigned char *const m = head + %d + c * 4;\n",
                   4 * p->outputs);
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, "        const vi s%d = q_i32(m - %d);\n", v,
                       4 * p->outputs - v * bytes);
    nas__q_emit_multipliers(d->target, vectors, out);
    nas_buf_puts(out, "        for (int v = 0; v * LANES < n; v++) {\n");
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_puts(out, "            vi");
        for (int32_t j = 0; j < lanes; j++)
            nas_buf_printf(out, "%s a%d_%d", j > 0 ? "," : "", j, v);
        nas_buf_puts(out, ";\n            {\n");
        for (int32_t j = 0; j < lanes; j++)
            nas_buf_printf(out,
                           "                vf r%d = (vf)q_i32(sums + (long)(c + %d) * %d + v * "
                           "LANES);\n",
                           j, v * lanes + j, p->row);
        nas__emit_transpose(lanes, "                ", out);
        for (int32_t j = 0; j < lanes; j++)
            nas_buf_printf(out, "                a%d_%d = (vi)t%d + s%d;\n", j, v, j, v);
        nas_buf_puts(out, "            }\n");
    }
    for (int32_t j = 0; j < lanes; j++) {
        nas_buf_printf(out,
                       "            {\n            unsigned char *const out = to[v * LANES + %d] + "
                       "c;\n",
                       j);
        if (d->q->conv.has_residual)
            nas_buf_printf(out,
                           "            const unsigned char *const residual = more[v * LANES + %d] "
                           "+ c;\n",
                           j);
        nas__q_emit_epilogue(d->target, d->q, j, vectors, last, 0, 0, out);
        nas_buf_puts(out, "            }\n");
    }
    nas_buf_puts(out, "        }\n");
}

static void emit_finish(const panel *d, nas_buf *out) {
    const nas__q_panel *p = &d->p;
    const int32_t out_c = d->q->conv.out_c, lanes = p->lanes, step = 2 * lanes;
    const int32_t rest = out_c % step, whole = out_c - rest;
    nas_buf_printf(out,
                   "/* n pixels from [output][pixel] to where they belong */\n"
                   "TILE void %s_finish(const int *sums, const unsigned char *head, unsigned char "
                   "*const *to,%s\n    const int *h, int n) {\n",
                   d->name, d->q->conv.has_residual ? " const unsigned char *const *more," : "");
    if (whole > 0) {
        nas_buf_printf(out, "    for (int c = 0; c < %d; c += %d) {\n", whole, step);
        emit_finish_block(d, 2, lanes, out);
        nas_buf_puts(out, "    }\n");
    }
    if (rest > 0) {
        nas_buf_printf(out, "    {\n        const int c = %d;\n", whole);
        emit_finish_block(d, rest > lanes ? 2 : 1, rest > lanes ? rest - lanes : rest, out);
        nas_buf_puts(out, "    }\n");
    }
    nas_buf_puts(out, "}\n");
}

/* ---- the kernel --------------------------------------------------------------------------------------------------- */

/* Where the pixels of tile t are. Behind the last pixel inputs are those of the last one, outputs go nowhere. */
static void emit_addresses(const panel *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const nas__q_panel *p = &d->p;
    const bool residual = c->has_residual;
    nas_buf_printf(out, "        const unsigned char *at[%d];\n        unsigned char *to[%d];\n",
                   p->row, p->row);
    if (residual) nas_buf_printf(out, "        const unsigned char *more[%d];\n", p->row);
    nas_buf_printf(
        out,
        "        const int n = t < %d ? %d : %d;\n"
        "        long y = t * %dL / %d, x = t * %dL %% %d;\n"
        "        for (int i = 0; i < %d; i++) {\n"
        "            at[%s_place[i]] = (const unsigned char *)in + y * %zuL + x * %dL;\n"
        "            to[i] = i < n ? (unsigned char *)out + y * %zuL + x * %dL : spare;\n",
        p->tiles - 1, p->row, p->pixels - (p->tiles - 1) * p->row, p->row, c->out_w, p->row,
        c->out_w, p->row, d->name, (size_t)c->stride_h * c->in_row, c->stride_w * c->in_pitch,
        c->out_row, c->out_pitch);
    if (residual)
        nas_buf_printf(out,
                       "            more[i] = (const unsigned char *)residual + y * %zuL + x * "
                       "%dL;\n",
                       c->residual_row, c->residual_pitch);
    nas_buf_printf(out,
                   "            if (i + 1 < n && ++x == %d) {\n                x = 0;\n"
                   "                y++;\n            }\n        }\n",
                   c->out_w);
}

static void emit_lists(const panel *d, int32_t vectors, const char *indent, nas_buf *out) {
    const nas__q_panel *p = &d->p;
    const int32_t group = d->way->group;
    nas_buf_printf(out,
                   "%sfor (int g = 0; g < %d; g++)\n"
                   "%s    %s_sum%d(panel, sums, order + g * %d, list + starts[g] * %dL, list + "
                   "starts[g + 1] * %dL,\n%s        block + starts[-1] + starts[g] * %dL);\n",
                   indent, p->groups, indent, d->name, vectors, group, p->inputs, p->inputs, indent,
                   group * p->inputs * p->element);
}

static void emit_places(const panel *d, nas_buf *out) {
    nas_buf_printf(out, "static const unsigned char %s_place[%d] = {", d->name, d->p.row);
    for (int32_t i = 0; i < d->p.row; i++)
        nas_buf_printf(out, "%s%d", i > 0 ? ", " : "", nas__q_panel_place(&d->p, i));
    nas_buf_puts(out, "};\n");
}

static void emit_kernel(const panel *d, int32_t last_vectors, nas_buf *out) {
    const nas__q_panel *p = &d->p;
    const bool residual = d->q->conv.has_residual;
    const char *index = p->small ? "unsigned short" : "int";
    nas__q_emit_head(d->q, d->name, out);
    nas_buf_printf(out,
                   "    const unsigned char *const block = weights;\n"
                   "    const int *const starts = (const int *)(block + %zu), *const order = "
                   "(const int *)(block + %zu);\n"
                   "    const %s *const list = (const %s *)(block + %zu);\n"
                   "    qx *const panel = scratch;\n"
                   "    int *const sums = (int *)((unsigned char *)scratch + %zu);\n"
                   "    unsigned char *const spare = (unsigned char *)scratch + %zu;\n"
                   "    for (int t = begin; t < end; t++) {\n",
                   p->starts + 4, p->order, index, index, p->indices, p->sums_at, p->spare_at);
    emit_addresses(d, out);
    nas_buf_printf(out, "        %s_gather(at, panel, h[0]);\n", d->name);
    if (last_vectors == d->way->vectors) {
        emit_lists(d, d->way->vectors, "        ", out);
    } else if (p->tiles == 1) {
        emit_lists(d, last_vectors, "        ", out);
    } else {
        nas_buf_printf(out, "        if (t < %d) {\n", p->tiles - 1);
        emit_lists(d, d->way->vectors, "            ", out);
        nas_buf_puts(out, "        } else {\n");
        emit_lists(d, last_vectors, "            ", out);
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_printf(out, "        %s_finish(sums, block + %zu, to,%s h, n);\n    }\n}\n\n", d->name,
                   p->heads, residual ? " more," : "");
}

void nas__q_sparse_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                        const char *name, nas_buf *out) {
    panel d = {.target = target, .q = q, .way = way, .name = name};
    d.p = nas__q_panel_of(target, q, way);
    const int32_t rest = d.p.pixels - (d.p.tiles - 1) * d.p.row;
    const int32_t last_vectors = (rest + d.p.lanes - 1) / d.p.lanes;
    emit_helpers(&d, out);
    emit_gather(&d, out);
    if (d.p.tiles > 1 || last_vectors == way->vectors) emit_sum(&d, way->vectors, out);
    if (last_vectors != way->vectors) emit_sum(&d, last_vectors, out);
    emit_finish(&d, out);
    emit_places(&d, out);
    emit_kernel(&d, last_vectors, out);
}
