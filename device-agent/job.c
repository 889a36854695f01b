/* job.c - one measured run: cool enough, clocks set, a limited child in its own folder, its output, its deadline, its
 * result as JSON.
 *
 * A run goes through phases, each of which only waits in the agent's one loop: COOLING (the thermal gate), IDLE (power
 * without load), PROGRAM, OVER. Whatever happens the whole process group is dead and the clocks are as before when the
 * run is over. Nothing here looks at the wall clock, so it may jump. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GATE_STEP_MS = 250, IDLE_STEP_MS = 250, REST_MS = 300 * 1000 };
static const double gate_margin = 5.0; /* degrees above the idle baseline at which a run starts */

void nas__job_fail(nas__job *job, nas__job_state state, const char *reason, const char *error) {
    if (job->state == NAS__JOB_RUNNING) job->state = state;
    if (job->error[0] != '\0') return;
    (void)snprintf(job->error, sizeof job->error, "%s", error);
    (void)snprintf(job->reason, sizeof job->reason, "%s", reason);
}

static void probe_into(nas_buf *out) {
    nas_json j = nas_json_begin(out);
    nas_buf_clear(out);
    nas__probe_state(&j);
}

void nas__job_sweep(const char *parent_dir) {
    DIR *dir = opendir(parent_dir);
    if (dir == NULL) return;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char path[sizeof((nas__job *)NULL)->dir];
        char *end = NULL;
        if (strncmp(e->d_name, "run-", 4) != 0) continue;
        const long pid = strtol(e->d_name + 4, &end, 10);
        if (end == e->d_name + 4 || *end != '-' || pid <= 0) continue;
        if (pid != (long)getpid() && (kill((pid_t)pid, 0) == 0 || errno != ESRCH)) continue;
        const int n = snprintf(path, sizeof path, "%s/%s", parent_dir, e->d_name);
        if (n > 0 && (size_t)n < sizeof path) (void)nas_remove_tree(NULL, path); /* best effort */
    }
    (void)closedir(dir);
}

static nas_status make_folder(nas_ctx *ctx, nas__job *job, const char *parent_dir) {
    const int n = snprintf(job->dir, sizeof job->dir, "%s/run-%ld-%" PRId64, parent_dir,
                           (long)getpid(), job->id);
    if (n < 0 || (size_t)n >= sizeof job->dir) {
        job->dir[0] = '\0';
        return nas_fail(ctx, NAS_ERR_RANGE, "run folder below %s: path too long", parent_dir);
    }
    if (nas_file_exists(job->dir)) {
        const nas_status status =
            nas_remove_tree(ctx, job->dir); /* left by a dead agent with the same process id */
        if (status != NAS_OK) return status;
    }
    if (mkdir(job->dir, 0700) == 0) return NAS_OK;
    const nas_status status =
        nas_fail(ctx, NAS_ERR_IO, "run folder %s: %s", job->dir, strerror(errno));
    job->dir[0] = '\0';
    return status;
}

/* ---- before the program ------------------------------------------------------------------------------------------- */

static void finish(nas_ctx *ctx, nas__job *job);

/* The idle temperature of this machine as far as it was seen: the lowest, and anew after a long rest, because the room
 * may have warmed up. */
static void update_baseline(nas__job *job, double celsius) {
    nas__baseline *b = &job->baseline;
    const bool rested = nas_now_ns() - b->last_end_ns >= (int64_t)REST_MS * 1000000;
    if (!b->is_set || celsius < b->celsius || rested) b->celsius = celsius;
    b->is_set = true;
    b->last_end_ns = nas_now_ns();
}

static double gate_limit(const nas__job *job) {
    const double by_idle = job->baseline.celsius + gate_margin;
    const double most = job->o.max_celsius;
    return most > 0 && most < by_idle ? most : by_idle;
}

static void too_hot(nas__job *job) {
    char text[256];
    (void)snprintf(text, sizeof text,
                   "too hot: %.1f C (%s) after waiting %" PRId64
                   " ms; a run starts below %.1f C (idle is %.1f C%s); let the device cool",
                   job->gate.celsius, job->gate.type, job->o.gate_ms, gate_limit(job),
                   job->baseline.celsius,
                   job->o.max_celsius > 0 ? ", or raise max_temperature_c" : "");
    nas__job_fail(job, NAS__JOB_FAILED, "too_hot", text);
}

static void argv_add(nas__argv *argv, const char *name, const char *prefix, const char *value) {
    if (argv->n + 2 > NAS__ARGV_MAX) return; /* cannot be: the constant counts all of them */
    (void)snprintf(argv->text[argv->n++], sizeof argv->text[0], "%s", name);
    (void)snprintf(argv->text[argv->n++], sizeof argv->text[0], "%s%s", prefix, value);
}

/* The controller's options, and where the program finds heat and power. */
static void make_arguments(const nas__job *job, nas__argv *argv) {
    *argv = (nas__argv){0};
    for (int i = 0; i < job->o.args.n; i += 2) {
        const char *name = job->o.args.text[i];
        const bool cpus = strcmp(name, "--cpus") == 0;
        if (strcmp(name, "--profile") == 0) { /* the program's takes no value */
            (void)snprintf(argv->text[argv->n++], sizeof argv->text[0], "%s", name);
            continue;
        }
        argv_add(argv, name, "", cpus ? job->cpus : job->o.args.text[i + 1]);
    }
    if (nas__probe_root()[0] != '\0') argv_add(argv, "--sys-root", nas__probe_root(), "");
    if (job->gate.found && job->gate.path[0] != '\0')
        argv_add(argv, "--temperature", nas__probe_root(), job->gate.path);
    const char *option = job->power.kind == NAS__POWER_RAPL ? "--rapl" : "--battery";
    for (int i = 0; i < job->power.n; i++)
        argv_add(argv, option, nas__probe_root(), job->power.path[i]);
    if (job->has_idle) {
        char text[32];
        (void)snprintf(text, sizeof text, "%.0f", job->idle_w * 1000.0);
        argv_add(argv, "--idle-mw", "", text);
    }
}

static void launch(nas_ctx *ctx, nas__job *job) {
    nas__topology t;
    nas__argv argv;
    char memory[1000];
    (void)snprintf(memory, sizeof memory, "%s/" NAS__FREQUENCY_MEMORY, job->parent_dir);
    nas__topology_read(&t);
    if (job->o.frequency[0] != '\0')
        nas__frequency_pin(&job->frequency, &t, job->o.frequency, memory);
    make_arguments(job, &argv);
    nas_buf_clear(&job->before);
    probe_into(&job->before);
    job->phase = NAS__PHASE_PROGRAM;
    job->start_ns = nas_now_ns();
    job->deadline_ns = job->start_ns + job->o.deadline_ms * 1000000;
    if (nas__job_launch(ctx, job, &argv) != NAS_OK) {
        nas__job_fail(job, NAS__JOB_FAILED, "agent", nas_ctx_message(ctx));
        finish(ctx, job);
    }
}

static void begin_idle(nas_ctx *ctx, nas__job *job) {
    if (job->o.idle_ms == 0 || job->power.kind == NAS__POWER_NONE) {
        launch(ctx, job);
        return;
    }
    job->phase = NAS__PHASE_IDLE;
    job->next_ns = nas_now_ns() + (int64_t)IDLE_STEP_MS * 1000000;
    nas__idle_begin(&job->idle, &job->power);
}

static void step_idle(nas_ctx *ctx, nas__job *job, int64_t now) {
    if (now < job->next_ns) return;
    nas__idle_sample(&job->idle, &job->power);
    job->next_ns = now + (int64_t)IDLE_STEP_MS * 1000000;
    if (now - job->idle.begin_ns < job->o.idle_ms * 1000000) return;
    job->has_idle = nas__idle_end(&job->idle, &job->power, &job->idle_w);
    launch(ctx, job);
}

static void step_cooling(nas_ctx *ctx, nas__job *job, int64_t now) {
    if (now < job->next_ns) return;
    const int64_t waited_ms = (now - job->asked_ns) / 1000000;
    nas__temperature_read(&job->gate);
    job->gate_waited_ms = waited_ms;
    job->next_ns = now + (int64_t)GATE_STEP_MS * 1000000;
    if (job->gate.found) update_baseline(job, job->gate.celsius);
    if (!job->gate.found || job->o.gate_ms == 0 || job->gate.celsius <= gate_limit(job)) {
        begin_idle(ctx, job);
    } else if (waited_ms >= job->o.gate_ms) {
        too_hot(job);
        finish(ctx, job);
    }
}

/* Everything that can be wrong with the request itself. */
static nas_status prepare(nas_ctx *ctx, nas__job *job, const char *program,
                          const char *parent_dir) {
    nas__topology t;
    const char *threads = nas__bench_arg_get(&job->o.args, "threads"),
               *cpus = nas__bench_arg_get(&job->o.args, "cpus");
    nas__topology_read(&t);
    const char *error = nas__topology_pick(&t, cpus != NULL ? cpus : "",
                                           threads != NULL ? (int)strtol(threads, NULL, 10) : 1,
                                           job->cpus, sizeof job->cpus);
    if (error == NULL) error = nas__frequency_check(job->o.frequency, t.n);
    if (error != NULL) return nas_fail(ctx, NAS_ERR_INVALID, "%s", error);
    if ((size_t)snprintf(job->program, sizeof job->program, "%s", program) >= sizeof job->program ||
        (size_t)snprintf(job->parent_dir, sizeof job->parent_dir, "%s", parent_dir) >=
            sizeof job->parent_dir) {
        return nas_fail(ctx, NAS_ERR_RANGE, "run: path too long");
    }
    return make_folder(ctx, job, parent_dir);
}

nas_status nas__job_start(nas_ctx *ctx, nas__job *job, int64_t id, const char *program,
                          const char *parent_dir, const nas__run_options *options) {
    nas__job_deinit(ctx, job);
    const nas__baseline baseline = job->baseline;
    job->o = *options;
    job->id = id;
    const nas_status status = prepare(ctx, job, program, parent_dir);
    if (status != NAS_OK) { /* there is no such run */
        *job = (nas__job){.out_fd = -1, .err_fd = -1, .baseline = baseline};
        return status;
    }
    nas__power_find(&job->power);
    job->state = NAS__JOB_RUNNING;
    job->phase = NAS__PHASE_COOLING;
    job->asked_ns = job->start_ns = job->next_ns = nas_now_ns();
    step_cooling(ctx, job, job->asked_ns);
    return NAS_OK;
}

/* ---- while it runs ------------------------------------------------------------------------------------------------ */

static void drain(int *fd, nas_buf *into, size_t limit) {
    char chunk[16384];
    while (*fd >= 0) {
        const ssize_t n = read(*fd, chunk, sizeof chunk);
        if (n > 0) {
            const size_t room = into->len < limit ? limit - into->len : 0;
            nas_buf_append(into, chunk, (size_t)n < room ? (size_t)n : room);
        } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
            (void)close(*fd);
            *fd = -1;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

static void kill_group(const nas__job *job) {
    if (job->pid <= 0) return; /* still waiting for the gate */
    (void)kill(-job->pid, SIGKILL);
    if (!job->reaped) (void)kill(job->pid, SIGKILL);
}

void nas__job_kill(nas__job *job, const char *reason, const char *why) {
    if (!nas__job_runs(job) || job->stopped) return;
    job->stopped = true;
    nas__job_fail(job, NAS__JOB_KILLED, reason, why);
    kill_group(job);
}

/* What the limits do to a program shows as a signal. */
static const char *signal_reason(int number) {
    switch (number) {
    case SIGKILL: return "memory";
    case SIGXCPU: return "cpu_time";
    case SIGXFSZ: return "file_size";
    case SIGSYS: return "sandbox";
    default: return "crash";
    }
}

static const char *signal_meaning(int number) {
    switch (number) {
    case SIGKILL: return ": not by the agent; the system was most likely out of memory";
    case SIGXCPU: return ": more CPU time than its deadline allows";
    case SIGXFSZ: return ": it wrote more into a file than the limit of 1 MB";
    case SIGSYS: return ": a system call of another kind of machine";
    default: return "";
    }
}

static void judge(nas__job *job) {
    char text[256];
    if (job->stopped || job->error[0] != '\0') {
        if (job->state == NAS__JOB_RUNNING) job->state = NAS__JOB_FAILED;
    } else if (job->signal != 0) {
        (void)snprintf(text, sizeof text, "the program was ended by signal %d (%s)%s", job->signal,
                       strsignal(job->signal), signal_meaning(job->signal));
        nas__job_fail(job, NAS__JOB_FAILED, signal_reason(job->signal), text);
    } else if (job->exit_code != 0) {
        (void)snprintf(text, sizeof text, "the program ended with exit code %d", job->exit_code);
        nas__job_fail(job, NAS__JOB_FAILED, "exit", text);
    } else if (job->out.failed) {
        nas__job_fail(job, NAS__JOB_FAILED, "agent",
                      "the agent ran out of memory for the program's output");
    } else if (!nas__json_object_ok(job->out.data, job->out.len)) {
        (void)snprintf(text, sizeof text,
                       "the program's output (%zu bytes, limit %d) is no JSON object", job->out.len,
                       (int)NAS__OUT_MAX);
        nas__job_fail(job, NAS__JOB_FAILED, "output", text);
    } else {
        job->state = NAS__JOB_DONE;
    }
}

/* The end of every run, with or without a program. */
static void finish(nas_ctx *ctx, nas__job *job) {
    job->reaped = true;
    job->phase = NAS__PHASE_OVER;
    job->end_ns = nas_now_ns();
    job->baseline.last_end_ns = job->end_ns;
    nas__frequency_restore(&job->frequency);
    probe_into(&job->after);
    if (job->dir[0] != '\0' && nas_remove_tree(ctx, job->dir) != NAS_OK) {
        nas_log(ctx, NAS_LOG_WARN, "run folder stays dir=%s: %s", job->dir, nas_ctx_message(ctx));
    }
    job->dir[0] = '\0';
    nas_log(ctx, NAS_LOG_INFO, "run over id=%" PRId64 " state=%s%s%s", job->id,
            nas__job_state_name(job->state), job->error[0] != '\0' ? ": " : "", job->error);
}

static void reap(nas_ctx *ctx, nas__job *job, int wait_status) {
    (void)kill(-job->pid, SIGKILL); /* what it left behind in its group */
    drain(&job->out_fd, &job->out, NAS__OUT_MAX);
    drain(&job->err_fd, &job->err, NAS__ERR_MAX);
    if (job->out_fd >= 0) (void)close(job->out_fd);
    if (job->err_fd >= 0) (void)close(job->err_fd);
    job->out_fd = job->err_fd = -1;
    job->has_exit = true;
    job->exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    job->signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
    judge(job);
    finish(ctx, job);
}

static void step_program(nas_ctx *ctx, nas__job *job, int64_t now) {
    drain(&job->out_fd, &job->out, NAS__OUT_MAX);
    drain(&job->err_fd, &job->err, NAS__ERR_MAX);
    if (!job->stopped && now >= job->deadline_ns) {
        char text[80];
        (void)snprintf(text, sizeof text, "killed at the deadline of %" PRId64 " ms",
                       job->o.deadline_ms);
        nas__job_kill(job, "deadline", text);
    }
    if (!job->stopped && job->out.len >= NAS__OUT_MAX) {
        nas__job_fail(job, NAS__JOB_FAILED, "output",
                      "killed: the program wrote a megabyte to stdout, where one JSON object of "
                      "less belongs");
        job->stopped = true;
        kill_group(job);
    }
    int wait_status = 0;
    if (waitpid(job->pid, &wait_status, WNOHANG) == job->pid) reap(ctx, job, wait_status);
}

void nas__job_step(nas_ctx *ctx, nas__job *job) {
    const int64_t now = nas_now_ns();
    if (!nas__job_runs(job)) return;
    if (job->phase != NAS__PHASE_PROGRAM && job->stopped) {
        finish(ctx, job);
        return;
    }
    switch (job->phase) {
    case NAS__PHASE_COOLING: step_cooling(ctx, job, now); return;
    case NAS__PHASE_IDLE: step_idle(ctx, job, now); return;
    case NAS__PHASE_PROGRAM: step_program(ctx, job, now); return;
    case NAS__PHASE_OVER: return;
    }
}

int64_t nas__job_due_ns(const nas__job *job) {
    if (!nas__job_runs(job)) return INT64_MAX;
    if (job->phase != NAS__PHASE_PROGRAM) return job->stopped ? 0 : job->next_ns;
    return job->stopped ? INT64_MAX : job->deadline_ns;
}

void nas__job_deinit(nas_ctx *ctx, nas__job *job) {
    if (nas__job_runs(job)) {
        int wait_status = 0;
        nas__job_kill(job, "killed", "the agent ends");
        if (job->pid > 0) {
            while (waitpid(job->pid, &wait_status, 0) < 0 && errno == EINTR)
                continue;
            reap(ctx, job, wait_status);
        } else {
            finish(ctx, job);
        }
    }
    if (job->dir[0] != '\0')
        (void)nas_remove_tree(ctx, job->dir); /* a start that failed; best effort */
    nas_buf_deinit(&job->out);
    nas_buf_deinit(&job->err);
    nas_buf_deinit(&job->before);
    nas_buf_deinit(&job->after);
    const nas__baseline baseline = job->baseline; /* of the machine, not of the run */
    *job = (nas__job){.out_fd = -1, .err_fd = -1, .baseline = baseline};
}

bool nas__job_runs(const nas__job *job) {
    return job->id > 0 && job->phase != NAS__PHASE_OVER && !job->reaped;
}

/* ---- result ------------------------------------------------------------------------------------------------------- */

const char *nas__job_state_name(nas__job_state state) {
    switch (state) {
    case NAS__JOB_NONE: return "none";
    case NAS__JOB_RUNNING: return "running";
    case NAS__JOB_DONE: return "done";
    case NAS__JOB_FAILED: return "failed";
    case NAS__JOB_KILLED: return "killed";
    }
    return "none";
}

/* stderr of a foreign program: bytes that JSON could not take become '?'. */
static void write_stderr(nas_json *j, const nas_buf *err) {
    nas_buf text = {0};
    nas_buf_append(&text, err->data != NULL ? err->data : "", err->len);
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.data[i] >= 0x7f || text.data[i] == '\0') text.data[i] = '?';
    }
    nas_json_key(j, "stderr");
    nas_json_string(j, text.data != NULL ? text.data : "");
    nas_buf_deinit(&text);
}

static const char *phase_name(nas__job_phase phase) {
    switch (phase) {
    case NAS__PHASE_COOLING: return "cooling";
    case NAS__PHASE_IDLE: return "idle_power";
    case NAS__PHASE_PROGRAM: return "program";
    case NAS__PHASE_OVER: return "over";
    }
    return "over";
}

static void gate_json(nas_json *j, const nas__job *job) {
    nas_json_key(j, "gate");
    if (!job->gate.found) {
        nas__probe_unavailable(j, job->gate.code);
        return;
    }
    nas_json_object(j);
    nas_json_key(j, "zone");
    nas_json_string(j, job->gate.type);
    nas_json_key(j, "celsius");
    nas_json_double(j, job->gate.celsius);
    nas_json_key(j, "idle_celsius");
    nas_json_double(j, job->baseline.celsius);
    nas_json_key(j, "limit_celsius");
    nas_json_double(j, gate_limit(job));
    nas_json_key(j, "waited_ms");
    nas_json_int(j, job->gate_waited_ms);
    nas_json_object_end(j);
}

static void conditions_json(nas_json *j, const nas__job *job) {
    const char *cpus = nas__bench_arg_get(&job->o.args, "cpus");
    gate_json(j, job);
    if (cpus != NULL) {
        nas_json_key(j, "cpus");
        nas_json_object(j);
        nas_json_key(j, "asked");
        nas_json_string(j, cpus);
        nas_json_key(j, "list");
        nas_json_string(j, job->cpus);
        nas_json_object_end(j);
    }
    if (job->o.frequency[0] != '\0') {
        nas_json_key(j, "frequency");
        nas__frequency_json(j, &job->frequency);
    }
    if (job->has_idle) {
        nas_json_key(j, "idle_w");
        nas_json_double(j, job->idle_w);
    }
    if (nas__probe_root()[0] != '\0') {
        nas_json_key(j, "sys_root");
        nas_json_string(j, nas__probe_root());
    }
}

void nas__job_json(nas_json *j, const nas__job *job) {
    const bool over = job->reaped;
    nas_json_object(j);
    nas_json_key(j, "id");
    nas_json_int(j, job->id);
    nas_json_key(j, "state");
    nas_json_string(j, nas__job_state_name(over ? job->state : NAS__JOB_RUNNING));
    nas_json_key(j, "phase");
    nas_json_string(j, phase_name(job->phase));
    if (over && job->has_exit) {
        nas_json_key(j, "exit_code");
        nas_json_int(j, job->exit_code);
        nas_json_key(j, "signal");
        nas_json_int(j, job->signal);
    }
    if (over) {
        nas_json_key(j, "wall_s");
        nas_json_double(j, (double)(job->end_ns - job->start_ns) * 1e-9);
    }
    if (over && job->error[0] != '\0') {
        nas_json_key(j, "error");
        nas_json_string(j, job->error);
        nas_json_key(j, "reason");
        nas_json_string(j, job->reason);
    }
    if (over) write_stderr(j, &job->err);
    conditions_json(j, job);
    nas_json_key(j, "before");
    nas_json_raw(j, job->before.data != NULL ? job->before.data : "null");
    if (over) {
        nas_json_key(j, "after");
        nas_json_raw(j, job->after.data != NULL ? job->after.data : "null");
    }
    nas_json_key(j, "limits");
    nas__limits_json(j, &job->limits);
    if (over && job->state == NAS__JOB_DONE) {
        nas_json_key(j, "bench");
        nas_json_raw(j, job->out.data);
    }
    nas_json_object_end(j);
}
