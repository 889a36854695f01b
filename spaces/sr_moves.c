/* sr_moves.c - random moves in the "sr" space: sample, mutate, cross over, and the two corners. Every result is
 * canonical and legal; a depth below blocks_min exists only inside these functions. */
#include "spaces/spaces_internal.h"

#include <assert.h>

static int32_t below(nas_rng *rng, int32_t n) {
    return (int32_t)nas_rng_below(rng, (uint32_t)n);
}

static int32_t any_choice(const nas__sr_space *sr, nas_rng *rng, int32_t gene) {
    return below(rng, sr->base.genes[gene].cardinality);
}

static void switch_on(const nas__sr_space *sr, nas_rng *rng, int32_t block, nas_point *p) {
    p->gene[nas__sr_keep(block)] = 1;
    p->gene[nas__sr_expand(block)] = any_choice(sr, rng, nas__sr_expand(block));
    p->gene[nas__sr_project(block)] = any_choice(sr, rng, nas__sr_project(block));
}

static void copy_block(const nas_point *from, int32_t block, nas_point *to) {
    for (int32_t i = nas__sr_keep(block); i <= nas__sr_project(block); i++)
        to->gene[i] = from->gene[i];
}

static void switch_off(int32_t block, nas_point *p) {
    static const nas_point zero;
    copy_block(&zero, block, p);
}

void nas__sr_sample(const nas_space *space, nas_rng *rng, nas_point *out) {
    const nas__sr_space *sr = nas__sr(space);
    const nas_sr_options *o = &sr->options;
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < NAS__SR_GLOBALS; i++)
        out->gene[i] = any_choice(sr, rng, i);
    int32_t wanted = o->blocks_min + below(rng, o->blocks_max - o->blocks_min + 1);
    for (int32_t b = 0; b < o->blocks_max;
         b++) { /* selection sampling: every subset equally likely */
        if (below(rng, o->blocks_max - b) >= wanted) continue;
        switch_on(sr, rng, b, out);
        wanted--;
    }
}

/* ---- mutation ------------------------------------------------------------------------------------------------ */

static bool is_keep(int32_t gene) {
    return gene >= NAS__SR_GLOBALS && (gene - NAS__SR_GLOBALS) % NAS__SR_BLOCK_GENES == 0;
}

static int32_t block_of(int32_t gene) {
    return (gene - NAS__SR_GLOBALS) / NAS__SR_BLOCK_GENES;
}

/* Can this gene alone be changed so that another legal network comes out? */
static bool can_change(const nas__sr_space *sr, const nas_point *p, int32_t gene) {
    if (is_keep(gene)) return sr->options.blocks_min < sr->options.blocks_max;
    if (sr->base.genes[gene].cardinality < 2) return false;
    return gene < NAS__SR_GLOBALS || p->gene[nas__sr_keep(block_of(gene))] != 0;
}

/* Another value of an ordinal gene: with probability 1/2 a neighbour, else any other. */
static int32_t other_choice(nas_rng *rng, int32_t value, int32_t cardinality) {
    if (below(rng, 2) == 0) {
        if (value == 0) return 1;
        if (value == cardinality - 1) return value - 1;
        return below(rng, 2) == 0 ? value - 1 : value + 1;
    }
    const int32_t other = below(rng, cardinality - 1);
    return other < value ? other : other + 1;
}

static void change_gene(const nas__sr_space *sr, nas_rng *rng, int32_t gene, nas_point *p) {
    if (!is_keep(gene)) {
        p->gene[gene] = other_choice(rng, p->gene[gene], sr->base.genes[gene].cardinality);
    } else if (p->gene[gene] != 0) {
        switch_off(block_of(gene), p);
    } else {
        switch_on(sr, rng, block_of(gene), p);
    }
}

/* Switches random skipped blocks other than `except` (-1 = none) on until the depth is legal. */
static void restore_depth(const nas__sr_space *sr, nas_rng *rng, int32_t except, nas_point *p) {
    for (int32_t kept = nas__sr_kept(sr, p); kept < sr->options.blocks_min; kept++) {
        int32_t skipped[NAS_SR_BLOCKS_MAX];
        int32_t n = 0;
        for (int32_t b = 0; b < sr->options.blocks_max; b++) {
            if (p->gene[nas__sr_keep(b)] == 0 && b != except) skipped[n++] = b;
        }
        assert(n > 0);
        switch_on(sr, rng, skipped[below(rng, n)], p);
    }
}

/* One change that certainly leads to another point, if there is one. At the least depth, switching a block off moves
 * it: another block is switched on. */
static void change_one(const nas__sr_space *sr, nas_rng *rng, nas_point *p) {
    int32_t genes[NAS_POINT_GENES_MAX];
    int32_t n = 0;
    for (int32_t i = 0; i < p->n; i++) {
        if (can_change(sr, p, i)) genes[n++] = i;
    }
    if (n == 0) return; /* a space of one point */
    const int32_t gene = genes[below(rng, n)];
    change_gene(sr, rng, gene, p);
    restore_depth(sr, rng, is_keep(gene) ? block_of(gene) : -1, p);
}

void nas__sr_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                    nas_point *out) {
    const nas__sr_space *sr = nas__sr(space);
    *out = *in;
    for (int32_t i = 0; i < out->n; i++) {
        /* asked of `out`: widths of a block that was just switched off no longer matter */
        if (can_change(sr, out, i) && nas_rng_uniform(rng) < rate) change_gene(sr, rng, i, out);
    }
    restore_depth(sr, rng, -1, out);
    if (nas_point_equal(in, out)) change_one(sr, rng, out);
}

/* ---- crossover ----------------------------------------------------------------------------------------------- */

void nas__sr_crossover(const nas_space *space, const nas_point *a, const nas_point *b, nas_rng *rng,
                       nas_point *out) {
    const nas__sr_space *sr = nas__sr(space);
    const int32_t blocks = sr->options.blocks_max;
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < NAS__SR_GLOBALS; i++) {
        out->gene[i] = below(rng, 2) == 0 ? a->gene[i] : b->gene[i];
    }
    for (int32_t i = 0; i < blocks; i++)
        copy_block(below(rng, 2) == 0 ? a : b, i, out);
    /* Too shallow: take over blocks that one parent keeps. Each parent alone has enough of them. */
    for (int32_t kept = nas__sr_kept(sr, out); kept < sr->options.blocks_min; kept++) {
        int32_t candidates[NAS_SR_BLOCKS_MAX];
        int32_t n = 0;
        for (int32_t i = 0; i < blocks; i++) {
            const int32_t keep = nas__sr_keep(i);
            if (out->gene[keep] == 0 && (a->gene[keep] | b->gene[keep]) != 0) candidates[n++] = i;
        }
        assert(n > 0);
        const int32_t block = candidates[below(rng, n)];
        copy_block(a->gene[nas__sr_keep(block)] != 0 ? a : b, block, out);
    }
}

/* ---- corners ------------------------------------------------------------------------------------------------- */

void nas__sr_largest(const nas_space *space, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t i = 0; i < out->n; i++)
        out->gene[i] = space->genes[i].cardinality - 1;
}

void nas__sr_smallest(const nas_space *space, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int32_t b = 0; b < nas__sr(space)->options.blocks_min; b++)
        out->gene[nas__sr_keep(b)] = 1;
}

/* ---- gene by gene -------------------------------------------------------------------------------------------- */

void nas__sr_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                     nas_outlook *out) {
    const nas__sr_space *sr = nas__sr(space);
    *out = (nas_outlook){.hi = space->genes[step].cardinality - 1,
                         .rest = (double)(space->n_genes - step) / space->n_genes};
    if (step < NAS__SR_GLOBALS) return;
    const int32_t block = block_of(step);
    if (!is_keep(step)) {
        if (prefix->gene[nas__sr_keep(block)] == 0) out->hi = 0;
        return;
    }
    int32_t kept = 0;
    for (int32_t b = 0; b < block; b++)
        kept += prefix->gene[nas__sr_keep(b)];
    const int32_t after = sr->options.blocks_max - block - 1;
    if (kept + after < sr->options.blocks_min) out->lo = 1;
}
