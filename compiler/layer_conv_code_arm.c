/* layer_conv_code_arm.c - a mask as instructions for 64-bit Arm (layer_conv_sparse_code.c).
 *
 * At most 24 sums in registers, the input vectors of four steps, sixteen values of the stream: a weight is one multiply-add
 * by an element of a vector, and a quarter of a load. A load of one value to all lanes (ld1r) is an instruction more for
 * each weight and takes the multiply-add's port on Neoverse N1: half of the speed by llvm-mca. Loads are written in pairs
 * as soon as both registers are free, steps ahead of their use, for cores that run in order.
 *
 *     x0 panel [vector][step][4 pixels], x1 stream, x2 sums [output][pixel]; w3 counts: there are no parts of the sum */
#include "compiler/layer_conv_internal.h"

enum {
    VECTOR_BYTES = 16,
    GROUP = 24,
    INPUTS = 4, /* registers 24 to 27: steps that are loaded */
    VALUES = 4, /* registers 28 to 31: four values each */
    FIRST_INPUT = GROUP,
    FIRST_VALUES = FIRST_INPUT + INPUTS,
    PAIR = 2,
    X_PANEL = 0,
    X_STREAM = 1,
    X_SUMS = 2,
    OFFSET_MAX = 4095 * VECTOR_BYTES,
    ADVANCE = 15 * 4096 /* of a base that offsets no longer reach: one instruction */
};

typedef struct assembler {
    nas_buf code;
    int32_t moved[3]; /* bytes by which x0, x1, x2 point beyond where the vector of pixels began */
} assembler;

/* What is left to load of one group, for one vector of pixels. */
typedef struct loads {
    const nas__conv *conv;
    int32_t first, n;        /* outputs */
    int32_t step, inputs;    /* the next step that may be kept; kept ones loaded so far */
    int32_t quads, quads_at; /* of the stream; loaded so far */
} loads;

static void put(assembler *a, uint32_t word) {
    const uint8_t bytes[] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16),
                             (uint8_t)(word >> 24)};
    nas_buf_append(&a->code, bytes, sizeof bytes);
}

/* add or sub of an immediate, in one instruction or two */
static void put_add(assembler *a, int32_t x, int32_t value) {
    const uint32_t add = value < 0 ? 0xD1000000u : 0x91000000u, reg = (uint32_t)(x << 5 | x);
    const uint32_t size = (uint32_t)(value < 0 ? -value : value);
    if (size >> 12 != 0) put(a, add | 1u << 22 | (size >> 12) << 10 | reg);
    if ((size & 4095) != 0) put(a, add | (size & 4095) << 10 | reg);
}

static void advance(assembler *a, int32_t x, int32_t by) {
    put_add(a, x, by);
    a->moved[x] += by;
}

/* ldr or str of a whole register at base + offset */
static void put_move(assembler *a, bool store, int32_t reg, int32_t x, int32_t offset) {
    while (offset - a->moved[x] > OFFSET_MAX)
        advance(a, x, ADVANCE);
    const uint32_t unit = (uint32_t)((offset - a->moved[x]) / VECTOR_BYTES);
    put(a, (store ? 0x3D800000u : 0x3DC00000u) | unit << 10 | (uint32_t)(x << 5 | reg));
}

/* fmla sum.4s, input.4s, values.s[element] */
static void put_product(assembler *a, int32_t sum, int32_t input, int32_t value) {
    const int32_t reg = FIRST_VALUES + value / 4 % VALUES, element = value % 4;
    put(a, 0x4F801000u | (uint32_t)((element & 1) << 21 | reg << 16 | (element >> 1) << 11 |
                                    input << 5 | sum));
}

/* dup sum.4s, values.s[element] */
static void put_bias(assembler *a, int32_t sum, int32_t value) {
    const int32_t reg = FIRST_VALUES + value / 4 % VALUES, element = value % 4;
    put(a, 0x4E000400u | (uint32_t)((element << 3 | 4) << 16 | reg << 5 | sum));
}

static bool kept_by_any(const loads *l, int32_t step) {
    for (int32_t o = 0; o < l->n; o++) {
        if (nas__code_keeps(l->conv, l->first + o, step)) return true;
    }
    return false;
}

static void load_inputs(assembler *a, loads *l, int32_t n) {
    const int32_t steps = l->conv->kernel_h * l->conv->kernel_w * l->conv->in_c;
    for (; n > 0 && l->step < steps; l->step++) {
        if (!kept_by_any(l, l->step)) continue;
        put_move(a, false, FIRST_INPUT + l->inputs % INPUTS, X_PANEL, l->step * VECTOR_BYTES);
        l->inputs++;
        n--;
    }
}

static void load_values(assembler *a, loads *l, int32_t n) {
    for (; n > 0 && l->quads_at < l->quads; n--, l->quads_at++)
        put_move(a, false, FIRST_VALUES + l->quads_at % VALUES, X_STREAM,
                 l->quads_at * VECTOR_BYTES);
}

/* The value is used; a pair of registers that are used up is loaded anew. */
static int32_t used(assembler *a, loads *l, int32_t value) {
    if ((value + 1) % (4 * PAIR) == 0) load_values(a, l, PAIR);
    return value + 1;
}

/* One vector of pixels of one group, from the biases to the sums; `row`: bytes from output to output. */
static void put_vector(assembler *a, loads *l, int32_t row) {
    const nas__conv *c = l->conv;
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    int32_t value = 0, input = 0;
    load_values(a, l, VALUES);
    load_inputs(a, l, INPUTS);
    for (int32_t o = 0; o < l->n; o++) {
        put_bias(a, o, value);
        value = used(a, l, value);
    }
    for (int32_t k = 0; k < steps; k++) {
        const int32_t begin = value;
        for (int32_t o = 0; o < l->n; o++) {
            if (!nas__code_keeps(c, l->first + o, k)) continue;
            put_product(a, o, FIRST_INPUT + input % INPUTS, value);
            value = used(a, l, value);
        }
        if (value == begin) continue;
        input++;
        if (input % PAIR == 0) load_inputs(a, l, PAIR);
    }
    for (int32_t o = 0; o < l->n; o++)
        put_move(a, true, o, X_SUMS, o * row);
}

static int32_t quads_of(const loads *l) {
    const int32_t steps = l->conv->kernel_h * l->conv->kernel_w * l->conv->in_c;
    int32_t values = l->n;
    for (int32_t k = 0; k < steps; k++) {
        for (int32_t o = 0; o < l->n; o++)
            values += nas__code_keeps(l->conv, l->first + o, k);
    }
    return (values + 3) / 4;
}

/* One group of outputs: the code above for each vector, with the same weights. */
static void put_group(assembler *a, const nas__conv *c, const nas__conv_way *way, int32_t first) {
    const int32_t vectors = way->vectors, row = vectors * VECTOR_BYTES;
    const int32_t column = c->kernel_h * c->kernel_w * c->in_c * VECTOR_BYTES;
    loads l = {.conv = c, .first = first};
    l.n = c->out_c - first < way->group ? c->out_c - first : way->group;
    l.quads = quads_of(&l);
    put(a, 0x52800003u | (uint32_t)vectors << 5); /* mov w3, #vectors */
    const size_t loop = a->code.len;
    for (int32_t x = 0; x < 3; x++)
        a->moved[x] = 0;
    put_vector(a, &l, row);
    put_add(a, X_PANEL, column - a->moved[X_PANEL]);
    put_add(a, X_STREAM, -a->moved[X_STREAM]);
    put_add(a, X_SUMS, VECTOR_BYTES - a->moved[X_SUMS]);
    put(a, 0x71000463u); /* subs w3, w3, #1 */
    const int32_t back = ((int32_t)loop - (int32_t)a->code.len) / 4;
    put(a, 0x54000001u | ((uint32_t)back & 0x7FFFF) << 5); /* b.ne */
    put_add(a, X_PANEL, -vectors * column);
    put_add(a, X_STREAM, l.quads * VECTOR_BYTES);
    put_add(a, X_SUMS, l.n * row - row);
}

static void write_code(const nas__conv *c, const nas__conv_way *way, const nas__code_asks *asks,
                       nas_buf *out) {
    (void)asks; /* it does not */
    /* d8 to d15 belong to the caller: stp from [sp, #-64]!, ldp to [sp], #64 */
    static const uint32_t enter[] = {0x6DBC27E8u, 0x6D012FEAu, 0x6D0237ECu, 0x6D033FEEu};
    static const uint32_t leave[] = {0x6D412FEAu, 0x6D4237ECu, 0x6D433FEEu, 0x6CC427E8u,
                                     0xD65F03C0u};
    assembler a = {0};
    for (size_t i = 0; i < sizeof enter / sizeof enter[0]; i++)
        put(&a, enter[i]);
    for (int32_t first = 0; first < c->out_c; first += way->group)
        put_group(&a, c, way, first);
    for (size_t i = 0; i < sizeof leave / sizeof leave[0]; i++)
        put(&a, leave[i]);
    *out = a.code;
}

const nas__code_writer nas__code_arm = {.arch = "aarch64",
                                        .vector_bytes = VECTOR_BYTES,
                                        .sums = GROUP,
                                        .block = 1,
                                        .round = 4,
                                        .weight_bytes = 8,
                                        .weights_max = 60000,
                                        .word_bytes = 4,
                                        .directive = ".inst",
                                        .write = write_code};
