/* qconv_cases.h - integer convolutions with data and the codes that the plain reference makes of it. */
#ifndef NAS_TESTS_COMPILER_QCONV_CASES_H
#define NAS_TESTS_COMPILER_QCONV_CASES_H

#include "compiler/layer_qconv_internal.h"
#include "qconv_shapes.h"

/* Tensors of one shape. */
typedef struct tensors {
    nas__qconv q;
    nas__qconv_data data;
    uint8_t *in, *residual, *want;
    int8_t *weight;
    uint8_t *kept; /* NULL: dense */
    int32_t *bias, *multiplier, *below;
    size_t in_bytes, out_bytes, residual_bytes;
} tensors;

shape_row generated_shape(nas_rng *rng);
nas__qconv conv_of(const shape_row *r);
/* lay_planes - puts the values of a convolution in planes, those of one input channel excepted. */
void lay_planes(nas__qconv *q, const planes_row *row);
int32_t code_between(nas_rng *rng, int32_t low, int32_t high);
/* tensors_of - `planes` or NULL: channels of a pixel side by side; `looks`: as where the numbers of a layer are looked at. */
tensors tensors_of(nas_ctx *ctx, nas_rng *rng, const shape_row *row, const planes_row *planes,
                   bool looks);
void tensors_free(tensors *t);

#endif
