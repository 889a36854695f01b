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

/* ---- groups -------------------------------------------------------------------------------------------------------- */

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
        nas__turn_emit_joined(c, vectors, lanes, out);
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

/* The lists of one part, one group after another. */
static void emit_groups(const nas__conv *c, const nas__conv_way *way, const nas__panel_tiling *t,
                        const nas__sparse_layout *l, const char *name, int32_t vectors,
                        nas_buf *out) {
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
        if (c->has_residual) nas_buf_printf(out, ", residual + g * %d, more", way->group);
    }
    nas_buf_puts(out, ");\n    }\n");
}

/* Do pixels lie one after another from row to row as they do within one? */
static bool without_gaps(const nas__conv *c) {
    const size_t width = (size_t)c->out_w;
    return (size_t)c->stride_h * c->in_row == width * (size_t)(c->stride_w * c->in_pitch) &&
           c->out_row == width * (size_t)c->out_pitch &&
           (!c->has_residual || c->residual_row == width * (size_t)c->residual_pitch);
}

/* Where the pixels of a tile are; those that are none are where the last one is. */
static void emit_places(const nas__conv *c, const nas__panel_tiling *t, int32_t pixels,
                        nas_buf *out) {
    if (t->lines > 1 || without_gaps(c)) {
        nas_buf_printf(out,
                       "    const float *const first = in + (y * %zuL + x * %dL);\n"
                       "    for (long p = 0; p < %d; p++) {\n"
                       "        const long i = p < n ? p : n - 1;\n"
                       "        at[p] = first + i * %dL;\n"
                       "        to[p] = (y * %zuL + x * %dL) + i * %dL;\n",
                       (size_t)c->stride_h * c->in_row, c->stride_w * c->in_pitch, pixels,
                       c->stride_w * c->in_pitch, c->out_row, c->out_pitch, c->out_pitch);
        if (c->has_residual)
            nas_buf_printf(out, "        more[p] = (y * %zuL + x * %dL) + i * %dL;\n",
                           c->residual_row, c->residual_pitch, c->residual_pitch);
        nas_buf_puts(out, "    }\n");
        return;
    }
    nas_buf_printf(out,
                   "    for (int p = 0; p < %d; p++) {\n"
                   "        at[p] = in + y * %zuL + x * %dL;\n"
                   "        to[p] = y * %zuL + x * %dL;\n",
                   pixels, (size_t)c->stride_h * c->in_row, c->stride_w * c->in_pitch, c->out_row,
                   c->out_pitch);
    if (c->has_residual)
        nas_buf_printf(out, "        more[p] = y * %zuL + x * %dL;\n", c->residual_row,
                       c->residual_pitch);
    nas_buf_puts(out, "        if (p + 1 >= n) continue;\n        x++;\n");
    nas_buf_printf(out, "        if (x == %d) {\n            x = 0;\n            y++;\n        }\n",
                   c->out_w);
    nas_buf_puts(out, "    }\n");
}

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
    emit_places(c, t, pixels, out);
    const char *index = nas__sparse_index(l);
    nas_buf_printf(out,
                   "    const %s *list = (const %s *)(words + words[0]);\n"
                   "    const float *values = (const float *)(words + words[1]);\n"
                   "    const int *starts = words + %zu;\n",
                   index, index, l->starts);
    const bool code = way->algorithm == NAS__CONV_SPARSE_CODE;
    const int32_t block = way->pixels * lanes;
    if (code) /* it need not run for blocks of pixels that are none */
        nas_buf_printf(out,
                       "    (void)list;\n    (void)starts;\n"
                       "    const int passes = n < %d ? (n + %d) / %d : %d;\n",
                       pixels, block - 1, block, vectors / way->pixels);
    nas_buf_printf(out, "    for (int part = 0; part < %d; part++) {\n", t->parts);
    if (t->parts > 1) {
        nas_buf_printf(out,
                       "        const int k = part * %d;\n"
                       "        %s_gather%d(at, panel, k, k + %d < %d ? k + %d : %d);\n",
                       t->depth, name, vectors, t->depth, steps, t->depth, steps);
    } else {
        nas_buf_printf(out, "        %s_gather%d(at, panel, 0, %d);\n", name, vectors, steps);
    }
    if (code)
        nas_buf_printf(out, "        %s_code(panel, values, sums, part, passes);\n    }\n", name);
    else
        emit_groups(c, way, t, l, name, vectors, out);
    if (!way->joined)
        nas_buf_printf(out, "    %s_finish%d(sums, (const float *)(words + %zu), out, to%s, n);\n",
                       name, vectors, l->heads, residual ? ", residual, more" : "");
    nas_buf_puts(out, "}\n");
}

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
    nas__turn_emit_helpers(way, lanes, out);
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t vectors = way->vectors - narrow;
        if ((narrow ? t.narrow : t.wide) == 0) continue;
        nas__turn_emit_gather(c, way, name, lanes, vectors, out);
        if (!way->joined) nas__turn_emit_finish(c, way, name, lanes, vectors, out);
        if (way->algorithm == NAS__CONV_SPARSE_CODE)
            nas_buf_printf(out,
                           "extern void %s_code(const float *panel, const float *weights, float "
                           "*sums, int part, int passes) __asm__(\"%s_code\");\n",
                           name, name);
        else
            emit_sums(c, way, &t, nas__sparse_index(&l), name, vectors, lanes, out);
        emit_tile(c, way, &t, &l, name, lanes, vectors, out);
    }
    emit_kernel(c, way, &t, name, lanes, out);
}
