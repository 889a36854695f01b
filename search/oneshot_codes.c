/* oneshot_codes.c - which values of a compressed network become codes, and with what grids. */
#include "search/oneshot_codes.h"
#include "ir/quantize.h"

#include <math.h>
#include <string.h>

enum { IMAGES_MAX = 256, EACH = 256, BITS = 8 };

void nas_oneshot_codes_deinit(nas_oneshot_codes *codes) {
    nas_free(codes->list);
    *codes = (nas_oneshot_codes){0};
}

/* ---- which values ------------------------------------------------------------------------------------------------------- */

typedef struct finder {
    const nas_graph *g;
    nas_value n;
    bool *coded;
    nas_value *shown;     /* of a value: itself, or the activation that is computed with it */
    nas_value *leader;    /* union-find over values with one grid */
    const bool *integers; /* [n] which convolutions have integer weights; NULL: those with scales */
} finder;

static bool is_clamp(const nas_node *node) {
    return node->op == NAS_OP_RELU || (node->op == NAS_OP_UNARY && node->unary == NAS_UNARY_CLIP);
}

/* The one reader of v, or NONE. */
static nas_value only_reader(const nas_graph *g, nas_value v) {
    nas_value reader = NAS_VALUE_NONE;
    for (nas_value r = v + 1; r < nas_graph_node_count(g); r++) {
        const nas_node *node = nas_graph_node(g, r);
        for (int32_t k = 0; k < node->n_inputs; k++) {
            if (node->inputs[k] != v) continue;
            if (reader != NAS_VALUE_NONE) return NAS_VALUE_NONE;
            reader = r;
        }
    }
    return nas_graph_output(g) == v ? NAS_VALUE_NONE : reader;
}

static nas_value shown_of(const nas_graph *g, nas_value v) {
    const nas_op op = nas_graph_node(g, v)->op;
    if (op != NAS_OP_CONV && op != NAS_OP_ADD) return v;
    const nas_value reader = only_reader(g, v);
    return reader != NAS_VALUE_NONE && is_clamp(nas_graph_node(g, reader)) ? reader : v;
}

static bool is_integer_conv(const nas_graph *g, const nas_node *node) {
    return node->op == NAS_OP_CONV && nas_graph_param_const(g, node->params[0])->scales != NULL;
}

static bool has_integers(const finder *f, nas_value v) {
    const nas_node *node = nas_graph_node(f->g, v);
    return f->integers == NULL ? is_integer_conv(f->g, node)
                               : node->op == NAS_OP_CONV && f->integers[v];
}

/* Operators that run on codes as soon as what they read and write has them. */
static bool passes_codes(const finder *f, const nas_node *node) {
    switch (node->op) {
    case NAS_OP_ADD:
    case NAS_OP_MUL:
    case NAS_OP_CONCAT:
        for (int32_t k = 0; k < node->n_inputs; k++) {
            const nas_op op = nas_graph_node(f->g, node->inputs[k])->op;
            if (op == NAS_OP_CONSTANT || op == NAS_OP_SOFTMAX) return false;
        }
        return true;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RELU: return true;
    case NAS_OP_UNARY: return node->unary == NAS_UNARY_CLIP;
    default: return false;
    }
}

/* True when something new is coded. */
static bool mark(const finder *f, nas_value v) {
    const bool fresh = !f->coded[f->shown[v]];
    f->coded[f->shown[v]] = true;
    return fresh;
}

static bool spread_once(const finder *f) {
    bool changed = false;
    for (nas_value v = 0; v < f->n; v++) {
        const nas_node *node = nas_graph_node(f->g, v);
        bool any = has_integers(f, v);
        const bool passes = !any && passes_codes(f, node);
        for (int32_t k = 0; passes && k < node->n_inputs; k++)
            any = any || f->coded[node->inputs[k]];
        const bool hidden = node->n_inputs == 1 && f->shown[node->inputs[0]] == v;
        if (!any || hidden) continue;
        changed = mark(f, v) || changed;
        for (int32_t k = 0; k < node->n_inputs; k++)
            changed = mark(f, node->inputs[k]) || changed;
    }
    return changed;
}

static nas_value leader_of(const finder *f, nas_value v) {
    while (f->leader[v] != v)
        v = f->leader[v];
    return v;
}

static void share_grids(const finder *f) {
    for (nas_value v = 0; v < f->n; v++) {
        const nas_node *node = nas_graph_node(f->g, v);
        if (node->op != NAS_OP_MAX_POOL && node->op != NAS_OP_CONCAT) continue;
        for (int32_t k = 0; k < node->n_inputs; k++) {
            const nas_value a = leader_of(f, v), b = leader_of(f, f->shown[node->inputs[k]]);
            f->leader[a > b ? a : b] = a > b ? b : a;
        }
    }
}

static nas_status check(nas_ctx *ctx, const nas_graph *g) {
    bool any = false;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        any = any || is_integer_conv(g, node);
        if (node->op == NAS_OP_BATCH_NORM)
            return nas_fail(
                ctx, NAS_ERR_UNSUPPORTED,
                "node '%s': a batch normalisation that is not folded into a convolution "
                "has no integers; export the model in inference mode",
                node->name);
    }
    if (any) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                    "activations of integers: no layer of '%s' has integer weights",
                    nas_graph_name(g));
}

/* ---- grids ---------------------------------------------------------------------------------------------------------------- */

/* Starts at 0 and may end anywhere: what a clip can narrow. */
static bool is_narrow(const nas_graph *g, nas_value v) {
    const nas_node *node = nas_graph_node(g, v);
    return node->op == NAS_OP_RELU || (node->op == NAS_OP_UNARY && node->unary == NAS_UNARY_CLIP &&
                                       node->alpha == 0 && node->beta > 0);
}

static bool follows(const nas_graph *g, nas_value v) {
    const nas_op op = nas_graph_node(g, v)->op;
    return op == NAS_OP_MAX_POOL || op == NAS_OP_CONCAT;
}

/* One grid for all values of `leader`, from their samples [n][each]. */
static nas_status fit(nas_ctx *ctx, const nas_graph *g, nas_oneshot_codes *codes, nas_value leader,
                      int32_t bits, const float *samples, size_t of_each, float *work) {
    size_t n = 0;
    if (bits < 2 || bits > BITS)
        return nas_fail(ctx, NAS_ERR_RANGE, "activations of %d bits: 2 to 8", (int)bits);
    bool narrow = true, is_output = false;
    nas_grid grid;
    for (size_t i = 0; i < codes->n; i++) {
        if (codes->list[i].leader != leader) continue;
        memcpy(work + n, samples + i * of_each, of_each * sizeof *work);
        n += of_each;
        narrow = narrow && (follows(g, codes->list[i].value) || is_narrow(g, codes->list[i].value));
        is_output = is_output || codes->list[i].value == nas_graph_output(g);
    }
    const nas_status status =
        nas_grid_calibrate(ctx, is_output ? NAS_CALIBRATION_MIN_MAX : NAS_CALIBRATION_MSE,
                           narrow ? bits : BITS, work, n, &grid);
    for (size_t i = 0; status == NAS_OK && i < codes->n; i++) {
        nas_oneshot_code *c = &codes->list[i];
        if (c->leader != leader) continue;
        c->bits = grid.bits;
        c->scale = grid.scale;
        c->zero_point = grid.zero_point;
    }
    return nas_wrap(ctx, status, "value '%s'", nas_graph_node(g, leader)->name);
}

static nas_status fit_all(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                          const int32_t *bits, nas_oneshot_codes *codes) {
    const nas_exec_options e = {.chunk = 8, .threads = o->options.threads};
    const size_t images = o->n_sample < IMAGES_MAX ? o->n_sample : IMAGES_MAX,
                 of_each = images * EACH;
    nas_value *values = nas_alloc_array(ctx, codes->n, sizeof *values);
    float *samples = nas_alloc_array(ctx, codes->n * of_each, sizeof *samples);
    float *work = nas_alloc_array(ctx, codes->n * of_each, sizeof *work);
    nas_status status = values == NULL || samples == NULL || work == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; status == NAS_OK && i < codes->n; i++)
        values[i] = codes->list[i].value;
    if (status == NAS_OK)
        status = nas_exec_samples(ctx, graph, &e, values, codes->n, images, EACH, o->sample_seed,
                                  nas__oneshot_read_sample, (void *)(uintptr_t)o, samples);
    for (size_t i = 0; status == NAS_OK && i < codes->n; i++) {
        if (o->note != NULL)
            o->note(o->note_arg, "grids of activations", (double)i + 1, (double)codes->n);
        if (codes->list[i].value == codes->list[i].leader || codes->list[i].bits == 0)
            status = fit(ctx, graph, codes, codes->list[i].leader, bits[codes->list[i].leader],
                         samples, of_each, work);
    }
    nas_free(work);
    nas_free(samples);
    nas_free(values);
    return status;
}

/* ---- weights of grouped convolutions ---------------------------------------------------------------------------------------- */

static nas_status round_grouped(nas_ctx *ctx, nas_graph *graph) {
    nas_status status = NAS_OK;
    for (nas_value v = 0; v < nas_graph_node_count(graph) && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(graph, v);
        if (node->op != NAS_OP_CONV || node->conv.groups == 1) continue;
        nas_param *p = nas_graph_param(graph, node->params[0]);
        if (p->scales != NULL) continue;
        const size_t n = p->count / (size_t)p->dims[0];
        float *scales = nas_alloc_array(ctx, (size_t)p->dims[0], sizeof *scales);
        if (scales == NULL) return NAS_ERR_NOMEM;
        for (int32_t o = 0; o < p->dims[0]; o++) {
            float *w = p->data + (size_t)o * n;
            scales[o] = nas_quant_weight_scale(w, n, BITS);
            const nas_grid grid = {.kind = NAS_GRID_SYMMETRIC, .bits = BITS, .scale = scales[o]};
            for (size_t i = 0; i < n; i++)
                w[i] = nas_grid_round(&grid, w[i]);
        }
        status = nas_graph_set_weight_scales(ctx, graph, node->params[0], BITS, scales);
        nas_free(scales);
    }
    return status;
}

/* ---- whole ------------------------------------------------------------------------------------------------------------------- */

static void finder_deinit(finder *f) {
    nas_free(f->coded);
    nas_free(f->shown);
    nas_free(f->leader);
}

/* Which values are coded, and which of them share a grid. Nothing is owed when it fails. */
static nas_status finder_init(nas_ctx *ctx, const nas_graph *graph, const bool *integers,
                              finder *out) {
    finder f = {.g = graph, .n = nas_graph_node_count(graph), .integers = integers};
    const size_t n = (size_t)f.n;
    f.coded = nas_alloc_array(ctx, n, sizeof *f.coded);
    f.shown = nas_alloc_array(ctx, n, sizeof *f.shown);
    f.leader = nas_alloc_array(ctx, n, sizeof *f.leader);
    if (f.coded == NULL || f.shown == NULL || f.leader == NULL) {
        finder_deinit(&f);
        return NAS_ERR_NOMEM;
    }
    for (nas_value v = 0; v < f.n; v++) {
        f.leader[v] = v;
        f.shown[v] = shown_of(f.g, v);
    }
    while (spread_once(&f)) {
    }
    share_grids(&f);
    *out = f;
    return NAS_OK;
}

static nas_status list_values(nas_ctx *ctx, const finder *f, nas_oneshot_codes *out) {
    out->list = nas_alloc_array(ctx, (size_t)f->n, sizeof *out->list);
    if (out->list == NULL) return NAS_ERR_NOMEM;
    for (nas_value v = 0; v < f->n; v++) {
        if (!f->coded[v]) continue;
        out->list[out->n++] = (nas_oneshot_code){.value = v, .leader = leader_of(f, v)};
    }
    return NAS_OK;
}

nas_status nas_oneshot_codes_find_each(nas_ctx *ctx, const nas_oneshot *o, nas_graph *graph,
                                       const int32_t *bits, nas_oneshot_codes *out) {
    nas_oneshot_codes codes = {0};
    nas_status status = check(ctx, graph);
    if (status == NAS_OK) status = round_grouped(ctx, graph);
    finder f = {0};
    if (status == NAS_OK) status = finder_init(ctx, graph, NULL, &f);
    if (status != NAS_OK) return status;
    status = list_values(ctx, &f, &codes);
    if (status == NAS_OK) status = fit_all(ctx, o, graph, bits, &codes);
    finder_deinit(&f);
    if (status != NAS_OK) {
        nas_oneshot_codes_deinit(&codes);
        return nas_wrap(ctx, status, "activations of integers");
    }
    *out = codes;
    return NAS_OK;
}

nas_status nas_oneshot_codes_find(nas_ctx *ctx, const nas_oneshot *o, nas_graph *graph,
                                  int32_t bits, nas_oneshot_codes *out) {
    const size_t n = (size_t)nas_graph_node_count(graph);
    int32_t *all = nas_alloc_array(ctx, n, sizeof *all);
    if (all == NULL) return NAS_ERR_NOMEM;
    for (size_t v = 0; v < n; v++)
        all[v] = bits;
    const nas_status status = nas_oneshot_codes_find_each(ctx, o, graph, all, out);
    nas_free(all);
    return status;
}

static void list_narrow(const finder *f, bool *wide, nas_value *leader) {
    for (nas_value v = 0; v < f->n; v++) /* one wide value makes the grid of all wide */
        wide[leader_of(f, v)] =
            wide[leader_of(f, v)] || (f->coded[v] && !follows(f->g, v) && !is_narrow(f->g, v));
    for (nas_value v = 0; v < f->n; v++)
        leader[v] = f->coded[v] && !wide[leader_of(f, v)] ? leader_of(f, v) : NAS_VALUE_NONE;
}

nas_status nas_oneshot_codes_narrow(nas_ctx *ctx, const nas_graph *graph, const bool *integers,
                                    nas_value *leader) {
    const size_t n = (size_t)nas_graph_node_count(graph);
    bool *all = nas_alloc_array(ctx, n, sizeof *all), *wide = nas_alloc_array(ctx, n, sizeof *wide);
    finder f = {0};
    nas_status status = all == NULL || wide == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) {
        memset(all, 1, n);
        status = finder_init(ctx, graph, integers != NULL ? integers : all, &f);
    }
    if (status == NAS_OK) {
        list_narrow(&f, wide, leader);
        finder_deinit(&f);
    }
    nas_free(wide);
    nas_free(all);
    return status;
}

nas_status nas_oneshot_codes_inputs(nas_ctx *ctx, const nas_oneshot *o, const bool *integers,
                                    int32_t act_bits, int32_t *bits) {
    const size_t n = (size_t)nas_graph_node_count(o->model);
    bool *all = nas_alloc_array(ctx, n, sizeof *all);
    nas_value *leader = nas_alloc_array(ctx, n, sizeof *leader);
    nas_status status = all == NULL || leader == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (nas_value v = 0; status == NAS_OK && v < (nas_value)n; v++) {
        const nas_node *node = nas_graph_node(o->model, v);
        all[v] = node->op == NAS_OP_CONV && node->conv.groups > 1;
    }
    for (size_t i = 0; status == NAS_OK && i < o->n_layers; i++)
        all[o->layers[i]] = integers[i];
    if (status == NAS_OK) status = nas_oneshot_codes_narrow(ctx, o->model, all, leader);
    for (size_t i = 0; status == NAS_OK && i < o->n_layers; i++) {
        const nas_value input = nas_graph_node(o->model, o->layers[i])->inputs[0];
        bits[i] = leader[input] != NAS_VALUE_NONE ? act_bits : BITS;
    }
    nas_free(leader);
    nas_free(all);
    return status;
}

static const nas_oneshot_code *code_of(const nas_oneshot_codes *codes, nas_value v) {
    for (size_t i = 0; i < codes->n; i++) {
        if (codes->list[i].value == v) return &codes->list[i];
    }
    return NULL;
}

static nas_node coded_node(const nas_node *node, const nas_oneshot_code *c) {
    nas_node proto = *node;
    if (c == NULL || c->bits == BITS || !is_clamp(node)) return proto;
    const float top = c->scale * (float)((1 << c->bits) - 1);
    proto.beta = node->op == NAS_OP_RELU ? top : fminf(node->beta, top);
    proto.alpha = 0;
    proto.op = NAS_OP_UNARY;
    proto.unary = NAS_UNARY_CLIP;
    return proto;
}

static nas_status copy_params(nas_ctx *ctx, const nas_graph *from, nas_graph *to) {
    nas_status status = nas_graph_alloc_weights(ctx, to);
    for (int32_t k = 0; k < nas_graph_param_count(from) && status == NAS_OK; k++) {
        const nas_param *p = nas_graph_param_const(from, k);
        memcpy(nas_graph_param(to, k)->data, p->data, p->count * sizeof *p->data);
        if (p->scales != NULL) status = nas_graph_set_weight_scales(ctx, to, k, p->bits, p->scales);
    }
    return status;
}

nas_status nas_oneshot_codes_apply(nas_ctx *ctx, const nas_graph *graph,
                                   const nas_oneshot_codes *codes, nas_graph **out) {
    nas_graph *made = nas_graph_new(ctx, nas_graph_name(graph));
    nas_status status = made == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (nas_value v = 0; v < nas_graph_node_count(graph) && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(graph, v);
        const nas_oneshot_code *c = code_of(codes, v);
        const nas_node proto = coded_node(node, c);
        nas_value same = 0;
        status = nas_graph_add_node(ctx, made, node->name, &proto, &same);
        if (status == NAS_OK && c != NULL)
            status = nas_graph_set_quant(
                ctx, made, same,
                (nas_quant){.is_set = true, .scale = c->scale, .zero_point = c->zero_point});
    }
    if (status == NAS_OK) status = nas_graph_set_output(ctx, made, nas_graph_output(graph));
    if (status == NAS_OK) status = copy_params(ctx, graph, made);
    if (status == NAS_OK) status = nas_graph_verify(ctx, made);
    if (status != NAS_OK) {
        nas_graph_free(made);
        return nas_wrap(ctx, status, "network of integers");
    }
    *out = made;
    return NAS_OK;
}
