/* exec_tiles.h - convolutions of the executor by tile registers: values and weights rounded to bf16, sums in fp32 (AMX-BF16).
 *
 * A tile of what is read has 16 pixels, each with 32 values that follow each other in memory: since a pixel's channels lie
 * beside those of its neighbour, a row of taps is one run of them. What a run has beyond its taps meets weights of 0. An
 * image is rounded whole, border included, with the layout that it has in floats. A pixel's sum runs over rows of taps,
 * then 32 values at a time, whatever tile it falls into. Internal to eval/. */
#ifndef NAS_EVAL_EXEC_TILES_H
#define NAS_EVAL_EXEC_TILES_H

#include "core/core.h"

enum {
    NAS__TILE_PIXELS = 16,
    NAS__TILE_DEPTH = 32,   /* values of a pixel in a tile */
    NAS__TILE_OUTPUTS = 16, /* of a block of weights */
    NAS__TILE_WEIGHTS = NAS__TILE_DEPTH * NAS__TILE_OUTPUTS
};

typedef uint16_t nas__bf16; /* the upper half of a float */

/* One convolution with groups 1. Weights: [block of outputs][run][step of 32 values][pair][output][2]. */
typedef struct nas__exec_tiles {
    int32_t n_runs, steps; /* of 32 values in each run */
    int32_t run_taps; /* taps of a run: those of a row of the kernel, or 1 where they are dilated */
    int32_t *runs;    /* [n_runs] from the first tap of a pixel, in values */
    int32_t n_tiles;  /* of an image */
    int32_t *
        in_at; /* [n_tiles] first tap of its first pixel, from the start of an image with its border */
    int32_t *out_at;    /* [n_tiles][16] from the first pixel of the output; -1: not wanted */
    int32_t pixel_step; /* values from pixel to pixel of a tile */
    int32_t blocks;     /* of outputs */
    int32_t strip;      /* images that are rounded at a time */
    size_t weights;     /* in exec->halves */
} nas__exec_tiles;

typedef struct nas__exec_tiles_job {
    const nas__exec_tiles *plan;
    const float *in;               /* first image, border included */
    float *out;                    /* first pixel of the first image */
    ptrdiff_t in_image, out_image; /* floats of an image, border included */
    int32_t images, outputs;       /* outputs: whole vectors */
    const nas__bf16 *weights;
    const float *bias; /* [outputs] */
    float lo, hi;
    nas__bf16 *strip; /* nas__exec_tiles_room values, on 64 bytes; what it holds is finite */
} nas__exec_tiles_job;

/* nas__exec_tiles_room - values of a strip of a plan that reads images of so many floats. */
static inline size_t nas__exec_tiles_room(const nas__exec_tiles *plan, ptrdiff_t in_image) {
    return (size_t)plan->strip * (size_t)in_image +
           (size_t)NAS__TILE_PIXELS * (size_t)plan->pixel_step + 2 * NAS__TILE_DEPTH;
}

/* nas__exec_tiles_built - the compiler had these instructions. */
extern const bool nas__exec_tiles_built;
/* nas__exec_tiles_run - only where nas_exec_has_bf16. */
void nas__exec_tiles_run(const nas__exec_tiles_job *job);

#endif
