/* amc.h - the space "amc": how many channels of each group of a given network stay, under a budget of MACs that every point
 * meets (He et al., arXiv:1802.03494). Part of the module spaces/.
 *
 * Gene i is the choice for group i: kept channels are the multiples of `step` from min_ratio * channels on, and all of
 * them. MACs are a sum over layers of unit * inputs * outputs, where inputs and outputs are fixed channels plus those that
 * the groups keep: plain data, so that the space knows neither graph nor pruning. */
#ifndef NAS_SPACES_AMC_H
#define NAS_SPACES_AMC_H

#include "spaces/space.h"

/* Places of some features; those before the reduced MACs do not depend on what was decided. */
enum { NAS_AMC_REDUCED = 6, NAS_AMC_REST = 7, NAS_AMC_FEATURES = 10 };

typedef struct nas_amc_group {
    int32_t channels; /* >= 1 */
} nas_amc_group;

/* `times` channels of a value for each kept one of the group. */
typedef struct nas_amc_term {
    int32_t layer, group, times;
    bool is_input;
} nas_amc_term;

/* A convolution; depthwise: inputs do not count (in_fixed = 1 and no input terms). */
typedef struct nas_amc_layer {
    double unit; /* MACs of one input and one output channel: kernel * output pixels */
    int32_t in_fixed, out_fixed;
    int32_t kernel, stride, extent; /* features only: kernel and output height */
} nas_amc_layer;

/* nas_amc_decode_fn - the graph of kept[group] channels. */
typedef nas_status (*nas_amc_decode_fn)(nas_ctx *ctx, void *arg, const int32_t *kept,
                                        nas_graph **out);

typedef struct nas_amc_options {
    const nas_amc_group *groups; /* copied, as are layers and terms */
    int32_t n_groups;            /* 1..NAS_POINT_GENES_MAX */
    const nas_amc_layer *layers;
    int32_t n_layers;
    const nas_amc_term *terms;
    int32_t n_terms;
    int32_t step;     /* channels, >= 1: what the device's vectors like */
    double min_ratio; /* (0, 1] of a group's channels stay at least */
    double macs_max;  /* 0 = none */
    bool spend;       /* accuracy is all that counts: agents leave little of macs_max unspent */
    nas_amc_decode_fn decode;
    void *decode_arg; /* borrowed */
} nas_amc_options;

/* nas_space_amc_new - INVALID names the option, or says how many MACs the smallest network has when it misses the budget. */
nas_status nas_space_amc_new(nas_ctx *ctx, const nas_amc_options *options, nas_space **out);
/* Text form of a point: "amc 12,8,16": kept channels of each group, in order.
 * Spaces of this kind know their points' costs without a graph: */
int32_t nas_space_amc_kept(const nas_space *space, const nas_point *point, int32_t group);
double nas_space_amc_macs(const nas_space *space, const nas_point *point);
/* nas_space_amc_choice - action clipping: for gene `gene`, given those before it, the choice nearest below or at the preserve
 * ratio (0..1 of the channels) for which the budget can still be met when everything after is pruned to its limit. Genes
 * after `gene` of the point are not read. */
int32_t nas_space_amc_choice(const nas_space *space, const nas_point *point, int32_t gene,
                             double ratio);
/* nas_space_amc_features - the state of AMC for gene `gene`, each in 0..1: place, channels, kernel, stride and extent of the
 * first layer that writes the group, its share of MACs, MACs reduced so far, MACs of what is still undecided, last ratio,
 * groups left. */
void nas_space_amc_features(const nas_space *space, const nas_point *point, int32_t gene,
                            double out[NAS_AMC_FEATURES]);
bool nas_space_is_amc(const nas_space *space);

#endif
