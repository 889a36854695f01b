/* layer_conv_staged_emit.c - text of the kernels with products of bf16 on x86-64; see nas__staged and layer_conv_staged.c.
 *
 * One function stages a strip, one for each size of a tile multiplies and stores its sums, one for each kind of block finishes
 * them: bias is where sums begin, residual and activation come here. Instructions are given, so that no header and no flag
 * are needed. Everything staged lies on whole cache lines for tiles: a load of one whose rows cross lines takes four times as
 * long (measured: 37 cycles, not 8). */
#include "compiler/layer_conv_internal.h"
#include "compiler/tile_registers.h"

#include <stdio.h>

static const char stage_helpers[] =
    "#ifndef BF16_STAGED\n#define BF16_STAGED\n"
    "typedef short bf16_32 __attribute__((vector_size(64)));\n"
    "typedef short bf16_16 __attribute__((vector_size(32)));\n"
    "typedef bf16_32 bf16_32_anywhere __attribute__((aligned(2), may_alias));\n"
    "typedef bf16_16 bf16_16_anywhere __attribute__((aligned(2), may_alias));\n"
    "typedef unsigned bf16_pair __attribute__((may_alias));\n"
    "HELPER void bf16_put(char *t, vf low, vf high) { /* to nearest, even */\n"
    "    bf16_32 v;\n"
    "    __asm__(\"vcvtne2ps2bf16 %1, %2, %0\" : \"=v\"(v) : \"v\"(low), \"v\"(high));\n"
    "    *(bf16_32_anywhere *)(void *)t = v;\n}\n"
    "HELPER void bf16_put_half(char *t, vf low) {\n"
    "    bf16_16 v;\n"
    "    __asm__(\"vcvtneps2bf16 %1, %0\" : \"=v\"(v) : \"v\"(low));\n"
    "    *(bf16_16_anywhere *)(void *)t = v;\n}\n"
    "HELPER void bf16_zero(char *t) {\n"
    "    *(bf16_16_anywhere *)(void *)t = (bf16_16){0};\n}\n"
    "#define BF16_DOT(a, x, b) \\\n"
    "    __asm__(\"vdpbf16ps %2, %1, %0\" : \"+v\"(a) : \"v\"(x), \"v\"(b))\n"
    "/* Eight tiles of 16 rows of 64 bytes. */\n"
    "static const unsigned char bf16_tiles[64] __attribute__((aligned(64), unused)) = {\n"
    "    1,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 64, 0, 64, 0, 64, 0, 64, 0,\n"
    "    64, 0, 64, 0, 64, 0, 64, 0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0,\n"
    "    16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0};\n"
    "#define T_LOAD(t, p, row) \\\n"
    "    __asm__ volatile(\"tileloadd (%0,%1,1), %%tmm\" #t : : \"r\"(p), \"r\"((long)(row)) : "
    "\"memory\")\n"
    "#define T_STORE(t, p, row) \\\n"
    "    __asm__ volatile(\"tilestored %%tmm\" #t \", (%0,%1,1)\" : : \"r\"(p), \"r\"((long)(row)) "
    ": "
    "\"memory\")\n"
    "#define T_MADD(c, a, b) __asm__ volatile(\"tdpbf16ps %%tmm\" #b \", %%tmm\" #a \", %%tmm\" #c "
    ": : )\n"
    "#endif\n";

/* What comes from beyond L2 is asked for ahead: weights by the steps, and where the results of the next unit go by those of
 * this one. To ask for residuals, or for weights that many strips use, made it slower. */
typedef struct staged {
    const nas__conv *c;
    bool far_weights, far_results;
    const nas__conv_way *way;
    nas__staged s;
    nas__conv_blocks blocks;
    const char *name;
} staged;

enum { LINE = 64, AHEAD = 8192 }; /* bytes */

static bool is_tile(const staged *d) {
    return d->way->algorithm == NAS__CONV_BF16_TILE;
}

static int32_t position_bytes(const staged *d) {
    return d->s.depth * (int32_t)sizeof(uint16_t);
}

static int32_t channels_of(const nas__conv_kind *kind) {
    return (kind->vectors - 1) * 16 + kind->last;
}

/* ---- staging ----------------------------------------------------------------------------------------------------------- */

/* `length` values from a + from to t + to bytes; what a store writes beyond them is written again or zero. Returns where
 * the last store ends. */
static int32_t emit_piece(int32_t length, size_t from, int32_t to, nas_buf *out) {
    enum { UNROLLED = 4 };
    const int32_t whole = length / 32, rest = length % 32;
    const char *indent = "            ";
    if (whole > UNROLLED)
        nas_buf_printf(out,
                       "%sfor (long i = 0; i < %d; i += 32)\n"
                       "%s    bf16_put(t + %d + 2 * i, load(a + %zu + i), load(a + %zu + i));\n",
                       indent, whole * 32, indent, to, from, from + 16);
    for (int32_t i = 0; i < whole && whole <= UNROLLED; i++)
        nas_buf_printf(out, "%sbf16_put(t + %d, load(a + %zu), load(a + %zu));\n", indent,
                       to + 64 * i, from + (size_t)(32 * i), from + (size_t)(32 * i + 16));
    from += (size_t)(32 * whole);
    to += 64 * whole;
    if (rest > 16)
        nas_buf_printf(out, "%sbf16_put(t + %d, load(a + %zu), load_n(a + %zu, %d));\n", indent, to,
                       from, from + 16, rest - 16);
    else if (rest == 16)
        nas_buf_printf(out, "%sbf16_put_half(t + %d, load(a + %zu));\n", indent, to, from);
    else if (rest > 0)
        nas_buf_printf(out, "%sbf16_put_half(t + %d, load_n(a + %zu, %d));\n", indent, to, from,
                       rest);
    return to + (rest > 16 ? 64 : rest > 0 ? 32 : 0);
}

/* One position at `t` from `a`, its first value. */
static void emit_position(const staged *d, nas_buf *out) {
    const nas__conv *c = d->c;
    const bool joined = c->in_pitch == c->in_c && c->dilation_w == 1;
    const int32_t rows = c->kernel_h / d->s.taps_h, columns = c->kernel_w / d->s.taps_w;
    const int32_t pieces = joined ? 1 : columns, length = d->s.run / rows / pieces;
    int32_t end = 0;
    for (int32_t y = 0; y < rows; y++) {
        for (int32_t x = 0; x < pieces; x++)
            end = emit_piece(length,
                             (size_t)(y * c->dilation_h) * c->in_row +
                                 (size_t)(x * c->dilation_w * c->in_pitch),
                             (y * pieces + x) * length * 2, out);
    }
    for (; end < position_bytes(d); end += 32)
        nas_buf_printf(out, "            bf16_zero(t + %d);\n", end);
}

static void emit_plane(const staged *d, int32_t y, int32_t x, nas_buf *out) {
    const nas__conv *c = d->c;
    const int32_t step = c->stride_w * c->in_pitch,
                  n = c->out_w + nas__staged_tap_columns(c, &d->s, x);
    nas_buf_printf(out,
                   "    for (long y = 0; y < rows + %d; y++) {\n"
                   "        const float *a = in + y * %zu + %zu;\n"
                   "        char *t = s + %zu + y * %zu;\n",
                   nas__staged_tap_rows(c, &d->s, y), (size_t)c->stride_h * c->in_row,
                   (size_t)(y * c->dilation_h % c->stride_h) * c->in_row +
                       (size_t)(x * c->dilation_w % c->stride_w * c->in_pitch),
                   (size_t)(y * d->s.phases_w + x) * d->s.plane,
                   (size_t)d->s.width * (size_t)position_bytes(d));
    if (d->s.run == step && d->s.run == c->in_c && step == d->s.depth && step % 32 == 0) {
        nas_buf_printf(out,
                       "        for (long i = 0; i < %d; i += 32)\n"
                       "            bf16_put(t + 2 * i, load(a + i), load(a + i + 16));\n    }\n",
                       n * step);
        return;
    }
    nas_buf_printf(out, "        for (long x = 0; x < %d; x++, a += %d, t += %d) {\n", n, step,
                   position_bytes(d));
    emit_position(d, out);
    nas_buf_puts(out, "        }\n    }\n");
}

static void emit_stage(const staged *d, nas_buf *out) {
    nas_buf_printf(out, "TILE void %s_stage(const float *in, char *s, long rows) {\n", d->name);
    for (int32_t y = 0; y < d->s.phases_h; y++) {
        for (int32_t x = 0; x < d->s.phases_w; x++)
            emit_plane(d, y, x, out);
    }
    nas_buf_puts(out, "}\n");
}

/* Where each tap begins, in bytes from the staged input of a position. */
static void emit_taps(const staged *d, nas_buf *out) {
    const nas__staged *s = &d->s;
    nas_buf_printf(out, "static const int %s_taps[%d] = {", d->name, s->taps_h * s->taps_w);
    for (int32_t i = 0; i < s->taps_h * s->taps_w; i++)
        nas_buf_printf(out, "%s%zu", i > 0 ? ", " : "",
                       nas__staged_first(d->c, s, i / s->taps_w, i % s->taps_w));
    nas_buf_puts(out, "};\n");
}

/* ---- products ---------------------------------------------------------------------------------------------------------- */

static nas__tiles tiles_of(const staged *d) {
    return nas__tiles_of(d->way->pixels / d->s.unit, d->blocks.vectors);
}

static void load_text(const void *arg, bool pixels, int32_t k, int32_t into, nas_buf *out) {
    const staged *d = arg;
    nas_buf_printf(out, "            T_LOAD(%d, %s + %d, %d);\n", into, pixels ? "a" : "w",
                   pixels ? k * 16 * position_bytes(d) : k * 1024, pixels ? position_bytes(d) : 64);
}

static void multiply_text(const void *arg, int32_t sum, int32_t pixels, int32_t outputs,
                          nas_buf *out) {
    (void)arg;
    nas_buf_printf(out, "            T_MADD(%d, %d, %d);\n", sum, pixels, outputs);
}

static void emit_tile_step(const staged *d, int32_t units, int32_t vectors, nas_buf *out) {
    static const nas__tiles_text text = {load_text, multiply_text};
    const nas__tiles t = tiles_of(d);
    nas__tiles_step(&t, &text, d, units, vectors, out);
}

static void emit_dot_step(const staged *d, int32_t pixels, int32_t vectors, nas_buf *out) {
    nas_buf_puts(out, "            const vf ");
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, "%sb%d = load((const float *)(const void *)w + %d)", v > 0 ? ", " : "",
                       v, v * 16);
    nas_buf_puts(out, ";\n            vi x;\n");
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_printf(out,
                       "            x = (int)*(const bf16_pair *)(const void *)(a + %d) - (vi){0};",
                       p * position_bytes(d));
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, " BF16_DOT(a%d_%d, x, b%d);", p, v, v);
        nas_buf_puts(out, "\n");
    }
}

/* Bias in all sums. */
static void emit_start(const staged *d, int32_t units, int32_t vectors, nas_buf *out) {
    for (int32_t i = 0; i < units; i++) {
        for (int32_t v = 0; v < vectors && is_tile(d); v++)
            nas_buf_printf(out, "    T_LOAD(%d, w + %d, 0);\n", i * d->blocks.vectors + v, v * 64);
        if (is_tile(d)) continue;
        nas_buf_puts(out, "    vf ");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%sa%d_%d = load((const float *)(const void *)w + %d)",
                           v > 0 ? ", " : "", i, v, v * 16);
        nas_buf_puts(out, ";\n");
    }
}

static void emit_sums(const staged *d, int32_t units, int32_t vectors, nas_buf *out) {
    for (int32_t i = 0; i < units; i++) {
        for (int32_t v = 0; v < vectors; v++) {
            if (is_tile(d))
                nas_buf_printf(out, "    T_STORE(%d, sums + %d, %d);\n", i * d->blocks.vectors + v,
                               (i * 16 * vectors + v) * 16, vectors * 64);
            else
                nas_buf_printf(out, "    store(sums + %d, a%d_%d);\n", (i * vectors + v) * 16, i,
                               v);
        }
    }
}

/* `units` registers of positions from `s` on. */
static void emit_products(const staged *d, int32_t units, const nas__conv_kind *kind,
                          nas_buf *out) {
    const int32_t vectors = kind->vectors, bytes = vectors * 32 * d->s.step;
    nas_buf_printf(out,
                   "/* %d positions, %d channels */\n"
                   "TILE void %s_%d_%d(const char *s, float *sums, const char *w) {\n",
                   units * d->s.unit, channels_of(kind), d->name, units, channels_of(kind));
    emit_start(d, units, vectors, out);
    nas_buf_printf(out,
                   "    w += %d;\n"
                   "    for (int tap = 0; tap < %d; tap++) {\n"
                   "        const char *a = s + %s_taps[tap];\n"
                   "        for (int k = 0; k < %d; k++, a += %d, w += %d) {\n",
                   nas__conv_heads(d->c) * vectors * 64, d->s.taps_h * d->s.taps_w, d->name,
                   d->s.depth / d->s.step, d->s.step * 2, bytes);
    if (is_tile(d))
        emit_tile_step(d, units, vectors, out);
    else
        emit_dot_step(d, units, vectors, out);
    for (int32_t i = 0; i < bytes && d->far_weights; i += LINE)
        nas_buf_printf(out, "%sAHEAD(w + %d);%s", i / LINE % 4 == 0 ? "            " : " ",
                       AHEAD + i, i / LINE % 4 == 3 || i + LINE >= bytes ? "\n" : "");
    nas_buf_puts(out, "        }\n    }\n");
    emit_sums(d, units, vectors, out);
    nas_buf_puts(out, "}\n");
}

/* ---- results ----------------------------------------------------------------------------------------------------------- */

/* One pixel from `sums` to `o`. */
static void emit_pixel(const staged *d, const nas__conv_kind *kind, nas_buf *out) {
    for (int32_t v = 0; v < kind->vectors && d->far_results; v++)
        nas_buf_printf(out, "            AHEAD(o + next + %d);\n", v * 16);
    for (int32_t v = 0; v < kind->vectors; v++) {
        const bool partial = v + 1 == kind->vectors && kind->last < 16;
        char value[96], slope[32], count[16] = "";
        if (partial) (void)snprintf(count, sizeof count, ", %d", kind->last);
        if (d->c->has_residual)
            (void)snprintf(value, sizeof value, "load(sums + %d) + %s(r + %d%s)", v * 16,
                           partial ? "load_n" : "load", v * 16, count);
        else
            (void)snprintf(value, sizeof value, "load(sums + %d)", v * 16);
        (void)snprintf(slope, sizeof slope, "slope + %d", v * 16);
        nas_buf_printf(out, "            %s(o + %d, ", partial ? "store_n" : "store", v * 16);
        nas__conv_finish(d->c, value, slope, out);
        nas_buf_printf(out, "%s);\n", count);
    }
}

/* n positions from position `at` of the strip on: pixels, and what lies between the rows of the output. */
static void emit_finish(const staged *d, const nas__conv_kind *kind, nas_buf *out) {
    const nas__conv *c = d->c;
    const bool residual = c->has_residual;
    nas_buf_printf(
        out,
        "TILE void %s_finish_%d(const float *sums, long at, long n, float *out%s%s%s) {\n"
        "    for (const long end = at + n; at < end;) {\n"
        "        const long y = at / %d, x = at %% %d;\n"
        "        const long last = y * %d + %d < end ? y * %d + %d : end;\n"
        "        float *o = out + y * %zu + x * %d;\n",
        d->name, channels_of(kind), residual ? ", const float *residual" : "",
        c->act == NAS__LACT_PRELU ? ", const float *slope" : "",
        d->far_results ? ", long next" : "", d->s.width, d->s.width, d->s.width, c->out_w,
        d->s.width, c->out_w, c->out_row, c->out_pitch);
    if (residual)
        nas_buf_printf(out, "        const float *r = residual + y * %zu + x * %d;\n",
                       c->residual_row, c->residual_pitch);
    nas_buf_printf(out, "        for (; at < last; at++, sums += %d, o += %d", kind->vectors * 16,
                   c->out_pitch);
    if (residual) nas_buf_printf(out, ", r += %d", c->residual_pitch);
    nas_buf_puts(out, ") {\n");
    emit_pixel(d, kind, out);
    nas_buf_puts(out, "        }\n");
    if (d->s.width > c->out_w) {
        nas_buf_printf(out,
                       "        const long next = (y + 1) * %d;\n"
                       "        sums += (next - at) * %d, at = next;\n",
                       d->s.width, kind->vectors * 16);
    }
    nas_buf_puts(out, "    }\n}\n");
}

/* ---- kernels ----------------------------------------------------------------------------------------------------------- */

enum { PLACES = 3 }; /* where a size may be used */

/* The sizes of tiles that occur, in registers of positions: whole ones and what a strip leaves, each once. */
static int32_t sizes_of(const staged *d, int32_t sizes[PLACES]) {
    const int32_t most = d->way->pixels / d->s.unit;
    int32_t n = 0;
    for (int32_t i = 0; i < PLACES; i++) {
        const int32_t rows = i == 2 ? d->s.last_rows : d->s.rows;
        const int32_t units =
            (nas__staged_positions(d->c, &d->s, rows) + d->s.unit - 1) / d->s.unit;
        int32_t size = i == 0 ? most : units % most;
        if (i == 0 && units < most && d->s.strips == 1) size = 0;
        for (int32_t k = 0; k < n; k++)
            size = sizes[k] == size ? 0 : size;
        if (size > 0) sizes[n++] = size;
    }
    return n;
}

/* All tiles of a strip for the blocks of one kind. */
static void emit_strip(const staged *d, const nas__conv_kind *kind, nas_buf *out) {
    const nas__conv *c = d->c;
    const char *rest = c->has_residual ? ", r" : "";
    const int32_t per_output = nas__conv_heads(c) + nas__staged_floats(c, d->way);
    const int32_t wide = kind->vectors * 16;
    int32_t sizes[PLACES] = {0};
    const int32_t n_sizes = sizes_of(d, sizes);
    nas_buf_printf(out,
                   "        if (block >= %d && block < %d) {\n"
                   "            const long first = %d + (block - %d) * %d;\n"
                   "            const char *w = (const char *)weights + first * %d;\n"
                   "            float *o = out + y * %zu + first;\n",
                   kind->from, kind->to, nas__conv_block_first(&d->blocks, kind->from), kind->from,
                   wide, per_output * 4, c->out_row);
    if (c->has_residual)
        nas_buf_printf(out, "            const float *r = residual + y * %zu + first;\n",
                       c->residual_row);
    if (d->far_results)
        nas_buf_printf(out, "            const long next = block < %d ? %d : rows * %zu - first;\n",
                       d->blocks.count - 1, wide, c->out_row);
    nas_buf_printf(out,
                   "            for (long at = 0; at < positions; at += %d) {\n"
                   "                const long n = positions - at < %d ? positions - at : %d;\n"
                   "                const char *s = staged + at * %d;\n"
                   "                switch ((n + %d) / %d) {\n",
                   d->way->pixels, d->way->pixels, d->way->pixels, position_bytes(d), d->s.unit - 1,
                   d->s.unit);
    for (int32_t i = 0; i < n_sizes; i++)
        nas_buf_printf(out, "                case %d: %s_%d_%d(s, sums, w); break;\n", sizes[i],
                       d->name, sizes[i], channels_of(kind));
    nas_buf_printf(out,
                   "                }\n"
                   "                %s_finish_%d(sums, at, n, o%s",
                   d->name, channels_of(kind), rest);
    if (c->act == NAS__LACT_PRELU)
        nas_buf_printf(out, ", (const float *)(const void *)w + %d", wide);
    if (d->far_results) nas_buf_puts(out, ", next");
    nas_buf_puts(out, ");\n            }\n        }\n");
}

static void emit_kernel(const staged *d, nas_buf *out) {
    const nas__conv *c = d->c;
    const nas__staged *s = &d->s;
    nas_buf_printf(out,
                   "KERNEL void %s(const float *in, float *out, const float *residual,\n"
                   "    const void *weights, void *scratch, int begin, int end) {\n"
                   "    float *const sums = scratch;\n"
                   "    char *const staged = (char *)scratch + %zu;\n"
                   "    long before = -1;\n    (void)residual;\n",
                   d->name, s->staged_at);
    if (is_tile(d))
        nas_buf_puts(out, "    __asm__ volatile(\"ldtilecfg %0\" : : \"m\"(bf16_tiles));\n");
    nas_buf_printf(out,
                   "    for (int u = begin; u < end; u++) {\n"
                   "        const long strip = u / %d, block = u %% %d, y = strip * %d;\n"
                   "        const long rows = strip < %d ? %d : %d;\n"
                   "        const long positions = (rows - 1) * %d + %d;\n"
                   "        if (strip != before) %s_stage(in + y * %zu, staged, rows);\n"
                   "        before = strip;\n",
                   d->blocks.count, d->blocks.count, s->rows, s->strips - 1, s->rows, s->last_rows,
                   s->width, c->out_w, d->name, (size_t)c->stride_h * c->in_row);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&d->blocks, i);
        if (kind.from < kind.to) emit_strip(d, &kind, out);
    }
    nas_buf_puts(out, "    }\n");
    if (is_tile(d)) nas_buf_puts(out, "    __asm__ volatile(\"tilerelease\");\n");
    nas_buf_puts(out, "}\n\n");
}

void nas__staged_emit(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                      const char *name, nas_buf *out) {
    staged d = {.c = c, .way = way, .s = nas__staged_of(c, way), .name = name};
    d.blocks = nas__conv_block(target, c, way->vectors);
    d.far_weights = nas__staged_far_weights(target, c, way);
    d.far_results = nas__staged_far_results(target, c);
    int32_t sizes[PLACES] = {0};
    const int32_t n_sizes = sizes_of(&d, sizes);
    nas_buf_puts(out, stage_helpers);
    emit_stage(&d, out);
    emit_taps(&d, out);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&d.blocks, i);
        if (kind.from >= kind.to) continue;
        for (int32_t k = 0; k < n_sizes; k++)
            emit_products(&d, sizes[k], &kind, out);
        emit_finish(&d, &kind, out);
    }
    emit_kernel(&d, out);
}
