/* bench_compress.c - one-shot compression of ResNet-20 on CIFAR-10: second order, each layer for itself and all in turn, against
 * magnitude and rounding, then mixed precision against the same bits everywhere at equal size. Prints the tables of
 * docs/compress.md.
 * Usage: bench_compress [--data FOLDER] [--seeds N] [--part tables|mixed|all] [--row NAME] [--first SEED] [--sensitivity NAME] */
#include "search/oneshot.h"
#include "search/oneshot_choose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS_MAX = 16, LAYERS_MAX = 256 };

typedef struct row {
    const char *name;
    bool sparse;
    nas_sparsity sparsity;
    int32_t bits;
} row;

static nas_layer_scheme scheme_of(const row *r) {
    nas_layer_scheme s = nas_layer_scheme_default();
    s.is_sparse = r->sparse;
    s.sparsity = r->sparsity;
    s.bits = r->bits;
    return s;
}

typedef enum way { PLAIN, ALONE, IN_TURN } way;

static nas_status score(nas_ctx *ctx, nas_oneshot *o, const nas_layer_scheme *schemes, way how,
                        double *top1) {
    nas_layer_options options = nas_layer_options_default();
    nas_oneshot_score s = {0};
    nas_graph *g = NULL;
    if (how == PLAIN) options.solver = NAS_SOLVER_MAGNITUDE;
    nas_status status = how == IN_TURN
                            ? nas_oneshot_apply_sequential(ctx, o, schemes, &options, NULL, &g)
                            : nas_oneshot_apply(ctx, o, schemes, &options, NULL, &g);
    if (status == NAS_OK) status = nas_oneshot_evaluate(ctx, o, g, NAS_CLASS_REPORT, &s);
    *top1 = 100 * s.top1;
    nas_graph_free(g);
    return status;
}

static void spread(const double *x, int n, double *mean, double *least, double *most) {
    *mean = 0;
    *least = INFINITY;
    *most = -INFINITY;
    for (int i = 0; i < n; i++) {
        *mean += x[i] / n;
        *least = fmin(*least, x[i]);
        *most = fmax(*most, x[i]);
    }
}

static nas_status tables(nas_ctx *ctx, nas_oneshot *o, int seeds, double dense, const char *only) {
    const nas_sparsity n_of_m = nas_sparsity_default(NAS_SPARSITY_N_OF_M);
    nas_sparsity block = nas_sparsity_default(NAS_SPARSITY_1XN);
    nas_sparsity single = nas_sparsity_default(NAS_SPARSITY_UNSTRUCTURED);
    block.rate = 0.5;
    nas_sparsity arranged = block, rates[4] = {single, single, single, single};
    arranged.rearrange = true;
    nas_sparsity n_of_m_1 = n_of_m;
    n_of_m_1.outputs = 1;
    const double share[] = {0.5, 0.7, 0.8, 0.9};
    for (int i = 0; i < 4; i++)
        rates[i].rate = share[i];
    const row rows[] = {{"2:4", true, n_of_m_1, 0},
                        {"4 bits", false, single, 4},
                        {"3 bits", false, single, 3},
                        {"2 bits", false, single, 2},
                        {"2:4 and 4 bits", true, n_of_m_1, 4},
                        {"2:4, 4 outputs share", true, n_of_m, 0},
                        {"1x4, 50 %", true, block, 0},
                        {"1x4, 50 %, filters rearranged", true, arranged, 0},
                        {"unstructured 50 %", true, rates[0], 0},
                        {"unstructured 70 %", true, rates[1], 0},
                        {"unstructured 80 %", true, rates[2], 0},
                        {"unstructured 90 %", true, rates[3], 0}};
    printf("| | magnitude, rounding | each layer for itself | in turn | least, most of the seeds "
           "| lost |\n|---|---|---|---|---|---|\n");
    nas_status status = NAS_OK;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0] && status == NAS_OK; k++) {
        if (only != NULL && strcmp(only, rows[k].name) != 0) continue;
        nas_layer_scheme schemes[LAYERS_MAX];
        double plain = 0, alone = 0, turn[SEEDS_MAX], mean, least, most;
        for (size_t i = 0; i < o->n_layers; i++)
            schemes[i] = scheme_of(&rows[k]);
        for (int s = 0; s < seeds && status == NAS_OK; s++) {
            status = nas_oneshot_calibrate(ctx, o, (uint64_t)s + 1);
            if (status == NAS_OK && s == 0) status = score(ctx, o, schemes, PLAIN, &plain);
            if (status == NAS_OK && s == 0) status = score(ctx, o, schemes, ALONE, &alone);
            if (status == NAS_OK) status = score(ctx, o, schemes, IN_TURN, &turn[s]);
        }
        if (status != NAS_OK) break;
        spread(turn, seeds, &mean, &least, &most);
        printf("| %s | %.2f | %.2f | %.2f | %.2f, %.2f | %.2f |\n", rows[k].name, plain, alone,
               mean, least, most, dense - mean);
        (void)fflush(stdout);
    }
    return status;
}

/* One row: the network that a candidate stands for on REPORT images, beside its divergence from the dense one on REWARD images. */
static nas_status print_candidate(nas_ctx *ctx, nas_oneshot *o, const nas_oneshot_candidate *k,
                                  const int32_t *bits, const char *what, const char *mark) {
    nas_oneshot_score s = {0};
    nas_oneshot_reference report = {0};
    double divergence = 0;
    nas_status status = nas_oneshot_evaluate(ctx, o, k->graph, NAS_CLASS_REPORT, &s);
    if (status == NAS_OK)
        status = nas_oneshot_reference_take(ctx, o, NAS_CLASS_REPORT, SIZE_MAX, &report);
    if (status == NAS_OK) status = nas_oneshot_divergence(ctx, o, k->graph, &report, &divergence);
    nas_oneshot_reference_deinit(&report);
    if (status != NAS_OK) return status;
    printf("%s | %.0f | %.4f | %.4f | %.4f | %.2f | %.4f | ", what, k->total.cost, k->divergence,
           k->turn_divergence, divergence, 100 * s.top1, s.cross_entropy);
    for (size_t i = 0; i < o->n_layers; i++)
        printf("%d", (int)bits[k->choice[i]]);
    printf(" | %s |\n", mark);
    (void)fflush(stdout);
    return NAS_OK;
}

enum { LEVELS = 6, LIMITS = 3 };

/* At one limit: every candidate that was finished, the chosen one marked; what was only estimated is named. */
static nas_status mixed_at(nas_ctx *ctx, nas_oneshot *o, const nas_oneshot_table *t, double limit,
                           const int32_t *bits, int seed, const char *name) {
    nas_oneshot_choose_options options = nas_oneshot_choose_options_default();
    nas_oneshot_choice choice;
    options.limit = limit;
    nas_status status = nas_oneshot_choose(ctx, o, t, &options, &choice);
    for (int w = 0; w < NAS_ONESHOT_WAY_COUNT && status == NAS_OK; w++) {
        const nas_oneshot_candidate *k = &choice.candidates[w];
        if (!k->is_set) continue;
        printf("| %d | %s | ", seed, name);
        if (k->has_turn) {
            status = print_candidate(ctx, o, k, bits, nas_oneshot_way_name((nas_oneshot_way)w),
                                     w == (int)choice.best ? "chosen" : "");
        } else {
            printf("%s | %.0f | %.4f | | | | | ", nas_oneshot_way_name((nas_oneshot_way)w),
                   k->total.cost, k->divergence);
            for (size_t i = 0; i < o->n_layers; i++)
                printf("%d", (int)bits[k->choice[i]]);
            printf(" | |\n");
        }
    }
    nas_oneshot_choice_deinit(&choice);
    return status;
}

/* At the bytes of 3 and of 4 bits everywhere, and half way between 2 and 3: what nas-compress --budget would hand out beside the
 * same bits everywhere. Choices from REWARD images, scores from REPORT. */
static nas_status mixed(nas_ctx *ctx, nas_oneshot *o, int first, int seeds,
                        nas_oneshot_sensitivity sensitivity) {
    static const int32_t bits[LEVELS] = {2, 3, 4, 5, 6, 8};
    static const char *const names[LIMITS] = {"3", "2.5", "4"};
    nas_layer_scheme levels[LEVELS * LAYERS_MAX]; /* [LEVELS][n_layers] */
    const nas_layer_options options = nas_layer_options_default();
    const size_t n = o->n_layers;
    for (size_t k = 0; k < LEVELS * n; k++) {
        levels[k] = nas_layer_scheme_default();
        levels[k].bits = bits[k / n];
    }
    printf("\n| seed | bits | network | bytes | divergence: layers for themselves | in turn | of "
           "report "
           "images | top-1 | cross-entropy | bits of the layers | |\n|---|---|---|---|---|---|---|"
           "---|---|---|---|\n");
    nas_status status = NAS_OK;
    for (int s = first; s < first + seeds && status == NAS_OK; s++) {
        nas_oneshot_table t = {0};
        double cost[3] = {0}; /* of 2, 3, 4 bits everywhere */
        status = nas_oneshot_calibrate(ctx, o, (uint64_t)s);
        if (status == NAS_OK)
            status = nas_oneshot_table_make(ctx, o, levels, LEVELS, &options, NAS_ONESHOT_BYTES,
                                            sensitivity, &t);
        for (size_t i = 0; status == NAS_OK && i < n; i++) {
            for (size_t k = 0; k < 3; k++)
                cost[k] += t.entries[i * LEVELS + k].cost;
        }
        const double limits[LIMITS] = {cost[1], 0.5 * (cost[0] + cost[1]), cost[2]};
        for (int k = 0; k < LIMITS && status == NAS_OK; k++)
            status = mixed_at(ctx, o, &t, limits[k], bits, s, names[k]);
        nas_oneshot_table_deinit(&t);
    }
    return status;
}

typedef struct arguments {
    const char *folder, *part, *only;
    long seeds, first; /* seeds of the calibration: first, first + 1, ... */
    nas_oneshot_sensitivity sensitivity;
} arguments;

static nas_status run(nas_ctx *ctx, const arguments *a) {
    const char *folder = a->folder;
    char onnx[512], train[512], test[512];
    (void)snprintf(onnx, sizeof onnx, "%s/cifar_resnet_weights/resnet20.onnx", folder);
    (void)snprintf(train, sizeof train, "%s/cifar10/train_1.bin", folder);
    (void)snprintf(test, sizeof test, "%s/cifar10/test_dev.bin", folder);
    const char *const needed[] = {onnx, train, test};
    for (int i = 0; i < 3; i++) {
        if (!nas_file_exists(needed[i]))
            return nas_fail(ctx, NAS_ERR_NOTFOUND,
                            "%s is missing: --data FOLDER says where cifar10/ and "
                            "cifar_resnet_weights/ are",
                            needed[i]);
    }
    nas_oneshot_options options = nas_oneshot_options_default();
    options.onnx = onnx;
    options.data.kind = "cifar10";
    options.data.path = train;
    options.data.report_path = test;
    options.data.reward_max = 2000;
    options.data.report_max = 5000;
    const float mean[] = {0.485F, 0.456F, 0.406F}, deviation[] = {0.229F, 0.224F, 0.225F};
    memcpy(options.data.mean, mean, sizeof mean);
    memcpy(options.data.deviation, deviation, sizeof deviation);
    nas_oneshot o;
    nas_oneshot_score dense = {0};
    nas_status status = nas_oneshot_open(ctx, &options, NULL, NULL, &o);
    if (status != NAS_OK) return status;
    status = nas_oneshot_evaluate(ctx, &o, o.model, NAS_CLASS_REPORT, &dense);
    if (status == NAS_OK)
        printf("%s\ndense: %.2f %% of %zu report images\n\n", nas_class_data_describe(o.data),
               100 * dense.top1, dense.images);
    if (status == NAS_OK && strcmp(a->part, "mixed") != 0)
        status = tables(ctx, &o, (int)a->seeds, 100 * dense.top1, a->only);
    if (status == NAS_OK && strcmp(a->part, "tables") != 0)
        status = mixed(ctx, &o, (int)a->first, (int)a->seeds, a->sensitivity);
    nas_oneshot_close(&o);
    return status;
}

int main(int argc, char **argv) {
    arguments a = {.folder = "../shared/data",
                   .part = "all",
                   .seeds = 3,
                   .first = 1,
                   .sensitivity = NAS_ONESHOT_SCALED};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--data") == 0) a.folder = value;
        if (strcmp(argv[i], "--seeds") == 0) a.seeds = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--first") == 0) a.first = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--part") == 0) a.part = value;
        if (strcmp(argv[i], "--row") == 0) a.only = value;
        if (strcmp(argv[i], "--sensitivity") == 0)
            a.sensitivity = nas_oneshot_sensitivity_find(value);
    }
    if (a.seeds < 1 || a.seeds > SEEDS_MAX || a.first < 0 || a.first > INT32_MAX - SEEDS_MAX ||
        a.sensitivity == NAS_ONESHOT_SENSITIVITY_COUNT) {
        fprintf(stderr,
                "error: --seeds wants 1 to %d, --first a number from 0 on, --sensitivity scaled, "
                "measured or error\n",
                SEEDS_MAX);
        return NAS_EXIT_USAGE;
    }
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    const nas_status status = run(ctx, &a);
    if (status != NAS_OK) fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    nas_ctx_free(ctx);
    return nas_exit_code(status);
}
