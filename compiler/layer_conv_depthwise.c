/* layer_conv_depthwise.c - depthwise convolution: lanes are channels, a run of pixels of one row in registers. An input
 * pixel is loaded once for each kernel row and multiplied into every output pixel of the run that sees it. */
#include "compiler/layer_conv_internal.h"

#include <stdio.h>

enum { CHUNK = 8 };

int32_t nas__conv_depthwise_chunk(void) {
    return CHUNK;
}

/* One vector of channels (`last` lanes of it) for `columns` pixels. */
static void emit_tile(const nas__conv *c, const char *name, bool sve, int32_t lanes,
                      int32_t columns, int32_t last, nas_buf *out) {
    const bool partial = last < lanes;
    char count[16] = "";
    if (partial) (void)snprintf(count, sizeof count, ", %d", last);
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "HELPER void %s_%d_%d(const float *in, float *out%s, const float *w) {\n",
                   columns, last, name, columns, last,
                   c->has_residual ? ", const float *residual" : "");
    if (sve) {
        nas__sve_emit_run(c, lanes, columns, last, out);
        return;
    }
    nas_buf_puts(out, "    vf a0 = load(w)");
    for (int32_t p = 1; p < columns; p++)
        nas_buf_printf(out, ", a%d = a0", p);
    nas_buf_puts(out, ";\n");
    if (c->act == NAS__LACT_PRELU) nas_buf_printf(out, "    const float *slope = w + %d;\n", lanes);
    nas_buf_printf(out, "    w += %d;\n", nas__conv_heads(c) * lanes);
    nas_buf_printf(out,
                   "    const float *s = in;\n"
                   "    for (int y = 0; y < %d; y++, s += %zu, w += %d) {\n        const vf ",
                   c->kernel_h, (size_t)c->dilation_h * c->in_row, c->kernel_w * lanes);
    for (int32_t k = 0; k < c->kernel_w; k++)
        nas_buf_printf(out, "%sw%d = load(w + %d)", k > 0 ? ", " : "", k, k * lanes);
    nas_buf_puts(out, ";\n        vf x;\n");
    const int32_t span = (columns - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
    for (int32_t i = 0; i < span; i++) {
        bool loaded = false;
        for (int32_t k = 0; k < c->kernel_w; k++) {
            const int32_t start = i - k * c->dilation_w;
            if (start < 0 || start % c->stride_w != 0 || start / c->stride_w >= columns) continue;
            if (!loaded) {
                nas_buf_printf(out, "        x = %s(s + %d%s);", partial ? "load_n" : "load",
                               i * c->in_pitch, count);
                loaded = true;
            }
            nas_buf_printf(out, " MADD(a%d, x, w%d);", start / c->stride_w, k);
        }
        if (loaded) nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "    }\n");
    for (int32_t p = 0; p < columns; p++) {
        char value[120];
        (void)snprintf(value, sizeof value, "a%d", p);
        if (c->has_residual) {
            (void)snprintf(value, sizeof value, "a%d + %s(residual + %d%s)", p,
                           partial ? "load_n" : "load", p * c->residual_pitch, count);
        }
        nas_buf_printf(out, "    %s(out + %d, ", partial ? "store_n" : "store", p * c->out_pitch);
        nas__conv_finish(c, value, "slope", out);
        nas_buf_printf(out, "%s);\n", count);
    }
    nas_buf_puts(out, "}\n");
}

void nas__conv_depthwise_emit(const nas_target *target, const nas__conv *c,
                              const nas__conv_way *way, const char *name, nas_buf *out) {
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const int32_t lanes = target->vector_bytes / 4, whole = c->out_c / lanes,
                  rest = c->out_c % lanes;
    const int32_t vectors = whole + (rest > 0), chunks = (vectors + CHUNK - 1) / CHUNK;
    const int32_t steps = (nas__conv_heads(c) + c->kernel_h * c->kernel_w) * lanes;
    const bool sve = way->algorithm == NAS__CONV_SVE_DEPTHWISE;
    char distance[16] = "LANES"; /* from one vector of channels to the next */
    if (sve) {
        (void)snprintf(distance, sizeof distance, "%d", lanes);
        nas__sve_emit_helpers(out);
    }
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        if ((narrow ? t.narrow : t.wide) == 0) continue;
        if (whole > 0) emit_tile(c, name, sve, lanes, t.columns - narrow, lanes, out);
        if (rest > 0) emit_tile(c, name, sve, lanes, t.columns - narrow, rest, out);
    }
    nas_buf_printf(out,
                   "KERNEL void %s(const float *in, float *out, const float *residual,\n"
                   "    const void *weights, void *scratch, int begin, int end) {\n"
                   "    (void)residual; (void)scratch;\n"
                   "    for (int u = begin; u < end; u++) {\n"
                   "        const long y = u / %d, first = u %% %d * %d;\n",
                   name, chunks, chunks, CHUNK);
    nas_buf_printf(out, "        const long limit = first + %d < %d ? first + %d : %d;\n", CHUNK,
                   vectors, CHUNK, vectors);
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t columns = t.columns - narrow, n = narrow ? t.narrow : t.wide;
        if (n == 0) continue;
        nas_buf_printf(out,
                       "        for (long t = 0; t < %d; t++) {\n"
                       "            const long x = %d + t * %d;\n",
                       n, narrow ? t.wide * t.columns : 0, columns);
        nas_buf_printf(out, "            const float *s = in + y * %zu + x * %d;\n",
                       (size_t)c->stride_h * c->in_row, c->stride_w * c->in_pitch);
        nas_buf_printf(out, "            float *o = out + y * %zu + x * %d;\n", c->out_row,
                       c->out_pitch);
        if (c->has_residual) {
            nas_buf_printf(out, "            const float *r = residual + y * %zu + x * %d;\n",
                           c->residual_row, c->residual_pitch);
        }
        nas_buf_puts(out, "            for (long v = first; v < limit; v++) {\n"
                          "                const float *w = (const float *)weights + v * ");
        nas_buf_printf(out, "%d;\n", steps);
        for (int32_t k = 0; k < 2; k++) {
            if (k == 0 ? whole == 0 : rest == 0) continue;
            nas_buf_printf(out, "                if (v %s %d) ", k == 0 ? "<" : "==", whole);
            nas_buf_printf(out, "%s_%d_%d(s + v * %s, o + v * %s", name, columns,
                           k == 0 ? lanes : rest, distance, distance);
            if (c->has_residual) nas_buf_printf(out, ", r + v * %s", distance);
            nas_buf_puts(out, ", w);\n");
        }
        nas_buf_puts(out, "            }\n        }\n");
    }
    nas_buf_puts(out, "    }\n}\n\n");
}
