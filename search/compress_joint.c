/* compress_joint.c - the space of channels together with levels: costs of layers follow from their widths, what is no layer costs
 * so much a channel. */
#include "search/compress_joint.h"

#include <math.h>
#include <string.h>

/* ---- costs of a layer --------------------------------------------------------------------------------------------------- */

static bool form_fits(const void *arg, int32_t layer, int32_t form, int32_t in, int32_t out) {
    const nas__comp *c = arg;
    const nas__level_layer *at = &c->levels->list.layers[layer];
    const nas_layer_scheme *s = &nas__levels_at(c, (size_t)layer, form * at->n_bits)->scheme;
    const nas_node *node = nas_graph_node(c->model, at->conv);
    const int32_t dims[4] = {out, node->conv.kernel_h, node->conv.kernel_w, in};
    return !s->is_sparse || nas_layer_is_whole(&s->sparsity, dims);
}

static void price(const void *arg, int32_t layer, int32_t level, int32_t in, int32_t out,
                  double costs[NAS_LEVEL_COSTS]) {
    const nas__comp *c = arg;
    const nas__level_layer *at = &c->levels->list.layers[layer];
    const nas_layer_scheme *s = &nas__levels_at(c, (size_t)layer, level)->scheme;
    const nas_node *node = nas_graph_node(c->model, at->conv);
    const int32_t dims[4] = {out, node->conv.kernel_h, node->conv.kernel_w, in};
    const nas_layer_cost cost = nas_layer_expect(dims, s);
    const double macs = (double)cost.kept * node->shape.h * node->shape.w;
    costs[NAS_LEVEL_BYTES] = (double)cost.bytes;
    costs[NAS_LEVEL_MACS] = macs;
    costs[NAS_LEVEL_BOPS] = macs * (s->bits > 0 ? s->bits : 32) * at->input_bits;
    costs[NAS_LEVEL_PARAMS] = (double)cost.kept;
}

/* ---- costs of the rest ---------------------------------------------------------------------------------------------------- */

/* Of what is no layer, with kept[group] channels. */
static nas_status rest_of(nas__comp *c, const int32_t *kept, double rest[NAS_LEVEL_COSTS]) {
    bool *keep =
        nas_alloc_array(c->ctx, (size_t)nas_channels_class_count(c->channels), sizeof *keep);
    nas_graph *graph = NULL;
    nas_status status = keep == NULL
                            ? NAS_ERR_NOMEM
                            : nas_channels_choose(c->ctx, c->channels, c->scores, kept, keep);
    if (status == NAS_OK) status = nas_channels_slice(c->ctx, c->channels, c->model, keep, &graph);
    if (status == NAS_OK) status = nas__level_list_rest(c->ctx, &c->levels->list, graph, rest);
    nas_graph_free(graph);
    nas_free(keep);
    return status;
}

/* Biases, normalisations and depthwise convolutions cost so much a channel. A network of few channels tells whether that is all. */
static nas_status check_linear(nas__comp *c, const nas_levels_options *o, int32_t *kept) {
    double want[NAS_LEVEL_COSTS];
    for (int32_t g = 0; g < o->n_groups; g++)
        kept[g] = (int32_t)ceil(o->min_ratio * o->groups[g].channels - 1e-9);
    const nas_status status = rest_of(c, kept, want);
    for (int k = 0; k < NAS_LEVEL_COSTS && status == NAS_OK; k++) {
        double sum = o->fixed[k];
        for (int32_t g = 0; g < o->n_groups; g++)
            sum += o->groups[g].rest[k] * kept[g];
        if (fabs(sum - want[k]) <= 1e-9 * fmax(fabs(want[k]), 1)) continue;
        return nas_fail(c->ctx, NAS_ERR_UNSUPPORTED,
                        "model '%s': an operator that is no convolution in one group does not cost "
                        "so much a channel (%.0f, not %.0f): search channels alone, "
                        "compress.space = \"amc\"",
                        nas_graph_name(c->model), want[k], sum);
    }
    return status;
}

static nas_status count_rest(nas__comp *c, nas_levels_options *o, nas_levels_group *groups) {
    const size_t n = (size_t)o->n_groups;
    int32_t *kept = nas_alloc_array(c->ctx, n, sizeof *kept);
    nas_status status = kept == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t g = 0; g < n && status == NAS_OK; g++) {
        groups[g].channels = nas_channels_group(c->channels, (int32_t)g)->channels;
        kept[g] = groups[g].channels;
    }
    memcpy(o->fixed, c->levels->list.fixed, sizeof o->fixed);
    for (size_t g = 0; g < n && status == NAS_OK; g++) {
        double rest[NAS_LEVEL_COSTS];
        if (kept[g] == 1) continue; /* it stays */
        kept[g]--;
        status = rest_of(c, kept, rest);
        kept[g]++;
        for (int k = 0; k < NAS_LEVEL_COSTS && status == NAS_OK; k++) {
            groups[g].rest[k] = c->levels->list.fixed[k] - rest[k];
            o->fixed[k] -= groups[g].rest[k] * kept[g];
        }
    }
    if (status == NAS_OK) status = check_linear(c, o, kept);
    nas_free(kept);
    return status;
}

/* ---- the space ------------------------------------------------------------------------------------------------------------ */

typedef struct lists {
    nas_levels_layer *layers;
    nas_level *levels;
    nas_levels_group *groups;
    nas_amc_term *terms;
    nas_levels_value *values;
    nas_levels_use *uses;
    int32_t *of_group;
} lists;

static nas_status lists_init(nas__comp *c, lists *l) {
    const nas__level_list *list = &c->levels->list;
    const size_t groups = (size_t)nas_channels_group_count(c->channels);
    l->layers = nas_alloc_array(c->ctx, list->n_layers, sizeof *l->layers);
    l->levels = nas_alloc_array(c->ctx, list->n_levels, sizeof *l->levels);
    l->groups = nas_alloc_array(c->ctx, groups, sizeof *l->groups);
    l->terms = nas_alloc_array(c->ctx, (2 * list->n_layers + 1) * (groups + 1), sizeof *l->terms);
    l->values = nas_alloc_array(c->ctx, list->n_values, sizeof *l->values);
    l->uses = nas_alloc_array(c->ctx, list->n_uses * (groups + 1), sizeof *l->uses);
    l->of_group = nas_alloc_array(c->ctx, groups, sizeof *l->of_group);
    return l->layers == NULL || l->levels == NULL || l->groups == NULL || l->terms == NULL ||
                   l->values == NULL || l->uses == NULL || l->of_group == NULL
               ? NAS_ERR_NOMEM
               : NAS_OK;
}

static void lists_deinit(lists *l) {
    nas_free(l->layers);
    nas_free(l->levels);
    nas_free(l->groups);
    nas_free(l->terms);
    nas_free(l->values);
    nas_free(l->uses);
    nas_free(l->of_group);
}

static void describe_layers(const nas__comp *c, lists *l, nas_levels_options *o) {
    const nas__level_list *list = &c->levels->list;
    for (size_t i = 0; i < list->n_levels; i++) {
        l->levels[i].text = list->levels[i].text;
        memcpy(l->levels[i].costs, list->levels[i].costs, sizeof l->levels[i].costs);
    }
    for (size_t i = 0; i < list->n_layers; i++) {
        const nas__level_layer *at = &list->layers[i];
        const nas_value input = nas_graph_node(c->model, at->conv)->inputs[0];
        const int32_t out =
            nas__comp_terms(c, at->conv, (int32_t)i, false, l->of_group, l->terms, &o->n_terms);
        const int32_t in =
            nas__comp_terms(c, input, (int32_t)i, true, l->of_group, l->terms, &o->n_terms);
        l->layers[i] = (nas_levels_layer){.n_forms = at->n_forms,
                                          .n_bits = at->n_bits,
                                          .levels = l->levels + at->first,
                                          .reads = at->reads,
                                          .in_fixed = in,
                                          .out_fixed = out};
    }
    for (size_t i = 0; i < list->n_values; i++)
        l->values[i] = list->acts;
}

/* A use of all channels becomes one of those that stay, and one of each group. */
static void describe_uses(const nas__comp *c, lists *l, nas_levels_options *o) {
    const nas__level_list *list = &c->levels->list;
    for (size_t i = 0; i < list->n_uses; i++) {
        const nas_levels_use *use = &list->uses[i];
        nas_amc_term *terms = l->terms + o->n_terms; /* scratch behind those of the layers */
        int32_t n = 0;
        const int32_t all = nas_graph_node(c->model, list->users[i])->shape.c;
        const int32_t fixed = nas__comp_terms(c, list->users[i], 0, false, l->of_group, terms, &n);
        const double each = use->bops / all;
        l->uses[o->n_uses++] =
            (nas_levels_use){.value = use->value, .group = -1, .bops = each * fixed};
        for (int32_t t = 0; t < n; t++)
            l->uses[o->n_uses++] = (nas_levels_use){
                .value = use->value, .group = terms[t].group, .bops = each * terms[t].times};
    }
}

static nas_status make_space(nas__comp *c, lists *l) {
    const nas__level_list *list = &c->levels->list;
    nas_levels_options o = {.name = c->config->compress.space,
                            .layers = l->layers,
                            .n_layers = (int32_t)list->n_layers,
                            .groups = l->groups,
                            .n_groups = nas_channels_group_count(c->channels),
                            .step = c->config->compress.channel_step,
                            .min_ratio = c->config->compress.min_ratio,
                            .terms = l->terms,
                            .values = l->values,
                            .n_values = (int32_t)list->n_values,
                            .uses = l->uses,
                            .fits = form_fits,
                            .price = price,
                            .decode = nas__joint_decode,
                            .arg = c};
    memcpy(o.limit, c->levels->limit, sizeof o.limit);
    describe_layers(c, l, &o);
    describe_uses(c, l, &o);
    const nas_status status = count_rest(c, &o, l->groups);
    return status == NAS_OK ? nas_space_levels_new(c->ctx, &o, &c->space) : status;
}

/* Second moments are those of the calibrated layers: the same convolutions in the same order. */
static nas_status borrow_moments(nas__comp *c) {
    const size_t n = c->levels->list.n_layers;
    c->grams = nas_alloc_array(c->ctx, n, sizeof *c->grams); /* owned by the levels: empty */
    c->moments = nas_alloc_array(c->ctx, n, sizeof *c->moments);
    if (c->grams == NULL || c->moments == NULL) return NAS_ERR_NOMEM;
    memcpy(c->moments, c->levels->view.moments, n * sizeof *c->moments);
    c->n_moments = n;
    return NAS_OK;
}

nas_status nas__joint_space(nas__comp *c) {
    lists l = {0};
    c->levels->joint = nas_alloc_array(c->ctx, 1, sizeof *c->levels->joint);
    if (c->levels->joint == NULL) return NAS_ERR_NOMEM;
    nas_status status = borrow_moments(c);
    if (status == NAS_OK) status = nas__comp_channels(c);
    if (status == NAS_OK) status = lists_init(c, &l);
    if (status == NAS_OK) status = make_space(c, &l);
    lists_deinit(&l);
    return status;
}

/* ---- first proposals ---------------------------------------------------------------------------------------------------- */

/* The largest share of all but the channels that the limits allow; -1: none. */
static double largest_share(const nas__comp *c, double channels) {
    double lo = -1, hi = 1;
    nas_point p;
    for (int k = 0; k < 20; k++) {
        const double share = k == 0 ? 1 : k == 1 ? 0 : (lo + hi) / 2;
        nas_space_levels_share(c->space, channels, share, &p);
        const bool good = nas_space_check(c->ctx, c->space, &p) == NAS_OK;
        if (!good) nas_ctx_clear(c->ctx);
        if (good && k == 0) return 1;
        if (!good && k == 1) return -1;
        if (good) {
            lo = share;
        } else {
            hi = share;
        }
    }
    return lo;
}

nas_status nas__joint_seed(nas__comp *c) {
    static const double shares[] = {1, 0.75, 0.5, 0.25, 0};
    int32_t seeds = 0;
    nas_point p;
    nas_space_largest(c->space, &p);
    nas_status status = nas__levels_propose(c, &p, "the same share everywhere", &seeds);
    if (!c->config->compress.warm_start) return status;
    for (size_t i = 0; i < sizeof shares / sizeof *shares && status == NAS_OK; i++) {
        const double most = largest_share(c, shares[i]);
        if (most < 0) continue;
        nas_space_levels_share(c->space, shares[i], most, &p);
        status = nas__levels_propose(c, &p, "a share of the channels", &seeds);
        nas_space_levels_share(c->space, shares[i], most / 2, &p);
        if (status == NAS_OK)
            status =
                nas__levels_propose(c, &p, "a share of the channels, half of the rest", &seeds);
    }
    return nas_wrap(c->ctx, status, "first proposals");
}
