/* row_winograd.c - vertical Winograd F(2,h) and F(4,h) for convolutions in rows, Lavin & Gray, arXiv:1509.09308, in one
 * dimension: the columns of h kernel taps become points, so that `rows` output rows cost rows + h - 1 products instead of
 * rows * h for each horizontal tap, input and output channel. Pixels stay in lanes: all transforms are between rows.
 *
 * Here: the matrices (Toom-Cook, interpolation points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity), what a kernel costs, which
 * stages get one, their weights. A transposed convolution is its phases: the taps of a phase fill the window with zeros.
 * With these points the error of one layer is at most twice to four times that of direct sums. */
#include "compiler/compiler_internal.h"

#include <string.h>

static const double finite_points[NAS__POINTS_MAX - 1] = {0, 1, -1, 2, -2, 0.5, -0.5};

/* Coefficients of the product of (x - point) over the finite points but `without` (-1: over all). */
static void polynomial(int32_t n_finite, int32_t without, double *out) {
    int32_t degree = 0;
    out[0] = 1;
    for (int32_t i = 0; i < n_finite; i++) {
        if (i == without) continue;
        out[degree + 1] = out[degree];
        for (int32_t k = degree; k > 0; k--)
            out[k] = out[k - 1] - finite_points[i] * out[k];
        out[0] *= -finite_points[i];
        degree++;
    }
}

nas__winograd nas__winograd_of(int32_t rows, int32_t height) {
    nas__winograd w = {.rows = rows, .height = height, .points = rows + height - 1};
    const int32_t finite = w.points - 1;
    for (int32_t i = 0; i < finite; i++) {
        double scale = 1, power = 1;
        for (int32_t k = 0; k < finite; k++)
            scale *= k == i ? 1 : finite_points[i] - finite_points[k];
        for (int32_t k = 0; k < w.points; k++, power *= finite_points[i]) {
            if (k < height) w.weight[i][k] = power / scale;
            if (k < rows) w.output[k][i] = power;
        }
        polynomial(finite, i, w.input[i]);
    }
    polynomial(finite, -1, w.input[finite]);
    w.weight[finite][height - 1] = 1;
    w.output[rows - 1][finite] = 1;
    return w;
}

bool nas__winograd_possible(const nas__stage *s) {
    if (s->dead || s->kind != NAS__SUM || s->n_terms != 1 || s->pair >= 0) return false;
    const nas__term *t = &s->terms[0];
    return t->kernel_h == 3 || t->kernel_h == 5;
}

int32_t nas__winograd_taps(const nas__term *t, int32_t first, int32_t n, int32_t kx, bool *has) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) {
        has[i] = true;
        if (t->up > 1) {
            const int32_t phase = (first + i) % t->up;
            has[i] = nas__phase_tap(t->up, t->up_w, t->up_left, phase, kx - t->kernel_w / 2) >= 0;
        }
        count += has[i];
    }
    return count;
}

int32_t nas__winograd_wide(const nas__stage *s, int32_t span, int32_t lanes) {
    const int32_t floats = span * lanes + s->terms[0].kernel_w - 1;
    return (floats + lanes - 1) / lanes * lanes;
}

static size_t transformed_floats(const nas__stage *s, int32_t span, int32_t lanes) {
    const nas__term *t = &s->terms[0];
    return (size_t)(s->tile.rows + t->kernel_h - 1) * (size_t)t->channels *
           (size_t)nas__winograd_wide(s, span, lanes);
}

size_t nas__winograd_scratch(const nas__stage *s, int32_t lanes) {
    const int32_t points = s->tile.rows + s->terms[0].kernel_h - 1;
    return transformed_floats(s, s->tile.span, lanes) +
           (size_t)points * (size_t)s->tile.outputs * (size_t)s->tile.vectors * (size_t)lanes;
}

size_t nas__winograd_weight_floats(const nas__stage *s) {
    const nas__term *t = &s->terms[0];
    size_t taps = 0;
    for (int32_t kx = 0; kx < t->kernel_w; kx++) {
        for (int32_t i = 0; i < s->channels; i++) {
            bool has;
            taps += (size_t)nas__winograd_taps(t, i, 1, kx, &has);
        }
    }
    return taps * (size_t)t->channels * (size_t)(s->tile.rows + t->kernel_h - 1);
}

/* ---- estimates ---------------------------------------------------------------------------------------------------- */

/* Cycles of the products of a tile at one point. */
static double point_cycles(const nas__term *t, int32_t first, int32_t outputs, int32_t vectors) {
    double cycles = 0;
    for (int32_t kx = 0; kx < t->kernel_w; kx++) {
        bool has[NAS__OUTPUTS_MAX];
        const int32_t n = nas__winograd_taps(t, first, outputs, kx, has);
        if (n > 0) cycles += nas__tap_cycles(n, vectors, t->kernel_w > 1);
    }
    return (cycles + 1.0) * t->channels + 6.0 + outputs * vectors; /* loops, stores */
}

/* Cycles of a tile at all points and back to rows. */
static double tile_cycles(const nas__stage *s, int32_t first, int32_t outputs, int32_t vectors) {
    const int32_t points = s->tile.rows + s->terms[0].kernel_h - 1;
    const double act = s->act == NAS__ACT_NONE ? 0 : s->act == NAS__ACT_PRELU ? 1.5 : 0.5;
    const double back = 1.5 * points + s->tile.rows * (1.5 + s->n_adds + act);
    return points * point_cycles(&s->terms[0], first, outputs, vectors) + back * outputs * vectors +
           20.0;
}

static double outputs_cycles(const nas__stage *s, int32_t n, int32_t vectors) {
    const int32_t up = s->terms[0].up, period = up * up;
    if (up == 1) {
        const int32_t rest = s->channels % n;
        return s->channels / n * tile_cycles(s, 0, n, vectors) +
               (rest > 0 ? tile_cycles(s, 0, rest, vectors) + 20.0 : 0);
    }
    double cycles = 0;
    for (int32_t first = 0; first < period; first += n)
        cycles += s->channels / period * tile_cycles(s, first, n, vectors);
    return cycles;
}

/* Vectors transformed together: the fewer, the more of the window's width is done twice; beyond a third of L1 the rows that
 * are read and the weights push them out. */
static int32_t choose_span(const nas_target *target, const nas__stage *s, int32_t vectors,
                           int32_t row_vectors) {
    enum { SPAN_MAX = 8 };
    int32_t span = vectors;
    for (int32_t more = 2 * vectors; more <= SPAN_MAX && more <= row_vectors; more += vectors) {
        if (4 * transformed_floats(s, more, target->vector_bytes / 4) >
            3 * (size_t)target->l1_bytes / 8)
            break;
        span = more;
    }
    return span;
}

double nas__winograd_cycles(const nas_target *target, const nas__stage *s, int32_t row_vectors,
                            int32_t n, int32_t p, int32_t *span) {
    const nas__term *t = &s->terms[0];
    const int32_t lanes = target->vector_bytes / 4, points = s->tile.rows + t->kernel_h - 1;
    const int32_t most = (target->vector_registers - 1 - p) / p;
    if (n > most || n > s->channels || n > NAS__OUTPUTS_MAX || !nas__tile_allowed(t, n)) return 0;
    *span = choose_span(target, s, p, row_vectors);
    const double in =
        (2.4 * points + 4.0) * t->channels * (nas__winograd_wide(s, *span, lanes) / lanes);
    return (in + *span / p * outputs_cycles(s, n, p)) * ((row_vectors + *span - 1) / *span) /
           s->tile.rows;
}

double nas__winograd_tile(const nas_target *target, const nas__stage *s, int32_t row_vectors,
                          nas__tile *tile) {
    double best = 0;
    nas__tile chosen = s->tile;
    for (int32_t p = 1; p <= 4 && p <= row_vectors; p++) {
        for (int32_t n = 1; n <= NAS__OUTPUTS_MAX; n++) {
            int32_t span = 0;
            const double cycles = nas__winograd_cycles(target, s, row_vectors, n, p, &span);
            if (cycles == 0 || (best > 0 && cycles >= best)) continue;
            best = cycles;
            chosen = (nas__tile){n, p, s->tile.rows, span};
        }
    }
    *tile = chosen;
    return best;
}

/* ---- which stages ------------------------------------------------------------------------------------------------- */

static double direct_cycles(const nas__program *p, const nas__stage *s, const nas__stage *pair,
                            int32_t row_vectors) {
    nas__tile tile, pair_tile;
    return nas__choose_tiles(p->target, s, pair, row_vectors, &tile, &pair_tile);
}

/* Who reads a hidden stage through its scratch. */
static nas__stage *reader_of(const nas__program *p, int32_t v) {
    for (int32_t i = v + 1; i < p->n_stages; i++) {
        if (!p->stages[i].dead && p->stages[i].pair == v) return &p->stages[i];
    }
    return NULL;
}

bool nas__winograd_accurate(const nas__program *p, const nas__stage *s, int32_t rows) {
    if (p->dtype == NAS_DTYPE_FP32) return true;
    const nas__term *t = &s->terms[0];
    nas__stage point = {.n_terms = 1, .terms = {*t}};
    point.terms[0].kernel_h = 1;
    return rows == 2 && t->kernel_h == 3 && t->up == 1 && nas__half_block(p, &point) == 0;
}

/* Cycles that F(rows, h) saves in a step of `band` input rows; none where it is not possible. */
static double saving(const nas__program *p, int32_t v, int32_t rows, int32_t band,
                     int32_t row_vectors) {
    nas__stage s = p->stages[v];
    nas__tile tile;
    const nas__stage *reader = s.hidden ? reader_of(p, v) : NULL;
    if (!nas__winograd_possible(&s) || !nas__winograd_accurate(p, &s, rows) ||
        s.rate * band % rows != 0)
        return 0;
    if (s.hidden && reader == NULL) return 0;
    const double direct = s.hidden ? direct_cycles(p, reader, &s, row_vectors * s.rate) -
                                         direct_cycles(p, reader, NULL, row_vectors * s.rate)
                                   : direct_cycles(p, &s, NULL, row_vectors * s.rate);
    s.tile.rows = rows;
    double ours = nas__winograd_tile(p->target, &s, row_vectors * s.rate, &tile);
    if (s.hidden) ours += 4.0 * s.channels * row_vectors * s.rate; /* to a ring and back */
    if (ours == 0 || ours > 0.97 * direct) return 0;
    /* A short image fills its last group with rows that nobody needs. */
    const double height = (double)p->height * s.rate;
    const double groups = (double)((p->height * s.rate + rows - 1) / rows + 1);
    return (direct - ours * groups * rows / height) * s.rate * band;
}

/* The kernel that saves most in steps of `band` rows: 0 direct, else the rows of a Winograd kernel. */
static int32_t best_rows(const nas__program *p, int32_t v, int32_t band, int32_t row_vectors,
                         double *saved) {
    int32_t best = 0;
    *saved = 0;
    for (int32_t rows = 2; rows <= NAS__WINOGRAD_ROWS_MAX; rows += 2) {
        const double cycles = saving(p, v, rows, band, row_vectors);
        if (cycles <= *saved) continue;
        *saved = cycles;
        best = rows;
    }
    return best;
}

/* A stage that makes several rows at once cannot stay inside its reader. */
static void set_rows(nas__program *p, int32_t v, int32_t rows) {
    nas__stage *s = &p->stages[v];
    s->tile = (nas__tile){.rows = rows};
    if (rows == 0 || !s->hidden) return;
    reader_of(p, v)->pair = -1;
    s->hidden = false;
}

static void choose_everywhere(nas__program *p) {
    const int32_t rows = p->dtype == NAS_DTYPE_FP16 ? 2 : NAS__WINOGRAD_ROWS_MAX;
    p->plan.band = rows;
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *s = &p->stages[v];
        if (nas__winograd_possible(s) && nas__winograd_accurate(p, s, rows)) set_rows(p, v, rows);
    }
}

void nas__choose_winograd(nas__program *p, int32_t row_vectors) {
    double most = 0;
    p->plan.band = 1;
    if (p->kernels == NAS_ROW_KERNELS_DIRECT) return;
    if (p->kernels == NAS_ROW_KERNELS_WINOGRAD) {
        choose_everywhere(p);
        return;
    }
    for (int32_t band = 1; band <= NAS__WINOGRAD_ROWS_MAX; band *= 2) {
        double sum = 0, saved = 0;
        for (int32_t v = 0; v < p->n_stages; v++) {
            (void)best_rows(p, v, band, row_vectors, &saved);
            sum += saved / band;
        }
        if (sum <= most) continue;
        most = sum;
        p->plan.band = band;
    }
    for (int32_t v = 0; v < p->n_stages && most > 0; v++) {
        double saved = 0;
        set_rows(p, v, best_rows(p, v, p->plan.band, row_vectors, &saved));
    }
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* The kernel column of output `o` at column kx of the window, for input channel c, zero where the window has no tap. */
static void kernel_column(const nas__term *t, int32_t o, int32_t kx, int32_t c, double *column) {
    const int32_t height = t->up > 1 ? t->up_h : t->kernel_h,
                  width = t->up > 1 ? t->up_w : t->kernel_w;
    const float *w = t->weight + (size_t)(o / (t->up * t->up)) * (size_t)height * (size_t)width *
                                     (size_t)t->channels;
    for (int32_t ky = 0; ky < t->kernel_h; ky++) {
        int32_t tap;
        (void)nas__term_taps(t, o, 1, ky, kx, &tap);
        column[ky] = tap < 0 ? 0 : (double)w[(size_t)tap * (size_t)t->channels + (size_t)c];
    }
}

float *nas__winograd_pack(const nas__stage *s, int32_t first, int32_t n, float *out) {
    const nas__term *t = &s->terms[0];
    const nas__winograd m = nas__winograd_of(s->tile.rows, t->kernel_h);
    for (int32_t point = 0; point < m.points; point++) {
        for (int32_t c = 0; c < t->channels; c++) {
            for (int32_t kx = 0; kx < t->kernel_w; kx++) {
                bool has[NAS__OUTPUTS_MAX];
                (void)nas__winograd_taps(t, first, n, kx, has);
                for (int32_t i = 0; i < n; i++) {
                    double column[NAS__WINOGRAD_HEIGHT_MAX], sum = 0;
                    if (!has[i]) continue;
                    kernel_column(t, first + i, kx, c, column);
                    for (int32_t ky = 0; ky < t->kernel_h; ky++)
                        sum += m.weight[point][ky] * column[ky];
                    *out++ = (float)sum;
                }
            }
        }
    }
    return out;
}
