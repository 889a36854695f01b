/* compress.h - pruning as graph-to-graph rewrites: which channels hang together, which matter, networks with fewer.
 *
 * A channel of a value is produced by some node, passes through others (activations, sums, pools, depthwise
 * convolutions) and is read by convolutions. Channels that must stay or go together form a class: channel c of both
 * operands of an addition, of a depthwise convolution's input and output, ... Classes that pass through the same values
 * form a group, e.g. the inner channels of a residual block or the residual stream of a stage: what a search decides is how
 * many channels of each group stay. Channels of the network's input and output, and of operators that mix channels in a
 * fixed way (shuffles, reshapes, grouped convolutions), are fixed.
 * Layer 2: includes core and ir. */
#ifndef NAS_COMPRESS_COMPRESS_H
#define NAS_COMPRESS_COMPRESS_H

#include "ir/graph.h"

enum { NAS_GROUP_NAME_MAX = 63, NAS_CLASS_FIXED = -1 };

/* A group of classes. */
typedef struct nas_channel_group {
    char name[NAS_GROUP_NAME_MAX + 1]; /* of the first node that produces its channels */
    int32_t channels;                  /* classes */
    const int32_t *classes;            /* their numbers, ascending */
    nas_value first;                   /* that node */
    int32_t producers, readers;        /* convolutions that write and read its channels */
} nas_channel_group;

typedef struct nas_channels nas_channels;

/* nas_channels_find - the classes and groups of a graph, weights not needed. UNSUPPORTED: a quantized graph. */
nas_status nas_channels_find(nas_ctx *ctx, const nas_graph *graph, nas_channels **out);
void nas_channels_free(nas_channels *channels);
int32_t nas_channels_class_count(const nas_channels *channels);
int32_t nas_channels_group_count(const nas_channels *channels);
const nas_channel_group *nas_channels_group(const nas_channels *channels, int32_t index);
/* nas_channels_of - for each channel of a value the number of its class, or NAS_CLASS_FIXED. */
const int32_t *nas_channels_of(const nas_channels *channels, nas_value v);

/* nas_channels_group_of - the group of a class. */
int32_t nas_channels_group_of(const nas_channels *channels, int32_t number);

/* ---- second moments of what convolutions read ------------------------------------------------------------------- */

/* For x = (patch [kh][kw][c_in], 1) of a convolution: gram = sum of x x^T [size][size], size = kh*kw*c_in + 1. Plain data:
 * whoever runs networks fills it. */
typedef struct nas_moments {
    nas_value conv;
    int32_t size;
    const double *gram;
    /* When the layer is to answer not what its own weights would, but given targets t (read by nas_layer_compress and
     * nas_channels_repair): */
    const double *cross;  /* sum of x t^T [size][outputs]; NULL: its own outputs are the targets */
    const double *square; /* sum of t^2 [outputs] */
} nas_moments;

/* ---- importance --------------------------------------------------------------------------------------------------- */

typedef enum nas_importance {
    NAS_IMPORTANCE_L1, /* sum of |w| of the filters that write the channel, and of the weights that read it */
    NAS_IMPORTANCE_L2,         /* roots of sums of squares, the same way */
    NAS_IMPORTANCE_NORM_SCALE, /* |scale| of its BATCH_NORM (Liu et al., arXiv:1708.06519) */
    NAS_IMPORTANCE_RECONSTRUCTION, /* what its readers lose: energy of its share of their outputs, from moments */
    NAS_IMPORTANCE_TAYLOR, /* |gradient x value| of what its readers read: nas_channels_importance_taylor */
    NAS_IMPORTANCE_COUNT
} nas_importance;
const char *
nas_importance_name(nas_importance kind); /* "l1", "l2", "norm_scale", "reconstruction", "taylor" */

/* nas_channels_importance - scores[class], larger = more important; each layer's part is relative to the layer's mean, so
 * that scores of a group's members add up fairly. Moments are read by RECONSTRUCTION only (NOTFOUND when a convolution that
 * reads prunable channels has none). INVALID: no weights, or NORM_SCALE without any BATCH_NORM in a group, TAYLOR. */
nas_status nas_channels_importance(nas_ctx *ctx, const nas_channels *channels,
                                   const nas_graph *graph, nas_importance kind,
                                   const nas_moments *moments, size_t n_moments, double *scores);
/* nas_channels_importance_taylor - the same from a number (>= 0) for each channel of each value, in order of the values: every
 * value that convolutions read votes once. How whoever trains networks fills it: eval/class_train.h, nas_tune_saliency. */
nas_status nas_channels_importance_taylor(nas_ctx *ctx, const nas_channels *channels,
                                          const nas_graph *graph, const double *saliency,
                                          double *scores);
/* nas_channels_choose - keep[class]: of each group g the kept[g] classes of the highest scores; ties: the lower number.
 * RANGE names a group when kept is not within 1..channels. */
nas_status nas_channels_choose(nas_ctx *ctx, const nas_channels *channels, const double *scores,
                               const int32_t *kept, bool *keep);

/* ---- pruning ------------------------------------------------------------------------------------------------------ */

/* nas_channels_slice - the network without the classes that keep[] leaves out: every tensor and weight is really smaller.
 * Nodes keep their numbers and names. Equal to the network whose readers have zero weights for those channels. A graph
 * without weights gives one without. INVALID names a value that would lose all its channels. */
nas_status nas_channels_slice(nas_ctx *ctx, const nas_channels *channels, const nas_graph *graph,
                              const bool *keep, nas_graph **out);
/* nas_channels_mask - the same function at the old size: zeroes in `graph` what reads the channels left out. */
nas_status nas_channels_mask(nas_ctx *ctx, const nas_channels *channels, nas_graph *graph,
                             const bool *keep);
/* nas_channels_repair - least squares (He et al., arXiv:1707.06168; 1802.03494): the weights and bias of every convolution of
 * `sliced` that lost inputs are replaced by those that best reproduce, in the sense of its moments, the outputs it had in
 * `graph`: (G_SS + ridge * mean diagonal) V = G_S W; of moments with targets, also where nothing was lost, their products stand for
 * G_S W. Convolutions without moments stay. *repaired: how many were. */
nas_status nas_channels_repair(nas_ctx *ctx, const nas_channels *channels, const nas_graph *graph,
                               const bool *keep, const nas_moments *moments, size_t n_moments,
                               double ridge, nas_graph *sliced, int32_t *repaired);

#endif
