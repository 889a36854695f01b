/* quantize.h - the one definition of integer arithmetic: what the kernels compute, bit for bit, and what a quantizer may
 * therefore assume. Layer 1: includes core only.
 *
 *   value     real = scale*(q - zero_point); q is uint8 (0..255) or int8 (-128..127)
 *   weight    symmetric, one scale for each output channel: q = round(w/scale), half to even, saturated to
 *             -(2^(bits-1) - 1) .. 2^(bits-1) - 1; the most negative code is never used
 *   bias      int32, round(bias/(scale_in*scale_weight[o])), half to even
 *   conv      acc = bias + sum (q_in - zero_in)*q_weight, int32. Padding holds zero_in, so its taps add nothing.
 *             |acc| <= NAS_QUANT_ACC_MAX for every input: nas_quant_accumulator proves it, otherwise there is no kernel
 *   scale     t = (clamp(acc, -A, A)*2^left*m + 2^30) >> 31 in 64 bits, shifts round down (so halves go up), with
 *             A = NAS_QUANT_ACC_MAX >> left and m = round(ratio*2^(31 - left)). One `left` a layer, one m a channel.
 *             Since |acc*2^left| <= 2^30, t fits int32 and neither it nor what is added to it below overflows.
 *   output    q = clamp(t + zero_out, low, high), ratio = scale_in*scale_weight[o]/scale_out. ReLU and clip are these
 *             bounds: low = max(type minimum, zero_out) for ReLU
 *   residual  with a second operand r: ratio is 2^NAS_QUANT_FRACTION times the above and
 *             q = clamp(((t + (((r - zero_r)*m_r + 2^9) >> 10) + 2^5) >> 6) + zero_out, low, high),
 *             m_r = round(scale_r/scale_out*2^NAS_QUANT_ADD_BITS)
 *   add       q = clamp((((a - zero_a)*m_a + (b - zero_b)*m_b + 2^15) >> 16) + zero_out, low, high), m as m_r
 *   mul       acc = (a - zero_a)*(b - zero_b), scaled like a convolution's with ratio scale_a/scale_out*scale_b
 *             Operands of add and mul have all channels; a single row or column is repeated
 *   moves     depth-to-space, nearest resize: the code itself, or what coding its value anew gives
 *   pools     the largest q (padding never wins; same quantization in and out); averages scale the sum of
 *             (q - zero_in) over the taps inside with ratio scale_in/(scale_out*divisor)
 *   prelu     q = clamp((((q_in - zero_in)*m + 2^15) >> 16) + zero_out, low, high), m as m_r of scale_in/scale_out, and
 *             times the slope of the channel where q_in < zero_in
 *   function  of one value: the code of f(real) for each of the 256 codes, computed in fp32
 *
 * Why this form: a multiplication that keeps the upper half is one instruction on NEON (sqrdmulh) and four multiplies,
 * shifts and a blend for 8 lanes of AVX2; 31 bits cost nothing more there than 15, and the rounding error of m moves a
 * result by less than 2^-8 of a step. */
#ifndef NAS_IR_QUANTIZE_H
#define NAS_IR_QUANTIZE_H

#include "core/core.h"

enum {
    NAS_QUANT_ACC_MAX = 1 << 30,
    NAS_QUANT_LEFT_MAX = 15,
    NAS_QUANT_FRACTION = 6,  /* bits of t below one step when a residual is added */
    NAS_QUANT_ADD_BITS = 16, /* fraction of m_r, m_a, m_b */
    NAS_QUANT_ADD_RATIO_MAX = 32
};

/* nas_quant_value - code of a real value: clamp(round_half_to_even(real/scale) + zero_point, low, high); NaN gives
 * the clamped zero point. scale > 0. */
int32_t nas_quant_value(double real, double scale, int32_t zero_point, int32_t low, int32_t high);

/* nas_quant_weights - codes of one output channel: n weights, bits 2..8, scale > 0. */
void nas_quant_weights(const float *weight, size_t n, double scale, int32_t bits, int8_t *out);

/* nas_quant_weight_scale - of one output channel: the scale with the least squared error among the largest absolute weight
 * over the largest code times 0.40, 0.41 ... 1; 1 when all weights are 0. bits 2..8. */
float nas_quant_weight_scale(const float *weight, size_t n, int32_t bits);

/* nas_quant_bias - code of a bias; RANGE when it exceeds NAS_QUANT_ACC_MAX (the scale of the channel is too small for
 * its bias: a quantizer must raise it). */
nas_status nas_quant_bias(nas_ctx *ctx, double bias, double scale_in, double scale_weight,
                          int32_t *out);

/* nas_quant_accumulator - RANGE unless |bias + sum (q_in - zero_in)*weight| <= NAS_QUANT_ACC_MAX for every input; with
 * |q_in - zero_in| <= 255. weight [n], of one output channel. */
nas_status nas_quant_accumulator(nas_ctx *ctx, const int8_t *weight, size_t n, int32_t bias);

/* nas_quant_left - the smallest `left` that serves ratios up to `ratio_max`; 0 below 1. INVALID unless finite and > 0,
 * RANGE at 2^NAS_QUANT_LEFT_MAX and above. */
nas_status nas_quant_left(nas_ctx *ctx, double ratio_max, int32_t *left);

/* nas_quant_multiplier - m of one channel, 0 .. 2^31 - 1 (0 for ratios below 2^-32). INVALID unless ratio is finite and
 * > 0 and left in 0..NAS_QUANT_LEFT_MAX, RANGE when the ratio needs a larger `left`. */
nas_status nas_quant_multiplier(nas_ctx *ctx, double ratio, int32_t left, int32_t *multiplier);

/* nas_quant_add_multiplier - m_r, m_a, m_b of scale_operand/scale_out. RANGE at NAS_QUANT_ADD_RATIO_MAX and above. */
nas_status nas_quant_add_multiplier(nas_ctx *ctx, double ratio, int32_t *multiplier);

/* nas_quant_slope_multiplier - m of prelu where the code is below its zero point; the slope may be 0 or negative. */
nas_status nas_quant_slope_multiplier(nas_ctx *ctx, double ratio, double slope,
                                      int32_t *multiplier);

/* Bounds and zero points of a result; the scalar definitions of the formulas above. */
typedef struct nas_requant {
    int32_t left;
    int32_t zero_out, low, high;
    int32_t zero_residual, multiplier_residual; /* used by nas_requantize_add */
} nas_requant;

int32_t nas_quant_scale(int32_t acc, int32_t multiplier, int32_t left); /* t */
int32_t nas_requantize(int32_t acc, int32_t multiplier, const nas_requant *r);
int32_t nas_requantize_add(int32_t acc, int32_t multiplier, int32_t residual, const nas_requant *r);
/* nas_quant_add - the sum of two values; a, b already without their zero points. */
int32_t nas_quant_add(int32_t a, int32_t multiplier_a, int32_t b, int32_t multiplier_b,
                      const nas_requant *r);

#endif
