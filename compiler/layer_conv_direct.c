/* layer_conv_direct.c - direct convolution: a register tile of pixels x vectors of output channels; taps and input
 * channels inside. Grouped convolutions and fully connected layers are the same text with other tiles.
 *
 * Every distance is a constant of the layer, so the pixels of a tile are constant displacements from one pointer, also
 * when the tile spans rows. Tiles are functions of their own: the register allocator sees one loop nest at a time. */
#include "compiler/layer_conv_internal.h"

#include <math.h>
#include <stdio.h>

enum { LINE = 64 }; /* bytes of a cache line */

int32_t nas__conv_unroll(int32_t length, int32_t products) {
    const int32_t most = products >= 16 ? 2 : 4;
    for (int32_t u = most; u > 1; u--) {
        if (length % u == 0) return u;
    }
    return length < 8 ? length : 1;
}

int32_t nas__conv_ahead(double bytes, double rounds) {
    const int32_t n = (int32_t)ceil(bytes / rounds);
    return n < 2 * LINE ? n : 2 * LINE;
}

void nas__conv_emit_loop(const char *limit, int32_t round, const size_t *offsets, int32_t pixels,
                         int32_t vectors, int32_t lanes, int32_t ahead, const char *indent,
                         nas_buf *out) {
    const bool each = vectors == 1 && lanes == 16;
    nas_buf_printf(out, "%sfor (int i = 0; i < %s; i += %d, s += %d, w += %d) {\n", indent, limit,
                   round, round, round * vectors * lanes);
    if (ahead > 0) {
        nas_buf_printf(out, "%s    AHEAD(ahead);%s\n%s    ahead += %d;\n", indent,
                       ahead > LINE ? " AHEAD(ahead + 64);" : "", indent, ahead);
    }
    for (int32_t u = 0; u < round; u++) {
        /* Pixels of a layer with few channels overlap: without the barrier gcc keeps what it has loaded for the next
         * steps and spills the accumulators for it. */
        nas_buf_printf(out, "%s    {\n%s        __asm__(\"\" : \"+r\"(s));\n%s        const vf ",
                       indent, indent, indent);
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(out, "%sb%d = load(w + %d)", v > 0 ? ", " : "", v,
                           (u * vectors + v) * lanes);
        }
        nas_buf_puts(out, ";\n");
        if (!each) nas_buf_printf(out, "%s        vf x;\n", indent);
        for (int32_t p = 0; p < pixels; p++) {
            if (each) {
                nas_buf_printf(out, "%s        MADD_EACH(a%d_0, s[%zu], b0);\n", indent, p,
                               offsets[p] + (size_t)u);
                continue;
            }
            nas_buf_printf(out, "%s        x = splat(s[%zu]);", indent, offsets[p] + (size_t)u);
            for (int32_t v = 0; v < vectors; v++)
                nas_buf_printf(out, pixels > 1 ? " MADD(a%d_%d, x, b%d);" : " a%d_%d += x * b%d;",
                               p, v, v);
            nas_buf_puts(out, "\n");
        }
        nas_buf_printf(out, "%s    }\n", indent);
    }
    nas_buf_printf(out, "%s}\n", indent);
}

/* The tile's function, for calls and for its definition: rows x columns pixels, up to `channels` channels. */
static void put_tile_name(const char *name, int32_t rows, int32_t columns, int32_t channels,
                          nas_buf *out) {
    nas_buf_printf(out, "%s_%dx%d_%d", name, rows, columns, channels);
}

/* How the tiles of a block of outputs (or of a part of its sum) ask for what comes next: the weights after theirs, or,
 * where the weights stay in L2 and the image does not, the pixels of the next unit. */
typedef struct stream {
    int32_t ahead; /* bytes a round; 0: it does not */
    int32_t round; /* steps of a round */
    int32_t tile;  /* bytes that one tile asks for, at least */
    int32_t unit; /* from where one unit begins to the next, in bytes; of pixels: a block or part */
    bool pixels;
} stream;

nas__conv_far nas__conv_streams(const nas_target *target, const nas__conv *c) {
    const double weights = 4.0 * c->kernel_h * c->kernel_w * c->in_c * c->out_c;
    const double pixels = 4.0 * c->out_h * c->out_w * c->in_c;
    if (c->groups > 1 || c->out_h * c->out_w == 1) return NAS__FAR_NONE;
    /* 1x1 alone: there few products wait for each pixel */
    if (c->kernel_h * c->kernel_w == 1 && c->stride_h == 1 && c->stride_w == 1 &&
        weights <= 0.6 * target->l2_bytes && pixels > target->l2_bytes)
        return NAS__FAR_PIXELS;
    return weights >= target->l2_bytes / 4 ? NAS__FAR_WEIGHTS : NAS__FAR_NONE;
}

static int32_t round_of(const nas__conv_runs *r, int32_t products) {
    int32_t round = nas__conv_unroll(r->depth, products);
    const int32_t rest = r->length % r->depth;
    if (rest % round != 0) round = nas__conv_unroll(rest, products);
    return r->depth % round != 0 ? 1 : round;
}

static stream stream_of(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                        const nas__conv_kind *kind) {
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas__conv_runs r = nas__conv_run(c, way->depth);
    const int32_t bands = nas__conv_unit_bands(target, c, way);
    const int32_t steps = way->depth > 0 ? r.depth : c->kernel_h * r.taps * r.length;
    stream s = {.round = round_of(&r, way->pixels * kind->vectors)};
    const nas__conv_far far = nas__conv_streams(target, c);
    if ((way->algorithm != NAS__CONV_DIRECT && way->algorithm != NAS__CONV_SVE) ||
        far == NAS__FAR_NONE)
        return s;
    s.pixels = far == NAS__FAR_PIXELS;
    if (s.pixels && way->outer == 1) return s; /* every block reads the whole image */
    if (s.pixels) {
        const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
        const int32_t tiles = bands * (t.wide + t.narrow);
        s.ahead = nas__conv_ahead(4.0 * bands * t.rows * (double)c->in_row,
                                  (double)b.count * tiles * (r.length / s.round));
        s.tile = steps / s.round * s.ahead;
        s.unit = tiles * s.tile;
        return s;
    }
    const int32_t units = way->outer == 1 && way->depth == 0 ? (t.bands + bands - 1) / bands : 1;
    const int32_t tiles = units * bands * (t.wide + t.narrow);
    s.ahead = nas__conv_ahead((double)steps * kind->vectors * target->vector_bytes,
                              (double)tiles * steps / s.round);
    s.tile = steps / s.round * s.ahead;
    s.unit = units > 1 ? bands * (t.wide + t.narrow) * s.tile : 0;
    return s;
}

/* All steps of the sum: kernel rows, their taps unless they are one run, input channels. */
static void emit_sum(const nas__conv *c, const nas__conv_runs *r, const size_t *offsets,
                     int32_t pixels, int32_t vectors, int32_t lanes, int32_t ahead, nas_buf *out) {
    const char *indent = "    ";
    nas_buf_puts(out, "    const float *s = in;\n");
    if (c->kernel_h > 1) {
        nas_buf_printf(out, "    for (int y = 0; y < %d; y++) {\n", c->kernel_h);
        indent = "        ";
        if (r->taps == 1) nas_buf_puts(out, "        s = in + (long)y * ROW;\n");
    }
    if (r->taps > 1) {
        nas_buf_printf(out, "%sfor (int x_tap = 0; x_tap < %d; x_tap++) {\n", indent, r->taps);
        nas_buf_printf(out, "%s    s = in + %s(long)x_tap * %d;\n", indent,
                       c->kernel_h > 1 ? "(long)y * ROW + " : "", c->dilation_w * c->in_pitch);
        indent = c->kernel_h > 1 ? "            " : "        ";
    }
    char limit[16];
    (void)snprintf(limit, sizeof limit, "%d", r->length);
    nas__conv_emit_loop(limit, nas__conv_unroll(r->length, pixels * vectors), offsets, pixels,
                        vectors, lanes, ahead, indent, out);
    if (r->taps > 1) nas_buf_printf(out, "%s}\n", c->kernel_h > 1 ? "        " : "    ");
    if (c->kernel_h > 1) nas_buf_puts(out, "    }\n");
}

static void emit_stores(const nas__conv *c, int32_t pixels, int32_t columns, int32_t vectors,
                        int32_t lanes, int32_t last, nas_buf *out) {
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t v = 0; v < vectors; v++) {
            const bool partial = v + 1 == vectors && last < lanes;
            char value[160], slope[32], count[16] = "";
            int n = snprintf(value, sizeof value, "a%d_%d", p, v);
            if (partial) (void)snprintf(count, sizeof count, ", %d", last);
            if (c->has_residual) {
                n = snprintf(value, sizeof value, "a%d_%d + %s(residual + %zu%s)", p, v,
                             partial ? "load_n" : "load",
                             (size_t)(p / columns) * c->residual_row +
                                 (size_t)(p % columns) * (size_t)c->residual_pitch +
                                 (size_t)(v * lanes),
                             count);
            }
            (void)n;
            (void)snprintf(slope, sizeof slope, "slope + %d", v * lanes);
            nas_buf_printf(out, "    %s(out + %zu, ", partial ? "store_n" : "store",
                           (size_t)(p / columns) * c->out_row +
                               (size_t)(p % columns) * (size_t)c->out_pitch + (size_t)(v * lanes));
            nas__conv_finish(c, value, slope, out);
            nas_buf_printf(out, "%s);\n", count);
        }
    }
}

/* Outputs, and what is added to them, that lie far apart in memory: no prefetcher of the processor follows from pixel to
 * pixel, and the few steps of a 1x1 sum do not hide a miss by themselves. */
static bool fetches(const nas__conv *c) {
    return c->groups == 1 && c->kernel_h * c->kernel_w == 1 && c->in_c >= 32 && c->out_c >= 128;
}

static void emit_fetch(const nas__conv *c, int32_t pixels, int32_t columns, int32_t wide,
                       const char *indent, nas_buf *out) {
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_puts(out, indent);
        for (int32_t at = 0; at < wide; at += LINE / 4) {
            const size_t y = (size_t)(p / columns), x = (size_t)(p % columns);
            nas_buf_printf(out, "NEAR(out + %zu); ",
                           y * c->out_row + x * (size_t)c->out_pitch + (size_t)at);
            if (c->has_residual) {
                nas_buf_printf(out, "NEAR(residual + %zu); ",
                               y * c->residual_row + x * (size_t)c->residual_pitch + (size_t)at);
            }
        }
        nas_buf_puts(out, "\n");
    }
}

#define PARTS_HEAD ",\n    int n, const float *from, long step, float *to"

/* One tile: rows x columns pixels. With parts (`depth`) it takes n steps from `from`, which is the bias at first (step
 * 0), then the sums so far, and stores sums to `to` until the last part, where `to` is NULL. */
static void emit_tile(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                      const char *name, int32_t rows, int32_t columns, const nas__conv_kind *kind,
                      nas_buf *out) {
    const int32_t lanes = target->vector_bytes / 4;
    const int32_t vectors = kind->vectors, wide = vectors * lanes, pixels = rows * columns;
    const nas__conv_runs runs = nas__conv_run(c, way->depth);
    const stream weights = stream_of(target, c, way, kind);
    size_t offsets[NAS__CONV_PIXELS_MAX] = {0};
    for (int32_t p = 0; p < pixels; p++) {
        offsets[p] = (size_t)(p / columns * c->stride_h) * c->in_row +
                     (size_t)(p % columns * c->stride_w) * (size_t)c->in_pitch;
    }
    nas_buf_printf(out, "/* %d x %d pixels, %d channels */\nTILE void ", rows, columns,
                   wide - lanes + kind->last);
    put_tile_name(name, rows, columns, wide - lanes + kind->last, out);
    nas_buf_printf(out, "(const float *in, float *out%s, const float *w",
                   c->has_residual ? ", const float *residual" : "");
    if (weights.ahead > 0) nas_buf_puts(out, ", const char *ahead");
    const bool sparse = nas__sparse_by_blocks(way),
               runs_of = way->algorithm == NAS__CONV_SPARSE_RUN;
    if (sparse) {
        const nas__sparse_layout l = nas__sparse_layout_of(target, c, way);
        nas_buf_printf(out, ",\n    const %s *i, const %s *to, const float *v%s",
                       nas__sparse_index(&l), nas__sparse_index(&l),
                       runs_of ? ", const unsigned *q" : "");
    }
    if (way->algorithm == NAS__CONV_SVE) {
        const int32_t products = pixels * vectors;
        const nas__sve_tile tile = {.offsets = offsets,
                                    .pixels = pixels,
                                    .columns = columns,
                                    .lanes = lanes,
                                    .kind = *kind,
                                    .ahead = weights.ahead,
                                    .round = way->depth > 0
                                                 ? round_of(&runs, products)
                                                 : nas__conv_unroll(runs.length, products),
                                    .parts = way->depth > 0};
        nas_buf_puts(out, way->depth > 0 ? PARTS_HEAD : "");
        if (way->depth > 0 && c->act == NAS__LACT_PRELU) nas_buf_puts(out, ", const float *slope");
        nas_buf_puts(out, ") {\n");
        if (fetches(c)) emit_fetch(c, pixels, columns, wide, "    ", out);
        nas__sve_emit_tile(c, &tile, out);
        return;
    }
    if (way->depth > 0) {
        nas_buf_printf(out, PARTS_HEAD "%s) {\n",
                       c->act == NAS__LACT_PRELU ? ", const float *slope" : "");
        for (int32_t p = 0; p < pixels; p++) {
            nas_buf_puts(out, "    vf ");
            for (int32_t v = 0; v < vectors; v++)
                nas_buf_printf(out, "%sa%d_%d = load(from + %d)", v > 0 ? ", " : "", p, v,
                               v * lanes);
            nas_buf_puts(out, ";\n    from += step;\n");
        }
        nas_buf_puts(out, "    const float *s = in;\n");
        if (fetches(c)) {
            nas_buf_puts(out, "    if (!to) {\n");
            emit_fetch(c, pixels, columns, wide, "        ", out);
            nas_buf_puts(out, "    }\n");
        }
        nas__conv_emit_loop("n", round_of(&runs, pixels * vectors), offsets, pixels, vectors, lanes,
                            weights.ahead, "    ", out);
        nas_buf_puts(out, "    if (to) {\n");
        for (int32_t p = 0; p < pixels; p++) {
            nas_buf_puts(out, "       ");
            for (int32_t v = 0; v < vectors; v++)
                nas_buf_printf(out, " store(to + %d, a%d_%d);", p * wide + v * lanes, p, v);
            nas_buf_puts(out, "\n");
        }
        nas_buf_puts(out, "        return;\n    }\n");
    } else {
        nas_buf_puts(out, ") {\n");
        if (fetches(c)) emit_fetch(c, pixels, columns, wide, "    ", out);
        const bool bf16 = way->algorithm == NAS__CONV_BF16;
        for (int32_t v = 0; v < vectors && !bf16; v++) {
            nas_buf_printf(out, "    vf a0_%d = load(w + %d)", v, v * lanes);
            for (int32_t p = 1; p < pixels; p++)
                nas_buf_printf(out, ", a%d_%d = a0_%d", p, v, v);
            nas_buf_puts(out, ";\n");
        }
        if (c->act == NAS__LACT_PRELU) {
            nas_buf_printf(out, "    const float *slope = w + %d;\n", wide);
        }
        if (bf16) {
            nas__bf16_emit_sums(c, offsets, pixels, vectors, out);
        } else if (runs_of) {
            nas__run_emit_sum(way, offsets, pixels, vectors, out);
        } else if (sparse) {
            nas__sparse_emit_sum(c, offsets, pixels, vectors, lanes, out);
        } else {
            nas_buf_printf(out, "    w += %d;\n", nas__conv_heads(c) * wide);
            emit_sum(c, &runs, offsets, pixels, vectors, lanes, weights.ahead, out);
        }
    }
    emit_stores(c, pixels, columns, vectors, lanes, kind->last, out);
    nas_buf_puts(out, "}\n");
}

/* All tiles of one band and block. */
static void emit_band(const nas__conv *c, const nas__conv_way *way, const nas__conv_tiling *t,
                      const char *name, int32_t rows, int32_t lanes, const nas__conv_kind *kind,
                      const stream *weights, const char *indent, nas_buf *out) {
    const int32_t wide = kind->vectors * lanes;
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t columns = t->columns - narrow, n = narrow ? t->narrow : t->wide;
        if (n == 0) continue;
        const int32_t first = narrow ? t->wide * t->columns : 0;
        nas_buf_printf(out, "%sfor (long t = 0; t < %d; t++) {\n", indent, n);
        nas_buf_printf(out, "%s    const long x = %d + t * %d;\n%s    ", indent, first, columns,
                       indent);
        put_tile_name(name, rows, columns, wide - lanes + kind->last, out);
        nas_buf_printf(out, "(s + x * %d, o + x * %d", c->stride_w * c->in_pitch, c->out_pitch);
        if (c->has_residual) nas_buf_printf(out, ", r + x * %d", c->residual_pitch);
        nas_buf_puts(out, nas__sparse_by_blocks(way) ? ", w, list, end, v" : ", w");
        if (weights->ahead > 0) nas_buf_puts(out, ", ahead");
        if (way->algorithm == NAS__CONV_SPARSE_RUN) nas_buf_puts(out, ", q");
        if (way->depth > 0) {
            nas_buf_printf(out, ", n, first ? head : sums, first ? 0 : %d, last ? 0 : sums%s", wide,
                           c->act == NAS__LACT_PRELU ? ", slope" : "");
        }
        nas_buf_puts(out, ");\n");
        if (way->depth > 0) {
            nas_buf_printf(out, "%s    sums += %d;\n", indent, rows * columns * wide);
        }
        if (weights->ahead > 0) nas_buf_printf(out, "%s    ahead += %d;\n", indent, weights->tile);
        nas_buf_printf(out, "%s}\n", indent);
    }
}

/* The bands of a unit for one kind of blocks. */
static void emit_bands(const nas__conv *c, const nas__conv_way *way, const nas__conv_tiling *t,
                       const char *name, int32_t lanes, const nas__conv_kind *kind,
                       const stream *weights, const char *indent, nas_buf *out) {
    nas_buf_printf(out, "%sfor (long band = from; band < to; band++) {\n", indent);
    nas_buf_printf(out, "%s    const float *s = run + band * %zu;\n", indent,
                   (size_t)(t->rows * c->stride_h) * c->in_row);
    nas_buf_printf(out, "%s    float *o = out + band * %zu + at;\n", indent,
                   (size_t)t->rows * c->out_row);
    if (c->has_residual) {
        nas_buf_printf(out, "%s    const float *r = residual + band * %zu + at;\n", indent,
                       (size_t)t->rows * c->residual_row);
    }
    char deeper[48];
    (void)snprintf(deeper, sizeof deeper, "%s        ", indent);
    if (t->last_rows == t->rows) {
        emit_band(c, way, t, name, t->rows, lanes, kind, weights, deeper + 4, out);
    } else {
        if (t->bands > 1) {
            nas_buf_printf(out, "%s    if (band < %d) {\n", indent, t->bands - 1);
            emit_band(c, way, t, name, t->rows, lanes, kind, weights, deeper, out);
            nas_buf_printf(out, "%s    }\n", indent);
        }
        nas_buf_printf(out, "%s    if (band == %d) {\n", indent, t->bands - 1);
        emit_band(c, way, t, name, t->last_rows, lanes, kind, weights, deeper, out);
        nas_buf_printf(out, "%s    }\n", indent);
    }
    nas_buf_printf(out, "%s}\n", indent);
}

/* The parts of the sum one after another, each over all tiles of the unit, so that its weights stay in L1. */
static void emit_parts(const nas__conv *c, const nas__conv_way *way, const nas__conv_tiling *t,
                       const char *name, int32_t lanes, const nas__conv_kind *kind,
                       const stream *weights, nas_buf *out) {
    const nas__conv_runs r = nas__conv_run(c, way->depth);
    const int32_t wide = kind->vectors * lanes, all = c->kernel_h * r.taps * r.parts;
    nas_buf_printf(out, "            const float *head = w;\n");
    if (c->act == NAS__LACT_PRELU) {
        nas_buf_printf(out, "            const float *slope = w + %d;\n", wide);
    }
    nas_buf_printf(out, "            w += %d;\n", nas__conv_heads(c) * wide);
    nas_buf_printf(out, "            for (int part = 0; part < %d; part++) {\n", all);
    nas_buf_printf(out, "                const int first = part == 0, last = part == %d;\n",
                   all - 1);
    nas_buf_printf(out, "                const int n = part %% %d < %d ? %d : %d;\n", r.parts,
                   r.parts - 1, r.depth, r.length - (r.parts - 1) * r.depth);
    nas_buf_printf(
        out,
        "                const float *run = corner + part / %d * ROW + part / %d %% %d * "
        "%dL + part %% %d * %dL;\n",
        r.taps * r.parts, r.parts, r.taps, c->dilation_w * c->in_pitch, r.parts, r.depth);
    nas_buf_puts(out, "                float *sums = scratch;\n");
    if (weights->ahead > 0 && weights->pixels) {
        nas_buf_printf(out,
                       "                const char *ahead = (const char *)(corner + to * %zu) + "
                       "(block * %d + part) * %d;\n",
                       (size_t)t->rows * c->in_row, all, weights->unit);
    } else if (weights->ahead > 0) {
        nas_buf_printf(out, "                const char *ahead = (const char *)(w + n * %d);\n",
                       wide);
    }
    emit_bands(c, way, t, name, lanes, kind, weights, "                ", out);
    nas_buf_printf(out, "                w += n * %d;\n            }\n", wide);
}

/* The list of this block: where it begins and ends, its weights and picks; `w` becomes its bias. */
static void emit_list(const nas__sparse_layout *l, const nas__conv_way *way, int32_t lanes,
                      nas_buf *out) {
    nas_buf_printf(out,
                   "            const int *words = weights, *starts = words + %zu + 2 * block;\n"
                   "            const %s *list = (const %s *)(words + words[0]) + starts[0];\n"
                   "            const %s *end = list + (starts[2] - starts[0]);\n"
                   "            const float *v = (const float *)weights + words[1] + starts[1];\n"
                   "            w += %zu;\n",
                   l->starts, nas__sparse_index(l), nas__sparse_index(l), nas__sparse_index(l),
                   l->heads);
    if (way->algorithm == NAS__CONV_SPARSE_RUN)
        nas_buf_printf(out,
                       "            const unsigned *q = (const unsigned *)weights + words[2] + "
                       "starts[1] / %d;\n",
                       lanes);
}

void nas__conv_direct_emit(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                           const char *name, nas_buf *out) {
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const bool bf16 = way->algorithm == NAS__CONV_BF16;
    const int32_t steps =
        nas__conv_heads(c) + (bf16 ? nas__bf16_floats(c) : c->kernel_h * c->kernel_w * b.in_c);
    const nas__sparse_layout lists = nas__sparse_layout_of(target, c, way);
    const int32_t tall = nas__conv_unit_bands(target, c, way), units = (t.bands + tall - 1) / tall;
    if (way->algorithm == NAS__CONV_SPARSE_RUN) nas__run_emit_helpers(out);
    if (way->algorithm == NAS__CONV_SVE) nas__sve_emit_helpers(out);
    if (bf16) nas__bf16_emit_helpers(out);
    nas_buf_printf(out, "#define ROW %zuL\n", (size_t)c->dilation_h * c->in_row);
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from >= kind.to) continue;
        for (int32_t r = 0; r < 2; r++) {
            if (r == 0 && t.bands == 1) continue; /* the only band is the last one */
            if (r == 1 && t.bands > 1 && t.last_rows == t.rows) continue;
            const int32_t rows = r == 0 ? t.rows : t.last_rows;
            for (int32_t narrow = 0; narrow < 2; narrow++) {
                if ((narrow ? t.narrow : t.wide) == 0) continue;
                emit_tile(target, c, way, name, rows, t.columns - narrow, &kind, out);
            }
        }
    }
    nas_buf_printf(out,
                   "KERNEL void %s(const float *in, float *out, const float *residual,\n"
                   "    const void *weights, void *scratch, int begin, int end) {\n"
                   "    (void)residual; (void)scratch;\n"
                   "    for (int u = begin; u < end; u++) {\n",
                   name);
    const int32_t columns = c->groups * b.count;
    if (way->outer == 0) {
        nas_buf_printf(out, "        const int unit = u / %d, column = u %% %d;\n", columns,
                       columns);
    } else {
        nas_buf_printf(out, "        const int unit = u %% %d, column = u / %d;\n", units, units);
    }
    nas_buf_printf(out,
                   "        const long from = unit * %dL, to = from + %d < %d ? from + %d : %d;\n",
                   tall, tall, t.bands, tall, t.bands);
    nas_buf_printf(out, "        const long group = column / %d, block = column %% %d;\n", b.count,
                   b.count);
    nas_buf_printf(out, "        const float *corner = in + group * %d;\n", b.in_c);
    const size_t group_floats =
        (size_t)steps * (size_t)nas__conv_block_first(&b, b.count); /* padded */
    for (int32_t i = 0; i < NAS__CONV_KINDS; i++) {
        const nas__conv_kind kind = nas__conv_kind_of(&b, i);
        if (kind.from >= kind.to) continue;
        const int32_t wide = kind.vectors * b.lanes, first = nas__conv_block_first(&b, kind.from);
        const stream next = stream_of(target, c, way, &kind);
        nas_buf_printf(out, "        if (block >= %d && block < %d) {\n", kind.from, kind.to);
        nas_buf_printf(out, "            const long start = %d + (block - %d) * %d;\n", first,
                       kind.from, wide);
        nas_buf_printf(out, "            const long at = group * %d + start;\n", b.out_c);
        nas_buf_printf(
            out,
            "            const float *w = (const float *)weights + group * %zu + start * "
            "%d;\n",
            group_floats, nas__sparse_by_blocks(way) ? nas__conv_heads(c) : steps);
        if (way->depth > 0) {
            emit_parts(c, way, &t, name, b.lanes, &kind, &next, out);
        } else {
            nas_buf_puts(out, "            const float *run = corner;\n");
            if (nas__sparse_by_blocks(way)) emit_list(&lists, way, b.lanes, out);
            if (next.ahead > 0 && next.pixels)
                nas_buf_printf(
                    out,
                    "            const char *ahead = (const char *)(corner + to * %zu) + "
                    "block * %d;\n",
                    (size_t)t.rows * c->in_row, next.unit);
            else if (next.ahead > 0)
                nas_buf_printf(
                    out, "            const char *ahead = (const char *)(w + %d) + unit * %d;\n",
                    steps * wide, next.unit);
            emit_bands(c, way, &t, name, b.lanes, &kind, &next, "            ", out);
        }
        nas_buf_puts(out, "        }\n");
    }
    nas_buf_puts(out, "    }\n}\n#undef ROW\n\n");
}
