/* encoder.c - one graph convolution over the network and an LSTM along its decisions, forward and backward. */
#include "search/strategies/policy_internal.h"

#include <math.h>
#include <string.h>

/* X with each node replaced by the normalised sum over itself and its neighbours. */
static nas_status smooth(nas_ctx *ctx, const nas_space_steps *steps, double *out) {
    const int32_t n = steps->n_nodes, f = steps->n_node_features;
    double *scale =
        nas_alloc_array(ctx, (size_t)n, sizeof *scale); /* degree, then its -1/2 power */
    if (scale == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < n; i++)
        scale[i] = 1;
    for (int32_t e = 0; e < steps->n_edges; e++) {
        scale[steps->edges[e][0]] += 1;
        scale[steps->edges[e][1]] += 1;
    }
    for (int32_t i = 0; i < n; i++)
        scale[i] = 1 / sqrt(scale[i]);
    for (int32_t e = -n; e < steps->n_edges; e++) { /* the loops first */
        const int32_t a = e < 0 ? e + n : steps->edges[e][0];
        const int32_t b = e < 0 ? a : steps->edges[e][1];
        const double weight = scale[a] * scale[b];
        for (int32_t i = 0; i < f; i++) {
            out[(ptrdiff_t)a * f + i] += weight * (double)steps->nodes[(ptrdiff_t)b * f + i];
            if (a != b)
                out[(ptrdiff_t)b * f + i] += weight * (double)steps->nodes[(ptrdiff_t)a * f + i];
        }
    }
    nas_free(scale);
    return NAS_OK;
}

nas_status nas__graphcoder_init(nas_ctx *ctx, const nas_space_steps *steps, int32_t width,
                                size_t at, nas__encoder *out) {
    nas__encoder e = {.n_nodes = steps->n_nodes,
                      .n_features = steps->n_node_features,
                      .width = width,
                      .n_steps = steps->n_steps,
                      .node_of = steps->node_of};
    e.gcn = (nas__affine){.at = at, .in = e.n_features, .out = width};
    e.gates = (nas__affine){.at = nas__affine_end(&e.gcn), .in = 3 * width + 1, .out = 4 * width};
    e.smoothed = nas_alloc_array(ctx, (size_t)(e.n_nodes * e.n_features), sizeof *e.smoothed);
    nas_status status = e.smoothed == NULL ? NAS_ERR_NOMEM : smooth(ctx, steps, e.smoothed);
    *out = e;
    if (status != NAS_OK) nas__graphcoder_deinit(out);
    return status;
}

void nas__graphcoder_deinit(nas__encoder *e) {
    nas_free(e->smoothed);
    e->smoothed = NULL;
}

size_t nas__graphcoder_end(const nas__encoder *e) {
    return nas__affine_end(&e->gates);
}

void nas__graphcoder_draw(const nas__encoder *e, nas_rng *rng, double *weights) {
    nas__affine_draw(&e->gcn, rng, weights);
    nas__affine_draw(&e->gates, rng, weights);
}

nas_status nas__trace_init(nas_ctx *ctx, const nas__encoder *e, nas__trace *out) {
    const size_t width = (size_t)e->width, steps = (size_t)e->n_steps, nodes = (size_t)e->n_nodes;
    nas__trace t = {0};
    t.embedding = nas_alloc_array(ctx, nodes * width, sizeof(double));
    t.mean = nas_alloc_array(ctx, width, sizeof(double));
    t.input = nas_alloc_array(ctx, steps * (3 * width + 1), sizeof(double));
    t.gate = nas_alloc_array(ctx, steps * 4 * width, sizeof(double));
    t.cell = nas_alloc_array(ctx, steps * width, sizeof(double));
    t.hidden = nas_alloc_array(ctx, steps * width, sizeof(double));
    t.scratch = nas_alloc_array(ctx, nodes * width + 9 * width + 1, sizeof(double));
    *out = t;
    if (t.embedding != NULL && t.mean != NULL && t.input != NULL && t.gate != NULL &&
        t.cell != NULL && t.hidden != NULL && t.scratch != NULL)
        return NAS_OK;
    nas__trace_deinit(out);
    return NAS_ERR_NOMEM;
}

void nas__trace_deinit(nas__trace *t) {
    nas_free(t->embedding);
    nas_free(t->mean);
    nas_free(t->input);
    nas_free(t->gate);
    nas_free(t->cell);
    nas_free(t->hidden);
    nas_free(t->scratch);
    *t = (nas__trace){0};
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

void nas__graphcoder_begin(const nas__encoder *e, const double *weights, nas__trace *t) {
    const int32_t width = e->width;
    memset(t->mean, 0, (size_t)width * sizeof *t->mean);
    for (int32_t n = 0; n < e->n_nodes; n++) {
        double *h = t->embedding + (ptrdiff_t)n * width;
        nas__affine_forward(&e->gcn, weights, e->smoothed + (ptrdiff_t)n * e->n_features, h);
        for (int32_t i = 0; i < width; i++) {
            h[i] = h[i] > 0 ? h[i] : 0;
            t->mean[i] += h[i] / e->n_nodes;
        }
    }
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

void nas__graphcoder_step(const nas__encoder *e, const double *weights, int32_t step, double action,
                          nas__trace *t) {
    const ptrdiff_t width = e->width;
    const size_t bytes = (size_t)width * sizeof(double);
    double *input = t->input + step * (3 * width + 1), *gate = t->gate + step * 4 * width;
    double *cell = t->cell + step * width, *hidden = t->hidden + step * width;
    memcpy(input, t->embedding + e->node_of[step] * width, bytes);
    memcpy(input + width, t->mean, bytes);
    input[2 * width] = action;
    if (step > 0) {
        memcpy(input + 2 * width + 1, hidden - width, bytes);
    } else {
        memset(input + 2 * width + 1, 0, bytes);
    }
    nas__affine_forward(&e->gates, weights, input, gate);
    for (ptrdiff_t i = 0; i < width; i++) {
        for (int g = 0; g < 3; g++)
            gate[g * width + i] = sigmoid(gate[g * width + i]);
        gate[3 * width + i] = tanh(gate[3 * width + i]);
        const double before = step > 0 ? cell[i - width] : 0;
        cell[i] = gate[width + i] * before + gate[i] * gate[3 * width + i];
        hidden[i] = gate[2 * width + i] * tanh(cell[i]);
    }
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* Derivatives by the gates' sums from those by hidden and (carried back in dcell) cell. */
static void gates_backward(const nas__encoder *e, const nas__trace *t, int32_t step,
                           const double *dhidden, double *dcell, double *dgate) {
    const ptrdiff_t width = e->width;
    const double *gate = t->gate + step * 4 * width, *cell = t->cell + step * width;
    for (ptrdiff_t i = 0; i < width; i++) {
        const double in = gate[i], forget = gate[width + i], out = gate[2 * width + i],
                     candidate = gate[3 * width + i];
        const double squashed = tanh(cell[i]);
        const double before = step > 0 ? cell[i - width] : 0;
        const double d = dcell[i] + dhidden[i] * out * (1 - squashed * squashed);
        dgate[i] = d * candidate * in * (1 - in);
        dgate[width + i] = d * before * forget * (1 - forget);
        dgate[2 * width + i] = dhidden[i] * squashed * out * (1 - out);
        dgate[3 * width + i] = d * in * (1 - candidate * candidate);
        dcell[i] = d * forget;
    }
}

void nas__graphcoder_backward(const nas__encoder *e, const double *weights, nas__trace *t,
                              double *dhidden, double *gradient) {
    const ptrdiff_t width = e->width, in = 3 * width + 1;
    double *dembedding = t->scratch, *dmean = dembedding + e->n_nodes * width;
    double *dcell = dmean + width, *dgate = dcell + width, *dinput = dgate + 4 * width;
    memset(t->scratch, 0, (size_t)(e->n_nodes * width + 9 * width + 1) * sizeof *t->scratch);
    for (int32_t step = e->n_steps - 1; step >= 0; step--) {
        gates_backward(e, t, step, dhidden + step * width, dcell, dgate);
        memset(dinput, 0, (size_t)in * sizeof *dinput);
        nas__affine_backward(&e->gates, weights, t->input + step * in, dgate, gradient, dinput);
        double *dnode = dembedding + e->node_of[step] * width;
        for (ptrdiff_t i = 0; i < width; i++) {
            dnode[i] += dinput[i];
            dmean[i] += dinput[width + i];
            if (step > 0) dhidden[(step - 1) * width + i] += dinput[2 * width + 1 + i];
        }
    }
    for (int32_t n = 0; n < e->n_nodes; n++) {
        double *d = dembedding + n * width;
        for (ptrdiff_t i = 0; i < width; i++) {
            const bool alive = t->embedding[n * width + i] > 0;
            d[i] = alive ? d[i] + dmean[i] / e->n_nodes : 0;
        }
        nas__affine_backward(&e->gcn, weights, e->smoothed + (ptrdiff_t)n * e->n_features, d,
                             gradient, NULL);
    }
}
