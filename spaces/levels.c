/* levels.c - the space of levels under limits. A point beyond a limit is brought back by lowering genes drawn at random, so
 * that no part of the network is preferred. */
#include "spaces/levels.h"
#include "spaces/spaces_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NONE = -1 };

/* Genes of a layer; NONE where there is but one choice. */
typedef struct places {
    int32_t form, bits;
} places;

typedef struct levels_space {
    nas_space base;
    nas_arena *arena;
    nas_levels_options options; /* layers, levels and texts are copies in the arena */
    char name[NAS_LEVELS_NAME_MAX + 1];
    places *places;    /* [layer] */
    int32_t *layer_of; /* [gene] */
    nas_level_cost
        measure; /* that the outlook counts in: the first one that is limited, else bytes */
} levels_space;

static const levels_space *levels_of(const nas_space *space) {
    return (const levels_space *)space; /* base is the first member */
}

static const char *const cost_names[] = {"bytes of weights", "MACs", "bit operations",
                                         "parameters"};

/* ---- costs ---------------------------------------------------------------------------------------------------------- */

static int32_t level_of(const levels_space *s, const nas_point *p, int32_t layer) {
    const places at = s->places[layer];
    const int32_t form = at.form == NONE ? 0 : p->gene[at.form];
    const int32_t bits = at.bits == NONE ? 0 : p->gene[at.bits];
    return form * s->options.layers[layer].n_bits + bits;
}

static double cost_of(const levels_space *s, const nas_point *p, nas_level_cost kind) {
    double sum = s->options.fixed[kind];
    for (int32_t i = 0; i < s->options.n_layers; i++)
        sum += s->options.layers[i].levels[level_of(s, p, i)].costs[kind];
    return sum;
}

static bool within(double cost, double limit) {
    return limit <= 0 || cost <= limit * (1 + 1e-12);
}

/* The first limit that the point exceeds; LEVEL_COSTS: none. */
static nas_level_cost exceeded(const levels_space *s, const nas_point *p) {
    int k = 0;
    while (k < NAS_LEVEL_COSTS && within(cost_of(s, p, (nas_level_cost)k), s->options.limit[k]))
        k++;
    return (nas_level_cost)k;
}

static bool fits(const levels_space *s, const nas_point *p) {
    return exceeded(s, p) == NAS_LEVEL_COSTS;
}

/* ---- moves ---------------------------------------------------------------------------------------------------------- */

/* Lowers random genes by one until the limits hold; the smallest network holds them. */
static void restore(const levels_space *s, nas_rng *rng, nas_point *p) {
    while (!fits(s, p)) {
        int32_t open[NAS_POINT_GENES_MAX] = {0}, n = 0;
        for (int32_t i = 0; i < p->n; i++) {
            if (p->gene[i] > 0) open[n++] = i;
        }
        p->gene[open[nas_rng_below(rng, (uint32_t)n)]]--;
    }
}

static void levels_sample(const nas_space *space, nas_rng *rng, nas_point *out) {
    nas__plain_sample(space, rng, out);
    restore(levels_of(space), rng, out);
}

/* Another point for certain, if there is one near: one choice lower somewhere, or one higher where the limits allow. */
static void change_one(const nas_space *space, const nas_point *in, nas_rng *rng, nas_point *out) {
    const int32_t from = (int32_t)nas_rng_below(rng, (uint32_t)in->n);
    for (int32_t k = 0; k < 2 * in->n; k++) {
        const int32_t gene = (from + k) % in->n;
        *out = *in;
        out->gene[gene] += k < in->n ? -1 : 1;
        if (out->gene[gene] < 0 || out->gene[gene] >= space->genes[gene].cardinality) continue;
        if (fits(levels_of(space), out)) return;
    }
    *out = *in; /* no neighbour */
}

static void levels_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                          nas_point *out) {
    enum { TRIES = 16 };
    for (int32_t k = 0; k < TRIES; k++) {
        nas__plain_mutate(space, in, rate, rng, out);
        restore(levels_of(space), rng, out);
        if (!nas_point_equal(in, out)) return;
    }
    change_one(space, in, rng, out);
}

/* Both genes of a layer come from the same parent: bits are chosen for what is left of the layer. */
static void levels_crossover(const nas_space *space, const nas_point *a, const nas_point *b,
                             nas_rng *rng, nas_point *out) {
    const levels_space *s = levels_of(space);
    *out = (nas_point){.n = space->n_genes};
    const nas_point *from = a;
    for (int32_t i = 0; i < out->n; i++) {
        if (i == 0 || s->layer_of[i] != s->layer_of[i - 1])
            from = nas_rng_below(rng, 2) == 0 ? a : b;
        out->gene[i] = from->gene[i];
    }
    restore(s, rng, out);
}

/* One choice more for each gene in turn, until none fits. */
static void use_up(const nas_space *space, nas_point *p) {
    for (bool grown = true; grown;) {
        grown = false;
        for (int32_t i = 0; i < p->n; i++) {
            if (p->gene[i] == space->genes[i].cardinality - 1) continue;
            p->gene[i]++;
            const bool good = fits(levels_of(space), p);
            p->gene[i] -= !good;
            grown = grown || good;
        }
    }
}

/* The same share of every gene's choices, the largest one that fits; then what the limits still allow. */
static void levels_largest(const nas_space *space, nas_point *out) {
    const levels_space *s = levels_of(space);
    double lo = 0, hi = 1;
    nas_space_levels_share(space, 1, out);
    if (fits(s, out)) return;
    for (int32_t k = 0; k < 40; k++) {
        const double share = (lo + hi) / 2;
        nas_space_levels_share(space, share, out);
        if (fits(s, out)) {
            lo = share;
        } else {
            hi = share;
        }
    }
    nas_space_levels_share(space, lo, out);
    use_up(space, out);
}

/* ---- checks, text ----------------------------------------------------------------------------------------------------- */

static nas_status levels_check(nas_ctx *ctx, const nas_space *space, const nas_point *p) {
    const levels_space *s = levels_of(space);
    const nas_level_cost k = exceeded(s, p);
    if (k == NAS_LEVEL_COSTS) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE, "the point has %.0f %s, the limit is %.0f",
                    cost_of(s, p, k), cost_names[k], s->options.limit[k]);
}

static nas_status levels_decode(nas_ctx *ctx, const nas_space *space, const nas_point *p,
                                nas_graph **out) {
    const levels_space *s = levels_of(space);
    int32_t *level = nas_alloc_array(ctx, (size_t)s->options.n_layers, sizeof *level);
    if (level == NULL) return NAS_ERR_NOMEM;
    nas_space_levels_of(space, p, level);
    const nas_status status = s->options.decode(ctx, s->options.decode_arg, level, out);
    nas_free(level);
    return status;
}

static void levels_format(const nas_space *space, const nas_point *p, nas_buf *out) {
    const levels_space *s = levels_of(space);
    nas_buf_printf(out, "%s ", s->name);
    for (int32_t i = 0; i < s->options.n_layers; i++)
        nas_buf_printf(out, "%s%s", i == 0 ? "" : ",",
                       s->options.layers[i].levels[level_of(s, p, i)].text);
}

static nas_status read_level(nas_ctx *ctx, const levels_space *s, int32_t layer, const char *at,
                             size_t len, int column, nas_point *out) {
    const nas_levels_layer *l = &s->options.layers[layer];
    const places genes = s->places[layer];
    for (int32_t k = 0; k < l->n_forms * l->n_bits; k++) {
        if (strlen(l->levels[k].text) != len || memcmp(l->levels[k].text, at, len) != 0) continue;
        if (genes.form != NONE) out->gene[genes.form] = k / l->n_bits;
        if (genes.bits != NONE) out->gene[genes.bits] = k % l->n_bits;
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_RANGE, "column %d: layer %d has no level '%.*s'", column,
                    (int)layer + 1, (int)(len < 40 ? len : 40), at);
}

static nas_status levels_parse(nas_ctx *ctx, const nas_space *space, const char *text,
                               nas_point *out) {
    const levels_space *s = levels_of(space);
    const size_t name = strlen(s->name);
    if (strncmp(text, s->name, name) != 0 || text[name] != ' ')
        return nas_fail(ctx, NAS_ERR_PARSE, "column 1: expected \"%s \"", s->name);
    const char *at = text + name + 1;
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < s->options.n_layers; i++) {
        const int column = (int)(at - text) + 1;
        const size_t len = strcspn(at, ", ");
        if (len == 0)
            return nas_fail(ctx, NAS_ERR_PARSE, "column %d: expected the level of layer %d", column,
                            (int)i + 1);
        const nas_status status = read_level(ctx, s, i, at, len, column, out);
        if (status != NAS_OK) return status;
        at += len;
        if (*at != (i + 1 < s->options.n_layers ? ',' : '\0'))
            return nas_fail(ctx, NAS_ERR_PARSE, "column %d: expected %s", (int)(at - text) + 1,
                            i + 1 < s->options.n_layers ? "','" : "the end");
        at++;
    }
    return NAS_OK;
}

/* ---- gene by gene ------------------------------------------------------------------------------------------------------ */

/* All choices up to hi leave room for the smallest rest. */
static void levels_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                           nas_outlook *out) {
    const levels_space *s = levels_of(space);
    nas_point all, high, low = {.n = space->n_genes};
    nas_space_levels_share(space, 1, &all);
    high = all;
    memcpy(low.gene, prefix->gene, (size_t)step * sizeof low.gene[0]);
    memcpy(high.gene, prefix->gene, (size_t)step * sizeof high.gene[0]);
    const double full = fmax(cost_of(s, &all, s->measure), 1e-300);
    const double with = cost_of(s, &high, s->measure), least = cost_of(s, &low, s->measure);
    int32_t hi = 0;
    for (; hi + 1 < space->genes[step].cardinality; hi++) {
        low.gene[step] = hi + 1;
        if (!fits(s, &low)) break;
    }
    *out = (nas_outlook){
        .hi = hi, .reduced = fmax(1 - with / full, 0), .rest = fmax((with - least) / full, 0)};
}

static void levels_release(nas_space *space) {
    nas_arena_free(((levels_space *)space)->arena);
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
    .format = levels_format,
    .parse = levels_parse,
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
        bool good = level->text[0] != '\0' && strpbrk(level->text, ", ") == NULL;
        for (int c = 0; c < NAS_LEVEL_COSTS; c++)
            good = good && isfinite(level->costs[c]) && level->costs[c] >= 0;
        if (!good)
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "space '%s': level '%s' of layer %d: a text without blanks, costs >= 0",
                            o->name, level->text, (int)layer + 1);
    }
    return NAS_OK;
}

static nas_status copy_layers(nas_ctx *ctx, const nas_levels_options *o, levels_space *s) {
    const size_t n = (size_t)o->n_layers;
    nas_levels_layer *layers = nas_arena_alloc(ctx, s->arena, n, sizeof *layers);
    s->places = nas_arena_alloc(ctx, s->arena, n, sizeof *s->places);
    if (layers == NULL || s->places == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < o->n_layers; i++) {
        const nas_status status = check_layer(ctx, o, i);
        if (status != NAS_OK) return status;
        const int32_t count = o->layers[i].n_forms * o->layers[i].n_bits;
        nas_level *levels = nas_arena_alloc(ctx, s->arena, (size_t)count, sizeof *levels);
        if (levels == NULL) return NAS_ERR_NOMEM;
        for (int32_t k = 0; k < count; k++) {
            levels[k] = o->layers[i].levels[k];
            levels[k].text = nas_arena_printf(ctx, s->arena, "%s", levels[k].text);
            if (levels[k].text == NULL) return NAS_ERR_NOMEM;
        }
        layers[i] = o->layers[i];
        layers[i].levels = levels;
    }
    s->options = *o;
    s->options.layers = layers;
    s->options.name = s->name;
    return NAS_OK;
}

static int32_t add_gene(levels_space *s, int32_t layer, const char *role, int32_t choices) {
    if (choices < 2) return NONE;
    nas_gene *gene = &s->base.genes[s->base.n_genes];
    (void)snprintf(gene->name, sizeof gene->name, "layer%d.%s", (int)layer + 1, role);
    gene->kind = NAS_GENE_ORDINAL;
    gene->cardinality = choices;
    s->layer_of[s->base.n_genes] = layer;
    s->base.size *= choices; /* of all points; how many exceed a limit is not known */
    return s->base.n_genes++;
}

static nas_status make_genes(nas_ctx *ctx, levels_space *s) {
    int32_t n = 0;
    for (int32_t i = 0; i < s->options.n_layers; i++)
        n += (s->options.layers[i].n_forms > 1) + (s->options.layers[i].n_bits > 1);
    if (n < 1 || n > NAS_POINT_GENES_MAX)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space '%s': %d choices vary over %d layers, limit 1..%d", s->name, (int)n,
                        (int)s->options.n_layers, NAS_POINT_GENES_MAX);
    s->base.genes = nas_alloc_array(ctx, (size_t)n, sizeof *s->base.genes);
    s->layer_of = nas_arena_alloc(ctx, s->arena, (size_t)n, sizeof *s->layer_of);
    if (s->base.genes == NULL || s->layer_of == NULL) return NAS_ERR_NOMEM;
    s->base.size = 1;
    for (int32_t i = 0; i < s->options.n_layers; i++) {
        s->places[i].form = add_gene(s, i, "form", s->options.layers[i].n_forms);
        s->places[i].bits = add_gene(s, i, "bits", s->options.layers[i].n_bits);
    }
    return NAS_OK;
}

static nas_status check_limits(nas_ctx *ctx, levels_space *s) {
    nas_point least;
    nas__plain_smallest(&s->base, &least);
    const nas_level_cost k = exceeded(s, &least);
    s->measure = NAS_LEVEL_BYTES;
    for (int c = NAS_LEVEL_COSTS; c-- > 0;) {
        if (s->options.limit[c] > 0) s->measure = (nas_level_cost)c;
    }
    if (k == NAS_LEVEL_COSTS) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "space '%s': the smallest network has %.0f %s, the limit is %.0f: offer fewer "
                    "bits or higher rates, or raise the limit",
                    s->name, cost_of(s, &least, k), cost_names[k], s->options.limit[k]);
}

nas_status nas_space_levels_new(nas_ctx *ctx, const nas_levels_options *o, nas_space **out) {
    if (o->n_layers < 1 || strlen(o->name) > NAS_LEVELS_NAME_MAX)
        return nas_fail(ctx, NAS_ERR_INVALID, "space '%s': %d layers, a name of at most %d bytes",
                        o->name, (int)o->n_layers, NAS_LEVELS_NAME_MAX);
    levels_space *s = nas_alloc_array(ctx, 1, sizeof *s);
    if (s == NULL) return NAS_ERR_NOMEM;
    s->base.ops = &levels_ops;
    (void)snprintf(s->name, sizeof s->name, "%s", o->name);
    s->arena = nas_arena_new(ctx, 1 << 12);
    nas_status status = s->arena == NULL ? NAS_ERR_NOMEM : copy_layers(ctx, o, s);
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

int32_t nas_space_levels_count(const nas_space *space) {
    return levels_of(space)->options.n_layers;
}

void nas_space_levels_of(const nas_space *space, const nas_point *point, int32_t *level) {
    const levels_space *s = levels_of(space);
    for (int32_t i = 0; i < s->options.n_layers; i++)
        level[i] = level_of(s, point, i);
}

void nas_space_levels_point(const nas_space *space, const int32_t *level, nas_point *out) {
    const levels_space *s = levels_of(space);
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < s->options.n_layers; i++) {
        const places at = s->places[i];
        if (at.form != NONE) out->gene[at.form] = level[i] / s->options.layers[i].n_bits;
        if (at.bits != NONE) out->gene[at.bits] = level[i] % s->options.layers[i].n_bits;
    }
}

double nas_space_levels_cost(const nas_space *space, const nas_point *point, nas_level_cost kind) {
    return cost_of(levels_of(space), point, kind);
}

void nas_space_levels_share(const nas_space *space, double share, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < out->n; i++)
        out->gene[i] = (int32_t)floor(share * (space->genes[i].cardinality - 1) + 1e-9);
}
