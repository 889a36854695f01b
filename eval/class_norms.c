/* class_norms.c - normalisations put behind convolutions and folded into them again. Behind a convolution y = w*x + b of mean m and
 * deviation d over some images stands scale*(w/d*x - mean)/sqrt(variance + epsilon) + bias with mean (m - b)/d and variance 1, scale
 * d*sqrt(1 + epsilon) and bias m: the same function, and every filter has the size at which steps of one length fit all. */
#include "eval/class_norms.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const float epsilon = 1e-5F;
static const double flat = 1e-6; /* deviations that are nothing but rounding */

static bool read_by_norm_alone(const nas_graph *g, nas_value v) {
    int32_t norms = 0, others = nas_graph_output(g) == v;
    for (nas_value i = v + 1; i < nas_graph_node_count(g); i++) {
        const nas_node *node = nas_graph_node(g, i);
        for (int32_t k = 0; k < node->n_inputs; k++) {
            norms += node->inputs[k] == v && node->op == NAS_OP_BATCH_NORM;
            others += node->inputs[k] == v && node->op != NAS_OP_BATCH_NORM;
        }
    }
    return norms == 1 && others == 0;
}

static bool wants_norm(const nas_graph *g, nas_value v) {
    const nas_node *node = nas_graph_node(g, v);
    return node->op == NAS_OP_CONV && node->conv.has_bias && node->shape.h * node->shape.w > 1 &&
           !read_by_norm_alone(g, v);
}

/* A name that neither network has. */
static nas_status add_norm(nas_ctx *ctx, const nas_graph *g, nas_norms *m, nas_value v) {
    nas_node proto = {.op = NAS_OP_BATCH_NORM, .epsilon = epsilon, .n_inputs = 1};
    char name[32];
    proto.inputs[0] = m->node[v];
    for (int32_t i = v;; i += nas_graph_node_count(g)) {
        (void)snprintf(name, sizeof name, "norm.%d", (int)i);
        if (nas_graph_find(g, name) == NAS_VALUE_NONE) break;
    }
    return nas_graph_add_node(ctx, m->graph, name, &proto, &m->norm[v]);
}

static nas_status add_nodes(nas_ctx *ctx, const nas_graph *g, nas_norms *m) {
    nas_status status = NAS_OK;
    for (nas_value v = 0; v < nas_graph_node_count(g) && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(g, v);
        const bool norm = wants_norm(g, v);
        nas_node proto = *node;
        for (int32_t k = 0; k < node->n_inputs; k++) {
            const nas_value in = node->inputs[k];
            proto.inputs[k] = m->norm[in] != NAS_VALUE_NONE ? m->norm[in] : m->node[in];
        }
        if (norm) proto.conv.has_bias = false;
        status = nas_graph_add_node(ctx, m->graph, node->name, &proto, &m->node[v]);
        m->norm[v] = NAS_VALUE_NONE;
        if (status == NAS_OK && norm) status = add_norm(ctx, g, m, v);
    }
    const nas_value out = nas_graph_output(g);
    if (status == NAS_OK)
        status = nas_graph_set_output(ctx, m->graph,
                                      m->norm[out] != NAS_VALUE_NONE ? m->norm[out] : m->node[out]);
    return status == NAS_OK ? nas_graph_alloc_weights(ctx, m->graph) : status;
}

static float *data_of(nas_graph *g, nas_value v, int slot) {
    return nas_graph_param(g, nas_graph_node(g, v)->params[slot])->data;
}

/* Weights of a convolution and its normalisation; `seen`: its channels over the images. */
static void split(const nas_graph *g, const nas_norms *m, nas_value v,
                  const nas_exec_channel *seen) {
    const nas_node *node = nas_graph_node(g, v);
    const nas_param *weight = nas_graph_param_const(g, node->params[0]);
    const float *bias = nas_graph_param_const(g, node->params[1])->data;
    const size_t each = weight->count / (size_t)node->shape.c;
    float *to = data_of(m->graph, m->node[v], 0), *norm[4];
    for (int i = 0; i < 4; i++)
        norm[i] = data_of(m->graph, m->norm[v], i);
    for (int32_t c = 0; c < node->shape.c; c++) {
        const double size = seen[c].deviation > flat ? seen[c].deviation : 1;
        const double apart = seen[c].deviation / size;
        for (size_t i = 0; i < each; i++)
            to[(size_t)c * each + i] = (float)((double)weight->data[(size_t)c * each + i] / size);
        norm[0][c] = (float)(size * sqrt(apart * apart + (double)epsilon));
        norm[1][c] = (float)seen[c].mean;
        norm[2][c] = (float)((seen[c].mean - (double)bias[c]) / size);
        norm[3][c] = (float)(apart * apart);
    }
}

static void copy_params(const nas_graph *from, nas_value v, nas_graph *to, nas_value at) {
    for (int i = 0; i < NAS_NODE_PARAMS_MAX; i++) {
        const int32_t k = nas_graph_node(from, v)->params[i];
        if (k < 0) continue;
        const nas_param *p = nas_graph_param_const(from, k);
        memcpy(data_of(to, at, i), p->data, p->count * sizeof *p->data);
    }
}

static nas_status check(nas_ctx *ctx, const nas_graph *g, const nas_norms *m) {
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        const nas_param *p = nas_graph_param_const(g, i);
        if (p->scales != NULL)
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "'%s' lies on a grid", p->name);
    }
    for (nas_value v = 0; v < nas_graph_node_count(m->graph); v++) {
        if (nas_graph_node(m->graph, v)->op == NAS_OP_BATCH_NORM) return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                    "'%s' has no convolution with a bias and more than one pixel",
                    nas_graph_name(g));
}

nas_status nas_norms_init(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                          size_t n, nas_exec_read_fn read, void *arg, nas_norms *out) {
    const size_t nodes = (size_t)nas_graph_node_count(graph);
    nas_norms m = {.graph = nas_graph_new(ctx, nas_graph_name(graph)),
                   .node = nas_alloc_array(ctx, nodes, sizeof *m.node),
                   .norm = nas_alloc_array(ctx, nodes, sizeof *m.norm)};
    nas_exec_channel *seen = nas_alloc_array(ctx, nas_exec_channel_count(graph) + 1, sizeof *seen);
    nas_status status = m.graph == NULL || m.node == NULL || m.norm == NULL || seen == NULL
                            ? NAS_ERR_NOMEM
                            : NAS_OK;
    if (status == NAS_OK) status = add_nodes(ctx, graph, &m);
    if (status == NAS_OK) status = check(ctx, graph, &m);
    if (status == NAS_OK) status = nas_exec_statistics(ctx, graph, options, n, read, arg, seen);
    size_t at = 0;
    for (nas_value v = 0; v < (nas_value)nodes && status == NAS_OK; v++) {
        if (m.norm[v] == NAS_VALUE_NONE) {
            copy_params(graph, v, m.graph, m.node[v]);
        } else {
            split(graph, &m, v, seen + at);
        }
        at += nas_exec_is_matched(graph, v) ? (size_t)nas_graph_node(graph, v)->shape.c : 0;
    }
    nas_free(seen);
    if (status != NAS_OK) {
        nas_norms_deinit(&m);
        return nas_wrap(ctx, status, "normalising");
    }
    *out = m;
    return NAS_OK;
}

static void join(const nas_norms *m, nas_graph *g, nas_value v) {
    const nas_node *node = nas_graph_node(g, v);
    nas_param *weight = nas_graph_param(g, node->params[0]);
    float *bias = nas_graph_param(g, node->params[1])->data;
    const size_t each = weight->count / (size_t)node->shape.c;
    const float *from = data_of(m->graph, m->node[v], 0), *norm[4];
    for (int i = 0; i < 4; i++)
        norm[i] = data_of(m->graph, m->norm[v], i);
    for (int32_t c = 0; c < node->shape.c; c++) {
        const double factor = (double)norm[0][c] / sqrt((double)norm[3][c] + (double)epsilon);
        for (size_t i = 0; i < each; i++)
            weight->data[(size_t)c * each + i] =
                (float)((double)from[(size_t)c * each + i] * factor);
        bias[c] = (float)((double)norm[1][c] - (double)norm[2][c] * factor);
    }
}

void nas_norms_fold(const nas_norms *m, nas_graph *graph) {
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        if (m->norm[v] == NAS_VALUE_NONE) {
            copy_params(m->graph, m->node[v], graph, v);
        } else {
            join(m, graph, v);
        }
    }
}

void nas_norms_deinit(nas_norms *m) {
    nas_graph_free(m->graph);
    nas_free(m->node);
    nas_free(m->norm);
    *m = (nas_norms){0};
}
