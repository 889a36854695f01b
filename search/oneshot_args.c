/* oneshot_args.c - the command line of nas-compress: options, what of them goes together, and the help text. */
#include "search/oneshot_args.h"
#include "search/oneshot_choose.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char help_text[] =
    "usage: nas-compress [MODEL.onnx] -o DIR [what] [options]\n"
    "\n"
    "Compresses a trained classifier in one shot, without training it again: weights are left out "
    "or rounded in the\n"
    "order of the damage they do, and the others make up for it. Writes DIR/model.onnx, "
    "DIR/recipe.json (for\n"
    "nas-compile), DIR/layers.csv and, where there are integers, DIR/model_qdq.onnx "
    "(QuantizeLinear, "
    "DequantizeLinear:\n"
    "for other engines). Without MODEL a small network is trained on built-in digits first.\n"
    "\n"
    "what\n"
    "  --pattern NAME       2:4, 2:4x8 (shared by 8 outputs), 1x4, 1x4r (filters rearranged), "
    "block4x4, punched8x4,\n"
    "                       filter, channel, pattern, periodic, unstructured\n"
    "  --rate LIST          shares of the pattern's groups that go, e.g. 0.5; several with "
    "--budget\n"
    "  --bits LIST          bits of weights, 2 to 8 or 32; several with --budget, e.g. 2,3,4,8\n"
    "  --act-bits N         activations as integers too, 2 to 8 bits: what nas-compile then makes "
    "integer kernels of\n"
    "  --tune STEPS         then train it on, in batches of 64 with the original as teacher: zeros "
    "and "
    "grids hold, their\n"
    "                       steps are learned (LSQ); --tune-rate X of the first steps (default "
    "0.01)\n"
    "  --budget WHAT=LIMIT  choose a rate and bits for each layer: bytes=50%, bytes=60000, "
    "macs=40%, bops=10%, time=60%\n"
    "                       (or microseconds) of the layers that --gains FILE has times of;\n"
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
    "  --moves N            rounds of moves between levels that --budget tries in the compressed "
    "network (default 6, 0: none)\n"
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

nas__oneshot_args nas__oneshot_args_default(void) {
    return (nas__oneshot_args){.oneshot = nas_oneshot_options_default(),
                               .layer = nas_layer_options_default(),
                               .grid = NAS_GRID_SYMMETRIC,
                               .sequential = true,
                               .tune_rate = 0.01,
                               .moves = nas_oneshot_choose_options_default().rounds,
                               .sensitivity = NAS_ONESHOT_SCALED};
}

/* ---- arguments ------------------------------------------------------------------------------------------------------------ */

enum {
    OPT_PATTERN = 256,
    OPT_RATE,
    OPT_BITS,
    OPT_ACT_BITS,
    OPT_TUNE,
    OPT_TUNE_RATE,
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
    OPT_MOVES,
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

static nas_status read_data(nas_ctx *ctx, nas__oneshot_args *cl, const char *text) {
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

static nas_status read_solver(nas_ctx *ctx, nas__oneshot_args *cl) {
    for (int s = 0; s < NAS_SOLVER_MAGNITUDE; s++) {
        if (strcmp(optarg, nas_layer_solver_name((nas_layer_solver)s)) != 0) continue;
        cl->layer.solver = (nas_layer_solver)s;
        cl->has_solver = true;
        return NAS_OK;
    }
    return bad_choice(ctx, "--solver", "auto, exact or blocked");
}

static nas_status read_method(nas_ctx *ctx, nas__oneshot_args *cl) {
    cl->is_magnitude = strcmp(optarg, "magnitude") == 0;
    if (cl->is_magnitude || strcmp(optarg, "obs") == 0) return NAS_OK;
    return bad_choice(ctx, "--method", "obs or magnitude");
}

static nas_status read_calibrate(nas_ctx *ctx, nas__oneshot_args *cl) {
    cl->sequential = strcmp(optarg, "sequential") == 0;
    cl->has_calibrate = true;
    if (cl->sequential || strcmp(optarg, "dense") == 0) return NAS_OK;
    return bad_choice(ctx, "--calibrate", "sequential or dense");
}

static nas_status parse_option(nas_ctx *ctx, nas__oneshot_args *cl, int option) {
    nas_oneshot_options *p = &cl->oneshot;
    int64_t seed = 0, moves = 0;
    nas_status status = NAS_OK;
    switch (option) {
    case 'o': cl->out = optarg; break;
    case 'q': cl->quiet = true; break;
    case OPT_PATTERN: cl->pattern = optarg; break;
    case OPT_BUDGET: cl->budget = optarg; break;
    case OPT_SKIP: cl->skip = optarg; break;
    case OPT_PER_TENSOR: cl->per_tensor = true; break;
    case OPT_RATE:
        return read_list(ctx, "--rate", optarg, 0, 1, cl->rates, NAS__ONESHOT_LIST_MAX,
                         &cl->n_rates);
    case OPT_BITS:
        return read_list(ctx, "--bits", optarg, 2, 32, cl->bits, NAS__ONESHOT_LIST_MAX,
                         &cl->n_bits);
    case OPT_ACT_BITS: return read_count(ctx, "--act-bits", optarg, 8, &cl->act_bits);
    case OPT_TUNE: return read_count(ctx, "--tune", optarg, 10000000, &cl->tune_steps);
    case OPT_TUNE_RATE:
        return nas_parse_double(ctx, "--tune-rate", optarg, 1e-9, 10, &cl->tune_rate);
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
    case OPT_MOVES:
        cl->has_moves = true;
        status = nas_parse_i64(ctx, "--moves", optarg, 0, 1000, &moves);
        cl->moves = (int32_t)moves;
        return status;
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
static nas_status check_method(nas_ctx *ctx, nas__oneshot_args *cl) {
    if (cl->has_sensitivity && cl->budget == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "--sensitivity weighs the levels of a --budget");
    if (cl->has_moves && cl->budget == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "--moves are between the levels of a --budget");
    if (cl->gains != NULL && cl->pattern == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "--gains is about patterns: say --pattern");
    if (cl->gains == NULL && cl->budget != NULL && strncmp(cl->budget, "time", 4) == 0)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--budget time needs times: --gains FILE of nas-compile --break-even --db "
                        "FILE, and a --pattern");
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

/* Integers of activations, and training of integers. */
static nas_status check_activations(nas_ctx *ctx, const nas__oneshot_args *cl) {
    bool any = false;
    if (cl->tune_steps > 0 && cl->n_bits > 0 && (cl->grid != NAS_GRID_SYMMETRIC || cl->per_tensor))
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--tune learns a symmetric step for each channel: no other --grid, no "
                        "--per-tensor");
    if (cl->act_bits == 0) return NAS_OK;
    for (size_t i = 0; i < cl->n_bits; i++)
        any = any || cl->bits[i] <= 8;
    if (cl->act_bits < 2)
        return nas_fail(ctx, NAS_ERR_INVALID, "--act-bits %d: 2 to 8", (int)cl->act_bits);
    if (!any)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--act-bits needs integer weights: say --bits 8, or fewer");
    if (cl->grid != NAS_GRID_SYMMETRIC)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--act-bits needs --grid symmetric: integer kernels take no other weights");
    return NAS_OK;
}

static nas_status check_arguments(nas_ctx *ctx, nas__oneshot_args *cl) {
    nas_sparsity s;
    if (cl->out == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "-o DIR is missing");
    if (cl->pattern == NULL && cl->n_bits == 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "say what to do: --pattern, --bits, or both");
    for (size_t i = 0; i < cl->n_bits; i++) {
        if (cl->bits[i] != floor(cl->bits[i]) || (cl->bits[i] > 8 && cl->bits[i] != 32))
            return nas_fail(ctx, NAS_ERR_INVALID, "--bits %g: 2 to 8, or 32 for floats",
                            cl->bits[i]);
    }
    const nas_status activations = check_activations(ctx, cl);
    if (activations != NAS_OK) return activations;
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

nas_status nas__oneshot_parse(nas_ctx *ctx, int argc, char **argv, nas__oneshot_args *cl) {
    static const struct option options[] = {
        {"pattern", required_argument, NULL, OPT_PATTERN},
        {"rate", required_argument, NULL, OPT_RATE},
        {"bits", required_argument, NULL, OPT_BITS},
        {"act-bits", required_argument, NULL, OPT_ACT_BITS},
        {"tune", required_argument, NULL, OPT_TUNE},
        {"tune-rate", required_argument, NULL, OPT_TUNE_RATE},
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
        {"moves", required_argument, NULL, OPT_MOVES},
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
