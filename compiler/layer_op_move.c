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
        nas_buf_printf(out, "        __builtin_memcpy(o, i, sizeof(float) * %zu);\n    }\n",
                       (size_t)s->w * (size_t)s->c);
        return;
    }
    nas_buf_printf(out, "        for (long x = 0; x < %d; x++) {\n", s->w);
    if (sc == 1) {
        nas_buf_printf(
            out, "            __builtin_memcpy(o + x * %d, i + x * %zu, sizeof(float) * %d);\n",
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
                   "            __builtin_memcpy(o + (x + %d) * %d + %d, in + from * %zu + x * %d, "
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

/* A block of LANES x LANES numbers, or what there is of it: `columns` pixels x `channels`. */
typedef struct block {
    int32_t lanes, columns, channels;
    size_t step; /* from plane to plane */
    int32_t pitch;
    bool to_pixels;
    const char *plane, *pixel;
} block;

/* Where row i of the block lies in memory: along a plane, or along a pixel. */
static void put_row(const block *b, bool of_plane, int32_t i, nas_buf *out) {
    if (of_plane)
        nas_buf_printf(out, "(%s + (c + %d) * %zu + x", b->plane, i, b->step);
    else
        nas_buf_printf(out, "(%s + (x + %d) * %d + c", b->pixel, i, b->pitch);
}

static void emit_block(const block *b, const char *indent, nas_buf *out) {
    const int32_t from = b->to_pixels ? b->channels : b->columns;
    const int32_t to = b->to_pixels ? b->columns : b->channels;
    char part_to[24] = "",
         part_from[24] = ""; /* a row has as many numbers as the other side has rows */
    if (to < b->lanes) (void)snprintf(part_from, sizeof part_from, ", %d", to);
    if (from < b->lanes) (void)snprintf(part_to, sizeof part_to, ", %d", from);
    for (int32_t i = 0; i < b->lanes; i++) {
        nas_buf_printf(out, "%svf r%d = ", indent, i);
        if (i >= from) {
            nas_buf_puts(out, "{0};\n");
            continue;
        }
        nas_buf_puts(out, to < b->lanes ? "load_n" : "load");
        put_row(b, b->to_pixels, i, out);
        nas_buf_printf(out, "%s);\n", part_from);
    }
    nas__emit_transpose(b->lanes, indent, out);
    for (int32_t i = 0; i < to; i++) {
        nas_buf_printf(out, "%s%s", indent, from < b->lanes ? "store_n" : "store");
        put_row(b, !b->to_pixels, i, out);
        nas_buf_printf(out, ", t%d%s);\n", i, part_to);
    }
    for (int32_t i = to; i < b->lanes; i++)
        nas_buf_printf(out, "%s(void)t%d;\n", indent, i);
}

/* A loop over an axis in steps of LANES; the last block lies over the one before where it would stick out. */
static void open_axis(char name, int32_t length, int32_t lanes, const char *indent, nas_buf *out) {
    if (length <= lanes) {
        nas_buf_printf(out, "%s{\n%s    const long %c = 0;\n", indent, indent, name);
    } else if (length % lanes == 0) {
        nas_buf_printf(out, "%sfor (long %c = 0; %c < %d; %c += LANES) {\n", indent, name, name,
                       length, name);
    } else {
        nas_buf_printf(out,
                       "%sfor (long %c0 = 0; %c0 < %d; %c0 += LANES) {\n"
                       "%s    const long %c = %c0 < %d ? %c0 : %d;\n",
                       indent, name, name, length, name, indent, name, name, length - lanes, name,
                       length - lanes);
    }
}

/* Rows of pixels that one block of channels goes through before the next: along a plane they are adjacent, so that its
 * lines are read or written whole, while the pixels stay in the cache. */
static int32_t rows_of_block(const nas_target *target, const nas__view *view) {
    enum { ROWS_MAX = 16 };
    const double rows = 0.25 * target->l2_bytes / ((double)view->row * sizeof(float));
    return rows < 1 ? 1 : rows > ROWS_MAX ? ROWS_MAX : (int32_t)rows;
}

/* Several blocks of channels. Pixels without gaps between the rows go on from row to row. Lines of planes to be written
 * are asked for a block of rows, or a call, before. */
static void emit_blocks(const nas_target *target, const nas__view *view, const block *b,
                        nas_buf *out) {
    const nas_shape *s = &view->shape;
    const int32_t lanes = b->lanes, rows = rows_of_block(target, view);
    const bool joined = rows > 1 && s->w >= lanes && view->row == (size_t)s->w * (size_t)b->pitch;
    nas_buf_printf(out,
                   "    for (long top = begin; top < end; top += %d) {\n"
                   "        const long under = top + %d < end ? top + %d : end;\n",
                   rows, rows, rows);
    open_axis('c', s->c, lanes, "        ", out);
    nas_buf_printf(out, "            for (long y = top; y < %s; y++) {\n",
                   joined ? "top + 1" : "under");
    nas_buf_printf(out,
                   b->to_pixels ? "                const float *i = in + y * %d;\n"
                                  "                float *o = out + y * %zu;\n"
                                : "                float *o = out + y * %d;\n"
                                  "                const float *i = in + y * %zu;\n",
                   s->w, view->row);
    if (joined) {
        nas_buf_printf(out,
                       "                const long n = (under - top) * %d;\n"
                       "                for (long x0 = 0; x0 < n; x0 += LANES) {\n"
                       "                    const long x = x0 < n - LANES ? x0 : n - LANES;\n",
                       s->w);
    } else {
        open_axis('x', s->w, lanes, "                ", out);
    }
    for (int32_t i = 0; i < b->channels && !b->to_pixels; i++) {
        /* no prefetcher of the processor asks for lines in order to write them */
        nas_buf_printf(out,
                       "                    __builtin_prefetch(%s + (c + %d) * %zu + x + (under - "
                       "top) * %d, 1);\n",
                       b->plane, i, b->step, s->w);
    }
    emit_block(b, "                    ", out);
    nas_buf_puts(out, "                }\n            }\n        }\n    }\n");
}

/* Blocks turn in registers. What is narrower than a vector goes number by number, unless vectors have masks. */
void nas__op_planes(const nas_target *target, const nas__view *view, bool to_pixels, nas_buf *out) {
    const nas_shape *s = &view->shape;
    const int32_t lanes = target->vector_bytes / 4, pitch = view->pitch;
    const size_t step = (size_t)s->h * (size_t)s->w;
    const char *const plane = to_pixels ? "i" : "o", *const pixel = to_pixels ? "o" : "i";
    const int32_t least = target->vector_bytes == 64 ? lanes / 4 : lanes;
    const bool same = step == 1 || (s->c == 1 && pitch == 1); /* the same order */
    const block b = {.lanes = lanes,
                     .columns = s->w < lanes ? s->w : lanes,
                     .channels = s->c < lanes ? s->c : lanes,
                     .step = step,
                     .pitch = pitch,
                     .to_pixels = to_pixels,
                     .plane = plane,
                     .pixel = pixel};
    if (!same && s->w >= least && s->c > lanes) {
        emit_blocks(target, view, &b, out);
        return;
    }
    open_row(out);
    nas_buf_printf(out,
                   to_pixels ? "        const float *i = in + y * %d;\n"
                               "        float *o = out + y * %zu;\n"
                             : "        float *o = out + y * %d;\n"
                               "        const float *i = in + y * %zu;\n",
                   s->w, view->row);
    if (same) {
        nas_buf_printf(out, "        __builtin_memcpy(o, i, sizeof(float) * %d);\n", s->w * s->c);
    } else if (s->w < least || s->c < least) {
        char to[96], from[96];
        (void)snprintf(to_pixels ? from : to, sizeof to, "%s[x + c * %zu]", plane, step);
        (void)snprintf(to_pixels ? to : from, sizeof to, "%s[x * %d + c]", pixel, pitch);
        nas_buf_printf(out,
                       "        for (long x = 0; x < %d; x++) {\n"
                       "            for (long c = 0; c < %d; c++) %s = %s;\n        }\n",
                       s->w, s->c, to, from);
    } else {
        open_axis('x', s->w, lanes, "        ", out);
        open_axis('c', s->c, lanes, "            ", out);
        emit_block(&b, "                ", out);
        nas_buf_puts(out, "            }\n        }\n");
    }
    nas_buf_puts(out, "    }\n");
}

void nas__op_emit_move(const nas_target *target, const nas__op *op, nas_buf *out) {
    const size_t row = op->in[0].row, pitch = (size_t)op->in[0].pitch;
    const int32_t *begin = op->node->begin;
    const nas_op code = op->node->op;
    if (code == NAS_OP_INPUT) nas__op_planes(target, &op->out, true, out);
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
