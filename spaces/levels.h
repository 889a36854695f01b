/* levels.h - the spaces of levels: what becomes of each layer of a given network, which keeps its shape. Part of the module
 * spaces/.
 *
 * A layer has forms (which weights are left out) and precisions (bits of those that stay): a gene for each of the two that has
 * more than one choice. Level = form*n_bits + bits. Costs of a level are plain data, so that the space knows neither graph nor
 * compression; those of a point are sums, and every point of the space keeps within the limits. Choices of a gene rise in
 * cost: the level 0 of all layers is the smallest network. */
#ifndef NAS_SPACES_LEVELS_H
#define NAS_SPACES_LEVELS_H

#include "spaces/space.h"

typedef enum nas_level_cost {
    NAS_LEVEL_BYTES,  /* of stored weights */
    NAS_LEVEL_MACS,   /* of weights that stay */
    NAS_LEVEL_BOPS,   /* MACs x bits of the weight x bits of the input */
    NAS_LEVEL_PARAMS, /* weights that stay */
    NAS_LEVEL_COSTS
} nas_level_cost;

typedef struct nas_level {
    const char *text; /* as points are written: no blank, no comma; unique in its layer */
    double costs[NAS_LEVEL_COSTS]; /* finite, >= 0 */
} nas_level;

typedef struct nas_levels_layer {
    int32_t n_forms, n_bits; /* >= 1 */
    const nas_level *levels; /* [n_forms][n_bits] */
} nas_levels_layer;

/* nas_levels_decode_fn - the graph with level[layer]. */
typedef nas_status (*nas_levels_decode_fn)(nas_ctx *ctx, void *arg, const int32_t *level,
                                           nas_graph **out);

enum { NAS_LEVELS_NAME_MAX = 15 };

typedef struct nas_levels_options {
    const char *name;               /* "bits": what the text of a point begins with */
    const nas_levels_layer *layers; /* copied, as are levels and texts */
    int32_t n_layers;
    double fixed[NAS_LEVEL_COSTS]; /* costs of what is no layer here */
    double limit[NAS_LEVEL_COSTS]; /* 0 = none */
    nas_levels_decode_fn decode;
    void *decode_arg; /* borrowed */
} nas_levels_options;

/* nas_space_levels_new - INVALID names the option; says so when nothing varies, when there are too many genes, and what the
 * smallest network costs when it exceeds a limit. */
nas_status nas_space_levels_new(nas_ctx *ctx, const nas_levels_options *options, nas_space **out);
/* Text form of a point: "bits 8,4,2": the text of every layer's level, in order. */
bool nas_space_is_levels(const nas_space *space);
int32_t nas_space_levels_count(const nas_space *space); /* layers */
/* nas_space_levels_of - level[layer] of a point. */
void nas_space_levels_of(const nas_space *space, const nas_point *point, int32_t *level);
/* nas_space_levels_point - the point that has level[layer]; it may exceed a limit (nas_space_check tells). */
void nas_space_levels_point(const nas_space *space, const int32_t *level, nas_point *out);
/* nas_space_levels_cost - with what is fixed. */
double nas_space_levels_cost(const nas_space *space, const nas_point *point, nas_level_cost kind);
/* nas_space_levels_share - every gene at the same share (0..1) of its choices; it may exceed a limit. */
void nas_space_levels_share(const nas_space *space, double share, nas_point *out);

#endif
