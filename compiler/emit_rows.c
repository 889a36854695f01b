/* emit_rows.c - shuffles, and run_rows: the loop over strips and steps that calls the row function of every stage.
 * Everything that depends on a single network and not on the shape of one stage is here: offsets, lags, ring sizes. */
#include "compiler/compiler_internal.h"

#include <stdio.h>

/* ---- depth to space --------------------------------------------------------------------------------------------- */

/* Output vector q of `block` interleaved input vectors: lane e is pixel (q*L + e) / block of phase (q*L + e) % block. */
static void emit_interleave(int32_t lanes, int32_t block, int32_t q, nas_buf *out) {
    if (block == 1) {
        nas_buf_puts(out, "x0");
        return;
    }
    for (int32_t step = 1; step < block; step++)
        nas_buf_puts(out, "SHUFFLE(");
    nas_buf_puts(out, "x0");
    for (int32_t step = 1; step < block; step++) {
        nas_buf_printf(out, ", x%d", step);
        for (int32_t e = 0; e < lanes; e++) {
            const int32_t pixel = q * lanes + e, phase = pixel % block, lane = pixel / block;
            int32_t from = e; /* set by an earlier step, or by a later one */
            if (phase == step) from = lanes + lane;
            if (step == 1 && phase == 0) from = lane;
            nas_buf_printf(out, ", %d", from);
        }
        nas_buf_puts(out, ")");
    }
}

static void emit_shuffle(int32_t block, int32_t lanes, const char *real, nas_buf *out) {
    nas_buf_printf(
        out, "/* One phase row: %d channel rows interleaved to one row %d times as long. */\n",
        block, block);
    nas_buf_printf(out,
                   "KERNEL void shuffle%d(%s *restrict line, const %s *s, size_t pitch, int "
                   "columns) {\n",
                   block, real, real);
    nas_buf_printf(out,
                   "    for (int x = 0; x < columns; x += LANES, s += LANES, line += %d * LANES) "
                   "{\n        const vf ",
                   block);
    for (int32_t j = 0; j < block; j++) {
        nas_buf_printf(out, "%sx%d = load(s + %d * pitch)", j > 0 ? ", " : "", j, j);
    }
    nas_buf_puts(out, ";\n");
    for (int32_t q = 0; q < block; q++) {
        nas_buf_printf(out, "        store(line + %d, ", q * lanes);
        emit_interleave(lanes, block, q, out);
        nas_buf_puts(out, ");\n");
    }
    nas_buf_puts(out, "    }\n}\n\n");
}

void nas__emit_shuffles(const nas__program *p, nas__sources *out) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *s = &p->stages[v];
        if (s->dead || s->kind != NAS__SHUFFLE) continue;
        char name[32];
        (void)snprintf(name, sizeof name, "shuffle%d", s->block);
        nas__unit *unit = nas__sources_unit(out, name);
        if (unit != NULL) emit_shuffle(s->block, p->plan.lanes, nas__real(p), &unit->text);
    }
}

/* ---- pointers into rings ---------------------------------------------------------------------------------------- */

static size_t row_floats(const nas__program *p, const nas__stage *s) {
    return (size_t)s->channels * nas__pitch(p, s->rate);
}

/* The ring of `u` as seen by `reader`, `half` columns to the left of the reader's column. */
static size_t ring_start(const nas__program *p, const nas__stage *u, const nas__stage *reader,
                         int32_t half) {
    return u->ring_at + (size_t)(p->plan.pad + u->delay - reader->delay - half);
}

static void emit_row_of(const nas__program *p, const nas__stage *u, const nas__stage *reader,
                        nas_buf *out) {
    nas_buf_printf(out, "ring_row(mem + %zu, %d, %zu, y)", ring_start(p, u, reader, 0),
                   u->ring_rows, row_floats(p, u));
}

/* Declares the windows of the terms of `s` with the names its row function expects. */
static void emit_windows(const nas__program *p, const nas__stage *s, const nas__stage *reader,
                         const char *prefix, nas_buf *out) {
    for (int32_t i = 0; i < s->n_terms; i++) {
        const nas__term *t = &s->terms[i];
        if (t->kernel_h == 1 || reader->pair == t->source) continue;
        const nas__stage *u = &p->stages[t->source];
        nas_buf_printf(out, "                const %s *%sr%d[%d];\n", nas__real(p), prefix, i,
                       t->kernel_h);
        nas_buf_printf(out, "                int %slow%d, %shigh%d;\n", prefix, i, prefix, i);
        nas_buf_printf(
            out,
            "                window(%sr%d, mem + %zu, %d, %zu, y, %d, %d, &%slow%d, &%shigh%d);\n",
            prefix, i, ring_start(p, u, reader, t->kernel_w / 2), u->ring_rows, row_floats(p, u),
            t->kernel_h / 2, p->height * s->rate, prefix, i, prefix, i);
    }
}

static void emit_arguments(const nas__program *p, const nas__stage *s, const nas__stage *reader,
                           const char *prefix, nas_buf *out) {
    for (int32_t i = 0; i < s->n_terms; i++) {
        const nas__term *t = &s->terms[i];
        if (reader->pair == t->source) continue;
        const nas__stage *u = &p->stages[t->source];
        nas_buf_puts(out, ",\n                    ");
        if (t->kernel_h > 1) {
            nas_buf_printf(out, "%sr%d, %slow%d, %shigh%d", prefix, i, prefix, i, prefix, i);
        } else {
            nas_buf_printf(out, "ring_row(mem + %zu, %d, %zu, y)",
                           ring_start(p, u, reader, t->kernel_w / 2), u->ring_rows,
                           row_floats(p, u));
        }
    }
    for (int32_t i = 0; i < s->n_adds; i++) {
        nas_buf_puts(out, ",\n                    ");
        emit_row_of(p, &p->stages[s->adds[i]], reader, out);
    }
}

/* ---- the three kinds of stages ----------------------------------------------------------------------------------- */

static int32_t columns_of(const nas__program *p, const nas__stage *s) {
    return nas__row_vectors(p, s->rate) * p->plan.lanes;
}

/* Image column of local column 0, as an expression. */
static void emit_x(const nas__program *p, const nas__stage *s, nas_buf *out) {
    if (p->plan.strips == 1) {
        nas_buf_puts(out, "0");
    } else {
        nas_buf_printf(out, "x0 * %d - %d", s->rate, s->delay);
    }
}

static void emit_input(const nas__program *p, const nas__stage *s, nas_buf *out) {
    const size_t plane = (size_t)p->height * (size_t)p->width;
    nas_buf_puts(out, "                copy_in(");
    emit_row_of(p, s, s, out);
    nas_buf_printf(out, ", in + (size_t)y * %d, %d, PITCH1, %zu, %d, %d, ", p->width, s->channels,
                   plane, columns_of(p, s), s->left);
    emit_x(p, s, out);
    nas_buf_printf(out, ", %d, %af);\n", p->width, (double)s->shift);
}

static void emit_sum(const nas__program *p, const nas__stage *s, nas_buf *out) {
    const nas__stage *pair = s->pair >= 0 ? &p->stages[s->pair] : NULL;
    if (pair != NULL) emit_windows(p, pair, s, "h", out);
    emit_windows(p, s, s, "", out);
    if (s->direct_out) {
        nas_buf_printf(out, "                float *row = out + (size_t)y * %d;\n",
                       p->width * s->rate);
    } else {
        nas_buf_printf(out, "                %s *row = ", nas__real(p));
        emit_row_of(p, s, s, out);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_puts(out, "                ");
    nas__kernel_name(p, s, out);
    if (s->direct_out) {
        nas_buf_printf(out, "(row, %zu",
                       (size_t)p->height * (size_t)p->width * (size_t)s->rate * (size_t)s->rate);
    } else {
        nas_buf_printf(out, "(row, PITCH%d", s->rate);
    }
    if (pair != NULL) emit_arguments(p, pair, s, "h", out);
    emit_arguments(p, s, s, "", out);
    const size_t weights_at = pair != NULL ? pair->weights_at : s->weights_at;
    nas_buf_printf(out, ",\n                    PITCH%d, %d, model_weights + %zu", s->rate,
                   columns_of(p, s), weights_at);
    if (pair != NULL) nas_buf_printf(out, ", mem + %zu", p->plan.scratch_at);
    nas_buf_puts(out, ");\n");
}

static void emit_shuffle_rows(const nas__program *p, const nas__stage *s, nas_buf *out) {
    const nas__stage *u = &p->stages[s->adds[0]];
    const size_t width = (size_t)p->width * (size_t)s->rate,
                 plane = width * (size_t)p->height * (size_t)s->rate;
    const bool whole = s->direct_out && p->plan.strips == 1 && (size_t)columns_of(p, s) == width &&
                       p->dtype == NAS_DTYPE_FP32;
    nas_buf_printf(out, "                const %s *from = ", nas__real(p));
    emit_row_of(p, u, u, out);
    nas_buf_printf(out, ";\n                for (int c = 0; c < %d; c++) {\n", s->channels);
    nas_buf_printf(out,
                   "                    for (int i = 0; i < %d; i++, from += %d * PITCH%d) {\n",
                   s->block, s->block, u->rate);
    if (whole) {
        nas_buf_printf(out,
                       "                        float *line = out + (size_t)c * %zu + (size_t)(y * "
                       "%d + i) * %zu;\n",
                       plane, s->block, width);
    } else if (s->direct_out) {
        nas_buf_printf(out, "                        %s *line = mem + %zu;\n", nas__real(p),
                       p->plan.scratch_at);
    } else {
        nas_buf_printf(out,
                       "                        %s *line = ring_row(mem + %zu, %d, %zu, y * %d "
                       "+ i) + c * PITCH%d;\n",
                       nas__real(p), ring_start(p, s, s, 0), s->ring_rows, row_floats(p, s),
                       s->block, s->rate);
    }
    nas_buf_printf(out, "                        shuffle%d(line, from, PITCH%d, %d);\n", s->block,
                   u->rate, columns_of(p, u));
    if (s->direct_out && !whole) {
        nas_buf_printf(out,
                       "                        copy_out(out + (size_t)c * %zu + (size_t)(y * %d + "
                       "i) * %zu, line, 1, 0, "
                       "0, %d, ",
                       plane, s->block, width, columns_of(p, s));
        emit_x(p, s, out);
        nas_buf_printf(out, ", %zu);\n", width);
    }
    nas_buf_puts(out, "                    }\n                }\n");
}

/* ---- after the row: edges, margins, the output image ------------------------------------------------------------- */

/* For each of the own rows just made: a shuffle makes several at once from row y of its source, a Winograd kernel a group
 * that may stick out of the image. */
static void emit_after_row(const nas__program *p, const nas__stage *s, nas_buf *out) {
    const bool keep = p->plan.strips > 1 && s->left > 0 && s->kind != NAS__INPUT;
    if (!s->zero_edges && !keep) return;
    const int32_t rows = s->kind == NAS__SHUFFLE ? s->block : 1;
    if (s->tile.rows > 0) {
        nas_buf_printf(out,
                       "                for (int e = y < 0 ? 0 : y; e < y + %d && e < %d; e++) "
                       "{\n",
                       s->tile.rows, p->height * s->rate);
    } else {
        nas_buf_printf(out, "                for (int e = y * %d; e < (y + 1) * %d; e++) {\n", rows,
                       rows);
    }
    nas_buf_printf(out, "                    %s *edge = ring_row(mem + %zu, %d, %zu, e);\n",
                   nas__real(p), ring_start(p, s, s, 0), s->ring_rows, row_floats(p, s));
    if (s->zero_edges) {
        nas_buf_printf(out, "                    zero_outside(edge, %d, PITCH%d, %d, ", s->channels,
                       s->rate, columns_of(p, s));
        emit_x(p, s, out);
        nas_buf_printf(out, ", %d);\n", p->width * s->rate);
    }
    if (keep) {
        const size_t row = (size_t)s->channels * (size_t)s->left;
        nas_buf_printf(out,
                       "                    keep_margin(edge, kept + %zu + (size_t)(e + margin * "
                       "%d) * %zu, %d, "
                       "PITCH%d, %d, %d, strip == 0);\n",
                       s->context_at, s->rate, row, s->channels, s->rate, columns_of(p, s),
                       s->left);
    }
    nas_buf_puts(out, "                }\n");
}

/* Opens the block of `group` rows from y on of a stage: the rows of this step that are in the image and of use to this
 * thread. */
static void emit_range(const nas__program *p, const nas__stage *s, int32_t above, int32_t below,
                       int32_t group, nas_buf *out) {
    const int32_t rows = s->rate * p->plan.band;
    if (rows > group) {
        nas_buf_printf(out, "            for (int j = 0; j < %d; j += %d) {\n", rows, group);
        nas_buf_printf(out, "            const int y = step * %d + j - %d;\n", rows, s->lag);
    } else if (rows > 1) {
        nas_buf_printf(out, "            {\n            const int y = step * %d - %d;\n", rows,
                       s->lag);
    } else {
        nas_buf_printf(out, "            {\n            const int y = step - %d;\n", s->lag);
    }
    nas_buf_printf(
        out, "            if (y >= %d && y >= begin * %d - %d && y < end * %d + %d && y < %d) {\n",
        1 - group, s->rate, above, s->rate, below, p->height * s->rate);
}

static void emit_group(const nas__program *p, const nas__stage *s, nas_buf *out) {
    const nas__term *t = &s->terms[0];
    const nas__stage *u = &p->stages[t->source];
    const int32_t rows = s->tile.rows, points = rows + t->kernel_h - 1;
    const int32_t height = p->height * s->rate;
    nas_buf_printf(out,
                   "                const %s *r0[%d];\n"
                   "                group_in(r0, mem + %zu, %d, %zu, y - %d, %d, %d, mem + %zu);\n",
                   nas__real(p), points, ring_start(p, u, s, t->kernel_w / 2), u->ring_rows,
                   row_floats(p, u), t->kernel_h / 2, points, height, p->plan.zeros_at);
    for (int32_t a = 0; a < s->n_adds; a++) {
        const nas__stage *added = &p->stages[s->adds[a]];
        nas_buf_printf(out,
                       "                const %s *add%d[%d];\n"
                       "                group_in(add%d, mem + %zu, %d, %zu, y, %d, %d, NULL);\n",
                       nas__real(p), a, rows, a, ring_start(p, added, s, 0), added->ring_rows,
                       row_floats(p, added), rows, height);
    }
    nas_buf_printf(out, "                %s *row[%d];\n", nas__real(p), rows);
    if (s->direct_out) { /* rows of the image itself, a ring without an end; those of other threads are theirs to write */
        nas_buf_printf(
            out, "                group_out(row, out, %d, %d, y, %d, begin * %d, end * %d);\n",
            height, p->width * s->rate, rows, s->rate, s->rate);
    } else {
        nas_buf_printf(out, "                group_out(row, mem + %zu, %d, %zu, y, %d, 0, %d);\n",
                       ring_start(p, s, s, 0), s->ring_rows, row_floats(p, s), rows, height);
    }
    nas_buf_puts(out, "                ");
    nas__kernel_name(p, s, out);
    if (s->direct_out) {
        nas_buf_printf(out, "(row, %zu, r0", (size_t)height * (size_t)p->width * (size_t)s->rate);
    } else {
        nas_buf_printf(out, "(row, PITCH%d, r0", s->rate);
    }
    for (int32_t a = 0; a < s->n_adds; a++)
        nas_buf_printf(out, ", add%d", a);
    nas_buf_printf(out, ",\n                    PITCH%d, %d, model_weights + %zu, mem + %zu);\n",
                   s->rate, columns_of(p, s), s->weights_at, p->plan.scratch_at);
}

static void emit_stage(const nas__program *p, int32_t v, nas_buf *out) {
    const nas__stage *s = &p->stages[v];
    nas_buf_printf(out, "            /* %s: %d channels, %d x %d */\n", s->name, s->channels,
                   p->height * s->rate, p->width * s->rate);
    switch (s->kind) {
    case NAS__INPUT:
        emit_range(p, s, s->above, s->below, 1, out);
        emit_input(p, s, out);
        break;
    case NAS__SUM:
        emit_range(p, s, s->above, s->below, s->tile.rows > 0 ? s->tile.rows : 1, out);
        if (s->tile.rows > 0) {
            emit_group(p, s, out);
        } else {
            emit_sum(p, s, out);
        }
        break;
    case NAS__SHUFFLE: { /* counts source rows: its lag and halo are multiples of the block, see memory_plan.c */
        const nas__stage *u = &p->stages[s->adds[0]];
        emit_range(p, u, (s->above + s->block - 1) / s->block, (s->below + s->block - 1) / s->block,
                   1, out);
        emit_shuffle_rows(p, s, out);
        break;
    }
    }
    emit_after_row(p, s, out);
    nas_buf_puts(out, "            }\n            }\n");
}

/* The output value when its stage could not write the image itself. */
static void emit_copy_out(const nas__program *p, nas_buf *out) {
    const nas__stage *s = &p->stages[p->output];
    if (s->direct_out) return;
    const size_t width = (size_t)p->width * (size_t)s->rate,
                 plane = width * (size_t)p->height * (size_t)s->rate;
    nas_buf_printf(out, "            /* %s to the output image */\n", s->name);
    emit_range(p, s, 0, 0, 1, out);
    nas_buf_printf(out, "                copy_out(out + (size_t)y * %zu, ", width);
    emit_row_of(p, s, s, out);
    nas_buf_printf(out, ", %d, PITCH%d, %zu, %d, ", s->channels, s->rate, plane, columns_of(p, s));
    emit_x(p, s, out);
    nas_buf_printf(out, ", %zu);\n            }\n            }\n", width);
}

static void emit_lap(int32_t timed, nas_buf *out) {
    nas_buf_printf(out, "            if (times != NULL) since = lap(times + %d, since);\n", timed);
}

void nas__emit_rows(const nas__program *p, nas_buf *out) {
    const nas__plan *plan = &p->plan;
    nas_buf_puts(out, "/* Rows [begin, end) of the image. `mem` holds this thread's rings, `kept` "
                      "the margins between strips, of\n"
                      " * which rows from `margin` on belong to this thread. times: NULL, or what "
                      "each stage's time is added to. */\n");
    nas_buf_printf(out,
                   "static void run_rows(const float *in, float *out, %s *mem, %s *kept, "
                   "int margin, int begin, "
                   "int end,\n                     double *times) {\n",
                   nas__real(p), nas__real(p));
    nas_buf_puts(out, "    (void)kept;\n    (void)margin;\n    if (begin >= end) return;\n");
    nas_buf_puts(out, "    double since = times != NULL ? clock_us() : 0;\n");
    nas_buf_printf(out, "    const int first = (begin > %d ? begin - %d : 0) / %d;\n",
                   plan->halo_rows, plan->halo_rows, plan->band);
    if (plan->strips > 1) {
        nas_buf_printf(out, "    for (int strip = 0; strip < %d; strip++) {\n", plan->strips);
        nas_buf_printf(out, "        const int x0 = strip * %d;\n", plan->vectors * plan->lanes);
    } else {
        nas_buf_puts(out, "    {\n");
    }
    nas_buf_printf(out, "        for (int step = first; step * %d < end + %d; step++) {\n",
                   plan->band, plan->lag_rows);
    int32_t timed = 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        if (!nas__is_timed(&p->stages[v])) continue;
        emit_stage(p, v, out);
        emit_lap(timed++, out);
    }
    emit_copy_out(p, out);
    if (!p->stages[p->output].direct_out) emit_lap(timed, out);
    nas_buf_puts(out, "        }\n    }\n}\n\n");
}
