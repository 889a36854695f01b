#include "quant_reference.h"

#include <math.h>

int32_t quant_reference_code(uint8_t byte, bool is_signed) {
    return is_signed && byte >= 128 ? (int32_t)byte - 256 : byte;
}

/* A code of a value: [h][w][c], or in planes of four channels. */
static size_t at(size_t row, size_t plane, int32_t pitch, int32_t y, int32_t x, int32_t c) {
    const size_t pixel = (size_t)y * row + (size_t)x * (size_t)pitch;
    return plane == 0 ? pixel + (size_t)c : pixel + (size_t)(c / 4) * plane + (size_t)(c % 4);
}

static int32_t sum_of(const nas__qconv *q, const nas__qconv_data *data, const uint8_t *in,
                      int32_t y, int32_t x, int32_t o) {
    const nas__conv *c = &q->conv;
    const int32_t in_c = c->in_c / c->groups, group = o / (c->out_c / c->groups);
    const int8_t *w = data->weight + (size_t)o * (size_t)(c->kernel_h * c->kernel_w * in_c);
    int32_t sum = data->bias[o];
    for (int32_t ky = 0; ky < c->kernel_h; ky++) {
        for (int32_t kx = 0; kx < c->kernel_w; kx++) {
            for (int32_t i = 0; i < in_c; i++) {
                const uint8_t code =
                    in[at(c->in_row, q->in_plane, c->in_pitch, y * c->stride_h + ky * c->dilation_h,
                          x * c->stride_w + kx * c->dilation_w, group * in_c + i)];
                sum += (quant_reference_code(code, q->in_signed) - data->zero_in) * *w++;
            }
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
                const size_t r = at(c->residual_row, q->residual_plane, c->residual_pitch, y, x, o);
                const int32_t before =
                    nas_requantize(acc, m, &data->between) - data->between.zero_out;
                const int32_t code =
                    q->prelu ? nas_quant_add(before,
                                             before < 0 ? data->below[o] : data->multiplier_between,
                                             0, 0, &data->requant)
                    : q->joins
                        ? nas_quant_add(before, data->multiplier_between,
                                        quant_reference_code(residual[r], q->residual_signed) -
                                            data->requant.zero_residual,
                                        data->requant.multiplier_residual, &data->requant)
                    : c->has_residual
                        ? nas_requantize_add(acc, m,
                                             quant_reference_code(residual[r], q->residual_signed),
                                             &data->requant)
                        : nas_requantize(acc, m, &data->requant);
                out[at(c->out_row, q->out_plane, c->out_pitch, y, x, o)] = (uint8_t)code;
            }
        }
    }
}

static size_t place(const nas__view *v, int32_t y, int32_t x, int32_t c) {
    return at(v->row, v->plane, v->pitch, y, x, c);
}

/* An operand of a sum or product at a pixel of the result: rows and columns of one pixel are repeated. */
static int32_t operand(const nas__qop *op, const nas__qop_data *data, int32_t k,
                       const uint8_t *codes, int32_t y, int32_t x, int32_t c) {
    const nas__view *v = &op->in[k];
    const size_t at = place(v, v->shape.h == 1 ? 0 : y, v->shape.w == 1 ? 0 : x, c);
    return quant_reference_code(codes[at], op->in_signed[k]) - data->zero_in[k];
}

/* round(2^(31 - left)*ratio), with the smallest left that leaves it 31 bits. */
static int32_t product_code(const nas__qop_data *data, int32_t product) {
    nas_requant r = data->requant;
    r.left = 0;
    while (ldexp(data->ratio, -r.left) >= 1)
        r.left++;
    const double m = nearbyint(ldexp(data->ratio, 31 - r.left));
    return nas_requantize(product, m > 2147483647.0 ? INT32_MAX : (int32_t)m, &r);
}

/* Index of the nearest input pixel. */
static int32_t nearest(int32_t i, int32_t in, int32_t out, bool half) {
    if (!half) return (int32_t)((int64_t)i * in / out);
    const int64_t d = (int64_t)(2 * i + 1) * in - out; /* of 2*out: the place, minus half a pixel */
    return d <= 0 ? 0 : (int32_t)((d + out - 1) / (2 * (int64_t)out));
}

static int32_t moved(const nas__qop *op, const nas__qop_data *data, const uint8_t *in, int32_t y,
                     int32_t x, int32_t c) {
    const int32_t b = op->block;
    const bool half = op->resize == NAS_RESIZE_NEAREST_HALF_PIXEL;
    const size_t at = op->kind == NAS__QOP_DEPTH_TO_SPACE
                          ? place(&op->in[0], y / b, x / b, (c * b + y % b) * b + x % b)
                          : place(&op->in[0], nearest(y, op->in[0].shape.h, op->out.shape.h, half),
                                  nearest(x, op->in[0].shape.w, op->out.shape.w, half), c);
    return op->mapped ? data->table[in[at]] : in[at];
}

static size_t planar(const nas_shape *s, int32_t y, int32_t x, int32_t c) {
    return ((size_t)c * (size_t)s->h + (size_t)y) * (size_t)s->w + (size_t)x;
}

/* One pooled code; taps outside the input do not take part. */
static int32_t pooled(const nas__qop *op, const nas__qop_data *data, const uint8_t *in, int32_t y,
                      int32_t x, int32_t c) {
    const nas_pool_attributes *p = &op->pool;
    int32_t sum = 0, n = 0, most = INT32_MIN;
    for (int32_t i = 0; i < p->kernel_h; i++) {
        for (int32_t j = 0; j < p->kernel_w; j++) {
            const int32_t iy = y * p->stride_h - p->pad_top + i,
                          ix = x * p->stride_w - p->pad_left + j;
            if (iy < 0 || ix < 0 || iy >= op->in[0].shape.h || ix >= op->in[0].shape.w) continue;
            const int32_t q =
                quant_reference_code(in[place(&op->in[0], iy, ix, c)], op->in_signed[0]);
            n++;
            sum += q - data->zero_in[0];
            most = q > most ? q : most;
        }
    }
    if (op->kind == NAS__QOP_MAX_POOL) {
        return most < data->requant.low    ? data->requant.low
               : most > data->requant.high ? data->requant.high
                                           : most;
    }
    if (p->count_include_pad) n = p->kernel_h * p->kernel_w;
    const int32_t least = p->count_include_pad ? n : 1;
    int32_t left = 0;
    while (ldexp(data->ratio / least, -left) >= 1)
        left++;
    const double m = nearbyint(ldexp(data->ratio / n, 31 - left));
    nas_requant r = data->requant;
    r.left = left;
    return nas_requantize(sum, m > 2147483647.0 ? INT32_MAX : (int32_t)m, &r);
}

static int32_t one_code(const nas__qop *op, const nas__qop_data *data, const void *in,
                        const uint8_t *residual, int32_t y, int32_t x, int32_t c) {
    const uint8_t *a = in;
    switch (op->kind) {
    case NAS__QOP_ADD:
        return nas_quant_add(operand(op, data, 0, a, y, x, c), data->multiplier[0],
                             operand(op, data, 1, residual, y, x, c), data->multiplier[1],
                             &data->requant);
    case NAS__QOP_MUL:
        return product_code(data, operand(op, data, 0, a, y, x, c) *
                                      operand(op, data, 1, residual, y, x, c));
    case NAS__QOP_DEPTH_TO_SPACE:
    case NAS__QOP_NEAREST: return moved(op, data, a, y, x, c);
    case NAS__QOP_TABLE: return data->table[a[place(&op->in[0], y, x, c)]];
    case NAS__QOP_PRELU: {
        const int32_t q = quant_reference_code(a[place(&op->in[0], y, x, c)], op->in_signed[0]) -
                          data->zero_in[0];
        return nas_quant_add(q, q < 0 ? data->below[c] : data->multiplier[0], 0, 0, &data->requant);
    }
    case NAS__QOP_MAX_POOL:
    case NAS__QOP_AVG_POOL: return pooled(op, data, a, y, x, c);
    case NAS__QOP_QUANTIZE:
    case NAS__QOP_ENCODE: {
        const float *image = in;
        const nas_shape s = op->out.shape;
        const float v = op->kind == NAS__QOP_ENCODE ? image[place(&op->in[0], y, x, c)]
                                                    : image[planar(&s, y, x, c)];
        const float ratio = v / data->scale;
        return nas_quant_value((double)ratio, 1, data->requant.zero_out, data->requant.low,
                               data->requant.high);
    }
    case NAS__QOP_DEQUANTIZE:
    case NAS__QOP_DECODE: break;
    }
    return 0;
}

static float one_value(const nas__qop *op, const nas__qop_data *data, const uint8_t *in, int32_t y,
                       int32_t x, int32_t c) {
    const int32_t q = quant_reference_code(in[place(&op->in[0], y, x, c)], op->in_signed[0]);
    return (float)(q - data->zero_in[0]) * data->scale;
}

void quant_reference_op(const nas__qop *op, const nas__qop_data *data, const void *in,
                        const uint8_t *residual, void *out) {
    const bool planes = op->kind == NAS__QOP_DEQUANTIZE, view = op->kind == NAS__QOP_DECODE;
    const nas_shape s = planes ? op->in[0].shape : op->out.shape;
    const int32_t r = op->block > 1 ? op->block : 1;
    const nas_shape large = {1, s.h * r, s.w * r, s.c / (r * r)};
    float *image = out;
    uint8_t *codes = out;
    for (int32_t y = 0; y < s.h; y++) {
        for (int32_t x = 0; x < s.w; x++) {
            for (int32_t c = 0; c < s.c; c++) {
                if (planes) { /* out[h*r + i, w*r + j, c] = in[h, w, c*r*r + i*r + j] */
                    const int32_t i = c / r % r, j = c % r;
                    image[planar(&large, y * r + i, x * r + j, c / (r * r))] =
                        one_value(op, data, in, y, x, c);
                } else if (view) {
                    image[place(&op->out, y, x, c)] = one_value(op, data, in, y, x, c);
                } else {
                    codes[place(&op->out, y, x, c)] =
                        (uint8_t)one_code(op, data, in, residual, y, x, c);
                }
            }
        }
    }
}
