/* layer_qconv_winograd.c - Winograd F(2x2,3x3) and F(4x4,3x3) in integers, without rounding: the sums are those of the
 * direct convolution, bit for bit, with 2.25 or 4 times fewer products (Lavin & Gray, arXiv:1509.09308).
 *
 * The fractions of the filter transform are multiplied away, row k by d[k], and come back in the output transform, whose
 * row is multiplied by e/d[k]. What comes out is e*e times the sum: 4 or 576. All of it is exact modulo 2^32, so an exact
 * division is a multiplication by the inverse of the odd part (1 or 9) and a shift by 2 or 6 bits. That gives the sum itself
 * when it fits 30 or 26 bits; input channels are split into `chunks` for which it must. Transformed inputs are at most
 * 100*255 and transformed weights 49*127: both fit 16 bits, and products of pairs 32.
 *
 * Structure as in layer_conv_winograd.c: a batch of tiles, transforms into V[point][tile][input channel], products into
 * M[chunk][point][tile][output channel], output transform with requantization. A unit is a batch and some blocks of
 * outputs. */
#include "compiler/layer_qconv_internal.h"

#include <stdio.h>
#include <string.h>

enum { UNITS = 8, INPUT_LANES = 16, LINE = 64, PRODUCT_MAX = 9 * 255 };

typedef struct geometry {
    int32_t m, a, points; /* outputs and inputs of a tile along an axis, a * a */
    int32_t lanes;
    int32_t chunks, chunk;         /* input channels of a chunk, an even number */
    int32_t in_padded, out_padded; /* channels */
    int32_t across, tiles;
    int32_t unit_blocks, splits; /* blocks of outputs of a unit, units of a batch */
    int32_t unit_channels;
    size_t in_plane, out_plane; /* elements from point to point, off the powers of two */
} geometry;

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t edge_of(const nas__qconv_way *way) {
    return way->algorithm == NAS__QCONV_WINOGRAD_2 ? 2 : 4;
}

/* Input channels whose sum is certain to fit what the division leaves of 32 bits. */
static int32_t chunk_max(const nas__qconv *q, int32_t m) {
    const int32_t weight_max = (1 << (q->weight_bits - 1)) - 1;
    return (1 << (m == 2 ? 29 : 25)) / (PRODUCT_MAX * weight_max);
}

static geometry geometry_of(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const int32_t m = edge_of(way), lanes = target->vector_bytes / 4;
    geometry g = {.m = m, .a = m + 2, .points = (m + 2) * (m + 2), .lanes = lanes};
    g.chunks = ceil_div(c->in_c, chunk_max(q, m));
    g.chunk = ceil_div(c->in_c, 2) * 2;
    g.in_padded = ceil_div(c->in_c, INPUT_LANES) * INPUT_LANES;
    if (g.chunks > 1) {
        g.chunks = ceil_div(c->in_c, chunk_max(q, m) / INPUT_LANES * INPUT_LANES);
        g.chunk = ceil_div(ceil_div(c->in_c, g.chunks), INPUT_LANES) * INPUT_LANES;
        g.in_padded = g.chunks * g.chunk;
    }
    g.out_padded = ceil_div(c->out_c, lanes) * lanes;
    g.across = ceil_div(c->out_w, m);
    g.tiles = g.across * ceil_div(c->out_h, m);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const int32_t batches = ceil_div(g.tiles, way->batch);
    g.unit_blocks = ceil_div(b.count, ceil_div(UNITS, batches));
    g.splits = ceil_div(b.count, g.unit_blocks);
    g.unit_channels = g.unit_blocks * b.vectors * lanes;
    g.in_plane = (size_t)way->batch * (size_t)g.in_padded + LINE / sizeof(int16_t);
    g.out_plane = (size_t)way->batch * (size_t)g.unit_channels + LINE / sizeof(int32_t);
    return g;
}

bool nas__qconv_winograd_legal(const nas_target *target, const nas__qconv *q) {
    const nas__conv *c = &q->conv;
    const nas__dot dot = nas__dot_of(target);
    return (dot == NAS__DOT_PAIR || dot == NAS__DOT_VNNI) && c->groups == 1 && c->kernel_h == 3 &&
           c->kernel_w == 3 && c->stride_h == 1 && c->stride_w == 1 && c->dilation_h == 1 &&
           c->dilation_w == 1 && c->out_h > 1 && c->out_w > 1;
}

int32_t nas__qconv_winograd_units(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way) {
    const geometry g = geometry_of(target, q, way);
    return ceil_div(g.tiles, way->batch) * g.splits;
}

/* V, M, and the patch of a tile that sticks out. */
static size_t v_bytes(const geometry *g) {
    return (size_t)g->points * g->in_plane * sizeof(int16_t);
}

static size_t m_bytes(const geometry *g) {
    return (size_t)(g->chunks * g->points) * g->out_plane * sizeof(int32_t);
}

size_t nas__qconv_winograd_scratch(const nas_target *target, const nas__qconv *q,
                                   const nas__qconv_way *way) {
    const geometry g = geometry_of(target, q, way);
    return v_bytes(&g) + m_bytes(&g) + (size_t)g.points * (size_t)g.in_padded;
}

static size_t point_bytes(const geometry *g) {
    return (size_t)g->in_padded * (size_t)g->out_padded * sizeof(int16_t);
}

static size_t chunk_bytes(const geometry *g) {
    return (size_t)g->chunk * (size_t)g->out_padded * sizeof(int16_t);
}

size_t nas__qconv_winograd_weights(const nas_target *target, const nas__qconv *q,
                                   const nas__qconv_way *way) {
    const geometry g = geometry_of(target, q, way);
    return 2 * (size_t)g.out_padded * sizeof(int32_t) +
           (size_t)(g.points * g.chunks) * chunk_bytes(&g);
}

double nas__qconv_winograd_cycles(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way) {
    const geometry g = geometry_of(target, q, way);
    const double l2_bytes_cycle = 32, far_bytes_cycle = 10, issue = 3.5;
    const double batches = ceil_div(g.tiles, way->batch), tiles = batches * way->batch;
    const double inputs = (double)ceil_div(q->conv.in_c, INPUT_LANES),
                 outputs = (double)g.out_padded / g.lanes;
    const double in_ops = g.m == 4 ? 260 : 100, out_ops = g.m == 4 ? 230 : 70;
    /* each row of outputs asks for the constants anew: dear where vectors are long (timed, Zen 4) */
    const bool wide = target->vector_bytes == 64;
    const double finish = q->conv.has_residual ? (wide ? 20 : 6) : (wide ? 11.5 : 4);
    const double product = nas__dot_of(target) == NAS__DOT_PAIR ? 0.62 : 0.5;
    double cycles = tiles * inputs * in_ops / issue * (g.splits > 1 ? 1.5 : 1);
    cycles += tiles * outputs * (g.chunks * out_ops / issue + finish * g.m * g.m);
    cycles += tiles * outputs * g.points * (g.chunks * (g.chunk / 2.0 * product + 4.0 / 6));
    const double weights = (double)g.points * (double)point_bytes(&g);
    cycles +=
        batches * weights / (weights > 0.5 * target->l2_bytes ? far_bytes_cycle : l2_bytes_cycle);
    const double scratch = (double)(v_bytes(&g) + m_bytes(&g));
    if (scratch > 0.5 * target->l2_bytes) cycles += batches * 2 * scratch / far_bytes_cycle;
    return cycles;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* Rows of the filter transform, each times what makes it whole numbers; points 0, 1, -1, infinity, and 2, -2. */
static const int32_t g2[4][3] = {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 1}};
static const int32_t g4[6][3] = {{1, 0, 0}, {-1, -1, -1}, {-1, 1, -1},
                                 {1, 2, 4}, {1, -2, 4},   {0, 0, 1}};

static int32_t transformed(const int8_t *w, size_t tap, const int32_t *down,
                           const int32_t *across) {
    int32_t sum = 0;
    for (size_t y = 0; y < 3; y++) {
        for (size_t x = 0; x < 3; x++)
            sum += down[y] * across[x] * w[(3 * y + x) * tap];
    }
    return sum;
}

/* Bias and multipliers, or factors, of all channels; then [point][chunk][block][pair of inputs][output][2]. */
void nas__qconv_winograd_pack(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const nas__qconv_data *data,
                              uint8_t *out) {
    const nas__conv *c = &q->conv;
    const geometry g = geometry_of(target, q, way);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const size_t head = (size_t)g.out_padded * sizeof(int32_t), channels = (size_t)c->out_c;
    memcpy(out, data->bias, channels * sizeof(int32_t));
    memcpy(out + head, data->multiplier, channels * sizeof(int32_t));
    for (int32_t o = 0; o < c->out_c && nas__q_is_single(target, q, way); o++) {
        const uint32_t factor = nas__q_factor(q, data, o);
        memcpy(out + head + sizeof factor * (size_t)o, &factor, sizeof factor);
    }
    out += 2 * head;
    for (int32_t o = 0, block = 0; o < c->out_c; o++) {
        if (o == nas__conv_block_first(&b, block + 1)) block++;
        const int32_t start = nas__conv_block_first(&b, block);
        const int32_t end = nas__conv_block_first(&b, block + 1);
        const int32_t wide = ceil_div(end - start, g.lanes) * g.lanes;
        for (int32_t i = 0; i < c->in_c; i++) {
            const int32_t chunk = i / g.chunk, within = i % g.chunk;
            const size_t at = (size_t)chunk * chunk_bytes(&g) / sizeof(int16_t) +
                              (size_t)start * (size_t)g.chunk +
                              (size_t)(within / 2) * (size_t)wide * 2 + (size_t)(o - start) * 2 +
                              (size_t)(within % 2);
            const int8_t *w = data->weight + (size_t)o * 9 * (size_t)c->in_c + (size_t)i;
            for (int32_t p = 0; p < g.points; p++) {
                const int16_t code =
                    (int16_t)transformed(w, (size_t)c->in_c, g.m == 2 ? g2[p / g.a] : g4[p / g.a],
                                         g.m == 2 ? g2[p % g.a] : g4[p % g.a]);
                memcpy(out + (size_t)p * (size_t)g.chunks * chunk_bytes(&g) + at * sizeof code,
                       &code, sizeof code);
            }
        }
    }
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

/* One-dimensional transforms over names, used for columns, then for rows; DIVIDE: the sum from e*e times it. */
static const char transforms_2[] =
    "#define BT(o, d) do { \\\n"
    "    o(0) = d(0) - d(2); o(1) = d(1) + d(2); o(2) = d(2) - d(1); o(3) = d(1) - d(3); \\\n"
    "} while (0)\n"
    "#define AT(o, d) do { \\\n"
    "    o(0) = 2 * d(0) + d(1) + d(2); o(1) = d(1) - d(2) - 2 * d(3); \\\n"
    "} while (0)\n"
    "#define DIVIDE(x) ((vi)(x) >> 2)\n";
static const char transforms_4[] =
    "#define BT(o, d) do { \\\n"
    "    const q_s16 e0 = d(0), e1 = d(1), e2 = d(2), e3 = d(3), e4 = d(4), e5 = d(5); \\\n"
    "    const q_s16 p = e4 - 4 * e2, q = e3 - 4 * e1, r = e4 - e2, t = 2 * (e3 - e1); \\\n"
    "    o(0) = 4 * (e0 - e2) - e2 + e4; o(1) = p + q; o(2) = p - q; \\\n"
    "    o(3) = r + t; o(4) = r - t; o(5) = 4 * (e1 - e3) - e3 + e5; \\\n"
    "} while (0)\n"
    "#define AT(o, d) do { \\\n"
    "    const q_u32 e0 = d(0), e1 = d(1), e2 = d(2), e3 = d(3), e4 = d(4), e5 = d(5); \\\n"
    "    const q_u32 p = e1 + e2, q = 4 * (e1 - e2), r = e3 + e4, t = 2 * (e3 - e4); \\\n"
    "    o(0) = 4 * (e0 + p) + 2 * e0 + r; o(1) = q + t; \\\n"
    "    o(2) = 4 * (p + r); o(3) = q + 4 * t + 8 * (2 * e5 + e5); \\\n"
    "} while (0)\n"
    "#define DIVIDE(x) ((vi)((x) * 0x38e38e39U) >> 6) /* 1/9 modulo 2^32 */\n";

static void emit_names(int32_t n, nas_buf *out) {
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(out, "%so%d", i > 0 ? ", " : "", i);
    nas_buf_puts(out, ";\n");
}

static void emit_input(const nas__qconv *q, const geometry *g, const char *name, nas_buf *out) {
    const int32_t rest = q->conv.in_c % INPUT_LANES;
    for (int32_t k = 0; k < 2; k++) {
        if (k == 0 ? q->conv.in_c < INPUT_LANES : rest == 0) continue;
        nas_buf_printf(out,
                       "TILE void %s_in%d(const unsigned char *s, long row, long pitch, short *v, "
                       "short zero) {\n"
                       "    q_s16 h[%d][%d];\n"
                       "    for (int x = 0; x < %d; x++, s += pitch) {\n"
                       "#define D(i) (q_words_%c(s + i * row, %d) - zero)\n"
                       "#define O(i) h[i][x]\n        BT(O, D);\n#undef D\n#undef O\n    }\n"
                       "    for (int y = 0; y < %d; y++, v += %zu) {\n        q_s16 ",
                       name, k, g->a, g->a, g->a, q->in_signed ? 's' : 'u',
                       k == 0 ? (int)INPUT_LANES : rest, g->a, (size_t)g->a * g->in_plane);
        emit_names(g->a, out);
        nas_buf_puts(out, "#define D(i) h[y][i]\n#define O(i) o##i\n        BT(O, D);\n"
                          "#undef D\n#undef O\n");
        for (int32_t i = 0; i < g->a; i++)
            nas_buf_printf(out, "        *(q_s16 *)(v + %zu) = o%d;\n", (size_t)i * g->in_plane, i);
        nas_buf_puts(out, "    }\n}\n");
    }
}

/* The start of a batch: all its tiles into V. */
static void emit_fill(const nas__qconv *q, const geometry *g, const char *name, nas_buf *out) {
    const nas__conv *c = &q->conv;
    nas_buf_printf(out,
                   "TILE void %s_fill(const unsigned char *in, short *V, unsigned char *patch, "
                   "long first, long n, int zero) {\n"
                   "    (void)patch;\n"
                   "    for (long t = 0; t < n; t++) {\n"
                   "        const long y = (first + t) / %d * %d, x = (first + t) %% %d * %d;\n"
                   "        const unsigned char *s = in + y * %zu + x * %d;\n"
                   "        long row = %zu, pitch = %d;\n",
                   name, g->across, g->m, g->across, g->m, c->in_row, c->in_pitch, c->in_row,
                   c->in_pitch);
    if (c->out_h % g->m != 0 || c->out_w % g->m != 0) {
        nas_buf_printf(out,
                       "        const long rows = %d - y, columns = %d - x;\n"
                       "        if (rows < %d || columns < %d) { /* sticks out */\n"
                       "            __builtin_memset(patch, zero, %d);\n"
                       "            for (long i = 0; i < %d && i < rows; i++) {\n"
                       "                for (long j = 0; j < %d && j < columns; j++)\n"
                       "                    __builtin_memcpy(patch + (i * %d + j) * %d, s + i * "
                       "row + j * pitch, %d);\n"
                       "            }\n"
                       "            s = patch; row = %d; pitch = %d;\n"
                       "        }\n",
                       c->out_h + 2, c->out_w + 2, g->a, g->a, g->points * c->in_c, g->a, g->a,
                       g->a, c->in_c, c->in_c, g->a * c->in_c, c->in_c);
    }
    const int32_t whole = c->in_c / INPUT_LANES;
    nas_buf_printf(out, "        short *v = V + t * %d;\n", g->in_padded);
    if (whole > 0) {
        nas_buf_printf(out,
                       "        for (long k = 0; k < %d; k++) %s_in0(s + k * %d, row, pitch, v + k "
                       "* %d, (short)zero);\n",
                       whole, name, (int)INPUT_LANES, (int)INPUT_LANES);
    }
    if (c->in_c % INPUT_LANES != 0) {
        nas_buf_printf(out, "        %s_in1(s + %d, row, pitch, v + %d, (short)zero);\n", name,
                       whole * INPUT_LANES, whole * INPUT_LANES);
    }
    nas_buf_puts(out, "    }\n}\n");
}

/* `pixels` tiles x `vectors` vectors of the products of one point and chunk. */
static void emit_product(const geometry *g, const nas__qconv_way *way, const char *name,
                         int32_t vectors, nas_buf *out) {
    const int32_t pairs = g->chunk / 2, step = vectors * g->lanes * 4;
    const int32_t round = nas__conv_unroll(pairs, way->pixels * vectors);
    nas_buf_printf(out, "TILE void %s_mul%d(const short *s, const unsigned char *w, int *out) {\n",
                   name, vectors);
    for (int32_t p = 0; p < way->pixels; p++) {
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%sa%d_%d = {0}", v == 0 ? "    vi " : ", ", p, v);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "    for (int i = 0; i < %d; i += %d, s += %d, w += %d) {\n", pairs, round,
                   2 * round, round * step);
    for (int32_t u = 0; u < round; u++) {
        nas_buf_puts(out, "        {\n            const vi ");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%sb%d = q_i32(w + %d)", v == 0 ? "" : ", ", v,
                           u * step + v * g->lanes * 4);
        nas_buf_puts(out, ";\n            vi x;\n");
        for (int32_t p = 0; p < way->pixels; p++) {
            nas_buf_printf(out, "            x = q_x16(s + %d);", p * g->in_padded + 2 * u);
            for (int32_t v = 0; v < vectors; v++)
                nas_buf_printf(out, " a%d_%d = q_dot16(a%d_%d, x, b%d);", p, v, p, v, v);
            nas_buf_puts(out, "\n");
        }
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n");
    for (int32_t p = 0; p < way->pixels; p++) {
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "    *(vi *)(out + %d) = a%d_%d;\n",
                           p * g->unit_channels + v * g->lanes, p, v);
    }
    nas_buf_puts(out, "}\n");
}

/* The sums of one vector of channels of a tile. */
static void emit_sum(const geometry *g, const char *name, nas_buf *out) {
    nas_buf_printf(out, "TILE void %s_sum(const int *s, vi *acc) {\n    q_u32 half[%d][%d];\n",
                   name, g->m, g->a);
    if (g->chunks > 1) {
        nas_buf_printf(out, "    for (int c = 0; c < %d; c++, s += %zu) {\n", g->chunks,
                       (size_t)g->points * g->out_plane);
    }
    nas_buf_printf(
        out,
        "    for (int x = 0; x < %d; x++) {\n"
        "#define D(i) *(const q_u32 *)(s + (i * %d + x) * %zu)\n#define O(i) half[i][x]\n"
        "        AT(O, D);\n#undef D\n#undef O\n    }\n"
        "    for (int y = 0; y < %d; y++) {\n        q_u32 ",
        g->a, g->a, g->out_plane, g->m);
    emit_names(g->m, out);
    nas_buf_puts(out, "#define D(i) half[y][i]\n#define O(i) o##i\n        AT(O, D);\n"
                      "#undef D\n#undef O\n");
    for (int32_t i = 0; i < g->m; i++) {
        nas_buf_printf(out, "        acc[y * %d + %d] = ", g->m, i);
        if (g->chunks > 1) {
            nas_buf_printf(out, "c == 0 ? DIVIDE(o%d) : acc[y * %d + %d] + DIVIDE(o%d);\n", i, g->m,
                           i, i);
        } else {
            nas_buf_printf(out, "DIVIDE(o%d);\n", i);
        }
    }
    nas_buf_puts(out, g->chunks > 1 ? "    }\n    }\n}\n" : "    }\n}\n");
}

/* Requantizes and stores `vectors` vectors, the last of them with `last` lanes. */
static void emit_output(const nas__qconv *q, const geometry *g, bool single, const char *name,
                        int32_t vectors, int32_t last, nas_buf *out) {
    const nas__conv *c = &q->conv;
    const char type = q->out_signed ? 's' : 'u';
    nas_buf_printf(out,
                   "TILE void %s_out%d_%d(const int *s, const unsigned char *w, unsigned char "
                   "*restrict out,%s int rows, int columns, const int *h) {\n",
                   name, vectors, last, c->has_residual ? " const unsigned char *residual," : "");
    for (int32_t v = 0; v < vectors; v++) {
        const int32_t at = v * g->lanes * 4;
        nas_buf_printf(out,
                       "    vi s%d[%d];\n    %s_sum(s + %d, s%d);\n"
                       "    const vi b%d = q_i32(w + %d);\n",
                       v, g->m * g->m, name, v * g->lanes, v, v, at);
        nas_buf_printf(out,
                       single ? "    const unsigned char *const m%d = w + %d;\n"
                              : "    const vi m%d = q_i32(w + %d);\n",
                       v, at + 4 * g->out_padded);
    }
    const bool wide = g->lanes == 16;
    if (single)
        nas_buf_printf(out, "    const %s shift = %s_set1_ps(0x1.8p+23f);\n",
                       wide ? "__m512" : "__m256", wide ? "_mm512" : "_mm256");
    nas_buf_printf(out,
                   "    for (int y = 0; y < rows; y++) {\n"
                   "        for (int x = 0; x < columns; x++) {\n"
                   "            unsigned char *o = out + y * %zu + x * %d;\n",
                   c->out_row, c->out_pitch);
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(out, "            vi t%d = s%d[y * %d + x] + b%d;\n", v, v, g->m, v);
        if (single)
            nas_buf_printf(out, "            t%d = (vi)q_single_%d(t%d, m%d, shift);\n", v,
                           4 * g->lanes, v, v);
        else
            nas_buf_printf(out, "            t%d = q_round(%st%d%s, m%d);\n", v,
                           q->has_left ? "q_left(" : "", v, q->has_left ? ", h)" : "", v);
        if (c->has_residual) {
            nas_buf_printf(out,
                           "            t%d = %s(t%d, q_get_%c(residual + y * %zu + x * %d + "
                           "%d, %d), h);\n",
                           v, q->joins ? "q_join" : "q_plus", v, q->residual_signed ? 's' : 'u',
                           c->residual_row, c->residual_pitch, v * g->lanes,
                           v + 1 == vectors ? last : g->lanes);
        }
    }
    if (vectors == 2) {
        nas_buf_printf(out, "            q_put2_%c(o, t0, t1, %d, h);\n", type, g->lanes + last);
    } else {
        nas_buf_printf(out, "            q_put_%c(o, t0, %d, h);\n", type, last);
    }
    nas_buf_puts(out, "        }\n    }\n}\n");
}

static void emit_output_call(const nas__qconv *q, const geometry *g, const char *name,
                             int32_t vectors, int32_t last, nas_buf *out) {
    nas_buf_printf(out,
                   "%s_out%d_%d(M + t * %d + v * LANES - start, head + v * %d, o + v * LANES,%s "
                   "rows, columns, h);\n",
                   name, vectors, last, g->unit_channels, g->lanes * 4,
                   q->conv.has_residual ? " r + v * LANES," : "");
}

/* Pairs of whole vectors, then one, then the partial one. */
static void emit_output_calls(const nas__qconv *q, const geometry *g, const char *name,
                              nas_buf *out) {
    const int32_t whole = q->conv.out_c / g->lanes, rest = q->conv.out_c % g->lanes;
    nas_buf_puts(out, "            long v = low;\n");
    if (whole > 0) {
        nas_buf_printf(out, "            const long whole = high < %d ? high : %d;\n", whole,
                       whole);
    }
    if (whole > 1) {
        nas_buf_puts(out, "            for (; v + 2 <= whole; v += 2) ");
        emit_output_call(q, g, name, 2, g->lanes, out);
    }
    if (whole > 0) {
        nas_buf_puts(out, "            for (; v < whole; v++) ");
        emit_output_call(q, g, name, 1, g->lanes, out);
    }
    if (rest > 0) {
        nas_buf_puts(out, "            for (; v < high; v++) ");
        emit_output_call(q, g, name, 1, rest, out);
    }
}

static void emit_outputs(const nas__qconv *q, const geometry *g, bool single, const char *name,
                         nas_buf *out) {
    const int32_t whole = q->conv.out_c / g->lanes, rest = q->conv.out_c % g->lanes;
    if (whole > 1) emit_output(q, g, single, name, 2, g->lanes, out);
    if (whole > 0) emit_output(q, g, single, name, 1, g->lanes, out);
    if (rest > 0) emit_output(q, g, single, name, 1, rest, out);
}

static void emit_products(const nas_target *target, const nas__qconv *q, const geometry *g,
                          const nas__qconv_way *way, const char *name, nas_buf *out) {
    nas__conv_blocks b = nas__conv_block(target, &q->conv, way->vectors);
    b.last_lanes = b.lanes; /* products are whole vectors */
    nas_buf_printf(out,
                   "        for (long k = 0; k < %d; k++) {\n"
                   "            const unsigned char *w = head + %d + k * %zu;\n"
                   "            const short *s = V + k / %d * %zu + k %% %d * %d;\n"
                   "            int *m = M + (k / %d + k %% %d * %d) * %zu;\n",
                   g->points * g->chunks, 8 * g->out_padded, chunk_bytes(g), g->chunks, g->in_plane,
                   g->chunks, g->chunk, g->chunks, g->chunks, g->points, g->out_plane);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from >= kind.to) continue;
        nas_buf_printf(out,
                       "            for (long b = from > %d ? from : %d; b < to && b < %d; b++) {\n"
                       "                const long at = %d + (b - %d) * %d;\n"
                       "                for (long t = 0; t < n; t += %d)\n"
                       "                    %s_mul%d(s + t * %d, w + at * %d, m + t * %d + at - "
                       "start);\n"
                       "            }\n",
                       kind.from, kind.from, kind.to, nas__conv_block_first(&b, kind.from),
                       kind.from, kind.vectors * g->lanes, way->pixels, name, kind.vectors,
                       g->in_padded, 2 * g->chunk, g->unit_channels);
    }
    nas_buf_puts(out, "        }\n");
}

void nas__qconv_winograd_emit(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const char *name, nas_buf *out) {
    const nas__conv *c = &q->conv;
    const geometry g = geometry_of(target, q, way);
    nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    b.last_lanes = b.lanes;
    nas_buf_puts(out, g.m == 2 ? transforms_2 : transforms_4);
    emit_input(q, &g, name, out);
    emit_fill(q, &g, name, out);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from < kind.to) emit_product(&g, way, name, kind.vectors, out);
    }
    emit_sum(&g, name, out);
    emit_outputs(q, &g, nas__q_is_single(target, q, way), name, out);
    const int32_t wide = b.count - b.narrow;
    nas_buf_printf(out,
                   "KERNEL void %s(const void *in, void *out, const void *residual,\n"
                   "    const void *weights, void *scratch, int begin, int end) {\n"
                   "    const int *h = (const int *)weights;\n    (void)residual;\n"
                   "    const unsigned char *head = (const unsigned char *)weights + %d;\n"
                   "    short *V = scratch;\n"
                   "    int *M = (int *)(void *)((char *)scratch + %zu);\n"
                   "    for (int u = begin; u < end; u++) {\n"
                   "        const long first = (long)(u / %d) * %d, from = (long)(u %% %d) * %d;\n"
                   "        const long to = from + %d < %d ? from + %d : %d; /* blocks */\n"
                   "        const long n = %d - first < %d ? %d - first : %d;\n"
                   "        if (u == begin || from == 0)\n"
                   "            %s_fill(in, V, (unsigned char *)scratch + %zu, first, n, h[0]);\n"
                   "        const long low = from * %d - (from > %d ? from - %d : 0);\n"
                   "        const long high = to * %d - (to > %d ? to - %d : 0);\n"
                   "        const long start = low * LANES;\n",
                   name, 4 * NAS__Q_HEAD, v_bytes(&g), g.splits, way->batch, g.splits,
                   g.unit_blocks, g.unit_blocks, b.count, g.unit_blocks, b.count, g.tiles,
                   way->batch, g.tiles, way->batch, name, v_bytes(&g) + m_bytes(&g), b.vectors,
                   wide, wide, b.vectors, wide, wide);
    emit_products(target, q, &g, way, name, out);
    nas_buf_printf(out,
                   "        for (long t = 0; t < n; t++) {\n"
                   "            const long y = (first + t) / %d * %d, x = (first + t) %% %d * %d;\n"
                   "            const int rows = %d - y < %d ? (int)(%d - y) : %d;\n"
                   "            const int columns = %d - x < %d ? (int)(%d - x) : %d;\n"
                   "            unsigned char *o = (unsigned char *)out + y * %zu + x * %d;\n",
                   g.across, g.m, g.across, g.m, c->out_h, g.m, c->out_h, g.m, c->out_w, g.m,
                   c->out_w, g.m, c->out_row, c->out_pitch);
    if (c->has_residual) {
        nas_buf_printf(out,
                       "            const unsigned char *r = (const unsigned char *)residual + y * "
                       "%zu + x * %d;\n",
                       c->residual_row, c->residual_pitch);
    }
    emit_output_calls(q, &g, name, out);
    nas_buf_puts(out, "        }\n    }\n}\n#undef BT\n#undef AT\n#undef DIVIDE\n\n");
}
