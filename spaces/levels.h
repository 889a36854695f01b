/* levels.h - the spaces of levels: what becomes of each layer of a given network, how many of its channels stay, and how many bits
 * the values have that its layers read. Part of the module spaces/.
 *
 * A layer has forms (which weights are left out) and precisions (bits of those that stay): a gene for each of the two that has
 * more than one choice. Level = form*n_bits + bits. A group of channels has a gene for how many stay, a value one for its
 * bits; both lists may be empty. Genes: groups, then layers (form, bits), then values. Costs are plain data, or follow from the
 * widths of a layer by pure functions, so that the space knows neither graph nor compression; those of a point are sums, and
 * every point of the space keeps within the limits. Choices of a gene rise in cost: choice 0 everywhere is the smallest network.
 *
 * Where channels vary, a form may not fit the channels that are left: the layer then has the nearest lighter form that fits, or
 * where there is none the nearest heavier one; the last form fits always. Points differ by what was asked for, so two of them may
 * be the same network. */
#ifndef NAS_SPACES_LEVELS_H
#define NAS_SPACES_LEVELS_H

#include "spaces/amc.h"
#include "spaces/space.h"

typedef enum nas_level_cost {
    NAS_LEVEL_BYTES,  /* of stored weights */
    NAS_LEVEL_MACS,   /* of weights that stay */
    NAS_LEVEL_BOPS,   /* MACs x bits of the weight x bits of the input */
    NAS_LEVEL_PARAMS, /* weights that stay */
    NAS_LEVEL_COSTS
} nas_level_cost;

typedef struct nas_level {
    const char
        *text; /* as points are written: no blank, no comma, no '>' or '|'; unique in its layer */
    double costs
        [NAS_LEVEL_COSTS]; /* finite, >= 0; with groups `price` decides. BOPS of a layer that reads a value: for each
                                    * bit of it */
} nas_level;

typedef struct nas_levels_layer {
    int32_t n_forms, n_bits; /* >= 1 */
    const nas_level *levels; /* [n_forms][n_bits] */
    int32_t reads;           /* 1 + the value that its input is; 0: none of them */
    int32_t in_fixed,
        out_fixed; /* channels beside those of groups (nas_levels_options.terms); with groups alone */
} nas_levels_layer;

/* A group keeps `step`, 2*step, ... of its channels, from min_ratio of them on, or all (as in amc.h). */
typedef struct nas_levels_group {
    int32_t channels;
    double rest[NAS_LEVEL_COSTS]; /* of what is no layer here, for each channel that stays */
} nas_levels_group;

enum { NAS_LEVELS_BITS_MAX = 16 };
typedef struct nas_levels_value {
    int32_t n_bits, bits[NAS_LEVELS_BITS_MAX]; /* >= 1, rising */
} nas_levels_value;

/* What is no layer here and yet reads a value: bit operations for each bit of it, and for each channel of a group. */
typedef struct nas_levels_use {
    int32_t value;
    int32_t group; /* -1: none */
    double bops;
} nas_levels_use;

enum { NAS_LEVELS_NAME_MAX = 15 };

typedef struct nas_levels_options {
    const char *name;               /* "bits": what the text of a point begins with */
    const nas_levels_layer *layers; /* copied, as is all that follows */
    int32_t n_layers;
    double fixed
        [NAS_LEVEL_COSTS]; /* costs of what is no layer here and does not depend on groups or values */
    double limit[NAS_LEVEL_COSTS]; /* 0 = none */

    const nas_levels_group *groups;
    int32_t n_groups, step;
    double min_ratio;          /* (0, 1] */
    const nas_amc_term *terms; /* channels of layers that are of groups, sorted by layer */
    int32_t n_terms;
    const nas_levels_value *values;
    int32_t n_values;
    const nas_levels_use *uses;
    int32_t n_uses;

    /* With groups: does a form fit, and what does a level cost, in a layer of so many channels? Pure. */
    bool (*fits)(const void *arg, int32_t layer, int32_t form, int32_t in, int32_t out);
    void (*price)(const void *arg, int32_t layer, int32_t level, int32_t in, int32_t out,
                  double costs[NAS_LEVEL_COSTS]);
    /* The graph with kept[group] channels (NULL without groups) and level[layer], as it fits. */
    nas_status (*decode)(nas_ctx *ctx, void *arg, const int32_t *kept, const int32_t *level,
                         nas_graph **out);
    void *arg; /* of the three; borrowed */
} nas_levels_options;

/* nas_space_levels_new - INVALID names the option; says so when nothing varies, when there are too many genes, and what the
 * smallest network costs when it exceeds a limit. */
nas_status nas_space_levels_new(nas_ctx *ctx, const nas_levels_options *options, nas_space **out);
/* Text form of a point: "bits 8,4,2": the text of every layer's level, in order. With groups: "joint 12,16 | 8,4>dense/4,2":
 * kept channels before the levels; where a level does not fit, '>' and the one that the layer has instead. With values:
 * "bits 8,4,2 | 4,8": their bits at the end. */
bool nas_space_is_levels(const nas_space *space);
int32_t nas_space_levels_count(const nas_space *space); /* layers */
/* nas_space_levels_of - level[layer] of a point, as it fits. */
void nas_space_levels_of(const nas_space *space, const nas_point *point, int32_t *level);
/* nas_space_levels_asked - level[layer] as the genes name it. */
void nas_space_levels_asked(const nas_space *space, const nas_point *point, int32_t *level);
/* nas_space_levels_kept - kept[group]. */
void nas_space_levels_kept(const nas_space *space, const nas_point *point, int32_t *kept);
/* nas_space_levels_width - channels that a layer reads and writes in a point; of spaces with groups. */
void nas_space_levels_width(const nas_space *space, const nas_point *point, int32_t layer,
                            int32_t *in, int32_t *out);
/* nas_space_levels_bits - bits[value]. */
void nas_space_levels_bits(const nas_space *space, const nas_point *point, int32_t *bits);
/* nas_space_levels_point - the point that has level[layer], all channels, and every value's bits at a share (0..1) of their choices;
 * it may exceed a limit (nas_space_check tells). */
void nas_space_levels_point(const nas_space *space, const int32_t *level, double values,
                            nas_point *out);
/* nas_space_levels_cost - with what is fixed. */
double nas_space_levels_cost(const nas_space *space, const nas_point *point, nas_level_cost kind);
/* nas_space_levels_share - every gene of groups at one share (0..1) of its choices, all others at another; it may exceed a
 * limit. */
void nas_space_levels_share(const nas_space *space, double channels, double others, nas_point *out);
/* nas_space_levels_grow - one choice more for each gene in turn, until none fits within the limits. */
void nas_space_levels_grow(const nas_space *space, nas_point *point);

#endif
