/* fbnet.c - the 22-block space of FBNet (Wu et al., arXiv:1812.03443) in the form of HW-NAS-Bench (Li et al.,
 * arXiv:2103.10584): see space.h. */
#include "spaces/spaces_internal.h"

#include <stdio.h>
#include <string.h>

enum { BLOCKS = 22, STAGES = 7, CHOICES = 9, SKIP = 8, STEM_CHANNELS = 16, SMALL_INPUT = 64 };

static const struct choice {
    int32_t kernel, expansion, groups;
} choices[CHOICES] = {{3, 1, 1}, {3, 1, 2}, {3, 3, 1}, {3, 6, 1}, {5, 1, 1},
                      {5, 1, 2}, {5, 3, 1}, {5, 6, 1}, {0, 0, 0}};

static const struct stage {
    int32_t blocks, channels, stride;
} stages[STAGES] = {{1, 16, 1},  {4, 24, 2},  {4, 32, 2}, {4, 64, 2},
                    {4, 112, 1}, {4, 184, 2}, {1, 352, 1}};

typedef struct fbnet_space {
    nas_space base;
    nas_fbnet_options options;
} fbnet_space;

nas_fbnet_options nas_fbnet_options_default(void) {
    return (nas_fbnet_options){.height = 224, .width = 224, .classes = 1000};
}

static nas_value inverted_residual(nas__net *net, nas_value x, const struct choice *c,
                                   int32_t channels, int32_t stride) {
    const int32_t in = nas__net_shape(net, x).c;
    const int32_t wide = in * c->expansion;
    nas_value y = nas__net_conv(net, "expand", x, (nas__conv){wide, 1, 1, c->groups, true});
    y = nas__net_relu(net, "expand.relu", y);
    if (c->groups > 1) y = nas__net_shuffle(net, "shuffle", y, c->groups);
    y = nas__net_conv(net, "depth", y, (nas__conv){wide, c->kernel, stride, wide, true});
    y = nas__net_relu(net, "depth.relu", y);
    y = nas__net_conv(net, "project", y, (nas__conv){channels, 1, 1, c->groups, true});
    return in == channels && stride == 1 ? nas__net_add(net, "add", y, x) : y;
}

static nas_value block(nas__net *net, nas_value x, int32_t gene, int32_t channels, int32_t stride) {
    if (gene != SKIP) return inverted_residual(net, x, &choices[gene], channels, stride);
    if (stride == 1 && nas__net_shape(net, x).c == channels) return x;
    x = nas__net_conv(net, "skip", x, (nas__conv){channels, 1, stride, 1, true});
    return nas__net_relu(net, "skip.relu", x);
}

static nas_status fbnet_decode(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                               nas_graph **out) {
    const nas_fbnet_options *o = &((const fbnet_space *)space)->options;
    const bool small = o->height < SMALL_INPUT || o->width < SMALL_INPUT;
    nas__net net = {.ctx = ctx, .graph = nas_graph_new(ctx, "fbnet"), .status = NAS_OK};
    if (net.graph == NULL) return nas_ctx_status(ctx);
    nas_value x = nas__net_input(&net, o->height, o->width, 3);
    x = nas__net_conv(&net, "stem", x, (nas__conv){STEM_CHANNELS, 3, small ? 1 : 2, 1, true});
    x = nas__net_relu(&net, "stem.relu", x);
    int32_t number = 0;
    for (int s = 0; s < STAGES; s++) {
        for (int32_t i = 0; i < stages[s].blocks; i++, number++) {
            const int32_t stride = i > 0 || (small && s == 1) ? 1 : stages[s].stride;
            (void)snprintf(net.prefix, sizeof net.prefix, "block%d.", (int)number + 1);
            x = block(&net, x, point->gene[number], stages[s].channels, stride);
        }
    }
    net.prefix[0] = '\0';
    x = nas__net_conv(&net, "head", x, (nas__conv){small ? 1504 : 1984, 1, 1, 1, true});
    x = nas__net_relu(&net, "head.relu", x);
    x = nas__net_avg_pool(&net, "average", x, 0, 1, 0);
    x = nas__net_conv(&net, "classifier", x, (nas__conv){o->classes, 1, 1, 1, true});
    return nas__net_finish(&net, x, out);
}

static void fbnet_format(const nas_space *space, const nas_point *point, nas_buf *out) {
    (void)space;
    for (int i = 0; i < BLOCKS; i++)
        nas_buf_printf(out, "%d", (int)point->gene[i]);
}

static nas_status fbnet_parse(nas_ctx *ctx, const nas_space *space, const char *text,
                              nas_point *out) {
    (void)space;
    *out = (nas_point){.n = BLOCKS};
    int n = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (strchr(" ,[]", *at) != NULL) continue;
        if (*at < '0' || *at >= '0' + CHOICES) {
            return nas_fail(ctx, NAS_ERR_PARSE, "column %td: expected a choice 0..%d",
                            at - text + 1, CHOICES - 1);
        }
        if (n == BLOCKS) {
            return nas_fail(ctx, NAS_ERR_PARSE, "column %td: more than %d choices", at - text + 1,
                            BLOCKS);
        }
        out->gene[n++] = *at - '0';
    }
    if (n < BLOCKS) {
        return nas_fail(ctx, NAS_ERR_PARSE, "%d choices, an architecture is %d of them, 0..%d", n,
                        BLOCKS, CHOICES - 1);
    }
    return NAS_OK;
}

static void fill(nas_point *out, int32_t gene) {
    *out = (nas_point){.n = BLOCKS};
    for (int i = 0; i < BLOCKS; i++)
        out->gene[i] = gene;
}

static void fbnet_largest(const nas_space *space, nas_point *out) {
    (void)space;
    fill(out, SKIP - 1); /* k5_e6 */
}

static void fbnet_smallest(const nas_space *space, nas_point *out) {
    (void)space;
    fill(out, SKIP);
}

static const nas__space_ops fbnet_ops = {
    .name = "fbnet",
    .sample = nas__plain_sample,
    .mutate = nas__plain_mutate,
    .crossover = nas__plain_crossover,
    .largest = fbnet_largest,
    .smallest = fbnet_smallest,
    .check = nas__plain_check,
    .decode = fbnet_decode,
    .format = fbnet_format,
    .parse = fbnet_parse,
};

static nas_status check_extent(nas_ctx *ctx, const char *what, int32_t value) {
    enum { LOW = 32, HIGH = 1024, STEP = 8 };
    if (value >= LOW && value <= HIGH && value % STEP == 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "space 'fbnet': %s is %" PRId32 ", limit %d..%d in steps of %d", what, value,
                    LOW, HIGH, STEP);
}

nas_status nas_space_fbnet_new(nas_ctx *ctx, const nas_fbnet_options *o, nas_space **out) {
    nas_status status = check_extent(ctx, "height", o->height);
    if (status == NAS_OK) status = check_extent(ctx, "width", o->width);
    if (status == NAS_OK && (o->classes < 1 || o->classes > 10000)) {
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "space 'fbnet': classes is %" PRId32 ", limit 1..10000", o->classes);
    }
    if (status != NAS_OK) return status;
    nas_gene genes[BLOCKS];
    double size = 1;
    for (int i = 0; i < BLOCKS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "block%d", i + 1);
        genes[i] = nas__gene(name, NAS_GENE_CATEGORY, CHOICES);
        size *= CHOICES;
    }
    fbnet_space *space = nas_alloc_array(ctx, 1, sizeof *space);
    if (space == NULL) return NAS_ERR_NOMEM;
    space->options = *o;
    status = nas__plain_init(ctx, &space->base, &fbnet_ops, genes, BLOCKS, size);
    if (status != NAS_OK) {
        nas_free(space);
        return status;
    }
    *out = &space->base;
    return NAS_OK;
}
