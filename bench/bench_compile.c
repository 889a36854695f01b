/* bench_compile.c - what one candidate of a search costs to compile: wall clock and processor time (children included),
 * in four states of the cache, then a run of random candidates on one cache. */
#include "bench/bench_common.h"

#include "spaces/space.h"

#include <sys/resource.h>

enum { SEEDS = 9, CANDIDATES = 60, COLUMNS = 640 };

static const char cache_dir[] = "build/bench-cache-compile";

static double cpu_seconds(void) {
    double sum = 0;
    static const int who[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (int i = 0; i < 2; i++) {
        struct rusage u;
        (void)getrusage(who[i], &u); /* cannot fail with these arguments */
        sum += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    }
    return sum;
}

static nas_graph *candidate(nas_ctx *ctx, uint64_t seed, int32_t rows) {
    nas_sr_options o = nas_sr_options_default();
    o.lr_height = rows;
    o.lr_width = COLUMNS;
    nas_space *space = NULL;
    nas_point point;
    nas_graph *g = NULL;
    nas_rng rng = nas_rng_stream(seed, 0, "bench_compile");
    bench_check(ctx, nas_space_sr_new(ctx, &o, &space));
    nas_space_sample(space, &rng, &point);
    bench_check(ctx, nas_space_decode(ctx, space, &point, &g));
    nas_space_free(space);
    bench_fill(ctx, g);
    return g;
}

/* Milliseconds of one nas_compile: wall, processor. */
static void timed(nas_ctx *ctx, const nas_graph *g, const nas_compile_options *options,
                  double *wall, double *cpu) {
    nas_artifact artifact;
    const double cpu_start = cpu_seconds();
    const int64_t start = nas_now_ns();
    bench_check(ctx, nas_compile(ctx, g, options, &artifact));
    *wall = 1e-6 * (double)(nas_now_ns() - start);
    *cpu = 1e3 * (cpu_seconds() - cpu_start);
}

static void report(const char *what, double *wall, double *cpu, size_t n) {
    const double w = bench_median(wall, n), c = bench_median(cpu, n); /* they sort */
    printf("%-44s wall %6.1f ms (%.1f-%.1f), processor %6.1f ms (%.1f-%.1f)\n", what, w, wall[0],
           wall[n - 1], c, cpu[0], cpu[n - 1]);
    (void)fflush(stdout);
}

static void states_of_the_cache(nas_ctx *ctx, const nas_compile_options *options) {
    static const char *const names[] = {"empty cache", "new network, its kernels cached",
                                        "other weights", "nothing new"};
    double wall[4][SEEDS], cpu[4][SEEDS];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        bench_check(ctx, nas_remove_tree(ctx, cache_dir));
        nas_graph *g = candidate(ctx, seed, 360), *other = candidate(ctx, seed, 344);
        timed(ctx, g, options, &wall[0][seed], &cpu[0][seed]);
        timed(ctx, other, options, &wall[1][seed], &cpu[1][seed]);
        nas_graph_param(other, 0)->data[0] += 1;
        timed(ctx, other, options, &wall[2][seed], &cpu[2][seed]);
        timed(ctx, other, options, &wall[3][seed], &cpu[3][seed]);
        nas_graph_free(g);
        nas_graph_free(other);
    }
    for (int i = 0; i < 4; i++)
        report(names[i], wall[i], cpu[i], SEEDS);
}

static void one_search(nas_ctx *ctx, const nas_compile_options *options) {
    enum { GROUP = 20 };
    double wall[GROUP], cpu[GROUP];
    bench_check(ctx, nas_remove_tree(ctx, cache_dir));
    for (int i = 0; i < CANDIDATES; i++) {
        nas_graph *g = candidate(ctx, 100 + (uint64_t)i, 360);
        timed(ctx, g, options, &wall[i % GROUP], &cpu[i % GROUP]);
        nas_graph_free(g);
        if (i % GROUP != GROUP - 1) continue;
        char what[64];
        (void)snprintf(what, sizeof what, "random candidates %d-%d of one cache", i - GROUP + 2,
                       i + 1);
        report(what, wall, cpu, GROUP);
    }
    bench_check(ctx, nas_remove_tree(ctx, cache_dir));
}

int main(void) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    nas_compile_options options = nas_compile_options_default();
    options.cache_dir = cache_dir;
    bench_check(ctx, nas_target_find(ctx, "native", &options.target));
    states_of_the_cache(ctx, &options);
    one_search(ctx, &options);
    nas_ctx_free(ctx);
    return NAS_EXIT_OK;
}
