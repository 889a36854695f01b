/* compress_hints.c - which values of a network with fewer channels are held against its teacher's while it is fine-tuned: slicing
 * leaves nodes their names, and every channel that stays was one of the original's, so that both compare channel by channel. */
#include "search/compress_internal.h"

static bool is_inside(const nas_node *node, nas_op op) {
    return node->op == op && node->shape.h * node->shape.w > 1;
}

/* What additions give; in a network without any, what convolutions give. */
static nas_op hinted_op(const nas_graph *g) {
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        if (is_inside(nas_graph_node(g, v), NAS_OP_ADD)) return NAS_OP_ADD;
    }
    return NAS_OP_CONV;
}

/* Channels of the original's value that stay, in order; returns how many. */
static int32_t staying(const nas_channels *channels, const nas_graph *g, nas_value v,
                       const bool *keep, int32_t *of) {
    const int32_t *classes = nas_channels_of(channels, v);
    int32_t n = 0;
    for (int32_t k = 0; k < nas_graph_node(g, v)->shape.c; k++) {
        if (classes[k] == NAS_CLASS_FIXED || keep[classes[k]]) of[n++] = k;
    }
    return n;
}

static nas_status add(nas__comp *c, nas_value v, const bool *keep, const nas_graph *graph,
                      const nas_graph *teacher, nas__comp_hints *out) {
    const nas_node *node = nas_graph_node(c->model, v);
    nas_tune_hint *hint = &out->list[out->n];
    int32_t *of = out->of + out->n_of;
    const int32_t n = staying(c->channels, c->model, v, keep, of);
    *hint =
        (nas_tune_hint){nas_graph_find(graph, node->name), nas_graph_find(teacher, node->name), of};
    if (hint->value == NAS_VALUE_NONE || hint->teacher == NAS_VALUE_NONE ||
        nas_graph_node(graph, hint->value)->shape.c != n)
        return nas_fail(c->ctx, NAS_ERR_INTERNAL, "value '%s' has no equal in the %s", node->name,
                        hint->teacher == NAS_VALUE_NONE ? "teacher" : "smaller network");
    out->n++;
    out->n_of += (size_t)n;
    return NAS_OK;
}

nas_status nas__comp_hints_take(nas__comp *c, const nas_point *point, const nas_graph *graph,
                                const nas_graph *teacher, nas__comp_hints *out) {
    const nas_op op = hinted_op(c->model);
    size_t channels = 0;
    *out = (nas__comp_hints){0};
    for (nas_value v = 0; v < nas_graph_node_count(c->model); v++)
        channels += (size_t)nas_graph_node(c->model, v)->shape.c;
    bool *keep =
        nas_alloc_array(c->ctx, (size_t)nas_channels_class_count(c->channels), sizeof *keep);
    int32_t *kept = nas_alloc_array(c->ctx, nas__comp_parts(c), sizeof *kept);
    out->list = nas_alloc_array(c->ctx, (size_t)nas_graph_node_count(c->model), sizeof *out->list);
    out->of = nas_alloc_array(c->ctx, channels, sizeof *out->of);
    nas_status status = keep == NULL || kept == NULL || out->list == NULL || out->of == NULL
                            ? NAS_ERR_NOMEM
                            : NAS_OK;
    if (status == NAS_OK) {
        nas__comp_kept(c, point, kept);
        status = nas_channels_choose(c->ctx, c->channels, c->scores, kept, keep);
    }
    for (nas_value v = 0; v < nas_graph_node_count(c->model) && status == NAS_OK; v++) {
        if (is_inside(nas_graph_node(c->model, v), op))
            status = add(c, v, keep, graph, teacher, out);
    }
    nas_free(keep);
    nas_free(kept);
    if (status != NAS_OK) nas__comp_hints_deinit(out);
    return status;
}

void nas__comp_hints_deinit(nas__comp_hints *hints) {
    nas_free(hints->list);
    nas_free(hints->of);
    *hints = (nas__comp_hints){0};
}
