/* amc.c - the space of kept channels under a budget. A point beyond the budget is brought back by taking channels from
 * groups drawn at random, so that no part of the network is preferred; the sequential clipping of AMC is there for
 * agents that decide layer by layer. */
#include "spaces/amc.h"
#include "spaces/spaces_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct amc_space {
    nas_space base;
    nas_arena *arena;
    nas_amc_options options; /* arrays are copies in the arena */
    int32_t *first;          /* [group] smallest kept count that is a choice */
    double macs_full, macs_least;
} amc_space;

static const amc_space *amc_of(const nas_space *space) {
    return (const amc_space *)space; /* base is the first member */
}

/* ---- choices and costs ---------------------------------------------------------------------------------------------- */

/* Choices of a group: first, first + step, ..., and all channels. */
static int32_t kept_of(const amc_space *s, int32_t group, int32_t choice) {
    const int32_t kept = s->first[group] + choice * s->options.step;
    const int32_t channels = s->options.groups[group].channels;
    return kept < channels ? kept : channels;
}

static int32_t choices_of(const amc_space *s, int32_t group) {
    const int32_t room = s->options.groups[group].channels - s->first[group];
    return 1 + (room + s->options.step - 1) / s->options.step;
}

static double macs_of(const amc_space *s, const int32_t *kept) {
    const nas_amc_options *o = &s->options;
    double total = 0;
    int32_t t = 0; /* terms are sorted by layer */
    for (int32_t l = 0; l < o->n_layers; l++) {
        double in = o->layers[l].in_fixed, out = o->layers[l].out_fixed;
        for (; t < o->n_terms && o->terms[t].layer == l; t++) {
            const double channels = (double)o->terms[t].times * kept[o->terms[t].group];
            if (o->terms[t].is_input) {
                in += channels;
            } else {
                out += channels;
            }
        }
        total += o->layers[l].unit * in * out;
    }
    return total;
}

static double point_macs(const amc_space *s, const nas_point *p) {
    int32_t kept[NAS_POINT_GENES_MAX];
    for (int32_t i = 0; i < p->n; i++)
        kept[i] = kept_of(s, i, p->gene[i]);
    return macs_of(s, kept);
}

static bool fits(const amc_space *s, double macs) {
    return s->options.macs_max <= 0 || macs <= s->options.macs_max;
}

/* ---- moves ---------------------------------------------------------------------------------------------------------- */

/* Takes one step from a random group until the budget holds; the smallest network holds it. */
static void restore_budget(const amc_space *s, nas_rng *rng, nas_point *p) {
    while (!fits(s, point_macs(s, p))) {
        int32_t open[NAS_POINT_GENES_MAX] = {0}, n = 0;
        for (int32_t i = 0; i < p->n; i++) {
            if (p->gene[i] > 0) open[n++] = i;
        }
        p->gene[open[nas_rng_below(rng, (uint32_t)n)]]--;
    }
}

static void amc_sample(const nas_space *space, nas_rng *rng, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < out->n; i++)
        out->gene[i] = (int32_t)nas_rng_below(rng, (uint32_t)space->genes[i].cardinality);
    restore_budget(amc_of(space), rng, out);
}

static void change(const nas_space *space, nas_rng *rng, int32_t gene, nas_point *p) {
    const int32_t n = space->genes[gene].cardinality, now = p->gene[gene];
    if (n < 2) return;
    if (nas_rng_below(rng, 2) == 0) { /* a neighbour */
        const bool up = now == 0 || (now < n - 1 && nas_rng_below(rng, 2) == 0);
        p->gene[gene] = now + (up ? 1 : -1);
        return;
    }
    const int32_t other = (int32_t)nas_rng_below(rng, (uint32_t)n - 1);
    p->gene[gene] = other < now ? other : other + 1;
}

/* Another point for certain, if there is one near: one step less somewhere, or one more where the budget allows. */
static void change_one(const nas_space *space, const nas_point *in, nas_rng *rng, nas_point *out) {
    const amc_space *s = amc_of(space);
    const int32_t from = (int32_t)nas_rng_below(rng, (uint32_t)in->n);
    for (int32_t k = 0; k < 2 * in->n; k++) {
        const int32_t gene = (from + k) % in->n;
        *out = *in;
        out->gene[gene] += k < in->n ? -1 : 1;
        if (out->gene[gene] < 0 || out->gene[gene] >= space->genes[gene].cardinality) continue;
        if (fits(s, point_macs(s, out))) return;
    }
    *out = *in; /* a space of one point */
}

static void amc_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                       nas_point *out) {
    enum { TRIES = 16 };
    for (int32_t k = 0; k < TRIES; k++) {
        *out = *in;
        for (int32_t i = 0; i < in->n; i++) {
            if (nas_rng_uniform(rng) < rate) change(space, rng, i, out);
        }
        if (nas_point_equal(in, out))
            change(space, rng, (int32_t)nas_rng_below(rng, (uint32_t)in->n), out);
        restore_budget(amc_of(space), rng, out);
        if (!nas_point_equal(in, out)) return;
    }
    change_one(space, in, rng, out);
}

static void amc_crossover(const nas_space *space, const nas_point *a, const nas_point *b,
                          nas_rng *rng, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < out->n; i++)
        out->gene[i] = nas_rng_below(rng, 2) == 0 ? a->gene[i] : b->gene[i];
    restore_budget(amc_of(space), rng, out);
}

/* One step more for each group in turn, until none fits: what rounding the shares down has left of the budget. */
static void use_up(const nas_space *space, nas_point *p) {
    for (bool grown = true; grown;) {
        grown = false;
        for (int32_t i = 0; i < p->n; i++) {
            if (p->gene[i] == space->genes[i].cardinality - 1) continue;
            p->gene[i]++;
            const bool good = fits(amc_of(space), point_macs(amc_of(space), p));
            p->gene[i] -= !good;
            grown = grown || good;
        }
    }
}

/* The same share of every group, the largest one that fits; then what the budget still allows. */
static void amc_largest(const nas_space *space, nas_point *out) {
    const amc_space *s = amc_of(space);
    double lo = 0, hi = 1;
    for (int32_t k = 0; k < 40; k++) {
        const double ratio = k == 0 ? 1 : (lo + hi) / 2;
        *out = (nas_point){.n = space->n_genes};
        for (int32_t i = 0; i < out->n; i++)
            out->gene[i] = (int32_t)floor(ratio * (space->genes[i].cardinality - 1) + 1e-9);
        if (fits(s, point_macs(s, out))) {
            if (k == 0) return;
            lo = ratio;
        } else {
            hi = ratio;
        }
    }
    for (int32_t i = 0; i < out->n; i++)
        out->gene[i] = (int32_t)floor(lo * (space->genes[i].cardinality - 1) + 1e-9);
    use_up(space, out);
}

static void amc_smallest(const nas_space *space, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
}

/* ---- checks, text ----------------------------------------------------------------------------------------------------- */

static nas_status amc_check(nas_ctx *ctx, const nas_space *space, const nas_point *p) {
    const amc_space *s = amc_of(space);
    const double macs = point_macs(s, p);
    if (fits(s, macs)) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE, "the point has %.0f MACs, the budget is %.0f", macs,
                    s->options.macs_max);
}

static nas_status amc_decode(nas_ctx *ctx, const nas_space *space, const nas_point *p,
                             nas_graph **out) {
    const amc_space *s = amc_of(space);
    int32_t kept[NAS_POINT_GENES_MAX];
    for (int32_t i = 0; i < p->n; i++)
        kept[i] = kept_of(s, i, p->gene[i]);
    return s->options.decode(ctx, s->options.decode_arg, kept, out);
}

static void amc_format(const nas_space *space, const nas_point *p, nas_buf *out) {
    nas_buf_puts(out, "amc ");
    for (int32_t i = 0; i < p->n; i++)
        nas_buf_printf(out, "%s%" PRId32, i == 0 ? "" : ",", kept_of(amc_of(space), i, p->gene[i]));
}

static nas_status amc_parse(nas_ctx *ctx, const nas_space *space, const char *text,
                            nas_point *out) {
    const amc_space *s = amc_of(space);
    if (strncmp(text, "amc ", 4) != 0)
        return nas_fail(ctx, NAS_ERR_PARSE, "column 1: expected \"amc \"");
    const char *at = text + 4;
    out->n = space->n_genes;
    for (int32_t i = 0; i < out->n; i++) {
        const int column = (int)(at - text) + 1;
        const size_t digits = strspn(at, "0123456789");
        if (digits < 1 || digits > 6)
            return nas_fail(ctx, NAS_ERR_PARSE, "column %d: expected the channels of group %d",
                            column, (int)i + 1);
        const int32_t kept = (int32_t)strtol(at, NULL, 10);
        int32_t choice = 0;
        while (choice < choices_of(s, i) && kept_of(s, i, choice) != kept)
            choice++;
        if (choice == choices_of(s, i))
            return nas_fail(
                ctx, NAS_ERR_RANGE,
                "column %d: %d channels of group %d: the space offers %d to %d in steps of "
                "%d",
                column, (int)kept, (int)i + 1, (int)s->first[i], (int)s->options.groups[i].channels,
                (int)s->options.step);
        out->gene[i] = choice;
        at += digits;
        if (*at != (i + 1 < out->n ? ',' : '\0'))
            return nas_fail(ctx, NAS_ERR_PARSE, "column %d: expected %s", (int)(at - text) + 1,
                            i + 1 < out->n ? "','" : "the end");
        at++;
    }
    return NAS_OK;
}

/* ---- gene by gene ------------------------------------------------------------------------------------------------------ */

/* The least choice with which the budget can still be spent, all later groups being left whole: the mirror image of AMC's
 * clipping. Without it an agent has to learn first that unspent MACs are lost accuracy. */
static int32_t least_choice(const nas_space *space, const nas_point *prefix, int32_t step,
                            int32_t hi) {
    static const double spent = 0.95; /* rounding to steps leaves a few percent */
    const amc_space *s = amc_of(space);
    if (!s->options.spend || s->options.macs_max <= 0) return 0;
    nas_point q = {.n = space->n_genes};
    for (int32_t i = 0; i < q.n; i++)
        q.gene[i] = i < step ? prefix->gene[i] : space->genes[i].cardinality - 1;
    const double wanted = spent * s->options.macs_max;
    int32_t choice = 0;
    for (; choice < hi; choice++) {
        q.gene[step] = choice;
        if (point_macs(s, &q) >= wanted) break;
    }
    return choice;
}

static void amc_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                        nas_outlook *out) {
    double f[NAS_AMC_FEATURES];
    nas_space_amc_features(space, prefix, step, f);
    const int32_t hi = nas_space_amc_choice(space, prefix, step, 1);
    *out = (nas_outlook){.lo = least_choice(space, prefix, step, hi),
                         .hi = hi,
                         .reduced = f[NAS_AMC_REDUCED],
                         .rest = f[NAS_AMC_REST]};
}

/* The network as a graph of two kinds of nodes: groups of channels, then layers; a layer is joined to the groups that it
 * reads and writes. */
enum { NODE_GROUP, NODE_CHANNELS, NODE_KERNEL, NODE_STRIDE, NODE_EXTENT, NODE_MACS, NODE_FEATURES };

static double highest(double a, double b) {
    return a > b ? a : b;
}

static void describe_nodes(const amc_space *s, nas_space_steps *out) {
    const nas_amc_options *o = &s->options;
    double channels = 1, kernel = 1, stride = 1, extent = 1, unit = 1;
    for (int32_t i = 0; i < o->n_groups; i++)
        channels = highest(channels, o->groups[i].channels);
    for (int32_t i = 0; i < o->n_layers; i++) {
        kernel = highest(kernel, o->layers[i].kernel);
        stride = highest(stride, o->layers[i].stride);
        extent = highest(extent, o->layers[i].extent);
        unit = highest(unit, o->layers[i].unit);
    }
    for (int32_t i = 0; i < o->n_groups; i++) {
        float *f = out->nodes + (ptrdiff_t)i * NODE_FEATURES;
        f[NODE_GROUP] = 1;
        f[NODE_CHANNELS] = (float)(o->groups[i].channels / channels);
    }
    for (int32_t i = 0; i < o->n_layers; i++) {
        float *f = out->nodes + (ptrdiff_t)(o->n_groups + i) * NODE_FEATURES;
        f[NODE_KERNEL] = (float)(o->layers[i].kernel / kernel);
        f[NODE_STRIDE] = (float)(o->layers[i].stride / stride);
        f[NODE_EXTENT] = (float)(o->layers[i].extent / extent);
        f[NODE_MACS] = (float)(o->layers[i].unit / unit);
    }
}

static nas_status amc_steps(nas_ctx *ctx, const nas_space *space, nas_space_steps *out) {
    enum { STATIC = NAS_AMC_REDUCED }; /* the features before it do not depend on earlier genes */
    const amc_space *s = amc_of(space);
    const nas_amc_options *o = &s->options;
    out->n_features = STATIC;
    out->spend = o->spend && o->macs_max > 0;
    out->n_nodes = o->n_groups + o->n_layers;
    out->n_node_features = NODE_FEATURES;
    out->n_edges = o->n_terms;
    out->features = nas_alloc_array(ctx, (size_t)(o->n_groups * STATIC), sizeof(float));
    out->nodes = nas_alloc_array(ctx, (size_t)(out->n_nodes * NODE_FEATURES), sizeof(float));
    out->edges = nas_alloc_array(ctx, (size_t)o->n_terms, sizeof *out->edges);
    out->node_of = nas_alloc_array(ctx, (size_t)o->n_groups, sizeof *out->node_of);
    if (out->features == NULL || out->nodes == NULL || out->edges == NULL || out->node_of == NULL)
        return NAS_ERR_NOMEM;
    const nas_point none = {.n = space->n_genes};
    for (int32_t i = 0; i < o->n_groups; i++) {
        double f[NAS_AMC_FEATURES];
        nas_space_amc_features(space, &none, i, f);
        for (int k = 0; k < STATIC; k++)
            out->features[(ptrdiff_t)i * STATIC + k] = (float)f[k];
        out->node_of[i] = i;
    }
    describe_nodes(s, out);
    for (int32_t t = 0; t < o->n_terms; t++) {
        out->edges[t][0] = o->n_groups + o->terms[t].layer;
        out->edges[t][1] = o->terms[t].group;
    }
    return NAS_OK;
}

static void amc_release(nas_space *space) {
    nas_arena_free(((amc_space *)space)->arena);
}

static const nas__space_ops amc_ops = {
    .name = "amc",
    .sample = amc_sample,
    .mutate = amc_mutate,
    .crossover = amc_crossover,
    .largest = amc_largest,
    .smallest = amc_smallest,
    .check = amc_check,
    .decode = amc_decode,
    .format = amc_format,
    .parse = amc_parse,
    .release = amc_release,
    .outlook = amc_outlook,
    .steps = amc_steps,
};

/* ---- new -------------------------------------------------------------------------------------------------------------- */

static nas_status check_options(nas_ctx *ctx, const nas_amc_options *o) {
    if (o->n_groups < 1 || o->n_groups > NAS_POINT_GENES_MAX)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space 'amc': %d groups of channels can be pruned, limit 1..%d",
                        (int)o->n_groups, NAS_POINT_GENES_MAX);
    if (o->step < 1 || !(o->min_ratio > 0 && o->min_ratio <= 1) || !(o->macs_max >= 0))
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "space 'amc': step %d (>= 1), min_ratio %g (above 0, at most 1), macs_max %g "
            "(>= 0)",
            (int)o->step, o->min_ratio, o->macs_max);
    for (int32_t i = 0; i < o->n_terms; i++) {
        const nas_amc_term *t = &o->terms[i];
        const bool sorted = i == 0 || o->terms[i - 1].layer <= t->layer;
        if (sorted && t->layer >= 0 && t->layer < o->n_layers && t->group >= 0 &&
            t->group < o->n_groups)
            continue;
        return nas_fail(ctx, NAS_ERR_INVALID, "space 'amc': term %d names layer %d, group %d",
                        (int)i, (int)t->layer, (int)t->group);
    }
    return NAS_OK;
}

static nas_status copy_options(nas_ctx *ctx, const nas_amc_options *o, amc_space *s) {
    const size_t groups = (size_t)o->n_groups, layers = (size_t)o->n_layers;
    const size_t terms = (size_t)o->n_terms;
    nas_amc_group *g = nas_arena_alloc(ctx, s->arena, groups, sizeof *g);
    nas_amc_layer *l = nas_arena_alloc(ctx, s->arena, layers, sizeof *l);
    nas_amc_term *t = nas_arena_alloc(ctx, s->arena, terms, sizeof *t);
    s->first = nas_arena_alloc(ctx, s->arena, groups, sizeof *s->first);
    s->base.genes = nas_alloc_array(ctx, groups, sizeof *s->base.genes);
    if (g == NULL || l == NULL || t == NULL || s->first == NULL || s->base.genes == NULL)
        return NAS_ERR_NOMEM;
    memcpy(g, o->groups, groups * sizeof *g);
    if (layers > 0) memcpy(l, o->layers, layers * sizeof *l);
    if (terms > 0) memcpy(t, o->terms, terms * sizeof *t);
    s->options = *o;
    s->options.groups = g;
    s->options.layers = l;
    s->options.terms = t;
    s->base.size = 1;
    s->base.n_genes = o->n_groups;
    for (int32_t i = 0; i < o->n_groups; i++) {
        if (g[i].channels < 1)
            return nas_fail(ctx, NAS_ERR_INVALID, "space 'amc': group %d has %d channels",
                            (int)i + 1, (int)g[i].channels);
        const int32_t least = (int32_t)ceil(o->min_ratio * g[i].channels - 1e-9);
        const int32_t up = (least + o->step - 1) / o->step * o->step;
        s->first[i] = up < g[i].channels ? up : g[i].channels;
        nas_gene *gene = &s->base.genes[i];
        (void)snprintf(gene->name, sizeof gene->name, "group%d", (int)i + 1);
        gene->kind = NAS_GENE_ORDINAL;
        gene->cardinality = choices_of(s, i);
        s->base.size *=
            gene->cardinality; /* of all points; how many miss the budget is not known */
    }
    return NAS_OK;
}

nas_status nas_space_amc_new(nas_ctx *ctx, const nas_amc_options *o, nas_space **out) {
    nas_status status = check_options(ctx, o);
    if (status != NAS_OK) return status;
    amc_space *s = nas_alloc_array(ctx, 1, sizeof *s);
    if (s == NULL) return NAS_ERR_NOMEM;
    s->base.ops = &amc_ops;
    s->arena = nas_arena_new(ctx, 1 << 12);
    status = s->arena == NULL ? NAS_ERR_NOMEM : copy_options(ctx, o, s);
    if (status == NAS_OK) {
        nas_point p;
        amc_smallest(&s->base, &p);
        s->macs_least = point_macs(s, &p);
        for (int32_t i = 0; i < p.n; i++)
            p.gene[i] = s->base.genes[i].cardinality - 1;
        s->macs_full = point_macs(s, &p);
        if (!fits(s, s->macs_least))
            status = nas_fail(
                ctx, NAS_ERR_INVALID,
                "space 'amc': the smallest network has %.0f MACs, the budget is %.0f: lower "
                "compress.min_ratio or raise the bound",
                s->macs_least, o->macs_max);
    }
    if (status != NAS_OK) {
        nas_space_free(&s->base);
        return status;
    }
    *out = &s->base;
    return NAS_OK;
}

/* ---- for agents --------------------------------------------------------------------------------------------------------- */

bool nas_space_is_amc(const nas_space *space) {
    return space->ops == &amc_ops;
}

int32_t nas_space_amc_kept(const nas_space *space, const nas_point *p, int32_t group) {
    return kept_of(amc_of(space), group, p->gene[group]);
}

double nas_space_amc_macs(const nas_space *space, const nas_point *p) {
    return point_macs(amc_of(space), p);
}

/* Genes before `gene` as in p, all others at their least. */
static nas_point decided(const nas_space *space, const nas_point *p, int32_t gene) {
    nas_point q = {.n = space->n_genes};
    memcpy(q.gene, p->gene, (size_t)gene * sizeof q.gene[0]);
    return q;
}

int32_t nas_space_amc_choice(const nas_space *space, const nas_point *p, int32_t gene,
                             double ratio) {
    const amc_space *s = amc_of(space);
    nas_point q = decided(space, p, gene);
    const double want = ratio * s->options.groups[gene].channels;
    int32_t choice = space->genes[gene].cardinality - 1;
    while (choice > 0 && kept_of(s, gene, choice) > want + s->options.step / 2.0)
        choice--;
    for (; choice > 0;
         choice--) { /* clipped after rounding, so that ceil cannot break the budget */
        q.gene[gene] = choice;
        if (fits(s, point_macs(s, &q))) break;
    }
    return choice;
}

void nas_space_amc_features(const nas_space *space, const nas_point *p, int32_t gene,
                            double out[NAS_AMC_FEATURES]) {
    const amc_space *s = amc_of(space);
    const nas_amc_options *o = &s->options;
    const nas_amc_layer *layer = &o->layers[0];
    for (int32_t t = o->n_terms; t-- > 0;) { /* the first layer that writes the group */
        if (o->terms[t].group == gene && !o->terms[t].is_input)
            layer = &o->layers[o->terms[t].layer];
    }
    nas_point low = decided(space, p, gene), high = low, only = low;
    for (int32_t i = 0; i < high.n; i++) {
        if (i >= gene) high.gene[i] = space->genes[i].cardinality - 1;
        only.gene[i] = space->genes[i].cardinality - 1;
    }
    const double with = point_macs(s, &high), least = point_macs(s, &low);
    only.gene[gene] = 0;
    int32_t widest = 1, tallest = 1;
    for (int32_t i = 0; i < o->n_groups; i++)
        widest = o->groups[i].channels > widest ? o->groups[i].channels : widest;
    for (int32_t l = 0; l < o->n_layers; l++)
        tallest = o->layers[l].extent > tallest ? o->layers[l].extent : tallest;
    const double last =
        gene == 0 ? 1
                  : (double)kept_of(s, gene - 1, p->gene[gene - 1]) / o->groups[gene - 1].channels;
    const double features[NAS_AMC_FEATURES] = {
        (double)gene / o->n_groups,
        (double)o->groups[gene].channels / widest,
        layer->kernel / 7.0,
        layer->stride / 2.0,
        (double)layer->extent / tallest,
        1 - point_macs(s, &only) / s->macs_full,
        1 - with / s->macs_full,
        (with - least) / s->macs_full,
        last,
        1 - (double)gene / o->n_groups,
    };
    memcpy(out, features, sizeof features);
}
