/* compress_level_list.c - what each layer of a network may become, and what that costs. A pattern is offered where its groups fit
 * the layer without a rest; costs follow from shapes, bits and rates alone, so that they are known before anything is
 * compressed. */
#include "search/compress_levels.h"
#include "search/oneshot_codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FLOAT_BITS = 32,
    EDGE_BITS = 8,
    CODE_BITS = 8,
    FORMS_MAX = NAS__CHOICES_MAX * NAS__CHOICES_MAX + 1
};

typedef struct form {
    bool is_sparse;
    nas_sparsity sparsity;
    char text[NAS__LEVEL_TEXT_MAX];
    uint64_t kept;
    double gain;
} form;

typedef struct builder {
    nas_ctx *ctx;
    const nas_config *config;
    const nas_graph *graph;
    const nas__sparse_judge *judge;
    nas__choices choices;
    nas_graph *work; /* weights of a layer become its mask */
    uint8_t *mask;
    bool *narrow; /* [nodes] values that may have fewer than 8 bits */
    nas__level_list *list;
} builder;

/* ---- layers ------------------------------------------------------------------------------------------------------------- */

/* behind[v]: some convolution lies before the value; before[v]: some convolution lies behind it. */
static void find_edges(const nas_graph *g, bool *behind, bool *before) {
    const nas_value n = nas_graph_node_count(g);
    for (nas_value v = 0; v < n; v++) {
        const nas_node *node = nas_graph_node(g, v);
        for (int32_t i = 0; i < node->n_inputs; i++)
            behind[v] = behind[v] || behind[node->inputs[i]] ||
                        nas_graph_node(g, node->inputs[i])->op == NAS_OP_CONV;
    }
    for (nas_value v = n; v-- > 0;) {
        const nas_node *node = nas_graph_node(g, v);
        for (int32_t i = 0; i < node->n_inputs; i++)
            before[node->inputs[i]] =
                before[node->inputs[i]] || before[v] || node->op == NAS_OP_CONV;
    }
}

/* Bits of the values that a convolution reads: those of nas_oneshot_codes_find. */
static int32_t input_bits(const builder *b, nas_value conv) {
    const int32_t bits = b->config->compress.act_bits;
    if (bits == 0) return FLOAT_BITS;
    return b->narrow[nas_graph_node(b->graph, conv)->inputs[0]] ? bits : CODE_BITS;
}

static nas_status list_layers(builder *b) {
    const nas_value n = nas_graph_node_count(b->graph);
    bool *behind = nas_alloc_array(b->ctx, (size_t)n, sizeof *behind);
    bool *before = nas_alloc_array(b->ctx, (size_t)n, sizeof *before);
    nas__level_list *list = b->list;
    list->layers = nas_alloc_array(b->ctx, (size_t)n, sizeof *list->layers);
    const bool good = behind != NULL && before != NULL && list->layers != NULL;
    if (good) find_edges(b->graph, behind, before);
    for (nas_value v = 0; good && v < n; v++) {
        const nas_node *node = nas_graph_node(b->graph, v);
        if (node->op != NAS_OP_CONV || node->conv.groups != 1) continue;
        list->layers[list->n_layers++] =
            (nas__level_layer){.conv = v,
                               .weights = nas_graph_param_const(b->graph, node->params[0])->count,
                               .is_edge = !behind[v] || !before[v]};
    }
    nas_free(behind);
    nas_free(before);
    if (!good) return NAS_ERR_NOMEM;
    if (list->n_layers > 0) return NAS_OK;
    return nas_fail(b->ctx, NAS_ERR_UNSUPPORTED,
                    "model '%s' has no convolution in one group and no fully connected layer: "
                    "there is nothing to compress",
                    nas_graph_name(b->graph));
}

/* ---- forms -------------------------------------------------------------------------------------------------------------- */

/* Groups without a rest. */
static bool fits(nas_ctx *ctx, const nas_sparsity *s, const int32_t dims[4]) {
    const int32_t out = dims[0], in = dims[3];
    bool whole = true;
    switch (s->pattern) {
    case NAS_SPARSITY_1XN: whole = out % s->n == 0; break;
    case NAS_SPARSITY_N_OF_M: whole = in % s->group == 0 && out % s->outputs == 0; break;
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED: whole = out % s->outputs == 0 && in % s->inputs == 0; break;
    case NAS_SPARSITY_PATTERN:
    case NAS_SPARSITY_COMPLEMENTARY: whole = out % s->outputs == 0; break;
    case NAS_SPARSITY_PERIODIC: whole = in % s->period == 0; break;
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    if (!whole) return false;
    const bool legal = nas_sparsity_check(ctx, s, dims, 1) == NAS_OK;
    if (!legal) nas_ctx_clear(ctx);
    return legal;
}

static nas_status add_form(builder *b, const nas__level_layer *layer,
                           const nas__pattern_choice *pattern, double rate, form *forms,
                           int32_t *n) {
    const nas_param *weight =
        nas_graph_param_const(b->graph, nas_graph_node(b->graph, layer->conv)->params[0]);
    form f = {.is_sparse = true, .sparsity = pattern->sparsity, .gain = NAN};
    f.sparsity.rate = rate;
    if (pattern->has_rate) {
        (void)snprintf(f.text, sizeof f.text, "%s@%g", pattern->text, rate);
    } else {
        (void)snprintf(f.text, sizeof f.text, "%s", pattern->text);
    }
    if (!fits(b->ctx, &f.sparsity, weight->dims)) return NAS_OK;
    const nas_status status =
        nas_sparsity_mask(b->ctx, &f.sparsity, weight->data, weight->dims, b->mask);
    for (size_t i = 0; status == NAS_OK && i < weight->count; i++)
        f.kept += b->mask[i];
    if (status == NAS_OK && f.kept < layer->weights) forms[(*n)++] = f;
    return status;
}

/* Those by which the device does not gain go; the gains of the others are kept. */
static nas_status judge_forms(builder *b, nas_value conv, form *forms, int32_t *n) {
    nas__level_list *list = b->list;
    int32_t kept = 0;
    for (int32_t i = 0; i < *n; i++) {
        nas_db_sparse_answer a = {0};
        bool use = true;
        nas_status status = NAS_OK;
        list->asked++;
        if (b->judge != NULL && b->judge->db != NULL) {
            status = nas__sparse_gain_of(b->ctx, b->judge, b->graph, conv, &forms[i].sparsity, &a);
            if (status == NAS_OK)
                status = nas__sparse_drop(b->ctx, b->judge, b->graph, conv, &forms[i].sparsity, 1,
                                          &use, &list->dropped);
        }
        if (status != NAS_OK) return status;
        list->unmeasured += !a.known;
        if (a.known) forms[i].gain = a.gain;
        if (use) forms[kept++] = forms[i];
    }
    *n = kept;
    return NAS_OK;
}

static int by_kept(const void *a, const void *b) {
    const form *x = a, *y = b;
    if (x->kept != y->kept) return x->kept < y->kept ? -1 : 1;
    return strcmp(x->text, y->text);
}

static nas_status list_forms(builder *b, const nas__level_layer *layer, form *forms, int32_t *n) {
    const nas__choices *c = &b->choices;
    const bool dense_alone = layer->is_edge && b->config->compress.keep_edges;
    nas_status status = NAS_OK;
    *n = 0;
    for (int32_t p = 0; p < c->n_patterns && !dense_alone; p++) {
        const int32_t rates = c->patterns[p].has_rate ? c->n_rates : 1;
        for (int32_t r = 0; r < rates && status == NAS_OK; r++)
            status = add_form(b, layer, &c->patterns[p], c->patterns[p].has_rate ? c->rates[r] : 0,
                              forms, n);
    }
    if (status == NAS_OK) status = judge_forms(b, layer->conv, forms, n);
    if (*n > 1) qsort(forms, (size_t)*n, sizeof *forms, by_kept);
    forms[*n] = (form){.text = "dense", .kept = layer->weights, .gain = 1};
    (*n)++;
    return status;
}

/* ---- levels --------------------------------------------------------------------------------------------------------------- */

/* Level of a form that the mask in b->work stands for. */
static nas_status add_level(builder *b, const nas__level_layer *layer, const form *f,
                            int32_t bits) {
    nas__level_list *list = b->list;
    const nas_node *node = nas_graph_node(b->graph, layer->conv);
    nas__level l = {.scheme = nas_layer_scheme_default(), .kept = f->kept, .gain = f->gain};
    uint64_t bytes = 0;
    l.scheme.is_sparse = f->is_sparse;
    l.scheme.sparsity = f->sparsity;
    l.scheme.bits = bits == FLOAT_BITS ? 0 : bits;
    nas_status status = nas_layer_bytes(b->ctx, b->work, layer->conv, &l.scheme, &bytes);
    if (status == NAS_OK)
        status = nas_grow(b->ctx, &list->levels, &list->cap_levels, list->n_levels + 1,
                          sizeof *list->levels);
    if (status != NAS_OK) return status;
    const double macs = (double)f->kept * node->shape.h * node->shape.w;
    l.costs[NAS_LEVEL_BYTES] = (double)bytes;
    l.costs[NAS_LEVEL_MACS] = macs;
    l.costs[NAS_LEVEL_BOPS] = macs * bits * input_bits(b, layer->conv);
    l.costs[NAS_LEVEL_PARAMS] = (double)f->kept;
    const char *space = b->config->compress.space;
    if (!nas__space_has_bits(space)) {
        (void)snprintf(l.text, sizeof l.text, "%s", f->text);
    } else if (!nas__space_has_patterns(space)) {
        (void)snprintf(l.text, sizeof l.text, "%d", (int)bits);
    } else {
        (void)snprintf(l.text, sizeof l.text, "%s/%d", f->text, (int)bits);
    }
    list->levels[list->n_levels++] = l;
    return NAS_OK;
}

/* Ones where weights stay. */
static nas_status put_mask(builder *b, const nas__level_layer *layer, const form *f) {
    const int32_t index = nas_graph_node(b->graph, layer->conv)->params[0];
    const nas_param *weight = nas_graph_param_const(b->graph, index);
    float *ones = nas_graph_param(b->work, index)->data;
    nas_status status = NAS_OK;
    memset(b->mask, 1, weight->count);
    if (f->is_sparse)
        status = nas_sparsity_mask(b->ctx, &f->sparsity, weight->data, weight->dims, b->mask);
    for (size_t i = 0; i < weight->count; i++)
        ones[i] = b->mask[i];
    return status;
}

static nas_status list_levels(builder *b, nas__level_layer *layer) {
    const nas__choices *c = &b->choices;
    const bool edge = layer->is_edge && b->config->compress.keep_edges;
    static const int32_t floats[] = {FLOAT_BITS}, eight[] = {EDGE_BITS};
    const int32_t *bits = c->n_bits == 0 ? floats : edge ? eight : c->bits;
    form forms[FORMS_MAX];
    layer->first = b->list->n_levels;
    layer->n_bits = c->n_bits == 0 || edge ? 1 : c->n_bits;
    nas_status status = list_forms(b, layer, forms, &layer->n_forms);
    for (int32_t f = 0; f < layer->n_forms && status == NAS_OK; f++) {
        status = put_mask(b, layer, &forms[f]);
        for (int32_t k = 0; k < layer->n_bits && status == NAS_OK; k++)
            status = add_level(b, layer, &forms[f], bits[k]);
    }
    return nas_wrap(b->ctx, status, "layer '%s'", nas_graph_node(b->graph, layer->conv)->name);
}

/* What grouped convolutions save by the 8-bit weights that they get with activations of integers. */
static void count_grouped(const builder *b, double fixed[NAS_LEVEL_COSTS]) {
    for (nas_value v = 0; v < nas_graph_node_count(b->graph); v++) {
        const nas_node *node = nas_graph_node(b->graph, v);
        if (b->config->compress.act_bits == 0 || node->op != NAS_OP_CONV || node->conv.groups == 1)
            continue;
        const nas_param *p = nas_graph_param_const(b->graph, node->params[0]);
        const double macs = (double)nas_graph_node_cost(b->graph, v).macs;
        fixed[NAS_LEVEL_BYTES] -=
            (double)p->count * (NAS_WEIGHT_BYTES_EACH - 1) - (double)p->dims[0] * sizeof(float);
        fixed[NAS_LEVEL_BOPS] -= macs * (NAS_BOPS_EACH - CODE_BITS * input_bits(b, v));
    }
}

static nas_status count_rest(builder *b) {
    nas__level_list *list = b->list;
    nas_graph_cost cost = {0};
    const nas_status status = nas_graph_cost_total(b->ctx, b->graph, &cost);
    double weights = 0, macs = 0;
    for (size_t i = 0; i < list->n_layers; i++) {
        weights += (double)list->layers[i].weights;
        macs += (double)nas_graph_node_cost(b->graph, list->layers[i].conv).macs;
    }
    list->original[NAS_LEVEL_BYTES] = (double)cost.params * NAS_WEIGHT_BYTES_EACH;
    list->original[NAS_LEVEL_MACS] = (double)cost.macs;
    list->original[NAS_LEVEL_BOPS] = (double)cost.macs * NAS_BOPS_EACH;
    list->original[NAS_LEVEL_PARAMS] = (double)cost.params;
    list->fixed[NAS_LEVEL_BYTES] = ((double)cost.params - weights) * NAS_WEIGHT_BYTES_EACH;
    list->fixed[NAS_LEVEL_MACS] = (double)cost.macs - macs;
    list->fixed[NAS_LEVEL_BOPS] = ((double)cost.macs - macs) * NAS_BOPS_EACH;
    list->fixed[NAS_LEVEL_PARAMS] = (double)cost.params - weights;
    count_grouped(b, list->fixed);
    return status;
}

static nas_status build(builder *b) {
    size_t largest = 1;
    nas_status status = nas__choices_read(b->ctx, b->config, &b->choices);
    if (status == NAS_OK) status = list_layers(b);
    for (size_t i = 0; i < b->list->n_layers; i++) {
        if (b->list->layers[i].weights > largest) largest = b->list->layers[i].weights;
    }
    b->mask = nas_alloc_array(b->ctx, largest, 1);
    b->narrow = nas_alloc_array(b->ctx, (size_t)nas_graph_node_count(b->graph), sizeof *b->narrow);
    if (status == NAS_OK && (b->mask == NULL || b->narrow == NULL)) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = nas_oneshot_codes_narrow(b->ctx, b->graph, b->narrow);
    if (status == NAS_OK) status = nas_graph_clone(b->ctx, b->graph, &b->work);
    for (size_t i = 0; i < b->list->n_layers && status == NAS_OK; i++)
        status = list_levels(b, &b->list->layers[i]);
    return status == NAS_OK ? count_rest(b) : status;
}

nas_status nas__level_list_make(nas_ctx *ctx, const nas_config *config, const nas_graph *graph,
                                const nas__sparse_judge *judge, nas__level_list *out) {
    builder b = {.ctx = ctx, .config = config, .graph = graph, .judge = judge, .list = out};
    *out = (nas__level_list){0};
    const nas_status status = build(&b);
    nas_graph_free(b.work);
    nas_free(b.mask);
    nas_free(b.narrow);
    if (status != NAS_OK) nas__level_list_deinit(out);
    return status;
}

void nas__level_list_deinit(nas__level_list *list) {
    nas_free(list->layers);
    nas_free(list->levels);
    nas_buf_deinit(&list->dropped);
    *list = (nas__level_list){0};
}
