/* onnx_import_quant.c - QuantizeLinear and DequantizeLinear: what they say about a value or a weight is kept as
 * nas_node.quant and nas_param.scales; the pair itself disappears. See ir/onnx_internal.h.
 *
 * A pair behind an activation declares how the value is stored. It holds for all readers, also for one that takes the
 * value from before the pair: onnxruntime's quantizer never writes such a reader. */
#include "ir/onnx_internal.h"

#include <math.h>
#include <string.h>

/* Scale and zero point of a node; zero is NULL when it is left out, which means uint8 and 0. */
static nas_status read_parameters(nas__onnx *m, const nas__onnx_node *n,
                                  const nas__onnx_value **scale, const nas__onnx_value **zero) {
    *scale = nas__onnx_input(m, n, 1);
    *zero = nas__onnx_input(m, n, 2);
    if ((*scale)->kind != NAS__ONNX_CONST || (*zero != NULL && (*zero)->kind != NAS__ONNX_CONST))
        return nas__onnx_unsupported(m, "scale or zero point is not a constant of the file");
    if ((*scale)->count < 1 || (*zero != NULL && (*zero)->count != (*scale)->count))
        return nas__onnx_unsupported(m, "scale and zero point of different shape");
    for (size_t i = 0; i < (*scale)->count; i++) {
        const float s = (float)nas__onnx_at(*scale, i);
        if (!(isfinite(s) && s > 0)) return nas_fail(m->ctx, NAS_ERR_RANGE, "scale %g", (double)s);
    }
    return NAS_OK;
}

static nas_status quant_of(nas__onnx *m, const nas__onnx_node *n, nas_quant *out) {
    const nas__onnx_value *scale = NULL, *zero = NULL;
    const nas_status status = read_parameters(m, n, &scale, &zero);
    if (status != NAS_OK) return status;
    if (scale->count != 1) return nas__onnx_unsupported(m, "an activation with several scales");
    const int32_t type = zero != NULL ? zero->data_type : ONNX__TENSOR_PROTO__DATA_TYPE__UINT8;
    if (type != ONNX__TENSOR_PROTO__DATA_TYPE__UINT8 && type != ONNX__TENSOR_PROTO__DATA_TYPE__INT8)
        return nas__onnx_unsupported(m, "an activation that is neither uint8 nor int8");
    *out = (nas_quant){.is_set = true,
                       .is_signed = type == ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
                       .scale = (float)nas__onnx_at(scale, 0),
                       .zero_point = zero != NULL ? (int32_t)nas__onnx_int_at(zero, 0) : 0};
    return NAS_OK;
}

static nas_status import_quantize(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value x = *nas__onnx_input(m, n, 0);
    if (x.kind == NAS__ONNX_CONST)
        return nas__onnx_unsupported(m, "a constant that is quantized when the network runs");
    nas_quant quant;
    nas_status status = quant_of(m, n, &quant);
    if (status != NAS_OK) return status;
    const nas_quant *old = &nas_graph_node(m->g, x.v)->quant;
    if (old->is_set && (old->is_signed != quant.is_signed || old->scale != quant.scale ||
                        old->zero_point != quant.zero_point))
        return nas__onnx_unsupported(m, "a value with two quantizations");
    status = nas_graph_set_quant(m->ctx, m->g, x.v, quant);
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* The fewest bits whose symmetric codes have all of `x`: kernels of few bits then serve a file of int8. */
static int32_t bits_of(const nas__onnx_value *x) {
    int64_t most = 0;
    for (size_t i = 0; i < x->count; i++) {
        const int64_t code = nas__onnx_int_at(x, i);
        most = code > most ? code : -code > most ? -code : most;
    }
    int32_t bits = 2;
    while (bits < 8 && most > (1 << (bits - 1)) - 1)
        bits++;
    return bits;
}

/* (code - zero)*scale; scales along `axis`. */
static nas_status dequantize_constant(nas__onnx *m, const nas__onnx_node *n,
                                      const nas__onnx_value *x) {
    const nas__onnx_value *scale = NULL, *zero = NULL;
    nas_status status = read_parameters(m, n, &scale, &zero);
    if (status != NAS_OK) return status;
    int32_t axis = 0;
    size_t inner = 1;
    if (scale->count > 1) {
        status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", 1), x->rank, &axis);
        if (status != NAS_OK) return status;
        if (x->dims[axis] != (int64_t)scale->count || nas__onnx_attr_int(n, "block_size", 0) != 0)
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "%zu scales for axis %" PRId32, scale->count,
                            axis);
        for (int32_t k = axis + 1; k < x->rank; k++)
            inner *= (size_t)x->dims[k];
    }
    nas__onnx_value c;
    status = nas__onnx_new_const(m, false, x->count, &c);
    if (status != NAS_OK) return status;
    double *to = (double *)(uintptr_t)c.data;
    bool symmetric = x->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__INT8;
    for (size_t i = 0; i < x->count; i++) {
        const size_t s = scale->count > 1 ? i / inner % scale->count : 0;
        const double z = zero != NULL ? nas__onnx_at(zero, s) : 0;
        to[i] = (nas__onnx_at(x, i) - z) * nas__onnx_at(scale, s);
        symmetric = symmetric && z == 0;
    }
    c.rank = x->rank;
    memcpy(c.dims, x->dims, sizeof c.dims);
    c.scales = symmetric ? scale : NULL;
    c.scale_axis = axis;
    if (symmetric) c.bits = bits_of(x);
    return nas__onnx_output(m, n, c);
}

static nas_status import_dequantize(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value x = *nas__onnx_input(m, n, 0);
    if (x.kind == NAS__ONNX_CONST) return dequantize_constant(m, n, &x);
    nas_quant quant;
    const nas_status status = quant_of(m, n, &quant);
    if (status != NAS_OK) return status;
    const nas_quant *old = &nas_graph_node(m->g, x.v)->quant;
    if (!old->is_set || old->scale != quant.scale || old->zero_point != quant.zero_point)
        return nas__onnx_unsupported(m, "scale and zero point are not those of QuantizeLinear");
    return nas__onnx_output(m, n, x);
}

nas_status nas__onnx_weight_scales(nas__onnx *m, nas_value v, const nas__onnx_value *w,
                                   int32_t axis) {
    if (w->scales == NULL || (w->scales->count > 1 && w->scale_axis != axis)) return NAS_OK;
    const int32_t param = nas_graph_node(m->g, v)->params[0];
    const size_t n = (size_t)nas_graph_param(m->g, param)->dims[0];
    if (w->scales->count > 1 && w->scales->count != n) return NAS_OK;
    float *scales = nas_alloc_array(m->ctx, n, sizeof *scales);
    if (scales == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        scales[i] = (float)nas__onnx_at(w->scales, w->scales->count > 1 ? i : 0);
    const nas_status status = nas_graph_set_weight_scales(m->ctx, m->g, param, w->bits, scales);
    nas_free(scales);
    return status;
}

const nas__onnx_operator *nas__onnx_find_quant_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"QuantizeLinear", 2, import_quantize, 0},
        {"DequantizeLinear", 2, import_dequantize, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
