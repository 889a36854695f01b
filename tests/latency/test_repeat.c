/* test_repeat.c - intervals that hold another run: the scatter of a device from the repeats of its programs. */
#include "core/core.h"
#include "latency/device_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

static nas_ctx *ctx;
static nas__repeat repeat;

static void setup(void) {
    ctx = nas_ctx_new();
    repeat = (nas__repeat){0};
}

static void teardown(void) {
    nas__repeat_deinit(&repeat);
    nas_ctx_free(ctx);
}

TestSuite(latency_repeat, .init = setup, .fini = teardown);

static void add(const char *program, double p50_us) {
    cr_assert(eq(int, (int)nas__repeat_add(ctx, &repeat, program, p50_us), NAS_OK));
}

Test(latency_repeat, the_first_run_has_the_prior_of_two_percent) {
    add("a", 1000);
    cr_assert(epsilon_eq(dbl, repeat.scatter, 0.02, 1e-12));
    cr_assert(epsilon_eq(dbl, repeat.reach_down, 3.1824463 * 0.02, 1e-7)); /* Student's t, 3 */
    cr_assert(epsilon_eq(dbl, repeat.reach_up, 3.1824463 * 0.02, 1e-7));
    add("b", 5000); /* another program is no repeat */
    cr_assert(epsilon_eq(dbl, repeat.freedom, 0, 1e-12));
}

Test(latency_repeat, a_steady_device_earns_narrow_intervals) {
    for (int i = 0; i < 60; i++)
        add("a", 1000 + (i % 2)); /* 0.1 % apart */
    cr_assert(lt(dbl, repeat.reach_down, 0.012));
    cr_assert(gt(dbl, repeat.reach_down, 0.001));
}

Test(latency_repeat, programs_of_any_length_count_alike) {
    nas__repeat other = {0};
    for (int i = 0; i < 20; i++) {
        const double x = 1 + 0.01 * (i % 5);
        add("a", 1000 * x);
        cr_assert(eq(int, (int)nas__repeat_add(ctx, &other, "b", 7 * x), NAS_OK));
    }
    cr_assert(epsilon_eq(dbl, repeat.scatter, other.scatter, 1e-12));
    nas__repeat_deinit(&other);
}

Test(latency_repeat, a_stray_run_among_many_widens_nothing) {
    for (int i = 0; i < 100; i++)
        add("a", (1000 + 10 * (i % 3)) * (i == 60 ? 1.5 : 1));
    cr_assert(lt(dbl, repeat.reach_down, 0.04));
    cr_assert(lt(dbl, repeat.reach_up, 0.04));
}

/* One process in five finds itself in a faster state: its interval must reach up to where the others are. */
Test(latency_repeat, a_state_that_some_runs_show_widens_the_side_where_they_miss) {
    for (int i = 0; i < 60; i++)
        add("a", (1000 + 10 * (i % 3)) * (i % 5 == 4 ? 0.8 : 1));
    cr_assert(gt(dbl, repeat.reach_up, -log(0.8) - 0.02));
    cr_assert(lt(dbl, repeat.reach_down, 0.04));
    nas_measurement m = {.p50_us = 800, .p50_lo_us = 799, .p50_hi_us = 801};
    nas__repeat_widen(&repeat, &m);
    cr_assert(gt(dbl, m.p50_hi_us, 990));
}

Test(latency_repeat, the_interval_holds_another_run_of_a_normal_device) {
    nas_rng rng = nas_rng_stream(7, 0, "repeat");
    int held = 0, seen = 0;
    for (int i = 0; i < 240; i++) {
        const double sigma = 0.03;
        add("reference", 2000 * exp(sigma * nas_rng_normal(&rng)));
        if (i < 20) continue;
        nas_measurement m = {.p50_us = 500 * exp(sigma * nas_rng_normal(&rng))};
        m.p50_lo_us = 0.999 * m.p50_us;
        m.p50_hi_us = 1.001 * m.p50_us;
        nas__repeat_widen(&repeat, &m);
        held += m.p50_lo_us <= 500 && 500 <= m.p50_hi_us;
        seen++;
    }
    cr_assert(ge(int, held * 100, seen * 90), "%d of %d", held, seen);
    cr_assert(lt(dbl, repeat.reach_down, 0.08)); /* and is not simply wide: 2 sigma are 0.06 */
}

Test(latency_repeat, old_runs_are_forgotten) {
    for (int i = 0; i < 300; i++)
        add("a", 1000 * (1 + 0.1 * (i % 2)));
    for (int i = 0; i < 256; i++)
        add("a", 1000);
    cr_assert(lt(dbl, repeat.reach_down, 0.006));
    cr_assert(eq(sz, repeat.n, (size_t)256));
}
