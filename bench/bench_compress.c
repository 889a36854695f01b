/* bench_compress.c - one-shot compression of a residual network on CIFAR-10: second order, each layer for itself and all in turn,
 * against magnitude and rounding, then mixed precision against the same bits everywhere at equal size, image by image. Prints the
 * tables of docs/compress.md.
 * Usage: bench_compress [--data FOLDER] [--net resnet20|resnet56] [--seeds N] [--first SEED] [--part tables|rounded|mixed|all]
 *                       [--row NAME]                              of the tables, one row
 *                       [--sizes N] [--sensitivity NAME]          of mixed bits: the first N sizes
 *        bench_compress --part tune --net NAME --first SEED --pruned FILE [--steps N] [--rate R] [--optimizer sgd|adam]
 *                       [--normalise 0|1] [--report 0|1] [--average A] [--teacher FILE] [--threads N] [--trial N]
 *                       [--save FILE]: fine-tunes a smaller network as a study of that seed does with that trial (0: the
 *                       original, with itself as FILE) */
#include "search/oneshot.h"
#include "search/oneshot_choose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS_MAX = 16, LAYERS_MAX = 256 };

typedef struct arguments {
    const char *folder, *part, *only, *network;
    long seeds, first; /* seeds of the calibration: first, first + 1, ... */
    long sizes;        /* of mixed bits */
    nas_oneshot_sensitivity sensitivity;
    const char *pruned, *teacher, *save; /* of tuning */
    bool report;
    nas_tune_options tune;
} arguments;

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

/* ---- mixed bits against the same bits everywhere --------------------------------------------------------------------------- */

enum { LEVELS = 6, SAME = 3, SIZES = 3 };
static const int32_t level_bits[LEVELS] = {2, 3, 4, 5, 6, 8}; /* the first SAME are compared with */

/* Half way between the bytes of two levels everywhere; compared with the mean of these two networks. */
static const struct {
    const char *name;
    size_t fits, above; /* levels: the best same one that fits, the other end */
} sizes[SIZES] = {{"3", 1, 1}, {"2.5", 0, 1}, {"4", 2, 2}};

typedef enum form { ROUNDED, BY_ITSELF, ONE_BY_ONE, FORMS } form;
static const char *const form_names[FORMS] = {"rounding", "each for itself", "in turn"};

/* A network on the REPORT images, or a mean of several. */
typedef struct scored {
    double *right; /* [images] 1 where the answer is; NULL: nothing yet */
    double top1, cross_entropy, divergence, bytes;
} scored;

static void scored_deinit(scored *s) {
    nas_free(s->right);
    *s = (scored){0};
}

static nas_status scored_add(nas_ctx *ctx, scored *to, const scored *x, double weight, size_t n) {
    if (to->right == NULL) to->right = nas_alloc_array(ctx, n, sizeof *to->right);
    if (to->right == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        to->right[i] += weight * x->right[i];
    to->top1 += weight * x->top1;
    to->cross_entropy += weight * x->cross_entropy;
    to->divergence += weight * x->divergence;
    to->bytes += weight * x->bytes;
    return NAS_OK;
}

typedef struct comparison {
    nas_oneshot *o;
    long seeds;
    nas_oneshot_reference dense; /* of REPORT images */
    nas_oneshot_table table;
    scored same[FORMS][SAME];                         /* of this seed */
    scored all_same[FORMS][SIZES], all[FORMS][SIZES]; /* means of the seeds */
} comparison;

static nas_status score_network(nas_ctx *ctx, const comparison *c, const nas_oneshot_candidate *k,
                                scored *out) {
    nas_oneshot_reference answers = {0};
    const nas_oneshot_reference *dense = &c->dense;
    const double n = (double)dense->images;
    nas_status status =
        nas_oneshot_reference_take(ctx, c->o, k->graph, NAS_CLASS_REPORT, SIZE_MAX, &answers);
    *out = (scored){.bytes = k->turn_cost};
    if (status == NAS_OK) out->right = nas_alloc_array(ctx, dense->images, sizeof *out->right);
    if (out->right == NULL) status = NAS_ERR_NOMEM;
    for (size_t i = 0; status == NAS_OK && i < dense->images; i++) {
        const double *of = dense->logs + i * (size_t)dense->classes,
                     *logs = answers.logs + i * (size_t)dense->classes;
        const int32_t label = nas_class_data_label(c->o->data, NAS_CLASS_REPORT, i);
        int32_t best = 0;
        for (int32_t j = 0; j < dense->classes; j++) {
            if (logs[j] > logs[best]) best = j;
            out->divergence += exp(of[j]) * (of[j] - logs[j]) / n;
        }
        out->right[i] = best == label;
        out->top1 += out->right[i] / n;
        out->cross_entropy -= logs[label] / n;
    }
    nas_oneshot_reference_deinit(&answers);
    return status;
}

/* Points gained, with the standard error of the mean of the images' differences; images that only one gets right. */
static void print_gain(const scored *same, const scored *mixed, size_t images) {
    double only_same = 0, only_mixed = 0, square = 0;
    const double n = (double)images;
    for (size_t i = 0; i < images; i++) {
        const double gained = mixed->right[i] - same->right[i];
        only_same += fmax(-gained, 0);
        only_mixed += fmax(gained, 0);
        square += gained * gained;
    }
    const double mean = (only_mixed - only_same) / n;
    printf("%+.2f | %.2f | %.0f, %.0f", 100 * mean,
           100 * sqrt((square / n - mean * mean) / (n - 1)), only_same, only_mixed);
}

static void print_row(const comparison *c, form f, int size, const scored *same,
                      const scored *mixed) {
    printf("%s | %s | %.0f, %.0f | %.2f, %.2f | ", form_names[f], sizes[size].name, same->bytes,
           mixed->bytes, 100 * same->top1, 100 * mixed->top1);
    print_gain(same, mixed, c->dense.images);
    printf(" | %.4f, %.4f | %.4f, %.4f | ", same->cross_entropy, mixed->cross_entropy,
           same->divergence, mixed->divergence);
}

/* What was chosen within one size beside the same bits everywhere: a row, and its share of the means. */
static nas_status compare(nas_ctx *ctx, comparison *c, const nas_oneshot_choice *choice, long seed,
                          form f, int size) {
    const nas_oneshot_candidate *best = &choice->candidates[choice->best],
                                *uniform = &choice->candidates[NAS_ONESHOT_UNIFORM];
    const size_t n = c->dense.images, fits = sizes[size].fits;
    scored same = {0}, mixed = {0};
    nas_status status = NAS_OK;
    if (!uniform->has_turn) uniform = best; /* the same levels */
    if ((size_t)uniform->choice[0] != fits)
        return nas_fail(ctx, NAS_ERR_INTERNAL, "%s: %d bits everywhere are the best that fit",
                        form_names[f], (int)level_bits[uniform->choice[0]]);
    if (c->same[f][fits].right == NULL) status = score_network(ctx, c, uniform, &c->same[f][fits]);
    if (status == NAS_OK) status = score_network(ctx, c, best, &mixed);
    if (status == NAS_OK) status = scored_add(ctx, &same, &c->same[f][fits], 0.5, n);
    if (status == NAS_OK) status = scored_add(ctx, &same, &c->same[f][sizes[size].above], 0.5, n);
    if (status == NAS_OK) {
        printf("| %ld | ", seed);
        print_row(c, f, size, &same, &mixed);
        for (size_t i = 0; i < c->o->n_layers; i++)
            printf("%d", (int)level_bits[best->choice[i]]);
        printf(" |\n");
        (void)fflush(stdout);
        const double share = 1 / (double)c->seeds;
        status = scored_add(ctx, &c->all_same[f][size], &same, share, n);
        if (status == NAS_OK) status = scored_add(ctx, &c->all[f][size], &mixed, share, n);
    }
    scored_deinit(&same);
    scored_deinit(&mixed);
    return status;
}

static nas_status mixed_of_size(nas_ctx *ctx, comparison *c, long seed, bool plain, int size) {
    nas_oneshot_choose_options options = nas_oneshot_choose_options_default();
    nas_oneshot_choice choice = {0};
    options.sequential = false;
    for (size_t i = 0; i < c->table.n_layers; i++)
        options.limit += 0.5 * (c->table.entries[i * LEVELS + sizes[size].fits].cost +
                                c->table.entries[i * LEVELS + sizes[size].above].cost);
    nas_status status = nas_oneshot_choose(ctx, c->o, &c->table, &options, &choice);
    if (status == NAS_OK)
        status = compare(ctx, c, &choice, seed, plain ? ROUNDED : BY_ITSELF, size);
    options.sequential = true;
    if (status == NAS_OK && !plain)
        status = nas_oneshot_choose_finish(ctx, c->o, &c->table, &options, &choice);
    if (status == NAS_OK && !plain) status = compare(ctx, c, &choice, seed, ONE_BY_ONE, size);
    nas_oneshot_choice_deinit(&choice);
    return status;
}

static nas_status mixed_of_seed(nas_ctx *ctx, comparison *c, long seed, bool plain, int n_sizes,
                                nas_oneshot_sensitivity sensitivity) {
    nas_layer_scheme levels[LEVELS * LAYERS_MAX]; /* [LEVELS][n_layers] */
    nas_layer_options options = nas_layer_options_default();
    const size_t n = c->o->n_layers;
    if (n > LAYERS_MAX) return nas_fail(ctx, NAS_ERR_RANGE, "%zu layers", n);
    for (size_t k = 0; k < LEVELS * n; k++) {
        levels[k] = nas_layer_scheme_default();
        levels[k].bits = level_bits[k / n];
    }
    if (plain) options.solver = NAS_SOLVER_MAGNITUDE;
    nas_status status = nas_oneshot_calibrate(ctx, c->o, (uint64_t)seed);
    if (status == NAS_OK)
        status = nas_oneshot_table_make(ctx, c->o, levels, LEVELS, &options, NAS_ONESHOT_BYTES,
                                        plain ? NAS_ONESHOT_MEASURED : sensitivity, &c->table);
    for (int k = 0; k < n_sizes && status == NAS_OK; k++)
        status = mixed_of_size(ctx, c, seed, plain, k);
    nas_oneshot_table_deinit(&c->table);
    for (int i = 0; i < FORMS * SAME; i++)
        scored_deinit(&c->same[i / SAME][i % SAME]);
    return status;
}

/* What nas-compress --budget would hand out beside the same bits everywhere. Choices from REWARD images, scores from REPORT.
 * plain: rounding (--method magnitude), for which calibration images say nothing; otherwise layers for themselves and in turn. */
static nas_status mixed(nas_ctx *ctx, nas_oneshot *o, const arguments *a, bool plain) {
    comparison c = {.o = o, .seeds = plain ? 1 : a->seeds};
    nas_status status =
        nas_oneshot_reference_take(ctx, o, o->model, NAS_CLASS_REPORT, SIZE_MAX, &c.dense);
    printf("\n| seed | layers | bits | bytes: same everywhere, mixed | top-1 | gained | standard "
           "error | right in one alone | cross-entropy | divergence | bits of the layers |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (long s = a->first; s < a->first + c.seeds && status == NAS_OK; s++)
        status = mixed_of_seed(ctx, &c, s, plain, (int)a->sizes, a->sensitivity);
    for (int i = 0; i < FORMS * SIZES; i++) {
        scored *same = &c.all_same[i / SIZES][i % SIZES], *all = &c.all[i / SIZES][i % SIZES];
        if (status == NAS_OK && c.seeds > 1 && all->right != NULL) {
            printf("| mean | ");
            print_row(&c, (form)(i / SIZES), i % SIZES, same, all);
            printf("|\n");
        }
        scored_deinit(same);
        scored_deinit(all);
    }
    nas_oneshot_reference_deinit(&c.dense);
    return status;
}

/* ---- fine-tuning ------------------------------------------------------------------------------------------------------ */

enum { SHOWN_STEPS = 20 };

static nas_status show_loss(nas_ctx *ctx, void *arg, int32_t step, double loss) {
    double *sum = arg;
    (void)ctx;
    *sum += loss;
    if (step % SHOWN_STEPS < SHOWN_STEPS - 1) return NAS_OK;
    printf("step %d  loss %.4f\n", (int)step + 1, *sum / SHOWN_STEPS);
    (void)fflush(stdout);
    *sum = 0;
    return NAS_OK;
}

static nas_status print_score(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *g,
                              nas_class_split split, const char *name) {
    nas_oneshot_score s = {0};
    const nas_status status = nas_oneshot_evaluate(ctx, o, g, split, &s);
    if (status == NAS_OK)
        printf("%s: top-1 %.2f %%, cross-entropy %.4f\n", name, 100 * s.top1, s.cross_entropy);
    return status;
}

static nas_status tuned(nas_ctx *ctx, const nas_oneshot *o, const arguments *a) {
    const nas_onnx_import_options import = nas_onnx_import_options_default();
    nas_graph *g = NULL, *teacher = NULL;
    double sum = 0;
    nas_status status = nas_onnx_import(ctx, a->pruned, &import, &g);
    if (status == NAS_OK && a->teacher != NULL)
        status = nas_onnx_import(ctx, a->teacher, &import, &teacher);
    if (status == NAS_OK) status = print_score(ctx, o, g, NAS_CLASS_REWARD, "reward, before");
    const int64_t begin = nas_now_ns();
    if (status == NAS_OK)
        status = nas_tune(ctx, g, teacher == NULL ? o->model : teacher, o->data, &a->tune,
                          show_loss, &sum);
    if (status == NAS_OK && a->tune.steps > 0)
        printf("%.3f s a step\n", (double)(nas_now_ns() - begin) / 1e9 / a->tune.steps);
    if (status == NAS_OK && a->save != NULL) status = nas_onnx_export(ctx, g, a->save);
    if (status == NAS_OK) status = print_score(ctx, o, g, NAS_CLASS_REWARD, "reward");
    if (status == NAS_OK && a->report) status = print_score(ctx, o, g, NAS_CLASS_REPORT, "report");
    nas_graph_free(g);
    nas_graph_free(teacher);
    return status;
}

static nas_status run(nas_ctx *ctx, const arguments *a) {
    const char *folder = a->folder;
    char onnx[512], train[512], test[512];
    (void)snprintf(onnx, sizeof onnx, "%s/cifar_resnet_weights/%s.onnx", folder, a->network);
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
    const bool tune = strcmp(a->part, "tune") == 0;
    if (tune) options.data.reward_max = 1000;
    if (tune) options.data.seed = (uint64_t)a->first;
    options.threads = a->tune.threads;
    nas_oneshot o;
    nas_oneshot_score dense = {0};
    nas_status status = nas_oneshot_open(ctx, &options, NULL, NULL, &o);
    if (status != NAS_OK) return status;
    if (!tune) status = nas_oneshot_evaluate(ctx, &o, o.model, NAS_CLASS_REPORT, &dense);
    if (status == NAS_OK && !tune)
        printf("%s\ndense: %.2f %% of %zu report images\n\n", nas_class_data_describe(o.data),
               100 * dense.top1, dense.images);
    const bool all = strcmp(a->part, "all") == 0;
    if (status == NAS_OK && (all || strcmp(a->part, "tables") == 0))
        status = tables(ctx, &o, (int)a->seeds, 100 * dense.top1, a->only);
    if (status == NAS_OK && (all || strcmp(a->part, "rounded") == 0))
        status = mixed(ctx, &o, a, true);
    if (status == NAS_OK && (all || strcmp(a->part, "mixed") == 0))
        status = mixed(ctx, &o, a, false);
    if (status == NAS_OK && tune) status = tuned(ctx, &o, a);
    nas_oneshot_close(&o);
    return status;
}

int main(int argc, char **argv) {
    arguments a = {.folder = "../shared/data",
                   .part = "all",
                   .network = "resnet20",
                   .seeds = 3,
                   .first = 1,
                   .sizes = SIZES,
                   .sensitivity = NAS_ONESHOT_SCALED,
                   .tune = nas_tune_options_default()};
    long trial = 1;
    a.report = true;
    a.tune.steps = 200;
    a.tune.flip = true;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--data") == 0) a.folder = value;
        if (strcmp(argv[i], "--seeds") == 0) a.seeds = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--first") == 0) a.first = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--sizes") == 0) a.sizes = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--part") == 0) a.part = value;
        if (strcmp(argv[i], "--net") == 0) a.network = value;
        if (strcmp(argv[i], "--row") == 0) a.only = value;
        if (strcmp(argv[i], "--pruned") == 0) a.pruned = value;
        if (strcmp(argv[i], "--teacher") == 0) a.teacher = value;
        if (strcmp(argv[i], "--save") == 0) a.save = value;
        if (strcmp(argv[i], "--trial") == 0) trial = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--report") == 0) a.report = strcmp(value, "1") == 0;
        if (strcmp(argv[i], "--steps") == 0) a.tune.steps = (int32_t)strtol(value, NULL, 10);
        if (strcmp(argv[i], "--threads") == 0) a.tune.threads = (int32_t)strtol(value, NULL, 10);
        if (strcmp(argv[i], "--rate") == 0) a.tune.learning_rate = strtod(value, NULL);
        if (strcmp(argv[i], "--average") == 0) a.tune.average = strtod(value, NULL);
        if (strcmp(argv[i], "--optimizer") == 0) a.tune.adam = strcmp(value, "adam") == 0;
        if (strcmp(argv[i], "--normalise") == 0) a.tune.normalise = strcmp(value, "1") == 0;
        if (strcmp(argv[i], "--sensitivity") == 0)
            a.sensitivity = nas_oneshot_sensitivity_find(value);
    }
    if (a.tune.adam) a.tune.weight_decay = 0;
    a.tune.seed = (uint64_t)(a.first + 1 + trial);
    if (strcmp(a.part, "tune") == 0 && a.pruned == NULL) {
        fprintf(stderr, "error: --part tune wants --pruned FILE\n");
        return NAS_EXIT_USAGE;
    }
    if (a.seeds < 1 || a.seeds > SEEDS_MAX || a.first < 0 || a.first > INT32_MAX - SEEDS_MAX ||
        a.sizes < 1 || a.sizes > SIZES || a.sensitivity == NAS_ONESHOT_SENSITIVITY_COUNT) {
        fprintf(stderr,
                "error: --seeds wants 1 to %d, --first a number from 0 on, --sizes 1 to %d, "
                "--sensitivity scaled, measured or error\n",
                SEEDS_MAX, SIZES);
        return NAS_EXIT_USAGE;
    }
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    const nas_status status = run(ctx, &a);
    if (status != NAS_OK) fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    nas_ctx_free(ctx);
    return nas_exit_code(status);
}
