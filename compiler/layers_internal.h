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
    NAS__CONV_DIRECT,     /* GEMM-like: P pixels x V vectors of outputs in registers, taps and input channels inside */
    NAS__CONV_DEPTHWISE,  /* groups == channels: lanes are channels, runs of pixels reuse loads */
    NAS__CONV_GROUPED,    /* direct, once for each group */
    NAS__CONV_WINOGRAD_2, /* F(2x2,3x3), Lavin & Gray, arXiv:1509.09308 */
    NAS__CONV_WINOGRAD_4, /* F(4x4,3x3) */
    NAS__CONV_VECTOR      /* one output pixel (fully connected): many output vectors, streams the weights once */
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
} nas__conv;

/* One way to compute it. Fields that an algorithm does not use are 0, so that equal ways compare equal. */
typedef struct nas__conv_way {
    nas__conv_algorithm algorithm;
    int32_t pixels, vectors; /* register tile: output pixels x vectors of output channels */
    int32_t outer;           /* 0: rows outside, output blocks inside; 1: output blocks outside */
    int32_t batch;           /* WINOGRAD: tiles transformed together */
    double cycles;           /* estimate for the whole layer, one thread */
} nas__conv_way;
enum { NAS__CONV_WAYS_MAX = 24 };

/* nas__conv_ways - the ways that make sense on this target, cheapest estimate first; >= 1 always (a direct way exists for
 * every legal convolution). The estimate is a small model: FMA issue, loads, weight traffic, transforms. */
int32_t nas__conv_ways(const nas_target *target, const nas__conv *conv,
                       nas__conv_way out[NAS__CONV_WAYS_MAX]);
const char *nas__conv_algorithm_name(nas__conv_algorithm algorithm);
/* nas__conv_units - pieces of independent work; a function of shape and way only. */
int32_t nas__conv_units(const nas_target *target, const nas__conv *conv, const nas__conv_way *way);
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
/* nas__emit_vector_prelude - LANES, vf, vi, load, store, splat, load_n/store_n (the first n lanes, exactly), relu, vmax,
 * vmin: what every kernel text may use. */
void nas__emit_vector_prelude(const nas_target *target, nas_buf *out);

#endif
