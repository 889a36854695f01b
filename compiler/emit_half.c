/* emit_half.c - half precision in rows: what emitted code needs besides the other type name. Elements of rings, scratch and
 * weights are _Float16, so that a vector has twice the lanes; the image comes and goes as floats, converted (to nearest)
 * where rows are copied in and out. Values beyond 65504 become infinite.
 *
 * Sums: products add up in half precision, at most nas__half_block of them one after another; longer sums are kept in floats
 * between blocks. gcc 12 has neither comparisons nor narrowing of such vectors, so their instructions are given. */
#include "compiler/compiler_internal.h"

#include <math.h>
#include <string.h>

/* Products that are added without widening: see docs/performance.md for what other lengths cost and gain. */
enum { BLOCK_PRODUCTS = 144 };

static const char arm_vectors[] =
    "enum { LANES = 8 };\n"
    "typedef _Float16 vf __attribute__((vector_size(16)));\n"
    "typedef short vi __attribute__((vector_size(16)));\n"
    "typedef float wide __attribute__((vector_size(16))); /* half of the lanes, as floats */\n"
    "typedef float sums __attribute__((vector_size(32))); /* all of them */\n"
    "typedef vf vf_anywhere __attribute__((aligned(2), may_alias));\n"
    "typedef wide wide_anywhere __attribute__((aligned(4), may_alias));\n"
    "typedef sums sums_anywhere __attribute__((aligned(4), may_alias));\n\n"
    "HELPER vf load(const _Float16 *p) {\n"
    "    return *(const vf_anywhere *)p;\n"
    "}\n"
    "HELPER void store(_Float16 *p, vf v) {\n"
    "    *(vf_anywhere *)p = v;\n"
    "}\n"
    "HELPER vf splat(_Float16 s) {\n"
    "    return (vf){s, s, s, s, s, s, s, s};\n"
    "}\n"
    "HELPER vf relu(vf v) { /* 0 for a NaN */\n"
    "    __asm__(\"fmaxnm %0.8h, %0.8h, %1.8h\" : \"+w\"(v) : \"w\"((vf){0}));\n"
    "    return v;\n"
    "}\n"
    "HELPER vf prelu(vf v, vf slope) {\n"
    "    vi above;\n"
    "    __asm__(\"fcmgt %0.8h, %1.8h, #0.0\" : \"=w\"(above) : \"w\"(v));\n"
    "    return (vf)(((vi)v & above) | ((vi)(v * slope) & ~above));\n"
    "}\n"
    "HELPER vf narrow(wide low, wide high) { /* to nearest, even */\n"
    "    vf v;\n"
    "    __asm__(\"fcvtn %0.4h, %1.4s\\n\\tfcvtn2 %0.8h, %2.4s\" : \"=&w\"(v) : \"w\"(low), "
    "\"w\"(high));\n"
    "    return v;\n"
    "}\n"
    "HELPER wide load_wide(const float *p) {\n"
    "    return *(const wide_anywhere *)p;\n"
    "}\n"
    "HELPER void store_sums(float *p, vf v) {\n"
    "    *(sums_anywhere *)p = __builtin_convertvector(v, sums);\n"
    "}\n"
    "HELPER void add_sums(float *p, vf v) {\n"
    "    *(sums_anywhere *)p += __builtin_convertvector(v, sums);\n"
    "}\n";

/* Left to itself gcc 12 copies the weight before every use: it can be multiplied by lane from 16 of the registers alone. */
static const char arm_multiply_add[] =
    "#define SPLAT(w, p) __asm__(\"ldr %h0, %1\" : \"=x\"(w) : \"m\"(*(p))) /* in lane 0 alone */\n"
    "#define MADD(sum, x, w) \\\n"
    "    __asm__(\"fmla %0.8h, %1.8h, %2.h[0]\" : \"+w\"(sum) : \"w\"(x), \"x\"(w))\n"
    "#define OWN(sum) ((void)0)\n\n";

/* The intrinsics' header alone would take a third of the compile time. Operand order as in fp32, see emit_prelude.c. */
static const char x86_vectors[] =
    "enum { LANES = 32 };\n"
    "typedef _Float16 vf __attribute__((vector_size(64)));\n"
    "typedef short vi __attribute__((vector_size(64)));\n"
    "typedef float wide __attribute__((vector_size(64))); /* half of the lanes, as floats */\n"
    "typedef vf vf_anywhere __attribute__((aligned(2), may_alias));\n"
    "typedef wide wide_anywhere __attribute__((aligned(4), may_alias));\n\n"
    "HELPER vf load(const _Float16 *p) {\n"
    "    return *(const vf_anywhere *)p;\n"
    "}\n"
    "HELPER void store(_Float16 *p, vf v) {\n"
    "    *(vf_anywhere *)p = v;\n"
    "}\n"
    "HELPER vf splat(_Float16 s) {\n"
    "    return s - (vf){0};\n"
    "}\n"
    "HELPER vf relu(vf v) { /* 0 for a NaN */\n"
    "    __asm__(\"vmaxph %1, %0, %0\" : \"+v\"(v) : \"v\"((vf){0}));\n"
    "    return v;\n"
    "}\n"
    "HELPER vf prelu(vf v, vf slope) { /* multiplies the lanes that are <= 0 */\n"
    "    __asm__(\"vcmpph $2, %2, %0, %%k1\\n\\tvmulph %1, %0, %0%{%%k1%}\" : \"+v\"(v)\n"
    "            : \"v\"(slope), \"v\"((vf){0}) : \"k1\");\n"
    "    return v;\n"
    "}\n"
    "HELPER vf narrow(wide low, wide high) { /* to nearest, even */\n"
    "    vf v;\n"
    "    __asm__(\"vcvtps2phx %1, %t0\\n\\tvcvtps2phx %2, %t1\\n\\tvinserti64x4 $1, %t1, %0, %0\"\n"
    "            : \"=&v\"(v), \"+v\"(low) : \"v\"(high));\n"
    "    return v;\n"
    "}\n"
    "HELPER wide low_half(vf v) {\n"
    "    wide w;\n"
    "    __asm__(\"vcvtph2psx %t1, %0\" : \"=v\"(w) : \"v\"(v));\n"
    "    return w;\n"
    "}\n"
    "HELPER wide high_half(vf v) {\n"
    "    wide w;\n"
    "    __asm__(\"vextracti64x4 $1, %1, %t0\\n\\tvcvtph2psx %t0, %0\" : \"=v\"(w) : \"v\"(v));\n"
    "    return w;\n"
    "}\n"
    "HELPER wide load_wide(const float *p) {\n"
    "    return *(const wide_anywhere *)p;\n"
    "}\n"
    "HELPER void store_wide(float *p, wide v) {\n"
    "    *(wide_anywhere *)p = v;\n"
    "}\n"
    "HELPER void store_sums(float *p, vf v) {\n"
    "    store_wide(p, low_half(v));\n"
    "    store_wide(p + LANES / 2, high_half(v));\n"
    "}\n"
    "HELPER void add_sums(float *p, vf v) {\n"
    "    store_wide(p, load_wide(p) + low_half(v));\n"
    "    store_wide(p + LANES / 2, load_wide(p + LANES / 2) + high_half(v));\n"
    "}\n";

/* A broadcast of 16 bits takes a multiply-add's place, as part of the multiply-add it costs a load: of the weight only its address
 * is kept. Tiles of 12 x 2 that read cached rows: 238 GFLOPS with instructions for the broadcasts, 377 so, peak 380. Phases of a
 * transposed convolution have few products for each vector they load, 18 of 4 x 5: 330 so, 388 with weights that are there
 * twice, of which a broadcast of 32 bits is a load alone. */
static const char x86_multiply_add[] =
    "#define SPLAT(w, p) ((w) = (p))\n"
    "#define MADD(sum, x, w) \\\n"
    "    __asm__(\"vfmadd231ph %2%{1to32%}, %1, %0\" : \"+v\"(sum) : \"v\"(x), \"m\"(*(w)))\n"
    "/* Of weights that are there twice. */\n"
    "#define SPLAT_TWICE(w, p) \\\n"
    "    __asm__(\"vbroadcastss %1, %0\" : \"=v\"(w) : \"m\"(*(const unsigned *)(const void "
    "*)(p)))\n"
    "#define MADD_TWICE(sum, x, w) \\\n"
    "    __asm__(\"vfmadd231ph %2, %1, %0\" : \"+v\"(sum) : \"v\"(x), \"v\"(w))\n"
    "#define OWN(sum) ((void)0)\n\n";

static const char blocks[] =
    "/* A block of a long sum to its total, in floats; the next block begins at 0. */\n"
    "HELPER vf sum_begin(float *total, vf v) {\n"
    "    store_sums(total, v);\n"
    "    return (vf){0};\n"
    "}\n"
    "HELPER vf sum_block(float *total, vf v) {\n"
    "    add_sums(total, v);\n"
    "    return (vf){0};\n"
    "}\n"
    "HELPER vf sum_end(const float *total) {\n"
    "    return narrow(load_wide(total), load_wide(total + LANES / 2));\n"
    "}\n\n";

static bool is_x86(const nas__program *p) {
    return strcmp(p->target->arch, "x86-64") == 0;
}

const char *nas__weight_operand(const nas__program *p) {
    return p->dtype == NAS_DTYPE_FP16 && is_x86(p) ? "const _Float16 *" : "vf ";
}

bool nas__weights_twice(const nas__program *p) {
    return p->dtype == NAS_DTYPE_FP16 && is_x86(p);
}

void nas__emit_half_vectors(const nas__program *p, nas_buf *out) {
    const bool x86 = is_x86(p);
    nas_buf_puts(out, x86 ? x86_vectors : arm_vectors);
    nas_buf_puts(out, blocks);
    nas__emit_shuffle(out);
    nas_buf_puts(out, x86 ? x86_multiply_add : arm_multiply_add);
}

static const char copies[] =
    "/* One row of the image, shifted, in half precision, zero outside; `x` is the image column of "
    "row[0]. */\n"
    "KERNEL void copy_in(_Float16 *row, const float *in, int channels, size_t pitch, size_t "
    "plane, int columns, int left,\n"
    "                    int x, int width, float shift) {\n"
    "    const int from = x - left < 0 ? -x : -left, to = width - x < columns ? width - x : "
    "columns;\n"
    "    for (int c = 0; c < channels; c++, row += pitch, in += plane) {\n"
    "        for (int i = -left; i < from; i++) row[i] = 0;\n"
    "        int i = from;\n"
    "        for (; i + LANES <= to; i += LANES)\n"
    "            store(row + i, narrow(load_wide(in + x + i) + shift, load_wide(in + x + i + LANES "
    "/ "
    "2) + shift));\n"
    "        for (; i < to; i++) row[i] = (_Float16)(in[x + i] + shift);\n"
    "        for (i = to > -left ? to : -left; i < columns; i++) row[i] = 0;\n"
    "    }\n"
    "}\n\n"
    "/* Part of a row that lies inside the image, to the image; `x` is the image column of row[0]. "
    "*/\n"
    "KERNEL void copy_out(float *out, const _Float16 *row, int channels, size_t pitch, size_t "
    "plane, int columns, int x,\n"
    "                     int width) {\n"
    "    const int from = x < 0 ? -x : 0, to = width - x < columns ? width - x : columns;\n"
    "    for (int c = 0; c < channels; c++, row += pitch, out += plane) {\n"
    "        int i = from;\n"
    "        for (; i + LANES <= to; i += LANES) store_sums(out + x + i, load(row + i));\n"
    "        for (; i < to; i++) out[x + i] = (float)row[i];\n"
    "    }\n"
    "}\n\n";

void nas__emit_half_copies(nas_buf *out) {
    nas_buf_puts(out, copies);
}

int32_t nas__half_block(const nas__program *p, const nas__stage *s) {
    int32_t products = 0;
    for (int32_t i = 0; i < s->n_terms; i++) {
        const nas__term *t = &s->terms[i];
        products += (t->up > 1 ? ((t->up_h + t->up - 1) / t->up) * ((t->up_w + t->up - 1) / t->up)
                               : t->kernel_h * t->kernel_w) *
                    t->channels;
    }
    return p->dtype == NAS_DTYPE_FP16 && products > BLOCK_PRODUCTS ? BLOCK_PRODUCTS : 0;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

static uint16_t half_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000U, magnitude = bits & 0x7fffffffU;
    if (magnitude < 0x38800000U) { /* below 2^-14: a multiple of 2^-24 */
        const double size = fabs((double)value) * 0x1p24;
        return (uint16_t)(sign | (uint32_t)lrint(size));
    }
    const uint32_t even = magnitude >> 13 & 1U; /* ties go to the even one */
    return (uint16_t)(sign | ((magnitude - 0x38000000U + 0xfffU + even) >> 13));
}

nas_status nas__half_weights(nas_ctx *ctx, const char *node, const float *weights, size_t n,
                             uint16_t *out) {
    const double limit = 65520; /* what rounds to infinity */
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)weights[i]) < limit)) {
            return nas_fail(ctx, NAS_ERR_RANGE,
                            "node '%s': a weight of %g; half precision ends at 65504. Scale the "
                            "layer down, or compile with dtype fp32",
                            node, (double)weights[i]);
        }
        out[i] = half_of(weights[i]);
    }
    return NAS_OK;
}

double nas__half_value(uint16_t half) {
    const int32_t exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    const double size = exponent == 0 ? ldexp((double)fraction, -24)
                                      : ldexp((double)(fraction + 0x400), exponent - 25);
    return (half & 0x8000) != 0 ? -size : size;
}
