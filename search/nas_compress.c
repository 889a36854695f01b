/* nas_compress.c - `nas-compress MODEL.onnx -o DIR`: a trained classifier compressed without training it again. What becomes of
 * the accuracy goes to stdout, everything else to stderr. */
#include "search/oneshot.h"
#include "search/oneshot_budget.h"
#include "search/oneshot_gains.h"
#include "search/progress.h"

#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
    "usage: nas-compress [MODEL.onnx] -o DIR [what] [options]\n"
    "\n"
    "Compresses a trained classifier in one shot, without training it again: weights are left out "
    "or rounded in the\n"
    "order of the damage they do, and the others make up for it. Writes DIR/model.onnx, "
    "DIR/recipe.json (for\n"
    "nas-compile) and DIR/layers.csv. Without MODEL a small network is trained on built-in "
    "digits first.\n"
    "\n"
    "what\n"
    "  --pattern NAME       2:4, 2:4x8 (shared by 8 outputs), 1x4, 1x4r (filters rearranged), "
    "block4x4, punched8x4,\n"
    "                       filter, channel, pattern, periodic, unstructured\n"
    "  --rate LIST          shares of the pattern's groups that go, e.g. 0.5; several with "
    "--budget\n"
    "  --bits LIST          bits of weights, 2 to 8 or 32; several with --budget, e.g. 2,3,4,8\n"
    "  --budget WHAT=LIMIT  choose a rate and bits for each layer: bytes=50%, bytes=60000, "
    "macs=40%, bops=10%;\n"
    "                       % of the float network's convolutions\n"
    "  --grid NAME          symmetric (default; what integer kernels take), affine, power\n"
    "  --per-tensor         one grid a layer, not one an output channel\n"
    "  --gains FILE         table of nas-compile --break-even --db FILE: a pattern by which a "
    "layer "
    "gets no faster is\n"
    "                       left out there; --device NAME when FILE has several\n"
    "  --skip LIST          layers that stay as they are, by name; first and last are names too\n"
    "data\n"
    "  --data KIND:PATH     what it was trained on: cifar10:FILE, idx:IMAGES:LABELS, "
    "folder:DIR, raw:X:Y, or glyphs\n"
    "  --report PATH        images for the final figures, of the same kind (default: a part of "
    "--data)\n"
    "  --mean LIST, --deviation LIST   of each channel, as the network was trained\n"
    "  --images N           to calibrate with (default 512), --places N of each (default 64)\n"
    "  --reward N           to measure sensitivities with (default 1000), --report-images N "
    "(default 1000)\n"
    "  --train-steps N, --side N, --glyphs N   of the built-in network and its images (450, 24, "
    "8000)\n"
    "how\n"
    "  --method obs|magnitude  second order (default), or the smallest weights and nearest "
    "rounding\n"
    "  --calibrate sequential|dense  each layer against what the compressed ones before it give "
    "(default), or all\n"
    "                       against the dense network: quicker\n"
    "  --solver auto|exact|blocked  exact row by row, or one order for all rows; auto by cost\n"
    "  --damp X             added to the second moments, of their mean (default 0.001)\n"
    "  --sensitivity scaled|measured|error  of --budget: by one evaluation a layer, one a level, "
    "or output errors\n"
    "  --threads N          default 2, --seed N  default 1, -q, --quiet  no progress\n"
    "  -h, --help           this text, --version\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 usage error, 130 interrupted.\n"
    "\n"
    "examples:\n"
    "  nas-compress -o out --pattern 1x4 --rate 0.5 --bits 8\n"
    "  nas-compress resnet20.onnx -o out --bits 2,3,4,5,6,8 --budget bytes=12% --data "
    "cifar10:train_1.bin \\\n"
    "      --report test_dev.bin --mean 0.485,0.456,0.406 --deviation 0.229,0.224,0.225\n"
    "  nas-compile out/model.onnx --recipe out/recipe.json -o app\n";

enum { LIST_MAX = 32, SKIP_MAX = 256, LEVELS_MAX = 256 };

static volatile sig_atomic_t interrupted;

/* The first signal asks for a clean stop; a second one ends the program the default way. */
static void on_signal(int number) {
    interrupted = 1;
    (void)signal(number, SIG_DFL);
}

typedef struct command_line {
    nas_oneshot_options oneshot;
    nas_layer_options layer;
    const char *out, *pattern, *budget, *skip, *gains, *device;
    char kind[16];
    double rates[LIST_MAX], bits[LIST_MAX];
    size_t n_rates, n_bits;
    nas_grid_kind grid;
    nas_oneshot_sensitivity sensitivity;
    bool per_tensor, quiet, done;
    bool sequential, has_calibrate, has_sensitivity, has_solver, is_magnitude;
} command_line;

/* ---- arguments ------------------------------------------------------------------------------------------------------------ */

enum {
    OPT_PATTERN = 256,
    OPT_RATE,
    OPT_BITS,
    OPT_BUDGET,
    OPT_GRID,
    OPT_PER_TENSOR,
    OPT_SKIP,
    OPT_DATA,
    OPT_REPORT,
    OPT_MEAN,
    OPT_DEVIATION,
    OPT_IMAGES,
    OPT_PLACES,
    OPT_REWARD,
    OPT_REPORT_IMAGES,
    OPT_METHOD,
    OPT_SOLVER,
    OPT_DAMP,
    OPT_SENSITIVITY,
    OPT_THREADS,
    OPT_SEED,
    OPT_TRAIN_STEPS,
    OPT_SIDE,
    OPT_GLYPHS,
    OPT_CALIBRATE,
    OPT_GAINS,
    OPT_DEVICE,
    OPT_VERSION
};

static nas_status read_list(nas_ctx *ctx, const char *what, const char *text, double lo, double hi,
                            double *out, size_t most, size_t *n) {
    *n = 0;
    while (true) {
        char item[32];
        const size_t length = strcspn(text, ",");
        if (length == 0 || length >= sizeof item || *n == most)
            return nas_fail(ctx, NAS_ERR_PARSE, "%s: 1 to %zu numbers with commas between", what,
                            most);
        memcpy(item, text, length);
        item[length] = '\0';
        const nas_status status = nas_parse_double(ctx, what, item, lo, hi, &out[*n]);
        if (status != NAS_OK) return status;
        (*n)++;
        if (text[length] == '\0') return NAS_OK;
        text += length + 1;
    }
}

static nas_status read_count(nas_ctx *ctx, const char *what, const char *text, int64_t most,
                             int32_t *out) {
    int64_t value = 0;
    const nas_status status = nas_parse_i64(ctx, what, text, 1, most, &value);
    if (status == NAS_OK) *out = (int32_t)value;
    return status;
}

static nas_status read_channels(nas_ctx *ctx, const char *what, const char *text, float *out) {
    double list[NAS_CLASS_CHANNELS_MAX];
    size_t n = 0;
    const nas_status status =
        read_list(ctx, what, text, -1e6, 1e6, list, NAS_CLASS_CHANNELS_MAX, &n);
    for (size_t i = 0; status == NAS_OK && i < NAS_CLASS_CHANNELS_MAX; i++)
        out[i] = (float)list[i < n ? i : n - 1];
    return status;
}

static nas_status read_data(nas_ctx *ctx, command_line *cl, const char *text) {
    const size_t length = strcspn(text, ":");
    if (length >= sizeof cl->kind)
        return nas_fail(ctx, NAS_ERR_INVALID, "--data wants KIND:PATH, not '%s'", text);
    memcpy(cl->kind, text, length);
    cl->kind[length] = '\0';
    cl->oneshot.data.kind = cl->kind;
    cl->oneshot.data.path = text[length] == ':' ? text + length + 1 : NULL;
    return NAS_OK;
}

static nas_status bad_choice(nas_ctx *ctx, const char *option, const char *choices) {
    return nas_fail(ctx, NAS_ERR_INVALID, "%s wants %s, not '%s'", option, choices, optarg);
}

static nas_status read_solver(nas_ctx *ctx, command_line *cl) {
    for (int s = 0; s < NAS_SOLVER_MAGNITUDE; s++) {
        if (strcmp(optarg, nas_layer_solver_name((nas_layer_solver)s)) != 0) continue;
        cl->layer.solver = (nas_layer_solver)s;
        cl->has_solver = true;
        return NAS_OK;
    }
    return bad_choice(ctx, "--solver", "auto, exact or blocked");
}

static nas_status read_method(nas_ctx *ctx, command_line *cl) {
    cl->is_magnitude = strcmp(optarg, "magnitude") == 0;
    if (cl->is_magnitude || strcmp(optarg, "obs") == 0) return NAS_OK;
    return bad_choice(ctx, "--method", "obs or magnitude");
}

static nas_status read_calibrate(nas_ctx *ctx, command_line *cl) {
    cl->sequential = strcmp(optarg, "sequential") == 0;
    cl->has_calibrate = true;
    if (cl->sequential || strcmp(optarg, "dense") == 0) return NAS_OK;
    return bad_choice(ctx, "--calibrate", "sequential or dense");
}

static nas_status parse_option(nas_ctx *ctx, command_line *cl, int option) {
    nas_oneshot_options *p = &cl->oneshot;
    int64_t seed = 0;
    nas_status status = NAS_OK;
    switch (option) {
    case 'o': cl->out = optarg; break;
    case 'q': cl->quiet = true; break;
    case OPT_PATTERN: cl->pattern = optarg; break;
    case OPT_BUDGET: cl->budget = optarg; break;
    case OPT_SKIP: cl->skip = optarg; break;
    case OPT_PER_TENSOR: cl->per_tensor = true; break;
    case OPT_RATE: return read_list(ctx, "--rate", optarg, 0, 1, cl->rates, LIST_MAX, &cl->n_rates);
    case OPT_BITS: return read_list(ctx, "--bits", optarg, 2, 32, cl->bits, LIST_MAX, &cl->n_bits);
    case OPT_GRID:
        cl->grid = nas_grid_kind_find(optarg);
        if (cl->grid == NAS_GRID_KIND_COUNT)
            return bad_choice(ctx, "--grid", "symmetric, affine or power");
        break;
    case OPT_DATA: return read_data(ctx, cl, optarg);
    case OPT_REPORT: p->data.report_path = optarg; break;
    case OPT_MEAN: return read_channels(ctx, "--mean", optarg, p->data.mean);
    case OPT_DEVIATION: return read_channels(ctx, "--deviation", optarg, p->data.deviation);
    case OPT_IMAGES: return read_count(ctx, "--images", optarg, 1000000, &p->calibration_images);
    case OPT_PLACES: return read_count(ctx, "--places", optarg, 100000, &p->positions);
    case OPT_REWARD: return read_count(ctx, "--reward", optarg, 1000000, &p->data.reward_max);
    case OPT_REPORT_IMAGES:
        return read_count(ctx, "--report-images", optarg, 1000000, &p->data.report_max);
    case OPT_METHOD: return read_method(ctx, cl);
    case OPT_SOLVER: return read_solver(ctx, cl);
    case OPT_DAMP: return nas_parse_double(ctx, "--damp", optarg, 1e-9, 10, &cl->layer.damp);
    case OPT_CALIBRATE: return read_calibrate(ctx, cl);
    case OPT_GAINS: cl->gains = optarg; break;
    case OPT_DEVICE: cl->device = optarg; break;
    case OPT_SENSITIVITY:
        cl->has_sensitivity = true;
        cl->sensitivity = nas_oneshot_sensitivity_find(optarg);
        if (cl->sensitivity == NAS_ONESHOT_SENSITIVITY_COUNT)
            return bad_choice(ctx, "--sensitivity", "scaled, measured or error");
        break;
    case OPT_THREADS: return read_count(ctx, "--threads", optarg, 64, &p->threads);
    case OPT_TRAIN_STEPS: return read_count(ctx, "--train-steps", optarg, 1000000, &p->train_steps);
    case OPT_SIDE: return read_count(ctx, "--side", optarg, 64, &p->side);
    case OPT_GLYPHS: return read_count(ctx, "--glyphs", optarg, 1000000, &p->data.glyphs);
    case OPT_SEED:
        status = nas_parse_i64(ctx, "--seed", optarg, 0, INT64_MAX, &seed);
        p->seed = p->data.seed = (uint64_t)seed;
        return status;
    case OPT_VERSION:
        printf("nas-compress %s\n", NAS_VERSION);
        cl->done = true;
        break;
    case 'h':
        fputs(help_text, stdout);
        cl->done = true;
        break;
    default: return nas_fail(ctx, NAS_ERR_INVALID, "bad option"); /* getopt has named it */
    }
    return NAS_OK;
}

/* What options say nothing together; --method magnitude has no second order to steer. */
static nas_status check_method(nas_ctx *ctx, command_line *cl) {
    if (cl->has_sensitivity && cl->budget == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "--sensitivity weighs the levels of a --budget");
    if (cl->gains != NULL && cl->pattern == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "--gains is about patterns: say --pattern");
    if (cl->device != NULL && cl->gains == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "--device names a device of --gains FILE");
    if (!cl->is_magnitude) return NAS_OK;
    if (cl->has_solver)
        return nas_fail(ctx, NAS_ERR_INVALID, "--solver is a way of --method obs, not magnitude");
    if (cl->has_calibrate && cl->sequential)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--calibrate sequential needs --method obs: magnitudes see no inputs");
    if (cl->has_sensitivity && cl->sensitivity == NAS_ONESHOT_SCALED)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--sensitivity scaled needs --method obs: losses of plain rounding do not "
                        "grow with the output error; measured (the default with magnitude) or "
                        "error do");
    cl->layer.solver = NAS_SOLVER_MAGNITUDE;
    cl->sequential = false;
    if (!cl->has_sensitivity) cl->sensitivity = NAS_ONESHOT_MEASURED;
    return NAS_OK;
}

static nas_status check_arguments(nas_ctx *ctx, command_line *cl) {
    nas_sparsity s;
    if (cl->out == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "-o DIR is missing");
    if (cl->pattern == NULL && cl->n_bits == 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "say what to do: --pattern, --bits, or both");
    for (size_t i = 0; i < cl->n_bits; i++) {
        if (cl->bits[i] != floor(cl->bits[i]) || (cl->bits[i] > 8 && cl->bits[i] != 32))
            return nas_fail(ctx, NAS_ERR_INVALID, "--bits %g: 2 to 8, or 32 for floats",
                            cl->bits[i]);
    }
    if (cl->budget == NULL && (cl->n_bits > 1 || cl->n_rates > 1))
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "several --bits or --rate values are levels to choose from: say --budget");
    const nas_status checked = check_method(ctx, cl);
    if (checked != NAS_OK) return checked;
    if (cl->pattern == NULL) {
        if (cl->n_rates == 0) return NAS_OK;
        return nas_fail(ctx, NAS_ERR_INVALID, "--rate needs a --pattern");
    }
    const nas_status status = nas_oneshot_pattern(ctx, cl->pattern, &s);
    if (status != NAS_OK) return status;
    const bool rated = nas_oneshot_pattern_has_rate(s.pattern);
    if (rated && cl->n_rates == 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "pattern '%s' needs a --rate", cl->pattern);
    if (!rated && cl->n_rates > 0 && cl->budget == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "pattern '%s' has no --rate: its numbers say how much stays", cl->pattern);
    return NAS_OK;
}

static nas_status parse_command_line(nas_ctx *ctx, int argc, char **argv, command_line *cl) {
    static const struct option options[] = {
        {"pattern", required_argument, NULL, OPT_PATTERN},
        {"rate", required_argument, NULL, OPT_RATE},
        {"bits", required_argument, NULL, OPT_BITS},
        {"budget", required_argument, NULL, OPT_BUDGET},
        {"grid", required_argument, NULL, OPT_GRID},
        {"per-tensor", no_argument, NULL, OPT_PER_TENSOR},
        {"skip", required_argument, NULL, OPT_SKIP},
        {"data", required_argument, NULL, OPT_DATA},
        {"report", required_argument, NULL, OPT_REPORT},
        {"mean", required_argument, NULL, OPT_MEAN},
        {"deviation", required_argument, NULL, OPT_DEVIATION},
        {"images", required_argument, NULL, OPT_IMAGES},
        {"places", required_argument, NULL, OPT_PLACES},
        {"reward", required_argument, NULL, OPT_REWARD},
        {"report-images", required_argument, NULL, OPT_REPORT_IMAGES},
        {"method", required_argument, NULL, OPT_METHOD},
        {"solver", required_argument, NULL, OPT_SOLVER},
        {"damp", required_argument, NULL, OPT_DAMP},
        {"calibrate", required_argument, NULL, OPT_CALIBRATE},
        {"gains", required_argument, NULL, OPT_GAINS},
        {"device", required_argument, NULL, OPT_DEVICE},
        {"sensitivity", required_argument, NULL, OPT_SENSITIVITY},
        {"threads", required_argument, NULL, OPT_THREADS},
        {"seed", required_argument, NULL, OPT_SEED},
        {"train-steps", required_argument, NULL, OPT_TRAIN_STEPS},
        {"side", required_argument, NULL, OPT_SIDE},
        {"glyphs", required_argument, NULL, OPT_GLYPHS},
        {"output", required_argument, NULL, 'o'},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPT_VERSION},
        {NULL, 0, NULL, 0}};
    int option = 0;
    while ((option = getopt_long(argc, argv, "o:qh", options, NULL)) != -1) {
        const nas_status status = parse_option(ctx, cl, option);
        if (status != NAS_OK || cl->done) return status;
    }
    if (optind < argc) cl->oneshot.onnx = argv[optind];
    if (optind + 1 < argc)
        return nas_fail(ctx, NAS_ERR_INVALID, "unexpected argument '%s'", argv[optind + 1]);
    if (cl->oneshot.onnx != NULL && strcmp(cl->oneshot.data.kind, "glyphs") == 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "which images was %s trained on? --data KIND:PATH",
                        cl->oneshot.onnx);
    cl->layer.threads = cl->oneshot.threads;
    return check_arguments(ctx, cl);
}

/* ---- what is asked for ------------------------------------------------------------------------------------------------------ */

/* Every rate with every number of bits; 0 of them: as it is. */
static nas_status list_levels(nas_ctx *ctx, const command_line *cl, nas_layer_scheme *levels,
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
static nas_status list_kept(nas_ctx *ctx, const command_line *cl, const nas_oneshot *o,
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
static nas_status read_budget(nas_ctx *ctx, const command_line *cl, nas_oneshot_cost *cost,
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
        return nas_fail(ctx, NAS_ERR_INVALID, "--budget counts bytes, macs or bops, not '%s'",
                        what);
    return nas_parse_double(ctx, "--budget", number, 0, 1e18, limit);
}

/* ---- the work ---------------------------------------------------------------------------------------------------------------- */

typedef struct job {
    const command_line *cl;
    nas_oneshot o;
    nas_layer_scheme levels[LEVELS_MAX];
    size_t n_levels;
    bool *keep;
    nas_layer_scheme *offered; /* [n_levels][n_layers] */
    nas_layer_scheme *schemes;
    nas_layer_result *results;
    nas_graph *graph;
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
    const nas_status status = nas_oneshot_gains_drop(ctx, o, j->cl->gains, j->cl->device,
                                                     j->offered, j->n_levels, &gains);
    if (status != NAS_OK) return status;
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

/* The chosen levels once more, each layer against what the compressed ones before it give. Where zeros that come by rounding
 * are fewer than on dense inputs, the limit could be missed: then the network of the table stands. */
static nas_status in_turn(nas_ctx *ctx, job *j, nas_oneshot_cost cost, double limit) {
    nas_oneshot *o = &j->o;
    nas_graph *graph = NULL;
    double spent = 0;
    nas_layer_result *results = nas_alloc_array(ctx, o->n_layers, sizeof *results);
    nas_status status =
        results == NULL
            ? NAS_ERR_NOMEM
            : nas_oneshot_apply_sequential(ctx, o, j->schemes, &j->cl->layer, results, &graph);
    if (status == NAS_OK) status = nas_oneshot_cost_of(ctx, o, graph, j->schemes, cost, &spent);
    if (status == NAS_OK && spent > limit * (1 + 1e-12)) {
        printf("calibration     on the dense network: in turn, fewer weights round to zero and it "
               "takes %.0f\n",
               spent);
    } else if (status == NAS_OK) {
        nas_graph *const dense = j->graph;
        j->graph = graph;
        graph = dense;
        memcpy(j->results, results, o->n_layers * sizeof *results);
    }
    nas_graph_free(graph);
    nas_free(results);
    return status;
}

static nas_status by_budget(nas_ctx *ctx, job *j) {
    nas_oneshot *o = &j->o;
    nas_oneshot_table t = {0};
    nas_oneshot_cost cost = NAS_ONESHOT_BYTES;
    nas_budget_total total = {0};
    double limit = 0, whole = 0;
    bool percent = false;
    nas_status status = read_budget(ctx, j->cl, &cost, &limit, &percent);
    int32_t *choice = nas_alloc_array(ctx, o->n_layers, sizeof *choice);
    if (choice == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK)
        status = nas_oneshot_table_make(ctx, o, j->offered, j->n_levels, &j->cl->layer, cost,
                                        j->cl->sensitivity, &t);
    for (size_t i = 0; status == NAS_OK && i < o->n_layers; i++)
        whole += t.dense[i];
    if (percent) limit *= whole / 100;
    if (status == NAS_OK)
        status = nas_oneshot_table_pick(ctx, o, &t, limit, choice, &total, &j->graph);
    for (size_t i = 0; status == NAS_OK && i < o->n_layers; i++) {
        j->schemes[i] = j->offered[(size_t)choice[i] * o->n_layers + i];
        j->results[i] = t.results[i * t.n_levels + (size_t)choice[i]];
    }
    if (status == NAS_OK)
        printf("budget          %.0f of %.0f %s (%.1f %% of the float network's), %s\n", total.cost,
               limit, nas_oneshot_cost_name(cost), 100 * total.cost / whole,
               total.exact ? "the least loss there is" : "not proved to be the least loss");
    nas_oneshot_table_deinit(&t);
    nas_free(choice);
    if (status == NAS_OK && j->cl->sequential) status = in_turn(ctx, j, cost, limit);
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

static nas_status run_job(nas_ctx *ctx, job *j) {
    nas_oneshot *o = &j->o;
    const command_line *cl = j->cl;
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
    if (status == NAS_OK) status = nas_oneshot_calibrate(ctx, o, cl->oneshot.seed);
    if (status == NAS_OK) status = cl->budget != NULL ? by_budget(ctx, j) : uniformly(ctx, j);
    if (status == NAS_OK)
        status = nas_oneshot_report(ctx, o, j->graph, j->schemes, j->results, &facts);
    if (status == NAS_OK)
        status = nas_oneshot_write(ctx, o, j->graph, j->schemes, j->results, facts.data, cl->out);
    if (status == NAS_OK)
        printf("written         %s/model.onnx, recipe.json, layers.csv\n", cl->out);
    nas_buf_deinit(&facts);
    nas_graph_free(j->graph);
    nas_free(j->keep);
    nas_free(j->offered);
    nas_free(j->schemes);
    nas_free(j->results);
    return status;
}

static void note(void *arg, const char *phase, double done, double planned) {
    nas__progress *p = arg;
    if (strncmp(p->phase, phase, sizeof p->phase - 1) != 0 || done <= 0)
        nas__progress_phase(p, phase, done, planned);
    nas__progress_update(p, done, "%s", "");
    if (done >= planned) nas__progress_end(p);
}

static nas_status run(nas_ctx *ctx, const command_line *cl) {
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
    command_line cl = {.oneshot = nas_oneshot_options_default(),
                       .layer = nas_layer_options_default(),
                       .grid = NAS_GRID_SYMMETRIC,
                       .sequential = true,
                       .sensitivity = NAS_ONESHOT_SCALED};
    nas_ctx_set_cancel(ctx, &interrupted);
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    nas_status status = parse_command_line(ctx, argc, argv, &cl);
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
