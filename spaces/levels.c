/* levels.c - the space of levels under limits. A point beyond a limit is brought back by lowering genes drawn at random, so
 * that no part of the network is preferred. */
#include "spaces/levels_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const cost_names[] = {"bytes of weights", "MACs", "bit operations",
                                         "parameters"};

/* ---- moves ---------------------------------------------------------------------------------------------------------- */

/* Lowers random genes by one until the limits hold; the smallest network holds them. */
static void restore(const nas__levels_space *s, nas_rng *rng, nas_point *p) {
    while (!nas__levels_fit(s, p)) {
        int32_t open[NAS_POINT_GENES_MAX] = {0}, n = 0;
        for (int32_t i = 0; i < p->n; i++) {
            if (p->gene[i] > 0) open[n++] = i;
        }
        p->gene[open[nas_rng_below(rng, (uint32_t)n)]]--;
    }
}

static void levels_sample(const nas_space *space, nas_rng *rng, nas_point *out) {
    nas__plain_sample(space, rng, out);
    restore(nas__levels_of(space), rng, out);
}

/* Another point for certain, if there is one near: one choice lower somewhere, or one higher where the limits allow. */
static void change_one(const nas_space *space, const nas_point *in, nas_rng *rng, nas_point *out) {
    const int32_t from = (int32_t)nas_rng_below(rng, (uint32_t)in->n);
    for (int32_t k = 0; k < 2 * in->n; k++) {
        const int32_t gene = (from + k) % in->n;
        *out = *in;
        out->gene[gene] += k < in->n ? -1 : 1;
        if (out->gene[gene] < 0 || out->gene[gene] >= space->genes[gene].cardinality) continue;
        if (nas__levels_fit(nas__levels_of(space), out)) return;
    }
    *out = *in; /* no neighbour */
}

static void levels_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                          nas_point *out) {
    enum { TRIES = 16 };
    for (int32_t k = 0; k < TRIES; k++) {
        nas__plain_mutate(space, in, rate, rng, out);
        restore(nas__levels_of(space), rng, out);
        if (!nas_point_equal(in, out)) return;
    }
    change_one(space, in, rng, out);
}

/* Both genes of a layer come from the same parent: bits are chosen for what is left of the layer. */
static void levels_crossover(const nas_space *space, const nas_point *a, const nas_point *b,
                             nas_rng *rng, nas_point *out) {
    const nas__levels_space *s = nas__levels_of(space);
    *out = (nas_point){.n = space->n_genes};
    const nas_point *from = a;
    for (int32_t i = 0; i < out->n; i++) {
        if (i == 0 || s->unit_of[i] != s->unit_of[i - 1]) from = nas_rng_below(rng, 2) == 0 ? a : b;
        out->gene[i] = from->gene[i];
    }
    restore(s, rng, out);
}

/* The same share of every gene's choices, the largest one that fits; then what the limits still allow. */
static void levels_largest(const nas_space *space, nas_point *out) {
    const nas__levels_space *s = nas__levels_of(space);
    double lo = 0, hi = 1;
    nas_space_levels_share(space, 1, 1, out);
    if (nas__levels_fit(s, out)) return;
    for (int32_t k = 0; k < 40; k++) {
        const double share = (lo + hi) / 2;
        nas_space_levels_share(space, share, share, out);
        if (nas__levels_fit(s, out)) {
            lo = share;
        } else {
            hi = share;
        }
    }
    nas_space_levels_share(space, lo, lo, out);
    nas_space_levels_grow(space, out);
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

static nas_status levels_check(nas_ctx *ctx, const nas_space *space, const nas_point *p) {
    const nas__levels_space *s = nas__levels_of(space);
    const nas_level_cost k = nas__levels_exceeded(s, p);
    if (k == NAS_LEVEL_COSTS) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE, "the point has %.0f %s, the limit is %.0f",
                    nas__levels_cost(s, p, k), cost_names[k], s->options.limit[k]);
}

static nas_status levels_decode(nas_ctx *ctx, const nas_space *space, const nas_point *p,
                                nas_graph **out) {
    const nas__levels_space *s = nas__levels_of(space);
    int32_t *level = nas_alloc_array(ctx, (size_t)s->options.n_layers, sizeof *level);
    int32_t kept[NAS_POINT_GENES_MAX];
    if (level == NULL) return NAS_ERR_NOMEM;
    nas_space_levels_of(space, p, level);
    nas_space_levels_kept(space, p, kept);
    const nas_status status =
        s->options.decode(ctx, s->options.arg, s->options.n_groups > 0 ? kept : NULL, level, out);
    nas_free(level);
    return status;
}

/* ---- gene by gene ------------------------------------------------------------------------------------------------------ */

/* All choices up to hi leave room for the smallest rest. */
static void levels_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                           nas_outlook *out) {
    const nas__levels_space *s = nas__levels_of(space);
    nas_point all, high, low = {.n = space->n_genes};
    nas_space_levels_share(space, 1, 1, &all);
    high = all;
    memcpy(low.gene, prefix->gene, (size_t)step * sizeof low.gene[0]);
    memcpy(high.gene, prefix->gene, (size_t)step * sizeof high.gene[0]);
    const double full = fmax(nas__levels_cost(s, &all, s->measure), 1e-300);
    const double with = nas__levels_cost(s, &high, s->measure),
                 least = nas__levels_cost(s, &low, s->measure);
    int32_t hi = 0;
    for (; hi + 1 < space->genes[step].cardinality; hi++) {
        low.gene[step] = hi + 1;
        if (!nas__levels_fit(s, &low)) break;
    }
    *out = (nas_outlook){
        .hi = hi, .reduced = fmax(1 - with / full, 0), .rest = fmax((with - least) / full, 0)};
}

static void levels_release(nas_space *space) {
    nas_arena_free(((nas__levels_space *)space)->arena);
}

static const nas__space_ops levels_ops = {
    .name = "levels",
    .sample = levels_sample,
    .mutate = levels_mutate,
    .crossover = levels_crossover,
    .largest = levels_largest,
    .smallest = nas__plain_smallest,
    .check = levels_check,
    .decode = levels_decode,
    .format = nas__levels_format,
    .parse = nas__levels_parse,
    .release = levels_release,
    .outlook = levels_outlook,
};

/* ---- new -------------------------------------------------------------------------------------------------------------- */

static nas_status check_layer(nas_ctx *ctx, const nas_levels_options *o, int32_t layer) {
    const nas_levels_layer *l = &o->layers[layer];
    if (l->n_forms < 1 || l->n_bits < 1)
        return nas_fail(ctx, NAS_ERR_INVALID, "space '%s': layer %d has %d forms, %d precisions",
                        o->name, (int)layer + 1, (int)l->n_forms, (int)l->n_bits);
    for (int32_t k = 0; k < l->n_forms * l->n_bits; k++) {
        const nas_level *level = &l->levels[k];
        bool good = level->text[0] != '\0' && strpbrk(level->text, ", >|") == NULL;
        for (int c = 0; c < NAS_LEVEL_COSTS; c++)
            good = good && isfinite(level->costs[c]) && level->costs[c] >= 0;
        if (!good)
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "space '%s': level '%s' of layer %d: a text without blanks, costs >= 0",
                            o->name, level->text, (int)layer + 1);
    }
    return NAS_OK;
}

/* A copy in the arena; NULL only where memory is short. */
static void *copy_list(nas_ctx *ctx, nas__levels_space *s, const void *list, int32_t n,
                       size_t size) {
    void *copy = nas_arena_alloc(ctx, s->arena, (size_t)n + 1, size);
    if (copy != NULL && n > 0) memcpy(copy, list, (size_t)n * size);
    return copy;
}

static nas_status copy_levels(nas_ctx *ctx, nas__levels_space *s, nas_levels_layer *layer) {
    const int32_t count = layer->n_forms * layer->n_bits;
    nas_level *levels = copy_list(ctx, s, layer->levels, count, sizeof *levels);
    if (levels == NULL) return NAS_ERR_NOMEM;
    for (int32_t k = 0; k < count; k++) {
        levels[k].text = nas_arena_printf(ctx, s->arena, "%s", levels[k].text);
        if (levels[k].text == NULL) return NAS_ERR_NOMEM;
    }
    layer->levels = levels;
    return NAS_OK;
}

static nas_status copy_options(nas_ctx *ctx, const nas_levels_options *o, nas__levels_space *s) {
    nas_levels_layer *layers = copy_list(ctx, s, o->layers, o->n_layers, sizeof *layers);
    s->options = *o;
    s->options.layers = layers;
    s->options.name = s->name;
    s->options.groups = copy_list(ctx, s, o->groups, o->n_groups, sizeof *o->groups);
    s->options.terms = copy_list(ctx, s, o->terms, o->n_terms, sizeof *o->terms);
    s->options.values = copy_list(ctx, s, o->values, o->n_values, sizeof *o->values);
    s->options.uses = copy_list(ctx, s, o->uses, o->n_uses, sizeof *o->uses);
    if (layers == NULL || s->options.groups == NULL || s->options.terms == NULL ||
        s->options.values == NULL || s->options.uses == NULL)
        return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < o->n_layers; i++) {
        nas_status status = check_layer(ctx, o, i);
        if (status == NAS_OK) status = copy_levels(ctx, s, &layers[i]);
        if (status != NAS_OK) return status;
    }
    return NAS_OK;
}

/* ---- genes -------------------------------------------------------------------------------------------------------------- */

static nas_status check_groups(nas_ctx *ctx, const nas_levels_options *o) {
    if (o->n_groups == 0) return NAS_OK;
    if (o->n_groups > NAS_POINT_GENES_MAX || o->step < 1 ||
        !(o->min_ratio > 0 && o->min_ratio <= 1))
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space '%s': %d groups (at most %d), step %d (>= 1), min_ratio %g (above "
                        "0, at most 1)",
                        o->name, (int)o->n_groups, NAS_POINT_GENES_MAX, (int)o->step, o->min_ratio);
    for (int32_t i = 0; i < o->n_terms; i++) {
        const nas_amc_term *t = &o->terms[i];
        const bool sorted = i == 0 || o->terms[i - 1].layer <= t->layer;
        if (sorted && t->layer >= 0 && t->layer < o->n_layers && t->group >= 0 &&
            t->group < o->n_groups)
            continue;
        return nas_fail(ctx, NAS_ERR_INVALID, "space '%s': term %d names layer %d, group %d",
                        o->name, (int)i, (int)t->layer, (int)t->group);
    }
    return NAS_OK;
}

static int32_t first_kept(const nas_levels_options *o, int32_t group) {
    const int32_t channels = o->groups[group].channels;
    const int32_t least = (int32_t)ceil(o->min_ratio * channels - 1e-9);
    const int32_t up = (least + o->step - 1) / o->step * o->step;
    return up < channels ? up : channels;
}

static int32_t add_gene(nas__levels_space *s, int32_t unit, const char *of, int32_t index,
                        const char *role, int32_t choices) {
    if (choices < 2) return NAS__LEVELS_NONE;
    nas_gene *gene = &s->base.genes[s->base.n_genes];
    (void)snprintf(gene->name, sizeof gene->name, "%s%d.%s", of, (int)index + 1, role);
    gene->kind = NAS_GENE_ORDINAL;
    gene->cardinality = choices;
    s->unit_of[s->base.n_genes] = unit;
    s->base.size *= choices; /* of all points; how many exceed a limit is not known */
    return s->base.n_genes++;
}

static int32_t count_genes(const nas__levels_space *s) {
    const nas_levels_options *o = &s->options;
    int32_t n = 0;
    for (int32_t g = 0; g < o->n_groups; g++)
        n += nas__levels_choices(s, g) > 1;
    for (int32_t i = 0; i < o->n_layers; i++)
        n += (o->layers[i].n_forms > 1) + (o->layers[i].n_bits > 1);
    for (int32_t i = 0; i < o->n_values; i++)
        n += o->values[i].n_bits > 1;
    return n;
}

static void add_genes(nas__levels_space *s) {
    const nas_levels_options *o = &s->options;
    int32_t unit = 0;
    for (int32_t g = 0; g < o->n_groups; g++)
        s->group_gene[g] = add_gene(s, unit++, "group", g, "channels", nas__levels_choices(s, g));
    for (int32_t i = 0; i < o->n_layers; i++, unit++) {
        s->places[i].form = add_gene(s, unit, "layer", i, "form", o->layers[i].n_forms);
        s->places[i].bits = add_gene(s, unit, "layer", i, "bits", o->layers[i].n_bits);
    }
    for (int32_t i = 0; i < o->n_values; i++)
        s->value_gene[i] = add_gene(s, unit++, "value", i, "act", o->values[i].n_bits);
}

static nas_status make_lists(nas_ctx *ctx, nas__levels_space *s) {
    const nas_levels_options *o = &s->options;
    const size_t layers = (size_t)o->n_layers;
    s->places = nas_arena_alloc(ctx, s->arena, layers, sizeof *s->places);
    s->first_term = nas_arena_alloc(ctx, s->arena, layers + 1, sizeof *s->first_term);
    s->group_gene = nas_arena_alloc(ctx, s->arena, (size_t)o->n_groups + 1, sizeof(int32_t));
    s->first_kept = nas_arena_alloc(ctx, s->arena, (size_t)o->n_groups + 1, sizeof(int32_t));
    s->value_gene = nas_arena_alloc(ctx, s->arena, (size_t)o->n_values + 1, sizeof(int32_t));
    if (s->places == NULL || s->first_term == NULL || s->group_gene == NULL ||
        s->first_kept == NULL || s->value_gene == NULL)
        return NAS_ERR_NOMEM;
    int32_t t = 0;
    for (int32_t i = 0; i < o->n_layers; i++) {
        s->first_term[i] = t;
        while (t < o->n_terms && o->terms[t].layer == i)
            t++;
    }
    s->first_term[o->n_layers] = t;
    for (int32_t g = 0; g < o->n_groups; g++)
        s->first_kept[g] = first_kept(o, g);
    return NAS_OK;
}

static nas_status make_genes(nas_ctx *ctx, nas__levels_space *s) {
    nas_status status = check_groups(ctx, &s->options);
    if (status == NAS_OK) status = make_lists(ctx, s);
    if (status != NAS_OK) return status;
    const int32_t n = count_genes(s);
    if (n < 1 || n > NAS_POINT_GENES_MAX)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space '%s': %d choices vary over %d layers, limit 1..%d", s->name, (int)n,
                        (int)s->options.n_layers, NAS_POINT_GENES_MAX);
    s->base.genes = nas_alloc_array(ctx, (size_t)n, sizeof *s->base.genes);
    s->unit_of = nas_arena_alloc(ctx, s->arena, (size_t)n, sizeof *s->unit_of);
    if (s->base.genes == NULL || s->unit_of == NULL) return NAS_ERR_NOMEM;
    s->base.size = 1;
    add_genes(s);
    return NAS_OK;
}

static nas_status check_limits(nas_ctx *ctx, nas__levels_space *s) {
    nas_point least;
    nas__plain_smallest(&s->base, &least);
    const nas_level_cost k = nas__levels_exceeded(s, &least);
    s->measure = NAS_LEVEL_BYTES;
    for (int c = NAS_LEVEL_COSTS; c-- > 0;) {
        if (s->options.limit[c] > 0) s->measure = (nas_level_cost)c;
    }
    if (k == NAS_LEVEL_COSTS) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "space '%s': the smallest network has %.0f %s, the limit is %.0f: offer fewer "
                    "bits or higher rates, or raise the limit",
                    s->name, nas__levels_cost(s, &least, k), cost_names[k], s->options.limit[k]);
}

nas_status nas_space_levels_new(nas_ctx *ctx, const nas_levels_options *o, nas_space **out) {
    if (o->n_layers < 1 || strlen(o->name) > NAS_LEVELS_NAME_MAX)
        return nas_fail(ctx, NAS_ERR_INVALID, "space '%s': %d layers, a name of at most %d bytes",
                        o->name, (int)o->n_layers, NAS_LEVELS_NAME_MAX);
    nas__levels_space *s = nas_alloc_array(ctx, 1, sizeof *s);
    if (s == NULL) return NAS_ERR_NOMEM;
    s->base.ops = &levels_ops;
    (void)snprintf(s->name, sizeof s->name, "%s", o->name);
    s->arena = nas_arena_new(ctx, 1 << 12);
    nas_status status = s->arena == NULL ? NAS_ERR_NOMEM : copy_options(ctx, o, s);
    if (status == NAS_OK) status = make_genes(ctx, s);
    if (status == NAS_OK) status = check_limits(ctx, s);
    if (status != NAS_OK) {
        nas_space_free(&s->base);
        return status;
    }
    *out = &s->base;
    return NAS_OK;
}

/* ---- for studies --------------------------------------------------------------------------------------------------------- */

bool nas_space_is_levels(const nas_space *space) {
    return space->ops == &levels_ops;
}

void nas_space_levels_point(const nas_space *space, const int32_t *level, double values,
                            nas_point *out) {
    const nas__levels_space *s = nas__levels_of(space);
    nas_space_levels_share(space, 1, values, out);
    for (int32_t i = 0; i < s->options.n_layers; i++) {
        const nas__places at = s->places[i];
        const int32_t n_bits = s->options.layers[i].n_bits;
        if (at.form != NAS__LEVELS_NONE) out->gene[at.form] = level[i] / n_bits;
        if (at.bits != NAS__LEVELS_NONE) out->gene[at.bits] = level[i] % n_bits;
    }
}

void nas_space_levels_share(const nas_space *space, double channels, double others,
                            nas_point *out) {
    const nas__levels_space *s = nas__levels_of(space);
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < out->n; i++) {
        const double share = s->unit_of[i] < s->options.n_groups ? channels : others;
        out->gene[i] = (int32_t)floor(share * (space->genes[i].cardinality - 1) + 1e-9);
    }
}

void nas_space_levels_grow(const nas_space *space, nas_point *point) {
    for (bool grown = true; grown;) {
        grown = false;
        for (int32_t i = 0; i < point->n; i++) {
            if (point->gene[i] == space->genes[i].cardinality - 1) continue;
            point->gene[i]++;
            const bool good = nas__levels_fit(nas__levels_of(space), point);
            point->gene[i] -= !good;
            grown = grown || good;
        }
    }
}
