/* dense.c - fully connected nets of one output, their gradients, and Adam. */
#include "search/strategies/policy_internal.h"

#include <math.h>
#include <string.h>

nas_status nas__weights_init(nas_ctx *ctx, size_t n, nas__weights *out) {
    nas__weights w = {.n = n};
    w.value = nas_alloc_array(ctx, n, sizeof(double));
    w.gradient = nas_alloc_array(ctx, n, sizeof(double));
    w.m = nas_alloc_array(ctx, n, sizeof(double));
    w.v = nas_alloc_array(ctx, n, sizeof(double));
    *out = w;
    if (w.value != NULL && w.gradient != NULL && w.m != NULL && w.v != NULL) return NAS_OK;
    nas__weights_deinit(out);
    return NAS_ERR_NOMEM;
}

void nas__weights_deinit(nas__weights *w) {
    nas_free(w->value);
    nas_free(w->gradient);
    nas_free(w->m);
    nas_free(w->v);
    *w = (nas__weights){0};
}

void nas__dense_adam(nas__weights *w, double rate) {
    const double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    w->updates++;
    const double step = rate / (1 - pow(beta1, (double)w->updates));
    const double scale = 1 / (1 - pow(beta2, (double)w->updates));
    for (size_t i = 0; i < w->n; i++) {
        const double g = w->gradient[i];
        w->m[i] = beta1 * w->m[i] + (1 - beta1) * g;
        w->v[i] = beta2 * w->v[i] + (1 - beta2) * g * g;
        w->value[i] -= step * w->m[i] / (sqrt(w->v[i] * scale) + epsilon);
        w->gradient[i] = 0;
    }
}

/* ---- affine ---------------------------------------------------------------------------------------------------- */

size_t nas__affine_end(const nas__affine *a) {
    return a->at + ((size_t)a->in + 1) * (size_t)a->out;
}

static size_t bias_at(const nas__affine *a) {
    return a->at + (size_t)a->in * (size_t)a->out;
}

void nas__affine_draw(const nas__affine *a, nas_rng *rng, double *weights) {
    const double limit = 1 / sqrt((double)a->in);
    for (size_t i = a->at; i < nas__affine_end(a); i++)
        weights[i] = limit * (2 * nas_rng_uniform(rng) - 1);
}

void nas__affine_forward(const nas__affine *a, const double *weights, const double *x, double *y) {
    const double *bias = weights + bias_at(a);
    const ptrdiff_t in = a->in;
    int32_t o = 0;
    for (; o + 4 <= a->out;
         o += 4) { /* four sums at once: one alone would wait for each addition */
        const double *row = weights + a->at + o * in;
        double s0 = bias[o], s1 = bias[o + 1], s2 = bias[o + 2], s3 = bias[o + 3];
        for (ptrdiff_t i = 0; i < in; i++) {
            s0 += row[i] * x[i];
            s1 += row[in + i] * x[i];
            s2 += row[2 * in + i] * x[i];
            s3 += row[3 * in + i] * x[i];
        }
        y[o] = s0, y[o + 1] = s1, y[o + 2] = s2, y[o + 3] = s3;
    }
    for (; o < a->out; o++) {
        const double *row = weights + a->at + o * in;
        y[o] = bias[o];
        for (ptrdiff_t i = 0; i < in; i++)
            y[o] += row[i] * x[i];
    }
}

void nas__affine_backward(const nas__affine *a, const double *weights, const double *restrict x,
                          const double *restrict dy, double *restrict gradient,
                          double *restrict dx) {
    for (int32_t o = 0; o < a->out; o++) {
        const double d = dy[o];
        if (d == 0) continue; /* half of them behind a ReLU */
        const size_t at = a->at + (size_t)o * (size_t)a->in;
        if (gradient != NULL) {
            for (int32_t i = 0; i < a->in; i++)
                gradient[at + (size_t)i] += d * x[i];
            gradient[bias_at(a) + (size_t)o] += d;
        }
        if (dx == NULL) continue;
        for (int32_t i = 0; i < a->in; i++)
            dx[i] += d * weights[at + (size_t)i];
    }
}

/* ---- three layers ------------------------------------------------------------------------------------------------ */

nas__mlp nas__mlp_at(size_t at, int32_t in, int32_t hidden) {
    nas__mlp net;
    net.layer[0] = (nas__affine){.at = at, .in = in, .out = hidden};
    net.layer[1] = (nas__affine){.at = nas__affine_end(&net.layer[0]), .in = hidden, .out = hidden};
    net.layer[2] = (nas__affine){.at = nas__affine_end(&net.layer[1]), .in = hidden, .out = 1};
    return net;
}

size_t nas__mlp_end(const nas__mlp *net) {
    return nas__affine_end(&net->layer[2]);
}

void nas__mlp_draw(const nas__mlp *net, nas_rng *rng, double *weights) {
    for (int i = 0; i < 3; i++)
        nas__affine_draw(&net->layer[i], rng, weights);
}

static void relu(double *x, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        x[i] = x[i] > 0 ? x[i] : 0;
}

double nas__mlp_forward(const nas__mlp *net, const double *weights, const double *x, double *acts) {
    const int32_t hidden = net->layer[0].out;
    double *first = acts, *second = acts + hidden;
    double y = 0;
    nas__affine_forward(&net->layer[0], weights, x, first);
    relu(first, hidden);
    nas__affine_forward(&net->layer[1], weights, first, second);
    relu(second, hidden);
    nas__affine_forward(&net->layer[2], weights, second, &y);
    return y;
}

void nas__mlp_backward(const nas__mlp *net, const double *weights, const double *x,
                       const double *acts, double d, double *gradient, double *dx,
                       double *scratch) {
    const int32_t hidden = net->layer[0].out;
    const double *first = acts, *second = acts + hidden;
    double *dfirst = scratch, *dsecond = scratch + hidden;
    memset(scratch, 0, 2 * (size_t)hidden * sizeof *scratch);
    nas__affine_backward(&net->layer[2], weights, second, &d, gradient, dsecond);
    for (int32_t i = 0; i < hidden; i++)
        dsecond[i] = second[i] > 0 ? dsecond[i] : 0;
    nas__affine_backward(&net->layer[1], weights, first, dsecond, gradient, dfirst);
    for (int32_t i = 0; i < hidden; i++)
        dfirst[i] = first[i] > 0 ? dfirst[i] : 0;
    nas__affine_backward(&net->layer[0], weights, x, dfirst, gradient, dx);
}
