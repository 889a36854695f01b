/* bench_repeat.c - are the stored intervals honest? Three networks are measured in turns through a local agent, ROUNDS times
 * each, with a reference network before every turn as a study does. For each network: how many of its intervals hold the
 * median of its medians, and how far the medians drift, before and after dividing by the reference.
 *
 * The interval of one run says where the median of that run's conditions lies. What changes between runs (another tenant, a
 * clock) is not in it; the reference sees part of that. */
#include "bench/bench_common.h"

#include "latency/latency.h"
#include "spaces/space.h"

#include <math.h>
#include <unistd.h>

enum { ROUNDS = 20, NETS = 3 };

static const char *const points[NETS + 1] = {
    "sr x2 f8 h3 t3 s5 | 1:32,8", "sr x2 f16 h3 t3 s5 | 1:48,12 2:48,12",
    "sr x2 f24 h3 t3 s5 | 1:64,16 2:64,16 3:64,16",
    "sr x2 f12 h3 t3 s5 | 1:48,8", /* the reference */
};

static void compile_net(nas_ctx *ctx, const char *text, nas_artifact *out) {
    nas_sr_options o = nas_sr_options_default();
    o.blocks_max = 0; /* the text names every block of its space */
    for (const char *c = text; *c != '\0'; c++)
        o.blocks_max += *c == ':';
    nas_space *space = NULL;
    nas_graph *g = NULL;
    nas_point point;
    nas_compile_options options = nas_compile_options_default();
    options.cache_dir = "build/bench-cache";
    bench_check(ctx, nas_target_find(ctx, "native", &options.target));
    bench_check(ctx, nas_space_sr_new(ctx, &o, &space));
    bench_check(ctx, nas_space_parse(ctx, space, text, &point));
    bench_check(ctx, nas_space_decode(ctx, space, &point, &g));
    bench_fill(ctx, g);
    bench_check(ctx, nas_compile(ctx, g, &options, out));
    nas_graph_free(g);
    nas_space_free(space);
}

typedef struct series {
    double p50[ROUNDS], lo[ROUNDS], hi[ROUNDS];
    int noisy;
} series;

static void measure(nas_ctx *ctx, nas_device *d, const nas_artifact *a, series *s, int round) {
    nas_measure_options o = nas_measure_options_default();
    nas_measurement m = {0};
    o.min_time_ms = 300;
    o.max_time_ms = 2000;
    bench_check(ctx, nas_measure(ctx, d, NULL, a->path, a->sha256, &o, &m));
    s->p50[round] = m.p50_us;
    s->lo[round] = m.p50_lo_us;
    s->hi[round] = m.p50_hi_us;
    s->noisy += m.noisy;
    nas_measurement_deinit(&m);
}

static double median_of(const double *values) {
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    return bench_median(sorted, ROUNDS);
}

/* Median distance from the median, relative. */
static double spread(const double *values) {
    const double middle = median_of(values);
    double off[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        off[i] = fabs(values[i] / middle - 1);
    return bench_median(off, ROUNDS);
}

static int covered(const series *s, const double *scale) {
    double p50[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        p50[i] = s->p50[i] / scale[i];
    const double grand = median_of(p50);
    int n = 0;
    for (int i = 0; i < ROUNDS; i++)
        n += s->lo[i] / scale[i] <= grand && grand <= s->hi[i] / scale[i];
    return n;
}

static void report(const char *name, const series *s, const double *drift) {
    double none[ROUNDS], corrected[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        none[i] = 1;
        corrected[i] = s->p50[i] / drift[i];
    }
    double width[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        width[i] = (s->hi[i] - s->lo[i]) / (2 * s->p50[i]);
    printf("%-40s %8.2f ms  +-%.2f %%  covered %2d of %d, corrected %2d  drift %.2f %%, corrected "
           "%.2f %%  noisy %d\n",
           name, 1e-3 * median_of(s->p50), 100 * bench_median(width, ROUNDS), covered(s, none),
           ROUNDS, covered(s, drift), 100 * spread(s->p50), 100 * spread(corrected), s->noisy);
}

int main(void) {
    static series runs[NETS + 1];
    nas_artifact artifacts[NETS + 1];
    char dir[] = "/tmp/nas-bench-XXXXXX";
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL || mkdtemp(dir) == NULL) return NAS_EXIT_FAILED;
    for (int k = 0; k <= NETS; k++)
        compile_net(ctx, points[k], &artifacts[k]);
    nas_device_options o = nas_device_options_default();
    o.threads = 1;
    o.cores = "0";
    o.work_dir = dir;
    const char *agent = getenv("NAS_AGENT");
    o.agent_path = agent != NULL ? agent : "build/release/bin/nas-agent";
    nas_device *d = NULL;
    bench_check(ctx, nas_device_open(ctx, &o, &d));
    double drift[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        measure(ctx, d, &artifacts[NETS], &runs[NETS], round);
        for (int k = 0; k < NETS; k++)
            measure(ctx, d, &artifacts[k], &runs[k], round);
    }
    const double usual = median_of(runs[NETS].p50);
    for (int i = 0; i < ROUNDS; i++)
        drift[i] = runs[NETS].p50[i] / usual;
    for (int k = 0; k < NETS; k++)
        report(points[k], &runs[k], drift);
    printf("%-40s %8.2f ms  drift %.2f %%\n", "reference", 1e-3 * usual, 100 * spread(drift));
    nas_device_close(d);
    bench_check(ctx, nas_remove_tree(ctx, dir));
    nas_ctx_free(ctx);
    return NAS_EXIT_OK;
}
