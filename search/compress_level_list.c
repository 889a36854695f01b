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
    nas_value *leader; /* [nodes] of values that may have fewer than 8 bits, else NONE */
    int32_t *value_of; /* [nodes] 1 + the value that has the leader's grid; 0: none */
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

/* 1 + the value that a convolution reads; 0: none whose bits are chosen. */
static int32_t value_read(const builder *b, nas_value conv) {
    const nas_value leader = b->leader[nas_graph_node(b->graph, conv)->inputs[0]];
    return leader == NAS_VALUE_NONE ? 0 : b->value_of[leader];
}

/* Bits of what a convolution reads: those of nas_oneshot_codes_find; of a value 1, for each of its own. */
static int32_t input_bits(const builder *b, nas_value conv) {
    const nas_levels_value *acts = &b->list->acts;
    if (acts->n_bits == 0) return FLOAT_BITS;
    if (b->leader[nas_graph_node(b->graph, conv)->inputs[0]] == NAS_VALUE_NONE) return CODE_BITS;
    return acts->n_bits > 1 ? 1 : acts->bits[0];
}

static bool is_grouped(const nas_node *node) {
    return node->op == NAS_OP_CONV && node->conv.groups > 1;
}

/* Values whose bits are chosen, in order of their first reader. */
static nas_status list_values(builder *b) {
    const nas_value n = nas_graph_node_count(b->graph);
    nas__level_list *list = b->list;
    list->acts.n_bits = b->choices.n_acts;
    memcpy(list->acts.bits, b->choices.acts, sizeof list->acts.bits);
    list->values = nas_alloc_array(b->ctx, (size_t)n, sizeof *list->values);
    list->uses = nas_alloc_array(b->ctx, (size_t)n, sizeof *list->uses);
    list->users = nas_alloc_array(b->ctx, (size_t)n, sizeof *list->users);
    if (list->values == NULL || list->uses == NULL || list->users == NULL) return NAS_ERR_NOMEM;
    const nas_status status = nas_oneshot_codes_narrow(b->ctx, b->graph, NULL, b->leader);
    for (nas_value v = 0; status == NAS_OK && list->acts.n_bits > 1 && v < n; v++) {
        const nas_node *node = nas_graph_node(b->graph, v);
        const nas_value leader =
            node->op == NAS_OP_CONV ? b->leader[node->inputs[0]] : NAS_VALUE_NONE;
        if (leader == NAS_VALUE_NONE) continue;
        if (b->value_of[leader] == 0) {
            list->values[list->n_values++] = leader;
            b->value_of[leader] = (int32_t)list->n_values;
        }
        if (!is_grouped(node)) continue;
        const double macs = (double)nas_graph_node_cost(b->graph, v).macs;
        list->users[list->n_uses] = v;
        list->uses[list->n_uses++] = (nas_levels_use){
            .value = b->value_of[leader] - 1, .group = -1, .bops = macs * CODE_BITS};
    }
    return status;
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
                               .is_edge = !behind[v] || !before[v],
                               .reads = value_read(b, v),
                               .input_bits = input_bits(b, v)};
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
    if (!nas_layer_is_whole(s, dims)) return false;
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

/* Bits of what a grouped convolution reads; 0: those of a value, which are counted apart. */
static int32_t grouped_bits(const builder *b, nas_value conv) {
    return value_read(b, conv) > 0 ? 0 : input_bits(b, conv);
}

/* What grouped convolutions save by the 8-bit weights that they get with activations of integers. */
static void count_grouped(const nas__level_list *list, const nas_graph *g,
                          double rest[NAS_LEVEL_COSTS]) {
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (list->acts.n_bits == 0 || !is_grouped(node)) continue;
        const nas_param *p = nas_graph_param_const(g, node->params[0]);
        const double macs = (double)nas_graph_node_cost(g, v).macs;
        rest[NAS_LEVEL_BYTES] -=
            (double)p->count * (NAS_WEIGHT_BYTES_EACH - 1) - (double)p->dims[0] * sizeof(float);
        rest[NAS_LEVEL_BOPS] -= macs * (NAS_BOPS_EACH - CODE_BITS * list->grouped_bits[v]);
    }
}

nas_status nas__level_list_rest(nas_ctx *ctx, const nas__level_list *list, const nas_graph *graph,
                                double rest[NAS_LEVEL_COSTS]) {
    nas_graph_cost cost = {0};
    const nas_status status = nas_graph_cost_total(ctx, graph, &cost);
    double weights = 0, macs = 0;
    for (size_t i = 0; i < list->n_layers; i++) {
        const nas_node *node = nas_graph_node(graph, list->layers[i].conv);
        weights += (double)nas_graph_param_const(graph, node->params[0])->count;
        macs += (double)nas_graph_node_cost(graph, list->layers[i].conv).macs;
    }
    rest[NAS_LEVEL_BYTES] = ((double)cost.params - weights) * NAS_WEIGHT_BYTES_EACH;
    rest[NAS_LEVEL_MACS] = (double)cost.macs - macs;
    rest[NAS_LEVEL_BOPS] = ((double)cost.macs - macs) * NAS_BOPS_EACH;
    rest[NAS_LEVEL_PARAMS] = (double)cost.params - weights;
    count_grouped(list, graph, rest);
    return status;
}

static nas_status count_rest(builder *b) {
    nas__level_list *list = b->list;
    nas_graph_cost cost = {0};
    nas_status status = nas_graph_cost_total(b->ctx, b->graph, &cost);
    list->original[NAS_LEVEL_BYTES] = (double)cost.params * NAS_WEIGHT_BYTES_EACH;
    list->original[NAS_LEVEL_MACS] = (double)cost.macs;
    list->original[NAS_LEVEL_BOPS] = (double)cost.macs * NAS_BOPS_EACH;
    list->original[NAS_LEVEL_PARAMS] = (double)cost.params;
    const size_t n = (size_t)nas_graph_node_count(b->graph);
    list->grouped_bits = nas_alloc_array(b->ctx, n, sizeof *list->grouped_bits);
    if (list->grouped_bits == NULL) return NAS_ERR_NOMEM;
    for (nas_value v = 0; v < (nas_value)n; v++) {
        if (is_grouped(nas_graph_node(b->graph, v))) list->grouped_bits[v] = grouped_bits(b, v);
    }
    if (status == NAS_OK) status = nas__level_list_rest(b->ctx, list, b->graph, list->fixed);
    return status;
}

static nas_status build(builder *b) {
    size_t largest = 1;
    const size_t nodes = (size_t)nas_graph_node_count(b->graph);
    nas_status status = nas__choices_read(b->ctx, b->config, &b->choices);
    b->leader = nas_alloc_array(b->ctx, nodes, sizeof *b->leader);
    b->value_of = nas_alloc_array(b->ctx, nodes, sizeof *b->value_of);
    if (status == NAS_OK && (b->leader == NULL || b->value_of == NULL)) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = list_values(b);
    if (status == NAS_OK) status = list_layers(b);
    for (size_t i = 0; i < b->list->n_layers; i++) {
        if (b->list->layers[i].weights > largest) largest = b->list->layers[i].weights;
    }
    b->mask = nas_alloc_array(b->ctx, largest, 1);
    if (status == NAS_OK && b->mask == NULL) status = NAS_ERR_NOMEM;
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
    nas_free(b.leader);
    nas_free(b.value_of);
    if (status != NAS_OK) nas__level_list_deinit(out);
    return status;
}

void nas__level_list_deinit(nas__level_list *list) {
    nas_free(list->layers);
    nas_free(list->levels);
    nas_free(list->values);
    nas_free(list->uses);
    nas_free(list->users);
    nas_free(list->grouped_bits);
    nas_buf_deinit(&list->dropped);
    *list = (nas__level_list){0};
}
