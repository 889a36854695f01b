/* layer_qconv_pack.c - the weight blocks of integer convolutions. */
#include "compiler/layer_qconv_internal.h"

#include <inttypes.h>
#include <string.h>

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

bool nas__quant_is_power(int8_t code) {
    const int32_t size = code < 0 ? -code : code;
    return size <= 64 && (size & (size - 1)) == 0;
}

static nas_status check_data(nas_ctx *ctx, const nas__qconv *q, const nas__qconv_data *d) {
    const nas__conv *c = &q->conv;
    const size_t n = (size_t)(c->kernel_h * c->kernel_w) * (size_t)(c->in_c / c->groups);
    if (d->requant.left != 0 && !q->has_left) {
        return nas_fail(ctx, NAS_ERR_INVALID, "left shift %" PRId32 " in a layer without one",
                        d->requant.left);
    }
    const int32_t most = (1 << (q->weight_bits - 1)) - 1;
    for (int32_t o = 0; o < c->out_c; o++) {
        const int8_t *w = d->weight + (size_t)o * n;
        for (size_t i = 0; i < n; i++) {
            if (w[i] < -most || w[i] > most) {
                return nas_fail(ctx, NAS_ERR_INVALID,
                                "weight code %d does not fit %" PRId32 " bits", w[i],
                                q->weight_bits);
            }
            if (q->powers && !nas__quant_is_power(w[i]))
                return nas_fail(ctx, NAS_ERR_INVALID,
                                "weight code %d is no power of two of up to 64", w[i]);
        }
        const nas_status status = nas_quant_accumulator(ctx, w, n, d->bias[o]);
        if (status != NAS_OK) return status;
    }
    return NAS_OK;
}

static void put_i32(uint8_t *at, int64_t value) {
    const int32_t v = (int32_t)value;
    memcpy(at, &v, sizeof v);
}

static void pack_head(const nas__qconv_data *d, uint8_t *out) {
    const nas_requant *r = &d->requant;
    put_i32(out + 4 * NAS__Q_ZERO_IN, d->zero_in);
    put_i32(out + 4 * NAS__Q_ZERO_OUT, r->zero_out);
    put_i32(out + 4 * NAS__Q_LOW, r->low);
    put_i32(out + 4 * NAS__Q_HIGH, r->high);
    put_i32(out + 4 * NAS__Q_LEFT, r->left);
    put_i32(out + 4 * NAS__Q_MOST, NAS_QUANT_ACC_MAX >> r->left);
    put_i32(out + 4 * NAS__Q_ZERO_RESIDUAL, r->zero_residual);
    put_i32(out + 4 * NAS__Q_MULTIPLIER_RESIDUAL, r->multiplier_residual);
    put_i32(out + 4 * NAS__Q_ZERO_BETWEEN, d->between.zero_out);
    put_i32(out + 4 * NAS__Q_LOW_BETWEEN, d->between.low);
    put_i32(out + 4 * NAS__Q_HIGH_BETWEEN, d->between.high);
    put_i32(out + 4 * NAS__Q_MULTIPLIER_BETWEEN, d->multiplier_between);
}

/* What kernels assume of all channels. */
static nas_status check_multipliers(nas_ctx *ctx, const nas__qconv *q, const nas__qconv_data *d) {
    for (int32_t o = 0; o < q->conv.out_c && q->half; o++) {
        if (d->multiplier[o] >= 1 << 30) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "multiplier %" PRId32 " where all are to be below a half",
                            d->multiplier[o]);
        }
    }
    const int32_t taps = q->conv.kernel_h * q->conv.kernel_w, in_c = q->conv.in_c;
    for (int32_t i = 0; q->absent != NULL && i < q->conv.out_c * taps * in_c; i++) {
        if (q->absent[i / in_c] != 0 && d->weight[i] != 0)
            return nas_fail(ctx, NAS_ERR_INVALID, "weight code %d of a tap that is left out",
                            d->weight[i]);
    }
    if (q->out_plane == 0 && !q->single && !q->open_low && !q->open_high) return NAS_OK;
    nas__qconv found = *q;
    nas__qconv_look(&found, d);
    if (q->single && !found.single)
        return nas_fail(ctx, NAS_ERR_INVALID, "sums that single precision does not scale exactly");
    if ((q->dots > 0 && (found.dots == 0 || found.dots > q->dots)) || (q->late && !found.late) ||
        (q->open_low && !found.open_low) || (q->open_high && !found.open_high))
        return nas_fail(ctx, NAS_ERR_INVALID, "bounds or multipliers other than were looked at");
    return NAS_OK;
}

/* The zero point that still has to be subtracted after staging; its share of the sum moves to the bias. */
static int32_t zero_left(nas__dot dot, const nas__qconv *q, const nas__qconv_data *d) {
    switch (dot) {
    case NAS__DOT_PLAIN:
    case NAS__DOT_PAIR: return 0;
    case NAS__DOT_BYTES:
    case NAS__DOT_VNNI: return d->zero_in + (q->in_signed ? 128 : 0);
    case NAS__DOT_NEON: return d->zero_in - (q->in_signed ? 0 : 128);
    case NAS__DOT_MMLA:
    case NAS__DOT_AMX: return d->zero_in;
    }
    return 0;
}

static int64_t sum_of(const int8_t *w, size_t n) {
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += w[i];
    return sum;
}

typedef struct packer {
    const nas_target *target;
    const nas__qconv *q;
    const nas__qconv_way *way;
    const nas__qconv_data *data;
    size_t taps; /* weights of one output channel */
    int32_t zero;
} packer;

/* Bias and multipliers of `n` channels from `first` on, padded to whole vectors with zeros; returns the end. */
static uint8_t *pack_heads(const packer *p, int32_t first, int32_t n, int32_t padded,
                           uint8_t *out) {
    for (int32_t i = 0; i < n; i++) {
        const int8_t *w = p->data->weight + (size_t)(first + i) * p->taps;
        put_i32(out + 4 * i, p->data->bias[first + i] - p->zero * sum_of(w, p->taps));
        put_i32(out + 4 * (padded + i), p->data->multiplier[first + i]);
    }
    return out + 8 * padded;
}

/* Of 0 and +-2^i: the sign, and i + 1. */
static unsigned exponent_of(int8_t code) {
    unsigned n = 0;
    for (int32_t size = code < 0 ? -code : code; size > 0; size >>= 1)
        n++;
    return code < 0 ? n | 8U : n;
}

static void put_weight(const packer *p, uint8_t *step, int32_t elements, int32_t vector,
                       int32_t element, int8_t code) {
    switch (p->way->stored_bits) {
    case 2: {
        uint8_t *at = step + vector / 4 * elements + element;
        *at = (uint8_t)(*at | ((unsigned)code & 3U) << (vector % 4 * 2));
        break;
    }
    case 4: {
        const unsigned nibble =
            nas__qconv_exponents(p->q, p->way) ? exponent_of(code) : (unsigned)code & 15U;
        uint8_t *at = step + vector / 2 * elements + element;
        *at = (uint8_t)(*at | (vector % 2 == 0 ? nibble : nibble << 4));
        break;
    }
    case 8: step[vector * elements + element] = (uint8_t)code; break;
    default: {
        const int16_t wide = code;
        memcpy(step + 2 * (vector * elements + element), &wide, sizeof wide);
        break;
    }
    }
}

/* The same, channels dealt out. */
static uint8_t *pack_dealt_heads(const packer *p, int32_t first, int32_t n, int32_t heads,
                                 uint8_t *out) {
    const int32_t bytes = heads * p->target->vector_bytes;
    for (int32_t i = 0; i < n; i++) {
        const int8_t *w = p->data->weight + (size_t)(first + i) * p->taps;
        const int64_t bias = p->data->bias[first + i] - p->zero * sum_of(w, p->taps);
        nas__q_pack_head(p->target, p->q, p->way, p->data, first + i, (int32_t)bias,
                         nas__q_slot(p->target, p->way, heads, i), bytes, out);
    }
    return out + nas__q_head_vectors(p->target, p->q, p->way) * bytes;
}

/* [group][block]: bias, multipliers, then for each product of the taps the vectors of the block. */
static void pack_direct(const packer *p, uint8_t *out) {
    const nas__conv *c = &p->q->conv;
    const nas__q_blocks b = nas__q_block_of(p->target, c, p->way);
    const nas__q_stage s = nas__q_stage_of(p->target, p->q, p->way, 1);
    const int32_t full = b.vectors * b.lanes, elements = b.lanes * s.group;
    for (int32_t g = 0; g < c->groups; g++) {
        for (int32_t k = 0; k < b.count; k++) {
            const int32_t first = g * b.out_c + k * full, n = min_i32(b.out_c - k * full, full);
            const int32_t vectors = k + 1 < b.count ? b.vectors : b.last_vectors;
            const int32_t step_bytes = nas__q_step_bytes(p->target, p->way, vectors);
            const int32_t heads = nas__q_heads(p->way, vectors);
            const bool deals = nas__q_deals_outputs(p->target, p->way);
            uint8_t *at = deals
                              ? pack_dealt_heads(p, first, n, heads, out)
                              : pack_heads(p, first, n, heads * (p->target->vector_bytes / 4), out);
            for (int32_t tap = 0; tap < c->kernel_h * c->kernel_w; tap++) {
                for (int32_t i = 0; i < b.in_c; i++) {
                    /* place within the kernel row */
                    const int32_t e = tap % c->kernel_w * s.channels + i;
                    uint8_t *step = at + (size_t)(tap / c->kernel_w * s.steps + e / s.group) *
                                             (size_t)step_bytes;
                    for (int32_t o = 0; o < n; o++) {
                        const int32_t slot = deals ? nas__q_slot(p->target, p->way, heads, o) : o;
                        put_weight(p, step, elements, slot / b.lanes,
                                   slot % b.lanes * s.group + e % s.group,
                                   p->data->weight[(size_t)(first + o) * p->taps +
                                                   (size_t)(tap * b.in_c + i)]);
                    }
                }
            }
            out += nas__q_block_bytes(p->target, p->q, p->way, vectors);
        }
    }
}

/* [group][block]: bias, multipliers, then the codes as nas__q_matrix_place says. */
static void pack_matrix(const packer *p, uint8_t *out) {
    const nas__q_matrix m = nas__q_matrix_of(p->target, p->q, p->way);
    const nas__q_blocks b = nas__q_block(p->target, &p->q->conv, p->way->vectors);
    const int32_t full = b.vectors * b.lanes;
    for (int32_t g = 0; g < p->q->conv.groups; g++) {
        for (int32_t k = 0; k < b.count; k++) {
            const int32_t first = g * b.out_c + k * full, n = min_i32(b.out_c - k * full, full);
            const int32_t vectors = k + 1 < b.count ? b.vectors : b.last_vectors;
            const bool deals = nas__q_deals_outputs(p->target, p->way);
            uint8_t *at = deals ? pack_dealt_heads(p, first, n, vectors, out)
                                : pack_heads(p, first, n, vectors * b.lanes, out);
            for (int32_t o = 0; o < n; o++) {
                const int32_t slot = deals ? nas__q_slot(p->target, p->way, vectors, o) : o;
                const int8_t *codes = p->data->weight + (size_t)(first + o) * p->taps;
                for (int32_t e = 0; e < (int32_t)p->taps; e++) {
                    bool high = false;
                    uint8_t *byte =
                        at + nas__q_matrix_place(p->target, &m, p->way, vectors, slot, e, &high);
                    const unsigned code = (unsigned)codes[e];
                    if (p->way->stored_bits == 8)
                        *byte = (uint8_t)code;
                    else
                        *byte = (uint8_t)(*byte | (code & 15U) << (high ? 4 : 0));
                }
            }
            out += nas__q_block_bytes(p->target, p->q, p->way, vectors);
        }
    }
}

static void pack_depthwise(const packer *p, uint8_t *out) {
    const int32_t lanes = p->target->vector_bytes / 4, channels = p->q->conv.out_c;
    for (int32_t first = 0; first < channels; first += lanes) {
        const int32_t n = min_i32(channels - first, lanes);
        out = pack_heads(p, first, n, lanes, out);
        for (size_t tap = 0; tap < p->taps; tap++, out += 4 * lanes) {
            for (int32_t i = 0; i < n; i++)
                put_i32(out + 4 * i, p->data->weight[(size_t)(first + i) * p->taps + tap]);
        }
    }
}

nas_status nas__qconv_pack(nas_ctx *ctx, const nas_target *target, const nas__qconv *q,
                           const nas__qconv_way *way, const nas__qconv_data *data, void *out) {
    nas_status status = check_data(ctx, q, data);
    if (status == NAS_OK) status = check_multipliers(ctx, q, data);
    if (status != NAS_OK) return status;
    const nas__conv *c = &q->conv;
    packer p = {.target = target,
                .q = q,
                .way = way,
                .data = data,
                .taps = (size_t)(c->kernel_h * c->kernel_w) * (size_t)(c->in_c / c->groups)};
    memset(out, 0, nas__qconv_weight_bytes(target, q, way));
    pack_head(data, out);
    for (int32_t i = 0; i < q->dots; i++)
        put_i32((uint8_t *)out + 4 * (NAS__Q_PAIRS + i), nas__q_pair(q, data, i));
    uint8_t *blocks = (uint8_t *)out + 4 * NAS__Q_HEAD;
    switch (way->algorithm) {
    case NAS__QCONV_DIRECT:
        p.zero = zero_left(nas__q_dot(target, way), q, data);
        pack_direct(&p, blocks);
        break;
    case NAS__QCONV_MATRIX:
        p.zero = zero_left(nas__matrix_of(target), q, data);
        pack_matrix(&p, blocks);
        break;
    case NAS__QCONV_PLANE_TILES:
    case NAS__QCONV_PIXELS:
        if (way->algorithm == NAS__QCONV_PIXELS)
            nas__q_pixels_pack(q, way, data, zero_left(NAS__DOT_VNNI, q, data), blocks);
        else
            nas__q_plane_tiles_pack(q, data, blocks);
        if (q->single && q->prelu) {
            float above = 0;
            (void)nas__q_prelu_factor(data, data->multiplier_between, false, &above); /* checked */
            memcpy((uint8_t *)out + 4 * NAS__Q_ABOVE, &above, sizeof above);
        }
        break;
    case NAS__QCONV_DEPTHWISE:
        p.zero = data->zero_in;
        if (nas__q_deals(way))
            nas__q_depthwise_pack(target, q, data, blocks);
        else
            pack_depthwise(&p, blocks);
        break;
    case NAS__QCONV_WINOGRAD_2:
    case NAS__QCONV_WINOGRAD_4: nas__qconv_winograd_pack(target, q, way, data, blocks); break;
    case NAS__QCONV_SPARSE:
    case NAS__QCONV_SPARSE_PANEL:
        return nas__q_sparse_pack(ctx, target, q, way, data,
                                  zero_left(nas__dot_of(target), q, data), out);
    }
    return NAS_OK;
}
