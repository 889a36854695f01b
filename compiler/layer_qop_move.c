/* layer_qop_move.c - integer operators that move codes: depth-to-space and nearest resize. Where the quantization changes each
 * code goes through a table, which is what decoding, moving and coding again would make of it. */
#include "compiler/layer_op_internal.h"
#include "compiler/layers_q_internal.h"

#include <stdio.h>

/* One code, by the place it comes from. */
static void put_code(const nas__qop *op, const char *place, nas_buf *out) {
    nas_buf_printf(out, op->mapped ? "table[%s]" : "%s", place);
}

/* out[y, x*b + j, c] = in[y/b, x, c*b*b + (y % b)*b + j] */
static void emit_depth_to_space(const nas__qop *op, nas_buf *out) {
    const int32_t b = op->block;
    char place[32];
    nas_buf_printf(out,
                   "        const unsigned char *a = (const unsigned char *)in + (long)(y / %d) * "
                   "%zu + y %% %d * %d;\n"
                   "        for (int x = 0; x < %d; x++, a += %d) {\n"
                   "            for (int c = 0; c < %d; c++) {\n",
                   b, op->in[0].row, b, b, op->in[0].shape.w, op->in[0].pitch, op->out.shape.c);
    for (int32_t j = 0; j < b; j++) {
        nas_buf_printf(out, "                o[%d + c] = ", j * op->out.pitch);
        (void)snprintf(place, sizeof place, "a[c * %d + %d]", b * b, j);
        put_code(op, place, out);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "            }\n            o += %d;\n        }\n", b * op->out.pitch);
}

static void emit_nearest(const nas__qop *op, nas_buf *out) {
    const nas_shape *in = &op->in[0].shape, *s = &op->out.shape;
    const bool half = op->resize == NAS_RESIZE_NEAREST_HALF_PIXEL;
    nas__op_emit_nearest("y", in->h, s->h, half, "        ", out);
    nas_buf_printf(out, "        for (long x = 0; x < %d; x++, o += %d) {\n", s->w, op->out.pitch);
    nas__op_emit_nearest("x", in->w, s->w, half, "            ", out);
    nas_buf_printf(out,
                   "            const unsigned char *a = (const unsigned char *)in + yn * %zu + xn "
                   "* %d;\n",
                   op->in[0].row, op->in[0].pitch);
    if (op->mapped) {
        nas_buf_printf(out, "            for (int c = 0; c < %d; c++) o[c] = table[a[c]];\n", s->c);
    } else {
        nas_buf_printf(out, "            __builtin_memcpy(o, a, %d);\n", s->c);
    }
    nas_buf_puts(out, "        }\n");
}

void nas__qop_emit_move(const nas__qop *op, nas_buf *out) {
    if (op->mapped)
        nas_buf_printf(out,
                       "        const unsigned char *table = (const unsigned char *)(h + %d);\n",
                       (int)NAS__Q_HEAD);
    nas_buf_printf(out, "        unsigned char *o = (unsigned char *)out + (long)y * %zu;\n",
                   op->out.row);
    if (op->kind == NAS__QOP_DEPTH_TO_SPACE) {
        emit_depth_to_space(op, out);
    } else {
        emit_nearest(op, out);
    }
}
