/* test_onnx_export_quant.c - integers leave as QuantizeLinear and DequantizeLinear and come back as they were. What a file
 * answers is judged in tests/search/test_oneshot_codes.c. */
#include "ir/graph.h"
#include "ir/quantize.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[64], path[96];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(folder, sizeof folder, "/tmp/nas-onnx-XXXXXX");
    cr_assert(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof path, "%s/q.onnx", folder);
}

static void teardown(void) {
    cr_expect(nas_remove_tree(ctx, folder) == NAS_OK);
    nas_ctx_free(ctx);
    cr_assert(nas_mem_live() == 0);
}

TestSuite(ir_onnx_export_quant, .init = setup, .fini = teardown);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

/* Codes of `bits`, the largest among them, on a grid of their own for each output channel. */
static void put_integers(nas_graph *g, int32_t param, int32_t bits) {
    nas_param *p = nas_graph_param(g, param);
    const size_t each = p->count / (size_t)p->dims[0];
    const int32_t most = (1 << (bits - 1)) - 1;
    float scales[8];
    for (size_t o = 0; o < (size_t)p->dims[0]; o++) {
        scales[o] = 0.013F * (float)(o + 1);
        for (size_t i = 0; i < each; i++)
            p->data[o * each + i] =
                scales[o] * (float)(i == 0 ? -most : (int32_t)(i * 7 + o) % (2 * most + 1) - most);
    }
    OK(nas_graph_set_weight_scales(ctx, g, param, bits, scales));
}

static const nas_quant image = {.is_set = true, .scale = 0.017F, .zero_point = 114},
                       rectified = {.is_set = true, .scale = 0.25F},
                       answer = {
                           .is_set = true, .is_signed = true, .scale = 0.31F, .zero_point = -3};

/* x (uint8) -> conv of 3 bits -> relu (uint8) -> pool (floats) -> transposed conv of 5 bits (int8) */
static nas_graph *integers(void) {
    nas_graph *g = nas_graph_new(ctx, "integers");
    nas_conv_attributes conv = nas_conv_same(4, 3);
    nas_value x = 0, c = 0, r = 0, pool = 0, t = 0;
    OK(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 4, 6, 3}, &x));
    OK(nas_graph_add_conv(ctx, g, "c", x, &conv, &c));
    OK(nas_graph_add_relu(ctx, g, "r", c, &r));
    const nas_pool_attributes two = {.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2};
    OK(nas_graph_add_node(
        ctx, g, "pool",
        &(nas_node){.op = NAS_OP_AVG_POOL, .n_inputs = 1, .inputs = {r}, .pool = two}, &pool));
    conv = nas_conv_same(2, 3);
    OK(nas_graph_add_node(
        ctx, g, "t",
        &(nas_node){.op = NAS_OP_CONV_TRANSPOSE, .n_inputs = 1, .inputs = {pool}, .conv = conv},
        &t));
    OK(nas_graph_set_output(ctx, g, t));
    OK(nas_graph_alloc_weights(ctx, g));
    put_integers(g, nas_graph_node(g, c)->params[0], 3);
    put_integers(g, nas_graph_node(g, t)->params[0], 5);
    for (nas_value v = c; v <= t; v += t - c) {
        nas_param *bias = nas_graph_param(g, nas_graph_node(g, v)->params[1]);
        for (size_t i = 0; i < bias->count; i++)
            bias->data[i] = 0.37F * (float)i - 0.5F;
    }
    OK(nas_graph_set_quant(ctx, g, x, image));
    OK(nas_graph_set_quant(ctx, g, r, rectified));
    OK(nas_graph_set_quant(ctx, g, t, answer));
    return g;
}

static nas_graph *there_and_back(const nas_graph *g) {
    const nas_onnx_import_options options = nas_onnx_import_options_default();
    nas_graph *again = NULL;
    OK(nas_onnx_export_quantized(ctx, g, path));
    OK(nas_onnx_import(ctx, path, &options, &again));
    return again;
}

Test(ir_onnx_export_quant, values_and_weights_come_back_as_they_were) {
    nas_graph *g = integers(), *again = there_and_back(g);
    cr_assert(nas_graph_node_count(again) == 5);
    for (nas_value v = 0; v < 5; v++) {
        const nas_node *a = nas_graph_node(g, v), *b = nas_graph_node(again, v);
        cr_assert(strcmp(a->name, b->name) == 0, "%s", b->name);
        cr_assert(a->op == b->op && a->quant.is_set == b->quant.is_set &&
                      a->quant.is_signed == b->quant.is_signed &&
                      a->quant.scale == b->quant.scale &&
                      a->quant.zero_point == b->quant.zero_point,
                  "%s", a->name);
        if (a->params[0] < 0) continue;
        const nas_param *p = nas_graph_param_const(g, a->params[0]),
                        *q = nas_graph_param_const(again, b->params[0]);
        cr_assert(p->bits == q->bits, "%s", p->name);
        cr_assert(memcmp(p->scales, q->scales, (size_t)p->dims[0] * sizeof *p->scales) == 0);
        cr_assert(memcmp(p->data, q->data, p->count * sizeof *p->data) == 0, "%s", p->name);
    }
    /* the bias of c as codes, that of t, whose input is not stored as integers, as floats */
    const nas_param *scaled = nas_graph_param_const(g, 0), *p = nas_graph_param_const(g, 1),
                    *q = nas_graph_param_const(again, 1);
    for (size_t o = 0; o < p->count; o++) {
        int32_t a = 0, b = 0;
        OK(nas_quant_bias(ctx, (double)p->data[o], (double)image.scale, (double)scaled->scales[o],
                          &a));
        OK(nas_quant_bias(ctx, (double)q->data[o], (double)image.scale, (double)scaled->scales[o],
                          &b));
        cr_assert(a == b);
        cr_assert(o == 0 || p->data[o] != q->data[o]);
    }
    cr_assert(memcmp(nas_graph_param_const(g, 3)->data, nas_graph_param_const(again, 3)->data,
                     2 * sizeof(float)) == 0);
    nas_graph_free(again);
    nas_graph_free(g);
}

Test(ir_onnx_export_quant, weights_off_their_grid_leave_as_the_codes_that_kernels_use) {
    nas_graph *g = integers();
    nas_param *p = nas_graph_param(g, 0);
    p->data[0] = -1e6F;
    p->data[1] = 1.4F * p->scales[0];
    nas_graph *again = there_and_back(g);
    const nas_param *q = nas_graph_param_const(again, 0);
    cr_assert(q->data[0] == -3 * p->scales[0] && q->data[1] == p->scales[0]);
    nas_graph_free(again);
    nas_graph_free(g);
}

/* A scale and a bias whose code their float product moves to another. */
static bool shifts(float scale, float bias) {
    const double in = (double)image.scale, product = (double)(float)(in * (double)scale);
    int32_t a = 0, b = 0;
    OK(nas_quant_bias(ctx, (double)bias, in, (double)scale, &a));
    OK(nas_quant_bias(ctx, (double)(float)(a * product), in, (double)scale, &b));
    return a != b;
}

Test(ir_onnx_export_quant, a_bias_that_int32_codes_do_not_give_back_stays_a_float) {
    for (int k = 0; k < 2; k++) {
        nas_graph *g = integers();
        nas_param *bias = nas_graph_param(g, 1);
        float scales[4];
        memcpy(scales, nas_graph_param_const(g, 0)->scales, sizeof scales);
        bias->data[2] = k == 0 ? 20000.0F : 3e9F * image.scale * scales[2];
        for (int i = 0; k == 0 && !shifts(scales[2], bias->data[2]); i++) {
            cr_assert(i < 1000);
            scales[2] *= 1.001F;
        }
        OK(nas_graph_set_weight_scales(ctx, g, 0, 3, scales));
        nas_graph *again = there_and_back(g);
        cr_assert(memcmp(bias->data, nas_graph_param_const(again, 1)->data,
                         bias->count * sizeof(float)) == 0);
        nas_graph_free(again);
        nas_graph_free(g);
    }
}

Test(ir_onnx_export_quant, a_network_without_integers_is_refused) {
    nas_graph *g = nas_graph_new(ctx, "floats");
    nas_value x = 0, r = 0;
    OK(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 2, 2, 1}, &x));
    OK(nas_graph_add_relu(ctx, g, "r", x, &r));
    OK(nas_graph_set_output(ctx, g, r));
    cr_assert(nas_onnx_export_quantized(ctx, g, path) == NAS_ERR_INVALID);
    cr_assert(strstr(nas_ctx_message(ctx), "'floats' has no integers") != NULL);
    nas_graph_free(g);
}

Test(ir_onnx_export_quant, a_constant_of_codes_is_refused_by_name) {
    nas_graph *g = nas_graph_new(ctx, "constant");
    nas_value x = 0, c = 0, sum = 0;
    OK(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 2, 2, 1}, &x));
    OK(nas_graph_add_node(ctx, g, "half", &(nas_node){.op = NAS_OP_CONSTANT, .shape = {1, 1, 1, 1}},
                          &c));
    OK(nas_graph_add_add(ctx, g, "sum", x, c, &sum));
    OK(nas_graph_set_output(ctx, g, sum));
    OK(nas_graph_alloc_weights(ctx, g));
    OK(nas_graph_set_quant(ctx, g, c, image));
    cr_assert(nas_onnx_export_quantized(ctx, g, path) == NAS_ERR_UNSUPPORTED);
    cr_assert(strstr(nas_ctx_message(ctx), "'half'") != NULL, "%s", nas_ctx_message(ctx));
    cr_assert(!nas_file_exists(path));
    nas_graph_free(g);
}

Test(ir_onnx_export_quant, failed_allocations_leave_no_file_and_no_leak) {
    nas_graph *g = integers();
    const long before = nas_mem_live();
    for (long n = 1;; n++) {
        nas_mem_fail_after(n);
        const nas_status status = nas_onnx_export_quantized(ctx, g, path);
        nas_mem_fail_after(0);
        cr_assert(nas_mem_live() == before, "allocation %ld", n);
        if (status == NAS_OK) break;
        cr_assert(status == NAS_ERR_NOMEM, "allocation %ld", n);
        cr_assert(!nas_file_exists(path), "allocation %ld", n);
    }
    nas_graph_free(g);
}
