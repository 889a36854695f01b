/* layer_conv_sparse_panel.c - sparse convolutions with pixels in lanes, in a network whose images have channels in lanes.
 *
 * The input of a tile of pixels is transposed into a panel [step of the sum][pixel] once; then each group of outputs walks
 * its list: for an entry the vectors of its step, and a broadcast of one weight for each output. Sparsity wastes no lanes,
 * however few outputs share a list. Sums lie as [output][pixel] until all groups are done, so groups may be made of any
 * outputs; they are transposed back with bias, residual and activation. Both transpositions are part of the kernel. */
#include "compiler/layer_conv_internal.h"

#include <stdio.h>

enum {
    SIXTEEN = 16, /* lanes of AVX-512 */
    SCALED = 2    /* floats that an entry counts there */
};

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

/* Rows one after another as one run of pixels, as many of them as the kernel is called for: tiles need not end with a row, and
 * the layer can be part of a chain (layers_chain.c). Where images stay in L2 there are no chains, and tiles of the whole
 * image share better among threads. AVX-512 alone: on AVX2 it gained nothing. */
static bool in_runs(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const double pixels = 4.0 * c->out_h * c->out_w;
    const double in = pixels * c->stride_h * c->stride_w * c->in_c, out = pixels * c->out_c;
    return way->outer == 0 && target->vector_bytes / 4 == SIXTEEN && c->out_h > 1 &&
           (in > target->l2_bytes / 2 || out > target->l2_bytes / 2);
}

nas__panel_tiling nas__panel_tile(const nas_target *target, const nas__conv *c,
                                  const nas__conv_way *way) {
    const int32_t lanes = target->vector_bytes / 4, steps = c->kernel_h * c->kernel_w * c->in_c;
    const int32_t flat = ceil_div(c->out_h * c->out_w, lanes);
    const int32_t by_rows = c->out_h * ceil_div(c->out_w, lanes);
    nas__panel_tiling t = {.lines = 1, .width = c->out_h * c->out_w, .vectors = flat};
    if (in_runs(target, c, way)) {
        t.runs = true;
    } else if (way->outer == 0 && c->out_h > 1 && by_rows * 20 <= flat * 21) { /* little waste */
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

int32_t nas__panel_scale(const nas_target *target, const nas__conv_way *way) {
    const int32_t lanes = target->vector_bytes / 4;
    return lanes == SIXTEEN ? way->vectors * lanes / SCALED : 1;
}

bool nas__panel_staged(const nas__conv_way *way, int32_t lanes) {
    return way->algorithm == NAS__CONV_SPARSE_PANEL && way->joined && lanes == SIXTEEN;
}

size_t nas__panel_scratch(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas__panel_tiling t = nas__panel_tile(target, c, way);
    const int32_t pixels = way->vectors * (target->vector_bytes / 4);
    const int32_t rows = t.groups * way->group; /* one spare row: where outputs that are none go */
    return (size_t)pixels * (size_t)(t.depth + (rows > c->out_c ? rows : c->out_c) + 1);
}

/* Do pixels lie one after another from row to row as they do within one? */
static bool without_gaps(const nas__conv *c) {
    const size_t width = (size_t)c->out_w;
    return (size_t)c->stride_h * c->in_row == width * (size_t)(c->stride_w * c->in_pitch) &&
           c->out_row == width * (size_t)c->out_pitch &&
           (!c->has_residual || c->residual_row == width * (size_t)c->residual_pitch);
}

/* ---- what the next tile needs ------------------------------------------------------------------------------------- */

enum { LINE = 64 };

/* The sums of a tile take less time than its pixels from beyond L2, or than lines of the result that are fetched to be
 * written. On AVX2 the latter is worth asking for where sums are short: of 256 steps it gained nothing (Zen 1) or lost up to
 * a twentieth (Zen 3), of 16 and 64 steps it gained 5 to 23 % (Zen 1). */
nas__sparse_ahead nas__sparse_asks(const nas_target *target, const nas__conv *c) {
    enum { AVX2 = 32, SHORT_SUM = 128 };
    const double outputs = 4.0 * c->out_h * c->out_w * c->out_c;
    const size_t row = (size_t)c->out_w * (size_t)c->out_c;
    const size_t border = row / 16; /* floats between rows that do not matter: a pixel of many */
    if (target->vector_bytes < AVX2) return NAS__ASKS_NONE; /* not measured */
    if (nas__conv_streams(target, c) == NAS__FAR_PIXELS && without_gaps(c)) return NAS__ASKS_PIXELS;
    if (target->vector_bytes == AVX2 && c->kernel_h * c->kernel_w * c->in_c > SHORT_SUM)
        return NAS__ASKS_NONE;
    const bool follow = c->out_pitch == c->out_c && c->out_row <= row + border;
    return outputs > target->l2_bytes && follow ? NAS__ASKS_OUTPUTS : NAS__ASKS_NONE;
}

int32_t nas__sparse_asks_bytes(const nas_target *target, const nas__conv *c,
                               const nas__conv_way *way) {
    const int32_t pixels = way->vectors * (target->vector_bytes / 4);
    switch (nas__sparse_asks(target, c)) {
    case NAS__ASKS_NONE: return 0;
    case NAS__ASKS_PIXELS: return 4 * pixels * c->in_pitch;
    case NAS__ASKS_OUTPUTS: return 4 * pixels * c->out_pitch;
    }
    return 0;
}

static const char *ask_of(nas__sparse_ahead what) {
    return what == NAS__ASKS_OUTPUTS ? "AHEAD_TO" : "AHEAD";
}

/* How the lists of a tile ask. What they ask for is spread evenly over their entries, whose number is not in the text. */
typedef struct stream {
    nas__sparse_ahead what;
    int32_t bytes; /* of a tile */
    int32_t lines; /* of an entry: enough where a quarter of them is left */
} stream;

static stream stream_of(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                        const nas__panel_tiling *t) {
    enum { LINES_MAX = 4 };
    const double entries = (double)t->groups * c->kernel_h * c->kernel_w * c->in_c / 4;
    stream s = {.what = nas__sparse_asks(target, c),
                .bytes = nas__sparse_asks_bytes(target, c, way)};
    s.lines = (int32_t)(s.bytes / LINE / entries) + 1;
    if (s.lines > LINES_MAX) s.lines = LINES_MAX;
    return s;
}

/* ---- lists -------------------------------------------------------------------------------------------------------- */

/* Products of one entry: vectors at s, weights from v[first] on. */
static void emit_products(int32_t group, int32_t vectors, int32_t lanes, int32_t first,
                          nas_buf *out) {
    if (group == 1) { /* each vector is used once: straight from memory */
        nas_buf_printf(out, "        const vf b = splat(v[%d]);\n", first);
        for (int32_t p = 0; p < vectors; p++)
            nas_buf_printf(out, "        MADM(a0_%d, b, s + %d);\n", p, p * lanes);
        return;
    }
    if (group < 4) { /* the weights stay in registers, inputs come one at a time */
        nas_buf_puts(out, "        const vf ");
        for (int32_t g = 0; g < group; g++)
            nas_buf_printf(out, "%sb%d = splat(v[%d])", g > 0 ? ", " : "", g, first + g);
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
        nas_buf_printf(out, "        b = splat(v[%d]);", first + g);
        for (int32_t p = 0; p < vectors; p++)
            nas_buf_printf(out, " MADD(a%d_%d, b, x%d);", g, p, p);
        nas_buf_puts(out, "\n");
    }
}

/* The loop over a list. On AVX-512 multiply-adds are all that two of its ports do in time, and steps of the loop take turns
 * from them: two entries each, whose numbers are those of their vectors (nas__panel_scale). */
static void emit_list(const nas__conv_way *way, const stream *ahead, int32_t vectors, int32_t lanes,
                      nas_buf *out) {
    const int32_t group = way->group;
    const int32_t each = lanes == SIXTEEN ? 2 : 1;
    const int32_t unit = each > 1 ? SCALED : vectors * lanes;
    nas_buf_printf(out,
                   each > 1 ? "    for (; to - i > 1; i += %d, v += %d) {\n"
                            : "    for (; i < to; i += %d, v += %d) {\n",
                   each, each * group);
    for (int32_t k = 0; ahead->what != NAS__ASKS_NONE && k < ahead->lines * each; k++)
        nas_buf_printf(out, "        %s(ahead); ahead += gap;\n", ask_of(ahead->what));
    for (int32_t k = 0; k < each; k++) {
        if (each > 1) nas_buf_puts(out, "        {\n");
        nas_buf_printf(out, "        const float *s = panel + i[%d] * %dL;\n", k, unit);
        emit_products(group, vectors, lanes, k * group, out);
        if (each > 1) nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n");
    if (each == 1) return;
    nas_buf_printf(out, "    if (i < to) {\n        const float *s = panel + i[0] * %dL;\n", unit);
    emit_products(group, vectors, lanes, 0, out);
    nas_buf_puts(out, "    }\n");
}

/* ---- groups -------------------------------------------------------------------------------------------------------- */

/* One group: its sums over the steps in the panel, on top of those of earlier parts. */
static void emit_sums(const nas__conv *c, const nas__conv_way *way, const nas__panel_tiling *t,
                      const stream *ahead, const char *index, const char *name, int32_t vectors,
                      int32_t lanes, nas_buf *out) {
    const int32_t pixels = vectors * lanes, group = way->group;
    const bool staged = nas__panel_staged(way, lanes), joined = way->joined && !staged;
    nas_buf_printf(out,
                   "TILE void %s_sum%d(const float *panel, float *sums, const int *outputs, const "
                   "%s *i, const %s *to,\n    const float *v, const float *head%s%s%s) {\n",
                   name, vectors, index, index,
                   ahead->what != NAS__ASKS_NONE ? ", const char *ahead, long gap" : "",
                   t->parts > 1 ? ", int part" : "",
                   !joined           ? ""
                   : c->has_residual ? ", float *out, const long *place, int n, const float "
                                       "*residual, const long *more"
                                     : ", float *out, const long *place, int n");
    const bool stores = !joined || t->parts > 1;
    for (int32_t g = 0; g < group && stores; g++)
        nas_buf_printf(out,
                       staged ? "    float *const y%d = sums + %d * %d;\n"
                              : "    float *const y%d = sums + outputs[%d] * %d;\n",
                       g, g, pixels);
    if (staged)
        nas_buf_puts(out, "    (void)outputs;\n");
    else if (!stores)
        nas_buf_puts(out, "    (void)sums;\n    (void)outputs;\n");
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
    emit_list(way, ahead, vectors, lanes, out);
    if (joined) {
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
                        const stream *ahead, const nas__sparse_layout *l, const char *name,
                        int32_t vectors, int32_t lanes, nas_buf *out) {
    const bool staged = nas__panel_staged(way, lanes);
    const int32_t blocks = lanes / way->group, pixels = vectors * lanes;
    nas_buf_printf(out, "        for (int g = 0; g < %d; g++, starts++) {\n", t->groups);
    nas_buf_printf(out, "            %s_sum%d(panel, sums", name, vectors);
    if (staged) /* rows of whole vectors of outputs: one after another, or kept for the next part */
        nas_buf_printf(out, t->parts > 1 ? " + g * %d" : " + g %% %d * %d",
                       t->parts > 1 ? way->group * pixels : blocks, way->group * pixels);
    nas_buf_printf(out,
                   ", words + %zu + g * %d, list + starts[0], list + starts[1],\n"
                   "                values + starts[0] * %dL, (const float *)(words + %zu)",
                   l->outputs, way->group, way->group, l->heads);
    if (way->joined) nas_buf_printf(out, " + g * %d", way->group);
    if (ahead->what != NAS__ASKS_NONE)
        nas_buf_printf(out, ", ahead + starts[0] * %d * gap, gap", ahead->lines);
    if (t->parts > 1) nas_buf_puts(out, ", part");
    if (way->joined && !staged) {
        nas_buf_printf(out, ", out + g * %d, to, n", way->group);
        if (c->has_residual) nas_buf_printf(out, ", residual + g * %d, more", way->group);
    }
    nas_buf_puts(out, ");\n");
    if (staged) {
        nas_buf_printf(out, "            if (%s(g %% %d == %d || g == %d))\n",
                       t->parts > 1 ? "last && " : "", blocks, blocks - 1, t->groups - 1);
        nas_buf_printf(out, "                %s_finish%d(sums", name, vectors);
        if (t->parts > 1) nas_buf_printf(out, " + g / %d * %d", blocks, lanes * pixels);
        nas_buf_printf(out, ", (const float *)(words + %zu), out, to%s, n, g / %d * LANES);\n",
                       l->heads, c->has_residual ? ", residual, more" : "", blocks);
    }
    nas_buf_puts(out, "        }\n    }\n");
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
                      const stream *ahead, const nas__code_asks *asks, const nas__sparse_layout *l,
                      const char *name, int32_t lanes, int32_t vectors, nas_buf *out) {
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
    if (ahead->what == NAS__ASKS_PIXELS)
        nas_buf_printf(out, "    const char *const ahead = (const char *)(at[%d] + %d);\n",
                       pixels - 1, c->in_pitch);
    if (ahead->what == NAS__ASKS_OUTPUTS)
        nas_buf_printf(out, "    const char *const ahead = (const char *)(out + to[%d] + %d);\n",
                       pixels - 1, c->out_pitch);
    if (ahead->what != NAS__ASKS_NONE && !code)
        nas_buf_printf(out, "    const long gap = %d / (starts[%d] * %d + 1) + 1;\n", ahead->bytes,
                       t->parts * t->groups, ahead->lines);
    nas_buf_printf(out, "    for (int part = 0; part < %d; part++) {\n", t->parts);
    if (t->parts > 1 && nas__panel_staged(way, lanes))
        nas_buf_printf(out, "        const int last = part == %d;\n", t->parts - 1);
    if (t->parts > 1) {
        nas_buf_printf(out,
                       "        const int k = part * %d;\n"
                       "        %s_gather%d(at, panel, k, k + %d < %d ? k + %d : %d);\n",
                       t->depth, name, vectors, t->depth, steps, t->depth, steps);
    } else {
        nas_buf_printf(out, "        %s_gather%d(at, panel, 0, %d);\n", name, vectors, steps);
    }
    if (code && ahead->what != NAS__ASKS_NONE)
        nas_buf_printf(out,
                       "        %s_code(panel, values, sums, part, passes, ahead + part * %dL);\n"
                       "    }\n",
                       name, asks->lines * LINE * t->groups * vectors / way->pixels);
    else if (code)
        nas_buf_printf(out, "        %s_code(panel, values, sums, part, passes);\n    }\n", name);
    else
        emit_groups(c, way, t, ahead, l, name, vectors, lanes, out);
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

static const char output_ahead[] = "#ifndef AHEAD_TO /* what will be written */\n"
                                   "#define AHEAD_TO(p) __builtin_prefetch(p, 1, 2)\n#endif\n";

/* Are there tiles of one vector less? */
static bool has_narrow(const nas__conv_way *way, const nas__panel_tiling *t) {
    if (t->runs) return way->vectors > 1 && way->algorithm != NAS__CONV_SPARSE_CODE;
    return t->narrow > 0;
}

/* The tiles of rows [begin, end): as even as tiles of two sizes are. */
static void emit_runs(const nas__conv *c, const nas__conv_way *way, const char *name, bool narrow,
                      nas_buf *out) {
    const char *rest = c->has_residual ? ", residual" : "";
    nas_buf_printf(out,
                   "    const int all = (end - begin) * %d, vectors = (all + LANES - 1) / LANES;\n"
                   "    const int tiles = (vectors + %d) / %d;\n",
                   c->out_w, way->vectors - 1, way->vectors);
    if (narrow)
        nas_buf_printf(out, "    const int wide = tiles - (tiles * %d - vectors);\n", way->vectors);
    nas_buf_puts(out, "    for (int t = 0, x = 0; t < tiles; t++) {\n");
    if (narrow)
        nas_buf_printf(out,
                       "        if (t >= wide) {\n            %s_tile%d(in, out%s, weights, "
                       "panel, sums, begin + x / %d, x %% %d, all - x);\n"
                       "            x += %d * LANES;\n            continue;\n        }\n",
                       name, way->vectors - 1, rest, c->out_w, c->out_w, way->vectors - 1);
    nas_buf_printf(out,
                   "        %s_tile%d(in, out%s, weights, panel, sums, begin + x / %d, x %% %d, "
                   "all - x);\n        x += %d * LANES;\n    }\n}\n\n",
                   name, way->vectors, rest, c->out_w, c->out_w, way->vectors);
}

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
    if (t->runs) {
        emit_runs(c, way, name, has_narrow(way, t), out);
        return;
    }
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
    const bool code = way->algorithm == NAS__CONV_SPARSE_CODE;
    const stream ahead = stream_of(target, c, way, &t);
    const nas__code_asks asks =
        code ? nas__sparse_code_asks(target, c, way) : (nas__code_asks){NAS__ASKS_NONE, 0};
    if (way->group == 1) nas_buf_puts(out, memory_products);
    if (ahead.what == NAS__ASKS_OUTPUTS) nas_buf_puts(out, output_ahead);
    nas__turn_emit_helpers(way, lanes, out);
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t vectors = way->vectors - narrow;
        if (narrow ? !has_narrow(way, &t) : t.wide == 0 && !t.runs) continue;
        nas__turn_emit_gather(c, way, name, lanes, vectors, out);
        if (!way->joined || nas__panel_staged(way, lanes))
            nas__turn_emit_finish(c, way, name, lanes, vectors, out);
        if (code)
            nas_buf_printf(out,
                           "extern void %s_code(const float *panel, const float *weights, float "
                           "*sums, int part, int passes%s) __asm__(\"%s_code\");\n",
                           name, ahead.what != NAS__ASKS_NONE ? ", const char *ahead" : "", name);
        else
            emit_sums(c, way, &t, &ahead, nas__sparse_index(&l), name, vectors, lanes, out);
        emit_tile(c, way, &t, &ahead, &asks, &l, name, lanes, vectors, out);
    }
    emit_kernel(c, way, &t, name, lanes, out);
}
