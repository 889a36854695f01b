/* compress_joint.h - studies that choose channels of groups together with what becomes of each layer that is left.
 *
 * A candidate is sliced out of the original and repaired; then each layer is compressed at its level, with the original's second
 * moments at the inputs that stay (a submatrix of those that were sampled); then means and deviations of all layers are brought
 * back, grids moving with their weights, so that this makes up for slicing and compression at once. What a layer becomes before
 * that last step follows from its level and from the channels that it reads and writes: such cells are kept, and found by
 * a hash of the layer's weights, its inputs and its level. Networks of the final front are sliced, fine-tuned and then
 * compressed in turn. Shared inside search/ only. */
#ifndef NAS_SEARCH_COMPRESS_JOINT_H
#define NAS_SEARCH_COMPRESS_JOINT_H

#include "search/compress_levels.h"

typedef struct nas__joint_cell {
    uint8_t key[NAS_SHA256_BYTES];
    float *data; /* nas__layer_parts in one piece */
    size_t bytes;
    uint64_t used; /* when: the least goes first */
} nas__joint_cell;

typedef struct nas__joint {
    nas__joint_cell *cells;
    size_t n_cells, cap_cells, bytes;
    uint64_t clock;
    size_t asked, compressed; /* layers that were asked for, and those that were not in memory */
} nas__joint;

/* ---- compress_joint.c ---- */
/* nas__joint_space - groups and the space over them and the layers; of a study whose levels are listed and calibrated. */
nas_status nas__joint_space(nas__comp *c);
/* nas__joint_seed - first proposals to the strategy. */
nas_status nas__joint_seed(nas__comp *c);

/* ---- compress_joint_cells.c ---- */
/* nas__joint_decode - nas_levels_options.decode; `arg` is the study. */
nas_status nas__joint_decode(nas_ctx *ctx, void *arg, const int32_t *kept, const int32_t *level,
                             nas_graph **out);
/* nas__joint_score_layer - share of REWARD images with kept[group] channels and one layer at a level. */
nas_status nas__joint_score_layer(nas__comp *c, const int32_t *kept, size_t layer, int32_t level,
                                  double *top1);
void nas__joint_free(nas__joint *joint);

/* ---- compress_joint_final.c ---- */
/* nas__joint_final - the network of a finalist, before activations become integers. */
nas_status nas__joint_final(nas__comp *c, size_t index, nas_graph **out);
/* nas__joint_tables - groups.csv and layers.csv of a delivered network. */
nas_status nas__joint_tables(nas__comp *c, size_t index, const nas_graph *graph,
                             const char *folder);

#endif
