/* bench_net.c - whole networks as generated, one and two threads, and what emitting plus compiling one costs. */
#include "bench/bench_common.h"

#include "spaces/space.h"

#include <unistd.h>

static const struct {
    const char *name, *point; /* NULL: the FSRCNN shape */
} nets[] = {
    {"WDSR-B 16 x 5 x2", "sr x2 f16 h3 t3 s5 | 1:96,12 2:96,12 3:96,12 4:96,12 5:96,12"},
    {"FSRCNN(56,12,4) x2", NULL},
    {"16 blocks of 24 x2", "sr x2 f24 h3 t3 s5 | 1:96,16 2:96,16 3:96,16 4:96,16 5:96,16 6:96,16 "
                           "7:96,16 8:96,16 9:96,16 10:96,16 "
                           "11:96,16 12:96,16 13:96,16 14:96,16 15:96,16 16:96,16"},
};

static nas_graph *net_graph(nas_ctx *ctx, const char *point_text) {
    nas_graph *g = NULL;
    if (point_text == NULL) {
        bench_check(ctx, nas_fsrcnn_graph(ctx, 2, 360, 640, &g));
    } else {
        nas_sr_options o = nas_sr_options_default();
        o.scale = 2;
        o.lr_height = 360;
        o.lr_width = 640;
        o.blocks_max = 0; /* the text names every block of its space */
        for (const char *c = point_text; *c != '\0'; c++)
            o.blocks_max += *c == ':';
        o.blocks_min = 1;
        o.residual = (nas_range){8, 32, 4};
        o.expand = (nas_range){16, 128, 16};
        o.project = (nas_range){4, 32, 4};
        nas_space *space = NULL;
        nas_point point;
        bench_check(ctx, nas_space_sr_new(ctx, &o, &space));
        bench_check(ctx, nas_space_parse(ctx, space, point_text, &point));
        bench_check(ctx, nas_space_decode(ctx, space, &point, &g));
        nas_space_free(space);
    }
    bench_fill(ctx, g);
    return g;
}

/* Fresh cache each time: median seconds of nas_compile, emitting included. */
static double compile_seconds(nas_ctx *ctx, const nas_graph *g, nas_compile_options options) {
    enum { TIMES = 3 };
    double seconds[TIMES];
    for (int i = 0; i < TIMES; i++) {
        options.cache_dir = "build/bench-cache-fresh";
        bench_check(ctx, nas_remove_tree(ctx, options.cache_dir));
        nas_artifact artifact;
        const int64_t start = nas_now_ns();
        bench_check(ctx, nas_compile(ctx, g, &options, &artifact));
        seconds[i] = 1e-9 * (double)(nas_now_ns() - start);
    }
    bench_check(ctx, nas_remove_tree(ctx, "build/bench-cache-fresh"));
    return bench_median(seconds, TIMES);
}

int main(void) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    nas_compile_options options = nas_compile_options_default();
    options.cache_dir = "build/bench-cache";
    bench_check(ctx, nas_target_find(ctx, "native", &options.target));
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++) {
        nas_graph *g = net_graph(ctx, nets[i].point);
        nas_artifact artifact;
        nas_graph_cost cost;
        bench_check(ctx, nas_graph_cost_total(ctx, g, &cost));
        bench_check(ctx, nas_compile(ctx, g, &options, &artifact));
        const double gflop = 2e-9 * (double)cost.macs;
        const double one = bench_cell(ctx, nets[i].name, options.target, &artifact, gflop, 1, "0");
        if (nas_cpu_count() > 1) {
            const double two =
                bench_cell(ctx, nets[i].name, options.target, &artifact, gflop, 2, "0,1");
            printf("%-28s two threads %.2fx\n", nets[i].name, one / two);
        }
        printf("%-28s emit + compile %.2f s, arena %.2f MB\n", nets[i].name,
               compile_seconds(ctx, g, options), 1e-6 * (double)artifact.arena_bytes);
        nas_graph_free(g);
    }
    nas_ctx_free(ctx);
    return NAS_EXIT_OK;
}
