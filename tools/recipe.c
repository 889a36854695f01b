/* recipe.c - see recipe.h: a JSON file, checked against the model, applied layer by layer. */
#include "tools/recipe.h"

#include "ir/quantize.h"
#include "tools/recipe_sparsity.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* Steps that whoever rounded the weights has used; without them each channel's is searched for. */
static nas_status read_scales(nas_ctx *ctx, const json_t *given, size_t channels, float *scales) {
    if (!json_is_array(given) || json_array_size(given) != channels)
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "\"weight_scales\" has to be a list of %zu numbers, one for each output "
                        "channel",
                        channels);
    for (size_t o = 0; o < channels; o++)
        scales[o] = (float)json_number_value(json_array_get(given, o));
    return NAS_OK;
}

/* The scale by which weights that are 0 or +-most*2^-i, i of 0..6, get codes of powers of two without error; 0: others. */
static float scale_of_powers(const float *w, size_t n) {
    enum { STEPS = 6 };
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    for (size_t i = 0; i < n; i++) {
        int exponent = 0;
        if (w[i] != 0 && (frexpf(fabsf(w[i]) / most, &exponent) != 0.5F || exponent < 1 - STEPS))
            return 0;
    }
    return ldexpf(most, -STEPS);
}

/* Weights of the layer as integers of `bits` bits, one scale for each output channel. */
static nas_status set_weight_bits(nas_ctx *ctx, nas_graph *graph, nas_value v, const json_t *value,
                                  const json_t *given) {
    const nas_node *node = nas_graph_node(graph, v);
    const json_int_t bits = json_integer_value(value);
    if (node->op != NAS_OP_CONV)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "\"weight_bits\" of a %s: only convolutions and "
                        "fully connected layers have integer weights",
                        nas_op_name(node->op));
    if (!json_is_integer(value) || bits < 2 || bits > 8)
        return nas_fail(ctx, NAS_ERR_RANGE, "\"weight_bits\" has to be a whole number from 2 to 8");
    const int32_t index = node->params[0];
    const nas_param *p = nas_graph_param_const(graph, index);
    const size_t channels = (size_t)p->dims[0], n = p->count / channels;
    if (p->data == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "the layer has no weights");
    float *scales = nas_alloc_array(ctx, channels, sizeof *scales);
    if (scales == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    if (given != NULL) status = read_scales(ctx, given, channels, scales);
    for (size_t o = 0; given == NULL && o < channels; o++) {
        scales[o] = bits == 8 ? scale_of_powers(p->data + o * n, n) : 0;
        if (!(scales[o] > 0)) scales[o] = nas_quant_weight_scale(p->data + o * n, n, (int32_t)bits);
    }
    if (status == NAS_OK)
        status = nas_graph_set_weight_scales(ctx, graph, index, (int32_t)bits, scales);
    nas_free(scales);
    return status;
}

/* How the result of the layer is stored: {"scale": s, "zero_point": z, "signed": b}, or null for floats. */
static nas_status set_activation(nas_ctx *ctx, nas_graph *graph, nas_value v, const json_t *value) {
    nas_quant q = {.is_set = !json_is_null(value)};
    double scale = 0;
    json_int_t zero = 0;
    int is_signed = 0;
    if (q.is_set && json_unpack((json_t *)(uintptr_t)value, "{s:F, s?I, s?b!}", "scale", &scale,
                                "zero_point", &zero, "signed", &is_signed) != 0) {
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "\"activation\" has to be {\"scale\": number, "
                        "\"zero_point\": number, \"signed\": true or false}, or null");
    }
    q.scale = (float)scale;
    q.zero_point = zero < -128 || zero > 255 ? -129 : (int32_t)zero;
    q.is_signed = is_signed != 0;
    return nas_graph_set_quant(ctx, graph, v, q);
}

static nas_status apply_setting(nas_ctx *ctx, nas_graph *graph, nas_value v, const char *key,
                                const json_t *settings) {
    const json_t *value = json_object_get(settings, key);
    const json_t *scales = json_object_get(settings, "weight_scales");
    if (strcmp(key, "weight_bits") == 0) return set_weight_bits(ctx, graph, v, value, scales);
    if (strcmp(key, "weight_scales") == 0) {
        if (json_object_get(settings, "weight_bits") != NULL) return NAS_OK;
        return nas_fail(ctx, NAS_ERR_PARSE, "\"weight_scales\" without \"weight_bits\"");
    }
    if (strcmp(key, "activation") == 0) return set_activation(ctx, graph, v, value);
    if (strcmp(key, "sparsity") == 0) return nas_recipe_sparsity(ctx, graph, v, value);
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "there are no kernels for \"%s\" yet", key);
}

static nas_status read_dtype(nas_ctx *ctx, const json_t *value, nas_recipe_dtype *out) {
    const char *name = json_string_value(value);
    if (name != NULL && strcmp(name, "fp16") == 0) {
        *out = NAS_RECIPE_FP16;
    } else if (name != NULL && strcmp(name, "fp32") == 0) {
        *out = NAS_RECIPE_FP32;
    } else {
        return nas_fail(ctx, NAS_ERR_PARSE, "\"dtype\" has to be \"fp32\" or \"fp16\"");
    }
    return NAS_OK;
}

static nas_status use_recipe(nas_ctx *ctx, const char *path, nas_graph *graph, const json_t *recipe,
                             nas_recipe_dtype *dtype) {
    const char *hash = json_string_value(json_object_get(recipe, "graph_hash"));
    char ours[NAS_SHA256_HEX];
    nas_status status = nas_graph_hash(ctx, graph, false, ours);
    if (status != NAS_OK) return status;
    if (hash == NULL)
        return nas_fail(ctx, NAS_ERR_PARSE, "recipe %s: no text \"graph_hash\"; this model's is %s",
                        path, ours);
    if (strcmp(hash, ours) != 0) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "recipe %s is for another model: graph_hash %s, this model has %s", path,
                        hash, ours);
    }
    const json_t *given = json_object_get(recipe, "dtype");
    if (given != NULL) status = read_dtype(ctx, given, dtype);
    if (status != NAS_OK) return nas_wrap(ctx, status, "recipe %s", path);
    const json_t *layers = json_object_get(recipe, "layers");
    if (layers != NULL && !json_is_object(layers))
        return nas_fail(ctx, NAS_ERR_PARSE, "recipe %s: \"layers\" is no object", path);
    const json_t *sparsity = json_object_get(recipe, "sparsity");
    if (sparsity != NULL) {
        status = nas_recipe_sparsity_all(ctx, graph, sparsity);
        if (status != NAS_OK) return nas_wrap(ctx, status, "recipe %s", path);
    }
    const char *name = NULL;
    json_t *settings = NULL;
    json_object_foreach((json_t *)(uintptr_t)layers, name, settings) {
        const nas_value v = nas_graph_find(graph, name);
        if (v == NAS_VALUE_NONE)
            return nas_fail(ctx, NAS_ERR_NOTFOUND, "recipe %s: the model has no layer '%s'", path,
                            name);
        const char *key = NULL;
        json_t *value = NULL;
        json_object_foreach(settings, key, value) {
            status = apply_setting(ctx, graph, v, key, settings);
            if (status != NAS_OK) return nas_wrap(ctx, status, "recipe %s, layer '%s'", path, name);
        }
    }
    return NAS_OK;
}

nas_status nas_recipe_apply(nas_ctx *ctx, const char *path, nas_graph *graph,
                            nas_recipe_dtype *dtype) {
    enum { RECIPE_BYTES_MAX = 16 * 1024 * 1024 };
    nas_buf text = {0};
    *dtype = NAS_RECIPE_UNSAID;
    nas_status status = nas_file_read(ctx, path, RECIPE_BYTES_MAX, &text);
    if (status != NAS_OK) return status;
    json_error_t error;
    json_t *recipe = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(recipe)) {
        status = nas_fail(ctx, NAS_ERR_PARSE, "recipe %s, line %d: %s", path, error.line,
                          recipe == NULL ? error.text : "not an object");
    } else {
        status = use_recipe(ctx, path, graph, recipe, dtype);
    }
    json_decref(recipe);
    nas_buf_deinit(&text);
    return status;
}
