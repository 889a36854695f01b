/* test_values.c - what a trial is judged by: latencies of several queues, percentages of each, noisy ones. */
#include "search/study_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_config config;
static nas__study s;

static void setup(void) {
    nas_config_default(&config);
    config.n_queues = 2;
    s = (nas__study){.config = &config};
}

TestSuite(search_values, .init = setup);

static nas__latency latency(double p50_us, bool noisy) {
    return (nas__latency){.is_set = true,
                          .noisy = noisy,
                          .p50_us = p50_us,
                          .p50_lo_us = p50_us * 0.8,
                          .p50_hi_us = p50_us * 1.5,
                          .p90_us = p50_us * 1.2};
}

static void bound(nas_metric metric, int32_t queue, bool at_most, double value, bool percent) {
    config.constraints[config.n_constraints++] = (nas_constraint){.metric = metric,
                                                                  .queue = queue,
                                                                  .at_most = at_most,
                                                                  .bound = value,
                                                                  .is_percent = percent};
}

Test(search_values, a_noisy_latency_is_feasible_only_with_its_whole_interval) {
    bound(NAS_METRIC_LATENCY_P50_MS, 1, true, 1.2, false);
    nas__figures f = {.latency = {latency(5000, false), latency(1000, false)}};
    cr_expect(eq(dbl, nas__violation(&s, &f), 0.0));
    f.latency[1].noisy = true; /* up to 1.5 ms */
    cr_expect(ieee_ulp_eq(dbl, nas__violation(&s, &f), 0.25, 4));
    config.constraints[0].at_most = false; /* at least 0.9 ms, it may be 0.8 */
    config.constraints[0].bound = 0.9;
    cr_expect(nas__violation(&s, &f) > 0);
    f.latency[1].noisy = false;
    cr_expect(eq(dbl, nas__violation(&s, &f), 0.0));
}

Test(search_values, the_ninetieth_percentile_is_as_uncertain_as_the_median) {
    bound(NAS_METRIC_LATENCY_P90_MS, 0, true, 1.5, false);
    nas__figures f = {.latency = {latency(1000, false)}};
    cr_expect(eq(dbl, nas__violation(&s, &f), 0.0));
    f.latency[0].noisy = true; /* 1.2 ms x 1.5 */
    cr_expect(ieee_ulp_eq(dbl, nas__violation(&s, &f), 0.2, 8));
}

Test(search_values, percentages_refer_to_the_supernet_in_the_same_queue) {
    bound(NAS_METRIC_LATENCY_P50_MS, 0, true, 50, true);
    bound(NAS_METRIC_LATENCY_P50_MS, 1, true, 50, true);
    const nas__figures f = {.latency = {latency(900, false), latency(900, false)}};
    cr_expect(eq(dbl, nas__violation(&s, &f), 2.0), "unknown while nothing was measured");
    s.baseline.latency[0] = latency(2000, false);
    s.baseline.latency[1] = latency(1200, false);
    cr_expect(ieee_ulp_eq(dbl, nas__violation(&s, &f), 0.5, 8), "0.9 of 0.6 ms in the second only");
}

Test(search_values, an_objective_is_of_its_own_queue_and_noisy_ones_count_at_their_upper_end) {
    config.n_objectives = 3;
    config.objectives[0] = (nas_objective){NAS_METRIC_PSNR_Y, 0};
    config.objectives[1] = (nas_objective){NAS_METRIC_LATENCY_P50_MS, 0};
    config.objectives[2] = (nas_objective){NAS_METRIC_LATENCY_P50_MS, 1};
    nas__figures f = {.values.psnr_y_db = nas_some_double(30),
                      .latency = {latency(1000, false), latency(2000, true)}};
    double out[NAS_OBJECTIVES_MAX];
    cr_assert(nas__objective_values(&s, &f, out));
    cr_expect(eq(dbl, out[0], -30.0));
    cr_expect(eq(dbl, out[1], 1.0));
    cr_expect(eq(dbl, out[2], 3.0));
    f.latency[1].is_set = false;
    cr_expect(not(nas__objective_values(&s, &f, out)), "one queue is missing");
}

Test(search_values, of_two_rounds_the_faster_stands_and_is_noisy_when_none_was_calm) {
    config.measure.drift_limit = 0.05;
    nas__kept kept = {0};
    nas__latency first = latency(1000, false), second = latency(900, false);
    nas__keep_calmer(&s, &kept, &first, 0.2);
    cr_expect(kept.latency.noisy);
    nas__keep_calmer(&s, &kept, &second, 0.3);
    cr_expect(eq(dbl, kept.latency.p50_us, 900.0));
    cr_expect(kept.latency.noisy);
    second.p50_us = 800;
    nas__keep_calmer(&s, &kept, &second, 0.01);
    cr_expect(not(kept.latency.noisy));
}
