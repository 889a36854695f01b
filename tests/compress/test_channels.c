/* test_channels.c - groups of channels, slicing against masking, and what is refused. */
#include "tests/compress/nets.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

TestSuite(compress_channels, .init = nets_setup, .fini = nets_teardown);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

/* Weights are floats and sums run in another order. */
static const double tolerance = 1e-5;

static bool *random_keep(const nas_channels *ch, uint64_t seed) {
    nas_rng rng = nas_rng_stream(seed, 0, "keep");
    bool *keep = nas_alloc_array(ctx, (size_t)nas_channels_class_count(ch), sizeof *keep);
    for (int32_t g = 0; g < nas_channels_group_count(ch); g++) {
        const nas_channel_group *group = nas_channels_group(ch, g);
        for (int32_t k = 0; k < group->channels; k++)
            keep[group->classes[k]] = nas_rng_below(&rng, 2) == 0;
        keep[group->classes[nas_rng_below(&rng, (uint32_t)group->channels)]] = true;
    }
    return keep;
}

static const nas_channel_group *group_named(const nas_channels *ch, const char *name) {
    for (int32_t g = 0; g < nas_channels_group_count(ch); g++) {
        if (strcmp(nas_channels_group(ch, g)->name, name) == 0) return nas_channels_group(ch, g);
    }
    return NULL;
}

Test(compress_channels, a_sliced_network_equals_the_masked_one) {
    for (int net = 0; net < NETS; net++) {
        for (uint64_t seed = 1; seed <= 4; seed++) {
            nas_graph *g = nets_new(net), *sliced = NULL;
            nas_channels *ch = NULL;
            OK(nas_channels_find(ctx, g, &ch));
            bool *keep = random_keep(ch, seed);
            float *image = nets_image(seed);
            double small[NET_CLASSES], masked[NET_CLASSES];
            OK(nas_channels_slice(ctx, ch, g, keep, &sliced));
            OK(nas_channels_mask(ctx, ch, g, keep));
            nets_output(sliced, image, small);
            nets_output(g, image, masked);
            for (int i = 0; i < NET_CLASSES; i++)
                cr_assert(fabs(small[i] - masked[i]) <= tolerance * fmax(1, fabs(masked[i])),
                          "net %d seed %d output %d: %g, masked %g", net, (int)seed, i, small[i],
                          masked[i]);
            nas_graph_cost before = {0}, after = {0};
            OK(nas_graph_cost_total(ctx, g, &before));
            OK(nas_graph_cost_total(ctx, sliced, &after));
            cr_assert(after.macs < before.macs && after.params < before.params);
            nas_graph_free(g);
            nas_graph_free(sliced);
            nas_channels_free(ch);
            nas_free(keep);
            nas_free(image);
        }
    }
}

Test(compress_channels, additions_tie_channels_and_a_padded_shortcut_only_those_it_carries) {
    nas_graph *g = nets_new(0);
    nas_channels *ch = NULL;
    OK(nas_channels_find(ctx, g, &ch));
    const nas_channel_group *inner = group_named(ch, "a1"), *stream = group_named(ch, "stem");
    cr_assert(inner != NULL && stream != NULL && group_named(ch, "wide") != NULL);
    cr_assert(inner->channels == 12 && inner->producers == 1 && inner->readers == 1);
    cr_assert(stream->channels == 8); /* stem, a2, and the middle of b2 */
    cr_assert(stream->producers == 3);
    cr_assert(group_named(ch, "wide")->channels == 8); /* the channels that the padding adds */
    for (int32_t c = 0; c < NET_CLASSES; c++)
        cr_assert(nas_channels_of(ch, nas_graph_output(g))[c] == NAS_CLASS_FIXED);
    cr_assert(nas_channels_of(ch, nas_graph_input(g))[0] == NAS_CLASS_FIXED);
    nas_channels_free(ch);
    nas_graph_free(g);
}

Test(compress_channels, depthwise_and_gate_belong_to_the_group_of_their_input) {
    nas_graph *g = nets_new(2);
    nas_channels *ch = NULL;
    OK(nas_channels_find(ctx, g, &ch));
    const int32_t number = nas_channels_of(ch, nas_graph_find(g, "expand"))[3];
    cr_assert(number != NAS_CLASS_FIXED);
    cr_assert(nas_channels_of(ch, nas_graph_find(g, "deep"))[3] == number);
    cr_assert(nas_channels_of(ch, nas_graph_find(g, "excite"))[3] == number);
    nas_channels_free(ch);
    nas_graph_free(g);
}

Test(compress_channels, grouped_convolutions_and_shuffles_keep_their_channels) {
    nas_graph *g = nets_new(3);
    nas_channels *ch = NULL;
    OK(nas_channels_find(ctx, g, &ch));
    cr_assert(nas_channels_of(ch, nas_graph_find(g, "stem"))[0] == NAS_CLASS_FIXED);
    cr_assert(nas_channels_of(ch, nas_graph_find(g, "g1"))[0] == NAS_CLASS_FIXED);
    cr_assert(nas_channels_of(ch, nas_graph_find(g, "after"))[5] != NAS_CLASS_FIXED);
    nas_channels_free(ch);
    nas_graph_free(g);
}

Test(compress_channels, the_most_important_channels_stay) {
    nas_graph *g = nets_new(0);
    nas_channels *ch = NULL;
    OK(nas_channels_find(ctx, g, &ch));
    const size_t n = (size_t)nas_channels_class_count(ch);
    double *scores = nas_alloc_array(ctx, n, sizeof *scores);
    bool *keep = nas_alloc_array(ctx, n, sizeof *keep);
    int32_t *kept = nas_alloc_array(ctx, n, sizeof *kept);
    nas_param *w = nas_graph_param(g, nas_graph_node(g, nas_graph_find(g, "a1"))->params[0]);
    const size_t filter = w->count / (size_t)w->dims[0];
    for (size_t i = 0; i < filter; i++)
        w->data[5 * filter + i] *= 0.001F; /* channel 5 of a1 hardly says anything */
    for (int32_t i = 0; i < nas_channels_group_count(ch); i++)
        kept[i] = nas_channels_group(ch, i)->channels;
    const nas_channel_group *inner = group_named(ch, "a1");
    kept[nas_channels_group_of(ch, inner->classes[0])]--;
    for (int kind = NAS_IMPORTANCE_L1; kind <= NAS_IMPORTANCE_L2; kind++) {
        OK(nas_channels_importance(ctx, ch, g, (nas_importance)kind, NULL, 0, scores));
        OK(nas_channels_choose(ctx, ch, scores, kept, keep));
        for (int32_t k = 0; k < inner->channels; k++)
            cr_assert(keep[inner->classes[k]] == (k != 5), "kind %d channel %d", kind, (int)k);
    }
    size_t total = 0, at = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        total += (size_t)nas_graph_node(g, v)->shape.c;
    double *saliency = nas_alloc_array(ctx, total, sizeof *saliency);
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const bool of_inner = nas_channels_of(ch, v)[0] == inner->classes[0];
        for (int32_t c = 0; c < nas_graph_node(g, v)->shape.c; c++)
            saliency[at++] = of_inner && c == 3 ? 0.1 : 1;
    }
    OK(nas_channels_importance_taylor(ctx, ch, g, saliency, scores));
    OK(nas_channels_choose(ctx, ch, scores, kept, keep));
    for (int32_t k = 0; k < inner->channels; k++)
        cr_assert(keep[inner->classes[k]] == (k != 3), "taylor, channel %d", (int)k);
    nas_free(saliency);
    nas_free(scores);
    nas_free(keep);
    nas_free(kept);
    nas_channels_free(ch);
    nas_graph_free(g);
}

Test(compress_channels, what_cannot_be_is_refused_by_name) {
    nas_graph *g = nets_new(0), *sliced = NULL;
    nas_channels *ch = NULL;
    OK(nas_channels_find(ctx, g, &ch));
    const size_t n = (size_t)nas_channels_class_count(ch);
    double *scores = nas_alloc_array(ctx, n, sizeof *scores);
    bool *keep = nas_alloc_array(ctx, n, sizeof *keep);
    int32_t *kept = nas_alloc_array(ctx, n, sizeof *kept);
    cr_assert(nas_channels_choose(ctx, ch, scores, kept, keep) == NAS_ERR_RANGE);
    cr_assert(strstr(nas_ctx_message(ctx), "channel group 'stem'") != NULL);
    cr_assert(nas_channels_slice(ctx, ch, g, keep, &sliced) == NAS_ERR_INVALID);
    cr_assert(strstr(nas_ctx_message(ctx), "would lose all") != NULL);
    cr_assert(nas_channels_importance(ctx, ch, g, NAS_IMPORTANCE_RECONSTRUCTION, NULL, 0, scores) ==
              NAS_ERR_NOTFOUND);
    cr_assert(nas_channels_importance(ctx, ch, g, NAS_IMPORTANCE_NORM_SCALE, NULL, 0, scores) ==
              NAS_ERR_INVALID);
    cr_assert(nas_channels_importance(ctx, ch, g, NAS_IMPORTANCE_TAYLOR, NULL, 0, scores) ==
              NAS_ERR_INVALID);
    nas_free(scores);
    nas_free(keep);
    nas_free(kept);
    nas_channels_free(ch);
    nas_graph_free(g);
}
