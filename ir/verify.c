/* verify.c - the checks a pass, an exporter or a compiler may rely on. Builders keep most of these by themselves; the
 * verifier repeats them from scratch, so that a graph changed in place (weights written by a trainer, a pass with a
 * mistake) is caught where it broke and not three stages later. */
#include "ir/ir_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

nas_status nas__check_arity(nas_ctx *ctx, const nas_node *node) {
    static const struct {
        int32_t min, max;
    } arity[NAS_OP_COUNT] = {
#define NAS_OPERATOR(code, name, inputs_min, inputs_max) [NAS_OP_##code] = {inputs_min, inputs_max},
#include "ir/ops.def"
#undef NAS_OPERATOR
    };
    if ((int)node->op < 0 || node->op >= NAS_OP_COUNT) {
        return nas_fail(ctx, NAS_ERR_INVALID, "operator %d does not exist", (int)node->op);
    }
    if (node->n_inputs < arity[node->op].min || node->n_inputs > arity[node->op].max) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "%" PRId32 " inputs, the operator takes %" PRId32 " to %" PRId32,
                        node->n_inputs, arity[node->op].min, arity[node->op].max);
    }
    return NAS_OK;
}

static nas_status check_inputs(nas_ctx *ctx, const nas_node *node, size_t index) {
    for (int32_t k = 0; k < node->n_inputs; k++) {
        if (node->inputs[k] < 0 || (size_t)node->inputs[k] >= index) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "input %" PRId32 " is value %" PRId32 ", it must come before node %zu",
                            k, node->inputs[k], index);
        }
    }
    if (node->op == NAS_OP_ADD_SCALAR && !isfinite(node->scalar)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "the scalar is not a finite number");
    }
    return NAS_OK;
}

nas_status nas__check_quant(nas_ctx *ctx, const nas_quant *quant) {
    if (!quant->is_set) return NAS_OK;
    const int32_t low = quant->is_signed ? -128 : 0;
    if (!isfinite(quant->scale) || !(quant->scale > 0)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "quantization scale %g: must be finite and greater than 0",
                        (double)quant->scale);
    }
    if (quant->zero_point < low || quant->zero_point > low + 255) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "zero point %" PRId32 ": must be %" PRId32 "..%" PRId32, quant->zero_point,
                        low, low + 255);
    }
    return NAS_OK;
}

nas_status nas__check_scales(nas_ctx *ctx, const char *name, int32_t bits, const float *scales,
                             size_t n) {
    if (bits < 2 || bits > 8) {
        return nas_fail(ctx, NAS_ERR_INVALID, "'%s': %" PRId32 " bits, must be 2..8", name, bits);
    }
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(scales[i]) || !(scales[i] > 0)) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "'%s': scale %zu is %g, must be finite and greater than 0", name, i,
                            (double)scales[i]);
        }
    }
    return NAS_OK;
}

static nas_status check_unique_name(nas_ctx *ctx, const nas_graph *g, size_t index) {
    const nas_status status = nas__check_node_name(ctx, g->nodes[index].name);
    if (status != NAS_OK) return status;
    for (size_t i = 0; i < index; i++) {
        if (strcmp(g->nodes[i].name, g->nodes[index].name) == 0) {
            return nas_fail(ctx, NAS_ERR_INVALID, "nodes %zu and %zu have the same name", i, index);
        }
    }
    return NAS_OK;
}

static nas_status check_shape(nas_ctx *ctx, const nas_graph *g, const nas_node *node) {
    nas_shape fresh;
    nas_status status = nas__infer_shape(ctx, g, node, &fresh);
    if (status != NAS_OK) return status;
    const nas_shape s = node->shape;
    if (s.n != fresh.n || s.h != fresh.h || s.w != fresh.w || s.c != fresh.c) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "stored shape [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "], inference gives [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32 "]",
                        s.n, s.h, s.w, s.c, fresh.n, fresh.h, fresh.w, fresh.c);
    }
    nas_node_cost cost;
    status = nas__node_cost(ctx, g, node, fresh, &cost);
    return status;
}

static nas_status check_values(nas_ctx *ctx, const nas_param *param) {
    if (param->data == NULL) return NAS_OK;
    for (size_t i = 0; i < param->count; i++) {
        if (!isfinite(param->data[i])) {
            return nas_fail(ctx, NAS_ERR_INVALID, "'%s' element %zu of %zu is not a finite number",
                            param->name, i, param->count);
        }
    }
    return NAS_OK;
}

static nas_status check_param(nas_ctx *ctx, const nas_node *node, int32_t slot,
                              const nas_param *param, const nas_param *expected) {
    char name[NAS_GRAPH_NAME_MAX + 16];
    (void)snprintf(name, sizeof name, "%s.%s", node->name,
                   nas__param_suffix(node->op, slot)); /* fits */
    if (param->name == NULL || strcmp(param->name, name) != 0) {
        return nas_fail(ctx, NAS_ERR_INVALID, "its param is named '%s', must be '%s'",
                        param->name == NULL ? "" : param->name, name);
    }
    bool same = param->rank == expected->rank && param->count == expected->count;
    for (int32_t i = 0; i < expected->rank && same; i++)
        same = param->dims[i] == expected->dims[i];
    if (!same) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "'%s' has rank %" PRId32 " and %zu elements starting [%" PRId32
                        ",...], the node needs rank %" PRId32 " and %zu elements starting [%" PRId32
                        ",...]",
                        name, param->rank, param->count, param->dims[0], expected->rank,
                        expected->count, expected->dims[0]);
    }
    if (param->scales != NULL) {
        const nas_status status =
            nas__check_scales(ctx, name, param->bits, param->scales, (size_t)param->dims[0]);
        if (status != NAS_OK) return status;
    } else if (param->bits != 0) {
        return nas_fail(ctx, NAS_ERR_INVALID, "'%s' has %" PRId32 " bits but no scales", name,
                        param->bits);
    }
    return check_values(ctx, param);
}

/* Normalization divides by the root of variance + epsilon. */
static nas_status check_variance(nas_ctx *ctx, const nas_graph *g, const nas_node *node) {
    if (node->op != NAS_OP_BATCH_NORM) return NAS_OK;
    const nas_param *variance = &g->params[node->params[3]];
    for (size_t c = 0; c < variance->count && variance->data != NULL; c++) {
        if (variance->data[c] < 0 || !(variance->data[c] + node->epsilon > 0)) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "variance %g + epsilon %g of channel %zu is not a positive sum",
                            (double)variance->data[c], (double)node->epsilon, c);
        }
    }
    return NAS_OK;
}

/* owned[p] counts the nodes that use param p. */
static nas_status check_params(nas_ctx *ctx, const nas_graph *g, const nas_node *node,
                               uint8_t *owned) {
    nas_param expected[NAS_NODE_PARAMS_MAX];
    nas_status status = nas__expected_params(ctx, g, node, expected);
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX && status == NAS_OK; slot++) {
        const int32_t index = node->params[slot];
        if (expected[slot].rank == 0) {
            if (index == -1) continue;
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "param slot %" PRId32 " is %" PRId32 ", must be -1 (unused)", slot,
                            index);
        }
        if (index < 0 || (size_t)index >= g->n_params || owned[index] != 0) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "param slot %" PRId32 " is %" PRId32
                            ": must be one of the graph's %zu params that no other node uses",
                            slot, index, g->n_params);
        }
        owned[index] = 1;
        status = check_param(ctx, node, slot, &g->params[index], &expected[slot]);
    }
    return status;
}

static nas_status check_node(nas_ctx *ctx, const nas_graph *g, size_t index, uint8_t *owned) {
    const nas_node *node = &g->nodes[index];
    nas_status status = nas__check_arity(ctx, node);
    if (status == NAS_OK) status = check_unique_name(ctx, g, index);
    if (status == NAS_OK) status = check_inputs(ctx, node, index);
    if (status == NAS_OK) status = nas__check_quant(ctx, &node->quant);
    if (status == NAS_OK) status = check_shape(ctx, g, node);
    if (status == NAS_OK) status = check_params(ctx, g, node, owned);
    if (status == NAS_OK) status = check_variance(ctx, g, node);
    return nas_wrap(ctx, status, "node %zu (%s '%s')", index, nas_op_name(node->op), node->name);
}

/* Every node must lead to the output: work that is counted but never used would make costs and latency disagree. */
static nas_status check_reachable(nas_ctx *ctx, const nas_graph *g, uint8_t *needed) {
    if (g->output < 0 || (size_t)g->output >= g->n_nodes) {
        return nas_fail(ctx, NAS_ERR_INVALID, "the output is not set: call nas_graph_set_output");
    }
    needed[g->output] = 1;
    for (size_t i = g->n_nodes; i-- > 0;) {
        const nas_node *node = &g->nodes[i];
        if (needed[i] == 0) {
            return nas_fail(ctx, NAS_ERR_INVALID, "node %zu (%s '%s') does not lead to the output",
                            i, nas_op_name(node->op), node->name);
        }
        for (int32_t k = 0; k < node->n_inputs; k++)
            needed[node->inputs[k]] = 1;
    }
    return NAS_OK;
}

static nas_status verify_with(nas_ctx *ctx, const nas_graph *g, uint8_t *owned, uint8_t *needed) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const nas_status status = check_node(ctx, g, i, owned);
        if (status != NAS_OK) return status;
    }
    for (size_t p = 0; p < g->n_params; p++) {
        if (owned[p] == 0) {
            return nas_fail(ctx, NAS_ERR_INVALID, "param %zu ('%s') belongs to no node", p,
                            g->params[p].name);
        }
    }
    return check_reachable(ctx, g, needed);
}

nas_status nas_graph_verify(nas_ctx *ctx, const nas_graph *g) {
    uint8_t *owned = nas_alloc_array(ctx, g->n_params, 1);
    if (owned == NULL) return NAS_ERR_NOMEM;
    uint8_t *needed = nas_alloc_array(ctx, g->n_nodes, 1);
    if (needed == NULL) {
        nas_free(owned);
        return NAS_ERR_NOMEM;
    }
    const nas_status status = verify_with(ctx, g, owned, needed);
    nas_free(needed);
    nas_free(owned);
    return nas_wrap(ctx, status, "graph '%s'", g->name);
}
