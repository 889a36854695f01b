/* bench_conv.c - single convolutions as generated: full frame from memory to memory, one thread, beside a peak loop. */
#include "bench/bench_common.h"

static const struct {
    const char *name;
    int32_t height, width, in, out, kernel;
} layers[] = {
    {"3x3 16->16 @640x360", 360, 640, 16, 16, 3}, {"3x3 3->16 @640x360", 360, 640, 3, 16, 3},
    {"3x3 12->16 @640x360", 360, 640, 12, 16, 3}, {"1x1 16->96 @640x360", 360, 640, 16, 96, 1},
    {"5x5 1->56 @640x360", 360, 640, 1, 56, 5},   {"3x3 64->64 @56x56", 56, 56, 64, 64, 3},
};

static nas_graph *layer_graph(nas_ctx *ctx, size_t i) {
    nas_graph *g = nas_graph_new(ctx, "layer");
    nas_value x = 0;
    const nas_conv_attributes c = nas_conv_same(layers[i].out, layers[i].kernel);
    if (g == NULL) bench_check(ctx, NAS_ERR_NOMEM);
    bench_check(ctx, nas_graph_add_input(
                         ctx, g, "in",
                         (nas_shape){1, layers[i].height, layers[i].width, layers[i].in}, &x));
    bench_check(ctx, nas_graph_add_conv(ctx, g, "conv", x, &c, &x));
    bench_check(ctx, nas_graph_set_output(ctx, g, x));
    bench_fill(ctx, g);
    return g;
}

int main(void) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    nas_compile_options options = nas_compile_options_default();
    options.cache_dir = "build/bench-cache";
    options.max_threads = 1;
    bench_check(ctx, nas_target_find(ctx, "native", &options.target));
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        nas_graph *g = layer_graph(ctx, i);
        nas_artifact artifact;
        bench_check(ctx, nas_compile(ctx, g, &options, &artifact));
        const double macs = (double)nas_graph_node_cost(g, nas_graph_output(g)).macs;
        (void)bench_cell(ctx, layers[i].name, options.target, &artifact, 2e-9 * macs, 1, "0");
        nas_graph_free(g);
    }
    nas_ctx_free(ctx);
    return NAS_EXIT_OK;
}
