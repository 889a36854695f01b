/* latency_encode.c - see latency_encode.h. All features of a space are computed for points drawn with a fixed seed; those
 * that are constant, or follow one before them exactly, are left out: what remains is what a model can learn from. */
#include "tools/latency_encode.h"

#include "tools/latency_kernels.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROBES = 96, FORMS_MAX = 3, LANES = 8, NAME_BYTES = 64, EXTRAS_MAX = 128 };

struct nas_encoder {
    char space_name[NAME_BYTES];
    nas_space *
        forms[FORMS_MAX]; /* the space; of nb201 in all its forms. None of "kernel" and "network" */
    int n_forms;
    bool is_kernel, is_nb201;
    size_t n_raw; /* all features, [n_raw] names and kinds */
    char (*names)[NAME_BYTES];
    nas_feature_kind *kinds;
    size_t n; /* the ones kept */
    size_t *kept;
    nas_feature *features; /* [n] names borrowed from `names` */
};

/* ---- names of all features ---------------------------------------------------------------------------------------- */

static void add_name(nas_encoder *e, nas_feature_kind kind, const char *prefix, const char *name) {
    (void)snprintf(e->names[e->n_raw], NAME_BYTES, "%s%s", prefix, name);
    e->kinds[e->n_raw++] = kind;
}

/* Extras of a nb201 form: convolutions that read node 0..2, 3x3 ones and edges that end in node 1..3. */
/* And for all forms: "none" edges, paths from the input to the output, whether there is any. */
enum { CELL_EXTRAS = 9, CELL_TOTALS = 3 };
static const char *const cell_totals[CELL_TOTALS] = {"none", "paths", "alive"};
static const char *const cell_extras[CELL_EXTRAS] = {"reads.0",  "reads.1",  "reads.2",
                                                     "conv3.1",  "conv3.2",  "conv3.3",
                                                     "inputs.1", "inputs.2", "inputs.3"};
static const char *const form_prefixes[FORMS_MAX] = {"", "reached.", "folded."};

enum { KERNEL_EXTRAS = 14 };
static const char *const kernel_extras[KERNEL_EXTRAS] = {
    "log.height", "log.width", "log.in",   "log.out",   "log.kernel", "stride",    "depthwise",
    "waste.w8",   "waste.w16", "waste.o4", "waste.o16", "ragged.w8",  "ragged.o8", "ragged.i8"};

static bool gene_is_number(const nas_gene *gene) {
    return gene->kind != NAS_GENE_CATEGORY;
}

static void name_all(nas_encoder *e) {
    size_t n = 0;
    const nas_feature *graph = nas_graph_features_list(&n);
    for (int f = 0; f < (e->n_forms > 0 ? e->n_forms : 1); f++) {
        for (size_t i = 0; i < n; i++)
            add_name(e, graph[i].kind, form_prefixes[f], graph[i].name);
        for (int i = 0; e->is_nb201 && i < CELL_EXTRAS; i++)
            add_name(e, NAS_FEATURE_TERM, form_prefixes[f], cell_extras[i]);
    }
    for (int i = 0; e->is_nb201 && i < CELL_TOTALS; i++)
        add_name(e, NAS_FEATURE_TERM, "", cell_totals[i]);
    for (int i = 0; e->is_kernel && i < KERNEL_EXTRAS; i++)
        add_name(e, NAS_FEATURE_SHAPE, "", kernel_extras[i]);
    if (e->n_forms == 0 || e->is_nb201) return;
    for (int32_t i = 0; i < nas_space_gene_count(e->forms[0]); i++) {
        const nas_gene *gene = nas_space_gene(e->forms[0], i);
        add_name(e, gene_is_number(gene) ? NAS_FEATURE_SHAPE : NAS_FEATURE_CODE, "gene.",
                 gene->name);
    }
}

/* ---- rows of all features ----------------------------------------------------------------------------------------- */

static const int cell_from[NAS_NB201_EDGES] = {0, 0, 1, 0, 1, 2},
                 cell_to[NAS_NB201_EDGES] = {1, 2, 2, 3, 3, 3};

static void cell_totals_row(const nas_point *p, double *x) {
    double none = 0, paths[4] = {1, 0, 0, 0};
    for (int e = 0; e < NAS_NB201_EDGES; e++) {
        none += p->gene[e] == 0;
        if (p->gene[e] != 0) paths[cell_to[e]] += paths[cell_from[e]];
    }
    x[0] = none;
    x[1] = paths[3];
    x[2] = paths[3] > 0;
}

static void cell_row(const nas_point *p, int form, double *x) {
    enum { CONV1 = 2, CONV3 = 3 };
    bool built[NAS_NB201_EDGES];
    nas_nb201_built(p, (nas_nb201_form)form, built);
    for (int i = 0; i < CELL_EXTRAS; i++)
        x[i] = 0;
    for (int e = 0; e < NAS_NB201_EDGES; e++) {
        if (!built[e] || p->gene[e] == 0) continue;
        x[cell_from[e]] += p->gene[e] == CONV1 || p->gene[e] == CONV3;
        x[3 + cell_to[e] - 1] += p->gene[e] == CONV3;
        x[6 + cell_to[e] - 1] += 1;
    }
}

static nas_status point_row(nas_ctx *ctx, const nas_encoder *e, const nas_point *p, double *x) {
    size_t n = 0;
    (void)nas_graph_features_list(&n);
    for (int f = 0; f < e->n_forms; f++) {
        nas_graph *g = NULL;
        nas_status status = nas_space_decode(ctx, e->forms[f], p, &g);
        if (status == NAS_OK) status = nas_graph_features_of(ctx, g, LANES, x);
        nas_graph_free(g);
        if (status != NAS_OK) return status;
        x += n;
        if (!e->is_nb201) continue;
        cell_row(p, f, x);
        x += CELL_EXTRAS;
    }
    if (e->is_nb201) cell_totals_row(p, x);
    for (int32_t i = 0; !e->is_nb201 && i < p->n; i++) {
        const bool matters = nas_space_gene_matters(e->forms[0], p, i);
        *x++ = matters ? p->gene[i] + (gene_is_number(nas_space_gene(e->forms[0], i)) ? 1 : 0) : 0;
    }
    return NAS_OK;
}

/* What padding adds, as a share: 17 in lanes of 8 is 7/17. */
static double waste(int32_t extent, int32_t step) {
    return ceil((double)extent / step) * step / extent - 1;
}

/* Whether the last lanes stay partly empty is a feature of its own: 63 channels waste hardly more than 64, and yet they
 * may take another, slower way through a kernel. */
static nas_status kernel_row(nas_ctx *ctx, const nas_kernel_shape *s, double *x) {
    size_t n = 0;
    (void)nas_graph_features_list(&n);
    nas_graph *g = NULL;
    nas_status status = nas_kernel_shape_graph(ctx, s, &g);
    if (status == NAS_OK) status = nas_graph_features_of(ctx, g, LANES, x);
    nas_graph_free(g);
    if (status != NAS_OK) return status;
    const int32_t out_w = (s->width - 1) / s->stride + 1;
    const double extras[KERNEL_EXTRAS] = {
        log(s->height),    log(s->width),  log(s->in),      log(s->out),      log(s->kernel),
        s->stride,         s->depthwise,   waste(out_w, 8), waste(out_w, 16), waste(s->out, 4),
        waste(s->out, 16), out_w % 8 != 0, s->out % 8 != 0, s->in % 8 != 0};
    memcpy(x + n, extras, sizeof extras);
    return NAS_OK;
}

static nas_status raw_row(nas_ctx *ctx, const nas_encoder *e, const char *arch, double *x) {
    if (e->is_kernel) {
        nas_kernel_shape shape;
        const nas_status status = nas_kernel_shape_parse(ctx, arch, &shape);
        return status == NAS_OK ? kernel_row(ctx, &shape, x) : status;
    }
    if (e->n_forms == 0) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "'%s' is a network known by its graph alone: give its ONNX file", arch);
    }
    nas_point p;
    const nas_status status = nas_space_parse(ctx, e->forms[0], arch, &p);
    return status == NAS_OK ? point_row(ctx, e, &p, x) : status;
}

/* ---- which features are kept ---------------------------------------------------------------------------------------- */

static nas_status probe_row(nas_ctx *ctx, const nas_encoder *e, nas_rng *rng, double *x) {
    if (e->is_kernel) {
        nas_kernel_shape shape;
        nas_kernel_shape_sample((int32_t)nas_rng_below(rng, NAS_KERNEL_FAMILIES), rng, &shape);
        return kernel_row(ctx, &shape, x);
    }
    nas_point p;
    nas_space_sample(e->forms[0], rng, &p);
    return point_row(ctx, e, &p, x);
}

/* Standardises column k of the probes in place; false when it is constant. */
static bool standardise(double *x, size_t width, size_t k) {
    double mean = 0, squares = 0, largest = 0;
    for (size_t i = 0; i < PROBES; i++) {
        mean += x[i * width + k] / PROBES;
        largest = fmax(largest, fabs(x[i * width + k]));
    }
    for (size_t i = 0; i < PROBES; i++)
        squares += (x[i * width + k] - mean) * (x[i * width + k] - mean);
    const double spread = sqrt(squares / PROBES);
    if (!(spread > 1e-9 * largest)) return false;
    for (size_t i = 0; i < PROBES; i++)
        x[i * width + k] = (x[i * width + k] - mean) / spread;
    return true;
}

static bool follows(const double *x, size_t width, size_t a, size_t b) {
    double product = 0;
    for (size_t i = 0; i < PROBES; i++)
        product += x[i * width + a] * x[i * width + b];
    return fabs(product) > PROBES * (1 - 1e-9);
}

static nas_status choose(nas_ctx *ctx, nas_encoder *e) {
    const bool all = e->n_forms == 0 && !e->is_kernel; /* "network": nothing to probe */
    const size_t width = e->n_raw;
    double *x = nas_alloc_array(ctx, PROBES * width, sizeof *x);
    e->kept = nas_alloc_array(ctx, width, sizeof *e->kept);
    e->features = nas_alloc_array(ctx, width, sizeof *e->features);
    nas_status status =
        x == NULL || e->kept == NULL || e->features == NULL ? NAS_ERR_NOMEM : NAS_OK;
    nas_rng rng = nas_rng_stream(1, 0, "encoder probes");
    for (size_t i = 0; i < PROBES && status == NAS_OK && !all; i++)
        status = probe_row(ctx, e, &rng, x + i * width);
    for (size_t k = 0; k < width && status == NAS_OK; k++) {
        bool keep = all || e->kinds[k] == NAS_FEATURE_CODE || standardise(x, width, k);
        for (size_t j = 0; j < e->n && keep && !all && e->kinds[k] != NAS_FEATURE_CODE; j++)
            keep = e->kinds[e->kept[j]] == NAS_FEATURE_CODE || !follows(x, width, e->kept[j], k);
        if (!keep) continue;
        e->features[e->n] = (nas_feature){.name = e->names[k], .kind = e->kinds[k]};
        e->kept[e->n++] = k;
    }
    nas_free(x);
    return status;
}

/* ---- public ------------------------------------------------------------------------------------------------------- */

static nas_status open_forms(nas_ctx *ctx, const char *space, nas_encoder *e) {
    static const char *const forms[FORMS_MAX] = {"nb201", "nb201-reached", "nb201-folded"};
    e->is_nb201 = strcmp(space, "nb201") == 0 || strncmp(space, "nb201:", 6) == 0;
    for (int f = 0; f < (e->is_nb201 ? FORMS_MAX : 1); f++) {
        char name[2 * NAME_BYTES];
        (void)snprintf(name, sizeof name, "%s%s", e->is_nb201 ? forms[f] : space,
                       e->is_nb201 ? space + strlen("nb201") : "");
        const nas_status status = nas_space_new_named(ctx, name, &e->forms[f]);
        if (status == NAS_ERR_NOTFOUND)
            return nas_fail(ctx, status, "no space '%s': use %s, kernel or network", space,
                            nas_space_names());
        if (status != NAS_OK) return status;
        e->n_forms++;
    }
    return NAS_OK;
}

nas_status nas_encoder_new(nas_ctx *ctx, const char *space, nas_encoder **out) {
    if (strlen(space) >= NAME_BYTES)
        return nas_fail(ctx, NAS_ERR_NOTFOUND, "no space '%.20s...'", space);
    nas_encoder *e = nas_alloc_array(ctx, 1, sizeof *e);
    if (e == NULL) return NAS_ERR_NOMEM;
    (void)snprintf(e->space_name, sizeof e->space_name, "%s", space);
    e->is_kernel = strcmp(space, "kernel") == 0;
    nas_status status = NAS_OK;
    if (!e->is_kernel && strcmp(space, "network") != 0) status = open_forms(ctx, space, e);
    size_t n = 0;
    (void)nas_graph_features_list(&n);
    const size_t most = FORMS_MAX * (n + CELL_EXTRAS) + EXTRAS_MAX;
    if (status == NAS_OK) {
        e->names = nas_alloc_array(ctx, most, sizeof *e->names);
        e->kinds = nas_alloc_array(ctx, most, sizeof *e->kinds);
        status = e->names == NULL || e->kinds == NULL ? NAS_ERR_NOMEM : NAS_OK;
    }
    if (status == NAS_OK) {
        name_all(e);
        status = choose(ctx, e);
    }
    if (status != NAS_OK) {
        nas_encoder_free(e);
        return status;
    }
    *out = e;
    return NAS_OK;
}

void nas_encoder_free(nas_encoder *e) {
    if (e == NULL) return;
    nas_free(e->features);
    nas_free(e->kept);
    nas_free(e->kinds);
    nas_free(e->names);
    for (int f = 0; f < FORMS_MAX; f++)
        nas_space_free(e->forms[f]);
    nas_free(e);
}

const char *nas_encoder_space(const nas_encoder *e) {
    return e->space_name;
}

const nas_feature *nas_encoder_features(const nas_encoder *e, size_t *n) {
    *n = e->n;
    return e->features;
}

nas_status nas_encoder_canonical(nas_ctx *ctx, const nas_encoder *e, const char *arch,
                                 nas_buf *out) {
    if (e->is_kernel) {
        nas_kernel_shape shape;
        const nas_status status = nas_kernel_shape_parse(ctx, arch, &shape);
        if (status != NAS_OK) return status;
        nas_kernel_shape_format(&shape, out);
        return nas_buf_status(ctx, out);
    }
    if (e->n_forms == 0) {
        nas_buf_puts(out, arch);
        return nas_buf_status(ctx, out);
    }
    nas_point p;
    const nas_status status = nas_space_parse(ctx, e->forms[0], arch, &p);
    return status == NAS_OK ? nas_space_format(ctx, e->forms[0], &p, out) : status;
}

nas_status nas_encoder_graph(nas_ctx *ctx, const nas_encoder *e, const char *arch,
                             nas_graph **out) {
    if (e->is_kernel) {
        nas_kernel_shape shape;
        const nas_status status = nas_kernel_shape_parse(ctx, arch, &shape);
        return status == NAS_OK ? nas_kernel_shape_graph(ctx, &shape, out) : status;
    }
    if (e->n_forms == 0)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "'%s' has no graph here: give its ONNX file",
                        arch);
    nas_point p;
    const nas_status status = nas_space_parse(ctx, e->forms[0], arch, &p);
    return status == NAS_OK ? nas_space_decode(ctx, e->forms[0], &p, out) : status;
}

nas_status nas_encoder_sample(nas_ctx *ctx, const nas_encoder *e, nas_rng *rng, nas_buf *out) {
    if (e->n_forms == 0)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "nothing can be drawn from '%s'", e->space_name);
    nas_point p;
    nas_space_sample(e->forms[0], rng, &p);
    return nas_space_format(ctx, e->forms[0], &p, out);
}

nas_status nas_encoder_row(nas_ctx *ctx, const nas_encoder *e, const char *arch, double *x) {
    double *raw = nas_alloc_array(ctx, e->n_raw, sizeof *raw);
    if (raw == NULL) return NAS_ERR_NOMEM;
    const nas_status status = raw_row(ctx, e, arch, raw);
    for (size_t k = 0; k < e->n && status == NAS_OK; k++)
        x[k] = raw[e->kept[k]];
    nas_free(raw);
    return status;
}

typedef struct rows_job {
    const nas_encoder *encoder;
    const char *const *archs;
    double *x;
} rows_job;

static nas_status one_row(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const rows_job *job = arg;
    return nas_encoder_row(ctx, job->encoder, job->archs[index], job->x + index * job->encoder->n);
}

nas_status nas_encoder_rows(nas_ctx *ctx, const nas_encoder *e, const char *const *archs, size_t n,
                            double *x) {
    rows_job job = {.encoder = e, .archs = archs, .x = x};
    return nas_parallel(ctx, nas_cpu_count(), n, one_row, &job);
}

bool nas_encoder_is_network(const nas_encoder *e) {
    return e->n_forms == 0 && !e->is_kernel;
}

nas_status nas_encoder_graph_row(nas_ctx *ctx, const nas_encoder *e, const nas_graph *graph,
                                 double *x) {
    if (!nas_encoder_is_network(e)) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "a model of space '%s' predicts its architectures, not any network",
                        e->space_name);
    }
    return nas_graph_features_of(ctx, graph, LANES, x); /* all are kept */
}
