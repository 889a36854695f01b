/* obs_state.c - the inverse of a shrinking set of columns. What is gone is swapped behind what is alive, so that a step costs
 * m^2/2 multiply-adds and not n^2. Only the lower triangle is kept. */
#include "compress/obs_internal.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

nas_status nas__obs_state_init(nas_ctx *ctx, const nas__obs *o, int32_t p, int32_t block_max,
                               nas__obs_state *s) {
    const size_t size = (size_t)o->size, block = (size_t)block_max;
    *s = (nas__obs_state){.stride = o->size, .p = p, .block_max = block_max};
    s->column = nas_alloc_array(ctx, size, sizeof *s->column);
    s->place = nas_alloc_array(ctx, size, sizeof *s->place);
    s->inverse = nas_alloc_array(ctx, size * size, sizeof *s->inverse);
    s->w = nas_alloc_array(ctx, (size_t)p * size, sizeof *s->w);
    s->step = nas_alloc_array(ctx, size, sizeof *s->step);
    s->block = nas_alloc_array(ctx, block * (block + 1), sizeof *s->block);
    if (s->column != NULL && s->place != NULL && s->inverse != NULL && s->w != NULL &&
        s->step != NULL && s->block != NULL)
        return NAS_OK;
    nas__obs_state_deinit(s);
    return NAS_ERR_NOMEM;
}

void nas__obs_state_deinit(nas__obs_state *s) {
    nas_free(s->column);
    nas_free(s->place);
    nas_free(s->inverse);
    nas_free(s->w);
    nas_free(s->step);
    nas_free(s->block);
    *s = (nas__obs_state){0};
}

void nas__obs_state_load(nas__obs_state *s, const nas__obs *o, const int32_t *rows, int32_t p) {
    const size_t size = (size_t)o->size;
    s->m = o->size;
    s->p = p;
    for (int32_t k = 0; k < o->size; k++)
        s->column[k] = s->place[k] = k;
    memcpy(s->inverse, o->inverse, size * size * sizeof *s->inverse);
    for (int32_t r = 0; r < p; r++)
        memcpy(s->w + (size_t)r * size, o->w + (size_t)rows[r] * size, size * sizeof *s->w);
}

static double *at(const nas__obs_state *s, int32_t row, int32_t column) {
    return &s->inverse[(size_t)row * (size_t)s->stride + (size_t)column];
}

static void swap(double *a, double *b) {
    const double t = *a;
    *a = *b;
    *b = t;
}

/* Place k changes with the last one. */
static void move_last(nas__obs_state *s, int32_t k) {
    const int32_t last = s->m - 1;
    if (k == last) return;
    for (int32_t j = 0; j < k; j++)
        swap(at(s, k, j), at(s, last, j));
    for (int32_t j = k + 1; j < last; j++)
        swap(at(s, j, k), at(s, last, j));
    swap(at(s, k, k), at(s, last, last));
    for (int32_t r = 0; r < s->p; r++)
        swap(&s->w[(size_t)r * (size_t)s->stride + (size_t)k],
             &s->w[(size_t)r * (size_t)s->stride + (size_t)last]);
    const int32_t a = s->column[k], b = s->column[last];
    s->column[k] = b;
    s->column[last] = a;
    s->place[b] = k;
    s->place[a] = last;
}

void nas__obs_state_drop(nas__obs_state *s, int32_t c, const double *value) {
    move_last(s, s->place[c]);
    const int32_t left = s->m - 1;
    const double *row = at(s, left, 0);
    const double pivot = row[left];
    memcpy(s->step, row, (size_t)left * sizeof *row);
    for (int32_t r = 0; r < s->p; r++) {
        double *w = s->w + (size_t)r * (size_t)s->stride;
        const double error = w[left] - (value == NULL ? 0 : value[r]);
        cblas_daxpy(left, -error / pivot, s->step, 1, w, 1);
    }
    for (int32_t i = 0; i < left; i++)
        cblas_daxpy(i + 1, -s->step[i] / pivot, s->step, 1, at(s, i, 0), 1);
    s->place[c] = -1;
    s->m = left;
}

static double entry(const nas__obs_state *s, int32_t a, int32_t b) {
    return a > b ? *at(s, a, b) : *at(s, b, a);
}

/* Cholesky of the block [n][n], lower, in place. A pivot lost to rounding counts as a tiny one: such columns are dear. */
static void factor(double *a, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (int32_t k = 0; k < j; k++)
                sum -= a[i * n + k] * a[j * n + k];
            a[i * n + j] = i == j ? sqrt(fmax(sum, 1e-300)) : sum / a[j * n + j];
        }
    }
}

double nas__obs_state_score(nas__obs_state *s, const int32_t *columns, int32_t n) {
    double sum = 0;
    if (n == 1) {
        const int32_t k = s->place[columns[0]];
        for (int32_t r = 0; r < s->p; r++) {
            const double w = s->w[(size_t)r * (size_t)s->stride + (size_t)k];
            sum += w * w;
        }
        return sum / *at(s, k, k);
    }
    double *x = s->block + n * n;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j <= i; j++)
            s->block[i * n + j] = entry(s, s->place[columns[i]], s->place[columns[j]]);
    }
    factor(s->block, n);
    for (int32_t r = 0; r < s->p; r++) {
        const double *w = s->w + (size_t)r * (size_t)s->stride;
        for (int32_t i = 0; i < n; i++) {
            double v = w[s->place[columns[i]]];
            for (int32_t k = 0; k < i; k++)
                v -= s->block[i * n + k] * x[k];
            x[i] = v / s->block[i * n + i];
            sum += x[i] * x[i];
        }
    }
    return sum;
}
