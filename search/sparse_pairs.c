/* sparse_pairs.c - layers of a graph as the table of sparse cells names them, and which forms lose there. */
#include "search/sparse_pairs.h"

bool nas__sparse_layer_of(const nas_graph *graph, nas_value conv, int32_t bits,
                          nas_db_sparse_layer *out) {
    const nas_node *node = nas_graph_node(graph, conv);
    const nas_conv_attributes *c = &node->conv;
    if (node->op != NAS_OP_CONV || c->groups != 1 || c->kernel_h != c->kernel_w ||
        c->stride_h != c->stride_w || c->dilation_h != 1 || c->dilation_w != 1)
        return false;
    *out = (nas_db_sparse_layer){.kernel = c->kernel_h,
                                 .stride = c->stride_h,
                                 .in_c = nas_graph_node(graph, node->inputs[0])->shape.c,
                                 .out_c = c->out_channels,
                                 .out_h = node->shape.h,
                                 .out_w = node->shape.w,
                                 .bits = bits};
    return true;
}

/* The share of the weights that is zero. */
static double rate_of(const nas_sparsity *s) {
    const double taps = 9;
    switch (s->pattern) {
    case NAS_SPARSITY_N_OF_M: return 1 - (double)s->keep / s->group;
    case NAS_SPARSITY_PATTERN: return 1 - (1 - s->rate) * s->entries / taps;
    case NAS_SPARSITY_PERIODIC: return 1 - s->entries / taps;
    case NAS_SPARSITY_COMPLEMENTARY: return 1 - 1.0 / s->outputs;
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_1XN:
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return s->rate;
}

nas_status nas__sparse_gain_of(nas_ctx *ctx, const nas__sparse_judge *judge, const nas_graph *graph,
                               nas_value conv, const nas_sparsity *form,
                               nas_db_sparse_answer *out) {
    nas_db_sparse_layer layer;
    char pattern[NAS_SPARSITY_SHORT_MAX];
    if (!nas__sparse_layer_of(graph, conv, judge->bits, &layer)) {
        *out = (nas_db_sparse_answer){0};
        return NAS_OK;
    }
    nas_sparsity_short(form, pattern);
    return nas_db_sparse_gain(ctx, judge->db, judge->fingerprint, &layer, pattern, rate_of(form),
                              out);
}

static void put_line(const nas_graph *graph, nas_value conv, const nas_sparsity *form,
                     const nas_db_sparse_answer *a, nas_buf *out) {
    char pattern[NAS_SPARSITY_SHORT_MAX];
    nas_sparsity_short(form, pattern);
    nas_buf_printf(out, "%s: %s at %.0f %% is %.2f times as fast as dense here (",
                   nas_graph_node(graph, conv)->name, pattern, 100 * rate_of(form), a->gain);
    if (a->even.is_set)
        nas_buf_printf(out, "faster from %.0f %%)\n", 100 * a->even.value);
    else
        nas_buf_puts(out, "at no measured rate faster)\n");
}

nas_status nas__sparse_drop(nas_ctx *ctx, const nas__sparse_judge *judge, const nas_graph *graph,
                            nas_value conv, const nas_sparsity *forms, size_t n, bool use[],
                            nas_buf *dropped) {
    for (size_t i = 0; i < n; i++) {
        nas_db_sparse_answer a;
        const nas_status status = nas__sparse_gain_of(ctx, judge, graph, conv, &forms[i], &a);
        if (status != NAS_OK) return status;
        use[i] = !a.known || a.gain > 1 + judge->margin;
        if (!use[i]) put_line(graph, conv, &forms[i], &a, dropped);
    }
    return nas_buf_status(ctx, dropped);
}
