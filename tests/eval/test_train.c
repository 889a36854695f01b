/* test_train.c - the trainer: threads, slices, Adam, failures, and that it learns. */
#include "tests/eval/train_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <math.h>
#include <string.h>

static const wdsr_shape small_net = {.channels = 5,
                                     .expand = 14,
                                     .project = 6,
                                     .blocks = 2,
                                     .head = 3,
                                     .tail = 3,
                                     .skip = 5,
                                     .scale = 2,
                                     .side = 9};
static const wdsr_shape smaller_net = {.channels = 3,
                                       .expand = 6,
                                       .project = 4,
                                       .blocks = 1,
                                       .head = 1,
                                       .tail = 3,
                                       .skip = 3,
                                       .scale = 2,
                                       .side = 9};

/* A store, a trainer and one batch for small_net. */
typedef struct rig {
    nas_ctx *ctx;
    nas_graph *g;
    nas_weights *weights;
    nas_trainer *trainer;
    float *lr, *hr;
} rig;

static nas_train_options rig_options(int32_t threads) {
    nas_train_options o = nas_train_options_default();
    o.batch = 6;
    o.patch = small_net.side;
    o.scale = small_net.scale;
    o.threads = threads;
    return o;
}

static rig rig_new(const nas_train_options *o) {
    rig r = {.ctx = quiet_ctx()};
    nas_rng rng = nas_rng_stream(3, 0, "rig");
    const size_t small = (size_t)o->batch * 3 * (size_t)(o->patch * o->patch);
    r.g = net_wdsr(r.ctx, &small_net);
    r.lr = noise(r.ctx, small, &rng);
    r.hr = noise(r.ctx, small * (size_t)(o->scale * o->scale), &rng);
    cr_assert(eq(int, (int)nas_weights_new(r.ctx, r.g, &rng, &r.weights), NAS_OK));
    cr_assert(eq(int, (int)nas_trainer_new(r.ctx, r.weights, o, &r.trainer), NAS_OK));
    return r;
}

static void rig_free(rig *r) {
    nas_trainer_free(r->trainer);
    nas_weights_free(r->weights);
    nas_free(r->hr);
    nas_free(r->lr);
    nas_graph_free(r->g);
    nas_ctx_free(r->ctx);
}

static double rig_step(rig *r) {
    double loss = 0.0;
    cr_assert(
        eq(int, (int)nas_trainer_accumulate(r->ctx, r->trainer, r->g, r->lr, r->hr, &loss), NAS_OK),
        "%s", nas_ctx_message(r->ctx));
    cr_assert(eq(int, (int)nas_trainer_apply(r->ctx, r->trainer), NAS_OK), "%s",
              nas_ctx_message(r->ctx));
    return loss;
}

/* All params of the rig's graph, one after the other; the caller frees. */
static float *all_values(rig *r, size_t *n) {
    cr_assert(eq(int, (int)nas_weights_fill(r->ctx, r->weights, r->g), NAS_OK));
    *n = 0;
    for (int32_t i = 0; i < nas_graph_param_count(r->g); i++)
        *n += nas_graph_param(r->g, i)->count;
    float *values = nas_alloc_array(r->ctx, *n, sizeof *values), *at = values;
    for (int32_t i = 0; i < nas_graph_param_count(r->g); i++) {
        const nas_param *p = nas_graph_param(r->g, i);
        memcpy(at, p->data, p->count * sizeof *at);
        at += p->count;
    }
    return values;
}

Test(eval_train, results_are_the_same_bits_for_any_thread_count) {
    float *first = NULL;
    for (int32_t threads = 1; threads <= 5; threads += 2) {
        const nas_train_options o = rig_options(threads);
        rig r = rig_new(&o);
        for (int i = 0; i < 4; i++)
            (void)rig_step(&r);
        size_t n = 0;
        float *values = all_values(&r, &n);
        if (first == NULL) {
            first = values;
        } else {
            cr_expect(memcmp(first, values, n * sizeof *values) == 0, "%d threads differ",
                      (int)threads);
            nas_free(values);
        }
        rig_free(&r);
    }
    nas_free(first);
}

Test(eval_train, loss_falls_on_a_fixed_batch) {
    const nas_train_options o = rig_options(2);
    rig r = rig_new(&o);
    for (size_t i = 0; i < (size_t)o.batch * 3 * (size_t)(o.patch * o.patch * 4); i++) {
        r.hr[i] = 0.75f * r.hr[i] * r.hr[i]; /* not what the initial net gives */
    }
    const double before = rig_step(&r);
    double after = 0.0;
    for (int i = 0; i < 150; i++)
        after = rig_step(&r);
    cr_expect(after < 0.75 * before, "loss %g, after 150 steps %g", before, after);
    cr_expect(eq(u64, nas_weights_steps(r.weights), 151));
    rig_free(&r);
}

Test(eval_train, a_small_net_changes_only_its_slice) {
    const nas_train_options o = rig_options(1);
    rig r = rig_new(&o);
    (void)rig_step(&r); /* momentum everywhere */
    size_t n = 0, changed = 0, slice = 0;
    float *before = all_values(&r, &n);
    nas_graph *g = net_wdsr(r.ctx, &smaller_net);
    double loss = 0.0;
    cr_assert(eq(int, (int)nas_trainer_accumulate(r.ctx, r.trainer, g, r.lr, r.hr, &loss), NAS_OK),
              "%s", nas_ctx_message(r.ctx));
    cr_assert(eq(int, (int)nas_trainer_apply(r.ctx, r.trainer), NAS_OK));
    float *after = all_values(&r, &n);
    for (size_t i = 0; i < n; i++)
        changed += memcmp(&before[i], &after[i], sizeof *after) != 0;
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        slice += nas_graph_param(g, i)->count;
    cr_expect(changed <= slice, "%zu elements changed, the slice has %zu", changed, slice);
    cr_expect(changed * 10 >= slice * 9, "%zu of %zu elements changed", changed, slice);
    /* head: a 1x1 kernel is the middle of the 3x3 one; row 0 is outside, the middle tap of output 0 inside */
    cr_expect(before[0] == after[0], "a tap outside the centred window changed");
    cr_expect(before[4 * 3] != after[4 * 3], "the centre tap did not change");
    nas_free(after);
    nas_free(before);
    nas_graph_free(g);
    rig_free(&r);
}

/* A 1x1 conv of one output: gradient of its bias by hand. */
Test(eval_train, adam_takes_the_step_computed_by_hand) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 1, 4, &x);
    x = net_conv(ctx, g, "a", x, 1, 1);
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    nas_rng rng = nas_rng_stream(1, 0, "adam");
    nas_weights *w = NULL;
    nas_trainer *t = NULL;
    nas_train_options o = nas_train_options_default();
    o.batch = 1;
    o.patch = 4;
    o.scale = 1;
    o.learning_rate = 0.01;
    cr_assert(eq(int, (int)nas_weights_new(ctx, g, &rng, &w), NAS_OK));
    cr_assert(eq(int, (int)nas_trainer_new(ctx, w, &o, &t), NAS_OK));
    float lr[48], hr[48];
    for (int i = 0; i < 48; i++) {
        lr[i] = 0.0f;
        hr[i] = 1.0f; /* always above the output: the bias gradient is -1 */
    }
    double loss = 0.0, m = 0.0, v = 0.0, bias = 0.0;
    for (int step = 1; step <= 3; step++) {
        const int batches =
            step; /* the sum of equal gradients divided by their number is the same gradient */
        for (int b = 0; b < batches; b++) {
            cr_assert(eq(int, (int)nas_trainer_accumulate(ctx, t, g, lr, hr, &loss), NAS_OK));
        }
        size_t count = 0;
        const float *gradient = nas_trainer_gradient(t, "a.bias", &count);
        cr_assert(gradient != NULL && count == 1);
        cr_expect(fabs((double)gradient[0] + batches) < 1e-5, "gradient %g", (double)gradient[0]);
        cr_assert(eq(int, (int)nas_trainer_apply(ctx, t), NAS_OK));
        m = o.beta1 * m - (1 - o.beta1);
        v = o.beta2 * v + (1 - o.beta2);
        bias -= o.learning_rate * (m / (1 - pow(o.beta1, step))) /
                (sqrt(v / (1 - pow(o.beta2, step))) + o.epsilon);
        cr_assert(eq(int, (int)nas_weights_fill(ctx, w, g), NAS_OK));
        cr_expect(fabs((double)nas_graph_param(g, 1)->data[0] - bias) < 1e-6,
                  "step %d: bias %g, not %g", step, (double)nas_graph_param(g, 1)->data[0], bias);
    }
    cr_expect(nas_trainer_gradient(t, "b.bias", &(size_t){0}) == NULL);
    nas_trainer_free(t);
    nas_weights_free(w);
    nas_graph_free(g);
    nas_ctx_free(ctx);
}

/* Adam divides by the gradient's size, so clipping shows in the first moment: after a clipped step a second step
 * with a full gradient moves further than after an unclipped one. */
Test(eval_train, clipping_changes_the_second_step_only_when_it_bites) {
    float value[3];
    const double clips[3] = {0.0, 1e9, 1e-4};
    for (int i = 0; i < 3; i++) {
        nas_train_options o = rig_options(1);
        o.gradient_clip = clips[i];
        o.epsilon = 1e-3; /* makes the step depend on the gradient's size */
        rig r = rig_new(&o);
        (void)rig_step(&r);
        size_t n = 0;
        float *values = all_values(&r, &n);
        value[i] = values[n / 2];
        nas_free(values);
        rig_free(&r);
    }
    cr_expect(value[0] == value[1], "a clip that does not bite changed the step");
    cr_expect(value[0] != value[2], "a clip that bites did not change the step");
}

Test(eval_train, flops_count_forward_and_both_backwards) {
    const nas_train_options o = rig_options(1);
    rig r = rig_new(&o);
    (void)rig_step(&r);
    uint64_t macs = 0, inputless = 0;
    cr_assert(eq(int, (int)nas_graph_resize_input(r.ctx, r.g, o.patch, o.patch), NAS_OK));
    for (nas_value v = 0; v < nas_graph_node_count(r.g); v++)
        macs += nas_graph_node_cost(r.g, v).macs;
    inputless = nas_graph_node_cost(r.g, nas_graph_find(r.g, "head")).macs +
                nas_graph_node_cost(r.g, nas_graph_find(r.g, "skip")).macs;
    cr_expect(
        eq(u64, nas_trainer_flops(r.trainer), 2 * (3 * macs - inputless) * (uint64_t)o.batch));
    rig_free(&r);
}

Test(eval_train, bad_options_are_named) {
    nas_ctx *ctx = quiet_ctx();
    nas_graph *g = net_wdsr(ctx, &small_net);
    nas_rng rng = nas_rng_stream(1, 0, "options");
    nas_weights *w = NULL;
    nas_trainer *t = NULL;
    cr_assert(eq(int, (int)nas_weights_new(ctx, g, &rng, &w), NAS_OK));
    nas_train_options o = rig_options(1);
    o.batch = 0;
    cr_expect(eq(int, (int)nas_trainer_new(ctx, w, &o, &t), NAS_ERR_RANGE));
    cr_expect(strstr(nas_ctx_message(ctx), "batch") != NULL, "%s", nas_ctx_message(ctx));
    o = rig_options(1000);
    cr_expect(eq(int, (int)nas_trainer_new(ctx, w, &o, &t), NAS_ERR_RANGE));
    cr_expect(strstr(nas_ctx_message(ctx), "threads") != NULL, "%s", nas_ctx_message(ctx));
    o = rig_options(1);
    o.learning_rate = NAN;
    cr_expect(eq(int, (int)nas_trainer_new(ctx, w, &o, &t), NAS_ERR_RANGE));
    nas_weights_free(w);
    nas_graph_free(g);
    nas_ctx_free(ctx);
}

Test(eval_train, a_step_without_gradient_is_refused) {
    const nas_train_options o = rig_options(1);
    rig r = rig_new(&o);
    cr_expect(eq(int, (int)nas_trainer_apply(r.ctx, r.trainer), NAS_ERR_INVALID));
    cr_expect(eq(u64, nas_weights_steps(r.weights), 0));
    rig_free(&r);
}

Test(eval_train, input_that_is_not_finite_changes_nothing) {
    const nas_train_options o = rig_options(2);
    rig r = rig_new(&o);
    size_t n = 0;
    float *before = all_values(&r, &n);
    double loss = -1.0;
    r.hr[5] = NAN;
    cr_expect(eq(int, (int)nas_trainer_accumulate(r.ctx, r.trainer, r.g, r.lr, r.hr, &loss),
                 NAS_ERR_INTERNAL));
    cr_expect(loss < 0, "the loss was written");
    cr_expect(eq(int, (int)nas_trainer_apply(r.ctx, r.trainer), NAS_ERR_INVALID));
    float *after = all_values(&r, &n);
    cr_expect(memcmp(before, after, n * sizeof *after) == 0);
    nas_free(after);
    nas_free(before);
    rig_free(&r);
}

Test(eval_train, a_graph_that_does_not_fit_is_refused_by_name) {
    const nas_train_options o = rig_options(1);
    rig r = rig_new(&o);
    double loss = 0.0;
    nas_value x = NAS_VALUE_NONE, y = NAS_VALUE_NONE;
    nas_graph *g = net_new(r.ctx, 3, small_net.side, &x);
    nas_conv_attributes strided = nas_conv_same(12, 3);
    strided.stride_h = strided.stride_w = 2;
    cr_assert(eq(int, (int)nas_graph_add_conv(r.ctx, g, "strided", x, &strided, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(r.ctx, g, y), NAS_OK));
    cr_expect(eq(int, (int)nas_trainer_accumulate(r.ctx, r.trainer, g, r.lr, r.hr, &loss),
                 NAS_ERR_UNSUPPORTED));
    cr_expect(strstr(nas_ctx_message(r.ctx), "strided") != NULL, "%s", nas_ctx_message(r.ctx));
    nas_graph_free(g);
    wdsr_shape shape = small_net;
    shape.scale = 3;
    g = net_wdsr(r.ctx, &shape);
    cr_expect(eq(int, (int)nas_trainer_accumulate(r.ctx, r.trainer, g, r.lr, r.hr, &loss),
                 NAS_ERR_SHAPE));
    nas_graph_free(g);
    shape = small_net;
    shape.channels = 6; /* more than the store has */
    g = net_wdsr(r.ctx, &shape);
    cr_expect(eq(int, (int)nas_trainer_accumulate(r.ctx, r.trainer, g, r.lr, r.hr, &loss),
                 NAS_ERR_SHAPE));
    cr_expect(strstr(nas_ctx_message(r.ctx), "head.weight") != NULL, "%s", nas_ctx_message(r.ctx));
    nas_graph_free(g);
    shape = small_net;
    shape.blocks = 3;
    g = net_wdsr(r.ctx, &shape);
    cr_expect(eq(int, (int)nas_trainer_accumulate(r.ctx, r.trainer, g, r.lr, r.hr, &loss),
                 NAS_ERR_NOTFOUND));
    nas_graph_free(g);
    rig_free(&r);
}

/* One whole training step; every allocation in it fails once. */
static nas_status whole_step(nas_ctx *ctx, nas_graph *g, const nas_train_options *o,
                             const float *lr, const float *hr) {
    nas_weights *w = NULL;
    nas_trainer *t = NULL;
    double loss = 0.0;
    nas_rng rng = nas_rng_stream(1, 0, "fault");
    nas_status status = nas_weights_new(ctx, g, &rng, &w);
    if (status == NAS_OK) status = nas_trainer_new(ctx, w, o, &t);
    if (status == NAS_OK) status = nas_trainer_accumulate(ctx, t, g, lr, hr, &loss);
    if (status == NAS_OK) status = nas_trainer_apply(ctx, t);
    nas_trainer_free(t);
    nas_weights_free(w);
    return status;
}

Test(eval_train, every_failed_allocation_is_reported_and_leaks_nothing, .timeout = 60) {
    const nas_train_options o = rig_options(2);
    rig r = rig_new(&o);
    const long live = nas_mem_live();
    bool clean = false;
    for (long n = 1; n < 1000 && !clean; n++) {
        nas_mem_fail_after(n);
        const nas_status status = whole_step(r.ctx, r.g, &o, r.lr, r.hr);
        nas_mem_fail_after(0);
        clean = status == NAS_OK;
        cr_expect(clean || status == NAS_ERR_NOMEM, "allocation %ld: %s", n,
                  nas_status_text(status));
        cr_expect(eq(long, nas_mem_live(), live), "allocation %ld leaks", n);
    }
    cr_expect(clean, "never ran to the end");
    rig_free(&r);
}
