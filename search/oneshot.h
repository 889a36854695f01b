/* oneshot.h - compressing a trained classifier without training it again: the state behind nas-compress and its benchmark.
 *
 * Splits: TUNE images calibrate (second moments; a seeded sample), REWARD images weigh layers and choose, REPORT images are for the
 * figures that are printed. Layers are the convolutions (fully connected ones are 1x1) in one group; grouped ones and the other
 * operators stay. Layers are compressed against their inputs in the dense network, so that they are independent (levels of a
 * budget), or in turn against what the compressed ones before them give. */
#ifndef NAS_SEARCH_ONESHOT_H
#define NAS_SEARCH_ONESHOT_H

#include "compress/layer.h"
#include "eval/eval.h"

typedef struct nas_oneshot_options {
    const char *onnx; /* NULL: the built-in network, trained on the built-in digits first */
    nas_class_data_options data; /* h, w, c are those of the network */
    int32_t side;                /* of the built-in network's images */
    int32_t train_steps;         /* of the built-in network */
    double train_rate;
    int32_t calibration_images, positions; /* sampled images, and places of each */
    int32_t threads;
    uint64_t seed;
} nas_oneshot_options;
/* built-in network, 24 pixels, 450 steps at 0.002; 512 images x 64 places, 2 threads, seed 1 */
nas_oneshot_options nas_oneshot_options_default(void);

/* nas_oneshot_note - what is being done, how much of it; may be NULL. */
typedef void (*nas_oneshot_note)(void *arg, const char *phase, double done, double planned);

typedef struct nas_oneshot {
    nas_oneshot_options options;
    nas_oneshot_note note;
    void *note_arg;
    nas_graph *model; /* dense, with weights */
    nas_class_data *data;
    nas_value *layers; /* convolutions in one group, in order */
    size_t n_layers;
    uint32_t *sample; /* [n_sample] TUNE images that calibrate */
    size_t n_sample;
    uint64_t sample_seed;
    const struct nas_oneshot_times *times; /* borrowed; NULL unless a budget of time is asked for */
    const int32_t *
        input_bits; /* [n_layers] borrowed: of what a layer with integer weights reads; NULL: floats */
    nas_exec_gram *grams; /* of the layers, once calibrated */
    nas_moments *moments;
} nas_oneshot;

/* nas_oneshot_open - network and data. Errors: those of nas_onnx_import and nas_class_data_open; SHAPE: no classifier of the
 * data's classes; UNSUPPORTED: no layer that could be compressed. */
nas_status nas_oneshot_open(nas_ctx *ctx, const nas_oneshot_options *options, nas_oneshot_note note,
                            void *note_arg, nas_oneshot *out);
void nas_oneshot_close(nas_oneshot *o);
/* nas_oneshot_calibrate - moments from a sample of the TUNE images drawn by `seed`; may be repeated. */
nas_status nas_oneshot_calibrate(nas_ctx *ctx, nas_oneshot *o, uint64_t seed);
/* nas_oneshot_apply - a copy of the model with schemes[i] for layer i; results [n_layers] or NULL. */
nas_status nas_oneshot_apply(nas_ctx *ctx, nas_oneshot *o, const nas_layer_scheme *schemes,
                             const nas_layer_options *options, nas_layer_result *results,
                             nas_graph **out);
/* nas_oneshot_apply_sequential - the same, but every layer is compressed against what the compressed layers before it give it,
 * with the dense network's outputs as targets; where its output is added to an earlier value, it also makes up for what is
 * wrong with that one. Layers with nothing to do stay as they are. Needs nas_oneshot_calibrate. */
nas_status nas_oneshot_apply_sequential(nas_ctx *ctx, nas_oneshot *o,
                                        const nas_layer_scheme *schemes,
                                        const nas_layer_options *options, nas_layer_result *results,
                                        nas_graph **out);
/* nas__oneshot_summed_with - the value that is added to the outputs of a convolution before anything else reads them, if it is
 * there earlier: the convolution can make up for what is wrong with it. Else NAS_VALUE_NONE. */
nas_value nas__oneshot_summed_with(const nas_graph *graph, nas_value conv);
/* nas__oneshot_read_sample - calibration image `index` as an nas_exec_read_fn; arg is the nas_oneshot. */
void nas__oneshot_read_sample(void *arg, size_t index, float *hwc);

/* nas__oneshot_is_coded - whether values have quantizations, so that integers compute it. */
bool nas__oneshot_is_coded(const nas_graph *graph);
/* nas__oneshot_run - answers [n][outputs] of images of a split; of a network with quantizations as integers compute
 * them, whatever options->bf16 says. */
nas_status nas__oneshot_run(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                            size_t n, nas_class_reader *reader, float *scores);

/* Scores of one network on one split. */
typedef struct nas_oneshot_score {
    double top1;          /* share of right answers */
    double cross_entropy; /* mean, nats */
    size_t images;
} nas_oneshot_score;
/* nas_oneshot_evaluate - of a network with quantizations: as integers compute it (nas_codes_run). */
nas_status nas_oneshot_evaluate(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                nas_class_split split, nas_oneshot_score *out);

/* What a network answers, mostly the dense one: the log of each class's share, for the first images of one split. */
typedef struct nas_oneshot_reference {
    double *logs; /* [images][classes] */
    size_t images;
    int32_t classes;
    nas_class_split split;
} nas_oneshot_reference;
/* nas_oneshot_reference_take - of at most `most` images; graph: o->model, or what was made of it. */
nas_status nas_oneshot_reference_take(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                      nas_class_split split, size_t most,
                                      nas_oneshot_reference *out);
void nas_oneshot_reference_deinit(nas_oneshot_reference *reference);
/* nas_oneshot_divergence - mean over the images of KL(dense network || graph), nats. Labels are not looked at, and where weights
 * move by small independent errors it grows with the sum of their squares: it adds up over layers where a cross-entropy, which
 * errors may lower too, does not. */
nas_status nas_oneshot_divergence(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                  const nas_oneshot_reference *reference, double *out);

/* nas__oneshot_diverge - the same of one image: logs [classes] of the dense network, scores [classes] of the other one. */
double nas__oneshot_diverge(const double *logs, const float *scores, int32_t classes,
                            bool is_softmax);

/* nas_oneshot_pattern - the sparsity that a text names: "2:4" (of 4 inputs 2 stay; "2:4x8": the same in 8 outputs), "1x4",
 * "1x4r" (filters rearranged), "block4x4", "punched8x4" (outputs x inputs), "filter", "channel", "pattern", "periodic",
 * "unstructured". INVALID names what is known. */
nas_status nas_oneshot_pattern(nas_ctx *ctx, const char *text, nas_sparsity *out);
/* nas_oneshot_pattern_has_rate - false for N:M and periodic, whose numbers say how much stays. */
bool nas_oneshot_pattern_has_rate(nas_sparsity_pattern pattern);

/* nas_oneshot_write - dir/model.onnx (floats, rounded to their grids), dir/recipe.json (what nas-compile needs to keep the
 * patterns and integers, those of activations included), dir/layers.csv, and dir/model_qdq.onnx (nas_onnx_export_quantized)
 * where something is an integer and no layer's grid is uneven. schemes, results [n_layers]; facts: a JSON object of what else is
 * known, or NULL. */
nas_status nas_oneshot_write(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                             const nas_layer_scheme *schemes, const nas_layer_result *results,
                             const char *facts, const char *dir);

/* nas_oneshot_uneven - the first layer whose weights lie on a grid that is not symmetric with even steps; NULL: none. */
const char *nas_oneshot_uneven(const nas_oneshot *o, const nas_layer_scheme *schemes);

/* nas_oneshot_report - prints scores on the REPORT images beside the dense network's, bytes, zeros and solvers; facts: the
 * same as a JSON object. */
nas_status nas_oneshot_report(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                              const nas_layer_scheme *schemes, const nas_layer_result *results,
                              nas_buf *facts);

/* nas_oneshot_bytes - of all weights of the layers under their schemes (nas_layer_bytes); graph as applied. */
nas_status nas_oneshot_bytes(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                             const nas_layer_scheme *schemes, uint64_t *out);

#endif
