/* nb201.c - the cell space of NAS-Bench-201 (Dong & Yang, arXiv:2001.00326): see space.h. */
#include "spaces/spaces_internal.h"

#include <stdio.h>
#include <string.h>

enum { EDGES = NAS_NB201_EDGES, NODES = 4, STAGES = 3 };
typedef enum edge_op { NONE, SKIP, CONV1, CONV3, POOL, EDGE_OPS } edge_op;

static const struct edge {
    int32_t from, to;
} edges[EDGES] = {{0, 1}, {0, 2}, {1, 2}, {0, 3}, {1, 3}, {2, 3}};

static const char *const official_names[EDGE_OPS] = {"none", "skip_connect", "nor_conv_1x1",
                                                     "nor_conv_3x3", "avg_pool_3x3"};

typedef struct nb201_space {
    nas_space base;
    nas_nb201_options options;
} nb201_space;

nas_nb201_options nas_nb201_options_default(void) {
    return (nas_nb201_options){.height = 32,
                               .width = 32,
                               .input_channels = 3,
                               .channels = 16,
                               .cells = 5,
                               .classes = 10,
                               .form = NAS_NB201_WHOLE};
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

/* Nodes whose value is not zero: reached from the input by edges that are not "none". */
static void find_nonzero(const int32_t *ops, bool nonzero[NODES]) {
    nonzero[0] = true;
    for (int32_t node = 1; node < NODES; node++) {
        nonzero[node] = false;
        for (int e = 0; e < EDGES; e++) {
            if (edges[e].to == node && ops[e] != NONE && nonzero[edges[e].from])
                nonzero[node] = true;
        }
    }
}

void nas_nb201_built(const nas_point *point, nas_nb201_form form, bool built[NAS_NB201_EDGES]) {
    const int32_t *ops = point->gene;
    bool nonzero[NODES], read[NODES] = {false, false, false, true};
    find_nonzero(ops, nonzero);
    for (int e = EDGES - 1; e >= 0; e--) { /* edges are sorted by their end: readers come first */
        switch (form) {
        case NAS_NB201_WHOLE: built[e] = true; break;
        case NAS_NB201_REACHED: built[e] = ops[e] != NONE && read[edges[e].to]; break;
        case NAS_NB201_FOLDED:
            built[e] = ops[e] != NONE && nonzero[edges[e].from] && read[edges[e].to];
            break;
        }
        if (built[e]) read[edges[e].from] = true;
    }
}

static nas_value relu_conv(nas__net *net, const char *name, nas_value x, nas__conv conv) {
    char relu[24];
    (void)snprintf(relu, sizeof relu, "%s.relu", name);
    return nas__net_conv(net, name, nas__net_relu(net, relu, x), conv);
}

static nas_value edge_value(nas__net *net, int e, edge_op op, nas_value x, int32_t channels) {
    char name[16];
    (void)snprintf(name, sizeof name, "e%d%d", (int)edges[e].from, (int)edges[e].to);
    switch (op) {
    case NONE: return nas__net_unary(net, name, x, NAS_UNARY_AFFINE, 0, 0);
    case SKIP: return x;
    case CONV1: return relu_conv(net, name, x, (nas__conv){channels, 1, 1, 1, true});
    case CONV3: return relu_conv(net, name, x, (nas__conv){channels, 3, 1, 1, true});
    case POOL: return nas__net_avg_pool(net, name, x, 3, 1, 1);
    case EDGE_OPS: break;
    }
    return NAS_VALUE_NONE;
}

/* Is the value of `node` read by any wanted edge, or the cell's output? */
static bool is_read(const bool *wanted, int32_t node) {
    bool read = node == NODES - 1;
    for (int e = 0; e < EDGES; e++)
        read = read || (wanted[e] && edges[e].from == node);
    return read;
}

static nas_value cell(nas__net *net, const int32_t *ops, const bool *wanted, nas_value x,
                      int32_t channels) {
    nas_value values[NODES] = {x, NAS_VALUE_NONE, NAS_VALUE_NONE, NAS_VALUE_NONE};
    for (int32_t node = 1; node < NODES; node++) {
        nas_value sum = NAS_VALUE_NONE;
        if (!is_read(wanted, node)) continue;
        for (int e = 0; e < EDGES; e++) {
            if (edges[e].to != node || !wanted[e]) continue;
            const nas_value y =
                edge_value(net, e, (edge_op)ops[e], values[edges[e].from], channels);
            char name[16];
            (void)snprintf(name, sizeof name, "add%d_%d", (int)node, (int)edges[e].from);
            sum = sum == NAS_VALUE_NONE ? y : nas__net_add(net, name, sum, y);
        }
        if (sum == NAS_VALUE_NONE) {
            char name[16];
            (void)snprintf(name, sizeof name, "zero%d", (int)node);
            sum = nas__net_unary(net, name, x, NAS_UNARY_AFFINE, 0, 0);
        }
        values[node] = sum;
    }
    return values[NODES - 1];
}

/* Halves the image: ReLU conv3x3 of stride 2, ReLU conv3x3, beside a 2x2 mean and a conv1x1. */
static nas_value reduction(nas__net *net, nas_value x, int32_t channels) {
    nas_value y = relu_conv(net, "conv_a", x, (nas__conv){channels, 3, 2, 1, true});
    y = relu_conv(net, "conv_b", y, (nas__conv){channels, 3, 1, 1, true});
    nas_value side = nas__net_avg_pool(net, "average", x, 2, 2, 0);
    side = nas__net_conv(net, "side", side, (nas__conv){channels, 1, 1, 1, false});
    return nas__net_add(net, "add", side, y);
}

static nas_status nb201_decode(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                               nas_graph **out) {
    const nas_nb201_options *o = &((const nb201_space *)space)->options;
    bool wanted[EDGES];
    nas_nb201_built(point, o->form, wanted);
    nas__net net = {.ctx = ctx, .graph = nas_graph_new(ctx, "nb201"), .status = NAS_OK};
    if (net.graph == NULL) return nas_ctx_status(ctx);
    nas_value x = nas__net_input(&net, o->height, o->width, o->input_channels);
    x = nas__net_conv(&net, "stem", x, (nas__conv){o->channels, 3, 1, 1, true});
    int32_t channels = o->channels;
    for (int stage = 1; stage <= STAGES; stage++) {
        if (stage > 1) {
            channels *= 2;
            (void)snprintf(net.prefix, sizeof net.prefix, "down%d.", stage);
            x = reduction(&net, x, channels);
        }
        for (int32_t i = 1; i <= o->cells; i++) {
            (void)snprintf(net.prefix, sizeof net.prefix, "s%dc%d.", stage, (int)i);
            x = cell(&net, point->gene, wanted, x, channels);
        }
    }
    net.prefix[0] = '\0';
    x = nas__net_batch_norm(&net, "last_norm", x);
    x = nas__net_relu(&net, "last_relu", x);
    x = nas__net_avg_pool(&net, "average", x, 0, 1, 0);
    x = nas__net_conv(&net, "classifier", x, (nas__conv){o->classes, 1, 1, 1, true});
    return nas__net_finish(&net, x, out);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static void nb201_format(const nas_space *space, const nas_point *point, nas_buf *out) {
    (void)space;
    for (int e = 0; e < EDGES; e++)
        nas_buf_printf(out, "%d", (int)point->gene[e]);
}

/* "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|": the edges come in the order of the genes. */
static nas_status parse_official(nas_ctx *ctx, const char *text, nas_point *out) {
    const char *at = text;
    for (int e = 0; e < EDGES; e++) {
        const bool first = edges[e].from == 0;
        const char *lead = !first ? "" : e == 0 ? "|" : "+|";
        if (strncmp(at, lead, strlen(lead)) != 0) {
            return nas_fail(ctx, NAS_ERR_PARSE, "column %td: expected \"%s\"", at - text + 1, lead);
        }
        at += strlen(lead);
        int op = 0;
        while (op < EDGE_OPS && (strncmp(at, official_names[op], strlen(official_names[op])) != 0 ||
                                 at[strlen(official_names[op])] != '~'))
            op++;
        if (op == EDGE_OPS) {
            return nas_fail(ctx, NAS_ERR_RANGE,
                            "column %td: edge %d->%d has an unknown operation, use none, "
                            "skip_connect, nor_conv_1x1, nor_conv_3x3 or avg_pool_3x3",
                            at - text + 1, (int)edges[e].from, (int)edges[e].to);
        }
        at += strlen(official_names[op]) + 1;
        if (at[0] != (char)('0' + edges[e].from) || at[1] != '|') {
            return nas_fail(ctx, NAS_ERR_PARSE, "column %td: expected \"%d|\"", at - text + 1,
                            (int)edges[e].from);
        }
        at += 2;
        out->gene[e] = op;
    }
    if (*at != '\0')
        return nas_fail(ctx, NAS_ERR_PARSE, "column %td: expected the end", at - text + 1);
    return NAS_OK;
}

static nas_status nb201_parse(nas_ctx *ctx, const nas_space *space, const char *text,
                              nas_point *out) {
    (void)space;
    *out = (nas_point){.n = EDGES};
    if (text[0] == '|') return parse_official(ctx, text, out);
    for (int e = 0; e < EDGES; e++) {
        if (text[e] < '0' || text[e] >= '0' + EDGE_OPS) {
            return nas_fail(ctx, NAS_ERR_PARSE,
                            "column %d: expected a digit 0..%d: an architecture is six of them, as "
                            "421211",
                            e + 1, EDGE_OPS - 1);
        }
        out->gene[e] = text[e] - '0';
    }
    if (text[EDGES] != '\0')
        return nas_fail(ctx, NAS_ERR_PARSE, "column %d: expected the end after six digits",
                        EDGES + 1);
    return NAS_OK;
}

/* Gene values are the benchmark's numbers, so the corners are not the ends of the range. */
static void nb201_largest(const nas_space *space, nas_point *out) {
    *out = (nas_point){.n = space->n_genes};
    for (int e = 0; e < EDGES; e++)
        out->gene[e] = CONV3;
}

static const nas__space_ops nb201_ops = {
    .name = "nb201",
    .sample = nas__plain_sample,
    .mutate = nas__plain_mutate,
    .crossover = nas__plain_crossover,
    .largest = nb201_largest,
    .smallest = nas__plain_smallest,
    .check = nas__plain_check,
    .decode = nb201_decode,
    .format = nb201_format,
    .parse = nb201_parse,
};

static nas_status check_number(nas_ctx *ctx, const char *what, int32_t value, int32_t hi,
                               int32_t step) {
    if (value >= step && value <= hi && value % step == 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "space 'nb201': %s is %" PRId32 ", limit %" PRId32 "..%" PRId32
                    " in steps of %" PRId32,
                    what, value, step, hi, step);
}

nas_status nas_space_nb201_new(nas_ctx *ctx, const nas_nb201_options *o, nas_space **out) {
    nas_status status = check_number(ctx, "height", o->height, 1024, 4);
    if (status == NAS_OK) status = check_number(ctx, "width", o->width, 1024, 4);
    if (status == NAS_OK) status = check_number(ctx, "input_channels", o->input_channels, 64, 1);
    if (status == NAS_OK) status = check_number(ctx, "channels", o->channels, 256, 1);
    if (status == NAS_OK) status = check_number(ctx, "cells", o->cells, 32, 1);
    if (status == NAS_OK) status = check_number(ctx, "classes", o->classes, 10000, 1);
    if (status != NAS_OK) return status;
    nas_gene genes[EDGES];
    double size = 1;
    for (int e = 0; e < EDGES; e++) {
        char name[16];
        (void)snprintf(name, sizeof name, "edge%d%d", (int)edges[e].from, (int)edges[e].to);
        genes[e] = nas__gene(name, NAS_GENE_CATEGORY, EDGE_OPS);
        size *= EDGE_OPS;
    }
    nb201_space *space = nas_alloc_array(ctx, 1, sizeof *space);
    if (space == NULL) return NAS_ERR_NOMEM;
    space->options = *o;
    status = nas__plain_init(ctx, &space->base, &nb201_ops, genes, EDGES, size);
    if (status != NAS_OK) {
        nas_free(space);
        return status;
    }
    *out = &space->base;
    return NAS_OK;
}
