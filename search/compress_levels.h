/* compress_levels.h - studies that choose what becomes of each layer: bits, a pattern and its rate, or both.
 *
 * Layers keep their shapes, and what a layer becomes does not depend on the others as long as its patches are those of the dense
 * network. So every (layer, level) is compressed once, when it is first asked for, and kept: a candidate is put together from
 * them. Networks of the final front are compressed in turn. Shared inside search/ only. */
#ifndef NAS_SEARCH_COMPRESS_LEVELS_H
#define NAS_SEARCH_COMPRESS_LEVELS_H

#include "search/compress_choices.h"
#include "search/compress_internal.h"
#include "search/oneshot.h"
#include "search/sparse_pairs.h"
#include "spaces/levels.h"

enum {
    NAS__LEVEL_SAMPLE = 64, /* images that grids of a candidate are fitted to; finalists: all */
    NAS__LEVEL_TEXT_MAX = 40,
    NAS__LEVELS_MAX = 2048 /* of one layer */
};

/* ---- what a layer may become ---------------------------------------------------------------------------------------- */

typedef struct nas__level {
    nas_layer_scheme scheme;
    char text
        [NAS__LEVEL_TEXT_MAX]; /* "4", "1x4@0.5", "1x4@0.5/4"; floats are 32, no pattern is dense */
    uint64_t kept;             /* weights that stay */
    double costs
        [NAS_LEVEL_COSTS]; /* bit operations of a layer that reads a value: for each bit of it */
    double gain; /* measured time of the dense layer over that of the form; NAN: not measured */
} nas__level;

/* Levels rise: form by form (fewest weights first), in each the bits. */
typedef struct nas__level_layer {
    nas_value conv;
    uint64_t weights;
    bool is_edge; /* nothing but convolutions of its kind lies before or behind it */
    size_t first; /* of its levels */
    int32_t n_forms, n_bits;
    int32_t reads; /* 1 + the value of nas__level_list that it reads; 0: its input has input_bits */
    int32_t input_bits; /* 32: floats */
} nas__level_layer;

typedef struct nas__level_list {
    nas__level_layer *layers; /* convolutions in one group, in order */
    size_t n_layers;
    nas__level *levels; /* of all layers, one layer after another */
    size_t n_levels, cap_levels;
    nas_levels_value
        acts;          /* what a value may have; n_bits 0 or 1: there are no values to choose for */
    nas_value *values; /* [n_values] leaders of grids (oneshot_codes.h) that convolutions read */
    size_t n_values;
    nas_levels_use *uses; /* [n_uses] grouped convolutions that read them, and what users[] has */
    nas_value *users;
    size_t n_uses;
    int32_t *grouped_bits; /* [nodes] of what a grouped convolution reads; 0: a value, see uses */
    double fixed[NAS_LEVEL_COSTS];    /* of everything else */
    double original[NAS_LEVEL_COSTS]; /* of the network as it came */
    nas_buf dropped;                  /* a line for each (layer, pattern, rate) that is not tried */
    size_t asked, unmeasured; /* (layer, pattern, rate) and how many of them nobody has measured */
} nas__level_list;

/* nas__level_list_make - for a graph with weights. judge: NULL, or what the device gains. Errors: UNSUPPORTED (nothing to
 * compress), INVALID (lists of the config), DB, NOMEM. */
nas_status nas__level_list_make(nas_ctx *ctx, const nas_config *config, const nas_graph *graph,
                                const nas__sparse_judge *judge, nas__level_list *out);
/* nas__level_list_rest - costs of what is no layer of the list in `graph`: that of the list, or the same with fewer channels. */
nas_status nas__level_list_rest(nas_ctx *ctx, const nas__level_list *list, const nas_graph *graph,
                                double rest[NAS_LEVEL_COSTS]);
void nas__level_list_deinit(nas__level_list *list);

/* ---- the state of such a study ---------------------------------------------------------------------------------------- */

/* A layer at a level: its weights, then its bias, then the steps of its grids. */
typedef struct nas__cell {
    float *data; /* NULL: not in memory */
    bool is_known, is_scaled, is_filed;
    nas_layer_result result;
    uint64_t used; /* when: the least goes to a file first */
} nas__cell;

typedef struct nas__levels {
    nas__level_list list;
    double limit[NAS_LEVEL_COSTS]; /* 0 = none */
    nas_oneshot view;              /* borrows model and data of the study */
    nas__cell *cells;              /* [n_levels] */
    size_t bytes;                  /* of cells in memory */
    uint64_t clock;
    nas_graph *work; /* the model; a layer of it is compressed, taken and put back */
    nas_layer_result
        *results; /* [n_layers] of the network that was compressed last for the final front */
    struct nas__joint *joint; /* where channels vary: what compress_joint.h keeps; else NULL */
} nas__levels;

/* ---- compress_levels.c ---- */
/* nas__levels_open - levels, moments, the space; of a study whose model and data are open. */
nas_status nas__levels_open(nas__comp *c);
void nas__levels_close(nas__comp *c);
/* nas__levels_judge - the table of gains that the config names; *judge without a database: none. The caller closes judge->db
 * unless it is the study's. */
nas_status nas__levels_judge(nas_ctx *ctx, const nas_config *config, nas_db *own,
                             const char *own_fingerprint, char fingerprint[NAS_SHA256_HEX],
                             nas__sparse_judge *judge);
/* nas__levels_values - MACs, parameters, bytes and bit operations of the trial's point into its values. */
void nas__levels_values(const nas__comp *c, nas__comp_trial *trial);
/* nas__levels_schemes - schemes[layer] of a point. */
nas_status nas__levels_schemes(const nas__comp *c, const nas_point *point,
                               nas_layer_scheme *schemes);
const nas__level *nas__levels_at(const nas__comp *c, size_t layer, int32_t level);

/* nas__levels_code - with bits of activations, *graph, that of a point, becomes a network of integers, activations included, with
 * grids from `images` calibration images at most; without, nothing happens. */
nas_status nas__levels_code(nas__comp *c, size_t images, const nas_point *point, nas_graph **graph);

/* ---- compress_cells.c ---- */
/* Parts of a convolution: what compression changes. In one piece: weights, bias, steps of grids. */
typedef struct nas__layer_parts {
    const nas_param *weight;
    size_t weights, biases, scales;
} nas__layer_parts;
nas__layer_parts nas__cell_parts(const nas_graph *g, nas_value v, bool scaled);
size_t nas__cell_floats(const nas__layer_parts *p);
void nas__cell_take(const nas__layer_parts *p, const nas_graph *g, nas_value v, float *data);
void nas__cell_put(const nas__layer_parts *p, const float *data, nas_graph *g,
                   nas_value v); /* all but the steps */
/* nas__cells_put - layer `layer` of `graph`, a copy of the model, at a level: compressed now unless it is known. */
nas_status nas__cells_put(nas_ctx *ctx, nas__comp *c, size_t layer, int32_t level,
                          nas_graph *graph);
/* nas__cells_restore - layer `layer` of `graph` as it is in the model. */
void nas__cells_restore(const nas__comp *c, size_t layer, nas_graph *graph);
void nas__cells_free(nas__levels *l);

/* ---- compress_mapper.c ---- */
/* nas__levels_seed - first proposals to the strategy. */
nas_status nas__levels_seed(nas__comp *c);
/* nas__levels_propose - one of them, unless it is beyond a limit, or *seeds have been made and there is no room; `what` for the log. */
nas_status nas__levels_propose(nas__comp *c, const nas_point *p, const char *what, int32_t *seeds);

/* ---- compress_levels_final.c ---- */
/* nas__levels_final - the network of a finalist. */
nas_status nas__levels_final(nas__comp *c, size_t index, nas_graph **out);
/* nas__levels_keep - writes tuned/<index>/: model.onnx and recipe.json of a finalist that was scored and timed. */
nas_status nas__levels_keep(nas__comp *c, size_t index, const nas_graph *graph);
/* nas__levels_deliver - <study.dir>/<folder>/: what was kept, the C bundle and layers.csv. */
nas_status nas__levels_deliver(nas__comp *c, size_t index, const char *folder);
/* nas__levels_plan - prints layers and what they may become. */
nas_status nas__levels_plan(nas_ctx *ctx, const nas_config *config, const nas_graph *graph);

#endif
