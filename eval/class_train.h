/* class_train.h - training and fine-tuning of classifiers, with or without a teacher. Part of eval/eval.h.
 *
 * SGD with momentum, or Adam, on cross-entropy, (1 - distill)*CE(labels) + distill*T^2*KL(teacher || student) at temperature T (Hinton
 * et al., arXiv:1503.02531). Statistics of normalisations stay as they are unless `normalise` is set. Deterministic for (options, data, graph): results
 * do not depend on the number of threads. */
#ifndef NAS_EVAL_CLASS_TRAIN_H
#define NAS_EVAL_CLASS_TRAIN_H

#include "eval/class_data.h"
#include "ir/graph.h"

/* A value of the network that is to come near one of the teacher's, of the same height and width: its channel c the teacher's
 * channel of[c]. */
typedef struct nas_tune_hint {
    nas_value value, teacher;
    const int32_t *of; /* [channels of value] */
} nas_tune_hint;

typedef struct nas_tune_options {
    int32_t batch; /* images a step, a multiple of 8 */
    int32_t steps;
    double learning_rate; /* at the start; falls to 0 by a cosine after `warmup` steps of rise */
    int32_t warmup;
    bool
        adam; /* steps by Adam (Kingma & Ba, arXiv:1412.6980) instead of SGD: for training from scratch */
    double momentum, weight_decay;
    double gradient_clip;        /* L2 norm of the mean gradient, 0 = off */
    double distill, temperature; /* 0..1; read when there is a teacher */
    const nas_tune_hint *hints;  /* read when there is a teacher: see nas_tune */
    size_t n_hints;
    double hint_weight;
    bool flip;     /* mirror images at random */
    int32_t shift; /* move them by up to so many pixels */
    bool epochs; /* every image once before any comes again; else each is drawn from all of them */
    double average; /* share of a running mean of the weights that stays at each step, below 1 and
                       at most (1 + step)/(10 + step): the network ends with the mean; 0 = with the
                       weights of the last step */
    bool normalise; /* train with normalisations behind the convolutions: see nas_tune */
    int32_t threads;
    uint64_t seed;
} nas_tune_options;
/* batch 64, 500 steps, rate 0.02, warm-up 20, momentum 0.9, decay 1e-4, clip 5, distill 0.5 at temperature 3, shift 2, images
 * drawn from all of them, no average */
nas_tune_options nas_tune_options_default(void);

/* nas_tune_progress - called after each step; a failure ends the training and is handed on. */
typedef nas_status (*nas_tune_progress)(nas_ctx *ctx, void *arg, int32_t step, double loss);

/* nas_tune - trains `graph` in place on TUNE images. teacher NULL or a graph with the same output. The output must be [1,1,1,
 * classes]; a SOFTMAX at the end is left out of the loss. With hints (Romero et al., arXiv:1412.6550) each image's loss also has
 * hint_weight/n_hints * sum over them of |x - t|^2/|t|^2, x the value and t the teacher's channels. UNSUPPORTED names a node without gradient; SHAPE: labels beyond
 * the output, a hint whose values differ in size; INTERNAL: the loss is not finite (the weights are those of the last step).
 * With `normalise` a copy with more BATCH_NORMs is trained (nas_norms_init, from 256 TUNE images), all of them with the mean and
 * variance of a chunk of up to 32 images of the batch, and gradients through both (Ioffe & Szegedy, arXiv:1502.03167); in the end
 * with the average statistics of 1024 TUNE images in such chunks, and folded into `graph`, which is as it was after any error.
 * More threads than chunks have nothing to do. */
nas_status nas_tune(nas_ctx *ctx, nas_graph *graph, const nas_graph *teacher,
                    const nas_class_data *data, const nas_tune_options *options,
                    nas_tune_progress progress, void *arg);

/* A value that is stored as codes: scale*(low..high), whole numbers with low <= 0 <= high. */
typedef struct nas_tune_code {
    nas_value value; /* the activation where one is computed with its producer */
    float scale;     /* trained, but that of the network's input */
    float low, high;
} nas_tune_code;

/* nas_tune_codes - the same for a network of integers: params with scales compute with their codes, values of `codes` are
 * rounded; both kinds of steps are learned as in LSQ (Esser et al., arXiv:1902.08153): with t = x/s
 *   value      s*round(clamp(t, low, high))
 *   d/dx       1 where low <= t <= high, else 0 (straight through)
 *   d/ds       round(t) - t inside, low or high outside; times 1/sqrt(number of x * high)
 * so that the upper end s*high of an activation is learned as in PACT. A step never shrinks by more than half at once. Afterwards
 * weights lie on their grids and scales of params and codes are new. keep_zeros [params]: weights that are 0 stay 0; NULL: all
 * of them may change. Floats of params without scales are trained, too. UNSUPPORTED: Adam, an average, `normalise`. */
nas_status nas_tune_codes(nas_ctx *ctx, nas_graph *graph, const nas_graph *teacher,
                          const nas_class_data *data, const nas_tune_options *options,
                          nas_tune_code *codes, size_t n_codes, const bool *keep_zeros,
                          nas_tune_progress progress, void *arg);

/* nas_lsq_gradient - for n weights x of one step: turns d[n], the gradient over the rounded ones, into that over x and returns
 * that over the step, as above. */
double nas_lsq_gradient(const float *x, float *d, size_t n, float scale, float low, float high);

/* nas_tune_gradient - loss and gradients of all params, one after another in the layout of the params, for the first n
 * TUNE images as they are: what tests compare with differences. `normalise`: BATCH_NORMs of the graph have statistics of chunks,
 * none are put in. */
nas_status nas_tune_gradient(nas_ctx *ctx, const nas_graph *graph, const nas_graph *teacher,
                             const nas_class_data *data, const nas_tune_options *options, int32_t n,
                             double *loss, float *gradient);

/* nas_tune_saliency - how much the loss would change, to first order, without a channel (Molchanov et al., arXiv:1611.06440): for
 * each channel c of each value, in order of the values, the mean over the first n TUNE images of |sum over pixels of
 * dCE/dx * x|. Values behind the scores get 0; a producer and the activation that is computed with it share their number.
 * out [sum of the channels of all values]. Errors: those of nas_tune; RANGE: n. */
nas_status nas_tune_saliency(nas_ctx *ctx, const nas_graph *graph, const nas_class_data *data,
                             size_t n, int32_t threads, double *out);

/* nas_class_init - He normal weights for training from scratch; the last convolution before an addition starts at 0.3 of
 * that (Zhang et al., arXiv:1901.09321 in spirit), the first one's filters sum to 0 over each channel, biases are 0. */
nas_status nas_class_init(nas_ctx *ctx, nas_graph *graph, nas_rng *rng);

#endif
