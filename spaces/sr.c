/* sr.c - the super-resolution space "sr": its options, genes and size. Wu et al., arXiv:2207.12577 (what varies),
 * Yu et al., arXiv:1808.08718 (the block). Invariant of every point: a skipped block has expand = project = 0, and at
 * least blocks_min blocks are kept. Which blocks are skipped matters: weights are shared by block, so block 3 kept and
 * block 4 kept are different networks. */
#include "spaces/spaces_internal.h"

#include <stdio.h>

nas_sr_options nas_sr_options_default(void) {
    return (nas_sr_options){
        .scale = 2,
        .lr_height = 360,
        .lr_width = 640,
        .blocks_max = NAS_SR_BLOCKS_MAX,
        .blocks_min = 1,
        .residual = {.min = 8, .max = 24, .step = 4},
        .expand = {.min = 16, .max = 96, .step = 16},
        .project = {.min = 8, .max = 24, .step = 4},
        .n_head_kernels = 2,
        .head_kernels = {3, 5},
        .n_tail_kernels = 2,
        .tail_kernels = {3, 5},
        .n_skip_kernels = 2,
        .skip_kernels = {3, 5},
    };
}

/* ---- options ------------------------------------------------------------------------------------------------- */

static nas_status check_number(nas_ctx *ctx, const char *name, int32_t value, int32_t lo,
                               int32_t hi) {
    if (value >= lo && value <= hi) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "space 'sr': %s is %" PRId32 ", limit %" PRId32 "..%" PRId32, name, value, lo,
                    hi);
}

static nas_status check_range(nas_ctx *ctx, const char *name, nas_range r) {
    if (r.min < 1 || r.max > NAS__SR_WIDTH_MAX || r.step < 1 || r.step > NAS__SR_WIDTH_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space 'sr': %s is %" PRId32 "..%" PRId32 " step %" PRId32
                        ": channels and step must be within 1..%d",
                        name, r.min, r.max, r.step, (int)NAS__SR_WIDTH_MAX);
    }
    if (r.min > r.max) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space 'sr': %s is empty: minimum %" PRId32 " is above maximum %" PRId32,
                        name, r.min, r.max);
    }
    const int32_t last = nas__range_value(r, nas__range_count(r) - 1);
    if (last != r.max) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space 'sr': %s from %" PRId32 " in steps of %" PRId32
                        " misses its maximum %" PRId32 ": use %" PRId32 " or %" PRId32,
                        name, r.min, r.step, r.max, last, last + r.step);
    }
    return NAS_OK;
}

static nas_status check_kernels(nas_ctx *ctx, const char *name, int32_t n, const int32_t *kernels) {
    enum { KERNEL_MAX = 9 };
    if (n < 1 || n > NAS_KERNEL_CHOICES_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID, "space 'sr': %s has %" PRId32 " choices, limit 1..%d",
                        name, n, (int)NAS_KERNEL_CHOICES_MAX);
    }
    for (int32_t i = 0; i < n; i++) {
        if (kernels[i] < 1 || kernels[i] > KERNEL_MAX || kernels[i] % 2 == 0) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "space 'sr': %s has kernel %" PRId32 ": use 1, 3, 5, 7 or 9", name,
                            kernels[i]);
        }
        if (i > 0 && kernels[i] <= kernels[i - 1]) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "space 'sr': %s has %" PRId32 " after %" PRId32
                            ": list kernels in ascending order, each once",
                            name, kernels[i], kernels[i - 1]);
        }
    }
    return NAS_OK;
}

static nas_status check_options(nas_ctx *ctx, const nas_sr_options *o) {
    enum { LR_EXTENT_MAX = 8192 };
    nas_status status = check_number(ctx, "scale", o->scale, 2, 4);
    if (status == NAS_OK) status = check_number(ctx, "lr_height", o->lr_height, 1, LR_EXTENT_MAX);
    if (status == NAS_OK) status = check_number(ctx, "lr_width", o->lr_width, 1, LR_EXTENT_MAX);
    if (status == NAS_OK)
        status = check_number(ctx, "blocks_max", o->blocks_max, 1, NAS_SR_BLOCKS_MAX);
    if (status == NAS_OK)
        status = check_number(ctx, "blocks_min", o->blocks_min, 1, NAS_SR_BLOCKS_MAX);
    if (status == NAS_OK && o->blocks_min > o->blocks_max) {
        status =
            nas_fail(ctx, NAS_ERR_INVALID,
                     "space 'sr' is empty: blocks_min %" PRId32 " is above blocks_max %" PRId32,
                     o->blocks_min, o->blocks_max);
    }
    if (status == NAS_OK) status = check_range(ctx, "residual", o->residual);
    if (status == NAS_OK) status = check_range(ctx, "expand", o->expand);
    if (status == NAS_OK) status = check_range(ctx, "project", o->project);
    if (status == NAS_OK)
        status = check_kernels(ctx, "head_kernels", o->n_head_kernels, o->head_kernels);
    if (status == NAS_OK)
        status = check_kernels(ctx, "tail_kernels", o->n_tail_kernels, o->tail_kernels);
    if (status == NAS_OK)
        status = check_kernels(ctx, "skip_kernels", o->n_skip_kernels, o->skip_kernels);
    return status;
}

/* ---- genes --------------------------------------------------------------------------------------------------- */

static nas_gene gene(const char *name, nas_gene_kind kind, int32_t cardinality) {
    nas_gene g = {.kind = kind, .cardinality = cardinality};
    (void)snprintf(g.name, sizeof g.name, "%s", name);
    return g;
}

static nas_gene block_gene(int32_t block, const char *part, nas_gene_kind kind,
                           int32_t cardinality) {
    nas_gene g = {.kind = kind, .cardinality = cardinality};
    (void)snprintf(g.name, sizeof g.name, "block%" PRId32 ".%s", block + 1, part);
    return g;
}

static void fill_genes(const nas_sr_options *o, nas_gene *genes) {
    genes[NAS__SR_RESIDUAL] = gene("residual", NAS_GENE_ORDINAL, nas__range_count(o->residual));
    genes[NAS__SR_HEAD] = gene("head", NAS_GENE_ORDINAL, o->n_head_kernels);
    genes[NAS__SR_TAIL] = gene("tail", NAS_GENE_ORDINAL, o->n_tail_kernels);
    genes[NAS__SR_SKIP] = gene("skip", NAS_GENE_ORDINAL, o->n_skip_kernels);
    for (int32_t b = 0; b < o->blocks_max; b++) {
        genes[nas__sr_keep(b)] = block_gene(b, "keep", NAS_GENE_BOOL, 2);
        genes[nas__sr_expand(b)] =
            block_gene(b, "expand", NAS_GENE_ORDINAL, nas__range_count(o->expand));
        genes[nas__sr_project(b)] =
            block_gene(b, "project", NAS_GENE_ORDINAL, nas__range_count(o->project));
    }
}

/* Global choices times sum over depth k of C(blocks, k) * (widths of a block)^k. Every factor is a whole number, so the
 * double is exact up to 2^53. */
static double count_points(const nas_sr_options *o) {
    const double widths = (double)nas__range_count(o->expand) * nas__range_count(o->project);
    double ways = 1, power = 1, sum = 0; /* C(blocks, k), widths^k */
    for (int32_t k = 0; k <= o->blocks_max; k++) {
        if (k >= o->blocks_min) sum += ways * power;
        ways = ways * (o->blocks_max - k) / (k + 1);
        power *= widths;
    }
    return sum * nas__range_count(o->residual) * o->n_head_kernels * o->n_tail_kernels *
           o->n_skip_kernels;
}

/* ---- checks of points ------------------------------------------------------------------------------------------ */

int32_t nas__sr_kept(const nas__sr_space *sr, const nas_point *point) {
    int32_t kept = 0;
    for (int32_t b = 0; b < sr->options.blocks_max; b++)
        kept += point->gene[nas__sr_keep(b)];
    return kept;
}

static nas_status sr_check(nas_ctx *ctx, const nas_space *space, const nas_point *point) {
    const nas__sr_space *sr = nas__sr(space);
    for (int32_t b = 0; b < sr->options.blocks_max; b++) {
        if (point->gene[nas__sr_keep(b)] != 0) continue;
        for (int32_t i = nas__sr_expand(b); i <= nas__sr_project(b); i++) {
            if (point->gene[i] != 0) {
                return nas_fail(ctx, NAS_ERR_INVALID,
                                "gene '%s' is %" PRId32 ", but its block is skipped: it must be 0",
                                space->genes[i].name, point->gene[i]);
            }
        }
    }
    const int32_t kept = nas__sr_kept(sr, point);
    if (kept < sr->options.blocks_min) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "gene 'keep' is set in %" PRId32
                        " blocks, the space wants at least %" PRId32,
                        kept, sr->options.blocks_min);
    }
    return NAS_OK;
}

static bool sr_matters(const nas_space *space, const nas_point *point, int32_t gene) {
    (void)space;
    if (gene < NAS__SR_GLOBALS || (gene - NAS__SR_GLOBALS) % NAS__SR_BLOCK_GENES == 0) return true;
    return point->gene[nas__sr_keep((gene - NAS__SR_GLOBALS) / NAS__SR_BLOCK_GENES)] != 0;
}

static const nas__space_ops sr_ops = {
    .name = "sr",
    .sample = nas__sr_sample,
    .mutate = nas__sr_mutate,
    .crossover = nas__sr_crossover,
    .largest = nas__sr_largest,
    .smallest = nas__sr_smallest,
    .check = sr_check,
    .decode = nas__sr_decode,
    .format = nas__sr_format,
    .parse = nas__sr_parse,
    .outlook = nas__sr_outlook,
    .matters = sr_matters,
};

nas_status nas_space_sr_new(nas_ctx *ctx, const nas_sr_options *options, nas_space **out) {
    const nas_status status = check_options(ctx, options);
    if (status != NAS_OK) return status;
    nas__sr_space *sr = nas_alloc_array(ctx, 1, sizeof *sr);
    if (sr == NULL) return NAS_ERR_NOMEM;
    sr->options = *options;
    sr->base.ops = &sr_ops;
    sr->base.n_genes = nas__sr_keep(options->blocks_max);
    sr->base.size = count_points(options);
    sr->base.genes = nas_alloc_array(ctx, (size_t)sr->base.n_genes, sizeof *sr->base.genes);
    if (sr->base.genes == NULL) {
        nas_space_free(&sr->base);
        return NAS_ERR_NOMEM;
    }
    fill_genes(options, sr->base.genes);
    *out = &sr->base;
    return NAS_OK;
}
