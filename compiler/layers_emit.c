/* layers_emit.c - model.c of the layer form: kernels, then one function that calls them layer by layer on every thread.
 * Deterministic: same layers, same bytes. */
#include "compiler/layers_network_internal.h"

#include <string.h>

static const nas_node *node_of(const nas__layers *l, nas_value v) {
    return nas__layers_node(l, v);
}

/* ---- texts -------------------------------------------------------------------------------------------------------- */

static const char helpers[] =
    "/* The share of thread `thread` in n units of work. */\n"
    "#define FROM(n) ((int)((long long)(n) * thread / threads))\n"
    "#define TO(n) ((int)((long long)(n) * (thread + 1) / threads))\n\n"
    "/* Before a layer. All threads meet where it needs what others still write; while layers are "
    "timed, always. */\n"
    "static inline void before(model *m, int thread, int layer, int meet) {\n"
    "    if (meet || m->times != NULL) BARRIER(m);\n"
    "    if (m->times != NULL && thread == 0) m->times[layer] = clock_us();\n"
    "}\n\n"
    "/* Sets what surrounds an image, in bytes: `front` before its first pixel, `gap` between "
    "rows, "
    "`back` at the end. */\n"
    "static inline void clear_border(void *image, int value, size_t front, int rows, size_t row, "
    "size_t gap, size_t back,\n"
    "                                int thread, int threads) {\n"
    "    char *p = image;\n"
    "    if (thread == 0) memset(p - front, value, front);\n"
    "    for (int y = FROM(rows - 1); y < TO(rows - 1) && gap > 0; y++) {\n"
    "        memset(p + (size_t)(y + 1) * row - gap, value, gap);\n"
    "    }\n"
    "    if (thread == threads - 1) memset(p + (size_t)rows * row - gap, value, back);\n"
    "}\n\n";

static const char chain_helpers[] =
    "/* Rows [0, result) of the input that the rows before `end` of a convolution's output need. "
    "*/\n"
    "static inline int rows_to(int end, int stride, int reach, int pad, int height) {\n"
    "    const int rows = (end - 1) * stride + reach - pad;\n"
    "    return rows < height ? rows : height;\n"
    "}\n"
    "/* The first row of the input that row `begin` of the output needs. */\n"
    "static inline int rows_from(int begin, int stride, int pad) {\n"
    "    const int row = begin * stride - pad;\n"
    "    return row > 0 ? row : 0;\n"
    "}\n\n"
    "/* Sets the border of a thread's rows [from, to), in bytes: the gaps beside them, and what "
    "lies "
    "beyond the image. */\n"
    "static inline void clear_rows(void *image, int value, int from, int to, int height, size_t "
    "row, "
    "size_t gap, size_t front,\n"
    "                              size_t back) {\n"
    "    char *p = image;\n"
    "    for (int y = from > 0 ? from : 1; y <= to && y < height && gap > 0; y++) {\n"
    "        memset(p + (size_t)y * row - gap, value, gap);\n    }\n"
    "    if (from == 0) memset(p - front, value, front);\n"
    "    if (to == height) memset(p + (size_t)height * row - gap, value, back);\n"
    "}\n"
    "/* Moves the rows [next, to) of a value whose row `*base` is the first one at `image` there. "
    "*/\n"
    "static inline void slide_rows(void *image, int *base, int next, int to, size_t row, size_t "
    "gap) {\n"
    "    const int gone = next - *base;\n"
    "    if (gone > 0 && to > next)\n"
    "        memmove(image, (char *)image + (size_t)gone * row, (size_t)(to - next) * row - gap);\n"
    "    *base = next;\n"
    "}\n\n";

static const char profile[] =
    "void model_profile(void *arena, const float *in, float *out, double *layer_us) {\n"
    "    model *m = arena;\n"
    "    double times[MODEL_LAYERS + 1];\n"
    "    m->times = times;\n"
    "    model_run(arena, in, out);\n"
    "    times[MODEL_LAYERS] = clock_us();\n"
    "    m->times = NULL;\n"
    "    for (int i = 0; i < MODEL_LAYERS; i++) layer_us[i] = times[i + 1] - times[i];\n"
    "}\n";

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

static void kernel_name(const nas__layers *l, const nas__layer *layer, nas_buf *out) {
    switch (layer->kind) {
    case NAS__LAYER_CONV:
        nas__conv_name(l->target, &layer->conv, &layer->ways[layer->way], out);
        return;
    case NAS__LAYER_OP: nas__op_name(l->target, &layer->op, out); return;
    case NAS__LAYER_QCONV:
        nas__qconv_name(l->target, &layer->qconv, &layer->qways[layer->way], out);
        return;
    case NAS__LAYER_QOP: nas__qop_name(l->target, &layer->qop, out); return;
    case NAS__LAYER_OUTPUT: {
        if (nas__layers_quant(l, layer->inputs[0]) != NULL) {
            nas__qop_name(l->target, &layer->qop, out);
            return;
        }
        const nas__view view = nas__layers_view(l, layer->inputs[0]);
        nas__op_output_name(l->target, &view, out);
        return;
    }
    }
}

static void emit_kernel(const nas__layers *l, const nas__layer *layer, nas__unit *unit) {
    nas_buf *out = &unit->text;
    switch (layer->kind) {
    case NAS__LAYER_CONV:
        nas__conv_emit_apart(l->target, &layer->conv, &layer->ways[layer->way], out, &unit->code);
        return;
    case NAS__LAYER_OP: nas__op_emit(l->target, &layer->op, out); return;
    case NAS__LAYER_QCONV:
        nas__qconv_emit(l->target, &layer->qconv, &layer->qways[layer->way], out);
        return;
    case NAS__LAYER_QOP: nas__qop_emit(l->target, &layer->qop, out); return;
    case NAS__LAYER_OUTPUT: {
        if (nas__layers_quant(l, layer->inputs[0]) != NULL) {
            nas__qop_emit(l->target, &layer->qop, out);
            return;
        }
        const nas__view view = nas__layers_view(l, layer->inputs[0]);
        nas__op_emit_output(l->target, &view, out);
        return;
    }
    }
}

/* The name of each layer's kernel, in the arena. */
static nas_status kernel_names(nas_ctx *ctx, const nas__layers *l, const char **names) {
    for (int32_t i = 0; i < l->n_layers; i++) {
        nas_buf name = {0};
        kernel_name(l, &l->layers[i], &name);
        const nas_status status = nas_buf_status(ctx, &name);
        names[i] = status == NAS_OK
                       ? nas_arena_printf(ctx, l->arena, "%.*s", (int)name.len, name.data)
                       : NULL;
        nas_buf_deinit(&name);
        if (names[i] == NULL) return NAS_ERR_NOMEM;
    }
    return NAS_OK;
}

static void emit_kernels(const nas__layers *l, const char *const *names, nas__sources *out) {
    for (int32_t i = 0; i < l->n_layers; i++) {
        nas__unit *unit = nas__sources_unit(out, names[i]);
        if (unit != NULL) emit_kernel(l, &l->layers[i], unit);
    }
}

/* ---- calls -------------------------------------------------------------------------------------------------------- */

static void emit_weights(const nas__layers *l, size_t at, nas_buf *out) {
    nas_buf_printf(out, nas__layers_words(l) ? "WEIGHTS + %zu" : "model_weights + %zu", at);
}

/* Pointer to pixel (0,0) of a value plus `offset` minus `back` elements. */
static void emit_place(const nas__layers *l, nas_value v, size_t offset, size_t back,
                       nas_buf *out) {
    const nas__place *p = &l->places[v];
    if (p->constant) {
        emit_weights(l, p->at + offset - back, out);
        return;
    }
    const size_t element = nas__layers_element(l, v);
    const size_t buffer = l->buffers[p->buffer].at * sizeof(float) / element;
    nas_buf_printf(out, "%s + %zu", element == 1 ? "codes" : "values",
                   buffer + p->at + offset - back);
    if (p->shift > 0) nas_buf_printf(out, " + (size_t)thread * %zu", p->shift);
}

/* Elements of border around the buffer of value v. */
typedef struct border {
    size_t front, gap, back;
    size_t row;    /* from row to row of pixels, those of planes by themselves */
    int32_t lines; /* of an image row */
} border;

static border border_of(const nas__layers *l, nas_value v) {
    const nas__place *p = &l->places[v];
    const nas__layer_buffer *b = &l->buffers[p->buffer];
    const nas_shape *s = &node_of(l, b->value)->shape;
    const size_t c = (size_t)s->c;
    if (p->planar) { /* whole vectors of pixels are no border */
        const bool none = b->top + b->left + b->bottom + b->right == 0;
        const size_t gap = none ? 0 : p->plane - (size_t)s->w * (size_t)p->pitch;
        return (border){.front = (size_t)b->top * p->row + (size_t)(b->left * p->pitch),
                        .gap = gap,
                        .back = (size_t)b->bottom * p->row + gap,
                        .row = p->plane,
                        .lines = (s->c + 3) / 4};
    }
    return (border){.row = p->row,
                    .lines = 1,
                    .front = (size_t)b->top * p->row + (size_t)b->left * c,
                    .gap = p->row - (size_t)s->w * c,
                    .back = (size_t)b->bottom * p->row + (size_t)b->right * c};
}

static bool has_border(const border *b) {
    return b->front > 0 || b->gap > 0 || b->back > 0;
}

/* The byte that borders are made of: 0.0, or the code of zero. */
static int32_t border_value(const nas__layers *l, nas_value v) {
    const nas_quant *q = nas__layers_quant(l, v);
    return q == NULL ? 0 : q->zero_point & 255;
}

/* The first layer of a buffer's life clears its border. */
static void emit_clear(const nas__layers *l, int32_t i, nas_value value, nas_buf *out) {
    const nas__layer_buffer *b = &l->buffers[l->places[value].buffer];
    const border around = border_of(l, value);
    if (b->first != i || !has_border(&around)) return;
    const size_t element = nas__layers_element(l, b->value);
    nas_buf_puts(out, "    clear_border(");
    emit_place(l, b->value, 0, 0, out);
    nas_buf_printf(out, ", %d, %zu, %d, %zu, %zu, %zu, thread, threads);\n",
                   border_value(l, b->value), around.front * element,
                   node_of(l, b->value)->shape.h * around.lines, around.row * element,
                   around.gap * element, around.back * element);
}

/* Further to row from<k> times `stride` of value v, k >= 0. A band begins at its first row, or where rows that are read
 * again were moved to: row base<made> of the image, of the value of layer `made`. */
static void emit_row(const nas__layers *l, nas_value v, int32_t k, int32_t made, int32_t stride,
                     nas_buf *out) {
    const nas__place *p = &l->places[v];
    if (k >= 0 && !p->banded)
        nas_buf_printf(out, " + (size_t)from%d * %zu", k, (size_t)stride * p->row);
    else if (k >= 0 && p->slides)
        nas_buf_printf(out, " + (size_t)(from%d * %d - base%d) * %zu", k, stride, made, p->row);
}

/* in, out, residual; for the rows of its result from from<k> on where k >= 0 */
static void emit_operands(const nas__layers *l, const nas__layer *layer, int32_t k, nas_buf *out) {
    switch (layer->kind) {
    case NAS__LAYER_CONV:
    case NAS__LAYER_QCONV: {
        const nas_conv_attributes *a = &node_of(l, layer->node)->conv;
        const nas__place *in = &l->places[layer->inputs[0]];
        emit_place(l, layer->inputs[0], 0,
                   (size_t)a->pad_top * in->row + (size_t)(a->pad_left * in->pitch), out);
        emit_row(l, layer->inputs[0], k, k - 1, a->stride_h, out);
        break;
    }
    case NAS__LAYER_OP:
    case NAS__LAYER_QOP:
        if (layer->n_inputs == 0) {
            nas_buf_puts(out, "m->in");
            if (k >= 0) /* kernels of planes count their rows from the first one on */
                nas_buf_printf(out, " + from%d * %dL", k, node_of(l, layer->value)->shape.w);
        } else {
            emit_place(l, layer->inputs[0], 0, 0, out);
        }
        break;
    case NAS__LAYER_OUTPUT: emit_place(l, layer->inputs[0], 0, 0, out); break;
    }
    nas_buf_puts(out, ", ");
    if (layer->kind == NAS__LAYER_OUTPUT) {
        nas_buf_puts(out, "m->out");
        if (k >= 0) nas_buf_printf(out, " + from%d * %dL", k, node_of(l, layer->value)->shape.w);
    } else {
        emit_place(l, layer->value, layer->out_offset, 0, out);
        emit_row(l, layer->value, k, k, 1, out);
    }
    nas_buf_puts(out, ", ");
    if (layer->n_inputs == 2) {
        emit_place(l, layer->inputs[1], 0, 0, out);
        emit_row(l, layer->inputs[1], k, k, 1, out);
    } else {
        nas_buf_puts(out, "NULL");
    }
    if (layer->weight_floats > 0) {
        nas_buf_puts(out, ", ");
        emit_weights(l, layer->weights_at, out);
        nas_buf_puts(out, ", scratch");
    } else {
        nas_buf_puts(out, ", NULL, scratch");
    }
}

static void emit_alone(const nas__layers *l, int32_t i, const char *name, nas_buf *out) {
    const nas__layer *layer = &l->layers[i];
    if (layer->kind != NAS__LAYER_OUTPUT) emit_clear(l, i, layer->value, out);
    nas_buf_printf(out, "    %s(", name);
    emit_operands(l, layer, -1, out);
    nas_buf_printf(out, ", FROM(%d), TO(%d));\n", layer->units, layer->units);
}

/* What lies beyond the last row of a value that slides, once that row is there. */
static void emit_beyond(const nas__layers *l, const nas__layer *layer, int32_t k, nas_buf *out) {
    const border around = border_of(l, layer->value);
    const size_t element = nas__layers_element(l, layer->value);
    const int32_t height = nas__layers_rows(l, layer).height;
    if (around.back == 0) return;
    nas_buf_printf(out, "            if (to%d == %d) memset(", k, height);
    emit_place(l, layer->value, 0, around.gap, out);
    nas_buf_printf(out, " + (size_t)(%d - base%d) * %zu, %d, %zu);\n", height, k,
                   l->places[layer->value].row, border_value(l, layer->value),
                   around.back * element);
}

/* The rows of the value of layer k that the next band reads again go to the front. */
static void emit_slide(const nas__layers *l, int32_t k, nas_buf *out) {
    const nas_value v = l->layers[k].value;
    const nas__layer_rows next = nas__layers_rows(l, &l->layers[k + 1]);
    const border around = border_of(l, v);
    const size_t element = nas__layers_element(l, v), row = l->places[v].row * element;
    nas_buf_puts(out, "            slide_rows(");
    emit_place(l, v, 0, 0, out);
    nas_buf_printf(out, ", &base%d, rows_from(from%d, %d, %d), to%d, %zu, %zu);\n", k, k + 1,
                   next.stride, next.pad, k, row, around.gap * element);
}

/* from<k>: rows of the value of layer k that the thread has computed; to<k>: those that this band needs. */
static void emit_chain(const nas__layers *l, int32_t i, const char *const *names, nas_buf *out) {
    const int32_t n = l->layers[i].chain, last = i + n - 1;
    const int32_t height = nas__layers_rows(l, &l->layers[last]).height;
    if (l->layers[last].kind != NAS__LAYER_OUTPUT) emit_clear(l, i, l->layers[last].value, out);
    nas_buf_printf(out,
                   "    if (FROM(%d) < TO(%d)) { /* bands of %d rows go through %d layers in the "
                   "cache */\n"
                   "        int from%d = FROM(%d);\n        const int end%d = TO(%d);\n",
                   height, height, l->layers[i].band, n, last, height, last, height);
    for (int32_t k = last - 1; k >= i; k--) {
        const nas__layer_rows next = nas__layers_rows(l, &l->layers[k + 1]);
        const int32_t rows = nas__layers_rows(l, &l->layers[k]).height;
        const nas_value v = l->layers[k].value;
        const border around = border_of(l, v);
        nas_buf_printf(out,
                       "        int from%d = rows_from(from%d, %d, %d);\n"
                       "        const int end%d = rows_to(end%d, %d, %d, %d, %d);\n",
                       k, k + 1, next.stride, next.pad, k, k + 1, next.stride, next.reach, next.pad,
                       rows);
        if (l->places[v].slides) nas_buf_printf(out, "        int base%d = from%d;\n", k, k);
        if (!has_border(&around)) continue;
        nas_buf_puts(out, "        clear_rows(");
        emit_place(l, v, 0, 0, out);
        const size_t element = nas__layers_element(l, v);
        if (l->places[v].slides) { /* its last row is not there yet */
            const int32_t lines = l->places[v].window * around.lines;
            nas_buf_printf(out, ", %d, 0, %d, %d, %zu, %zu, %zu, 0);\n", border_value(l, v), lines,
                           lines + 1, around.row * element, around.gap * element,
                           around.front * element);
            continue;
        }
        nas_buf_printf(out, ", %d, from%d", border_value(l, v), k);
        if (around.lines > 1) nas_buf_printf(out, " * %d", around.lines);
        nas_buf_printf(out, ", end%d", k);
        if (around.lines > 1) nas_buf_printf(out, " * %d", around.lines);
        nas_buf_printf(out, ", %d, %zu, %zu, %zu, %zu);\n", rows * around.lines,
                       around.row * element, around.gap * element, around.front * element,
                       around.back * element);
    }
    nas_buf_printf(out,
                   "        while (from%d < end%d) {\n"
                   "            const int to%d = from%d + %d < end%d ? from%d + %d : end%d;\n",
                   last, last, last, last, l->layers[i].band, last, last, l->layers[i].band, last);
    for (int32_t k = last - 1; k >= i; k--) {
        const nas__layer_rows next = nas__layers_rows(l, &l->layers[k + 1]);
        nas_buf_printf(out, "            const int to%d = rows_to(to%d, %d, %d, %d, %d);\n", k,
                       k + 1, next.stride, next.reach, next.pad,
                       nas__layers_rows(l, &l->layers[k]).height);
    }
    for (int32_t k = i; k <= last; k++) {
        const int32_t units = l->layers[k].units / nas__layers_rows(l, &l->layers[k]).height;
        nas_buf_printf(out, "            %s(", names[k]);
        const nas__layer *layer = &l->layers[k];
        const bool banded = l->places[layer->value].banded || l->places[layer->inputs[0]].banded;
        emit_operands(l, layer, banded ? k : -1, out);
        if (banded) {
            nas_buf_printf(out, ", 0, (to%d - from%d) * %d);\n", k, k, units);
        } else {
            nas_buf_printf(out, ", from%d * %d, to%d * %d);\n", k, units, k, units);
        }
        nas_buf_printf(out, "            from%d = to%d;\n", k, k);
        if (k < last && l->places[layer->value].slides) emit_beyond(l, layer, k, out);
    }
    for (int32_t k = i; k < last; k++) {
        if (l->places[l->layers[k].value].slides) emit_slide(l, k, out);
    }
    nas_buf_puts(out, "        }\n    }\n");
}

/* What a layer that is not the node's own does to its value. */
static const char *does(const nas__layer *layer) {
    if (layer->kind == NAS__LAYER_OUTPUT) return "output of ";
    if (layer->kind != NAS__LAYER_QOP) return "";
    if (layer->qop.kind == NAS__QOP_ENCODE) return "codes of ";
    return layer->qop.kind == NAS__QOP_DECODE ? "floats of " : "";
}

static void emit_calls(const nas__layers *l, const char *const *names, nas_buf *out) {
    nas_buf_puts(out, "static void run_thread(void *arg, int thread, int threads) {\n"
                      "    model *m = arg;\n"
                      "    float *const values = (float *)(void *)((char *)arg + CONTROL_BYTES);\n"
                      "    float *const scratch = values + VALUE_FLOATS + (size_t)thread * "
                      "SCRATCH_FLOATS;\n"
                      "    (void)scratch;\n");
    if (l->integers)
        nas_buf_puts(out, "    unsigned char *const codes = (unsigned char *)values;\n");
    for (int32_t i = 0; i < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        nas_buf_printf(out, "    before(m, thread, %d, %d); /* %s%s */\n", i, (int)layer->barrier,
                       does(layer), node_of(l, layer->value)->name);
        const bool ends = i + 1 == l->n_layers || l->layers[i + 1].chain != 0;
        if (layer->chain == 0 && ends) {
            int32_t first = i; /* the whole chain where its last layer is noted */
            while (l->layers[first].chain == 0)
                first--;
            emit_chain(l, first, names, out);
        } else if (layer->chain == 1) {
            emit_alone(l, i, names[i], out);
        }
    }
    nas_buf_puts(out, "}\n\n");
}

/* ---- model.c ------------------------------------------------------------------------------------------------------ */

static void emit_banner(const nas__layers *l, nas_buf *out) {
    const nas_shape *in = &node_of(l, l->input)->shape, *result = &node_of(l, l->output)->shape;
    nas_buf_printf(
        out,
        "/* model.c - generated by the network compiler %s; change the network, not this file.\n",
        NAS_VERSION);
    nas_buf_printf(out, " * graph %s\n", l->graph_hash);
    nas_buf_printf(out,
                   " * target %s: %d-byte vectors, %d registers, %d KiB L2; up to %d threads\n",
                   l->target->name, l->target->vector_bytes, l->target->vector_registers,
                   l->target->l2_bytes / 1024, l->max_threads);
    nas_buf_printf(out, " * image %d x %d x %d -> %d x %d x %d [channels, rows, columns]\n", in->c,
                   in->h, in->w, result->c, result->h, result->w);
    nas_buf_printf(out, " * %d layers; arena %zu bytes, %zu weights\n *\n", l->n_layers,
                   l->arena_bytes, l->weight_floats);
    nas_buf_puts(out, " * Layer by layer over whole images [rows][columns][channels], channels in "
                      "lanes; borders of zeros as wide\n"
                      " * as the padding of their readers.\n */\n");
}

static void emit_includes(const nas__layers *l, nas_buf *out) {
    nas_buf_puts(
        out,
        "#ifndef _POSIX_C_SOURCE\n#define _POSIX_C_SOURCE 200809L\n#endif\n"
        "#include \"model.h\"\n\n#include <errno.h>\n#include <stdint.h>\n#include <string.h>\n"
        "#include <time.h>\n\n");
    nas_buf_puts(out, nas__layers_words(l)
                          ? "extern const uint32_t model_weights[]; /* floats among them */\n"
                            "#define WEIGHTS ((const float *)(const void "
                            "*)model_weights)\n\n"
                          : "extern const float model_weights[];\n\n");
    if (l->max_threads > 1) {
        nas__emit_workers_type(out);
        nas_buf_puts(out, "#define BARRIER(m) workers_meet((m)->workers)\n\n");
    } else {
        nas_buf_puts(out, "#define BARRIER(m) ((void)(m))\n\n");
    }
}

static void emit_layer_names(const nas__layers *l, nas_buf *out) {
    nas_buf_puts(out, "const char *const model_layer_names[MODEL_LAYERS] = {\n");
    for (int32_t i = 0; i < l->n_layers; i++) {
        nas_buf_printf(out, "    \"%s%s\",\n", does(&l->layers[i]),
                       node_of(l, l->layers[i].value)->name);
    }
    nas_buf_puts(out, "};\n\n");
}

static void emit_header(const nas__layers *l, nas_buf *out) {
    const nas_shape *in = &node_of(l, l->input)->shape, *result = &node_of(l, l->output)->shape;
    const nas__model_contract contract = {.name = nas_graph_name(l->graph),
                                          .graph_hash = l->graph_hash,
                                          .target = l->target,
                                          .in = {1, in->h, in->w, in->c},
                                          .out = {1, result->h, result->w, result->c},
                                          .arena_bytes = l->arena_bytes,
                                          .max_threads = l->max_threads,
                                          .layers = l->n_layers,
                                          .macs = nas__graph_macs(l->graph)};
    nas__emit_contract(&contract, out);
}

/* Several kinds of integer kernels use them; where the target has them, they may be. */
static bool has_tile_registers(const nas__layers *l) {
    for (int32_t i = 0; i < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        if (layer->kind == NAS__LAYER_CONV &&
            layer->ways[layer->way].algorithm == NAS__CONV_BF16_TILE)
            return true;
        if (layer->kind == NAS__LAYER_QCONV && strstr(l->target->needs, "amx_tile") != NULL)
            return true;
    }
    return false;
}

nas_status nas__layers_emit(nas_ctx *ctx, const nas__layers *l, nas__sources *out) {
    const bool threads = l->max_threads > 1;
    const char **names = nas_arena_alloc(ctx, l->arena, (size_t)l->n_layers, sizeof *names);
    if (names == NULL) return NAS_ERR_NOMEM;
    const nas_status status = kernel_names(ctx, l, names);
    if (status != NAS_OK) return status;
    emit_banner(l, &out->head);
    emit_includes(l, &out->head);
    nas__emit_vector_prelude(l->target, &out->prelude);
    if (l->integers) nas__emit_quant_prelude(l->target, &out->prelude);
    if (threads) nas__emit_workers(out);
    emit_kernels(l, names, out);
    nas_buf *body = &out->body;
    nas_buf_printf(body,
                   "typedef struct model {\n%s"
                   "    const float *in;\n    float *out;\n"
                   "    double *times; /* NULL, or where to note when each layer begins */\n"
                   "} model;\n"
                   "typedef char model_fits_its_block[sizeof(model) <= %d ? 1 : -1];\n\n",
                   threads ? "    workers workers;\n" : "", NAS__CONTROL_BYTES);
    nas_buf_printf(body, "#define CONTROL_BYTES ((size_t)%d)\n", NAS__CONTROL_BYTES);
    nas_buf_printf(body, "#define VALUE_FLOATS ((size_t)%zu)\n", l->value_floats);
    nas_buf_printf(body, "#define SCRATCH_FLOATS ((size_t)%zu)\n\n", l->scratch_floats);
    nas__emit_clock(body);
    nas_buf_puts(body, helpers);
    nas_buf_puts(body, chain_helpers);
    emit_calls(l, names, body);
    nas__emit_entry_points(threads, has_tile_registers(l), body);
    nas_buf_puts(body, "\n");
    emit_layer_names(l, body);
    nas_buf_puts(body, profile);
    emit_header(l, &out->header);
    out->arena_bytes = l->arena_bytes;
    return nas__sources_status(ctx, out);
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

static const float *param_of(const nas__layers *l, nas_value v, int32_t slot) {
    const int32_t index = v == NAS_VALUE_NONE ? -1 : node_of(l, v)->params[slot];
    return index < 0 ? NULL : nas_graph_param_const(l->graph, index)->data;
}

/* Kernels of floats compute with what the weights' codes mean. */
static nas_status pack_floats(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                              float *out) {
    const nas_param *w = nas_graph_param_const(l->graph, node_of(l, layer->node)->params[0]);
    const size_t n = w->count / (size_t)w->dims[0];
    const nas__conv_way *way = &layer->ways[layer->way];
    const float *bias = param_of(l, layer->node, 1), *slope = param_of(l, layer->slope, 0);
    if (w->scales == NULL)
        return nas__conv_pack(ctx, l->target, &layer->conv, way, w->data, bias, slope, out);
    float *rounded = nas_alloc_array(ctx, w->count, sizeof *rounded);
    int8_t *codes = nas_alloc_array(ctx, n, sizeof *codes);
    nas_status status = rounded == NULL || codes == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (int32_t o = 0; o < w->dims[0] && status == NAS_OK; o++) {
        nas_quant_weights(w->data + (size_t)o * n, n, (double)w->scales[o], w->bits, codes);
        for (size_t i = 0; i < n; i++)
            rounded[(size_t)o * n + i] = (float)codes[i] * w->scales[o];
    }
    if (status == NAS_OK)
        status = nas__conv_pack(ctx, l->target, &layer->conv, way, rounded, bias, slope, out);
    nas_free(rounded);
    nas_free(codes);
    return status;
}

static nas_status pack_layer(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                             float *out) {
    switch (layer->kind) {
    case NAS__LAYER_CONV: return pack_floats(ctx, l, layer, out);
    case NAS__LAYER_OP: {
        nas__op_weights w = {{NULL}};
        for (int32_t k = 0; k < NAS_NODE_PARAMS_MAX; k++)
            w.data[k] = param_of(l, layer->node, k);
        nas__op_pack(l->target, &layer->op, &w, out);
        return NAS_OK;
    }
    case NAS__LAYER_QCONV:
    case NAS__LAYER_QOP:
    case NAS__LAYER_OUTPUT: return nas__layer_pack_integers(ctx, l, layer, out);
    }
    return NAS_OK;
}

nas_status nas__layers_pack(nas_ctx *ctx, const nas__layers *l, float *out) {
    if (!nas_graph_has_weights(l->graph)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "graph '%s' has no weights; train it or allocate weights first",
                        nas_graph_name(l->graph));
    }
    memset(out, 0, l->weight_floats * sizeof *out);
    nas_status status = NAS_OK;
    for (nas_value v = 0; v < nas_graph_node_count(l->graph); v++) {
        const nas__place *p = &l->places[v];
        if (!p->used || !p->constant) continue;
        const nas_shape *s = &node_of(l, v)->shape;
        memcpy(out + p->at, param_of(l, v, 0),
               (size_t)s->h * (size_t)s->w * (size_t)s->c * sizeof *out);
    }
    for (int32_t i = 0; i < l->n_layers && status == NAS_OK; i++) {
        const nas__layer *layer = &l->layers[i];
        if (layer->weight_floats == 0) continue;
        status = pack_layer(ctx, l, layer, out + layer->weights_at);
        if (status != NAS_OK)
            (void)nas_wrap(ctx, status, "node '%s'", node_of(l, layer->node)->name);
    }
    return status;
}
