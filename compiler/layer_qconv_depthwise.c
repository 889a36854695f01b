/* layer_qconv_depthwise.c - integer convolutions whose groups are single channels: lanes are channels.
 *
 * On x86 the rows of a kernel are interleaved: four bytes (VNNI) or two words (PAIR) of a channel, one below the other, lie in
 * one lane, so that one product does them all. A column of the input is interleaved once, for every output that reads it.
 * Interleaving bytes of whole vectors deals the channels out to four vectors of sums, 4 channels of each 16 to every one of
 * them, and the saturating packs of the epilogue deal them back. Channels that do not fill a vector take a shorter one.
 * Elsewhere bytes are widened as they are loaded, one product for each tap. */
#include "compiler/layer_qconv_internal.h"

#include <string.h>

enum { DEALT = 4 /* vectors of sums of one vector of codes */ };

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

bool nas__q_deals(const nas__qconv_way *way) {
    return way->vectors == DEALT;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Channels [first, first + n) in vectors of `width` bytes. */
typedef struct part {
    int32_t first, width, n;
} part;

static part part_of(const nas_target *target, int32_t channels, int32_t first) {
    const int32_t rest = channels - first;
    const bool masks =
        target->vector_bytes == 64; /* parts of vectors cost no more than whole ones */
    const int32_t width = masks && rest > 48 ? 64 : rest >= (masks ? 17 : 32) ? 32 : 16;
    return (part){.first = first, .width = width, .n = min_i32(rest, width)};
}

static int32_t rows_of_product(const nas_target *target) {
    return nas__dot_group(nas__dot_of(target));
}

/* In front of the weights of a part, each for all of it: biases, multipliers twice, what is added behind them; or biases and
 * factors (nas__q_is_single). */
static int32_t arrays_of(const nas_target *target, const nas__qconv *q) {
    const nas__qconv_way way = {.algorithm = NAS__QCONV_DEPTHWISE, .vectors = DEALT};
    return nas__q_is_single(target, q, &way) ? 2 : 4;
}

/* Those; then [column of taps][group of rows][vector]. */
static int32_t part_bytes(const nas_target *target, const nas__qconv *q, int32_t width) {
    const nas__conv *c = &q->conv;
    return DEALT * width *
           (arrays_of(target, q) + c->kernel_w * ceil_div(c->kernel_h, rows_of_product(target)));
}

size_t nas__q_depthwise_weights(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    size_t n = 0;
    if (!nas__q_deals(way)) {
        const size_t blocks = (size_t)ceil_div(c->out_c, target->vector_bytes / 4);
        return blocks * (size_t)(2 + c->kernel_h * c->kernel_w) * (size_t)target->vector_bytes;
    }
    for (part p = {0}; p.first < c->out_c; p.first += p.n) {
        p = part_of(target, c->out_c, p.first);
        n += (size_t)part_bytes(target, q, p.width);
    }
    return n;
}

/* Of channel `i` of a part: its vector of sums, and its lane there. */
static int32_t vector_of(int32_t i) {
    return i % 16 / 4;
}
static int32_t lane_of(int32_t i) {
    return i / 16 * 4 + i % 4;
}

static void put_i32(uint8_t *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

static void pack_channel(const nas_target *target, const nas__qconv *q, const nas__qconv_data *d,
                         int32_t channel, int32_t i, int32_t width, uint8_t *out) {
    const nas__conv *c = &q->conv;
    const int32_t lane = lane_of(i), rows = rows_of_product(target);
    const int32_t groups = ceil_div(c->kernel_h, rows), taps = c->kernel_h * c->kernel_w;
    const int8_t *codes = d->weight + (size_t)channel * (size_t)taps;
    const uint32_t m = (uint32_t)d->multiplier[channel];
    uint8_t *at = out + vector_of(i) * width + 4 * lane;
    int32_t sum = 0;
    for (int32_t k = 0; k < taps; k++)
        sum += codes[k];
    const int32_t zero = d->zero_in + (q->in_signed ? 128 : 0);
    const int32_t arrays = arrays_of(target, q);
    const bool scaled = arrays > 2; /* by integers */
    put_i32(at, (uint32_t)d->bias[channel] - (uint32_t)(zero * sum) +
                    (q->has_left || !scaled ? 0 : 1U << 31));
    put_i32(at + DEALT * width, scaled ? 2 * m : nas__q_factor(q, d, channel));
    if (scaled && lane % 2 == 1) put_i32(at + 2 * DEALT * width - 4, 2 * m);
    if (scaled)
        put_i32(at + 3 * DEALT * width,
                (q->conv.has_residual ? 0 : (uint32_t)d->requant.zero_out) - m);
    for (int32_t y = 0; y < c->kernel_h; y++) {
        for (int32_t x = 0; x < c->kernel_w; x++) {
            uint8_t *dword = at + DEALT * width * (arrays + x * groups + y / rows);
            const int16_t wide = codes[y * c->kernel_w + x];
            if (rows == 2)
                memcpy(dword + 2 * (y % 2), &wide, sizeof wide);
            else
                dword[y % 4] = (uint8_t)wide;
        }
    }
}

void nas__q_depthwise_pack(const nas_target *target, const nas__qconv *q,
                           const nas__qconv_data *data, uint8_t *out) {
    const int32_t channels = q->conv.out_c;
    for (part p = {0}; p.first < channels; p.first += p.n) {
        p = part_of(target, channels, p.first);
        for (int32_t i = 0; i < p.n; i++)
            pack_channel(target, q, data, p.first + i, i, p.width, out);
        out += part_bytes(target, q, p.width);
    }
}

/* ---- estimates --------------------------------------------------------------------------------------------------- */

/* Instructions, of which the vector units take two of 64 bytes or three of less. */
static double dealt_cycles(const nas_target *target, const nas__qconv *q, int32_t columns) {
    const double scale = arrays_of(target, q) > 2 ? 7 : 3;
    const nas__conv *c = &q->conv;
    const int32_t rows = rows_of_product(target), groups = ceil_div(c->kernel_h, rows);
    const int32_t inputs = (columns - 1) * min_i32(c->stride_w, c->kernel_w) + c->kernel_w;
    const double column = 0.5 * c->kernel_h + groups * (rows == 4 ? 8 : 6);
    const double products = DEALT * c->kernel_w * groups * (rows == 4 ? 1 : 2);
    const double finish = DEALT * (scale + (c->has_residual ? 8 : 0) + (q->has_left ? 4 : 0)) + 6;
    return (inputs * column + columns * (products + finish)) / (target->vector_bytes == 64 ? 2 : 3);
}

static const double call_cycles = 16;

double nas__q_depthwise_cycles(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    int32_t blocks = ceil_div(c->out_c, target->vector_bytes / 4);
    if (nas__q_deals(way)) {
        blocks = 0;
        for (part p = {0}; p.first < c->out_c; p.first += p.n, blocks++)
            p = part_of(target, c->out_c, p.first);
    }
    double cycles = 0;
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t columns = t.columns - narrow, n = narrow ? t.narrow : t.wide;
        const double tile = nas__q_deals(way) ? dealt_cycles(target, q, columns)
                                              : c->kernel_h * c->kernel_w * (0.75 * columns + 1) +
                                                    nas__q_finish_cycles(target, q) * columns;
        cycles += n * (tile + call_cycles);
    }
    return cycles * blocks * c->out_h;
}

int32_t nas__q_depthwise_ways(const nas_target *target, const nas__qconv *q,
                              nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    const nas__conv *c = &q->conv;
    const nas__dot dot = nas__dot_of(target);
    /* the text has every tap of every pixel of a tile */
    const bool deals =
        (dot == NAS__DOT_PAIR || dot == NAS__DOT_VNNI) && c->kernel_h * c->kernel_w <= 49;
    const int32_t most = deals ? 8 : target->vector_registers >= 32 ? 12 : 8;
    int32_t n = 0, last = 0;
    for (int32_t p = most; p >= 4; p -= 2) {
        const int32_t pixels = nas__conv_tile(c, p).columns;
        if (pixels == last) continue;
        last = pixels;
        out[n] = (nas__qconv_way){.algorithm = NAS__QCONV_DEPTHWISE,
                                  .pixels = pixels,
                                  .vectors = deals ? DEALT : 1,
                                  .stored_bits = deals && dot == NAS__DOT_PAIR ? 16 : 8};
        out[n].cycles = nas__q_depthwise_cycles(target, q, &out[n]);
        n++;
    }
    return n;
}

/* ---- text, rows interleaved -------------------------------------------------------------------------------------- */

typedef struct dealt {
    const nas_target *target;
    const nas__qconv *q;
    const char *name;
    part part;
    int32_t columns;      /* of a tile */
    int32_t rows, groups; /* of a product; products of a column of taps */
    int32_t passes;       /* over the tile, for a share of the four vectors each */
    int32_t arrays;       /* in front of the weights */
    bool held;            /* weights stay in registers */
    bool open;            /* codes have no bounds */
} dealt;

static const char *type_of(int32_t width) {
    return width == 64 ? "__m512i" : width == 32 ? "__m256i" : "__m128i";
}
static const char *prefix_of(int32_t width) {
    return width == 64 ? "_mm512" : width == 32 ? "_mm256" : "_mm";
}

static int32_t weights_at(const dealt *d, int32_t tap, int32_t group, int32_t k) {
    return d->part.width * (DEALT * (d->arrays + tap * d->groups + group) + k);
}

static void emit_held(const dealt *d, nas_buf *out) {
    for (int32_t x = 0; x < d->q->conv.kernel_w; x++) {
        for (int32_t i = 0; i < d->groups * DEALT; i++) {
            nas_buf_printf(out, "    const %s b%d_%d_%d = q_bytes_%d(w + %d);\n",
                           type_of(d->part.width), x, i / DEALT, i % DEALT, d->part.width,
                           weights_at(d, x, i / DEALT, i % DEALT));
        }
    }
}

/* x<row> of one group: its rows of the input column, the last again where there are no more. */
static void emit_rows(const dealt *d, int32_t column, int32_t group, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t width = d->part.width, n = min_i32(c->kernel_h - group * d->rows, d->rows);
    for (int32_t y = 0; y < n; y++) {
        const size_t at = (size_t)((group * d->rows + y) * c->dilation_h) * c->in_row +
                          (size_t)(column * c->in_pitch);
        nas_buf_printf(out, "        const %s x%d = ", type_of(width), y);
        if (d->q->in_signed) nas_buf_printf(out, "q_flip_%d(", width);
        if (d->part.n == width)
            nas_buf_printf(out, "q_bytes_%d(in + %zu)", width, at);
        else
            nas_buf_printf(out, "q_part_%d(in + %zu, %d)", width, at, d->part.n);
        nas_buf_puts(out, d->q->in_signed ? ");\n" : ";\n");
    }
}

/* v<k>: the rows of a group, interleaved; u, t: halves. */
static void emit_deal(const dealt *d, int32_t group, int32_t pass, nas_buf *out) {
    const int32_t width = d->part.width, vectors = DEALT / d->passes;
    const int32_t n = min_i32(d->q->conv.kernel_h - group * d->rows, d->rows);
    const char *type = type_of(width), *p = prefix_of(width);
    for (int32_t k = pass * vectors; k < (pass + 1) * vectors; k += 2) {
        const char *half = k < 2 ? "lo" : "hi";
        nas_buf_printf(out, "        const %s s%d = %s_unpack%s_epi8(x0, ", type, k, p, half);
        if (n > 1 || d->rows == 4)
            nas_buf_printf(out, "x%d", n > 1 ? 1 : 0);
        else
            nas_buf_printf(out, "(%s){0}", type);
        if (d->rows == 4 && n > 2)
            nas_buf_printf(out, "), t%d = %s_unpack%s_epi8(x2, x%d", k, p, half, n > 3 ? 3 : 2);
        nas_buf_puts(out, ");\n");
        for (int32_t i = k; i < k + 2; i++) {
            nas_buf_printf(out, "        const %s v%d = %s_unpack%s_epi%d(s%d, ", type, i, p,
                           i == k ? "lo" : "hi", d->rows == 2 && n == 2 ? 8 : 16, k);
            if (d->rows == 2)
                nas_buf_printf(out, "(%s){0});\n", type);
            else
                nas_buf_printf(out, "%c%d);\n", n > 2 ? 't' : 's', k);
        }
    }
}

/* Results of pixel `p`, of two vectors from `k` on, as words. */
static void emit_words(const dealt *d, int32_t p, int32_t k, nas_buf *out) {
    const nas__qconv *q = d->q;
    const int32_t width = d->part.width;
    nas_buf_printf(out, "        const %s y%d_%d = %s_packs_epi32(", type_of(width), p, k / 2,
                   prefix_of(width));
    for (int32_t i = k; i < k + 2; i++) {
        nas_buf_printf(out, "%s(%s)", i == k ? "" : ", ", type_of(width));
        if (q->conv.has_residual)
            nas_buf_printf(out, "%s_%d(", q->joins ? "q_join" : "q_plus", width);
        nas_buf_printf(out, "q_%s_%d(", d->arrays > 2 ? "scale" : "single", width);
        if (q->has_left)
            nas_buf_printf(out, "q_left_%d(a%d_%d, h)", width, p, i);
        else
            nas_buf_printf(out, "a%d_%d", p, i);
        nas_buf_printf(out, ", w + %d, ", (DEALT + i) * width);
        if (d->arrays > 2)
            nas_buf_printf(out, "%d)", DEALT * width);
        else
            nas_buf_puts(out, "shift)");
        if (q->conv.has_residual) {
            nas_buf_printf(out, ", q_dealt_%c_%d(r%d, %d), h)", q->residual_signed ? 's' : 'u',
                           width, p, i);
        }
    }
    nas_buf_puts(out, ");\n");
}

static void emit_finish(const dealt *d, int32_t p, int32_t pass, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t width = d->part.width, vectors = DEALT / d->passes;
    const bool whole = d->part.n == width;
    nas_buf_puts(out, "        Q_NEW(w);\n");
    if (c->has_residual && pass == 0) {
        nas_buf_printf(out, "        const %s r%d = q_%s_%d(residual + %d", type_of(width), p,
                       whole ? "bytes" : "part", width, p * c->residual_pitch);
        nas_buf_printf(out, whole ? ");\n" : ", %d);\n", d->part.n);
    }
    for (int32_t k = pass * vectors; k < (pass + 1) * vectors; k += 2)
        emit_words(d, p, k, out);
    if (pass + 1 < d->passes) return;
    nas_buf_printf(out, "        q_keep_%s%d(out + %d, q_codes_%c%s_%d(y%d_0, y%d_1%s)",
                   whole ? "" : "part_", width, p * c->out_pitch, d->q->out_signed ? 's' : 'u',
                   d->open ? "_open" : "", width, p, p, d->open ? "" : ", h");
    nas_buf_printf(out, whole ? ");\n" : ", %d);\n", d->part.n);
}

/* Products of one input column with the taps of all outputs that read it. */
static void emit_column(const dealt *d, int32_t column, int32_t group, int32_t pass, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t width = d->part.width, vectors = DEALT / d->passes;
    for (int32_t k = pass * vectors; k < (pass + 1) * vectors; k++) {
        for (int32_t p = 0; p < d->columns; p++) {
            const int32_t at = column - p * c->stride_w, tap = at / c->dilation_w;
            if (at < 0 || at % c->dilation_w != 0 || tap >= c->kernel_w) continue;
            nas_buf_printf(out, "        a%d_%d = q_dot_%d(", p, k, width);
            if (tap == 0 && group == 0)
                nas_buf_printf(out, "(q_ints_%d)q_bytes_%d(w + %d), v%d, ", width, width, k * width,
                               k);
            else
                nas_buf_printf(out, "a%d_%d, v%d, ", p, k, k);
            if (d->held)
                nas_buf_printf(out, "b%d_%d_%d);\n", tap, group, k);
            else if (d->rows == 4)
                nas_buf_printf(out, "q_bytes_%d(w + %d));\n", width, weights_at(d, tap, group, k));
            else
                nas_buf_printf(out, "w + %d);\n", weights_at(d, tap, group, k));
        }
    }
}

static bool is_read(const dealt *d, int32_t column) {
    const nas__conv *c = &d->q->conv;
    for (int32_t p = 0; p < d->columns; p++) {
        const int32_t at = column - p * c->stride_w;
        if (at >= 0 && at % c->dilation_w == 0 && at / c->dilation_w < c->kernel_w) return true;
    }
    return false;
}

static void emit_dealt_tile(const dealt *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t last = (c->kernel_w - 1) * c->dilation_w;
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_%d_%d(const unsigned char *in, unsigned char *restrict out,%s "
                   "const unsigned char *w, const int *h) {\n",
                   d->columns, d->part.n, d->name, d->columns, d->part.n,
                   c->has_residual ? " const unsigned char *residual," : "");
    for (int32_t p = 0; p < d->columns; p++) {
        nas_buf_printf(out, "    q_ints_%d a%d_0, a%d_1, a%d_2, a%d_3;\n", d->part.width, p, p, p,
                       p);
    }
    if (d->held) emit_held(d, out);
    if (d->arrays == 2)
        nas_buf_printf(out, "    const %s shift = %s_set1_ps(0x1.8p+23f%s);\n",
                       d->part.width == 64   ? "__m512"
                       : d->part.width == 32 ? "__m256"
                                             : "__m128",
                       prefix_of(d->part.width), c->has_residual ? "" : " + (float)h[1]");
    for (int32_t pass = 0; pass < d->passes; pass++) {
        for (int32_t column = 0; column <= (d->columns - 1) * c->stride_w + last; column++) {
            if (!is_read(d, column)) continue;
            if (!d->held) nas_buf_puts(out, "    Q_NEW(w);\n");
            for (int32_t group = 0; group < d->groups; group++) {
                nas_buf_puts(out, "    {\n");
                emit_rows(d, column, group, out);
                emit_deal(d, group, pass, out);
                emit_column(d, column, group, pass, out);
                nas_buf_puts(out, "    }\n");
            }
            const int32_t done = column - last;
            if (done >= 0 && done % c->stride_w == 0) emit_finish(d, done / c->stride_w, pass, out);
        }
    }
    nas_buf_puts(out, "}\n");
}

/* ---- text, one product for each tap ------------------------------------------------------------------------------ */

static void emit_plain_tile(const nas_target *target, const nas__qconv *q, const char *name,
                            int32_t columns, int32_t lanes, nas_buf *out) {
    const nas__conv *c = &q->conv;
    nas_buf_printf(
        out,
        "/* %d pixels, %d channels */\n"
        "TILE void %s_%d_%d(const unsigned char *in, unsigned char *restrict out,%s const "
        "unsigned char *w, const int *h) {\n",
        columns, lanes, name, columns, lanes,
        c->has_residual ? " const unsigned char *residual," : "");
    nas__q_emit_biases(target, columns, 1, 2, out);
    nas_buf_printf(out,
                   "    for (int y = 0; y < %d; y++) {\n"
                   "        const unsigned char *s = in + (long)y * %zu;\n"
                   "        for (int x = 0; x < %d; x++, s += %d, w += %d) {\n"
                   "            const vi b = q_i32(w);\n",
                   c->kernel_h, (size_t)c->dilation_h * c->in_row, c->kernel_w,
                   c->dilation_w * c->in_pitch, target->vector_bytes);
    for (int32_t p = 0; p < columns; p++) {
        nas_buf_printf(out, "            a%d_0 += q_get_%c(s + %d, %d) * b;\n", p,
                       q->in_signed ? 's' : 'u', p * c->stride_w * c->in_pitch, lanes);
    }
    nas_buf_puts(out, "        }\n    }\n");
    nas__q_emit_multipliers(target, 1, out);
    for (int32_t p = 0; p < columns; p++) {
        nas__q_emit_epilogue(target, q, p, 1, lanes, (size_t)(p * c->out_pitch),
                             (size_t)(p * c->residual_pitch), out);
    }
    nas_buf_puts(out, "}\n");
}

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

/* Loops over `blocks` blocks of `n` channels from `first` on, and the tiles of a row. */
static void emit_blocks(const nas__qconv *q, const nas__conv_tiling *t, const char *name,
                        int32_t first, int32_t n, int32_t blocks, size_t block_bytes,
                        nas_buf *out) {
    const nas__conv *c = &q->conv;
    nas_buf_printf(out,
                   "        for (int b = 0; b < %d; b++, w += %zu) {\n"
                   "            const long at = %d + b * %d;\n",
                   blocks, block_bytes, first, n);
    for (int32_t narrow = 0; narrow < (t->narrow > 0 ? 2 : 1); narrow++) {
        const int32_t columns = t->columns - narrow;
        nas_buf_printf(out,
                       "            for (long t = 0; t < %d; t++) {\n"
                       "                const long x = %d + t * %d;\n"
                       "                %s_%d_%d((const unsigned char *)in + (long)y * %zu + x "
                       "* %d + at, (unsigned char *)out + (long)y * %zu + x * %d + at",
                       narrow ? t->narrow : t->wide, narrow ? t->wide * t->columns : 0, columns,
                       name, columns, n, (size_t)c->stride_h * c->in_row, c->stride_w * c->in_pitch,
                       c->out_row, c->out_pitch);
        if (c->has_residual) {
            nas_buf_printf(out, ", (const unsigned char *)residual + (long)y * %zu + x * %d + at",
                           c->residual_row, c->residual_pitch);
        }
        nas_buf_puts(out, ", w, h);\n            }\n");
    }
    nas_buf_puts(out, "        }\n");
}

static void emit_plain(const nas_target *target, const nas__qconv *q, const nas__conv_tiling *t,
                       const char *name, nas_buf *tiles, nas_buf *loops) {
    const nas__conv *c = &q->conv;
    const int32_t lanes = target->vector_bytes / 4, whole = c->out_c / lanes;
    const size_t block = (size_t)(2 + c->kernel_h * c->kernel_w) * (size_t)target->vector_bytes;
    for (int32_t rest = 0; rest < 2; rest++) {
        const int32_t n = rest == 0 ? lanes : c->out_c % lanes, blocks = rest == 0 ? whole : 1;
        if (n == 0 || blocks == 0) continue;
        for (int32_t narrow = 0; narrow < (t->narrow > 0 ? 2 : 1); narrow++)
            emit_plain_tile(target, q, name, t->columns - narrow, n, tiles);
        emit_blocks(q, t, name, rest * whole * lanes, n, blocks, block, loops);
    }
}

static void emit_dealt(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                       const nas__conv_tiling *t, const char *name, nas_buf *tiles,
                       nas_buf *loops) {
    const nas__conv *c = &q->conv;
    dealt d = {.target = target,
               .q = q,
               .name = name,
               .rows = rows_of_product(target),
               .arrays = arrays_of(target, q),
               .open = nas__q_is_open(target, q, way)};
    d.groups = ceil_div(c->kernel_h, d.rows);
    d.passes = target->vector_registers >= 32 ? 1 : 2;
    d.held = d.rows == 4 && c->kernel_w * d.groups <= 3;
    for (int32_t blocks = 0, at = 0; at < c->out_c; at += blocks * d.part.n) {
        d.part = part_of(target, c->out_c, at);
        for (blocks = 1; at + blocks * d.part.n < c->out_c; blocks++) {
            const part next = part_of(target, c->out_c, at + blocks * d.part.n);
            if (next.width != d.part.width || next.n != d.part.n) break;
        }
        for (int32_t narrow = 0; narrow < (t->narrow > 0 ? 2 : 1); narrow++) {
            d.columns = t->columns - narrow;
            emit_dealt_tile(&d, tiles);
        }
        emit_blocks(q, t, name, at, d.part.n, blocks, (size_t)part_bytes(target, q, d.part.width),
                    loops);
    }
}

void nas__qconv_depthwise_emit(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way, const char *name, nas_buf *out) {
    /* bands of one row: the tile runs along the row alone */
    const nas__conv_tiling t = nas__conv_tile(&q->conv, min_i32(way->pixels, q->conv.out_w));
    nas_buf loops = {0};
    if (nas__q_deals(way))
        emit_dealt(target, q, way, &t, name, out, &loops);
    else
        emit_plain(target, q, &t, name, out, &loops);
    nas__q_emit_head(q, name, out);
    nas_buf_printf(out,
                   "    for (int y = begin; y < end; y++) {\n"
                   "        const unsigned char *w = (const unsigned char *)weights + %d;\n%s"
                   "    }\n}\n\n",
                   4 * NAS__Q_HEAD, loops.data != NULL ? loops.data : "");
    out->failed |= loops.failed;
    nas_buf_deinit(&loops);
}
