#include "quant_reference.h"

int32_t quant_reference_code(uint8_t byte, bool is_signed) {
    return is_signed && byte >= 128 ? (int32_t)byte - 256 : byte;
}

static int32_t sum_of(const nas__qconv *q, const nas__qconv_data *data, const uint8_t *in,
                      int32_t y, int32_t x, int32_t o) {
    const nas__conv *c = &q->conv;
    const int32_t in_c = c->in_c / c->groups, group = o / (c->out_c / c->groups);
    const int8_t *w = data->weight + (size_t)o * (size_t)(c->kernel_h * c->kernel_w * in_c);
    int32_t sum = data->bias[o];
    for (int32_t ky = 0; ky < c->kernel_h; ky++) {
        for (int32_t kx = 0; kx < c->kernel_w; kx++) {
            const uint8_t *s = in + (size_t)(y * c->stride_h + ky * c->dilation_h) * c->in_row +
                               (size_t)((x * c->stride_w + kx * c->dilation_w) * c->in_pitch) +
                               (size_t)(group * in_c);
            for (int32_t i = 0; i < in_c; i++)
                sum += (quant_reference_code(s[i], q->in_signed) - data->zero_in) * *w++;
        }
    }
    return sum;
}

void quant_reference_conv(const nas__qconv *q, const nas__qconv_data *data, const uint8_t *in,
                          const uint8_t *residual, uint8_t *out) {
    const nas__conv *c = &q->conv;
    for (int32_t y = 0; y < c->out_h; y++) {
        for (int32_t x = 0; x < c->out_w; x++) {
            for (int32_t o = 0; o < c->out_c; o++) {
                const int32_t acc = sum_of(q, data, in, y, x, o), m = data->multiplier[o];
                const size_t at = (size_t)y * c->residual_row + (size_t)(x * c->residual_pitch + o);
                const int32_t code =
                    c->has_residual
                        ? nas_requantize_add(acc, m,
                                             quant_reference_code(residual[at], q->residual_signed),
                                             &data->requant)
                        : nas_requantize(acc, m, &data->requant);
                out[(size_t)y * c->out_row + (size_t)(x * c->out_pitch + o)] = (uint8_t)code;
            }
        }
    }
}
