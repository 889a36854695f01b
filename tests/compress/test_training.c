/* test_training.c - gradients of the batched executor against differences; training of classifiers, with normalisations put
 * back, too. Here, because the networks are. */
#include "eval/eval.h"
#include "tests/compress/nets.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

TestSuite(compress_training, .init = nets_setup, .fini = nets_teardown, .timeout = 300);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

/* ---- gradients ---------------------------------------------------------------------------------------------------- */

static nas_class_data *digits(int32_t n) {
    nas_class_data_options o = nas_class_data_options_default();
    nas_class_data *data = NULL;
    o.h = o.w = NET_SIDE;
    o.glyphs = n;
    o.reward_max = o.report_max = n / 4;
    OK(nas_class_data_open(ctx, &o, &data));
    return data;
}

/* Central differences in float: steps of 1e-2 leave an error of about 1e-3 of the larger gradients. */
static void check_gradient_of(int net, nas_graph *g, const nas_graph *teacher,
                              const nas_class_data *data, const nas_tune_options *options) {
    const nas_tune_options o = *options;
    size_t total = 0, at = 0;
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        total += nas_graph_param(g, i)->count;
    float *gradient = nas_alloc_array(ctx, total, sizeof *gradient);
    float *unused = nas_alloc_array(ctx, total, sizeof *unused);
    double loss = 0, largest = 0;
    OK(nas_tune_gradient(ctx, g, teacher, data, &o, 6, &loss, gradient));
    for (size_t i = 0; i < total; i++)
        largest = fmax(largest, fabs((double)gradient[i]));
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        nas_param *p = nas_graph_param(g, i);
        const char *dot = strrchr(p->name, '.');
        const bool statistic = strcmp(dot, ".mean") == 0 || strcmp(dot, ".variance") == 0;
        for (size_t k = 0; k < p->count && !statistic; k += p->count / 3 + 1) {
            const float kept = p->data[k], step = 1e-3F;
            double more = 0, less = 0;
            p->data[k] = kept + step;
            OK(nas_tune_gradient(ctx, g, teacher, data, &o, 6, &more, unused));
            p->data[k] = kept - step;
            OK(nas_tune_gradient(ctx, g, teacher, data, &o, 6, &less, unused));
            p->data[k] = kept;
            const double want = (more - less) / (2 * (double)step), got = (double)gradient[at + k];
            cr_assert(fabs(got - want) <= 0.02 * fabs(want) + 0.01 * largest,
                      "net %d %s[%zu]: %g, by differences %g (largest %g)", net, p->name, k, got,
                      want, largest);
        }
        at += p->count;
    }
    nas_free(gradient);
    nas_free(unused);
}

static void check_gradient(int net, nas_graph *g, const nas_graph *teacher,
                           const nas_class_data *data, bool normalise) {
    nas_tune_options o = nas_tune_options_default();
    o.normalise = normalise;
    check_gradient_of(net, g, teacher, data, &o);
}

/* Against the written-out formula, and against differences of the rounded values: within the grid these lack the -x/s of the
 * straight-through estimator. */
Test(compress_training, gradients_of_steps_are_those_of_lsq) {
    const float x[] = {0.31F, -0.12F, 2.4F, -3.3F, 0.9F, 0}, scale = 0.5F, low = -3, high = 3;
    const float seed[] = {1, -2, 0.5F, 3, -1, 4};
    float d[6];
    double want = 0, difference = 0;
    const float step = 1e-3F;
    for (int i = 0; i < 6; i++) {
        const double t = (double)x[i] / (double)scale, r = rint(t);
        const bool beyond = t < (double)low || t > (double)high;
        double of[2];
        for (int k = 0; k < 2; k++) {
            const double s = (double)scale + (k == 0 ? 1 : -1) * (double)step;
            of[k] = s * rint(fmin(fmax((double)x[i] / s, (double)low), (double)high));
        }
        difference += (double)seed[i] * ((of[0] - of[1]) / (2 * (double)step) - (beyond ? 0 : t));
        want += (double)seed[i] * (beyond ? fmin(fmax(t, (double)low), (double)high) : r - t);
        d[i] = seed[i];
    }
    const double got = nas_lsq_gradient(x, d, 6, scale, low, high) * sqrt(6 * 3.0);
    cr_assert(fabs(got - want) < 1e-5 && fabs(got - difference) < 1e-5, "%g, %g, %g", got, want,
              difference);
    for (int i = 0; i < 6; i++)
        cr_assert(d[i] == (i == 2 || i == 3 ? 0 : seed[i]));
}

/* Weights and bias of one filter times `factor`. */
static void scale_filter(nas_graph *g, const nas_node *node, int32_t o, float factor) {
    nas_param *w = nas_graph_param(g, node->params[0]);
    const size_t filter = w->count / (size_t)w->dims[0];
    for (size_t i = 0; i < filter; i++)
        w->data[(size_t)o * filter + i] *= factor;
    if (node->conv.has_bias) nas_graph_param(g, node->params[1])->data[o] *= factor;
}

/* Of one image, gradient times value of a channel is the slope of the loss over a factor of that channel. */
Test(compress_training, saliency_of_a_channel_is_the_slope_over_its_size) {
    nas_class_data *data = digits(60);
    const nas_tune_options o = nas_tune_options_default();
    nas_graph *g = nets_new(0);
    size_t total = 0, floats = 0, at = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        total += (size_t)nas_graph_node(g, v)->shape.c;
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        floats += nas_graph_param(g, i)->count;
    double *saliency = nas_alloc_array(ctx, total, sizeof *saliency), largest = 0;
    float *unused = nas_alloc_array(ctx, floats, sizeof *unused);
    int compared = 0;
    OK(nas_tune_saliency(ctx, g, data, 1, 2, saliency));
    for (size_t i = 0; i < total; i++)
        largest = fmax(largest, saliency[i]);
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        for (int32_t c = 0; node->op == NAS_OP_CONV && c < node->shape.c; c += 3, compared++) {
            const float step = 1e-2F;
            double more = 0, less = 0;
            scale_filter(g, node, c, 1 + step);
            OK(nas_tune_gradient(ctx, g, NULL, data, &o, 1, &more, unused));
            scale_filter(g, node, c, (1 - step) / (1 + step));
            OK(nas_tune_gradient(ctx, g, NULL, data, &o, 1, &less, unused));
            scale_filter(g, node, c, 1 / (1 - step));
            const double want = fabs(more - less) / (2 * (double)step),
                         got = saliency[at + (size_t)c];
            cr_assert(fabs(got - want) <= 0.02 * want + 0.01 * largest, "%s channel %d: %g, %g",
                      node->name, (int)c, got, want);
        }
        at += (size_t)node->shape.c;
    }
    cr_assert(compared > 10 && largest > 0);
    cr_assert(nas_tune_saliency(ctx, g, data, 1000, 2, saliency) == NAS_ERR_RANGE);
    nas_free(saliency);
    nas_free(unused);
    nas_graph_free(g);
    nas_class_data_close(data);
}

Test(compress_training, gradients_agree_with_differences) {
    nas_class_data *data = digits(60);
    for (int net = 0; net < NETS; net++) {
        nas_graph *g = nets_new(net), *teacher = nets_new((net + 1) % NETS);
        check_gradient(net, g, NULL, data, false);
        check_gradient(net, g, teacher, data, false);
        nas_graph_free(g);
        nas_graph_free(teacher);
    }
    nas_class_data_close(data);
}

enum { HINTS_MAX = 32, HINT_CHANNELS = 1024 };

/* Every second channel of each group of a network stays; additions are its hints. */
typedef struct halved {
    nas_graph *graph;
    nas_tune_hint hints[HINTS_MAX];
    size_t n;
    int32_t of[HINT_CHANNELS];
} halved;

static void halve(const nas_graph *g, halved *out) {
    nas_channels *ch = NULL;
    bool keep[HINT_CHANNELS];
    int32_t *of = out->of;
    OK(nas_channels_find(ctx, g, &ch));
    for (int32_t k = 0; k < nas_channels_class_count(ch); k++)
        keep[k] = k % 2 == 1;
    OK(nas_channels_slice(ctx, ch, g, keep, &out->graph));
    out->n = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        if (nas_graph_node(g, v)->op != NAS_OP_ADD) continue;
        out->hints[out->n++] = (nas_tune_hint){v, v, of};
        for (int32_t c = 0; c < nas_graph_node(g, v)->shape.c; c++) {
            const int32_t class = nas_channels_of(ch, v)[c];
            if (class == NAS_CLASS_FIXED || keep[class]) *of++ = c;
        }
    }
    nas_channels_free(ch);
}

Test(compress_training, gradients_of_hints_agree_with_differences) {
    nas_class_data *data = digits(60);
    nas_tune_options o = nas_tune_options_default();
    nas_graph *teacher = nets_new(0);
    halved h;
    halve(teacher, &h);
    cr_assert(h.n >= 2 && h.hints[0].of[0] != 0, "hints of other channels are wanted");
    o.hints = h.hints;
    o.n_hints = h.n;
    o.hint_weight = 50; /* most of the loss */
    check_gradient_of(0, h.graph, teacher, data, &o);
    nas_graph_free(h.graph);
    nas_graph_free(teacher);
    nas_class_data_close(data);
}

static double hinted_loss(const nas_graph *g, const nas_graph *teacher, const nas_class_data *data,
                          const nas_tune_options *o) {
    double loss = 0;
    float *gradient = NULL;
    size_t total = 0;
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        total += nas_graph_param_const(g, i)->count;
    gradient = nas_alloc_array(ctx, total, sizeof *gradient);
    OK(nas_tune_gradient(ctx, g, teacher, data, o, 6, &loss, gradient));
    nas_free(gradient);
    return loss;
}

/* A copy of the teacher is not apart from it; values twice as large are apart by all of |t|^2, and channels that were mixed up
 * by something else. */
Test(compress_training, hints_are_relative_to_the_size_of_the_teacher_s_values) {
    enum { CHANNELS = 4 };
    nas_class_data *data = digits(60);
    nas_tune_options o = nas_tune_options_default(), without = o;
    nas_graph *teacher = nas_graph_new(ctx, "teacher"), *twice = NULL;
    nas_value x = 0, y = 0;
    const nas_conv_attributes last = {.out_channels = NET_CLASSES,
                                      .kernel_h = NET_SIDE,
                                      .kernel_w = NET_SIDE,
                                      .stride_h = 1,
                                      .stride_w = 1,
                                      .dilation_h = 1,
                                      .dilation_w = 1,
                                      .groups = 1,
                                      .has_bias = true};
    OK(nas_graph_add_input(ctx, teacher, "image", (nas_shape){1, NET_SIDE, NET_SIDE, 3}, &x));
    const nas_conv_attributes first = nas_conv_same(CHANNELS, 3);
    OK(nas_graph_add_conv(ctx, teacher, "first", x, &first, &y));
    OK(nas_graph_add_conv(ctx, teacher, "last", y, &last, &x));
    OK(nas_graph_set_output(ctx, teacher, x));
    OK(nas_graph_alloc_weights(ctx, teacher));
    for (int32_t i = 0; i < nas_graph_param_count(teacher); i++) {
        nas_param *p = nas_graph_param(teacher, i);
        for (size_t k = 0; k < p->count; k++)
            p->data[k] = 0.01F * (float)(1 + k % 7);
    }
    OK(nas_graph_clone(ctx, teacher, &twice));
    for (int slot = 0; slot < 2; slot++) {
        nas_param *p = nas_graph_param(twice, nas_graph_node(twice, y)->params[slot]);
        for (size_t k = 0; k < p->count; k++)
            p->data[k] *= 2;
    }
    static const int32_t same[] = {0, 1, 2, 3}, mixed[] = {3, 1, 2, 0};
    nas_tune_hint hint = {y, y, same};
    o.hints = &hint;
    o.n_hints = 1;
    o.hint_weight = 3;
    const double plain = hinted_loss(teacher, teacher, data, &without);
    cr_assert(fabs(hinted_loss(teacher, teacher, data, &o) - plain) < 1e-9);
    cr_assert(fabs(hinted_loss(twice, teacher, data, &o) -
                   hinted_loss(twice, teacher, data, &without) - 3) < 1e-5);
    hint.of = mixed;
    cr_assert(hinted_loss(teacher, teacher, data, &o) > plain + 1e-4);
    cr_assert(fabs(hinted_loss(teacher, NULL, data, &o) -
                   hinted_loss(teacher, NULL, data, &without)) < 1e-12);
    static const int32_t beyond[] = {0, 1, 2, CHANNELS};
    float unused = 0;
    double loss = 0;
    hint.of = beyond;
    cr_assert(nas_tune_gradient(ctx, teacher, teacher, data, &o, 6, &loss, &unused) ==
              NAS_ERR_RANGE);
    cr_assert(strstr(nas_ctx_message(ctx), "channel 4") != NULL, "%s", nas_ctx_message(ctx));
    hint = (nas_tune_hint){y, x, same};
    cr_assert(nas_tune_gradient(ctx, teacher, teacher, data, &o, 6, &loss, &unused) ==
              NAS_ERR_SHAPE);
    nas_graph_free(twice);
    nas_graph_free(teacher);
    nas_class_data_close(data);
}

static nas_value chain_conv(nas_graph *g, const char *name, nas_value x, nas_conv_attributes c) {
    nas_value out = 0;
    OK(nas_graph_add_conv(ctx, g, name, x, &c, &out));
    return out;
}

/* Where the image keeps its size, its gradient is one convolution over that of the result, beyond whose ends a strided reader
 * leaves what has to be cleared. Kernels of even size, dilated, strided, and without padding. */
Test(compress_training, gradients_pass_convolutions_of_every_border) {
    nas_class_data *data = digits(60);
    nas_graph *g = nas_graph_new(ctx, "chain");
    nas_value x = 0;
    OK(nas_graph_add_input(ctx, g, "image", (nas_shape){1, NET_SIDE, NET_SIDE, 3}, &x));
    nas_conv_attributes even = nas_conv_same(18, 3), dilated = nas_conv_same(9, 3);
    nas_conv_attributes half = nas_conv_same(20, 3), valid = nas_conv_same(33, 3);
    nas_conv_attributes mean = nas_conv_same(NET_CLASSES, 4);
    even.kernel_h = even.kernel_w = 2;
    even.pad_bottom = even.pad_left = 0;
    dilated.dilation_h = dilated.dilation_w = 2;
    dilated.pad_top = dilated.pad_left = dilated.pad_bottom = dilated.pad_right = 2;
    half.stride_h = half.stride_w = 2;
    valid.pad_top = valid.pad_left = valid.pad_bottom = valid.pad_right = 0;
    mean.pad_top = mean.pad_left = mean.pad_bottom = mean.pad_right = 0;
    x = chain_conv(g, "stem", x, nas_conv_same(6, 3));
    x = chain_conv(g, "even", x, even);
    x = chain_conv(g, "dilated", x, dilated);
    OK(nas_graph_add_relu(ctx, g, "relu", x, &x));
    x = chain_conv(g, "half", x, half);
    x = chain_conv(g, "valid", x, valid);
    OK(nas_graph_set_output(ctx, g, chain_conv(g, "classes", x, mean)));
    OK(nas_graph_alloc_weights(ctx, g));
    nas_rng rng = nas_rng_stream(3, 0, "weights");
    OK(nas_class_init(ctx, g, &rng));
    check_gradient(NETS, g, NULL, data, false);
    nas_graph_free(g);
    nas_class_data_close(data);
}

typedef struct epoch_losses {
    double *losses; /* [epochs] sums */
    int32_t steps;  /* of an epoch */
    double first;   /* of the first step */
} epoch_losses;

static nas_status add_loss(nas_ctx *c, void *arg, int32_t step, double loss) {
    epoch_losses *sums = arg;
    (void)c;
    sums->losses[step / sums->steps] += loss;
    if (step == 0) sums->first = loss;
    return NAS_OK;
}

/* The mean of one weight, computed beside the trainer. */
typedef struct weight_mean {
    const nas_graph *graph;
    double most, mean, last;
} weight_mean;

static nas_status add_weight(nas_ctx *c, void *arg, int32_t step, double loss) {
    weight_mean *m = arg;
    const double keep = fmin(m->most, (1.0 + step) / (10.0 + step));
    (void)c;
    (void)loss;
    m->last = (double)nas_graph_param_const(m->graph, 0)->data[0];
    m->mean = step == 0 ? m->last : keep * m->mean + (1 - keep) * m->last;
    return NAS_OK;
}

Test(compress_training, training_lowers_the_loss_with_the_same_bits_for_any_threads) {
    nas_class_data *data = digits(200);
    nas_tune_options o = nas_tune_options_default();
    o.steps = 30;
    o.batch = 32;
    o.warmup = 5;
    float kept[2] = {0};
    for (int way = 0; way < 2; way++) {
        nas_graph *g = nets_new(1);
        size_t total = 0;
        for (int32_t i = 0; i < nas_graph_param_count(g); i++)
            total += nas_graph_param(g, i)->count;
        float *gradient = nas_alloc_array(ctx, total, sizeof *gradient);
        double before = 0, after = 0;
        o.threads = 1 + way;
        OK(nas_tune_gradient(ctx, g, NULL, data, &o, 64, &before, gradient));
        OK(nas_tune(ctx, g, NULL, data, &o, NULL, NULL));
        OK(nas_tune_gradient(ctx, g, NULL, data, &o, 64, &after, gradient));
        cr_assert(after < before, "%g after %g", after, before);
        kept[way] = nas_graph_param(g, 0)->data[0];
        nas_free(gradient);
        nas_graph_free(g);
    }
    cr_assert(memcmp(&kept[0], &kept[1], sizeof kept[0]) == 0);
    nas_class_data_close(data);
}

/* No step changes anything, so that the mean loss of an epoch's batches is that of all images, whatever their order. */
Test(compress_training, an_epoch_has_every_image_once) {
    enum { IMAGES = 48, BATCH = 16, EPOCHS = 2 };
    nas_class_data *data = digits(2 * IMAGES);
    const size_t images = nas_class_data_count(data, NAS_CLASS_TUNE);
    cr_assert_eq(images % BATCH, 0, "%zu images", images);
    nas_graph *g = nets_new(1);
    size_t total = 0;
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        total += nas_graph_param(g, i)->count;
    float *gradient = nas_alloc_array(ctx, total, sizeof *gradient);
    nas_tune_options o = nas_tune_options_default();
    double all = 0, first[2] = {0};
    OK(nas_tune_gradient(ctx, g, NULL, data, &o, (int32_t)images, &all, gradient));
    o.batch = BATCH;
    o.steps = EPOCHS * (int32_t)images / BATCH;
    o.learning_rate = 0;
    o.shift = 0;
    for (int way = 0; way < 2; way++) {
        double losses[EPOCHS] = {0};
        epoch_losses sums = {losses, (int32_t)images / BATCH, 0};
        o.epochs = way == 0;
        OK(nas_tune(ctx, g, NULL, data, &o, add_loss, &sums));
        first[way] = sums.first;
        for (int k = 0; k < EPOCHS; k++) {
            const double apart = fabs(losses[k] / sums.steps - all);
            cr_assert(way == 0 ? apart < 1e-6 * all : apart > 1e-4 * all, "%d, epoch %d: %g of %g",
                      way, k, apart, all);
        }
    }
    cr_assert(first[0] != first[1]);
    nas_free(gradient);
    nas_graph_free(g);
    nas_class_data_close(data);
}

Test(compress_training, the_network_ends_with_the_running_mean_of_its_weights) {
    enum { STEPS = 6 };
    nas_class_data *data = digits(200);
    nas_tune_options o = nas_tune_options_default();
    o.steps = STEPS;
    o.batch = 32;
    o.adam = true;
    o.learning_rate = 1e-3;
    o.average = 0.4;
    float kept[2] = {0};
    for (int way = 0; way < 2; way++) {
        nas_graph *g = nets_new(1);
        weight_mean m = {.graph = g, .most = o.average};
        o.threads = 1 + way;
        OK(nas_tune(ctx, g, NULL, data, &o, add_weight, &m));
        kept[way] = nas_graph_param(g, 0)->data[0];
        cr_assert(fabs((double)kept[way] - m.mean) < 1e-6, "%g, not %g", (double)kept[way], m.mean);
        cr_assert(fabs(m.last - m.mean) > 1e-5, "the mean is the last: %g", m.last);
        nas_graph_free(g);
    }
    cr_assert(memcmp(&kept[0], &kept[1], sizeof kept[0]) == 0);
    nas_graph *g = nets_new(1);
    o.average = 1;
    cr_assert(nas_tune(ctx, g, NULL, data, &o, NULL, NULL) == NAS_ERR_INVALID);
    nas_graph_free(g);
    nas_class_data_close(data);
}

/* ---- normalisations put back ---------------------------------------------------------------------------------------- */

static nas_norms norms_of(const nas_graph *g, const nas_class_data *data) {
    const nas_exec_options o = nas_exec_options_default();
    nas_class_reader reader = {data, NAS_CLASS_TUNE};
    nas_norms m;
    OK(nas_norms_init(ctx, g, &o, 20, nas_class_reader_read, &reader, &m));
    OK(nas_graph_verify(ctx, m.graph));
    return m;
}

/* Through mean and variance of the images, with fused activations, behind grouped and depthwise convolutions, and a normalisation
 * that the network had. */
Test(compress_training, gradients_pass_normalisations_of_a_chunk) {
    nas_class_data *data = digits(60);
    for (int net = 0; net < NETS; net++) {
        nas_graph *g = nets_new(net);
        nas_norms m = norms_of(g, data);
        check_gradient(net, m.graph, NULL, data, true);
        nas_norms_deinit(&m);
        nas_graph_free(g);
    }
    nas_class_data_close(data);
}

/* Largest difference of the answers of two networks, over the largest answer. */
static double apart(const nas_graph *a, const nas_graph *b) {
    enum { IMAGES = 9 };
    float *images = nets_noise(IMAGES), out[2][IMAGES * NET_CLASSES];
    const nas_graph *const both[2] = {a, b};
    const nas_exec_options o = nas_exec_options_default();
    double most = 0, largest = 0;
    for (int k = 0; k < 2; k++) {
        nas_exec *e = NULL;
        OK(nas_exec_new(ctx, both[k], &o, &e));
        OK(nas_exec_run(ctx, e, IMAGES, nets_read_noise, images, out[k]));
        nas_exec_free(e);
    }
    for (int i = 0; i < IMAGES * NET_CLASSES; i++) {
        most = fmax(most, fabs((double)out[0][i] - (double)out[1][i]));
        largest = fmax(largest, fabs((double)out[0][i]));
    }
    nas_free(images);
    return most / largest;
}

static int count_norms(const nas_graph *g) {
    int n = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        n += nas_graph_node(g, v)->op == NAS_OP_BATCH_NORM;
    return n;
}

Test(compress_training, normalisations_put_in_change_nothing_and_fold_into_what_they_compute) {
    static const int added[NETS] = {8, 4, 4,
                                    3}; /* not behind the classifier and a gate of one pixel */
    nas_class_data *data = digits(60);
    nas_rng rng = nas_rng_stream(5, 0, "norms");
    for (int net = 0; net < NETS; net++) {
        nas_graph *g = nets_new(net);
        nas_norms m = norms_of(g, data);
        cr_assert_eq(count_norms(m.graph) - count_norms(g), added[net], "net %d", net);
        cr_assert(apart(g, m.graph) < 1e-4, "net %d: %g", net, apart(g, m.graph));
        for (int32_t i = 0; i < nas_graph_param_count(m.graph); i++) {
            nas_param *p = nas_graph_param(m.graph, i);
            for (size_t k = 0; k < p->count; k++)
                p->data[k] *= 0.5F + (float)nas_rng_uniform(&rng);
        }
        cr_assert(apart(g, m.graph) > 0.1, "net %d: %g", net, apart(g, m.graph));
        nas_norms_fold(&m, g);
        cr_assert(apart(g, m.graph) < 1e-4, "net %d: %g", net, apart(g, m.graph));
        OK(nas_graph_verify(ctx, g));
        nas_norms_deinit(&m);
        nas_graph_free(g);
    }
    nas_class_data_close(data);
}

/* Where all chunks are alike, one walk gives what layer after layer does over all images, whatever the chunks. */
Test(compress_training, averages_of_equal_chunks_are_statistics_of_all_images) {
    enum { IMAGES = 7 };
    nas_class_data *data = digits(60);
    nas_graph *g = nets_new(1);
    nas_norms m = norms_of(g, data);
    float *image = nets_noise(1), *same = nas_alloc_array(ctx, IMAGES * NET_FLOATS, sizeof *same);
    for (int k = 0; k < IMAGES; k++)
        memcpy(same + k * NET_FLOATS, image, NET_FLOATS * sizeof *same);
    for (int way = 0; way < 2; way++) {
        const nas_exec_options o = {.chunk = 2 + 3 * way, .threads = 1 + way};
        nas_graph *want = NULL;
        OK(nas_graph_clone(ctx, m.graph, &want));
        OK(nas_exec_average_norms(ctx, m.graph, &o, IMAGES, nets_read_noise, same));
        OK(nas_exec_recalibrate(ctx, want, &o, IMAGES, nets_read_noise, same));
        for (int32_t i = 0; i < nas_graph_param_count(want); i++) {
            const nas_param *a = nas_graph_param_const(want, i),
                            *b = nas_graph_param_const(m.graph, i);
            for (size_t k = 0; k < a->count; k++) {
                const double is = (double)b->data[k], expected = (double)a->data[k];
                cr_assert(fabs(is - expected) <= 1e-3 * fmax(1, fabs(expected)), "%s[%zu]: %g, %g",
                          a->name, k, is, expected);
            }
        }
        nas_graph_free(want);
    }
    nas_free(image);
    nas_free(same);
    nas_norms_deinit(&m);
    nas_graph_free(g);
    nas_class_data_close(data);
}

static double loss_of(const nas_graph *g, const nas_class_data *data) {
    const nas_tune_options o = nas_tune_options_default();
    size_t total = 0;
    double loss = 0;
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        total += nas_graph_param_const(g, i)->count;
    float *gradient = nas_alloc_array(ctx, total, sizeof *gradient);
    OK(nas_tune_gradient(ctx, g, NULL, data, &o, 64, &loss, gradient));
    nas_free(gradient);
    return loss;
}

Test(compress_training, training_with_normalisations_keeps_the_nodes_and_bits_for_any_threads) {
    nas_class_data *data = digits(200);
    nas_tune_options o = nas_tune_options_default();
    o.steps = 30;
    o.batch = 40; /* two chunks of 20 */
    o.warmup = 5;
    o.normalise = true;
    for (int net = 0; net < NETS; net++) {
        nas_graph *both[2], *before = nets_new(net);
        for (int way = 0; way < 2; way++) {
            both[way] = nets_new(net);
            o.average = net == 1 ? 0.5 : 0;
            o.threads = 1 + way;
            OK(nas_tune(ctx, both[way], NULL, data, &o, NULL, NULL));
            OK(nas_graph_verify(ctx, both[way]));
        }
        cr_assert_eq(nas_graph_node_count(both[0]), nas_graph_node_count(before));
        for (int32_t i = 0; i < nas_graph_param_count(before); i++) {
            const nas_param *a = nas_graph_param_const(both[0], i),
                            *b = nas_graph_param_const(both[1], i);
            cr_assert(memcmp(a->data, b->data, a->count * sizeof *a->data) == 0, "net %d %s", net,
                      a->name);
        }
        cr_assert(loss_of(both[0], data) < loss_of(before, data), "net %d: %g after %g", net,
                  loss_of(both[0], data), loss_of(before, data));
        nas_graph_free(both[0]);
        nas_graph_free(both[1]);
        nas_graph_free(before);
    }
    nas_class_data_close(data);
}

/* What cannot be normalised is said, and the network is as it was after an error. */
Test(compress_training, training_with_normalisations_refuses_what_it_cannot_do) {
    nas_class_data *data = digits(60);
    nas_tune_options o = nas_tune_options_default();
    o.normalise = true;
    o.steps = 1;
    nas_graph *g = nas_graph_new(ctx, "plain");
    nas_value x = 0;
    nas_conv_attributes all = nas_conv_same(NET_CLASSES, NET_SIDE - 1);
    all.kernel_h = all.kernel_w = NET_SIDE;
    all.pad_top = all.pad_left = all.pad_bottom = all.pad_right = 0;
    OK(nas_graph_add_input(ctx, g, "image", (nas_shape){1, NET_SIDE, NET_SIDE, 3}, &x));
    OK(nas_graph_set_output(ctx, g, chain_conv(g, "classes", x, all)));
    OK(nas_graph_alloc_weights(ctx, g));
    cr_assert_eq(nas_tune(ctx, g, NULL, data, &o, NULL, NULL), NAS_ERR_UNSUPPORTED);
    cr_assert(strstr(nas_ctx_message(ctx), "no convolution with a bias") != NULL, "%s",
              nas_ctx_message(ctx));
    cr_assert_eq(nas_tune_codes(ctx, g, NULL, data, &o, NULL, 0, NULL, NULL, NULL),
                 NAS_ERR_UNSUPPORTED);
    nas_graph_free(g);
    nas_class_data_close(data);
}
