/* plain_moves.c - moves of the spaces whose genes may take every value: nb201, fbnet, ofa. Some genes may not matter in
 * a point (blocks beyond the depth): a move first gives them random values, so that a block that comes alive is random,
 * and ends by setting what does not matter to 0. */
#include "spaces/spaces_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

nas_gene nas__gene(const char *name, nas_gene_kind kind, int32_t cardinality) {
    nas_gene g = {.kind = kind, .cardinality = cardinality};
    (void)snprintf(g.name, sizeof g.name, "%s", name);
    return g;
}

nas_status nas__plain_init(nas_ctx *ctx, nas_space *space, const nas__space_ops *ops,
                           const nas_gene *genes, int32_t n_genes, double size) {
    assert(n_genes >= 1 && n_genes <= NAS_POINT_GENES_MAX);
    space->ops = ops;
    space->n_genes = n_genes;
    space->size = size;
    space->genes = nas_alloc_array(ctx, (size_t)n_genes, sizeof *space->genes);
    if (space->genes == NULL) return NAS_ERR_NOMEM;
    memcpy(space->genes, genes, (size_t)n_genes * sizeof *genes);
    return NAS_OK;
}

static int32_t below(nas_rng *rng, int32_t n) {
    return (int32_t)nas_rng_below(rng, (uint32_t)n);
}

void nas__plain_canonical(const nas_space *space, nas_point *point) {
    for (int32_t i = 0; i < point->n; i++) {
        if (!nas_space_gene_matters(space, point, i)) point->gene[i] = 0;
    }
}

static void fill_idle(const nas_space *space, nas_rng *rng, nas_point *point) {
    for (int32_t i = 0; i < point->n; i++) {
        if (nas_space_gene_matters(space, point, i)) continue;
        point->gene[i] = below(rng, space->genes[i].cardinality);
    }
}

void nas__plain_sample(const nas_space *space, nas_rng *rng, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < out->n; i++)
        out->gene[i] = below(rng, space->genes[i].cardinality);
    nas__plain_canonical(space, out);
}

/* Another value: of an ordinal gene with probability 1/2 a neighbour, else any other. */
static int32_t other_choice(nas_rng *rng, const nas_gene *gene, int32_t value) {
    if (gene->kind == NAS_GENE_ORDINAL && below(rng, 2) == 0) {
        if (value == 0) return 1;
        if (value == gene->cardinality - 1) return value - 1;
        return below(rng, 2) == 0 ? value - 1 : value + 1;
    }
    const int32_t other = below(rng, gene->cardinality - 1);
    return other < value ? other : other + 1;
}

static bool can_change(const nas_space *space, const nas_point *p, int32_t gene) {
    return space->genes[gene].cardinality > 1 && nas_space_gene_matters(space, p, gene);
}

void nas__plain_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                       nas_point *out) {
    *out = *in;
    fill_idle(space, rng, out);
    const nas_point filled = *out;
    for (int32_t i = 0; i < out->n; i++) {
        if (can_change(space, in, i) && nas_rng_uniform(rng) < rate)
            out->gene[i] = other_choice(rng, &space->genes[i], out->gene[i]);
    }
    nas__plain_canonical(space, out);
    if (!nas_point_equal(in, out)) return;
    int32_t genes[NAS_POINT_GENES_MAX];
    int32_t n = 0;
    for (int32_t i = 0; i < in->n; i++) {
        if (can_change(space, in, i)) genes[n++] = i;
    }
    if (n == 0) return; /* a space of one point */
    *out = filled;
    const int32_t gene = genes[below(rng, n)];
    out->gene[gene] = other_choice(rng, &space->genes[gene], in->gene[gene]);
    nas__plain_canonical(space, out);
}

/* Does any gene of [first, end) matter in the point? */
static bool group_matters(const nas_space *space, const nas_point *p, int32_t first, int32_t end) {
    for (int32_t i = first; i < end; i++) {
        if (nas_space_gene_matters(space, p, i)) return true;
    }
    return false;
}

void nas__plain_crossover(const nas_space *space, const nas_point *a, const nas_point *b,
                          nas_rng *rng, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t first = 0; first < out->n;) {
        int32_t end = first + 1;
        while (space->ops->group != NULL && end < out->n &&
               space->ops->group(end) == space->ops->group(first))
            end++;
        const nas_point *from = below(rng, 2) == 0 ? a : b;
        /* a block that only one parent has comes from it, so that depth and blocks fit each other */
        if (!group_matters(space, from, first, end)) from = from == a ? b : a;
        for (int32_t i = first; i < end; i++)
            out->gene[i] = from->gene[i];
        first = end;
    }
    nas__plain_canonical(space, out);
}

void nas__plain_largest(const nas_space *space, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < out->n; i++)
        out->gene[i] = space->genes[i].cardinality - 1;
    nas__plain_canonical(space, out);
}

void nas__plain_smallest(const nas_space *space, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
}

nas_status nas__plain_check(nas_ctx *ctx, const nas_space *space, const nas_point *point) {
    for (int32_t i = 0; i < point->n; i++) {
        if (point->gene[i] == 0 || nas_space_gene_matters(space, point, i)) continue;
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "gene '%s' is %" PRId32 ", but it does not matter here: it must be 0",
                        space->genes[i].name, point->gene[i]);
    }
    return NAS_OK;
}
