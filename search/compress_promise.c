/* compress_promise.c - which candidates are worth a compilation. Compiling and timing a network takes many times as long as
 * scoring it; so only what can end in the table is timed.
 *
 * A latency that was not measured is estimated from the measured trial nearest in bit operations (which move with channels,
 * patterns and bits alike), in proportion to the MACs. The estimate is
 * told to the strategy and nothing else: it is not stored, joins no front and stands in no table. It depends on earlier trials
 * alone, so a resumed study tells the same. */
#include "search/compress_internal.h"

#include <math.h>
#include <string.h>

/* Room for what an estimate from MACs misses: channels that do not fill a vector cost as much as those that do. */
static const double near = 1.25;

static bool measured(const nas__comp_trial *t) {
    return t->row.state == NAS_TRIAL_COMPLETE && t->row.values.latency_p50_us.is_set;
}

bool nas__comp_estimate(const nas__comp *c, size_t index, nas_metric metric, double *out) {
    const nas__comp_trial *t = &c->trials[index];
    double macs = 0, bops = 0, nearest = INFINITY;
    if (!nas_metric_is_timed(metric) || !nas__comp_metric(t, NAS_METRIC_MACS, false, &macs) ||
        !nas__comp_metric(t, NAS_METRIC_BOPS, false, &bops))
        return false;
    for (size_t i = 0; i < index; i++) {
        double other = 0, other_macs = 0, latency = 0;
        if (!measured(&c->trials[i])) continue;
        if (!nas__comp_metric(&c->trials[i], NAS_METRIC_BOPS, false, &other) ||
            !nas__comp_metric(&c->trials[i], NAS_METRIC_MACS, false, &other_macs) ||
            !nas__comp_metric(&c->trials[i], metric, false, &latency))
            continue;
        if (!(fabs(other - bops) < nearest)) continue;
        nearest = fabs(other - bops);
        *out = latency * macs / fmax(other_macs, 1);
    }
    return isfinite(nearest);
}

/* Another finished network of the strategy is as accurate with as few bit operations. */
static bool is_dominated(const nas__comp *c, size_t index) {
    double top1 = 0, bops = 0;
    if (!nas__comp_metric(&c->trials[index], NAS_METRIC_TOP1, false, &top1) ||
        !nas__comp_metric(&c->trials[index], NAS_METRIC_BOPS, false, &bops))
        return false;
    for (size_t i = 0; i < index; i++) {
        const nas__comp_trial *o = &c->trials[i];
        double other_top1 = 0, other_bops = 0;
        if (!o->from_strategy || o->row.state != NAS_TRIAL_COMPLETE) continue;
        if (!nas__comp_metric(o, NAS_METRIC_TOP1, false, &other_top1) ||
            !nas__comp_metric(o, NAS_METRIC_BOPS, false, &other_bops))
            continue;
        if (other_top1 >= top1 && other_bops <= bops) return true;
    }
    return false;
}

/* Every bound on a latency is met by the estimate, or nearly. */
static bool is_near_bounds(const nas__comp *c, size_t index, int32_t *bounds) {
    bool within = true;
    *bounds = 0;
    for (int32_t i = 0; i < c->config->n_constraints; i++) {
        const nas_constraint *k = &c->config->constraints[i];
        double bound = 0, estimate = 0;
        if (!nas_metric_is_timed(k->metric)) continue;
        (*bounds)++;
        if (!nas__comp_bound(c, k, &bound) || !nas__comp_estimate(c, index, k->metric, &estimate))
            continue;
        within = within && (!k->at_most || estimate <= near * bound);
    }
    return within;
}

static bool a_latency_decides(const nas__comp *c) {
    bool wanted = false;
    for (int32_t i = 0; i < c->config->n_objectives; i++)
        wanted = wanted || nas_metric_is_timed(c->config->objectives[i].metric);
    for (int32_t i = 0; i < c->config->n_constraints; i++)
        wanted = wanted || nas_metric_is_timed(c->config->constraints[i].metric);
    return wanted;
}

bool nas__comp_worth_timing(const nas__comp *c, size_t index) {
    if (!c->trials[index].from_strategy) return true; /* percentages refer to it */
    if (!a_latency_decides(c)) return false;          /* finalists are timed later */
    if (strcmp(c->config->compress.measure, "all") == 0) return true;
    int32_t bounds = 0;
    const bool within = is_near_bounds(c, index, &bounds);
    return bounds > 0 ? within : !is_dominated(c, index);
}
