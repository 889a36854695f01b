/* layer_op_map.c - elementwise operators: one row of the output is one unit; rows without gaps are one run. */
#include "compiler/layer_op_internal.h"

/* ---- the value ---------------------------------------------------------------------------------------------------- */

static void put_unary(const nas_node *n, nas_buf *out) {
    const double alpha = (double)n->alpha, beta = (double)n->beta;
    switch (n->unary) {
    case NAS_UNARY_CLIP:
        nas_buf_printf(out, "vmin(vmax(a, splat(%af)), splat(%af))", alpha, beta);
        return;
    case NAS_UNARY_LEAKY_RELU: nas_buf_printf(out, "prelu(a, splat(%af))", alpha); return;
    case NAS_UNARY_SIGMOID: nas_buf_puts(out, "vsigmoid(a)"); return;
    case NAS_UNARY_HARD_SIGMOID:
        nas_buf_printf(out, "vmin(vmax(a * %af + %af, splat(0)), splat(1))", alpha, beta);
        return;
    case NAS_UNARY_HARD_SWISH: nas_buf_puts(out, "hard_swish(a)"); return;
    case NAS_UNARY_SWISH: nas_buf_puts(out, "a * vsigmoid(a)"); return;
    case NAS_UNARY_TANH: nas_buf_puts(out, "2 * vsigmoid(2 * a) - 1"); return;
    case NAS_UNARY_ERF: nas_buf_puts(out, "verf(a)"); return;
    case NAS_UNARY_GELU: nas_buf_puts(out, "a * 0.5f * (verf(a * 0x1.6a09e6p-1f) + 1)"); return;
    case NAS_UNARY_EXP: nas_buf_puts(out, "vexp(a)"); return;
    case NAS_UNARY_SQRT: nas_buf_puts(out, "vsqrt(a)"); return;
    case NAS_UNARY_NEG: nas_buf_puts(out, "-a"); return;
    case NAS_UNARY_ABS: nas_buf_puts(out, "vmax(a, -a)"); return;
    case NAS_UNARY_AFFINE: nas_buf_printf(out, "a * %af + %af", alpha, beta); return;
    case NAS_UNARY_COUNT: return;
    }
}

static void put_value(const nas__op *op, nas_buf *out) {
    const nas_op code = op->node->op;
    if (code == NAS_OP_RELU) nas_buf_puts(out, "relu(a)");
    if (code == NAS_OP_PRELU) nas_buf_puts(out, "prelu(a, load(w + c))");
    if (code == NAS_OP_ADD_SCALAR) nas_buf_printf(out, "a + %af", (double)op->node->scalar);
    if (code == NAS_OP_BATCH_NORM) nas_buf_puts(out, "a * load(w + c) + load(v + c)");
    if (code == NAS_OP_ADD) nas_buf_puts(out, "a + b");
    if (code == NAS_OP_SUB) nas_buf_puts(out, "a - b");
    if (code == NAS_OP_MUL) nas_buf_puts(out, "a * b");
    if (code == NAS_OP_DIV) nas_buf_puts(out, "a / b");
    if (code == NAS_OP_UNARY) put_unary(op->node, out);
}

static void step(const nas__op *op, const char *load, const char *store, const char *n,
                 nas_buf *out) {
    nas_buf_printf(out, "const vf a = %s(i + c%s)", load, n);
    if (op->n_inputs == 2) {
        if (op->in[1].shape.c == 1 && op->out.shape.c > 1) {
            nas_buf_puts(out, ", b = splat(*r)");
        } else {
            nas_buf_printf(out, ", b = %s(r + c%s)", load, n);
        }
    }
    nas_buf_puts(out, ", y0 = ");
    put_value(op, out);
    nas_buf_printf(out, "; %s(o + c, ", store);
    nas__op_act(op, "y0", out);
    nas_buf_printf(out, "%s);\n", n);
}

/* ---- the loops ---------------------------------------------------------------------------------------------------- */

static bool dense_row(const nas__view *v, const nas_shape *out) {
    return v->pitch == v->shape.c && v->shape.c == out->c && v->shape.w == out->w;
}

/* No gap in a row of any operand, and nothing that depends on the channel alone. */
static bool is_flat(const nas__op *op) {
    const nas_op code = op->node->op;
    bool flat =
        code != NAS_OP_PRELU && code != NAS_OP_BATCH_NORM && op->out.pitch == op->out.shape.c;
    for (int32_t k = 0; k < op->n_inputs; k++)
        flat = flat && dense_row(&op->in[k], &op->out.shape);
    return flat;
}

/* Where a broadcast extent is 1 the coordinate does not count. */
static void put_pointer(const char *name, const char *base, const nas__view *v, bool flat,
                        const char *indent, nas_buf *out) {
    nas_buf_printf(out, "%sconst float *%s = %s", indent, name, base);
    if (v->shape.h > 1) nas_buf_printf(out, " + y * %zu", v->row);
    if (v->shape.w > 1 && !flat) nas_buf_printf(out, " + x * %d", v->pitch);
    nas_buf_puts(out, ";\n");
}

void nas__op_emit_map(const nas_target *target, const nas__op *op, nas_buf *out) {
    const bool flat = is_flat(op);
    const int32_t lanes = target->vector_bytes / 4, channels = op->out.shape.c;
    const char *indent = flat ? "        " : "            ";
    if (op->node->op == NAS_OP_PRELU || op->node->op == NAS_OP_BATCH_NORM)
        nas_buf_puts(out, "    const float *w = weights;\n");
    if (op->node->op == NAS_OP_BATCH_NORM)
        nas_buf_printf(out, "    const float *v = w + %d;\n",
                       (channels + lanes - 1) / lanes * lanes);
    nas_buf_puts(out, "    for (long y = begin; y < end; y++) {\n");
    if (!flat) nas_buf_printf(out, "        for (long x = 0; x < %d; x++) {\n", op->out.shape.w);
    put_pointer("i", "in", &op->in[0], flat, indent, out);
    if (op->n_inputs == 2) put_pointer("r", "residual", &op->in[1], flat, indent, out);
    nas_buf_printf(out, "%sfloat *o = out + y * %zu", indent, op->out.row);
    if (!flat) nas_buf_printf(out, " + x * %d", op->out.pitch);
    nas_buf_puts(out, ";\n");
    nas__op_each(target, op, flat ? channels * op->out.shape.w : channels, indent, step, out);
    if (!flat) nas_buf_puts(out, "        }\n");
    nas_buf_puts(out, "    }\n");
}
