/* layer_conv_code_avx512.c - the instructions of a mask with AVX-512 (layer_conv_code_x86.c).
 *
 * A multiply-add takes its weight from the stream to all lanes by itself, so a weight is one instruction of seven bytes for
 * a vector of pixels. 28 sums are as many outputs of that vector, which is loaded once for all that keep a step. */
#include "compiler/layer_conv_code_x86.h"

enum {
    VECTOR_BYTES = 64,
    VALUE_BYTES = 4,
    SUMS = 28,
    FIRST_INPUT = SUMS,
    INPUTS = 4,
    REACH = 128, /* a displacement of one byte, in whole operands */
    MAP_0F = 1,
    MAP_0F38 = 2,
    PREFIX_66 = 1
};

/* What an EVEX prefix says of an instruction of 512 bits; unit: bytes of its operand in memory, less than a vector where it
 * goes to all lanes. */
typedef struct instruction {
    uint8_t map, prefix, opcode;
    bool embedded; /* broadcast */
    int32_t unit;
} instruction;

/* reg, second (0 where there is none) and base + offset as operands. */
static void put(nas__x86_code *a, const instruction *in, int32_t reg, int32_t second, int32_t base,
                int32_t offset) {
    const bool near =
        offset % in->unit == 0 && offset / in->unit >= -REACH && offset / in->unit < REACH;
    const uint8_t bytes[] = {
        0x62,
        (uint8_t)((reg & 8 ? 0 : 0x80) | 0x60 | (reg & 16 ? 0 : 0x10) | in->map),
        (uint8_t)((~second & 15) << 3 | 4 | in->prefix),
        (uint8_t)(0x40 | (in->embedded ? 0x10 : 0) | (second & 16 ? 0 : 8)),
        in->opcode,
        (uint8_t)((near ? 0x40 : 0x80) | (reg & 7) << 3 | base),
        (uint8_t)(offset / in->unit)};
    nas__x86_put(a, bytes, near ? sizeof bytes : sizeof bytes - 1);
    if (!near) nas__x86_put_i32(a, offset);
}

/* vmovups */
static void put_move(nas__x86_code *a, bool store, int32_t reg, int32_t base, int32_t offset) {
    const instruction in = {MAP_0F, 0, store ? 0x11 : 0x10, false, VECTOR_BYTES};
    put(a, &in, reg, 0, base, offset);
}

/* vbroadcastss */
static void put_value(nas__x86_code *a, int32_t reg, int32_t offset) {
    static const instruction in = {MAP_0F38, PREFIX_66, 0x18, false, VALUE_BYTES};
    put(a, &in, reg, 0, NAS__X86_WEIGHTS, offset);
}

/* vfmadd231ps: sum += input * value of the stream */
static void put_product(nas__x86_code *a, int32_t sum, int32_t input, int32_t offset) {
    static const instruction in = {MAP_0F38, PREFIX_66, 0xB8, true, VALUE_BYTES};
    put(a, &in, sum, input, NAS__X86_WEIGHTS, offset);
}

static void put_step(nas__x86_code *a, const nas__x86_group *g, int32_t step, int32_t offset) {
    const int32_t input = FIRST_INPUT + step % INPUTS;
    bool loaded = false;
    for (int32_t o = 0; o < g->n; o++) {
        if (!nas__code_keeps(g->conv, g->first + o, step)) continue;
        if (!loaded) put_move(a, false, input, NAS__X86_PANEL, nas__x86_vector(a, offset));
        loaded = true;
        put_product(a, o, input, nas__x86_value(a));
        nas__x86_next_value(a);
    }
}

const nas__x86_isa nas__x86_avx512 = {.vector_bytes = VECTOR_BYTES,
                                      .block = 1,
                                      .value_reach = REACH * VALUE_BYTES,
                                      .vector_reach = REACH * VECTOR_BYTES,
                                      .put_move = put_move,
                                      .put_value = put_value,
                                      .put_step = put_step};
