/* layer_op_pool.c - pooling and resizing: windows of pixels, channels in lanes. */
#include "compiler/layer_op_internal.h"

/* ---- pooling ------------------------------------------------------------------------------------------------------ */

static void emit_taps(const nas__op *op, const char *load, const char *n, nas_buf *out) {
    const bool max = op->node->op == NAS_OP_MAX_POOL;
    nas_buf_printf(out,
                   "vf a = %s;\n"
                   "            for (long ky = y0; ky < y1; ky++) {\n"
                   "                for (long kx = x0; kx < x1; kx++) {\n"
                   "                    const vf b = %s(i + ky * %zu + kx * %d + c%s);\n"
                   "                    a = %s;\n"
                   "                }\n            }\n            ",
                   max ? "splat(-__builtin_inff())" : "splat(0)", load, op->in[0].row,
                   op->in[0].pitch, n, max ? "vmax(b, a)" : "a + b");
}

static void pool_step(const nas__op *op, const char *load, const char *store, const char *n,
                      nas_buf *out) {
    emit_taps(op, load, n, out);
    nas_buf_printf(out, "%s(o + c, ", store);
    if (op->node->op == NAS_OP_MAX_POOL) {
        nas_buf_puts(out, "a");
    } else {
        nas__op_act(op, "a * share", out);
    }
    nas_buf_printf(out, "%s);\n", n);
}

/* The part of a window that lies inside one axis of the input, as tap numbers [lo, hi). */
static void emit_clip(const char *axis, int32_t stride, int32_t pad, int32_t kernel, int32_t extent,
                      const char *indent, nas_buf *out) {
    nas_buf_printf(
        out,
        "%sconst long t%s = %s * %d - %d, %s0 = t%s < 0 ? -t%s : 0, %s1 = t%s + %d > %d ? "
        "%d - t%s : %d;\n",
        indent, axis, axis, stride, pad, axis, axis, axis, axis, axis, kernel, extent, extent, axis,
        kernel);
}

/* One unit: NAS__OP_CHUNK channels of one row. */
void nas__op_emit_pool(const nas_target *target, const nas__op *op, nas_buf *out) {
    const nas_pool_attributes *p = &op->node->pool;
    const nas_shape *in = &op->in[0].shape, *s = &op->out.shape;
    const int32_t chunks = nas__op_chunks(op), rest = s->c - (chunks - 1) * NAS__OP_CHUNK;
    for (int32_t k = 0; k < 2; k++) { /* whole chunks, then the last one */
        if (k == 0 && chunks == 1) continue;
        nas_buf_puts(out, "    for (long u = begin; u < end; u++) {\n");
        nas_buf_printf(out,
                       "        const long y = u / %d, chunk = u %% %d;\n"
                       "        if (chunk %s %d) continue;\n",
                       chunks, chunks, k == 0 ? "==" : "!=", chunks - 1);
        emit_clip("y", p->stride_h, p->pad_top, p->kernel_h, in->h, "        ", out);
        nas_buf_printf(out, "        for (long x = 0; x < %d; x++) {\n", s->w);
        emit_clip("x", p->stride_w, p->pad_left, p->kernel_w, in->w, "            ", out);
        nas_buf_printf(out,
                       "            const float *i = in + ty * %zu + tx * %d + chunk * %d;\n"
                       "            float *o = out + y * %zu + x * %d + chunk * %d;\n",
                       op->in[0].row, op->in[0].pitch, NAS__OP_CHUNK, op->out.row, op->out.pitch,
                       NAS__OP_CHUNK);
        if (op->node->op == NAS_OP_AVG_POOL) {
            if (p->count_include_pad) {
                nas_buf_printf(out, "            const float share = 1.0f / %d;\n",
                               p->kernel_h * p->kernel_w);
            } else {
                nas_buf_puts(out,
                             "            const float share = 1.0f / (float)((y1 - y0) * (x1 - "
                             "x0));\n");
            }
        }
        nas__op_each(target, op, k == 0 ? NAS__OP_CHUNK : rest, "            ", pool_step, out);
        nas_buf_puts(out, "        }\n    }\n");
    }
}

/* ---- resizing ----------------------------------------------------------------------------------------------------- */

void nas__op_emit_nearest(const char *axis, int32_t in, int32_t size, bool half, const char *indent,
                          nas_buf *out) {
    if (!half) {
        nas_buf_printf(out, "%sconst long %sn = %s * %d / %d;\n", indent, axis, axis, in, size);
        return;
    }
    nas_buf_printf(out,
                   "%sconst long %sd = (2 * %s + 1) * %lldLL - %lldLL, %sn = %sd <= 0 ? 0 : (%sd + "
                   "%lldLL) / %lldLL;\n",
                   indent, axis, axis, (long long)in, 2LL * size, axis, axis, axis, 2LL * size - 1,
                   2LL * size);
}

/* Position along one axis, clamped, as whole and fractional part. */
static void emit_position(const char *axis, int32_t in, int32_t size, nas_resize_mode mode,
                          const char *indent, nas_buf *out) {
    double scale = (double)in / size, shift = 0;
    if (mode == NAS_RESIZE_BILINEAR_HALF_PIXEL) shift = 0.5 * scale - 0.5;
    if (mode == NAS_RESIZE_BILINEAR_ALIGN_CORNERS)
        scale = size > 1 ? (double)(in - 1) / (size - 1) : 0;
    nas_buf_printf(out,
                   "%sdouble %sp = (double)%s * %a + %a;\n"
                   "%s%sp = %sp < 0 ? 0 : %sp > %d ? %d : %sp;\n"
                   "%sconst long %s0 = (long)%sp, %s1 = %s0 + 1 < %d ? %s0 + 1 : %s0;\n"
                   "%sconst float %sf = (float)(%sp - (double)%s0);\n",
                   indent, axis, axis, scale, shift, indent, axis, axis, axis, in - 1, in - 1, axis,
                   indent, axis, axis, axis, axis, in, axis, axis, indent, axis, axis, axis);
}

static void bilinear_step(const nas__op *op, const char *load, const char *store, const char *n,
                          nas_buf *out) {
    (void)op;
    nas_buf_printf(out,
                   "const vf a = %s(p00 + c%s), b = %s(p01 + c%s), d = %s(p10 + c%s), e = %s(p11 + "
                   "c%s);\n            const vf top = a + (b - a) * xf, low = d + (e - d) * xf; "
                   "%s(o + c, top + (low - top) * yf%s);\n",
                   load, n, load, n, load, n, load, n, store, n);
}

static void nearest_step(const nas__op *op, const char *load, const char *store, const char *n,
                         nas_buf *out) {
    (void)op;
    nas_buf_printf(out, "%s(o + c, %s(p + c%s)%s);\n", store, load, n, n);
}

void nas__op_emit_resize(const nas_target *target, const nas__op *op, nas_buf *out) {
    const nas_shape *in = &op->in[0].shape, *s = &op->out.shape;
    const nas_resize_mode mode = op->node->resize;
    const bool nearest =
        mode == NAS_RESIZE_NEAREST_ASYMMETRIC || mode == NAS_RESIZE_NEAREST_HALF_PIXEL;
    const bool half = mode == NAS_RESIZE_NEAREST_HALF_PIXEL;
    nas_buf_puts(out, "    for (long y = begin; y < end; y++) {\n");
    if (nearest) {
        nas__op_emit_nearest("y", in->h, s->h, half, "        ", out);
    } else {
        emit_position("y", in->h, s->h, mode, "        ", out);
    }
    nas_buf_printf(out, "        for (long x = 0; x < %d; x++) {\n", s->w);
    if (nearest) {
        nas__op_emit_nearest("x", in->w, s->w, half, "            ", out);
        nas_buf_printf(out, "            const float *p = in + yn * %zu + xn * %d;\n",
                       op->in[0].row, op->in[0].pitch);
    } else {
        emit_position("x", in->w, s->w, mode, "            ", out);
        for (int32_t k = 0; k < 4; k++) {
            nas_buf_printf(out, "            const float *p%d%d = in + y%d * %zu + x%d * %d;\n",
                           k / 2, k % 2, k / 2, op->in[0].row, k % 2, op->in[0].pitch);
        }
    }
    nas_buf_printf(out, "            float *o = out + y * %zu + x * %d;\n", op->out.row,
                   op->out.pitch);
    nas__op_each(target, op, s->c, "            ", nearest ? nearest_step : bilinear_step, out);
    nas_buf_puts(out, "        }\n    }\n");
}
