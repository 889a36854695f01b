/* layer_cost.c - what a layer costs under a scheme: its bytes as it is, and what they will be, from its shape alone. */
#include "compress/layer.h"

#include <math.h>

static int32_t sharing_outputs(const nas_sparsity *s, int32_t rows) {
    int32_t n = 1;
    switch (s->pattern) {
    case NAS_SPARSITY_1XN: n = s->n; break;
    case NAS_SPARSITY_N_OF_M:
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED:
    case NAS_SPARSITY_PATTERN: n = s->outputs; break;
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_PERIODIC: n = rows; break;
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_COMPLEMENTARY:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return n < rows ? n : rows;
}

nas_status nas_layer_bytes(nas_ctx *ctx, const nas_graph *graph, nas_value v,
                           const nas_layer_scheme *scheme, uint64_t *out) {
    const nas_param *weight = nas_graph_param_const(graph, nas_graph_node(graph, v)->params[0]);
    const int32_t bits = scheme->bits > 0 ? scheme->bits : 32;
    const uint64_t scales =
        scheme->bits == 0 ? 0 : 4 * (scheme->per_tensor ? 1 : (uint64_t)weight->dims[0]);
    uint64_t least = (weight->count * (uint64_t)bits + 7) / 8;
    if (scheme->is_sparse) {
        uint8_t *kept = nas_alloc_array(ctx, weight->count, 1);
        if (kept == NULL) return NAS_ERR_NOMEM;
        for (size_t i = 0; i < weight->count; i++)
            kept[i] = weight->data[i] != 0;
        const nas_sparsity_bytes b = nas_sparsity_storage(
            kept, weight->dims, sharing_outputs(&scheme->sparsity, weight->dims[0]), bits);
        if (b.bitmask < least) least = b.bitmask;
        if (b.lists < least) least = b.lists;
        if (scheme->sparsity.pattern == NAS_SPARSITY_COMPLEMENTARY) {
            const uint64_t packed =
                nas_sparsity_packed_bytes(weight->dims, scheme->sparsity.outputs, bits);
            if (packed < least) least = packed;
        }
        nas_free(kept);
    }
    *out = least + scales;
    return NAS_OK;
}

/* ---- from shapes alone ---------------------------------------------------------------------------------------------------- */

bool nas_layer_is_whole(const nas_sparsity *s, const int32_t dims[4]) {
    const int32_t out = dims[0], in = dims[3];
    switch (s->pattern) {
    case NAS_SPARSITY_1XN: return out % s->n == 0;
    case NAS_SPARSITY_N_OF_M: return in % s->group == 0 && out % s->outputs == 0;
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED: return out % s->outputs == 0 && in % s->inputs == 0;
    case NAS_SPARSITY_PATTERN:
    case NAS_SPARSITY_COMPLEMENTARY: return out % s->outputs == 0;
    case NAS_SPARSITY_PERIODIC: return in % s->period == 0;
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return true;
}

static uint64_t stay(const nas_sparsity *s, uint64_t groups) {
    return groups - (uint64_t)floor(s->rate * (double)groups + 1e-9); /* as the projection does */
}

/* Steps that stay of all the lists; each stands for as many weights as outputs share a list. */
static uint64_t count_entries(const nas_sparsity *s, const int32_t dims[4]) {
    const uint64_t rows = (uint64_t)dims[0], in = (uint64_t)dims[3];
    const uint64_t taps = (uint64_t)dims[1] * (uint64_t)dims[2], steps = taps * in;
    const uint64_t p = (uint64_t)s->outputs, q = (uint64_t)s->inputs;
    switch (s->pattern) {
    case NAS_SPARSITY_FILTER: return stay(s, rows) * steps;
    case NAS_SPARSITY_CHANNEL: return stay(s, in) * taps;
    case NAS_SPARSITY_1XN: return stay(s, rows / (uint64_t)s->n * in) * taps;
    case NAS_SPARSITY_N_OF_M:
        return rows / p * taps * (in / (uint64_t)s->group) * (uint64_t)s->keep;
    case NAS_SPARSITY_BLOCK: return stay(s, rows / p * (in / q)) * q * taps;
    case NAS_SPARSITY_PUNCHED: return stay(s, rows / p * taps * (in / q)) * q;
    case NAS_SPARSITY_PATTERN: return stay(s, rows / p * in) * (uint64_t)s->entries;
    case NAS_SPARSITY_PERIODIC: return in * (uint64_t)s->entries;
    case NAS_SPARSITY_UNSTRUCTURED: return stay(s, rows * steps);
    case NAS_SPARSITY_COMPLEMENTARY: return rows / p * steps;
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return rows * steps;
}

static uint64_t least_of(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

nas_layer_cost nas_layer_expect(const int32_t dims[4], const nas_layer_scheme *scheme) {
    const nas_sparsity *s = &scheme->sparsity;
    const uint64_t rows = (uint64_t)dims[0];
    const uint64_t steps = (uint64_t)dims[1] * (uint64_t)dims[2] * (uint64_t)dims[3];
    const uint64_t bits = scheme->bits > 0 ? (uint64_t)scheme->bits : 32, weights = rows * steps;
    const uint64_t scales = scheme->bits == 0 ? 0 : 4 * (scheme->per_tensor ? 1 : rows);
    nas_layer_cost cost = {.kept = weights, .bytes = (weights * bits + 7) / 8};
    if (scheme->is_sparse) {
        const uint64_t shared = (uint64_t)sharing_outputs(s, dims[0]);
        const uint64_t entries = count_entries(s, dims);
        cost.kept = entries * shared;
        const uint64_t values = (cost.kept * bits + 7) / 8;
        const uint64_t lists =
            entries * (steps > 65536 ? 4 : 2) + values + 4 * ((rows + shared - 1) / shared + 1);
        cost.bytes = least_of(cost.bytes, (weights + 7) / 8 + values);
        /* rearranged filters share a list with others than their neighbours: its length follows from the weights */
        if (s->pattern != NAS_SPARSITY_1XN || !s->rearrange)
            cost.bytes = least_of(cost.bytes, lists);
        if (s->pattern == NAS_SPARSITY_COMPLEMENTARY)
            cost.bytes =
                least_of(cost.bytes, nas_sparsity_packed_bytes(dims, s->outputs, (int32_t)bits));
    }
    cost.bytes += scales;
    return cost;
}
