/* layer_conv_sparse_panel.c - sparse convolutions with pixels in lanes, in a network whose images have channels in lanes.
 *
 * The input of a tile of pixels is transposed into a panel [step of the sum][pixel] once; then each group of outputs walks
 * its list: for an entry the vectors of its step, and a broadcast of one weight for each output. Sparsity wastes no lanes,
 * however few outputs share a list. Sums lie as [output][pixel] until all groups are done, so groups may be made of any
 * outputs; they are transposed back with bias, residual and activation. Both transpositions are part of the kernel. */
#include "compiler/layer_conv_internal.h"

#include <stdio.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

nas__panel_tiling nas__panel_tile(const nas_target *target, const nas__conv *c,
                                  const nas__conv_way *way) {
    const int32_t lanes = target->vector_bytes / 4, steps = c->kernel_h * c->kernel_w * c->in_c;
    const int32_t flat = ceil_div(c->out_h * c->out_w, lanes);
    const int32_t by_rows = c->out_h * ceil_div(c->out_w, lanes);
    nas__panel_tiling t = {.lines = 1, .width = c->out_h * c->out_w, .vectors = flat};
    if (way->outer == 0 && c->out_h > 1 && by_rows * 20 <= flat * 21) { /* rows waste little */
        t.lines = c->out_h;
        t.width = c->out_w;
        t.vectors = ceil_div(c->out_w, lanes);
    }
    const int32_t tiles = ceil_div(t.vectors, way->vectors);
    if (way->algorithm != NAS__CONV_SPARSE_CODE) /* its last tile may reach beyond the pixels */
        t.narrow = tiles * way->vectors - t.vectors;
    t.wide = tiles - t.narrow;
    t.groups = ceil_div(c->out_c, way->group);
    t.depth = way->depth > 0 ? way->depth : steps;
    t.parts = ceil_div(steps, t.depth);
    return t;
}

size_t nas__panel_scratch(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas__panel_tiling t = nas__panel_tile(target, c, way);
    const int32_t pixels = way->vectors * (target->vector_bytes / 4);
    const int32_t rows = t.groups * way->group; /* one spare row: where outputs that are none go */
    return (size_t)pixels * (size_t)(t.depth + (rows > c->out_c ? rows : c->out_c) + 1);
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

/* ---- the input ---------------------------------------------------------------------------------------------------- */

/* Where the panel has a vector of pixels of a step: floats from step to step and from vector to vector. */
typedef struct panel_strides {
    int32_t step, vector;
} panel_strides;

/* Lists take the vectors of a step together, machine code takes one vector after another. */
static panel_strides strides_of(const nas__conv *c, const nas__conv_way *way, int32_t lanes,
                                int32_t vectors) {
    if (way->algorithm == NAS__CONV_SPARSE_CODE)
        return (panel_strides){lanes, c->kernel_h * c->kernel_w * c->in_c * lanes};
    return (panel_strides){vectors * lanes, lanes};
}

/* Channels [c, c + n) of one vector of pixels; n < lanes is the rest of the channels. */
static void emit_gather_block(int32_t lanes, const panel_strides *s, int32_t n, nas_buf *out) {
    const char *indent = "                ";
    declare("r", lanes, indent, out);
    for (int32_t j = 0; j < lanes; j++) {
        if (n == lanes)
            nas_buf_printf(out, "%sr%d = load(p[%d] + o);\n", indent, j, j);
        else
            nas_buf_printf(out, "%sr%d = load_n(p[%d] + o, %d);\n", indent, j, j, n);
    }
    nas__emit_transpose(lanes, indent, out);
    for (int32_t j = 0; j < n; j++)
        nas_buf_printf(out, "%sstore(panel + v * %dL + %d, t%d);\n", indent, s->vector, j * s->step,
                       j);
    for (int32_t j = n; j < lanes; j++)
        nas_buf_printf(out, "%s(void)t%d;\n", indent, j);
}

static void emit_gather(const nas__conv *c, const nas__conv_way *way, const char *name,
                        int32_t lanes, int32_t vectors, nas_buf *out) {
    const int32_t pixels = vectors * lanes, rest = c->in_c % lanes;
    const panel_strides s = strides_of(c, way, lanes, vectors);
    nas_buf_printf(out,
                   "/* the panel of %d pixels, steps [k, to) of the sum */\n"
                   "TILE void %s_gather%d(const float *const *at, float *panel, int k, int to) {\n"
                   "    while (k < to) {\n"
                   "        const int tap = k / %d, c = k %% %d;\n"
                   "        const long o = tap / %d * %zuL + tap %% %d * %dL + c;\n",
                   pixels, name, vectors, c->in_c, c->in_c, c->kernel_w,
                   (size_t)c->dilation_h * c->in_row, c->kernel_w, c->dilation_w * c->in_pitch);
    if (c->in_c >= lanes) {
        nas_buf_printf(out, "        if (c + LANES <= %d) {\n", c->in_c);
        nas_buf_printf(out,
                       "            for (int v = 0; v < %d; v++) {\n"
                       "                const float *const *p = at + v * LANES;\n",
                       vectors);
        emit_gather_block(lanes, &s, lanes, out);
        nas_buf_printf(out,
                       "            }\n            panel += %d;\n            k += LANES;\n"
                       "            continue;\n        }\n",
                       lanes * s.step);
    }
    if (rest > 0) {
        nas_buf_printf(out,
                       "        {\n            for (int v = 0; v < %d; v++) {\n"
                       "                const float *const *p = at + v * LANES;\n",
                       vectors);
        emit_gather_block(lanes, &s, rest, out);
        nas_buf_printf(out,
                       "            }\n            panel += %d;\n            k += %d;\n        }\n",
                       rest * s.step, rest);
    }
    nas_buf_puts(out, "    }\n}\n");
}

/* ---- lists -------------------------------------------------------------------------------------------------------- */

static void emit_products(int32_t group, int32_t vectors, int32_t lanes, nas_buf *out) {
    if (group == 1) { /* each vector is used once: straight from memory */
        nas_buf_puts(out, "        const vf b = splat(v[0]);\n");
        for (int32_t p = 0; p < vectors; p++)
            nas_buf_printf(out, "        MADM(a0_%d, b, s + %d);\n", p, p * lanes);
        return;
    }
    if (group < 4) { /* the weights stay in registers, inputs come one at a time */
        nas_buf_puts(out, "        const vf ");
        for (int32_t g = 0; g < group; g++)
            nas_buf_printf(out, "%sb%d = splat(v[%d])", g > 0 ? ", " : "", g, g);
        nas_buf_puts(out, ";\n        vf x;\n");
        for (int32_t p = 0; p < vectors; p++) {
            nas_buf_printf(out, "        x = load(s + %d);", p * lanes);
            for (int32_t g = 0; g < group; g++)
                nas_buf_printf(out, " MADD(a%d_%d, x, b%d);", g, p, g);
            nas_buf_puts(out, "\n");
        }
        return;
    }
    nas_buf_puts(out, "        const vf ");
    for (int32_t p = 0; p < vectors; p++)
        nas_buf_printf(out, "%sx%d = load(s + %d)", p > 0 ? ", " : "", p, p * lanes);
    nas_buf_puts(out, ";\n        vf b;\n");
    for (int32_t g = 0; g < group; g++) {
        nas_buf_printf(out, "        b = splat(v[%d]);", g);
        for (int32_t p = 0; p < vectors; p++)
            nas_buf_printf(out, " MADD(a%d_%d, b, x%d);", g, p, p);
        nas_buf_puts(out, "\n");
    }
}

/* ---- the output --------------------------------------------------------------------------------------------------- */

/* Stores one pixel's vector `value`; pixel and n are text. */
static void emit_store(const nas__conv *c, const char *value, const char *pixel, int32_t n,
                       int32_t lanes, const char *indent, nas_buf *out) {
    char sum[160], count[16] = "";
    const bool partial = n < lanes;
    if (partial) (void)snprintf(count, sizeof count, ", %d", n);
    (void)snprintf(sum, sizeof sum, "%s", value);
    if (c->has_residual)
        (void)snprintf(sum, sizeof sum, "%s + %s(residual + more[%s] + c%s)", value,
                       partial ? "load_n" : "load", pixel, count);
    nas_buf_printf(out, "%s%s(out + to[%s] + c, ", indent, partial ? "store_n" : "store", pixel);
    nas__conv_finish(c, sum, "slope + c", out);
    nas_buf_printf(out, "%s);\n", count);
}

/* Channels [c, c + n) of all pixels of a tile. */
static void emit_finish_block(const nas__conv *c, int32_t lanes, int32_t vectors, int32_t n,
                              nas_buf *out) {
    const char *indent = "            ", *deeper = "                ";
    const int32_t pixels = vectors * lanes;
    nas_buf_printf(out, "        for (int v = 0; v < %d && v * LANES < n; v++) {\n", vectors);
    declare("r", lanes, indent, out);
    for (int32_t j = 0; j < lanes; j++) {
        if (j < n)
            nas_buf_printf(out, "%sr%d = load(sums + (long)c * %d + %d + v * LANES);\n", indent, j,
                           pixels, j * pixels);
        else
            nas_buf_printf(out, "%sr%d = (vf){0};\n", indent, j);
    }
    nas__emit_transpose(lanes, indent, out);
    nas_buf_printf(out, "%sif (n - v * LANES >= LANES) {\n", indent);
    for (int32_t j = 0; j < lanes; j++) {
        char value[16], pixel[32];
        (void)snprintf(value, sizeof value, "t%d", j);
        (void)snprintf(pixel, sizeof pixel, "v * LANES + %d", j);
        emit_store(c, value, pixel, n, lanes, deeper, out);
    }
    nas_buf_printf(out, "%s} else { /* the last pixels */\n%sconst vf some[LANES] = {", indent,
                   deeper);
    for (int32_t j = 0; j < lanes; j++)
        nas_buf_printf(out, "%st%d", j > 0 ? ", " : "", j);
    nas_buf_printf(out, "};\n%sfor (int j = 0; j < n - v * LANES; j++)\n", deeper);
    emit_store(c, "some[j]", "v * LANES + j", n, lanes, "                    ", out);
    nas_buf_printf(out, "%s}\n        }\n", indent);
}

static void emit_finish(const nas__conv *c, const char *name, int32_t lanes, int32_t vectors,
                        nas_buf *out) {
    const int32_t rest = c->out_c % lanes, whole = c->out_c - rest;
    nas_buf_printf(out,
                   "/* n pixels from [output][pixel] to where they belong */\n"
                   "TILE void %s_finish%d(const float *sums, const float *head, float *out, const "
                   "long *to%s, int n) {\n",
                   name, vectors,
                   c->has_residual ? ", const float *residual, const long *more" : "");
    nas_buf_puts(out, "    (void)head;\n");
    if (c->act == NAS__LACT_PRELU)
        nas_buf_printf(out, "    const float *slope = head + %d;\n",
                       ceil_div(c->out_c, lanes) * lanes);
    if (whole > 0) {
        nas_buf_printf(out, "    for (int c = 0; c < %d; c += LANES) {\n", whole);
        emit_finish_block(c, lanes, vectors, lanes, out);
        nas_buf_puts(out, "    }\n");
    }
    if (rest > 0) {
        nas_buf_printf(out, "    {\n        const int c = %d;\n", whole);
        emit_finish_block(c, lanes, vectors, rest, out);
        nas_buf_puts(out, "    }\n");
    }
    nas_buf_puts(out, "}\n");
}

/* ---- groups -------------------------------------------------------------------------------------------------------- */

/* Four outputs of a vector of pixels from registers: t<k> holds pixels k, k + 4 ... as quads of channels. */
static void emit_joined_vector(const nas__conv *c, int32_t v, int32_t lanes, bool all,
                               nas_buf *out) {
    static const int low[] = {0, 4, 1, 5}, high[] = {2, 6, 3, 7};
    static const int first[] = {0, 1, 4, 5}, second[] = {2, 3, 6, 7};
    const char *indent = all ? "            " : "                ";
    nas_buf_printf(out, "%svf", indent);
    for (int32_t g = 0; g < 4; g++)
        nas_buf_printf(out, "%s r%d = a%d_%d", g > 0 ? "," : "", g, g, v);
    nas_buf_puts(out, ";\n");
    declare("u", 4, indent, out);
    declare("t", 4, indent, out);
    nas_buf_puts(out, indent);
    in_quads("u", 0, "r", 0, 1, lanes, low, out);
    in_quads("u", 1, "r", 0, 1, lanes, high, out);
    in_quads("u", 2, "r", 2, 3, lanes, low, out);
    in_quads("u", 3, "r", 2, 3, lanes, high, out);
    nas_buf_printf(out, "\n%s", indent);
    in_quads("t", 0, "u", 0, 2, lanes, first, out);
    in_quads("t", 1, "u", 0, 2, lanes, second, out);
    in_quads("t", 2, "u", 1, 3, lanes, first, out);
    in_quads("t", 3, "u", 1, 3, lanes, second, out);
    nas_buf_puts(out, "\n");
    for (int32_t k = 0; k < 4; k++) {
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

static void emit_joined_stores(const nas__conv *c, int32_t vectors, int32_t lanes, nas_buf *out) {
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

/* One group: its sums over the steps in the panel, on top of those of earlier parts. */
static void emit_sums(const nas__conv *c, const nas__conv_way *way, const nas__panel_tiling *t,
                      const char *index, const char *name, int32_t vectors, int32_t lanes,
                      nas_buf *out) {
    const int32_t pixels = vectors * lanes, group = way->group;
    nas_buf_printf(out,
                   "TILE void %s_sum%d(const float *panel, float *sums, const int *outputs, const "
                   "%s *i, const %s *to,\n    const float *v, const float *head%s%s) {\n",
                   name, vectors, index, index, t->parts > 1 ? ", int part" : "",
                   !way->joined      ? ""
                   : c->has_residual ? ", float *out, const long *place, int n, const float "
                                       "*residual, const long *more"
                                     : ", float *out, const long *place, int n");
    const bool stores = !way->joined || t->parts > 1;
    for (int32_t g = 0; g < group && stores; g++)
        nas_buf_printf(out, "    float *const y%d = sums + outputs[%d] * %d;\n", g, g, pixels);
    if (!stores) nas_buf_puts(out, "    (void)sums;\n    (void)outputs;\n");
    for (int32_t g = 0; g < group; g++) { /* the bias */
        char bias[48];
        (void)snprintf(bias, sizeof bias, way->joined ? "head[%d]" : "head[outputs[%d]]", g);
        nas_buf_printf(out, "    vf a%d_0 = splat(%s)", g, bias);
        for (int32_t p = 1; p < vectors; p++)
            nas_buf_printf(out, ", a%d_%d = a%d_0", g, p, g);
        nas_buf_puts(out, ";\n");
    }
    if (t->parts > 1) {
        nas_buf_puts(out, "    if (part > 0) {\n");
        for (int32_t g = 0; g < group; g++) {
            nas_buf_puts(out, "       ");
            for (int32_t p = 0; p < vectors; p++)
                nas_buf_printf(out, " a%d_%d = load(y%d + %d);", g, p, g, p * lanes);
            nas_buf_puts(out, "\n");
        }
        nas_buf_puts(out, "    }\n");
    }
    nas_buf_printf(
        out, "    for (; i < to; i++, v += %d) {\n        const float *s = panel + *i * %dL;\n",
        group, pixels);
    emit_products(group, vectors, lanes, out);
    nas_buf_puts(out, "    }\n");
    if (way->joined) {
        if (t->parts > 1) nas_buf_printf(out, "    if (part == %d) {\n", t->parts - 1);
        emit_joined_stores(c, vectors, lanes, out);
        if (t->parts > 1) nas_buf_puts(out, "        return;\n    }\n");
    }
    for (int32_t g = 0; g < group && stores; g++) {
        nas_buf_puts(out, "   ");
        for (int32_t p = 0; p < vectors; p++)
            nas_buf_printf(out, " store(y%d + %d, a%d_%d);", g, p * lanes, g, p);
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "}\n");
}

/* ---- tile and kernel ---------------------------------------------------------------------------------------------- */

/* A tile from pixel `x` of line `y` on, n pixels; the vectors' other lanes repeat the last one. */
static void emit_tile(const nas__conv *c, const nas__conv_way *way, const nas__panel_tiling *t,
                      const nas__sparse_layout *l, const char *name, int32_t lanes, int32_t vectors,
                      nas_buf *out) {
    const int32_t pixels = vectors * lanes, steps = c->kernel_h * c->kernel_w * c->in_c;
    const bool residual = c->has_residual;
    nas_buf_printf(out,
                   "TILE void %s_tile%d(const float *in, float *out%s, const int *words, float "
                   "*panel, float *sums,\n    int y, int x, int n) {\n",
                   name, vectors, residual ? ", const float *residual" : "");
    nas_buf_printf(out, "    const float *at[%d];\n    long to[%d];\n", pixels, pixels);
    if (residual) nas_buf_printf(out, "    long more[%d];\n", pixels);
    nas_buf_printf(out,
                   "    for (int p = 0; p < %d; p++) {\n"
                   "        at[p] = in + y * %zuL + x * %dL;\n"
                   "        to[p] = y * %zuL + x * %dL;\n",
                   pixels, (size_t)c->stride_h * c->in_row, c->stride_w * c->in_pitch, c->out_row,
                   c->out_pitch);
    if (residual)
        nas_buf_printf(out, "        more[p] = y * %zuL + x * %dL;\n", c->residual_row,
                       c->residual_pitch);
    nas_buf_puts(out, "        if (p + 1 >= n) continue;\n        x++;\n");
    if (t->lines == 1)
        nas_buf_printf(out,
                       "        if (x == %d) {\n            x = 0;\n            y++;\n        }\n",
                       c->out_w);
    const char *index = nas__sparse_index(l);
    nas_buf_printf(out,
                   "    }\n"
                   "    const %s *list = (const %s *)(words + words[0]);\n"
                   "    const float *values = (const float *)(words + words[1]);\n"
                   "    const int *starts = words + %zu;\n",
                   index, index, l->starts);
    if (way->algorithm == NAS__CONV_SPARSE_CODE) {
        nas_buf_printf(out,
                       "    (void)list;\n    (void)starts;\n    %s_gather%d(at, panel, 0, %d);\n"
                       "    %s_code(panel, values, sums);\n",
                       name, vectors, steps, name);
        nas_buf_printf(out,
                       "    %s_finish%d(sums, (const float *)(words + %zu), out, to%s, n);\n}\n",
                       name, vectors, l->heads, residual ? ", residual, more" : "");
        return;
    }
    nas_buf_printf(out, "    for (int part = 0; part < %d; part++) {\n", t->parts);
    if (t->parts > 1) {
        nas_buf_printf(out,
                       "        const int k = part * %d;\n"
                       "        %s_gather%d(at, panel, k, k + %d < %d ? k + %d : %d);\n",
                       t->depth, name, vectors, t->depth, steps, t->depth, steps);
    } else {
        nas_buf_printf(out, "        %s_gather%d(at, panel, 0, %d);\n", name, vectors, steps);
    }
    nas_buf_printf(
        out,
        "        for (int g = 0; g < %d; g++, starts++)\n"
        "            %s_sum%d(panel, sums, words + %zu + g * %d, list + starts[0], list "
        "+ starts[1],\n                values + starts[0] * %dL, (const float *)(words + "
        "%zu)%s%s",
        t->groups, name, vectors, l->outputs, way->group, way->group, l->heads,
        way->joined ? " + g * 4" : "", t->parts > 1 ? ", part" : "");
    if (way->joined) {
        nas_buf_printf(out, ", out + g * %d, to, n", way->group);
        if (residual) nas_buf_printf(out, ", residual + g * %d, more", way->group);
    }
    nas_buf_puts(out, ");\n    }\n");
    if (!way->joined)
        nas_buf_printf(out, "    %s_finish%d(sums, (const float *)(words + %zu), out, to%s, n);\n",
                       name, vectors, l->heads, residual ? ", residual, more" : "");
    nas_buf_puts(out, "}\n");
}

/* Quads of lanes to and from memory. */
static const char quads[] =
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
    "#define QUAD_IN(v, q, p) __builtin_memcpy((char *)&(v) + 16 * (q), p, 16)\n#endif\n";

static const char memory_products[] =
    "#ifndef MADM /* a += x * *p */\n"
    "#if defined(__FMA__) && defined(__AVX512F__)\n"
    "#define MADM(a, x, p) __asm__(\"vfmadd231ps %2, %1, %0\" : \"+v\"(a) : \"v\"(x), "
    "\"m\"(*(const "
    "vf_anywhere *)(p)))\n"
    "#elif defined(__FMA__)\n"
    "#define MADM(a, x, p) __asm__(\"vfmadd231ps %2, %1, %0\" : \"+x\"(a) : \"x\"(x), "
    "\"m\"(*(const "
    "vf_anywhere *)(p)))\n"
    "#else\n#define MADM(a, x, p) (a += (x) * load(p))\n#endif\n#endif\n";

static void emit_kernel(const nas__conv *c, const nas__conv_way *way, const nas__panel_tiling *t,
                        const char *name, int32_t lanes, nas_buf *out) {
    nas_buf_printf(
        out,
        "KERNEL void %s(const float *in, float *out, const float *residual,\n"
        "    const void *weights, void *scratch, int begin, int end) {\n"
        "    float *const panel = scratch, *const sums = panel + %dL;\n    (void)residual;\n",
        name, t->depth * way->vectors * lanes);
    const char *rest = c->has_residual ? ", residual" : "";
    const int32_t tiles = t->wide + t->narrow;
    if (t->lines > 1) {
        nas_buf_printf(out,
                       "    for (int y = begin; y < end; y++) {\n"
                       "        for (int t = 0; t < %d; t++) {\n",
                       tiles);
    } else {
        nas_buf_puts(out,
                     "    for (int t = begin; t < end; t++) {\n        {\n            const int "
                     "line = 0;\n");
    }
    nas_buf_printf(
        out, "            const int x = (t * %d - (t > %d ? t - %d : 0)) * LANES, n = %d - x;\n",
        way->vectors, t->wide, t->wide, t->width);
    char place[80];
    (void)snprintf(place, sizeof place, t->lines > 1 ? "y, x, n" : "line + x / %d, x %% %d, n",
                   c->out_w, c->out_w);
    if (t->wide > 0)
        nas_buf_printf(out,
                       "            if (t < %d) %s_tile%d(in, out%s, weights, panel, sums, %s);\n",
                       t->wide, name, way->vectors, rest, place);
    if (t->narrow > 0)
        nas_buf_printf(out,
                       "            if (t >= %d) %s_tile%d(in, out%s, weights, panel, sums, %s);\n",
                       t->wide, name, way->vectors - 1, rest, place);
    nas_buf_puts(out, "        }\n    }\n}\n\n");
}

void nas__sparse_emit_panel(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                            const char *name, nas_buf *out) {
    const nas__panel_tiling t = nas__panel_tile(target, c, way);
    const nas__sparse_layout l = nas__sparse_layout_of(target, c, way);
    const int32_t lanes = target->vector_bytes / 4;
    if (way->group == 1) nas_buf_puts(out, memory_products);
    if (way->joined) nas_buf_puts(out, quads);
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t vectors = way->vectors - narrow;
        if ((narrow ? t.narrow : t.wide) == 0) continue;
        emit_gather(c, way, name, lanes, vectors, out);
        if (!way->joined) emit_finish(c, name, lanes, vectors, out);
        if (way->algorithm == NAS__CONV_SPARSE_CODE)
            nas_buf_printf(out,
                           "extern void %s_code(const float *panel, const float *weights, float "
                           "*sums) __asm__(\"%s_code\");\n",
                           name, name);
        else
            emit_sums(c, way, &t, nas__sparse_index(&l), name, vectors, lanes, out);
        emit_tile(c, way, &t, &l, name, lanes, vectors, out);
    }
    emit_kernel(c, way, &t, name, lanes, out);
}
