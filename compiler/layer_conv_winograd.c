/* layer_conv_winograd.c - Winograd F(2x2,3x3) and F(4x4,3x3), Lavin & Gray, arXiv:1509.09308, for 3x3 convolutions of
 * stride 1. A batch of tiles: input transform into scratch V[points][tiles][channels], one small matrix product for each
 * point into M[points][tiles][outputs], output transform with bias, residual and activation. A unit is a batch and some
 * blocks of outputs; units that follow each other in one call share the input transform. Tiles that stick out of the
 * output are read through a zeroed patch and stored partially. The transforms are in layer_conv_winograd_transforms.c. */
#include "compiler/layer_conv_winograd.h"

#include <stdio.h>
#include <string.h>

int32_t nas__conv_winograd_edge(const nas__conv_way *way) {
    return way->algorithm == NAS__CONV_WINOGRAD_2 ? 2 : 4;
}

enum { UNITS = 8, PLANE_PAD = 16, FAR = 32, NEXT = 8 };
enum {
    LINE = 16,
    NEAR_ROWS = 1 << 17
}; /* floats of a line of the cache; of rows that may stay in L2 */

/* What counts as large beside the caches: they share the next one, which a larger L2 does not make larger. */
static double near_bytes(const nas_target *target) {
    enum { MOST = 1 << 20 };
    return target->l2_bytes < MOST ? target->l2_bytes : MOST;
}

/* Half a line that goes past the caches takes longer than a whole one: measured on AVX2, 3x3 of 16 to 64 channels at
 * 640x360 22.8 ms, with halves 41.7, through the caches 27.3. */
static bool whole_lines(const nas_target *target, const nas__conv *c) {
    const int32_t lanes = target->vector_bytes / 4;
    return lanes == LINE || (2 * lanes == LINE && c->out_c % LINE == 0 && c->out_pitch % LINE == 0);
}

bool nas__conv_winograd_far(const nas_target *target, const nas__conv *c) {
    return whole_lines(target, c) && 4.0 * c->out_h * (double)c->out_row > FAR * near_bytes(target);
}

bool nas__conv_winograd_asks(const nas_target *target, const nas__conv *c) {
    return target->vector_bytes >= 32 && nas__conv_streams(target, c) != NAS__FAR_WEIGHTS &&
           4.0 * c->out_h * (double)c->in_row > NEXT * near_bytes(target);
}

int32_t nas__conv_winograd_pair(const nas_target *target, int32_t channels) {
    const int32_t lanes = target->vector_bytes / 4, rest = channels % lanes;
    const bool halves = target->vector_bytes >= 32 && strcmp(target->arch, "x86-64") == 0;
    return halves && rest <= lanes / 2 ? rest : 0;
}

int32_t nas__wino_steps(const nas__conv *c) {
    return (c->in_c + 1) / 2;
}

/* Channels of vectors of their own, padded. */
static int32_t padded(int32_t channels, int32_t lanes) {
    return (channels + lanes - 1) / lanes * lanes;
}

nas__wino nas__wino_of(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const int32_t m = nas__conv_winograd_edge(way), lanes = target->vector_bytes / 4;
    nas__wino g = {.m = m, .a = m + 2, .points = (m + 2) * (m + 2), .lanes = lanes};
    g.half = lanes / 2;
    g.streams = nas__conv_streams(target, c) == NAS__FAR_WEIGHTS;
    g.in_registers = target->vector_bytes == 64;
    g.far = nas__conv_winograd_far(target, c);
    g.pixels = nas__conv_winograd_asks(target, c);
    g.asked = lanes < LINE && (size_t)m * c->in_row > NEAR_ROWS ? g.a : m;
    g.in_pair = nas__conv_winograd_pair(target, c->in_c);
    g.in_whole = c->in_c - g.in_pair;
    g.out_pair = nas__conv_winograd_pair(target, c->out_c);
    g.out_whole = c->out_c - g.out_pair;
    g.in_padded = padded(g.in_whole, lanes) + (g.in_pair > 0 ? g.half : 0);
    g.out_padded = padded(c->out_c, lanes);
    g.across = (c->out_w + m - 1) / m;
    g.down = (c->out_h + m - 1) / m;
    g.tiles = g.across * g.down;
    g.partial = c->out_h % m != 0 || c->out_w % m != 0;
    g.blocks = (nas__conv_blocks){.lanes = lanes, .last_lanes = lanes};
    if (g.out_whole > 0) {
        nas__conv whole = *c;
        whole.out_c = g.out_whole;
        g.blocks = nas__conv_block(target, &whole, way->vectors);
    }
    g.all_blocks = g.blocks.count + (g.out_pair > 0);
    const int32_t batches = (g.tiles + way->batch - 1) / way->batch;
    const int32_t wanted = (UNITS + batches - 1) / batches; /* splits */
    g.unit_blocks = (g.all_blocks + wanted - 1) / wanted;
    g.splits = (g.all_blocks + g.unit_blocks - 1) / g.unit_blocks;
    g.far = g.far && (lanes == LINE || g.splits == 1); /* a unit may end within a line */
    g.together = g.far ? LINE / lanes : 1;
    const int32_t most = g.unit_blocks < g.blocks.count ? g.unit_blocks : g.blocks.count;
    g.unit_channels = most * g.blocks.vectors * lanes;
    g.in_plane = (size_t)way->batch * (size_t)g.in_padded + PLANE_PAD;
    g.pairs_at = (size_t)way->batch * (size_t)g.unit_channels;
    g.out_plane =
        g.pairs_at + (g.out_pair > 0 ? (size_t)way->batch * (size_t)g.half : 0) + PLANE_PAD;
    g.point_weights = (size_t)padded(g.out_whole, lanes) * (size_t)c->in_c +
                      (g.out_pair > 0 ? (size_t)nas__wino_steps(c) * (size_t)lanes : 0);
    return g;
}

int32_t nas__conv_winograd_units(const nas_target *target, const nas__conv *c,
                                 const nas__conv_way *way) {
    const nas__wino g = nas__wino_of(target, c, way);
    return (g.tiles + way->batch - 1) / way->batch * g.splits;
}

size_t nas__conv_winograd_scratch(const nas_target *target, const nas__conv *c,
                                  const nas__conv_way *way) {
    const nas__wino g = nas__wino_of(target, c, way);
    const size_t patches = g.in_pair > 0 ? 2 : 1; /* of edge tiles */
    return (size_t)g.points * (g.in_plane + g.out_plane + patches * (size_t)g.in_padded);
}

size_t nas__conv_winograd_weights(const nas_target *target, const nas__conv *c,
                                  const nas__conv_way *way) {
    const nas__wino g = nas__wino_of(target, c, way);
    return (size_t)nas__conv_heads(c) * (size_t)g.out_padded + (size_t)g.points * g.point_weights;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Interpolation points 0, 1, -1, infinity, and 2, -2 for the larger one. */
static const double g2[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double g4[6][3] = {{1.0 / 4, 0, 0},
                                {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                {0, 0, 1}};

/* Weights of output `o` and input `i` at point p: out[p * g->point_weights]. */
static void pack_one(const nas__conv *c, const nas__wino *g, const float *weight, int32_t o,
                     int32_t i, float *out) {
    double half[6][3];
    for (int32_t k = 0; k < g->a; k++) {
        const double *row = g->m == 2 ? g2[k] : g4[k];
        for (int32_t x = 0; x < 3; x++) {
            half[k][x] = 0;
            for (int32_t y = 0; y < 3; y++) {
                half[k][x] +=
                    row[y] *
                    (double)
                        weight[((size_t)o * 9 + (size_t)(y * 3 + x)) * (size_t)c->in_c + (size_t)i];
            }
        }
    }
    for (int32_t p = 0; p < g->points; p++) {
        const double *row = g->m == 2 ? g2[p % g->a] : g4[p % g->a];
        const double *h = half[p / g->a];
        out[(size_t)p * g->point_weights] = (float)(h[0] * row[0] + h[1] * row[1] + h[2] * row[2]);
    }
}

void nas__conv_winograd_pack(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                             const float *weight, const float *bias, const float *slope,
                             float *out) {
    const nas__wino g = nas__wino_of(target, c, way);
    const nas__conv_blocks *b = &g.blocks;
    float *head = out;
    out = nas__conv_head(c, bias, slope, 0, c->out_c, g.out_padded, out);
    for (; head < out && g.out_pair > 0; head += g.out_padded) /* of both tiles of a pair */
        memcpy(head + g.out_whole + g.half, head + g.out_whole, (size_t)g.out_pair * sizeof *head);
    memset(out, 0, (size_t)g.points * g.point_weights * sizeof *out);
    for (int32_t o = 0, block = 0; o < g.out_whole; o++) {
        if (o == nas__conv_block_first(b, block + 1)) block++;
        const int32_t start = nas__conv_block_first(b, block);
        const int32_t wide = nas__conv_block_first(b, block + 1) - start;
        float *to = out + (size_t)start * (size_t)c->in_c + (size_t)(o - start);
        for (int32_t i = 0; i < c->in_c; i++, to += wide)
            pack_one(c, &g, weight, o, i, to);
    }
    out += (size_t)padded(g.out_whole, g.lanes) * (size_t)c->in_c;
    for (int32_t o = 0; o < g.out_pair; o++) {
        for (int32_t i = 0; i < c->in_c; i++)
            pack_one(c, &g, weight, g.out_whole + o, i,
                     out + (size_t)(i / 2) * (size_t)g.lanes + (size_t)(2 * o + i % 2));
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Bytes of the next weights that a round of a product asks for; 0: none. steps: of its sum. */
static int32_t ahead_of(const nas__conv *c, const nas__wino *g, const nas__conv_way *way,
                        int32_t steps, int32_t vectors, int32_t round) {
    if (!g->streams && !g->pixels) return 0;
    const int32_t tiles = g->tiles < way->batch ? g->tiles : way->batch;
    const double rounds = (double)((tiles + way->pixels - 1) / way->pixels) * steps / round;
    if (g->pixels) /* the rows of a batch that are asked for, during the points of each */
        return nas__conv_ahead(4.0 * tiles * g->m * c->in_pitch,
                               rounds * g->unit_blocks * (g->points / g->asked));
    return nas__conv_ahead(4.0 * steps * vectors * g->lanes, rounds);
}

static void emit_product_head(const nas__conv_way *way, const char *name, const char *which,
                              int32_t vectors, int32_t ahead, nas_buf *out) {
    nas_buf_printf(out, "TILE void %s_%s(const float *s, const float *w, float *out%s) {\n", name,
                   which, ahead > 0 ? ", const char *ahead" : "");
    for (int32_t p = 0; p < way->pixels; p++) {
        nas_buf_puts(out, "    vf ");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%sa%d_%d = {0}", v > 0 ? ", " : "", p, v);
        nas_buf_puts(out, ";\n");
    }
}

/* A tile of the matrix product: `pixels` tiles x `vectors` vectors, into scratch, always whole vectors. */
static void emit_product(const nas__conv *c, const nas__wino *g, const nas__conv_way *way,
                         const char *name, int32_t vectors, nas_buf *out) {
    size_t offsets[NAS__CONV_PIXELS_MAX] = {0};
    for (int32_t p = 0; p < way->pixels; p++)
        offsets[p] = (size_t)p * (size_t)g->in_padded;
    const int32_t round = nas__conv_unroll(c->in_c, way->pixels * vectors);
    const int32_t ahead = ahead_of(c, g, way, c->in_c, vectors, round);
    char which[16], limit[16];
    (void)snprintf(which, sizeof which, "mul%d", vectors);
    (void)snprintf(limit, sizeof limit, "%d", c->in_c);
    emit_product_head(way, name, which, vectors, ahead, out);
    nas__conv_emit_loop(limit, round, offsets, way->pixels, vectors, g->lanes, ahead, "    ", out);
    for (int32_t p = 0; p < way->pixels; p++) {
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "    store(out + %d, a%d_%d);\n",
                           p * g->unit_channels + v * g->lanes, p, v);
        }
    }
    nas_buf_puts(out, "}\n");
}

/* The same of outputs whose tiles share vectors: two inputs a step, and the sums of two tiles in one vector. What the last
 * of an odd number stores behind its half is there again, or the pad. */
static void emit_product_of_pairs(const nas__conv *c, const nas__wino *g, const nas__conv_way *way,
                                  const char *name, nas_buf *out) {
    const int32_t steps = nas__wino_steps(c), round = nas__conv_unroll(steps, way->pixels);
    const int32_t ahead = ahead_of(c, g, way, steps, 1, round);
    emit_product_head(way, name, "mul_pairs", 1, ahead, out);
    nas_buf_printf(out, "    for (int i = 0; i < %d; i += %d, s += %d, w += %d) {\n", steps, round,
                   2 * round, round * g->lanes);
    if (ahead > 0) {
        nas_buf_printf(out, "        AHEAD(ahead);%s\n        ahead += %d;\n",
                       ahead > 4 * LINE ? " AHEAD(ahead + 64);" : "", ahead);
    }
    for (int32_t u = 0; u < round; u++) {
        nas_buf_printf(out,
                       "        {\n            __asm__(\"\" : \"+r\"(s));\n"
                       "            const vf b = load(w + %d);\n            vf x;\n",
                       u * g->lanes);
        for (int32_t p = 0; p < way->pixels; p++)
            nas_buf_printf(out, "            x = splat_two(s + %d); MADD(a%d_0, x, b);\n",
                           p * g->in_padded + 2 * u, p);
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n");
    for (int32_t p = 0; p < way->pixels; p += 2) {
        nas_buf_printf(out, "    store(out + %d, add_twos(a%d_0, a%d_0));\n", p * g->half, p,
                       p + 1 < way->pixels ? p + 1 : p);
    }
    nas_buf_puts(out, "}\n");
}

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

/* What a block asks for: pixels of the next batch, or the weights of the next block, after the last one those of the next
 * point. end: text of the floats of a point up to the next block. */
static void emit_ahead(const nas__conv *c, const nas__wino *g, const nas__conv_way *way,
                       int32_t bytes, const char *end, nas_buf *out) {
    if (bytes <= 0) return;
    const int32_t each = g->points / g->asked; /* points of a row that is asked for */
    if (g->pixels) {
        nas_buf_printf(out,
                       "                const char *ahead = (const char *)(next + k / %d * %zu) + "
                       "(k %% %d * (to - from) + b - from) * ((n + %d) / %d * %d);\n",
                       each, c->in_row, each, way->pixels - 1, way->pixels, bytes);
        return;
    }
    nas_buf_printf(out,
                   "                const char *ahead = (const char *)(b + 1 < to ? w + %s : w + "
                   "%zu + start * %d);\n",
                   end, g->point_weights, c->in_c);
}

/* The products of one block at one point with all tiles. */
static void emit_block(const nas__wino *g, const nas__conv_way *way, const char *name,
                       const char *which, const char *weights, const char *to, int32_t pitch,
                       int32_t bytes, nas_buf *out) {
    nas_buf_printf(out,
                   "                for (long t = 0; t < n; t += %d) {\n"
                   "                    %s_%s(V + k * %zu + t * IN, w + %s, M + k * %zu "
                   "+ t * %d + %s%s);\n",
                   way->pixels, name, which, g->in_plane, weights, g->out_plane, pitch, to,
                   bytes > 0 ? ", ahead" : "");
    if (bytes > 0) nas_buf_printf(out, "                    ahead += %d;\n", bytes);
    nas_buf_puts(out, "                }\n            }\n");
}

static void emit_blocks(const nas__conv *c, const nas__wino *g, const nas__conv_way *way,
                        const char *name, const nas__conv_blocks *b, nas_buf *out) {
    char which[32], weights[48], to[48], end[64];
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(b, i);
        if (kind.from >= kind.to) continue;
        nas_buf_printf(out,
                       "            for (long b = from > %d ? from : %d; b < to && b < %d; b++) {\n"
                       "                const long at = %d + (b - %d) * %d;\n",
                       kind.from, kind.from, kind.to, nas__conv_block_first(b, kind.from),
                       kind.from, kind.vectors * g->lanes);
        const int32_t round = nas__conv_unroll(c->in_c, way->pixels * kind.vectors);
        const int32_t bytes = c->in_c / round * ahead_of(c, g, way, c->in_c, kind.vectors, round);
        (void)snprintf(which, sizeof which, "mul%d", kind.vectors);
        (void)snprintf(weights, sizeof weights, "at * %d", c->in_c);
        (void)snprintf(to, sizeof to, "at - start");
        (void)snprintf(end, sizeof end, "(at + %d) * %d", kind.vectors * g->lanes, c->in_c);
        emit_ahead(c, g, way, bytes, end, out);
        emit_block(g, way, name, which, weights, to, g->unit_channels, bytes, out);
    }
    if (g->out_pair == 0) return;
    const int32_t steps = nas__wino_steps(c), round = nas__conv_unroll(steps, way->pixels);
    const int32_t bytes = steps / round * ahead_of(c, g, way, steps, 1, round);
    nas_buf_printf(out, "            for (long b = %d; b < to; b++) { /* two tiles a vector */\n",
                   g->blocks.count);
    (void)snprintf(weights, sizeof weights, "%zu",
                   (size_t)padded(g->out_whole, g->lanes) * (size_t)c->in_c);
    (void)snprintf(to, sizeof to, "%zu", g->pairs_at);
    (void)snprintf(end, sizeof end, "%zu", g->point_weights);
    emit_ahead(c, g, way, bytes, end, out);
    emit_block(g, way, name, "mul_pairs", weights, to, g->half, bytes, out);
}

/* What a unit is: tiles [first, first + n), blocks [from, to), their vectors [low, high). */
static void emit_unit(const nas__conv *c, const nas__wino *g, const nas__conv_way *way,
                      const char *name, const nas__conv_blocks *b, nas_buf *out) {
    const int32_t wide = b->count - b->narrow;
    nas_buf_printf(out,
                   "KERNEL void %s(const float *in, float *out, const float *residual,\n"
                   "    const void *weights, void *scratch, int begin, int end) {\n"
                   "    (void)residual;\n"
                   "    const float *head = weights;\n"
                   "    float *V = scratch, *M = V + %zu;\n"
                   "    for (int u = begin; u < end; u++) {\n"
                   "        const long first = (long)(u / %d) * %d, from = (long)(u %% %d) * %d;\n"
                   "        const long to = from + %d < %d ? from + %d : %d; /* blocks */\n"
                   "        const long n = %d - first < %d ? %d - first : %d;\n"
                   "        if (u == begin || from == 0) %s_fill(in, V, M + %zu, first, n);\n",
                   name, (size_t)g->points * g->in_plane, g->splits, way->batch, g->splits,
                   g->unit_blocks, g->unit_blocks, g->all_blocks, g->unit_blocks, g->all_blocks,
                   g->tiles, way->batch, g->tiles, way->batch, name,
                   (size_t)g->points * g->out_plane);
    if (b->count > 0) {
        nas_buf_printf(out, "        const long low = from * %d - (from > %d ? from - %d : 0);\n",
                       b->vectors, wide, wide);
        char ends[48] = "to";
        if (g->out_pair > 0)
            (void)snprintf(ends, sizeof ends, "(to < %d ? to : %d)", b->count, b->count);
        nas_buf_printf(out, "        const long high = %s * %d - (%s > %d ? %s - %d : 0);\n", ends,
                       b->vectors, ends, wide, ends, wide);
        if (g->out_whole % g->lanes != 0) {
            nas_buf_printf(out, "        const long last = to == %d; /* a partial vector */\n",
                           b->count);
        }
        nas_buf_puts(out, "        const long start = low * LANES;\n");
    } else if (g->streams && !g->pixels) {
        nas_buf_puts(out, "        const long start = 0;\n");
    }
    if (g->pixels)
        nas_buf_printf(
            out,
            "        const float *next = in + ((first + %d) / %d * %d + %d) * %zu + (first "
            "+ %d) %% %d * %d;\n",
            way->batch, g->across, g->m, g->a - g->asked, c->in_row, way->batch, g->across,
            g->m * c->in_pitch);
}

void nas__conv_winograd_emit(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                             const char *name, nas_buf *out) {
    const nas__wino g = nas__wino_of(target, c, way);
    nas__conv_blocks b = g.blocks;
    b.last_lanes = b.lanes; /* products are whole vectors */
    if (g.in_pair > 0 || g.out_pair > 0) nas__wino_emit_pairs(out);
    nas__wino_emit_macros(&g, out);
    nas_buf_printf(out, "#define IN %d\n#define OUT %d\n#define RESIDUAL_ROW %zu\n", g.in_padded,
                   g.unit_channels, c->residual_row);
    nas__wino_emit_input(&g, name, out);
    nas__wino_emit_fill(c, &g, way, name, out);
    nas__wino_emit_output(c, &g, name, out);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from < kind.to) emit_product(c, &g, way, name, kind.vectors, out);
    }
    if (g.out_pair > 0) emit_product_of_pairs(c, &g, way, name, out);
    emit_unit(c, &g, way, name, &b, out);
    nas_buf_printf(out,
                   "        for (long k = 0; k < %d; k++) {\n"
                   "            const float *w = head + %zu + k * %zu;\n",
                   g.points, (size_t)nas__conv_heads(c) * (size_t)g.out_padded, g.point_weights);
    emit_blocks(c, &g, way, name, &b, out);
    nas_buf_puts(out, "        }\n");
    nas__wino_emit_finish(c, &g, name, out);
    nas_buf_printf(out, "    }\n%s}\n#undef IN\n#undef OUT\n#undef RESIDUAL_ROW\n",
                   g.far ? "    STREAMED();\n" : "");
    nas__wino_emit_macros_end(&g, out);
}
