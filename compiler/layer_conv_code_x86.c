/* layer_conv_code_x86.c - a mask as instructions for x86-64 with AVX2 and FMA (layer_conv_sparse_code.c).
 *
 * At most twelve sums in registers, one input vector, one weight: a weight is a broadcast from the stream and a
 * multiply-add.
 *
 *     rdi panel [vector][step][8 pixels], rsi stream, rdx sums [output][pixel] */
#include "compiler/layer_conv_internal.h"

enum {
    VECTOR_BYTES = 32,
    INPUT_REGISTER = 12,
    WEIGHT_REGISTER = 13,
    BASE_PANEL = 7, /* rdi */
    BASE_WEIGHTS = 6,
    BASE_SUMS = 2,
    WEIGHT_ADVANCE = 256, /* bytes between steps of rsi, which points into their middle */
    WEIGHT_BIAS = 128,
    GROUP = 12
};

/* Machine code, and how far the weights have been read. */
typedef struct assembler {
    nas_buf code;
    int32_t weight_at; /* of the next weight, from where rsi points */
    int32_t advanced;  /* of rsi, since the code of this group began */
} assembler;

static void put(assembler *a, const uint8_t *bytes, size_t n) {
    nas_buf_append(&a->code, bytes, n);
}

static void put_i32(assembler *a, int32_t value) {
    const uint32_t v = (uint32_t)value;
    const uint8_t bytes[] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    put(a, bytes, sizeof bytes);
}

/* add to a register; 0xC7 rdi, 0xC6 rsi, 0xC2 rdx */
static void put_add(assembler *a, uint8_t reg, int32_t value) {
    const uint8_t bytes[] = {0x48, 0x81, reg};
    put(a, bytes, sizeof bytes);
    put_i32(a, value);
}

/* vmovups between a register and base + displacement; opcode 0x10 loads, 0x11 stores. */
static void put_move(assembler *a, uint8_t opcode, int32_t reg, int32_t base, int32_t offset) {
    const uint8_t bytes[] = {0xC5, reg < 8 ? 0xFC : 0x7C, opcode,
                             (uint8_t)(0x80 | (reg & 7) << 3 | base)};
    put(a, bytes, sizeof bytes);
    put_i32(a, offset);
}

/* vbroadcastss of the next weight. */
static void put_weight(assembler *a, int32_t reg) {
    if (a->weight_at == WEIGHT_BIAS) { /* add rsi, 256: displacements stay one byte */
        put_add(a, 0xC6, WEIGHT_ADVANCE);
        a->weight_at -= WEIGHT_ADVANCE;
        a->advanced += WEIGHT_ADVANCE;
    }
    const uint8_t bytes[] = {0xC4,
                             reg < 8 ? 0xE2 : 0x62,
                             0x7D,
                             0x18,
                             (uint8_t)(0x40 | (reg & 7) << 3 | BASE_WEIGHTS),
                             (uint8_t)(int8_t)a->weight_at};
    put(a, bytes, sizeof bytes);
    a->weight_at += 4;
}

/* vfmadd231ps acc, weight, input: acc += weight * input */
static void put_product(assembler *a, int32_t acc, int32_t weight, int32_t input) {
    const uint8_t prefix = (uint8_t)((acc < 8 ? 0x80 : 0) | 0x40 | (input < 8 ? 0x20 : 0) | 0x02);
    const uint8_t bytes[] = {0xC4, prefix, (uint8_t)((~weight & 15) << 3 | 0x05), 0xB8,
                             (uint8_t)(0xC0 | (acc & 7) << 3 | (input & 7))};
    put(a, bytes, sizeof bytes);
}

/* One vector of pixels of one group, from the biases to the sums; `row`: bytes from output to output. */
static void put_vector(assembler *a, const nas__conv *c, int32_t first, int32_t n, int32_t row) {
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    for (int32_t o = 0; o < n; o++)
        put_weight(a, o);
    for (int32_t k = 0; k < steps; k++) {
        bool loaded = false;
        for (int32_t o = 0; o < n; o++) {
            if (!nas__code_keeps(c, first + o, k)) continue;
            if (!loaded) put_move(a, 0x10, INPUT_REGISTER, BASE_PANEL, k * VECTOR_BYTES);
            loaded = true;
            put_weight(a, WEIGHT_REGISTER);
            put_product(a, o, WEIGHT_REGISTER, INPUT_REGISTER);
        }
    }
    for (int32_t o = 0; o < n; o++)
        put_move(a, 0x11, o, BASE_SUMS, (first + o) * row);
}

/* One group of outputs: the code above for each vector, with the same weights. */
static void put_group(assembler *a, const nas__conv *c, const nas__conv_way *way, int32_t first) {
    static const uint8_t count[] = {0xB9},
                         again[] = {0xFF, 0xC9, 0x0F, 0x85}; /* mov ecx; dec ecx, jnz */
    const int32_t vectors = way->vectors, row = vectors * VECTOR_BYTES;
    const int32_t column = c->kernel_h * c->kernel_w * c->in_c * VECTOR_BYTES;
    const int32_t n = c->out_c - first < way->group ? c->out_c - first : way->group;
    put(a, count, sizeof count);
    put_i32(a, vectors);
    const size_t loop = a->code.len;
    a->advanced = 0;
    put_vector(a, c, first, n, row);
    const int32_t advanced = a->advanced;
    put_add(a, 0xC7, column);
    put_add(a, 0xC2, VECTOR_BYTES);
    put_add(a, 0xC6, -advanced);
    put(a, again, sizeof again);
    put_i32(a, -(int32_t)(a->code.len + 4 - loop));
    put_add(a, 0xC7, -vectors * column);
    put_add(a, 0xC2, -row);
    put_add(a, 0xC6, advanced);
}

static void write_code(const nas__conv *c, const nas__conv_way *way, nas_buf *out) {
    static const uint8_t enter[] = {0x48, 0x83, 0xEE, 0x80}; /* sub rsi, -128 */
    static const uint8_t leave[] = {0xC5, 0xF8, 0x77, 0xC3}; /* vzeroupper; ret */
    static const uint8_t trap[] = {0xCC};
    assembler a = {.weight_at = -WEIGHT_BIAS};
    put(&a, enter, sizeof enter);
    for (int32_t first = 0; first < c->out_c; first += way->group)
        put_group(&a, c, way, first);
    put(&a, leave, sizeof leave);
    while (a.code.len % (size_t)nas__code_x86.word_bytes != 0 && !a.code.failed)
        put(&a, trap, sizeof trap);
    *out = a.code;
}

const nas__code_writer nas__code_x86 = {.arch = "x86-64",
                                        .vector_bytes = VECTOR_BYTES,
                                        .group = GROUP,
                                        .round = 1,
                                        .word_bytes = 8,
                                        .directive = ".quad",
                                        .write = write_code};
