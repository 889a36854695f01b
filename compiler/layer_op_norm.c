/* layer_op_norm.c - operators over the channels of one pixel: softmax, layer norm, local response norm. */
#include "compiler/layer_op_internal.h"

static void open_pixel(const nas__op *op, nas_buf *out) {
    nas_buf_printf(out,
                   "    for (long y = begin; y < end; y++) {\n"
                   "        for (long x = 0; x < %d; x++) {\n"
                   "            const float *i = in + y * %zu + x * %d;\n"
                   "            float *o = out + y * %zu + x * %d;\n",
                   op->out.shape.w, op->in[0].row, op->in[0].pitch, op->out.row, op->out.pitch);
}

static void close_pixel(nas_buf *out) {
    nas_buf_puts(out, "        }\n    }\n");
}

/* ---- softmax ------------------------------------------------------------------------------------------------------ */

static void exp_step(const nas__op *op, const char *load, const char *store, const char *n,
                     nas_buf *out) {
    (void)op;
    nas_buf_printf(out, "%s(o + c, vexp(%s(i + c%s) - top)%s);\n", store, load, n, n);
}

static void scale_step(const nas__op *op, const char *load, const char *store, const char *n,
                       nas_buf *out) {
    (void)op;
    nas_buf_printf(out, "%s(o + c, %s(o + c%s) * share%s);\n", store, load, n, n);
}

static void emit_softmax(const nas_target *target, const nas__op *op, nas_buf *out) {
    open_pixel(op, out);
    nas_buf_printf(out,
                   "            float top = i[0];\n"
                   "            for (long c = 1; c < %d; c++) top = i[c] > top ? i[c] : top;\n",
                   op->out.shape.c);
    nas__op_each(target, op, op->out.shape.c, "            ", exp_step, out);
    nas_buf_printf(out,
                   "            float sum = 0;\n"
                   "            for (long c = 0; c < %d; c++) sum += o[c];\n"
                   "            const float share = 1.0f / sum;\n",
                   op->out.shape.c);
    nas__op_each(target, op, op->out.shape.c, "            ", scale_step, out);
    close_pixel(out);
}

/* ---- layer norm --------------------------------------------------------------------------------------------------- */

static void norm_step(const nas__op *op, const char *load, const char *store, const char *n,
                      nas_buf *out) {
    (void)op;
    nas_buf_printf(out, "%s(o + c, (%s(i + c%s) - mean) * share * load(w + c) + load(v + c)%s);\n",
                   store, load, n, n);
}

/* Two passes: the variance of large means would cancel in one. */
static void emit_layer_norm(const nas_target *target, const nas__op *op, nas_buf *out) {
    const int32_t c = op->out.shape.c, lanes = target->vector_bytes / 4;
    nas_buf_printf(out, "    const float *w = weights, *v = w + %d;\n",
                   (c + lanes - 1) / lanes * lanes);
    open_pixel(op, out);
    nas_buf_printf(out,
                   "            float sum = 0, squares = 0;\n"
                   "            for (long c = 0; c < %d; c++) sum += i[c];\n"
                   "            const float mean = sum * (1.0f / %d);\n"
                   "            for (long c = 0; c < %d; c++) squares += (i[c] - mean) * (i[c] - "
                   "mean);\n"
                   "            const float share = 1.0f / vsqrt(splat(squares * (1.0f / %d) + "
                   "%af))[0];\n",
                   c, c, c, c, (double)op->node->epsilon);
    nas__op_each(target, op, c, "            ", norm_step, out);
    close_pixel(out);
}

/* ---- local response norm ------------------------------------------------------------------------------------------ */

static void lrn_step(const nas__op *op, const char *load, const char *store, const char *n,
                     nas_buf *out) {
    nas_buf_printf(out,
                   "%s(o + c, %s(i + c%s) * vexp(vlog(load(sums + c) * %af + %af) * %af)%s);\n",
                   store, load, n, (double)op->node->alpha / op->node->size,
                   (double)op->node->epsilon, -(double)op->node->beta, n);
}

/* A window of `size` channels around c: (size - 1) / 2 before it, the rest behind. */
static void emit_lrn(const nas_target *target, const nas__op *op, nas_buf *out) {
    const int32_t c = op->out.shape.c, before = (op->node->size - 1) / 2,
                  behind = op->node->size - 1 - before;
    nas_buf_puts(out, "    float *sums = scratch;\n");
    open_pixel(op, out);
    nas_buf_printf(
        out,
        "            for (long c = 0; c < %d; c++) {\n"
        "                const long from = c < %d ? 0 : c - %d, to = c + %d < %d ? c + %d "
        ": %d;\n"
        "                float sum = 0;\n"
        "                for (long k = from; k <= to; k++) sum += i[k] * i[k];\n"
        "                sums[c] = sum;\n            }\n",
        c, before, before, behind, c - 1, behind, c - 1);
    nas__op_each(target, op, c, "            ", lrn_step, out);
    close_pixel(out);
}

void nas__op_emit_norm(const nas_target *target, const nas__op *op, nas_buf *out) {
    const nas_op code = op->node->op;
    if (code == NAS_OP_SOFTMAX) emit_softmax(target, op, out);
    if (code == NAS_OP_LAYER_NORM) emit_layer_norm(target, op, out);
    if (code == NAS_OP_LRN) emit_lrn(target, op, out);
}
