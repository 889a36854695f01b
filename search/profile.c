/* profile.c - on demand (measure.profile): how long each convolution of the finished front takes alone on each device.
 *
 * A convolution becomes a network of its own, is compiled for the device and timed there by the same protocol as a
 * candidate; the time is a row of kernel_timings with way "alone", and equal layers are timed once for ever. The sum over
 * a network is not its latency: in a candidate layers run as one pipeline over rows and share the caches. */
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS_MAX = 512, KERNEL_TEXT_MAX = 128, DEVICE_TEXT_MAX = 320 };

typedef struct layer {
    const nas_node *node;
    nas_shape in;
    char kernel[KERNEL_TEXT_MAX];
} layer;

/* ---- one layer --------------------------------------------------------------------------------------------------------- */

static nas_status layer_graph(nas_ctx *ctx, const layer *l, nas_graph **out) {
    nas_graph *g = nas_graph_new(ctx, "layer");
    if (g == NULL) return NAS_ERR_NOMEM;
    nas_value x = 0, y = 0;
    nas_status status = nas_graph_add_input(ctx, g, "input", l->in, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "conv", x, &l->node->conv, &y);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, y);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return status;
    }
    *out = g;
    return NAS_OK;
}

static nas_status compile_layer(nas__study *s, const nas__device *d, const layer *l,
                                nas_graph **graph, nas_artifact *artifact) {
    nas_weights *weights = NULL;
    nas_rng rng = nas_rng_stream(s->config->study.seed, 0, "profile");
    nas_status status = layer_graph(s->ctx, l, graph);
    if (status == NAS_OK) status = nas_weights_new(s->ctx, *graph, &rng, &weights);
    if (status == NAS_OK) status = nas_weights_fill(s->ctx, weights, *graph);
    if (status == NAS_OK)
        status = nas_compile(s->ctx, *graph, &s->targets[d->target].compile, artifact);
    nas_weights_free(weights);
    return status;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static nas_db_kernel_timing timing_of(nas_measurement *m) {
    nas_db_kernel_timing t = {.p50_ns = m->p50_us * 1e3, .runs = (int32_t)m->n_samples};
    qsort(m->samples_us, m->n_samples, sizeof *m->samples_us, by_value);
    t.lo_ns = fmin(m->samples_us[m->n_samples / 4] * 1e3, t.p50_ns);
    t.hi_ns = fmax(m->samples_us[m->n_samples * 3 / 4] * 1e3, t.p50_ns);
    return t;
}

static nas_status time_layer(nas__study *s, nas__device *d, const layer *l,
                             const nas_db_kernel_key *key) {
    nas_graph *graph = NULL;
    nas_artifact artifact = {0};
    nas_measurement m = {0};
    nas_status status = compile_layer(s, d, l, &graph, &artifact);
    if (status == NAS_OK) {
        const nas_measure_options o = nas__measure_options(s, d, false);
        status = nas_measure(s->ctx, d->handle, graph, artifact.path, artifact.sha256, &o, &m);
    }
    if (status == NAS_OK && m.n_samples > 0) {
        const nas_db_kernel_timing timing = timing_of(&m);
        status = nas_db_kernel_timing_put(s->ctx, s->db, key, &timing);
    }
    nas_measurement_deinit(&m);
    nas_graph_free(graph);
    return status;
}

/* ---- one network ------------------------------------------------------------------------------------------------------- */

/* The text that joins a layer of v_layer with its time: family, output extent, channels. */
static void kernel_text(const nas_layer_features *f, char out[KERNEL_TEXT_MAX]) {
    (void)snprintf(out, KERNEL_TEXT_MAX, "layer %s %dx%d %d>%d", f->family, (int)f->h, (int)f->w,
                   (int)f->c_in, (int)f->c_out);
}

static size_t find_layers(const nas_graph *g, const nas_layer_features *features, size_t n,
                          layer *out) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
            const nas_node *node = nas_graph_node(g, v);
            if (node->op != NAS_OP_CONV || strcmp(node->name, features[i].node) != 0) continue;
            out[found].node = node;
            out[found].in = nas_graph_node(g, node->inputs[0])->shape;
            kernel_text(&features[i], out[found].kernel);
            found++;
        }
    }
    return found;
}

/* Whose time it is: the processor by its fingerprint, the code by target and compiler. */
static void device_text(const nas__study *s, const nas__device *d, char out[DEVICE_TEXT_MAX]) {
    (void)snprintf(out, DEVICE_TEXT_MAX, "%s%s %.16s %s",
                   nas_device_is_simulated(d->handle) ? "SIMULATED " : "", d->config->name,
                   nas_device_fingerprint(d->handle), s->targets[d->target].row.name);
}

static nas_status profile_on(nas__study *s, nas__device *d, const layer *layers, size_t n) {
    char device[DEVICE_TEXT_MAX];
    device_text(s, d, device);
    for (size_t i = 0; i < n; i++) {
        const nas_db_kernel_key key = {layers[i].kernel, "alone", device, d->config->threads};
        nas_db_kernel_timing known;
        bool found = false;
        nas_status status = nas_check_cancel(s->ctx);
        if (status == NAS_OK)
            status = nas_db_kernel_timing_get(s->ctx, s->db, &key, &found, &known);
        if (status == NAS_OK && !found) status = time_layer(s, d, &layers[i], &key);
        if (status != NAS_OK) return nas_wrap(s->ctx, status, "%s", layers[i].kernel);
    }
    return NAS_OK;
}

/* A device that is lost now costs its profile, not the study. */
static nas_status profile_devices(nas__study *s, const layer *layers, size_t n) {
    for (int32_t i = 0; i < s->n_devices; i++) {
        nas__device *d = &s->devices[i];
        if (d->away) continue;
        const nas_status status = profile_on(s, d, layers, n);
        if (status == NAS_OK) continue;
        if (!nas__device_is_lost(s->ctx, d, status)) return status;
        nas_log(s->ctx, NAS_LOG_WARN, "%s is lost, its profile is incomplete: %s", d->config->name,
                nas_ctx_message(s->ctx));
        d->away = true;
        d->away_since_ns = nas_now_ns();
    }
    return NAS_OK;
}

static nas_status profile_trial(nas__study *s, size_t index) {
    nas_layer_features *features = nas_alloc_array(s->ctx, LAYERS_MAX, sizeof *features);
    layer *layers = nas_alloc_array(s->ctx, LAYERS_MAX, sizeof *layers);
    nas_graph *graph = NULL;
    size_t n = 0;
    nas_status status = features == NULL || layers == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = nas__study_decode(s, &s->trials[index].point, &graph);
    if (status == NAS_OK) {
        status = nas_layer_features_of(s->ctx, graph, 4, features, LAYERS_MAX, &n);
    }
    if (status == NAS_OK) {
        n = find_layers(graph, features, n < LAYERS_MAX ? n : LAYERS_MAX, layers);
        status = profile_devices(s, layers, n);
    }
    nas_graph_free(graph);
    nas_free(layers);
    nas_free(features);
    return status;
}

nas_status nas__phase_profile(nas__study *s) {
    if (!s->config->measure.profile) return NAS_OK;
    size_t n = 0, done = 0;
    for (size_t i = 0; i < s->n_trials; i++)
        n += s->trials[i].from_strategy && s->trials[i].row.values.final_psnr_y_db.is_set;
    nas__progress_phase(&s->progress, "profile", 0, (double)n);
    nas_status status = NAS_OK;
    for (size_t i = 0; i < s->n_trials && status == NAS_OK; i++) {
        const nas__trial *trial = &s->trials[i];
        if (!trial->from_strategy || !trial->row.values.final_psnr_y_db.is_set) continue;
        status = profile_trial(s, i);
        nas__progress_update(&s->progress, (double)++done, "layers of trial %zu", i);
    }
    if (status == NAS_OK) nas__progress_end(&s->progress);
    return nas_wrap(s->ctx, status, "profile");
}
