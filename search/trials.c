/* trials.c - the life of a trial: started, finished, final figures; each change goes to the database first, then to the
 * row in memory, so that both agree after any failure. */
#include "search/study_internal.h"

#include <math.h>

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

nas_status nas__trial_finish(nas__study *s, size_t index, nas_trial_state state, const char *reason,
                             const nas_db_values *values) {
    nas_db_trial *row = &s->trials[index].row;
    nas_db_values all = row->values;
    merge(&all, values);
    if (state == NAS_TRIAL_COMPLETE) all.violation = nas_some_double(nas__violation(s, &all));
    double objectives[NAS_OBJECTIVES_MAX];
    if (state == NAS_TRIAL_COMPLETE && s->trials[index].from_strategy &&
        nas__objective_values(s, &all, objectives)) {
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
    nas_db_trial *row = &s->trials[index].row;
    nas_db_values all = row->values, judged = *final;
    merge(&all, final);
    const nas_db_values figures = nas__final_values(&all);
    judged.final_violation = nas_some_double(nas__violation(s, &figures));
    const nas_status status = nas_db_trial_set_final(s->ctx, s->db, row->id, &judged);
    if (status == NAS_OK) merge(&row->values, &judged);
    return nas_wrap(s->ctx, status, "trial %" PRId64, row->number);
}

void nas__note_difference(nas__study *s, double difference) {
    s->checked_networks++;
    if (difference > s->worst_difference) s->worst_difference = difference;
}

nas_db_values nas__final_values(const nas_db_values *values) {
    nas_db_values v = *values;
    if (v.final_select_psnr_y_db.is_set) v.psnr_y_db = v.final_select_psnr_y_db;
    if (v.final_latency_p50_us.is_set) {
        v.latency_p50_us = v.final_latency_p50_us;
        v.latency_p50_lo_us = v.final_latency_p50_lo_us;
        v.latency_p50_hi_us = v.final_latency_p50_hi_us;
        v.latency_p90_us = v.final_latency_p90_us;
    }
    return v;
}

/* Better of two feasible trials: fine-tuned before not, then the first objective's quality, then the lower p50. */
static bool better(const nas_db_values *a, const nas_db_values *b) {
    if (a->final_select_psnr_y_db.is_set != b->final_select_psnr_y_db.is_set)
        return a->final_select_psnr_y_db.is_set;
    if (a->psnr_y_db.value > b->psnr_y_db.value) return true;
    if (a->psnr_y_db.value < b->psnr_y_db.value) return false;
    return a->latency_p50_us.value < b->latency_p50_us.value;
}

bool nas__pick_best(const nas__study *s, size_t *index) {
    bool found = false;
    nas_db_values best = {0};
    for (size_t i = 0; i < s->n_trials; i++) {
        const nas__trial *trial = &s->trials[i];
        if (!trial->from_strategy || trial->row.state != NAS_TRIAL_COMPLETE) continue;
        const nas_db_values v = nas__final_values(&trial->row.values);
        if (nas__violation(s, &v) > 0 || !v.psnr_y_db.is_set || !v.latency_p50_us.is_set) continue;
        if (!found || better(&v, &best)) {
            best = v;
            *index = i;
            found = true;
        }
    }
    return found;
}
