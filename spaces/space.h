/* space.h - what may vary: a search space maps points to graphs.
 *
 * A point is a fixed-length vector of small integers ("genes"), gene i in [0, cardinality_i). Canonical form: genes
 * that do not matter (those of a skipped block) are 0, so that equal networks have equal points. Legality lives here:
 * every point that leaves this module is canonical and legal. Pure: no I/O, no clock, the RNG is handed in.
 * Layer 2: includes core and ir. */
#ifndef NAS_SPACES_SPACE_H
#define NAS_SPACES_SPACE_H

#include "ir/graph.h"

enum { NAS_POINT_GENES_MAX = 512 };

typedef struct nas_point {
    int32_t n;                         /* genes used */
    int32_t gene[NAS_POINT_GENES_MAX]; /* choice index, 0 beyond n */
} nas_point;

bool nas_point_equal(const nas_point *a, const nas_point *b);
/* nas_point_hash - 64 bits over n and the genes; the same on every machine and in every version, because strategy
 * states hold it. */
uint64_t nas_point_hash(const nas_point *p);

typedef enum nas_gene_kind { NAS_GENE_ORDINAL, NAS_GENE_CATEGORY, NAS_GENE_BOOL } nas_gene_kind;

typedef struct nas_gene {
    char name[32]; /* "block3.expand" */
    nas_gene_kind kind;
    int32_t cardinality; /* >= 1 */
} nas_gene;

/* Options of the space "sr": WDSR-B-style adaptive blocks (methods: Wu et al., arXiv:2207.12577; Yu et al.,
 * arXiv:1808.08718). All widths are channel counts, 1..1024. Lists are given as inclusive ranges with a step; a range
 * must end on its maximum. Kernel lists are strictly ascending. */
typedef struct nas_range {
    int32_t min, max, step;
} nas_range;

enum { NAS_KERNEL_CHOICES_MAX = 4, NAS_SR_BLOCKS_MAX = 16 };

typedef struct nas_sr_options {
    int32_t scale;      /* 2, 3, 4 */
    int32_t lr_height;  /* low-resolution input rows for the latency graph, e.g. 360 */
    int32_t lr_width;   /* e.g. 640 */
    int32_t blocks_max; /* 1..16; blocks are kept or skipped; at least blocks_min are kept */
    int32_t blocks_min; /* >= 1 */
    nas_range residual; /* global residual width F */
    nas_range expand;   /* inner width after the first 1x1 of a block, with ReLU */
    nas_range project;  /* inner width after the second 1x1, before the 3x3 */
    int32_t n_head_kernels, head_kernels[NAS_KERNEL_CHOICES_MAX]; /* odd, 1..9 */
    int32_t n_tail_kernels, tail_kernels[NAS_KERNEL_CHOICES_MAX];
    int32_t n_skip_kernels, skip_kernels[NAS_KERNEL_CHOICES_MAX];
} nas_sr_options;

/* nas_sr_options_default - x2 from 360x640; 1..16 blocks; residual 8..24 by 4, expand 16..96 by 16, project 8..24 by 4;
 * head, tail and skip kernels 3 or 5. */
nas_sr_options nas_sr_options_default(void);

typedef struct nas_space nas_space;

/* nas_space_sr_new - checks every option; an empty or contradictory space is NAS_ERR_INVALID naming the option. */
nas_status nas_space_sr_new(nas_ctx *ctx, const nas_sr_options *options, nas_space **out);
void nas_space_free(nas_space *space);
const char *nas_space_name(const nas_space *space); /* "sr" */

int32_t nas_space_gene_count(const nas_space *space);
const nas_gene *nas_space_gene(const nas_space *space, int32_t index);
/* nas_space_size - number of distinct canonical points, as a double (exact up to 2^53). */
double nas_space_size(const nas_space *space);

/* nas_space_sample - a random point that covers small and large networks alike. "sr": the number of kept blocks is
 * uniform in blocks_min..blocks_max, then which blocks, then every other gene is uniform. (Keeping each block by a
 * coin would put nearly all samples at half the depth.) */
void nas_space_sample(const nas_space *space, nas_rng *rng, nas_point *out);
/* nas_space_mutate - changes each gene with probability `rate` (at least one effective change); ordinal genes move
 * to a neighbouring value with probability 1/2, else anywhere; a block that is switched on gets random widths. `in` is
 * legal. Result is canonical, legal, and differs from `in` whenever the space has more than one point. */
void nas_space_mutate(const nas_space *space, const nas_point *in, double rate, nas_rng *rng,
                      nas_point *out);
/* nas_space_crossover - uniform crossover of two legal points; whole blocks are inherited together. */
void nas_space_crossover(const nas_space *space, const nas_point *a, const nas_point *b,
                         nas_rng *rng, nas_point *out);
/* nas_space_largest / smallest - the corner networks: every block at the largest setting / the first blocks_min blocks
 * at the smallest. */
void nas_space_largest(const nas_space *space, nas_point *out);
void nas_space_smallest(const nas_space *space, nas_point *out);
/* nas_space_check - is this point legal and canonical? INVALID or RANGE with the gene named. */
nas_status nas_space_check(nas_ctx *ctx, const nas_space *space, const nas_point *point);

/* nas_space_decode - the shape-only graph of a point at the space's LR size, RGB in [0,1] in and out:
 *   y = depth_to_space(tail(body(head(x - 0.5))) + skip(x - 0.5)) + 0.5
 * Node names are stable across points ("head", "block3.expand", "block3.relu", "block3.project", "block3.conv",
 * "block3.add", "tail", "skip", ...), so that params of smaller nets are leading slices (of O and I) of the params
 * of the same name in the largest net. A smaller kernel is the centred window of the larger one. */
nas_status nas_space_decode(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                            nas_graph **out);

/* Text form, round-trips: "sr x2 f16 h3 t3 s5 | 1:48,12 2:- 3:96,12 ..."
 *   x scale, f residual width, h/t/s head, tail and skip kernel, then for every block of the space, in order,
 *   "<number>:<expand>,<project>" or "<number>:-" when it is skipped. Fields are separated by one or more blanks; numbers
 *   are decimal without sign or leading zero.
 * format appends to `out`; the point must be legal. parse: PARSE with the column (from 1), RANGE (value that the space
 * does not offer) or INVALID (another scale, too few blocks), both naming the field. */
nas_status nas_space_format(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                            nas_buf *out);
nas_status nas_space_parse(nas_ctx *ctx, const nas_space *space, const char *text, nas_point *out);

/* nas_sr_text_graph - the network of a text of "sr" whatever space it is from (kernels 3..9, widths up to 1024), for
 * low-resolution frames of lr_height x lr_width. Errors: as nas_space_parse. */
nas_status nas_sr_text_graph(nas_ctx *ctx, const char *text, int32_t lr_height, int32_t lr_width,
                             nas_graph **out);

/* ---- points as sequences of decisions ------------------------------------------------------------------------ */

/* What a policy may know when it decides the genes of a point one after another, in their order. All features are
 * scaled to [0,1]. The network as a graph: undirected edges between nodes, and for each gene the node that it shapes.
 * Of a space that does not describe itself: kind, number of choices, place and role (name after the last '.') of each
 * gene, and a chain of one node a gene with the same features. */
typedef struct nas_space_steps {
    int32_t n_steps, n_features;
    float *features; /* [n_steps][n_features] */
    int32_t n_nodes, n_node_features, n_edges;
    float *nodes;        /* [n_nodes][n_node_features] */
    int32_t (*edges)[2]; /* [n_edges] */
    int32_t *node_of;    /* [n_steps] */
    bool spend;          /* points have a budget, and what they leave of it is wasted */
} nas_space_steps;

/* nas_space_steps_new - the description; the caller frees it. UNSUPPORTED when the space cannot be decided gene by gene
 * (has no outlook). */
nas_status nas_space_steps_new(nas_ctx *ctx, const nas_space *space, nas_space_steps **out);
void nas_space_steps_free(nas_space_steps *steps);

/* With the genes before it decided, what is open to the next one. */
typedef struct nas_outlook {
    int32_t lo,
        hi; /* choices after which a legal, canonical point within the space's budget can still be reached, and one that
               spends the budget where the space wants that */
    double
        reduced; /* cost saved by the decisions so far, as a share of the cost of the largest network */
    double rest; /* share of the largest network's cost that is not decided yet */
} nas_outlook;

/* nas_space_outlook - genes at and after `step` in `prefix` are ignored. Where a space has no costs, `reduced` is 0 and
 * `rest` the share of genes to come. The space must have given its steps. */
void nas_space_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                       nas_outlook *out);
/* ---- spaces of published benchmarks ----------------------------------------------------------------------------------
 *
 * Batch normalization is folded into the convolution before it (a bias), as every engine does. Every gene may take every
 * value; where a gene does not matter it is 0. Sampling is uniform over the genes that matter; crossover takes over whole
 * edges (nb201), blocks (fbnet, ofa). */

/* "nb201": cells of four nodes and six edges (Dong & Yang, arXiv:2001.00326). Stem 3x3; three stages of `cells` equal
 * cells at channels, 2*channels, 4*channels, a residual block of stride 2 between them; batch norm, ReLU, mean, linear.
 * Genes: the operation of each edge (0->1)(0->2)(1->2)(0->3)(1->3)(2->3): 0 none, 1 skip, 2 ReLU + conv1x1,
 * 3 ReLU + conv3x3, 4 avg_pool3x3 (padding not counted). Text: the six digits, "421211"; the official form
 * "|avg_pool_3x3~0|+|...|" is read as well. As in the benchmark, isomorphic cells are different points. */
/* What is built of a cell with "none" edges. Engines differ: counts of the whole network explain the latencies of those
 * that run everything, counts of the folded one those of LiteRT. */
typedef enum nas_nb201_form {
    NAS_NB201_WHOLE,   /* all of it, "none" multiplies by 0: the MACs of the benchmark */
    NAS_NB201_REACHED, /* without what the output does not need; operations on zeros are run */
    NAS_NB201_FOLDED   /* also without what computes zeros: for engines that fold constants */
} nas_nb201_form;

typedef struct nas_nb201_options {
    int32_t height, width, input_channels; /* multiples of 4, 4..1024; 1..64 */
    int32_t channels, cells, classes;      /* 1..256, 1..32, 1..10000 */
    nas_nb201_form form;
} nas_nb201_options;
nas_nb201_options
nas_nb201_options_default(void); /* 32x32x3, 16 channels, 5 cells, 10 classes, WHOLE */
nas_status nas_space_nb201_new(nas_ctx *ctx, const nas_nb201_options *options, nas_space **out);
enum { NAS_NB201_EDGES = 6 };
/* nas_nb201_built - which edges of a cell a form builds. */
void nas_nb201_built(const nas_point *point, nas_nb201_form form, bool built[NAS_NB201_EDGES]);

/* "fbnet": 22 blocks of FBNet (Wu et al., arXiv:1812.03443; the form of HW-NAS-Bench, arXiv:2103.10584). Gene of a block:
 * 0 k3_e1, 1 k3_e1_g2, 2 k3_e3, 3 k3_e6, 4 k5_e1, 5 k5_e1_g2, 6 k5_e3, 7 k5_e6, 8 skip (a 1x1 conv where channels or
 * stride change). Inputs below 64 pixels: stem and first wide stage of stride 1, head of 1504 channels; else 1984.
 * Text: the 22 digits; "7,8,1,..." and "[7, 8, 1, ...]" are read as well. */
typedef struct nas_fbnet_options {
    int32_t height, width; /* 32..1024, multiples of 8 */
    int32_t classes;
} nas_fbnet_options;
nas_fbnet_options nas_fbnet_options_default(void); /* 224x224, 1000 classes */
nas_status nas_space_fbnet_new(nas_ctx *ctx, const nas_fbnet_options *options, nas_space **out);

/* "ofa": the MobileNetV3 space of Once-for-All (Cai et al., arXiv:1908.09791): 5 units of 2..4 blocks, each with kernel
 * 3, 5, 7 and expansion 3, 4, 6; square input of 128..224 in steps of 4. width_percent 100 or 120.
 * Text: "ofa r160 | 3,6 5,3 | 7,4 ... " - kernel,expansion of the blocks there are, '|' before each unit. The form of the
 * published data is read as well: "ks=<20 numbers>; expand=<20>; depth=<5>; resolution=<1>" (numbers apart by blanks or
 * commas, fields in any order). */
typedef struct nas_ofa_options {
    int32_t width_percent;
    int32_t classes;
} nas_ofa_options;
nas_ofa_options nas_ofa_options_default(void); /* 100, 1000 */
nas_status nas_space_ofa_new(nas_ctx *ctx, const nas_ofa_options *options, nas_space **out);

/* nas_space_new_named - "nb201", "nb201-reached", "nb201-folded", "fbnet", "ofa", "ofa-w120" or "sr", with the default options, or "sr720p",
 * the smaller one of configs/sr720p.toml; nb201 and fbnet take the input's size, "fbnet:32x32", "nb201:88x88x1". NOTFOUND lists the names. */
nas_status nas_space_new_named(nas_ctx *ctx, const char *name, nas_space **out);
const char *nas_space_names(void); /* "nb201, nb201-reached, ..." */
/* nas_space_gene_matters - false for a gene that does not matter in this legal point (it is 0 then). */
bool nas_space_gene_matters(const nas_space *space, const nas_point *point, int32_t gene);

/* nas_fsrcnn_graph - baseline of FSRCNN shape (Dong et al., arXiv:1608.00367; d=56, s=12, m=4) on the luma plane:
 * [1,h,w,1] in, [1,h*scale,w*scale,1] out; 5x5 1->56, PReLU, 1x1 ->12, PReLU, 4 x (3x3 12->12, PReLU), 1x1 ->56,
 * PReLU, then the 9x9 transposed convolution as its sub-pixel equivalent: a 5x5 conv to scale^2 channels +
 * depth_to_space. */
nas_status nas_fsrcnn_graph(nas_ctx *ctx, int32_t scale, int32_t lr_height, int32_t lr_width,
                            nas_graph **out);

/* nas_small_resnet_graph - a residual classifier for small images: 3x3 to 16, six blocks of two 3x3 (16, 16, 32, 32, 64, 64
 * channels, halving at 32 and 64 with a 1x1 shortcut), global average, 1x1 to `classes`. [1,h,w,c] in, [1,1,1,classes] out.
 * h and w >= 4. */
nas_status nas_small_resnet_graph(nas_ctx *ctx, int32_t h, int32_t w, int32_t c, int32_t classes,
                                  nas_graph **out);

#endif
