/* layer_qconv_internal.h - what the files layer_qconv*.c share: geometry of the staged rows. */
#ifndef NAS_COMPILER_LAYER_QCONV_INTERNAL_H
#define NAS_COMPILER_LAYER_QCONV_INTERNAL_H

#include "compiler/layer_conv_internal.h"
#include "compiler/layers_q_internal.h"

/* Input rows of a band as the products want them: 16-bit (PAIR, PLAIN) or 8-bit elements, and only the columns that are
 * read. Where the taps of a kernel row lie side by side they are one run, and only its end is padded to a whole product, with
 * weights of 0: what is read there is the next pixel, or the slack at the end. Elsewhere the channels of each group are. */
typedef struct nas__q_stage {
    int32_t element; /* bytes */
    int32_t
        group; /* elements of one product: of one lane, times the sums that an output is split into */
    bool joined;          /* a kernel row is one run */
    int32_t channels;     /* of one group, padded where that is needed */
    int32_t steps;        /* products of a kernel row */
    int32_t pixel;        /* elements from pixel to pixel */
    int32_t columns;      /* of a row */
    int32_t row;          /* elements from row to row */
    int32_t step_h;       /* input rows from staged row to staged row */
    int32_t step_w;       /* input pixels from staged pixel to staged pixel */
    int32_t stride_h;     /* staged rows from output row to output row */
    int32_t stride_w;     /* staged pixels from output pixel to output pixel */
    int32_t rows_of_band; /* staged rows of a whole band */
} nas__q_stage;

/* Output channels of one group in blocks of `vectors`; the last block has last_vectors, its last vector last_lanes. */
typedef struct nas__q_blocks {
    int32_t lanes, vectors, count; /* count: blocks of one group */
    int32_t last_vectors, last_lanes;
    int32_t in_c, out_c; /* of one group */
} nas__q_blocks;

/* A way of the algorithm MATRIX. Output pixels are one list, row after row, so that tiles are full whatever the width of
 * the image. Their inputs are staged as rows of a matrix (im2col): all taps of a pixel one after the other, in the order of
 * the weights, then zeros up to whole groups. Sums of few channels, above all those of the first layer, so waste at most
 * one group in all; it costs a copy of each input for each of its taps. Neither sign needs a correction: there are products
 * of both. Tiles have `wide` pixels, then `wide - unit`; the very last one ends with the last pixel. Strips are tiles that
 * are staged together: as many as stay near, so that the weights are read once for all of them.
 *   MMLA   staged as [unit][steps][2 pixels][8], weights as [steps][pair of channels][2][8]
 *   AMX    staged as [pixel][depth], weights as [steps][vector][group/4][16 channels][4]: both are tiles as they lie. Where
 *          a run of channels makes whole steps, pixels are read where they are: the list goes on from row to row of the
 *          input, `row` pixels each, and what it has between the columns of the output is not stored. */
typedef struct nas__q_matrix {
    nas__dot dot;
    int32_t unit; /* pixels of one product */
    int32_t used, group, steps,
        depth;     /* bytes of a pixel; of one product; products; with padding */
    bool in_place; /* AMX: nothing is staged */
    bool asks;     /* AMX: weights of the next block are asked for ahead */
    int32_t row;   /* pixels of the list from one row of the output to the next */
    int32_t pixels, tiles, wide_tiles, wide;   /* of the list */
    int32_t strips, strip_tiles, strip_pixels; /* strip_pixels: of the longest, whole units */
    bool joined;                               /* taps of a kernel row are contiguous */
    int32_t run;                               /* contiguous bytes: a kernel row or a tap */
    bool copies; /* MMLA: pixels are gathered first, as runs are no whole groups */
    size_t residuals_at, copies_at, sums_at,
        staged_at;                         /* in the scratch; offsets of pixels first */
    size_t places_at, counts_at, lines_at; /* AMX: of the units */
    size_t scratch_bytes;
} nas__q_matrix;

/* Tiles [from, to) of `pixels` pixels. */
typedef struct nas__q_run {
    int32_t from, to, pixels;
} nas__q_run;
enum { NAS__Q_RUNS = 3 };

nas__q_matrix nas__q_matrix_of(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way);
nas__q_run nas__q_matrix_run(const nas__q_matrix *m, int32_t k); /* may be empty */
/* nas__q_matrix_step - bytes of weights of one step for `vectors` vectors. */
int32_t nas__q_matrix_step(const nas_target *target, const nas__q_matrix *m,
                           const nas__qconv_way *way, int32_t vectors);
/* nas__q_matrix_place - where the code of channel `o` of a block at depth `e` lies: byte from the first step, and `high`
 * for the upper nibble of 4-bit codes. */
size_t nas__q_matrix_place(const nas_target *target, const nas__q_matrix *m,
                           const nas__qconv_way *way, int32_t vectors, int32_t o, int32_t e,
                           bool *high);
/* nas__q_matrix_ways - appends the ways of the matrix unit, if there is one; returns the new count. */
int32_t nas__q_matrix_ways(const nas_target *target, const nas__qconv *q, int32_t n,
                           nas__qconv_way out[NAS__QCONV_WAYS_MAX]);
void nas__q_matrix_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                        const char *name, nas_buf *out);
/* nas__q_matrix_strips - deals m->tiles of `tile_bytes` of inputs out to strips. */
void nas__q_matrix_strips(const nas_target *target, const nas__conv *c, int32_t blocks,
                          int64_t tile_bytes, nas__q_matrix *m);
/* nas__q_emit_block_places - text: where outputs, residual and weights of block `block` of `group` are, as y, z and w. */
void nas__q_emit_block_places(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, nas_buf *out);
/* The same of tile registers, layer_qconv_amx.c. */
nas__q_matrix nas__q_amx_of(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way);
double nas__q_amx_cycles(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
void nas__q_amx_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                     const char *name, nas_buf *out);

nas__q_blocks nas__q_block(const nas_target *target, const nas__conv *conv, int32_t vectors);

/* nas__q_block_of - of a way; the lanes of DIRECT ones are outputs. */
nas__q_blocks nas__q_block_of(const nas_target *target, const nas__conv *conv,
                              const nas__qconv_way *way);

/* nas__dots_a_cycle - products of whole vectors that a core starts in one. */
int32_t nas__dots_a_cycle(const nas_target *target);

/* nas__q_dot - what multiplies in a way other than MATRIX. */
nas__dot nas__q_dot(const nas_target *target, const nas__qconv_way *way);

nas__q_stage nas__q_stage_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way, int32_t band_rows);
/* nas__q_unstaged - is the input as the products want it, so that they read it where it is? */
bool nas__q_unstaged(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
/* nas__q_by_blocks - do units go through all bands of a block before the next one, so that many weights are read once?
 * Rows of the output are then not in order. */
bool nas__q_by_blocks(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
double nas__q_finish_cycles(const nas_target *target, const nas__qconv *q);
int32_t nas__q_staged_rows(const nas__qconv *q, int32_t output_rows);
/* nas__q_step_bytes - stored weights of one product step for `vectors` vectors. */
int32_t nas__q_step_bytes(const nas_target *target, const nas__qconv_way *way, int32_t vectors);
/* nas__q_heads - whole vectors of outputs in `vectors` vectors of sums. */
int32_t nas__q_heads(const nas__qconv_way *way, int32_t vectors);
/* nas__q_block_bytes - bias, multipliers and weights of a block of `vectors` vectors, any but depthwise. */
size_t nas__q_block_bytes(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                          int32_t vectors);
/* nas__q_emit_multipliers - the multipliers of a block at `m`, as vectors m<v>. */
void nas__q_emit_multipliers(const nas_target *target, int32_t vectors, nas_buf *out);
/* nas__q_emit_head - first lines of a kernel: its head is `h`. */
void nas__q_emit_head(const nas__qconv *q, const char *name, nas_buf *out);
/* nas__q_unroll - product steps of one pass of a loop of `length` with `products` products a step. */
int32_t nas__q_unroll(int32_t length, int32_t products);
/* nas__q_emit_epilogue - requantizes accumulators `a<p>_<v>` of one pixel and stores them: text for one pixel;
 * out_at, residual_at: bytes from the tile's first pixel. */
void nas__q_emit_epilogue(const nas_target *target, const nas__qconv *q, int32_t pixel,
                          int32_t vectors, int32_t last, size_t out_at, size_t residual_at,
                          nas_buf *out);
void nas__qconv_direct_emit(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way, const char *name, nas_buf *out);
/* nas__q_emit_biases - sums a<p>_<v> that begin with the biases at `w`, the first of `arrays` arrays; `m` and `w` move on. */
void nas__q_emit_biases(const nas_target *target, int32_t pixels, int32_t vectors, int32_t arrays,
                        nas_buf *out);

/* nas__q_is_single - does the way scale sums in single precision? Heads hold factors then, no multipliers. Values in planes
 * apart, those of which are their own business. */
bool nas__q_is_single(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
/* nas__q_is_open - and have its results no bounds but those of their type? */
bool nas__q_is_open(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
/* nas__q_joins_words - and do words of codes and residuals, multiplied together, join them? q->dots says by how many. */
bool nas__q_joins_words(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
/* nas__q_factor - the bits of the float that scales the sums of a channel; q->single has been checked. */
uint32_t nas__q_factor(const nas__qconv *q, const nas__qconv_data *data, int32_t channel);

/* Channels dealt out over the vectors of sums, layer_qconv_deal.c; `vectors` are those of whole outputs. */
bool nas__q_deals_outputs(const nas_target *target, const nas__qconv_way *way);
/* nas__q_head_vectors - arrays at the begin of a block: of biases, multipliers ... */
int32_t nas__q_head_vectors(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way);
/* nas__q_slot - where a channel of a block lies: vector*lanes + lane. */
int32_t nas__q_slot(const nas_target *target, const nas__qconv_way *way, int32_t vectors,
                    int32_t channel);
/* nas__q_pack_head - one channel in arrays of array_bytes each. */
void nas__q_pack_head(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                      const nas__qconv_data *data, int32_t channel, int32_t bias, int32_t slot,
                      int32_t array_bytes, uint8_t *out);
/* nas__q_emit_dealt_constants - in front of the pixels of a tile. */
void nas__q_emit_dealt_constants(const nas_target *target, const nas__qconv *q,
                                 const nas__qconv_way *way, nas_buf *out);
/* nas__q_emit_dealt_epilogue - as nas__q_emit_epilogue; multipliers at `m`. */
void nas__q_emit_dealt_epilogue(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way, int32_t pixel, int32_t vectors,
                                int32_t channels, size_t out_at, size_t residual_at, nas_buf *out);
/* nas__q_dealt_pixels - how many pixels side by side become codes together, 64 in all: 4 of 16 channels, 2 of 32; 1: each by
 * itself. */
int32_t nas__q_dealt_pixels(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way, int32_t vectors, int32_t channels);
/* nas__q_emit_dealt_pixels - of sums a<pixel>_<v>; multipliers at `m`. */
void nas__q_emit_dealt_pixels(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, int32_t vectors, nas_buf *out);
void nas__q_emit_deal_prelude(const nas_target *target, nas_buf *out);

/* Depthwise, layer_qconv_depthwise.c; weights without the head. Ways in no order. */
int32_t nas__q_depthwise_ways(const nas_target *target, const nas__qconv *q,
                              nas__qconv_way out[NAS__QCONV_WAYS_MAX]);
double nas__q_depthwise_cycles(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way);
/* nas__q_deals - are the rows of a kernel interleaved? Otherwise there is one product for each tap. */
bool nas__q_deals(const nas__qconv_way *way);
size_t nas__q_depthwise_weights(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way);
/* nas__q_depthwise_pack - of a way that interleaves. */
void nas__q_depthwise_pack(const nas_target *target, const nas__qconv *q,
                           const nas__qconv_data *data, uint8_t *out);
void nas__qconv_depthwise_emit(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way, const char *name, nas_buf *out);

/* A way of the algorithm SPARSE_PANEL. Output pixels are one list as in MATRIX; the inputs of a tile of them are staged as
 * a panel [step of the sum][pixel]. An entry of a list is `inputs` steps, as many as one lane multiplies at once: any
 * steps, their rows of the panel are interleaved when they are multiplied, so that zeros need no neighbours.
 * The weight block: head; a word, where the weights begin; where each list begins, in entries; biases; multipliers; outputs
 * in the order of the groups; the steps of the entries; their weights, [entry][output of the group][inputs]. */
typedef struct nas__q_panel {
    nas__dot dot;
    int32_t inputs, element;        /* of an entry; bytes of an element of the panel */
    int32_t lanes, unit;            /* unit: pixels of the rows that make `inputs` vectors */
    int32_t row;                    /* pixels of a tile and of a row of the panel, whole units */
    int32_t steps, groups, outputs; /* outputs: whole vectors of them */
    int32_t pixels, tiles;
    int32_t scale; /* bytes that a step in a list counts in */
    bool small;    /* a step takes 16 bits, else 32 */
    size_t starts, heads, order, indices, weights, bytes; /* of the weight block, from its begin */
    size_t sums_at, spare_at, scratch_bytes;
} nas__q_panel;

nas__q_panel nas__q_panel_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way);
/* nas__q_panel_place - where in a row of the panel pixel `i` of a tile lies, so that interleaved rows are in order. */
int32_t nas__q_panel_place(const nas__q_panel *p, int32_t i);
/* nas__q_sparse_ways - appends the ways that leave zeros out, if any; returns the new count. */
int32_t nas__q_sparse_ways(const nas_target *target, const nas__qconv *q, int32_t n,
                           nas__qconv_way out[NAS__QCONV_WAYS_MAX]);
/* nas__q_sparse_pack - all of the block behind its head. INTERNAL: other zeros than when it was planned. `zero` is
 * what staging leaves to subtract. */
nas_status nas__q_sparse_pack(nas_ctx *ctx, const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const nas__qconv_data *data, int32_t zero,
                              uint8_t *block);
void nas__q_sparse_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                        const char *name, nas_buf *out);

/* Lists of a way of the algorithm SPARSE, layer_qconv_sparse_direct.c: places in the weight block. */
typedef struct nas__q_lists {
    bool small; /* an entry takes 16 bits, else 32 */
    size_t blocks_at, starts, indices, blocks, bytes;
} nas__q_lists;
nas__q_lists nas__q_lists_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way);
int32_t nas__q_list_entries(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way);
/* nas__q_list_dense - entries when nothing is left out. */
int32_t nas__q_list_dense(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
/* nas__q_list_pack - as nas__q_sparse_pack; false: other zeros than when it was planned. */
bool nas__q_list_pack(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                      const nas__qconv_data *data, int32_t zero, uint8_t *block);

/* layer_qconv_pixels.c: values in planes. One kernel row is `groups` planes times `columns` products, `apart` pixels from one
 * to the next. */
enum {
    NAS__Q_PIXEL_LANES = 16,
    NAS__Q_PIXEL_GROUP = 4, /* channels of a word */
    NAS__Q_PIXEL_HEAD =
        4, /* words of an output in front of the weights of a block: multiplier (2; `single`: 1, then with `late` the lower,
              upper bounds of four channels beside the first two), bias, slope below 0 */
    NAS__Q_PIXEL_ROWS = 16 /* rows of outputs whose inputs are staged together */
};
typedef struct nas__q_steps {
    bool staged;
    int32_t groups, columns, apart;
    size_t plane, row; /* bytes, of what is read */
} nas__q_steps;
nas__q_steps nas__q_steps_of(const nas__qconv *q);
/* nas__q_pixels_outputs - of block b. */
int32_t nas__q_pixels_outputs(const nas__qconv *q, const nas__qconv_way *way, int32_t b);
size_t nas__q_pixels_block(const nas__qconv *q, int32_t outputs); /* bytes */
/* nas__q_pixels_turns - do tiles take turns, one being added while the sums of the other become codes? */
bool nas__q_pixels_turns(const nas__qconv *q, const nas__qconv_way *way);
bool nas__q_pixels_absent(const nas__qconv *q, int32_t o, int32_t y, int32_t x);
int32_t nas__q_pixels_ways(const nas_target *target, const nas__qconv *q,
                           nas__qconv_way out[NAS__QCONV_WAYS_MAX]);
size_t nas__q_pixels_scratch(const nas__qconv *q);
size_t nas__q_pixels_weights(const nas__qconv *q, const nas__qconv_way *way); /* without the head */
/* nas__q_prelu_factor - the float that does what multiplier m of a prelu does, for codes of one side of the zero point; 0 and
 * false where there is none. */
bool nas__q_prelu_factor(const nas__qconv_data *data, int32_t m, bool below, float *out);
/* nas__q_pair - part i of the pairs of `dots` words that add the residual. */
int32_t nas__q_pair(const nas__qconv *q, const nas__qconv_data *data, int32_t i);
void nas__q_pixels_pack(const nas__qconv *q, const nas__qconv_way *way, const nas__qconv_data *data,
                        int32_t zero, uint8_t *out);
void nas__q_pixels_emit(const nas__qconv *q, const nas__qconv_way *way, const char *name,
                        nas_buf *out);

/* Parts of their text that tile registers share: constants of all channels, the codes of up to four sums a<output>_0 of n pixels
 * with what scales them at `w`, the rows that are staged (`turns`: values with a sign lose it) and the loop over the rows,
 * whose inputs are at `s`. */
void nas__q_pixels_constants_emit(const nas__qconv *q, nas_buf *out);
void nas__q_pixels_codes_emit(const nas__qconv *q, int32_t outputs, int32_t n, nas_buf *out);
void nas__q_pixels_stage_emit(const nas__qconv *q, bool turns, const char *name, nas_buf *out);
void nas__q_pixels_rows_emit(const nas__qconv *q, const char *name, nas_buf *out);
/* nas__q_pixels_pack_head - what scales outputs [first, first + n), n up to the channels of a word; biases apart. */
void nas__q_pixels_pack_head(const nas__qconv *q, const nas__qconv_data *data, int32_t first,
                             int32_t n, uint8_t *out);

/* nas__q_pixels_finish - instructions that make a code of one vector of sums, two a cycle. */
double nas__q_pixels_finish(const nas__qconv *q);

/* A way of the algorithm PLANE_TILES, layer_qconv_pixels_amx.c. */
typedef struct nas__q_plane_tiles {
    int32_t rows, chunks, steps; /* words of a step; steps of a column; of a sum */
    size_t apart;                /* bytes from word to word */
    int32_t block, blocks;       /* tile registers of sums; how many times */
    int32_t outputs, tile;       /* rows of a tile of weights; its bytes */
    bool held;                   /* all weights of a block stay in registers */
    int32_t heads;               /* bytes in front of the weights */
    size_t sums_at;              /* in the scratch */
} nas__q_plane_tiles;
bool nas__q_plane_tiles_legal(const nas_target *target, const nas__qconv *q);
nas__q_plane_tiles nas__q_plane_tiles_of(const nas__qconv *q);
/* nas__q_plane_tiles_in - registers of sums of a block; nas__q_plane_tiles_block - bytes of a whole one. */
int32_t nas__q_plane_tiles_in(const nas__qconv *q, const nas__q_plane_tiles *t, int32_t block);
size_t nas__q_plane_tiles_block(const nas__q_plane_tiles *t);
size_t nas__q_plane_tiles_weights(const nas__qconv *q); /* without the head of the layer */
size_t nas__q_plane_tiles_scratch(const nas__qconv *q);
double nas__q_plane_tiles_cycles(const nas__qconv *q); /* estimate, of the whole layer */
void nas__q_plane_tiles_pack(const nas__qconv *q, const nas__qconv_data *data, uint8_t *out);
void nas__q_plane_tiles_emit(const nas__qconv *q, const char *name, nas_buf *out);

/* layer_qconv_winograd.c. The estimate is in cycles of one thread; weights without the head. */
bool nas__qconv_winograd_legal(const nas_target *target, const nas__qconv *q);
double nas__qconv_winograd_cycles(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way);
int32_t nas__qconv_winograd_units(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way);
size_t nas__qconv_winograd_scratch(const nas_target *target, const nas__qconv *q,
                                   const nas__qconv_way *way);
size_t nas__qconv_winograd_weights(const nas_target *target, const nas__qconv *q,
                                   const nas__qconv_way *way);
void nas__qconv_winograd_pack(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const nas__qconv_data *data, uint8_t *out);
void nas__qconv_winograd_emit(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const char *name, nas_buf *out);

#endif
