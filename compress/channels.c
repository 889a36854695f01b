/* channels.c - which channels stay or go together: union-find over all (value, channel) pairs of a graph, exact through
 * residuals, concatenations, slices and paddings of channels. Elements are numbered value by value. */
#include "compress/compress_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct finder {
    const nas_graph *g;
    int32_t *first;  /* [value] number of its channel 0 */
    int32_t *parent; /* [element] */
    bool *fixed;     /* [element], of roots */
    int32_t n;
} finder;

bool nas__is_depthwise(const nas_graph *g, const nas_node *node) {
    const int32_t c = nas_graph_node(g, node->inputs[0])->shape.c;
    return node->op == NAS_OP_CONV && node->conv.groups > 1 && node->conv.groups == c &&
           node->conv.out_channels == c;
}

static int32_t root_of(const finder *f, int32_t e) {
    while (f->parent[e] != e) {
        f->parent[e] = f->parent[f->parent[e]];
        e = f->parent[e];
    }
    return e;
}

static void join(finder *f, nas_value a, int32_t ca, nas_value b, int32_t cb) {
    const int32_t x = root_of(f, f->first[a] + ca), y = root_of(f, f->first[b] + cb);
    const int32_t low = x < y ? x : y, high = x < y ? y : x;
    f->parent[high] = low;
    f->fixed[low] = f->fixed[low] || f->fixed[high];
}

static int32_t channels_of(const finder *f, nas_value v) {
    return nas_graph_node(f->g, v)->shape.c;
}

static void fix(finder *f, nas_value v) {
    for (int32_t c = 0; c < channels_of(f, v); c++)
        f->fixed[root_of(f, f->first[v] + c)] = true;
}

static void join_all(finder *f, nas_value a, nas_value b) {
    for (int32_t c = 0; c < channels_of(f, a); c++)
        join(f, a, c, b, c);
}

/* Operands of a sum or product share channels; one that stands for all channels must keep its own. */
static void relate_binary(finder *f, nas_value v, const nas_node *node) {
    join_all(f, v, node->inputs[0]);
    if (channels_of(f, node->inputs[1]) == channels_of(f, v)) {
        join_all(f, v, node->inputs[1]);
    } else {
        fix(f, node->inputs[1]);
    }
}

static void relate_concat(finder *f, nas_value v, const nas_node *node) {
    int32_t at = 0;
    for (int32_t k = 0; k < node->n_inputs; k++) {
        const nas_value in = node->inputs[k];
        for (int32_t c = 0; c < channels_of(f, in); c++)
            join(f, v, node->axis == 3 ? at + c : c, in, c);
        at += channels_of(f, in);
    }
}

/* Output channel c is input channel c + shift; channels of a PAD's fill are nobody else's. */
static void relate_shift(finder *f, nas_value v, const nas_node *node) {
    const int32_t shift = node->op == NAS_OP_SLICE ? node->begin[3] : -node->begin[3];
    for (int32_t c = 0; c < channels_of(f, v); c++) {
        if (c + shift < 0 || c + shift >= channels_of(f, node->inputs[0])) continue;
        join(f, v, c, node->inputs[0], c + shift);
    }
}

static void relate(finder *f, nas_value v) {
    const nas_node *node = nas_graph_node(f->g, v);
    switch (node->op) {
    case NAS_OP_CONV:
        if (nas__is_depthwise(f->g, node)) {
            join_all(f, v, node->inputs[0]);
        } else if (node->conv.groups > 1) {
            fix(f, v);
            fix(f, node->inputs[0]);
        }
        break;
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE: join_all(f, v, node->inputs[0]); break;
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV: relate_binary(f, v, node); break;
    case NAS_OP_CONCAT: relate_concat(f, v, node); break;
    case NAS_OP_SLICE:
    case NAS_OP_PAD: relate_shift(f, v, node); break;
    case NAS_OP_CONSTANT: break;
    case NAS_OP_INPUT:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
        fix(f, v);
        for (int32_t k = 0; k < node->n_inputs; k++)
            fix(f, node->inputs[k]);
        break;
    case NAS_OP_COUNT: break;
    }
}

static nas_status relate_all(nas_ctx *ctx, finder *f, nas_arena *arena) {
    const int32_t n = nas_graph_node_count(f->g);
    f->first = nas_arena_alloc(ctx, arena, (size_t)n, sizeof *f->first);
    if (f->first == NULL) return NAS_ERR_NOMEM;
    int64_t total = 0;
    for (nas_value v = 0; v < n; v++) {
        f->first[v] = (int32_t)total;
        total += nas_graph_node(f->g, v)->shape.c;
        if (total > INT32_MAX)
            return nas_fail(ctx, NAS_ERR_RANGE, "pruning '%s': too many channels",
                            nas_graph_name(f->g));
    }
    f->n = (int32_t)total;
    f->parent = nas_arena_alloc(ctx, arena, (size_t)total, sizeof *f->parent);
    f->fixed = nas_arena_alloc(ctx, arena, (size_t)total, sizeof *f->fixed);
    if (f->parent == NULL || f->fixed == NULL) return NAS_ERR_NOMEM;
    for (int32_t e = 0; e < f->n; e++)
        f->parent[e] = e;
    for (nas_value v = 0; v < n; v++)
        relate(f, v);
    fix(f, nas_graph_output(f->g));
    return NAS_OK;
}

/* ---- classes and groups --------------------------------------------------------------------------------------------- */

typedef struct signature {
    uint64_t values; /* hash of the values the class passes through, in order, with repetition */
    int32_t number;  /* of the class */
} signature;

static int by_values(const void *a, const void *b) {
    const signature *x = a, *y = b;
    if (x->values != y->values) return x->values < y->values ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int by_first_class(const void *a, const void *b) {
    const nas_channel_group *x = a, *y = b;
    return x->classes[0] < y->classes[0] ? -1 : x->classes[0] > y->classes[0];
}

static nas_status number_classes(nas_ctx *ctx, const finder *f, nas_channels *ch) {
    int32_t *number = nas_arena_alloc(ctx, ch->arena, (size_t)f->n, sizeof *number);
    ch->of = nas_arena_alloc(ctx, ch->arena, (size_t)ch->n_values, sizeof *ch->of);
    if (number == NULL || ch->of == NULL) return NAS_ERR_NOMEM;
    for (int32_t e = 0; e < f->n; e++) { /* a root is the lowest of its class */
        const int32_t root = root_of(f, e);
        if (f->fixed[root]) {
            number[e] = NAS_CLASS_FIXED;
        } else {
            number[e] = root == e ? ch->n_classes++ : number[root];
        }
    }
    for (nas_value v = 0; v < ch->n_values; v++)
        ch->of[v] = number + f->first[v];
    return NAS_OK;
}

static void count_roles(const nas_graph *g, nas_channels *ch) {
    for (nas_value v = 0; v < ch->n_values; v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_CONV || node->conv.groups > 1) continue;
        for (int32_t i = 0; i < ch->n_groups; i++) {
            nas_channel_group *group = &ch->groups[i];
            const nas_value in = node->inputs[0];
            bool writes = false, reads = false;
            for (int32_t c = 0; c < node->shape.c; c++)
                writes = writes || ch->of[v][c] == group->classes[0];
            for (int32_t c = 0; c < nas_graph_node(g, in)->shape.c; c++)
                reads = reads || ch->of[in][c] == group->classes[0];
            group->producers += writes;
            group->readers += reads;
        }
    }
}

/* Where the first class of a group is seen first. */
static nas_value first_value(const nas_graph *g, const nas_channels *ch, int32_t number) {
    for (nas_value v = 0; v < ch->n_values; v++) {
        for (int32_t c = 0; c < nas_graph_node(g, v)->shape.c; c++) {
            if (ch->of[v][c] == number) return v;
        }
    }
    return 0;
}

static nas_status form_groups(nas_ctx *ctx, const nas_graph *g, nas_channels *ch) {
    const size_t n = (size_t)ch->n_classes;
    signature *s = nas_arena_alloc(ctx, ch->arena, n + 1, sizeof *s);
    int32_t *members = nas_arena_alloc(ctx, ch->arena, n + 1, sizeof *members);
    ch->group_of = nas_arena_alloc(ctx, ch->arena, n + 1, sizeof *ch->group_of);
    ch->groups = nas_arena_alloc(ctx, ch->arena, n + 1, sizeof *ch->groups);
    if (s == NULL || members == NULL || ch->group_of == NULL || ch->groups == NULL)
        return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        s[i].number = (int32_t)i;
    for (nas_value v = 0; v < ch->n_values; v++) {
        for (int32_t c = 0; c < nas_graph_node(g, v)->shape.c; c++) {
            if (ch->of[v][c] == NAS_CLASS_FIXED) continue;
            uint64_t *h = &s[ch->of[v][c]].values; /* FNV-1a over value numbers */
            *h = (*h ^ (uint64_t)(uint32_t)(v + 1)) * 0x100000001b3u + 0x9e3779b97f4a7c15u;
        }
    }
    if (n > 1) qsort(s, n, sizeof *s, by_values);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || s[i].values != s[i - 1].values)
            ch->groups[ch->n_groups++] = (nas_channel_group){.classes = members + i};
        members[i] = s[i].number;
        ch->groups[ch->n_groups - 1].channels++;
    }
    if (ch->n_groups > 1)
        qsort(ch->groups, (size_t)ch->n_groups, sizeof *ch->groups, by_first_class);
    for (int32_t i = 0; i < ch->n_groups; i++) {
        nas_channel_group *group = &ch->groups[i];
        group->first = first_value(g, ch, group->classes[0]);
        (void)snprintf(group->name, sizeof group->name, "%.*s", NAS_GROUP_NAME_MAX,
                       nas_graph_node(g, group->first)->name);
        for (int32_t k = 0; k < group->channels; k++)
            ch->group_of[group->classes[k]] = i;
    }
    count_roles(g, ch);
    return NAS_OK;
}

static nas_status check_plain(nas_ctx *ctx, const nas_graph *g) {
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        const nas_param *p = nas_graph_param_const(g, i);
        if (p->scales == NULL) continue;
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "pruning '%s': param '%s' is quantized; prune before quantizing",
                        nas_graph_name(g), p->name);
    }
    return NAS_OK;
}

nas_status nas_channels_find(nas_ctx *ctx, const nas_graph *graph, nas_channels **out) {
    nas_status status = check_plain(ctx, graph);
    if (status != NAS_OK) return status;
    nas_channels *ch = nas_alloc_array(ctx, 1, sizeof *ch);
    if (ch == NULL) return NAS_ERR_NOMEM;
    ch->n_values = nas_graph_node_count(graph);
    ch->arena = nas_arena_new(ctx, 1 << 16);
    finder f = {.g = graph};
    status = ch->arena == NULL ? NAS_ERR_NOMEM : relate_all(ctx, &f, ch->arena);
    if (status == NAS_OK) status = number_classes(ctx, &f, ch);
    if (status == NAS_OK) status = form_groups(ctx, graph, ch);
    if (status != NAS_OK) {
        nas_channels_free(ch);
        return status;
    }
    *out = ch;
    return NAS_OK;
}

void nas_channels_free(nas_channels *ch) {
    if (ch == NULL) return;
    nas_arena_free(ch->arena);
    nas_free(ch);
}

int32_t nas_channels_class_count(const nas_channels *ch) {
    return ch->n_classes;
}

int32_t nas_channels_group_count(const nas_channels *ch) {
    return ch->n_groups;
}

const nas_channel_group *nas_channels_group(const nas_channels *ch, int32_t index) {
    return &ch->groups[index];
}

const int32_t *nas_channels_of(const nas_channels *ch, nas_value v) {
    return ch->of[v];
}

int32_t nas_channels_group_of(const nas_channels *ch, int32_t number) {
    return ch->group_of[number];
}

int32_t nas__kept_channels(const nas_channels *ch, const nas_graph *g, nas_value v,
                           const bool *keep, int32_t *to) {
    int32_t n = 0;
    for (int32_t c = 0; c < nas_graph_node(g, v)->shape.c; c++) {
        if (ch->of[v][c] != NAS_CLASS_FIXED && !keep[ch->of[v][c]]) continue;
        if (to != NULL) to[n] = c;
        n++;
    }
    return n;
}
