/* Devices with steps, cliffs and lanes, whose truth is known: learned from their own rows and from ten. */
#include "latency/model.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>

/* Layers of `channels` channels on images of `side`: features as graph_features.c makes them. */
enum {
    BASE = 5,
    NOISES = 14,
    WIDTH = BASE + NOISES,
    TRAIN = 300,
    ALL = 700,
    SOURCES = 5,
    SAMPLES = 10
};

typedef struct layers {
    double x[ALL][WIDTH], y[ALL];
} layers;

static const nas_feature features[WIDTH] = {
    {"macs", NAS_FEATURE_TERM},       {"padded", NAS_FEATURE_TERM},
    {"waste", NAS_FEATURE_SHAPE},     {"log.macs", NAS_FEATURE_SHAPE},
    {"log.bytes", NAS_FEATURE_SHAPE}, {"noise0", NAS_FEATURE_SHAPE},
    {"noise1", NAS_FEATURE_SHAPE},    {"noise2", NAS_FEATURE_SHAPE},
    {"noise3", NAS_FEATURE_SHAPE},    {"noise4", NAS_FEATURE_SHAPE},
    {"noise5", NAS_FEATURE_SHAPE},    {"noise6", NAS_FEATURE_SHAPE},
    {"noise7", NAS_FEATURE_SHAPE},    {"noise8", NAS_FEATURE_SHAPE},
    {"noise9", NAS_FEATURE_SHAPE},    {"noise10", NAS_FEATURE_SHAPE},
    {"noise11", NAS_FEATURE_SHAPE},   {"noise12", NAS_FEATURE_SHAPE},
    {"noise13", NAS_FEATURE_SHAPE}};

/* Channels are padded to 16; full vectors take a faster kernel, so 32 channels take less time than 31 (more than this model finds); above 1 MB of
 * activations the cache is too small: everything takes 1.6 times as long. */
static double truth(int kind, double channels, double side) {
    const double padded = ceil(channels / 16) * 16, macs = side * side * padded * padded * 9e-6;
    const double kernel = fmod(channels, 16) == 0 ? 0.75 : 1;
    const double cliff = side * side * channels * 4 > 1e6 ? 1.6 : 1;
    return 0.2 + 0.1 * kind + (1 + 0.3 * kind) * macs * kernel * cliff +
           0.02 * kind * side * side * channels * 1e-3;
}

static void describe(double channels, double side, double *x) {
    const double padded = ceil(channels / 16) * 16;
    x[0] = side * side * channels * channels * 9e-6;
    x[1] = side * side * padded * padded * 9e-6;
    x[2] = padded / channels - 1;
    x[3] = log(x[0]);
    x[4] = log(side * side * channels * 4);
}

/* The noise grows as layers get quicker: 2 to 8 %. `noises`: amounts that mean nothing fill the rest of a row. */
static void measure(int kind, uint64_t seed, bool noises, layers *out) {
    nas_rng rng = nas_rng_stream(seed, 0, "layers"), other = nas_rng_stream(seed, 1, "noise");
    for (size_t i = 0; i < ALL; i++) {
        const double channels = 8 + nas_rng_below(&rng, 89),
                     side = 14 * (1 + nas_rng_below(&rng, 8));
        describe(channels, side, out->x[i]);
        for (size_t k = BASE; k < WIDTH; k++)
            out->x[i][k] = noises ? nas_rng_normal(&other) : 0;
        const double y = truth(kind, channels, side);
        out->y[i] = y * exp((0.02 + 0.06 / (1 + y)) * nas_rng_normal(&rng));
    }
}

static nas_latency_table table_of(const layers *l, size_t first, size_t n) {
    return (nas_latency_table){.device = "layers",
                               .features = features,
                               .n_features = WIDTH,
                               .n_rows = n,
                               .x = l->x[first],
                               .y = l->y + first};
}

static nas_device_model *fitted(nas_ctx *ctx, const layers *l) {
    const nas_latency_table table = table_of(l, 0, TRAIN);
    const nas_device_model_options options = nas_device_model_options_default();
    nas_device_model *model = NULL;
    const nas_status status = nas_device_model_fit(ctx, &table, &options, &model);
    cr_assert(status == NAS_OK, "%s", nas_ctx_message(ctx));
    return model;
}

static nas_device_model_quality judged(nas_ctx *ctx, const nas_device_model *model,
                                       const layers *l) {
    const nas_latency_table test = table_of(l, TRAIN, ALL - TRAIN);
    nas_device_model_quality q;
    cr_assert(nas_device_model_evaluate(ctx, model, &test, &q) == NAS_OK, "%s",
              nas_ctx_message(ctx));
    return q;
}

Test(latency_model_transfer, intervals_hold_under_uneven_noise_and_cliffs) {
    nas_ctx *ctx = nas_ctx_new();
    static layers l;
    double coverage = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        measure(1, seed, false, &l);
        nas_device_model *model = fitted(ctx, &l);
        const nas_device_model_quality q = judged(ctx, model, &l);
        coverage += q.coverage90 / 3;
        cr_assert(q.spearman > 0.98, "spearman %g", q.spearman);
        nas_device_model_free(model);
    }
    cr_assert(coverage > 0.85 && coverage < 0.96, "coverage %g", coverage);
    nas_ctx_free(ctx);
}

/* A device no source is like: between the second and the last, from ten layers chosen actively. */
static nas_device_model_quality from_ten(nas_ctx *ctx, bool noises) {
    static layers sources[SOURCES], target;
    nas_device_model *models[SOURCES];
    for (int s = 0; s < SOURCES; s++) {
        measure(2 * s, 50 + (uint64_t)s, noises, &sources[s]);
        models[s] = fitted(ctx, &sources[s]);
    }
    measure(3, 60, noises, &target);
    const nas_latency_table candidates = table_of(&target, 0, TRAIN);
    const nas_device_model *const *from = (const nas_device_model *const *)models;
    size_t picks[SAMPLES];
    cr_assert(nas_device_model_pick_from(ctx, from, SOURCES, &candidates, NAS_PICK_ACTIVE, SAMPLES,
                                         1, picks) == NAS_OK);
    double x[SAMPLES][WIDTH], y[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t k = 0; k < WIDTH; k++)
            x[i][k] = target.x[picks[i]][k];
        y[i] = target.y[picks[i]];
    }
    const nas_latency_table few = {.device = "new",
                                   .features = features,
                                   .n_features = WIDTH,
                                   .n_rows = SAMPLES,
                                   .x = x[0],
                                   .y = y};
    const nas_device_model_options options = nas_device_model_options_default();
    nas_device_model *model = NULL;
    cr_assert(nas_device_model_transfer_from(ctx, from, SOURCES, &few, &options, &model) == NAS_OK,
              "%s", nas_ctx_message(ctx));
    const nas_device_model_quality q = judged(ctx, model, &target);
    nas_device_model_free(model);
    for (int s = 0; s < SOURCES; s++)
        nas_device_model_free(models[s]);
    return q;
}

Test(latency_model_transfer, ten_samples_rank_a_device_with_cliffs_inside_its_interval) {
    nas_ctx *ctx = nas_ctx_new();
    const nas_device_model_quality q = from_ten(ctx, false);
    cr_assert(q.spearman > 0.97, "spearman %g", q.spearman);
    cr_assert(q.coverage90 > 0.8, "coverage %g", q.coverage90);
    nas_ctx_free(ctx);
}

Test(latency_model_transfer, features_no_device_follows_do_not_blur_ten_samples) {
    nas_ctx *ctx = nas_ctx_new();
    const nas_device_model_quality q = from_ten(ctx, true);
    cr_assert(q.spearman > 0.97, "spearman %g", q.spearman);
    nas_ctx_free(ctx);
}
