/* qconv_cases.c - see qconv_cases.h. */
#include "qconv_cases.h"
#include "quant_reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static bool coin(nas_rng *rng) {
    return nas_rng_below(rng, 2) == 0;
}

shape_row generated_shape(nas_rng *rng) {
    shape_row r = {.groups = 1};
    const int32_t widths[] = {1, 3, 8, 13, 16, 31, 40};
    r.in_c = widths[nas_rng_below(rng, 7)];
    r.out_c = widths[nas_rng_below(rng, 7)];
    r.out_h = 1 + (int32_t)nas_rng_below(rng, 11);
    r.out_w = 1 + (int32_t)nas_rng_below(rng, 15);
    r.kh = 1 + (int32_t)nas_rng_below(rng, 3);
    r.kw = coin(rng) ? r.kh : 1 + (int32_t)nas_rng_below(rng, 5);
    r.sh = r.sw = nas_rng_below(rng, 3) == 0 ? 2 : 1;
    r.dh = r.dw = nas_rng_below(rng, 4) == 0 ? 2 : 1;
    r.in_extra = (int32_t)nas_rng_below(rng, 3);
    r.out_extra = (int32_t)nas_rng_below(rng, 3);
    r.residual = coin(rng);
    r.in_signed = coin(rng);
    r.out_signed = coin(rng);
    r.residual_signed = coin(rng);
    r.has_left = coin(rng);
    r.bits = coin(rng) ? 8 : 2 + (int32_t)nas_rng_below(rng, 7);
    r.fill = coin(rng) ? ANY : EXTREME;
    return r;
}

/* A buffer that ends with the last channel of the last pixel that a kernel may touch. */
static size_t exact(int32_t height, int32_t width, size_t row, int32_t pitch, int32_t channels) {
    return (size_t)(height - 1) * row + (size_t)(width - 1) * (size_t)pitch + (size_t)channels;
}

static int32_t in_height(const nas__conv *c) {
    return (c->out_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
}
static int32_t in_width(const nas__conv *c) {
    return (c->out_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
}

nas__qconv conv_of(const shape_row *r) {
    nas__qconv q = {.in_signed = r->in_signed,
                    .out_signed = r->out_signed,
                    .residual_signed = r->residual_signed,
                    .joins = r->residual && r->out_c % 2 == 0,
                    .weight_bits = r->bits,
                    .powers = r->fill == POWERS,
                    .has_left = r->has_left};
    nas__conv *c = &q.conv;
    *c = (nas__conv){.in_c = r->in_c,
                     .out_c = r->out_c,
                     .groups = r->groups,
                     .out_h = r->out_h,
                     .out_w = r->out_w,
                     .kernel_h = r->kh,
                     .kernel_w = r->kw,
                     .stride_h = r->sh,
                     .stride_w = r->sw,
                     .dilation_h = r->dh,
                     .dilation_w = r->dw,
                     .has_residual = r->residual};
    c->in_pitch = r->in_c + r->in_extra;
    c->out_pitch = r->out_c + r->out_extra;
    c->in_row = (size_t)in_width(c) * (size_t)c->in_pitch + (size_t)r->in_extra;
    c->out_row = (size_t)(c->out_w * c->out_pitch + r->out_extra);
    if (r->residual) {
        c->residual_pitch = r->out_c + (r->in_extra + r->out_extra > 0);
        c->residual_row = (size_t)(c->out_w * c->residual_pitch);
    }
    return q;
}

static uint8_t gaps[400]; /* the first one, then some */

/* Puts the values of a convolution in planes, those of one input channel excepted. */
void lay_planes(nas__qconv *q, const planes_row *row) {
    nas__conv *c = &q->conv;
    const size_t groups = (size_t)(c->out_c + 3) / 4;
    q->half = row->scaling != WIDE;
    q->single = row->scaling >= SINGLE_FLOAT;
    if (row->gaps) q->absent = gaps;
    q->prelu = row->prelu;
    q->out_plane = nas__q_plane_bytes(c->out_w, row->shape.out_extra);
    c->out_pitch = 4;
    c->out_row = groups * q->out_plane;
    if (c->in_c > 1) {
        q->in_plane = nas__q_plane_bytes(c->out_w, in_width(c) - c->out_w);
        c->in_pitch = 4;
        c->in_row = (size_t)(c->in_c + 3) / 4 * q->in_plane;
    }
    if (!c->has_residual) return;
    q->residual_plane = nas__q_plane_bytes(c->out_w, 16);
    c->residual_pitch = 4;
    c->residual_row = groups * q->residual_plane;
}

static void fill_codes(nas_rng *rng, uint8_t *p, size_t n, fill_mode mode) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t v = nas_rng_below(rng, 256);
        p[i] = (uint8_t)(mode != EXTREME ? v
                         : (v & 1) != 0  ? 127 + (v & 2) / 2
                         : (v & 2) != 0  ? 255
                                         : 0);
    }
}

int32_t code_between(nas_rng *rng, int32_t low, int32_t high) {
    return low + (int32_t)nas_rng_below(rng, (uint32_t)(high - low + 1));
}

static nas_requant requant_of(nas_rng *rng, const nas__qconv *q) {
    const int32_t least = q->out_signed ? -128 : 0, most = least + 255;
    nas_requant r = {.zero_out = code_between(rng, least, most), .low = least, .high = most};
    if (coin(rng)) r.low = r.zero_out; /* ReLU */
    if (coin(rng)) r.high = code_between(rng, r.low, most);
    if (q->has_left) r.left = 1 + (int32_t)nas_rng_below(rng, NAS_QUANT_LEFT_MAX);
    r.zero_residual = q->residual_signed ? code_between(rng, -128, 127) : code_between(rng, 0, 255);
    r.multiplier_residual = 1 + (int32_t)nas_rng_below(rng, coin(rng) ? 1 << 17 : (1 << 21) - 1);
    return r;
}

static bool is_kept(nas_rng *rng, zeros mode, int32_t o, int32_t input, size_t i, size_t n) {
    switch (mode) {
    case DENSE:
    case FULL: return true;
    case BLOCKS: return (o / 4 * 7 + input * 5 + (input & o / 4 & 3)) % 4 < 2;
    case TILES: return (o / 8 * 3 + input / 4 * 5) % 4 < 2;
    case SCATTERED: return nas_rng_below(rng, 5) == 0;
    case SINGLE: return i + 1 == n;
    case LINES: return o % 3 == 1 && input % 4 > 1;
    case EMPTY: break;
    }
    return false;
}

static void make_zeros(nas_ctx *ctx, nas_rng *rng, const shape_row *row, size_t taps, tensors *t) {
    const size_t n = (size_t)row->out_c * taps;
    if (row->zeros == DENSE) return;
    t->kept = nas_alloc_array(ctx, n, 1);
    for (size_t i = 0; i < n; i++) {
        t->kept[i] =
            is_kept(rng, row->zeros, (int32_t)(i / taps), (int32_t)(i % taps) % row->in_c, i, n);
        if (t->kept[i] == 0) t->weight[i] = 0;
    }
    t->q.conv.kept = t->kept;
}

static int8_t power_below(int8_t code) {
    int size = code < 0 ? -code : code, power = size > 0;
    while (power > 0 && 2 * power <= size)
        power *= 2;
    return (int8_t)(code < 0 ? -power : power);
}

/* What the words of the last four channels hold beyond the last channel: 0, between the bounds. */
static void fill_words(tensors *t) {
    const nas__conv *c = &t->q.conv;
    const nas_requant *r = &t->data.requant;
    const int32_t code = r->low > 0 ? r->low : r->high < 0 ? r->high : 0;
    for (int32_t y = 0; y < c->out_h; y++) {
        uint8_t *last = t->want + (size_t)y * c->out_row + (size_t)(c->out_c / 4) * t->q.out_plane;
        for (int32_t i = 0; i < 4 * c->out_w && c->out_c % 4 > 0; i++) {
            if (i % 4 >= c->out_c % 4) last[i] = (uint8_t)code;
        }
    }
}

/* Where floats are not to be exact only the bounds are looked at. */
static void look_at_numbers(const planes_row *row, tensors *t) {
    nas__qconv *q = &t->q;
    if (row->scaling >= SINGLE_FLOAT) {
        nas__qconv_look(q, &t->data);
        cr_assert(q->single);
    } else {
        const int32_t least = q->out_signed ? -128 : 0;
        q->open_low = t->data.requant.low == least;
        q->open_high = t->data.requant.high == least + 255;
    }
    if (row->scaling == WORDS) cr_assert(q->prelu ? q->late : q->dots > 0);
}

/* Multipliers of more bits than a float has stay where floats do what they do; every other shape has no bounds. */
static void look_at_pixels(nas_rng *rng, tensors *t) {
    nas__qconv *q = &t->q;
    if (coin(rng)) {
        t->data.requant.low = q->out_signed ? -128 : 0;
        t->data.requant.high = t->data.requant.low + 255;
    }
    nas__qconv_look(q, &t->data);
    for (int32_t o = 0; o < q->conv.out_c && !q->single; o++)
        t->multiplier[o] = (t->multiplier[o] & ((1 << 23) - 1)) | 1;
    nas__qconv_look(q, &t->data);
}

tensors tensors_of(nas_ctx *ctx, nas_rng *rng, const shape_row *row, const planes_row *planes,
                   bool looks) {
    tensors t = {.q = conv_of(row)};
    const nas__conv *c = &t.q.conv;
    if (planes != NULL) lay_planes(&t.q, planes);
    t.in_bytes = t.q.in_plane > 0
                     ? (size_t)in_height(c) * c->in_row
                     : exact(in_height(c), in_width(c), c->in_row, c->in_pitch, c->in_c);
    t.out_bytes = t.q.out_plane > 0 ? (size_t)c->out_h * c->out_row
                                    : exact(c->out_h, c->out_w, c->out_row, c->out_pitch, c->out_c);
    t.residual_bytes = c->has_residual
                           ? exact(c->out_h, c->out_w, c->residual_row, c->residual_pitch, c->out_c)
                           : 0;
    if (t.q.residual_plane > 0) t.residual_bytes = (size_t)c->out_h * c->residual_row;
    const size_t taps = (size_t)(c->kernel_h * c->kernel_w * (c->in_c / c->groups));
    t.in = nas_alloc_array(ctx, t.in_bytes, 1);
    t.residual = nas_alloc_array(ctx, t.residual_bytes, 1);
    t.want = nas_alloc_array(ctx, t.out_bytes, 1);
    t.weight = nas_alloc_array(ctx, (size_t)c->out_c * taps, 1);
    t.bias = nas_alloc_array(ctx, (size_t)c->out_c, 4);
    t.multiplier = nas_alloc_array(ctx, (size_t)c->out_c, 4);
    t.below = nas_alloc_array(ctx, (size_t)c->out_c, 4);
    fill_codes(rng, t.in, t.in_bytes, row->fill);
    fill_codes(rng, t.residual, t.residual_bytes, row->fill);
    const int32_t most = (1 << (row->bits - 1)) - 1;
    for (size_t i = 0; i < (size_t)c->out_c * taps; i++) {
        t.weight[i] = (int8_t)(row->fill != EXTREME ? code_between(rng, -most, most)
                               : coin(rng)          ? most
                                                    : -most);
        if (row->fill == POWERS) t.weight[i] = power_below(t.weight[i]);
    }
    make_zeros(ctx, rng, row, taps, &t);
    for (size_t i = 0; i < sizeof gaps; i++)
        gaps[i] = i == 0 || i * i % 7 < 3;
    for (size_t i = 0; i < (size_t)c->out_c * taps && t.q.absent != NULL; i++)
        t.weight[i] = gaps[i / (size_t)c->in_c] != 0 ? 0 : t.weight[i];
    t.data = (nas__qconv_data){.weight = t.weight,
                               .bias = t.bias,
                               .multiplier = t.multiplier,
                               .below = t.below,
                               .zero_in = row->in_signed ? code_between(rng, -128, 127)
                                                         : code_between(rng, 0, 255),
                               .requant = requant_of(rng, &t.q)};
    /* products of words join codes and residuals */
    const bool words = planes != NULL ? planes->scaling == WORDS : looks && row->out_c % 16 == 0;
    if (t.q.joins || t.q.prelu) {
        t.data.between = requant_of(rng, &t.q);
        t.data.between.left = t.data.requant.left;
        t.data.multiplier_between = code_between(rng, 1000, words ? 98000 : 200000) / 16 * 16;
        if (words) t.data.requant.multiplier_residual = 1 + (int32_t)nas_rng_below(rng, 98301);
    }
    const double spread = 255.0 * most * sqrt((double)taps);
    for (int32_t o = 0; o < c->out_c; o++) {
        t.bias[o] = (int32_t)(spread * (2 * nas_rng_uniform(rng) - 1));
        const double fraction = c->has_residual && !t.q.joins ? 64 : 1;
        const double m =
            ldexp(fraction * 200 / spread * nas_rng_uniform(rng), 31 - t.data.requant.left);
        t.multiplier[o] = coin(rng) && coin(rng) ? INT32_MAX : (int32_t)fmin(m, 2147483647.0);
        if (t.q.half && t.multiplier[o] >= 1 << 30) t.multiplier[o] = (1 << 30) - 1;
        if (t.q.single && t.multiplier[o] >= 1 << 23) t.multiplier[o] = (1 << 22) + 1;
        /* of few bits, so that there are ties, and a float for each */
        if (t.q.prelu) t.below[o] = 16 * code_between(rng, words ? 0 : -6000, 6000);
    }
    if (planes != NULL) look_at_numbers(planes, &t);
    if (looks) look_at_pixels(rng, &t);
    memset(t.want, 0xA5, t.out_bytes);
    quant_reference_conv(&t.q, &t.data, t.in, t.residual, t.want);
    if (t.q.out_plane > 0) fill_words(&t);
    return t;
}

void tensors_free(tensors *t) {
    nas_free(t->in);
    nas_free(t->residual);
    nas_free(t->want);
    nas_free(t->weight);
    nas_free(t->kept);
    nas_free(t->bias);
    nas_free(t->multiplier);
    nas_free(t->below);
}
