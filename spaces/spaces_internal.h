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
    /* Optional, NULL: every gene matters; every gene is inherited alone. */
    bool (*matters)(const nas_space *space, const nas_point *point, int32_t gene);
    int32_t (*group)(
        int32_t gene); /* genes of one group are inherited together; rising with the gene */
} nas__space_ops;

struct nas_space {
    const nas__space_ops *ops;
    nas_gene *genes; /* owned, n_genes */
    int32_t n_genes;
    double size; /* canonical points */
};

/* ---- plain_moves.c: moves of spaces whose genes may take every value ------------------------------------------------- */

/* nas__plain_init - ops, genes (copied) and size; on failure nothing is owed. */
nas_status nas__plain_init(nas_ctx *ctx, nas_space *space, const nas__space_ops *ops,
                           const nas_gene *genes, int32_t n_genes, double size);
nas_gene nas__gene(const char *name, nas_gene_kind kind, int32_t cardinality);
void nas__plain_sample(const nas_space *space, nas_rng *rng, nas_point *out);
void nas__plain_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                       nas_point *out);
void nas__plain_crossover(const nas_space *space, const nas_point *a, const nas_point *b,
                          nas_rng *rng, nas_point *out);
void nas__plain_largest(const nas_space *space, nas_point *out);
void nas__plain_smallest(const nas_space *space, nas_point *out);
/* nas__plain_check - genes that do not matter are 0. */
nas_status nas__plain_check(nas_ctx *ctx, const nas_space *space, const nas_point *point);
void nas__plain_canonical(const nas_space *space, nas_point *point);

/* ---- net.c: a graph that grows ---------------------------------------------------------------------------------------- */

/* After the first failure the rest does nothing, so that a network reads as prose. Names: "<prefix><name>". */
typedef struct nas__net {
    nas_ctx *ctx;
    nas_graph *graph;
    nas_status status;
    char prefix[32];
} nas__net;

typedef struct nas__conv {
    int32_t channels, kernel, stride, groups;
    bool bias;
} nas__conv; /* padding (kernel - 1)/2 on every side */

nas_value nas__net_input(nas__net *net, int32_t h, int32_t w, int32_t c);
nas_value nas__net_conv(nas__net *net, const char *name, nas_value x, nas__conv conv);
nas_value nas__net_relu(nas__net *net, const char *name, nas_value x);
nas_value nas__net_add(nas__net *net, const char *name, nas_value a, nas_value b);
nas_value nas__net_mul(nas__net *net, const char *name, nas_value a, nas_value b);
nas_value nas__net_unary(nas__net *net, const char *name, nas_value x, nas_unary fn, float alpha,
                         float beta);
nas_value nas__net_batch_norm(nas__net *net, const char *name, nas_value x);
/* kernel x kernel, padding not counted; kernel 0: the mean of the whole input */
nas_value nas__net_avg_pool(nas__net *net, const char *name, nas_value x, int32_t kernel,
                            int32_t stride, int32_t pad);
nas_value nas__net_shuffle(nas__net *net, const char *name, nas_value x, int32_t groups);
nas_shape nas__net_shape(const nas__net *net, nas_value x);
/* nas__net_finish - sets the output; frees the graph on failure. */
nas_status nas__net_finish(nas__net *net, nas_value output, nas_graph **out);

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
