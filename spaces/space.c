/* space.c - the public face of every space: point helpers, checks that hold for all, forwarding. */
#include "spaces/spaces_internal.h"

#include <assert.h>
#include <string.h>

bool nas_point_equal(const nas_point *a, const nas_point *b) {
    return a->n == b->n && memcmp(a->gene, b->gene, (size_t)a->n * sizeof a->gene[0]) == 0;
}

static uint64_t
mixed(uint64_t z) { /* finalizer of SplitMix64: every input bit reaches every output bit */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t nas_point_hash(const nas_point *p) {
    uint64_t hash = mixed((uint64_t)(uint32_t)p->n + 0x9e3779b97f4a7c15u);
    for (int32_t i = 0; i < p->n; i++) {
        hash = mixed((hash ^ (uint32_t)p->gene[i]) + 0x9e3779b97f4a7c15u);
    }
    return hash;
}

void nas_space_free(nas_space *space) {
    if (space == NULL) return;
    if (space->ops->release != NULL) space->ops->release(space);
    nas_free(space->genes);
    nas_free(space);
}

const char *nas_space_name(const nas_space *space) {
    return space->ops->name;
}

int32_t nas_space_gene_count(const nas_space *space) {
    return space->n_genes;
}

const nas_gene *nas_space_gene(const nas_space *space, int32_t index) {
    assert(index >= 0 && index < space->n_genes);
    return &space->genes[index];
}

double nas_space_size(const nas_space *space) {
    return space->size;
}

void nas_space_sample(const nas_space *space, nas_rng *rng, nas_point *out) {
    space->ops->sample(space, rng, out);
}

void nas_space_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                      nas_point *out) {
    assert(in->n == space->n_genes);
    nas_point result; /* in and out may be the same point */
    space->ops->mutate(space, in, rate, rng, &result);
    *out = result;
}

void nas_space_crossover(const nas_space *space, const nas_point *a, const nas_point *b,
                         nas_rng *rng, nas_point *out) {
    assert(a->n == space->n_genes && b->n == space->n_genes);
    nas_point result;
    space->ops->crossover(space, a, b, rng, &result);
    *out = result;
}

void nas_space_largest(const nas_space *space, nas_point *out) {
    space->ops->largest(space, out);
}

void nas_space_smallest(const nas_space *space, nas_point *out) {
    space->ops->smallest(space, out);
}

nas_status nas_space_check(nas_ctx *ctx, const nas_space *space, const nas_point *point) {
    if (point->n != space->n_genes) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "point has %" PRId32 " genes, space '%s' has %" PRId32, point->n,
                        space->ops->name, space->n_genes);
    }
    for (int32_t i = 0; i < point->n; i++) {
        const nas_gene *gene = &space->genes[i];
        if (point->gene[i] < 0 || point->gene[i] >= gene->cardinality) {
            return nas_fail(ctx, NAS_ERR_RANGE, "gene '%s' is %" PRId32 ", limit 0..%" PRId32,
                            gene->name, point->gene[i], gene->cardinality - 1);
        }
    }
    for (int32_t i = point->n; i < NAS_POINT_GENES_MAX; i++) {
        if (point->gene[i] != 0) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "gene %" PRId32 " is %" PRId32 ", but the point ends at %" PRId32
                            ": unused genes must be 0",
                            i, point->gene[i], point->n);
        }
    }
    return space->ops->check(ctx, space, point);
}

nas_status nas_space_decode(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                            nas_graph **out) {
    const nas_status status = nas_space_check(ctx, space, point);
    if (status != NAS_OK) return nas_wrap(ctx, status, "decode");
    return space->ops->decode(ctx, space, point, out);
}

nas_status nas_space_format(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                            nas_buf *out) {
    const nas_status status = nas_space_check(ctx, space, point);
    if (status != NAS_OK) return nas_wrap(ctx, status, "format");
    space->ops->format(space, point, out);
    return nas_buf_status(ctx, out);
}

nas_status nas_space_parse(nas_ctx *ctx, const nas_space *space, const char *text, nas_point *out) {
    nas_point point = {0};
    nas_status status = space->ops->parse(ctx, space, text, &point);
    if (status == NAS_OK) status = nas_space_check(ctx, space, &point);
    if (status != NAS_OK) return nas_wrap(ctx, status, "point text");
    *out = point;
    return NAS_OK;
}

bool nas_space_gene_matters(const nas_space *space, const nas_point *point, int32_t gene) {
    assert(gene >= 0 && gene < space->n_genes);
    return space->ops->matters == NULL || space->ops->matters(space, point, gene);
}
