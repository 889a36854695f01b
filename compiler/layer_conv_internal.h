/* layer_conv_internal.h - what the files layer_conv*.c share: geometry of tiles and blocks, and the text of epilogues. */
#ifndef NAS_COMPILER_LAYER_CONV_INTERNAL_H
#define NAS_COMPILER_LAYER_CONV_INTERNAL_H

#include "compiler/layers_internal.h"

/* How a register tile of way->pixels pixels lies on the output: `rows` x `columns` pixels. Columns are split evenly:
 * `wide` tiles of `columns`, then `narrow` ones of columns - 1. The last band may have fewer rows. */
typedef struct nas__conv_tiling {
    int32_t rows, columns, wide, narrow;
    int32_t bands, last_rows;
} nas__conv_tiling;

/* Output channels of one group, split evenly: blocks of `vectors`, then `narrow` ones of vectors - 1. The last vector of
 * the last block has last_lanes. */
typedef struct nas__conv_blocks {
    int32_t lanes, vectors, count, narrow; /* count: blocks of one group */
    int32_t last_lanes;
    int32_t in_c, out_c; /* of one group */
} nas__conv_blocks;

/* Equal blocks: [from, to) have `vectors` vectors, the last of them with `last` lanes. */
typedef struct nas__conv_kind {
    int32_t from, to, vectors, last;
} nas__conv_kind;
enum { NAS__CONV_KINDS = 3 };

/* The sum of one output as runs over contiguous input, each in parts of `depth` steps, the last part shorter. */
typedef struct nas__conv_runs {
    int32_t taps;   /* runs of one kernel row */
    int32_t length; /* steps of a run */
    int32_t depth, parts;
} nas__conv_runs;

nas__conv_tiling nas__conv_tile(const nas__conv *conv, int32_t pixels);
nas__conv_blocks nas__conv_block(const nas_target *target, const nas__conv *conv, int32_t vectors);
/* nas__conv_kind_of - kind 0: wide blocks, 1: narrow ones, 2: the last one when its last vector is partial; may be empty. */
nas__conv_kind nas__conv_kind_of(const nas__conv_blocks *b, int32_t kind);
/* nas__conv_block_first - the first channel of block `k` within its group; k may be `count`. */
int32_t nas__conv_block_first(const nas__conv_blocks *b, int32_t k);
nas__conv_runs nas__conv_run(const nas__conv *conv, int32_t depth);
/* nas__conv_unit_bands - bands of one unit: enough tiles to use a part of the weights several times. */
int32_t nas__conv_unit_bands(const nas_target *target, const nas__conv *conv,
                             const nas__conv_way *way);
/* nas__conv_finish - text of act(`value`); `slope` is a pointer expression to the slopes of this vector. */
void nas__conv_finish(const nas__conv *conv, const char *value, const char *slope, nas_buf *out);
/* nas__conv_heads - floats of bias (and slopes) before the weights, in units of one output channel. */
int32_t nas__conv_heads(const nas__conv *conv);
/* nas__conv_head - writes bias and slopes of `n` channels from `first` on, each padded to `padded`; returns the end. */
float *nas__conv_head(const nas__conv *conv, const float *bias, const float *slope, int32_t first,
                      int32_t n, int32_t padded, float *out);

/* One loop of the micro-kernel: `limit` input channels at `s`, advancing `w`; used by direct and Winograd tiles. `limit`
 * is a multiple of `round`; offsets[p]: floats from `s` to pixel p. ahead > 0: each round also asks for what the pointer
 * `ahead` of the tile points to, and moves it on by so many bytes: what later tiles read, on its way into L2. */
void nas__conv_emit_loop(const char *limit, int32_t round, const size_t *offsets, int32_t pixels,
                         int32_t vectors, int32_t lanes, int32_t ahead, const char *indent,
                         nas_buf *out);
/* nas__conv_ahead - bytes that a loop of `rounds` rounds in all has to go on in each to fetch `bytes`, at most two lines. */
int32_t nas__conv_ahead(double bytes, double rounds);
/* What comes from beyond L2, so that tiles ask for it ahead. */
typedef enum nas__conv_far { NAS__FAR_NONE, NAS__FAR_WEIGHTS, NAS__FAR_PIXELS } nas__conv_far;
nas__conv_far nas__conv_streams(const nas_target *target, const nas__conv *conv);
int32_t nas__conv_unroll(int32_t length, int32_t products); /* a divisor of `length` */
enum { NAS__CONV_PIXELS_MAX = 32 };

/* nas__conv_cycles - the estimate of any way, of a processor with two units for multiply-adds. */
double nas__conv_cycles(const nas_target *target, const nas__conv *conv, const nas__conv_way *way);
int32_t nas__conv_winograd_tiles(const nas__conv *conv, const nas__conv_way *way);
/* nas__conv_winograd_far - are its outputs stored past the caches? */
bool nas__conv_winograd_far(const nas_target *target, const nas__conv *conv);
/* nas__conv_winograd_asks - do its products ask for the pixels of the next batch? */
bool nas__conv_winograd_asks(const nas_target *target, const nas__conv *conv);

void nas__conv_direct_emit(const nas_target *target, const nas__conv *conv,
                           const nas__conv_way *way, const char *name, nas_buf *out);
void nas__conv_depthwise_emit(const nas_target *target, const nas__conv *conv,
                              const nas__conv_way *way, const char *name, nas_buf *out);
int32_t nas__conv_depthwise_chunk(void); /* vectors of one unit */
void nas__conv_winograd_emit(const nas_target *target, const nas__conv *conv,
                             const nas__conv_way *way, const char *name, nas_buf *out);
int32_t nas__conv_winograd_units(const nas_target *target, const nas__conv *conv,
                                 const nas__conv_way *way);
size_t nas__conv_winograd_scratch(const nas_target *target, const nas__conv *conv,
                                  const nas__conv_way *way);
size_t nas__conv_winograd_weights(const nas_target *target, const nas__conv *conv,
                                  const nas__conv_way *way); /* floats */
void nas__conv_winograd_pack(const nas_target *target, const nas__conv *conv,
                             const nas__conv_way *way, const float *weight, const float *bias,
                             const float *slope, float *out);

/* ---- zeros left out: layer_conv_sparse*.c -------------------------------------------------------------------------- */

/* The weight block of a sparse way, in words from its begin: the words `indices` and `values` (of SPARSE_RUN also `picks`),
 * so that no text depends on them; where the lists start (of SPARSE first entry and first weight); bias and slopes; outputs in the order of the groups
 * (SPARSE_PANEL); entries, what to multiply with; weights. */
typedef struct nas__sparse_layout {
    int32_t lists, entries;
    bool small; /* an entry takes 16 bits, else 32 */
    size_t starts, heads, outputs, indices, values, picks, floats;
} nas__sparse_layout;
/* nas__sparse_by_blocks - SPARSE or SPARSE_RUN: the direct form with a list for each block of outputs. */
bool nas__sparse_by_blocks(const nas__conv_way *way);

nas__sparse_layout nas__sparse_layout_of(const nas_target *target, const nas__conv *conv,
                                         const nas__conv_way *way);
/* nas__sparse_entries - of all lists together; `kept` must be there. */
int32_t nas__sparse_entries(const nas_target *target, const nas__conv *conv,
                            const nas__conv_way *way);
nas_status nas__sparse_pack(nas_ctx *ctx, const nas_target *target, const nas__conv *conv,
                            const nas__conv_way *way, const float *weight, const float *bias,
                            const float *slope, float *out);
/* nas__sparse_ways - candidates without their cost; 0 where no group of outputs keeps less than everything. */
enum { NAS__SPARSE_WAYS_MAX = 24 };
int32_t nas__sparse_ways(const nas_target *target, const nas__conv *conv,
                         nas__conv_way out[NAS__SPARSE_WAYS_MAX]);
double nas__sparse_cycles(const nas_target *target, const nas__conv *conv,
                          const nas__conv_way *way);
/* nas__sparse_keeps - does any of n outputs keep step k? order: which outputs, NULL: first, first + 1 ... */
bool nas__sparse_keeps(const nas__conv *conv, const int32_t *order, int32_t first, int32_t n,
                       int32_t k);
/* nas__sparse_order - the order in which outputs form groups, [out_c], nas_free: as they are, or by their masks where that
 * makes the lists shorter: outputs that a filter rearrangement put together are found again. NULL: no memory. */
int32_t *nas__sparse_order(const nas__conv *conv, int32_t group);
/* The two transpositions of SPARSE_PANEL and SPARSE_CODE: layer_conv_sparse_turn.c. Functions NAME_gather<vectors>,
 * NAME_finish<vectors>, the stores of a group of joined outputs inside its function, macros that they need. */
void nas__turn_emit_helpers(const nas__conv_way *way, int32_t lanes, nas_buf *out);
/* nas__turn_quads_helper - the macro QUADS_OF_FOUR(v, a, b, c, d): quarters of a vector of 64 bytes from memory. */
const char *nas__turn_quads_helper(void);
void nas__turn_emit_gather(const nas__conv *conv, const nas__conv_way *way, const char *name,
                           int32_t lanes, int32_t vectors, nas_buf *out);
void nas__turn_emit_finish(const nas__conv *conv, const nas__conv_way *way, const char *name,
                           int32_t lanes, int32_t vectors, nas_buf *out);
void nas__turn_emit_joined(const nas__conv *conv, int32_t vectors, int32_t lanes, nas_buf *out);
const char *nas__sparse_index(const nas__sparse_layout *l); /* type of an entry in emitted text */
/* nas__sparse_emit_sum - of a tile in the direct form: the loop over one list. */
void nas__sparse_emit_sum(const nas__conv *conv, const size_t *offsets, int32_t pixels,
                          int32_t vectors, int32_t lanes, nas_buf *out);
/* Runs that lanes pick from: layer_conv_sparse_run.c. */
bool nas__run_offered(const nas_target *target, const nas__conv *conv, int32_t run);
int32_t nas__run_entries(const nas_target *target, const nas__conv *conv, const nas__conv_way *way);
/* nas__run_pick_words - of all entries; 0 of other algorithms. vectors: of the widest block. */
size_t nas__run_pick_words(const nas__conv_way *way, int32_t vectors);
/* nas__run_pack - the entries of the run at `step` for `wide` outputs from `first` on: values[wide] each and their picks,
 * zeroed before; returns their number. */
int32_t nas__run_pack(const nas__conv *conv, const nas__conv_way *way, int32_t first, int32_t wide,
                      int32_t step, const float *weight, float *values, uint32_t *picks);
void nas__run_emit_helpers(nas_buf *out);
/* nas__run_emit_sum - as nas__sparse_emit_sum. */
void nas__run_emit_sum(const nas__conv_way *way, const size_t *offsets, int32_t pixels,
                       int32_t vectors, nas_buf *out);
/* nas__sparse_asks - what SPARSE_PANEL and SPARSE_CODE ask for while they walk the lists of a tile: the pixels of the next
 * one or where its outputs go, whichever does not fit L2. Only where tiles lie one after another. */
typedef enum nas__sparse_ahead {
    NAS__ASKS_NONE,
    NAS__ASKS_PIXELS,
    NAS__ASKS_OUTPUTS
} nas__sparse_ahead;
nas__sparse_ahead nas__sparse_asks(const nas_target *target, const nas__conv *conv);
/* nas__sparse_asks_bytes - of a whole tile; 0: it asks for nothing. */
int32_t nas__sparse_asks_bytes(const nas_target *target, const nas__conv *conv,
                               const nas__conv_way *way);
/* nas__sparse_emit_panel - the whole kernel of SPARSE_PANEL. */
void nas__sparse_emit_panel(const nas_target *target, const nas__conv *conv,
                            const nas__conv_way *way, const char *name, nas_buf *out);
/* The mask as machine code: layer_conv_sparse_code.c. A writer is the assembler of one architecture: the function
 * (panel, stream, sums, part, passes) of all groups, as bytes in whole words of `directive`; of a writer that asks ahead
 * with one more parameter, from where. */
typedef struct nas__code_asks {
    nas__sparse_ahead what;
    int32_t lines; /* of 64 bytes, in each pass of each group */
} nas__code_asks;
typedef struct nas__code_writer {
    const char *arch;
    int32_t vector_bytes;
    int32_t sums;         /* registers for them: outputs x vectors of a block */
    int32_t block;        /* vectors of pixels that a step takes together */
    int32_t round;        /* the stream of a group is filled up to a multiple of so many values */
    bool parts;           /* the sum may be cut */
    bool asks;            /* it can ask for what the next tile needs */
    int32_t weight_bytes; /* of instructions and of the stream, about, of one weight for a block */
    int32_t weights_max;  /* of a mask: more code than that comes from beyond L2 */
    int32_t word_bytes;   /* of an operand of the directive */
    const char *directive;
    void (*write)(const nas__conv *conv, const nas__conv_way *way, const nas__code_asks *asks,
                  nas_buf *out);
} nas__code_writer;
extern const nas__code_writer nas__code_avx2, nas__code_avx512, nas__code_arm;
enum { NAS__CODE_VECTORS = 7 }; /* of a tile of blocks of one, at most */
/* nas__sparse_code_writer - NULL when the target has none. */
const nas__code_writer *nas__sparse_code_writer(const nas_target *target);
/* nas__sparse_code_asks - of a way of SPARSE_CODE. */
nas__code_asks nas__sparse_code_asks(const nas_target *target, const nas__conv *conv,
                                     const nas__conv_way *way);
bool nas__code_keeps(const nas__conv *conv, int32_t output, int32_t step);
nas__machine_code nas__sparse_code(const nas_target *target, const nas__conv *conv,
                                   const nas__conv_way *way);
int32_t nas__sparse_code_weights(const nas_target *target, const nas__conv *conv,
                                 const nas__conv_way *way); /* floats */
/* nas__sparse_code_pack - false when the mask is not the one of `way`. */
bool nas__sparse_code_pack(const nas_target *target, const nas__conv *conv,
                           const nas__conv_way *way, const float *weight, const float *bias,
                           float *out);
/* Tiles of a panel: lines of pixels (rows of the image, or the image as one line), cut into vectors. */
typedef struct nas__panel_tiling {
    int32_t lines, width; /* pixels of a line */
    bool runs; /* units are rows, tiles are cut from all rows of a call together; lines is 1 */
    int32_t vectors;      /* of a line */
    int32_t wide, narrow; /* tiles of way->vectors, then of one less */
    int32_t groups, depth, parts;
} nas__panel_tiling;
nas__panel_tiling nas__panel_tile(const nas_target *target, const nas__conv *conv,
                                  const nas__conv_way *way);
/* nas__panel_scale - what an entry of a list counts for a step of the sum: 1, or, so that no multiplication is needed, where
 * its vectors are; then steps lie way->vectors vectors apart in narrow tiles too. */
int32_t nas__panel_scale(const nas_target *target, const nas__conv_way *way);
/* nas__panel_staged - are joined groups stored in whole vectors of outputs, by way of the sums? A vector of 16 lanes is a line
 * of the cache. Pixels of many outputs often lie so that lines written in quarters do not stay until the next quarter comes. */
bool nas__panel_staged(const nas__conv_way *way, int32_t lanes);
size_t nas__panel_scratch(const nas_target *target, const nas__conv *conv,
                          const nas__conv_way *way);

/* ---- vectors of any length: layer_conv_sve.c ------------------------------------------------------------------------ */

/* nas__conv_view - the target as a way sees it: vector_bytes of SVE are those that its tiles are cut for. What is a view
 * already stays as it is. */
nas_target nas__conv_view(const nas_target *target, const nas__conv_way *way);
/* nas__sve_emit_helpers - once in a text, however often. */
void nas__sve_emit_helpers(nas_buf *out);
typedef struct nas__sve_tile {
    const size_t *offsets; /* [pixels] floats from `in` */
    int32_t pixels, columns, lanes;
    nas__conv_kind kind;
    int32_t ahead, round; /* see nas__conv_emit_loop */
    bool parts;           /* the sum is cut */
} nas__sve_tile;
/* nas__sve_emit_tile - the body of a tile of layer_conv_direct.c, which wrote its head. */
void nas__sve_emit_tile(const nas__conv *conv, const nas__sve_tile *tile, nas_buf *out);
/* nas__sve_emit_run - the body of a tile of layer_conv_depthwise.c. */
void nas__sve_emit_run(const nas__conv *conv, int32_t lanes, int32_t columns, int32_t last,
                       nas_buf *out);

/* ---- products of bf16: layer_conv_bf16.c ---------------------------------------------------------------------------- */

uint16_t nas__bf16_of(float value); /* to nearest, even */
/* nas__bf16_floats - that the weights of one output take. */
int32_t nas__bf16_floats(const nas__conv *conv);
void nas__bf16_pack(const nas_target *target, const nas__conv *conv, const nas__conv_way *way,
                    const float *weight, const float *bias, const float *slope, float *out);
void nas__bf16_emit_helpers(nas_buf *out); /* once in a text, however often */
/* nas__bf16_emit_sums - all sums of a tile of layer_conv_direct.c, as a<pixel>_<vector>. offsets: [pixels] floats. */
void nas__bf16_emit_sums(const nas__conv *conv, const size_t *offsets, int32_t pixels,
                         int32_t vectors, nas_buf *out);

/* ---- products of bf16 on x86-64: layer_conv_staged*.c ---------------------------------------------------------------- */

/* How BF16_TILE and BF16_DOT see a layer. A strip, `rows` rows of the output, has its input rounded once, as values of bf16 in
 * the scratch of a thread, so that the positions of one row of the image, and rows, follow one another: with a stride, each
 * phase of rows and of columns that some tap reads is a plane of its own. Then the input of position p for a tap is p * depth
 * values behind where the tap begins, whatever p. Positions between the rows of the output (`width` - out_w of them) are
 * computed and not looked at. */
typedef struct nas__staged {
    int32_t unit; /* positions of a register: 16 of a tile, 1 of a vector */
    int32_t
        run; /* values of a position: channels, or those of a kernel row, or of the whole kernel */
    int32_t depth;              /* the same, filled up with zeros to whole steps */
    int32_t step;               /* values of a step: 32 of a tile, a pair of a vector */
    int32_t taps_h, taps_w;     /* that remain */
    int32_t phases_h, phases_w; /* planes */
    int32_t width;              /* positions of a row */
    int32_t rows, strips, last_rows;
    size_t plane;     /* bytes */
    size_t staged_at; /* bytes behind the sums of a tile */
    size_t scratch_bytes;
} nas__staged;
nas__staged nas__staged_of(const nas__conv *conv, const nas__conv_way *way);
/* nas__staged_positions - of a strip of so many rows of the output. */
int32_t nas__staged_positions(const nas__conv *conv, const nas__staged *s, int32_t rows);
/* nas__staged_first - bytes from the first value of a plane to what tap (y, x) reads for position 0, planes counted. */
size_t nas__staged_first(const nas__conv *conv, const nas__staged *s, int32_t y, int32_t x);
/* nas__staged_tap_rows - rows of phase `phase` of the kernel's rows that a strip needs beyond its own; columns: the same. */
int32_t nas__staged_tap_rows(const nas__conv *conv, const nas__staged *s, int32_t phase);
int32_t nas__staged_tap_columns(const nas__conv *conv, const nas__staged *s, int32_t phase);
/* nas__staged_ways - candidates without their cost; 0 where the target has none. */
enum { NAS__STAGED_WAYS_MAX = 40 };
int32_t nas__staged_ways(const nas_target *target, const nas__conv *conv,
                         nas__conv_way out[NAS__STAGED_WAYS_MAX]);
/* nas__staged_cycles - without what comes from beyond L2. */
double nas__staged_cycles(const nas_target *target, const nas__conv *conv,
                          const nas__conv_way *way);
/* What is asked for ahead because it comes from beyond L2. */
bool nas__staged_far_weights(const nas_target *target, const nas__conv *conv,
                             const nas__conv_way *way);
bool nas__staged_far_results(const nas_target *target, const nas__conv *conv);
int32_t nas__staged_floats(const nas__conv *conv, const nas__conv_way *way); /* of one output */
void nas__staged_pack(const nas_target *target, const nas__conv *conv, const nas__conv_way *way,
                      const float *weight, const float *bias, const float *slope, float *out);
void nas__staged_emit(const nas_target *target, const nas__conv *conv, const nas__conv_way *way,
                      const char *name, nas_buf *out);

int32_t
nas__conv_winograd_edge(const nas__conv_way *way); /* output pixels of a tile along an axis */

#endif
