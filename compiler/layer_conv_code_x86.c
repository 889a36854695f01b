/* layer_conv_code_x86.c - a mask as instructions for x86-64 (layer_conv_sparse_code.c): how it is cut into parts, groups of
 * outputs and passes over blocks of pixel vectors, and their frame. Displacements are one byte; the bases move on where they
 * no longer reach.
 *
 *     rdi panel [pass][step][vector of the block][lane], rsi stream, rdx sums [output][pixel], ecx part, r8d passes,
 *     r9 what the next tile needs, where it asks for that */
#include "compiler/layer_conv_code_x86.h"

enum {
    NEAR = 128, /* a displacement or an immediate of one byte: -128 to 127 */
    WORD_BYTES = 8,
    LINE = 64
};

void nas__x86_put(nas__x86_code *a, const uint8_t *bytes, size_t n) {
    nas_buf_append(&a->bytes, bytes, n);
}

void nas__x86_put_i32(nas__x86_code *a, int32_t value) {
    const uint32_t v = (uint32_t)value;
    const uint8_t bytes[] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    nas__x86_put(a, bytes, sizeof bytes);
}

/* add to a register of 64 bits */
static void put_add(nas__x86_code *a, int32_t reg, int32_t value) {
    const bool near = value >= -NEAR && value < NEAR;
    const uint8_t bytes[] = {0x48, near ? 0x83 : 0x81, (uint8_t)(0xC0 | reg), (uint8_t)value};
    if (value == 0) return;
    nas__x86_put(a, bytes, near ? 4 : 3);
    if (!near) nas__x86_put_i32(a, value);
}

int32_t nas__x86_value(nas__x86_code *a) {
    const int32_t reach = a->isa->value_reach;
    if (a->weight_at == reach) { /* rsi points into the middle of what it reaches */
        put_add(a, NAS__X86_WEIGHTS, 2 * reach);
        a->weight_at -= 2 * reach;
        a->advanced += 2 * reach;
    }
    return a->weight_at;
}

void nas__x86_next_value(nas__x86_code *a) {
    a->weight_at += 4;
    a->values++;
}

int32_t nas__x86_vector(nas__x86_code *a, int32_t offset) {
    const int32_t reach = a->isa->vector_reach, from = offset - a->panel_at;
    if (from < -reach || from >= reach) {
        put_add(a, NAS__X86_PANEL, from + reach);
        a->panel_at = offset + reach;
    }
    return offset - a->panel_at;
}

/* What the lines of a pass, spread over its steps, are at this one: prefetcht1 or prefetchw of [r9 + displacement]. */
static void put_asks(nas__x86_code *a, const nas__x86_group *g, int32_t step) {
    const int64_t n = g->to - g->from, lines = g->asks.lines;
    const bool write = g->asks.what == NAS__ASKS_OUTPUTS;
    const uint8_t bytes[] = {0x41, 0x0F, write ? 0x0D : 0x18, write ? 0x89 : 0x91};
    if (g->asks.what == NAS__ASKS_NONE) return;
    for (int64_t k = lines * step / n; k < lines * (step + 1) / n; k++) {
        nas__x86_put(a, bytes, sizeof bytes);
        nas__x86_put_i32(a, (int32_t)k * LINE);
    }
}

/* add r9: to what the next pass asks for */
static void put_next_asks(nas__x86_code *a, const nas__code_asks *asks) {
    static const uint8_t add[] = {0x49, 0x81, 0xC1};
    if (asks->what == NAS__ASKS_NONE) return;
    nas__x86_put(a, add, sizeof add);
    nas__x86_put_i32(a, asks->lines * LINE);
}

/* One pass, from the biases or the sums so far to the sums. */
static void put_pass(nas__x86_code *a, const nas__x86_group *g) {
    const nas__x86_isa *isa = a->isa;
    const int32_t block = isa->block, bytes = isa->vector_bytes;
    for (int32_t o = 0; o < g->n; o++) {
        for (int32_t v = 0; v < block; v++) {
            if (g->from == 0) /* a bias */
                isa->put_value(a, o * block + v, nas__x86_value(a));
            else
                isa->put_move(a, false, o * block + v, NAS__X86_SUMS,
                              (g->first + o) * g->row + v * bytes);
        }
        if (g->from == 0) nas__x86_next_value(a);
    }
    for (int32_t k = g->from; k < g->to; k++) {
        isa->put_step(a, g, k, (k - g->from) * block * bytes);
        put_asks(a, g, k - g->from);
    }
    for (int32_t o = 0; o < g->n; o++) {
        for (int32_t v = 0; v < block; v++)
            isa->put_move(a, true, o * block + v, NAS__X86_SUMS,
                          (g->first + o) * g->row + v * bytes);
    }
}

/* One group of outputs: the code above for each pass, with the same weights. column: bytes of a pass in the panel. */
static void put_group(nas__x86_code *a, const nas__x86_group *g, bool once, int32_t column) {
    static const uint8_t begin[] = {0x4C, 0x89, 0xDF, 0x4C, 0x89, 0xD2}; /* rdi = r11, rdx = r10 */
    static const uint8_t count[] = {0x44, 0x89, 0xC1};                   /* ecx = r8d */
    static const uint8_t again[] = {0xFF, 0xC9, 0x0F, 0x85};             /* dec ecx, jnz */
    nas__x86_put(a, begin, sizeof begin);
    if (!once) nas__x86_put(a, count, sizeof count);
    const size_t loop = a->bytes.len;
    a->advanced = 0;
    a->panel_at = 0;
    put_pass(a, g);
    put_next_asks(a, &g->asks);
    if (once) return;
    const int32_t advanced = a->advanced;
    put_add(a, NAS__X86_PANEL, column - a->panel_at);
    put_add(a, NAS__X86_SUMS, a->isa->block * a->isa->vector_bytes);
    put_add(a, NAS__X86_WEIGHTS, -advanced);
    nas__x86_put(a, again, sizeof again);
    nas__x86_put_i32(a, -(int32_t)(a->bytes.len + 4 - loop));
    put_add(a, NAS__X86_WEIGHTS, advanced);
}

/* All groups of the steps [from, to). */
static void put_part(nas__x86_code *a, const nas__conv *c, const nas__conv_way *way,
                     const nas__code_asks *asks, int32_t from, int32_t to, int32_t depth) {
    static const uint8_t enter[] = {0x49, 0x89, 0xFB, 0x49, 0x89, 0xD2}; /* r11 = rdi, r10 = rdx */
    static const uint8_t leave[] = {0xC5, 0xF8, 0x77, 0xC3};             /* vzeroupper; ret */
    nas__x86_put(a, enter, sizeof enter);
    put_add(a, NAS__X86_WEIGHTS, a->values * 4 + a->isa->value_reach);
    a->weight_at = -a->isa->value_reach;
    for (int32_t first = 0; first < c->out_c; first += way->group) {
        const nas__x86_group g = {.conv = c,
                                  .first = first,
                                  .n =
                                      c->out_c - first < way->group ? c->out_c - first : way->group,
                                  .from = from,
                                  .to = to,
                                  .asks = *asks,
                                  .row = way->vectors * a->isa->vector_bytes};
        put_group(a, &g, way->vectors == a->isa->block,
                  depth * a->isa->block * a->isa->vector_bytes);
    }
    nas__x86_put(a, leave, sizeof leave);
}

/* cmp ecx, part; jne: to where `patch` says later. Returns where the distance is. */
static size_t put_branch(nas__x86_code *a, int32_t part) {
    static const uint8_t compare[] = {0x81, 0xF9}, branch[] = {0x0F, 0x85};
    nas__x86_put(a, compare, sizeof compare);
    nas__x86_put_i32(a, part);
    nas__x86_put(a, branch, sizeof branch);
    nas__x86_put_i32(a, 0);
    return a->bytes.len - 4;
}

static void patch(nas__x86_code *a, size_t at) {
    const uint32_t distance = (uint32_t)(a->bytes.len - (at + 4));
    for (size_t i = 0; i < 4 && !a->bytes.failed; i++)
        a->bytes.data[at + i] = (char)(uint8_t)(distance >> (8 * i));
}

/* Parts one after another: each begins with a branch to the next one unless it is the one that is asked for. */
static void write_code(const nas__x86_isa *isa, const nas__conv *c, const nas__conv_way *way,
                       const nas__code_asks *asks, nas_buf *out) {
    static const uint8_t trap[] = {0xCC};
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    const int32_t depth = way->depth > 0 ? way->depth : steps;
    nas__x86_code a = {.isa = isa};
    for (int32_t from = 0; from < steps; from += depth) {
        const bool last = from + depth >= steps;
        const size_t branch = last ? 0 : put_branch(&a, from / depth);
        put_part(&a, c, way, asks, from, last ? steps : from + depth, depth);
        if (!last) patch(&a, branch);
    }
    while (a.bytes.len % WORD_BYTES != 0 && !a.bytes.failed)
        nas__x86_put(&a, trap, sizeof trap);
    *out = a.bytes;
}

static void write_avx2(const nas__conv *c, const nas__conv_way *way, const nas__code_asks *asks,
                       nas_buf *out) {
    write_code(&nas__x86_avx2, c, way, asks, out);
}

static void write_avx512(const nas__conv *c, const nas__conv_way *way, const nas__code_asks *asks,
                         nas_buf *out) {
    write_code(&nas__x86_avx512, c, way, asks, out);
}

const nas__code_writer nas__code_avx2 = {.arch = "x86-64",
                                         .vector_bytes = 32,
                                         .sums = 12,
                                         .block = 3,
                                         .round = 1,
                                         .parts = true,
                                         .asks = true,
                                         .weight_bytes = 28,
                                         .weights_max = 60000,
                                         .word_bytes = WORD_BYTES,
                                         .directive = ".quad",
                                         .write = write_avx2};

const nas__code_writer nas__code_avx512 = {.arch = "x86-64",
                                           .vector_bytes = 64,
                                           .sums = 28,
                                           .block = 1,
                                           .round = 1,
                                           .parts = true,
                                           .asks = true,
                                           .weight_bytes = 11,
                                           .weights_max = 160000,
                                           .word_bytes = WORD_BYTES,
                                           .directive = ".quad",
                                           .write = write_avx512};
