/* layer_conv_code_x86.c - a mask as instructions for x86-64 with AVX2 and FMA (layer_conv_sparse_code.c).
 *
 * Twelve sums in registers: four outputs x a block of three pixel vectors, so that a weight is broadcast once for the block
 * and its vectors are loaded once for the outputs that keep a step, or not at all where one output alone does: its
 * multiply-adds read them. With two loads and two multiply-adds a cycle both are near their bound then. Displacements are
 * one byte; the bases move on where they no longer reach.
 *
 *     rdi panel [pass][step][vector of the block][8 pixels], rsi stream, rdx sums [output][pixel], ecx part, r8d passes */
#include "compiler/layer_conv_internal.h"

#include <string.h>

enum {
    VECTOR_BYTES = 32,
    SUMS = 12,
    BLOCK = 3,          /* vectors of pixels */
    FIRST_INPUT = SUMS, /* to SUMS + BLOCK - 1 */
    WEIGHT_REGISTER = 15,
    BASE_SUMS = 2, /* rdx */
    BASE_WEIGHTS = 6,
    BASE_PANEL = 7,
    REACH = 128,         /* a displacement of one byte: -128 to 127 */
    WEIGHT_ADVANCE = 256 /* bytes between steps of rsi, which points into their middle */
};

/* Machine code, and where its bases point. */
typedef struct assembler {
    nas_buf code;
    int32_t weight_at; /* of the next weight, from where rsi points */
    int32_t advanced;  /* of rsi, since the code of this group began */
    int32_t panel_at; /* bytes from the begin of this pass' part of the panel to where rdi points */
    int32_t values;   /* of the stream, all so far */
} assembler;

static void put(assembler *a, const uint8_t *bytes, size_t n) {
    nas_buf_append(&a->code, bytes, n);
}

static void put_i32(assembler *a, int32_t value) {
    const uint32_t v = (uint32_t)value;
    const uint8_t bytes[] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    put(a, bytes, sizeof bytes);
}

static bool reaches(int32_t offset) {
    return offset >= -REACH && offset < REACH;
}

/* add to a register of 64 bits */
static void put_add(assembler *a, int32_t reg, int32_t value) {
    const uint8_t bytes[] = {0x48, reaches(value) ? 0x83 : 0x81, (uint8_t)(0xC0 | reg),
                             (uint8_t)value};
    if (value == 0) return;
    put(a, bytes, reaches(value) ? 4 : 3);
    if (!reaches(value)) put_i32(a, value);
}

/* An instruction: `n` bytes of it, then its register and base + offset. */
static void put_at(assembler *a, const uint8_t *begin, size_t n, int32_t reg, int32_t base,
                   int32_t offset) {
    const bool near = reaches(offset);
    uint8_t bytes[8];
    memcpy(bytes, begin, n);
    bytes[n] = (uint8_t)((near ? 0x40 : 0x80) | (reg & 7) << 3 | base);
    bytes[n + 1] = (uint8_t)offset;
    put(a, bytes, near ? n + 2 : n + 1);
    if (!near) put_i32(a, offset);
}

/* vmovups between a register and base + offset; opcode 0x10 loads, 0x11 stores. */
static void put_move(assembler *a, uint8_t opcode, int32_t reg, int32_t base, int32_t offset) {
    const uint8_t bytes[] = {0xC5, reg < 8 ? 0xFC : 0x7C, opcode};
    put_at(a, bytes, sizeof bytes, reg, base, offset);
}

/* vbroadcastss of the value of the stream that is next; it stays next. */
static void put_value(assembler *a, int32_t reg) {
    if (a->weight_at == REACH) {
        put_add(a, BASE_WEIGHTS, WEIGHT_ADVANCE);
        a->weight_at -= WEIGHT_ADVANCE;
        a->advanced += WEIGHT_ADVANCE;
    }
    const uint8_t bytes[] = {0xC4, reg < 8 ? 0xE2 : 0x62, 0x7D, 0x18};
    put_at(a, bytes, sizeof bytes, reg, BASE_WEIGHTS, a->weight_at);
}

static void next_value(assembler *a) {
    a->weight_at += 4;
    a->values++;
}

static void put_weight(assembler *a, int32_t reg) {
    put_value(a, reg);
    next_value(a);
}

/* The offset of a vector of the panel from where rdi points, which moves on when it has to. */
static int32_t in_reach(assembler *a, int32_t offset) {
    if (!reaches(offset - a->panel_at)) {
        put_add(a, BASE_PANEL, offset + REACH - a->panel_at);
        a->panel_at = offset + REACH;
    }
    return offset - a->panel_at;
}

static void put_input(assembler *a, int32_t reg, int32_t offset) {
    const int32_t from = in_reach(a, offset);
    put_move(a, 0x10, reg, BASE_PANEL, from);
}

/* vfmadd231ps sum, weight, input: sum += weight * input */
static void put_product(assembler *a, int32_t sum, int32_t weight, int32_t input) {
    const uint8_t prefix = (uint8_t)((sum < 8 ? 0x80 : 0) | 0x40 | (input < 8 ? 0x20 : 0) | 0x02);
    const uint8_t bytes[] = {0xC4, prefix, (uint8_t)((~weight & 15) << 3 | 0x05), 0xB8,
                             (uint8_t)(0xC0 | (sum & 7) << 3 | (input & 7))};
    put(a, bytes, sizeof bytes);
}

/* The same with a vector of the panel. */
static void put_memory_product(assembler *a, int32_t sum, int32_t weight, int32_t offset) {
    const int32_t from = in_reach(a, offset);
    const uint8_t bytes[] = {0xC4, (uint8_t)((sum < 8 ? 0x80 : 0) | 0x62),
                             (uint8_t)((~weight & 15) << 3 | 0x05), 0xB8};
    put_at(a, bytes, sizeof bytes, sum, BASE_PANEL, from);
}

/* Outputs [first, first + n) of one part of the sum for one block of vectors. */
typedef struct group {
    const nas__conv *conv;
    int32_t first, n;
    int32_t from, to; /* steps */
    int32_t row;      /* bytes from output to output of the sums */
} group;

/* One step; `offset`: its vectors in the panel. */
static void put_step(assembler *a, const group *g, int32_t step, int32_t offset) {
    int32_t keeps = 0;
    for (int32_t o = 0; o < g->n; o++)
        keeps += nas__code_keeps(g->conv, g->first + o, step);
    for (int32_t v = 0; v < BLOCK && keeps > 1; v++)
        put_input(a, FIRST_INPUT + v, offset + v * VECTOR_BYTES);
    for (int32_t o = 0; o < g->n; o++) {
        if (!nas__code_keeps(g->conv, g->first + o, step)) continue;
        put_weight(a, WEIGHT_REGISTER);
        for (int32_t v = 0; v < BLOCK; v++) {
            if (keeps > 1)
                put_product(a, o * BLOCK + v, WEIGHT_REGISTER, FIRST_INPUT + v);
            else
                put_memory_product(a, o * BLOCK + v, WEIGHT_REGISTER, offset + v * VECTOR_BYTES);
        }
    }
}

/* One pass, from the biases or the sums so far to the sums. */
static void put_pass(assembler *a, const group *g) {
    for (int32_t o = 0; o < g->n; o++) {
        for (int32_t v = 0; v < BLOCK; v++) {
            if (g->from == 0)
                put_value(a, o * BLOCK + v); /* a bias */
            else
                put_move(a, 0x10, o * BLOCK + v, BASE_SUMS,
                         (g->first + o) * g->row + v * VECTOR_BYTES);
        }
        if (g->from == 0) next_value(a);
    }
    for (int32_t k = g->from; k < g->to; k++)
        put_step(a, g, k, (k - g->from) * BLOCK * VECTOR_BYTES);
    for (int32_t o = 0; o < g->n; o++) {
        for (int32_t v = 0; v < BLOCK; v++)
            put_move(a, 0x11, o * BLOCK + v, BASE_SUMS, (g->first + o) * g->row + v * VECTOR_BYTES);
    }
}

/* One group of outputs: the code above for each pass, with the same weights. column: bytes of a pass in the panel. */
static void put_group(assembler *a, const group *g, bool once, int32_t column) {
    static const uint8_t begin[] = {0x4C, 0x89, 0xCF, 0x4C, 0x89, 0xD2}; /* rdi = r9, rdx = r10 */
    static const uint8_t count[] = {0x44, 0x89, 0xC1};                   /* ecx = r8d */
    static const uint8_t again[] = {0xFF, 0xC9, 0x0F, 0x85};             /* dec ecx, jnz */
    put(a, begin, sizeof begin);
    if (!once) put(a, count, sizeof count);
    const size_t loop = a->code.len;
    a->advanced = 0;
    a->panel_at = 0;
    put_pass(a, g);
    if (once) return;
    const int32_t advanced = a->advanced;
    put_add(a, BASE_PANEL, column - a->panel_at);
    put_add(a, BASE_SUMS, BLOCK * VECTOR_BYTES);
    put_add(a, BASE_WEIGHTS, -advanced);
    put(a, again, sizeof again);
    put_i32(a, -(int32_t)(a->code.len + 4 - loop));
    put_add(a, BASE_WEIGHTS, advanced);
}

/* All groups of the steps [from, to). */
static void put_part(assembler *a, const nas__conv *c, const nas__conv_way *way, int32_t from,
                     int32_t to, int32_t depth) {
    static const uint8_t enter[] = {0x49, 0x89, 0xF9, 0x49, 0x89, 0xD2}; /* r9 = rdi, r10 = rdx */
    static const uint8_t leave[] = {0xC5, 0xF8, 0x77, 0xC3};             /* vzeroupper; ret */
    put(a, enter, sizeof enter);
    put_add(a, BASE_WEIGHTS, a->values * 4 + REACH);
    a->weight_at = -REACH;
    for (int32_t first = 0; first < c->out_c; first += way->group) {
        const group g = {.conv = c,
                         .first = first,
                         .n = c->out_c - first < way->group ? c->out_c - first : way->group,
                         .from = from,
                         .to = to,
                         .row = way->vectors * VECTOR_BYTES};
        put_group(a, &g, way->vectors == BLOCK, depth * BLOCK * VECTOR_BYTES);
    }
    put(a, leave, sizeof leave);
}

/* cmp ecx, part; jne: to where `patch` says later. Returns where the distance is. */
static size_t put_branch(assembler *a, int32_t part) {
    static const uint8_t compare[] = {0x81, 0xF9}, branch[] = {0x0F, 0x85};
    put(a, compare, sizeof compare);
    put_i32(a, part);
    put(a, branch, sizeof branch);
    put_i32(a, 0);
    return a->code.len - 4;
}

static void patch(assembler *a, size_t at) {
    const uint32_t distance = (uint32_t)(a->code.len - (at + 4));
    for (size_t i = 0; i < 4 && !a->code.failed; i++)
        a->code.data[at + i] = (char)(uint8_t)(distance >> (8 * i));
}

/* Parts one after another: each begins with a branch to the next one unless it is the one that is asked for. */
static void write_code(const nas__conv *c, const nas__conv_way *way, nas_buf *out) {
    static const uint8_t trap[] = {0xCC};
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    const int32_t depth = way->depth > 0 ? way->depth : steps;
    assembler a = {0};
    for (int32_t from = 0; from < steps; from += depth) {
        const bool last = from + depth >= steps;
        const size_t branch = last ? 0 : put_branch(&a, from / depth);
        put_part(&a, c, way, from, last ? steps : from + depth, depth);
        if (!last) patch(&a, branch);
    }
    while (a.code.len % (size_t)nas__code_x86.word_bytes != 0 && !a.code.failed)
        put(&a, trap, sizeof trap);
    *out = a.code;
}

const nas__code_writer nas__code_x86 = {.arch = "x86-64",
                                        .vector_bytes = VECTOR_BYTES,
                                        .sums = SUMS,
                                        .block = BLOCK,
                                        .round = 1,
                                        .word_bytes = 8,
                                        .directive = ".quad",
                                        .write = write_code};
