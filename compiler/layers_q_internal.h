/* layers_q_internal.h - integer kernels of the layer form: as layers_internal.h, with 8-bit values. Never leaves compiler/.
 *
 * Arithmetic is that of ir/quantize.h, bit for bit. A value is a view of a buffer of bytes [h][w][c], uint8 or int8, with
 * borders that hold its zero point: a kernel addresses the pixels of the padding like any others. All kernels are
 *     static void NAME(const void *in, void *out, const void *residual, const void *weights, void *scratch, int begin,
 *                      int end)
 * so that one table can hold them and the kernels of floats; `in`, `out`, `residual` as there; `weights` is 64-byte aligned,
 * `scratch` per thread and 64-byte aligned. No byte beyond the last channel is read or written; borders are not written.
 * Results do not depend on the split of the units; a call copies the input rows of a band to its scratch once and keeps
 * them for the units that follow, so long runs are cheaper than many calls.
 *
 * Scales, zero points and clamps are data (the head of the weight block), not text: layers of equal geometry share one
 * function, however they are quantized. */
#ifndef NAS_COMPILER_LAYERS_Q_INTERNAL_H
#define NAS_COMPILER_LAYERS_Q_INTERNAL_H

#include "compiler/layers_internal.h"
#include "ir/quantize.h"

/* What multiplies and adds; a property of the target. Matrix units multiply rows of pixels by columns of channels; they are
 * an offer beside the vectors of the same target, for ways of the algorithm MATRIX. */
typedef enum nas__dot {
    NAS__DOT_PLAIN, /* vectors of int32, any target */
    NAS__DOT_BYTES, /* vpmaddubsw: uint8 x int8 in twos to 16 bits, a way of AVX2 for weights of up to 7 bits */
    NAS__DOT_PAIR, /* vpmaddwd: pairs of int16, AVX2 and AVX-512BW */
    NAS__DOT_VNNI, /* vpdpbusd: uint8 x int8 in fours */
    NAS__DOT_NEON, /* sdot: int8 x int8 in fours */
    NAS__DOT_MMLA, /* smmla, usmmla: 2 pixels x 8 by 8 x 2 channels, Arm i8mm */
    NAS__DOT_AMX   /* tdpbusd, tdpbssd: 16 pixels x 64 by 64 x 16 channels, in tile registers */
} nas__dot;
nas__dot nas__dot_of(const nas_target *target);    /* of vectors */
nas__dot nas__matrix_of(const nas_target *target); /* the matrix unit, nas__dot_of without one */
int32_t nas__dot_group(nas__dot dot); /* input channels multiplied by one lane at once: 1..8 */

/* One convolution. In `conv` act, lo, hi are not used: `low` and `high` clamp the codes. */
typedef struct nas__qconv {
    nas__conv conv; /* pitches and rows in bytes */
    bool in_signed, out_signed, residual_signed;
    bool
        joins; /* with has_residual: the sum is rounded to a code of its own, which is then added */
    int32_t
        weight_bits; /* 2..8; up to 4 are stored two a byte, 2 four a byte, where that is wanted */
    bool
        powers; /* every weight is 0 or +-2^i, i of 0..6: four bits are enough, whatever weight_bits says */
    bool has_left; /* the layer needs nas_requant.left > 0 */
    bool half;     /* every multiplier is below 2^30, and nothing is shifted left */
    bool prelu;    /* the sum is rounded to a code of its own, then prelu makes another of it */
    /* What nas__qconv_look finds in the numbers of a layer, for ways that make use of it; all false or 0 is always right. */
    bool single; /* single precision is exact: see nas__qconv_look */
    bool
        late; /* with single and prelu: the code in front needs no bounds, the result has others by channel */
    bool open_low, open_high; /* results have no bounds but those of their type, below, above */
    int32_t
        dots; /* planes, single and joins: products of pairs of words that add the residual; 0: other products */
    /* Values in planes, for ways of the algorithm PIXELS alone, which take no other: bytes from the codes of four channels
     * to those of the next four; 0: [h][w][c]. out_plane > 0 says which. */
    size_t in_plane, out_plane, residual_plane;
    /* With planes: [out_c][kernel_h*kernel_w], 1 where all weights of a tap are 0 and it is left out; NULL: nowhere. Borrowed. */
    const uint8_t *absent;
} nas__qconv;

/* The numbers of one layer; pointers are borrowed. */
typedef struct nas__qconv_data {
    const int8_t *weight;      /* codes [O,KH,KW,I/groups], within weight_bits */
    const int32_t *bias;       /* [O] */
    const int32_t *multiplier; /* [O] */
    int32_t zero_in;
    nas_requant requant;        /* zero_residual and multiplier_residual with has_residual */
    nas_requant between;        /* joins, prelu: of the code before */
    int32_t multiplier_between; /* joins, prelu: nas_quant_add_multiplier of that code */
    const int32_t *below; /* prelu: [O] nas_quant_slope_multiplier, of codes below its zero point */
} nas__qconv_data;

typedef enum nas__qconv_algorithm {
    NAS__QCONV_DIRECT, /* pixels x vectors of output channels in registers, each group by itself */
    NAS__QCONV_DEPTHWISE,  /* groups == channels: lanes are channels */
    NAS__QCONV_MATRIX,     /* as direct, on the matrix unit */
    NAS__QCONV_WINOGRAD_2, /* F(2x2,3x3), exact: pairs of int16 */
    NAS__QCONV_WINOGRAD_4, /* F(4x4,3x3) */
    NAS__QCONV_SPARSE, /* zeros left out: DIRECT with lists, a block of whole vectors of outputs shares one */
    NAS__QCONV_SPARSE_PANEL, /* the same, pixels in lanes, `group` outputs share a list of what they keep */
    NAS__QCONV_PLANE_TILES, /* values in planes on tile registers: 16 pixels x `vectors` outputs */
    NAS__QCONV_PIXELS /* values in planes, pixels in lanes: vectors of `pixels` x 16, `vectors` outputs */
} nas__qconv_algorithm;

typedef struct nas__qconv_way {
    nas__qconv_algorithm algorithm;
    int32_t pixels, vectors; /* register tile */
    int32_t
        stored_bits; /* of a weight in memory: 2, 4, 8, or 16 (widened before; PAIR or WINOGRAD) */
    int32_t
        split; /* DIRECT: 2 when a vector holds half as many outputs, each as two sums; else 0 */
    int32_t
        sums16; /* DIRECT: products added in 16 bits before they are widened; 0: 32 bits at once */
    int32_t batch;   /* WINOGRAD: tiles transformed together, a multiple of `pixels` */
    int32_t group;   /* SPARSE_PANEL: outputs that share a list */
    int32_t entries; /* SPARSE*: of all lists together; the text does not depend on it */
    double cycles;   /* estimate for the whole layer, one thread */
} nas__qconv_way;
enum { NAS__QCONV_WAYS_MAX = 32 };

/* nas__qconv_ways - cheapest estimate first; >= 1 always. Sparse ways when conv.kept says which codes are not 0. */
int32_t nas__qconv_ways(const nas_target *target, const nas__qconv *q,
                        nas__qconv_way out[NAS__QCONV_WAYS_MAX]);
/* nas__quant_is_power - is the code 0 or +-2^i, i of 0..6? */
bool nas__quant_is_power(int8_t code);
/* nas__qconv_exponents - are the stored four bits a sign and an exponent? */
bool nas__qconv_exponents(const nas__qconv *q, const nas__qconv_way *way);
bool nas__qconv_is_sparse(const nas__qconv_way *way);
/* nas__qconv_shared - of a sparse way: outputs that share a list. */
int32_t nas__qconv_shared(const nas_target *target, const nas__qconv_way *way);
/* nas__qconv_sparse_products - as nas__sparse_products. */
double nas__qconv_sparse_products(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way);
/* nas__qconv_look - sets single, late, open_low, open_high and dots. Single precision is exact where sums are of up to 24
 * bits, results of less than 16 and multipliers of up to 24, unless another float gives the same codes: then one fused
 * multiplication and addition, which rounds once, scales a sum. A prelu must round all codes as it should. */
void nas__qconv_look(nas__qconv *q, const nas__qconv_data *data);
/* nas__qconv_looks - has the target kernels on [h][w][c] that make use of what is found? */
bool nas__qconv_looks(const nas_target *target);
/* nas__qconv_pixels_legal - can it be computed on values in planes? */
bool nas__qconv_pixels_legal(const nas_target *target, const nas__conv *conv);
/* nas__q_plane_bytes - of a row of one plane: `width` pixels as whole vectors, and a border beside them. */
size_t nas__q_plane_bytes(int32_t width, int32_t border);
const char *nas__qconv_algorithm_name(nas__qconv_algorithm algorithm);
/* nas__qconv_same_kind - do the ways differ by their tile alone? */
bool nas__qconv_same_kind(const nas__qconv_way *a, const nas__qconv_way *b);
int32_t nas__qconv_units(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way);
/* nas__qconv_rows_of_unit - as nas__conv_rows_of_unit. */
int32_t nas__qconv_rows_of_unit(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way);
size_t nas__qconv_scratch_bytes(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way); /* per thread */
size_t nas__qconv_weight_bytes(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way); /* a multiple of 64 */
/* nas__qconv_pack - the weight block, nas__qconv_weight_bytes of it. Errors: RANGE when a sum may exceed
 * NAS_QUANT_ACC_MAX, INVALID (left without has_left, a code outside weight_bits, no power of two with `powers`). */
nas_status nas__qconv_pack(nas_ctx *ctx, const nas_target *target, const nas__qconv *q,
                           const nas__qconv_way *way, const nas__qconv_data *data, void *out);
void nas__qconv_name(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                     nas_buf *out);
/* nas__qconv_emit - the function, on nas__emit_vector_prelude and nas__emit_quant_prelude (in this order). */
void nas__qconv_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                     nas_buf *out);
void nas__emit_quant_prelude(const nas_target *target, nas_buf *out);

/* Places in the head of a weight block, int32 each; the rest of its 64 bytes is 0. */
enum {
    NAS__Q_ZERO_IN,
    NAS__Q_ZERO_OUT,
    NAS__Q_LOW,
    NAS__Q_HIGH,
    NAS__Q_LEFT,
    NAS__Q_MOST, /* NAS_QUANT_ACC_MAX >> left */
    NAS__Q_ZERO_RESIDUAL,
    NAS__Q_MULTIPLIER_RESIDUAL,
    NAS__Q_HEAD = 16
};

/* ---- operators other than convolutions: layer_qop.c ------------------------------------------------------------------- */

typedef enum nas__qop_kind {
    NAS__QOP_ADD, /* in[0] + in[1]; rows or columns of one pixel are repeated; ReLU and clip are the clamps */
    NAS__QOP_MUL,      /* in[0] * in[1], as ADD */
    NAS__QOP_MAX_POOL, /* codes compare like values: in and out have one quantization */
    NAS__QOP_AVG_POOL, /* may change the quantization */
    NAS__QOP_QUANTIZE, /* `in` is the caller's fp32 image, planar [c][h][w], any alignment; in[] is not used */
    NAS__QOP_DEQUANTIZE, /* `out` is fp32, planar [c][h][w], any alignment; the view `out` is not used */
    NAS__QOP_ENCODE, /* QUANTIZE from a view of floats, in[0] */
    NAS__QOP_DECODE, /* DEQUANTIZE to a view of floats, out */
    NAS__QOP_PRELU, /* one multiplier for codes above the zero point, one for each channel below it */
    NAS__QOP_TABLE,          /* any function of one code */
    NAS__QOP_DEPTH_TO_SPACE, /* codes move, through a table where `mapped` */
    NAS__QOP_NEAREST         /* resize: the same */
} nas__qop_kind;

/* One operator; views in bytes, those of floats in floats. `in` and `residual` (the second operand) point to pixel (0,0): pools look at the
 * coordinates, so that borders are not needed. A unit is an output row. No scratch. */
typedef struct nas__qop {
    nas__qop_kind kind;
    nas__view in[2], out;
    bool in_signed[2], out_signed;
    nas_pool_attributes pool;
    int32_t
        block; /* DEPTH_TO_SPACE; DEQUANTIZE: > 1 for depth-to-space by this factor on the way */
    nas_resize_mode resize; /* NEAREST */
    bool mapped;            /* DEPTH_TO_SPACE, NEAREST: in and out differ in their quantization */
} nas__qop;

/* nas__qop_copy - an average over one pixel: changes the quantization, or copies. */
nas__qop nas__qop_copy(void);

/* QUANTIZE   q = clamp(round_half_to_even(x/scale) + zero_out, low, high), the division in fp32; NaN gives low
 * DEQUANTIZE (q - zero_in[0])*scale in fp32 */
typedef struct nas__qop_data {
    int32_t zero_in[2];
    int32_t multiplier[2]; /* ADD: nas_quant_add_multiplier */
    double ratio; /* AVG_POOL: scale_in/scale_out; MUL: scale_in[0]*scale_in[1]/scale_out */
    float scale;  /* QUANTIZE, DEQUANTIZE */
    const int32_t *
        below; /* PRELU: [c] multipliers where the code is less than the zero point; multiplier[0] elsewhere */
    const uint8_t
        *table; /* TABLE, mapped moves: [256], the code of the result by the byte that is read */
    nas_requant requant; /* zero_out, low, high; left is found by the packer */
} nas__qop_data;

const char *nas__qop_kind_name(nas__qop_kind kind);
/* nas__qop_has_table - does the weight block hold one? */
bool nas__qop_has_table(const nas__qop *op);
int32_t nas__qop_units(const nas__qop *op);
size_t nas__qop_weight_bytes(const nas__qop *op); /* a multiple of 64 */
/* nas__qop_pack - INVALID or RANGE for a ratio that has no multiplier. */
nas_status nas__qop_pack(nas_ctx *ctx, const nas__qop *op, const nas__qop_data *data, void *out);
void nas__qop_name(const nas_target *target, const nas__qop *op, nas_buf *out);
void nas__qop_emit(const nas_target *target, const nas__qop *op,
                   nas_buf *out); /* on both preludes */
/* layer_qop_planes.c: QUANTIZE to planes, of up to four channels, and DEQUANTIZE from planes. */
void nas__qop_emit_words(const nas__qop *op, int32_t channels, nas_buf *out);
void nas__qop_emit_dequantize_planes(const nas__qop *op, nas_buf *out);
/* nas__qop_emit_move - row y of DEPTH_TO_SPACE and NEAREST: layer_qop_move.c */
void nas__qop_emit_move(const nas__qop *op, nas_buf *out);

/* More places in the head. */
enum {
    NAS__Q_ZERO_BETWEEN = 8,
    NAS__Q_LOW_BETWEEN,
    NAS__Q_HIGH_BETWEEN,
    NAS__Q_MULTIPLIER_BETWEEN,
    NAS__Q_ABOVE, /* the float that is multiplied with instead, where `single` */
    NAS__Q_PAIRS, /* `dots` of them: words of both multipliers, that of the code in front, which add up to them */
    NAS__Q_ZERO_IN_2 = 8,
    NAS__Q_MULTIPLIER_1,
    NAS__Q_MULTIPLIER_2,
    NAS__Q_SCALE /* bits of the float */
};

#endif
