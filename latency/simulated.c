/* simulated.c - a deterministic latency for tests and dry runs: it times nothing.
 *
 * Roofline (Williams et al., CACM 2009) of a nominal CPU, node by node. Padding to vector lanes and register tiles is
 * what keeps it from being a function of the MACs alone: 17 channels cost as much as 20. */
#include "latency/device_internal.h"

const char nas__simulated_id[] = "simulated roofline/1";

static const struct {
    int32_t lanes, channel_tile; /* fp32 pixels in a vector; output channels in a register tile */
    double macs_per_us; /* of one thread: 2.5 GHz, one 16-lane FMA a cycle, 80 % of it reached */
    double cache_bytes_per_us, memory_bytes_per_us;
    double cache_bytes;         /* traffic below it stays in the cache */
    double node_us, thread_us;  /* per node; per node and further thread */
    double parallel_efficiency; /* of each further thread */
} nominal = {16, 4, 32000.0, 40000.0, 10000.0, 1048576.0, 1.5, 0.8, 0.9};

static double padded(int32_t extent, int32_t step) {
    return (double)((extent + step - 1) / step) * (double)step;
}

static double node_macs(const nas_graph *g, const nas_node *node) {
    if (node->op != NAS_OP_CONV) {
        return padded(node->shape.w, nominal.lanes) * node->shape.h * (double)node->shape.c * 0.25;
    }
    const nas_shape *in = &nas_graph_node(g, node->inputs[0])->shape;
    const double taps =
        (double)node->conv.kernel_h * node->conv.kernel_w * ((double)in->c / node->conv.groups);
    return taps * padded(node->shape.c, nominal.channel_tile) *
           padded(node->shape.w, nominal.lanes) * node->shape.h * node->shape.n;
}

nas_status nas__simulated_us(nas_ctx *ctx, const nas_graph *graph, int32_t threads, double *out) {
    if (graph == NULL) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "the simulated device computes from a graph, and none was given");
    }
    const double speed = 1.0 + nominal.parallel_efficiency * (double)(threads - 1);
    double total = 0;
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const nas_node *node = nas_graph_node(graph, v);
        if (node->op == NAS_OP_INPUT || node->op == NAS_OP_CONSTANT) continue;
        const nas_node_cost cost = nas_graph_node_cost(graph, v);
        const double bytes =
            (double)cost.input_bytes + (double)cost.output_bytes + (double)cost.weight_bytes;
        const double rate =
            bytes <= nominal.cache_bytes ? nominal.cache_bytes_per_us : nominal.memory_bytes_per_us;
        const double compute = node_macs(graph, node) / nominal.macs_per_us / speed;
        const double traffic = bytes / rate;
        total += (compute > traffic ? compute : traffic) + nominal.node_us +
                 nominal.thread_us * (double)(threads - 1);
    }
    *out = total;
    return NAS_OK;
}
