/* test_weights.c - the weight store: slices, inheritance, first values, checkpoints. */
#include "tests/eval/train_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const wdsr_shape net = {.channels = 6,
                               .expand = 12,
                               .project = 5,
                               .blocks = 4,
                               .head = 5,
                               .tail = 3,
                               .skip = 5,
                               .scale = 2,
                               .side = 8};
static nas_ctx *ctx;
static char path[64];

static void setup(void) {
    ctx = quiet_ctx();
    (void)snprintf(path, sizeof path, "/tmp/nas_weights_%ld", (long)getpid());
}

static void teardown(void) {
    (void)unlink(path);
    nas_ctx_free(ctx);
}

TestSuite(eval_weights, .init = setup, .fini = teardown);

static nas_weights *store_of(const nas_graph *g, uint64_t seed) {
    nas_rng rng = nas_rng_stream(seed, 0, "store");
    nas_weights *w = NULL;
    cr_assert(eq(int, (int)nas_weights_new(ctx, g, &rng, &w), NAS_OK));
    return w;
}

static const nas_param *param_named(nas_graph *g, const char *name) {
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        if (strcmp(nas_graph_param(g, i)->name, name) == 0) return nas_graph_param(g, i);
    }
    cr_fatal("no param %s", name);
    return NULL;
}

static float element(const nas_param *p, int32_t o, int32_t y, int32_t x, int32_t i) {
    return p->data[((o * p->dims[1] + y) * p->dims[2] + x) * p->dims[3] + i];
}

Test(eval_weights, smaller_params_are_leading_slices_and_centred_windows) {
    wdsr_shape less = net;
    less.channels = 4;
    less.expand = 7;
    less.head = 3;
    nas_graph *large = net_wdsr(ctx, &net), *small = net_wdsr(ctx, &less);
    nas_weights *w = store_of(large, 1);
    cr_assert(eq(int, (int)nas_weights_fill(ctx, w, large), NAS_OK));
    cr_assert(eq(int, (int)nas_weights_fill(ctx, w, small), NAS_OK));
    const nas_param *big = param_named(large, "head.weight"),
                    *head = param_named(small, "head.weight");
    for (int32_t o = 0; o < 4; o++) {
        for (int32_t k = 0; k < 27; k++) {
            const int32_t y = k / 9, x = k / 3 % 3, i = k % 3;
            cr_expect(eq(flt, element(head, o, y, x, i), element(big, o, y + 1, x + 1, i)));
        }
    }
    big = param_named(large, "block0.expand.weight");
    const nas_param *expand = param_named(small, "block0.expand.weight");
    for (int32_t o = 0; o < 7; o++) {
        for (int32_t i = 0; i < 4; i++) {
            cr_expect(eq(flt, element(expand, o, 0, 0, i), element(big, o, 0, 0, i)));
        }
    }
    nas_weights *own = NULL;
    cr_assert(eq(int, (int)nas_weights_inherit(ctx, w, small, &own), NAS_OK));
    nas_graph *copy = net_wdsr(ctx, &less);
    cr_assert(eq(int, (int)nas_weights_fill(ctx, own, copy), NAS_OK));
    for (int32_t i = 0; i < nas_graph_param_count(copy); i++) {
        const nas_param *a = nas_graph_param(copy, i), *b = nas_graph_param(small, i);
        cr_expect(memcmp(a->data, b->data, a->count * sizeof(float)) == 0, "%s", a->name);
    }
    cr_expect(eq(int, (int)nas_weights_fill(ctx, own, large), NAS_ERR_SHAPE));
    nas_graph_free(copy);
    nas_weights_free(own);
    nas_weights_free(w);
    nas_graph_free(small);
    nas_graph_free(large);
}

Test(eval_weights, a_deeper_net_is_refused_by_param_name) {
    wdsr_shape less = net;
    nas_graph *large = net_wdsr(ctx, &net);
    less.blocks = 5;
    nas_graph *deeper = net_wdsr(ctx, &less);
    nas_weights *w = store_of(large, 1);
    cr_expect(eq(int, (int)nas_weights_fill(ctx, w, deeper), NAS_ERR_NOTFOUND));
    cr_expect(strstr(nas_ctx_message(ctx), "block4.expand.weight") != NULL, "%s",
              nas_ctx_message(ctx));
    cr_expect(nas_graph_has_weights(deeper) == false, "a refused graph was filled");
    nas_weights_free(w);
    nas_graph_free(deeper);
    nas_graph_free(large);
}

Test(eval_weights, a_fresh_net_upscales_a_gradient_like_bicubic) {
    for (int32_t scale = 2; scale <= 4; scale++) {
        wdsr_shape shape = net;
        shape.scale = scale;
        nas_graph *g = net_wdsr(ctx, &shape);
        nas_weights *w = store_of(g, 1);
        cr_assert(eq(int, (int)nas_weights_fill(ctx, w, g), NAS_OK));
        nas_image in = {0}, out = {0}, bicubic = {0};
        cr_assert(eq(int, (int)nas_image_init(ctx, 3, 16, 16, &in), NAS_OK));
        for (int32_t i = 0; i < 3 * 256; i++)
            in.data[i] = 0.2f + 0.03f * (float)(i % 16);
        cr_assert(eq(int, (int)nas_forward(ctx, g, &in, &out, 1), NAS_OK));
        cr_assert(eq(int, (int)nas_image_resize_bicubic(ctx, &in, 16 * scale, 16 * scale, &bicubic),
                     NAS_OK));
        double worst = 0.0;
        for (int32_t y = 4 * scale; y < 12 * scale;
             y++) { /* the borders differ: zeros against reflection */
            for (int32_t x = 4 * scale; x < 12 * scale; x++) {
                const int32_t at = y * 16 * scale + x;
                worst = fmax(worst, fabs((double)out.data[at] - (double)bicubic.data[at]));
            }
        }
        cr_expect(worst < 0.02, "x%d: a fresh net is off bicubic by %g", (int)scale, worst);
        nas_image_deinit(&bicubic);
        nas_image_deinit(&out);
        nas_image_deinit(&in);
        nas_weights_free(w);
        nas_graph_free(g);
    }
}

Test(eval_weights, branches_end_smaller_in_deeper_nets) {
    nas_graph *g = net_wdsr(ctx, &net);
    nas_weights *w = store_of(g, 1);
    cr_assert(eq(int, (int)nas_weights_fill(ctx, w, g), NAS_OK));
    const nas_param *p = param_named(g, "block1.conv.weight");
    double squares = 0.0;
    for (size_t i = 0; i < p->count; i++)
        squares += (double)p->data[i] * (double)p->data[i];
    const double deviation = sqrt(squares / (double)p->count);
    const double expected = 1.0 / sqrt(9.0 * net.project) / sqrt(net.blocks); /* fan in, branches */
    cr_expect(fabs(deviation / expected - 1) < 0.25, "deviation %g, expected %g", deviation,
              expected);
    nas_weights_free(w);
    nas_graph_free(g);
}

static void expect_equal_after_step(nas_weights *a, nas_weights *b, nas_graph *g) {
    nas_train_options o = nas_train_options_default();
    o.batch = 1;
    o.patch = net.side;
    nas_rng rng = nas_rng_stream(2, 0, "batch");
    float *lr = noise(ctx, 3 * 64, &rng), *hr = noise(ctx, 3 * 256, &rng);
    nas_weights *stores[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        nas_trainer *t = NULL;
        double loss = 0.0;
        cr_assert(eq(int, (int)nas_trainer_new(ctx, stores[i], &o, &t), NAS_OK));
        cr_assert(eq(int, (int)nas_trainer_accumulate(ctx, t, g, lr, hr, &loss), NAS_OK));
        cr_assert(eq(int, (int)nas_trainer_apply(ctx, t), NAS_OK));
        nas_trainer_free(t);
    }
    nas_graph *other = net_wdsr(ctx, &net);
    cr_assert(eq(int, (int)nas_weights_fill(ctx, a, g), NAS_OK));
    cr_assert(eq(int, (int)nas_weights_fill(ctx, b, other), NAS_OK));
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        const nas_param *p = nas_graph_param(g, i), *q = nas_graph_param(other, i);
        cr_expect(memcmp(p->data, q->data, p->count * sizeof(float)) == 0, "%s", p->name);
    }
    nas_graph_free(other);
    nas_free(hr);
    nas_free(lr);
}

Test(eval_weights, a_checkpoint_brings_values_moments_and_steps_back) {
    nas_graph *g = net_wdsr(ctx, &net);
    nas_weights *a = store_of(g, 1), *b = store_of(g, 2), *c = store_of(g, 1);
    expect_equal_after_step(a, c, g); /* moments are not zero now */
    cr_assert(eq(int, (int)nas_weights_save(ctx, a, path), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_weights_load(ctx, b, path), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_expect(eq(u64, nas_weights_steps(b), 1));
    expect_equal_after_step(a, b, g);
    nas_weights_free(c);
    nas_weights_free(b);
    nas_weights_free(a);
    nas_graph_free(g);
}

Test(eval_weights, a_damaged_or_torn_checkpoint_is_refused_and_changes_nothing) {
    nas_graph *g = net_wdsr(ctx, &net);
    nas_weights *a = store_of(g, 1), *b = store_of(g, 2);
    cr_assert(eq(int, (int)nas_weights_save(ctx, a, path), NAS_OK));
    nas_buf file = {0};
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 1 << 24, &file), NAS_OK));
    cr_assert(eq(int, (int)nas_weights_fill(ctx, b, g), NAS_OK));
    const float before = nas_graph_param(g, 0)->data[0];
    for (size_t at = 0; at < file.len; at += file.len / 13) {
        file.data[at] = (char)(file.data[at] ^ 0x10);
        cr_assert(eq(int, (int)nas_file_write(ctx, path, file.data, file.len, 0600), NAS_OK));
        cr_expect(eq(int, (int)nas_weights_load(ctx, b, path), NAS_ERR_PARSE), "byte %zu", at);
        file.data[at] = (char)(file.data[at] ^ 0x10);
        cr_assert(eq(int, (int)nas_file_write(ctx, path, file.data, at, 0600), NAS_OK));
        cr_expect(eq(int, (int)nas_weights_load(ctx, b, path), NAS_ERR_PARSE), "torn at %zu", at);
    }
    cr_assert(eq(int, (int)nas_weights_fill(ctx, b, g), NAS_OK));
    cr_expect(eq(flt, nas_graph_param(g, 0)->data[0], before));
    nas_buf_deinit(&file);
    nas_weights_free(b);
    nas_weights_free(a);
    nas_graph_free(g);
}

Test(eval_weights, a_checkpoint_of_another_network_is_refused) {
    nas_graph *g = net_wdsr(ctx, &net);
    nas_weights *a = store_of(g, 1);
    cr_assert(eq(int, (int)nas_weights_save(ctx, a, path), NAS_OK));
    wdsr_shape others[2] = {net, net};
    others[0].expand = 11;
    others[1].blocks = 3;
    for (int i = 0; i < 2; i++) {
        nas_graph *h = net_wdsr(ctx, &others[i]);
        nas_weights *b = store_of(h, 1);
        cr_expect(eq(int, (int)nas_weights_load(ctx, b, path), NAS_ERR_SHAPE));
        nas_weights_free(b);
        nas_graph_free(h);
    }
    cr_expect(eq(int, (int)nas_weights_load(ctx, a, "/nonexistent/file") != NAS_OK, 1));
    nas_weights_free(a);
    nas_graph_free(g);
}

static nas_status store_round_trip(nas_graph *g) {
    nas_rng rng = nas_rng_stream(1, 0, "fault");
    nas_weights *w = NULL, *own = NULL;
    nas_status status = nas_weights_new(ctx, g, &rng, &w);
    if (status == NAS_OK) status = nas_weights_inherit(ctx, w, g, &own);
    if (status == NAS_OK) status = nas_weights_save(ctx, w, path);
    if (status == NAS_OK) status = nas_weights_load(ctx, own, path);
    nas_weights_free(own);
    nas_weights_free(w);
    return status;
}

Test(eval_weights, every_failed_allocation_is_reported_and_leaks_nothing, .timeout = 60) {
    nas_graph *g = net_wdsr(ctx, &net);
    const long live = nas_mem_live();
    bool clean = false;
    for (long n = 1; n < 2000 && !clean; n++) {
        nas_mem_fail_after(n);
        const nas_status status = store_round_trip(g);
        nas_mem_fail_after(0);
        clean = status == NAS_OK;
        cr_expect(clean || status == NAS_ERR_NOMEM, "allocation %ld: %s", n,
                  nas_status_text(status));
        cr_expect(eq(long, nas_mem_live(), live), "allocation %ld leaks", n);
    }
    cr_expect(clean, "never ran to the end");
    nas_graph_free(g);
}
