/* layer_op_move.c - operators that move numbers without changing them; one row of the output is one unit. */
#include "compiler/layer_op_internal.h"

#include <stdio.h>

static void open_row(nas_buf *out) {
    nas_buf_puts(out, "    for (long y = begin; y < end; y++) {\n");
}

/* out[y][x][c] = in[y * sy + x * sx + c * sc], with runs of channels where they are adjacent. */
static void emit_strided(const nas__op *op, size_t sy, size_t sx, size_t sc, size_t offset,
                         nas_buf *out) {
    const nas_shape *s = &op->out.shape;
    open_row(out);
    nas_buf_printf(out,
                   "        const float *i = in + %zu + y * %zu;\n"
                   "        float *o = out + y * %zu;\n",
                   offset, sy, op->out.row);
    if (sc == 1 && sx == (size_t)s->c && op->out.pitch == s->c) {
        nas_buf_printf(out, "        memcpy(o, i, sizeof(float) * %zu);\n    }\n",
                       (size_t)s->w * (size_t)s->c);
        return;
    }
    nas_buf_printf(out, "        for (long x = 0; x < %d; x++) {\n", s->w);
    if (sc == 1) {
        nas_buf_printf(out, "            memcpy(o + x * %d, i + x * %zu, sizeof(float) * %d);\n",
                       op->out.pitch, sx, s->c);
    } else {
        nas_buf_printf(out,
                       "            for (long c = 0; c < %d; c++) o[x * %d + c] = i[x * %zu + c * "
                       "%zu];\n",
                       s->c, op->out.pitch, sx, sc);
    }
    nas_buf_puts(out, "        }\n    }\n");
}

static void emit_pad(const nas__op *op, nas_buf *out) {
    const nas_shape *s = &op->out.shape, *in = &op->in[0].shape;
    const int32_t *begin = op->node->begin;
    open_row(out);
    nas_buf_printf(out,
                   "        float *o = out + y * %zu;\n"
                   "        for (long x = 0; x < %d; x++) {\n"
                   "            for (long c = 0; c < %d; c++) o[x * %d + c] = %af;\n        }\n",
                   op->out.row, s->w, s->c, op->out.pitch, (double)op->node->scalar);
    nas_buf_printf(out,
                   "        const long from = y - %d;\n"
                   "        if (from < 0 || from >= %d) continue;\n"
                   "        for (long x = 0; x < %d; x++) {\n"
                   "            memcpy(o + (x + %d) * %d + %d, in + from * %zu + x * %d, "
                   "sizeof(float) * %d);\n        }\n    }\n",
                   begin[1], in->h, in->w, begin[2], op->out.pitch, begin[3], op->in[0].row,
                   op->in[0].pitch, in->c);
}

/* Both in the order [h][w][c]: walk the output and count the input along. */
static void emit_reshape(const nas__op *op, nas_buf *out) {
    const nas_shape *s = &op->out.shape, *in = &op->in[0].shape;
    open_row(out);
    nas_buf_printf(out,
                   "        const long first = y * %lld;\n"
                   "        long ic = first %% %d, ix = first / %d %% %d, iy = first / %lld;\n"
                   "        const float *i = in + iy * %zu + ix * %d;\n",
                   (long long)s->w * s->c, in->c, in->c, in->w, (long long)in->w * in->c,
                   op->in[0].row, op->in[0].pitch);
    nas_buf_printf(out,
                   "        for (long x = 0; x < %d; x++) {\n"
                   "            for (long c = 0; c < %d; c++) {\n"
                   "                out[y * %zu + x * %d + c] = i[ic];\n"
                   "                if (++ic < %d) continue;\n"
                   "                ic = 0;\n"
                   "                if (++ix == %d) {\n"
                   "                    ix = 0;\n                    iy++;\n                }\n"
                   "                i = in + iy * %zu + ix * %d;\n"
                   "            }\n        }\n    }\n",
                   s->w, s->c, op->out.row, op->out.pitch, in->c, in->w, op->in[0].row,
                   op->in[0].pitch);
}

static void emit_transpose(const nas__op *op, nas_buf *out) {
    const size_t step[4] = {0, op->in[0].row, (size_t)op->in[0].pitch, 1};
    const int32_t *perm = op->node->perm;
    emit_strided(op, step[perm[1]], step[perm[2]], step[perm[3]], 0, out);
}

static void emit_depth_to_space(const nas__op *op, nas_buf *out) {
    const nas_shape *s = &op->out.shape;
    const int32_t r = op->node->block;
    open_row(out);
    nas_buf_printf(out,
                   "        const float *i = in + y / %d * %zu + y %% %d * %d;\n"
                   "        float *o = out + y * %zu;\n"
                   "        for (long x = 0; x < %d; x++) {\n"
                   "            for (long j = 0; j < %d; j++, o += %d) {\n"
                   "                for (long c = 0; c < %d; c++) o[c] = i[x * %d + c * %d + j];\n"
                   "            }\n        }\n    }\n",
                   r, op->in[0].row, r, r, op->out.row, s->w / r, r, op->out.pitch, s->c,
                   op->in[0].pitch, r * r);
}

static void emit_channel_shuffle(const nas__op *op, nas_buf *out) {
    const nas_shape *s = &op->out.shape;
    const int32_t groups = op->node->block, each = s->c / groups;
    open_row(out);
    nas_buf_printf(out,
                   "        for (long x = 0; x < %d; x++) {\n"
                   "            const float *i = in + y * %zu + x * %d;\n"
                   "            float *o = out + y * %zu + x * %d;\n"
                   "            for (long k = 0; k < %d; k++) {\n"
                   "                for (long g = 0; g < %d; g++) *o++ = i[g * %d + k];\n"
                   "            }\n        }\n    }\n",
                   s->w, op->in[0].row, op->in[0].pitch, op->out.row, op->out.pitch, each, groups,
                   each);
}

/* ---- planes and pixels -------------------------------------------------------------------------------------------- */

/* Rows r0.. of a square block of numbers become its columns: swap the halves of ever smaller squares. */
static void emit_turn(int32_t lanes, nas_buf *out) {
    for (int32_t d = lanes / 2; d > 0; d /= 2) {
        for (int32_t i = 0; i < lanes; i++) {
            if ((i & d) != 0) continue;
            nas_buf_printf(out, "                t = SHUFFLE(r%d, r%d", i, i + d);
            for (int32_t j = 0; j < lanes; j++)
                nas_buf_printf(out, ", %d", (j & d) != 0 ? lanes + j - d : j);
            nas_buf_printf(out, ");\n                r%d = SHUFFLE(r%d, r%d", i + d, i, i + d);
            for (int32_t j = 0; j < lanes; j++)
                nas_buf_printf(out, ", %d", (j & d) != 0 ? lanes + j : j + d);
            nas_buf_printf(out, ");\n                r%d = t;\n", i);
        }
    }
}

static void emit_blocks(int32_t lanes, int32_t columns, int32_t channels, size_t plane_step,
                        int32_t pitch, bool to_pixels, const char *plane, const char *pixel,
                        nas_buf *out) {
    nas_buf_printf(out,
                   "        for (long x = 0; x < %d; x += LANES) {\n"
                   "            for (long c = 0; c < %d; c += LANES) {\n"
                   "                vf t",
                   columns, channels);
    for (int32_t i = 0; i < lanes; i++) {
        if (to_pixels) {
            nas_buf_printf(out, ", r%d = load(%s + (c + %d) * %zu + x)", i, plane, i, plane_step);
        } else {
            nas_buf_printf(out, ", r%d = load(%s + (x + %d) * %d + c)", i, pixel, i, pitch);
        }
    }
    nas_buf_puts(out, ";\n");
    emit_turn(lanes, out);
    for (int32_t i = 0; i < lanes; i++) {
        if (to_pixels) {
            nas_buf_printf(out, "                store(%s + (x + %d) * %d + c, r%d);\n", pixel, i,
                           pitch, i);
        } else {
            nas_buf_printf(out, "                store(%s + (c + %d) * %zu + x, r%d);\n", plane, i,
                           plane_step, i);
        }
    }
    nas_buf_puts(out, "            }\n        }\n");
}

/* Columns [x0, x1) of channels [c0, c1), one number at a time. */
static void emit_rest(int32_t x0, int32_t x1, int32_t c0, int32_t c1, size_t plane_step,
                      int32_t pitch, bool to_pixels, const char *plane, const char *pixel,
                      nas_buf *out) {
    if (x0 == x1 || c0 == c1) return;
    char to[96], from[96];
    (void)snprintf(to_pixels ? from : to, sizeof to, "%s[x + c * %zu]", plane, plane_step);
    (void)snprintf(to_pixels ? to : from, sizeof to, "%s[x * %d + c]", pixel, pitch);
    nas_buf_printf(out,
                   "        for (long x = %d; x < %d; x++) {\n"
                   "            for (long c = %d; c < %d; c++) %s = %s;\n        }\n",
                   x0, x1, c0, c1, to, from);
}

void nas__op_planes(const nas_target *target, const nas__view *view, bool to_pixels,
                    const char *plane, const char *pixel, nas_buf *out) {
    const nas_shape *s = &view->shape;
    const int32_t lanes = target->vector_bytes / 4, pitch = view->pitch;
    const size_t step = (size_t)s->h * (size_t)s->w;
    if (step == 1 || (s->c == 1 && pitch == 1)) { /* the same order */
        nas_buf_printf(out, "        memcpy(%s, %s, sizeof(float) * %d);\n",
                       to_pixels ? pixel : plane, to_pixels ? plane : pixel, s->w * s->c);
        return;
    }
    const int32_t columns = s->w / lanes * lanes, channels = s->c / lanes * lanes;
    const bool blocks = columns > 0 && channels > 0;
    if (blocks) emit_blocks(lanes, columns, channels, step, pitch, to_pixels, plane, pixel, out);
    emit_rest(0, s->w, blocks ? channels : 0, s->c, step, pitch, to_pixels, plane, pixel, out);
    emit_rest(columns, s->w, 0, blocks ? channels : 0, step, pitch, to_pixels, plane, pixel, out);
}

static void emit_input(const nas_target *target, const nas__op *op, nas_buf *out) {
    open_row(out);
    nas_buf_printf(out,
                   "        const float *i = in + y * %d;\n"
                   "        float *o = out + y * %zu;\n",
                   op->out.shape.w, op->out.row);
    nas__op_planes(target, &op->out, true, "i", "o", out);
    nas_buf_puts(out, "    }\n");
}

void nas__op_emit_move(const nas_target *target, const nas__op *op, nas_buf *out) {
    const size_t row = op->in[0].row, pitch = (size_t)op->in[0].pitch;
    const int32_t *begin = op->node->begin;
    const nas_op code = op->node->op;
    if (code == NAS_OP_INPUT) emit_input(target, op, out);
    if (code == NAS_OP_CONCAT) emit_strided(op, row, pitch, 1, 0, out);
    if (code == NAS_OP_SLICE) {
        emit_strided(op, row, pitch, 1,
                     (size_t)begin[1] * row + (size_t)begin[2] * pitch + (size_t)begin[3], out);
    }
    if (code == NAS_OP_PAD) emit_pad(op, out);
    if (code == NAS_OP_RESHAPE) emit_reshape(op, out);
    if (code == NAS_OP_TRANSPOSE) emit_transpose(op, out);
    if (code == NAS_OP_DEPTH_TO_SPACE) emit_depth_to_space(op, out);
    if (code == NAS_OP_CHANNEL_SHUFFLE) emit_channel_shuffle(op, out);
}
