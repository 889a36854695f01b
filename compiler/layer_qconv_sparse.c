/* layer_qconv_sparse.c - integer convolutions that leave zeros out: which ways make sense, what they cost, the lists.
 *
 * As layer_conv_sparse.c, with entries of as many steps of the sum as a lane multiplies at once. The steps of an entry are
 * the next ones that the group keeps, wherever they lie: the last entry of a list is filled up with weights of 0. */
#include "compiler/layer_qconv_internal.h"

#include <string.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static size_t round_64(size_t n) {
    return (n + 63) / 64 * 64;
}

bool nas__qconv_is_sparse(const nas__qconv_way *way) {
    return way->algorithm == NAS__QCONV_SPARSE || way->algorithm == NAS__QCONV_SPARSE_PANEL;
}

int32_t nas__qconv_shared(const nas_target *target, const nas__qconv_way *way) {
    return way->algorithm == NAS__QCONV_SPARSE ? way->vectors * (target->vector_bytes / 4)
                                               : way->group;
}

/* ---- geometry ----------------------------------------------------------------------------------------------------- */

static nas__q_panel shape_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    nas__q_panel p = {.dot = nas__dot_of(target), .lanes = target->vector_bytes / 4};
    p.inputs = nas__dot_group(p.dot);
    p.element = p.dot == NAS__DOT_PLAIN || p.dot == NAS__DOT_PAIR ? 2 : 1;
    p.unit = p.lanes * p.inputs;
    p.row = way->vectors * p.lanes;
    p.steps = c->kernel_h * c->kernel_w * c->in_c;
    p.groups = ceil_div(c->out_c, way->group);
    p.outputs = ceil_div(c->out_c, p.lanes) * p.lanes;
    p.pixels = c->out_h * c->out_w;
    p.tiles = ceil_div(p.pixels, p.row);
    return p;
}

nas__q_panel nas__q_panel_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way) {
    enum { SMALL_MAX = 65535 };
    nas__q_panel p = shape_of(target, q, way);
    p.scale = strcmp(target->arch, "x86-64") == 0 ? 8 : 16; /* largest factor of an address */
    p.small = (p.steps - 1) * (p.row * p.element / p.scale) <= SMALL_MAX;
    const size_t entries = (size_t)way->entries, inputs = (size_t)p.inputs;
    p.starts = 4 * NAS__Q_HEAD;
    p.heads = round_64(p.starts + 4 * (2 + (size_t)p.groups));
    p.order = p.heads + 8 * (size_t)p.outputs;
    p.indices = round_64(p.order + 4 * (size_t)(p.groups * way->group));
    p.weights = round_64(p.indices + entries * inputs * (p.small ? 2 : 4));
    p.bytes = round_64(p.weights + entries * (size_t)way->group * inputs * (size_t)p.element);
    p.sums_at = round_64((size_t)(p.steps * p.element) * (size_t)p.row);
    /* one row more: sums of outputs that are none */
    p.spare_at = round_64(p.sums_at + 4 * (size_t)(p.outputs + 1) * (size_t)p.row);
    p.scratch_bytes = round_64(p.spare_at + (size_t)p.outputs);
    return p;
}

int32_t nas__q_panel_place(const nas__q_panel *p, int32_t i) {
    if (p->inputs == 1) return i;
    /* instructions interleave within 16 bytes: pixels of one vector come from all of these */
    const int32_t v = i % p->unit / p->lanes, lane = i % p->lanes;
    return i / p->unit * p->unit + lane / 4 * (16 / p->element) + 4 * v + lane % 4;
}

/* ---- lists -------------------------------------------------------------------------------------------------------- */

static int32_t kept_steps(const nas__conv *c, int32_t steps, const int32_t *order, int32_t first,
                          int32_t n) {
    int32_t kept = 0;
    for (int32_t k = 0; k < steps; k++)
        kept += nas__sparse_keeps(c, order, first, n, k);
    return kept;
}

/* Entries of all lists; -1 without memory. */
static int32_t count_entries(const nas__conv *c, const nas__q_panel *p, int32_t group) {
    int32_t *order = nas__sparse_order(c, group);
    if (order == NULL) return -1;
    int32_t entries = 0;
    for (int32_t g = 0; g < p->groups; g++)
        entries += ceil_div(kept_steps(c, p->steps, order, g * group, group), p->inputs);
    nas_free(order);
    return entries;
}

double nas__qconv_sparse_products(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way) {
    if (way->algorithm == NAS__QCONV_SPARSE)
        return (double)way->entries * way->vectors * (target->vector_bytes / 4) *
               nas__dot_group(nas__q_dot(target, way));
    return (double)way->entries * way->group * nas__q_panel_of(target, q, way).inputs;
}

typedef struct lists {
    const nas__conv *conv;
    const nas__q_panel *panel;
    const nas__qconv_way *way;
    const int8_t *weight;
    const int32_t *order;
    uint8_t *block;
} lists;

static void put_i32(uint8_t *at, int64_t value) {
    const int32_t v = (int32_t)value;
    memcpy(at, &v, sizeof v);
}

static void put_index(const lists *l, int32_t at, int32_t step) {
    const nas__q_panel *p = l->panel;
    const int32_t value = step * (p->row * p->element / p->scale);
    if (p->small) {
        const uint16_t v = (uint16_t)value;
        memcpy(l->block + p->indices + 2 * (size_t)at, &v, sizeof v);
    } else {
        put_i32(l->block + p->indices + 4 * (size_t)at, value);
    }
}

/* Weight of the o-th output of the group in lane part `input` of an entry. */
static void put_weight(const lists *l, int32_t entry, int32_t o, int32_t input, int8_t code) {
    const nas__q_panel *p = l->panel;
    const int32_t at = (entry * l->way->group + o) * p->inputs + input;
    uint8_t *to = l->block + p->weights + (size_t)at * (size_t)p->element;
    const int16_t wide = code;
    if (p->element == 2)
        memcpy(to, &wide, sizeof wide);
    else
        *to = (uint8_t)code;
}

/* The list of group g from `entry` on; returns where the next one begins, -1 when there is no room. */
static int32_t pack_list(const lists *l, int32_t g, int32_t entry) {
    const nas__q_panel *p = l->panel;
    const int32_t group = l->way->group, first = g * group;
    int32_t n = 0;
    for (int32_t k = 0; k < p->steps; k++) {
        if (!nas__sparse_keeps(l->conv, l->order, first, group, k)) continue;
        const int32_t e = entry + n / p->inputs;
        if (e >= l->way->entries) return -1;
        put_index(l, entry * p->inputs + n, k);
        for (int32_t o = 0; o < group && first + o < l->conv->out_c; o++) {
            const size_t at = (size_t)l->order[first + o] * (size_t)p->steps + (size_t)k;
            put_weight(l, e, o, n % p->inputs, l->weight[at]);
        }
        n++;
    }
    return entry + ceil_div(n, p->inputs);
}

static bool pack_lists(const lists *l) {
    const nas__q_panel *p = l->panel;
    int32_t entry = 0;
    put_i32(l->block + p->starts, (int64_t)p->weights);
    for (int32_t g = 0; g < p->groups && entry >= 0; g++) {
        put_i32(l->block + p->starts + 4 * (size_t)(1 + g), entry);
        entry = pack_list(l, g, entry);
    }
    if (entry != l->way->entries) return false;
    put_i32(l->block + p->starts + 4 * (size_t)(1 + p->groups), entry);
    for (int32_t i = 0; i < p->groups * l->way->group; i++)
        put_i32(l->block + p->order + 4 * (size_t)i, i < l->conv->out_c ? l->order[i] : p->outputs);
    return true;
}

/* A code that is not 0 must be in a list. */
static bool covers(const nas__conv *c, const int8_t *weight, int32_t steps) {
    const size_t n = (size_t)c->out_c * (size_t)steps;
    for (size_t i = 0; i < n; i++) {
        if (weight[i] != 0 && c->kept[i] == 0) return false;
    }
    return true;
}

static nas_status wrong_zeros(nas_ctx *ctx, const nas__conv *c) {
    return nas_fail(ctx, NAS_ERR_INTERNAL,
                    "an integer convolution of %d -> %d channels has other zeros than when it was "
                    "planned",
                    c->in_c, c->out_c);
}

nas_status nas__q_sparse_pack(nas_ctx *ctx, const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const nas__qconv_data *data, int32_t zero,
                              uint8_t *block) {
    const nas__conv *c = &q->conv;
    if (!covers(c, data->weight, c->kernel_h * c->kernel_w * c->in_c)) return wrong_zeros(ctx, c);
    if (way->algorithm == NAS__QCONV_SPARSE)
        return nas__q_list_pack(target, q, way, data, zero, block) ? NAS_OK : wrong_zeros(ctx, c);
    const nas__q_panel p = nas__q_panel_of(target, q, way);
    int32_t *order = nas__sparse_order(c, way->group);
    if (order == NULL) return nas_fail(ctx, NAS_ERR_NOMEM, "no memory for %d outputs", c->out_c);
    const lists l = {c, &p, way, data->weight, order, block};
    const bool packed = pack_lists(&l);
    nas_free(order);
    if (!packed) return wrong_zeros(ctx, c);
    for (int32_t o = 0; o < c->out_c; o++) {
        int64_t sum = 0;
        for (int32_t k = 0; k < p.steps; k++)
            sum += data->weight[(size_t)o * (size_t)p.steps + (size_t)k];
        put_i32(block + p.heads + 4 * (size_t)o, data->bias[o] - zero * sum);
        put_i32(block + p.heads + 4 * (size_t)(p.outputs + o), data->multiplier[o]);
    }
    return NAS_OK;
}

/* ---- ways --------------------------------------------------------------------------------------------------------- */

/* Instructions of an entry, four a cycle; the rest is fitted (bench/sparse.sh). */
static const double call_cycles = 20, entry_cycles = 1.3, stage_cycles = 0.38, finish_moves = 1,
                    pixel_cycles = 6, l2_cycles_vector = 1.5;

static double cycles_of(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    const nas__q_panel p = nas__q_panel_of(target, q, way);
    const double vectors = way->vectors, group = way->group;
    const double product = p.dot == NAS__DOT_PAIR ? 0.5 : p.dot == NAS__DOT_PLAIN ? 1 : 0.5;
    const double mixes = p.inputs == 1 ? 0.25 : p.inputs == 2 ? 0.25 : 0.5; /* of a vector */
    double step = group * vectors * product + vectors * mixes + 0.1 * group;
    if (p.steps * p.row * p.element > target->l1_bytes && step < l2_cycles_vector * vectors)
        step = l2_cycles_vector * vectors;
    const double out_vectors = vectors * p.outputs;
    return p.tiles *
           (way->entries * (step + entry_cycles) +
            p.groups * (call_cycles + 0.5 * group * vectors) + stage_cycles * p.steps * p.row +
            pixel_cycles * p.row + out_vectors * (nas__q_finish_cycles(target, q) + finish_moves));
}

/* {group, vectors}: sums, one row's vectors, a weight and a product fit the registers; rows are whole units. */
static const int32_t pair_256[][2] = {{4, 2}, {2, 4}, {1, 4}, {1, 8}},
                     pair_512[][2] = {{8, 2}, {4, 4}, {2, 4}, {1, 8}},
                     fours[][2] = {{4, 4}, {2, 4}, {1, 4}, {1, 8}},
                     plain_32[][2] = {{4, 4}, {2, 8}, {2, 4}, {1, 8}},
                     plain_16[][2] = {{2, 4}, {1, 8}, {1, 4}, {4, 4}};
enum { TILES = 4 };

static const int32_t (*tiles_of(const nas_target *target))[2] {
    switch (nas__dot_of(target)) {
    case NAS__DOT_PAIR: return target->vector_bytes == 64 ? pair_512 : pair_256;
    case NAS__DOT_VNNI:
    case NAS__DOT_NEON: return fours;
    case NAS__DOT_PLAIN:
    case NAS__DOT_BYTES:
    case NAS__DOT_MMLA:
    case NAS__DOT_AMX: break;
    }
    return target->vector_registers >= 32 ? plain_32 : plain_16;
}

/* As the dense kernel, with an index more. */
static double list_cycles(const nas_target *target, const nas__qconv *q,
                          const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas__q_blocks b = nas__q_block_of(target, c, way);
    const nas__q_stage s = nas__q_stage_of(target, q, way, t.rows);
    const double pixels = way->pixels, vectors = b.vectors, loads = pixels + vectors + 1;
    double step = 0.5 * (pixels * vectors > loads ? pixels * vectors : loads) + 0.1 * loads;
    if (step < 1) step = 1;
    const double tiles = (double)t.bands * (t.wide + t.narrow);
    return tiles * (way->entries * (step + entry_cycles) +
                    b.count * (call_cycles + pixels * vectors * nas__q_finish_cycles(target, q))) +
           (double)t.bands * s.rows_of_band * s.row / 16.0;
}

static int32_t list_ways(const nas_target *target, const nas__qconv *q, int32_t n,
                         nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    static const int32_t few[][2] = {{12, 1}, {6, 2}}, many[][2] = {{24, 1}, {12, 2}};
    const int32_t most = ceil_div(q->conv.out_c, target->vector_bytes / 4);
    for (int32_t i = 0; i < 2 && n < NAS__QCONV_WAYS_MAX; i++) {
        const int32_t *tile = target->vector_registers >= 32 ? many[i] : few[i];
        const nas__conv_tiling t = nas__conv_tile(&q->conv, tile[0]);
        nas__qconv_way way = {.algorithm = NAS__QCONV_SPARSE,
                              .pixels = t.rows * t.columns,
                              .vectors = tile[1] < most ? tile[1] : most,
                              .stored_bits = nas__dot_of(target) == NAS__DOT_PAIR ? 16 : 8};
        way.entries = nas__q_list_entries(target, q, &way);
        if (way.entries >= nas__q_list_dense(target, q, &way)) continue;
        way.cycles = list_cycles(target, q, &way);
        if (n > 0 && out[n - 1].algorithm == way.algorithm && out[n - 1].pixels == way.pixels &&
            out[n - 1].vectors == way.vectors)
            continue;
        out[n++] = way;
    }
    return n;
}

int32_t nas__q_sparse_ways(const nas_target *target, const nas__qconv *q, int32_t n,
                           nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    const nas__conv *c = &q->conv;
    if (c->kept == NULL || c->groups != 1 || c->out_h * c->out_w == 1) return n;
    n = list_ways(target, q, n, out);
    for (int32_t i = 0; i < TILES && n < NAS__QCONV_WAYS_MAX; i++) {
        const int32_t *tile = tiles_of(target)[i];
        nas__qconv_way way = {.algorithm = NAS__QCONV_SPARSE_PANEL,
                              .pixels = 1,
                              .vectors = tile[1],
                              .group = tile[0]};
        const nas__q_panel p = shape_of(target, q, &way);
        way.stored_bits = 8 * p.element;
        way.entries = count_entries(c, &p, way.group);
        /* does it leave anything out? */
        if (way.entries < 0 || way.entries >= ceil_div(p.steps, p.inputs) * p.groups) continue;
        way.cycles = cycles_of(target, q, &way);
        out[n++] = way;
    }
    return n;
}
