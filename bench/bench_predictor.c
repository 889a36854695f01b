/* bench_predictor.c - device models on published measurements: `make bench-predictor`.
 *
 *   bench_predictor [--data ../shared/data] [--seeds 5] [--only nb201|hw360|fbnet|ofa|hat|known|classes] [--test 3000] [--random 1]
 *
 * Splits: a seed shuffles the architectures. "own": the first n are measured on the device, the others are the test.
 * "transfer": the first 900 are measured on the source devices, ten of these on the target, the others are the test and
 * seen nowhere. "classes": as own, but no architecture isomorphic to one of the training set is tested. "known": real
 * networks, known on the other devices, ten of them measured on the target; the others are the test. */
#include "bench/predictor_spaces.h"

#include <stddef.h>

enum { SOURCE_ROWS = 900, SAMPLES = 10, DEVICES_MAX = 64 };

typedef struct bench {
    nas_ctx *ctx;
    const char *data;
    int seeds;
    size_t test_rows;
    bool random; /* random samples too */
} bench;

/* One published table: features of its architectures and a column of values for each device. */
typedef struct problem {
    const char *name;
    size_t rows, n_features, n_devices;
    nas_feature *features;
    char (*names)[64];
    double *x, *y; /* [rows][n_features], [n_devices][rows] */
    const char **devices;
    long *group; /* [rows] isomorphism class, or the row itself */
    size_t macs; /* feature that stands for the MACs */
    csv table;
} problem;

static void problem_deinit(problem *p) {
    nas_free(p->group);
    nas_free(p->devices);
    nas_free(p->y);
    nas_free(p->x);
    nas_free(p->names);
    nas_free(p->features);
    csv_deinit(&p->table);
    *p = (problem){0};
}

static void need(const bench *b, nas_status status) {
    if (status == NAS_OK) return;
    (void)fprintf(stderr, "bench_predictor: %s\n", nas_ctx_message(b->ctx));
    exit(nas_exit_code(status));
}

static void *array(const bench *b, size_t n, size_t size) {
    void *p = nas_alloc_array(b->ctx, n, size);
    if (p == NULL) need(b, NAS_ERR_NOMEM);
    return p;
}

/* ---- results ---------------------------------------------------------------------------------------------------- */

typedef struct results {
    int n;
    double spearman, square, mape, within5, within10, coverage, width, fit_s, rate, macs, bound;
} results;

static void add(results *r, const nas_device_model_quality *q, double macs, double bound) {
    r->n++;
    r->spearman += q->spearman;
    r->square += q->spearman * q->spearman;
    r->mape += q->mape;
    r->within5 += q->within5;
    r->within10 += q->within10;
    r->coverage += q->coverage90;
    r->width += q->width90;
    r->fit_s += q->fit_s;
    r->rate += q->predictions_per_s;
    r->macs += macs;
    r->bound += bound;
}

static void join(results *all, const results *r) {
    double *to = &all->spearman;
    const double *from = &r->spearman;
    for (size_t i = 0; i < (sizeof *all - offsetof(results, spearman)) / sizeof *to; i++)
        to[i] += from[i] / r->n;
    all->n++;
}

static void head(void) {
    printf("%-10s %-26s %-12s %4s | %-13s %6s %6s %6s %6s %7s | %9s %6s %6s | %6s %8s\n", "data",
           "device", "protocol", "n", "spearman", "mape", "in 5%", "in 10%", "cov.90", "width90",
           "published", "MACs", "bound", "fit s", "rows/s");
}

static void show(const char *data, const char *device, const char *protocol, size_t n,
                 const results *r, const char *published) {
    const double k = r->n, mean = r->spearman / k;
    const double sd = sqrt(fmax(r->square / k - mean * mean, 0));
    char bound[16] = "-", macs[16] = "-";
    if (r->bound > 0) (void)snprintf(bound, sizeof bound, "%.3f", r->bound / k);
    if (r->macs != 0) (void)snprintf(macs, sizeof macs, "%.3f", r->macs / k);
    printf("%-10s %-26.26s %-12s %4zu | %.4f ±%.4f %6.3f %6.3f %6.3f %6.3f %7.3f | %9s %6s %6s | "
           "%6.2f "
           "%8.0f\n",
           data, device, protocol, n, mean, sd, r->mape / k, r->within5 / k, r->within10 / k,
           r->coverage / k, r->width / k, published, macs, bound, r->fit_s / k, r->rate / k);
    (void)fflush(stdout);
}

/* ---- tables ----------------------------------------------------------------------------------------------------- */

static void shuffle(const bench *b, size_t n, int seed, size_t *order) {
    (void)b;
    nas_rng rng = nas_rng_stream((uint64_t)seed + 1, n, "bench-predictor");
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) {
        const size_t j = nas_rng_below(&rng, (uint32_t)i), t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}

/* Rows order[0..n) of one device; freed by free_part. device >= n_devices: features only. */
static nas_latency_table part(const bench *b, const problem *p, size_t device, const size_t *order,
                              size_t n) {
    double *x = array(b, n * p->n_features, sizeof *x), *y = array(b, n, sizeof *y);
    for (size_t i = 0; i < n; i++) {
        memcpy(x + i * p->n_features, p->x + order[i] * p->n_features, p->n_features * sizeof *x);
        if (device < p->n_devices) y[i] = p->y[device * p->rows + order[i]];
    }
    return (nas_latency_table){.device = device < p->n_devices ? p->devices[device] : "candidates",
                               .features = p->features,
                               .n_features = p->n_features,
                               .n_rows = n,
                               .x = x,
                               .y = y};
}

static void free_part(nas_latency_table *t) {
    nas_free((void *)(uintptr_t)t->x);
    nas_free((void *)(uintptr_t)t->y);
}

static double macs_baseline(const bench *b, const problem *p, const nas_latency_table *test) {
    double *macs = array(b, test->n_rows, sizeof *macs), rho = 0;
    for (size_t i = 0; i < test->n_rows; i++)
        macs[i] = test->x[i * p->n_features + p->macs];
    need(b, nas_rank_correlation(b->ctx, macs, test->y, test->n_rows, &rho, NULL));
    nas_free(macs);
    return rho;
}

/* What a predictor without any error would reach: the values against themselves with the differences between twins
 * (the same network measured twice, over the root of two) added. 0: no twins. */
static double noise_bound(const bench *b, const problem *p, size_t device) {
    if (strcmp(p->name, "nb201") != 0) return 0;
    const size_t text = csv_column(&p->table, "ops");
    size_t *by_text = array(b, 15625, sizeof *by_text), n = 0; /* five to the sixth, row + 1 */
    double *noise = array(b, p->rows, sizeof *noise), *noisy = array(b, p->rows, sizeof *noisy);
    const double *y = p->y + device * p->rows;
    for (size_t i = 0; i < p->rows; i++)
        by_text[strtoul(csv_text(&p->table, i, text), NULL, 5)] = i + 1;
    for (size_t i = 0; i < p->rows; i++) {
        char twin[CELL_EDGES + 1];
        if (!nb201_twin(csv_text(&p->table, i, text), twin)) continue;
        const size_t other = by_text[strtoul(twin, NULL, 5)];
        if (other != 0) noise[n++] = log(y[i] / y[other - 1]) / sqrt(2);
    }
    double rho = 0;
    nas_rng rng = nas_rng_stream(1, n, "bench-noise");
    for (size_t i = 0; i < p->rows; i++)
        noisy[i] = log(y[i]) + (n > 0 ? noise[nas_rng_below(&rng, (uint32_t)n)] : 0);
    need(b, nas_rank_correlation(b->ctx, noisy, y, p->rows, &rho, NULL));
    nas_free(noisy);
    nas_free(noise);
    nas_free(by_text);
    return n > 0 ? rho : 0;
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
    const double bound = noise_bound(b, p, device);
    size_t *order = array(b, p->rows, sizeof *order), *rest = array(b, p->rows, sizeof *rest);
    for (int seed = 0; seed < b->seeds; seed++) {
        shuffle(b, p->rows, seed, order);
        const size_t n_test = test_part(b, p, order, n, classes, rest);
        nas_latency_table train = part(b, p, device, order, n);
        nas_latency_table test = part(b, p, device, rest, n_test);
        nas_device_model_options options = nas_device_model_options_default();
        options.seed = (uint64_t)seed + 1;
        nas_device_model *model = NULL;
        nas_device_model_quality q;
        need(b, nas_device_model_fit(b->ctx, &train, &options, &model));
        need(b, nas_device_model_evaluate(b->ctx, model, &test, &q));
        add(&r, &q, macs_baseline(b, p, &test), bound);
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
        shuffle(b, p->rows, seed, order);
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
            const double macs = macs_baseline(b, p, &test), bound = noise_bound(b, p, device);
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
                add(how == 0 ? &out[k] : &random[k], &q, macs, bound);
                nas_device_model_free(model);
                free_part(&few);
            }
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

/* ---- loading ---------------------------------------------------------------------------------------------------- */

static bool load(const bench *b, const char *file, const char *name, problem *p) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", b->data, file);
    *p = (problem){.name = name};
    if (csv_read(b->ctx, path, &p->table) == NAS_OK) return true;
    printf("%-10s left out: %s\n", name, nas_ctx_message(b->ctx));
    return false;
}

static void set_features(const bench *b, problem *p, size_t row, const feature_row *r) {
    if (p->x == NULL) {
        p->rows = p->table.rows;
        p->n_features = r->n;
        p->x = array(b, p->rows * r->n, sizeof *p->x);
        p->features = array(b, r->n, sizeof *p->features);
        p->names = array(b, r->n, sizeof *p->names);
        p->group = array(b, p->rows, sizeof *p->group);
        memcpy(p->names, r->names, r->n * sizeof r->names[0]);
        for (size_t k = 0; k < r->n; k++) {
            p->features[k] = (nas_feature){.name = p->names[k], .kind = r->kinds[k]};
            if (strstr(p->names[k], "log_macs") != NULL && p->macs == 0) p->macs = k;
        }
    }
    memcpy(p->x + row * p->n_features, r->x, p->n_features * sizeof *p->x);
}

/* Columns from..to as devices. Values below a hundredth of the median are put there: networks of which an engine leaves
 * nothing. */
static void set_devices(const bench *b, problem *p, const size_t *columns, size_t n) {
    p->n_devices = n;
    p->devices = array(b, n, sizeof *p->devices);
    p->y = array(b, n * p->rows, sizeof *p->y);
    for (size_t d = 0; d < n; d++) {
        double *y = p->y + d * p->rows, sum = 0;
        p->devices[d] = p->table.head[columns[d]];
        for (size_t i = 0; i < p->rows; i++)
            sum += y[i] = csv_number(&p->table, i, columns[d]);
        const double least = 0.01 * sum / (double)p->rows;
        for (size_t i = 0; i < p->rows; i++)
            y[i] = fmax(y[i], least);
    }
}

static void set_device_range(const bench *b, problem *p, size_t first) {
    size_t columns[DEVICES_MAX], n = 0;
    for (size_t c = first; c < p->table.columns && n < DEVICES_MAX; c++)
        columns[n++] = c;
    set_devices(b, p, columns, n);
}

static bool load_nb201(const bench *b, const char *file, const char *name, problem *p) {
    if (!load(b, file, name, p)) return false;
    const size_t ops = csv_column(&p->table, "ops"), group = csv_column(&p->table, "iso_class");
    static feature_row r;
    for (size_t i = 0; i < p->table.rows; i++) {
        r.n = 0;
        nb201_features(csv_text(&p->table, i, ops), &r);
        set_features(b, p, i, &r);
        p->group[i] = group < p->table.columns ? (long)csv_number(&p->table, i, group) : (long)i;
    }
    return true;
}

static const char *const help_sources[] = {
    "1080ti_1",    "1080ti_32", "1080ti_256",     "silver_4114", "silver_4210r",
    "samsung_a50", "pixel3",    "essential_ph_1", "samsung_s7",  NULL};

static const char *brp_nas(const char *device) {
    if (strcmp(device, "raspi4") == 0) return "BRP .847";
    return strcmp(device, "fpga") == 0 ? "BRP .801" : "-";
}

/* Isomorphism classes of the rows, from the table of all architectures. */
static void set_classes(const bench *b, problem *p) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/nb201_archs/nb201_archs.csv.gz", b->data);
    csv archs = {0};
    need(b, csv_read(b->ctx, path, &archs));
    const size_t index = csv_column(&p->table, "arch_idx"), group = csv_column(&archs, "iso_class");
    for (size_t i = 0; i < p->rows; i++) /* rows of nb201_archs are in the order of arch_idx */
        p->group[i] = (long)csv_number(&archs, (size_t)csv_number(&p->table, i, index), group);
    csv_deinit(&archs);
}

static void bench_nb201_split(const bench *b, bool classes) {
    problem p;
    if (!load_nb201(b, "nb201_latency_help/nb201_latency_help.csv.gz", "nb201", &p)) return;
    set_device_range(b, &p, 2);
    set_classes(b, &p);
    static const char *const targets[] = {
        "fpga",       "raspi4",      "gold_6240", "titanx_256",     "silver_4210r", "samsung_a50",
        "1080ti_256", "silver_4114", "pixel3",    "essential_ph_1", "samsung_s7",   NULL};
    static const char *const published[] = {"HELP .985", "HELP .890", "-", "-", "-", "-",
                                            "-",         "-",         "-", "-", "-"};
    if (classes) {
        show_own(b, &p, 900, true, NULL);
    } else {
        show_transfer(b, &p, help_sources, targets, published, false);
        show_own(b, &p, 900, false, brp_nas);
    }
    problem_deinit(&p);
}

static void bench_nb201(const bench *b) {
    bench_nb201_split(b, false);
}

static void bench_classes(const bench *b) {
    bench_nb201_split(b, true);
}

static void bench_hw360(const bench *b) {
    static const char *const files[] = {"nb201_hw360/full_cifar100.csv.gz",
                                        "nb201_hw360/half_other.csv.gz"};
    for (int f = 0; f < 2; f++) {
        problem p;
        if (!load_nb201(b, files[f], "hw360", &p)) continue;
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
    static feature_row r;
    for (size_t i = 0; i < p.table.rows; i++) {
        r.n = 0;
        fbnet_features(csv_text(&p.table, i, 1), &r);
        set_features(b, &p, i, &r);
    }
    set_device_range(b, &p, 2);
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
    static feature_row r;
    for (size_t i = 0; i < p.table.rows; i++) {
        r.n = 0;
        ofa_features(csv_text(&p.table, i, 1), csv_text(&p.table, i, 2), csv_text(&p.table, i, 3),
                     csv_number(&p.table, i, 4), &r);
        set_features(b, &p, i, &r);
    }
    set_device_range(b, &p, 5);
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
        static feature_row r;
        const size_t encoder = csv_column(&p.table, "latency_mean_encoder");
        for (size_t i = 0; i < p.table.rows; i++) {
            r.n = 0;
            for (size_t c = 0; c < encoder; c++)
                put(&r, NAS_FEATURE_SHAPE, p.table.head[c], csv_number(&p.table, i, c));
            set_features(b, &p, i, &r);
        }
        p.n_devices = 1;
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

/* ---- real networks, known on other devices -------------------------------------------------------------------------- */

enum { KNOWN_NETS_MAX = 1200, KNOWN_DEVICES_MAX = 1024, REFERENCES_MAX = 24 };

/* Networks x settings of devices, logarithms; NAN where nothing was measured. */
typedef struct known {
    const char *name;
    size_t nets, settings;
    char (*net)[96], (*setting)[192], (*chip)[128];
    double *log_y; /* [nets][KNOWN_DEVICES_MAX] */
    double *macs;  /* [nets] logarithm, NAN when not known */
} known;

static size_t find_or_add(char *names, size_t width, size_t *n, size_t max, const char *name) {
    size_t i = 0;
    while (i < *n && strncmp(names + i * width, name, width - 1) != 0)
        i++;
    if (i == *n && *n < max) (void)snprintf(names + (*n)++ * width, width, "%s", name);
    return i < max ? i : max - 1;
}

static known known_new(const bench *b, const char *name) {
    known k = {.name = name,
               .net = array(b, KNOWN_NETS_MAX, sizeof *k.net),
               .setting = array(b, KNOWN_DEVICES_MAX, sizeof *k.setting),
               .chip = array(b, KNOWN_DEVICES_MAX, sizeof *k.chip),
               .log_y = array(b, (size_t)KNOWN_NETS_MAX * KNOWN_DEVICES_MAX, sizeof *k.log_y),
               .macs = array(b, KNOWN_NETS_MAX, sizeof *k.macs)};
    for (size_t i = 0; i < (size_t)KNOWN_NETS_MAX * KNOWN_DEVICES_MAX; i++)
        k.log_y[i] = NAN;
    for (size_t i = 0; i < KNOWN_NETS_MAX; i++)
        k.macs[i] = NAN;
    return k;
}

static void known_free(known *k) {
    nas_free(k->macs);
    nas_free(k->log_y);
    nas_free(k->chip);
    nas_free(k->setting);
    nas_free(k->net);
}

static void known_put(known *k, const char *net, const char *setting, const char *chip, double y) {
    if (!(y > 0)) return;
    const size_t n = find_or_add(&k->net[0][0], sizeof k->net[0], &k->nets, KNOWN_NETS_MAX, net);
    const size_t s = find_or_add(&k->setting[0][0], sizeof k->setting[0], &k->settings,
                                 KNOWN_DEVICES_MAX, setting);
    (void)snprintf(k->chip[s], sizeof k->chip[s], "%s", chip);
    k->log_y[n * KNOWN_DEVICES_MAX + s] = log(y);
}

/* The settings of other chips that know most of the networks listed; *n of them, REFERENCES_MAX at most. */
static size_t references(const known *k, size_t target, const size_t *nets, size_t n_nets,
                         size_t *out) {
    size_t n = 0;
    for (size_t least = n_nets; least > 0 && least + 5 >= n_nets && n < REFERENCES_MAX; least--) {
        for (size_t s = 0; s < k->settings && n < REFERENCES_MAX; s++) {
            if (strcmp(k->chip[s], k->chip[target]) == 0) continue;
            size_t count = 0;
            for (size_t i = 0; i < n_nets; i++)
                count += (size_t)!isnan(k->log_y[nets[i] * KNOWN_DEVICES_MAX + s]);
            if (count == least) out[n++] = s;
        }
    }
    return n;
}

/* Features of the networks: logarithms on the references, gaps filled by the additive rule. lookup: their mean. */
static void known_features(const known *k, const size_t *nets, size_t n_nets, const size_t *refs,
                           size_t n_refs, double *x, double *lookup) {
    double column[REFERENCES_MAX] = {0}, all = 0;
    for (size_t c = 0; c < n_refs; c++) {
        double sum = 0, count = 0;
        for (size_t i = 0; i < n_nets; i++) {
            const double y = k->log_y[nets[i] * KNOWN_DEVICES_MAX + refs[c]];
            if (!isnan(y)) sum += y, count++;
        }
        column[c] = sum / count;
        all += column[c] / (double)n_refs;
    }
    for (size_t i = 0; i < n_nets; i++) {
        double sum = 0, count = 0;
        for (size_t c = 0; c < n_refs; c++) {
            const double y = k->log_y[nets[i] * KNOWN_DEVICES_MAX + refs[c]];
            if (!isnan(y)) sum += y - column[c], count++;
        }
        const double net = count > 0 ? sum / count : 0;
        lookup[i] = all + net;
        for (size_t c = 0; c < n_refs; c++) {
            const double y = k->log_y[nets[i] * KNOWN_DEVICES_MAX + refs[c]];
            x[i * n_refs + c] = isnan(y) ? column[c] + net : y;
        }
    }
}

typedef struct known_results {
    results ours, lookup;
} known_results;

/* The lookup table: mean of the references times the median ratio on the ten. */
static void add_lookup(const bench *b, const nas_latency_table *few, const nas_latency_table *test,
                       const double *few_lookup, const double *test_lookup, results *r) {
    nas_device_model_quality q = {0};
    double ratio = 0;
    for (size_t i = 0; i < few->n_rows; i++)
        ratio += (log(few->y[i]) - few_lookup[i]) / (double)few->n_rows;
    need(b, nas_rank_correlation(b->ctx, test_lookup, test->y, test->n_rows, &q.spearman, NULL));
    for (size_t i = 0; i < test->n_rows; i++) {
        const double off = fabs(exp(test_lookup[i] + ratio) / test->y[i] - 1);
        q.mape += off / (double)test->n_rows;
        q.within5 += (off <= 0.05) / (double)test->n_rows;
        q.within10 += (off <= 0.10) / (double)test->n_rows;
    }
    add(r, &q, 0, 0);
}

static bool known_target(const bench *b, const known *k, size_t target, known_results *out) {
    enum { NETS_MIN = 20 };
    size_t *nets = array(b, k->nets, sizeof *nets), n = 0, refs[REFERENCES_MAX];
    for (size_t i = 0; i < k->nets; i++)
        if (!isnan(k->log_y[i * KNOWN_DEVICES_MAX + target])) nets[n++] = i;
    const size_t n_refs = n >= NETS_MIN ? references(k, target, nets, n, refs) : 0;
    const bool ok = n_refs >= 3;
    double *x = array(b, n * (n_refs + 1), sizeof *x), *lookup = array(b, n, sizeof *lookup);
    size_t *order = array(b, n, sizeof *order);
    char names[REFERENCES_MAX][16];
    nas_feature features[REFERENCES_MAX];
    for (size_t c = 0; c < n_refs; c++) {
        (void)snprintf(names[c], sizeof names[c], "device%zu", c);
        features[c] = (nas_feature){.name = names[c], .kind = NAS_FEATURE_SHAPE};
    }
    for (int seed = 0; ok && seed < b->seeds; seed++) {
        shuffle(b, n, seed, order);
        size_t *chosen = array(b, n, sizeof *chosen);
        double *y = array(b, n, sizeof *y), *macs = array(b, n, sizeof *macs), rho = 0;
        for (size_t i = 0; i < n; i++) {
            chosen[i] = nets[order[i]];
            y[i] = exp(k->log_y[chosen[i] * KNOWN_DEVICES_MAX + target]);
            macs[i] = k->macs[chosen[i]];
        }
        known_features(k, chosen, n, refs, n_refs, x, lookup);
        const nas_latency_table few = {.device = k->setting[target],
                                       .features = features,
                                       .n_features = n_refs,
                                       .n_rows = SAMPLES,
                                       .x = x,
                                       .y = y};
        const nas_latency_table test = {.device = k->setting[target],
                                        .features = features,
                                        .n_features = n_refs,
                                        .n_rows = n - SAMPLES,
                                        .x = x + SAMPLES * n_refs,
                                        .y = y + SAMPLES};
        const nas_device_model_options options = nas_device_model_options_default();
        nas_device_model *model = NULL;
        nas_device_model_quality q;
        need(b, nas_device_model_fit(b->ctx, &few, &options, &model));
        need(b, nas_device_model_evaluate(b->ctx, model, &test, &q));
        if (!isnan(macs[SAMPLES]))
            need(b, nas_rank_correlation(b->ctx, macs + SAMPLES, test.y, test.n_rows, &rho, NULL));
        add(&out->ours, &q, rho, 0);
        add_lookup(b, &few, &test, lookup, lookup + SAMPLES, &out->lookup);
        nas_device_model_free(model);
        nas_free(macs);
        nas_free(y);
        nas_free(chosen);
    }
    nas_free(order);
    nas_free(lookup);
    nas_free(x);
    nas_free(nets);
    return ok;
}

static void show_known(const bench *b, const known *k) {
    results ours = {0}, lookup = {0};
    for (size_t s = 0; s < k->settings; s++) {
        known_results r = {0};
        if (!known_target(b, k, s, &r)) continue;
        join(&ours, &r.ours);
        join(&lookup, &r.lookup);
    }
    char settings[64];
    (void)snprintf(settings, sizeof settings, "MEAN of %d settings", ours.n);
    if (ours.n == 0) return;
    show(k->name, settings, "known", SAMPLES, &ours, "");
    show(k->name, settings, "  lookup", SAMPLES, &lookup, "");
}

static void bench_known(const bench *b) {
    problem p;
    if (load(b, "ncnn_bench/ncnn_bench.csv.gz", "ncnn", &p)) {
        known k = known_new(b, "ncnn");
        for (size_t i = 0; i < p.table.rows; i++) {
            char setting[192];
            (void)snprintf(setting, sizeof setting, "%.120s t%s p%s g%s", csv_text(&p.table, i, 0),
                           csv_text(&p.table, i, 1), csv_text(&p.table, i, 2),
                           csv_text(&p.table, i, 3));
            known_put(&k, csv_text(&p.table, i, 5), setting, csv_text(&p.table, i, 0),
                      csv_number(&p.table, i, csv_column(&p.table, "avg_ms")));
        }
        show_known(b, &k);
        known_free(&k);
        problem_deinit(&p);
    }
    if (load(b, "aihub_latency/aihub_latency.csv.gz", "aihub", &p)) {
        known k = known_new(b, "aihub");
        for (size_t i = 0; i < p.table.rows; i++) {
            char net[96], setting[192];
            (void)snprintf(net, sizeof net, "%s/%s/%s", csv_text(&p.table, i, 0),
                           csv_text(&p.table, i, 1), csv_text(&p.table, i, 2));
            (void)snprintf(setting, sizeof setting, "%s %s", csv_text(&p.table, i, 3),
                           csv_text(&p.table, i, 4));
            known_put(&k, net, setting, csv_text(&p.table, i, 3), csv_number(&p.table, i, 5));
        }
        show_known(b, &k);
        known_free(&k);
        problem_deinit(&p);
    }
    static const char *const qed[] = {"tflite_cnn_e2e", "torch_cnn_e2e", "tflite_nas_e2e",
                                      "torch_nas_e2e"};
    for (size_t f = 0; f < sizeof qed / sizeof qed[0]; f++) {
        char file[128];
        (void)snprintf(file, sizeof file, "mobile_cnn_qed/%s.csv.gz", qed[f]);
        if (!load(b, file, qed[f], &p)) continue;
        known k = known_new(b, qed[f]);
        for (size_t i = 0; i < p.table.rows; i++) {
            for (size_t c = 3; c < p.table.columns; c++) {
                char phone[64];
                (void)snprintf(phone, sizeof phone, "%s", p.table.head[c]);
                if (strstr(phone, "_us") == NULL) continue;
                phone[strcspn(phone, "_")] = '\0'; /* other cores of a phone are no references */
                known_put(&k, csv_text(&p.table, i, 0), p.table.head[c], phone,
                          csv_number(&p.table, i, c));
            }
            for (size_t n = 0; n < k.nets; n++) {
                if (strcmp(k.net[n], csv_text(&p.table, i, 0)) == 0)
                    k.macs[n] = log(csv_number(&p.table, i, 1));
            }
        }
        show_known(b, &k);
        known_free(&k);
        problem_deinit(&p);
    }
}

int main(int argc, char **argv) {
    bench b = {.ctx = nas_ctx_new(), .data = "../shared/data", .seeds = 5, .test_rows = 3000};
    const char *only = "";
    if (b.ctx == NULL) return NAS_EXIT_FAILED;
    for (int i = 1; i + 1 < argc; i += 2) {
        int64_t number = 0;
        if (strcmp(argv[i], "--data") == 0) {
            b.data = argv[i + 1];
        } else if (strcmp(argv[i], "--only") == 0) {
            only = argv[i + 1];
        } else if (strcmp(argv[i], "--seeds") == 0 || strcmp(argv[i], "--test") == 0) {
            need(&b, nas_parse_i64(b.ctx, argv[i], argv[i + 1], 1, 1000000, &number));
            if (argv[i][2] == 's')
                b.seeds = (int)number;
            else
                b.test_rows = (size_t)number;
        } else {
            (void)fprintf(stderr, "bench_predictor: unknown option %s\n", argv[i]);
            return NAS_EXIT_USAGE;
        }
    }
    static const struct {
        const char *name;
        void (*run)(const bench *b);
    } parts[] = {{"nb201", bench_nb201},    {"hw360", bench_hw360}, {"fbnet", bench_fbnet},
                 {"ofa", bench_ofa},        {"hat", bench_hat},     {"known", bench_known},
                 {"classes", bench_classes}};
    head();
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (only[0] == '\0' || strcmp(only, parts[i].name) == 0) parts[i].run(&b);
    }
    nas_ctx_free(b.ctx);
    return NAS_EXIT_OK;
}
