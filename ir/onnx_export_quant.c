/* onnx_export_quant.c - how values and weights are stored, said in ONNX: a pair of QuantizeLinear and DequantizeLinear behind each
 * value that has codes, DequantizeLinear in front of a convolution for its weights (int8, a scale for each output channel) and
 * its bias (int32). Integers of fewer than 8 bits lie in int8 and uint8: their codes are few, and the clips of narrow
 * activations are nodes of the graph. See nas_onnx_export_quantized. */
#include "ir/onnx_export_internal.h"
#include "ir/quantize.h"

#include <string.h>

typedef nas__onnx_writer writer;

static bool is_stored(const writer *w, const nas_node *node) {
    return w->quantized && node->quant.is_set;
}

static bool is_output(const writer *w, const nas_node *node) {
    return node == &w->g->nodes[w->g->output];
}

const char *nas__onnx_raw_suffix(const writer *w, const nas_node *node) {
    return is_stored(w, node) && is_output(w, node) ? NAS__ONNX_FLOAT : "";
}

static const char *stored_suffix(const writer *w, const nas_node *node) {
    return is_stored(w, node) && !is_output(w, node) ? "/stored" : "";
}

const char *nas__onnx_stored_name(writer *w, const nas_node *node) {
    const char *suffix = stored_suffix(w, node);
    return suffix[0] == '\0' ? node->name : nas__onnx_text(w, node->name, suffix);
}

/* ---- weights and biases ------------------------------------------------------------------------------------------ */

static const nas_param *integer_weight(const writer *w, const nas_node *node) {
    const nas_param *p = &w->g->params[node->params[0]];
    return w->quantized && p->scales != NULL ? p : NULL;
}

const int8_t *nas__onnx_weight_codes(writer *w, const nas_node *node, int64_t axis) {
    const nas_param *p = integer_weight(w, node);
    if (p == NULL) return NULL;
    const size_t channels = (size_t)p->dims[0], each = p->count / channels;
    int8_t *codes = nas__onnx_take(w, p->count, sizeof *codes);
    int32_t *zeros = nas__onnx_take(w, channels, sizeof *zeros);
    if (zeros == NULL) return NULL; /* takes fail in a row */
    for (size_t o = 0; o < channels; o++)
        nas_quant_weights(p->data + o * each, each, (double)p->scales[o], p->bits,
                          codes + o * each);
    const char *const inputs[] = {
        nas__onnx_text(w, p->name, NAS__ONNX_CODES),
        nas__onnx_put_floats(w, p->name, "/scale", true, p->scales, channels),
        nas__onnx_put_codes(w, p->name, "/zero", ONNX__TENSOR_PROTO__DATA_TYPE__INT8, true, zeros,
                            channels)};
    if (w->status != NAS_OK) return NULL;
    Onnx__NodeProto *proto = nas__onnx_put_node(w, p->name, "", "DequantizeLinear", 3, inputs);
    nas__onnx_put_int(w, proto, "axis", axis);
    return codes;
}

/* Codes of a bias and scales that give them back; false where there are none, or a float would round one to another. */
static bool code_bias(nas_ctx *ctx, const nas_param *bias, double scale_in, const float *scales,
                      int32_t *codes, float *products) {
    for (size_t o = 0; o < bias->count; o++) {
        const double scale = (double)scales[o];
        int32_t again = 0;
        products[o] = (float)(scale_in * scale);
        if (nas_quant_bias(ctx, (double)bias->data[o], scale_in, scale, &codes[o]) != NAS_OK) {
            nas_ctx_clear(ctx);
            return false;
        }
        const double read = (double)(float)(codes[o] * (double)products[o]);
        const bool known = nas_quant_bias(ctx, read, scale_in, scale, &again) == NAS_OK;
        if (!known) nas_ctx_clear(ctx);
        if (!known || again != codes[o] || !(products[o] > 0)) return false;
    }
    return true;
}

bool nas__onnx_bias_codes(writer *w, const nas_node *node) {
    const nas_param *weight = integer_weight(w, node);
    const nas_quant *in = &w->g->nodes[node->inputs[0]].quant;
    if (weight == NULL || node->params[1] < 0 || !in->is_set || w->status != NAS_OK) return false;
    const nas_param *bias = &w->g->params[node->params[1]];
    int32_t *codes = nas__onnx_take(w, bias->count, sizeof *codes);
    float *scales = nas__onnx_take(w, bias->count, sizeof *scales);
    if (scales == NULL) return false; /* takes fail in a row */
    if (!code_bias(w->ctx, bias, (double)in->scale, weight->scales, codes, scales)) return false;
    const char *const inputs[] = {
        nas__onnx_put_codes(w, bias->name, NAS__ONNX_CODES, ONNX__TENSOR_PROTO__DATA_TYPE__INT32,
                            true, codes, bias->count),
        nas__onnx_put_floats(w, bias->name, "/scale", true, scales, bias->count)};
    if (w->status != NAS_OK) return false;
    Onnx__NodeProto *proto = nas__onnx_put_node(w, bias->name, "", "DequantizeLinear", 2, inputs);
    nas__onnx_put_int(w, proto, "axis", 0);
    return true;
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

void nas__onnx_export_quant(writer *w, const nas_node *node) {
    if (!is_stored(w, node) || w->status != NAS_OK) return;
    const Onnx__TensorProto__DataType type = node->quant.is_signed
                                                 ? ONNX__TENSOR_PROTO__DATA_TYPE__INT8
                                                 : ONNX__TENSOR_PROTO__DATA_TYPE__UINT8;
    const char *scale = nas__onnx_put_floats(w, node->name, "/scale", false, &node->quant.scale, 1);
    const char *zero =
        nas__onnx_put_codes(w, node->name, "/zero", type, false, &node->quant.zero_point, 1);
    const char *const inputs[] = {nas__onnx_text(w, node->name, nas__onnx_raw_suffix(w, node)),
                                  scale, zero};
    if (w->status != NAS_OK) return;
    const Onnx__NodeProto *q =
        nas__onnx_put_node(w, node->name, NAS__ONNX_CODES, "QuantizeLinear", 3, inputs);
    if (q == NULL) return;
    const char *const codes[] = {q->output[0], scale, zero};
    (void)nas__onnx_put_node(w, node->name, stored_suffix(w, node), "DequantizeLinear", 3, codes);
}
