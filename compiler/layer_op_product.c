/* layer_op_product.c - matrix products of two values, and transposed convolutions. */
#include "compiler/layer_op_internal.h"

#include <stdio.h>

enum { BLOCK = 4 }; /* vectors of outputs at a time */

/* ---- matmul ------------------------------------------------------------------------------------------------------- */

/* Vectors [first, first + n) of one row of the product; `rest` lanes in the last one, 0 when it is whole. */
static void emit_block(const nas__op *op, int32_t lanes, int32_t first, int32_t n, int32_t rest,
                       nas_buf *out) {
    nas_buf_puts(out, "        {\n            vf ");
    for (int32_t v = 0; v < n; v++)
        nas_buf_printf(out, "%ss%d = splat(0)", v > 0 ? ", " : "", v);
    nas_buf_printf(out,
                   ";\n            for (long k = 0; k < %d; k++) {\n"
                   "                const vf a = splat(i[k]);\n",
                   op->in[0].shape.c);
    for (int32_t v = 0; v < n; v++) {
        char count[16] = "";
        if (rest > 0 && v + 1 == n) (void)snprintf(count, sizeof count, ", %d", rest);
        nas_buf_printf(out, "                s%d += a * %s(r + k * %d + %d%s);\n", v,
                       count[0] != '\0' ? "load_n" : "load", op->in[1].pitch, (first + v) * lanes,
                       count);
    }
    nas_buf_puts(out, "            }\n");
    for (int32_t v = 0; v < n; v++) {
        char count[16] = "";
        if (rest > 0 && v + 1 == n) (void)snprintf(count, sizeof count, ", %d", rest);
        nas_buf_printf(out, "            %s(o + %d, s%d%s);\n",
                       count[0] != '\0' ? "store_n" : "store", (first + v) * lanes, v, count);
    }
    nas_buf_puts(out, "        }\n");
}

/* [k][columns]: a row of b is a run of outputs; it has to be dense in columns, which b.shape.w rows of b are. */
static void emit_plain(const nas__op *op, int32_t lanes, nas_buf *out) {
    const int32_t columns = op->out.shape.c, vectors = (columns + lanes - 1) / lanes;
    for (int32_t first = 0; first < vectors; first += BLOCK) {
        const int32_t n = vectors - first < BLOCK ? vectors - first : BLOCK;
        emit_block(op, lanes, first, n, first + n == vectors ? columns % lanes : 0, out);
    }
}

/* [columns][k]: every output is a product of two rows. */
static void emit_transposed(const nas__op *op, int32_t lanes, nas_buf *out) {
    const int32_t depth = op->in[0].shape.c, whole = depth / lanes * lanes;
    nas_buf_printf(out,
                   "        for (long c = 0; c < %d; c++) {\n"
                   "            const float *b = r + c * %d;\n"
                   "            vf s = splat(0);\n"
                   "            for (long k = 0; k < %d; k += LANES) s += load(i + k) * load(b + "
                   "k);\n",
                   op->out.shape.c, op->in[1].pitch, whole);
    if (whole < depth) {
        nas_buf_printf(out, "            s += load_n(i + %d, %d) * load_n(b + %d, %d);\n", whole,
                       depth - whole, whole, depth - whole);
    }
    nas_buf_puts(out, "            o[c] = vsum(s);\n        }\n");
}

/* One unit: one row of one product. The columns of b lie in its w axis (plain: rows k), so one stride serves both. */
static void emit_matmul(const nas_target *target, const nas__op *op, nas_buf *out) {
    nas_buf_printf(out,
                   "    for (long u = begin; u < end; u++) {\n"
                   "        const long y = u / %d, x = u %% %d;\n"
                   "        const float *i = in + y * %zu + x * %d, *r = residual + y * %zu;\n"
                   "        float *o = out + y * %zu + x * %d;\n",
                   op->out.shape.w, op->out.shape.w, op->in[0].row, op->in[0].pitch,
                   op->in[1].shape.h > 1 ? op->in[1].row : 0, op->out.row, op->out.pitch);
    if (op->node->transpose_b) {
        emit_transposed(op, target->vector_bytes / 4, out);
    } else {
        emit_plain(op, target->vector_bytes / 4, out);
    }
    nas_buf_puts(out, "    }\n");
}

/* ---- transposed convolution --------------------------------------------------------------------------------------- */

/* Taps of one axis that meet a pixel of the input: out = in * stride + tap * dilation - pad. */
static void emit_tap(const char *axis, int32_t kernel, int32_t stride, int32_t dilation,
                     int32_t pad, int32_t extent, const char *indent, nas_buf *out) {
    nas_buf_printf(out,
                   "%sfor (long k%s = 0; k%s < %d; k%s++) {\n"
                   "%s    const long t%s = %s + %d - k%s * %d;\n"
                   "%s    if (t%s < 0 || t%s %% %d != 0 || t%s / %d >= %d) continue;\n",
                   indent, axis, axis, kernel, axis, indent, axis, axis, pad, axis, dilation,
                   indent, axis, axis, stride, axis, stride, extent);
}

/* The sum that reaches each pixel of the output, gathered: vectors over output channels, BLOCK at a time. */
static void emit_transpose_conv(const nas_target *target, const nas__op *op, nas_buf *out) {
    const nas_conv_attributes *c = &op->node->conv;
    const nas_shape *in = &op->in[0].shape, *s = &op->out.shape;
    const int32_t lanes = target->vector_bytes / 4, vectors = (s->c + lanes - 1) / lanes;
    nas_buf_printf(out,
                   "    for (long y = begin; y < end; y++) {\n"
                   "        for (long x = 0; x < %d; x++) {\n"
                   "            float *o = out + y * %zu + x * %d;\n",
                   s->w, op->out.row, op->out.pitch);
    for (int32_t first = 0; first < vectors; first += BLOCK) {
        const int32_t n = vectors - first < BLOCK ? vectors - first : BLOCK;
        nas_buf_printf(out,
                       "            {\n                const float *w = (const float *)weights "
                       "+ %d;\n                vf ",
                       first * lanes);
        for (int32_t v = 0; v < n; v++)
            nas_buf_printf(out, "%ss%d = load(w + %d)", v > 0 ? ", " : "", v, v * lanes);
        nas_buf_puts(out, ";\n");
        emit_tap("y", c->kernel_h, c->stride_h, c->dilation_h, c->pad_top, in->h,
                 "                ", out);
        emit_tap("x", c->kernel_w, c->stride_w, c->dilation_w, c->pad_left, in->w,
                 "                    ", out);
        nas_buf_printf(
            out,
            "                        const float *i = in + ty / %d * %zu + tx / %d * %d, "
            "*t = w + (1 + (ky * %d + kx) * %d) * %d;\n"
            "                        for (long k = 0; k < %d; k++, t += %d) {\n",
            c->stride_h, op->in[0].row, c->stride_w, op->in[0].pitch, c->kernel_w, in->c,
            vectors * lanes, in->c, vectors * lanes);
        for (int32_t v = 0; v < n; v++)
            nas_buf_printf(out, "                            s%d += i[k] * load(t + %d);\n", v,
                           v * lanes);
        nas_buf_puts(out, "                        }\n                    }\n                }\n");
        for (int32_t v = 0; v < n; v++) {
            const int32_t at = (first + v) * lanes, rest = s->c - at;
            char value[16];
            (void)snprintf(value, sizeof value, "s%d", v);
            nas_buf_printf(out, "                %s(o + %d, ", rest < lanes ? "store_n" : "store",
                           at);
            nas__op_act(op, value, out);
            if (rest < lanes) nas_buf_printf(out, ", %d", rest);
            nas_buf_puts(out, ");\n");
        }
        nas_buf_puts(out, "            }\n");
    }
    nas_buf_puts(out, "        }\n    }\n");
}

void nas__op_emit_product(const nas_target *target, const nas__op *op, nas_buf *out) {
    if (op->node->op == NAS_OP_MATMUL) {
        emit_matmul(target, op, out);
    } else {
        emit_transpose_conv(target, op, out);
    }
}
