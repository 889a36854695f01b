/* layers_chain.c - depth first: bands of rows go through several convolutions while they are in the cache.
 *
 * The kernels are those of whole layers, called for a few rows at a time: their units are ordered by rows. The buffer of a
 * value inside a chain holds what one band needs of it, so that nothing of it goes to memory; rows that the next band reads
 * again, because the next kernel is several rows high, are moved to the front of the buffer. */
#include "compiler/layers_network_internal.h"

enum { BAND_MAX = 16 };

static const nas_node *node_of(const nas__layers *l, nas_value v) {
    return nas__layers_node(l, v);
}

static size_t row_bytes(const nas__layers *l, nas_value v) {
    return l->places[v].row * nas__layers_element(l, v);
}

/* What turns the caller's planes into pixels, and the result back. */
static bool turns(const nas__layers *l, const nas__layer *layer) {
    if (layer->kind == NAS__LAYER_OUTPUT) return nas__layers_quant(l, layer->inputs[0]) == NULL;
    return layer->kind == NAS__LAYER_OP && node_of(l, layer->node)->op == NAS_OP_INPUT;
}

nas__layer_rows nas__layers_rows(const nas__layers *l, const nas__layer *layer) {
    if (layer->kind == NAS__LAYER_OUTPUT || layer->kind == NAS__LAYER_OP)
        return (nas__layer_rows){1, 1, 0, node_of(l, layer->value)->shape.h};
    const nas__conv *c = &layer->conv;
    return (nas__layer_rows){c->stride_h, (c->kernel_h - 1) * c->dilation_h + 1,
                             node_of(l, layer->node)->conv.pad_top, c->out_h};
}

/* Can the layer be computed for some rows alone? */
static bool by_rows(const nas__layers *l, const nas__layer *layer) {
    if (turns(l, layer)) return nas__layers_rows(l, layer).height > 1;
    if (layer->conv.out_h < 2) return false;
    if (layer->kind == NAS__LAYER_QCONV)
        return nas__qconv_rows_of_unit(l->target, &layer->qconv, &layer->qways[layer->way]) == 1;
    return layer->kind == NAS__LAYER_CONV &&
           nas__conv_rows_of_unit(l->target, &layer->conv, &layer->ways[layer->way]) == 1;
}

/* Does `next` read each row of its input once, and nothing around it? */
static bool reads_once(const nas__layers *l, const nas__layer *next) {
    const nas__layer_rows r = nas__layers_rows(l, next);
    const nas__layer_buffer *in = &l->buffers[l->places[next->inputs[0]].buffer];
    return r.reach == 1 && r.stride == 1 && in->top == 0 && in->left == 0 && in->bottom == 0 &&
           in->right == 0;
}

/* Does each row that `next` has not read yet lie behind those that it reads for the band before? */
static bool skips_none(const nas__layers *l, const nas__layer *next) {
    const nas__layer_rows r = nas__layers_rows(l, next);
    return r.reach >= r.stride;
}

/* Room for `rows` rows and their border, for each thread. */
static size_t window_of(const nas__layers *l, nas_value v, int32_t rows) {
    enum { LINE_ELEMENTS = 64 };
    const nas__place *p = &l->places[v];
    const nas__layer_buffer *b = &l->buffers[p->buffer];
    const size_t elements = (size_t)(rows + b->top + b->bottom + 1) * p->row;
    return (elements + LINE_ELEMENTS - 1) / LINE_ELEMENTS * LINE_ELEMENTS;
}

static size_t floats_of(size_t elements, size_t element) {
    return (elements * element + sizeof(float) - 1) / sizeof(float);
}

/* Is the value of layer i read by layer i + 1 alone, as the data of a convolution? */
static bool only_next(const nas__layers *l, int32_t i) {
    const nas_value v = l->layers[i].value;
    const nas__place *p = &l->places[v];
    if (p->host != v || p->buffer < 0 || l->buffers[p->buffer].value != v) return false;
    if (l->buffers[p->buffer].first != i || l->buffers[p->buffer].last != i + 1) return false;
    const nas__layer *next = &l->layers[i + 1];
    return next->inputs[0] == v && (next->n_inputs < 2 || next->inputs[1] != v);
}

static bool leaves_cache(const nas__layers *l, nas_value v) {
    return (double)row_bytes(l, v) * node_of(l, v)->shape.h > l->target->l2_bytes / 2;
}

/* Layers of the longest chain from layer i on. Values that fit the cache anyhow end it: shorter bands cost more. */
static int32_t chain_length(const nas__layers *l, int32_t i) {
    int32_t n = 1;
    while (i + n < l->n_layers && by_rows(l, &l->layers[i + n - 1]) &&
           by_rows(l, &l->layers[i + n]) && only_next(l, i + n - 1) &&
           leaves_cache(l, l->layers[i + n - 1].value))
        n++;
    return n;
}

/* Rows of the result at a time: what a band reads and writes takes half of the L2 cache. */
static int32_t band_rows(const nas__layers *l, int32_t i, int32_t n) {
    double bytes = 0, rate = 1; /* rows of the value per row of the result */
    for (int32_t k = i + n - 1; k >= i; k--) {
        bytes += rate * (double)row_bytes(l, l->layers[k].value);
        rate *= nas__layers_rows(l, &l->layers[k]).stride;
    }
    const bool first = l->layers[i].n_inputs == 0; /* it reads as many planes */
    bytes += rate * (double)row_bytes(l, first ? l->layers[i].value : l->layers[i].inputs[0]);
    const double rows = l->target->l2_bytes / 2 / bytes;
    return rows < 1 ? 1 : rows > BAND_MAX ? BAND_MAX : (int32_t)rows;
}

/* Buffers of a chain live together; values inside get room for the rows that two threads compute both. */
static void widen(nas__layers *l, int32_t i, int32_t n) {
    int32_t overlap = 0,
            rows =
                l->layers[i].band; /* rows: of the value of layer k that one band makes at most */
    for (int32_t k = i + n - 1; k >= i; k--) {
        nas__layer *layer = &l->layers[k];
        nas__layer_buffer *b = &l->buffers[l->places[layer->value].buffer];
        if (b->first > i) b->first = i;
        if (b->last < i + n - 1) b->last = i + n - 1;
        for (int32_t j = 0; j < layer->n_inputs; j++) {
            if (l->places[layer->inputs[j]].constant) continue;
            nas__layer_buffer *in = &l->buffers[l->places[layer->inputs[j]].buffer];
            if (in->last < i + n - 1) in->last = i + n - 1;
        }
        if (k < i + n - 1) {
            nas__place *p = &l->places[layer->value];
            const size_t threads = (size_t)l->max_threads;
            const size_t element = nas__layers_element(l, layer->value);
            p->banded = skips_none(l, layer + 1);
            p->slides = p->banded && !reads_once(l, layer + 1);
            p->window = rows;
            if (p->banded) {
                p->shift = p->slides ? window_of(l, layer->value, rows) : (size_t)rows * p->row;
                b->floats = floats_of(p->at + p->shift * threads, element);
            } else {
                p->shift = (size_t)((overlap > 0 ? overlap : 0) + 1) * p->row;
                b->floats += floats_of(p->shift * (threads - 1), element);
            }
            b->floats = (b->floats + 15) / 16 * 16; /* whole cache lines */
        }
        const nas__layer_rows r = nas__layers_rows(l, layer);
        rows = (rows - 1) * r.stride + r.reach;
        overlap = overlap * r.stride + r.reach - r.stride;
    }
}

void nas__layers_chains(nas__layers *l) {
    for (int32_t i = 0; i < l->n_layers;) {
        const int32_t n = chain_length(l, i);
        for (int32_t k = i; k < i + n; k++)
            l->layers[k].chain = k == i ? n : 0;
        if (n > 1) {
            l->layers[i].band = band_rows(l, i, n);
            widen(l, i, n);
        }
        i += n;
    }
}
