/* bench_compress.c - one-shot compression of ResNet-20 on CIFAR-10: second order, each layer for itself and all in turn, against
 * magnitude and rounding, then mixed precision against the same bits everywhere at equal size. Prints the tables of
 * docs/compress.md.
 * Usage: bench_compress [--data FOLDER] [--seeds N] [--part tables|mixed|all] [--row NAME] */
#include "search/oneshot.h"
#include "search/oneshot_budget.h"

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

/* Schemes compressed in turn, on REPORT images. */
static nas_status score_turn(nas_ctx *ctx, nas_oneshot *o, const nas_layer_scheme *schemes,
                             nas_oneshot_score *out) {
    const nas_layer_options options = nas_layer_options_default();
    nas_graph *g = NULL;
    nas_status status = nas_oneshot_apply_sequential(ctx, o, schemes, &options, NULL, &g);
    if (status == NAS_OK) status = nas_oneshot_evaluate(ctx, o, g, NAS_CLASS_REPORT, out);
    nas_graph_free(g);
    return status;
}

/* At the bytes of the same bits everywhere, what the budget chooses by losses on dense inputs; both compressed in turn.
 * Sensitivities from REWARD images, scores from REPORT. */
static nas_status mixed(nas_ctx *ctx, nas_oneshot *o, int seeds) {
    static const int32_t bits[] = {2, 3, 4, 5, 6, 8};
    enum { LEVELS = sizeof bits / sizeof bits[0] };
    nas_layer_scheme levels[LEVELS * LAYERS_MAX]; /* [LEVELS][n_layers] */
    const nas_layer_options options = nas_layer_options_default();
    const size_t n = o->n_layers;
    for (size_t k = 0; k < LEVELS * n; k++) {
        levels[k] = nas_layer_scheme_default();
        levels[k].bits = bits[k / n];
    }
    printf("\n| seed | bits everywhere | bytes | top-1 | cross-entropy | mixed: bytes | top-1 | "
           "cross-entropy | bits of the layers |\n|---|---|---|---|---|---|---|---|---|\n");
    nas_status status = NAS_OK;
    for (int s = 1; s <= seeds && status == NAS_OK; s++) {
        nas_oneshot_table t = {0};
        status = nas_oneshot_calibrate(ctx, o, (uint64_t)s);
        if (status == NAS_OK)
            status = nas_oneshot_table_make(ctx, o, levels, LEVELS, &options, NAS_ONESHOT_BYTES,
                                            NAS_ONESHOT_SCALED, &t);
        for (int k = 0; k < 3 && status == NAS_OK; k++) {
            int32_t choice[LAYERS_MAX];
            nas_layer_scheme mix[LAYERS_MAX];
            nas_oneshot_score plain = {0}, chosen = {0};
            nas_budget_total total;
            nas_graph *g = NULL;
            double limit = 0;
            for (size_t i = 0; i < o->n_layers; i++)
                limit += t.entries[i * LEVELS + (size_t)k].cost;
            status = nas_oneshot_table_pick(ctx, o, &t, limit, choice, &total, &g);
            nas_graph_free(g);
            for (size_t i = 0; status == NAS_OK && i < n; i++)
                mix[i] = levels[(size_t)choice[i] * n + i];
            if (status == NAS_OK) status = score_turn(ctx, o, levels + (size_t)k * n, &plain);
            if (status == NAS_OK) status = score_turn(ctx, o, mix, &chosen);
            if (status != NAS_OK) break;
            printf("| %d | %d | %.0f | %.2f | %.4f | %.0f | %.2f | %.4f | ", s, (int)bits[k], limit,
                   100 * plain.top1, plain.cross_entropy, total.cost, 100 * chosen.top1,
                   chosen.cross_entropy);
            for (size_t i = 0; i < o->n_layers; i++)
                printf("%d", (int)bits[choice[i]]);
            printf(" |\n");
            (void)fflush(stdout);
        }
        nas_oneshot_table_deinit(&t);
    }
    return status;
}

static nas_status run(nas_ctx *ctx, const char *folder, int seeds, const char *part,
                      const char *only) {
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
    if (status == NAS_OK && strcmp(part, "mixed") != 0)
        status = tables(ctx, &o, seeds, 100 * dense.top1, only);
    if (status == NAS_OK && strcmp(part, "tables") != 0) status = mixed(ctx, &o, seeds);
    nas_oneshot_close(&o);
    return status;
}

int main(int argc, char **argv) {
    const char *folder = "../shared/data", *part = "all", *only = NULL;
    long seeds = 3;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--data") == 0) folder = argv[i + 1];
        if (strcmp(argv[i], "--seeds") == 0) seeds = strtol(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--part") == 0) part = argv[i + 1];
        if (strcmp(argv[i], "--row") == 0) only = argv[i + 1];
    }
    if (seeds < 1 || seeds > SEEDS_MAX) {
        fprintf(stderr, "error: --seeds wants 1 to %d\n", SEEDS_MAX);
        return NAS_EXIT_USAGE;
    }
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    const nas_status status = run(ctx, folder, (int)seeds, part, only);
    if (status != NAS_OK) fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    nas_ctx_free(ctx);
    return nas_exit_code(status);
}
