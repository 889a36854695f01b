/* program.c - lowering of a graph to a program: one stage a node, checks, text form, and the list of passes. */
#include "compiler/compiler_internal.h"

#include <string.h>

enum { NODES_MAX = 4096, CHANNELS_MAX = 1024, EXTENT_MAX = 16384, THREADS_MAX = 64 };

void nas__program_free(nas__program *program) {
    if (program == NULL) return;
    nas_arena_free(program->arena);
    nas_free(program);
}

/* ---- import ---------------------------------------------------------------------------------------------------- */

static nas_status check_conv(nas_ctx *ctx, const nas_node *node) {
    const nas_conv_attributes *c = &node->conv;
    const bool same = c->pad_top == c->kernel_h / 2 && c->pad_bottom == c->kernel_h / 2 &&
                      c->pad_left == c->kernel_w / 2 && c->pad_right == c->kernel_w / 2;
    const bool odd = c->kernel_h % 2 == 1 && c->kernel_w % 2 == 1;
    if (c->stride_h == 1 && c->stride_w == 1 && c->dilation_h == 1 && c->dilation_w == 1 &&
        c->groups == 1 && odd && same && c->kernel_h <= NAS__KERNEL_MAX &&
        c->kernel_w <= NAS__KERNEL_MAX) {
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                    "conv '%s': kernel %dx%d, stride %dx%d, dilation %dx%d, groups %d; the "
                    "compiler takes stride 1, "
                    "dilation 1, groups 1 and odd kernels up to %d with same padding",
                    node->name, c->kernel_h, c->kernel_w, c->stride_h, c->stride_w, c->dilation_h,
                    c->dilation_w, c->groups, NAS__KERNEL_MAX);
}

static nas_status check_conv_transpose(nas_ctx *ctx, const nas_node *node, const nas_shape *in,
                                       const nas__term *t) {
    const nas_conv_attributes *c = &node->conv;
    const bool shape = node->shape.h == in->h * c->stride_h && node->shape.w == in->w * c->stride_w;
    if (shape && c->stride_h == c->stride_w && c->stride_h >= 2 && c->stride_h <= NAS__UP_MAX &&
        c->dilation_h == 1 && c->dilation_w == 1 && c->groups == 1 &&
        t->kernel_h <= NAS__KERNEL_MAX && t->kernel_w <= NAS__KERNEL_MAX) {
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                    "conv_transpose '%s': kernel %dx%d, stride %dx%d, dilation %dx%d, groups %d, "
                    "%dx%d from %dx%d; the row pipeline takes equal strides 2 to %d, dilation 1, "
                    "groups 1, an output of stride times the input, taps within %d input pixels",
                    node->name, c->kernel_h, c->kernel_w, c->stride_h, c->stride_w, c->dilation_h,
                    c->dilation_w, c->groups, node->shape.h, node->shape.w, in->h, in->w,
                    NAS__UP_MAX, NAS__KERNEL_MAX / 2);
}

static const float *param_data(const nas_graph *graph, int32_t index) {
    return index < 0 ? NULL : nas_graph_param_const(graph, index)->data;
}

static nas_status check_node(nas_ctx *ctx, const nas_node *node, const nas_shape *input) {
    const nas_shape s = node->shape;
    if (s.n != 1) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "node '%s': batch %d, the compiler takes 1",
                        node->name, s.n);
    }
    if (s.c > CHANNELS_MAX || s.h > EXTENT_MAX || s.w > EXTENT_MAX) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "node '%s': %dx%dx%d [h,w,c], limits %d, %d, %d",
                        node->name, s.h, s.w, s.c, EXTENT_MAX, EXTENT_MAX, CHANNELS_MAX);
    }
    const int32_t rate = s.h / input->h;
    if (s.h != input->h * rate || s.w != input->w * rate || rate > 64) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "node '%s': %dx%d is no small multiple of the input's %dx%d", node->name,
                        s.h, s.w, input->h, input->w);
    }
    return NAS_OK;
}

/* The row pipeline sums, activates and shuffles; other operators need another form. */
static nas_status check_operator(nas_ctx *ctx, const nas_graph *g, const nas_node *node) {
    switch (node->op) {
    case NAS_OP_ADD: {
        const nas_shape *a = &node->shape, *b = &nas_graph_node(g, node->inputs[1])->shape;
        if (a->h == b->h && a->w == b->w && a->c == b->c && a->n == b->n) return NAS_OK;
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "node '%s': %s that broadcasts its second operand", node->name,
                        nas_op_name(node->op));
    }
    case NAS_OP_INPUT:
    case NAS_OP_CONV:
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_COUNT: return NAS_OK;
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE: break;
    }
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                    "node '%s': %s is not an operator of the row pipeline", node->name,
                    nas_op_name(node->op));
}

/* Fills kind, sources and constants of one stage from its node; stage_of: of each value so far. */
static nas_status lower_node(nas_ctx *ctx, const nas__program *p, const nas_node *node,
                             const int32_t *stage_of, nas__stage *stage) {
    stage->kind = NAS__SUM;
    switch (node->op) {
    case NAS_OP_INPUT: stage->kind = NAS__INPUT; return NAS_OK;
    case NAS_OP_CONV:
        stage->n_terms = 1;
        stage->terms[0] =
            (nas__term){.source = stage_of[node->inputs[0]],
                        .up = 1,
                        .kernel_h = node->conv.kernel_h,
                        .kernel_w = node->conv.kernel_w,
                        .channels = nas_graph_node(p->graph, node->inputs[0])->shape.c,
                        .weight = param_data(p->graph, node->params[0])};
        const float *bias = node->conv.has_bias ? param_data(p->graph, node->params[1]) : NULL;
        if (bias != NULL) memcpy(stage->bias, bias, (size_t)stage->channels * sizeof *bias);
        return check_conv(ctx, node);
    case NAS_OP_RELU: stage->act = NAS__ACT_RELU; break;
    case NAS_OP_PRELU:
        stage->act = NAS__ACT_PRELU;
        stage->slope = param_data(p->graph, node->params[0]);
        break;
    case NAS_OP_ADD:
        stage->n_adds = 2;
        stage->adds[0] = stage_of[node->inputs[0]];
        stage->adds[1] = stage_of[node->inputs[1]];
        return NAS_OK;
    case NAS_OP_ADD_SCALAR:
        for (int32_t c = 0; c < stage->channels; c++)
            stage->bias[c] = node->scalar;
        break;
    case NAS_OP_DEPTH_TO_SPACE:
        stage->kind = NAS__SHUFFLE;
        stage->block = node->block;
        if (node->block > NAS__BLOCK_MAX) {
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "depth_to_space '%s': block %d, limit %d",
                            node->name, node->block, NAS__BLOCK_MAX);
        }
        break;
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_COUNT: return nas_fail(ctx, NAS_ERR_INTERNAL, "node '%s': no operator", node->name);
    }
    stage->n_adds = 1;
    stage->adds[0] = stage_of[node->inputs[0]];
    return NAS_OK;
}

static nas_status new_stage(nas_ctx *ctx, nas__program *p, const char *name, int32_t channels,
                            int32_t rate, nas__stage **out) {
    nas__stage *stage = &p->stages[p->n_stages++];
    stage->name = name;
    stage->channels = channels;
    stage->rate = rate;
    stage->pair = -1;
    stage->bias = nas_arena_alloc(ctx, p->arena, (size_t)channels, sizeof *stage->bias);
    *out = stage;
    return stage->bias != NULL ? NAS_OK : NAS_ERR_NOMEM;
}

/* A transposed convolution: its phases as channels, then a shuffle. */
static nas_status lower_conv_transpose(nas_ctx *ctx, nas__program *p, const nas_node *node,
                                       const int32_t *stage_of, const char *name) {
    const nas_conv_attributes *c = &node->conv;
    const nas_shape *in = &nas_graph_node(p->graph, node->inputs[0])->shape;
    nas__term t = {.source = stage_of[node->inputs[0]],
                   .channels = in->c,
                   .up = c->stride_h,
                   .twice = nas__weights_twice(p),
                   .up_h = c->kernel_h,
                   .up_w = c->kernel_w,
                   .up_top = c->pad_top,
                   .up_left = c->pad_left,
                   .weight = param_data(p->graph, node->params[0])};
    t.kernel_h = 2 * nas__phase_reach(t.up, t.up_h, t.up_top) + 1;
    t.kernel_w = 2 * nas__phase_reach(t.up, t.up_w, t.up_left) + 1;
    nas_status status = check_conv_transpose(ctx, node, in, &t);
    if (status != NAS_OK) return status;
    const int32_t phases = t.up * t.up, rate = p->stages[t.source].rate;
    nas__stage *sum = NULL, *shuffle = NULL;
    const int32_t at = p->n_stages;
    const char *phase_name = nas_arena_printf(ctx, p->arena, "%s.phases", node->name);
    if (phase_name == NULL) return NAS_ERR_NOMEM;
    if (node->shape.c > CHANNELS_MAX / phases) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "conv_transpose '%s': %d channels, limit %d",
                        node->name, node->shape.c, CHANNELS_MAX / phases);
    }
    status = new_stage(ctx, p, phase_name, node->shape.c * phases, rate, &sum);
    if (status == NAS_OK) status = new_stage(ctx, p, name, node->shape.c, rate * t.up, &shuffle);
    if (status != NAS_OK) return status;
    sum->kind = NAS__SUM;
    sum->n_terms = 1;
    sum->terms[0] = t;
    const float *bias = c->has_bias ? param_data(p->graph, node->params[1]) : NULL;
    for (int32_t i = 0; bias != NULL && i < sum->channels; i++)
        sum->bias[i] = bias[i / phases];
    shuffle->kind = NAS__SHUFFLE;
    shuffle->block = t.up;
    shuffle->n_adds = 1;
    shuffle->adds[0] = at;
    return NAS_OK;
}

static nas_status import_node(nas_ctx *ctx, nas__program *p, const nas_node *node,
                              const nas_shape *input, const int32_t *stage_of) {
    nas_status status = check_operator(ctx, p->graph, node);
    if (status == NAS_OK) status = check_node(ctx, node, input);
    if (status != NAS_OK) return status;
    const char *name = nas_arena_printf(ctx, p->arena, "%s", node->name);
    if (name == NULL) return NAS_ERR_NOMEM;
    if (node->op == NAS_OP_CONV_TRANSPOSE)
        return lower_conv_transpose(ctx, p, node, stage_of, name);
    nas__stage *stage = NULL;
    status = new_stage(ctx, p, name, node->shape.c, node->shape.h / input->h, &stage);
    return status == NAS_OK ? lower_node(ctx, p, node, stage_of, stage) : status;
}

static nas_status import_nodes(nas_ctx *ctx, nas__program *p, int32_t n_nodes) {
    const nas_shape input = nas_graph_node(p->graph, nas_graph_input(p->graph))->shape;
    int32_t *stage_of = nas_alloc_array(ctx, (size_t)n_nodes, sizeof *stage_of);
    nas_status status = stage_of != NULL ? NAS_OK : NAS_ERR_NOMEM;
    for (int32_t v = 0; v < n_nodes && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(p->graph, v);
        if (node->op == NAS_OP_INPUT && v != nas_graph_input(p->graph)) {
            status = nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                              "node '%s': a second input, the compiler takes one", node->name);
        } else {
            status = import_node(ctx, p, node, &input, stage_of);
            stage_of[v] = p->n_stages - 1;
        }
    }
    p->height = input.h;
    p->width = input.w;
    if (status == NAS_OK) {
        p->input = stage_of[nas_graph_input(p->graph)];
        p->output = stage_of[nas_graph_output(p->graph)];
    }
    nas_free(stage_of);
    return status;
}

/* Stages that the output does not depend on are dead from the start. */
static void drop_unused(nas__program *p) {
    for (int32_t v = p->n_stages - 1; v >= 0; v--) {
        if (v != p->input && nas__use_count(p, v) == 0) p->stages[v].dead = true;
    }
}

static nas_status import_into(nas_ctx *ctx, nas__program *p) {
    nas_status status = nas_graph_verify(ctx, p->graph);
    if (status != NAS_OK) return status;
    const int32_t n_nodes = nas_graph_node_count(p->graph);
    if (n_nodes > NODES_MAX) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "graph '%s': %d nodes, limit %d",
                        nas_graph_name(p->graph), n_nodes, NODES_MAX);
    }
    if (nas_graph_input(p->graph) == NAS_VALUE_NONE) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "graph '%s' has no input",
                        nas_graph_name(p->graph));
    }
    p->has_weights = nas_graph_has_weights(p->graph);
    status = nas_graph_hash(ctx, p->graph, false, p->graph_hash);
    if (status != NAS_OK) return status;
    p->arena = nas_arena_new(ctx, 64 * 1024);
    if (p->arena == NULL) return NAS_ERR_NOMEM;
    /* A node makes one stage, or two. */
    p->stages = nas_arena_alloc(ctx, p->arena, 2 * (size_t)n_nodes, sizeof *p->stages);
    if (p->stages == NULL) return NAS_ERR_NOMEM;
    status = import_nodes(ctx, p, n_nodes);
    if (status == NAS_OK) drop_unused(p);
    return status;
}

nas_status nas__import(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                       nas__program **out) {
    const int32_t max_threads = options->max_threads;
    if (max_threads < 1 || max_threads > THREADS_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "max_threads %d: 1..%d", max_threads, THREADS_MAX);
    }
    nas__program *program = nas_alloc_array(ctx, 1, sizeof *program);
    if (program == NULL) return NAS_ERR_NOMEM;
    program->graph = graph;
    program->target = options->target;
    program->max_threads = max_threads;
    program->kernels = options->row_kernels;
    program->options = options;
    program->dtype = options->dtype;
    const nas_status status = import_into(ctx, program);
    if (status != NAS_OK) {
        nas__program_free(program);
        return status;
    }
    *out = program;
    return NAS_OK;
}

/* ---- queries --------------------------------------------------------------------------------------------------- */

int32_t nas__use_count(const nas__program *p, int32_t value) {
    int32_t uses = p->output == value ? 1 : 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *stage = &p->stages[v];
        if (stage->dead) continue;
        for (int32_t i = 0; i < stage->n_terms; i++)
            uses += stage->terms[i].source == value;
        for (int32_t i = 0; i < stage->n_adds; i++)
            uses += stage->adds[i] == value;
    }
    return uses;
}

static int32_t own_reads(const nas__stage *stage, nas__read *out) {
    int32_t n = 0;
    for (int32_t i = 0; i < stage->n_terms; i++) {
        if (stage->pair == stage->terms[i].source) continue;
        out[n++] = (nas__read){stage->terms[i].source, stage->terms[i].kernel_h / 2,
                               stage->terms[i].kernel_w / 2};
    }
    for (int32_t i = 0; i < stage->n_adds; i++)
        out[n++] = (nas__read){stage->adds[i], 0, 0};
    return n;
}

int32_t nas__reads(const nas__program *p, const nas__stage *stage, nas__read out[NAS__READS_MAX]) {
    int32_t n = own_reads(stage, out);
    if (stage->pair >= 0) n += own_reads(&p->stages[stage->pair], out + n);
    return n;
}

const char *nas__real(const nas__program *p) {
    return p->dtype == NAS_DTYPE_FP16 ? "_Float16" : "float";
}

size_t nas__real_bytes(const nas__program *p) {
    return p->dtype == NAS_DTYPE_FP16 ? 2 : sizeof(float);
}

int32_t nas__row_vectors(const nas__program *p, int32_t rate) {
    return p->plan.vectors * rate;
}

size_t nas__pitch(const nas__program *p, int32_t rate) {
    const size_t floats =
        (size_t)nas__row_vectors(p, rate) * (size_t)p->plan.lanes + (size_t)p->plan.pad;
    /* An odd number of cache lines: else the rows of many channels, read side by side, would share few cache sets. */
    enum { LINE = 16 };
    const size_t lines = (floats + LINE - 1) / LINE;
    return (lines | 1) * LINE;
}

int32_t nas__phase_tap(int32_t up, int32_t kernel, int32_t pad, int32_t phase, int32_t offset) {
    const int32_t k = phase + pad - offset * up;
    return k >= 0 && k < kernel ? k : -1;
}

int32_t nas__phase_reach(int32_t up, int32_t kernel, int32_t pad) {
    int32_t reach = 0;
    for (int32_t phase = 0; phase < up; phase++) {
        for (int32_t offset = -kernel; offset <= kernel; offset++) {
            if (nas__phase_tap(up, kernel, pad, phase, offset) < 0) continue;
            const int32_t distance = offset < 0 ? -offset : offset;
            reach = distance > reach ? distance : reach;
        }
    }
    return reach;
}

int32_t nas__term_taps(const nas__term *t, int32_t first, int32_t n, int32_t ky, int32_t kx,
                       int32_t *tap) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) {
        tap[i] = ky * t->kernel_w + kx;
        if (t->up > 1) {
            const int32_t phase = (first + i) % (t->up * t->up);
            const int32_t y =
                nas__phase_tap(t->up, t->up_h, t->up_top, phase / t->up, ky - t->kernel_h / 2);
            const int32_t x =
                nas__phase_tap(t->up, t->up_w, t->up_left, phase % t->up, kx - t->kernel_w / 2);
            tap[i] = y < 0 || x < 0 ? -1 : y * t->up_w + x;
        }
        count += tap[i] >= 0;
    }
    return count;
}

/* Products of one input channel, for all outputs of the stage. */
static size_t tap_count(const nas__stage *stage, const nas__term *t) {
    const size_t outputs = (size_t)stage->channels;
    if (t->up == 1) return outputs * (size_t)t->kernel_h * (size_t)t->kernel_w;
    return outputs / (size_t)(t->up * t->up) * (size_t)t->up_h * (size_t)t->up_w;
}

size_t nas__weight_floats(const nas__stage *stage) {
    if (stage->kind != NAS__SUM) return 0;
    size_t floats = (size_t)stage->channels * (stage->act == NAS__ACT_PRELU ? 2 : 1);
    if (stage->tile.rows > 0) return floats + nas__winograd_weight_floats(stage);
    for (int32_t i = 0; i < stage->n_terms; i++)
        floats += tap_count(stage, &stage->terms[i]) * (size_t)stage->terms[i].channels *
                  (stage->terms[i].twice ? 2 : 1);
    return floats;
}

/* ---- verifier -------------------------------------------------------------------------------------------------- */

static nas_status verify_source(nas_ctx *ctx, const nas__program *p, const char *pass, int32_t v,
                                int32_t source, int32_t channels) {
    const nas__stage *stage = &p->stages[v];
    if (source < 0 || source >= v || p->stages[source].dead) {
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "after %s: '%s' reads stage %d, which is not before it", pass, stage->name,
                        source);
    }
    const nas__stage *from = &p->stages[source];
    if (from->channels != channels || (stage->kind == NAS__SUM && from->rate != stage->rate)) {
        return nas_fail(ctx, NAS_ERR_INTERNAL, "after %s: '%s' reads '%s' with other extents", pass,
                        stage->name, from->name);
    }
    if (from->hidden && stage->pair != source) {
        return nas_fail(ctx, NAS_ERR_INTERNAL, "after %s: '%s' reads '%s', which is hidden", pass,
                        stage->name, from->name);
    }
    return NAS_OK;
}

static nas_status verify_stage(nas_ctx *ctx, const nas__program *p, const char *pass, int32_t v) {
    const nas__stage *stage = &p->stages[v];
    const bool counts = stage->n_terms <= NAS__TERMS_MAX && stage->n_adds <= NAS__ADDS_MAX &&
                        (stage->kind == NAS__INPUT) == (v == p->input) &&
                        (stage->kind == NAS__INPUT) == (stage->n_terms + stage->n_adds == 0);
    const bool shuffle = stage->kind != NAS__SHUFFLE || (stage->n_terms == 0 && stage->n_adds == 1);
    if (!counts || !shuffle) {
        return nas_fail(ctx, NAS_ERR_INTERNAL, "after %s: '%s' has %d terms, %d additions", pass,
                        stage->name, stage->n_terms, stage->n_adds);
    }
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < stage->n_terms && status == NAS_OK; i++) {
        status = verify_source(ctx, p, pass, v, stage->terms[i].source, stage->terms[i].channels);
    }
    const int32_t fold = stage->kind == NAS__SHUFFLE ? stage->block * stage->block : 1;
    for (int32_t i = 0; i < stage->n_adds && status == NAS_OK; i++) {
        status = verify_source(ctx, p, pass, v, stage->adds[i], stage->channels * fold);
    }
    return status;
}

nas_status nas__verify(nas_ctx *ctx, const nas__program *p, const char *pass) {
    if (p->stages[p->output].dead || p->stages[p->output].hidden) {
        return nas_fail(ctx, NAS_ERR_INTERNAL, "after %s: the output stage is gone", pass);
    }
    for (int32_t v = 0; v < p->n_stages; v++) {
        if (p->stages[v].dead) continue;
        const nas_status status = verify_stage(ctx, p, pass, v);
        if (status != NAS_OK) return status;
        if (nas__use_count(p, v) == 0 && v != p->input) {
            return nas_fail(ctx, NAS_ERR_INTERNAL, "after %s: nobody reads '%s'", pass,
                            p->stages[v].name);
        }
    }
    return NAS_OK;
}

/* ---- text form ------------------------------------------------------------------------------------------------- */

static void dump_sources(const nas__program *p, const nas__stage *stage, nas_buf *out) {
    for (int32_t i = 0; i < stage->n_terms; i++) {
        const nas__term *t = &stage->terms[i];
        nas_buf_printf(out, "%s%dx%d", i > 0 ? " + " : "", t->up > 1 ? t->up_h : t->kernel_h,
                       t->up > 1 ? t->up_w : t->kernel_w);
        if (t->up > 1) nas_buf_printf(out, " up %d", t->up);
        nas_buf_printf(out, "(%s)", p->stages[t->source].name);
    }
    for (int32_t i = 0; i < stage->n_adds; i++) {
        nas_buf_printf(out, "%s%s", i + stage->n_terms > 0 ? " + " : "",
                       p->stages[stage->adds[i]].name);
    }
}

static void dump_plan(const nas__program *p, const nas__stage *stage, nas_buf *out) {
    if (stage->hidden) {
        nas_buf_printf(out, "  scratch, tile %dx%d", stage->tile.outputs, stage->tile.vectors);
        return;
    }
    nas_buf_printf(out, "  lag %d", stage->lag);
    if (p->plan.strips > 1) nas_buf_printf(out, " delay %d left %d", stage->delay, stage->left);
    if (stage->ring_rows > 0)
        nas_buf_printf(out, " ring %d rows at %zu", stage->ring_rows, stage->ring_at);
    if (stage->direct_out) nas_buf_puts(out, " to the output");
    if (stage->kind == NAS__SUM)
        nas_buf_printf(out, " tile %dx%d", stage->tile.outputs, stage->tile.vectors);
    if (stage->tile.rows > 0)
        nas_buf_printf(out, " winograd %d rows, %d vectors together", stage->tile.rows,
                       stage->tile.span);
}

void nas__dump(const nas__program *p, const char *pass, nas_buf *out) {
    static const char *const acts[] = {"", " relu", " prelu"};
    nas_buf_printf(out, "program after %s: input %dx%d, output %s\n", pass, p->height, p->width,
                   p->stages[p->output].name);
    const bool planned = p->plan.arena_bytes > 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *stage = &p->stages[v];
        if (stage->dead) continue;
        nas_buf_printf(out, "%3d %s: %d ch x%d = ", v, stage->name, stage->channels, stage->rate);
        switch (stage->kind) {
        case NAS__INPUT: nas_buf_printf(out, "input %+g", (double)stage->shift); break;
        case NAS__SHUFFLE: nas_buf_printf(out, "shuffle %d ", stage->block); break;
        case NAS__SUM: break;
        }
        dump_sources(p, stage, out);
        nas_buf_puts(out, acts[stage->act]);
        if (planned) dump_plan(p, stage, out);
        nas_buf_puts(out, "\n");
    }
    if (!planned) return;
    if (p->plan.band > 1) nas_buf_printf(out, "bands of %d rows\n", p->plan.band);
    nas_buf_printf(
        out, "plan: %d strips of %d vectors, %zu weights, %zu floats a thread, arena %zu bytes\n",
        p->plan.strips, p->plan.vectors, p->plan.weight_floats, p->plan.thread_floats,
        p->plan.arena_bytes);
}

/* ---- the list of passes ---------------------------------------------------------------------------------------- */

typedef struct pass {
    const char *name;
    nas_status (*run)(nas_ctx *ctx, nas__program *program);
} pass;

static const pass passes[] = {
    {"fold", nas__pass_fold}, {"fuse", nas__pass_fuse}, {"plan", nas__pass_plan}};
enum { PASS_COUNT = sizeof passes / sizeof passes[0] };

nas_status nas__lower(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                      const char *last, nas__program **out) {
    nas__program *p = NULL;
    nas_status status = nas__import(ctx, graph, options, &p);
    if (status == NAS_OK) status = nas__verify(ctx, p, "import");
    bool done = last != NULL && strcmp(last, "import") == 0;
    for (int i = 0; i < PASS_COUNT && !done && status == NAS_OK; i++) {
        status = passes[i].run(ctx, p);
        if (status == NAS_OK) status = nas__verify(ctx, p, passes[i].name);
        done = last != NULL && strcmp(last, passes[i].name) == 0;
    }
    if (status != NAS_OK) {
        nas__program_free(p);
        return nas_wrap(ctx, status, "compile '%s'", nas_graph_name(graph));
    }
    *out = p;
    return NAS_OK;
}

static nas_status dump_graph(nas_ctx *ctx, const nas_graph *graph, const char *name, nas_buf *out) {
    nas_graph *simplified = NULL;
    const nas_status status = nas__graph_optimize(ctx, graph, name, out, &simplified);
    nas_graph_free(simplified);
    return status == NAS_OK ? nas_buf_status(ctx, out) : status;
}

static nas_status dump_layers(nas_ctx *ctx, const nas_graph *graph,
                              const nas_compile_options *options, nas_buf *out) {
    nas_compile_options o = *options;
    o.form = NAS_FORM_LAYERS;
    nas__form form = {0};
    const nas_status status = nas__form_lower(ctx, graph, &o, &form);
    if (status == NAS_OK) nas__form_dump(&form, out);
    nas__form_free(&form);
    return status == NAS_OK ? nas_buf_status(ctx, out) : status;
}

nas_status nas_dump_after(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                          const char *name, nas_buf *out) {
    if (strcmp(name, "layers") == 0) return dump_layers(ctx, graph, options, out);
    for (int32_t i = 0; nas__graph_pass(i) != NULL; i++) {
        if (strcmp(name, nas__graph_pass(i)) == 0) return dump_graph(ctx, graph, name, out);
    }
    bool known = strcmp(name, "import") == 0;
    for (int i = 0; i < PASS_COUNT; i++)
        known = known || strcmp(name, passes[i].name) == 0;
    if (!known)
        return nas_fail(
            ctx, NAS_ERR_NOTFOUND,
            "pass '%s': known are constants, batch_norm, duplicates, dead (of the graph), "
            "import, fold, fuse, plan (of the rows), layers",
            name);
    nas_compile_options alone = *options;
    alone.max_threads = 1;
    nas__program *p = NULL;
    const nas_status status = nas__lower(ctx, graph, &alone, name, &p);
    if (status != NAS_OK) return status;
    nas__dump(p, name, out);
    nas__program_free(p);
    return nas_buf_status(ctx, out);
}
