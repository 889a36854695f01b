/* bench_predictor.c - device models on published measurements: `make bench-predictor`.
 *
 *   bench_predictor [--data ../shared/data] [--seeds 5] [--test 3000] [--random]
 *                   [--only nb201|own|hw360|fbnet|ofa|hat|known|classes]
 *
 * Splits: a seed shuffles the architectures. "own": the first n are measured on the device, the others are the test.
 * "transfer": the first 900 are measured on the source devices, ten of these on the target, the others are the test and
 * seen nowhere. "classes": as own, but no architecture isomorphic to one of the training set is tested. "known": real
 * networks, known on the other devices, ten of them measured on the target; the others are the test. */
#include "bench/predictor_known.h"

#include <gsl/gsl_linalg.h>

enum { SOURCE_ROWS = 900, SAMPLES = 10 };

/* ---- baselines --------------------------------------------------------------------------------------------------- */

static double macs_baseline(const bench *b, const problem *p, const nas_latency_table *test) {
    double *macs = array(b, test->n_rows, sizeof *macs), rho = 0;
    for (size_t i = 0; i < test->n_rows; i++)
        macs[i] = test->x[i * p->n_features + p->macs];
    need(b, nas_rank_correlation(b->ctx, macs, test->y, test->n_rows, &rho, NULL));
    nas_free(macs);
    return rho;
}

/* Standardised copy of x [n][d], in place. */
static void standardise(double *x, size_t n, size_t d, double *center, double *scale) {
    for (size_t k = 0; k < d; k++) {
        double squares = 0;
        center[k] = 0;
        for (size_t i = 0; i < n; i++)
            center[k] += x[i * d + k] / (double)n;
        for (size_t i = 0; i < n; i++)
            squares += pow(x[i * d + k] - center[k], 2) / (double)n;
        scale[k] = squares > 1e-18 ? 1 / sqrt(squares) : 0;
        for (size_t i = 0; i < n; i++)
            x[i * d + k] = (x[i * d + k] - center[k]) * scale[k];
    }
}

/* Weights of the columns of z [n][d], standardised, by least squares with penalty 1. */
static void ridge(const bench *b, const double *z, const double *y, size_t n, size_t d, double *w) {
    gsl_matrix *a = gsl_matrix_calloc(d, d);
    gsl_vector_view out = gsl_vector_view_array(w, d);
    if (a == NULL) need(b, NAS_ERR_NOMEM);
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += log(y[i]) / (double)n;
    for (size_t k = 0; k < d; k++) {
        w[k] = 0;
        for (size_t i = 0; i < n; i++)
            w[k] += z[i * d + k] * (log(y[i]) - mean);
        for (size_t l = 0; l <= k; l++) {
            double sum = k == l ? 1 : 0;
            for (size_t i = 0; i < n; i++)
                sum += z[i * d + k] * z[i * d + l];
            gsl_matrix_set(a, k, l, sum);
        }
    }
    (void)gsl_linalg_cholesky_decomp1(a);
    (void)gsl_linalg_cholesky_svx(a, &out.vector);
    gsl_matrix_free(a);
}

/* Ridge regression of log y on columns: a price for each unit of each, as a table of costs per layer is. x: [n][d] of
 * the fit, test: [n_test][d]; the test's rank correlation comes back. */
static double ridge_baseline(const bench *b, const double *x, const double *y, size_t n, size_t d,
                             const double *test, const double *test_y, size_t n_test) {
    double *center = array(b, d, sizeof *center), *scale = array(b, d, sizeof *scale);
    double *z = array(b, n * d, sizeof *z), *w = array(b, d, sizeof *w);
    double *value = array(b, n_test, sizeof *value), rho = 0;
    memcpy(z, x, n * d * sizeof *z);
    standardise(z, n, d, center, scale);
    ridge(b, z, y, n, d, w);
    for (size_t i = 0; i < n_test; i++)
        for (size_t k = 0; k < d; k++)
            value[i] += w[k] * (test[i * d + k] - center[k]) * scale[k];
    need(b, nas_rank_correlation(b->ctx, value, test_y, n_test, &rho, NULL));
    nas_free(value);
    nas_free(w);
    nas_free(z);
    nas_free(scale);
    nas_free(center);
    return rho;
}

/* Logarithms of what the sources predict for a table; [n_rows][n]. */
static double *source_columns(const bench *b, const nas_device_model *const *from, size_t n,
                              const nas_latency_table *t) {
    double *out = array(b, t->n_rows * n, sizeof *out),
           *column = array(b, t->n_rows, sizeof *column);
    for (size_t s = 0; s < n; s++) {
        need(b, nas_device_model_predict_fast(b->ctx, from[s], t, column));
        for (size_t i = 0; i < t->n_rows; i++)
            out[i * n + s] = log(column[i]);
    }
    nas_free(column);
    return out;
}

/* ---- protocols -------------------------------------------------------------------------------------------------- */

/* Test rows: after the first `train` of order, at most b->test_rows, with no group of the training rows if `classes`. */
static size_t test_part(const bench *b, const problem *p, const size_t *order, size_t train,
                        bool classes, size_t *test) {
    bool *taken = array(b, 20000, sizeof *taken);
    for (size_t i = 0; classes && i < train; i++)
        taken[p->group[order[i]]] = true;
    size_t n = 0;
    for (size_t i = train; i < p->rows && n < b->test_rows; i++) {
        if (!classes || !taken[p->group[order[i]]]) test[n++] = order[i];
    }
    nas_free(taken);
    return n;
}

static results own(const bench *b, const problem *p, size_t device, size_t n, bool classes) {
    results r = {0};
    size_t *order = array(b, p->rows, sizeof *order), *rest = array(b, p->rows, sizeof *rest);
    for (int seed = 0; seed < b->seeds; seed++) {
        shuffle(p->rows, seed, order);
        const size_t n_test = test_part(b, p, order, n, classes, rest);
        nas_latency_table train = part(b, p, device, order, n);
        nas_latency_table test = part(b, p, device, rest, n_test);
        nas_device_model_options options = nas_device_model_options_default();
        options.seed = (uint64_t)seed + 1;
        nas_device_model *model = NULL;
        nas_device_model_quality q;
        need(b, nas_device_model_fit(b->ctx, &train, &options, &model));
        need(b, nas_device_model_evaluate(b->ctx, model, &test, &q));
        const baselines base = {
            .macs = macs_baseline(b, p, &test),
            .simple = ridge_baseline(b, train.x, train.y, n, p->n_features, test.x, test.y, n_test),
            .bound = p->bound[device]};
        add(&r, &q, &base);
        nas_device_model_free(model);
        free_part(&test);
        free_part(&train);
    }
    nas_free(rest);
    nas_free(order);
    return r;
}

static bool same_chip(const char *a, const char *b) { /* "2080ti_32" and "2080ti_1" */
    const char *end = strrchr(a, '_');
    return end != NULL && strncmp(a, b, (size_t)(end - a) + 1) == 0;
}

/* Ten rows of the target and nine or fewer sources; `apart`: other settings of the target's chip are no sources. */
static void transfer(const bench *b, const problem *p, const char *const *sources,
                     const char *const *targets, bool apart, results *out, results *random) {
    size_t *order = array(b, p->rows, sizeof *order), *rest = array(b, p->rows, sizeof *rest);
    for (int seed = 0; seed < b->seeds; seed++) {
        shuffle(p->rows, seed, order);
        const size_t n_test = test_part(b, p, order, SOURCE_ROWS, false, rest);
        nas_device_model *models[DEVICES_MAX] = {0};
        nas_device_model_options options = nas_device_model_options_default();
        options.seed = (uint64_t)seed + 1;
        for (size_t s = 0; sources[s] != NULL; s++) {
            size_t device = 0;
            while (strcmp(p->devices[device], sources[s]) != 0)
                device++;
            nas_latency_table t = part(b, p, device, order, SOURCE_ROWS);
            need(b, nas_device_model_fit(b->ctx, &t, &options, &models[s]));
            free_part(&t);
        }
        for (size_t k = 0; targets[k] != NULL; k++) {
            const nas_device_model *from[DEVICES_MAX];
            size_t n = 0, device = 0;
            while (strcmp(p->devices[device], targets[k]) != 0)
                device++;
            for (size_t s = 0; sources[s] != NULL; s++) {
                const bool out_of_it =
                    apart ? same_chip(targets[k], sources[s]) : strcmp(targets[k], sources[s]) == 0;
                if (!out_of_it) from[n++] = models[s];
            }
            nas_latency_table test = part(b, p, device, rest, n_test);
            nas_latency_table pool = part(b, p, p->n_devices, order, SOURCE_ROWS);
            double *columns = source_columns(b, from, n, &test);
            baselines base = {.macs = macs_baseline(b, p, &test), .bound = p->bound[device]};
            for (int how = 0; how < (b->random ? 2 : 1); how++) {
                size_t picks[SAMPLES];
                need(b, nas_device_model_pick_from(b->ctx, from, n, &pool,
                                                   how == 0 ? NAS_PICK_ACTIVE : NAS_PICK_RANDOM,
                                                   SAMPLES, options.seed, picks));
                for (size_t i = 0; i < SAMPLES; i++)
                    picks[i] = order[picks[i]];
                nas_latency_table few = part(b, p, device, picks, SAMPLES);
                nas_device_model *model = NULL;
                nas_device_model_quality q;
                need(b, nas_device_model_transfer_from(b->ctx, from, n, &few, &options, &model));
                need(b, nas_device_model_evaluate(b->ctx, model, &test, &q));
                double *few_columns = source_columns(b, from, n, &few);
                base.simple =
                    ridge_baseline(b, few_columns, few.y, SAMPLES, n, columns, test.y, n_test);
                nas_free(few_columns);
                add(how == 0 ? &out[k] : &random[k], &q, &base);
                nas_device_model_free(model);
                free_part(&few);
            }
            nas_free(columns);
            free_part(&pool);
            free_part(&test);
        }
        for (size_t s = 0; sources[s] != NULL; s++)
            nas_device_model_free(models[s]);
    }
    nas_free(rest);
    nas_free(order);
}

static void show_transfer(const bench *b, const problem *p, const char *const *sources,
                          const char *const *targets, const char *const *published, bool apart) {
    results r[DEVICES_MAX] = {0}, random[DEVICES_MAX] = {0}, mean = {0}, mean_random = {0};
    transfer(b, p, sources, targets, apart, r, random);
    size_t k = 0;
    for (; targets[k] != NULL; k++) {
        show(p->name, targets[k], "transfer", SAMPLES, &r[k],
             published == NULL ? "-" : published[k]);
        join(&mean, &r[k]);
        if (!b->random) continue;
        show(p->name, targets[k], "  random", SAMPLES, &random[k], "");
        join(&mean_random, &random[k]);
    }
    show(p->name, "MEAN", "transfer", SAMPLES, &mean, "");
    if (b->random) show(p->name, "MEAN", "  random", SAMPLES, &mean_random, "");
}

static void show_own(const bench *b, const problem *p, size_t n, bool classes,
                     const char *(*published)(const char *)) {
    results mean = {0};
    for (size_t d = 0; d < p->n_devices; d++) {
        const results r = own(b, p, d, n, classes);
        show(p->name, p->devices[d], classes ? "classes" : "own", n, &r,
             published == NULL ? "-" : published(p->devices[d]));
        join(&mean, &r);
    }
    show(p->name, "MEAN", classes ? "classes" : "own", n, &mean, "");
}

/* ---- data sets --------------------------------------------------------------------------------------------------- */

static const char *const help_sources[] = {
    "1080ti_1",    "1080ti_32", "1080ti_256",     "silver_4114", "silver_4210r",
    "samsung_a50", "pixel3",    "essential_ph_1", "samsung_s7",  NULL};

static const char *brp_nas(const char *device) {
    if (strcmp(device, "raspi4") == 0) return "BRP .847";
    return strcmp(device, "fpga") == 0 ? "BRP .801" : "-";
}

/* Isomorphism classes of the rows, from the table of all architectures. */
static bool set_classes(const bench *b, problem *p) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/nb201_archs/nb201_archs.csv.gz", b->data);
    csv archs = {0};
    if (csv_read(b->ctx, path, &archs) != NAS_OK) {
        leave_out(b, "classes");
        return false;
    }
    const size_t index = csv_column(&p->table, "arch_idx"), group = csv_column(&archs, "iso_class");
    for (size_t i = 0; i < p->rows; i++) /* rows of nb201_archs are in the order of arch_idx */
        p->group[i] = (long)csv_number(&archs, (size_t)csv_number(&p->table, i, index), group);
    csv_deinit(&archs);
    return true;
}

static bool load_nb201(const bench *b, problem *p) {
    if (!load(b, "nb201_latency_help/nb201_latency_help.csv.gz", "nb201", p)) return false;
    set_space(b, p, "nb201", ops_text);
    set_device_range(b, p, 2);
    bounds_by_twins(b, p);
    return true;
}

static void bench_nb201(const bench *b) {
    problem p;
    if (!load_nb201(b, &p)) return;
    static const char *const targets[] = {
        "fpga",       "raspi4",      "gold_6240", "titanx_256",     "silver_4210r", "samsung_a50",
        "1080ti_256", "silver_4114", "pixel3",    "essential_ph_1", "samsung_s7",   NULL};
    static const char *const published[] = {"HELP .985", "HELP .890", "-", "-", "-", "-",
                                            "-",         "-",         "-", "-", "-"};
    show_transfer(b, &p, help_sources, targets, published, false);
    problem_deinit(&p);
}

static void bench_own(const bench *b) {
    problem p;
    if (!load_nb201(b, &p)) return;
    show_own(b, &p, SOURCE_ROWS, false, brp_nas);
    problem_deinit(&p);
}

static void bench_classes(const bench *b) {
    problem p;
    if (!load_nb201(b, &p)) return;
    if (set_classes(b, &p)) show_own(b, &p, SOURCE_ROWS, true, NULL);
    problem_deinit(&p);
}

static void bench_hw360(const bench *b) {
    static const char *const files[] = {"nb201_hw360/full_cifar100.csv.gz",
                                        "nb201_hw360/half_other.csv.gz"};
    for (int f = 0; f < 2; f++) {
        problem p;
        if (!load(b, files[f], "hw360", &p)) continue;
        set_space(b, &p, "nb201", ops_text);
        const size_t class = csv_column(&p.table, "iso_class");
        for (size_t i = 0; i < p.rows; i++)
            p.group[i] = (long)csv_number(&p.table, i, class);
        size_t columns[DEVICES_MAX], n = 0;
        for (size_t c = 3; c < p.table.columns; c++) {
            const char *name = p.table.head[c];
            if (strstr(name, "_lat_ms") != NULL || strstr(name, "_energy_mj") != NULL)
                columns[n++] = c;
        }
        set_devices(b, &p, columns, n);
        show_own(b, &p, 900, true, NULL);
        problem_deinit(&p);
    }
}

static void bench_fbnet(const bench *b) {
    problem p;
    if (!load(b, "fbnet_latency_help/fbnet_latency_help.csv.gz", "fbnet", &p)) return;
    set_space(b, &p, "fbnet:32x32", ops_text);
    set_device_range(b, &p, 2);
    bounds_by_own_rows(b, &p);
    static const char *const sources[] = {
        "1080ti_1",    "1080ti_32", "1080ti_64",      "silver_4114", "silver_4210r",
        "samsung_a50", "pixel3",    "essential_ph_1", "samsung_s7",  NULL};
    static const char *const targets[] = {"fpga",         "raspi4",      "gold_6240",
                                          "silver_4210r", "samsung_a50", "1080ti_64",
                                          "titanx_64",    "pixel3",      NULL};
    static const char *const published[] = {"HELP .892", "HELP .887", "-", "-", "-", "-", "-", "-"};
    show_transfer(b, &p, sources, targets, published, false);
    problem_deinit(&p);
}

static void bench_ofa(const bench *b) {
    problem p;
    if (!load(b, "ofa_latency_help/ofa_latency_help.csv.gz", "ofa", &p)) return;
    set_space(b, &p, "ofa", ofa_text);
    set_device_range(b, &p, 5);
    bounds_by_own_rows(b, &p);
    const char *all[DEVICES_MAX] = {0};
    for (size_t d = 0; d < p.n_devices; d++)
        all[d] = p.devices[d];
    show_transfer(b, &p, all, all, NULL, true);
    problem_deinit(&p);
}

/* ---- transformers: the ten columns of the source are the features --------------------------------------------------- */

static void bench_hat(const bench *b) {
    static const char *const files[] = {"iwslt14deen_gpu_titanxp", "wmt14ende_cpu_raspberrypi",
                                        "wmt14ende_cpu_xeon",      "wmt14ende_gpu_titanxp",
                                        "wmt14enfr_cpu_xeon",      "wmt14enfr_gpu_titanxp"};
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        char file[128];
        (void)snprintf(file, sizeof file, "hat_transformer_latency/%s.csv.gz", files[f]);
        problem p;
        if (!load(b, file, "hat", &p)) continue;
        const size_t encoder = csv_column(&p.table, "latency_mean_encoder");
        set_columns(b, &p, encoder);
        p.n_devices = 1;
        p.bound = array(b, 1, sizeof *p.bound);
        p.devices = array(b, 1, sizeof *p.devices);
        p.devices[0] = files[f];
        p.y = array(b, p.rows, sizeof *p.y);
        for (size_t i = 0; i < p.rows; i++)
            p.y[i] = csv_number(&p.table, i, encoder) + csv_number(&p.table, i, encoder + 1);
        p.macs =
            csv_column(&p.table, "decoder_layer_num"); /* no MACs: the strongest single column */
        const results q = own(b, &p, 0, 500, false);
        show("hat", files[f], "own", 500, &q, "-");
        problem_deinit(&p);
    }
}

static const struct {
    const char *name;
    void (*run)(const bench *b);
} parts[] = {{"nb201", bench_nb201}, {"own", bench_own},        {"hw360", bench_hw360},
             {"fbnet", bench_fbnet}, {"ofa", bench_ofa},        {"hat", bench_hat},
             {"known", bench_known}, {"classes", bench_classes}};
enum { PARTS = sizeof parts / sizeof parts[0] };

static int usage(const char *message, const char *value) {
    (void)fprintf(
        stderr,
        "bench_predictor: %s '%s'\n"
        "usage: bench_predictor [--data DIR] [--seeds N] [--test N] [--random] [--only PART]\n"
        "parts:",
        message, value);
    for (size_t i = 0; i < PARTS; i++)
        (void)fprintf(stderr, " %s", parts[i].name);
    (void)fprintf(stderr, "\n");
    return NAS_EXIT_USAGE;
}

static bool part_named(const char *name) {
    for (size_t i = 0; i < PARTS; i++)
        if (strcmp(name, parts[i].name) == 0) return true;
    return false;
}

int main(int argc, char **argv) {
    bench b = {.ctx = nas_ctx_new(), .data = "../shared/data", .seeds = 5, .test_rows = 3000};
    const char *only = NULL;
    size_t missing = 0;
    b.missing = &missing;
    if (b.ctx == NULL) return NAS_EXIT_FAILED;
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];
        int64_t number = 0;
        if (strcmp(option, "--random") == 0) {
            b.random = true;
            continue;
        }
        if (i + 1 == argc) return usage("unknown option, or one without its value:", option);
        const char *value = argv[++i];
        if (strcmp(option, "--data") == 0) {
            b.data = value;
        } else if (strcmp(option, "--only") == 0) {
            if (!part_named(value)) return usage("no part", value);
            only = value;
        } else if (strcmp(option, "--seeds") == 0) {
            need(&b, nas_parse_i64(b.ctx, option, value, 1, SEEDS_MAX, &number));
            b.seeds = (int)number;
        } else if (strcmp(option, "--test") == 0) {
            need(&b, nas_parse_i64(b.ctx, option, value, 2, 1000000, &number));
            b.test_rows = (size_t)number;
        } else {
            return usage("unknown option", option);
        }
    }
    head();
    for (size_t i = 0; i < PARTS; i++)
        if (only == NULL || strcmp(only, parts[i].name) == 0) parts[i].run(&b);
    if (missing > 0)
        printf("%zu tables could not be read in '%s' (see \"left out\" above); --data says where "
               "they are\n",
               missing, b.data);
    nas_ctx_free(b.ctx);
    return NAS_EXIT_OK;
}
