/* schedule.c - the queues of a batch: which device times which network next, and what happens when a device is lost.
 *
 * One thread a device. It takes a few networks from its queue, times them between two runs of the drift reference and
 * keeps what stands. Groups whose state was off the calm one are timed again at the end of the queue, when the state
 * may have changed. Devices of a pool take from one queue. Local devices work alone, after the others.
 *
 * A lost device's networks go back to the queue. It is asked again and again while other devices work; when none has
 * anything left to do, for measure.away_s more. What was measured is in the database at all times, so that a run that
 * ends here continues where it was. Results do not depend on who answers first: the batch is told in order of trials. */
#include "search/study_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LOST_MAX = 3, RETRY_FIRST_MS = 200, RETRY_LAST_MS = 5000, NAP_MS = 50 };

typedef enum task_state { TASK_PENDING, TASK_TAKEN, TASK_DONE } task_state;

/* One network in one queue. */
typedef struct task {
    size_t job;
    int32_t queue;
    task_state state;
    int rounds, lost;
    nas__latency fresh; /* of the latest measurement */
    nas__kept kept;     /* the one that stands */
} task;

typedef struct schedule {
    nas__study *s;
    nas__job *jobs;
    const char *role;
    bool final;
    task *tasks;
    size_t n;
    int working; /* devices that measure, not waiting to come back */
    nas__device *present[NAS_DEVICES_MAX];
} schedule;

/* ---- the queue; all under the lock ------------------------------------------------------------------------------------ */

static bool is_open(const schedule *p, const task *t) {
    return t->state != TASK_DONE && !p->jobs[t->job].failed;
}

static size_t pending_in(const schedule *p, int32_t queue) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        n += p->tasks[i].queue == queue && p->tasks[i].state == TASK_PENDING &&
             is_open(p, &p->tasks[i]);
    }
    return n;
}

static size_t devices_in(const nas__study *s, int32_t queue) {
    size_t n = 0;
    for (int32_t i = 0; i < s->n_devices; i++)
        n += s->devices[i].queue == queue && !s->devices[i].away;
    return n < 1 ? 1 : n;
}

/* Networks between two looks at the reference: as configured, fewer where a pool shares what is left. */
static size_t group_size(const schedule *p, int32_t queue) {
    const size_t every = p->final ? 1 : (size_t)p->s->config->measure.reference_every;
    const size_t mates = devices_in(p->s, queue);
    const size_t share = (pending_in(p, queue) + mates - 1) / mates;
    return share < every ? share : every;
}

/* The next networks of the queue, all of one round: first tries come before second ones. */
static size_t take(schedule *p, int32_t queue, size_t *group) {
    pthread_mutex_lock(&p->s->lock);
    const size_t max = group_size(p, queue);
    size_t n = 0;
    for (int round = 0; round < NAS__ROUNDS_MAX && n == 0; round++) {
        for (size_t i = 0; i < p->n && n < max; i++) {
            task *t = &p->tasks[i];
            if (t->queue != queue || t->state != TASK_PENDING || t->rounds != round ||
                !is_open(p, t))
                continue;
            t->state = TASK_TAKEN;
            group[n++] = i;
        }
    }
    pthread_mutex_unlock(&p->s->lock);
    return n;
}

static void give_back(schedule *p, const size_t *group, size_t n) {
    pthread_mutex_lock(&p->s->lock);
    for (size_t i = 0; i < n; i++) {
        if (p->tasks[group[i]].state == TASK_TAKEN) p->tasks[group[i]].state = TASK_PENDING;
    }
    pthread_mutex_unlock(&p->s->lock);
}

/* ---- what stands ------------------------------------------------------------------------------------------------------- */

static nas__latency *slot_of(const schedule *p, const task *t) {
    nas__trial *trial = &p->s->trials[p->jobs[t->job].index];
    return p->final && strcmp(p->role, "final") == 0 ? &trial->final[t->queue]
                                                     : &trial->search[t->queue];
}

static nas_status store_latency(nas_ctx *ctx, schedule *p, const task *t) {
    const nas__latency *l = &t->kept.latency;
    nas_db_latency row = {.trial_id = p->s->trials[p->jobs[t->job].index].row.id,
                          .final = strcmp(p->role, "final") == 0,
                          .measurement_id = l->measurement_id,
                          .p50_us = l->p50_us,
                          .p50_lo_us = l->p50_lo_us,
                          .p50_hi_us = l->p50_hi_us,
                          .p90_us = l->p90_us,
                          .noisy = l->noisy};
    (void)snprintf(row.queue, sizeof row.queue, "%s", nas__queue_name(p->s, t->queue));
    (void)snprintf(row.checked, sizeof row.checked, "%s", l->checked);
    return nas_db_trial_latency_put(ctx, p->s->db, &row);
}

/* After a group: keeps the calmer measurement of each; done when it was calm enough or enough tries were made. */
static nas_status keep_group(nas_ctx *ctx, schedule *p, const size_t *group, size_t n,
                             double slowdown) {
    nas_status status = NAS_OK;
    pthread_mutex_lock(&p->s->lock);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        task *t = &p->tasks[group[i]];
        if (t->state != TASK_TAKEN) continue;
        nas__keep_calmer(p->s, &t->kept, &t->fresh, slowdown);
        t->rounds++;
        t->state = TASK_PENDING;
        const bool calm = t->kept.slowdown <= p->s->config->measure.drift_limit;
        if (!calm && t->rounds < NAS__ROUNDS_MAX) continue;
        t->state = TASK_DONE;
        status = store_latency(ctx, p, t);
        if (status == NAS_OK) *slot_of(p, t) = t->kept.latency;
    }
    pthread_mutex_unlock(&p->s->lock);
    return status;
}

/* ---- one group --------------------------------------------------------------------------------------------------------- */

static void fail_job(schedule *p, task *t, const char *reason) {
    pthread_mutex_lock(&p->s->lock);
    nas__job *job = &p->jobs[t->job];
    t->state = TASK_DONE;
    if (!job->failed) (void)snprintf(job->reason, sizeof job->reason, "%s", reason);
    job->failed = true;
    pthread_mutex_unlock(&p->s->lock);
}

/* A device that was lost with this network on it: a network that loses devices again and again is at fault itself. */
static void count_loss(nas_ctx *ctx, schedule *p, const nas__device *d, task *t) {
    char reason[NAS__REASON_MAX];
    t->lost++;
    if (t->lost < LOST_MAX) return;
    (void)snprintf(reason, sizeof reason, "device %s was lost %d times while it ran: %.300s",
                   d->config->name, t->lost, nas_ctx_message(ctx));
    fail_job(p, t, reason);
}

/* A program that fails on a living device fails its trial; everything else is for the caller. */
static nas_status measure_one(nas_ctx *ctx, schedule *p, nas__device *d, task *t) {
    const nas__job *job = &p->jobs[t->job];
    const nas_status status =
        nas__time_artifact(ctx, p->s, d, job->built, job->index, p->role, p->final, &t->fresh);
    if (status == NAS_OK) return NAS_OK;
    if (nas__device_is_lost(ctx, d, status)) {
        count_loss(ctx, p, d, t);
        return NAS_ERR_NET;
    }
    if (status != NAS_ERR_DEVICE && status != NAS_ERR_TIMEOUT) return status;
    fail_job(p, t, nas_ctx_message(ctx));
    return NAS_OK;
}

static void show(schedule *p, const nas__device *d, const task *t) {
    pthread_mutex_lock(&p->s->lock);
    nas__progress_update(&p->s->progress, p->s->progress.done, "%s: timing trial %zu",
                         d->config->name, p->jobs[t->job].index);
    pthread_mutex_unlock(&p->s->lock);
}

static nas_status time_reference(nas_ctx *ctx, schedule *p, nas__device *d, double *us) {
    const nas_status status = nas__time_reference(ctx, p->s, d, us);
    return status != NAS_OK && nas__device_is_lost(ctx, d, status) ? NAS_ERR_NET : status;
}

/* NET: the device is lost. *before_us, 0 = not taken: the reference's time just before the group, then after it. */
static nas_status measure_group(nas_ctx *ctx, schedule *p, nas__device *d, const size_t *group,
                                size_t n, double *before_us) {
    nas_status status = *before_us > 0 ? NAS_OK : time_reference(ctx, p, d, before_us);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        task *t = &p->tasks[group[i]];
        pthread_mutex_lock(&p->s->lock);
        const bool open = is_open(p, t);
        if (!open) t->state = TASK_DONE; /* another device's refusal has settled it */
        pthread_mutex_unlock(&p->s->lock);
        if (!open) continue;
        show(p, d, t);
        status = measure_one(ctx, p, d, t);
    }
    double after_us = 0;
    if (status == NAS_OK) status = time_reference(ctx, p, d, &after_us);
    if (status != NAS_OK) return status;
    const double slowdown = nas__slowdown(d, *before_us, after_us);
    *before_us = after_us;
    return keep_group(ctx, p, group, n, slowdown);
}

/* ---- lost devices ------------------------------------------------------------------------------------------------------ */

static nas_status note_loss(nas_ctx *ctx, schedule *p, nas__device *d) {
    char text[NAS__REASON_MAX + 128];
    pthread_mutex_lock(&p->s->lock);
    d->away = true;
    d->away_since_ns = nas_now_ns();
    (void)snprintf(d->why, sizeof d->why, "%s", nas_ctx_message(ctx));
    (void)snprintf(text, sizeof text, "%s is lost, its work goes back to queue %s: %s",
                   d->config->name, nas__queue_name(p->s, d->queue), d->why);
    nas_log(ctx, NAS_LOG_WARN, "%s", text);
    const nas_status status = nas_db_event(ctx, p->s->db, p->s->id, "device", text);
    pthread_mutex_unlock(&p->s->lock);
    return status;
}

static nas_status nap(nas_ctx *ctx, int64_t ms) {
    const int64_t end = nas_now_ns() + ms * 1000000;
    nas_status status = NAS_OK;
    while (status == NAS_OK && nas_now_ns() < end) {
        const struct timespec pause = {0, NAP_MS * 1000000L};
        (void)nanosleep(&pause, NULL); /* a signal may shorten it */
        status = nas_check_cancel(ctx);
    }
    return status;
}

static void show_away(schedule *p, const nas__device *d) {
    pthread_mutex_lock(&p->s->lock);
    nas__progress_update(&p->s->progress, p->s->progress.done,
                         "%s is away since %.0f s, its queue waits: %.80s", d->config->name,
                         (double)(nas_now_ns() - d->away_since_ns) * 1e-9, d->why);
    pthread_mutex_unlock(&p->s->lock);
}

/* One try to connect; *back tells. Only what no device can be blamed for is a failure. */
static nas_status try_back(nas_ctx *ctx, schedule *p, nas__device *d, bool *back) {
    const nas_status status = nas__device_connect(ctx, p->s, d);
    *back = status == NAS_OK;
    if (status == NAS_OK || status == NAS_ERR_NET || status == NAS_ERR_DEVICE ||
        status == NAS_ERR_TIMEOUT) {
        if (!*back) show_away(p, d);
        return NAS_OK;
    }
    return status;
}

static bool is_worth_waiting(schedule *p, const nas__device *d) {
    pthread_mutex_lock(&p->s->lock);
    const bool worth = p->working > 0 && pending_in(p, d->queue) > 0;
    pthread_mutex_unlock(&p->s->lock);
    return worth;
}

/* Asks for the device with growing pauses as long as another one works and its queue has work. */
static nas_status come_back(nas_ctx *ctx, schedule *p, nas__device *d, bool *back) {
    int64_t pause = RETRY_FIRST_MS;
    for (;;) {
        nas_status status = try_back(ctx, p, d, back);
        if (status != NAS_OK || *back) return status;
        const int64_t next = nas_now_ns() + pause * 1000000;
        while (status == NAS_OK && nas_now_ns() < next && is_worth_waiting(p, d))
            status = nap(ctx, NAP_MS);
        if (status != NAS_OK || !is_worth_waiting(p, d)) return status;
        pause = pause * 2 < RETRY_LAST_MS ? pause * 2 : RETRY_LAST_MS;
    }
}

static void count_working(schedule *p, int by) {
    pthread_mutex_lock(&p->s->lock);
    p->working += by;
    pthread_mutex_unlock(&p->s->lock);
}

/* ---- one device -------------------------------------------------------------------------------------------------------- */

static nas_status work(nas_ctx *ctx, schedule *p, nas__device *d, size_t *group) {
    double before_us = 0;
    nas_status status = NAS_OK;
    for (;;) {
        const size_t n = take(p, d->queue, group);
        if (n == 0) return NAS_OK;
        status = measure_group(ctx, p, d, group, n, &before_us);
        if (status == NAS_OK) continue;
        give_back(p, group, n);
        if (status != NAS_ERR_NET) return status;
        before_us = 0;
        bool back = false;
        status = note_loss(ctx, p, d);
        count_working(p, -1);
        if (status == NAS_OK) status = come_back(ctx, p, d, &back);
        count_working(p, 1);
        if (status != NAS_OK || !back) return status;
    }
}

/* One that is away, since an earlier batch perhaps, is asked for first. */
static nas_status run_device(nas_ctx *ctx, void *arg, size_t i, int worker) {
    (void)worker;
    schedule *p = arg;
    nas__device *d = p->present[i];
    bool there = !d->away;
    nas_status status = NAS_OK;
    if (!there) {
        status = come_back(ctx, p, d, &there);
        if (status != NAS_OK || !there) return status;
        count_working(p, 1);
    }
    size_t *group = nas_alloc_array(ctx, p->n, sizeof *group);
    status = group == NULL ? NAS_ERR_NOMEM : work(ctx, p, d, group);
    count_working(p, -1);
    nas_free(group);
    return status;
}

/* ---- all of them --------------------------------------------------------------------------------------------------------- */

static size_t choose_present(schedule *p, bool local) {
    size_t n = 0;
    p->working = 0;
    for (int32_t i = 0; i < p->s->n_devices; i++) {
        nas__device *d = &p->s->devices[i];
        const bool is_local = strcmp(d->config->connect, "local") == 0;
        if (is_local != local || pending_in(p, d->queue) == 0) continue;
        p->present[n++] = d;
        p->working += !d->away;
    }
    return n;
}

/* The devices that are there, until each has nothing to do or is away. */
static nas_status run_present(schedule *p) {
    size_t n = choose_present(p, false);
    nas_status status = n == 0 ? NAS_OK : nas_parallel(p->s->ctx, (int)n, n, run_device, p);
    n = status == NAS_OK ? choose_present(p, true) : 0;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        p->working = p->present[i]->away ? 0 : 1;
        status = run_device(p->s->ctx, p, i, 0);
    }
    return status;
}

static nas__device *first_missed(const schedule *p, bool *mate) {
    nas__device *missed = NULL;
    *mate = false;
    for (int32_t i = 0; i < p->s->n_devices; i++) {
        nas__device *d = &p->s->devices[i];
        if (pending_in(p, d->queue) == 0) continue;
        if (!d->away) *mate = true;
        if (d->away && missed == NULL) missed = d;
    }
    return missed;
}

static nas_status give_up(const schedule *p) {
    nas_buf text = {0};
    for (int32_t i = 0; i < p->s->n_devices; i++) {
        const nas__device *d = &p->s->devices[i];
        if (!d->away || pending_in(p, d->queue) == 0) continue;
        nas_buf_printf(&text, "%s%s since %.0f s (%s)", text.len == 0 ? "" : ", ", d->config->name,
                       (double)(nas_now_ns() - d->away_since_ns) * 1e-9, d->why);
    }
    const nas_status status =
        nas_fail(p->s->ctx, NAS_ERR_DEVICE,
                 "away: %s; everything measured is kept: connect it and run the same command again",
                 text.data == NULL ? "" : text.data);
    nas_buf_deinit(&text);
    return status;
}

/* Nobody is left who works: asks for the missing devices until one is back or patience ends. */
static nas_status wait_for_any(schedule *p) {
    nas_ctx *ctx = p->s->ctx;
    const int64_t until = nas_now_ns() + (int64_t)p->s->config->measure.away_s * 1000000000;
    int64_t pause = RETRY_FIRST_MS;
    for (;;) {
        bool mate = false, back = false;
        if (first_missed(p, &mate) == NULL || mate) return NAS_OK;
        for (int32_t i = 0; i < p->s->n_devices; i++) {
            nas__device *d = &p->s->devices[i];
            if (!d->away || pending_in(p, d->queue) == 0) continue;
            const nas_status status = try_back(ctx, p, d, &back);
            if (status != NAS_OK) return status;
        }
        const int64_t left = (until - nas_now_ns()) / 1000000;
        if (!back && left <= 0) return give_up(p);
        const nas_status status = back ? NAS_OK : nap(ctx, pause < left ? pause : left);
        if (status != NAS_OK) return status;
        pause = pause * 2 < RETRY_LAST_MS ? pause * 2 : RETRY_LAST_MS;
    }
}

static bool has_latency(const nas__study *s, const nas__job *job, int32_t queue, const char *role) {
    const nas__trial *trial = &s->trials[job->index];
    return strcmp(role, "final") == 0 ? trial->final[queue].is_set : trial->search[queue].is_set;
}

static void make_tasks(schedule *p, size_t n_jobs) {
    for (int32_t q = 0; q < p->s->config->n_queues; q++) {
        for (size_t i = 0; i < n_jobs; i++) {
            if (!p->s->needed[q] || p->jobs[i].failed || has_latency(p->s, &p->jobs[i], q, p->role))
                continue;
            p->tasks[p->n++] = (task){.job = i, .queue = q};
        }
    }
}

nas_status nas__measure_jobs(nas__study *s, nas__job *jobs, size_t n, const char *role,
                             bool final) {
    schedule p = {.s = s, .jobs = jobs, .role = role, .final = final};
    p.tasks = nas_alloc_array(s->ctx, n * (size_t)s->config->n_queues, sizeof *p.tasks);
    if (p.tasks == NULL) return NAS_ERR_NOMEM;
    make_tasks(&p, n);
    nas_status status = p.n == 0 ? NAS_OK : nas__build_reference(s);
    bool mate = false;
    while (status == NAS_OK) {
        status = run_present(&p);
        if (status != NAS_OK || (first_missed(&p, &mate) == NULL && !mate)) break;
        status = wait_for_any(&p);
    }
    nas_free(p.tasks);
    return status;
}
