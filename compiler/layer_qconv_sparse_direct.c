/* layer_qconv_sparse_direct.c - lists for the integer kernels with channels in lanes: a block of whole vectors of outputs
 * shares a list of the products that any of them keeps, one for each group of inputs that a lane multiplies at once.
 *
 * Blocks of p outputs x q inputs make such lists short, 1xN masks do not. Nothing is turned: rows are staged as for DIRECT.
 * The weight block: head; for each block of outputs where it begins in bytes, then where its list begins, in entries; the
 * lists, elements from the first staged tap of a pixel; then blocks as those of DIRECT, with the products that are kept. */
#include "compiler/layer_qconv_internal.h"

#include <string.h>

static size_t round_64(size_t n) {
    return (n + 63) / 64 * 64;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* Products of one output pixel and block, and where they are. */
typedef struct steps {
    const nas__conv *conv;
    nas__q_stage stage;
    int32_t run, runs; /* products of a run, runs of a kernel row */
    int32_t count;
} steps;

static steps steps_of(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    steps s = {.conv = &q->conv, .stage = nas__q_stage_of(target, q, way, 1)};
    s.runs = s.stage.joined ? 1 : q->conv.kernel_w;
    s.run = s.stage.steps / s.runs;
    s.count = q->conv.kernel_h * s.stage.steps;
    return s;
}

/* Elements from the first staged tap of a pixel to product k. */
static int32_t offset_of(const steps *s, int32_t k) {
    const nas__conv *c = s->conv;
    const int32_t row = k / s->stage.steps, e = k % s->stage.steps;
    return row * c->dilation_h * s->stage.row + e / s->run * c->dilation_w * s->stage.pixel +
           e % s->run * s->stage.group;
}

/* The weight of input j of product k, as a step of the sum; -1: beyond the run, nothing. */
static int32_t weight_of(const steps *s, int32_t k, int32_t j) {
    const nas__conv *c = s->conv;
    const int32_t row = k / s->stage.steps, e = k % s->stage.steps;
    const int32_t at = e % s->run * s->stage.group + j;
    const int32_t length = s->stage.joined ? c->kernel_w * c->in_c : c->in_c;
    return at < length ? (row * c->kernel_w + e / s->run) * c->in_c + at : -1;
}

static bool any_keeps(const steps *s, int32_t first, int32_t n, int32_t k) {
    for (int32_t j = 0; j < s->stage.group; j++) {
        const int32_t w = weight_of(s, k, j);
        if (w >= 0 && nas__sparse_keeps(s->conv, NULL, first, n, w)) return true;
    }
    return false;
}

int32_t nas__q_list_entries(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    const nas__q_blocks b = nas__q_block_of(target, &q->conv, way);
    const steps s = steps_of(target, q, way);
    const int32_t full = b.vectors * b.lanes;
    int32_t entries = 0;
    for (int32_t k = 0; k < b.count; k++) {
        for (int32_t i = 0; i < s.count; i++)
            entries += any_keeps(&s, k * full, full, i);
    }
    return entries;
}

int32_t nas__q_list_dense(const nas_target *target, const nas__qconv *q,
                          const nas__qconv_way *way) {
    return steps_of(target, q, way).count * nas__q_block_of(target, &q->conv, way).count;
}

nas__q_lists nas__q_lists_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way) {
    const nas__q_blocks b = nas__q_block_of(target, &q->conv, way);
    const steps s = steps_of(target, q, way);
    const size_t heads = (size_t)(2 * b.vectors * target->vector_bytes);
    nas__q_lists l = {.blocks_at = 4 * NAS__Q_HEAD};
    l.small = offset_of(&s, s.count - 1) <= UINT16_MAX;
    l.starts = l.blocks_at + 4 * (size_t)b.count;
    l.indices = round_64(l.starts + 4 * (size_t)(b.count + 1));
    l.blocks = round_64(l.indices + (size_t)way->entries * (l.small ? 2 : 4));
    l.bytes = round_64(l.blocks + (size_t)b.count * heads + /* room: the last block may be narrow */
                       (size_t)way->entries * (size_t)nas__q_step_bytes(target, way, b.vectors));
    return l;
}

static void put_i32(uint8_t *at, int64_t value) {
    const int32_t v = (int32_t)value;
    memcpy(at, &v, sizeof v);
}

typedef struct packer {
    const nas_target *target;
    const nas__qconv_way *way;
    const nas__qconv_data *data;
    steps steps;
    nas__q_blocks blocks;
    nas__q_lists lists;
    int32_t zero;
    uint8_t *block;
} packer;

static uint8_t *pack_heads(const packer *p, int32_t first, int32_t n, int32_t padded,
                           uint8_t *out) {
    const nas__conv *c = p->steps.conv;
    const size_t taps = (size_t)(c->kernel_h * c->kernel_w) * (size_t)c->in_c;
    for (int32_t i = 0; i < n; i++) {
        int64_t sum = 0;
        for (size_t k = 0; k < taps; k++)
            sum += p->data->weight[(size_t)(first + i) * taps + k];
        put_i32(out + 4 * i, p->data->bias[first + i] - p->zero * sum);
        put_i32(out + 4 * (padded + i), p->data->multiplier[first + i]);
    }
    return out + 8 * padded;
}

static void put_product(const packer *p, int32_t first, int32_t n, int32_t k, uint8_t *out) {
    const nas__conv *c = p->steps.conv;
    const size_t taps = (size_t)(c->kernel_h * c->kernel_w) * (size_t)c->in_c;
    const int32_t group = p->steps.stage.group, lanes = p->blocks.lanes;
    for (int32_t j = 0; j < group; j++) {
        const int32_t w = weight_of(&p->steps, k, j);
        for (int32_t o = 0; w >= 0 && o < n; o++) {
            const int8_t code = p->data->weight[(size_t)(first + o) * taps + (size_t)w];
            const int32_t at = o / lanes * lanes * group + o % lanes * group + j;
            const int16_t wide = code;
            if (p->way->stored_bits == 16)
                memcpy(out + 2 * at, &wide, sizeof wide);
            else
                out[at] = (uint8_t)code;
        }
    }
}

/* Block k at `out`, its list from `entry` on; returns the end, NULL when the list is longer than planned. */
static uint8_t *pack_block(const packer *p, int32_t k, int32_t *entry, uint8_t *out) {
    const nas__q_blocks *b = &p->blocks;
    const int32_t full = b->vectors * b->lanes, first = k * full;
    const int32_t n = min_i32(b->out_c - first, full);
    const int32_t vectors = k + 1 < b->count ? b->vectors : b->last_vectors;
    put_i32(p->block + p->lists.blocks_at + 4 * (size_t)k, out - p->block);
    put_i32(p->block + p->lists.starts + 4 * (size_t)k, *entry);
    out = pack_heads(p, first, n, vectors * b->lanes, out);
    for (int32_t i = 0; i < p->steps.count; i++) {
        if (!any_keeps(&p->steps, first, full, i)) continue;
        if (*entry == p->way->entries) return NULL;
        uint8_t *at = p->block + p->lists.indices;
        const uint16_t offset = (uint16_t)offset_of(&p->steps, i);
        if (p->lists.small)
            memcpy(at + 2 * (size_t)*entry, &offset, sizeof offset);
        else
            put_i32(at + 4 * (size_t)*entry, offset_of(&p->steps, i));
        ++*entry;
        put_product(p, first, n, i, out);
        out += nas__q_step_bytes(p->target, p->way, vectors);
    }
    return out;
}

bool nas__q_list_pack(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                      const nas__qconv_data *data, int32_t zero, uint8_t *block) {
    packer p = {.target = target, .way = way, .data = data, .zero = zero, .block = block};
    p.steps = steps_of(target, q, way);
    p.blocks = nas__q_block_of(target, &q->conv, way);
    p.lists = nas__q_lists_of(target, q, way);
    uint8_t *out = block + p.lists.blocks;
    int32_t entry = 0;
    for (int32_t k = 0; k < p.blocks.count && out != NULL; k++)
        out = pack_block(&p, k, &entry, out);
    put_i32(block + p.lists.starts + 4 * (size_t)p.blocks.count, entry);
    return out != NULL && entry == way->entries;
}
