/* layers_internal.h - the second form of a compiled network: one layer after another over whole [H][W][C] buffers,
 * channels in lanes. Never leaves compiler/.
 *
 * The row pipeline (compiler_internal.h) is for image-to-image networks of stride 1; this form is for everything else:
 * classifiers, strided, grouped and depthwise convolutions, pools, concatenations. nas_compile picks the form.
 *
 * Buffers. A value is a view of a buffer: `at` floats from the buffer's start to pixel (0,0), `pitch` floats from pixel
 * to pixel, `row` floats from row to row. Channels are contiguous. Buffers carry borders (zero, or the zero point for
 * integers) as wide as the widest padding of any reader, so a kernel may address the pixels of the padding and never
 * tests a coordinate. A concatenation along channels is a buffer whose members are views with a channel offset.
 *
 * Kernels. A kernel is one C function for one exact shape, split into `units` of independent work so that threads take
 * [begin, end) of them; results do not depend on the split. Its name is a function of everything that its text depends
 * on, so equal layers share one function and one cached object. Partial vectors at the end of the channels are loaded and
 * stored exactly (no byte beyond the last channel is touched).
 *     static void NAME(const T *in, T *out, const T *residual, const void *weights, void *scratch, int begin, int end)
 * `in` points to the first tap of output pixel (0,0) (inside the border when there is padding), `out` and `residual` to
 * pixel (0,0); `weights` is the packed block of this layer; `scratch` is per thread, 64-byte aligned. */
#ifndef NAS_COMPILER_LAYERS_INTERNAL_H
#define NAS_COMPILER_LAYERS_INTERNAL_H

#include "compiler/compiler_internal.h"

typedef enum nas__layer_act {
    NAS__LACT_NONE,
    NAS__LACT_RELU,
    NAS__LACT_CLIP,  /* lo, hi */
    NAS__LACT_PRELU, /* slopes in the weight block */
    NAS__LACT_LEAKY, /* lo is the slope */
    NAS__LACT_HARD_SWISH
} nas__layer_act;

/* How a convolution is computed. The list of candidates of a layer is what --explain prints and --tune measures. */
typedef enum nas__conv_algorithm {
    NAS__CONV_DIRECT, /* GEMM-like: P pixels x V vectors of outputs in registers, taps and input channels inside */
    NAS__CONV_DEPTHWISE,  /* groups == channels: lanes are channels, runs of pixels reuse loads */
    NAS__CONV_GROUPED,    /* direct, once for each group */
    NAS__CONV_WINOGRAD_2, /* F(2x2,3x3), Lavin & Gray, arXiv:1509.09308 */
    NAS__CONV_WINOGRAD_4, /* F(4x4,3x3) */
    NAS__CONV_VECTOR, /* one output pixel (fully connected): many output vectors, streams the weights once */
    /* Zeros of the weights are left out; neighbouring outputs share a list of the products that they keep. */
    NAS__CONV_SPARSE, /* DIRECT with lists: a block of whole vectors of outputs shares one */
    NAS__CONV_SPARSE_RUN, /* the same lists, of runs of inputs: each output picks its own of a run (AVX2) */
    NAS__CONV_SPARSE_PANEL, /* pixels in lanes: `group` outputs share a list; the input of a tile is transposed before */
    NAS__CONV_SPARSE_CODE,   /* the same panel; the mask is machine code (AVX2, 64-bit Arm) */
    NAS__CONV_SVE,           /* DIRECT, GROUPED and VECTOR on vectors of SVE */
    NAS__CONV_SVE_DEPTHWISE, /* DEPTHWISE on them */
    NAS__CONV_BF16,          /* DIRECT and VECTOR with products of bf16 (64-bit Arm) */
    NAS__CONV_BF16_DOT,      /* x86-64: dot products of pairs in vectors, inputs staged */
    NAS__CONV_BF16_TILE      /* x86-64: tile registers, inputs staged */
} nas__conv_algorithm;

/* One convolution layer with everything fused into it: y = act(conv(x) + bias [+ residual]). */
typedef struct nas__conv {
    int32_t in_c, out_c, groups;
    int32_t out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t in_pitch, out_pitch, residual_pitch; /* elements from pixel to pixel */
    size_t in_row, out_row, residual_row;        /* elements from row to row */
    bool has_residual;
    nas__layer_act act; /* applied after the residual */
    float lo, hi;       /* CLIP, LEAKY */
    /* Which weights are not zero, a byte each, [O,KH,KW,I]; NULL: all count. Borrowed. It decides which ways make sense and
     * how large their lists are, and the text of SPARSE_CODE alone. */
    const uint8_t *kept;
} nas__conv;

/* One way to compute it. Fields that an algorithm does not use are 0, so that equal ways compare equal. */
typedef struct nas__conv_way {
    nas__conv_algorithm algorithm;
    int32_t pixels, vectors; /* register tile: output pixels x vectors of output channels */
    int32_t outer;           /* 0: rows outside, output blocks inside; 1: output blocks outside */
    int32_t batch; /* WINOGRAD: tiles transformed together; BF16_DOT, _TILE: rows of a strip */
    int32_t
        depth; /* DIRECT, SPARSE_PANEL: steps of the sum that all tiles of a unit take before the next ones; 0: all */
    int32_t
        group; /* SPARSE_PANEL: outputs that share a list; SPARSE_CODE: whose sums are in registers; SPARSE_RUN: inputs of a run, 4 or 8 */
    int32_t
        joined; /* SPARSE_PANEL: 1: a group is neighbouring outputs, stored as soon as they can be; 0: any outputs;
                   BF16_DOT, _TILE: what is staged for a position: 0: its channels, 1: of a kernel row, 2: of the kernel */
    int32_t entries; /* SPARSE*: of all lists together; the text does not depend on it */
    double cycles;   /* estimate for the whole layer, one thread */
} nas__conv_way;
enum { NAS__CONV_WAYS_MAX = 96 };

/* nas__conv_ways - the ways that make sense on this target, cheapest estimate first; >= 1 always (a direct way exists for
 * every legal convolution). The estimate is a small model: FMA issue, loads, weight traffic, transforms. */
int32_t nas__conv_ways(const nas_target *target, const nas__conv *conv,
                       nas__conv_way out[NAS__CONV_WAYS_MAX]);
/* nas__conv_winograd_pair - channels of the last vector of `channels` when two tiles of Winograd share it, because at most half
 * of it is used; else 0. */
int32_t nas__conv_winograd_pair(const nas_target *target, int32_t channels);
bool nas__conv_is_sparse(const nas__conv_way *way);
bool nas__conv_is_sve(const nas__conv_way *way);
bool nas__conv_is_bf16(const nas__conv_way *way);   /* has products of it */
bool nas__conv_is_staged(const nas__conv_way *way); /* BF16_DOT, BF16_TILE */
/* nas__sparse_products - multiplications for one output pixel of a sparse way, those with zeros that a list contains
 * because a neighbour needs its entry included. */
double nas__sparse_products(const nas_target *target, const nas__conv *conv,
                            const nas__conv_way *way);
const char *nas__conv_algorithm_name(nas__conv_algorithm algorithm);
/* nas__conv_units - pieces of independent work; a function of shape and way only. */
int32_t nas__conv_units(const nas_target *target, const nas__conv *conv, const nas__conv_way *way);
/* nas__conv_rows_of_unit - rows of the output that one unit works on, when units go through the rows in order; 0 when
 * they do not. */
int32_t nas__conv_rows_of_unit(const nas_target *target, const nas__conv *conv,
                               const nas__conv_way *way);
size_t nas__conv_scratch_floats(const nas_target *target, const nas__conv *conv,
                                const nas__conv_way *way); /* per thread */
size_t nas__conv_weight_floats(const nas_target *target, const nas__conv *conv,
                               const nas__conv_way *way);
/* nas__conv_pack - the weight block: weight [O,KH,KW,I/groups], bias [O] or NULL, slope [O] for PRELU or NULL. Transforms
 * of Winograd are computed here, in double. */
nas_status nas__conv_pack(nas_ctx *ctx, const nas_target *target, const nas__conv *conv,
                          const nas__conv_way *way, const float *weight, const float *bias,
                          const float *slope, float *out);
/* nas__conv_name - C identifier, a function of all that the text depends on (a long description may end in a hash). */
void nas__conv_name(const nas_target *target, const nas__conv *conv, const nas__conv_way *way,
                    nas_buf *out);
/* nas__conv_emit - the function, on the vector helpers of nas__emit_vector_prelude. */
void nas__conv_emit(const nas_target *target, const nas__conv *conv, const nas__conv_way *way,
                    nas_buf *out);
/* nas__conv_emit_apart - the same without the machine code of SPARSE_CODE, which goes to `code`. */
void nas__conv_emit_apart(const nas_target *target, const nas__conv *conv, const nas__conv_way *way,
                          nas_buf *out, nas__machine_code *code);
/* nas__emit_vector_prelude - LANES, vf, vi, load, store, splat, load_n/store_n (the first n lanes, exactly), relu, vmax,
 * vmin: what every kernel text may use. */
void nas__emit_vector_prelude(const nas_target *target, nas_buf *out);

/* ---- operators other than convolutions: layer_op*.c ------------------------------------------------------------------- */

/* A value as a kernel sees it: [h][w][c], elements from pixel to pixel and from row to row. shape.n is 1. */
typedef struct nas__view {
    nas_shape shape;
    int32_t pitch;
    size_t row;
    size_t
        plane; /* 0, or codes in planes of four channels, [h][c/4][w][4]: bytes of a row of one */
} nas__view;

/* One operator. Its kernel has the signature of all kernels; `residual` is the second operand, NULL when there is none.
 *   CONCAT   one kernel for each operand: copies in[0] to `out`, which has the same shape (a part of the result)
 *   INPUT    `in` is the caller's image, planar [c][h][w], any alignment; writes the view
 *   COUNT    (as operator of `node`: not used) the output is written by nas__op_emit_output
 *   CONSTANT no kernel: readers get a view of the weights
 * Second operands of ADD, SUB, MUL, DIV broadcast where their extent is 1. CONV has its own kernels, CONV_TRANSPOSE is
 * here. Borders of `out` are never written. Kernels may read up to one vector beyond the channels of `in` only where
 * load_n would read it too, that is: never beyond the last channel of the last pixel. */
typedef struct nas__op {
    const nas_node *node; /* operator and attributes */
    int32_t n_inputs;
    nas__view in[2], out;
    nas__layer_act
        act; /* of ADD, SUB, MUL, DIV, BATCH_NORM, AVG_POOL, CONV_TRANSPOSE: applied to the result */
    float lo, hi;
} nas__op;

/* The weights of an operator, borrowed from the graph in slot order (prelu slope; batch norm scale, bias, mean, variance;
 * layer norm scale, bias; conv_transpose weight, bias); entries may be NULL where the operator allows it. */
typedef struct nas__op_weights {
    const float *data[NAS_NODE_PARAMS_MAX];
} nas__op_weights;

/* nas__op_check - UNSUPPORTED naming the node when there is no kernel for it. */
nas_status nas__op_check(nas_ctx *ctx, const nas__op *op);
int32_t nas__op_units(const nas_target *target, const nas__op *op); /* >= 1 */
size_t nas__op_scratch_floats(const nas_target *target, const nas__op *op);
size_t nas__op_weight_floats(const nas_target *target, const nas__op *op);
void nas__op_pack(const nas_target *target, const nas__op *op, const nas__op_weights *weights,
                  float *out);
void nas__op_name(const nas_target *target, const nas__op *op, nas_buf *out);
void nas__op_emit(const nas_target *target, const nas__op *op, nas_buf *out);
/* The result as the caller wants it: `in` is a view, `out` planar [c][h][w] of any alignment. */
void nas__op_output_name(const nas_target *target, const nas__view *in, nas_buf *out);
void nas__op_emit_output(const nas_target *target, const nas__view *in, nas_buf *out);
int32_t nas__op_output_units(const nas__view *in);

/* nas__emit_transpose - rows r0.. (vf, `lanes` of them) become columns: t<k> is lane k of all of them. */
void nas__emit_transpose(int32_t lanes, const char *indent, nas_buf *out);

#endif
