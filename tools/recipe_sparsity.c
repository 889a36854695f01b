/* recipe_sparsity.c - the "sparsity" entries of a recipe: read strictly, applied to the weights of the graph. */
#include "tools/recipe_sparsity.h"

#include <stdio.h>
#include <string.h>

enum { NUMBER_MAX = 1 << 20 };

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* One key of S; unknown ones are errors. */
static nas_status read_key(nas_ctx *ctx, const char *key, const json_t *value, nas_sparsity *s) {
    const struct {
        const char *name;
        int32_t *to;
    } numbers[] = {{"n", &s->n},           {"keep", &s->keep},
                   {"group", &s->group},   {"outputs", &s->outputs},
                   {"inputs", &s->inputs}, {"entries", &s->entries},
                   {"period", &s->period}};
    if (strcmp(key, "pattern") == 0 || strcmp(key, "kernels") == 0) return NAS_OK;
    if (strcmp(key, "rate") == 0) {
        if (!json_is_number(value))
            return nas_fail(ctx, NAS_ERR_PARSE, "\"rate\" has to be a number from 0 to 1");
        s->rate = json_number_value(value);
        return NAS_OK;
    }
    if (strcmp(key, "rearrange") == 0) {
        if (!json_is_boolean(value))
            return nas_fail(ctx, NAS_ERR_PARSE, "\"rearrange\" has to be true or false");
        s->rearrange = json_is_true(value);
        return NAS_OK;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(key, numbers[i].name) != 0) continue;
        const json_int_t number = json_integer_value(value);
        if (!json_is_integer(value) || number < 0 || number > NUMBER_MAX)
            return nas_fail(ctx, NAS_ERR_PARSE, "\"%s\" has to be a whole number", key);
        *numbers[i].to = (int32_t)number;
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_PARSE,
                    "\"sparsity\" knows pattern, rate, n, keep, group, outputs, inputs, entries, "
                    "period, rearrange and from, not \"%s\"",
                    key);
}

nas_status nas_recipe_sparsity_read(nas_ctx *ctx, const json_t *value, nas_sparsity *out) {
    if (!json_is_object(value))
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "\"sparsity\" has to be an object like {\"pattern\": \"1xN\", \"n\": 4, "
                        "\"rate\": 0.5}");
    const char *name = text_of(value, "pattern");
    const nas_sparsity_pattern pattern = nas_sparsity_pattern_find(name);
    if (pattern == NAS_SPARSITY_PATTERN_COUNT)
        return nas_fail(ctx, NAS_ERR_NOTFOUND,
                        "there is no pattern \"%s\": filter, channel, 1xN, N:M, block, punched, "
                        "pattern, periodic, unstructured, complementary",
                        name);
    nas_sparsity s = nas_sparsity_default(pattern);
    const bool rate = json_object_get(value, "rate") != NULL;
    /* patterns that are defined by a share have to name it */
    if (rate != nas_sparsity_has_rate(pattern) && pattern != NAS_SPARSITY_PATTERN)
        return nas_fail(ctx, NAS_ERR_PARSE,
                        rate
                            ? "pattern \"%s\" has no \"rate\": its other numbers say how much stays"
                            : "pattern \"%s\" needs a \"rate\", the share that is left out",
                        name);
    const char *key = NULL;
    json_t *entry = NULL;
    json_object_foreach((json_t *)(uintptr_t)value, key, entry) {
        const nas_status status = read_key(ctx, key, entry, &s);
        if (status != NAS_OK) return status;
    }
    *out = s;
    return NAS_OK;
}

/* {"from": "weights"}: the model is compressed already, and says so. */
static nas_status from_weights(nas_ctx *ctx, const nas_graph *graph, nas_value v) {
    const nas_node *node = nas_graph_node(graph, v);
    if (node->op != NAS_OP_CONV)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "\"sparsity\" of a %s", nas_op_name(node->op));
    const nas_param *p = nas_graph_param_const(graph, node->params[0]);
    for (size_t i = 0; p->data != NULL && i < p->count; i++) {
        if (p->data[i] == 0) return NAS_OK;
    }
    return nas_fail(
        ctx, NAS_ERR_INVALID,
        "\"from\": \"weights\", but none of its %zu weights is zero; name a pattern and "
        "a rate instead",
        p->count);
}

nas_status nas_recipe_sparsity(nas_ctx *ctx, nas_graph *graph, nas_value v, const json_t *value) {
    if (json_object_get(value, "from") != NULL) {
        if (strcmp(text_of(value, "from"), "weights") == 0 && json_object_size(value) == 1)
            return from_weights(ctx, graph, v);
        return nas_fail(ctx, NAS_ERR_PARSE, "\"from\" can only be \"weights\", and stands alone");
    }
    nas_sparsity s;
    const nas_status status = nas_recipe_sparsity_read(ctx, value, &s);
    return status == NAS_OK ? nas_sparsity_apply(ctx, graph, v, &s) : status;
}

static bool is_connected(const nas_graph *graph, const nas_node *node) {
    const nas_shape *in = &nas_graph_node(graph, node->inputs[0])->shape;
    return in->h == 1 && in->w == 1;
}

/* Does "kernels" name this convolution? */
static bool is_named(const nas_graph *graph, const nas_node *node, const char *kernels) {
    char size[32];
    if (node->op != NAS_OP_CONV || node->conv.groups != 1) return false;
    if (strcmp(kernels, "all") == 0) return true;
    if (is_connected(graph, node)) return strcmp(kernels, "fc") == 0;
    (void)snprintf(size, sizeof size, "%dx%d", node->conv.kernel_h, node->conv.kernel_w);
    return strcmp(kernels, size) == 0;
}

nas_status nas_recipe_sparsity_all(nas_ctx *ctx, nas_graph *graph, const json_t *value) {
    nas_sparsity s;
    nas_status status = nas_recipe_sparsity_read(ctx, value, &s);
    const char *kernels = json_is_object(value) ? text_of(value, "kernels") : "";
    int32_t layers = 0;
    for (nas_value v = 0; v < nas_graph_node_count(graph) && status == NAS_OK; v++) {
        if (!is_named(graph, nas_graph_node(graph, v), kernels)) continue;
        status = nas_sparsity_apply(ctx, graph, v, &s);
        layers++;
    }
    if (status != NAS_OK || layers > 0) return status;
    return nas_fail(ctx, NAS_ERR_NOTFOUND,
                    "\"kernels\" is \"%s\"; no convolution is of that kind. It may be \"1x1\", "
                    "\"3x3\" and so on, \"fc\" or \"all\"",
                    kernels);
}
