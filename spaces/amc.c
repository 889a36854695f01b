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
        int32_t open[NAS_POINT_GENES_MAX], n = 0;
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

/* The same share of every group: the largest one that fits. */
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

/* ---- gene by gene ----------------------------------------------------------------------------------------------------- */

/* Genes before `step` as in p, the others at their least or at their most. */
static nas_point decided(const nas_space *space, const nas_point *p, int32_t step, bool most) {
    nas_point q = {.n = space->n_genes};
    for (int32_t i = 0; i < q.n; i++)
        q.gene[i] = i < step ? p->gene[i] : most ? space->genes[i].cardinality - 1 : 0;
    return q;
}

static void amc_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                        nas_outlook *out) {
    const amc_space *s = amc_of(space);
    nas_point low = decided(space, prefix, step, false);
    const nas_point high = decided(space, prefix, step, true);
    const double least = point_macs(s, &low), most = point_macs(s, &high);
    *out = (nas_outlook){.reduced = 1 - most / s->macs_full, .rest = (most - least) / s->macs_full};
    for (int32_t c = 1; c < space->genes[step].cardinality; c++) {
        low.gene[step] = c;
        if (!fits(s, point_macs(s, &low))) break;
        out->hi = c;
    }
}

/* The first layer that writes (or, with `reads`, that reads) a group; -1 = none. */
static int32_t layer_of(const amc_space *s, int32_t group, bool reads) {
    for (int32_t t = 0; t < s->options.n_terms; t++) {
        if (s->options.terms[t].group == group && s->options.terms[t].is_input == reads)
            return s->options.terms[t].layer;
    }
    return -1;
}

enum { FEATURES = 7 };

/* State of AMC, without what changes from step to step: place, channels, kernel, stride, extent, share of MACs that hang on
 * the group, layers it concerns. */
static void describe(const amc_space *s, int32_t group, float *out) {
    const nas_amc_options *o = &s->options;
    static const nas_amc_layer none = {.kernel = 1, .stride = 1, .extent = 1};
    const int32_t l = layer_of(s, group, false);
    const nas_amc_layer *layer = l < 0 ? &none : &o->layers[l];
    nas_point p = {.n = s->base.n_genes};
    int32_t widest = 1, tallest = 1, concerned = 0;
    for (int32_t i = 0; i < o->n_groups; i++) {
        p.gene[i] = i == group ? 0 : s->base.genes[i].cardinality - 1;
        widest = o->groups[i].channels > widest ? o->groups[i].channels : widest;
    }
    for (int32_t k = 0; k < o->n_layers; k++)
        tallest = o->layers[k].extent > tallest ? o->layers[k].extent : tallest;
    for (int32_t t = 0; t < o->n_terms; t++)
        concerned += o->terms[t].group == group;
    out[0] = (float)(group + 1) / (float)o->n_groups;
    out[1] = (float)o->groups[group].channels / (float)widest;
    out[2] = (float)layer->kernel / 7.0F;
    out[3] = (float)layer->stride / 2.0F;
    out[4] = (float)layer->extent / (float)tallest;
    out[5] = (float)(1 - point_macs(s, &p) / s->macs_full);
    out[6] = (float)concerned / (float)(o->n_terms + 1);
}

/* The network as a graph: a node a group, an edge where a layer reads one and writes the other. */
static nas_status amc_steps(nas_ctx *ctx, const nas_space *space, nas_space_steps *out) {
    const amc_space *s = amc_of(space);
    const nas_amc_options *o = &s->options;
    const size_t n = (size_t)o->n_groups;
    out->n_steps = out->n_nodes = o->n_groups;
    out->n_features = out->n_node_features = FEATURES;
    out->features = nas_alloc_array(ctx, n * FEATURES, sizeof *out->features);
    out->nodes = nas_alloc_array(ctx, n * FEATURES, sizeof *out->nodes);
    out->node_of = nas_alloc_array(ctx, n, sizeof *out->node_of);
    bool *joined = nas_alloc_array(ctx, n * n, sizeof *joined);
    for (int32_t a = 0; joined != NULL && a < o->n_terms; a++) {
        for (int32_t b = 0; b < o->n_terms; b++) {
            const nas_amc_term *x = &o->terms[a], *y = &o->terms[b];
            if (x->layer != y->layer || x->group >= y->group) continue;
            bool *edge = &joined[(size_t)x->group * n + (size_t)y->group];
            out->n_edges += !*edge;
            *edge = true;
        }
    }
    out->edges = nas_alloc_array(ctx, (size_t)out->n_edges, sizeof *out->edges);
    const bool failed = out->features == NULL || out->nodes == NULL || out->node_of == NULL ||
                        joined == NULL || out->edges == NULL;
    int32_t edges = 0;
    for (int32_t i = 0; i < o->n_groups && !failed; i++) {
        out->node_of[i] = i;
        describe(s, i, out->features + (size_t)i * FEATURES);
        describe(s, i, out->nodes + (size_t)i * FEATURES);
        for (int32_t k = i + 1; k < o->n_groups; k++) {
            if (!joined[(size_t)i * n + (size_t)k]) continue;
            out->edges[edges][0] = i;
            out->edges[edges++][1] = k;
        }
    }
    nas_free(joined);
    return failed ? NAS_ERR_NOMEM : NAS_OK;
}

static void amc_free(nas_space *space) {
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
    .free = amc_free,
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
