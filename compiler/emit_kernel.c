/* emit_kernel.c - row functions: one output row of a SUM stage, for each distinct shape and register tile. Lengths of rows
 * are arguments, so that networks for other images and other strips share the objects.
 *
 * A row function walks column tiles, in them output blocks, in them kernel rows, input channels, kernel columns. The
 * accumulators are named variables, fully unrolled: arrays of accumulators spill. Weights are read strictly in order,
 * see emit_weights.c. A pair first fills a scratch with its hidden channels of the column tile, then reads that. */
#include "compiler/compiler_internal.h"

#include <stdio.h>
#include <string.h>

/* How the stage under the pen names its sources. */
typedef struct pen {
    const nas__program *p;
    nas_buf *out;
    const char *real;   /* type of an element */
    const char *prefix; /* "h" for a hidden stage, "" else */
    const char *target; /* pointer expression of the first output of the column tile */
    const char *pitch;  /* floats from output channel to output channel */
    const char *indent;
    bool from_scratch; /* the one source is the scratch */
    int32_t block;     /* products between widenings of the sums; 0: they are never widened */
    int32_t
        first; /* output channel of the tile, as far as it matters: the phase of a transposed convolution */
} pen;

static const char *act_name(nas__act act) {
    switch (act) {
    case NAS__ACT_NONE: return "";
    case NAS__ACT_RELU: return "_relu";
    case NAS__ACT_PRELU: return "_prelu";
    }
    return "";
}

static void shape_name(const nas__stage *s, nas_buf *out) {
    for (int32_t i = 0; i < s->n_terms; i++) {
        const nas__term *t = &s->terms[i];
        if (t->up > 1) {
            nas_buf_printf(out, "up%d_%dx%dp%d_%di%d_", t->up, t->up_h, t->up_w, t->up_top,
                           t->up_left, t->channels);
        } else {
            nas_buf_printf(out, "c%dx%di%d_", t->kernel_h, t->kernel_w, t->channels);
        }
    }
    if (s->n_adds > 0) nas_buf_printf(out, "add%d_", s->n_adds);
    nas_buf_printf(out, "o%d%s", s->channels, act_name(s->act));
}

static void tile_name(const nas__stage *s, nas_buf *out) {
    nas_buf_printf(out, "_%dx%d", s->tile.outputs, s->tile.vectors);
}

void nas__stage_shape(const nas__program *p, const nas__stage *s, nas_buf *out) {
    if (s->pair >= 0) {
        shape_name(&p->stages[s->pair], out);
        nas_buf_puts(out, "__");
    }
    shape_name(s, out);
}

void nas__kernel_name(const nas__program *p, const nas__stage *s, nas_buf *out) {
    nas_buf_puts(out, "row_");
    if (s->tile.rows > 0) nas_buf_printf(out, "winograd%d_span%d_", s->tile.rows, s->tile.span);
    if (s->pair >= 0) {
        shape_name(&p->stages[s->pair], out);
        tile_name(&p->stages[s->pair], out);
        nas_buf_puts(out, "__");
    }
    shape_name(s, out);
    tile_name(s, out);
}

/* ---- long sums of halves, see emit_half.c ----------------------------------------------------------------------------- */

/* sum_begin, sum_block or sum_end of every accumulator. */
static void emit_totals(const pen *k, const char *step, int32_t n, int32_t vectors) {
    const bool end = strcmp(step, "end") == 0;
    for (int32_t i = 0; i < n && k->block > 0; i++) {
        nas_buf_puts(k->out, k->indent);
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(k->out, "%sa%d_%d = sum_%s(total + %d", v > 0 ? " " : "", i, v, step,
                           (i * vectors + v) * k->p->plan.lanes);
            if (end)
                nas_buf_puts(k->out, ");");
            else
                nas_buf_printf(k->out, ", a%d_%d);", i, v);
        }
        nas_buf_puts(k->out, "\n");
    }
}

/* Input channels in a block: at most `all`, a multiple of those in a round of the loop. */
static int32_t block_channels(const pen *k, int32_t taps, int32_t round, int32_t all) {
    if (k->block == 0 || k->block / taps >= all) return all;
    const int32_t rounds = k->block / taps / round;
    return (rounds > 1 ? rounds : 1) * round;
}

/* The loop over input channels, in blocks where sums get long. */
static void emit_channels(const pen *k, int32_t all, int32_t block, const char *step) {
    if (block == all) {
        nas_buf_printf(k->out, "%s    for (int c = 0; c < %d; %s) {\n", k->indent, all, step);
        return;
    }
    nas_buf_printf(k->out,
                   "%s    for (int c = 0; c < %d;) {\n"
                   "%s    const int end = c + %d < %d ? c + %d : %d;\n"
                   "%s    for (; c < end; %s) {\n",
                   k->indent, all, k->indent, block, all, block, all, k->indent, step);
}

/* Ends it: a block is at most what all channels of a row of the window make. */
static void emit_channels_end(const pen *k, int32_t all, int32_t block, int32_t n,
                              int32_t vectors) {
    nas_buf_printf(k->out, "%s    }\n", k->indent);
    emit_totals(k, "block", n, vectors);
    if (block != all) nas_buf_printf(k->out, "%s    }\n", k->indent);
}

/* ---- one tile: N outputs x P vectors ---------------------------------------------------------------------------- */

static void emit_start(const pen *k, const nas__stage *s, int32_t n, int32_t vectors) {
    for (int32_t i = 0; i < n; i++) {
        nas_buf_printf(k->out, "%svf ", k->indent);
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(k->out, "%sa%d_%d = splat(k[%d])", v > 0 ? ", " : "", i, v, i);
            for (int32_t a = 0; a < s->n_adds; a++) {
                nas_buf_printf(k->out, " + load(%sd%d + %d * pitch + %d)", k->prefix, a, i,
                               v * k->p->plan.lanes);
            }
        }
        nas_buf_puts(k->out, ";");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(k->out, " OWN(a%d_%d);", i, v);
        nas_buf_puts(k->out, "\n");
    }
}

/* The products of one tap: source at `s + at`, weights at w[weight ...] for the outputs with tap[i] >= 0, packed twice or once. */
static void emit_tap(const pen *k, int32_t n, const int32_t *tap, int32_t vectors, const char *at,
                     int32_t column, int32_t weight, bool twice) {
    nas_buf_printf(k->out, "%s        {\n%s            const vf ", k->indent, k->indent);
    for (int32_t v = 0; v < vectors; v++) {
        nas_buf_printf(k->out, "%sx%d = load(s%s + %d)", v > 0 ? ", " : "", v, at,
                       column + v * k->p->plan.lanes);
    }
    nas_buf_printf(k->out, ";\n%s            %sb;\n", k->indent,
                   twice ? "vf " : nas__weight_operand(k->p));
    for (int32_t i = 0; i < n; i++) {
        if (tap[i] < 0) continue;
        nas_buf_printf(k->out, "%s            SPLAT%s(b, w + %d);", k->indent,
                       twice ? "_TWICE" : "", weight);
        weight += twice ? 2 : 1;
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(k->out, " MADD%s(a%d_%d, x%d, b);", twice ? "_TWICE" : "", i, v, v);
        nas_buf_puts(k->out, "\n");
    }
    nas_buf_printf(k->out, "%s        }\n", k->indent);
}

/* Channels handled in one round of the loop over input channels: short taps are unrolled. */
static int32_t unroll(const nas__term *t) {
    if (t->kernel_w > 1) return 1;
    return t->channels % 4 == 0 ? 4 : t->channels % 2 == 0 ? 2 : 1;
}

static void emit_term(const pen *k, const nas__stage *s, int32_t index, int32_t n,
                      int32_t vectors) {
    const nas__term *t = &s->terms[index];
    const int32_t per_channel = t->kernel_w * n, round = unroll(t);
    char pitch[16] = "pitch";
    if (k->from_scratch) (void)snprintf(pitch, sizeof pitch, "%d", vectors * k->p->plan.lanes);
    nas_buf_printf(k->out, "%s/* %dx%d of %d channels */\n", k->indent, t->kernel_h, t->kernel_w,
                   t->channels);
    if (t->kernel_h > 1) {
        nas_buf_printf(k->out, "%sfor (int y = %slow%d; y < %shigh%d; y++) {\n", k->indent,
                       k->prefix, index, k->prefix, index);
        nas_buf_printf(k->out, "%s    const %s *s = %sr%d[y] + x, *w = k + y * %d;\n", k->indent,
                       k->real, k->prefix, index, t->channels * per_channel);
    } else if (k->from_scratch) {
        nas_buf_printf(k->out, "%s{\n%s    const %s *s = scratch, *w = k;\n", k->indent, k->indent,
                       k->real);
    } else {
        nas_buf_printf(k->out, "%s{\n%s    const %s *s = %sr%d + x, *w = k;\n", k->indent,
                       k->indent, k->real, k->prefix, index);
    }
    char step[96];
    (void)snprintf(step, sizeof step, "c += %d, s += %d * %s, w += %d", round, round, pitch,
                   round * per_channel);
    const int32_t block = block_channels(k, t->kernel_w, round, t->channels);
    emit_channels(k, t->channels, block, step);
    for (int32_t u = 0; u < round; u++) {
        char at[64] = "";
        if (u > 0) (void)snprintf(at, sizeof at, " + %d * %s", u, pitch);
        for (int32_t kx = 0; kx < t->kernel_w; kx++) {
            int32_t tap[NAS__OUTPUTS_MAX];
            (void)nas__term_taps(t, 0, n, 0, kx, tap);
            emit_tap(k, n, tap, vectors, at, kx, u * per_channel + kx * n, false);
        }
    }
    emit_channels_end(k, t->channels, block, n, vectors);
    nas_buf_printf(k->out, "%s}\n%sk += %d;\n", k->indent, k->indent,
                   t->kernel_h * t->channels * per_channel);
}

/* A transposed convolution: rows of the window differ in the phases they reach, so each has its own loop. */
static void emit_phases(const pen *k, const nas__stage *s, int32_t index, int32_t n,
                        int32_t vectors) {
    const nas__term *t = &s->terms[index];
    const int32_t copies = t->twice ? 2 : 1;
    int32_t tap[NAS__OUTPUTS_MAX], at = 0;
    nas_buf_printf(k->out, "%s/* %dx%d up %d of %d channels, phases %d to %d */\n", k->indent,
                   t->up_h, t->up_w, t->up, t->channels, k->first, k->first + n - 1);
    for (int32_t ky = 0; ky < t->kernel_h; ky++) {
        int32_t per_channel = 0;
        for (int32_t kx = 0; kx < t->kernel_w; kx++)
            per_channel += copies * nas__term_taps(t, k->first, n, ky, kx, tap);
        if (per_channel == 0) continue;
        if (t->kernel_h > 1) {
            nas_buf_printf(k->out, "%sif (low%d <= %d && %d < high%d) {\n", k->indent, index, ky,
                           ky, index);
            nas_buf_printf(k->out, "%s    const %s *s = r%d[%d] + x, *w = k + %d;\n", k->indent,
                           k->real, index, ky, at);
        } else {
            nas_buf_printf(k->out, "%s{\n%s    const %s *s = r%d + x, *w = k + %d;\n", k->indent,
                           k->indent, k->real, index, at);
        }
        char step[96];
        (void)snprintf(step, sizeof step, "c++, s += pitch, w += %d", per_channel);
        const int32_t block = block_channels(k, (t->up_w + t->up - 1) / t->up, 1, t->channels);
        emit_channels(k, t->channels, block, step);
        for (int32_t kx = 0, weight = 0; kx < t->kernel_w; kx++) {
            const int32_t outputs = nas__term_taps(t, k->first, n, ky, kx, tap);
            if (outputs > 0) emit_tap(k, n, tap, vectors, "", kx, weight, t->twice);
            weight += copies * outputs;
        }
        emit_channels_end(k, t->channels, block, n, vectors);
        nas_buf_printf(k->out, "%s}\n", k->indent);
        at += t->channels * per_channel;
    }
    nas_buf_printf(k->out, "%sk += %d;\n", k->indent, at);
}

static void emit_finish(const pen *k, const nas__stage *s, int32_t n, int32_t vectors) {
    for (int32_t i = 0; i < n; i++) {
        nas_buf_puts(k->out, k->indent);
        for (int32_t v = 0; v < vectors; v++) {
            nas_buf_printf(k->out, "%sstore(o + %d * %s + %d, ", v > 0 ? " " : "", i, k->pitch,
                           v * k->p->plan.lanes);
            switch (s->act) {
            case NAS__ACT_NONE: nas_buf_printf(k->out, "a%d_%d);", i, v); break;
            case NAS__ACT_RELU: nas_buf_printf(k->out, "relu(a%d_%d));", i, v); break;
            case NAS__ACT_PRELU:
                nas_buf_printf(k->out, "prelu(a%d_%d, splat(slope[%d])));", i, v, i);
                break;
            }
        }
        nas_buf_puts(k->out, "\n");
    }
}

static void emit_tile(const pen *k, const nas__stage *s, int32_t n, int32_t vectors) {
    emit_start(k, s, n, vectors);
    if (k->block > 0)
        nas_buf_printf(k->out, "%sfloat total[%d];\n", k->indent, n * vectors * k->p->plan.lanes);
    emit_totals(k, "begin", n, vectors);
    if (s->act == NAS__ACT_PRELU)
        nas_buf_printf(k->out, "%sconst %s *slope = k + %d;\n", k->indent, k->real, n);
    nas_buf_printf(k->out, "%sk += %d;\n", k->indent, s->act == NAS__ACT_PRELU ? 2 * n : n);
    for (int32_t i = 0; i < s->n_terms; i++) {
        if (s->terms[i].up > 1) {
            emit_phases(k, s, i, n, vectors);
        } else {
            emit_term(k, s, i, n, vectors);
        }
    }
    emit_totals(k, "end", n, vectors);
    emit_finish(k, s, n, vectors);
}

/* ---- all output blocks of a column tile -------------------------------------------------------------------------- */

static void emit_blocks(pen *k, const nas__stage *s) {
    const int32_t n = s->tile.outputs, vectors = s->tile.vectors;
    /* Tiles of a transposed convolution are whole rows of phases; they repeat with every real channel. */
    const int32_t up = s->n_terms > 0 ? s->terms[0].up : 1, period = up > 1 ? up * up / n : 1;
    const int32_t blocks = s->channels / (n * period), rest = s->channels % (n * period);
    nas_buf_printf(k->out, "        { /* %d channels, tile %d x %d */\n", s->channels, n, vectors);
    nas_buf_printf(k->out, "            %s *o = %s;\n", k->real, k->target);
    for (int32_t a = 0; a < s->n_adds; a++) {
        nas_buf_printf(k->out, "            const %s *%sd%d = %sadd%d + x;\n", k->real, k->prefix,
                       a, k->prefix, a);
    }
    nas_buf_printf(k->out, "            for (int i = 0; i < %d; i++) {\n", blocks);
    k->indent = "                ";
    k->block = nas__half_block(k->p, s);
    for (int32_t i = 0; i < period; i++) {
        if (period > 1) nas_buf_puts(k->out, "                {\n");
        k->first = i * n;
        emit_tile(k, s, n, vectors);
        nas_buf_printf(k->out, "                o += %d * %s;\n", n, k->pitch);
        for (int32_t a = 0; a < s->n_adds; a++)
            nas_buf_printf(k->out, "                %sd%d += %d * pitch;\n", k->prefix, a, n);
        if (period > 1) nas_buf_puts(k->out, "                }\n");
    }
    nas_buf_puts(k->out, "            }\n");
    if (rest > 0) {
        nas_buf_puts(k->out, "            {\n");
        emit_tile(k, s, rest, vectors);
        nas_buf_puts(k->out, "            }\n");
    }
    nas_buf_puts(k->out, "        }\n");
}

static void emit_parameters(const nas__stage *s, const char *real, const char *prefix,
                            bool skip_terms, nas_buf *out) {
    for (int32_t i = 0; i < s->n_terms && !skip_terms; i++) {
        if (s->terms[i].kernel_h > 1) {
            nas_buf_printf(out, ", const %s *const *%sr%d, int %slow%d, int %shigh%d", real, prefix,
                           i, prefix, i, prefix, i);
        } else {
            nas_buf_printf(out, ", const %s *%sr%d", real, prefix, i);
        }
    }
    for (int32_t a = 0; a < s->n_adds; a++)
        nas_buf_printf(out, ", const %s *%sadd%d", real, prefix, a);
}

static void emit_function(const nas__program *p, const nas__stage *s, const char *name,
                          nas_buf *out) {
    const nas__stage *pair = s->pair >= 0 ? &p->stages[s->pair] : NULL;
    const int32_t wide = s->tile.vectors * p->plan.lanes;
    const char *real = nas__real(p);
    nas_buf_printf(out, "KERNEL void %s(%s *restrict out, size_t out_pitch", name, real);
    if (pair != NULL) emit_parameters(pair, real, "h", false, out);
    emit_parameters(s, real, "", pair != NULL, out);
    nas_buf_printf(out, ",\n    size_t pitch, int columns, const %s *weights", real);
    if (pair != NULL) nas_buf_printf(out, ", %s *restrict scratch", real);
    nas_buf_puts(out, ") {\n");
    nas_buf_printf(out, "    for (int t = 0; t < columns; t += %d) {\n", wide);
    nas_buf_printf(out,
                   "        const int x = t + %d <= columns ? t : columns - %d; /* the last tile "
                   "may overlap its neighbour */\n",
                   wide, wide);
    nas_buf_printf(out, "        const %s *k = weights;\n", real);
    if (pair != NULL) {
        char pitch[16];
        (void)snprintf(pitch, sizeof pitch, "%d", wide);
        pen k = {
            .p = p, .out = out, .real = real, .prefix = "h", .target = "scratch", .pitch = pitch};
        emit_blocks(&k, pair);
        nas_buf_printf(out, "        k = weights + %zu;\n", s->weights_at - pair->weights_at);
    }
    pen k = {.p = p,
             .out = out,
             .real = real,
             .prefix = "",
             .target = "out + x",
             .pitch = "out_pitch",
             .from_scratch = pair != NULL};
    emit_blocks(&k, s);
    nas_buf_puts(out, "    }\n}\n\n");
}

void nas__emit_row_function(const nas__program *p, const nas__stage *s, const char *name,
                            nas_buf *out) {
    if (s->tile.rows > 0) {
        nas__emit_winograd(p, s, name, out);
    } else {
        emit_function(p, s, name, out);
    }
}

void nas__emit_kernel(const nas__program *p, const nas__stage *s, nas__sources *out) {
    nas_buf name = {0};
    nas__kernel_name(p, s, &name);
    if (name.failed) {
        out->failed = true;
    } else {
        nas__unit *unit = nas__sources_unit(out, name.data);
        if (unit != NULL) nas__emit_row_function(p, s, name.data, &unit->text);
    }
    nas_buf_deinit(&name);
}
