/* layer_qconv_pixels.c - integer convolutions with pixels in lanes: few channels waste none.
 *
 * Codes lie in planes, [row][four channels][pixel][4]: a 32-bit lane holds four channels of one pixel, which is what one
 * product takes, so inputs are read as they lie at any offset and outputs are stored as they come. A tile is `pixels`
 * vectors of pixels by `vectors` outputs; its weights are words in every lane, in the order in which they are used:
 * [block of outputs][kernel row][four channels][kernel column][output]. Images of one channel are not in planes: their
 * rows are staged, so that the lane of a pixel holds it and the next three.
 *
 * Sums are scaled as ir/quantize.h says, with two things of this file: where all ratios are below 1/2, twice the multiplier
 * fits 32 bits, and the upper half of a product is the result; saturating packs are the clamp to the type. */
#include "compiler/layer_qconv_internal.h"

#include <string.h>

enum { LANES = 16, GROUP = 4, STAGED_ROWS = 16 };

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* ---- geometry ----------------------------------------------------------------------------------------------------- */

/* One kernel row is `groups` planes times `columns` steps, `apart` pixels from one to the next. */
typedef struct steps {
    bool staged;
    int32_t groups, columns, apart;
    size_t plane, row; /* of what is read */
} steps;

static steps steps_of(const nas__qconv *q) {
    const nas__conv *c = &q->conv;
    steps s = {.staged = q->in_plane == 0,
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
    const steps s = steps_of(q);
    return q->conv.kernel_h * s.groups * s.columns;
}

static int32_t reach_of(const nas__conv *c) {
    return (c->kernel_h - 1) * c->dilation_h + 1;
}

size_t nas__q_plane_bytes(int32_t width, int32_t border) {
    const size_t pixels = (size_t)ceil_div(width, LANES) * LANES + (size_t)border;
    return (pixels * GROUP + 63) / 64 * 64;
}

bool nas__qconv_pixels_legal(const nas_target *target, const nas__conv *c) {
    return nas__matrix_of(target) == NAS__DOT_VNNI && c->groups == 1 && c->stride_h == 1 &&
           c->stride_w == 1 && (c->in_c > 1 || c->dilation_w == 1);
}

size_t nas__q_pixels_scratch(const nas__qconv *q) {
    const steps s = steps_of(q);
    return s.staged ? (size_t)(STAGED_ROWS + reach_of(&q->conv) - 1) * s.row : 0;
}

/* Outputs of block b of a way; words of an output in front of the weights of a block: multiplier, bias, slope below 0. */
static int32_t outputs_of(const nas__qconv *q, const nas__qconv_way *way, int32_t b) {
    return min_i32(way->vectors, q->conv.out_c - b * way->vectors);
}

enum { HEAD_WORDS = 4 };

static size_t block_bytes(const nas__qconv *q, int32_t outputs) {
    const size_t n = (size_t)ceil_div(outputs, GROUP) * GROUP;
    return 4 * n * (HEAD_WORDS + (size_t)total_steps(q));
}

size_t nas__q_pixels_weights(const nas__qconv *q, const nas__qconv_way *way) {
    size_t n = 0;
    for (int32_t b = 0; b * way->vectors < q->conv.out_c; b++)
        n += block_bytes(q, outputs_of(q, way, b));
    return n;
}

/* ---- estimate ----------------------------------------------------------------------------------------------------- */

/* Zen 4: one product a cycle, beside it other work on other ports; a load in two cycles where it crosses lines. */
static double cycles_of(const nas__qconv *q, const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const double finish = (q->half ? 3.5 : 5.5) + (q->conv.has_residual ? 4 : 0) + (q->prelu ? 3 : 0);
    const int32_t vectors = ceil_div(c->out_w, LANES), products_of_sum = total_steps(q);
    double cycles = 0;
    for (int32_t b = 0; b * way->vectors < c->out_c; b++) {
        const int32_t outputs = outputs_of(q, way, b);
        for (int32_t v = 0; v < vectors; v += way->pixels) {
            const int32_t wide = min_i32(way->pixels, vectors - v);
            const double products = outputs * wide;
            const double loads = (c->kernel_w > 1 ? 2.0 : 1.0) * wide + 0.5 * outputs;
            cycles += products_of_sum * (products > loads ? products : loads) + finish * products + 16;
        }
    }
    return cycles * c->out_h;
}

int32_t nas__q_pixels_ways(const nas__qconv *q, nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    static const int32_t tiles[][2] = {{4, 4}, {6, 4}, {3, 8}};
    int32_t n = 0;
    for (int32_t i = 0; i < 3; i++) {
        nas__qconv_way way = {.algorithm = NAS__QCONV_PIXELS,
                              .pixels = min_i32(tiles[i][0], ceil_div(q->conv.out_w, LANES)),
                              .vectors = tiles[i][1],
                              .stored_bits = 8};
        if (way.vectors > GROUP && q->conv.out_c <= GROUP) continue;
        way.cycles = cycles_of(q, &way);
        bool listed = false;
        for (int32_t k = 0; k < n; k++)
            listed = listed || (out[k].pixels == way.pixels && out[k].vectors == way.vectors);
        if (!listed) out[n++] = way;
    }
    return n;
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
static size_t byte_of(const steps *s, int32_t outputs, int32_t y, int32_t x, int32_t i) {
    const int32_t group = s->staged ? 0 : i / GROUP, column = s->staged ? x / GROUP : x;
    const int32_t word = (y * s->groups + group) * s->columns + column;
    return (size_t)(word * outputs * GROUP + (s->staged ? x : i) % GROUP);
}

void nas__q_pixels_pack(const nas__qconv *q, const nas__qconv_way *way, const nas__qconv_data *data,
                        int32_t zero, uint8_t *out) {
    const nas__conv *c = &q->conv;
    const steps s = steps_of(q);
    const int32_t taps = c->kernel_h * c->kernel_w;
    for (int32_t first = 0; first < c->out_c; first += way->vectors) {
        const int32_t n = min_i32(way->vectors, c->out_c - first),
                      padded = ceil_div(n, GROUP) * GROUP;
        for (int32_t k = 0; k < n; k++) {
            const int8_t *w = data->weight + (size_t)(first + k) * (size_t)(taps * c->in_c);
            uint8_t *at = out + (size_t)(4 * HEAD_WORDS * padded + 4 * k);
            int64_t sum = 0;
            for (int32_t i = 0; i < taps * c->in_c; i++) {
                const int32_t tap = i / c->in_c;
                sum += w[i];
                at[byte_of(&s, padded, tap / c->kernel_w, tap % c->kernel_w, i % c->in_c)] =
                    (uint8_t)w[i];
            }
            const int64_t m = data->multiplier[first + k];
            put_i64(out + 8 * k, q->half ? 2 * m : m);
            put_i32(out + 8 * padded + 4 * k, data->bias[first + k] - zero * sum);
            if (q->prelu) put_i32(out + 12 * padded + 4 * k, data->below[first + k]);
        }
        out += block_bytes(q, n);
    }
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

typedef struct pixels {
    const nas__qconv *q;
    const nas__qconv_way *way;
    steps s;
    const char *name;
} pixels;

/* Vectors that all sums of a tile are scaled with. */
static void emit_constants(const nas__qconv *q, nas_buf *out) {
    const bool between = q->joins || q->prelu;
    if (q->half) {
        nas_buf_printf(out, "    const MI half = _mm512_set1_epi64(%s0x80000000LL);\n",
                       between || q->conv.has_residual ? "" : "((long long)h[1] * 65536 * 65536) + ");
    }
    if (between) {
        nas_buf_printf(out,
                       "    const vi least = q_splat(h[9] - h[8]), most = q_splat(h[10] - h[8]);\n"
                       "    const vi round = q_splat(32768 + h[1] * 65536%s), m1 = q_splat(h[11]);\n",
                       q->joins ? " - h[6] * h[7]" : "");
    }
    if (q->conv.has_residual) nas_buf_puts(out, "    const vi m2 = q_splat(h[7]);\n");
    nas_buf_puts(out, "    const MI low = _mm512_set1_epi8((char)h[2]), high = "
                      "_mm512_set1_epi8((char)h[3]);\n");
}

/* The residual of output k of a group, from the words of the pixels: with its zero point. */
static void residual_text(const nas__qconv *q, int32_t k, nas_buf *out) {
    if (q->residual_signed)
        nas_buf_printf(out, "(r << %d >> 24)", 24 - 8 * k);
    else
        nas_buf_printf(out, "((r >> %d) & 255)", 8 * k);
}

/* The code, not clamped yet, of output o at vector v of the tile; k: place in its group. */
static void emit_code(const nas__qconv *q, int32_t o, int32_t v, int32_t k, nas_buf *out) {
    nas_buf_printf(out, "        vi t%d = ", k);
    if (q->half)
        nas_buf_printf(out, "q_upper(a%d_%d, m_%d, half)", o, v, o);
    else if (q->has_left)
        nas_buf_printf(out, "q_round(q_left(a%d_%d, h), m_%d)", o, v, o);
    else
        nas_buf_printf(out, "q_round(a%d_%d, m_%d)", o, v, o);
    const bool residual = q->conv.has_residual;
    if (!q->half && !residual && !q->prelu) nas_buf_puts(out, " + h[1]");
    nas_buf_puts(out, ";\n");
    if (q->joins || q->prelu)
        nas_buf_printf(out, "        t%d = q_min(q_max(t%d, least), most);\n", k, k);
    if (q->prelu)
        nas_buf_printf(out, "        t%d = (t%d * q_below(t%d, m1, below_%d) + round) >> 16;\n", k,
                       k, k, o);
    if (!residual) return;
    nas_buf_printf(out, "        t%d = ", k);
    if (q->joins) {
        nas_buf_printf(out, "(t%d * m1 + (", k);
        residual_text(q, k, out);
        nas_buf_puts(out, " * m2 + round)) >> 16;\n");
    } else {
        nas_buf_printf(out, "((t%d + (((", k);
        residual_text(q, k, out);
        nas_buf_puts(out, " - h[6]) * m2 + 512) >> 10) + 32) >> 6) + h[1];\n");
    }
}

/* Vector v of a tile: all its groups, `n` pixels of them. */
static void emit_vector(const pixels *d, int32_t outputs, int32_t v, int32_t n, nas_buf *out) {
    const nas__qconv *q = d->q;
    for (int32_t first = 0; first < outputs; first += GROUP) {
        const int32_t here = min_i32(GROUP, outputs - first);
        const size_t at = (size_t)(v * LANES * GROUP);
        nas_buf_puts(out, "    {\n");
        if (q->conv.has_residual) {
            nas_buf_printf(out, "        const vi r = q_pixels(residual + %zu, %d);\n",
                           (size_t)(first / GROUP) * q->residual_plane + at, n);
        }
        for (int32_t k = 0; k < here; k++)
            emit_code(q, first + k, v, k, out);
        nas_buf_printf(out, "        q_put_pixels(out + %zu, q_pack_%c(",
                       (size_t)(first / GROUP) * q->out_plane + at, q->out_signed ? 's' : 'u');
        for (int32_t k = 0; k < GROUP; k++) {
            if (k < here)
                nas_buf_printf(out, "t%d, ", k);
            else
                nas_buf_puts(out, "(vi){0}, ");
        }
        nas_buf_printf(out, "low, high), %d);\n    }\n", n);
    }
}

static void emit_sums(const pixels *d, int32_t outputs, int32_t vectors, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t padded = ceil_div(outputs, GROUP) * GROUP;
    const bool flips = d->q->in_signed && !d->s.staged;
    if (flips) /* int8 to uint8: see zero_left */
        nas_buf_puts(out, "    const vi flip = q_splat((int)0x80808080u);\n");
    for (int32_t o = 0; o < outputs; o++) {
        nas_buf_printf(out, "    vi a%d_0 = q_splat4(w + %d)", o, 8 * padded + 4 * o);
        for (int32_t v = 1; v < vectors; v++)
            nas_buf_printf(out, ", a%d_%d = a%d_0", o, v, o);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out,
                   "    const unsigned char *const heads = w;\n    w += %d;\n"
                   "    for (int y = 0; y < %d; y++, in += %zu) {\n"
                   "        const unsigned char *s = in;\n"
                   "        for (int g = 0; g < %d; g++, s += %zu, w += %d) {\n",
                   4 * HEAD_WORDS * padded, c->kernel_h, (size_t)c->dilation_h * d->s.row,
                   d->s.groups, d->s.plane, 4 * padded * d->s.columns);
    for (int32_t x = 0; x < d->s.columns; x++) {
        nas_buf_puts(out, "            {\n");
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "                const vi x%d = q_i32(s + %d)%s;\n", v,
                           GROUP * (x * d->s.apart + v * LANES), flips ? " ^ flip" : "");
        }
        for (int32_t o = 0; o < outputs; o++) {
            nas_buf_printf(out, "                const vi b%d = q_splat4(w + %d);\n               ",
                           o, 4 * (x * padded + o));
            for (int32_t v = 0; v < vectors; v++)
                nas_buf_printf(out, " a%d_%d = q_dot(a%d_%d, x%d, b%d);", o, v, o, v, v, o);
            nas_buf_puts(out, "\n");
        }
        nas_buf_puts(out, "            }\n");
    }
    nas_buf_puts(out, "        }\n    }\n");
}

/* `vectors` vectors of pixels, `last` pixels of the last one, by `outputs` outputs. */
static void emit_tile(const pixels *d, int32_t outputs, int32_t vectors, int32_t last,
                      nas_buf *out) {
    const nas__qconv *q = d->q;
    const int32_t padded = ceil_div(outputs, GROUP) * GROUP,
                  n = (vectors - 1) * LANES + last;
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_%d_%d(const unsigned char *in, unsigned char *restrict out,%s "
                   "const unsigned char *w, const int *h) {\n",
                   n, outputs, d->name, n, outputs,
                   q->conv.has_residual ? " const unsigned char *residual," : "");
    emit_sums(d, outputs, vectors, out);
    emit_constants(q, out);
    for (int32_t o = 0; o < outputs; o++) {
        nas_buf_printf(out, q->half ? "    const MI m_%d = q_splat8(heads + %d);\n"
                                    : "    const vi m_%d = q_splat4(heads + %d);\n",
                       o, 8 * o);
        if (q->prelu)
            nas_buf_printf(out, "    const vi below_%d = q_splat4(heads + %d);\n", o,
                           12 * padded + 4 * o);
    }
    for (int32_t v = 0; v < vectors; v++)
        emit_vector(d, outputs, v, v + 1 < vectors ? LANES : last, out);
    nas_buf_puts(out, "}\n");
}

/* Rows of one channel: the lane of each pixel holds it and the next three; what lies beyond the row is 0. */
static void emit_stage(const pixels *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t columns = c->out_w + c->kernel_w - 1, pitch = c->in_pitch;
    const int32_t words = c->out_w + GROUP * (d->s.columns - 1);
    const int32_t whole = pitch != 1 || columns < GROUP ? 0 : min_i32(words, columns - GROUP + 1);
    nas_buf_printf(out,
                   "TILE void %s_stage(const unsigned char *in, unsigned char *s, int rows) {\n"
                   "    for (int y = 0; y < rows; y++, in += %zu, s += %zu) {\n"
                   "        for (int x = 0; x < %d; x++) {\n"
                   "            unsigned v;\n            __builtin_memcpy(&v, in + x, 4);\n"
                   "            v ^= %s;\n            __builtin_memcpy(s + 4 * x, &v, 4);\n"
                   "        }\n"
                   "        for (int x = %d; x < %d; x++) {\n"
                   "            for (int i = 0; i < 4; i++)\n"
                   "                s[4 * x + i] = x + i < %d ? in[(x + i) * %d] ^ %d : 0;\n"
                   "        }\n    }\n}\n",
                   d->name, c->in_row, d->s.row, whole, d->q->in_signed ? "0x80808080u" : "0u",
                   whole, words, columns, pitch, d->q->in_signed ? 128 : 0);
}

static void emit_call(const pixels *d, int32_t outputs, int32_t n, const char *x, const char *indent,
                      nas_buf *out) {
    const nas__qconv *q = d->q;
    nas_buf_printf(out, "%s%s_%d_%d(s + %s, o + b * %zu + %s", indent, d->name, n, outputs, x,
                   (size_t)(d->way->vectors / GROUP) * q->out_plane, x);
    if (q->conv.has_residual)
        nas_buf_printf(out, ", r + b * %zu + %s",
                       (size_t)(d->way->vectors / GROUP) * q->residual_plane, x);
    nas_buf_printf(out, ", w + b * %zu, h);\n", block_bytes(q, d->way->vectors));
}

/* All blocks of outputs of the tile of `n` pixels at x. */
static void emit_blocks(const pixels *d, int32_t n, const char *x, nas_buf *out) {
    const int32_t blocks = ceil_div(d->q->conv.out_c, d->way->vectors);
    const int32_t last = outputs_of(d->q, d->way, blocks - 1);
    const int32_t whole = last == d->way->vectors ? blocks : blocks - 1;
    if (whole > 0) {
        nas_buf_printf(out, "            for (long b = 0; b < %d; b++)\n", whole);
        emit_call(d, d->way->vectors, n, x, "                ", out);
    }
    if (whole < blocks) {
        nas_buf_printf(out, "            {\n                const long b = %d;\n", whole);
        emit_call(d, last, n, x, "                ", out);
        nas_buf_puts(out, "            }\n");
    }
}

static void emit_rows(const pixels *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t wide = d->way->pixels * LANES, tiles = c->out_w / wide, rest = c->out_w % wide;
    nas_buf_printf(out, "        unsigned char *const o = (unsigned char *)out + u * %zu;\n",
                   c->out_row);
    if (c->has_residual) {
        nas_buf_printf(out,
                       "        const unsigned char *const r = (const unsigned char *)residual + u "
                       "* %zu;\n",
                       c->residual_row);
    }
    if (tiles > 0) {
        nas_buf_printf(out, "        for (long x = 0; x < %d; x += %d) {\n",
                       tiles * wide * GROUP, wide * GROUP);
        emit_blocks(d, wide, "x", out);
        nas_buf_puts(out, "        }\n");
    }
    if (rest > 0) {
        nas_buf_printf(out, "        {\n            const long x = %d;\n", tiles * wide * GROUP);
        emit_blocks(d, rest, "x", out);
        nas_buf_puts(out, "        }\n");
    }
}

void nas__q_pixels_emit(const nas__qconv *q, const nas__qconv_way *way, const char *name,
                        nas_buf *out) {
    const nas__conv *c = &q->conv;
    const pixels d = {.q = q, .way = way, .s = steps_of(q), .name = name};
    const int32_t blocks = ceil_div(c->out_c, way->vectors), wide = way->pixels * LANES,
                  last = outputs_of(q, way, blocks - 1), rest = c->out_w % wide;
    for (int32_t k = 0; k < 2; k++) { /* whole blocks, then the last one where it is not */
        if (k == 0 ? c->out_c < way->vectors : last == way->vectors) continue;
        const int32_t outputs = k == 0 ? way->vectors : last;
        if (c->out_w >= wide) emit_tile(&d, outputs, way->pixels, LANES, out);
        if (rest > 0)
            emit_tile(&d, outputs, ceil_div(rest, LANES), (rest - 1) % LANES + 1, out);
    }
    if (d.s.staged) emit_stage(&d, out);
    nas__q_emit_head(q, name, out);
    nas_buf_printf(out, "    const unsigned char *const w = (const unsigned char *)weights + %d;\n",
                   4 * NAS__Q_HEAD);
    if (d.s.staged) {
        nas_buf_printf(out,
                       "    long from = begin, to = begin; /* rows whose inputs are staged */\n"
                       "    for (long u = begin; u < end; u++) {\n"
                       "        if (u == to) {\n"
                       "            from = u;\n"
                       "            to = end - u < %d ? end : u + %d;\n"
                       "            %s_stage((const unsigned char *)in + u * %zu, scratch, (int)(to "
                       "- u) + %d);\n        }\n"
                       "        const unsigned char *const s = (const unsigned char *)scratch + (u "
                       "- from) * %zu;\n",
                       STAGED_ROWS, STAGED_ROWS, name, c->in_row, reach_of(c) - 1, d.s.row);
    } else {
        nas_buf_printf(out,
                       "    for (long u = begin; u < end; u++) {\n"
                       "        const unsigned char *const s = (const unsigned char *)in + u * "
                       "%zu;\n",
                       c->in_row);
    }
    emit_rows(&d, out);
    nas_buf_puts(out, "    }\n}\n\n");
}
