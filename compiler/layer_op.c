/* layer_op.c - operators of the layer form other than convolutions: which there are, their units, weights and names. */
#include "compiler/layer_op_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static size_t padded(const nas_target *target, int32_t channels) {
    const int32_t lanes = target->vector_bytes / 4;
    return (size_t)(ceil_div(channels, lanes) * lanes);
}

/* ---- which files know an operator --------------------------------------------------------------------------------- */

typedef enum family { MAP, MOVE, POOL, RESIZE, NORM, PRODUCT, NO_FAMILY } family;

static family family_of(nas_op op) {
    switch (op) {
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV: return MAP;
    case NAS_OP_INPUT:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE: return MOVE;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: return POOL;
    case NAS_OP_RESIZE: return RESIZE;
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN: return NORM;
    case NAS_OP_MATMUL:
    case NAS_OP_CONV_TRANSPOSE: return PRODUCT;
    case NAS_OP_CONV:
    case NAS_OP_CONSTANT:
    case NAS_OP_COUNT: break;
    }
    return NO_FAMILY;
}

nas_status nas__op_check(nas_ctx *ctx, const nas__op *op) {
    const nas_node *node = op->node;
    const char *why = NULL;
    if (family_of(node->op) == NO_FAMILY) why = "has no kernel";
    for (int32_t i = 0; i < op->n_inputs && i < 2; i++) {
        if (op->in[i].shape.n != 1) why = "of several images";
    }
    if (op->out.shape.n != 1) why = "of several images";
    if (op->act == NAS__LACT_PRELU) why = "cannot apply per-channel slopes";
    if (why == NULL) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "node '%s': %s %s", node->name, nas_op_name(node->op),
                    why);
}

/* ---- sizes -------------------------------------------------------------------------------------------------------- */

int32_t nas__op_chunks(const nas__op *op) {
    const nas_op code = op->node->op;
    if (code == NAS_OP_MATMUL) return op->out.shape.w;
    if (code != NAS_OP_MAX_POOL && code != NAS_OP_AVG_POOL) return 1;
    return ceil_div(op->out.shape.c, NAS__OP_CHUNK);
}

int32_t nas__op_units(const nas_target *target, const nas__op *op) {
    (void)target;
    return op->out.shape.h * nas__op_chunks(op);
}

size_t nas__op_scratch_floats(const nas_target *target, const nas__op *op) {
    return op->node->op == NAS_OP_LRN ? padded(target, op->out.shape.c) : 0;
}

size_t nas__op_weight_floats(const nas_target *target, const nas__op *op) {
    const size_t out = padded(target, op->out.shape.c);
    switch (op->node->op) {
    case NAS_OP_PRELU: return out;
    case NAS_OP_BATCH_NORM:
    case NAS_OP_LAYER_NORM: return 2 * out;
    case NAS_OP_CONV_TRANSPOSE:
        return out * (1 + (size_t)op->node->conv.kernel_h * (size_t)op->node->conv.kernel_w *
                              (size_t)op->in[0].shape.c);
    case NAS_OP_INPUT:
    case NAS_OP_CONV:
    case NAS_OP_RELU:
    case NAS_OP_ADD:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_UNARY:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_COUNT: break;
    }
    return 0;
}

/* [output channel] or [tap][input channel][output channel], outputs padded to whole vectors with zeros. */
void nas__op_pack(const nas_target *target, const nas__op *op, const nas__op_weights *weights,
                  float *out) {
    const int32_t channels = op->out.shape.c;
    const size_t wide = padded(target, channels);
    const float *const *w = weights->data;
    memset(out, 0, nas__op_weight_floats(target, op) * sizeof *out);
    if (op->node->op == NAS_OP_PRELU) memcpy(out, w[0], (size_t)channels * sizeof *out);
    for (int32_t c = 0; c < channels && op->node->op == NAS_OP_LAYER_NORM; c++) {
        out[c] = w[0] != NULL ? w[0][c] : 1;
        out[wide + (size_t)c] = w[1] != NULL ? w[1][c] : 0;
    }
    for (int32_t c = 0; c < channels && op->node->op == NAS_OP_BATCH_NORM; c++) {
        const double scale = (double)w[0][c] / sqrt((double)w[3][c] + (double)op->node->epsilon);
        out[c] = (float)scale;
        out[wide + (size_t)c] = (float)((double)w[1][c] - (double)w[2][c] * scale);
    }
    if (op->node->op != NAS_OP_CONV_TRANSPOSE) return;
    const size_t inner = (size_t)op->node->conv.kernel_h * (size_t)op->node->conv.kernel_w *
                         (size_t)op->in[0].shape.c;
    for (int32_t o = 0; o < channels; o++) {
        out[o] = w[1] != NULL ? w[1][o] : 0;
        for (size_t i = 0; i < inner; i++)
            out[wide * (1 + i) + (size_t)o] = w[0][(size_t)o * inner + i];
    }
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

static void describe_view(const nas__view *v, nas_buf *out) {
    nas_buf_printf(out, "|%d %d %d %d %zu", v->shape.h, v->shape.w, v->shape.c, v->pitch, v->row);
}

static void append_hash(const nas_buf *text, nas_buf *out) {
    char hash[NAS_SHA256_HEX];
    nas_sha256_hex(text->data, text->len, hash);
    nas_buf_printf(out, "_%.12s", hash);
    out->failed = out->failed || text->failed;
}

void nas__op_name(const nas_target *target, const nas__op *op, nas_buf *out) {
    const nas_node *n = op->node;
    nas_buf all = {0};
    nas_buf_printf(&all, "%d %d %d", target->vector_bytes, (int)n->op, op->n_inputs);
    for (int32_t i = 0; i < op->n_inputs; i++)
        describe_view(&op->in[i], &all);
    describe_view(&op->out, &all);
    nas_buf_printf(&all, "|%d %a %a|%d %a %a %a %a|%d %d %d %d", (int)op->act, (double)op->lo,
                   (double)op->hi, (int)n->unary, (double)n->alpha, (double)n->beta,
                   (double)n->epsilon, (double)n->scalar, n->block, n->size, (int)n->resize,
                   (int)n->transpose_b);
    for (int32_t i = 0; i < 4; i++)
        nas_buf_printf(&all, " %d %d %d", n->begin[i], n->end[i], n->perm[i]);
    const nas_pool_attributes *p = &n->pool;
    nas_buf_printf(&all, "|%d %d %d %d %d %d %d %d %d", p->kernel_h, p->kernel_w, p->stride_h,
                   p->stride_w, p->pad_top, p->pad_left, p->pad_bottom, p->pad_right,
                   (int)p->count_include_pad);
    const nas_conv_attributes *c = &n->conv;
    nas_buf_printf(&all, "|%d %d %d %d %d %d %d %d", c->kernel_h, c->kernel_w, c->stride_h,
                   c->stride_w, c->dilation_h, c->dilation_w, c->pad_top, c->pad_left);
    nas_buf_printf(out, "%s_%dx%dx%d",
                   n->op == NAS_OP_UNARY ? nas_unary_name(n->unary) : nas_op_name(n->op),
                   op->out.shape.h, op->out.shape.w, op->out.shape.c);
    append_hash(&all, out);
    nas_buf_deinit(&all);
}

void nas__op_output_name(const nas_target *target, const nas__view *in, nas_buf *out) {
    nas_buf all = {0};
    nas_buf_printf(&all, "%d", target->vector_bytes);
    describe_view(in, &all);
    nas_buf_printf(out, "output_%dx%dx%d", in->shape.h, in->shape.w, in->shape.c);
    append_hash(&all, out);
    nas_buf_deinit(&all);
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

void nas__op_act(const nas__op *op, const char *value, nas_buf *out) {
    switch (op->act) {
    case NAS__LACT_NONE:
    case NAS__LACT_PRELU: nas_buf_puts(out, value); return;
    case NAS__LACT_RELU: nas_buf_printf(out, "relu(%s)", value); return;
    case NAS__LACT_CLIP:
        nas_buf_printf(out, "vmin(vmax(%s, splat(%af)), splat(%af))", value, (double)op->lo,
                       (double)op->hi);
        return;
    case NAS__LACT_LEAKY:
        nas_buf_printf(out, "prelu(%s, splat(%af))", value, (double)op->lo);
        return;
    case NAS__LACT_HARD_SWISH: nas_buf_printf(out, "hard_swish(%s)", value); return;
    }
}

void nas__op_each(const nas_target *target, const nas__op *op, int32_t length, const char *indent,
                  nas__op_step *step, nas_buf *out) {
    const int32_t lanes = target->vector_bytes / 4, whole = length / lanes * lanes;
    if (whole > 0) {
        nas_buf_printf(out, "%sfor (long c = 0; c < %d; c += LANES) {\n%s    ", indent, whole,
                       indent);
        step(op, "load", "store", "", out);
        nas_buf_printf(out, "%s}\n", indent);
    }
    if (whole < length) {
        char n[16];
        (void)snprintf(n, sizeof n, ", %d", length - whole);
        nas_buf_printf(out, "%s{\n%s    const long c = %d;\n%s    ", indent, indent, whole, indent);
        step(op, "load_n", "store_n", n, out);
        nas_buf_printf(out, "%s}\n", indent);
    }
}

static const char arguments[] = "(const float *in, float *out, const float *residual,\n"
                                "    const void *weights, void *scratch, int begin, int end) {\n"
                                "    (void)in; (void)residual; (void)weights; (void)scratch;\n";

void nas__op_emit(const nas_target *target, const nas__op *op, nas_buf *out) {
    nas_buf_puts(out, "KERNEL void ");
    nas__op_name(target, op, out);
    nas_buf_puts(out, arguments);
    switch (family_of(op->node->op)) {
    case MAP: nas__op_emit_map(target, op, out); break;
    case MOVE: nas__op_emit_move(target, op, out); break;
    case POOL: nas__op_emit_pool(target, op, out); break;
    case RESIZE: nas__op_emit_resize(target, op, out); break;
    case NORM: nas__op_emit_norm(target, op, out); break;
    case PRODUCT: nas__op_emit_product(target, op, out); break;
    case NO_FAMILY: break;
    }
    nas_buf_puts(out, "}\n\n");
}

int32_t nas__op_output_units(const nas__view *in) {
    return in->shape.h;
}

void nas__op_emit_output(const nas_target *target, const nas__view *in, nas_buf *out) {
    nas_buf_puts(out, "KERNEL void ");
    nas__op_output_name(target, in, out);
    nas_buf_puts(out, arguments);
    nas__op_planes(target, in, false, out);
    nas_buf_puts(out, "}\n\n");
}
