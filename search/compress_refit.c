/* compress_refit.c - convolutions of a pruned network fitted in turn: each to the outputs of the original at its kept channels, from
 * the inputs that the pruned layers before it really give, and to make up for what is wrong with an earlier value it is added to
 * (He et al., arXiv:1707.06168, section 3). Statistics come from the pruned network at the size of the original, with zeros
 * for what reads the channels left out: both then have the same nodes and shapes. */
#include "search/compress_levels.h"

#include <string.h>

/* Kept channels of a value; list: room for all of them. */
static int32_t kept_of(const nas__comp *c, const bool *keep, nas_value v, int32_t *list) {
    const int32_t *of = nas_channels_of(c->channels, v);
    int32_t n = 0;
    for (int32_t k = 0; k < nas_graph_node(c->model, v)->shape.c; k++) {
        if (of[k] == NAS_CLASS_FIXED || keep[of[k]]) list[n++] = k;
    }
    return n;
}

static void put_weight(const nas__comp *c, const nas_node *node, const int32_t *out, int32_t n_out,
                       const int32_t *in, int32_t n_in, const float *from, float *to) {
    const int32_t channels = nas_graph_node(c->model, node->inputs[0])->shape.c;
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    const bool grouped = node->conv.groups > 1;
    const bool depthwise = grouped && node->conv.groups == channels;
    const int32_t width = depthwise ? 1 : channels / node->conv.groups;
    const int32_t n = grouped ? width : n_in;
    for (int32_t o = 0; o < n_out; o++) {
        for (int32_t t = 0; t < taps; t++) {
            float *row = to + ((ptrdiff_t)out[o] * taps + t) * width;
            for (int32_t i = 0; i < n; i++)
                row[grouped ? i : in[i]] = *from++;
        }
    }
}

/* Params of one node of the pruned network into the places that they have in the whole one. */
static void put_node(const nas__comp *c, const bool *keep, const nas_graph *sliced, nas_value v,
                     nas_graph *whole, int32_t *list) {
    const nas_node *node = nas_graph_node(c->model, v), *made = nas_graph_node(sliced, v);
    int32_t *in = list + node->shape.c;
    const int32_t n_out = kept_of(c, keep, v, list);
    const int32_t n_in = node->n_inputs > 0 ? kept_of(c, keep, node->inputs[0], in) : 0;
    for (int slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] < 0) continue;
        const nas_param *p = nas_graph_param_const(sliced, made->params[slot]);
        nas_param *to = nas_graph_param(whole, node->params[slot]);
        if (node->op == NAS_OP_CONV && slot == 0) {
            put_weight(c, node, list, n_out, in, n_in, p->data, to->data);
        } else if (p->count == to->count) {
            memcpy(to->data, p->data, p->count * sizeof *p->data);
        } else { /* the last axis is channels */
            for (size_t i = 0; i < p->count; i++)
                to->data[i / (size_t)n_out * (size_t)node->shape.c +
                         (size_t)list[i % (size_t)n_out]] = p->data[i];
        }
    }
}

static nas_status refit_next(nas_ctx *ctx, const nas__comp *c, const bool *keep, nas_value v,
                             const nas_graph *whole, nas_graph *sliced) {
    const nas_config *cfg = c->config;
    const nas_exec_options e = {.chunk = 8, .threads = cfg->eval.threads};
    const size_t images = nas_class_data_count(c->data, NAS_CLASS_TUNE),
                 want = (size_t)cfg->compress.calibration_images;
    nas_class_reader reader = {c->data, NAS_CLASS_TUNE};
    int32_t repaired = 0;
    nas_exec_pair p;
    nas_status status =
        nas_exec_pair_moments(ctx, whole, c->model, &e, v, nas__oneshot_summed_with(whole, v),
                              images < want ? images : want, cfg->compress.positions,
                              cfg->study.seed, nas_class_reader_read, &reader, &p);
    const nas_moments m = {.conv = v, .size = p.size, .gram = p.gram, .cross = p.cross};
    if (status == NAS_OK)
        status = nas_channels_repair(ctx, c->channels, c->model, keep, &m, 1, cfg->compress.ridge,
                                     sliced, &repaired);
    nas_exec_pair_deinit(&p);
    return status;
}

nas_status nas__comp_refit(nas_ctx *ctx, const nas__comp *c, const bool *keep, nas_graph *sliced) {
    nas_graph *whole = NULL;
    int32_t widest = 0;
    for (nas_value v = 0; v < nas_graph_node_count(c->model); v++) {
        const int32_t channels = nas_graph_node(c->model, v)->shape.c;
        if (channels > widest) widest = channels;
    }
    int32_t *list = nas_alloc_array(ctx, 2 * (size_t)widest, sizeof *list);
    nas_status status = list == NULL ? NAS_ERR_NOMEM : nas_graph_clone(ctx, c->model, &whole);
    for (nas_value v = 0; v < nas_graph_node_count(c->model) && status == NAS_OK; v++)
        put_node(c, keep, sliced, v, whole, list);
    if (status == NAS_OK) status = nas_channels_mask(ctx, c->channels, whole, keep);
    for (nas_value v = 0; v < nas_graph_node_count(c->model) && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(c->model, v);
        if (node->op != NAS_OP_CONV || node->conv.groups > 1) continue;
        status = refit_next(ctx, c, keep, v, whole, sliced);
        if (status == NAS_OK) put_node(c, keep, sliced, v, whole, list);
    }
    nas_free(list);
    nas_graph_free(whole);
    return nas_wrap(ctx, status, "fitting layers in turn");
}
