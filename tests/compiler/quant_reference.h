/* quant_reference.h - integer operators written out plainly on NHWC bytes: what the kernels have to match bit for bit. */
#ifndef NAS_TESTS_COMPILER_QUANT_REFERENCE_H
#define NAS_TESTS_COMPILER_QUANT_REFERENCE_H

#include "compiler/layers_q_internal.h"

/* A code as it is stored: one byte, uint8 or int8. */
int32_t quant_reference_code(uint8_t byte, bool is_signed);

/* quant_reference_conv - any stride, dilation and groups, values in planes or not; depthwise and fully connected are cases of it. `in` points to the
 * first tap of pixel (0,0): borders are in the buffer and hold the zero point. */
void quant_reference_conv(const nas__qconv *q, const nas__qconv_data *data, const uint8_t *in,
                          const uint8_t *residual, uint8_t *out);

/* quant_reference_op - `in` and `residual` point to pixel (0,0); `ratio` etc. as the kernels get them. */
void quant_reference_op(const nas__qop *op, const nas__qop_data *data, const void *in,
                        const uint8_t *residual, void *out);

#endif
