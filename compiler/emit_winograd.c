/* emit_winograd.c - row functions that make several rows at once by vertical Winograd, see row_winograd.c. For each tile of
 * columns: rows to points V[point][channel][columns] in the scratch, once for all outputs; then for each output block and
 * register tile the products at every point into M[point][output][vector], which stays in L1, and M back to rows with bias,
 * additions and activation. A row whose pointer is NULL is not stored. */
#include "compiler/compiler_internal.h"

#include <stdio.h>

typedef struct pen {
    nas_buf *out;
    const nas__stage *s;
    nas__winograd m;
    const char *real;    /* type of an element */
    const char *operand; /* of a weight in a multiply-add */
    int32_t lanes;
    int32_t wide;  /* floats of a channel at a point */
    int32_t plane; /* floats of a point in V */
} pen;

/* "a * x0 + x2 - b * x4", of the even or the odd terms or of all. */
static void emit_sum(const double *factors, int32_t n, int32_t from, int32_t step, const char *name,
                     nas_buf *out) {
    bool any = false;
    for (int32_t i = from; i < n; i += step) {
        const double size = factors[i] < 0 ? -factors[i] : factors[i];
        if (size == 0) continue;
        nas_buf_puts(out, factors[i] < 0 ? any ? " - " : "-" : any ? " + " : "");
        if (size != 1) nas_buf_printf(out, "%af * ", size);
        nas_buf_printf(out, "%s%d", name, i);
        any = true;
    }
}

/* Points p and -p share the sums over even and over odd rows. */
static void emit_input(const pen *k) {
    const nas__term *t = &k->s->terms[0];
    const int32_t n = k->m.points;
    nas_buf *out = k->out;
    nas_buf_printf(out, "        for (int c = 0; c < %d; c++) { /* %d rows to points */\n",
                   t->channels, n);
    nas_buf_printf(out,
                   "            const size_t at = x + (size_t)c * pitch;\n"
                   "            %s *v = scratch + c * %d;\n",
                   k->real, k->wide);
    nas_buf_printf(out,
                   "            for (int i = 0; i < %d; i += LANES) {\n                const vf ",
                   k->wide);
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(out, "%se%d = load(s%d + at + i)", i > 0 ? ", " : "", i, i);
    nas_buf_puts(out, ";\n                store(v + i, ");
    emit_sum(k->m.input[0], n, 0, 1, "e", out);
    nas_buf_puts(out, ");\n");
    for (int32_t i = 1; i + 1 < n; i += 2) {
        nas_buf_printf(out, "                const vf p%d = ", i);
        emit_sum(k->m.input[i], n, 0, 2, "e", out);
        nas_buf_printf(out, ", q%d = ", i);
        emit_sum(k->m.input[i], n, 1, 2, "e", out);
        nas_buf_printf(out,
                       ";\n                store(v + %d + i, p%d + q%d);\n"
                       "                store(v + %d + i, p%d - q%d);\n",
                       i * k->plane, i, i, (i + 1) * k->plane, i, i);
    }
    nas_buf_printf(out, "                store(v + %d + i, ", (n - 1) * k->plane);
    emit_sum(k->m.input[n - 1], n, 0, 1, "e", out);
    nas_buf_puts(out, ");\n            }\n        }\n");
}

/* All products of a tile at one point. */
static void emit_point(const pen *k, int32_t first, int32_t n) {
    const nas__term *t = &k->s->terms[0];
    const int32_t vectors = k->s->tile.vectors;
    nas_buf *out = k->out;
    bool has[NAS__OUTPUTS_MAX];
    int32_t per_channel = 0;
    for (int32_t kx = 0; kx < t->kernel_w; kx++)
        per_channel += nas__winograd_taps(t, first, n, kx, has);
    for (int32_t i = 0; i < n; i++) {
        nas_buf_puts(out, "                    vf ");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%sa%d_%d = {0}", v > 0 ? ", " : "", i, v);
        nas_buf_puts(out, ";");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, " OWN(a%d_%d);", i, v);
        nas_buf_puts(out, "\n");
    }
    nas_buf_printf(out, "                    for (int c = 0; c < %d; c++, s += %d, w += %d) {\n",
                   t->channels, k->wide, per_channel);
    for (int32_t kx = 0, weight = 0; kx < t->kernel_w; kx++) {
        if (nas__winograd_taps(t, first, n, kx, has) == 0) continue;
        nas_buf_puts(out, "                        {\n                            const vf ");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, "%sx%d = load(s + %d)", v > 0 ? ", " : "", v, kx + v * k->lanes);
        nas_buf_printf(out, ";\n                            %sb;\n", k->operand);
        for (int32_t i = 0; i < n; i++) {
            if (!has[i]) continue;
            nas_buf_printf(out, "                            SPLAT(b, w + %d);", weight++);
            for (int32_t v = 0; v < vectors; v++)
                nas_buf_printf(out, " MADD(a%d_%d, x%d, b);", i, v, v);
            nas_buf_puts(out, "\n");
        }
        nas_buf_puts(out, "                        }\n");
    }
    nas_buf_puts(out, "                    }\n");
    for (int32_t i = 0; i < n; i++) {
        nas_buf_puts(out, "                   ");
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, " store(m + %d, a%d_%d);", (i * vectors + v) * k->lanes, i, v);
        nas_buf_puts(out, "\n");
    }
}

/* One row of the result of one output, from sums (p) and differences (q) of points. */
static void emit_row(const pen *k, int32_t row) {
    const nas__stage *s = k->s;
    const int32_t n = k->m.points;
    nas_buf *out = k->out;
    double factors[NAS__POINTS_MAX];
    for (int32_t i = 0; i < n; i++)
        factors[i] = i % 2 == 1 && i + 1 < n ? k->m.output[row][i] : 0;
    nas_buf_printf(
        out, "                    if (o%d != NULL) {\n                        vf y = bias + ", row);
    if (row == 0) nas_buf_puts(out, "m0 + ");
    emit_sum(factors, n, 0, 1, row % 2 == 0 ? "p" : "q", out);
    if (row == k->m.rows - 1) nas_buf_printf(out, " + m%d", n - 1);
    nas_buf_puts(out, ";\n");
    for (int32_t a = 0; a < s->n_adds; a++)
        nas_buf_printf(out, "                        y += load(add%d[%d] + at);\n", a, row);
    nas_buf_printf(out, "                        store(o%d + to, ", row);
    switch (s->act) {
    case NAS__ACT_NONE: nas_buf_puts(out, "y"); break;
    case NAS__ACT_RELU: nas_buf_puts(out, "relu(y)"); break;
    case NAS__ACT_PRELU: nas_buf_puts(out, "prelu(y, slope)"); break;
    }
    nas_buf_puts(out, ");\n                    }\n");
}

static void emit_output(const pen *k, int32_t n) {
    const nas__stage *s = k->s;
    const int32_t vectors = s->tile.vectors, point = n * vectors * k->lanes;
    nas_buf *out = k->out;
    nas_buf_printf(out, "                for (int i = 0; i < %d; i++) { /* points to %d rows */\n",
                   n * vectors, k->m.rows);
    nas_buf_printf(out,
                   "                    const int o = i / %d, column = x + v + i %% %d * LANES;\n"
                   "                    const %s *z = moved + i * LANES;\n"
                   "                    const size_t to = (size_t)(first + o) * out_pitch + "
                   "(size_t)column;\n",
                   vectors, vectors, k->real);
    if (s->n_adds > 0)
        nas_buf_puts(out, "                    const size_t at = (size_t)(first + o) * pitch + "
                          "(size_t)column;\n");
    nas_buf_puts(out, "                    const vf bias = splat(k[o])");
    if (s->act == NAS__ACT_PRELU) nas_buf_printf(out, ", slope = splat(k[%d + o])", n);
    nas_buf_puts(out, ";\n                    const vf ");
    for (int32_t i = 0; i < k->m.points; i++)
        nas_buf_printf(out, "%sm%d = load(z + %d)", i > 0 ? ", " : "", i, i * point);
    nas_buf_puts(out, ";\n                    const vf ");
    for (int32_t i = 1; i + 1 < k->m.points; i += 2)
        nas_buf_printf(out, "%sp%d = m%d + m%d, q%d = m%d - m%d", i > 1 ? ", " : "", i, i, i + 1, i,
                       i, i + 1);
    nas_buf_puts(out, ";\n");
    for (int32_t row = 0; row < k->m.rows; row++)
        emit_row(k, row);
    nas_buf_puts(out, "                }\n");
}

/* Output block [first, first + n) of all columns of the tile; `first` here is of the phases of a transposed convolution. */
static void emit_block(const pen *k, int32_t first, int32_t n) {
    const nas__stage *s = k->s;
    const int32_t head = s->act == NAS__ACT_PRELU ? 2 * n : n;
    nas_buf_printf(k->out,
                   "            for (int v = 0; v < %d; v += %d) {\n"
                   "                const %s *s = scratch + v, *w = k + %d;\n"
                   "                %s *m = moved;\n"
                   "                for (int point = 0; point < %d; point++, m += %d) {\n",
                   s->tile.span * k->lanes, s->tile.vectors * k->lanes, k->real, head, k->real,
                   k->m.points, n * s->tile.vectors * k->lanes);
    emit_point(k, first, n);
    nas_buf_puts(k->out, "                }\n");
    emit_output(k, n);
    nas_buf_puts(k->out, "            }\n");
    int32_t taps = 0;
    for (int32_t kx = 0; kx < s->terms[0].kernel_w; kx++) {
        bool has[NAS__OUTPUTS_MAX];
        taps += nas__winograd_taps(&s->terms[0], first, n, kx, has);
    }
    nas_buf_printf(k->out, "            k += %d;\n            first += %d;\n",
                   head + k->m.points * s->terms[0].channels * taps, n);
}

static void emit_blocks(const pen *k) {
    const nas__stage *s = k->s;
    const int32_t n = s->tile.outputs, up = s->terms[0].up;
    const int32_t period = up > 1 ? up * up / n : 1; /* blocks until the phases repeat */
    const int32_t rest = s->channels % (n * period);
    nas_buf_printf(k->out, "        const %s *k = weights;\n        int first = 0;\n", k->real);
    nas_buf_printf(k->out,
                   "        for (int block = 0; block < %d; block++) { /* tile %d x %d */\n",
                   s->channels / (n * period), n, s->tile.vectors);
    for (int32_t i = 0; i < period; i++)
        emit_block(k, i * n, n);
    nas_buf_puts(k->out, "        }\n");
    if (rest == 0) return;
    nas_buf_puts(k->out, "        {\n");
    emit_block(k, 0, rest);
    nas_buf_puts(k->out, "        }\n");
}

void nas__emit_winograd(const nas__program *p, const nas__stage *s, const char *name,
                        nas_buf *out) {
    const nas__term *t = &s->terms[0];
    const char *real = nas__real(p);
    pen k = {.out = out,
             .s = s,
             .real = real,
             .operand = nas__weight_operand(p),
             .lanes = p->plan.lanes};
    k.m = nas__winograd_of(s->tile.rows, t->kernel_h);
    k.wide = nas__winograd_wide(s, s->tile.span, k.lanes);
    k.plane = t->channels * k.wide;
    const int32_t columns = s->tile.span * k.lanes;
    nas_buf_printf(out, "KERNEL void %s(%s *const *out, size_t out_pitch, const %s *const *r0",
                   name, real, real);
    for (int32_t a = 0; a < s->n_adds; a++)
        nas_buf_printf(out, ", const %s *const *add%d", real, a);
    nas_buf_printf(out,
                   ",\n    size_t pitch, int columns, const %s *weights, %s *restrict "
                   "scratch) {\n    const %s ",
                   real, real, real);
    for (int32_t i = 0; i < k.m.points; i++)
        nas_buf_printf(out, "%s*const s%d = r0[%d]", i > 0 ? ", " : "", i, i);
    nas_buf_printf(out, ";\n    %s ", real);
    for (int32_t i = 0; i < k.m.rows; i++)
        nas_buf_printf(out, "%s*const o%d = out[%d]", i > 0 ? ", " : "", i, i);
    nas_buf_printf(out,
                   ";\n    %s *const moved = scratch + %d;\n"
                   "    for (int t = 0; t < columns; t += %d) {\n"
                   "        const int x = t + %d <= columns ? t : columns - %d; /* the last tile "
                   "may overlap its neighbour */\n",
                   real, k.m.points * k.plane, columns, columns, columns);
    emit_input(&k);
    emit_blocks(&k);
    nas_buf_puts(out, "    }\n}\n\n");
}
