/* layer_conv_sparse_code.c - unstructured zeros as instructions: a small assembler for x86-64 with AVX2 and FMA.
 *
 * Where no outputs share what they keep, a list costs a load and a branch that is often mispredicted for few products. Here
 * the mask is the program: for twelve outputs and one vector of pixels, each step of the sum that one of them keeps loads
 * its vector, each weight is one broadcast from a stream in order and one multiply-add. No branches, no indices. The code
 * of a group runs for the vectors of a panel one after another, while it is in the cache of decoded instructions: read once
 * for more pixels at a time it would wait for itself. A C compiler takes minutes for such text, so machine code is written
 * as numbers (.quad) in an assembler block of the unit: it lies in the read-only executable section of the program as
 * everything else does.
 *
 *     rdi panel [step][56 pixels], rsi weights (the biases of a group, then its weights), rdx sums [output][56 pixels] */
#include "compiler/layer_conv_internal.h"

#include <string.h>

enum {
    VECTORS = NAS__CODE_VECTORS,
    GROUP = NAS__CODE_GROUP,
    VECTOR_BYTES = 32,
    INPUT_REGISTER = 12,
    WEIGHT_REGISTER = 13,
    BASE_PANEL = 7, /* rdi */
    BASE_WEIGHTS = 6,
    BASE_SUMS = 2,
    WEIGHT_ADVANCE = 256, /* bytes between steps of rsi, which points into their middle */
    WEIGHT_BIAS = 128
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

static bool keeps(const nas__conv *c, int32_t output, int32_t step, int32_t steps) {
    return output < c->out_c && c->kept[(size_t)output * (size_t)steps + (size_t)step] != 0;
}

/* One vector of pixels of one group, from the biases to the sums. */
static void put_vector(assembler *a, const nas__conv *c, int32_t first) {
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c, row = VECTORS * VECTOR_BYTES;
    for (int32_t o = 0; o < GROUP && first + o < c->out_c; o++)
        put_weight(a, o);
    for (int32_t k = 0; k < steps; k++) {
        bool loaded = false;
        for (int32_t o = 0; o < GROUP; o++) {
            if (!keeps(c, first + o, k, steps)) continue;
            if (!loaded) put_move(a, 0x10, INPUT_REGISTER, BASE_PANEL, k * row);
            loaded = true;
            put_weight(a, WEIGHT_REGISTER);
            put_product(a, o, WEIGHT_REGISTER, INPUT_REGISTER);
        }
    }
    for (int32_t o = 0; o < GROUP && first + o < c->out_c; o++)
        put_move(a, 0x11, o, BASE_SUMS, (first + o) * row);
}

/* One group of outputs: the code above for each vector, with the same weights. */
static void put_group(assembler *a, const nas__conv *c, int32_t first) {
    static const uint8_t count[] = {0xB9},
                         again[] = {0xFF, 0xC9, 0x0F, 0x85}; /* mov ecx; dec ecx, jnz */
    put(a, count, sizeof count);
    put_i32(a, VECTORS);
    const size_t loop = a->code.len;
    a->advanced = 0;
    put_vector(a, c, first);
    const int32_t advanced = a->advanced;
    put_add(a, 0xC7, VECTOR_BYTES);
    put_add(a, 0xC2, VECTOR_BYTES);
    put_add(a, 0xC6, -advanced);
    put(a, again, sizeof again);
    put_i32(a, -(int32_t)(a->code.len + 4 - loop));
    put_add(a, 0xC7, -VECTORS * VECTOR_BYTES);
    put_add(a, 0xC2, -VECTORS * VECTOR_BYTES);
    put_add(a, 0xC6, advanced);
}

/* Eight bytes as one number; a printf for each would take most of the time. */
static void put_word(const char *bytes, nas_buf *out) {
    static const char digits[] = "0123456789abcdef";
    char text[18] = "0x";
    for (int k = 0; k < 8; k++) {
        const uint8_t byte = (uint8_t)bytes[7 - k];
        text[2 + 2 * k] = digits[byte >> 4];
        text[3 + 2 * k] = digits[byte & 15];
    }
    nas_buf_append(out, text, sizeof text);
}

void nas__sparse_emit_code(const nas__conv *c, const char *name, nas_buf *out) {
    static const uint8_t enter[] = {0x48, 0x83, 0xEE, 0x80}; /* sub rsi, -128 */
    static const uint8_t leave[] = {0xC5, 0xF8, 0x77, 0xC3}; /* vzeroupper; ret */
    enum { WORD = 8, WORDS_LINE = 8 };
    assembler a = {.weight_at = -WEIGHT_BIAS};
    put(&a, enter, sizeof enter);
    for (int32_t first = 0; first < c->out_c; first += GROUP)
        put_group(&a, c, first);
    put(&a, leave, sizeof leave);
    while (a.code.len % WORD != 0 && !a.code.failed)
        put(&a, (const uint8_t[]){0xCC}, 1);
    if (a.code.failed) out->failed = true;
    nas_buf_printf(out,
                   "/* the mask as instructions */\n"
                   "extern void %s_code(const float *panel, const float *weights, float *sums) "
                   "__asm__(\"%s_code\");\n"
                   "__asm__(\".pushsection .text\\n.p2align 5\\n.type %s_code, "
                   "@function\\n%s_code:\\n\"",
                   name, name, name, name);
    for (size_t i = 0; i < a.code.len; i += WORD) {
        const size_t at = i / WORD % WORDS_LINE;
        nas_buf_puts(out, at == 0 ? "\n    \".quad " : ",");
        put_word(a.code.data + i, out);
        if (at + 1 == WORDS_LINE || i + WORD >= a.code.len) nas_buf_puts(out, "\\n\"");
    }
    nas_buf_printf(out, "\n    \".size %s_code, . - %s_code\\n.popsection\\n\");\n", name, name);
    nas_buf_deinit(&a.code);
}

int32_t nas__sparse_code_weights(const nas__conv *c, const nas__conv_way *way) {
    return way->entries + c->out_c;
}

bool nas__sparse_code_pack(const nas__conv *c, const nas__conv_way *way, const float *weight,
                           const float *bias, float *out) {
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    const float *const begin = out;
    for (int32_t first = 0; first < c->out_c; first += GROUP) {
        for (int32_t o = first; o < first + GROUP && o < c->out_c; o++)
            *out++ = bias != NULL ? bias[o] : 0;
        for (int32_t k = 0; k < steps; k++) {
            for (int32_t o = first; o < first + GROUP; o++) {
                if (!keeps(c, o, k, steps)) continue;
                if (out - begin == nas__sparse_code_weights(c, way)) return false;
                *out++ = weight[(size_t)o * (size_t)steps + (size_t)k];
            }
        }
    }
    return out - begin == nas__sparse_code_weights(c, way);
}
