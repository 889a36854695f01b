/* class_norms.h - normalisations for the time of a training: imported networks have theirs folded into convolutions, and a deep
 * network without any bears small steps only. Part of eval/eval.h. */
#ifndef NAS_EVAL_CLASS_NORMS_H
#define NAS_EVAL_CLASS_NORMS_H

#include "eval/exec.h"
#include "ir/graph.h"

typedef struct nas_norms {
    nas_graph *graph; /* owned: the network with its normalisations */
    nas_value *node;  /* [nodes of the network it was made of] the same node in graph */
    nas_value *norm;  /* likewise: the BATCH_NORM put behind it, NAS_VALUE_NONE elsewhere */
} nas_norms;

/* nas_norms_init - a copy with a BATCH_NORM behind every convolution that has a bias, which it takes over, and more than one
 * pixel, unless a BATCH_NORM alone reads it anyway. Filters are divided by the deviation of what they give over n images
 * (1..2048), scale, bias and statistics are chosen so that the copy computes what `graph` does; deviations of nothing but rounding
 * stay. Convolutions without a bias are left as they are. UNSUPPORTED: no BATCH_NORM in the copy; weights on grids. */
nas_status nas_norms_init(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                          size_t n, nas_exec_read_fn read, void *arg, nas_norms *out);
/* nas_norms_fold - all weights of the copy back into the network it was made of: normalisations that were put in become part
 * of weights and biases, others keep their statistics. */
void nas_norms_fold(const nas_norms *norms, nas_graph *graph);
void nas_norms_deinit(nas_norms *norms);

#endif
