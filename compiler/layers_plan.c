/* layers_plan.c - where the values of the layer form lie, which way each convolution is computed, and where the threads
 * must meet.
 *
 * A buffer is one value with a border as wide as its readers' padding; the left and the right border share one strip of
 * zeros between rows. Buffers whose lives do not overlap share memory: the largest is placed first, each at the lowest
 * place that is free during its life. Since shared memory does not stay zero, the first layer of a life clears the
 * border. */
#include "compiler/layers_network_internal.h"
#include "compiler/tune_internal.h"

#include <stdlib.h>
#include <string.h>

enum { LINE_FLOATS = 16 }; /* one cache line */

static const nas_node *node_of(const nas__layers *l, nas_value v) {
    return nas__layers_node(l, v);
}

static size_t round_up(size_t n) {
    return (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

/* Bytes of n elements, rounded up to cache lines. */
static size_t lines(size_t n, size_t element) {
    return round_up((n * element + sizeof(float) - 1) / sizeof(float)) * sizeof(float);
}

static int32_t max_i32(int32_t a, int32_t b) {
    return a > b ? a : b;
}

/* The outermost host of v and v's first channel in it. */
static nas_value host_of(const nas__layers *l, nas_value v, int32_t *channel) {
    *channel = 0;
    while (l->places[v].host != v) {
        *channel += l->places[v].channel;
        v = l->places[v].host;
    }
    return v;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

static void touch(nas__layers *l, int32_t layer, nas_value v) {
    int32_t channel = 0;
    const nas_value host = host_of(l, v, &channel);
    l->places[v].used = true;
    nas__place *h = &l->places[host];
    if (h->constant) return;
    if (!h->used || h->buffer < 0) {
        h->used = true;
        h->buffer = l->n_buffers;
        l->buffers[l->n_buffers++] = (nas__layer_buffer){.value = host, .first = layer};
    }
    l->buffers[h->buffer].last = layer;
}

static void find_buffers(nas__layers *l) {
    for (nas_value v = 0; v < l->n_values; v++)
        l->places[v].buffer = -1;
    for (int32_t i = 0; i < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        for (int32_t k = 0; k < layer->n_inputs; k++)
            touch(l, i, layer->inputs[k]);
        if (layer->kind != NAS__LAYER_OUTPUT) touch(l, i, layer->value);
    }
}

/* Pixels beyond the end of an axis that a convolution reads. */
static int32_t beyond(int32_t in, int32_t out, int32_t kernel, int32_t stride, int32_t dilation,
                      int32_t pad) {
    return max_i32(0, (out - 1) * stride + (kernel - 1) * dilation - pad - (in - 1));
}

static void widen_borders(nas__layers *l) {
    for (int32_t i = 0; i < l->n_layers; i++) {
        if (l->layers[i].kind != NAS__LAYER_CONV && l->layers[i].kind != NAS__LAYER_QCONV) continue;
        const nas_node *node = node_of(l, l->layers[i].node);
        const nas_conv_attributes *a = &node->conv;
        const nas_shape *in = &node_of(l, l->layers[i].inputs[0])->shape;
        int32_t channel = 0;
        const nas_value host = host_of(l, l->layers[i].inputs[0], &channel);
        if (l->places[host].constant) continue;
        nas__layer_buffer *b = &l->buffers[l->places[host].buffer];
        b->top = max_i32(b->top, a->pad_top);
        b->left = max_i32(b->left, a->pad_left);
        b->bottom = max_i32(b->bottom, beyond(in->h, node->shape.h, a->kernel_h, a->stride_h,
                                              a->dilation_h, a->pad_top));
        b->right = max_i32(b->right, beyond(in->w, node->shape.w, a->kernel_w, a->stride_w,
                                            a->dilation_w, a->pad_left));
    }
}

/* Codes in planes: whole vectors of pixels may be read from any pixel of a row on. */
static void lay_planes(nas__layer_buffer *b, nas__place *p, const nas_shape *s) {
    p->pitch = 4;
    p->plane = nas__q_plane_bytes(s->w, max_i32(b->left, b->right));
    p->row = (size_t)((s->c + 3) / 4) * p->plane;
    p->at = lines((size_t)b->top * p->row + (size_t)(b->left * p->pitch), 1);
    b->floats = lines(p->at + (size_t)(s->h + b->bottom) * p->row, 1) / sizeof(float);
}

/* Geometry of every value: pitch, row and first pixel. */
static void lay_out(nas__layers *l) {
    for (int32_t i = 0; i < l->n_buffers; i++) {
        nas__layer_buffer *b = &l->buffers[i];
        nas__place *p = &l->places[b->value];
        const nas_shape *s = &node_of(l, b->value)->shape;
        if (p->planar) {
            lay_planes(b, p, s);
            continue;
        }
        p->pitch = s->c;
        p->row = (size_t)(s->w + max_i32(b->left, b->right)) * (size_t)s->c;
        /* the first pixel of the image at a cache line: as many elements in front as that takes */
        const size_t element = nas__layers_element(l, b->value);
        p->at = lines((size_t)b->top * p->row + (size_t)(b->left * s->c), element) / element;
        b->floats = lines(p->at + (size_t)(s->h - 1 + b->bottom) * p->row +
                              (size_t)((s->w + b->right) * s->c),
                          element) /
                    sizeof(float);
    }
    for (nas_value v = 0; v < l->n_values; v++) {
        nas__place *p = &l->places[v];
        if (!p->used) continue;
        int32_t channel = 0;
        const nas__place *h = &l->places[host_of(l, v, &channel)];
        if (h == p) continue;
        p->buffer = h->buffer;
        p->pitch = h->pitch;
        p->row = h->row;
        p->at = h->at + (size_t)channel;
    }
}

nas__view nas__layers_view(const nas__layers *l, nas_value v) {
    const nas__place *p = &l->places[v];
    return (nas__view){
        .shape = node_of(l, v)->shape, .pitch = p->pitch, .row = p->row, .plane = p->plane};
}

/* ---- ways and weights --------------------------------------------------------------------------------------------- */

static void take_weights(nas__layers *l, nas__layer *layer, size_t floats) {
    layer->weight_floats = floats;
    layer->weights_at = l->weight_floats;
    l->weight_floats += round_up(floats);
}

/* Measured times, where there are any, decide instead of the estimates. Only the best few by estimate compete. */
enum { COMPETE_MAX = 8 };

/* Layers that may have to wait for their turn on the clock, this one included. */
static int32_t convs_from(const nas__layers *l, const nas__layer *layer) {
    int32_t n = 0;
    for (; layer < l->layers + l->n_layers; layer++)
        n += layer->kind == NAS__LAYER_CONV || layer->kind == NAS__LAYER_QCONV;
    return n;
}

static nas__tune_subject subject_of(const nas__layer *layer, int32_t n) {
    if (layer->kind == NAS__LAYER_QCONV)
        return (nas__tune_subject){.qconv = &layer->qconv, .qways = layer->qways, .n = n};
    return (nas__tune_subject){.conv = &layer->conv, .ways = layer->ways, .n = n};
}

static nas_status tune(nas_ctx *ctx, nas__layers *l, nas__layer *layer) {
    const nas_compile_options *o = l->options;
    if (o->memory == NULL) return NAS_OK;
    nas__tune_subject s =
        subject_of(layer, layer->n_ways < COMPETE_MAX ? layer->n_ways : COMPETE_MAX);
    s.n = nas__tune_fit(o, &s);
    if (s.n < 1) return NAS_OK; /* not even one goes over the wire: the estimate stands */
    bool known = false;
    nas_status status =
        nas__tune_recall(ctx, o, o->memory, &s, &known, &layer->way, layer->measured_ns);
    const double left = o->tune_s - (double)(nas_now_ns() - l->start_ns) * 1e-9;
    if (status != NAS_OK || known || !(left > 0)) return status;
    const double share = left / convs_from(l, layer);
    return nas__tune_best(ctx, o, o->memory, &s, share > 0.05 ? share : 0.05, &layer->way,
                          layer->measured_ns);
}

/* The estimate, in cycles. */
static double cycles_of(const nas__layer *layer, int32_t i) {
    return layer->kind == NAS__LAYER_QCONV ? layer->qways[i].cycles : layer->ways[i].cycles;
}

size_t nas__layer_weight_bytes(const nas__layers *l, const nas__layer *layer, int32_t way) {
    return layer->kind == NAS__LAYER_QCONV
               ? nas__qconv_weight_bytes(l->target, &layer->qconv, &layer->qways[way])
               : nas__conv_weight_floats(l->target, &layer->conv, &layer->ways[way]) *
                     sizeof(float);
}

/* Where code or weights have a price (nas_compile_options) the cheapest way by time and bytes is taken, not the fastest. */
static nas_status weigh_bytes(nas_ctx *ctx, const nas__layers *l, nas__layer *layer) {
    const double price = l->options->code_price, weight_price = l->options->weight_price;
    if (!(price > 0) && !(weight_price > 0)) return NAS_OK;
    const nas__tune_subject s = subject_of(layer, layer->n_ways);
    const double estimate = cycles_of(layer, layer->way);
    const double fastest = layer->measured_ns[layer->way]; /* 0 where nobody measured */
    double least = -1;
    int32_t best = layer->way;
    for (int32_t i = 0; i < layer->n_ways; i++) {
        nas_buf text = {0};
        const bool guessed = fastest > 0 && !(layer->measured_ns[i] > 0);
        if (guessed && !(weight_price > 0)) continue;
        if (price > 0) nas__tune_emit_way(l->target, &s, i, &text);
        const nas_status status = nas_buf_status(ctx, &text);
        const double cycles = fastest > 0 && !guessed ? estimate * layer->measured_ns[i] / fastest
                                                      : cycles_of(layer, i);
        const double cost = cycles + price * (double)text.len +
                            weight_price * (double)nas__layer_weight_bytes(l, layer, i);
        nas_buf_deinit(&text);
        if (status != NAS_OK) return status;
        if (least >= 0 && cost >= least) continue;
        least = cost;
        best = i;
    }
    layer->way = best;
    return NAS_OK;
}

/* Which weights are zero, when that is worth a look: chance makes fewer zeros than one in sixteen. */
static nas_status find_zeros(nas_ctx *ctx, nas__layers *l, nas__layer *layer) {
    enum { SHARE_MIN = 16 };
    const nas_param *w = nas_graph_param_const(l->graph, node_of(l, layer->node)->params[0]);
    size_t zeros = 0;
    for (size_t i = 0; w->data != NULL && i < w->count; i++)
        zeros += w->data[i] == 0;
    if (layer->conv.groups != 1 || zeros * SHARE_MIN < w->count || zeros == 0) return NAS_OK;
    uint8_t *kept = nas_arena_alloc(ctx, l->arena, w->count, 1);
    if (kept == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < w->count; i++)
        kept[i] = w->data[i] != 0;
    layer->conv.kept = kept;
    layer->zeros = (double)zeros / (double)w->count;
    return NAS_OK;
}

/* Dense and sparse ways compete, the best few of each: moves them to the front, still by estimate. */
static void let_both_compete(nas__layer *layer) {
    nas__conv_way sorted[NAS__CONV_WAYS_MAX] = {0};
    bool taken[NAS__CONV_WAYS_MAX] = {false};
    int32_t of_kind[2] = {0, 0}, n = 0;
    for (int32_t i = 0; i < layer->n_ways; i++) {
        int32_t *of = &of_kind[nas__conv_is_sparse(&layer->ways[i])];
        taken[i] = (*of)++ < COMPETE_MAX / 2;
    }
    for (int32_t front = 1; front >= 0; front--) {
        for (int32_t i = 0; i < layer->n_ways; i++) {
            if (taken[i] == (front == 1)) sorted[n++] = layer->ways[i];
        }
    }
    for (int32_t i = 0; i < n; i++)
        layer->ways[i] = sorted[i];
}

static nas_status plan_conv(nas_ctx *ctx, nas__layers *l, nas__layer *layer) {
    nas__conv *c = &layer->conv;
    const nas__view in = nas__layers_view(l, layer->inputs[0]),
                    out = nas__layers_view(l, layer->value);
    c->in_pitch = in.pitch;
    c->in_row = in.row;
    c->out_pitch = out.pitch;
    c->out_row = out.row;
    if (c->has_residual) {
        const nas__view residual = nas__layers_view(l, layer->inputs[1]);
        c->residual_pitch = residual.pitch;
        c->residual_row = residual.row;
    }
    if (l->places[layer->inputs[0]].constant) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "node '%s': a convolution of a constant",
                        node_of(l, layer->node)->name);
    }
    nas_status status = find_zeros(ctx, l, layer);
    if (status != NAS_OK) return status;
    layer->n_ways = nas__conv_ways(l->target, c, layer->ways);
    layer->way = 0;
    if (layer->conv.kept != NULL) let_both_compete(layer);
    status = tune(ctx, l, layer);
    if (status == NAS_OK) status = weigh_bytes(ctx, l, layer);
    if (status != NAS_OK) return nas_wrap(ctx, status, "node '%s'", node_of(l, layer->node)->name);
    const nas__conv_way *way = &layer->ways[layer->way];
    layer->units = nas__conv_units(l->target, c, way);
    layer->scratch_floats = nas__conv_scratch_floats(l->target, c, way);
    take_weights(l, layer, nas__conv_weight_floats(l->target, c, way));
    l->words = l->words || nas__conv_is_sparse(way) || nas__conv_is_bf16(way);
    return NAS_OK;
}

/* A copy into a concatenation writes the part that lies behind those of earlier members. */
static void place_part(nas__layers *l, nas__layer *layer) {
    const nas_node *node = node_of(l, layer->node);
    const nas__view whole = nas__layers_view(l, layer->value);
    for (int32_t i = 0; i < layer->part; i++) {
        const nas_shape *s = &node_of(l, node->inputs[i])->shape;
        switch (node->axis) {
        case 1: layer->out_offset += (size_t)s->h * whole.row; break;
        case 2: layer->out_offset += (size_t)s->w * (size_t)whole.pitch; break;
        default: layer->out_offset += (size_t)s->c; break;
        }
    }
}

static nas_status plan_op(nas_ctx *ctx, nas__layers *l, nas__layer *layer) {
    nas__op *op = &layer->op;
    op->node = node_of(l, layer->node);
    op->n_inputs = layer->n_inputs;
    for (int32_t k = 0; k < layer->n_inputs; k++)
        op->in[k] = nas__layers_view(l, layer->inputs[k]);
    op->out = nas__layers_view(l, layer->value);
    if (op->node->op == NAS_OP_CONCAT) {
        op->out.shape = op->in[0].shape;
        place_part(l, layer);
    }
    const nas_status status = nas__op_check(ctx, op);
    if (status != NAS_OK) return status;
    layer->units = nas__op_units(l->target, op);
    layer->scratch_floats = nas__op_scratch_floats(l->target, op);
    take_weights(l, layer, nas__op_weight_floats(l->target, op));
    return NAS_OK;
}

/* The best way of each kind competes, whatever the estimate says of their order, then the next best: moves them to the front. */
static void let_kinds_compete(nas__layer *layer) {
    nas__qconv_way sorted[NAS__QCONV_WAYS_MAX] = {0};
    int32_t n = 0;
    for (int32_t rest = 0; rest < 2; rest++) {
        for (int32_t i = 0; i < layer->n_ways; i++) {
            bool first = true;
            for (int32_t k = 0; k < i && first; k++)
                first = !nas__qconv_same_kind(&layer->qways[i], &layer->qways[k]);
            if (first == (rest == 0)) sorted[n++] = layer->qways[i];
        }
    }
    memcpy(layer->qways, sorted, (size_t)n * sizeof *sorted);
}

static nas_status plan_integers(nas_ctx *ctx, nas__layers *l, nas__layer *layer) {
    size_t scratch = 0, weights = 0;
    nas_status status = nas__layer_plan_integers(ctx, l, layer);
    if (status != NAS_OK) return status;
    if (layer->kind == NAS__LAYER_QCONV) {
        let_kinds_compete(layer);
        status = tune(ctx, l, layer);
        if (status == NAS_OK) status = weigh_bytes(ctx, l, layer);
        if (status != NAS_OK)
            return nas_wrap(ctx, status, "node '%s'", node_of(l, layer->node)->name);
    }
    nas__layer_size_integers(l, layer, &scratch, &weights);
    if (layer->kind == NAS__LAYER_QOP && node_of(l, layer->node)->op == NAS_OP_CONCAT)
        place_part(l, layer);
    layer->scratch_floats = (scratch + sizeof(float) - 1) / sizeof(float);
    take_weights(l, layer, weights / sizeof(float));
    return NAS_OK;
}

static void plan_constants(nas__layers *l) {
    for (nas_value v = 0; v < nas_graph_node_count(l->graph); v++) {
        nas__place *p = &l->places[v];
        if (!p->used || !p->constant) continue;
        const nas_shape *s = &node_of(l, v)->shape;
        p->pitch = s->c;
        p->row = (size_t)s->w * (size_t)s->c;
        p->at = l->weight_floats;
        l->weight_floats += round_up((size_t)s->h * p->row);
    }
}

static nas_status plan_kernels(nas_ctx *ctx, nas__layers *l) {
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < l->n_layers && status == NAS_OK; i++) {
        nas__layer *layer = &l->layers[i];
        switch (layer->kind) {
        case NAS__LAYER_CONV: status = plan_conv(ctx, l, layer); break;
        case NAS__LAYER_OP: status = plan_op(ctx, l, layer); break;
        case NAS__LAYER_QCONV:
        case NAS__LAYER_QOP: status = plan_integers(ctx, l, layer); break;
        case NAS__LAYER_OUTPUT: {
            if (nas__layers_quant(l, layer->inputs[0]) != NULL) {
                status = plan_integers(ctx, l, layer);
                break;
            }
            const nas__view view = nas__layers_view(l, layer->inputs[0]);
            layer->units = nas__op_output_units(&view);
            break;
        }
        }
        if (layer->scratch_floats > l->scratch_floats) l->scratch_floats = layer->scratch_floats;
    }
    l->scratch_floats = round_up(l->scratch_floats);
    return status;
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    const nas__layer_buffer *x = *(nas__layer_buffer *const *)a,
                            *y = *(nas__layer_buffer *const *)b;
    if (x->floats != y->floats) return x->floats < y->floats ? 1 : -1;
    return x->value - y->value;
}

static bool lives_overlap(const nas__layer_buffer *a, const nas__layer_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* Lowest place for `b` among those placed before it. */
static void place(nas__layer_buffer *b, nas__layer_buffer *const *placed, int32_t n) {
    b->at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int32_t i = 0; i < n; i++) {
            const nas__layer_buffer *o = placed[i];
            if (!lives_overlap(b, o) || b->at >= o->at + o->floats || o->at >= b->at + b->floats)
                continue;
            b->at = o->at + o->floats;
            moved = true;
        }
    }
}

static nas_status place_buffers(nas_ctx *ctx, nas__layers *l) {
    nas__layer_buffer **order =
        nas_arena_alloc(ctx, l->arena, (size_t)l->n_buffers, sizeof(void *));
    if (order == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < l->n_buffers; i++)
        order[i] = &l->buffers[i];
    qsort(order, (size_t)l->n_buffers, sizeof *order, by_size);
    for (int32_t i = 0; i < l->n_buffers; i++) {
        place(order[i], order, i);
        const size_t end = order[i]->at + order[i]->floats;
        if (end > l->value_floats) l->value_floats = end;
    }
    return NAS_OK;
}

/* ---- meeting points ----------------------------------------------------------------------------------------------- */

typedef struct access {
    const nas__layer_buffer *buffer; /* NULL: the caller's image, or a constant */
    int32_t first_channel, channels;
} access;

static access access_of(const nas__layers *l, nas_value v, int32_t channels) {
    access a = {.channels = channels};
    const nas_value host = host_of(l, v, &a.first_channel);
    if (!l->places[host].constant) a.buffer = &l->buffers[l->places[host].buffer];
    return a;
}

static bool collide(const access *a, const access *b) {
    if (a->buffer == NULL || b->buffer == NULL) return false;
    if (a->buffer == b->buffer) {
        return a->first_channel < b->first_channel + b->channels &&
               b->first_channel < a->first_channel + a->channels;
    }
    return a->buffer->at < b->buffer->at + b->buffer->floats &&
           b->buffer->at < a->buffer->at + a->buffer->floats;
}

static access write_of(const nas__layers *l, const nas__layer *layer) {
    if (layer->kind == NAS__LAYER_OUTPUT) return (access){0};
    return access_of(l, layer->value, node_of(l, layer->value)->shape.c);
}

static access read_of(const nas__layers *l, const nas__layer *layer, int32_t k) {
    return access_of(l, layer->inputs[k], node_of(l, layer->inputs[k])->shape.c);
}

/* Does `later` read or overwrite what `earlier` writes, or overwrite what it reads? */
static bool depends(const nas__layers *l, const nas__layer *later, const nas__layer *earlier) {
    const access w = write_of(l, later), v = write_of(l, earlier);
    if (collide(&w, &v)) return true;
    for (int32_t k = 0; k < later->n_inputs; k++) {
        const access r = read_of(l, later, k);
        if (collide(&r, &v)) return true;
    }
    for (int32_t k = 0; k < earlier->n_inputs; k++) {
        const access r = read_of(l, earlier, k);
        if (collide(&w, &r)) return true;
    }
    return false;
}

/* A chain is one piece: what any of its layers waits for, its first one waits for. */
static void place_barriers(nas__layers *l) {
    int32_t since = 0; /* layers since..i-1 may still run */
    for (int32_t i = 0; i < l->n_layers; i += l->layers[i].chain) {
        bool *barrier = &l->layers[i].barrier;
        for (int32_t j = i; j < i + l->layers[i].chain; j++) {
            for (int32_t k = since; k < i && !*barrier; k++)
                *barrier = depends(l, &l->layers[j], &l->layers[k]);
        }
        if (*barrier) since = i;
    }
}

nas_status nas__layers_plan(nas_ctx *ctx, nas__layers *l) {
    l->buffers = nas_arena_alloc(ctx, l->arena, (size_t)l->n_values, sizeof *l->buffers);
    if (l->buffers == NULL) return NAS_ERR_NOMEM;
    nas_status status = nas__layers_planes(ctx, l);
    if (status != NAS_OK) return status;
    find_buffers(l);
    widen_borders(l);
    plan_constants(l);
    lay_out(l);
    status = plan_kernels(ctx, l);
    if (status == NAS_OK) nas__layers_chains(l);
    if (status == NAS_OK) status = place_buffers(ctx, l);
    if (status != NAS_OK) return status;
    place_barriers(l);
    l->arena_bytes = NAS__CONTROL_BYTES +
                     (l->value_floats + l->scratch_floats * (size_t)l->max_threads) * sizeof(float);
    return NAS_OK;
}
