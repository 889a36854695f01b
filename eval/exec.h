/* exec.h - running a graph over many images: accuracy, statistics of layers, training. Part of eval/eval.h.
 *
 * Unlike nas_forward (one large image, few channels) the executor works on batches of small images: the graph has
 * batch 1 and is applied to each image alone. Threads take chunks of images; the result of an image does not depend on
 * its chunk, on the number of threads or on the other images. */
#ifndef NAS_EVAL_EXEC_H
#define NAS_EVAL_EXEC_H

#include "ir/graph.h"

typedef struct nas_exec nas_exec;

typedef struct nas_exec_options {
    int32_t chunk;   /* images that go through the network together, 1..256 */
    int32_t threads; /* 1..64 */
    bool
        bf16; /* nas_exec_new alone: values and weights of ungrouped convolutions rounded to bf16, products summed
                      * in fp32, as tile registers do it */
} nas_exec_options;
nas_exec_options nas_exec_options_default(void); /* 8 images, 2 threads, no bf16 */
/* nas_exec_has_bf16 - whether this build, processor and system can do that (AMX-BF16). */
bool nas_exec_has_bf16(void);

/* nas_exec_new - borrows `graph`, which must have weights, one input and batch 1, and outlive the executor.
 * UNSUPPORTED names a node whose operator it cannot run, or says that bf16 is not to be had; RANGE: a chunk of values above
 * 2^31 floats. With bf16 an image's answers are still independent of chunk, threads and other images while all values are
 * finite. */
nas_status nas_exec_new(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                        nas_exec **out);
void nas_exec_free(nas_exec *exec);
/* nas_exec_update - takes over weights of the graph that were changed since. */
void nas_exec_update(nas_exec *exec);

/* nas_exec_read_fn - writes image `index` as the network reads it: [h][w][c] floats. Called by several threads. */
typedef void (*nas_exec_read_fn)(void *arg, size_t index, float *hwc);

/* nas_exec_run - out [n][h*w*c of the network's output]. Polls cancel. */
nas_status nas_exec_run(nas_ctx *ctx, nas_exec *exec, size_t n, nas_exec_read_fn read, void *arg,
                        float *out);

/* ---- one layer exchanged -------------------------------------------------------------------------------------------- */

/* One convolution with the weights and bias that it has in graphs[graph]. */
typedef struct nas_exec_variant {
    nas_value conv;
    size_t graph;
} nas_exec_variant;
/* nas_exec_answer_fn - what the network with variant `variant` answers to image `image`: hwc as in nas_exec_run, valid during the
 * call. Called by several threads, never twice for one pair. */
typedef void (*nas_exec_answer_fn)(void *arg, size_t variant, size_t image, const float *hwc);

/* nas_exec_run_variants - for each variant what nas_exec_run gives of `graph` with that one convolution exchanged, bit for bit.
 * What comes before a convolution is computed once for all of its variants and those of later ones: about half of the work.
 * variants: conv never falls; graphs have the nodes of `graph`. Keeps all values of a chunk, and the weights of each graph.
 * Errors: INVALID (order, no convolution, other nodes), those of nas_exec_new. Polls cancel. */
nas_status nas_exec_run_variants(nas_ctx *ctx, const nas_graph *graph,
                                 const nas_graph *const *graphs, size_t n_graphs,
                                 const nas_exec_options *options, const nas_exec_variant *variants,
                                 size_t n_variants, size_t n, nas_exec_read_fn read, void *arg,
                                 nas_exec_answer_fn answer, void *answer_arg);

/* ---- what least-squares repair needs ------------------------------------------------------------------------------ */

/* Second moments of what a convolution reads, over sampled output positions: with a row x = (patch [kh][kw][c_in], 1),
 * gram [size][size] = sum of x x^T, size = kh*kw*c_in + 1. Symmetric; both halves are filled. */
typedef struct nas_exec_gram {
    nas_value conv;
    int32_t size;
    size_t rows;  /* samples summed */
    double *gram; /* owned */
} nas_exec_gram;

/* nas_exec_grams - for n_convs CONV nodes with groups 1: `positions` (>= 1) places of each of n images, drawn by `seed` for
 * each image and layer. UNSUPPORTED for a grouped convolution. The sums do not depend on the number of threads. */
nas_status nas_exec_grams(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                          const nas_value *convs, size_t n_convs, size_t n, int32_t positions,
                          uint64_t seed, nas_exec_read_fn read, void *arg, nas_exec_gram *out);
void nas_exec_gram_deinit(nas_exec_gram *gram);

/* What a convolution reads in one network and should answer as in another one, over sampled output positions: with a row x =
 * (patch, 1) of the first and targets t [outputs] of the second, sums of x x^T, x t^T and t^2. */
typedef struct nas_exec_pair {
    nas_value conv;
    int32_t size, outputs;
    size_t rows;    /* samples summed */
    double *gram;   /* [size][size]; owned, as the following */
    double *cross;  /* [size][outputs] */
    double *square; /* [outputs] */
} nas_exec_pair;

/* nas_exec_pair_moments - of one CONV with groups 1. `dense` has the same nodes as `graph` and other weights; targets are its
 * outputs. other: NAS_VALUE_NONE, or an earlier value that is added to the convolution's output: then targets also make up for
 * what `graph` has wrong there. Places are those of nas_exec_grams; memory is bounded. Sums do not depend on the threads.
 * Errors: INVALID, UNSUPPORTED (a grouped convolution), SHAPE (`other` has other extents or comes later). */
nas_status nas_exec_pair_moments(nas_ctx *ctx, const nas_graph *graph, const nas_graph *dense,
                                 const nas_exec_options *options, nas_value conv, nas_value other,
                                 size_t n, int32_t positions, uint64_t seed, nas_exec_read_fn read,
                                 void *arg, nas_exec_pair *out);
void nas_exec_pair_deinit(nas_exec_pair *pair);

/* ---- what layers give ----------------------------------------------------------------------------------------------- */

/* One channel of the output, before any activation, of a convolution with a bias or of a BATCH_NORM. */
typedef struct nas_exec_channel {
    double mean, deviation; /* over images and pixels */
} nas_exec_channel;

/* nas_exec_is_matched - a node that has them; nas_exec_channel_count - channels of all such nodes of a graph, in their order
 * one after another as the functions below have them. */
bool nas_exec_is_matched(const nas_graph *graph, nas_value v);
size_t nas_exec_channel_count(const nas_graph *graph);
/* nas_exec_statistics - out [nas_exec_channel_count] over n images, 1..2048, all in memory at once (RANGE). */
nas_status nas_exec_statistics(nas_ctx *ctx, const nas_graph *graph,
                               const nas_exec_options *options, size_t n, nas_exec_read_fn read,
                               void *arg, nas_exec_channel *out);
/* nas_exec_match - scales and shifts every channel, in weights and biases, so that over these images it has the wanted mean and
 * deviation: layer after layer, each with what the corrected ones before it give. A channel without any deviation, before or
 * wanted, is shifted alone. Grids of weights (scales) move with them. */
nas_status nas_exec_match(nas_ctx *ctx, nas_graph *graph, const nas_exec_options *options, size_t n,
                          nas_exec_read_fn read, void *arg, const nas_exec_channel *want);

/* nas_exec_recalibrate - mean and variance of every BATCH_NORM of the graph (with weights) set to those of its input over n
 * images, layer after layer, so that a layer sees inputs that were normalised anew. */
nas_status nas_exec_recalibrate(nas_ctx *ctx, nas_graph *graph, const nas_exec_options *options,
                                size_t n, nas_exec_read_fn read, void *arg);

/* nas_exec_average_norms - likewise as in training with statistics of chunks: the n images pass in chunks of options->chunk,
 * each normalised by its own, and means and variances become the averages of theirs. One walk. */
nas_status nas_exec_average_norms(nas_ctx *ctx, nas_graph *graph, const nas_exec_options *options,
                                  size_t n, nas_exec_read_fn read, void *arg);

#endif
