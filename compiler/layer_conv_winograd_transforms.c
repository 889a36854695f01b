/* layer_conv_winograd_transforms.c - the transforms of Winograd's tiles as text: inputs of a batch to V, M to outputs with bias,
 * residual and activation. A vector is 16 (8 ...) channels of one tile, or half as many of two tiles. */
#include "compiler/layer_conv_winograd.h"

#include <stdio.h>

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

void nas__wino_emit_macros(const nas__wino *g, nas_buf *out) {
    if (g->in_registers)
        nas_buf_puts(out, g->m == 2 ? unrolled_2 : unrolled_4);
    else
        nas_buf_puts(out, g->m == 2 ? transforms_2 : transforms_4);
}

void nas__wino_emit_macros_end(const nas__wino *g, nas_buf *out) {
    nas_buf_printf(out, "#undef BT\n#undef AT\n%s\n",
                   g->in_registers ? "#undef BT_LOW\n#undef BT_HIGH\n" : "");
}

/* Halves of a vector in two places, n floats each, exactly; n is a constant. */
static const char pairs[] =
    "#ifndef TWO_TILES\n"
    "#define TWO_TILES\n"
    "#if defined(__AVX512F__)\n"
    "typedef float v_half __attribute__((vector_size(32), aligned(4), may_alias));\n"
    "HELPER vf load_two(const float *a, const float *b, int n) {\n"
    "    vf v;\n"
    "    if (n < 8) {\n"
    "        const unsigned low = (1u << n) - 1;\n"
    "        v = __builtin_ia32_loadups512_mask(a, (vf){0}, (unsigned short)low);\n"
    "        return __builtin_ia32_loadups512_mask(b - 8, v, (unsigned short)(low << 8));\n"
    "    }\n"
    "    __asm__(\"vmovups %1, %t0\\n\\tvinsertf64x4 $1, %2, %0, %0\" : \"=&v\"(v) : "
    "\"m\"(*(const v_half *)a), \"m\"(*(const v_half *)b));\n"
    "    return v;\n}\n"
    "HELPER void store_low(float *p, vf v, int n) {\n"
    "    if (n < 8)\n        store_n(p, v, n);\n"
    "    else\n        __asm__(\"vmovups %t1, %0\" : \"=m\"(*(v_half *)p) : \"v\"(v));\n}\n"
    "HELPER void store_high(float *p, vf v, int n) {\n"
    "    if (n < 8)\n"
    "        __builtin_ia32_storeups512_mask(p - 8, v, (unsigned short)(((1u << n) - 1) << 8));\n"
    "    else\n        __asm__(\"vextractf64x4 $1, %1, %0\" : \"=m\"(*(v_half *)p) : \"v\"(v));\n"
    "}\n"
    "#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30\n"
    "#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31\n"
    "#elif defined(__AVX__)\n"
    "typedef float v_half __attribute__((vector_size(16), aligned(4), may_alias));\n"
    "HELPER vf load_two(const float *a, const float *b, int n) {\n"
    "    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7};\n"
    "    if (n < 4) {\n"
    "        const vi high = (lane >= 4) & (lane < 4 + n);\n"
    "        return (vf)((vi)load_n(a, n) |\n"
    "                    (vi)__builtin_ia32_maskloadps256((const vf *)(b - 4), high));\n"
    "    }\n"
    "    vf v;\n"
    "    __asm__(\"vmovups %1, %x0\\n\\tvinsertf128 $1, %2, %0, %0\" : \"=&x\"(v) : "
    "\"m\"(*(const v_half *)a), \"m\"(*(const v_half *)b));\n"
    "    return v;\n}\n"
    "HELPER void store_low(float *p, vf v, int n) {\n"
    "    store_n(p, v, n);\n}\n"
    "HELPER void store_high(float *p, vf v, int n) {\n"
    "    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7};\n"
    "    if (n < 4)\n"
    "        __builtin_ia32_maskstoreps256((vf *)(p - 4), (lane >= 4) & (lane < 4 + n), v);\n"
    "    else\n        __asm__(\"vextractf128 $1, %1, %0\" : \"=m\"(*(v_half *)p) : \"x\"(v));\n"
    "}\n"
    "#define EVEN 0, 2, 4, 6, 8, 10, 12, 14\n"
    "#define ODD 1, 3, 5, 7, 9, 11, 13, 15\n"
    "#endif\n"
    "/* s[0], s[1], s[0], s[1] ... */\n"
    "HELPER vf splat_two(const float *s) {\n"
    "    typedef double vd __attribute__((vector_size(sizeof(vf))));\n"
    "    double both;\n    __builtin_memcpy(&both, s, sizeof both);\n"
    "    return (vf)(both - (vd){0});\n}\n"
    "/* The sums of neighbours, of a in the low half. */\n"
    "HELPER vf add_twos(vf a, vf b) {\n"
    "    return SHUFFLE(a, b, EVEN) + SHUFFLE(a, b, ODD);\n}\n"
    "#undef EVEN\n#undef ODD\n#endif\n";

void nas__wino_emit_pairs(nas_buf *out) {
    nas_buf_puts(out, pairs);
}

/* The vectors that a transform may be of: whole ones, the partial one at their end, one that two tiles share. */
typedef enum vector_kind { WHOLE, PARTIAL, PAIR, VECTOR_KINDS } vector_kind;

/* The channels of the last vector of a kind; 0: there is none of it. */
static int32_t channels_of(const nas__wino *g, vector_kind kind, bool input) {
    const int32_t whole = input ? g->in_whole : g->out_whole;
    switch (kind) {
    case WHOLE: return whole >= g->lanes ? g->lanes : 0;
    case PARTIAL: return whole % g->lanes;
    case PAIR: return input ? g->in_pair : g->out_pair;
    case VECTOR_KINDS: break;
    }
    return 0;
}

static void put_names(const char *name, int32_t n, nas_buf *out) {
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(out, "%s%s%d", i > 0 ? ", " : "", name, i);
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

static void put_input_store(const nas__wino *g, vector_kind kind, size_t at, int32_t i,
                            nas_buf *out) {
    if (kind == PAIR && g->in_whole > 0) /* no tile behind the other */
        nas_buf_printf(out, " store_low(v + %zu, o%d, %d); store_high(v_next + %zu, o%d, %d);", at,
                       i, g->half, at, i, g->half);
    else
        nas_buf_printf(out, " store(v + %zu, o%d);", at, i);
}

/* `n` rows of what the first pass makes, and with them the second pass: row y of them is row first + y of V. */
static void emit_input_part(const nas__wino *g, vector_kind kind, const char *pass, int32_t first,
                            int32_t n, nas_buf *out) {
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
            put_input_store(g, kind, (size_t)((first + y) * g->a + i) * g->in_plane, i, out);
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "#undef H\n#undef O\n    }\n");
}

/* Both passes with what lies between them in an array: columns of the input, then rows of V. */
static void emit_input_passes(const nas__wino *g, vector_kind kind, nas_buf *out) {
    const bool apart = kind == PAIR && g->in_whole > 0;
    nas_buf_printf(out,
                   "    vf h[%d][%d];\n"
                   "    for (int x = 0; x < %d; x++, s += pitch%s) {\n"
                   "#define O(i) h[i][x]\n        BT(O, D);\n#undef O\n    }\n"
                   "    for (int y = 0; y < %d; y++, v += %zu",
                   g->a, g->a, g->a, kind == PAIR ? ", next += next_pitch" : "", g->a,
                   (size_t)g->a * g->in_plane);
    if (apart) nas_buf_printf(out, ", v_next += %zu", (size_t)g->a * g->in_plane);
    nas_buf_puts(out, ") {\n        vf ");
    put_names("o", g->a, out);
    nas_buf_puts(out, ";\n#define H(i) h[y][i]\n#define O(i) o##i\n        BT(O, H);\n"
                      "#undef H\n#undef O\n");
    for (int32_t i = 0; i < g->a; i++) {
        nas_buf_puts(out, "       ");
        put_input_store(g, kind, (size_t)i * g->in_plane, i, out);
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "    }\n");
}

/* The macro D: what the first pass reads. */
static void emit_input_loads(const nas__wino *g, vector_kind kind, nas_buf *out) {
    const char *where = g->in_registers ? "i * row + k * pitch" : "i * row";
    nas_buf_printf(out, "#define D(i%s) ", g->in_registers ? ", k" : "");
    if (kind == WHOLE)
        nas_buf_printf(out, "load(s + %s)\n", where);
    else if (kind == PARTIAL)
        nas_buf_printf(out, "load_n(s + %s, %d)\n", where, g->in_whole % g->lanes);
    else
        nas_buf_printf(out, "load_two(s + %s, next + i * next_row%s, %d)\n", where,
                       g->in_registers ? " + k * next_pitch" : "", g->in_pair);
}

void nas__wino_emit_input(const nas__wino *g, const char *name, nas_buf *out) {
    for (int32_t k = WHOLE; k < VECTOR_KINDS; k++) {
        const vector_kind kind = (vector_kind)k;
        if (channels_of(g, kind, true) == 0) continue;
        nas_buf_printf(
            out, "TILE void %s_in%d(const float *s, long row, long pitch%s, float *v%s) {\n", name,
            k, kind == PAIR ? ", const float *next, long next_row, long next_pitch" : "",
            kind == PAIR && g->in_whole > 0 ? ", float *v_next" : "");
        emit_input_loads(g, kind, out);
        if (g->in_registers) {
            emit_input_part(g, kind, "LOW", 0, g->m == 2 ? 4 : 3, out);
            if (g->m == 4) emit_input_part(g, kind, "HIGH", 3, 3, out);
        } else {
            emit_input_passes(g, kind, out);
        }
        nas_buf_puts(out, "#undef D\n}\n");
    }
}

/* NAME_view: where a tile of the input lies: in the image, or, where it sticks out, in a patch with zeros around. */
static void emit_view(const nas__conv *c, const nas__wino *g, const char *name, nas_buf *out) {
    nas_buf_printf(out,
                   "typedef struct %s_place {\n    const float *s;\n    long row, pitch;\n} "
                   "%s_place;\n"
                   "HELPER %s_place %s_view(const float *in, float *patch, long tile) {\n"
                   "    const long y = tile / %d * %d, x = tile %% %d * %d;\n"
                   "    const float *s = in + y * %zu + x * %d;\n"
                   "    long row = %zu, pitch = %d;\n",
                   name, name, name, name, g->across, g->m, g->across, g->m, c->in_row, c->in_pitch,
                   c->in_row, c->in_pitch);
    if (g->partial) {
        nas_buf_printf(
            out,
            "    const long rows = %d - y, columns = %d - x;\n"
            "    if (rows < %d || columns < %d) { /* sticks out */\n"
            "        __builtin_memset(patch, 0, %zu);\n"
            "        for (long i = 0; i < %d && i < rows; i++) {\n"
            "            for (long j = 0; j < %d && j < columns; j++) {\n"
            "                __builtin_memcpy(patch + (i * %d + j) * IN, s + i * row + j * pitch, "
            "%zu);\n"
            "            }\n"
            "        }\n"
            "        s = patch; row = %d * IN; pitch = IN;\n"
            "    }\n",
            c->out_h + 2, c->out_w + 2, g->a, g->a,
            (size_t)g->points * (size_t)g->in_padded * sizeof(float), g->a, g->a, g->a,
            (size_t)c->in_c * sizeof(float), g->a);
    }
    nas_buf_printf(out, "    (void)patch;\n    return (%s_place){s, row, pitch};\n}\n", name);
}

static void emit_fill_whole(const nas__wino *g, const char *name, nas_buf *out) {
    const int32_t whole = g->in_whole / g->lanes;
    nas_buf_printf(out,
                   "    for (long t = 0; t < n; t++) {\n"
                   "        const %s_place p = %s_view(in, patch, first + t);\n",
                   name, name);
    if (whole > 0)
        nas_buf_printf(out,
                       "        for (long v = 0; v < %d; v++) %s_in0(p.s + v * LANES, p.row, "
                       "p.pitch, V + t * IN + v * LANES);\n",
                       whole, name);
    if (g->in_whole % g->lanes > 0)
        nas_buf_printf(out, "        %s_in1(p.s + %d, p.row, p.pitch, V + t * IN + %d);\n", name,
                       whole * g->lanes, whole * g->lanes);
    nas_buf_puts(out, "    }\n");
}

/* The last of an odd number is there twice: behind it lies the next one's place, or the pad. */
static void emit_fill_pairs(const nas__wino *g, const char *name, nas_buf *out) {
    nas_buf_printf(out,
                   "    for (long t = 0; t < n; t += 2) { /* two tiles a vector */\n"
                   "        const long after = t + 1 < n ? t + 1 : t;\n"
                   "        const %s_place p = %s_view(in, patch, first + t);\n"
                   "        const %s_place q = %s_view(in, patch + %zu, first + after);\n"
                   "        %s_in2(p.s + %d, p.row, p.pitch, q.s + %d, q.row, q.pitch, V + t * IN "
                   "+ %d",
                   name, name, name, name, (size_t)g->points * (size_t)g->in_padded, name,
                   g->in_whole, g->in_whole, g->in_whole);
    if (g->in_whole > 0) nas_buf_printf(out, ", V + after * IN + %d", g->in_whole);
    nas_buf_puts(out, ");\n    }\n");
}

void nas__wino_emit_fill(const nas__conv *c, const nas__wino *g, const nas__conv_way *way,
                         const char *name, nas_buf *out) {
    emit_view(c, g, name, out);
    nas_buf_printf(
        out, "static void %s_fill(const float *in, float *V, float *patch, long first, long n) {\n",
        name);
    if (g->in_whole > 0) emit_fill_whole(g, name, out);
    if (g->in_pair > 0) emit_fill_pairs(g, name, out);
    nas_buf_printf(
        out,
        "    const long padded = (n + %d) / %d * %d; /* the products read whole tiles */\n"
        "    for (long t = n; t < padded; t++) {\n"
        "        for (long k = 0; k < %d; k++) __builtin_memset(V + k * %zu + t * IN, 0, %zu);\n"
        "    }\n}\n",
        way->pixels - 1, way->pixels, way->pixels, g->points, g->in_plane,
        (size_t)g->in_padded * sizeof(float));
}

/* ---- outputs ----------------------------------------------------------------------------------------------------- */

/* At the end of the names of what belongs to the first and the second vector that are transformed together. */
static const char *const of_vector[2] = {"", "_1"};

/* Stores one row of outputs o0.. of a tile, as many columns as there are. */
static void emit_output_row(const nas__conv *c, const nas__wino *g, bool partial, nas_buf *out) {
    char count[16] = "";
    if (partial) (void)snprintf(count, sizeof count, ", %d", g->out_whole % g->lanes);
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

/* The same of two tiles. Where the second is the first again, what was meant for it is stored over by the first. */
static void emit_output_row_of_two(const nas__conv *c, const nas__wino *g, nas_buf *out) {
    for (int32_t i = 0; i < g->m; i++) {
        const int32_t at = i * c->out_pitch, from = i * c->residual_pitch, n = g->out_pair;
        char value[200];
        (void)snprintf(value, sizeof value, "o%d + bias", i);
        if (c->has_residual && g->partial && i > 0)
            (void)snprintf(value, sizeof value,
                           "o%d + bias + load_two(residual + (here > %d ? %d : 0), next_residual + "
                           "(there > %d ? %d : 0), %d)",
                           i, i, from, i, from, n);
        else if (c->has_residual)
            (void)snprintf(value, sizeof value,
                           "o%d + bias + load_two(residual + %d, next_residual + %d, %d)", i, from,
                           from, n);
        nas_buf_puts(out, "        { const vf z = ");
        nas__conv_finish(c, value, "slope", out);
        nas_buf_puts(out, "; ");
        if (g->partial) nas_buf_printf(out, "if (there > %d) ", i);
        nas_buf_printf(out, "store_high(next + %d, z, %d); ", at, n);
        if (g->partial) nas_buf_printf(out, "if (here > %d) ", i);
        nas_buf_printf(out, "store_low(out + %d, z, %d); }\n", at, n);
    }
}

/* To row y of two tiles, which may not be there in one of them; here, there: columns that are. */
static void emit_next_row_of_two(const nas__conv *c, const nas__wino *g, const char *y,
                                 nas_buf *out) {
    nas_buf_printf(out, "        out += %zu; next += %zu;\n", c->out_row, c->out_row);
    if (g->partial)
        nas_buf_printf(out,
                       "        if (rows <= %s) here = 0;\n        if (next_rows <= %s) there = "
                       "0;\n",
                       y, y);
    if (!c->has_residual) return;
    if (g->partial)
        nas_buf_puts(out,
                     "        residual += here > 0 ? RESIDUAL_ROW : 0; next_residual += there > 0 "
                     "? RESIDUAL_ROW : 0;\n");
    else
        nas_buf_puts(out, "        residual += RESIDUAL_ROW; next_residual += RESIDUAL_ROW;\n");
}

/* Both passes; rows and columns of the tile that are within the image. */
static void emit_output_passes(const nas__conv *c, const nas__wino *g, vector_kind kind,
                               nas_buf *out) {
    for (int32_t v = 0; v < g->together; v++) {
        nas_buf_printf(out,
                       "    for (int x = 0; x < %d; x++) {\n"
                       "#define D(i) load(s + x * %zu + i * %zu + %d)\n#define O(i) h%s[i][x]\n"
                       "        AT(O, D);\n#undef D\n#undef O\n    }\n",
                       g->a, g->out_plane, (size_t)g->a * g->out_plane, v * g->lanes, of_vector[v]);
    }
    if (kind == PAIR)
        nas_buf_printf(out, "    for (int y = 0; y < %d; y++) {\n", g->m);
    else
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
    if (kind == PAIR) {
        emit_output_row_of_two(c, g, out);
        emit_next_row_of_two(c, g, "y + 1", out);
    } else {
        emit_output_row(c, g, kind == PARTIAL, out);
    }
    nas_buf_puts(out, "    }\n");
}

static void emit_output_unrolled(const nas__conv *c, const nas__wino *g, vector_kind kind,
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
        char row[16];
        (void)snprintf(row, sizeof row, "%d", y);
        if (y > 0 && kind == PAIR) {
            emit_next_row_of_two(c, g, row, out);
        } else if (y > 0) {
            nas_buf_printf(out, "    if (rows == %d) return;\n    out += %zu;\n", y, c->out_row);
            if (c->has_residual) nas_buf_puts(out, "    residual += RESIDUAL_ROW;\n");
        }
        nas_buf_printf(out, "    AT(O, D, %d);\n", y);
        if (kind == PAIR)
            emit_output_row_of_two(c, g, out);
        else
            emit_output_row(c, g, kind == PARTIAL, out);
    }
    nas_buf_puts(out, "#undef D\n#undef O\n");
}

/* The arguments of NAME_out. */
static void emit_output_head(const nas__conv *c, const nas__wino *g, vector_kind kind,
                             const char *name, nas_buf *out) {
    const char *residual = c->has_residual ? ", const float *residual" : "";
    nas_buf_printf(out, "TILE void %s_out%d(const float *s, const float *w, float *out%s", name,
                   (int)kind, residual);
    if (kind != PAIR) {
        nas_buf_puts(out, ", int rows, int columns) {\n");
        return;
    }
    nas_buf_printf(out, ", float *next%s%s) {\n",
                   c->has_residual ? ", const float *next_residual" : "",
                   g->partial ? ", int rows, int columns, int next_rows, int next_columns" : "");
    if (g->partial) nas_buf_puts(out, "    int here = columns, there = next_columns;\n");
}

void nas__wino_emit_output(const nas__conv *c, const nas__wino *g, const char *name, nas_buf *out) {
    for (int32_t k = WHOLE; k < VECTOR_KINDS; k++) {
        const vector_kind kind = (vector_kind)k;
        if (channels_of(g, kind, false) == 0) continue;
        emit_output_head(c, g, kind, name, out);
        for (int32_t v = 0; v < g->together; v++)
            nas_buf_printf(out,
                           "    vf h%s[%d][%d];\n"
                           "    const vf bias%s = load(w%s);\n",
                           of_vector[v], g->m, g->a, of_vector[v], v > 0 ? " + LANES" : "");
        if (c->act == NAS__LACT_PRELU)
            nas_buf_printf(out, "    const float *slope = w + %d;\n", g->out_padded);
        if (g->in_registers)
            emit_output_unrolled(c, g, kind, out);
        else
            emit_output_passes(c, g, kind, out);
        nas_buf_puts(out, "}\n");
    }
}

/* Where tile `tile` of the output lies; suffix: of the names. */
static void emit_output_place(const nas__conv *c, const nas__wino *g, const char *tile,
                              const char *suffix, bool counts, nas_buf *out) {
    nas_buf_printf(
        out,
        "            const long y%s = (first + %s) / %d * %d, x%s = (first + %s) %% %d * "
        "%d;\n",
        suffix, tile, g->across, g->m, suffix, tile, g->across, g->m);
    if (counts)
        nas_buf_printf(out,
                       "            const int rows%s = %d - y%s < %d ? (int)(%d - y%s) : %d;\n"
                       "            const int columns%s = %d - x%s < %d ? (int)(%d - x%s) : %d;\n",
                       suffix, c->out_h, suffix, g->m, c->out_h, suffix, g->m, suffix, c->out_w,
                       suffix, g->m, c->out_w, suffix, g->m);
    nas_buf_printf(out, "            float *o%s = out + y%s * %zu + x%s * %d;\n", suffix, suffix,
                   c->out_row, suffix, c->out_pitch);
    if (c->has_residual)
        nas_buf_printf(out,
                       "            const float *r%s = residual + y%s * RESIDUAL_ROW + x%s * %d;\n",
                       suffix, suffix, suffix, c->residual_pitch);
}

static void emit_finish_whole(const nas__conv *c, const nas__wino *g, const char *name,
                              nas_buf *out) {
    static const char with_residual[] =
        "(M + t * OUT + v * LANES - start, head + v * LANES, o + v * LANES, r + v * LANES, rows, "
        "columns);\n";
    static const char without[] =
        "(M + t * OUT + v * LANES - start, head + v * LANES, o + v * LANES, rows, columns);\n";
    const char *call = c->has_residual ? with_residual : without, *indent = "            ";
    const int32_t rest = g->out_whole % g->lanes;
    nas_buf_puts(out, "        for (long t = 0; t < n; t++) {\n");
    emit_output_place(c, g, "t", "", true, out);
    if (g->out_whole >= g->lanes)
        nas_buf_printf(out, "%sfor (long v = low; v < high%s; %s) %s_out0%s", indent,
                       rest > 0 ? " - last" : "", g->together == 1 ? "v++" : "v += 2", name, call);
    if (rest > 0)
        nas_buf_printf(out, "%sfor (long v = high - last; v < high; v++) %s_out1%s", indent, name,
                       call);
    nas_buf_puts(out, "        }\n");
}

static void emit_finish_pairs(const nas__conv *c, const nas__wino *g, const char *name,
                              nas_buf *out) {
    nas_buf_printf(
        out,
        "        for (long t = 0; t < n && to == %d; t += 2) { /* two tiles a vector */\n"
        "            const long after = t + 1 < n ? t + 1 : t;\n",
        g->all_blocks);
    emit_output_place(c, g, "t", "", g->partial, out);
    emit_output_place(c, g, "after", "_1", g->partial, out);
    const int32_t at = g->out_whole;
    nas_buf_printf(out, "            %s_out2(M + %zu + t * %d, head + %d, o + %d", name,
                   g->pairs_at, g->half, at, at);
    if (c->has_residual) nas_buf_printf(out, ", r + %d", at);
    nas_buf_printf(out, ", o_1 + %d", at);
    if (c->has_residual) nas_buf_printf(out, ", r_1 + %d", at);
    nas_buf_printf(out, "%s);\n        }\n",
                   g->partial ? ", rows, columns, rows_1, columns_1" : "");
}

void nas__wino_emit_finish(const nas__conv *c, const nas__wino *g, const char *name, nas_buf *out) {
    if (g->out_whole > 0) emit_finish_whole(c, g, name, out);
    if (g->out_pair > 0) emit_finish_pairs(c, g, name, out);
}
