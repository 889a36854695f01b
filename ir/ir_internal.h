/* ir_internal.h - the body of a graph and what the files of this folder share. Never included from elsewhere. */
#ifndef NAS_IR_IR_INTERNAL_H
#define NAS_IR_IR_INTERNAL_H

#include "ir/graph.h"

struct nas_graph {
    char *name;
    nas_node
        *nodes; /* topological order: inputs of nodes[i] are < i; a name owns its params' names */
    size_t n_nodes, cap_nodes;
    nas_param *params; /* each belongs to exactly one node */
    size_t n_params, cap_params;
    nas_value output; /* NAS_VALUE_NONE until set */
};

/* nas__infer_shape - output shape of `node` from the shapes of its inputs in `g` (which must exist). The node itself
 * need not be part of the graph. Checks every attribute the shape depends on. */
nas_status nas__infer_shape(nas_ctx *ctx, const nas_graph *g, const nas_node *node, nas_shape *out);

/* nas__expected_params - rank, dims and count of the params `node` needs, by slot; rank 0 = slot unused, the rest of it
 * is not set then.
 * Only valid for a node whose shape inference succeeds. */
nas_status nas__expected_params(nas_ctx *ctx, const nas_graph *g, const nas_node *node,
                                nas_param expected[NAS_NODE_PARAMS_MAX]);
/* nas__param_suffix - "weight", "bias", "slope", "scale", "mean", "variance", "value": the part of a param's name after "<node>.". */
const char *nas__param_suffix(nas_op op, int32_t slot);

/* nas__check_node_name - legal characters, length, not reserved. Uniqueness is the caller's. */
nas_status nas__check_node_name(nas_ctx *ctx, const char *name);

/* nas__check_arity - the operator exists and has a legal number of inputs. */
nas_status nas__check_arity(nas_ctx *ctx, const nas_node *node);
nas_status nas__check_quant(nas_ctx *ctx, const nas_quant *quant);
/* nas__check_scales - `n` scales of the param named `name`. */
nas_status nas__check_scales(nas_ctx *ctx, const char *name, int32_t bits, const float *scales,
                             size_t n);

/* nas__node_cost - costs of `node` with output shape `shape`; RANGE when a figure exceeds INT64_MAX. */
nas_status nas__node_cost(nas_ctx *ctx, const nas_graph *g, const nas_node *node, nas_shape shape,
                          nas_node_cost *out);

/* nas__product - product of `n` factors >= 0, at most INT64_MAX; RANGE naming `what` otherwise. */
nas_status nas__product(nas_ctx *ctx, const char *what, const int64_t *factors, size_t n,
                        uint64_t *out);

/* nas__complementary_mask - masks of sets of `set` outputs that do not overlap, [O,KH,KW,I]: sparsity_complementary.c */
void nas__complementary_mask(const float *weight, const int32_t dims[4], int32_t set,
                             uint8_t *kept);

/* Of the names of exported ONNX values: a network's output before it is stored as integers. */
#define NAS__ONNX_FLOAT "/float"

/* nas__param_sha256_hex - hash of the values of a param that has data, as little-endian floats. */
void nas__param_sha256_hex(const nas_param *param, char out[NAS_SHA256_HEX]);

#endif
