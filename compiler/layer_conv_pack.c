/* layer_conv_pack.c - weight blocks of the convolutions, and the vector helpers that every kernel text uses. */
#include "compiler/layer_conv_internal.h"

/* [group][block]: bias, slopes, then [tap][input channel][outputs of the block], tails padded with zeros. */
static void pack_direct(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                        const float *weight, const float *bias, const float *slope, float *out) {
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const int32_t taps = c->kernel_h * c->kernel_w;
    for (int32_t g = 0; g < c->groups; g++) {
        for (int32_t k = 0; k < b.count; k++) {
            const int32_t at = nas__conv_block_first(&b, k), first = g * b.out_c + at;
            const int32_t wide = nas__conv_block_first(&b, k + 1) - at;
            const int32_t n = b.out_c - at < wide ? b.out_c - at : wide;
            out = nas__conv_head(c, bias, slope, first, n, wide, out);
            for (int32_t i = 0; i < taps * b.in_c; i++) {
                for (int32_t o = 0; o < wide; o++) {
                    *out++ = o < n
                                 ? weight[(size_t)(first + o) * (size_t)(taps * b.in_c) + (size_t)i]
                                 : 0;
                }
            }
        }
    }
}

static void pack_depthwise(const nas_target *target, const nas__conv *c, const float *weight,
                           const float *bias, const float *slope, float *out) {
    const int32_t lanes = target->vector_bytes / 4, taps = c->kernel_h * c->kernel_w;
    for (int32_t first = 0; first < c->out_c; first += lanes) {
        const int32_t n = c->out_c - first < lanes ? c->out_c - first : lanes;
        out = nas__conv_head(c, bias, slope, first, n, lanes, out);
        for (int32_t t = 0; t < taps; t++) {
            for (int32_t i = 0; i < lanes; i++)
                *out++ = i < n ? weight[(size_t)(first + i) * (size_t)taps + (size_t)t] : 0;
        }
    }
}

nas_status nas__conv_pack(nas_ctx *ctx, const nas_target *target, const nas__conv *c,
                          const nas__conv_way *way, const float *weight, const float *bias,
                          const float *slope, float *out) {
    const nas_target view = nas__conv_view(target, way);
    if (weight == NULL || (c->act == NAS__LACT_PRELU && slope == NULL)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "a convolution of %d -> %d channels has no weights",
                        c->in_c, c->out_c);
    }
    switch (way->algorithm) {
    case NAS__CONV_DIRECT:
    case NAS__CONV_GROUPED:
    case NAS__CONV_VECTOR:
    case NAS__CONV_SVE: pack_direct(&view, c, way, weight, bias, slope, out); break;
    case NAS__CONV_DEPTHWISE:
    case NAS__CONV_SVE_DEPTHWISE: pack_depthwise(&view, c, weight, bias, slope, out); break;
    case NAS__CONV_WINOGRAD_2:
    case NAS__CONV_WINOGRAD_4:
        nas__conv_winograd_pack(target, c, way, weight, bias, slope, out);
        break;
    case NAS__CONV_BF16: nas__bf16_pack(target, c, way, weight, bias, slope, out); break;
    case NAS__CONV_BF16_DOT:
    case NAS__CONV_BF16_TILE: nas__staged_pack(target, c, way, weight, bias, slope, out); break;
    case NAS__CONV_SPARSE:
    case NAS__CONV_SPARSE_RUN:
    case NAS__CONV_SPARSE_PANEL:
    case NAS__CONV_SPARSE_CODE:
        return nas__sparse_pack(ctx, target, c, way, weight, bias, slope, out);
    }
    return NAS_OK;
}

/* ---- vector helpers ---------------------------------------------------------------------------------------------- */

static const char helpers[] =
    "#ifndef KERNEL /* the text stands alone */\n"
    "#define HELPER static inline __attribute__((unused))\n"
    "#define KERNEL static\n"
    "#endif\n"
    "#define TILE static __attribute__((noinline, unused)) /* own register allocation */\n"
    "#define AHEAD(p) __builtin_prefetch(p, 0, 2) /* into L2 */\n"
    "#define NEAR(p) __builtin_prefetch(p)\n\n"
    "/* a += x * b. Left to itself gcc 12 loads b again for every use, and copies accumulators. "
    "*/\n"
    "#if defined(__FMA__) && defined(__AVX512F__)\n"
    "#define MADD(a, x, b) __asm__(\"vfmadd231ps %2, %1, %0\" : \"+v\"(a) : \"v\"(x), \"v\"(b))\n"
    "#elif defined(__FMA__)\n"
    "#define MADD(a, x, b) __asm__(\"vfmadd231ps %2, %1, %0\" : \"+x\"(a) : \"x\"(x), \"x\"(b))\n"
    "#else\n#define MADD(a, x, b) (a += (x) * (b))\n#endif\n"
    "/* a += s * b of one number: the multiply-add of AVX-512 fetches and repeats it at no cost, "
    "an instruction of its own "
    "takes a third of its time. */\n"
    "#if defined(__AVX512F__)\n"
    "#define MADD_EACH(a, s, b) __asm__(\"vfmadd231ps %2%{1to16%}, %1, %0\" : \"+v\"(a) : "
    "\"v\"(b), \"m\"(s))\n"
    "#else\n#define MADD_EACH(a, s, b) MADD(a, splat(s), b)\n#endif\n\n"
    "typedef vf vf_anywhere __attribute__((aligned(4), may_alias));\n\n"
    "HELPER vf load(const float *p) {\n    return *(const vf_anywhere *)p;\n}\n"
    "HELPER void store(float *p, vf v) {\n    *(vf_anywhere *)p = v;\n}\n"
    "HELPER vf splat(float s) {\n    return s - (vf){0};\n}\n"
    "HELPER vf choose(vi mask, vf a, vf b) {\n"
    "    return (vf)(((vi)a & mask) | ((vi)b & ~mask));\n}\n";

static const char generic_partial[] =
    "/* The first n lanes, exactly; n is a constant. */\n"
    "HELPER vf load_n(const float *p, int n) {\n"
    "    vf v = {0};\n    __builtin_memcpy(&v, p, (unsigned)n * sizeof *p);\n    return v;\n}\n"
    "HELPER void store_n(float *p, vf v, int n) {\n"
    "    __builtin_memcpy(p, &v, (unsigned)n * sizeof *p);\n}\n";

static const char avx_partial[] =
    "/* The first n lanes, exactly; n is a constant. */\n"
    "HELPER vf load_n(const float *p, int n) {\n"
    "    return __builtin_ia32_maskloadps256((const vf *)p, (vi){0, 1, 2, 3, 4, 5, 6, 7} < n);\n"
    "}\n"
    "HELPER void store_n(float *p, vf v, int n) {\n"
    "    __builtin_ia32_maskstoreps256((vf *)p, (vi){0, 1, 2, 3, 4, 5, 6, 7} < n, v);\n}\n";

static const char avx512_partial[] =
    "/* The first n lanes, exactly; n is a constant. */\n"
    "HELPER vf load_n(const float *p, int n) {\n"
    "    return __builtin_ia32_loadups512_mask(p, (vf){0}, (unsigned short)((1u << n) - 1));\n"
    "}\n"
    "HELPER void store_n(float *p, vf v, int n) {\n"
    "    __builtin_ia32_storeups512_mask(p, v, (unsigned short)((1u << n) - 1));\n"
    "}\n";

/* Past the caches, where what is stored would drive everything else out of them; a fence before others read it. */
static const char avx512_stream[] =
    "#if defined(__AVX512F__)\n"
    "HELPER void stream(float *p, vf v) {\n"
    "    if ((unsigned long)p % sizeof v != 0)\n        store(p, v);\n"
    "    else\n        __asm__(\"vmovntps %1, %0\" : \"=m\"(*(vf_anywhere *)p) : \"v\"(v));\n"
    "}\n"
    "#define STREAMED() __asm__ volatile(\"sfence\" ::: \"memory\")\n"
    "#else\n#define stream(p, v) store(p, v)\n#define STREAMED() ((void)0)\n#endif\n";

static const char avx_stream[] =
    "#if defined(__AVX__)\n"
    "HELPER void stream(float *p, vf v) {\n"
    "    if ((unsigned long)p % sizeof v != 0)\n        store(p, v);\n"
    "    else\n        __asm__(\"vmovntps %1, %0\" : \"=m\"(*(vf_anywhere *)p) : \"x\"(v));\n"
    "}\n"
    "#define STREAMED() __asm__ volatile(\"sfence\" ::: \"memory\")\n"
    "#else\n#define stream(p, v) store(p, v)\n#define STREAMED() ((void)0)\n#endif\n";

static const char generic_minmax[] =
    "HELPER vf vmax(vf a, vf b) {\n    return choose(a > b, a, b);\n}\n"
    "HELPER vf vmin(vf a, vf b) {\n    return choose(a < b, a, b);\n}\n";

/* gcc 12 makes several instructions of a vector maximum. Operand order: max(NaN, b) is b, like a > b ? a : b. */
#define X86_MINMAX(kind)                                                                           \
    "HELPER vf vmax(vf a, vf b) {\n"                                                               \
    "    __asm__(\"vmaxps %1, %0, %0\" : \"+" kind "\"(a) : \"" kind "\"(b));\n    return a;\n}\n" \
    "HELPER vf vmin(vf a, vf b) {\n"                                                               \
    "    __asm__(\"vminps %1, %0, %0\" : \"+" kind "\"(a) : \"" kind "\"(b));\n    return a;\n}\n"
/* gcc 12 makes several instructions of a vector maximum. max(NaN, b) is b, like a > b ? a : b. */
static const char avx_minmax[] = X86_MINMAX("x");
static const char avx512_minmax[] = X86_MINMAX("v");

static const char acts[] =
    "HELPER vf relu(vf v) {\n    return vmax(v, (vf){0});\n}\n"
    "HELPER vf prelu(vf v, vf slope) {\n    return choose(v > 0, v, v * slope);\n}\n"
    "HELPER vf hard_swish(vf v) { /* v * clip(v / 6 + 1 / 2, 0, 1) */\n"
    "    return v * vmin(vmax(v * 0x1.555556p-3f + 0.5f, (vf){0}), splat(1));\n}\n\n";

/* Functions of single precision without a mathematical library. */
static const char functions[] =
    "/* e^v, relative error 2e-7; saturates at e^88. n = round(v / ln 2) falls out of the low bits "
    "of v / ln 2 + 1.5 * 2^23. */\n"
    "HELPER vf vexp(vf v) {\n"
    "    v = vmin(vmax(v, splat(-87)), splat(88));\n"
    "    const vf t = v * 0x1.715476p+0f + 0x1.8p23f, n = t - 0x1.8p23f;\n"
    "    const vf r = v - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f;\n"
    "    vf p = splat(0x1.6c16c2p-10f);\n"
    "    p = p * r + 0x1.111112p-7f, p = p * r + 0x1.555556p-5f, p = p * r + 0x1.555556p-3f;\n"
    "    p = p * r + 0.5f, p = p * r + 1, p = p * r + 1;\n"
    "    return (vf)((vi)p + ((vi)t << 23));\n}\n"
    "HELPER vf vsigmoid(vf v) {\n    return 1 / (1 + vexp(-v));\n}\n"
    "/* Abramowitz & Stegun 7.1.26, absolute error 2e-7. */\n"
    "HELPER vf verf(vf v) {\n"
    "    const vf a = vmax(v, -v), t = 1 / (1 + a * 0.3275911f);\n"
    "    vf p = splat(1.061405429f);\n"
    "    p = p * t - 1.453152027f, p = p * t + 1.421413741f, p = p * t - 0.284496736f, p = p * t + "
    "0.254829592f;\n"
    "    const vf r = 1 - p * t * vexp(-(a * a));\n"
    "    return choose(v < 0, -r, r);\n}\n"
    "/* 1 / sqrt(v) by Newton from its bits, then times v; 0 for 0, NaN below it. */\n"
    "HELPER vf vsqrt(vf v) {\n"
    "    vf y = (vf)(0x5f375a86 - ((vi)v >> 1));\n"
    "    y = y * (1.5f - 0.5f * v * y * y), y = y * (1.5f - 0.5f * v * y * y), y = y * (1.5f - "
    "0.5f * v * y * y);\n"
    "    const vf s = v * y, exact = s + 0.5f * y * (v - s * s);\n"
    "    return choose(v > 0, exact, choose(v == 0, splat(0), splat(__builtin_nanf(\"\"))));\n}\n"
    "/* ln v for v > 0: 2 * atanh((m - 1) / (m + 1)) of the fraction m in [sqrt(1/2), sqrt(2)) "
    "plus the exponent. */\n"
    "HELPER vf vlog(vf v) {\n"
    "    const vi e = ((vi)v - 0x3f3504f3) >> 23;\n"
    "    const vf m = (vf)((vi)v - (e << 23)), s = (m - 1) / (m + 1), q = s * s;\n"
    "    vf p = splat(0x1.c71c72p-4f);\n"
    "    p = p * q + 0x1.24924ap-3f, p = p * q + 0x1.99999ap-3f, p = p * q + 0x1.555556p-2f, p = p "
    "* q + 1;\n"
    "    return 2 * s * p + __builtin_convertvector(e, vf) * 0x1.62e43p-1f;\n}\n"
    "HELPER float vsum(vf v) {\n"
    "    float s = 0;\n    for (int i = 0; i < LANES; i++) s += v[i];\n    return s;\n}\n\n";

void nas__emit_vector_prelude(const nas_target *target, nas_buf *out) {
    const int32_t bytes = target->vector_bytes;
    nas_buf_printf(out, "enum { LANES = %d };\n", bytes / 4);
    nas_buf_printf(out, "typedef float vf __attribute__((vector_size(%d)));\n", bytes);
    nas_buf_printf(out, "typedef int vi __attribute__((vector_size(%d)));\n", bytes);
    nas__emit_shuffle(out);
    nas_buf_puts(out, helpers);
    if (bytes >= 32) {
        nas_buf_printf(out, "#if defined(%s)\n%s", bytes == 64 ? "__AVX512F__" : "__AVX__",
                       bytes == 64 ? avx512_partial : avx_partial);
        nas_buf_printf(out, "#else\n%s#endif\n", generic_partial);
        nas_buf_puts(out, bytes == 64 ? avx512_stream : avx_stream);
    } else {
        nas_buf_puts(out, generic_partial);
    }
    if (bytes >= 32) {
        nas_buf_printf(out, "#if defined(%s)\n%s", bytes == 64 ? "__AVX512F__" : "__AVX__",
                       bytes == 64 ? avx512_minmax : avx_minmax);
        nas_buf_printf(out, "#else\n%s#endif\n", generic_minmax);
    } else {
        nas_buf_puts(out, generic_minmax);
    }
    nas_buf_puts(out, acts);
    nas_buf_puts(out, functions);
}
