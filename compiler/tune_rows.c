/* tune_rows.c - the ways of a stage of the row form, as a tuning program runs them: over a few rows of random data, all sources
 * and additions read from the same rows, as long and as far apart as in the network. A unit is a row, or a group of a Winograd
 * kernel. */
#include "compiler/tune_internal.h"

#include <string.h>

static const nas__stage *stage_of(const nas__tune_subject *s) {
    return &s->rows->stages[s->stage];
}

static const nas__stage *pair_of(const nas__tune_subject *s) {
    return stage_of(s)->pair >= 0 ? &s->rows->stages[stage_of(s)->pair] : NULL;
}

static size_t pitch_of(const nas__tune_subject *s) {
    return nas__pitch(s->rows, stage_of(s)->rate);
}

/* A group of the largest Winograd kernel for each thread: as many rows as a step of the network makes at most, so that the
 * rows are as near as in its rings. */
static int32_t rows_made(const nas__tune_subject *s) {
    return NAS__WINOGRAD_ROWS_MAX * s->rows->options->tune_threads;
}

/* Rows of the widest window beyond those that are made. */
static int32_t rows_around(const nas__tune_subject *s) {
    const nas__stage *pair = pair_of(s);
    int32_t most = 0;
    for (int32_t i = 0; i < stage_of(s)->n_terms; i++)
        most = stage_of(s)->terms[i].kernel_h > most ? stage_of(s)->terms[i].kernel_h : most;
    for (int32_t i = 0; pair != NULL && i < pair->n_terms; i++)
        most = pair->terms[i].kernel_h > most ? pair->terms[i].kernel_h : most;
    return most > 0 ? most - 1 : 0;
}

static int32_t most_channels(const nas__program *p, const nas__stage *s) {
    int32_t most = s->channels;
    for (int32_t i = 0; i < s->n_terms; i++)
        most = s->terms[i].channels > most ? s->terms[i].channels : most;
    if (s->pair >= 0) {
        const int32_t hidden = most_channels(p, &p->stages[s->pair]);
        most = hidden > most ? hidden : most;
    }
    return most;
}

static size_t row_floats_in(const nas__tune_subject *s) {
    return (size_t)most_channels(s->rows, stage_of(s)) * pitch_of(s);
}

size_t nas__tune_rows_in(const nas__tune_subject *s) {
    return (size_t)(rows_made(s) + rows_around(s)) * row_floats_in(s) +
           2 * (size_t)s->rows->plan.pad;
}

size_t nas__tune_rows_out(const nas__tune_subject *s) {
    return (size_t)rows_made(s) * (size_t)stage_of(s)->channels * pitch_of(s);
}

int32_t nas__tune_rows_units(const nas__tune_subject *s, int32_t way) {
    const int32_t rows = s->row_ways[way].tile.rows;
    return rows_made(s) / (rows > 0 ? rows : 1);
}

size_t nas__tune_rows_scratch(const nas__tune_subject *s, int32_t way) {
    const nas__tile *tile = &s->row_ways[way].tile;
    const int32_t lanes = s->rows->plan.lanes;
    nas__stage as = *stage_of(s);
    as.tile = *tile;
    if (tile->rows > 0) return nas__winograd_scratch(&as, lanes) * sizeof(float);
    if (as.pair < 0) return sizeof(float);
    return (size_t)pair_of(s)->channels * (size_t)tile->vectors * (size_t)lanes * sizeof(float);
}

/* ---- weights: the pair's, then the stage's, as far apart as in the network ------------------------------------------ */

static size_t stage_weights_at(const nas__tune_subject *s) {
    return pair_of(s) != NULL ? stage_of(s)->weights_at - pair_of(s)->weights_at : 0;
}

size_t nas__tune_rows_weight_floats(const nas__tune_subject *s, int32_t way) {
    nas__stage as = *stage_of(s);
    as.tile = s->row_ways[way].tile;
    return stage_weights_at(s) + nas__weight_floats(&as);
}

void nas__tune_rows_pack(const nas__tune_subject *s, int32_t way, float *out) {
    nas__stage as = *stage_of(s);
    as.tile = s->row_ways[way].tile;
    if (pair_of(s) != NULL) {
        nas__stage hidden = *pair_of(s);
        hidden.tile = s->row_ways[way].pair_tile;
        nas__pack_stage(&hidden, out);
    }
    nas__pack_stage(&as, out + stage_weights_at(s));
}

/* ---- text ----------------------------------------------------------------------------------------------------------- */

const char *nas__tune_rows_way_name(const nas__tune_subject *s, int32_t way) {
    switch (s->row_ways[way].tile.rows) {
    case 2: return "row winograd2";
    case 4: return "row winograd4";
    default: return "row direct";
    }
}

void nas__tune_rows_kernel_text(const nas__tune_subject *s, nas_buf *out) {
    nas_buf_puts(out, "row f32 ");
    nas__stage_shape(s->rows, stage_of(s), out);
    nas_buf_printf(out, " columns %d pitch %zu",
                   nas__row_vectors(s->rows, stage_of(s)->rate) * s->rows->plan.lanes, pitch_of(s));
}

void nas__tune_rows_way_text(const nas__tune_subject *s, int32_t way, nas_buf *out) {
    const nas__row_way *w = &s->row_ways[way];
    nas_buf_printf(out, "%s %dx%d", nas__tune_rows_way_name(s, way), w->tile.outputs,
                   w->tile.vectors);
    if (w->tile.rows > 0) nas_buf_printf(out, " span %d", w->tile.span);
    if (stage_of(s)->pair >= 0)
        nas_buf_printf(out, " pair %dx%d", w->pair_tile.outputs, w->pair_tile.vectors);
}

void nas__tune_rows_prelude(const nas__tune_subject *s, nas_buf *out) {
    nas_buf_puts(out,
                 "#define KERNEL static __attribute__((noinline)) /* as in the network: lengths "
                 "are arguments */\n#define HELPER static inline __attribute__((unused))\n");
    nas__emit_vectors(s->rows, out);
}

/* Declares the windows of a stage's terms: `rows` of them from row y on. */
static void emit_windows(const nas__tune_subject *s, const nas__stage *stage, const char *prefix,
                         bool from_scratch, nas_buf *out) {
    for (int32_t i = 0; i < stage->n_terms && !from_scratch; i++) {
        const nas__term *t = &stage->terms[i];
        if (t->kernel_h == 1) continue;
        nas_buf_printf(
            out,
            "        const float *%sr%d[%d];\n"
            "        for (int k = 0; k < %d; k++) %sr%d[k] = from_rows + (size_t)(y + k) "
            "* %zu - %d;\n",
            prefix, i, t->kernel_h, t->kernel_h, prefix, i, row_floats_in(s), t->kernel_w / 2);
    }
}

static void emit_arguments(const nas__tune_subject *s, const nas__stage *stage, const char *prefix,
                           bool from_scratch, nas_buf *out) {
    for (int32_t i = 0; i < stage->n_terms && !from_scratch; i++) {
        const nas__term *t = &stage->terms[i];
        if (t->kernel_h > 1) {
            nas_buf_printf(out, ", %sr%d, 0, %d", prefix, i, t->kernel_h);
        } else {
            nas_buf_printf(out, ", from_rows + (size_t)y * %zu - %d", row_floats_in(s),
                           t->kernel_w / 2);
        }
    }
    for (int32_t a = 0; a < stage->n_adds; a++)
        nas_buf_printf(out, ", from_rows + (size_t)y * %zu", row_floats_in(s));
}

static void emit_direct_call(const nas__tune_subject *s, const char *name, nas_buf *out) {
    const nas__stage *stage = stage_of(s), *pair = pair_of(s);
    if (pair != NULL) emit_windows(s, pair, "h", false, out);
    emit_windows(s, stage, "", pair != NULL, out);
    nas_buf_printf(out, "        %s(to_rows + (size_t)y * %zu, %zu", name,
                   (size_t)stage->channels * pitch_of(s), pitch_of(s));
    if (pair != NULL) emit_arguments(s, pair, "h", false, out);
    emit_arguments(s, stage, "", pair != NULL, out);
}

static void emit_group_call(const nas__tune_subject *s, const char *name, int32_t rows,
                            nas_buf *out) {
    const nas__stage *stage = stage_of(s);
    const int32_t points = rows + stage->terms[0].kernel_h - 1;
    nas_buf_printf(
        out,
        "        const float *r0[%d];\n        float *row[%d];\n"
        "        for (int k = 0; k < %d; k++) r0[k] = from_rows + (size_t)(y + k) * %zu - "
        "%d;\n"
        "        for (int k = 0; k < %d; k++) row[k] = to_rows + (size_t)(y + k) * "
        "%zu;\n",
        points, rows, points, row_floats_in(s), stage->terms[0].kernel_w / 2, rows,
        (size_t)stage->channels * pitch_of(s));
    if (stage->n_adds > 0)
        nas_buf_printf(
            out,
            "        const float *add[%d];\n"
            "        for (int k = 0; k < %d; k++) add[k] = from_rows + (size_t)(y + k) * "
            "%zu;\n",
            rows, rows, row_floats_in(s));
    nas_buf_printf(out, "        %s(row, %zu, r0", name, pitch_of(s));
    for (int32_t a = 0; a < stage->n_adds; a++)
        nas_buf_puts(out, ", add");
}

/* Sets the tiles of a way in the program; returns those it had. */
static nas__row_way set_way(const nas__tune_subject *s, const nas__row_way *way) {
    nas__stage *stage = &s->rows->stages[s->stage];
    nas__row_way had = {.tile = stage->tile};
    stage->tile = way->tile;
    if (stage->pair < 0) return had;
    had.pair_tile = s->rows->stages[stage->pair].tile;
    s->rows->stages[stage->pair].tile = way->pair_tile;
    return had;
}

static void emit_set_way(const nas__tune_subject *s, nas_buf *out) {
    const nas__stage *stage = stage_of(s);
    const int32_t rows = stage->tile.rows;
    nas_buf name = {0};
    nas__kernel_name(s->rows, stage, &name);
    if (name.failed) {
        out->failed = true;
        nas_buf_deinit(&name);
        return;
    }
    nas__emit_row_function(s->rows, stage, name.data, out);
    nas_buf_printf(out,
                   "static void %s_rows(const float *in, float *to_rows, const float *residual, "
                   "const void *weights, void *scratch, int from, int to) {\n"
                   "    const float *const from_rows = in + %d;\n"
                   "    (void)residual;\n    (void)scratch;\n"
                   "    for (int u = from; u < to; u++) {\n        const int y = u * %d;\n",
                   name.data, s->rows->plan.pad, rows > 0 ? rows : 1);
    if (rows > 0) {
        emit_group_call(s, name.data, rows, out);
    } else {
        emit_direct_call(s, name.data, out);
    }
    nas_buf_printf(out, ", %zu, %d, weights%s);\n    }\n}\n\n", pitch_of(s),
                   nas__row_vectors(s->rows, stage->rate) * s->rows->plan.lanes,
                   rows > 0 || stage->pair >= 0 ? ", scratch" : "");
    nas_buf_deinit(&name);
}

void nas__tune_rows_emit_way(const nas__tune_subject *s, int32_t way, nas_buf *out) {
    const nas__row_way had = set_way(s, &s->row_ways[way]);
    emit_set_way(s, out);
    (void)set_way(s, &had);
}

void nas__tune_rows_function_name(const nas__tune_subject *s, int32_t way, nas_buf *out) {
    const nas__row_way had = set_way(s, &s->row_ways[way]);
    nas__kernel_name(s->rows, stage_of(s), out);
    nas_buf_puts(out, "_rows");
    (void)set_way(s, &had);
}
