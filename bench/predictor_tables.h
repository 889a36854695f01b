/* predictor_tables.h - published tables as problems for bench_predictor: architectures as the features that nas-latency
 * gives them (decoded graphs, tools/latency_encode.h), a column of values for each device. */
#ifndef NAS_BENCH_PREDICTOR_TABLES_H
#define NAS_BENCH_PREDICTOR_TABLES_H

#include "bench/predictor_csv.h"
#include "tools/latency_encode.h"

#include <math.h>

enum { DEVICES_MAX = 64, TEXT_MAX = 256 };

typedef struct bench {
    nas_ctx *ctx;
    const char *data;
    int seeds;
    size_t test_rows;
    bool random;     /* random samples too */
    size_t *missing; /* counts tables that could not be read */
} bench;

/* One published table. */
typedef struct problem {
    const char *name;
    size_t rows, n_features, n_devices;
    nas_encoder *encoder; /* owns the features; NULL where columns of the table are the features */
    const nas_feature *features;
    nas_feature *columns; /* the features of a table without encoder */
    double *x, *y;        /* [rows][n_features], [n_devices][rows] */
    const char **devices;
    long *group;   /* [rows] isomorphism class, or the row itself */
    size_t macs;   /* feature that stands for the MACs */
    double *bound; /* [n_devices] rank correlation that the noise leaves room for; 0: not known */
    csv table;
} problem;

static void problem_deinit(problem *p) {
    nas_free(p->bound);
    nas_free(p->group);
    nas_free(p->devices);
    nas_free(p->y);
    nas_free(p->x);
    nas_free(p->columns);
    nas_encoder_free(p->encoder);
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

/* ---- loading ---------------------------------------------------------------------------------------------------- */

/* Says that a table could not be read and why. */
static void leave_out(const bench *b, const char *name) {
    printf("%-10s left out: %s\n", name, nas_ctx_message(b->ctx));
    ++*b->missing;
}

static bool load(const bench *b, const char *file, const char *name, problem *p) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", b->data, file);
    *p = (problem){.name = name};
    if (csv_read(b->ctx, path, &p->table) == NAS_OK) {
        p->rows = p->table.rows;
        return true;
    }
    leave_out(b, name);
    return false;
}

/* The architecture of a row as the space's parser reads it. */
typedef void (*arch_text)(const csv *table, size_t row, char *text);

static void ops_text(const csv *t, size_t row, char *text) {
    (void)snprintf(text, TEXT_MAX, "%s", csv_text(t, row, csv_column(t, "ops")));
}

static void ofa_text(const csv *t, size_t row, char *text) {
    (void)snprintf(text, TEXT_MAX, "ks=%s;expand=%s;depth=%s;resolution=%s", csv_text(t, row, 1),
                   csv_text(t, row, 2), csv_text(t, row, 3), csv_text(t, row, 4));
}

/* Features of every row: its graph decoded in `space`. */
static void set_space(const bench *b, problem *p, const char *space, arch_text text) {
    need(b, nas_encoder_new(b->ctx, space, &p->encoder));
    p->features = nas_encoder_features(p->encoder, &p->n_features);
    p->x = array(b, p->rows * p->n_features, sizeof *p->x);
    p->group = array(b, p->rows, sizeof *p->group);
    char(*texts)[TEXT_MAX] = array(b, p->rows, sizeof *texts);
    const char **archs = array(b, p->rows, sizeof *archs);
    for (size_t i = 0; i < p->rows; i++) {
        text(&p->table, i, texts[i]);
        archs[i] = texts[i];
        p->group[i] = (long)i;
    }
    const int64_t start = nas_now_ns();
    need(b, nas_encoder_rows(b->ctx, p->encoder, archs, p->rows, p->x));
    printf("%-10s %zu architectures decoded to %zu features each in %.2f s\n", p->name, p->rows,
           p->n_features, (double)(nas_now_ns() - start) * 1e-9);
    for (size_t k = 0; k < p->n_features; k++)
        if (strcmp(p->features[k].name, "log.macs") == 0) p->macs = k;
    nas_free(archs);
    nas_free(texts);
}

/* The first n columns of the table as features. */
static void set_columns(const bench *b, problem *p, size_t n) {
    p->columns = array(b, n, sizeof *p->columns);
    p->features = p->columns;
    p->n_features = n;
    p->x = array(b, p->rows * n, sizeof *p->x);
    p->group = array(b, p->rows, sizeof *p->group);
    for (size_t c = 0; c < n; c++)
        p->columns[c] = (nas_feature){.name = p->table.head[c], .kind = NAS_FEATURE_SHAPE};
    for (size_t i = 0; i < p->rows; i++) {
        p->group[i] = (long)i;
        for (size_t c = 0; c < n; c++)
            p->x[i * n + c] = csv_number(&p->table, i, c);
    }
}

/* Columns from..to as devices. Values below a hundredth of the mean are put there: networks of which an engine leaves
 * nothing. */
static void set_devices(const bench *b, problem *p, const size_t *columns, size_t n) {
    p->n_devices = n;
    p->devices = array(b, n, sizeof *p->devices);
    p->y = array(b, n * p->rows, sizeof *p->y);
    p->bound = array(b, n, sizeof *p->bound);
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

/* ---- parts of a table ------------------------------------------------------------------------------------------- */

static void shuffle(size_t n, int seed, size_t *order) {
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

/* ---- what noise leaves ------------------------------------------------------------------------------------------- */

/* Rank correlation of values with themselves after one of the noises is added to each logarithm. */
static double rank_after_noise(const bench *b, const double *log_y, size_t n, const double *noise,
                               size_t n_noise) {
    double rho = 0, *noisy = array(b, n, sizeof *noisy);
    nas_rng rng = nas_rng_stream(1, n_noise, "bench-noise");
    for (size_t i = 0; i < n; i++)
        noisy[i] = log_y[i] + noise[nas_rng_below(&rng, (uint32_t)n_noise)];
    need(b, nas_rank_correlation(b->ctx, noisy, log_y, n, &rho, NULL));
    nas_free(noisy);
    return rho;
}

/* The same cell with nodes 1 and 2 exchanged, which is a measurement of the same thing; false when there is none. */
static bool nb201_twin(const char *text, char *twin) {
    if (text[2] != '0') return false;
    const char swapped[] = {text[1], text[0], '0', text[3], text[5], text[4], '\0'};
    memcpy(twin, swapped, sizeof swapped);
    return strcmp(twin, text) != 0;
}

/* Twins: the same network measured twice, so their difference over the root of two is the noise of one measurement. */
static void bounds_by_twins(const bench *b, problem *p) {
    enum { CELLS = 15625 }; /* five to the sixth */
    const size_t text = csv_column(&p->table, "ops");
    size_t *by_text = array(b, CELLS, sizeof *by_text); /* row + 1 */
    double *noise = array(b, p->rows, sizeof *noise), *log_y = array(b, p->rows, sizeof *log_y);
    for (size_t i = 0; i < p->rows; i++)
        by_text[strtoul(csv_text(&p->table, i, text), NULL, 5)] = i + 1;
    for (size_t d = 0; d < p->n_devices; d++) {
        size_t n = 0;
        for (size_t i = 0; i < p->rows; i++)
            log_y[i] = log(p->y[d * p->rows + i]);
        for (size_t i = 0; i < p->rows; i++) {
            char twin[7];
            if (!nb201_twin(csv_text(&p->table, i, text), twin)) continue;
            const size_t other = by_text[strtoul(twin, NULL, 5)];
            if (other != 0) noise[n++] = (log_y[i] - log_y[other - 1]) / sqrt(2);
        }
        if (n > 0) p->bound[d] = rank_after_noise(b, log_y, p->rows, noise, n);
    }
    nas_free(log_y);
    nas_free(noise);
    nas_free(by_text);
}

/* No twins: a model of the device's own rows stands for the truth, its errors on rows it has not seen for the noise.
 * That is noise only as far as the errors of different devices have nothing in common: their largest rank correlation
 * between any two devices is printed. */
static void bounds_by_own_rows(const bench *b, problem *p) {
    const size_t half = p->rows / 2, rest = p->rows - half;
    size_t *order = array(b, p->rows, sizeof *order);
    double *log_y = array(b, rest, sizeof *log_y),
           *errors = array(b, p->n_devices * rest, sizeof *errors);
    shuffle(p->rows, 0, order);
    for (size_t d = 0; d < p->n_devices; d++) {
        nas_latency_table train = part(b, p, d, order, half),
                          test = part(b, p, d, order + half, rest);
        const nas_device_model_options options = nas_device_model_options_default();
        nas_device_model *model = NULL;
        need(b, nas_device_model_fit(b->ctx, &train, &options, &model));
        need(b, nas_device_model_predict_fast(b->ctx, model, &test, log_y));
        for (size_t i = 0; i < rest; i++) {
            log_y[i] = log(log_y[i]);
            errors[d * rest + i] = log(test.y[i]) - log_y[i];
        }
        p->bound[d] = rank_after_noise(b, log_y, rest, errors + d * rest, rest);
        nas_device_model_free(model);
        free_part(&test);
        free_part(&train);
    }
    double sum = 0, worst = 0, pairs = 0;
    size_t at[2] = {0, 0};
    for (size_t d = 0; d < p->n_devices; d++) {
        for (size_t e = 0; e < d; e++, pairs++) {
            double rho = 0;
            need(b, nas_rank_correlation(b->ctx, errors + d * rest, errors + e * rest, rest, &rho,
                                         NULL));
            sum += rho;
            if (rho > worst) worst = rho, at[0] = d, at[1] = e;
        }
    }
    if (pairs > 0)
        printf("%-10s errors of own models, rank correlation between devices: mean %.3f, largest "
               "%.3f (%s, %s)\n",
               p->name, sum / pairs, worst, p->devices[at[0]], p->devices[at[1]]);
    nas_free(errors);
    nas_free(log_y);
    nas_free(order);
}

#endif
