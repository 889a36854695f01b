/* fixture.c - see fixture.h. */
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

nas_ctx *ctx;
nas_space *space;
static long blocks_before;

static nas_space *new_space(const nas_sr_options *o) {
    nas_space *fresh = NULL;
    const nas_status status = nas_space_sr_new(ctx, o, &fresh);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return fresh;
}

void fixture_setup(void) {
    blocks_before = nas_mem_live();
    ctx = nas_ctx_new();
    const nas_sr_options o = nas_sr_options_default();
    space = new_space(&o);
}

void fixture_teardown(void) {
    nas_space_free(space);
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), blocks_before));
}

uint64_t fixture_seed(uint64_t usual) {
    const char *text = getenv("SEED");
    const uint64_t seed = text == NULL ? usual : strtoull(text, NULL, 10);
    (void)fprintf(stderr, "  SEED=%" PRIu64 " replays this run\n", seed);
    return seed;
}

nas_space *fixture_small_space(bool kernels) {
    nas_sr_options o = nas_sr_options_default();
    o.blocks_max = 2;
    o.residual = (nas_range){8, 12, 4};
    o.expand = (nas_range){16, 32, 16};
    o.project = (nas_range){8, 8, 1};
    o.n_head_kernels = kernels ? 2 : 1;
    o.n_tail_kernels = kernels ? 2 : 1;
    o.n_skip_kernels = 1;
    return new_space(&o);
}

nas_strategy *fixture_strategy(const char *name, const nas_space *of, int32_t population,
                               int32_t n_objectives, uint64_t seed) {
    nas_strategy_options o = nas_strategy_options_default();
    o.population = population;
    o.tournament = population < o.tournament ? population : o.tournament;
    o.n_objectives = n_objectives;
    nas_strategy *s = NULL;
    const nas_status status = nas_strategy_new(ctx, name, of, &o, seed, &s);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return s;
}

int32_t fixture_trials(const char *name, int32_t usual) {
    const bool policy = strcmp(name, "ddpg") == 0 || strcmp(name, "agmc") == 0;
    return policy ? usual / 3 : usual;
}

/* Gene layout of the default space: residual, head, tail, skip, then keep, expand, project a block. */
nas_told fixture_result(const nas_point *point, int64_t trial, int32_t n_objectives, double budget,
                        bool flaky) {
    const int32_t *g = point->gene;
    const double f = 8 + 4.0 * g[0], head = 3 + 2.0 * g[1], tail = 3 + 2.0 * g[2],
                 skip = 3 + 2.0 * g[3];
    double macs = 3 * f * head * head + 12 * f * tail * tail + 36 * skip * skip;
    double body = 0, extent = f;
    for (int32_t i = 4, block = 0; i + 2 < point->n; i += 3, block++) {
        if (g[i] == 0) continue;
        const double e = 16 + 16.0 * g[i + 1], p = 8 + 4.0 * g[i + 2];
        macs += f * e + e * p + 9 * p * f;
        extent += e + p;
        body += (1 + 0.5 * ((block * 5) % 16) / 16.0) * (1 - exp(-e / 40)) * (1 - exp(-p / 10));
    }
    const double quality =
        (1 - exp(-f / 12)) * log(1 + body) + 0.04 * g[1] + 0.03 * g[2] + 0.02 * g[3];
    nas_told told = {.trial = trial, .point = *point, .n_values = n_objectives};
    const double values[NAS_OBJECTIVES_MAX] = {macs / 1000, -quality, extent, -body};
    for (int32_t i = 0; i < n_objectives; i++)
        told.values[i] = values[i];
    if (budget > 0) told.violation = fmax(0, values[0] / budget - 1);
    const uint64_t lot = nas_point_hash(point) % 16;
    if (flaky && lot == 0) told.state = NAS_TOLD_PRUNED;
    if (flaky && lot == 1) told.state = NAS_TOLD_FAILED;
    return told;
}

void fixture_run(nas_strategy *s, int32_t trials, int32_t n_objectives, double budget,
                 nas_front *front) {
    for (int32_t trial = 0; trial < trials; trial++) {
        nas_point p;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK), "%s", nas_ctx_message(ctx));
        const nas_told told = fixture_result(&p, trial, n_objectives, budget, false);
        cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        bool joined = false;
        if (front != NULL && !(told.violation > 0)) {
            cr_assert(eq(int, (int)nas_front_add(ctx, front, trial, told.values, &joined), NAS_OK));
        }
    }
}

double fixture_hypervolume(const char *name, int32_t population, int32_t trials, double budget,
                           uint64_t seed) {
    nas_strategy *s = fixture_strategy(name, space, population, 2, seed);
    nas_front *front = NULL;
    cr_assert(eq(int, (int)nas_front_new(ctx, 2, &front), NAS_OK));
    fixture_run(s, trials, 2, budget, front);
    static const double reference[] = {60, 0};
    const double volume = nas_front_hypervolume(front, reference);
    nas_front_free(front);
    nas_strategy_free(s);
    return volume;
}
