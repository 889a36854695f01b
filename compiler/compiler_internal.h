/* compiler_internal.h - the lowered program and the steps that work on it; never leaves compiler/.
 *
 * A program is a list of stages in execution order. A stage produces one value, row by row:
 *     SUM      out[c] = act(bias[c] + sum of convolutions + sum of added values)
 *     SHUFFLE  depth-to-space of one value
 *     INPUT    the image, shifted by a constant
 * Every supported operator is such a stage, so the passes only merge stages:
 *     import -> fold (constants) -> fuse (additions, activations, pairs through a scratch) -> plan (rows, rings, tiles).
 * Rows move in lock step: in step s a stage of rate k makes its rows [s*b*k - lag, (s + 1)*b*k - lag), where the band b is 1,
 * or 2 or 4 for the sake of Winograd kernels, which make so many rows at once. Rings hold just the rows that a later stage
 * still reads. When the rings outgrow the cache the image is cut into column strips, and
 * columns lag in the same way (`delay`); the columns a strip needs from its left neighbour are kept per row. */
#ifndef NAS_COMPILER_INTERNAL_H
#define NAS_COMPILER_INTERNAL_H

#include "compiler/compiler.h"

enum {
    NAS__TERMS_MAX = 4,
    NAS__ADDS_MAX = 4,
    NAS__KERNEL_MAX = 9,
    NAS__BLOCK_MAX = 8,
    NAS__UP_MAX = 4
};

typedef enum nas__stage_kind { NAS__INPUT, NAS__SUM, NAS__SHUFFLE } nas__stage_kind;
typedef enum nas__act { NAS__ACT_NONE, NAS__ACT_RELU, NAS__ACT_PRELU } nas__act;

/* One convolution inside a SUM: stride 1, zero "same" padding, odd kernel.
 * Or a transposed one by its phases, `up` > 1: channel c*up*up + py*up + px of the stage is what depth-to-space puts at
 * rows y*up + py, columns x*up + px of channel c. The window of kernel_h x kernel_w holds the taps of all phases; each tap
 * of the transposed kernel belongs to one phase and one place in the window (nas__phase_tap), the rest is not computed. */
typedef struct nas__term {
    int32_t source; /* stage index */
    int32_t kernel_h, kernel_w;
    int32_t channels;                    /* of the source */
    int32_t up;                          /* 1, or the stride of a transposed convolution */
    int32_t up_h, up_w, up_top, up_left; /* its kernel and padding */
    bool twice;          /* each weight is packed twice, side by side, see nas__weights_twice */
    const float *weight; /* [O,KH,KW,I], borrowed from the graph; NULL when it has none */
} nas__term;

/* A register tile: `outputs` channels times `vectors` pixel vectors. Of a Winograd kernel, see row_winograd.c: a product at
 * one of its points; it makes `rows` rows at once and transforms `span` vectors of the row together. */
enum { NAS__OUTPUTS_MAX = 32 };
typedef struct nas__tile {
    int32_t outputs, vectors;
    int32_t rows, span; /* 0 of a direct kernel */
} nas__tile;

/* A way of computing a stage: its kernel, direct (tile.rows 0) or Winograd, and the tile of the pair that is computed with it. */
enum { NAS__ROW_WAYS_MAX = 16 };
typedef struct nas__row_way {
    nas__tile tile, pair_tile;
    double cycles;      /* of a row, estimated */
    double measured_ns; /* of some rows, the same ones for all ways; 0 where nobody measured */
} nas__row_way;

typedef struct nas__stage {
    nas__stage_kind kind;
    const char *name; /* of the graph node whose value this is */
    int32_t channels;
    int32_t
        rate; /* output pixels per input pixel along one axis: 1, or the product of the blocks above */
    bool dead;   /* merged into another stage */
    bool hidden; /* computed tile by tile inside its only reader */
    int32_t n_terms;
    nas__term terms[NAS__TERMS_MAX];
    int32_t n_adds;
    int32_t adds[NAS__ADDS_MAX]; /* SHUFFLE: adds[0] is the source */
    float *bias;                 /* [channels], never NULL for SUM */
    nas__act act;
    const float *slope; /* [channels] for PRELU, NULL without weights */
    float shift;        /* INPUT: added to every pixel */
    int32_t block;      /* SHUFFLE */
    int32_t pair;       /* stage computed into the scratch of this one, -1 when none */

    /* filled by the plan */
    int32_t lag;          /* rows behind the input, in own rows */
    int32_t delay;        /* columns behind the input, in own columns; 0 when there is one strip */
    int32_t above, below; /* rows needed over and under the rows of a thread */
    int32_t ring_rows;    /* 0: no ring (hidden, or written straight to the output image) */
    int32_t left;         /* columns left of the strip that readers need */
    bool zero_edges;      /* columns outside the image must read as zero */
    bool direct_out;      /* writes the output image itself */
    nas__tile tile;       /* SUM */
    int32_t n_ways;       /* SUM that was tuned: what competed */
    nas__row_way *ways;   /* [n_ways], of the program's arena */
    size_t ring_at;       /* floats from the start of a thread's memory */
    size_t
        context_at; /* floats from the start of the contexts; used when strips > 1 and left > 0 */
    size_t weights_at; /* floats from the start of model_weights */
} nas__stage;

typedef struct nas__plan {
    int32_t lanes;
    int32_t band;    /* input rows of a step: 1, 2 or 4 */
    int32_t vectors; /* per strip at rate 1 */
    int32_t strips;
    int32_t pad;      /* floats between the channels of a row, >= every left and right margin */
    int32_t lag_rows; /* input rows' worth of steps after the last one */
    int32_t
        halo_rows; /* the same before the first row of a thread; margins between strips keep so many */
    size_t zeros_at; /* in a thread's memory: a row of zeros, for windows of Winograd kernels */
    size_t zeros_floats;
    size_t scratch_floats;
    size_t scratch_at; /* in a thread's memory */
    size_t thread_floats;
    size_t context_rows; /* rows of context at rate 1, all threads together */
    size_t context_floats;
    size_t weight_floats;
    size_t arena_bytes;
} nas__plan;

typedef struct nas__program {
    nas_arena *arena; /* owns stages, biases, texts */
    const nas_graph *graph;
    const nas_target *target;
    const nas_compile_options *options; /* while it is lowered */
    int32_t max_threads;
    nas_row_kernels kernels;         /* as the options ask */
    nas_dtype dtype;                 /* of rows and weights; "floats" below are elements of it */
    char graph_hash[NAS_SHA256_HEX]; /* structure only */
    bool has_weights;
    int32_t height, width; /* of the input */
    int32_t n_stages;
    nas__stage *stages;
    int32_t input, output; /* stage indices */
    nas__plan plan;
} nas__program;

/* What a stage reads, its hidden pair included. */
typedef struct nas__read {
    int32_t source;
    int32_t half_h, half_w; /* 0 for additions and shuffles */
} nas__read;
enum { NAS__READS_MAX = 2 * (NAS__TERMS_MAX + NAS__ADDS_MAX) };

/* ---- program.c ------------------------------------------------------------------------------------------------- */

/* nas__import - checks the graph and lowers it one stage a node. Errors: UNSUPPORTED naming the node. */
nas_status nas__import(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                       nas__program **out);
void nas__program_free(nas__program *program);
/* nas__verify - what every pass may rely on; INTERNAL names the pass and the stage. */
nas_status nas__verify(nas_ctx *ctx, const nas__program *program, const char *pass);
void nas__dump(const nas__program *program, const char *pass, nas_buf *out);
/* nas__lower - all passes up to and including `last` (NULL = all). */
nas_status nas__lower(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                      const char *last, nas__program **out);

/* ---- small queries --------------------------------------------------------------------------------------------- */

int32_t nas__use_count(const nas__program *program,
                       int32_t value); /* the network output counts as one */
int32_t nas__reads(const nas__program *program, const nas__stage *stage,
                   nas__read out[NAS__READS_MAX]);
const char *nas__real(const nas__program *program); /* type of an element in emitted C */
size_t nas__real_bytes(const nas__program *program);
int32_t nas__row_vectors(const nas__program *program, int32_t rate); /* vectors of one strip row */
size_t nas__pitch(const nas__program *program, int32_t rate); /* floats from channel to channel */
/* nas__phase_tap - along one axis: which tap of a kernel with `pad` zeros before it reaches output phase `phase` from the
 * input `offset` places ahead; -1 for none. From out[y*up + k - pad] += w[k]*in[y]: k = phase + pad - offset*up. */
int32_t nas__phase_tap(int32_t up, int32_t kernel, int32_t pad, int32_t phase, int32_t offset);
/* nas__phase_reach - input pixels to either side that the taps of all phases reach. */
int32_t nas__phase_reach(int32_t up, int32_t kernel, int32_t pad);
/* nas__term_taps - places (ky, kx) of the window at which outputs [first, first + n) of the stage have a tap: all of them,
 * or for a transposed convolution those of the phases; `tap` gets the tap's index in the kernel for each output, or -1.
 * Returns how many outputs have one. */
int32_t nas__term_taps(const nas__term *term, int32_t first, int32_t n, int32_t ky, int32_t kx,
                       int32_t *tap);
/* nas__weight_floats - floats of the packed weights of one stage, without its pair. */
size_t nas__weight_floats(const nas__stage *stage);

/* ---- passes ---------------------------------------------------------------------------------------------------- */

nas_status nas__pass_fold(nas_ctx *ctx, nas__program *program); /* pass_fold.c */
nas_status nas__pass_fuse(nas_ctx *ctx, nas__program *program); /* pass_fuse.c */
nas_status nas__pass_plan(nas_ctx *ctx, nas__program *program); /* memory_plan.c */
/* nas__merge_pointwise - merges act(bias + x) stages into the stage that makes x; with_act: also activations. */
void nas__merge_pointwise(nas__program *program, bool with_act);

/* ---- tile.c ---------------------------------------------------------------------------------------------------- */

/* nas__choose_tiles - the register tiles of a SUM (and of its pair: same `vectors`) for rows of `row_vectors`;
 * returns the estimated cycles of one row. */
double nas__choose_tiles(const nas_target *target, const nas__stage *stage, const nas__stage *pair,
                         int32_t row_vectors, nas__tile *tile, nas__tile *pair_tile);

/* nas__tile_cycles - of one column of tiles of `outputs` x `vectors` of a direct kernel; 0 where such a tile cannot be. */
double nas__tile_cycles(const nas_target *target, const nas__stage *stage, int32_t outputs,
                        int32_t vectors);
/* nas__pair_crowding - cycles a column that a pair loses when scratch, weights and rows crowd the L1 cache. */
double nas__pair_crowding(const nas_target *target, const nas__stage *stage, const nas__stage *pair,
                          int32_t vectors);
/* nas__tap_cycles - of one tap of a tile: one input channel, one kernel position; off_grid: its loads are not aligned. */
double nas__tap_cycles(int32_t outputs, int32_t vectors, bool off_grid);
/* nas__tile_allowed - does a tile of `outputs` end where a row of phases of a transposed convolution does? */
bool nas__tile_allowed(const nas__term *term, int32_t outputs);

/* ---- row_ways.c ------------------------------------------------------------------------------------------------ */

/* nas__row_ways - kernels for a planned stage that may be the fastest: the planned one, then others by rising estimate; returns
 * how many. All of them fit the plan: its band, and pairs stay as they are. */
int32_t nas__row_ways(const nas__program *program, int32_t stage,
                      nas__row_way out[NAS__ROW_WAYS_MAX]);
/* nas__row_way_used - is the way the one that the stage is planned with? */
bool nas__row_way_used(const nas__program *program, const nas__stage *stage,
                       const nas__row_way *way);
/* nas__row_tune - measured times decide between the ways of every stage, where the options have a memory; *changed: is a
 * Winograd kernel where there was none, or the other way round, or one of other rows? */
nas_status nas__row_tune(nas_ctx *ctx, nas__program *program, bool *changed);

/* ---- row_winograd.c: vertical Winograd in rows --------------------------------------------------------------------- */

/* F(rows, height): `rows` output rows from rows + height - 1 input rows, with as many products for each horizontal tap. */
enum { NAS__POINTS_MAX = 8, NAS__WINOGRAD_HEIGHT_MAX = 5, NAS__WINOGRAD_ROWS_MAX = 4 };
typedef struct nas__winograd {
    int32_t rows, height, points;
    double weight[NAS__POINTS_MAX][NAS__WINOGRAD_HEIGHT_MAX]; /* kernel column to points */
    double input[NAS__POINTS_MAX][NAS__POINTS_MAX];           /* input column to points */
    double output[NAS__WINOGRAD_ROWS_MAX][NAS__POINTS_MAX];   /* points to output column */
} nas__winograd;
/* nas__winograd_of - rows 2 or 4, height 3 or 5. */
nas__winograd nas__winograd_of(int32_t rows, int32_t height);
/* nas__winograd_possible - is the stage one convolution, or a transposed one, that such a kernel can compute? */
bool nas__winograd_possible(const nas__stage *stage);
/* nas__winograd_accurate - are `rows` rows at once as accurate as direct sums? Always in floats. Of halves F(2,3) alone: its
 * points are 0, 1 and -1, and its sums are shorter; that they need no widening is the condition. */
bool nas__winograd_accurate(const nas__program *program, const nas__stage *stage, int32_t rows);
/* nas__choose_winograd - tile.rows of every stage and plan.band, by estimate for rows of `row_vectors` (at rate 1) or as
 * p->kernels says. */
void nas__choose_winograd(nas__program *program, int32_t row_vectors);
/* nas__winograd_tile - the tile of a stage whose tile.rows are chosen; returns the estimated cycles of one row. */
double nas__winograd_tile(const nas_target *target, const nas__stage *stage, int32_t row_vectors,
                          nas__tile *tile);
/* nas__winograd_cycles - of one row with tiles of `outputs` x `vectors`; 0 where such a tile cannot be. Fills *span. */
double nas__winograd_cycles(const nas_target *target, const nas__stage *stage, int32_t row_vectors,
                            int32_t outputs, int32_t vectors, int32_t *span);
/* nas__winograd_taps - outputs [first, first + n) that have a tap at column kx of the window: has[i]; returns how many. */
int32_t nas__winograd_taps(const nas__term *term, int32_t first, int32_t n, int32_t kx, bool *has);
/* Floats of one channel and point of the transformed tile; of the scratch of a stage: V[point][channel][that], then
 * M[point][output][vector]; of its weights. */
int32_t nas__winograd_wide(const nas__stage *stage, int32_t span, int32_t lanes);
size_t nas__winograd_scratch(const nas__stage *stage, int32_t lanes);
size_t nas__winograd_weight_floats(const nas__stage *stage);
/* nas__winograd_pack - weights of one output block after bias and slope; returns the end. */
float *nas__winograd_pack(const nas__stage *stage, int32_t first, int32_t n, float *out);
void nas__emit_winograd(const nas__program *program, const nas__stage *stage, const char *name,
                        nas_buf *out); /* emit_winograd.c */

/* ---- objects.c: an executable out of pieces that are compiled and cached apart ----------------------------------- */

/* Machine code in whole words; none: no bytes. `directive` writes a word in assembly, the lowest byte first. */
typedef struct nas__machine_code {
    nas_buf bytes;
    int32_t word_bytes;
    const char *directive;
} nas__machine_code;
/* nas__machine_code_text - the function <name>_code as an assembler block of C, self-contained: layer_conv_sparse_code.c */
void nas__machine_code_text(const nas__machine_code *code, const char *name, nas_buf *out);

/* A piece of C that becomes an object of its own: functions whose text depends on nothing but what the name says, so that
 * networks share them. Functions that the driver calls begin with "KERNEL " at the start of a line, and their head ends
 * with ") {\n": from it the driver gets a prototype. KERNEL is static in a bundle, which is one file, and nothing in an
 * object. Whatever else the text defines is static and has a name that no other unit uses. */
typedef struct nas__unit {
    char *name; /* unique within a network */
    nas_buf text;
    nas__machine_code code; /* of <name>_code, which the text declares */
} nas__unit;

/* Everything emitted for one network. Bundle, one file: head, prelude, units (text, then code as text), body. Executable:
 * each unit is compiled apart as prelude + text, its code goes past the C compiler as a file; the driver is head + prototypes + body, compiled without optimization, because it is
 * new for every network: what works on pixels belongs in units. */
typedef struct nas__sources {
    nas_buf head;    /* of model.c: banner, includes, types */
    nas_buf prelude; /* what units stand on; <stddef.h> and HELPER are there before it */
    nas_buf body;    /* of model.c: what calls the kernels; model_open, model_run, model_close */
    nas_buf header;  /* model.h */
    size_t n_units, cap_units;
    nas__unit *units;
    void *weights; /* model_weights; owned; may be NULL for a bundle */
    size_t weight_bytes;
    size_t arena_bytes;
    bool failed; /* a unit could not be added */
} nas__sources;

/* nas__sources_unit - a new unit to write to, borrowed until the next call; NULL when there is one of that name, or no
 * memory (nas__sources_status tells). */
nas__unit *nas__sources_unit(nas__sources *sources, const char *name);
nas_status nas__sources_status(nas_ctx *ctx, const nas__sources *sources);
void nas__sources_deinit(nas__sources *sources);
/* nas__sources_text - model.c of a bundle. */
void nas__sources_text(const nas__sources *sources, nas_buf *out);
/* nas__build_program - the executable, from the cache or from objects, of which only the missing ones are compiled, in parallel.
 * Fills every field of `out`. Errors: those of nas_compile. */
nas_status nas__build_program(nas_ctx *ctx, const nas_compile_options *options,
                              const nas__sources *sources, nas_artifact *out);

/* What the code of a bundle takes on a device: machine code and its constants, without weights. */
enum { NAS__CODE_LARGEST = 3 };
typedef struct nas__code_size {
    uint64_t bytes;
    int32_t n_largest; /* units, largest first */
    uint64_t largest_bytes[NAS__CODE_LARGEST];
    char largest[NAS__CODE_LARGEST][96];
} nas__code_size;
/* nas__build_code - compiles model.c of a bundle with the flags of its build line, cached, and says how large the code is.
 * whole   true: as one file, the size to state; false: unit by unit, in parallel: an estimate from above, by unit */
nas_status nas__build_code(nas_ctx *ctx, const nas_compile_options *options,
                           const nas__sources *sources, bool whole, nas__code_size *out);
/* nas__code_bytes - of one object file. PARSE when it is none. code_size.c */
nas_status nas__code_bytes(nas_ctx *ctx, const char *path, uint64_t *out);

/* ---- emitting -------------------------------------------------------------------------------------------------- */

/* nas__emit_sources - all but the weights. emit.c */
nas_status nas__emit_sources(nas_ctx *ctx, const nas__program *program, nas__sources *out);
void nas__emit_model_h(const nas__program *program, nas_buf *out);
void nas__emit_head(const nas__program *program, nas_buf *out); /* emit_prelude.c */
void nas__emit_shuffle(nas_buf *out); /* SHUFFLE(a, b, indices): lanes of two vectors */
void nas__emit_vectors(const nas__program *program, nas_buf *out);
void nas__emit_row_helpers(const nas__program *program, nas__sources *out); /* a unit */
/* Another unit, for Winograd kernels. */
void nas__emit_group_helpers(const nas__program *program, nas__sources *out);
/* nas__emit_workers - a unit over rt/pool.c: workers_open, workers_run, workers_meet, workers_close on 4096 bytes, 64-byte
 * aligned, which nas__emit_workers_type names for the driver. */
void nas__emit_workers_type(nas_buf *out);
void nas__emit_workers(nas__sources *out);
/* Row functions, one for each distinct shape and tile; the name depends on these alone. */
void nas__kernel_name(const nas__program *program, const nas__stage *stage,
                      nas_buf *out); /* emit_kernel.c */
/* nas__stage_shape - the same without the tiles. */
void nas__stage_shape(const nas__program *program, const nas__stage *stage, nas_buf *out);
void nas__emit_kernel(const nas__program *program, const nas__stage *stage, nas__sources *out);
/* nas__emit_row_function - the function alone. */
void nas__emit_row_function(const nas__program *program, const nas__stage *stage, const char *name,
                            nas_buf *out);
/* nas__is_timed - is the stage one that runs, and that a profile tells the time of? */
bool nas__is_timed(const nas__stage *stage);
/* nas__emit_shuffles - units; nas__emit_rows - the loop over rows, for the body. emit_rows.c */
void nas__emit_shuffles(const nas__program *program, nas__sources *out);
void nas__emit_rows(const nas__program *program, nas_buf *out);
/* nas__pack_weights - the constant model_weights: out[plan.weight_floats], floats or halves. INVALID without weights, RANGE
 * where halves cannot hold them. emit_weights.c */
nas_status nas__pack_weights(nas_ctx *ctx, const nas__program *program, void *out);
/* nas__pack_stage - floats of one stage, without its pair: out[nas__weight_floats(stage)]. */
void nas__pack_stage(const nas__stage *stage, float *out);

/* ---- emit_half.c: half precision ------------------------------------------------------------------------------------ */

void nas__emit_half_vectors(const nas__program *program,
                            nas_buf *out); /* in the place of nas__emit_vectors's */
/* nas__weight_operand - type of what SPLAT sets and MADD multiplies by, up to the name: in halves or not. */
const char *nas__weight_operand(const nas__program *program);
/* nas__weights_twice - so that one instruction of 32 bits spreads a half over a vector: transposed convolutions, of x86-64. */
bool nas__weights_twice(const nas__program *program);
void nas__emit_half_copies(nas_buf *out); /* copy_in and copy_out */
/* nas__half_block - most products of a stage that are added in half precision before the sum is widened; 0: all of them,
 * or the program is not one of halves. */
int32_t nas__half_block(const nas__program *program, const nas__stage *stage);
/* nas__half_weights - to the nearest halves. RANGE naming the node for one that would be infinite. */
nas_status nas__half_weights(nas_ctx *ctx, const char *node, const float *weights, size_t n,
                             uint16_t *out);
double nas__half_value(uint16_t half); /* of a finite one */

/* What model.h says, whatever form the code has. */
typedef struct nas__model_contract {
    const char *name, *graph_hash;
    const nas_target *target;
    nas_shape in, out;
    size_t arena_bytes;
    int32_t max_threads;
    int32_t layers; /* that model_profile times; 0 without */
    uint64_t macs;
} nas__model_contract;
uint64_t nas__graph_macs(const nas_graph *graph);
void nas__emit_contract(const nas__model_contract *contract, nas_buf *out);
/* nas__emit_clock - clock_us(); needs <time.h> */
void nas__emit_clock(nas_buf *out);
/* nas__emit_entry_points - model_open, model_run, model_close over `run_thread`. tile_registers: kernels use those of AMX. */
void nas__emit_entry_points(bool threads, bool tile_registers, nas_buf *out);

/* ---- form.c: a network in the row form or in the layer form ------------------------------------------------------ */

typedef struct nas__form {
    nas__program *rows; /* one of the two */
    struct nas__layers *layers;
    nas_graph *graph;  /* simplified */
    nas_graph *phases; /* what layers are of, where it is not `graph`: see nas__graph_phases */
    nas_graph
        *sliced; /* the same where that has channels that need no computing: see nas__graph_slice */
    char graph_hash[NAS_SHA256_HEX]; /* of the network as given, structure only */
} nas__form;

/* nas__form_lower - in the form that the options ask for.
 * Errors: UNSUPPORTED naming the node. */
nas_status nas__form_lower(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                           nas__form *out);
void nas__form_free(nas__form *form);
nas_status nas__form_emit(nas_ctx *ctx, const nas__form *form,
                          nas__sources *out); /* all but the weights */
void nas__form_dump(const nas__form *form, nas_buf *out);
size_t nas__form_arena_bytes(const nas__form *form);
size_t nas__form_weight_floats(const nas__form *form);
bool nas__form_has_integers(const nas__form *form); /* weights are words, not all of them floats */
size_t nas__form_weight_bytes(const nas__form *form);
bool nas__form_is_half(const nas__form *form);
/* nas__form_pack - the constant model_weights: out[weight_floats], floats or halves. Errors: those of nas__pack_weights. */
nas_status nas__form_pack(nas_ctx *ctx, const nas__form *form, void *out);
const nas_graph *nas__form_graph(const nas__form *form); /* as it is compiled */
const char *nas__form_graph_hash(const nas__form *form); /* of the network as given */
nas_status nas__form_emit_weights_c(nas_ctx *ctx, const nas__form *form, const nas_target *target,
                                    nas_buf *out); /* emit_weights.c */

/* ---- graph_passes.c: on the graph, before it is lowered ---------------------------------------------------------- */

/* nas__graph_optimize - a new graph that computes the same, simplified by these passes in order:
 *   constants    nodes of CONSTANTs alone become a CONSTANT; nodes that by operator, attributes and shape hand their
 *                operand on (+ 0, * 1, a slice of everything ...) go
 *   batch_norm   BATCH_NORM, AFFINE, NEG, ADD_SCALAR, and ADD, SUB, MUL, DIV by a CONSTANT [1,1,1,C|1], into the CONV or
 *                CONV_TRANSPOSE whose value nothing else reads; it keeps its name and may get a bias
 *   duplicates   equal operators without params on equal operands become one
 *   dead         nodes that do not lead to the output go, unused inputs too (every pass drops what it cuts off)
 * Numbers in weights never decide: without weights the result has the structure that it would have with them, and no
 * weights. Quantized values and params are left as they are.
 * in           output set; nodes may be dead
 * dump_after   name of a pass, its result is appended to `dump` with nas_graph_dump; NULL: none
 * out          verifies
 * Errors: NOTFOUND (no such pass), INVALID (a constant or a folded weight that is not finite, node named), INTERNAL naming
 * the pass whose result does not verify (also when `in` does not), NOMEM. */
nas_status nas__graph_optimize(nas_ctx *ctx, const nas_graph *in, const char *dump_after,
                               nas_buf *dump, nas_graph **out);
const char *nas__graph_pass(int32_t index); /* names in order; NULL past the last */

/* nas__graph_phases - transposed convolutions as convolutions and depth-to-space; *out NULL when there are none that can.
 * graph_phases.c */
nas_status nas__graph_phases(nas_ctx *ctx, const nas_graph *in, nas_graph **out);

/* nas__graph_slice - without the channels that are constant (empty filters) or that no filter reads, where nothing needs
 * them: biases take what they add. Channels stay in whole vectors of `lanes`. Names, shapes of inputs and output stay; *out
 * NULL when nothing goes, there are no weights, or there are integers. graph_slice.c */
nas_status nas__graph_slice(nas_ctx *ctx, const nas_graph *in, int32_t lanes, nas_graph **out);

/* A node with constant operands. */
typedef struct nas__constant {
    const nas_node *node;
    nas_shape shapes[NAS_NODE_INPUTS_MAX];      /* of the operands */
    const float *operands[NAS_NODE_INPUTS_MAX]; /* [n,h,w,c] */
    const float *const *params;                 /* by slot */
} nas__constant;

bool nas__constant_foldable(nas_op op); /* graph_constants.c */
/* nas__unary_value - the function of a UNARY node. */
double nas__unary_value(const nas_node *node, double x);
/* nas__constant_fold - the value of a foldable node, [n,h,w,c]. INVALID naming the node when it is not finite. */
nas_status nas__constant_fold(nas_ctx *ctx, const nas__constant *constant, float *out);

/* ---- rt_embed.c: the files of compiler/rt/ ---------------------------------------------------------------------- */

const char *nas__rt_file(const char *name); /* NULL when there is no such file */

/* ---- toolchain.c ----------------------------------------------------------------------------------------------- */

/* One compiler as it is installed here. */
typedef struct nas__toolchain {
    char compiler[256];
    char version[128];    /* first line of --version */
    char flags[256];      /* everything that changes the generated code */
    char base_flags[128]; /* the same for the main program */
    int64_t timeout_ms;
} nas__toolchain;

nas_status nas__toolchain_open(nas_ctx *ctx, const nas_compile_options *options,
                               nas__toolchain *out);
enum { NAS__CC_ARGS_MAX = 32 };
/* nas__cc - runs the compiler with its flags and `args` (NULL-terminated) in folder `cwd`.
 * Errors: TOOLCHAIN with its stderr, IO when the disk is full, TIMEOUT, CANCELLED. */
nas_status nas__cc(nas_ctx *ctx, const nas__toolchain *toolchain, const char *cwd,
                   const char *const *args);

/* ---- cache.c --------------------------------------------------------------------------------------------------- */

/* Entries are files `<dir>/<two hex>/<key><suffix>`; they appear by rename and never change. */
nas_status nas__cache_path(nas_ctx *ctx, const char *dir, const char *key, const char *suffix,
                           size_t size, char *out);
/* nas__cache_find - is a whole, undamaged entry there? sha256 is that of its content. */
bool nas__cache_find(const char *path, char sha256[NAS_SHA256_HEX]);
/* nas__cache_put - moves `from` (same file system) to `path` with its check sum; mode 0555 or 0444. `durable`: on disk
 * before it appears; else a power failure may cost the entry, which then counts as absent. */
nas_status nas__cache_put(nas_ctx *ctx, const char *from, const char *path, unsigned mode,
                          bool durable, char sha256[NAS_SHA256_HEX]);
/* nas__cache_work_dir - a fresh folder inside the cache for one build; the caller removes it. */
nas_status nas__cache_work_dir(nas_ctx *ctx, const char *dir, size_t size, char *out);

#endif
