/* test_durability.c - kill -9 at random moments: nothing committed is lost, nothing is torn. */
#include "tests/db/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

SUITE(db_durability);

/* What the child has been told is safe. */
typedef struct promise {
    int64_t trials, finished, device;
} promise;

/* One trial as a study makes it: proposal with strategy state, then values, measurement and the end. */
static nas_status one_trial(nas_ctx *c, nas_db *db, int64_t study, int64_t device, int64_t number,
                            int out, promise *p) {
    char state[32], point[32] = "sr d=1";
    (void)snprintf(state, sizeof state, "%" PRId64, number + 1);
    nas_db_trial row = {.study_id = study, .number = number, .point = point, .origin = "strategy"};
    int64_t id = 0;
    nas_status status = nas_db_begin(c, db);
    if (status == NAS_OK) status = nas_db_trial_insert(c, db, &row, &id);
    if (status == NAS_OK) status = nas_db_study_set_strategy_state(c, db, study, state);
    if (status == NAS_OK) status = nas_db_commit(c, db);
    if (status != NAS_OK) return status;
    p->trials = number + 1;
    if (write(out, p, sizeof *p) != (ssize_t)sizeof *p) return NAS_ERR_IO;
    status = nas_db_trial_lease(c, db, id, "child", 60000);
    const double samples[200] = {1};
    const nas_db_measurement m = {.trial_id = id,
                                  .device_id = device,
                                  .role = "search",
                                  .threads = 1,
                                  .p50_us = 1,
                                  .samples_us = samples,
                                  .n_samples = 200};
    const nas_db_values v = {.psnr_y_db = nas_some_double(30),
                             .latency_p50_us = nas_some_double(1)};
    int64_t m_id = 0;
    if (status == NAS_OK) status = nas_db_begin(c, db);
    if (status == NAS_OK) status = nas_db_measurement_insert(c, db, &m, &m_id);
    if (status == NAS_OK) status = nas_db_trial_finish(c, db, id, NAS_TRIAL_COMPLETE, NULL, &v);
    if (status == NAS_OK) status = nas_db_commit(c, db);
    if (status != NAS_OK) return status;
    p->finished++;
    return write(out, p, sizeof *p) == (ssize_t)sizeof *p ? NAS_OK : NAS_ERR_IO;
}

/* Resumes and goes on until it is killed; ends only on an error, which it prints. */
static void child(int out, promise p) {
    (void)alarm(30); /* ends it even when the test failed before it could */
    nas_db *db = NULL;
    nas_db_study study = {0};
    int64_t device = 0, number = 0;
    nas_status status = nas_db_open(ctx, db_path, &db);
    if (status == NAS_OK) status = nas_db_study_get(ctx, db, "a", &study);
    if (status == NAS_OK)
        status = nas_db_device_put(ctx, db, "local", "local", "f", "{}", false, &device);
    nas_db_trial *rows = NULL;
    size_t n = 0;
    if (status == NAS_OK) status = nas_db_trials(ctx, db, study.id, &rows, &n);
    for (size_t i = 0; i < n && status == NAS_OK;
         i++) { /* a resumed study runs again what was left RUNNING */
        if (rows[i].state != NAS_TRIAL_WAITING && rows[i].state != NAS_TRIAL_RUNNING) continue;
        status = nas_db_trial_lease(ctx, db, rows[i].id, "child", 60000);
        const nas_db_values v = {.psnr_y_db = nas_some_double(30),
                                 .latency_p50_us = nas_some_double(1)};
        if (status == NAS_OK) {
            status = nas_db_trial_finish(ctx, db, rows[i].id, NAS_TRIAL_COMPLETE, NULL, &v);
        }
        if (status == NAS_OK) p.finished++;
    }
    number = (int64_t)n;
    while (status == NAS_OK)
        status = one_trial(ctx, db, study.id, device, number++, out, &p);
    fprintf(stderr, "child: %s\n", nas_ctx_message(ctx));
    _exit(1);
}

static promise read_promises(int in, promise last) {
    promise p;
    while (read(in, &p, sizeof p) == (ssize_t)sizeof p)
        last = p;
    return last;
}

static int64_t number_of(const char *sql) {
    return strtoll(raw_text(db_path, sql), NULL, 10);
}

static void check_invariants(promise p) {
    assert_intact(db_path);
    cr_assert(number_of("SELECT count(*) FROM trials") >= p.trials);
    cr_assert(number_of("SELECT count(*) FROM trials WHERE state = 'COMPLETE'") >= p.finished);
    cr_assert(
        eq(str,
           (char *)raw_text(db_path, "SELECT count(*) = coalesce(max(number) + 1, 0) FROM trials"),
           "1"));
    cr_assert(eq(str,
                 (char *)raw_text(db_path, "SELECT (SELECT count(*) FROM trials) ="
                                           " (SELECT CAST(state AS INTEGER) FROM strategy_states)"),
                 "1"));
    cr_assert(eq(str,
                 (char *)raw_text(db_path, "SELECT count(*) FROM v_trial WHERE state = 'COMPLETE'"
                                           " AND (psnr_y IS NULL OR latency_p50_ms IS NULL)"),
                 "0"));
    cr_assert(eq(str,
                 (char *)raw_text(
                     db_path, "SELECT count(*) FROM trials WHERE state IN ('WAITING', 'RUNNING')"
                              " AND id IN (SELECT trial_id FROM measurements)"),
                 "0"));
    cr_assert(number_of("SELECT count(*) FROM trials WHERE state = 'RUNNING'") <= 1);
}

static void sleep_us(long us) {
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

Test(db_durability, kill_at_random_moments_loses_and_tears_nothing) {
    enum { ROUNDS = 25 };
    const uint64_t seed = test_seed();
    nas_rng rng = nas_rng_stream(seed, 0, "kill");
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    OK(nas_db_study_set_strategy_state(ctx, db, study, "0"));
    close_db(db);
    promise kept = {0};
    const int64_t deadline = nas_now_ns() + 5000000000;
    int rounds = 0;
    for (; rounds < ROUNDS && (rounds < 3 || nas_now_ns() < deadline); rounds++) {
        int pipes[2];
        cr_assert(eq(int, pipe(pipes), 0));
        const pid_t pid = fork();
        if (pid == 0) child(pipes[1], kept);
        (void)close(pipes[1]);
        sleep_us(2000 + (long)nas_rng_below(&rng, 80000));
        cr_assert(eq(int, kill(pid, SIGKILL), 0));
        int wait_status = 0;
        cr_assert(eq(int, (int)waitpid(pid, &wait_status, 0), (int)pid));
        const bool killed = WIFSIGNALED(wait_status);
        cr_assert(killed, "the child ended by itself with %d", wait_status);
        kept = read_promises(pipes[0], kept);
        (void)close(pipes[0]);
        if (rounds % 2 == 1) { /* the shared memory may be gone as well, as after a reboot */
            char shm[160];
            (void)snprintf(shm, sizeof shm, "%s-shm", db_path);
            (void)unlink(shm);
        }
        check_invariants(kept);
        kept.trials = number_of("SELECT count(*) FROM trials");
        kept.finished = number_of("SELECT count(*) FROM trials WHERE state = 'COMPLETE'");
    }
    fprintf(stderr, "%d kills, %" PRId64 " trials, %" PRId64 " finished\n", rounds, kept.trials,
            kept.finished);
    cr_assert(kept.finished > 0, "no child lived long enough to finish a trial");
}

Test(db_durability, a_kill_while_the_schema_is_made_leaves_an_openable_file) {
    nas_rng rng = nas_rng_stream(test_seed(), 0, "create");
    for (int round = 0; round < 12; round++) {
        const pid_t pid = fork();
        if (pid == 0) {
            nas_db *db = NULL;
            (void)alarm(30);
            (void)nas_db_open(ctx, db_path, &db); /* the parent looks at the file, not at this */
            for (;;)
                (void)pause();
        }
        sleep_us((long)nas_rng_below(&rng, 12000));
        cr_assert(eq(int, kill(pid, SIGKILL), 0));
        cr_assert(eq(int, (int)waitpid(pid, NULL, 0), (int)pid));
        close_db(open_db());
        assert_intact(db_path);
        char lock[160];
        (void)snprintf(lock, sizeof lock, "%s.lock", db_path);
        cr_assert(eq(int, unlink(db_path), 0)); /* closed cleanly: one file */
        cr_assert(eq(int, unlink(lock), 0));
    }
}
