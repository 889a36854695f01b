/* latency_study.c - see latency_study.h. */
#include "tools/latency_study.h"

#include "tools/latency_data.h"
#include "tools/latency_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts --------------------------------------------------------------------------------------------------------------- */

/* Reads "360x640 "; the length read, 0 when it is not there. */
static int read_extents(const char *arch, int *height, int *width) {
    int used = 0;
    if (sscanf(arch, "%5dx%5d %n", height, width, &used) != 2 || used == 0) return 0;
    return *height > 0 && *width > 0 ? used : 0;
}

bool nas_latency_is_study_arch(const char *arch) {
    int height = 0, width = 0;
    const int used = read_extents(arch, &height, &width);
    return used > 0 && strncmp(arch + used, "sr ", 3) == 0;
}

nas_status nas_latency_study_graph(nas_ctx *ctx, const char *arch, nas_graph **out) {
    int height = 0, width = 0;
    const int used = read_extents(arch, &height, &width);
    if (used == 0)
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "'%.60s' is no network of a study: write \"360x640 sr x2 ...\"", arch);
    return nas_sr_text_graph(ctx, arch + used, height, width, out);
}

/* ---- networks ------------------------------------------------------------------------------------------------------------ */

typedef struct network {
    char *arch; /* owned */
    double p50_us;
    bool noisy;
} network;

/* By architecture; of one, what stands comes first. */
static int by_arch(const void *a, const void *b) {
    const network *x = a, *y = b;
    const int order = strcmp(x->arch, y->arch);
    if (order != 0) return order;
    if (x->noisy != y->noisy) return x->noisy ? 1 : -1;
    return x->p50_us < y->p50_us ? -1 : x->p50_us > y->p50_us;
}

static bool is_named(const nas_db_study_latency *row, const char *device) {
    return strcmp(row->device, device) == 0 || strcmp(row->queue, device) == 0;
}

static bool is_alike(const nas_db_study_latency *a, const nas_db_study_latency *b) {
    return strcmp(a->fingerprint, b->fingerprint) == 0 && strcmp(a->target, b->target) == 0 &&
           a->threads == b->threads;
}

static nas_status network_of(nas_ctx *ctx, const nas_db_study_latency *row, network *out) {
    nas_buf text = {0};
    const int32_t scale = row->scale < 1 ? 1 : row->scale;
    nas_buf_printf(&text, "%dx%d %s", (int)(row->out_height / scale), (int)(row->out_width / scale),
                   row->point);
    const nas_status status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) *out = (network){nas_strdup(ctx, text.data), row->p50_us, row->noisy};
    nas_buf_deinit(&text);
    return status == NAS_OK && out->arch == NULL ? NAS_ERR_NOMEM : status;
}

static nas_status put_network(nas_ctx *ctx, nas_db *db, const nas_encoder *encoder,
                              const network *n, int64_t series, int64_t import) {
    size_t width = 0;
    (void)nas_encoder_features(encoder, &width);
    double *x = nas_alloc_array(ctx, width, sizeof *x);
    nas_graph *graph = NULL;
    nas_buf features = {0};
    nas_status status = x == NULL ? NAS_ERR_NOMEM : nas_latency_study_graph(ctx, n->arch, &graph);
    if (status == NAS_OK) status = nas_encoder_graph_row(ctx, encoder, graph, x);
    if (status == NAS_OK) {
        nas_features_json(x, width, &features);
        status = nas_buf_status(ctx, &features);
    }
    if (status == NAS_OK) {
        const nas_db_value row = {.series_id = series,
                                  .import_id = import,
                                  .arch = n->arch,
                                  .value = n->p50_us,
                                  .features = features.data};
        status = nas_db_value_put(ctx, db, &row, true);
    }
    nas_buf_deinit(&features);
    nas_graph_free(graph);
    nas_free(x);
    return status;
}

static nas_status put_networks(nas_ctx *ctx, nas_db *db, const char *device, network *list,
                               size_t n, int64_t import, size_t *put) {
    nas_encoder *encoder = NULL;
    int64_t series = 0;
    nas_status status = nas_encoder_new(ctx, "network", &encoder);
    if (status == NAS_OK)
        status = nas_db_series_put(ctx, db, device, "network", NAS_DB_LATENCY, &series);
    if (n > 1) qsort(list, n, sizeof *list, by_arch);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        if (i > 0 && strcmp(list[i].arch, list[i - 1].arch) == 0) continue;
        status = put_network(ctx, db, encoder, &list[i], series, import);
        (*put)++;
    }
    nas_encoder_free(encoder);
    return status;
}

/* ---- layers -------------------------------------------------------------------------------------------------------------- */

/* "layer conv3x3 360x640 8>16", as the search names what it timed alone: a convolution of stride 1. False for others. */
static bool layer_shape(const char *text, nas_kernel_shape *out) {
    int k = 0, k2 = 0, h = 0, w = 0, in = 0, to = 0, used = 0;
    if (sscanf(text, "layer conv%2dx%2d %5dx%5d %5d>%5d%n", &k, &k2, &h, &w, &in, &to, &used) != 6)
        return false;
    if (k != k2 || text[used] != '\0') return false;
    *out =
        (nas_kernel_shape){.height = h, .width = w, .in = in, .out = to, .kernel = k, .stride = 1};
    return true;
}

static nas_status put_layer(nas_ctx *ctx, nas_db *db, const char *kernel, double us, int64_t series,
                            int64_t import, size_t *put) {
    nas_kernel_shape shape;
    nas_buf text = {0};
    if (!layer_shape(kernel, &shape)) return NAS_OK;
    nas_kernel_shape_format(&shape, &text);
    nas_status status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) {
        const nas_db_value row = {
            .series_id = series, .import_id = import, .arch = text.data, .value = us};
        status = nas_db_value_put(ctx, db, &row, true);
    }
    (*put)++;
    nas_buf_deinit(&text);
    return status;
}

static nas_status put_layers(nas_ctx *ctx, nas_db *db, const char *device,
                             const nas_db_study_latency *like, int64_t import, size_t *put) {
    char text[320]; /* as the search writes it: name, processor, target */
    (void)snprintf(text, sizeof text, "%s%s %.16s %s", like->simulated ? "SIMULATED " : "",
                   like->device, like->fingerprint, like->target);
    const nas_db_kernel_key key = {"", "alone", text, like->threads};
    char **kernels = NULL;
    nas_db_kernel_timing *timings = NULL;
    size_t n = 0;
    int64_t series = 0;
    nas_status status = nas_db_kernel_timings(ctx, db, &key, &kernels, &timings, &n);
    if (status == NAS_OK && n > 0)
        status = nas_db_series_put(ctx, db, device, "kernel", NAS_DB_LATENCY, &series);
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status = put_layer(ctx, db, kernels[i], timings[i].p50_ns * 1e-3, series, import, put);
    nas_db_kernel_timings_free(kernels, timings, n);
    return status;
}

/* ---- both ---------------------------------------------------------------------------------------------------------------- */

static nas_status take(nas_ctx *ctx, nas_db *db, const char *device,
                       const nas_db_study_latency *rows, size_t n, nas_study_rows *out) {
    const nas_db_study_latency *last = NULL;
    for (size_t i = 0; i < n; i++) {
        if (is_named(&rows[i], device)) last = &rows[i];
    }
    if (last == NULL) return NAS_OK;
    network *list = nas_alloc_array(ctx, n, sizeof *list);
    size_t count = 0;
    int64_t import = 0;
    nas_status status = list == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        if (!is_named(&rows[i], device)) continue;
        out->others += !is_alike(&rows[i], last);
        if (is_alike(&rows[i], last)) status = network_of(ctx, &rows[i], &list[count++]);
    }
    if (status == NAS_OK)
        status = nas_db_import_put(ctx, db, "studies of this database", "study", "", &import);
    if (status == NAS_OK)
        status = put_networks(ctx, db, device, list, count, import, &out->networks);
    if (status == NAS_OK) status = put_layers(ctx, db, device, last, import, &out->layers);
    for (size_t i = 0; i < count; i++)
        nas_free(list[i].arch);
    nas_free(list);
    return status;
}

nas_status nas_latency_take_studies(nas_ctx *ctx, nas_db *db, const char *device,
                                    nas_study_rows *out) {
    nas_db_study_latency *rows = NULL;
    size_t n = 0;
    *out = (nas_study_rows){0};
    nas_status status = nas_db_begin(ctx, db);
    if (status == NAS_OK) status = nas_db_study_latencies(ctx, db, "sr", &rows, &n);
    if (status == NAS_OK) status = take(ctx, db, device, rows, n, out);
    if (status == NAS_OK) status = nas_db_commit(ctx, db);
    if (status != NAS_OK) nas_db_rollback(db);
    nas_db_study_latencies_free(rows, n);
    return nas_wrap(ctx, status, "studies on device '%s'", device);
}
