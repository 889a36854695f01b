/* layer_conv_winograd.c - Winograd F(2x2,3x3) and F(4x4,3x3), Lavin & Gray, arXiv:1509.09308, for 3x3 convolutions of
 * stride 1. A batch of tiles: input transform into scratch V[points][tiles][channels], one small matrix product for each
 * point into M[points][tiles][outputs], output transform with bias, residual and activation. A unit is a batch and some
 * blocks of outputs; units that follow each other in one call share the input transform. Tiles that stick out of the
 * output are read through a zeroed patch and stored partially. */
#include "compiler/layer_conv_internal.h"

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

typedef struct geometry {
    int32_t m, a, points; /* outputs and inputs of a tile along an axis, a * a */
    int32_t lanes, in_padded, out_padded;
    int32_t across, down, tiles;
    int32_t unit_blocks, splits; /* blocks of outputs of a unit, units of a batch */
    int32_t unit_channels;
    bool streams;               /* weights come from beyond L2 */
    bool in_registers;          /* what lies between the two passes of a transform */
    bool far;                   /* outputs go past the caches, which they would fill */
    int32_t together;           /* vectors of outputs transformed at once: whole lines go far */
    bool pixels;                /* the products ask for the pixels of the next batch */
    int32_t asked;              /* rows of them: the new ones, or all where none stays near */
    size_t in_plane, out_plane; /* floats from point to point, off the powers of two */
} geometry;

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

static geometry geometry_of(const nas_target *target, const nas__conv *c,
                            const nas__conv_way *way) {
    const int32_t m = nas__conv_winograd_edge(way), lanes = target->vector_bytes / 4;
    geometry g = {.m = m, .a = m + 2, .points = (m + 2) * (m + 2), .lanes = lanes};
    g.streams = nas__conv_streams(target, c) == NAS__FAR_WEIGHTS;
    g.in_registers = target->vector_bytes == 64;
    g.far = nas__conv_winograd_far(target, c);
    g.pixels = nas__conv_winograd_asks(target, c);
    g.asked = lanes < LINE && (size_t)m * c->in_row > NEAR_ROWS ? g.a : m;
    g.in_padded = (c->in_c + lanes - 1) / lanes * lanes;
    g.out_padded = (c->out_c + lanes - 1) / lanes * lanes;
    g.across = (c->out_w + m - 1) / m;
    g.down = (c->out_h + m - 1) / m;
    g.tiles = g.across * g.down;
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const int32_t batches = (g.tiles + way->batch - 1) / way->batch;
    const int32_t wanted = (UNITS + batches - 1) / batches; /* splits */
    g.unit_blocks = (b.count + wanted - 1) / wanted;
    g.splits = (b.count + g.unit_blocks - 1) / g.unit_blocks;
    g.far = g.far && (lanes == LINE || g.splits == 1); /* a unit may end within a line */
    g.together = g.far ? LINE / lanes : 1;
    g.unit_channels = g.unit_blocks * b.vectors * lanes;
    g.in_plane = (size_t)way->batch * (size_t)g.in_padded + PLANE_PAD;
    g.out_plane = (size_t)way->batch * (size_t)g.unit_channels + PLANE_PAD;
    return g;
}

int32_t nas__conv_winograd_units(const nas_target *target, const nas__conv *c,
                                 const nas__conv_way *way) {
    const geometry g = geometry_of(target, c, way);
    return (g.tiles + way->batch - 1) / way->batch * g.splits;
}

size_t nas__conv_winograd_scratch(const nas_target *target, const nas__conv *c,
                                  const nas__conv_way *way) {
    const geometry g = geometry_of(target, c, way);
    return (size_t)g.points *
           (g.in_plane + g.out_plane + (size_t)g.in_padded); /* the patch of an edge tile */
}

/* Interpolation points 0, 1, -1, infinity, and 2, -2 for the larger one. */
static const double g2[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double g4[6][3] = {{1.0 / 4, 0, 0},
                                {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                {0, 0, 1}};

void nas__conv_winograd_pack(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                             const float *weight, const float *bias, const float *slope,
                             float *out) {
    const geometry g = geometry_of(target, c, way);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    out = nas__conv_head(c, bias, slope, 0, c->out_c, g.out_padded, out);
    memset(out, 0, (size_t)g.points * (size_t)g.out_padded * (size_t)c->in_c * sizeof *out);
    for (int32_t o = 0, block = 0; o < c->out_c; o++) {
        if (o == nas__conv_block_first(&b, block + 1)) block++;
        const int32_t start = nas__conv_block_first(&b, block);
        const int32_t wide = nas__conv_block_first(&b, block + 1) - start;
        for (int32_t i = 0; i < c->in_c; i++) {
            double half[6][3];
            for (int32_t k = 0; k < g.a; k++) {
                const double *row = g.m == 2 ? g2[k] : g4[k];
                for (int32_t x = 0; x < 3; x++) {
                    half[k][x] = 0;
                    for (int32_t y = 0; y < 3; y++) {
                        half[k][x] +=
                            row[y] *
                            (double)weight[((size_t)o * 9 + (size_t)(y * 3 + x)) * (size_t)c->in_c +
                                           (size_t)i];
                    }
                }
            }
            for (int32_t p = 0; p < g.points; p++) {
                const double *row = g.m == 2 ? g2[p % g.a] : g4[p % g.a];
                const double *h = half[p / g.a];
                const size_t at = (size_t)p * (size_t)c->in_c * (size_t)g.out_padded +
                                  (size_t)start * (size_t)c->in_c + (size_t)i * (size_t)wide +
                                  (size_t)(o - start);
                out[at] = (float)(h[0] * row[0] + h[1] * row[1] + h[2] * row[2]);
            }
        }
    }
}

/* The one-dimensional transforms as macros over names; each is used for columns, then for rows. */
static const char transforms_2[] = "#define BT(o, d) do { \\\n"
                                   "    o(0) = d(0) - d(2); o(1) = d(1) + d(2); \\\n"
                                   "    o(2) = d(2) - d(1); o(3) = d(1) - d(3); \\\n"
                                   "} while (0)\n"
                                   "#define AT(o, d) do { \\\n"
                                   "    o(0) = d(0) + d(1) + d(2); o(1) = d(1) - d(2) - d(3); \\\n"
                                   "} while (0)\n";
static const char transforms_4[] =
    "#define BT(o, d) do { \\\n"
    "    const vf e0 = d(0), e1 = d(1), e2 = d(2), e3 = d(3), e4 = d(4), e5 = d(5); \\\n"
    "    const vf p = e4 - 4 * e2, q = e3 - 4 * e1, r = e4 - e2, t = 2 * (e3 - e1); \\\n"
    "    o(0) = 4 * e0 - 5 * e2 + e4; o(1) = p + q; o(2) = p - q; \\\n"
    "    o(3) = r + t; o(4) = r - t; o(5) = 4 * e1 - 5 * e3 + e5; \\\n"
    "} while (0)\n"
    "#define AT(o, d) do { \\\n"
    "    const vf e0 = d(0), e1 = d(1), e2 = d(2), e3 = d(3), e4 = d(4), e5 = d(5); \\\n"
    "    const vf p = e1 + e2, q = e1 - e2, r = e3 + e4, t = e3 - e4; \\\n"
    "    o(0) = e0 + p + r; o(1) = q + 2 * t; o(2) = p + 4 * r; o(3) = q + 8 * t + e5; \\\n"
    "} while (0)\n";

/* The same for vectors of 64 bytes, with the place along the other axis as k. A store of them takes as long as two sums, so
 * nothing is stored between the passes: 32 registers hold half of F(4x4,3x3)'s input, LOW then HIGH. */
static const char unrolled_2[] =
    "#define BT_LOW(o, d, k) do { \\\n"
    "    const vf e0 = d(0, k), e1 = d(1, k), e2 = d(2, k), e3 = d(3, k); \\\n"
    "    o(0, k) = e0 - e2; o(1, k) = e1 + e2; o(2, k) = e2 - e1; o(3, k) = e1 - e3; \\\n"
    "} while (0)\n"
    "#define BT(o, d, k) BT_LOW(o, d, k)\n"
    "#define AT(o, d, k) do { \\\n"
    "    const vf e1 = d(1, k), e2 = d(2, k); \\\n"
    "    o(0, k) = d(0, k) + e1 + e2; o(1, k) = e1 - e2 - d(3, k); \\\n"
    "} while (0)\n";
static const char unrolled_4[] =
    "#define BT_LOW(o, d, k) do { \\\n"
    "    const vf e0 = d(0, k), e1 = d(1, k), e2 = d(2, k), e3 = d(3, k), e4 = d(4, k); \\\n"
    "    const vf p = e4 - 4 * e2, q = e3 - 4 * e1; \\\n"
    "    o(0, k) = 4 * e0 - 5 * e2 + e4; o(1, k) = p + q; o(2, k) = p - q; \\\n"
    "} while (0)\n"
    "#define BT_HIGH(o, d, k) do { \\\n"
    "    const vf e1 = d(1, k), e2 = d(2, k), e3 = d(3, k), e4 = d(4, k), e5 = d(5, k); \\\n"
    "    const vf r = e4 - e2, t = 2 * (e3 - e1); \\\n"
    "    o(0, k) = r + t; o(1, k) = r - t; o(2, k) = 4 * e1 - 5 * e3 + e5; \\\n"
    "} while (0)\n"
    "#define BT(o, d, k) do { \\\n"
    "    const vf e0 = d(0, k), e1 = d(1, k), e2 = d(2, k), e3 = d(3, k), e4 = d(4, k), e5 = d(5, "
    "k); \\\n"
    "    const vf p = e4 - 4 * e2, q = e3 - 4 * e1, r = e4 - e2, t = 2 * (e3 - e1); \\\n"
    "    o(0, k) = 4 * e0 - 5 * e2 + e4; o(1, k) = p + q; o(2, k) = p - q; \\\n"
    "    o(3, k) = r + t; o(4, k) = r - t; o(5, k) = 4 * e1 - 5 * e3 + e5; \\\n"
    "} while (0)\n"
    "#define AT(o, d, k) do { \\\n"
    "    const vf e1 = d(1, k), e2 = d(2, k), e3 = d(3, k), e4 = d(4, k); \\\n"
    "    const vf p = e1 + e2, q = e1 - e2, r = e3 + e4, t = e3 - e4; \\\n"
    "    o(0, k) = d(0, k) + p + r; o(1, k) = q + 2 * t; o(2, k) = p + 4 * r; \\\n"
    "    o(3, k) = q + 8 * t + d(5, k); \\\n"
    "} while (0)\n";

/* At the end of the names of what belongs to the first and the second vector that are transformed together. */
static const char *const of_vector[2] = {"", "_1"};

static void put_names(const char *name, int32_t n, nas_buf *out) {
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(out, "%s%s%d", i > 0 ? ", " : "", name, i);
}

/* `n` rows of what the first pass makes, and with them the second pass: row y of them is row first + y of V. */
static void emit_input_part(const geometry *g, const char *pass, int32_t first, int32_t n,
                            nas_buf *out) {
    nas_buf_printf(out,
                   "    {\n        vf h[%d][%d];\n"
                   "#define O(i, k) h[i][k]\n       ",
                   n, g->a);
    for (int32_t k = 0; k < g->a; k++)
        nas_buf_printf(out, " BT_%s(O, D, %d);", pass, k);
    nas_buf_puts(out, "\n#undef O\n#define O(i, k) o##i\n#define H(i, k) h[k][i]\n        vf ");
    put_names("o", g->a, out);
    nas_buf_puts(out, ";\n");
    for (int32_t y = 0; y < n; y++) {
        nas_buf_printf(out, "        BT(O, H, %d);\n       ", y);
        for (int32_t i = 0; i < g->a; i++)
            nas_buf_printf(out, " store(v + %zu, o%d);",
                           (size_t)((first + y) * g->a + i) * g->in_plane, i);
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "#undef H\n#undef O\n    }\n");
}

static void emit_input_unrolled(const nas__conv *c, const geometry *g, const char *name,
                                nas_buf *out) {
    const int32_t rest = c->in_c % g->lanes;
    for (int32_t k = 0; k < 2; k++) {
        if (k == 0 ? c->in_c < g->lanes : rest == 0) continue;
        nas_buf_printf(out, "TILE void %s_in%d(const float *s, long row, long pitch, float *v) {\n",
                       name, k);
        if (k == 0)
            nas_buf_puts(out, "#define D(i, k) load(s + i * row + k * pitch)\n");
        else
            nas_buf_printf(out, "#define D(i, k) load_n(s + i * row + k * pitch, %d)\n", rest);
        emit_input_part(g, "LOW", 0, g->m == 2 ? 4 : 3, out);
        if (g->m == 4) emit_input_part(g, "HIGH", 3, 3, out);
        nas_buf_puts(out, "#undef D\n}\n");
    }
}

static void emit_input(const nas__conv *c, const geometry *g, const char *name, nas_buf *out) {
    if (g->in_registers) {
        emit_input_unrolled(c, g, name, out);
        return;
    }
    const int32_t rest = c->in_c % g->lanes;
    for (int32_t k = 0; k < 2; k++) {
        if (k == 0 ? c->in_c < g->lanes : rest == 0) continue;
        nas_buf_printf(out,
                       "TILE void %s_in%d(const float *s, long row, long pitch, float *v) {\n"
                       "    vf h[%d][%d];\n"
                       "    for (int x = 0; x < %d; x++, s += pitch) {\n",
                       name, k, g->a, g->a, g->a);
        nas_buf_printf(out, "#define D(i) %s(s + i * row", k == 0 ? "load" : "load_n");
        if (k == 1) nas_buf_printf(out, ", %d", rest);
        nas_buf_printf(out,
                       ")\n#define O(i) h[i][x]\n        BT(O, D);\n#undef D\n#undef O\n    }\n"
                       "    for (int y = 0; y < %d; y++, v += %zu) {\n        vf ",
                       g->a, (size_t)g->a * g->in_plane);
        for (int32_t i = 0; i < g->a; i++)
            nas_buf_printf(out, "%so%d", i > 0 ? ", " : "", i);
        nas_buf_puts(out, ";\n#define D(i) h[y][i]\n#define O(i) o##i\n        BT(O, D);\n"
                          "#undef D\n#undef O\n");
        for (int32_t i = 0; i < g->a; i++) {
            nas_buf_printf(out, "        store(v + %zu, o%d);\n", (size_t)i * g->in_plane, i);
        }
        nas_buf_puts(out, "    }\n}\n");
    }
}

/* Stores one row of outputs o0.. of a tile, as many columns as there are. */
static void emit_output_row(const nas__conv *c, const geometry *g, bool partial, nas_buf *out) {
    char count[16] = "";
    if (partial) (void)snprintf(count, sizeof count, ", %d", c->out_c % g->lanes);
    const char *store = partial ? "store_n" : g->far ? "stream" : "store";
    for (int32_t i = 0; i < g->m; i++) {
        nas_buf_puts(out, "        ");
        if (i > 0) nas_buf_printf(out, "if (columns > %d) ", i);
        if (g->together > 1) nas_buf_puts(out, "{ ");
        for (int32_t v = 0; v < g->together; v++) {
            const int32_t at = v * g->lanes;
            char value[120], slope[24] = "slope";
            (void)snprintf(value, sizeof value, "o%d%s + bias%s", i, of_vector[v], of_vector[v]);
            if (c->has_residual) {
                (void)snprintf(value, sizeof value, "o%d%s + bias%s + %s(residual + %d%s)", i,
                               of_vector[v], of_vector[v], partial ? "load_n" : "load",
                               i * c->residual_pitch + at, count);
            }
            if (at > 0) (void)snprintf(slope, sizeof slope, "slope + %d", at);
            nas_buf_printf(out, "%s(out + %d, ", store, i * c->out_pitch + at);
            nas__conv_finish(c, value, slope, out);
            nas_buf_printf(out, "%s);%s", count, g->together > 1 ? " " : "");
        }
        nas_buf_puts(out, g->together > 1 ? "}\n" : "\n");
    }
}

/* Both passes; rows and columns of the tile that are within the image. */
static void emit_output_passes(const nas__conv *c, const geometry *g, bool partial, nas_buf *out) {
    for (int32_t v = 0; v < g->together; v++) {
        nas_buf_printf(out,
                       "    for (int x = 0; x < %d; x++) {\n"
                       "#define D(i) load(s + x * %zu + i * %zu + %d)\n#define O(i) h%s[i][x]\n"
                       "        AT(O, D);\n#undef D\n#undef O\n    }\n",
                       g->a, g->out_plane, (size_t)g->a * g->out_plane, v * g->lanes, of_vector[v]);
    }
    nas_buf_printf(out, "    for (int y = 0; y < rows; y++, out += %zu%s) {\n", c->out_row,
                   c->has_residual ? ", residual += RESIDUAL_ROW" : "");
    for (int32_t v = 0; v < g->together; v++) {
        nas_buf_puts(out, "        vf ");
        for (int32_t i = 0; i < g->m; i++)
            nas_buf_printf(out, "%so%d%s", i > 0 ? ", " : "", i, of_vector[v]);
        nas_buf_printf(out,
                       ";\n#define D(i) h%s[y][i]\n#define O(i) o##i%s%s\n        AT(O, D);\n"
                       "#undef D\n#undef O\n",
                       of_vector[v], v > 0 ? "##" : "", of_vector[v]);
    }
    emit_output_row(c, g, partial, out);
    nas_buf_puts(out, "    }\n");
}

static void emit_output_unrolled(const nas__conv *c, const geometry *g, bool partial,
                                 nas_buf *out) {
    nas_buf_printf(out, "#define D(i, k) load(s + i * %zu + k * %zu)\n#define O(i, k) h[i][k]\n   ",
                   (size_t)g->a * g->out_plane, g->out_plane);
    for (int32_t k = 0; k < g->a; k++)
        nas_buf_printf(out, " AT(O, D, %d);", k);
    nas_buf_puts(out, "\n#undef D\n#undef O\n"
                      "#define D(i, k) h[k][i]\n#define O(i, k) o##i\n    vf ");
    put_names("o", g->m, out);
    nas_buf_puts(out, ";\n");
    for (int32_t y = 0; y < g->m; y++) {
        if (y > 0) {
            nas_buf_printf(out, "    if (rows == %d) return;\n    out += %zu;\n", y, c->out_row);
            if (c->has_residual) nas_buf_puts(out, "    residual += RESIDUAL_ROW;\n");
        }
        nas_buf_printf(out, "    AT(O, D, %d);\n", y);
        emit_output_row(c, g, partial, out);
    }
    nas_buf_puts(out, "#undef D\n#undef O\n");
}

static void emit_output(const nas__conv *c, const geometry *g, const char *name, nas_buf *out) {
    const int32_t rest = c->out_c % g->lanes;
    for (int32_t k = 0; k < 2; k++) {
        if (k == 0 ? c->out_c < g->lanes : rest == 0) continue;
        nas_buf_printf(out,
                       "TILE void %s_out%d(const float *s, const float *w, float *out%s, int rows, "
                       "int columns) {\n",
                       name, k, c->has_residual ? ", const float *residual" : "");
        for (int32_t v = 0; v < g->together; v++)
            nas_buf_printf(out,
                           "    vf h%s[%d][%d];\n"
                           "    const vf bias%s = load(w%s);\n",
                           of_vector[v], g->m, g->a, of_vector[v], v > 0 ? " + LANES" : "");
        if (c->act == NAS__LACT_PRELU)
            nas_buf_printf(out, "    const float *slope = w + %d;\n", g->out_padded);
        if (g->in_registers)
            emit_output_unrolled(c, g, k == 1, out);
        else
            emit_output_passes(c, g, k == 1, out);
        nas_buf_puts(out, "}\n");
    }
}

/* Bytes of the next weights that a round of a product asks for; 0: none. */
static int32_t ahead_of(const nas__conv *c, const geometry *g, const nas__conv_way *way,
                        int32_t vectors, int32_t round) {
    if (!g->streams && !g->pixels) return 0;
    const int32_t tiles = g->tiles < way->batch ? g->tiles : way->batch;
    const double rounds = (double)((tiles + way->pixels - 1) / way->pixels) * c->in_c / round;
    if (g->pixels) /* the rows of a batch that are asked for, during the points of each */
        return nas__conv_ahead(4.0 * tiles * g->m * c->in_pitch,
                               rounds * g->unit_blocks * (g->points / g->asked));
    return nas__conv_ahead(4.0 * c->in_c * vectors * g->lanes, rounds);
}

/* A tile of the matrix product: `pixels` tiles x `vectors` vectors, into scratch, always whole vectors. */
static void emit_product(const nas__conv *c, const geometry *g, const nas__conv_way *way,
                         const char *name, int32_t vectors, nas_buf *out) {
    size_t offsets[NAS__CONV_PIXELS_MAX] = {0};
    for (int32_t p = 0; p < way->pixels; p++)
        offsets[p] = (size_t)p * (size_t)g->in_padded;
    const int32_t round = nas__conv_unroll(c->in_c, way->pixels * vectors);
    const int32_t ahead = ahead_of(c, g, way, vectors, round);
    nas_buf_printf(out, "TILE void %s_mul%d(const float *s, const float *w, float *out%s) {\n",
                   name, vectors, ahead > 0 ? ", const char *ahead" : "");
    for (int32_t p = 0; p < way->pixels; p++) {
        nas_buf_puts(out, "    vf ");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%sa%d_%d = {0}", v > 0 ? ", " : "", p, v);
        nas_buf_puts(out, ";\n");
    }
    char limit[16];
    (void)snprintf(limit, sizeof limit, "%d", c->in_c);
    nas__conv_emit_loop(limit, round, offsets, way->pixels, vectors, g->lanes, ahead, "    ", out);
    for (int32_t p = 0; p < way->pixels; p++) {
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "    store(out + %d, a%d_%d);\n",
                           p * g->unit_channels + v * g->lanes, p, v);
        }
    }
    nas_buf_puts(out, "}\n");
}

/* The calls for vectors [low, high) of the channels. */
static void emit_calls(const nas__conv *c, const geometry *g, const char *name, bool input,
                       nas_buf *out) {
    const int32_t channels = input ? c->in_c : c->out_c;
    const int32_t whole = channels / g->lanes, rest = channels % g->lanes;
    const char *call =
        input ? "(s + v * LANES, row, pitch, V + t * IN + v * LANES);\n"
              : (c->has_residual ? "(M + t * OUT + v * LANES - start, head + v * LANES, o + v * "
                                   "LANES, r + v * LANES, rows, columns);\n"
                                 : "(M + t * OUT + v * LANES - start, head + v * LANES, o + v * "
                                   "LANES, rows, columns);\n");
    const char *which = input ? "in" : "out", *indent = "            ";
    if (whole > 0) {
        nas_buf_printf(out, "%sfor (long v = low; v < high%s; %s) %s_%s0%s", indent,
                       rest > 0 ? " - last" : "", input || g->together == 1 ? "v++" : "v += 2",
                       name, which, call);
    }
    if (rest > 0) {
        nas_buf_printf(out, "%sfor (long v = high - last; v < high; v++) %s_%s1%s", indent, name,
                       which, call);
    }
}

/* The start of a batch: all its tiles into V. */
static void emit_transform(const nas__conv *c, const geometry *g, const nas__conv_way *way,
                           const char *name, nas_buf *out) {
    nas_buf_printf(
        out,
        "static void %s_fill(const float *in, float *V, float *patch, long first, long n) "
        "{\n"
        "    const long low = 0, high = %d%s;\n"
        "    (void)patch; (void)low;\n"
        "        for (long t = 0; t < n; t++) {\n"
        "            const long y = (first + t) / %d * %d, x = (first + t) %% %d * %d;\n"
        "            const float *s = in + y * %zu + x * %d;\n"
        "            long row = %zu, pitch = %d;\n",
        name, g->in_padded / g->lanes, c->in_c % g->lanes > 0 ? ", last = 1" : "", g->across, g->m,
        g->across, g->m, c->in_row, c->in_pitch, c->in_row, c->in_pitch);
    if (c->out_h % g->m != 0 || c->out_w % g->m != 0) {
        nas_buf_printf(
            out,
            "            const long rows = %d - y, columns = %d - x;\n"
            "            if (rows < %d || columns < %d) { /* sticks out */\n"
            "                __builtin_memset(patch, 0, %zu);\n"
            "                for (long i = 0; i < %d && i < rows; i++) {\n"
            "                    for (long j = 0; j < %d && j < columns; j++) {\n"
            "                        __builtin_memcpy(patch + (i * %d + j) * IN, s + i * row + j * "
            "pitch, %zu);\n"
            "                    }\n"
            "                }\n"
            "                s = patch; row = %d * IN; pitch = IN;\n"
            "            }\n",
            c->out_h + 2, c->out_w + 2, g->a, g->a,
            (size_t)g->points * (size_t)g->in_padded * sizeof(float), g->a, g->a, g->a,
            (size_t)c->in_c * sizeof(float), g->a);
    }
    emit_calls(c, g, name, true, out);
    nas_buf_printf(
        out,
        "        }\n"
        "        const long padded = (n + %d) / %d * %d; /* the products read whole tiles */\n"
        "        for (long t = n; t < padded; t++) {\n"
        "            for (long k = 0; k < %d; k++) __builtin_memset(V + k * %zu + t * IN, 0, "
        "%zu);\n"
        "        }\n}\n",
        way->pixels - 1, way->pixels, way->pixels, g->points, g->in_plane,
        (size_t)g->in_padded * sizeof(float));
}

void nas__conv_winograd_emit(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                             const char *name, nas_buf *out) {
    const geometry g = geometry_of(target, c, way);
    nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    b.last_lanes = b.lanes; /* products are whole vectors */
    const int32_t heads = nas__conv_heads(c);
    if (g.in_registers)
        nas_buf_puts(out, g.m == 2 ? unrolled_2 : unrolled_4);
    else
        nas_buf_puts(out, g.m == 2 ? transforms_2 : transforms_4);
    nas_buf_printf(out, "#define IN %d\n#define OUT %d\n#define RESIDUAL_ROW %zu\n", g.in_padded,
                   g.unit_channels, c->residual_row);
    emit_input(c, &g, name, out);
    emit_transform(c, &g, way, name, out);
    emit_output(c, &g, name, out);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from < kind.to) emit_product(c, &g, way, name, kind.vectors, out);
    }
    const int32_t wide = b.count - b.narrow;
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
                   name, (size_t)g.points * g.in_plane, g.splits, way->batch, g.splits,
                   g.unit_blocks, g.unit_blocks, b.count, g.unit_blocks, b.count, g.tiles,
                   way->batch, g.tiles, way->batch, name, (size_t)g.points * g.out_plane);
    nas_buf_printf(out, "        const long low = from * %d - (from > %d ? from - %d : 0);\n",
                   b.vectors, wide, wide);
    nas_buf_printf(out, "        const long high = to * %d - (to > %d ? to - %d : 0);\n", b.vectors,
                   wide, wide);
    if (c->out_c % g.lanes != 0) {
        nas_buf_printf(out, "        const long last = to == %d; /* a partial vector */\n",
                       b.count);
    }
    nas_buf_printf(out, "        const long start = low * LANES;\n");
    if (g.pixels)
        nas_buf_printf(
            out,
            "        const float *next = in + ((first + %d) / %d * %d + %d) * %zu + (first "
            "+ %d) %% %d * %d;\n",
            way->batch, g.across, g.m, g.a - g.asked, c->in_row, way->batch, g.across,
            g.m * c->in_pitch);
    nas_buf_printf(out,
                   "        for (long k = 0; k < %d; k++) {\n"
                   "            const float *w = head + %zu + k * %zu;\n",
                   g.points, (size_t)heads * (size_t)g.out_padded,
                   (size_t)c->in_c * (size_t)g.out_padded);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from >= kind.to) continue;
        nas_buf_printf(out,
                       "            for (long b = from > %d ? from : %d; b < to && b < %d; b++) {\n"
                       "                const long at = %d + (b - %d) * %d;\n",
                       kind.from, kind.from, kind.to, nas__conv_block_first(&b, kind.from),
                       kind.from, kind.vectors * g.lanes);
        const int32_t round = nas__conv_unroll(c->in_c, way->pixels * kind.vectors);
        const int32_t ahead = ahead_of(c, &g, way, kind.vectors, round);
        const int32_t each = g.points / g.asked; /* points of a row that is asked for */
        if (ahead > 0 && g.pixels) {
            nas_buf_printf(
                out,
                "                const char *ahead = (const char *)(next + k / %d * %zu) + "
                "(k %% %d * (to - from) + b - from) * ((n + %d) / %d * %d);\n",
                each, c->in_row, each, way->pixels - 1, way->pixels, c->in_c / round * ahead);
        } else if (ahead > 0) { /* the next block, after the last one those of the next point */
            nas_buf_printf(
                out,
                "                const char *ahead = (const char *)(b + 1 < to ? w + (at "
                "+ %d) * %d : w + %zu + start * %d);\n",
                kind.vectors * g.lanes, c->in_c, (size_t)c->in_c * (size_t)g.out_padded, c->in_c);
        }
        nas_buf_printf(
            out,
            "                for (long t = 0; t < n; t += %d) {\n"
            "                    %s_mul%d(V + k * %zu + t * IN, w + at * %d, M + k * %zu "
            "+ t * OUT + at - start%s);\n",
            way->pixels, name, kind.vectors, g.in_plane, c->in_c, g.out_plane,
            ahead > 0 ? ", ahead" : "");
        if (ahead > 0)
            nas_buf_printf(out, "                    ahead += %d;\n", c->in_c / round * ahead);
        nas_buf_puts(out, "                }\n            }\n");
    }
    nas_buf_printf(out,
                   "        }\n"
                   "        for (long t = 0; t < n; t++) {\n"
                   "            const long y = (first + t) / %d * %d, x = (first + t) %% %d * %d;\n"
                   "            const int rows = %d - y < %d ? (int)(%d - y) : %d;\n"
                   "            const int columns = %d - x < %d ? (int)(%d - x) : %d;\n"
                   "            float *o = out + y * %zu + x * %d;\n",
                   g.across, g.m, g.across, g.m, c->out_h, g.m, c->out_h, g.m, c->out_w, g.m,
                   c->out_w, g.m, c->out_row, c->out_pitch);
    if (c->has_residual) {
        nas_buf_printf(out, "            const float *r = residual + y * RESIDUAL_ROW + x * %d;\n",
                       c->residual_pitch);
    }
    emit_calls(c, &g, name, false, out);
    nas_buf_printf(out,
                   "        }\n    }\n%s}\n#undef IN\n#undef OUT\n#undef RESIDUAL_ROW\n#undef BT\n"
                   "#undef AT\n%s\n",
                   g.far ? "    STREAMED();\n" : "",
                   g.in_registers ? "#undef BT_LOW\n#undef BT_HIGH\n" : "");
}
