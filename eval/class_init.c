/* class_init.c - weights of a classifier that is trained from scratch. */
#include "eval/class_train.h"

#include <math.h>

static bool ends_branch(const nas_graph *g, nas_value v) {
    for (nas_value i = v + 1; i < nas_graph_node_count(g); i++) {
        const nas_node *node = nas_graph_node(g, i);
        for (int32_t k = 0; k < node->n_inputs; k++) {
            if (node->inputs[k] == v) return node->op == NAS_OP_ADD && k == 0;
        }
    }
    return false;
}

/* Filters that do not see how bright an image is: sums of 0 over each input channel. */
static void balance(nas_param *p) {
    const size_t width = (size_t)p->dims[3], filter = p->count / (size_t)p->dims[0];
    if (filter <= width) return;
    for (size_t o = 0; o < (size_t)p->dims[0]; o++) {
        for (size_t i = 0; i < width; i++) {
            double mean = 0;
            for (size_t k = i; k < filter; k += width)
                mean += (double)p->data[o * filter + k] / (double)(filter / width);
            for (size_t k = i; k < filter; k += width)
                p->data[o * filter + k] -= (float)mean;
        }
    }
}

nas_status nas_class_init(nas_ctx *ctx, nas_graph *g, nas_rng *rng) {
    const nas_status status = nas_graph_alloc_weights(ctx, g);
    if (status != NAS_OK) return status;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
            if (node->params[slot] < 0) continue;
            nas_param *p = nas_graph_param(g, node->params[slot]);
            const double fan = (double)p->count / p->dims[0];
            const double scale = sqrt(2 / fan) * (ends_branch(g, v) ? 0.3 : 1);
            const bool one = node->op == NAS_OP_BATCH_NORM && (slot == 0 || slot == 3);
            for (size_t i = 0; i < p->count; i++)
                p->data[i] = node->op == NAS_OP_CONV && slot == 0
                                 ? (float)(scale * nas_rng_normal(rng))
                                 : (float)one;
            const bool first = node->op == NAS_OP_CONV && slot == 0 &&
                               nas_graph_node(g, node->inputs[0])->op == NAS_OP_INPUT;
            if (first) balance(p);
        }
    }
    return NAS_OK;
}
