/* tune_weights.c - random weights of a convolution that is timed, packed for each of its ways. */
#include "compiler/tune_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_HEAD = 64 };

typedef struct random_weights {
    float *weight, *bias, *slope; /* of floats */
    int8_t *codes;                /* of codes */
    int32_t *code_bias, *multiplier, *below;
    nas__qconv_data data;
} random_weights;

static void weights_free(random_weights *w) {
    nas_free(w->weight);
    nas_free(w->bias);
    nas_free(w->slope);
    nas_free(w->codes);
    nas_free(w->code_bias);
    nas_free(w->multiplier);
    nas_free(w->below);
}

static size_t products_of(const nas__conv *c) {
    return (size_t)(c->kernel_h * c->kernel_w) * (size_t)(c->in_c / c->groups);
}

/* Small enough that outputs stay near the size of the inputs, whatever the number of products. */
static nas_status floats_new(nas_ctx *ctx, const nas__conv *c, size_t n, random_weights *w) {
    const size_t outputs = (size_t)c->out_c;
    w->weight = nas_alloc_array(ctx, n, sizeof *w->weight);
    w->bias = nas_alloc_array(ctx, outputs, sizeof *w->bias);
    w->slope = nas_alloc_array(ctx, outputs, sizeof *w->slope);
    if (w->weight == NULL || w->bias == NULL || w->slope == NULL) return NAS_ERR_NOMEM;
    nas_rng rng = nas_rng_stream(1, 0, "tune");
    const double scale = sqrt(3.0 / (double)products_of(c));
    for (size_t i = 0; i < n; i++)
        w->weight[i] = (float)(scale * (2 * nas_rng_uniform(&rng) - 1));
    for (size_t i = 0; i < n && c->kept != NULL; i++)
        w->weight[i] = c->kept[i] != 0 ? w->weight[i] : 0;
    for (size_t i = 0; i < outputs; i++) {
        w->bias[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
        w->slope[i] = (float)nas_rng_uniform(&rng);
    }
    return NAS_OK;
}

/* Steps of the result for one step of the sum: sums of random codes fill about the range of codes. Where the layer needs
 * ratios above 1 it gets one. */
static nas_status scale_codes(nas_ctx *ctx, const nas__qconv *q, int32_t code_max,
                              random_weights *w) {
    const double spread = sqrt((double)products_of(&q->conv)) * 74 * (0.6 * code_max + 1);
    const bool fraction = q->conv.has_residual && !q->joins;
    double ratio = q->has_left ? 1.5 : 40 / spread * (fraction ? 1 << NAS_QUANT_FRACTION : 1);
    if (!q->has_left && ratio >= 1) ratio = 0.75;
    if (q->half && ratio >= 0.5) ratio = 0.4;
    if (q->single && ratio >= 0.0035) ratio = 0.0035; /* of sums of up to 2^23: 16 bits */
    nas_requant *r = &w->data.requant;
    r->low = q->out_signed ? -128 : 0;
    r->high = r->low + 255;
    r->zero_out = q->out_signed ? 0 : 128;
    nas_status status = nas_quant_left(ctx, ratio, &r->left);
    for (int32_t o = 0; o < q->conv.out_c && status == NAS_OK; o++)
        status = nas_quant_multiplier(ctx, ratio, r->left, &w->multiplier[o]);
    for (int32_t o = 0; o < q->conv.out_c && q->single; o++)
        w->multiplier[o] |= 1;
    if (q->prelu) {
        if (status == NAS_OK)
            status = nas_quant_add_multiplier(ctx, 1, &w->data.multiplier_between);
        for (int32_t o = 0; o < q->conv.out_c; o++)
            w->below[o] = w->data.multiplier_between / (q->late && q->open_low ? 1 : 4);
        w->data.below = w->below;
    }
    w->data.between = *r;
    if (q->conv.has_residual) {
        r->zero_residual = q->residual_signed ? 0 : 128;
        if (status == NAS_OK) status = nas_quant_add_multiplier(ctx, 0.49, &r->multiplier_residual);
        if (status == NAS_OK)
            status = nas_quant_add_multiplier(ctx, 0.49, &w->data.multiplier_between);
    }
    return status;
}

/* The power of two of the same sign that is not larger; 0 stays. */
static int8_t power_below(int8_t code) {
    int32_t size = code < 0 ? -code : code, power = size > 0;
    while (power > 0 && 2 * power <= size)
        power *= 2;
    return (int8_t)(code < 0 ? -power : power);
}

static nas_status codes_new(nas_ctx *ctx, const nas__qconv *q, size_t n, random_weights *w) {
    const nas__conv *c = &q->conv;
    const size_t outputs = (size_t)c->out_c;
    w->codes = nas_alloc_array(ctx, n, sizeof *w->codes);
    w->code_bias = nas_alloc_array(ctx, outputs, sizeof *w->code_bias);
    w->multiplier = nas_alloc_array(ctx, outputs, sizeof *w->multiplier);
    w->below = nas_alloc_array(ctx, outputs, sizeof *w->below);
    if (w->codes == NULL || w->code_bias == NULL || w->multiplier == NULL || w->below == NULL)
        return NAS_ERR_NOMEM;
    nas_rng rng = nas_rng_stream(1, 0, "tune");
    int32_t code_max = (1 << (q->weight_bits - 1)) - 1;
    /* sums of any input stay within NAS_QUANT_ACC_MAX */
    while (code_max > 1 && (double)code_max * 255 * (double)products_of(c) > NAS_QUANT_ACC_MAX / 2)
        code_max /= 2;
    while (q->single && code_max > 1 && (double)code_max * 255 * (double)products_of(c) > 1 << 23)
        code_max /= 2;
    for (size_t i = 0; i < n; i++)
        w->codes[i] = (int8_t)lround(code_max * (2 * nas_rng_uniform(&rng) - 1));
    for (size_t i = 0; i < n && c->kept != NULL; i++)
        w->codes[i] = c->kept[i] != 0 ? w->codes[i] : 0;
    for (size_t i = 0; i < n && q->absent != NULL; i++)
        w->codes[i] = q->absent[i / (size_t)c->in_c] != 0 ? 0 : w->codes[i];
    for (size_t i = 0; i < n && q->powers; i++)
        w->codes[i] = power_below(w->codes[i]);
    for (size_t i = 0; i < outputs; i++)
        w->code_bias[i] = (int32_t)lround(1000 * (2 * nas_rng_uniform(&rng) - 1));
    w->data = (nas__qconv_data){.weight = w->codes,
                                .bias = w->code_bias,
                                .multiplier = w->multiplier,
                                .zero_in = q->in_signed ? 3 : 131};
    return scale_codes(ctx, q, code_max, w);
}

static nas_status weights_new(nas_ctx *ctx, const nas__tune_subject *s, random_weights *out) {
    *out = (random_weights){0};
    if (s->rows != NULL) return NAS_OK; /* the network's own */
    const nas__conv *c = s->qconv != NULL ? &s->qconv->conv : s->conv;
    random_weights w = {0};
    size_t n = 0;
    nas_status status = nas_mul_size(ctx, products_of(c), (size_t)c->out_c, &n);
    if (status == NAS_OK)
        status = s->qconv != NULL ? codes_new(ctx, s->qconv, n, &w) : floats_new(ctx, c, n, &w);
    if (status != NAS_OK) {
        weights_free(&w);
        return status;
    }
    *out = w;
    return NAS_OK;
}

static size_t round_64(size_t n) {
    return (n + 63) / 64 * 64;
}

size_t nas__tune_weight_bytes(const nas_target *target, const nas__tune_subject *s, int32_t way) {
    if (s->rows != NULL) return round_64(nas__tune_rows_weight_floats(s, way) * sizeof(float));
    return round_64(s->qconv != NULL
                        ? nas__qconv_weight_bytes(target, s->qconv, &s->qways[way])
                        : nas__conv_weight_floats(target, s->conv, &s->ways[way]) * sizeof(float));
}

/* The block of each way, one after another: one at a time, those of Winograd are large. */
static nas_status write_block(nas_ctx *ctx, const nas_target *target, const nas__tune_subject *s,
                              int32_t i, const random_weights *w, FILE *file) {
    const size_t bytes = nas__tune_weight_bytes(target, s, i);
    float *block = nas_alloc_array(ctx, bytes, 1);
    if (block == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    if (s->rows != NULL)
        nas__tune_rows_pack(s, i, block);
    else if (s->qconv != NULL)
        status = nas__qconv_pack(ctx, target, s->qconv, &s->qways[i], &w->data, block);
    else
        status =
            nas__conv_pack(ctx, target, s->conv, &s->ways[i], w->weight, w->bias, w->slope, block);
    unsigned long long head[BLOCK_HEAD / sizeof(unsigned long long)] = {bytes};
    if (status == NAS_OK &&
        (fwrite(head, sizeof head, 1, file) != 1 || fwrite(block, 1, bytes, file) != bytes)) {
        status =
            nas_fail(ctx, NAS_ERR_IO,
                     "disk full? %zu bytes of weights were not written; free some space", bytes);
    }
    nas_free(block);
    return status;
}

nas_status nas__tune_write_weights(nas_ctx *ctx, const nas_target *target,
                                   const nas__tune_subject *s, const char *path) {
    random_weights w;
    nas_status status = weights_new(ctx, s, &w);
    if (status != NAS_OK) return status;
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: cannot be written", path);
    } else {
        for (int32_t i = 0; i < s->n && status == NAS_OK; i++)
            status = write_block(ctx, target, s, i, &w, file);
        if (fclose(file) != 0 && status == NAS_OK) {
            status = nas_fail(ctx, NAS_ERR_IO, "disk full? %s: free some space", path);
        }
    }
    weights_free(&w);
    return status;
}
