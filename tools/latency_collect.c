/* latency_collect.c - `nas-latency collect`: times single layers, or networks of a space, on a device here, a model of them
 * growing along. They are chosen in rounds: all of a round are compiled at the same time, then timed in turn.
 *
 * A machine that others use, too, is slower for some seconds or minutes: a round is timed in several passes, again beside each
 * of the next rounds, and the fastest counts; with more passes while a reference program (the first that was timed) is
 * slower than it was. How far the first passes and the later ones of a network agree says what the machine allows.
 *
 * Every other one is drawn at random and predicted before it is timed: those errors are honest, and when their median
 * falls below --error the work is done. The others are those of which the model knows least. Rows are kept one by one, so
 * that an interruption loses nothing; a later run goes on from them. */
#include "compiler/compiler.h"
#include "latency/latency.h"
#include "tools/latency_commands.h"
#include "tools/latency_data.h"
#include "tools/latency_kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FIRST_ROWS = 24,  /* before the first model */
    ROUND = 8,        /* layers compiled together */
    REFIT_ROWS = 8,   /* new rows before the next one */
    CANDIDATES = 200, /* drawn for one active choice */
    WINDOW = 40,      /* newest honest errors that count */
    ERRORS_MIN = 20,
    FAILURES_MAX = 20, /* in a row: then something else is wrong than one shape */
    TRIES = 100,
    PASSES = 2,
    PASSES_MAX = 4,
    EARLIER = 3 * ROUND, /* of the rounds before: timed once more beside each new one */
    REPEATS = 256        /* newest pairs of first and later times that count */
};
#define CALM 1.04 /* times the reference's fastest: as undisturbed as the machine was */

/* One of a round: chosen first, then compiled beside the others, then timed alone. */
typedef struct job {
    nas_buf arch;
    nas_prediction expected; /* of those drawn at random, once there is a model */
    bool judged;             /* expected is set */
    double us;               /* the fastest pass so far; 0 = not timed */
    double first_us;         /* the fastest of its own round; 0 = not timed */
    double later_us;         /* the fastest beside later rounds; 0 = none yet */
    nas_graph *graph;
    nas_artifact artifact;
    nas_status status;
    char message[512]; /* when status is a failure */
} job;

typedef struct collector {
    const nas_latency_args *args;
    nas_db *db;
    nas_device *device;
    nas_encoder *encoder;
    nas_device_model *model; /* NULL before the first */
    nas_db_series series;
    nas_compile_options compile;
    int64_t import_id;
    int32_t families[NAS_KERNEL_FAMILIES], n_families;
    nas_rng rng;
    size_t rows, rows_of_model, drawn, failures;
    nas_graph *reference; /* NULL until something was timed */
    nas_artifact reference_artifact;
    double calmest_us;    /* of the reference; 0 = not timed yet */
    job earlier[EARLIER]; /* the oldest first */
    size_t n_earlier;
    double errors[WINDOW]; /* ring of relative errors */
    size_t n_errors;
    double repeats[REPEATS]; /* ring of relative differences between first and later times */
    size_t n_repeats;
    int64_t start_ns, last_line_ns;
} collector;

static double elapsed_s(const collector *c) {
    return (double)(nas_now_ns() - c->start_ns) * 1e-9;
}

/* ---- honest errors ------------------------------------------------------------------------------------------------------- */

static int by_value(const void *pa, const void *pb) {
    const double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

/* Of relative differences: NaN where there are none. */
typedef struct spread {
    size_t n;
    double median, mean, within5, within10;
} spread;

static spread spread_of(const double *values, size_t n) {
    double sorted[REPEATS];
    spread s = {.n = n, .median = NAN, .mean = NAN, .within5 = NAN, .within10 = NAN};
    if (n == 0) return s;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_value);
    s.median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
    s.mean = s.within5 = s.within10 = 0;
    for (size_t i = 0; i < n; i++) {
        s.mean += sorted[i] / (double)n;
        s.within5 += (sorted[i] <= 0.05) / (double)n;
        s.within10 += (sorted[i] <= 0.10) / (double)n;
    }
    return s;
}

static spread errors_of(const collector *c) {
    return spread_of(c->errors, c->n_errors < WINDOW ? c->n_errors : WINDOW);
}

static spread repeats_of(const collector *c) {
    return spread_of(c->repeats, c->n_repeats < REPEATS ? c->n_repeats : REPEATS);
}

/* Median of the newest errors; false while there are too few. */
static bool median_error(const collector *c, double *out) {
    const spread s = errors_of(c);
    *out = s.n >= ERRORS_MIN ? s.median : 0;
    return s.n >= ERRORS_MIN;
}

static void progress(collector *c, bool last) {
    const bool terminal = isatty(STDERR_FILENO) == 1;
    const int64_t now = nas_now_ns();
    if (!last && now - c->last_line_ns < (terminal ? 200 : 10000) * INT64_C(1000000)) return;
    c->last_line_ns = now;
    double error = 0;
    const bool known = median_error(c, &error);
    fprintf(stderr, "%scollect: %zu rows, %.0f of %.0f s, median error %.1f %% (%s)%s",
            terminal ? "\r\033[K" : "", c->rows, elapsed_s(c), c->args->time_s, 100 * error,
            known ? "of what it had not seen" : "too few yet", terminal && !last ? "" : "\n");
}

/* ---- the model ------------------------------------------------------------------------------------------------------------ */

static nas_status refit(nas_ctx *ctx, collector *c) {
    nas_latency_data data = {0};
    nas_owned_table table = {0};
    nas_device_model *model = NULL;
    nas_device_model_options options = nas_device_model_options_default();
    if (c->args->model != NULL) options.model = c->args->model;
    options.seed = c->args->seed;
    nas_status status = nas_latency_data_load(ctx, c->db, &c->series, &data);
    size_t *index = status == NAS_OK ? nas_alloc_array(ctx, data.n, sizeof *index) : NULL;
    if (status == NAS_OK && index == NULL) status = NAS_ERR_NOMEM;
    for (size_t i = 0; i < data.n && status == NAS_OK; i++)
        index[i] = i;
    if (status == NAS_OK)
        status = nas_latency_data_table(ctx, c->encoder, &data, index, data.n, &table);
    if (status == NAS_OK) status = nas_device_model_fit(ctx, &table.table, &options, &model);
    if (status == NAS_OK) {
        nas_device_model_free(c->model);
        c->model = model;
        c->rows = c->rows_of_model = data.n;
    }
    nas_free(index);
    nas_owned_table_deinit(&table);
    nas_latency_data_deinit(&data);
    return status;
}

static nas_status predict(nas_ctx *ctx, const collector *c, const char *const *archs, size_t n,
                          nas_prediction *out) {
    size_t width = 0;
    nas_latency_table table = {.device = c->series.device, .n_rows = n};
    table.features = nas_encoder_features(c->encoder, &width);
    table.n_features = width;
    double *x = nas_alloc_array(ctx, n * width, sizeof *x);
    if (x == NULL) return NAS_ERR_NOMEM;
    nas_status status = nas_encoder_rows(ctx, c->encoder, archs, n, x);
    table.x = x;
    if (status == NAS_OK) status = nas_device_model_predict(ctx, c->model, &table, out);
    nas_free(x);
    return status;
}

/* ---- which one next -------------------------------------------------------------------------------------------------------- */

static nas_status draw(nas_ctx *ctx, collector *c, nas_buf *text) {
    nas_buf_clear(text);
    if (c->n_families == 0) return nas_encoder_sample(ctx, c->encoder, &c->rng, text);
    const uint32_t which = nas_rng_below(&c->rng, (uint32_t)c->n_families);
    nas_kernel_shape shape;
    nas_kernel_shape_sample(c->families[which], &c->rng, &shape);
    nas_kernel_shape_format(&shape, text);
    return nas_buf_status(ctx, text);
}

/* One that was never timed; after many tries a timed one, which is then only timed again. */
static nas_status draw_new(nas_ctx *ctx, collector *c, nas_buf *text) {
    nas_status status = NAS_OK;
    for (int i = 0; i < TRIES && status == NAS_OK; i++) {
        nas_opt_double known = {0};
        status = draw(ctx, c, text);
        if (status == NAS_OK)
            status = nas_db_value_get(ctx, c->db, c->series.id, text->data, &known);
        if (!known.is_set) break;
    }
    return status;
}

typedef struct candidates {
    nas_buf texts[CANDIDATES];
    const char *archs[CANDIDATES];
    nas_prediction predictions[CANDIDATES];
} candidates;

/* Of many, the one with the widest interval for its size. */
static nas_status widest(nas_ctx *ctx, collector *c, candidates *list, nas_buf *text) {
    nas_status status = NAS_OK;
    for (int i = 0; i < CANDIDATES && status == NAS_OK; i++) {
        status = draw_new(ctx, c, &list->texts[i]);
        list->archs[i] = list->texts[i].data;
    }
    if (status == NAS_OK) status = predict(ctx, c, list->archs, CANDIDATES, list->predictions);
    if (status != NAS_OK) return status;
    int best = 0;
    for (int i = 1; i < CANDIDATES; i++) {
        const nas_prediction *a = &list->predictions[i], *b = &list->predictions[best];
        if (a->hi_us / a->lo_us > b->hi_us / b->lo_us) best = i;
    }
    nas_buf_clear(text);
    nas_buf_puts(text, list->archs[best]);
    return nas_buf_status(ctx, text);
}

static nas_status choose_active(nas_ctx *ctx, collector *c, nas_buf *text) {
    candidates *list = nas_alloc_array(ctx, 1, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    const nas_status status = widest(ctx, c, list, text);
    for (int i = 0; i < CANDIDATES; i++)
        nas_buf_deinit(&list->texts[i]);
    nas_free(list);
    return status;
}

/* ---- timing ---------------------------------------------------------------------------------------------------------------- */

static nas_status give_weights(nas_ctx *ctx, nas_graph *graph, nas_rng *rng) {
    const nas_status status = nas_graph_alloc_weights(ctx, graph);
    for (int32_t p = 0; status == NAS_OK && p < nas_graph_param_count(graph); p++) {
        nas_param *param = nas_graph_param(graph, p);
        const char *dot = strrchr(param->name, '.');
        const bool variance = dot != NULL && strcmp(dot, ".variance") == 0;
        for (size_t i = 0; i < param->count; i++) { /* no zeros: nothing to skip */
            const float value = (float)(0.1 * nas_rng_normal(rng));
            param->data[i] = variance ? 1 + value * value : value;
        }
    }
    return status;
}

typedef struct job_list {
    const collector *collector;
    job *jobs;
} job_list;

static void jobs_deinit(job *jobs, size_t n) {
    for (size_t i = 0; i < n; i++) {
        nas_graph_free(jobs[i].graph);
        nas_buf_deinit(&jobs[i].arch);
    }
}

/* What hinders one layer is kept with it: the others go on. */
static nas_status prepare(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const job_list *list = arg;
    const collector *c = list->collector;
    job *j = &list->jobs[index];
    (void)worker; /* nothing is kept per thread */
    nas_rng rng = nas_rng_stream(c->args->seed, c->rows + index, "collect weights");
    j->status = nas_encoder_graph(ctx, c->encoder, j->arch.data, &j->graph);
    if (j->status == NAS_OK) j->status = give_weights(ctx, j->graph, &rng);
    if (j->status == NAS_OK && !nas_device_is_simulated(c->device))
        j->status = nas_compile(ctx, j->graph, &c->compile, &j->artifact);
    if (j->status == NAS_OK) return NAS_OK;
    (void)snprintf(j->message, sizeof j->message, "%s", nas_ctx_message(ctx));
    nas_ctx_clear(ctx);
    return NAS_OK;
}

/* Nothing is timed meanwhile, so that the compilers may have all processors. */
static nas_status prepare_all(nas_ctx *ctx, const collector *c, job *jobs, size_t n) {
    job_list list = {c, jobs};
    return nas_parallel(ctx, nas_cpu_count(), n, prepare, &list);
}

static nas_status time_program(nas_ctx *ctx, collector *c, const nas_graph *graph,
                               const nas_artifact *artifact, double *us) {
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = 5; /* of each pass; the passes are what repeats */
    o.max_repeats = 0;
    o.warmup_ms = 100; /* steadiness comes from the passes, too */
    o.min_time_ms = 60;
    o.max_time_ms = 2000;
    nas_measurement m = {0};
    const nas_status status =
        nas_measure(ctx, c->device, graph, artifact->path, artifact->sha256, &o, &m);
    if (status == NAS_OK) *us = m.p50_us;
    nas_measurement_deinit(&m);
    return status;
}

static nas_status keep(nas_ctx *ctx, collector *c, const job *j, bool is_new) {
    const nas_db_value row = {
        .series_id = c->series.id, .import_id = c->import_id, .arch = j->arch.data, .value = j->us};
    const nas_status status = nas_db_value_put(ctx, c->db, &row, true);
    if (status == NAS_OK && is_new) c->rows++;
    return status;
}

/* A shape the compiler cannot do, or that the device drops, is passed over; many in a row are a failure. */
static bool may_pass(const collector *c, nas_status status) {
    const bool of_the_shape =
        status == NAS_ERR_UNSUPPORTED || status == NAS_ERR_RANGE || status == NAS_ERR_TIMEOUT;
    return of_the_shape && c->failures < FAILURES_MAX;
}

static bool chosen_before(const job *jobs, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(jobs[i].arch.data, jobs[n].arch.data) == 0) return true;
    }
    return false;
}

/* The n-th of a round, another one than those before it. */
static nas_status choose(nas_ctx *ctx, collector *c, job *jobs, size_t n) {
    job *j = &jobs[n];
    const bool at_random = c->model == NULL || c->drawn++ % 2 == 0;
    nas_status status = NAS_OK;
    for (int i = 0; i < TRIES && status == NAS_OK; i++) {
        status = at_random ? draw_new(ctx, c, &j->arch) : choose_active(ctx, c, &j->arch);
        if (status != NAS_OK || !chosen_before(jobs, n)) break;
    }
    const char *arch = j->arch.data;
    j->judged = at_random && c->model != NULL;
    return status == NAS_OK && j->judged ? predict(ctx, c, &arch, 1, &j->expected) : status;
}

static void keep_least(double *least, double us) {
    if (*least <= 0 || us < *least) *least = us;
}

/* What the shape cannot do is passed over, and not tried in the next pass. */
static nas_status time_and_keep(nas_ctx *ctx, collector *c, job *j, bool later) {
    double us = 0;
    nas_status status = j->status == NAS_OK ? time_program(ctx, c, j->graph, &j->artifact, &us)
                                            : nas_fail(ctx, j->status, "%s", j->message);
    c->failures = status == NAS_OK ? 0 : c->failures + 1;
    if (may_pass(c, status)) {
        nas_log(ctx, NAS_LOG_WARN, "collect: %s passed over: %s", j->arch.data,
                nas_ctx_message(ctx));
        nas_ctx_clear(ctx);
        nas_graph_free(j->graph);
        j->graph = NULL;
        return NAS_OK;
    }
    if (status != NAS_OK) return status;
    keep_least(later ? &j->later_us : &j->first_us, us);
    const bool is_new = j->us <= 0;
    if (!is_new && us >= j->us) return NAS_OK;
    j->us = us;
    return keep(ctx, c, j, is_new);
}

/* Whether the machine is as fast as it was at its calmest; the first program timed becomes the reference. */
static nas_status look_at_reference(nas_ctx *ctx, collector *c, job *first, bool *calm) {
    *calm = true;
    if (c->reference == NULL && first->us > 0) {
        c->reference = first->graph;
        c->reference_artifact = first->artifact;
        first->graph = NULL;
        c->calmest_us = first->us;
    }
    if (c->reference == NULL) return NAS_OK;
    double us = 0;
    const nas_status status = time_program(ctx, c, c->reference, &c->reference_artifact, &us);
    if (status != NAS_OK) return nas_wrap(ctx, status, "the reference program");
    if (us < c->calmest_us) c->calmest_us = us;
    *calm = us <= CALM * c->calmest_us;
    return NAS_OK;
}

/* One pass over jobs; what is over time is not timed, but one at least. later: not in their own round. */
static nas_status one_pass(nas_ctx *ctx, collector *c, job *jobs, size_t n, bool later) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        if (jobs[i].graph == NULL && jobs[i].status == NAS_OK)
            continue; /* passed over, or the reference */
        status = time_and_keep(ctx, c, &jobs[i], later);
        if (status == NAS_OK) progress(c, false);
        if (status == NAS_OK) status = nas_check_cancel(ctx);
        if (elapsed_s(c) >= c->args->time_s) break;
    }
    return status;
}

/* The oldest have been timed for the last time: what they showed, and their end. */
static void retire(collector *c, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const job *j = &c->earlier[i];
        if (j->judged && j->us > 0)
            c->errors[c->n_errors++ % WINDOW] = fabs(j->expected.p50_us / (j->us * 1e-3) - 1);
        if (j->first_us > 0 && j->later_us > 0)
            c->repeats[c->n_repeats++ % REPEATS] = fabs(j->later_us / j->first_us - 1);
    }
    jobs_deinit(c->earlier, n);
    c->n_earlier -= n;
    memmove(c->earlier, c->earlier + n, c->n_earlier * sizeof *c->earlier);
}

/* Passes of one round come within half a minute: what slows the machine for that long is outlived by those of the next. */
static nas_status time_round(nas_ctx *ctx, collector *c, job *jobs, size_t n) {
    const bool simulated = nas_device_is_simulated(c->device);
    const int most = simulated ? 1 : PASSES_MAX;
    bool was_calm = false;
    nas_status status = NAS_OK;
    for (int pass = 0; pass < most && status == NAS_OK; pass++) {
        bool calm = true;
        status = one_pass(ctx, c, jobs, n, false);
        if (status == NAS_OK && pass == 0 && !simulated && elapsed_s(c) < c->args->time_s)
            status = one_pass(ctx, c, c->earlier, c->n_earlier, true);
        if (elapsed_s(c) >= c->args->time_s) break;
        if (status == NAS_OK && most > 1) status = look_at_reference(ctx, c, &jobs[0], &calm);
        was_calm = was_calm || calm;
        if (pass + 1 >= PASSES && was_calm) break;
    }
    return status;
}

/* Chosen by one model, compiled together, timed in turn. */
static nas_status one_round(nas_ctx *ctx, collector *c) {
    job jobs[ROUND] = {0};
    size_t n = 0;
    nas_status status = NAS_OK;
    while (n < ROUND && status == NAS_OK)
        status = choose(ctx, c, jobs, n++);
    if (status == NAS_OK) status = prepare_all(ctx, c, jobs, n);
    if (status == NAS_OK) status = nas_check_cancel(ctx);
    if (status == NAS_OK) status = time_round(ctx, c, jobs, n);
    const size_t kept = nas_device_is_simulated(c->device) ? 0 : EARLIER - ROUND;
    if (c->n_earlier > kept) retire(c, c->n_earlier - kept);
    memcpy(c->earlier + c->n_earlier, jobs, n * sizeof *jobs); /* owns them from here */
    c->n_earlier += n;
    if (status == NAS_OK && c->rows >= FIRST_ROWS &&
        (c->model == NULL || c->rows >= c->rows_of_model + REFIT_ROWS + c->rows_of_model / 20))
        status = refit(ctx, c);
    return status;
}

/* ---- the run ---------------------------------------------------------------------------------------------------------------- */

static nas_status find_families(nas_ctx *ctx, collector *c, const char *list) {
    nas_status status = NAS_OK;
    for (const char *at = list; status == NAS_OK; at++) {
        const size_t len = strcspn(at, ",");
        int32_t which = 0;
        status = nas_kernel_family_parse(ctx, at, len, &which);
        for (int32_t i = 0; i < c->n_families && status == NAS_OK; i++) {
            if (c->families[i] == which)
                status =
                    nas_fail(ctx, NAS_ERR_INVALID, "--kernels names '%.*s' twice", (int)len, at);
        }
        if (status == NAS_OK) c->families[c->n_families++] = which;
        at += len;
        if (*at == '\0') break;
    }
    return status;
}

/* Layers of families, or (no family) networks of a space. */
static nas_status find_what(nas_ctx *ctx, collector *c, const nas_latency_args *args) {
    const bool layers = args->space == NULL || strcmp(args->space, "kernel") == 0;
    if (layers)
        return find_families(ctx, c,
                             args->kernels == NULL ? "sr,conv,dwconv,pointwise" : args->kernels);
    if (args->kernels != NULL)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--kernels goes with --space kernel (single layers), not with '%s'",
                        args->space);
    if (strcmp(args->space, "network") == 0)
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "space 'network' holds networks of files, none can be drawn: use kernel or one of %s",
            nas_space_names());
    return NAS_OK;
}

static nas_status open_all(nas_ctx *ctx, collector *c, const char *work_dir) {
    nas_device_options o = nas_device_options_default();
    o.name = c->args->device;
    o.connect = c->args->device;
    o.threads = (int32_t)c->args->threads;
    o.work_dir = work_dir;
    c->compile = nas_compile_options_default();
    c->compile.max_threads = o.threads;
    char source[128];
    (void)snprintf(source, sizeof source, "collect --device %s --threads %d", o.name,
                   (int)o.threads);
    const char *space = c->n_families > 0 ? "kernel" : c->args->space;
    nas_status status = nas_target_find(ctx, "native", &c->compile.target);
    if (status == NAS_OK) status = nas_device_open(ctx, &o, &c->device);
    if (status == NAS_OK) status = nas_encoder_new(ctx, space, &c->encoder);
    if (status == NAS_OK)
        status = nas_db_series_put(ctx, c->db, o.name, space, NAS_DB_LATENCY, &c->series.id);
    if (status == NAS_OK)
        status = nas_db_series_find(ctx, c->db, o.name, space, NAS_DB_LATENCY, &c->series);
    if (status == NAS_OK)
        status = nas_db_import_put(ctx, c->db, source, "collect", "", &c->import_id);
    if (status != NAS_OK) return status;
    c->rows = c->series.n_rows;
    c->rng = nas_rng_stream(c->args->seed, c->rows, "collect"); /* a resumed run draws anew */
    return c->rows >= FIRST_ROWS ? refit(ctx, c) : NAS_OK;
}

/* The kept model and what its honest errors say. */
static nas_status finish(nas_ctx *ctx, collector *c, bool reached) {
    nas_buf quality = {0}, options = {0}, json = {0};
    double error = 0;
    const bool known = median_error(c, &error);
    nas_status status =
        c->rows > c->rows_of_model && c->rows >= FIRST_ROWS ? refit(ctx, c) : NAS_OK;
    const spread errors = errors_of(c), repeats = repeats_of(c);
    nas_json j = nas_json_begin(&quality);
    nas_json_object(&j);
    nas_json_key(&j, "device");
    nas_json_string(&j, c->series.device);
    nas_json_key(&j, "n_train");
    nas_json_int(&j, (int64_t)c->rows);
    nas_json_key(&j, "n_test");
    nas_json_int(&j, (int64_t)errors.n);
    nas_json_key(&j, "n_repeats");
    nas_json_int(&j, (int64_t)repeats.n);
    static const char *const keys[] = {"median_error",   "mape",         "within5",
                                       "within10",       "repeat_error", "repeat_within5",
                                       "repeat_within10"};
    const double values[] = {
        known ? error : NAN, errors.mean,     errors.within5,  errors.within10,
        repeats.median,      repeats.within5, repeats.within10}; /* NaN becomes null */
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        nas_json_key(&j, keys[i]);
        nas_json_double(&j, values[i]);
    }
    nas_json_key(&j, "error_reached");
    nas_json_bool(&j, reached);
    nas_json_object_end(&j);
    nas_buf_printf(&options, "{\"command\":\"collect\",\"seed\":%" PRIu64 "}", c->args->seed);
    if (status == NAS_OK) status = nas_buf_status(ctx, &quality);
    if (status == NAS_OK && c->model != NULL)
        status = nas_latency_model_store(ctx, c->db, &c->series, c->model, &options, quality.data);
    if (status == NAS_OK) status = nas_latency_print(ctx, c->args, &quality);
    nas_buf_deinit(&json);
    nas_buf_deinit(&options);
    nas_buf_deinit(&quality);
    return status;
}

static void say_repeats(const collector *c) {
    const spread s = repeats_of(c);
    if (s.n == 0) return;
    fprintf(
        stderr,
        "collect: %zu of them timed again later differed by %.1f %% (median), %.0f %% of them by "
        "at most 5 %%, %.0f %% by at most 10 %%: a model that errs by as much errs like the "
        "machine\n",
        s.n, 100 * s.median, 100 * s.within5, 100 * s.within10);
}

static nas_status collect(nas_ctx *ctx, collector *c) {
    bool reached = false;
    nas_status status = NAS_OK;
    c->start_ns = nas_now_ns();
    while (status == NAS_OK && !reached && elapsed_s(c) < c->args->time_s) {
        status = one_round(ctx, c);
        double error = 0;
        reached = median_error(c, &error) && error < c->args->target_error;
    }
    retire(c, c->n_earlier);
    progress(c, true);
    say_repeats(c);
    if (status == NAS_OK) return finish(ctx, c, reached);
    return nas_wrap(ctx, status, "collect ended with %zu rows kept", c->rows);
}

nas_status nas_latency_collect(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    char work_dir[] = "/tmp/nas-latency-XXXXXX";
    collector *c = nas_alloc_array(ctx, 1, sizeof *c);
    if (c == NULL) return NAS_ERR_NOMEM;
    c->args = args;
    c->db = db;
    nas_status status = find_what(ctx, c, args);
    const bool made = status == NAS_OK && mkdtemp(work_dir) != NULL;
    if (status == NAS_OK && !made) status = nas_fail(ctx, NAS_ERR_IO, "cannot make %s", work_dir);
    if (status == NAS_OK) status = open_all(ctx, c, work_dir);
    if (status == NAS_OK) status = collect(ctx, c);
    nas_device_close(c->device);
    nas_graph_free(c->reference);
    nas_device_model_free(c->model);
    nas_encoder_free(c->encoder);
    nas_free(c);
    nas_ctx *apart = made ? nas_ctx_child(ctx) : NULL;         /* keeps the message of `ctx` */
    if (apart != NULL) (void)nas_remove_tree(apart, work_dir); /* a left-over is no failure */
    nas_ctx_free(apart);
    return status;
}
