/* layer_conv_winograd.h - what the files layer_conv_winograd*.c share: where the parts of a batch lie, and the text of the
 * transforms.
 *
 * Where at most half of the last vector of channels is used, two tiles share it. Of inputs: the transform of such a pair, tile
 * a in the low half of the lanes, b in the high one; V keeps its order, [point][tile][channel]. Of outputs: two channels of
 * the input are multiplied at once, lanes 2 k and 2 k + 1 hold the two sums of output k, and at the end of the product the
 * sums of two tiles are added into one vector, a low and b high, for M[point][pairs], which the output transform takes whole. */
#ifndef NAS_COMPILER_LAYER_CONV_WINOGRAD_H
#define NAS_COMPILER_LAYER_CONV_WINOGRAD_H

#include "compiler/layer_conv_internal.h"

typedef struct nas__wino {
    int32_t m, a, points; /* outputs and inputs of a tile along an axis, a * a */
    int32_t lanes, half;
    int32_t in_whole, in_pair;   /* channels in vectors of their own, in halves that tiles share */
    int32_t out_whole, out_pair; /* the same of outputs; out_pair > 0: a block behind the others */
    int32_t in_padded, out_padded;
    int32_t across, down, tiles;
    nas__conv_blocks blocks;     /* of out_whole; none when that is 0 */
    int32_t all_blocks;          /* with that of out_pair */
    int32_t unit_blocks, splits; /* blocks of outputs of a unit, units of a batch */
    int32_t unit_channels;       /* of M before the pairs */
    bool partial;                /* some tiles stick out of the output */
    bool streams;                /* weights come from beyond L2 */
    bool in_registers;           /* what lies between the two passes of a transform */
    bool far;                    /* outputs go past the caches, which they would fill */
    int32_t together;            /* vectors of outputs transformed at once: whole lines go far */
    bool pixels;                 /* the products ask for the pixels of the next batch */
    int32_t asked;               /* rows of them: the new ones, or all where none stays near */
    size_t in_plane, out_plane;  /* floats from point to point, off the powers of two */
    size_t pairs_at;             /* floats from the begin of a point of M to its pairs */
    size_t point_weights;        /* floats */
} nas__wino;

nas__wino nas__wino_of(const nas_target *target, const nas__conv *conv, const nas__conv_way *way);
/* nas__wino_steps - of the sum of an output whose tiles share vectors: pairs of inputs. */
int32_t nas__wino_steps(const nas__conv *conv);

/* The texts below come before the kernel's own: macros BT and AT, functions NAME_in.., NAME_out.. */
void nas__wino_emit_macros(const nas__wino *g, nas_buf *out);
void nas__wino_emit_macros_end(const nas__wino *g, nas_buf *out);
/* NAME_in0 of a whole vector, NAME_in1 of a partial one, NAME_in2 of a pair of tiles; those that are needed. */
void nas__wino_emit_input(const nas__wino *g, const char *name, nas_buf *out);
/* NAME_out0, NAME_out1, NAME_out2. */
void nas__wino_emit_output(const nas__conv *conv, const nas__wino *g, const char *name,
                           nas_buf *out);
/* nas__wino_emit_pairs - what kernels with pairs need, once in a text, however often. */
void nas__wino_emit_pairs(nas_buf *out);
/* nas__wino_emit_fill - NAME_fill: all tiles of a batch into V. */
void nas__wino_emit_fill(const nas__conv *conv, const nas__wino *g, const nas__conv_way *way,
                         const char *name, nas_buf *out);
/* nas__wino_emit_finish - the end of the kernel's loop: a batch of M to the output. */
void nas__wino_emit_finish(const nas__conv *conv, const nas__wino *g, const char *name,
                           nas_buf *out);

#endif
