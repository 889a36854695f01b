/* test_executor.c - the batched executor against the naive reference; what layers see; the repair that uses it. Here, because
 * the networks and the reference are. */
#include "eval/eval.h"
#include "tests/compress/nets.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

TestSuite(compress_executor, .init = nets_setup, .fini = nets_teardown, .timeout = 300);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

Test(compress_executor, every_structure_gives_the_reference_for_any_chunk_and_threads) {
    enum { IMAGES = 5 };
    float *images = nets_noise(IMAGES);
    for (int net = 0; net < NETS; net++) {
        nas_graph *g = nets_new(net);
        float first[IMAGES * NET_CLASSES], out[IMAGES * NET_CLASSES];
        for (int32_t way = 0; way < 4; way++) {
            const nas_exec_options o = {.chunk = way + 1, .threads = 1 + way % 2};
            nas_exec *e = NULL;
            OK(nas_exec_new(ctx, g, &o, &e));
            OK(nas_exec_run(ctx, e, IMAGES, nets_read_noise, images, way == 0 ? first : out));
            nas_exec_free(e);
            if (way > 0) cr_assert(memcmp(first, out, sizeof out) == 0, "net %d way %d", net, way);
        }
        for (size_t k = 0; k < IMAGES; k++) {
            double want[NET_CLASSES];
            nets_output(g, images + k * NET_FLOATS, want);
            for (int i = 0; i < NET_CLASSES; i++) {
                const double got = (double)first[k * NET_CLASSES + (size_t)i];
                cr_assert(fabs(got - want[i]) <= 1e-4 * fmax(1, fabs(want[i])),
                          "net %d image %zu output %d: %g, not %g", net, k, i, got, want[i]);
            }
        }
        nas_graph_free(g);
    }
    nas_free(images);
}

Test(compress_executor, bf16_is_near_for_any_chunk_and_threads) {
    enum { IMAGES = 5 };
    if (!nas_exec_has_bf16()) cr_skip("no AMX-BF16 here");
    float *images = nets_noise(IMAGES);
    for (int net = 0; net < NETS; net++) {
        nas_graph *g = nets_new(net);
        float out[4][IMAGES * NET_CLASSES];
        double most = 0;
        for (int32_t way = 0; way < 4; way++) { /* floats first */
            const nas_exec_options o = {.chunk = way + 1, .threads = 1 + way % 2, .bf16 = way > 0};
            nas_exec *e = NULL;
            OK(nas_exec_new(ctx, g, &o, &e));
            OK(nas_exec_run(ctx, e, IMAGES, nets_read_noise, images, out[way]));
            nas_exec_free(e);
            if (way > 1) cr_assert(memcmp(out[1], out[way], sizeof out[way]) == 0, "net %d", net);
        }
        for (int i = 0; i < IMAGES * NET_CLASSES; i++)
            most = fmax(most, fabs((double)out[0][i]));
        bool same = true;
        for (int i = 0; i < IMAGES * NET_CLASSES; i++) {
            const double off = fabs((double)out[0][i] - (double)out[1][i]);
            same = same && off <= 0;
            cr_assert(off <= 0.02 * most, "net %d, output %d: %g of %g", net, i, off, most);
        }
        cr_assert(!same, "net %d has no bf16 in it", net);
        nas_graph_free(g);
    }
    nas_free(images);
}

Test(compress_executor, an_operator_that_cannot_be_run_is_named) {
    nas_graph *g = nas_graph_new(ctx, "net");
    nas_value x = 0;
    nas_exec *e = NULL;
    OK(nas_graph_add_input(ctx, g, "image", (nas_shape){1, 4, 4, 4}, &x));
    OK(nas_graph_add_depth_to_space(ctx, g, "shuffle", x, 2, &x));
    OK(nas_graph_set_output(ctx, g, x));
    OK(nas_graph_alloc_weights(ctx, g));
    const nas_exec_options o = nas_exec_options_default();
    cr_assert(nas_exec_new(ctx, g, &o, &e) == NAS_ERR_UNSUPPORTED);
    cr_assert(strstr(nas_ctx_message(ctx), "'shuffle'") != NULL);
    nas_graph_free(g);
}

/* ---- statistics and repair ---------------------------------------------------------------------------------------- */

Test(compress_executor, moments_are_symmetric_and_count_their_samples) {
    enum { IMAGES = 9, POSITIONS = 4 };
    float *images = nets_noise(IMAGES);
    nas_graph *g = nets_new(0);
    const nas_value conv = nas_graph_find(g, "a1");
    nas_exec_gram one = {0}, two = {0};
    nas_exec_options o = {.chunk = 2, .threads = 1};
    OK(nas_exec_grams(ctx, g, &o, &conv, 1, IMAGES, POSITIONS, 3, nets_read_noise, images, &one));
    o = (nas_exec_options){.chunk = 4, .threads = 2};
    OK(nas_exec_grams(ctx, g, &o, &conv, 1, IMAGES, POSITIONS, 3, nets_read_noise, images, &two));
    const size_t n = (size_t)one.size;
    cr_assert(one.size == 3 * 3 * 8 + 1 && one.rows == IMAGES * POSITIONS);
    cr_assert(fabs(one.gram[n * n - 1] - IMAGES * POSITIONS) < 1e-6); /* the ones */
    for (size_t i = 0; i < n * n; i++) {
        cr_assert(one.gram[i] == one.gram[i % n * n + i / n]);
        cr_assert(fabs(one.gram[i] - two.gram[i]) <= 1e-9 * fabs(one.gram[i]));
    }
    nas_exec_gram_deinit(&one);
    nas_exec_gram_deinit(&two);
    nas_graph_free(g);
    nas_free(images);
}

typedef struct answers {
    float *of; /* [variants][images][NET_CLASSES] */
    size_t images;
} answers;

static void keep_answer(void *arg, size_t variant, size_t image, const float *hwc) {
    const answers *a = arg;
    memcpy(a->of + (variant * a->images + image) * NET_CLASSES, hwc, NET_CLASSES * sizeof *hwc);
}

/* Every plain convolution exchanged for that of each of two other networks, against the whole network with it exchanged. */
Test(compress_executor, variants_are_what_the_network_with_one_convolution_exchanged_gives) {
    enum { IMAGES = 7, VARIANTS_MAX = 64 };
    float *images = nets_noise(IMAGES);
    const nas_exec_options o = {.chunk = 3, .threads = 2};
    for (int net = 0; net < NETS; net++) {
        nas_graph *g = nets_new(net), *others[2] = {NULL, NULL};
        nas_exec_variant variants[VARIANTS_MAX];
        size_t n = 0;
        for (size_t k = 0; k < 2; k++) {
            OK(nas_graph_clone(ctx, g, &others[k]));
            for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
                nas_param *param = nas_graph_param(others[k], p);
                for (size_t i = 0; i < param->count; i++)
                    param->data[i] *= k == 0 ? 0.5F : -1.25F;
            }
        }
        for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
            for (size_t k = 0; k < 2 && nas_graph_node(g, v)->op == NAS_OP_CONV; k++)
                variants[n++] = (nas_exec_variant){v, k};
        }
        answers a = {nas_alloc_array(ctx, n * IMAGES * NET_CLASSES, sizeof(float)), IMAGES};
        OK(nas_exec_run_variants(ctx, g, (const nas_graph *const *)others, 2, &o, variants, n,
                                 IMAGES, nets_read_noise, images, keep_answer, &a));
        for (size_t k = 0; k < n; k++) {
            nas_graph *whole = NULL;
            nas_exec *e = NULL;
            float out[IMAGES * NET_CLASSES];
            const nas_node *node = nas_graph_node(g, variants[k].conv);
            OK(nas_graph_clone(ctx, g, &whole));
            for (int i = 0; i < 1 + node->conv.has_bias; i++) {
                const nas_param *p =
                    nas_graph_param_const(others[variants[k].graph], node->params[i]);
                memcpy(nas_graph_param(whole, node->params[i])->data, p->data,
                       p->count * sizeof *p->data);
            }
            OK(nas_exec_new(ctx, whole, &o, &e));
            OK(nas_exec_run(ctx, e, IMAGES, nets_read_noise, images, out));
            cr_assert(memcmp(out, a.of + k * IMAGES * NET_CLASSES, sizeof out) == 0,
                      "net %d, '%s', network %zu", net, node->name, variants[k].graph);
            nas_exec_free(e);
            nas_graph_free(whole);
        }
        const nas_exec_variant swapped[2] = {variants[n - 1], variants[0]};
        cr_assert(nas_exec_run_variants(ctx, g, (const nas_graph *const *)others, 2, &o, swapped, 2,
                                        IMAGES, nets_read_noise, images, keep_answer,
                                        &a) == NAS_ERR_INVALID);
        nas_free(a.of);
        nas_graph_free(others[0]);
        nas_graph_free(others[1]);
        nas_graph_free(g);
    }
    nas_free(images);
}

/* What a convolution answers at one place, from its weights: the product that moments are made of. */
static double through(const double *gram, int32_t size, const nas_graph *g, nas_value conv,
                      size_t i, size_t output) {
    const nas_node *node = nas_graph_node(g, conv);
    const size_t n = (size_t)size - 1;
    const float *w = nas_graph_param_const(g, node->params[0])->data + output * n;
    double sum = 0;
    for (size_t k = 0; k < n; k++)
        sum += gram[i * (n + 1) + k] * (double)w[k];
    return sum +
           gram[i * (n + 1) + n] * (double)nas_graph_param_const(g, node->params[1])->data[output];
}

Test(compress_executor, moments_of_a_network_and_itself_are_its_moments_and_its_outputs) {
    enum { IMAGES = 11, POSITIONS = 5 };
    float *images = nets_noise(IMAGES);
    nas_graph *g = nets_new(0);
    const nas_value conv = nas_graph_find(g, "a2");
    nas_exec_gram gram = {0};
    nas_exec_pair pair = {0}, again = {0};
    nas_exec_options o = {.chunk = 4, .threads = 2};
    OK(nas_exec_grams(ctx, g, &o, &conv, 1, IMAGES, POSITIONS, 3, nets_read_noise, images, &gram));
    OK(nas_exec_pair_moments(ctx, g, g, &o, conv, NAS_VALUE_NONE, IMAGES, POSITIONS, 3,
                             nets_read_noise, images, &pair));
    o.threads = 1;
    OK(nas_exec_pair_moments(ctx, g, g, &o, conv, NAS_VALUE_NONE, IMAGES, POSITIONS, 3,
                             nets_read_noise, images, &again));
    const size_t size = (size_t)pair.size, outputs = (size_t)pair.outputs;
    cr_assert(pair.size == gram.size && pair.rows == gram.rows);
    const double scale = gram.gram[size * size - 1];
    for (size_t i = 0; i < size * size; i++)
        cr_assert(fabs(pair.gram[i] - gram.gram[i]) <= 1e-5 * scale, "%zu", i);
    for (size_t i = 0; i < size; i++) {
        for (size_t k = 0; k < outputs; k++)
            cr_assert(fabs(pair.cross[i * outputs + k] -
                           through(gram.gram, gram.size, g, conv, i, k)) <= 1e-4 * scale,
                      "%zu %zu", i, k);
    }
    cr_assert(memcmp(pair.gram, again.gram, size * size * sizeof *pair.gram) == 0);
    cr_assert(memcmp(pair.cross, again.cross, size * outputs * sizeof *pair.cross) == 0);
    nas_exec_gram_deinit(&gram);
    nas_exec_pair_deinit(&pair);
    nas_exec_pair_deinit(&again);
    nas_graph_free(g);
    nas_free(images);
}

Test(compress_executor, targets_also_make_up_for_what_is_added_to_the_output) {
    enum { IMAGES = 6, POSITIONS = 5 };
    float *images = nets_noise(IMAGES);
    nas_graph *dense = nets_new(0), *g = NULL;
    OK(nas_graph_clone(ctx, dense, &g));
    const nas_value first = nas_graph_find(g, "a1"), conv = nas_graph_find(g, "a2");
    const nas_exec_options o = {.chunk = 4, .threads = 2};
    nas_param *bias = nas_graph_param(g, nas_graph_node(g, first)->params[1]);
    const float moved = 0.25F;
    nas_exec_pair plain = {0}, summed = {0};
    for (size_t i = 0; i < bias->count; i++)
        bias->data[i] += moved;
    OK(nas_exec_pair_moments(ctx, g, dense, &o, conv, NAS_VALUE_NONE, IMAGES, POSITIONS, 3,
                             nets_read_noise, images, &plain));
    const nas_shape a = nas_graph_node(g, first)->shape, b = nas_graph_node(g, conv)->shape;
    if (a.h == b.h && a.w == b.w && a.c == b.c) {
        OK(nas_exec_pair_moments(ctx, g, dense, &o, conv, first, IMAGES, POSITIONS, 3,
                                 nets_read_noise, images, &summed));
        const size_t last = (size_t)plain.size - 1, n = (size_t)plain.outputs;
        double least = 0; /* the value is too high in g, so targets are lower by it */
        for (size_t k = 0; k < n; k++)
            least += summed.cross[last * n + k] - plain.cross[last * n + k];
        cr_assert(least < 0, "%g", least);
        nas_exec_pair_deinit(&summed);
    }
    cr_assert(nas_exec_pair_moments(ctx, g, dense, &o, conv, nas_graph_output(g), IMAGES, POSITIONS,
                                    3, nets_read_noise, images, &summed) == NAS_ERR_SHAPE);
    nas_exec_pair_deinit(&plain);
    nas_graph_free(dense);
    nas_graph_free(g);
    nas_free(images);
}

/* Outputs of `g` minus those of `other`, mean square over images. */
static double error_between(const nas_graph *g, const nas_graph *other, const float *images,
                            size_t n) {
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        double a[NET_CLASSES], b[NET_CLASSES];
        nets_output(g, images + k * NET_FLOATS, a);
        nets_output(other, images + k * NET_FLOATS, b);
        for (int i = 0; i < NET_CLASSES; i++)
            sum += (a[i] - b[i]) * (a[i] - b[i]) / (double)n;
    }
    return sum;
}

Test(compress_executor, repair_restores_a_channel_that_others_can_stand_in_for) {
    enum { IMAGES = 60 };
    float *images = nets_noise(IMAGES);
    nas_graph *g = nets_new(0), *plain = NULL, *mended = NULL;
    nas_param *w = nas_graph_param(g, nas_graph_node(g, nas_graph_find(g, "a1"))->params[0]);
    nas_param *b = nas_graph_param(g, nas_graph_node(g, nas_graph_find(g, "a1"))->params[1]);
    const size_t filter = w->count / (size_t)w->dims[0];
    memcpy(w->data + 4 * filter, w->data,
           filter * sizeof *w->data); /* channel 4 repeats channel 0 */
    b->data[4] = b->data[0];
    nas_channels *ch = NULL;
    OK(nas_channels_find(ctx, g, &ch));
    bool *keep = nas_alloc_array(ctx, (size_t)nas_channels_class_count(ch), sizeof *keep);
    for (int32_t i = 0; i < nas_channels_class_count(ch); i++)
        keep[i] = true;
    keep[nas_channels_of(ch, nas_graph_find(g, "a1"))[4]] = false;
    const nas_value conv = nas_graph_find(g, "a2");
    const nas_exec_options o = {.chunk = 8, .threads = 2};
    nas_exec_gram gram = {0};
    OK(nas_exec_grams(ctx, g, &o, &conv, 1, IMAGES, 20, 3, nets_read_noise, images, &gram));
    const nas_moments m = {.conv = conv, .size = gram.size, .gram = gram.gram};
    int32_t repaired = 0;
    OK(nas_channels_slice(ctx, ch, g, keep, &plain));
    OK(nas_channels_slice(ctx, ch, g, keep, &mended));
    OK(nas_channels_repair(ctx, ch, g, keep, &m, 1, 1e-9, mended, &repaired));
    const double lost = error_between(g, plain, images, 10);
    const double left = error_between(g, mended, images, 10);
    cr_assert(repaired == 1);
    cr_assert(lost > 1e-5 && left < 1e-5 * lost, "%g without repair, %g with it", lost, left);
    nas_exec_gram_deinit(&gram);
    nas_free(keep);
    nas_channels_free(ch);
    nas_graph_free(plain);
    nas_graph_free(mended);
    nas_graph_free(g);
    nas_free(images);
}

/* Least squares from what the pruned layers give: the classifier, whose one place is always the sample, comes nearer to the
 * original's answers, although it has lost no input itself. */
Test(compress_executor, repair_with_targets_fits_a_layer_that_lost_nothing) {
    enum { IMAGES = 60 };
    float *images = nets_noise(IMAGES);
    nas_graph *g = nets_new(0), *sliced = NULL;
    nas_channels *ch = NULL;
    OK(nas_channels_find(ctx, g, &ch));
    bool *keep = nas_alloc_array(ctx, (size_t)nas_channels_class_count(ch), sizeof *keep);
    for (int32_t i = 0; i < nas_channels_class_count(ch); i++)
        keep[i] = true;
    for (int32_t c = 0; c < 3; c++)
        keep[nas_channels_of(ch, nas_graph_find(g, "c1"))[c]] = false;
    OK(nas_channels_slice(ctx, ch, g, keep, &sliced));
    nas_graph *masked = NULL;
    OK(nas_graph_clone(ctx, g, &masked));
    OK(nas_channels_mask(ctx, ch, masked, keep));
    const nas_exec_options o = {.chunk = 8, .threads = 2};
    const nas_value conv = nas_graph_find(g, "classes");
    nas_exec_pair p;
    OK(nas_exec_pair_moments(ctx, masked, g, &o, conv, NAS_VALUE_NONE, IMAGES, 1, 3,
                             nets_read_noise, images, &p));
    const nas_moments m = {.conv = conv, .size = p.size, .gram = p.gram, .cross = p.cross};
    int32_t repaired = 0;
    const double before = error_between(g, sliced, images, IMAGES);
    OK(nas_channels_repair(ctx, ch, g, keep, &m, 1, 1e-9, sliced, &repaired));
    const double after = error_between(g, sliced, images, IMAGES);
    cr_assert(repaired == 1 && after < 0.5 * before, "%g after %g", after, before);
    nas_exec_pair_deinit(&p);
    nas_free(keep);
    nas_channels_free(ch);
    nas_graph_free(masked);
    nas_graph_free(sliced);
    nas_graph_free(g);
    nas_free(images);
}

Test(compress_executor, recalibration_takes_mean_and_variance_of_what_is_normalised) {
    enum { IMAGES = 20 };
    float *images = nets_noise(IMAGES);
    nas_graph *g = nas_graph_new(ctx, "net");
    nas_value x = 0;
    const nas_node norm = {.op = NAS_OP_BATCH_NORM, .n_inputs = 1, .epsilon = 1e-5F};
    OK(nas_graph_add_input(ctx, g, "image", (nas_shape){1, NET_SIDE, NET_SIDE, 3}, &x));
    OK(nas_graph_add_node(ctx, g, "norm", &norm, &x));
    OK(nas_graph_set_output(ctx, g, x));
    OK(nas_graph_alloc_weights(ctx, g));
    const nas_exec_options o = {.chunk = 3, .threads = 2};
    OK(nas_exec_recalibrate(ctx, g, &o, IMAGES, nets_read_noise, images));
    const nas_node *made = nas_graph_node(g, x);
    for (size_t c = 0; c < 3; c++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < (size_t)IMAGES * NET_PLANE; i++) {
            const double v =
                (double)images[i / NET_PLANE * NET_FLOATS + c * NET_PLANE + i % NET_PLANE];
            sum += v / (IMAGES * NET_PLANE);
            squares += v * v / (IMAGES * NET_PLANE);
        }
        cr_assert(fabs((double)nas_graph_param(g, made->params[2])->data[c] - sum) < 1e-5);
        cr_assert(fabs((double)nas_graph_param(g, made->params[3])->data[c] -
                       (squares - sum * sum)) < 1e-5);
    }
    nas_graph_free(g);
    nas_free(images);
}

/* Every second class of each group goes. */
static nas_graph *half_of(const nas_graph *g, const nas_channels *ch, bool *keep) {
    nas_graph *out = NULL;
    for (int32_t i = 0; i < nas_channels_group_count(ch); i++) {
        const nas_channel_group *group = nas_channels_group(ch, i);
        for (int32_t k = 0; k < group->channels; k++)
            keep[group->classes[k]] = k % 2 == 0;
    }
    OK(nas_channels_slice(ctx, ch, g, keep, &out));
    return out;
}

static size_t kept_statistics(const nas_graph *g, const nas_channels *ch, const bool *keep,
                              const nas_exec_channel *all, nas_exec_channel *kept) {
    size_t from = 0, to = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        if (!nas_exec_is_matched(g, v)) continue;
        for (int32_t c = 0; c < nas_graph_node(g, v)->shape.c; c++, from++) {
            const int32_t number = nas_channels_of(ch, v)[c];
            if (number == NAS_CLASS_FIXED || keep[number]) kept[to++] = all[from];
        }
    }
    return to;
}

/* Largest difference of two lists, relative to a channel's deviation. */
static double worst_between(const nas_exec_channel *a, const nas_exec_channel *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double unit = b[i].deviation > 1e-3 ? b[i].deviation : 1;
        worst = fmax(worst, fabs(a[i].mean - b[i].mean) / unit);
        worst = fmax(worst, fabs(a[i].deviation - b[i].deviation) / unit);
    }
    return worst;
}

Test(compress_executor, matched_layers_give_the_means_and_deviations_they_gave_before) {
    enum { IMAGES = 70 }; /* in three parts */
    float *images = nets_noise(IMAGES);
    for (int net = 0; net < NETS; net++) {
        nas_graph *g = nets_new(net), *two = NULL;
        nas_channels *ch = NULL;
        OK(nas_channels_find(ctx, g, &ch));
        bool *keep = nas_alloc_array(ctx, (size_t)nas_channels_class_count(ch), sizeof *keep);
        const size_t n = nas_exec_channel_count(g);
        nas_exec_channel *all = nas_alloc_array(ctx, n, sizeof *all);
        nas_exec_channel *want = nas_alloc_array(ctx, n, sizeof *want);
        nas_exec_channel *got = nas_alloc_array(ctx, n, sizeof *got);
        nas_exec_options o = {.chunk = 3, .threads = 2};
        OK(nas_exec_statistics(ctx, g, &o, IMAGES, nets_read_noise, images, all));
        nas_graph *one = half_of(g, ch, keep);
        OK(nas_graph_clone(ctx, one, &two));
        const size_t kept = kept_statistics(g, ch, keep, all, want);
        cr_assert(kept == nas_exec_channel_count(one) && kept < n);
        OK(nas_exec_statistics(ctx, one, &o, IMAGES, nets_read_noise, images, got));
        const double before = worst_between(got, want, kept);
        OK(nas_exec_match(ctx, one, &o, IMAGES, nets_read_noise, images, want));
        OK(nas_exec_statistics(ctx, one, &o, IMAGES, nets_read_noise, images, got));
        const double after = worst_between(got, want, kept);
        cr_assert(before > 0.05 && after < 1e-3, "net %d: %g before, %g after", net, before, after);
        o = (nas_exec_options){.chunk = 8, .threads = 1};
        OK(nas_exec_match(ctx, two, &o, IMAGES, nets_read_noise, images, want));
        for (int32_t i = 0; i < nas_graph_param_count(one); i++) {
            const nas_param *a = nas_graph_param(one, i), *b = nas_graph_param(two, i);
            cr_assert(memcmp(a->data, b->data, a->count * sizeof *a->data) == 0);
        }
        nas_free(all);
        nas_free(want);
        nas_free(got);
        nas_free(keep);
        nas_channels_free(ch);
        nas_graph_free(one);
        nas_graph_free(two);
        nas_graph_free(g);
    }
    nas_free(images);
}

/* Every weight of a convolution becomes a code, so many steps of 1/8. */
static void put_on_grids(nas_graph *g) {
    enum { BITS = 8 };
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_CONV || !node->conv.has_bias) continue;
        nas_param *w = nas_graph_param(g, node->params[0]);
        float scales[64];
        cr_assert(w->dims[0] <= 64);
        for (int32_t c = 0; c < w->dims[0]; c++)
            scales[c] = 0.125F;
        for (size_t i = 0; i < w->count; i++)
            w->data[i] = fmaxf(fminf(nearbyintf(w->data[i] * 8), 127), -127) / 8;
        OK(nas_graph_set_weight_scales(ctx, g, node->params[0], BITS, scales));
    }
}

/* Codes are as they were: the grid moves with its filter. */
Test(compress_executor, matched_layers_whose_weights_lie_on_a_grid_stay_on_it) {
    enum { IMAGES = 20 };
    float *images = nets_noise(IMAGES);
    nas_graph *g = nets_new(0), *before = NULL;
    const nas_exec_options o = {.chunk = 3, .threads = 2};
    const size_t n = nas_exec_channel_count(g);
    nas_exec_channel *want = nas_alloc_array(ctx, n, sizeof *want);
    nas_exec_channel *got = nas_alloc_array(ctx, n, sizeof *got);
    put_on_grids(g);
    OK(nas_graph_clone(ctx, g, &before));
    OK(nas_exec_statistics(ctx, g, &o, IMAGES, nets_read_noise, images, want));
    for (size_t i = 0; i < n; i++)
        want[i] = (nas_exec_channel){want[i].mean + 0.1, want[i].deviation * 1.7};
    OK(nas_exec_match(ctx, g, &o, IMAGES, nets_read_noise, images, want));
    OK(nas_exec_statistics(ctx, g, &o, IMAGES, nets_read_noise, images, got));
    cr_assert(worst_between(got, want, n) < 1e-3, "%g", worst_between(got, want, n));
    int moved = 0;
    for (int32_t k = 0; k < nas_graph_param_count(g); k++) {
        const nas_param *a = nas_graph_param_const(g, k), *b = nas_graph_param_const(before, k);
        if (b->scales == NULL) continue;
        const size_t each = a->count / (size_t)a->dims[0];
        for (size_t i = 0; i < a->count; i++) {
            const float code = nearbyintf(b->data[i] / b->scales[i / each]);
            cr_assert(a->data[i] == code * a->scales[i / each], "param %d, weight %zu", (int)k, i);
            moved += i % each == 0 && a->scales[i / each] > 1.1F * b->scales[i / each];
        }
    }
    cr_assert(moved > 0);
    nas_free(want);
    nas_free(got);
    nas_graph_free(before);
    nas_graph_free(g);
    nas_free(images);
}

/* The executor keeps a convolution's value only after its activation: statistics are of what came before it. */
Test(compress_executor, statistics_are_of_values_before_their_activation) {
    enum { IMAGES = 5 };
    float *images = nets_noise(IMAGES);
    nas_graph *g = nas_graph_new(ctx, "net");
    nas_value x = 0;
    const nas_conv_attributes conv = {.out_channels = 1,
                                      .kernel_h = 1,
                                      .kernel_w = 1,
                                      .stride_h = 1,
                                      .stride_w = 1,
                                      .dilation_h = 1,
                                      .dilation_w = 1,
                                      .groups = 1,
                                      .has_bias = true};
    const nas_node relu = {.op = NAS_OP_RELU, .n_inputs = 1};
    nas_node next = relu;
    OK(nas_graph_add_input(ctx, g, "image", (nas_shape){1, NET_SIDE, NET_SIDE, 3}, &x));
    OK(nas_graph_add_conv(ctx, g, "conv", x, &conv, &x));
    next.inputs[0] = x;
    OK(nas_graph_add_node(ctx, g, "relu", &next, &x));
    OK(nas_graph_set_output(ctx, g, x));
    OK(nas_graph_alloc_weights(ctx, g));
    nas_param *w = nas_graph_param(g, 0), *b = nas_graph_param(g, 1);
    w->data[0] = 2;
    b->data[0] = -1;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < (size_t)IMAGES * NET_PLANE; i++) {
        const double y = 2 * (double)images[i / NET_PLANE * NET_FLOATS + i % NET_PLANE] - 1;
        sum += y / (IMAGES * NET_PLANE);
        squares += y * y / (IMAGES * NET_PLANE);
    }
    const nas_exec_options o = {.chunk = 2, .threads = 2};
    nas_exec_channel got = {0};
    cr_assert(nas_exec_channel_count(g) == 1);
    OK(nas_exec_statistics(ctx, g, &o, IMAGES, nets_read_noise, images, &got));
    cr_assert(fabs(got.mean - sum) < 1e-5, "%g, not %g", got.mean, sum);
    cr_assert(fabs(got.deviation - sqrt(squares - sum * sum)) < 1e-5);
    cr_assert(nas_exec_statistics(ctx, g, &o, 0, nets_read_noise, images, &got) == NAS_ERR_RANGE);
    cr_assert(nas_exec_statistics(ctx, g, &o, 2049, nets_read_noise, images, &got) ==
              NAS_ERR_RANGE);
    nas_graph_free(g);
    nas_free(images);
}
