/* weights_init.c - first values of a weight store.
 *
 * He normal (He et al., arXiv:1502.01852), with three exceptions that make short trainings count: the last
 * convolution of a residual branch is scaled by 1/sqrt(branches), so that a deep body starts near the identity; a
 * convolution straight from the image to the pixel shuffle starts as bicubic interpolation; and the tail beside it
 * starts small, so that the whole net starts as bicubic upscaling and learns what is missing. */
#include "eval/weights_internal.h"

#include <math.h>
#include <string.h>

enum role { ROLE_PLAIN, ROLE_BRANCH_END, ROLE_IMAGE_SKIP, ROLE_TAIL };

static const double tail_gain = 0.01;
static const double linear_gain = 1.0; /* no ReLU behind it: variance 1/fan_in keeps the scale */

static bool is_op(const nas_graph *g, nas_value v, nas_op op) {
    return v >= 0 && nas_graph_node(g, v)->op == op;
}

/* The graph and one mark a node. */
typedef struct survey {
    const nas_graph *g;
    uint8_t *reached;
} survey;

/* Is `from` an ancestor of v? Nodes are in topological order. */
static bool depends_on(const survey *s, nas_value v, nas_value from) {
    if (v < from) return false;
    memset(s->reached, 0, (size_t)nas_graph_node_count(s->g));
    s->reached[from] = 1;
    for (nas_value u = from + 1; u <= v; u++) {
        const nas_node *n = nas_graph_node(s->g, u);
        for (int32_t i = 0; i < n->n_inputs; i++)
            s->reached[u] |= s->reached[n->inputs[i]];
    }
    return s->reached[v] != 0;
}

/* v is the input image, perhaps with a constant added. */
static bool is_image(const nas_graph *g, nas_value v) {
    while (is_op(g, v, NAS_OP_ADD_SCALAR))
        v = nas_graph_node(g, v)->inputs[0];
    return is_op(g, v, NAS_OP_INPUT);
}

/* The value that the final pixel shuffle spreads; its factor in *block. NONE when the net does not end in one. */
static nas_value before_shuffle(const nas_graph *g, int32_t *block) {
    nas_value v = nas_graph_output(g);
    while (is_op(g, v, NAS_OP_ADD_SCALAR))
        v = nas_graph_node(g, v)->inputs[0];
    if (!is_op(g, v, NAS_OP_DEPTH_TO_SPACE)) return NAS_VALUE_NONE;
    *block = nas_graph_node(g, v)->block;
    return nas_graph_node(g, v)->inputs[0];
}

/* The other operand of an add that v ends a residual branch of, NONE when v is no such end: the branch starts at
 * that operand. */
static nas_value branch_start(const survey *s, nas_value v) {
    const nas_graph *g = s->g;
    for (nas_value a = v + 1; a < nas_graph_node_count(g); a++) {
        const nas_node *n = nas_graph_node(g, a);
        if (n->op != NAS_OP_ADD) continue;
        for (int32_t i = 0; i < 2; i++) {
            const nas_value other = n->inputs[1 - i];
            if (n->inputs[i] == v && other != v && depends_on(s, v, other)) return other;
        }
    }
    return NAS_VALUE_NONE;
}

static int32_t count_branches(const survey *s) {
    int32_t n = 0;
    for (nas_value v = 0; v < nas_graph_node_count(s->g); v++) {
        if (is_op(s->g, v, NAS_OP_CONV) && branch_start(s, v) >= 0) n++;
    }
    return n;
}

static enum role role_of(const survey *s, nas_value v) {
    const nas_graph *g = s->g;
    int32_t block = 0;
    const nas_value last = before_shuffle(g, &block);
    if (is_op(g, last, NAS_OP_ADD)) {
        const nas_node *sum = nas_graph_node(g, last);
        for (int32_t i = 0; i < 2; i++) {
            const nas_value other = sum->inputs[1 - i];
            const bool beside_skip =
                is_op(g, other, NAS_OP_CONV) && is_image(g, nas_graph_node(g, other)->inputs[0]);
            if (sum->inputs[i] != v) continue;
            if (is_image(g, nas_graph_node(g, v)->inputs[0])) return ROLE_IMAGE_SKIP;
            if (beside_skip) return ROLE_TAIL;
        }
    }
    return branch_start(s, v) >= 0 ? ROLE_BRANCH_END : ROLE_PLAIN;
}

static bool feeds_relu(const nas_graph *g, nas_value v) {
    for (nas_value u = v + 1; u < nas_graph_node_count(g); u++) {
        const nas_node *n = nas_graph_node(g, u);
        if ((n->op == NAS_OP_RELU || n->op == NAS_OP_PRELU) && n->inputs[0] == v) return true;
    }
    return false;
}

static void fill_normal(nas__weight *w, double gain, nas_rng *rng) {
    const double fan_in = (double)w->dims[1] * (double)w->dims[2] * (double)w->dims[3];
    const double deviation = gain / sqrt(fan_in);
    for (size_t i = 0; i < w->count; i++)
        w->value[i] = (float)(deviation * nas_rng_normal(rng));
}

/* Keys' cubic kernel, a = -0.5. */
static double cubic(double x) {
    x = fabs(x);
    if (x >= 2.0) return 0.0;
    if (x >= 1.0) return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0;
    return (1.5 * x - 2.5) * x * x + 1.0;
}

/* One axis: taps of the sample that lies (phase + 0.5)/block - 0.5 pixels from the window's centre; taps outside the
 * window are dropped and the rest scaled to sum one. */
static void cubic_taps(int32_t size, int32_t block, int32_t phase, double *taps) {
    const double at = (phase + 0.5) / block - 0.5;
    double sum = 0.0;
    for (int32_t k = 0; k < size; k++) {
        taps[k] = cubic(k - size / 2 - at);
        sum += taps[k];
    }
    for (int32_t k = 0; k < size; k++)
        taps[k] /= sum;
}

enum { AXIS_MAX = 64 };

/* Output channel c*r*r + i*r + j is phase (i, j) of image channel c. */
static void fill_bicubic(nas__weight *w, int32_t block) {
    double rows[AXIS_MAX], columns[AXIS_MAX];
    memset(w->value, 0, w->count * sizeof *w->value);
    for (int32_t o = 0; o < w->dims[0]; o++) {
        const int32_t image_channel = o / (block * block);
        if (image_channel >= w->dims[3]) continue;
        cubic_taps(w->dims[1], block, o / block % block, rows);
        cubic_taps(w->dims[2], block, o % block, columns);
        for (int32_t y = 0; y < w->dims[1]; y++) {
            for (int32_t x = 0; x < w->dims[2]; x++) {
                const size_t at = ((size_t)(o * w->dims[1] + y) * (size_t)w->dims[2] + (size_t)x) *
                                  (size_t)w->dims[3];
                w->value[at + (size_t)image_channel] = (float)(rows[y] * columns[x]);
            }
        }
    }
}

static void fill_conv(const survey *s, nas_value v, int32_t branches, nas__weight *w,
                      nas_rng *rng) {
    int32_t block = 1;
    const double gain = feeds_relu(s->g, v) ? sqrt(2.0) : linear_gain;
    switch (role_of(s, v)) {
    case ROLE_PLAIN: fill_normal(w, gain, rng); return;
    case ROLE_BRANCH_END: fill_normal(w, gain / sqrt((double)branches), rng); return;
    case ROLE_TAIL: fill_normal(w, gain * tail_gain, rng); return;
    case ROLE_IMAGE_SKIP:
        (void)before_shuffle(s->g, &block);
        if (w->dims[1] <= AXIS_MAX && w->dims[2] <= AXIS_MAX) {
            fill_bicubic(w, block);
        } else {
            fill_normal(w, gain, rng);
        }
        return;
    }
}

nas_status nas__weights_initialise(nas_ctx *ctx, nas_weights *weights, const nas_graph *graph,
                                   nas_rng *rng) {
    const size_t n_nodes = (size_t)nas_graph_node_count(graph);
    const survey s = {.g = graph, .reached = nas_alloc_array(ctx, n_nodes, 1)};
    if (s.reached == NULL) return NAS_ERR_NOMEM;
    const int32_t branches = count_branches(&s);
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const nas_node *n = nas_graph_node(graph, v);
        if (n->op == NAS_OP_CONV) fill_conv(&s, v, branches, &weights->items[n->params[0]], rng);
        if (n->op != NAS_OP_PRELU) continue;
        nas__weight *slope = &weights->items[n->params[0]];
        for (size_t i = 0; i < slope->count; i++)
            slope->value[i] = 0.25f;
    }
    nas_free(s.reached);
    return NAS_OK;
}
