/* spaces_internal.h - shared inside spaces/ only: what a space is made of, and the layout of the "sr" genes.
 *
 * A space is one const struct of functions (nas__space_ops) and its genes; a concrete space embeds nas_space as its
 * first member. space.c forwards the public functions. */
#ifndef NAS_SPACES_SPACES_INTERNAL_H
#define NAS_SPACES_SPACES_INTERNAL_H

#include "spaces/space.h"

/* Contracts: those of the public functions of the same name. Every point given to them has the space's n. */
typedef struct nas__space_ops {
    const char *name;
    void (*sample)(const nas_space *space, nas_rng *rng, nas_point *out);
    void (*mutate)(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                   nas_point *out);
    void (*crossover)(const nas_space *space, const nas_point *a, const nas_point *b, nas_rng *rng,
                      nas_point *out);
    void (*largest)(const nas_space *space, nas_point *out);
    void (*smallest)(const nas_space *space, nas_point *out);
    /* Only what concerns the meaning of genes; cardinalities and n were checked. */
    nas_status (*check)(nas_ctx *ctx, const nas_space *space, const nas_point *point);
    nas_status (*decode)(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                         nas_graph **out);
    void (*format)(const nas_space *space, const nas_point *point, nas_buf *out);
    nas_status (*parse)(nas_ctx *ctx, const nas_space *space, const char *text, nas_point *out);
    void (*release)(nas_space *space); /* what the space owns beside its genes; NULL = nothing */
    /* Optional. Without `outlook` a space cannot be decided gene by gene; without `steps` steps.c describes the genes. */
    void (*outlook)(const nas_space *space, const nas_point *prefix, int32_t step,
                    nas_outlook *out);
    nas_status (*steps)(nas_ctx *ctx, const nas_space *space, nas_space_steps *out);
} nas__space_ops;

struct nas_space {
    const nas__space_ops *ops;
    nas_gene *genes; /* owned, n_genes */
    int32_t n_genes;
    double size; /* canonical points */
};

/* ---- the "sr" space ------------------------------------------------------------------------------------------ */

typedef struct nas__sr_space {
    nas_space base;
    nas_sr_options options;
} nas__sr_space;

/* Gene layout: four global genes, then three a block. Blocks count from 0 here, from 1 in names and texts. */
enum {
    NAS__SR_RESIDUAL,
    NAS__SR_HEAD,
    NAS__SR_TAIL,
    NAS__SR_SKIP,
    NAS__SR_GLOBALS,
    NAS__SR_BLOCK_GENES = 3,
    NAS__SR_WIDTH_MAX = 1024
};

static inline int32_t nas__sr_keep(int32_t block) {
    return NAS__SR_GLOBALS + NAS__SR_BLOCK_GENES * block;
}
static inline int32_t nas__sr_expand(int32_t block) {
    return nas__sr_keep(block) + 1;
}
static inline int32_t nas__sr_project(int32_t block) {
    return nas__sr_keep(block) + 2;
}
static inline int32_t nas__range_count(nas_range r) {
    return (r.max - r.min) / r.step + 1;
}
static inline int32_t nas__range_value(nas_range r, int32_t choice) {
    return r.min + choice * r.step;
}
static inline const nas__sr_space *nas__sr(const nas_space *space) {
    return (const nas__sr_space *)space; /* base is the first member */
}

int32_t nas__sr_kept(const nas__sr_space *sr, const nas_point *point); /* number of kept blocks */

void nas__sr_sample(const nas_space *space, nas_rng *rng, nas_point *out);
void nas__sr_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                    nas_point *out);
void nas__sr_crossover(const nas_space *space, const nas_point *a, const nas_point *b, nas_rng *rng,
                       nas_point *out);
void nas__sr_largest(const nas_space *space, nas_point *out);
void nas__sr_smallest(const nas_space *space, nas_point *out);
nas_status nas__sr_decode(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                          nas_graph **out);
void nas__sr_format(const nas_space *space, const nas_point *point, nas_buf *out);
void nas__sr_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                     nas_outlook *out);
nas_status nas__sr_parse(nas_ctx *ctx, const nas_space *space, const char *text, nas_point *out);

#endif
