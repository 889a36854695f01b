/* layer_qconv_pixels.c - integer convolutions with pixels in lanes: few channels waste none.
 *
 * Codes lie in planes, [row][four channels][pixel][4]: a 32-bit lane holds four channels of one pixel, which is what one
 * product takes, so inputs are read as they lie at any offset and outputs are stored as they come. A tile is `pixels`
 * vectors of pixels by `vectors` outputs; its weights are words in every lane, in the order in which they are used:
 * [block of outputs][kernel row][four channels][kernel column][output]. Images of one channel are not in planes: their
 * rows are staged, so that the lane of a pixel holds it and the next three.
 *
 * Sums are scaled as ir/quantize.h says, bit for bit. Where all ratios are below 1/2, twice the multiplier fits 32 bits and
 * the upper half of a product is the result. Below 1/128 multipliers have no more than 24 bits, nor have most
 * sums: then one fused multiplication and addition of floats is exact, and half as dear. Above, there nearly always is a float
 * with which every code begins at the same sum. */
#include "compiler/layer_qconv_internal.h"

#include <math.h>
#include <string.h>

enum { LANES = NAS__Q_PIXEL_LANES, GROUP = NAS__Q_PIXEL_GROUP };

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* ---- geometry ----------------------------------------------------------------------------------------------------- */

nas__q_steps nas__q_steps_of(const nas__qconv *q) {
    const nas__conv *c = &q->conv;
    nas__q_steps s = {.staged = q->in_plane == 0,
                      .groups = ceil_div(c->in_c, GROUP),
                      .columns = c->kernel_w,
                      .apart = c->dilation_w,
                      .plane = q->in_plane,
                      .row = c->in_row};
    if (s.staged) {
        s.columns = ceil_div(c->kernel_w, GROUP);
        s.apart = GROUP;
        s.row = nas__q_plane_bytes(c->out_w, GROUP * (s.columns - 1));
    }
    return s;
}

static int32_t total_steps(const nas__qconv *q) {
    const nas__q_steps s = nas__q_steps_of(q);
    return q->conv.kernel_h * s.groups * s.columns;
}

size_t nas__q_plane_bytes(int32_t width, int32_t border) {
    const size_t pixels = (size_t)ceil_div(width, LANES) * LANES + (size_t)border;
    return (pixels * GROUP + 63) / 64 * 64;
}

bool nas__qconv_pixels_legal(const nas_target *target, const nas__conv *c) {
    return nas__dot_of(target) == NAS__DOT_VNNI && c->groups == 1 && c->stride_h == 1 &&
           c->stride_w == 1 && (c->in_c > 1 || c->dilation_w == 1);
}

size_t nas__q_pixels_scratch(const nas__qconv *q) {
    const nas__q_steps s = nas__q_steps_of(q);
    return s.staged ? (size_t)nas__q_staged_rows(q, NAS__Q_PIXEL_ROWS) * s.row : 0;
}

bool nas__q_pixels_turns(const nas__qconv *q, const nas__qconv_way *way) {
    return q->absent == NULL && way->pixels <= 2 && way->vectors == GROUP &&
           q->conv.out_c >= GROUP && q->conv.out_w >= way->pixels * LANES;
}

/* Outputs of block b of a way; words of an output in front of the weights of a block: multiplier, bias, slope below 0. */
int32_t nas__q_pixels_outputs(const nas__qconv *q, const nas__qconv_way *way, int32_t b) {
    return min_i32(way->vectors, q->conv.out_c - b * way->vectors);
}

size_t nas__q_pixels_block(const nas__qconv *q, int32_t outputs) {
    const size_t n = (size_t)ceil_div(outputs, GROUP) * GROUP;
    return 4 * n * (NAS__Q_PIXEL_HEAD + (size_t)total_steps(q));
}

size_t nas__q_pixels_weights(const nas__qconv *q, const nas__qconv_way *way) {
    size_t n = 0;
    for (int32_t b = 0; b * way->vectors < q->conv.out_c; b++)
        n += nas__q_pixels_block(q, nas__q_pixels_outputs(q, way, b));
    return n;
}

/* ---- estimate ----------------------------------------------------------------------------------------------------- */

bool nas__q_pixels_absent(const nas__qconv *q, int32_t o, int32_t y, int32_t x) {
    const nas__conv *c = &q->conv;
    return q->absent != NULL && q->absent[(o * c->kernel_h + y) * c->kernel_w + x] != 0;
}

static double share_used(const nas__qconv *q, int32_t first, int32_t outputs) {
    const int32_t taps = q->conv.kernel_h * q->conv.kernel_w;
    int32_t used = taps * outputs;
    for (int32_t i = 0; q->absent != NULL && i < taps * outputs; i++)
        used -= q->absent[first * taps + i] != 0;
    return (double)used / (taps * outputs);
}

/* A tile of a way: `used` of its sums' products are not left out. */
typedef struct tile_work {
    int32_t outputs, wide;
    double sums, used;
} tile_work;

/* One product a cycle, beside it other work on other ports; a load in two cycles where it crosses lines. */
static double tile_of_one(const nas__qconv *q, const nas__qconv_way *way, const tile_work *t) {
    const nas__conv *c = &q->conv;
    const double finish = (q->single ? 1.75
                           : q->half ? 3.5
                                     : 5.5) +
                          (c->has_residual ? 4.5 : 0) + (q->prelu ? q->single ? 2.25 : 3.5 : 0);
    const double loads = (c->kernel_w > 1 ? 2.0 : 1.0) * t->wide + 0.5 * t->outputs;
    const double products = total_steps(q) * (t->used > loads ? t->used : loads);
    /* two instructions a cycle, of them one product */
    const double mixed = 0.5 * products + finish * t->sums;
    if (t->wide == way->pixels && t->outputs == GROUP && nas__q_pixels_turns(q, way))
        return (products > mixed ? products : mixed) + 0.5 * t->sums + 8;
    return products + finish * t->sums + 16;
}

double nas__q_pixels_finish(const nas__qconv *q) {
    const double scale = q->single ? 3
                         : q->half ? 9
                                   : 12,
                 join = q->dots > 0            ? 3.5 + q->dots
                        : q->conv.has_residual ? 8
                                               : 0;
    return scale + join + (q->prelu ? q->late ? 4.5 : 6.5 : 0);
}

/* Two products a cycle, on the ports that all other work on vectors goes to as well; two loads, which count twice where they
 * cross lines. */
static double tile_of_two(const nas__qconv *q, const nas__qconv_way *way, const tile_work *t) {
    (void)way; /* its tiles take no turns */
    const nas__conv *c = &q->conv;
    const double finish = nas__q_pixels_finish(q);
    const double loads = (c->kernel_w > 1 ? 2 : 1) * t->wide + t->outputs;
    const double latency = 5; /* of a product, all of which wait for the one before */
    const double step = 0.5 * (t->used > loads ? t->used : loads);
    return total_steps(q) * (step < latency ? latency : step) + 0.5 * finish * t->sums + 12;
}

static double cycles_of(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    const bool two = nas__dots_a_cycle(target) > 1;
    const int32_t vectors = ceil_div(q->conv.out_w, LANES);
    double cycles = 0;
    for (int32_t b = 0; b * way->vectors < q->conv.out_c; b++) {
        const int32_t outputs = nas__q_pixels_outputs(q, way, b);
        const double share = share_used(q, b * way->vectors, outputs);
        for (int32_t v = 0; v < vectors; v += way->pixels) {
            tile_work t = {.outputs = outputs, .wide = min_i32(way->pixels, vectors - v)};
            t.sums = t.outputs * t.wide;
            t.used = t.sums * share;
            cycles += two ? tile_of_two(q, way, &t) : tile_of_one(q, way, &t);
        }
    }
    return cycles * q->conv.out_h;
}

int32_t nas__q_pixels_ways(const nas_target *target, const nas__qconv *q,
                           nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    static const int32_t tiles[][2] = {{2, 4}, {6, 4}, {3, 8}};
    int32_t n = 0;
    for (int32_t i = 0; i < 3; i++) {
        nas__qconv_way way = {.algorithm = NAS__QCONV_PIXELS,
                              .pixels = min_i32(tiles[i][0], ceil_div(q->conv.out_w, LANES)),
                              .vectors = tiles[i][1],
                              .stored_bits = 8};
        if (way.vectors > GROUP && q->conv.out_c <= GROUP) continue;
        if (q->absent != NULL && tiles[i][0] == 2) continue; /* few products for what they load */
        way.cycles = cycles_of(target, q, &way);
        bool listed = false;
        for (int32_t k = 0; k < n; k++)
            listed = listed || (out[k].pixels == way.pixels && out[k].vectors == way.vectors);
        if (!listed) out[n++] = way;
    }
    if (!nas__q_plane_tiles_legal(target, q)) return n;
    out[n++] = (nas__qconv_way){.algorithm = NAS__QCONV_PLANE_TILES,
                                .pixels = LANES,
                                .vectors = 16 * nas__q_plane_tiles_of(q).block,
                                .stored_bits = 8,
                                .cycles = nas__q_plane_tiles_cycles(q)};
    return n;
}

/* ---- single precision --------------------------------------------------------------------------------------------- */

/* Does factor f make of every code what m does? Halves go up there, to the even code here. */
static bool serves(const nas__qconv_data *data, int32_t m, bool below, float f) {
    const nas_requant *r = &data->between;
    const int32_t zero = data->requant.zero_out;
    for (int32_t code = r->low; code <= r->high; code++) {
        const int32_t x = code - r->zero_out;
        if ((x < 0) != below) continue;
        const int64_t want =
            ((int64_t)x * m + (1 << (NAS_QUANT_ADD_BITS - 1))) >> NAS_QUANT_ADD_BITS;
        if (want > INT16_MAX - 256 || want < INT16_MIN + 256 ||
            nearbyint((double)x * (double)f + zero) != (double)(want + zero))
            return false;
    }
    return true;
}

bool nas__q_prelu_factor(const nas__qconv_data *data, int32_t m, bool below, float *out) {
    const float f = ldexpf((float)m, -NAS_QUANT_ADD_BITS);
    const float near[3] = {f, nextafterf(f, below ? -INFINITY : INFINITY),
                           nextafterf(f, below ? INFINITY : -INFINITY)};
    for (int32_t i = 0; i < 3; i++) {
        *out = near[i];
        if (serves(data, m, below, near[i])) return true;
    }
    *out = 0;
    return false;
}

/* The largest size of a sum of output o. */
static int64_t largest_sum(const nas__qconv *q, const nas__qconv_data *data, int32_t o) {
    const nas__conv *c = &q->conv;
    const size_t n = (size_t)(c->kernel_h * c->kernel_w) * (size_t)(c->in_c / c->groups);
    const int32_t least = (q->in_signed ? -128 : 0) - data->zero_in, most = least + 255;
    int64_t low = data->bias[o], high = data->bias[o];
    for (size_t i = 0; i < n; i++) {
        const int32_t w = data->weight[(size_t)o * n + i];
        low += w > 0 ? w * least : w * most;
        high += w > 0 ? w * most : w * least;
    }
    return high > -low ? high : -low;
}

/* Has f*sum, rounded once, the code of m for every sum up to `largest`? It has when all codes begin at the same sum, which
 * is where the real products pass a half; none may be a half itself. */
static bool begins_alike(const nas_requant *r, int32_t m, int64_t largest, float f) {
    for (int32_t code = r->low + 1; code <= r->high; code++) {
        const int64_t half = (int64_t)(2 * (code - r->zero_out) - 1) * (1 << 30);
        const int64_t first = half / m + (half % m > 0); /* the smallest sum with half <= sum*m */
        const double bound = ldexp((double)half, -31);
        if (first <= largest && (double)first * (double)f <= bound) return false;
        if (first - 1 >= -largest && (double)(first - 1) * (double)f >= bound) return false;
    }
    return true;
}

/* The float that scales the sums of output o; false where there is none. Multipliers of up to 24 bits are floats. */
static bool factor_of(const nas__qconv *q, const nas__qconv_data *data, int32_t o, float *out) {
    const int32_t m = data->multiplier[o];
    const int64_t largest = largest_sum(q, data, o);
    int32_t odd = m, zeros = 0;
    for (; odd != 0 && odd % 2 == 0; odd /= 2)
        zeros++;
    *out = ldexpf((float)m, -31);
    if (largest >= 1 << 24 || ((largest * m) >> 31) > INT16_MAX - 512) return false;
    /* a half of a step takes 30 factors of two */
    if (odd < 1 << 24 && (zeros <= 6 || largest < (int64_t)1 << (30 - zeros))) return true;
    if (m == 0) return true;
    if (q->conv.has_residual && !q->joins) return false; /* no codes: all of the sum counts */
    const nas_requant *r = q->joins || q->prelu ? &data->between : &data->requant;
    const float up = nextafterf(*out, 1), down = nextafterf(*out, 0),
                near[5] = {*out, up, down, nextafterf(up, 1), nextafterf(down, 0)};
    for (int32_t i = 0; i < 5; i++) {
        *out = near[i];
        if (begins_alike(r, m, largest, near[i])) return true;
    }
    return false;
}

uint32_t nas__q_factor(const nas__qconv *q, const nas__qconv_data *data, int32_t channel) {
    float f = 0;
    uint32_t bits = 0;
    (void)factor_of(q, data, channel, &f); /* checked */
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static bool is_single(const nas__qconv *q, const nas__qconv_data *data) {
    float f = 0;
    if (q->has_left) return false;
    for (int32_t o = 0; o < q->conv.out_c; o++) {
        if (!factor_of(q, data, o, &f)) return false;
        if (q->prelu && !nas__q_prelu_factor(data, data->below[o], true, &f)) return false;
    }
    return !q->prelu || nas__q_prelu_factor(data, data->multiplier_between, false, &f);
}

/* ---- what the numbers allow ---------------------------------------------------------------------------------------- */

static int32_t type_least(const nas__qconv *q) {
    return q->out_signed ? -128 : 0;
}

/* What a prelu makes of the lowest or highest code in front of it. */
static int32_t prelu_bound(const nas__qconv_data *data, int32_t o, bool high) {
    const nas_requant *r = &data->between;
    const int32_t x = (high ? r->high : r->low) - r->zero_out;
    return nas_quant_add(x, x < 0 ? data->below[o] : data->multiplier_between, 0, 0,
                         &data->requant);
}

/* A prelu that never falls may have the bounds of its code applied to its result, if that has 16 bits without them. */
static bool may_be_late(const nas__qconv *q, const nas__qconv_data *data) {
    for (int32_t o = 0; o < q->conv.out_c; o++) {
        const int32_t below = data->below[o], above = data->multiplier_between;
        const double steepest = ldexp(below > above ? below : above, -NAS_QUANT_ADD_BITS);
        const double most = ldexp((double)largest_sum(q, data, o) * data->multiplier[o], -31) + 1;
        if (below < 0 || most * steepest > INT16_MAX - 512) return false;
    }
    return true;
}

/* How many words it takes to add up to each multiplier. */
static int32_t dots_of(const nas__qconv_data *data) {
    enum { DOTS_MAX = 3 };
    const int32_t a = data->multiplier_between, b = data->requant.multiplier_residual;
    const int32_t n = ceil_div(a > b ? a : b, INT16_MAX);
    return n <= DOTS_MAX ? n : 0;
}

int32_t nas__q_pair(const nas__qconv *q, const nas__qconv_data *data, int32_t i) {
    const int64_t a = data->multiplier_between, b = data->requant.multiplier_residual;
    const int64_t low = a * (i + 1) / q->dots - a * i / q->dots,
                  high = b * (i + 1) / q->dots - b * i / q->dots;
    return (int32_t)(high << 16 | low);
}

void nas__qconv_look(nas__qconv *q, const nas__qconv_data *data) {
    const nas_requant *r = &data->requant;
    q->single = is_single(q, data);
    q->dots = q->single && q->joins ? dots_of(data) : 0;
    q->late = q->single && q->prelu && may_be_late(q, data);
    q->open_low = r->low <= type_least(q);
    q->open_high = r->high >= type_least(q) + 255;
    for (int32_t o = 0; o < q->conv.out_c && q->late; o++) {
        q->open_low = q->open_low && prelu_bound(data, o, false) == type_least(q);
        q->open_high = q->open_high && prelu_bound(data, o, true) == type_least(q) + 255;
    }
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

static void put_i32(uint8_t *at, int64_t value) {
    const int32_t v = (int32_t)value;
    memcpy(at, &v, sizeof v);
}

static void put_i64(uint8_t *at, int64_t value) {
    memcpy(at, &value, sizeof value);
}

/* Where the weight of input i and tap (y, x) lies among the bytes of an output: its word and the byte in it. */
static size_t byte_of(const nas__q_steps *s, int32_t outputs, int32_t y, int32_t x, int32_t i) {
    const int32_t group = s->staged ? 0 : i / GROUP, column = s->staged ? x / GROUP : x;
    const int32_t word = (y * s->groups + group) * s->columns + column;
    return (size_t)(word * outputs * GROUP + (s->staged ? x : i) % GROUP);
}

/* Bounds of a block whose prelu is late: one byte a channel; those beyond the last one hold 0 as well as they may. */
static void put_bounds(const nas__qconv_data *data, int32_t first, int32_t n, uint8_t *out) {
    for (int32_t k = 0; k < ceil_div(n, GROUP) * GROUP; k++) {
        uint8_t *at = out + 8 * (k / GROUP * GROUP) + 4 + k % GROUP;
        at[0] = (uint8_t)(k < n ? prelu_bound(data, first + k, false) : data->requant.low);
        at[8] = (uint8_t)(k < n ? prelu_bound(data, first + k, true) : data->requant.high);
    }
}

/* What scales output o, as floats. */
static void put_factors(const nas__qconv *q, const nas__qconv_data *data, int32_t o, uint8_t *at,
                        uint8_t *below_at) {
    float m = 0, below = 0;
    (void)factor_of(q, data, o, &m); /* checked */
    memcpy(at, &m, sizeof m);
    if (q->prelu) (void)nas__q_prelu_factor(data, data->below[o], true, &below); /* checked */
    memcpy(below_at, &below, sizeof below);
}

void nas__q_pixels_pack_head(const nas__qconv *q, const nas__qconv_data *data, int32_t first,
                             int32_t n, uint8_t *out) {
    const int32_t padded = ceil_div(n, GROUP) * GROUP;
    for (int32_t k = 0; k < n; k++) {
        if (q->single) {
            put_factors(q, data, first + k, out + 8 * k, out + 12 * padded + 4 * k);
            continue;
        }
        const int64_t m = data->multiplier[first + k];
        put_i64(out + 8 * k, q->half ? 2 * m : m);
        if (q->prelu) put_i32(out + 12 * padded + 4 * k, data->below[first + k]);
    }
    if (q->late) put_bounds(data, first, n, out);
}

void nas__q_pixels_pack(const nas__qconv *q, const nas__qconv_way *way, const nas__qconv_data *data,
                        int32_t zero, uint8_t *out) {
    const nas__conv *c = &q->conv;
    const nas__q_steps s = nas__q_steps_of(q);
    const int32_t taps = c->kernel_h * c->kernel_w;
    for (int32_t first = 0; first < c->out_c; first += way->vectors) {
        const int32_t n = min_i32(way->vectors, c->out_c - first),
                      padded = ceil_div(n, GROUP) * GROUP;
        nas__q_pixels_pack_head(q, data, first, n, out);
        for (int32_t k = 0; k < n; k++) {
            const int8_t *w = data->weight + (size_t)(first + k) * (size_t)(taps * c->in_c);
            uint8_t *at = out + (size_t)(4 * NAS__Q_PIXEL_HEAD * padded + 4 * k);
            int64_t sum = 0;
            for (int32_t i = 0; i < taps * c->in_c; i++) {
                const int32_t tap = i / c->in_c;
                sum += w[i];
                at[byte_of(&s, padded, tap / c->kernel_w, tap % c->kernel_w, i % c->in_c)] =
                    (uint8_t)w[i];
            }
            put_i32(out + 8 * padded + 4 * k, data->bias[first + k] - zero * sum);
        }
        out += nas__q_pixels_block(q, n);
    }
}
