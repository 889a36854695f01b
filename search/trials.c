/* trials.c - the life of a trial: started, finished, final figures; each change goes to the database first, then to the
 * row in memory, so that both agree after any failure. */
#include "search/study_internal.h"

#include <math.h>
#include <string.h>

enum { LEASE_MS = 3600 * 1000 };

#define MERGE(field)                                                                               \
    if (from->field.is_set) into->field = from->field

static void merge(nas_db_values *into, const nas_db_values *from) {
    MERGE(psnr_y_db);
    MERGE(ssim_y);
    MERGE(latency_p50_us);
    MERGE(latency_p50_lo_us);
    MERGE(latency_p50_hi_us);
    MERGE(latency_p90_us);
    MERGE(macs);
    MERGE(params);
    MERGE(peak_activation_bytes);
    MERGE(arena_bytes);
    MERGE(violation);
    MERGE(hypervolume);
    MERGE(noisy);
    MERGE(final_psnr_y_db);
    MERGE(final_ssim_y);
    MERGE(final_select_psnr_y_db);
    MERGE(final_latency_p50_us);
    MERGE(final_latency_p50_lo_us);
    MERGE(final_latency_p50_hi_us);
    MERGE(final_latency_p90_us);
    MERGE(final_violation);
}

bool nas__trial_is_finished(const nas__trial *trial) {
    switch (trial->row.state) {
    case NAS_TRIAL_COMPLETE:
    case NAS_TRIAL_PRUNED:
    case NAS_TRIAL_FAIL: return true;
    case NAS_TRIAL_WAITING:
    case NAS_TRIAL_RUNNING:
    case NAS_TRIAL_STATE_COUNT: break;
    }
    return false;
}

nas_status nas__trial_start(nas__study *s, size_t index) {
    nas_db_trial *row = &s->trials[index].row;
    const nas_status status = nas_db_trial_lease(s->ctx, s->db, row->id, s->worker, LEASE_MS);
    if (status == NAS_OK) row->state = NAS_TRIAL_RUNNING;
    return nas_wrap(s->ctx, status, "trial %" PRId64, row->number);
}

nas__figures nas__search_figures(const nas__trial *trial) {
    nas__figures f = {.values = trial->row.values};
    memcpy(f.latency, trial->search, sizeof f.latency);
    return f;
}

/* The columns of the first queue; noisy as soon as any queue is. */
static void fill_latency(const nas__study *s, const nas__trial *trial, nas_db_values *values) {
    const nas__latency *first = &trial->search[s->first_queue];
    bool noisy = false, any = false;
    for (int32_t q = 0; q < s->config->n_queues; q++) {
        any = any || trial->search[q].is_set;
        noisy = noisy || (trial->search[q].is_set && trial->search[q].noisy);
    }
    if (any) values->noisy = nas_some_i64(noisy ? 1 : 0);
    if (!first->is_set) return;
    values->latency_p50_us = nas_some_double(first->p50_us);
    values->latency_p50_lo_us = nas_some_double(first->p50_lo_us);
    values->latency_p50_hi_us = nas_some_double(first->p50_hi_us);
    values->latency_p90_us = nas_some_double(first->p90_us);
}

nas_status nas__trial_finish(nas__study *s, size_t index, nas_trial_state state, const char *reason,
                             const nas_db_values *values) {
    nas__trial *trial = &s->trials[index];
    nas_db_trial *row = &trial->row;
    nas_db_values all = row->values;
    merge(&all, values);
    fill_latency(s, trial, &all);
    nas__figures figures = nas__search_figures(trial);
    figures.values = all;
    if (state == NAS_TRIAL_COMPLETE) all.violation = nas_some_double(nas__violation(s, &figures));
    double objectives[NAS_OBJECTIVES_MAX];
    if (state == NAS_TRIAL_COMPLETE && trial->from_strategy &&
        nas__objective_values(s, &figures, objectives)) {
        bool joined = false;
        const nas_status status = nas_front_add(s->ctx, s->front, row->number, objectives, &joined);
        if (status != NAS_OK) return status;
        const double volume = nas__hypervolume(s);
        if (isfinite(volume)) all.hypervolume = nas_some_double(volume);
    }
    const nas_status status = nas_db_trial_finish(s->ctx, s->db, row->id, state, reason, &all);
    if (status != NAS_OK) return nas_wrap(s->ctx, status, "trial %" PRId64, row->number);
    row->values = all;
    row->state = state;
    return NAS_OK;
}

nas_status nas__trial_set_final(nas__study *s, size_t index, const nas_db_values *final) {
    nas__trial *trial = &s->trials[index];
    const nas_db_values before = trial->row.values;
    const nas__latency *first = &trial->final[s->first_queue];
    nas_db_values judged = *final;
    if (first->is_set) {
        judged.final_latency_p50_us = nas_some_double(first->p50_us);
        judged.final_latency_p50_lo_us = nas_some_double(first->p50_lo_us);
        judged.final_latency_p50_hi_us = nas_some_double(first->p50_hi_us);
        judged.final_latency_p90_us = nas_some_double(first->p90_us);
    }
    merge(&trial->row.values, &judged);
    const nas__figures figures = nas__final_figures(trial);
    judged.final_violation = nas_some_double(nas__violation(s, &figures));
    const nas_status status = nas_db_trial_set_final(s->ctx, s->db, trial->row.id, &judged);
    trial->row.values = before;
    if (status == NAS_OK) merge(&trial->row.values, &judged);
    return nas_wrap(s->ctx, status, "trial %" PRId64, trial->row.number);
}

void nas__note_difference(nas__study *s, double difference) {
    s->checked_networks++;
    if (difference > s->worst_difference) s->worst_difference = difference;
}

nas__figures nas__final_figures(const nas__trial *trial) {
    nas__figures f = nas__search_figures(trial);
    nas_db_values *v = &f.values;
    if (v->final_select_psnr_y_db.is_set) v->psnr_y_db = v->final_select_psnr_y_db;
    for (int32_t q = 0; q < NAS_DEVICES_MAX; q++) {
        if (trial->final[q].is_set) f.latency[q] = trial->final[q];
    }
    return f;
}

/* Better of two feasible trials: fine-tuned before not, then the first objective's quality, then the lower p50. */
static bool better(const nas__figures *a, const nas__figures *b, int32_t queue) {
    const nas_db_values *x = &a->values, *y = &b->values;
    if (x->final_select_psnr_y_db.is_set != y->final_select_psnr_y_db.is_set)
        return x->final_select_psnr_y_db.is_set;
    if (x->psnr_y_db.value > y->psnr_y_db.value) return true;
    if (x->psnr_y_db.value < y->psnr_y_db.value) return false;
    return a->latency[queue].p50_us < b->latency[queue].p50_us;
}

bool nas__pick_best(const nas__study *s, size_t *index) {
    bool found = false;
    nas__figures best = {0};
    for (size_t i = 0; i < s->n_trials; i++) {
        const nas__trial *trial = &s->trials[i];
        if (!trial->from_strategy || trial->row.state != NAS_TRIAL_COMPLETE) continue;
        const nas__figures f = nas__final_figures(trial);
        if (nas__violation(s, &f) > 0 || !f.values.psnr_y_db.is_set ||
            !f.latency[s->first_queue].is_set)
            continue;
        if (!found || better(&f, &best, s->first_queue)) {
            best = f;
            *index = i;
            found = true;
        }
    }
    return found;
}
