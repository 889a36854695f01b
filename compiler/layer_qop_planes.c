/* layer_qop_planes.c - the two ends of a network whose codes lie in planes, see layer_qconv_pixels.c: from the caller's image,
 * and back to it. A word holds four channels of a pixel, so both move whole vectors. */
#include "compiler/layers_q_internal.h"

enum { GROUP = 4, LANES = 16 };

/* The words of `n` pixels at x, whose codes are q0, q1 ...: channels c to c + channels. */
void nas__qop_emit_words(const nas__qop *op, int32_t channels, nas_buf *out) {
    nas_buf_puts(out, "                const vi w = (q0 & 255)");
    for (int32_t k = 1; k < channels; k++)
        nas_buf_printf(out, k == 3 ? " | q%d << %d" : " | (q%d & 255) << %d", k, 8 * k);
    nas_buf_printf(out,
                   ";\n                unsigned char *const words = o + (long)(c / %d) * %zu + 4 * "
                   "(long)x;\n"
                   "                if (n == LANES) __builtin_memcpy(words, &w, sizeof w);\n"
                   "                else __builtin_memcpy(words, &w, 4 * (unsigned)n);\n",
                   (int)GROUP, op->out.plane);
}

/* Value of channel c of the pixels from x on, as vector v<k>. */
static void emit_value(const nas__qop *op, int32_t c, int32_t k, nas_buf *out) {
    const int32_t at = c % GROUP * 8;
    nas_buf_printf(out,
                   "            const vi w%d = q_i32(p + %zu + 4 * x);\n"
                   "            const vf v%d = __builtin_convertvector(",
                   k, (size_t)(c / GROUP) * op->in[0].plane, k);
    if (op->in_signed[0])
        nas_buf_printf(out, "(w%d << %d >> 24)", k, 24 - at);
    else
        nas_buf_printf(out, "((w%d >> %d) & 255)", k, at);
    nas_buf_printf(out, " - h[%d], vf) * scale;\n", (int)NAS__Q_ZERO_IN);
}

/* Vector `part` of `r` vectors whose lanes take turns: v0[0], v1[0] .. v0[1] .. */
static void emit_woven(int32_t r, int32_t part, nas_buf *out) {
    nas_buf_printf(out, "            const vf t%d_0 = v0;\n", part);
    for (int32_t k = 1; k < r; k++) {
        nas_buf_printf(out, "            const vf t%d_%d = Q_WEAVE(t%d_%d, v%d", part, k, part,
                       k - 1, k);
        for (int32_t i = 0; i < LANES; i++) {
            const int32_t from = (part * LANES + i) % r, lane = (part * LANES + i) / r;
            nas_buf_printf(out, ", %d", from == k ? LANES + lane : k == 1 ? lane : i);
        }
        nas_buf_puts(out, ");\n");
    }
}

/* Rows of the output that come from one row of codes: channels of a colour take turns along it. */
void nas__qop_emit_dequantize_planes(const nas__qop *op, nas_buf *out) {
    const nas_shape s = op->in[0].shape;
    const int32_t r = op->block > 1 ? op->block : 1;
    const size_t width = (size_t)s.w * (size_t)r;
    nas_buf_printf(out,
                   "        const vf scale = splat(*(const q_float *)&h[%d]);\n"
                   "        const unsigned char *p = (const unsigned char *)in + (long)y * %zu;\n"
                   "        for (long first = 0; first < %d; first += LANES) {\n"
                   "            const long x = first + LANES <= %d ? first : %d;\n",
                   NAS__Q_SCALE, op->in[0].row, s.w, s.w, s.w - LANES);
    for (int32_t c = 0; c < s.c; c += r) {
        nas_buf_printf(out,
                       "            {\n            float *const o = (float *)out + %zu + (long)y * "
                       "%zu + x * %d;\n",
                       (size_t)(c / (r * r)) * (size_t)s.h * (size_t)r * width +
                           (size_t)(c / r % r) * width,
                       (size_t)r * width, r);
        for (int32_t k = 0; k < r; k++)
            emit_value(op, c + k, k, out);
        for (int32_t part = 0; part < r; part++) {
            emit_woven(r, part, out);
            nas_buf_printf(out, "            store(o + %d, t%d_%d);\n", part * LANES, part, r - 1);
        }
        nas_buf_puts(out, "            }\n");
    }
    nas_buf_puts(out, "        }\n");
}
