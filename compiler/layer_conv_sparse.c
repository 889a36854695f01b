/* layer_conv_sparse.c - lists of the products that are not zero: their number, their layout in memory, and the loop over
 * one list in the direct form.
 *
 * Outputs of a group share one list: the union of what they keep. A mask of blocks of N outputs (Lin et al., 1xN,
 * arXiv:2105.14713), of blocks, of punched blocks or of N:M along the inputs needs no more than that; what differs is how
 * many entries the lists have. The text of a kernel depends on the shape alone, so another mask compiles nothing. */
#include "compiler/layer_conv_internal.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN_WORDS = 16, SMALL_MAX = 65535 };

static size_t round_up(size_t n) {
    return (n + ALIGN_WORDS - 1) / ALIGN_WORDS * ALIGN_WORDS;
}

bool nas__conv_is_sparse(const nas__conv_way *way) {
    return nas__sparse_by_blocks(way) || way->algorithm == NAS__CONV_SPARSE_PANEL ||
           way->algorithm == NAS__CONV_SPARSE_CODE;
}

bool nas__sparse_by_blocks(const nas__conv_way *way) {
    return way->algorithm == NAS__CONV_SPARSE || way->algorithm == NAS__CONV_SPARSE_RUN;
}

const char *nas__sparse_index(const nas__sparse_layout *l) {
    return l->small ? "unsigned short" : "int";
}

static int32_t steps_of(const nas__conv *c) {
    return c->kernel_h * c->kernel_w * c->in_c;
}

/* Floats from the first tap of a pixel to step k of its sum. */
static size_t offset_of(const nas__conv *c, int32_t k) {
    const int32_t tap = k / c->in_c;
    return (size_t)(tap / c->kernel_w * c->dilation_h) * c->in_row +
           (size_t)(tap % c->kernel_w * c->dilation_w) * (size_t)c->in_pitch +
           (size_t)(k % c->in_c);
}

nas__sparse_layout nas__sparse_layout_of(const nas_target *target, const nas__conv *c,
                                         const nas__conv_way *way) {
    nas__sparse_layout l = {.entries = way->entries, .starts = 2};
    if (!nas__conv_is_sparse(way)) return l;
    const bool panel = way->algorithm == NAS__CONV_SPARSE_PANEL;
    const int32_t lanes = target->vector_bytes / 4;
    size_t padded = 0, outputs = 0, start_words = 0, values = 0, picks = 0;
    if (way->algorithm == NAS__CONV_SPARSE_CODE) {
        padded = (size_t)((c->out_c + lanes - 1) / lanes * lanes);
        values = (size_t)nas__sparse_code_weights(target, c, way);
    } else if (panel) {
        const nas__panel_tiling t = nas__panel_tile(target, c, way);
        l.lists = t.parts * t.groups;
        l.small = (int64_t)(t.depth - 1) * nas__panel_scale(target, way) <= SMALL_MAX;
        start_words = (size_t)l.lists + 1;
        outputs = (size_t)(t.groups * way->group);
        values = (size_t)way->entries * (size_t)way->group;
        padded = (size_t)((c->out_c + lanes - 1) / lanes * lanes);
    } else {
        const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
        l.lists = b.count;
        l.small = offset_of(c, steps_of(c) - 1) <= SMALL_MAX;
        start_words = 2 * ((size_t)l.lists + 1);
        padded = (size_t)nas__conv_block_first(&b, b.count);
        values =
            (size_t)way->entries * (size_t)(b.vectors * lanes); /* room, narrow blocks or not */
        picks = nas__run_pick_words(way, b.vectors);
        if (way->algorithm == NAS__CONV_SPARSE_RUN) l.starts++;
    }
    l.heads = round_up(l.starts + start_words);
    l.outputs = round_up(l.heads + (size_t)nas__conv_heads(c) * padded);
    l.indices = round_up(l.outputs + outputs);
    if (way->algorithm == NAS__CONV_SPARSE_CODE) {
        l.values = l.indices;
        l.floats = round_up(l.values + values);
        return l;
    }
    l.values = round_up(l.indices + ((size_t)way->entries + l.small) / (l.small ? 2 : 1));
    l.picks = round_up(l.values + values);
    l.floats = round_up(l.picks + picks);
    return l;
}

/* ---- groups and their unions -------------------------------------------------------------------------------------- */

bool nas__sparse_keeps(const nas__conv *c, const int32_t *order, int32_t first, int32_t n,
                       int32_t k) {
    const size_t steps = (size_t)steps_of(c);
    for (int32_t i = first; i < first + n && i < c->out_c; i++) {
        const size_t o = (size_t)(order != NULL ? order[i] : i);
        if (c->kept[o * steps + (size_t)k] != 0) return true;
    }
    return false;
}

static int32_t count(const nas__conv *c, const int32_t *order, int32_t first, int32_t n) {
    int32_t entries = 0;
    for (int32_t k = 0; k < steps_of(c); k++)
        entries += nas__sparse_keeps(c, order, first, n, k);
    return entries;
}

static int32_t count_groups(const nas__conv *c, const int32_t *order, int32_t group) {
    int32_t entries = 0;
    for (int32_t first = 0; first < c->out_c; first += group)
        entries += count(c, order, first, group);
    return entries;
}

/* One output's mask, for sorting. */
typedef struct row {
    const uint8_t *kept;
    size_t steps;
    int32_t output;
} row;

static int by_mask(const void *a, const void *b) {
    const row *x = a, *y = b;
    const int order = memcmp(y->kept, x->kept, x->steps);
    return order != 0 ? order : x->output - y->output;
}

int32_t *nas__sparse_order(const nas__conv *c, int32_t group) {
    const size_t n = (size_t)c->out_c, steps = (size_t)steps_of(c);
    nas_ctx *ctx = nas_ctx_new();
    int32_t *order = ctx != NULL ? nas_alloc_array(ctx, n, sizeof *order) : NULL;
    row *rows = order != NULL ? nas_alloc_array(ctx, n, sizeof *rows) : NULL;
    nas_ctx_free(ctx);
    if (rows == NULL) {
        nas_free(order);
        return NULL;
    }
    for (int32_t o = 0; o < c->out_c; o++)
        rows[o] = (row){.kept = c->kept + (size_t)o * steps, .steps = steps, .output = o};
    qsort(rows, n, sizeof *rows, by_mask);
    for (size_t i = 0; i < n; i++)
        order[i] = rows[i].output;
    nas_free(rows);
    if (count_groups(c, order, group) >= count_groups(c, NULL, group)) {
        for (int32_t o = 0; o < c->out_c; o++)
            order[o] = o;
    }
    return order;
}

/* Outputs that are joined are neighbours. */
static int32_t *order_of(const nas__conv *c, const nas__conv_way *way) {
    int32_t *order = nas__sparse_order(c, way->group);
    for (int32_t o = 0; order != NULL && way->joined && o < c->out_c; o++)
        order[o] = o;
    return order;
}

int32_t nas__sparse_entries(const nas_target *target, const nas__conv *c,
                            const nas__conv_way *way) {
    if (way->algorithm == NAS__CONV_SPARSE) {
        const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
        int32_t entries = 0;
        for (int32_t k = 0; k < b.count; k++) {
            const int32_t first = nas__conv_block_first(&b, k);
            entries += count(c, NULL, first, nas__conv_block_first(&b, k + 1) - first);
        }
        return entries;
    }
    if (way->algorithm == NAS__CONV_SPARSE_RUN) return nas__run_entries(target, c, way);
    if (way->algorithm == NAS__CONV_SPARSE_CODE) return count_groups(c, NULL, 1);
    int32_t *order = order_of(c, way);
    const int32_t entries = count_groups(c, order, way->group);
    nas_free(order);
    return entries;
}

/* ---- the weight block --------------------------------------------------------------------------------------------- */

static void put_word(float *out, int32_t value) {
    memcpy(out, &value, sizeof value);
}

static void put_entry(const nas__sparse_layout *l, float *out, int32_t entry, size_t value) {
    if (l->small) {
        const uint16_t v = (uint16_t)value;
        memcpy((char *)(out + l->indices) + (size_t)entry * sizeof v, &v, sizeof v);
    } else {
        put_word(out + l->indices + (size_t)entry, (int32_t)value);
    }
}

static nas_status wrong_mask(nas_ctx *ctx, const nas__conv *c) {
    return nas_fail(ctx, NAS_ERR_INTERNAL,
                    "a convolution of %d -> %d channels has other zeros than when it was planned",
                    c->in_c, c->out_c);
}

/* The list of `wide` outputs from `first` on, and its weights; the number of entries so far, -1: more than planned. */
static int32_t pack_list(const nas__conv *c, const nas__sparse_layout *l, int32_t first,
                         int32_t wide, int32_t entry, const float *weight, float **value,
                         float *out) {
    const int32_t steps = steps_of(c);
    for (int32_t i = 0; i < steps; i++) {
        if (!nas__sparse_keeps(c, NULL, first, wide, i)) continue;
        if (entry == l->entries) return -1;
        put_entry(l, out, entry++, offset_of(c, i));
        for (int32_t o = first; o < first + wide; o++)
            *(*value)++ = o < c->out_c ? weight[(size_t)o * (size_t)steps + (size_t)i] : 0;
    }
    return entry;
}

static int32_t pack_runs(const nas__conv *c, const nas__conv_way *way, const nas__sparse_layout *l,
                         int32_t first, int32_t wide, int32_t entry, const float *weight,
                         float **value, float *out) {
    enum { ENTRIES_MAX = 8, OUTPUTS_MAX = 64 };
    for (int32_t i = 0; i < steps_of(c); i += way->group) {
        float values[ENTRIES_MAX * OUTPUTS_MAX] = {0};
        uint32_t picks[ENTRIES_MAX * OUTPUTS_MAX / 4] = {0};
        const size_t lanes = (size_t)(wide / 8);
        const int32_t n = nas__run_pack(c, way, first, wide, i, weight, values, picks);
        if (entry + n > l->entries) return -1;
        for (int32_t k = 0; k < n; k++)
            put_entry(l, out, entry++, offset_of(c, i));
        memcpy(out + l->picks + (size_t)(*value - out - (ptrdiff_t)l->values) / 8, picks,
               (size_t)n * lanes * sizeof *picks);
        memcpy(*value, values, (size_t)(n * wide) * sizeof *values);
        *value += n * wide;
    }
    return entry;
}

static nas_status pack_blocks(nas_ctx *ctx, const nas_target *target, const nas__conv *c,
                              const nas__conv_way *way, const nas__sparse_layout *l,
                              const float *weight, const float *bias, const float *slope,
                              float *out) {
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    float *head = out + l->heads, *value = out + l->values;
    int32_t entry = 0;
    if (way->algorithm == NAS__CONV_SPARSE_RUN) put_word(out + 2, (int32_t)l->picks);
    for (int32_t k = 0; k < b.count; k++) {
        const int32_t first = nas__conv_block_first(&b, k);
        const int32_t wide = nas__conv_block_first(&b, k + 1) - first;
        const int32_t n = b.out_c - first < wide ? b.out_c - first : wide;
        head = nas__conv_head(c, bias, slope, first, n, wide, head);
        put_word(out + l->starts + 2 * k, entry);
        put_word(out + l->starts + 2 * k + 1, (int32_t)(value - out - (ptrdiff_t)l->values));
        const int32_t last = entry;
        if (way->algorithm == NAS__CONV_SPARSE_RUN)
            entry = pack_runs(c, way, l, first, wide, entry, weight, &value, out);
        else
            entry = pack_list(c, l, first, wide, entry, weight, &value, out);
        if (entry < last) return wrong_mask(ctx, c);
    }
    put_word(out + l->starts + 2 * b.count, entry);
    return entry == l->entries ? NAS_OK : wrong_mask(ctx, c);
}

static nas_status pack_panel(nas_ctx *ctx, const nas_target *target, const nas__conv *c,
                             const nas__conv_way *way, const nas__sparse_layout *l,
                             const int32_t *order, const float *weight, const float *bias,
                             const float *slope, float *out) {
    const nas__panel_tiling t = nas__panel_tile(target, c, way);
    const size_t steps = (size_t)steps_of(c), scale = (size_t)nas__panel_scale(target, way);
    const int32_t lanes = target->vector_bytes / 4;
    float *value = out + l->values;
    int32_t entry = 0, list = 0;
    (void)nas__conv_head(c, bias, slope, 0, c->out_c, (c->out_c + lanes - 1) / lanes * lanes,
                         out + l->heads);
    for (int32_t i = 0; i < t.groups * way->group; i++) /* the last group may have spare rows */
        put_word(out + l->outputs + (size_t)i, i < c->out_c ? order[i] : c->out_c);
    for (int32_t part = 0; part < t.parts; part++) {
        for (int32_t g = 0; g < t.groups; g++) {
            put_word(out + l->starts + list++, entry);
            for (int32_t k = part * t.depth; k < (part + 1) * t.depth && k < (int32_t)steps; k++) {
                const int32_t first = g * way->group;
                if (!nas__sparse_keeps(c, order, first, way->group, k)) continue;
                if (entry == l->entries) return wrong_mask(ctx, c);
                put_entry(l, out, entry++, (size_t)(k - part * t.depth) * scale);
                for (int32_t i = first; i < first + way->group; i++)
                    *value++ = i < c->out_c ? weight[(size_t)order[i] * steps + (size_t)k] : 0;
            }
        }
    }
    put_word(out + l->starts + list, entry);
    return entry == l->entries ? NAS_OK : wrong_mask(ctx, c);
}

nas_status nas__sparse_pack(nas_ctx *ctx, const nas_target *target, const nas__conv *c,
                            const nas__conv_way *way, const float *weight, const float *bias,
                            const float *slope, float *out) {
    const nas__sparse_layout l = nas__sparse_layout_of(target, c, way);
    memset(out, 0, l.floats * sizeof *out);
    put_word(out, (int32_t)l.indices);
    put_word(out + 1, (int32_t)l.values);
    if (nas__sparse_by_blocks(way))
        return pack_blocks(ctx, target, c, way, &l, weight, bias, slope, out);
    if (way->algorithm == NAS__CONV_SPARSE_CODE) {
        const int32_t lanes = target->vector_bytes / 4;
        (void)nas__conv_head(c, bias, slope, 0, c->out_c, (c->out_c + lanes - 1) / lanes * lanes,
                             out + l.heads);
        return nas__sparse_code_pack(target, c, way, weight, bias, out + l.values)
                   ? NAS_OK
                   : wrong_mask(ctx, c);
    }
    int32_t *order = order_of(c, way);
    if (order == NULL) return nas_fail(ctx, NAS_ERR_NOMEM, "no memory for %d outputs", c->out_c);
    const nas_status status = pack_panel(ctx, target, c, way, &l, order, weight, bias, slope, out);
    nas_free(order);
    return status;
}

/* ---- the loop of the direct form ---------------------------------------------------------------------------------- */

void nas__sparse_emit_sum(const nas__conv *c, const size_t *offsets, int32_t pixels,
                          int32_t vectors, int32_t lanes, nas_buf *out) {
    (void)c;
    nas_buf_printf(out, "    for (; i < to; i++, v += %d) {\n        const float *s = in + *i;\n",
                   vectors * lanes);
    nas_buf_puts(out, "        const vf ");
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, "%sb%d = load(v + %d)", v > 0 ? ", " : "", v, v * lanes);
    nas_buf_puts(out, ";\n        vf x;\n");
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_printf(out, "        x = splat(s[%zu]);", offsets[p]);
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, pixels > 1 ? " MADD(a%d_%d, x, b%d);" : " a%d_%d += x * b%d;", p, v,
                           v);
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "    }\n");
}
