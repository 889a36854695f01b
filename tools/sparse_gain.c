/* sparse_gain.c - reads shapes, patterns and rates, measures them cell by cell, and prints one line a shape and pattern, or
 * in JSON and CSV one record a cell. */
#include "tools/sparse_gain.h"
#include "db/sparse_cells.h"
#include "tools/sparse_device.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHAPES_MAX = 256, PATTERNS_MAX = 16, ITEM_MAX = 64 };

/* The next item of a list with commas; false at its end. */
static bool next_item(const char **list, char item[ITEM_MAX]) {
    if (**list == '\0') return false;
    const size_t n = strcspn(*list, ",");
    (void)snprintf(item, ITEM_MAX, "%.*s", (int)(n < ITEM_MAX ? n : ITEM_MAX - 1), *list);
    *list += n;
    *list += **list == ',';
    return true;
}

/* A layer to measure. */
typedef struct subject {
    nas_sparse_shape shape;
    int32_t bits; /* 32: f32, 8: int8 */
} subject;

/* ---- arguments ---------------------------------------------------------------------------------------------------- */

nas_status nas_sparse_gain_pattern(nas_ctx *ctx, const char *text, nas_sparsity *out) {
    int end = 0, a = 0, b = 0;
    nas_sparsity s = nas_sparsity_default(nas_sparsity_pattern_find(text));
    if (sscanf(text, "1x%d%n", &a, &end) == 1 && text[end] == '\0') {
        s = nas_sparsity_default(NAS_SPARSITY_1XN);
        s.n = a;
    } else if (sscanf(text, "1x%dr%n", &a, &end) == 1 && text[end] == '\0' && end > 0) {
        s = nas_sparsity_default(NAS_SPARSITY_1XN);
        s.n = a;
        s.rearrange = true;
    } else if (sscanf(text, "N:%dx%d%n", &a, &b, &end) == 2 && text[end] == '\0') {
        s = nas_sparsity_default(NAS_SPARSITY_N_OF_M);
        s.group = a;
        s.outputs = b;
    } else if (sscanf(text, "block%dx%d%n", &a, &b, &end) == 2 && text[end] == '\0') {
        s = nas_sparsity_default(NAS_SPARSITY_BLOCK);
        s.outputs = a;
        s.inputs = b;
    } else if (sscanf(text, "punched%dx%d%n", &a, &b, &end) == 2 && text[end] == '\0') {
        s = nas_sparsity_default(NAS_SPARSITY_PUNCHED);
        s.outputs = a;
        s.inputs = b;
    } else if (sscanf(text, "complementary%d%n", &a, &end) == 1 && text[end] == '\0') {
        s = nas_sparsity_default(NAS_SPARSITY_COMPLEMENTARY);
        s.outputs = a;
    } else if (s.pattern == NAS_SPARSITY_PATTERN_COUNT) {
        return nas_fail(ctx, NAS_ERR_NOTFOUND,
                        "there is no pattern '%s': 1x4 (2, 8, 16, 32), N:8x4 (groups of 8 inputs, "
                        "chosen by 4 outputs), block4x4, punched8x8, pattern, periodic, filter, "
                        "channel, unstructured, complementary",
                        text);
    }
    *out = s;
    return NAS_OK;
}

static nas_status read_shape(nas_ctx *ctx, const char *text, nas_sparse_shape *out) {
    nas_sparse_shape s = {.stride = 1};
    char size[ITEM_MAX] = "";
    int end = 0;
    const int n = sscanf(text, "%" SCNd32 ":%" SCNd32 ":%" SCNd32 ":%20[0-9x]%n:%" SCNd32 "%n",
                         &s.kernel, &s.in_c, &s.out_c, size, &end, &s.stride, &end);
    const int sides = sscanf(size, "%" SCNd32 "x%" SCNd32, &s.out_h, &s.out_w);
    if (n < 4 || text[end] != '\0' || sides < 1)
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "--shapes: '%s' is not KERNEL:IN:OUT:SIZE[:STRIDE], e.g. 1:256:64:56 or "
                        "3:64:128:28x28:2",
                        text);
    if (sides == 1) s.out_w = s.out_h;
    *out = s;
    return NAS_OK;
}

/* Which of floats and integers are wanted. */
typedef struct dtypes {
    bool f32, int8;
} dtypes;

static nas_status read_dtypes(nas_ctx *ctx, const char *list, dtypes *out) {
    char item[ITEM_MAX];
    while (next_item(&list, item)) {
        const bool is_f32 = strcmp(item, "f32") == 0, is_int8 = strcmp(item, "int8") == 0;
        if (!is_f32 && !is_int8)
            return nas_fail(ctx, NAS_ERR_PARSE, "--dtype: '%s'; there are f32 and int8", item);
        out->f32 = out->f32 || is_f32;
        out->int8 = out->int8 || is_int8;
    }
    return NAS_OK;
}

static void add_one(subject *subjects, int32_t *n, const nas_sparse_shape *shape, int32_t bits) {
    for (int32_t i = 0; i < *n; i++) {
        if (subjects[i].bits == bits && memcmp(&subjects[i].shape, shape, sizeof *shape) == 0)
            return;
    }
    if (*n < SHAPES_MAX) subjects[(*n)++] = (subject){.shape = *shape, .bits = bits};
}

/* As it is, unless the caller wants something. */
static void add_shape(subject *subjects, int32_t *n, const nas_sparse_shape *shape, dtypes wanted,
                      bool is_int8) {
    const bool any = wanted.f32 || wanted.int8;
    if (any ? wanted.f32 : !is_int8) add_one(subjects, n, shape, 32);
    if (any ? wanted.int8 : is_int8) add_one(subjects, n, shape, 8);
}

/* Convolutions that can have a sparse kernel, in the order of the graph. */
static void shapes_of_graph(const nas_graph *graph, dtypes wanted, subject *subjects, int32_t *n) {
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const nas_node *node = nas_graph_node(graph, v);
        const nas_conv_attributes *c = &node->conv;
        if (node->op != NAS_OP_CONV || c->groups != 1 || c->kernel_h != c->kernel_w ||
            c->stride_h != c->stride_w || c->dilation_h != 1 || c->dilation_w != 1 ||
            node->shape.h * node->shape.w == 1)
            continue;
        const nas_sparse_shape s = {.kernel = c->kernel_h,
                                    .stride = c->stride_h,
                                    .in_c = nas_graph_node(graph, node->inputs[0])->shape.c,
                                    .out_c = c->out_channels,
                                    .out_h = node->shape.h,
                                    .out_w = node->shape.w};
        add_shape(subjects, n, &s, wanted,
                  node->quant.is_set &&
                      nas_graph_param_const(graph, node->params[0])->scales != NULL);
    }
}

static nas_status read_shapes(nas_ctx *ctx, const nas_sparse_gain *r, subject *subjects,
                              int32_t *n) {
    char item[ITEM_MAX];
    dtypes wanted = {0};
    nas_status status = read_dtypes(ctx, r->dtype != NULL ? r->dtype : "", &wanted);
    if (status != NAS_OK) return status;
    if (r->graph != NULL) shapes_of_graph(r->graph, wanted, subjects, n);
    for (const char *list = r->shapes != NULL ? r->shapes : ""; next_item(&list, item);) {
        nas_sparse_shape s;
        status = read_shape(ctx, item, &s);
        if (status != NAS_OK) return status;
        add_shape(subjects, n, &s, wanted, false);
    }
    if (*n > 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "--break-even: no shapes; give --layers MODEL.onnx or --shapes 1:256:64:56");
}

static nas_status read_rates(nas_ctx *ctx, const char *list, double *rates, int32_t *n) {
    char item[ITEM_MAX];
    for (; next_item(&list, item);) {
        char *end = NULL;
        const double rate = strtod(item, &end);
        if (end == item || *end != '\0' || !(rate >= 0 && rate <= 1) ||
            *n == NAS_BREAK_EVEN_RATES_MAX || (*n > 0 && rate <= rates[*n - 1]))
            return nas_fail(ctx, NAS_ERR_PARSE,
                            "--rates: '%s'; need up to %d ascending numbers from 0 to 1", item,
                            NAS_BREAK_EVEN_RATES_MAX);
        rates[(*n)++] = rate;
    }
    return NAS_OK;
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

enum { COLUMNS_MAX = 24, TEXT_MAX = 64 };

typedef struct line {
    int32_t n;
    char names[COLUMNS_MAX + NAS_BREAK_EVEN_RATES_MAX][TEXT_MAX],
        values[COLUMNS_MAX + NAS_BREAK_EVEN_RATES_MAX][TEXT_MAX];
    bool is_number[COLUMNS_MAX + NAS_BREAK_EVEN_RATES_MAX];
} line;

static void put_text(line *l, const char *name, const char *value) {
    (void)snprintf(l->names[l->n], TEXT_MAX, "%s", name);
    (void)snprintf(l->values[l->n++], TEXT_MAX, "%s", value);
}

/* Not a number: absent. */
static void put_number(line *l, const char *name, double value, int precision) {
    l->is_number[l->n] = true;
    (void)snprintf(l->names[l->n], TEXT_MAX, "%s", name);
    if (isnan(value))
        l->values[l->n][0] = '\0';
    else
        (void)snprintf(l->values[l->n], TEXT_MAX, "%.*f", precision, value);
    l->n++;
}

static nas_status add_line(nas_ctx *ctx, nas_rows *rows, const line *l) {
    const char *names[COLUMNS_MAX + NAS_BREAK_EVEN_RATES_MAX],
        *values[COLUMNS_MAX + NAS_BREAK_EVEN_RATES_MAX];
    for (int32_t i = 0; i < l->n; i++) {
        names[i] = l->names[i];
        values[i] = l->values[i][0] == '\0' ? NULL : l->values[i];
    }
    return nas_rows_add(ctx, rows, l->n, names, values, l->is_number);
}

/* One shape and pattern, measured. */
typedef struct result {
    const nas_sparse_shape *shape;
    int32_t bits;
    const char *pattern;
    char dense[NAS_BREAK_EVEN_WAY_MAX];
    int32_t n;
    const double *rates; /* as asked */
    nas_sparse_cell cells[NAS_BREAK_EVEN_RATES_MAX];
    double even, even_direct; /* NaN: never */
} result;

static const char *dtype_name(int32_t bits) {
    return bits == 8 ? "int8" : "f32";
}

/* One line for reading: what each rate gains over the best dense kernel. */
static nas_status add_summary(nas_ctx *ctx, nas_rows *rows, const result *r) {
    static line l; /* large; one thread */
    char text[TEXT_MAX], name[TEXT_MAX];
    double peak = NAN;
    l = (line){0};
    (void)snprintf(text, sizeof text, "%dx%d s%d %d->%d @%dx%d", r->shape->kernel, r->shape->kernel,
                   r->shape->stride, r->shape->in_c, r->shape->out_c, r->shape->out_h,
                   r->shape->out_w);
    put_text(&l, "layer", text);
    put_text(&l, "dtype", dtype_name(r->bits));
    put_text(&l, "pattern", r->pattern);
    put_text(&l, "dense", r->dense);
    put_number(&l, "dense_us", r->cells[0].dense_ns * 1e-3, 1);
    for (int32_t i = 0; i < r->n; i++) {
        if (r->cells[i].peak_gflops > 0) peak = r->cells[i].peak_gflops;
        (void)snprintf(name, sizeof name, "%g%%", 100 * r->rates[i]);
        put_number(&l, name, r->cells[i].dense_ns / r->cells[i].sparse_ns, 2);
    }
    put_number(&l, "even_%", 100 * r->even, 0);
    put_number(&l, "even_direct_%", 100 * r->even_direct, 0);
    put_number(&l, "peak_gflops", peak, 0);
    return add_line(ctx, rows, &l);
}

static nas_status add_record(nas_ctx *ctx, nas_rows *rows, const result *r, int32_t i) {
    static line l;
    const nas_sparse_cell *c = &r->cells[i];
    l = (line){0};
    put_number(&l, "kernel", r->shape->kernel, 0);
    put_number(&l, "stride", r->shape->stride, 0);
    put_number(&l, "in_channels", r->shape->in_c, 0);
    put_number(&l, "out_channels", r->shape->out_c, 0);
    put_number(&l, "height", r->shape->out_h, 0);
    put_number(&l, "width", r->shape->out_w, 0);
    put_text(&l, "dtype", dtype_name(r->bits));
    put_text(&l, "pattern", r->pattern);
    put_number(&l, "rate", c->rate, 4);
    put_text(&l, "dense", r->dense);
    put_text(&l, "sparse", c->way);
    put_number(&l, "dense_us", c->dense_ns * 1e-3, 3);
    put_number(&l, "direct_us", c->direct_ns * 1e-3, 3);
    put_number(&l, "sparse_us", c->sparse_ns * 1e-3, 3);
    put_number(&l, "speedup", c->dense_ns / c->sparse_ns, 4);
    put_number(&l, "peak_gflops", c->peak_gflops > 0 ? c->peak_gflops : NAN, 1);
    put_number(&l, "dense_bytes", (double)c->bytes.dense, 0);
    put_number(&l, "bitmask_bytes", (double)c->bytes.bitmask, 0);
    put_number(&l, "list_bytes", (double)c->bytes.lists, 0);
    put_number(&l, "packed_bytes", c->bytes.packed > 0 ? (double)c->bytes.packed : NAN, 0);
    put_number(&l, "break_even", r->even, 4);
    put_number(&l, "break_even_direct", r->even_direct, 4);
    return add_line(ctx, rows, &l);
}

static nas_status add_result(nas_ctx *ctx, nas_rows *rows, const result *r) {
    if (rows->format == NAS_ROWS_TABLE) return add_summary(ctx, rows, r);
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < r->n && status == NAS_OK; i++)
        status = add_record(ctx, rows, r, i);
    return status;
}

/* ---- measuring ---------------------------------------------------------------------------------------------------- */

/* Patterns that the shape cannot have are left out of a list for many layers. */
static bool fits(nas_ctx *ctx, const nas_sparse_shape *shape, const nas_sparsity *s) {
    const int32_t dims[4] = {shape->out_c, shape->kernel, shape->kernel, shape->in_c};
    nas_ctx *quiet = nas_ctx_child(ctx);
    const nas_status status = quiet != NULL ? nas_sparsity_check(quiet, s, dims, 1) : NAS_OK;
    nas_ctx_free(quiet);
    return status != NAS_ERR_UNSUPPORTED;
}

/* The cells as a search asks for them. */
static nas_status keep(nas_ctx *ctx, const nas_sparse_gain *request, const nas_target *target,
                       const result *r) {
    if (request->db == NULL || request->device == NULL) return NAS_OK;
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < r->n && status == NAS_OK; i++) {
        const nas_sparse_cell *c = &r->cells[i];
        nas_db_sparse_cell row = {
            .layer = {r->shape->kernel, r->shape->stride, r->shape->in_c, r->shape->out_c,
                      r->shape->out_h, r->shape->out_w, r->bits},
            .rate = c->rate,
            .dense_ns = c->dense_ns,
            .sparse_ns = c->sparse_ns,
            .direct_ns = nas_some_double(c->direct_ns),
            .peak_gflops = {.is_set = c->peak_gflops > 0, .value = c->peak_gflops}};
        (void)snprintf(row.fingerprint, sizeof row.fingerprint, "%s",
                       nas_device_fingerprint(request->device));
        (void)snprintf(row.device, sizeof row.device, "%s", request->device_name);
        (void)snprintf(row.target, sizeof row.target, "%s", target->name);
        (void)snprintf(row.pattern, sizeof row.pattern, "%s", r->pattern);
        (void)snprintf(row.dense, sizeof row.dense, "%s", r->dense);
        (void)snprintf(row.sparse, sizeof row.sparse, "%s", c->way);
        status = nas_db_sparse_put(ctx, request->db, &row, nas_device_info_json(request->device));
    }
    return status;
}

static nas_status measure_cells(nas_ctx *ctx, const nas_break_even_options *o,
                                const nas_sparse_gain *request, const nas_sparsity *s, result *r) {
    nas_status status =
        request->on_device
            ? nas_sparse_device_measure(ctx, request->device, o, r->shape, s, r->dense, r->cells)
            : nas_break_even_measure(ctx, o, r->shape, s, r->dense, r->cells);
    return status == NAS_OK ? keep(ctx, request, o->compile->target, r) : status;
}

static nas_status measure(nas_ctx *ctx, const nas_break_even_options *o,
                          const nas_sparse_gain *request, const char *patterns,
                          const subject *layer, nas_rows *rows) {
    const nas_sparse_shape *shape = &layer->shape;
    static result r; /* large; one thread */
    char item[ITEM_MAX];
    nas_status status = NAS_OK;
    for (const char *list = patterns; status == NAS_OK && next_item(&list, item);) {
        nas_sparsity s;
        status = nas_sparse_gain_pattern(ctx, item, &s);
        if (status != NAS_OK || !fits(ctx, shape, &s)) continue;
        r = (result){.shape = shape,
                     .bits = layer->bits,
                     .pattern = item,
                     .n = o->n_rates,
                     .rates = o->rates,
                     .even = NAN,
                     .even_direct = NAN};
        status = measure_cells(ctx, o, request, &s, &r);
        if (status != NAS_OK) continue;
        if (!nas_break_even_rate(r.cells, r.n, false, &r.even)) r.even = NAN;
        if (!nas_break_even_rate(r.cells, r.n, true, &r.even_direct)) r.even_direct = NAN;
        status = add_result(ctx, rows, &r);
    }
    return status;
}

nas_status nas_sparse_gain_print(nas_ctx *ctx, const nas_compile_options *compile,
                                 const nas_sparse_gain *request) {
    const char *patterns = request->patterns != NULL ? request->patterns : "1x4,1x16,N:8x4";
    const char *list =
        request->rates != NULL ? request->rates : "0.125,0.25,0.375,0.5,0.625,0.75,0.9";
    double rates[NAS_BREAK_EVEN_RATES_MAX];
    int32_t n_shapes = 0, n_rates = 0;
    subject *subjects = nas_alloc_array(ctx, SHAPES_MAX, sizeof *subjects);
    if (subjects == NULL) return NAS_ERR_NOMEM;
    nas_rows rows = nas_rows_new(request->format, false, stdout);
    nas_status status = read_shapes(ctx, request, subjects, &n_shapes);
    if (status == NAS_OK) status = read_rates(ctx, list, rates, &n_rates);
    nas_break_even_options o = {
        .compile = compile, .rates = rates, .n_rates = n_rates, .seconds = request->seconds};
    for (int32_t i = 0; i < n_shapes && status == NAS_OK; i++) {
        o.bits = subjects[i].bits;
        status = measure(ctx, &o, request, patterns, &subjects[i], &rows);
    }
    if (status == NAS_OK)
        status = nas_rows_end(ctx, &rows);
    else
        nas_rows_deinit(&rows);
    nas_free(subjects);
    return status;
}
