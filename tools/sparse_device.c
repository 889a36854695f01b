/* sparse_device.c - one layer as a network of its own, with and without its zeros, on a device that an agent serves. */
#include "tools/sparse_device.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool nas_sparse_device_is(const char *target) {
    return strcmp(target, "local") == 0 || strncmp(target, "adb:", 4) == 0 ||
           strncmp(target, "http://", 7) == 0;
}

static bool device_has(void *user, const char *feature) {
    return nas_device_has_feature(user, feature);
}

static nas_status target_of(nas_ctx *ctx, const char *connect, nas_dtype dtype, nas_device *device,
                            nas_target *out) {
    const nas_device_facts *f = nas_device_facts_of(device);
    const nas_target_cpu cpu = {f->vendor, f->family, f->l1_bytes, f->l2_bytes, 0};
    const bool here = strcmp(connect, "local") == 0 || f->arch[0] == '\0';
    const nas_target *row = NULL;
    if (!here) return nas_target_best(ctx, f->arch, dtype, device_has, device, &cpu, out);
    const nas_status status = nas_target_native(ctx, dtype, &row);
    if (status == NAS_OK) *out = *row;
    return status;
}

nas_status nas_sparse_device_open(nas_ctx *ctx, const char *connect, const char *key,
                                  const char *work_dir, nas_dtype dtype, nas_device **device,
                                  nas_target *target) {
    nas_device_options o = nas_device_options_default();
    o.name = connect;
    o.connect = connect;
    o.key_file = key;
    o.work_dir = work_dir;
    nas_status status = nas_device_open(ctx, &o, device);
    if (status == NAS_OK) status = target_of(ctx, connect, dtype, *device, target);
    return nas_wrap(ctx, status, "%s", connect);
}

/* ---- one layer ---------------------------------------------------------------------------------------------------- */

/* Codes of 8 bits from the image on, as most quantized layers have: uint8, and weights in +-1 with one scale. Sums of n
 * products have a spread of about a third of their root; four times that is kept. */
static nas_status store_codes(nas_ctx *ctx, nas_graph *g, nas_value in, nas_value conv,
                              nas_value act) {
    const nas_param *w = nas_graph_param_const(g, nas_graph_node(g, conv)->params[0]);
    const double products = (double)w->count / w->dims[0];
    const nas_quant image = {.is_set = true, .scale = 1.0F / 128, .zero_point = 128};
    const nas_quant sums = {.is_set = true, .scale = (float)(4 * sqrt(products) / 3 / 255)};
    float *scales = nas_alloc_array(ctx, (size_t)w->dims[0], sizeof *scales);
    if (scales == NULL) return NAS_ERR_NOMEM;
    for (int32_t o = 0; o < w->dims[0]; o++)
        scales[o] = 1.0F / 127;
    nas_status status = nas_graph_set_quant(ctx, g, in, image);
    if (status == NAS_OK) status = nas_graph_set_quant(ctx, g, act, sums);
    if (status == NAS_OK)
        status = nas_graph_set_weight_scales(ctx, g, nas_graph_node(g, conv)->params[0], 8, scales);
    nas_free(scales);
    return status;
}

static nas_status layer_graph(nas_ctx *ctx, const nas_sparse_shape *s, int32_t bits,
                              nas_graph **out) {
    nas_graph *g = nas_graph_new(ctx, "layer");
    if (g == NULL) return NAS_ERR_NOMEM;
    nas_conv_attributes c = nas_conv_same(s->out_c, s->kernel);
    c.stride_h = c.stride_w = s->stride;
    c.pad_top = c.pad_left = (s->kernel - 1) / 2;
    c.pad_bottom = c.pad_right = s->kernel - 1 - c.pad_top;
    const nas_shape in = {
        .n = 1, .h = s->out_h * s->stride, .w = s->out_w * s->stride, .c = s->in_c};
    nas_value image = NAS_VALUE_NONE, conv = NAS_VALUE_NONE, act = NAS_VALUE_NONE;
    nas_status status = nas_graph_add_input(ctx, g, "in", in, &image);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "conv", image, &c, &conv);
    if (status == NAS_OK) status = nas_graph_add_relu(ctx, g, "act", conv, &act);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, act);
    if (status == NAS_OK && bits == 8) status = store_codes(ctx, g, image, conv, act);
    if (status == NAS_OK) status = nas_graph_alloc_weights(ctx, g);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return status;
    }
    nas_rng rng = nas_rng_stream(1, 0, "break even");
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        for (size_t i = 0; i < param->count; i++)
            param->data[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
    }
    *out = g;
    return NAS_OK;
}

static nas_status conv_of(const nas_graph *g, nas_value *out) {
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        if (nas_graph_node(g, v)->op != NAS_OP_CONV) continue;
        *out = v;
        return NAS_OK;
    }
    return NAS_ERR_INTERNAL;
}

static nas_status time_program(nas_ctx *ctx, nas_device *device, const nas_graph *g,
                               const nas_artifact *a, double seconds, double *ns) {
    nas_measure_options o = nas_measure_options_default();
    nas_measurement m = {0};
    o.min_batches = 9;
    o.min_time_ms = (int32_t)(seconds * 1000 / 2) + 1;
    o.max_time_ms = 10 * o.min_time_ms;
    const nas_status status = nas_measure(ctx, device, g, a->path, a->sha256, &o, &m);
    if (status == NAS_OK) *ns = m.p50_us * 1e3;
    nas_measurement_deinit(&m);
    return status;
}

/* ---- cells -------------------------------------------------------------------------------------------------------- */

typedef struct subject {
    nas_ctx *ctx;
    nas_device *device;
    const nas_break_even_options *options;
    const nas_sparse_shape *shape;
    nas_graph *dense;
    nas_artifact program; /* of it */
} subject;

/* What the zeros of a layer that was measured save: its rate, its bytes. */
static nas_status weigh(const subject *s, const nas_sparsity *p, const nas_param *w,
                        nas_sparse_cell *cell) {
    uint8_t *kept = nas_alloc_array(s->ctx, w->count, 1);
    if (kept == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < w->count; i++)
        kept[i] = w->data[i] != 0;
    cell->bytes = nas_sparsity_pattern_storage(p, kept, w->dims, s->options->bits);
    cell->rate = 1 - (double)cell->bytes.kept / (double)w->count;
    nas_free(kept);
    return NAS_OK;
}

static nas_status measure_cell(const subject *s, const nas_sparsity *p, nas_sparse_cell *out) {
    nas_graph *g = NULL;
    nas_artifact program = {0};
    nas_value conv = NAS_VALUE_NONE;
    nas_sparse_cell cell = {0};
    nas_status status = layer_graph(s->ctx, s->shape, s->options->bits, &g);
    if (status != NAS_OK) return status;
    status = conv_of(g, &conv);
    if (status == NAS_OK) status = nas_sparsity_apply(s->ctx, g, conv, p);
    if (status == NAS_OK) status = nas_compile(s->ctx, g, s->options->compile, &program);
    if (status == NAS_OK)
        status = time_program(s->ctx, s->device, s->dense, &s->program, s->options->seconds,
                              &cell.dense_ns);
    if (status == NAS_OK)
        status = time_program(s->ctx, s->device, g, &program, s->options->seconds, &cell.sparse_ns);
    if (status == NAS_OK)
        status = weigh(s, p, nas_graph_param_const(g, nas_graph_node(g, conv)->params[0]), &cell);
    if (status == NAS_OK) {
        cell.direct_ns = cell.dense_ns;
        (void)snprintf(cell.way, sizeof cell.way, "program");
        *out = cell;
    }
    nas_graph_free(g);
    return status;
}

nas_status nas_sparse_device_measure(nas_ctx *ctx, nas_device *device,
                                     const nas_break_even_options *options,
                                     const nas_sparse_shape *shape, const nas_sparsity *pattern,
                                     char dense[NAS_BREAK_EVEN_WAY_MAX], nas_sparse_cell out[]) {
    subject s = {.ctx = ctx, .device = device, .options = options, .shape = shape};
    nas_status status = layer_graph(ctx, shape, options->bits, &s.dense);
    if (status == NAS_OK) status = nas_compile(ctx, s.dense, options->compile, &s.program);
    for (int32_t i = 0; i < options->n_rates && status == NAS_OK; i++) {
        const nas_sparsity p = nas_sparsity_with_rate(pattern, options->rates[i]);
        status = measure_cell(&s, &p, &out[i]);
    }
    if (status == NAS_OK) (void)snprintf(dense, NAS_BREAK_EVEN_WAY_MAX, "program");
    nas_graph_free(s.dense);
    return nas_wrap(ctx, status, "break-even of %dx%d %d -> %d on %s", shape->kernel, shape->kernel,
                    shape->in_c, shape->out_c, nas_device_name(device));
}
