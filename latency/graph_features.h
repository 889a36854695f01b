/* graph_features.h - one network as a row of numbers for the models of model.h: amounts of work by kind of layer, what
 * the longest path holds, logarithms of the totals. The same code for candidates of a search, architectures of published
 * benchmarks and imported models. Layer 3: includes core, ir. */
#ifndef NAS_LATENCY_GRAPH_FEATURES_H
#define NAS_LATENCY_GRAPH_FEATURES_H

#include "latency/model.h"

/* nas_graph_features_list - the features, always the same: *n of them, static. For each kind of layer K (conv1x1, conv3x3,
 * conv5x5, conv7x7, conv_other, conv_group, depthwise3, depthwise5, depthwise7, conv_transpose, matmul; pool, norm,
 * activation, add, mul, move):
 *   layers.K         how many
 *   macs.K [1e6], padded.K [1e6]   the first eleven; padded: rows to whole vectors, output channels to multiples of 4
 *   elements.K [1e3] outputs
 * and of the network:
 *   bytes.activations [1e6] read and written, bytes.weights [1e6], bytes.peak [1e6]
 *   path.layers, path.convs, path.macs [1e6]   most on any path from an input to the output
 *   macs.levelN [1e6], layers.levelN   N = 0..5: where the image is 2^N times smaller than the input (5: or smaller)
 *   shared.reads     layers that read a value which another layer reads as well
 *   log.macs, log.padded, log.bytes, log.layers, log.path   natural logarithms of 1 + amount
 *   share.pointwise, share.depthwise   of the MACs */
const nas_feature *nas_graph_features_list(size_t *n);

/* nas_graph_features_of - x: [n]. lanes: fp32 lanes of the device's vectors, 1..64; 8 where it is not known.
 * Errors: INVALID (lanes), RANGE, NOMEM. */
nas_status nas_graph_features_of(nas_ctx *ctx, const nas_graph *graph, int32_t lanes, double *x);

#endif
