/* nas_compress.c - `nas-compress MODEL.onnx -o DIR`: a trained classifier compressed without training it again. What becomes of
 * the accuracy goes to stdout, everything else to stderr. */
#include "search/oneshot_args.h"
#include "search/oneshot_choose.h"
#include "search/oneshot_codes.h"
#include "search/oneshot_gains.h"
#include "search/oneshot_tune.h"
#include "search/progress.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { LEVELS_MAX = 256 };

static volatile sig_atomic_t interrupted;

/* The first signal asks for a clean stop; a second one ends the program the default way. */
static void on_signal(int number) {
    interrupted = 1;
    (void)signal(number, SIG_DFL);
}

/* ---- what is asked for ------------------------------------------------------------------------------------------------------ */

/* Every rate with every number of bits; 0 of them: as it is. */
static nas_status list_levels(nas_ctx *ctx, const nas__oneshot_args *cl, nas_layer_scheme *levels,
                              size_t *n) {
    nas_layer_scheme s = nas_layer_scheme_default();
    s.grid = cl->grid;
    s.per_tensor = cl->per_tensor;
    nas_status status = NAS_OK;
    if (cl->pattern != NULL) status = nas_oneshot_pattern(ctx, cl->pattern, &s.sparsity);
    const size_t rates = cl->n_rates > 0 ? cl->n_rates : 1, bits = cl->n_bits > 0 ? cl->n_bits : 1;
    if (rates * bits > LEVELS_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "%zu rates times %zu bits: at most %d levels", rates,
                        bits, LEVELS_MAX);
    *n = 0;
    for (size_t r = 0; status == NAS_OK && r < rates; r++) {
        /* of patterns without a rate, rate 0 stands for the dense layer */
        const bool rated = nas_oneshot_pattern_has_rate(s.sparsity.pattern);
        s.is_sparse = cl->pattern != NULL && (cl->n_rates == 0 || cl->rates[r] > 0);
        s.sparsity.rate = rated && cl->n_rates > 0 ? cl->rates[r] : 0;
        for (size_t b = 0; b < bits; b++) {
            s.bits = cl->n_bits > 0 && cl->bits[b] <= 8 ? (int32_t)cl->bits[b] : 0;
            levels[(*n)++] = s;
        }
    }
    return status;
}

static bool is_listed(const char *list, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = list; at != NULL && *at != '\0';) {
        const size_t n = strcspn(at, ",");
        if (n == length && memcmp(at, name, n) == 0) return true;
        at += n + (at[n] == ',');
    }
    return false;
}

/* keep[i]: --skip names layer i; what it names has to be there. */
static nas_status list_kept(nas_ctx *ctx, const nas__oneshot_args *cl, const nas_oneshot *o,
                            bool *keep) {
    size_t wanted = 0, found = 0;
    for (const char *at = cl->skip; at != NULL && *at != '\0'; at += strcspn(at, ",") + 1) {
        wanted++;
        if (at[strcspn(at, ",")] == '\0') break;
    }
    for (size_t i = 0; i < o->n_layers; i++) {
        const char *name = nas_graph_node(o->model, o->layers[i])->name;
        const bool first = i == 0 && is_listed(cl->skip, "first"),
                   last = i + 1 == o->n_layers && is_listed(cl->skip, "last"),
                   named = is_listed(cl->skip, name);
        keep[i] = first || last || named;
        found += (size_t)first + (size_t)last + (size_t)named;
    }
    if (found == wanted) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_NOTFOUND,
                    "--skip %s: not all of them are convolutions of the model; the first is "
                    "'%s' (first and last are names too)",
                    cl->skip, nas_graph_node(o->model, o->layers[0])->name);
}

/* "bytes=50%" -> the limit in that unit. */
static nas_status read_budget(nas_ctx *ctx, const nas__oneshot_args *cl, nas_oneshot_cost *cost,
                              double *limit, bool *percent) {
    char what[16], number[32];
    const size_t length = strcspn(cl->budget, "=");
    const char *value = cl->budget + length + (cl->budget[length] == '=');
    const size_t n = strlen(value);
    if (length >= sizeof what || n == 0 || n >= sizeof number)
        return nas_fail(ctx, NAS_ERR_INVALID, "--budget wants e.g. bytes=50%%, not '%s'",
                        cl->budget);
    memcpy(what, cl->budget, length);
    what[length] = '\0';
    memcpy(number, value, n + 1);
    *percent = number[n - 1] == '%';
    if (*percent) number[n - 1] = '\0';
    *cost = nas_oneshot_cost_find(what);
    if (*cost == NAS_ONESHOT_COST_COUNT)
        return nas_fail(ctx, NAS_ERR_INVALID, "--budget counts bytes, macs, bops or time, not '%s'",
                        what);
    return nas_parse_double(ctx, "--budget", number, 0, 1e18, limit);
}

/* ---- the work ---------------------------------------------------------------------------------------------------------------- */

typedef struct job {
    const nas__oneshot_args *cl;
    nas_oneshot o;
    nas_layer_scheme levels[LEVELS_MAX];
    size_t n_levels;
    bool *keep;
    nas_layer_scheme *offered; /* [n_levels][n_layers] */
    nas_layer_scheme *schemes;
    nas_layer_result *results;
    int32_t *input_bits; /* with --act-bits */
    nas_graph *graph;
    nas_oneshot_times times; /* with --gains */
} job;

/* Which level means what for which layer: --skip, then what the device gains nothing by. */
static nas_status offer_levels(nas_ctx *ctx, job *j) {
    const nas_oneshot *o = &j->o;
    for (size_t k = 0; k < j->n_levels; k++) {
        for (size_t i = 0; i < o->n_layers; i++)
            j->offered[k * o->n_layers + i] =
                j->keep[i] ? nas_layer_scheme_default() : j->levels[k];
    }
    if (j->cl->gains == NULL) return NAS_OK;
    nas_oneshot_gains gains;
    nas_layer_scheme form = j->levels[0];
    for (size_t k = 0; k < j->n_levels && !form.is_sparse; k++)
        form = j->levels[k];
    nas_status status = nas_oneshot_times_open(ctx, j->cl->gains, j->cl->device, &form.sparsity,
                                               j->cl->act_bits > 0, &j->times);
    if (status == NAS_OK)
        status = nas_oneshot_gains_drop(ctx, o, &j->times, j->offered, j->n_levels, &gains);
    if (status != NAS_OK) return status;
    j->o.times = &j->times;
    for (const char *at = gains.dropped.data; at != NULL && *at != '\0';) {
        const int length = (int)strcspn(at, "\n");
        printf("stays dense     %.*s\n", length, at);
        at += length + (at[length] == '\n');
    }
    if (gains.unmeasured > 0)
        printf("not measured    %zu of %zu (layer, level) pairs; they are taken as they come\n",
               gains.unmeasured, gains.asked);
    nas_oneshot_gains_deinit(&gains);
    return NAS_OK;
}

/* What a layer of integer weights reads has integers, too. */
static nas_status count_inputs(nas_ctx *ctx, job *j) {
    nas_oneshot *o = &j->o;
    bool *integers = nas_alloc_array(ctx, o->n_layers, sizeof *integers);
    j->input_bits = nas_alloc_array(ctx, o->n_layers, sizeof *j->input_bits);
    nas_status status = integers == NULL || j->input_bits == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; status == NAS_OK && i < j->n_levels * o->n_layers; i++)
        integers[i % o->n_layers] = integers[i % o->n_layers] || j->offered[i].bits > 0;
    if (status == NAS_OK)
        status = nas_oneshot_codes_inputs(ctx, o, integers, j->cl->act_bits, j->input_bits);
    o->input_bits = j->input_bits;
    nas_free(integers);
    return status;
}

static const char *unit_of(nas_oneshot_cost cost) {
    return cost == NAS_ONESHOT_TIME ? "us measured" : nas_oneshot_cost_name(cost);
}

/* What the networks within the budget are, and which one stands. */
static void say_choice(const nas_oneshot_choice *choice, nas_oneshot_cost cost, double limit,
                       double whole) {
    const int digits = cost == NAS_ONESHOT_TIME ? 1 : 0;
    for (int i = 0; i < NAS_ONESHOT_WAY_COUNT; i++) {
        const nas_oneshot_candidate *k = &choice->candidates[i];
        if (!k->is_set) continue;
        printf("%-15s %.*f %s, diverges by %.4f", nas_oneshot_way_name((nas_oneshot_way)i), digits,
               k->total.cost, unit_of(cost), k->divergence);
        if (k->has_turn) printf(", finished by %.4f", k->turn_divergence);
        if (i == NAS_ONESHOT_SOLVED)
            printf("; %s",
                   k->total.exact ? "the least sum there is" : "not proved to be the least");
        printf("\n");
    }
    const nas_oneshot_candidate *best = &choice->candidates[choice->best];
    if (best->turn_misses)
        printf("calibration     on the dense network: in turn, fewer weights round to zero and it "
               "takes more than the limit\n");
    printf("budget          %.*f of %.*f %s (%.1f %% of the float network's): %s\n", digits,
           best->turn_cost, digits, limit, unit_of(cost), 100 * best->turn_cost / whole,
           nas_oneshot_way_name(choice->best));
}

/* The network that was chosen becomes the job's. */
static void take_choice(job *j, nas_oneshot_choice *choice) {
    nas_oneshot_candidate *best = &choice->candidates[choice->best];
    for (size_t i = 0; i < j->o.n_layers; i++) {
        j->schemes[i] = j->offered[(size_t)best->choice[i] * j->o.n_layers + i];
        j->results[i] = best->results[i];
    }
    j->graph = best->graph;
    best->graph = NULL;
}

/* A budget of time counts the layers that were measured; says how many were not. */
static nas_status say_untimed(nas_ctx *ctx, const job *j) {
    const nas_layer_scheme dense = nas_layer_scheme_default();
    size_t untimed = 0;
    for (size_t i = 0; i < j->o.n_layers; i++) {
        nas_opt_double us = {0};
        const nas_status status = nas_oneshot_time_us(ctx, &j->o, &j->times, i, &dense, &us);
        if (status != NAS_OK) return status;
        untimed += !us.is_set;
    }
    if (untimed == j->o.n_layers)
        return nas_fail(ctx, NAS_ERR_NOTFOUND,
                        "%s has no time of any layer with this pattern: nas-compile --break-even "
                        "--layers MODEL.onnx --patterns ... --db %s measures them",
                        j->cl->gains, j->cl->gains);
    if (untimed > 0)
        printf("not timed       %zu of %zu layers: they count as no time, and stay dense\n",
               untimed, j->o.n_layers);
    return NAS_OK;
}

static nas_status by_budget(nas_ctx *ctx, job *j) {
    nas_oneshot *o = &j->o;
    nas_oneshot_choose_options options = nas_oneshot_choose_options_default();
    nas_oneshot_table t = {0};
    nas_oneshot_choice choice = {0};
    nas_oneshot_cost cost = NAS_ONESHOT_BYTES;
    double whole = 0;
    bool percent = false;
    nas_status status = read_budget(ctx, j->cl, &cost, &options.limit, &percent);
    options.rounds = j->cl->moves;
    options.sequential = j->cl->sequential;
    options.layer = j->cl->layer;
    if (status == NAS_OK && cost == NAS_ONESHOT_TIME) status = say_untimed(ctx, j);
    if (status == NAS_OK)
        status = nas_oneshot_table_make(ctx, o, j->offered, j->n_levels, &j->cl->layer, cost,
                                        j->cl->sensitivity, &t);
    for (size_t i = 0; status == NAS_OK && i < o->n_layers; i++)
        whole += t.dense[i];
    if (percent) options.limit *= whole / 100;
    if (status == NAS_OK) status = nas_oneshot_choose(ctx, o, &t, &options, &choice);
    if (status == NAS_OK) {
        say_choice(&choice, cost, options.limit, whole);
        take_choice(j, &choice);
    }
    nas_oneshot_choice_deinit(&choice);
    nas_oneshot_table_deinit(&t);
    return nas_wrap(ctx, status, "budget %s", j->cl->budget);
}

/* One level for all layers. */
static nas_status uniformly(nas_ctx *ctx, job *j) {
    nas_oneshot *o = &j->o;
    memcpy(j->schemes, j->offered, o->n_layers * sizeof *j->schemes);
    return j->cl->sequential
               ? nas_oneshot_apply_sequential(ctx, o, j->schemes, &j->cl->layer, j->results,
                                              &j->graph)
               : nas_oneshot_apply(ctx, o, j->schemes, &j->cl->layer, j->results, &j->graph);
}

/* Share of right answers on REWARD images as the network stands. */
static nas_status score_now(nas_ctx *ctx, const job *j, const nas_oneshot_codes *codes,
                            double *top1) {
    nas_oneshot_score score = {0};
    nas_graph *coded = NULL;
    nas_status status =
        codes->n == 0 ? NAS_OK : nas_oneshot_codes_apply(ctx, j->graph, codes, &coded);
    if (status == NAS_OK)
        status = nas_oneshot_evaluate(ctx, &j->o, coded != NULL ? coded : j->graph,
                                      NAS_CLASS_REWARD, &score);
    nas_graph_free(coded);
    *top1 = score.top1;
    return status;
}

static nas_status tune(nas_ctx *ctx, job *j, nas_oneshot_codes *codes) {
    double before = 0, after = 0;
    nas_status status = score_now(ctx, j, codes, &before);
    if (status == NAS_OK)
        status = nas_oneshot_tune(ctx, &j->o, j->graph, j->schemes, j->cl->tune_steps,
                                  j->cl->tune_rate, codes, j->results);
    if (status == NAS_OK) status = score_now(ctx, j, codes, &after);
    if (status == NAS_OK)
        printf("tuned           %d steps, top-1 of reward images %.2f %% before, %.2f %% after\n",
               (int)j->cl->tune_steps, 100 * before, 100 * after);
    return status;
}

/* Grids of activations, training; with grids the network is one of integers from here on. */
static nas_status finish(nas_ctx *ctx, job *j) {
    nas_oneshot_codes codes = {0};
    nas_graph *coded = NULL;
    size_t clipped = 0;
    nas_status status = NAS_OK;
    if (j->cl->act_bits > 0)
        status = nas_oneshot_codes_find(ctx, &j->o, j->graph, j->cl->act_bits, &codes);
    if (status == NAS_OK && j->cl->tune_steps > 0) status = tune(ctx, j, &codes);
    if (status == NAS_OK && codes.n > 0) {
        status = nas_oneshot_codes_apply(ctx, j->graph, &codes, &coded);
        for (size_t i = 0; i < codes.n; i++)
            clipped += codes.list[i].bits < 8;
        printf("activations     %zu values of integers", codes.n);
        if (clipped > 0) printf(", %zu of them in %d bits", clipped, (int)j->cl->act_bits);
        printf("\n");
    }
    if (coded != NULL) {
        nas_graph_free(j->graph);
        j->graph = coded;
    }
    nas_oneshot_codes_deinit(&codes);
    return status;
}

static void say_written(const job *j) {
    char path[1024];
    const char *uneven = nas_oneshot_uneven(&j->o, j->schemes);
    (void)snprintf(path, sizeof path, "%s/model_qdq.onnx", j->cl->out);
    if (uneven != NULL)
        printf("no QDQ file     weights of layer '%s' lie on a grid of kind %s; model_qdq.onnx has "
               "symmetric ones: --grid symmetric\n",
               uneven, nas_grid_kind_name(j->cl->grid));
    printf("written         %s/model.onnx, recipe.json, layers.csv%s\n", j->cl->out,
           nas_file_exists(path) ? ", model_qdq.onnx" : "");
}

static nas_status run_job(nas_ctx *ctx, job *j) {
    nas_oneshot *o = &j->o;
    const nas__oneshot_args *cl = j->cl;
    nas_buf facts = {0};
    j->keep = nas_alloc_array(ctx, o->n_layers, sizeof *j->keep);
    j->offered = nas_alloc_array(ctx, j->n_levels * o->n_layers, sizeof *j->offered);
    j->schemes = nas_alloc_array(ctx, o->n_layers, sizeof *j->schemes);
    j->results = nas_alloc_array(ctx, o->n_layers, sizeof *j->results);
    nas_status status =
        j->keep == NULL || j->offered == NULL || j->schemes == NULL || j->results == NULL
            ? NAS_ERR_NOMEM
            : NAS_OK;
    if (status == NAS_OK) status = list_kept(ctx, cl, o, j->keep);
    if (status == NAS_OK) status = offer_levels(ctx, j);
    if (status == NAS_OK && cl->act_bits > 0) status = count_inputs(ctx, j);
    if (status == NAS_OK) status = nas_oneshot_calibrate(ctx, o, cl->oneshot.seed);
    if (status == NAS_OK) status = cl->budget != NULL ? by_budget(ctx, j) : uniformly(ctx, j);
    if (status == NAS_OK) status = finish(ctx, j);
    if (status == NAS_OK)
        status = nas_oneshot_report(ctx, o, j->graph, j->schemes, j->results, &facts);
    if (status == NAS_OK)
        status = nas_oneshot_write(ctx, o, j->graph, j->schemes, j->results, facts.data, cl->out);
    if (status == NAS_OK) say_written(j);
    if (j->times.db != NULL) {
        const nas_status closed = nas_oneshot_times_close(ctx, &j->times);
        if (status == NAS_OK) status = closed;
    }
    nas_buf_deinit(&facts);
    nas_graph_free(j->graph);
    nas_free(j->keep);
    nas_free(j->offered);
    nas_free(j->schemes);
    nas_free(j->results);
    nas_free(j->input_bits);
    return status;
}

static void note(void *arg, const char *phase, double done, double planned) {
    nas__progress *p = arg;
    if (strncmp(p->phase, phase, sizeof p->phase - 1) != 0 || done <= 0)
        nas__progress_phase(p, phase, done, planned);
    nas__progress_update(p, done, "%s", "");
    if (done >= planned) nas__progress_end(p);
}

static nas_status run(nas_ctx *ctx, const nas__oneshot_args *cl) {
    nas__progress progress;
    nas__progress_init(&progress, cl->quiet);
    nas_ctx_set_log(ctx, nas__progress_log, &progress, NAS_LOG_INFO);
    job *j = nas_alloc_array(ctx, 1, sizeof *j);
    if (j == NULL) return NAS_ERR_NOMEM;
    j->cl = cl;
    nas_status status = list_levels(ctx, cl, j->levels, &j->n_levels);
    if (status == NAS_OK) status = nas_oneshot_open(ctx, &cl->oneshot, note, &progress, &j->o);
    if (status == NAS_OK) {
        status = run_job(ctx, j);
        nas_oneshot_close(&j->o);
    }
    nas_free(j);
    return status;
}

int main(int argc, char **argv) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    nas__oneshot_args cl = nas__oneshot_args_default();
    nas_ctx_set_cancel(ctx, &interrupted);
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    nas_status status = nas__oneshot_parse(ctx, argc, argv, &cl);
    int code = NAS_EXIT_OK;
    if (status != NAS_OK) {
        fprintf(stderr, "error: %s (see nas-compress --help)\n", nas_ctx_message(ctx));
        code = NAS_EXIT_USAGE;
    } else if (!cl.done) {
        status = run(ctx, &cl);
        if (status != NAS_OK) fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
        code = nas_exit_code(status);
    }
    nas_ctx_free(ctx);
    return code;
}
