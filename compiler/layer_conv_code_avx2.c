/* layer_conv_code_avx2.c - the instructions of a mask with AVX2 and FMA (layer_conv_code_x86.c).
 *
 * Twelve sums in registers: four outputs x a block of three pixel vectors, so that a weight is broadcast once for the block
 * and its vectors are loaded once for the outputs that keep a step, or not at all where one output alone does: its
 * multiply-adds read them. With two loads and two multiply-adds a cycle both are near their bound then. */
#include "compiler/layer_conv_code_x86.h"

#include <string.h>

enum {
    VECTOR_BYTES = 32,
    SUMS = 12,
    BLOCK = 3,          /* vectors of pixels */
    FIRST_INPUT = SUMS, /* to SUMS + BLOCK - 1 */
    WEIGHT_REGISTER = 15,
    REACH = 128 /* a displacement of one byte: -128 to 127 */
};

/* An instruction: `n` bytes of it, then its register and base + offset. */
static void put_at(nas__x86_code *a, const uint8_t *begin, size_t n, int32_t reg, int32_t base,
                   int32_t offset) {
    const bool near = offset >= -REACH && offset < REACH;
    uint8_t bytes[8];
    memcpy(bytes, begin, n);
    bytes[n] = (uint8_t)((near ? 0x40 : 0x80) | (reg & 7) << 3 | base);
    bytes[n + 1] = (uint8_t)offset;
    nas__x86_put(a, bytes, near ? n + 2 : n + 1);
    if (!near) nas__x86_put_i32(a, offset);
}

/* vmovups between a register and base + offset */
static void put_move(nas__x86_code *a, bool store, int32_t reg, int32_t base, int32_t offset) {
    const uint8_t bytes[] = {0xC5, reg < 8 ? 0xFC : 0x7C, store ? 0x11 : 0x10};
    put_at(a, bytes, sizeof bytes, reg, base, offset);
}

/* vbroadcastss of a value of the stream */
static void put_value(nas__x86_code *a, int32_t reg, int32_t offset) {
    const uint8_t bytes[] = {0xC4, reg < 8 ? 0xE2 : 0x62, 0x7D, 0x18};
    put_at(a, bytes, sizeof bytes, reg, NAS__X86_WEIGHTS, offset);
}

/* vfmadd231ps sum, weight, input: sum += weight * input */
static void put_product(nas__x86_code *a, int32_t sum, int32_t weight, int32_t input) {
    const uint8_t prefix = (uint8_t)((sum < 8 ? 0x80 : 0) | 0x40 | (input < 8 ? 0x20 : 0) | 0x02);
    const uint8_t bytes[] = {0xC4, prefix, (uint8_t)((~weight & 15) << 3 | 0x05), 0xB8,
                             (uint8_t)(0xC0 | (sum & 7) << 3 | (input & 7))};
    nas__x86_put(a, bytes, sizeof bytes);
}

/* The same with a vector of the panel. */
static void put_memory_product(nas__x86_code *a, int32_t sum, int32_t weight, int32_t offset) {
    const int32_t from = nas__x86_vector(a, offset);
    const uint8_t bytes[] = {0xC4, (uint8_t)((sum < 8 ? 0x80 : 0) | 0x62),
                             (uint8_t)((~weight & 15) << 3 | 0x05), 0xB8};
    put_at(a, bytes, sizeof bytes, sum, NAS__X86_PANEL, from);
}

/* One step of the sum. */
static void put_step(nas__x86_code *a, const nas__x86_group *g, int32_t step, int32_t offset) {
    int32_t keeps = 0;
    for (int32_t o = 0; o < g->n; o++)
        keeps += nas__code_keeps(g->conv, g->first + o, step);
    for (int32_t v = 0; v < BLOCK && keeps > 1; v++)
        put_move(a, false, FIRST_INPUT + v, NAS__X86_PANEL,
                 nas__x86_vector(a, offset + v * VECTOR_BYTES));
    for (int32_t o = 0; o < g->n; o++) {
        if (!nas__code_keeps(g->conv, g->first + o, step)) continue;
        put_value(a, WEIGHT_REGISTER, nas__x86_value(a));
        nas__x86_next_value(a);
        for (int32_t v = 0; v < BLOCK; v++) {
            if (keeps > 1)
                put_product(a, o * BLOCK + v, WEIGHT_REGISTER, FIRST_INPUT + v);
            else
                put_memory_product(a, o * BLOCK + v, WEIGHT_REGISTER, offset + v * VECTOR_BYTES);
        }
    }
}

const nas__x86_isa nas__x86_avx2 = {.vector_bytes = VECTOR_BYTES,
                                    .block = BLOCK,
                                    .value_reach = REACH,
                                    .vector_reach = REACH,
                                    .put_move = put_move,
                                    .put_value = put_value,
                                    .put_step = put_step};
