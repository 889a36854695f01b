/* predictor_known.h - real networks on a device never seen: ten of them measured there, all known on other devices. */
#ifndef NAS_BENCH_PREDICTOR_KNOWN_H
#define NAS_BENCH_PREDICTOR_KNOWN_H

#include "bench/predictor_results.h"

enum { KNOWN_SAMPLES = 10 };

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
    add(r, &q, &(baselines){0});
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
        shuffle(n, seed, order);
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
                                       .n_rows = KNOWN_SAMPLES,
                                       .x = x,
                                       .y = y};
        const nas_latency_table test = {.device = k->setting[target],
                                        .features = features,
                                        .n_features = n_refs,
                                        .n_rows = n - KNOWN_SAMPLES,
                                        .x = x + KNOWN_SAMPLES * n_refs,
                                        .y = y + KNOWN_SAMPLES};
        const nas_device_model_options options = nas_device_model_options_default();
        nas_device_model *model = NULL;
        nas_device_model_quality q;
        need(b, nas_device_model_fit(b->ctx, &few, &options, &model));
        need(b, nas_device_model_evaluate(b->ctx, model, &test, &q));
        if (!isnan(macs[KNOWN_SAMPLES]))
            need(b, nas_rank_correlation(b->ctx, macs + KNOWN_SAMPLES, test.y, test.n_rows, &rho,
                                         NULL));
        add(&out->ours, &q, &(baselines){.macs = rho});
        add_lookup(b, &few, &test, lookup, lookup + KNOWN_SAMPLES, &out->lookup);
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
    show(k->name, settings, "known", KNOWN_SAMPLES, &ours, "");
    show(k->name, settings, "  lookup", KNOWN_SAMPLES, &lookup, "");
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

#endif
