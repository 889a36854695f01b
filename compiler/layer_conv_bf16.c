/* layer_conv_bf16.c - convolutions of the layer form whose products are of bf16, on 64-bit Arm: weights are rounded when they
 * are packed, input values (to nearest, even) when a tile loads them; sums and what lies between layers are floats.
 *
 * A multiply-add of matrices (bfmmla) adds the products of 2 pixels x 4 input channels with 4 input channels x 2 outputs to
 * four sums, four times the products of one of floats. So a sum variable holds two pixels of two outputs, weights lie as
 * [step of four input channels][pair of outputs][output][channel], and results are put in order before they are stored. The
 * rest of a tile is layer_conv_direct.c. Sums round to odd, and what is smaller than a normal float counts as 0: so is the
 * instruction defined. */
#include "compiler/layer_conv_internal.h"

#include <string.h>

enum { STEP = 4 }; /* input channels */

static const char helpers[] =
    "#ifndef BF16_MADD\n"
    "typedef short vb __attribute__((vector_size(16))); /* 2 x 4 of bf16 */\n"
    "typedef vb vb_anywhere __attribute__((aligned(4), may_alias));\n"
    "#define BF16_MADD(a, x, b) \\\n"
    "    __asm__(\"bfmmla %0.4s, %1.8h, %2.8h\" : \"+w\"(a) : \"w\"(x), \"w\"(b))\n"
    "HELPER vb bf16_weights(const char *p) {\n    return *(const vb_anywhere *)(const void "
    "*)p;\n}\n"
    "HELPER vb bf16_pair(vf first, vf second) { /* four channels of two pixels */\n"
    "    vb v;\n"
    "    __asm__(\"bfcvtn %0.4h, %1.4s\\n\\tbfcvtn2 %0.8h, %2.4s\" : \"=&w\"(v) : \"w\"(first), "
    "\"w\"(second));\n"
    "    return v;\n}\n"
    "HELPER vf bf16_twice(const float *p) {\n    return (vf){p[0], p[1], p[0], p[1]};\n}\n"
    "#endif\n";

void nas__bf16_emit_helpers(nas_buf *out) {
    nas_buf_puts(out, helpers);
}

static int32_t steps_of(const nas__conv_runs *r) {
    return (r->length + STEP - 1) / STEP;
}

int32_t nas__bf16_floats(const nas__conv *c) {
    const nas__conv_runs r = nas__conv_run(c, 0);
    return c->kernel_h * r.taps * steps_of(&r) * STEP / 2;
}

/* ---- text ------------------------------------------------------------------------------------------------------------ */

typedef struct sums {
    const size_t *offsets;
    int32_t pixels, pairs, columns; /* columns: pairs of outputs */
} sums;

/* Four channels of pair `i`, `n` of them where fewer are left; the last pixel of an odd tile is there twice. */
static void put_input(const sums *s, int32_t i, int32_t n, nas_buf *out) {
    const int32_t second = 2 * i + 1 < s->pixels ? 2 * i + 1 : 2 * i;
    if (n == STEP)
        nas_buf_printf(out, "bf16_pair(load(s + %zu), load(s + %zu))", s->offsets[2 * i],
                       s->offsets[second]);
    else
        nas_buf_printf(out, "bf16_pair(load_n(s + %zu, %d), load_n(s + %zu, %d))",
                       s->offsets[2 * i], n, s->offsets[second], n);
}

/* One step for the whole tile: what is fewer, inputs or weights, waits in registers for the other. */
static void put_step(const sums *s, int32_t n, const char *indent, nas_buf *out) {
    const bool inputs_wait = s->pairs <= s->columns;
    nas_buf_printf(out, "%s__asm__(\"\" : \"+r\"(s));\n%sconst vb ", indent, indent);
    for (int32_t i = 0; i < (inputs_wait ? s->pairs : s->columns); i++) {
        nas_buf_printf(out, "%s%s%d = ", i > 0 ? ", " : "", inputs_wait ? "x" : "b", i);
        if (inputs_wait)
            put_input(s, i, n, out);
        else
            nas_buf_printf(out, "bf16_weights(v + %d)", 16 * i);
    }
    nas_buf_printf(out, ";\n%svb %s;\n", indent, inputs_wait ? "b" : "x");
    for (int32_t k = 0; k < (inputs_wait ? s->columns : s->pairs); k++) {
        nas_buf_printf(out, "%s%s = ", indent, inputs_wait ? "b" : "x");
        if (inputs_wait)
            nas_buf_printf(out, "bf16_weights(v + %d)", 16 * k);
        else
            put_input(s, k, n, out);
        nas_buf_puts(out, ";");
        for (int32_t i = 0; i < (inputs_wait ? s->pairs : s->columns); i++)
            nas_buf_printf(
                out, inputs_wait ? " BF16_MADD(m%d_%d, x%d, b);" : " BF16_MADD(m%d_%d, x, b%d);",
                inputs_wait ? i : k, inputs_wait ? k : i, i);
        nas_buf_puts(out, "\n");
    }
}

/* The results as the stores of a tile expect them: a<pixel>_<vector>. */
static void put_order(const sums *s, nas_buf *out) {
    for (int32_t p = 0; p < s->pixels; p++) {
        nas_buf_puts(out, "    const vf ");
        for (int32_t k = 0; 2 * k < s->columns; k++)
            nas_buf_printf(out, "%sa%d_%d = SHUFFLE(m%d_%d, m%d_%d, %s)", k > 0 ? ", " : "", p, k,
                           p / 2, 2 * k, p / 2, 2 * k + 1,
                           p % 2 == 0 ? "0, 1, 4, 5" : "2, 3, 6, 7");
        nas_buf_puts(out, ";\n");
    }
}

void nas__bf16_emit_sums(const nas__conv *c, const size_t *offsets, int32_t pixels, int32_t vectors,
                         nas_buf *out) {
    const nas__conv_runs r = nas__conv_run(c, 0);
    const sums s = {offsets, pixels, (pixels + 1) / 2, 2 * vectors};
    const int32_t whole = r.length / STEP, rest = r.length % STEP, bytes = 16 * s.columns;
    for (int32_t k = 0; k < s.columns; k++) {
        nas_buf_printf(out, "    vf m0_%d = bf16_twice(w + %d)", k, 2 * k);
        for (int32_t i = 1; i < s.pairs; i++)
            nas_buf_printf(out, ", m%d_%d = m0_%d", i, k, k);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out, "    const char *v = (const char *)(w + %d);\n",
                   nas__conv_heads(c) * 4 * vectors);
    nas_buf_printf(out, "    for (int tap = 0; tap < %d; tap++) {\n", c->kernel_h * r.taps);
    nas_buf_printf(out, "        const float *s = in + tap / %d * ROW + tap %% %d * %dL;\n", r.taps,
                   r.taps, c->dilation_w * c->in_pitch);
    if (whole > 0) {
        nas_buf_printf(out, "        for (int i = 0; i < %d; i++, s += %d, v += %d) {\n", whole,
                       STEP, bytes);
        put_step(&s, STEP, "            ", out);
        nas_buf_puts(out, "        }\n");
    }
    if (rest > 0) {
        put_step(&s, rest, "        ", out);
        nas_buf_printf(out, "        v += %d;\n", bytes);
    }
    nas_buf_puts(out, "    }\n");
    put_order(&s, out);
}

/* ---- weights --------------------------------------------------------------------------------------------------------- */

uint16_t nas__bf16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return (uint16_t)(bits >> 16 | 0x40U); /* a NaN */
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

void nas__bf16_pack(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                    const float *weight, const float *bias, const float *slope, float *out) {
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const nas__conv_runs r = nas__conv_run(c, 0);
    const int32_t runs = c->kernel_h * r.taps;
    const size_t each = (size_t)(runs * r.length);
    for (int32_t k = 0; k < b.count; k++) {
        const int32_t first = nas__conv_block_first(&b, k);
        const int32_t wide = nas__conv_block_first(&b, k + 1) - first;
        const int32_t n = b.out_c - first < wide ? b.out_c - first : wide;
        out = nas__conv_head(c, bias, slope, first, n, wide, out);
        for (int32_t i = 0; i < runs * steps_of(&r); i++) {
            const int32_t run = i / steps_of(&r), at = i % steps_of(&r) * STEP;
            for (int32_t o = 0; o < wide; o++, out += STEP / 2) {
                uint16_t four[STEP] = {0};
                for (int32_t x = 0; x < STEP && o < n && at + x < r.length; x++)
                    four[x] = nas__bf16_of(
                        weight[(size_t)(first + o) * each + (size_t)(run * r.length + at + x)]);
                memcpy(out, four, sizeof four);
            }
        }
    }
}
