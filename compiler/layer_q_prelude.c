/* layer_q_prelude.c - vector helpers of the integer kernels, on those of nas__emit_vector_prelude.
 *
 *   qx                     element of a staged row
 *   q_stage_u, q_stage_s   n elements from uint8, int8
 *   q_x                    one group of input channels of a pixel, in every lane
 *   q_w16, q_w8, q_w4_*, q_w2_*   a vector of weights as it is stored; two vectors share the nibbles of the same bytes, four
 *                          share their pairs of bits
 *   q_p4_*                 of weights that are 0 or a power of two: nibbles of a sign and the exponent + 1
 *   q_dot                  acc + x*w
 *   q_round, q_left        t of ir/quantize.h; q_plus adds a residual
 *   q_x2, q_x4, q_dot_0 ..  two, four groups of a pixel; acc + (one of them)*w, on NEON
 *   q_mix, q_mm_*, q_low, q_high   of matrix units: see layer_qconv_matrix_emit.c
 *   q_single, q_bent       scaled in single precision, behind 0x1.8p+23; after a prelu
 *   q_lower, q_higher, q_narrow_*, q_least_*, q_most_*   halves of two channels as words, of four as bytes, between bounds
 *   q_between, q_front, q_behind, q_dot_words           codes beside a residual, as words, multiplied together
 *   q_upper                upper half of a product; q_pack_*: four channels of each pixel as one word; q_pixels,
 *                          q_put_pixels: the words of n pixels, a constant
 *   q_get_*, q_put_*       the first n codes at p, exactly; n is a constant */
#include "compiler/layer_qconv_internal.h"

static const char common[] =
    "typedef float q_float __attribute__((may_alias));\n"
    "typedef int q_lanes __attribute__((vector_size(4 * LANES), aligned(1), may_alias));\n"
    "typedef unsigned char q_u8 __attribute__((vector_size(LANES)));\n"
    "typedef signed char q_s8 __attribute__((vector_size(LANES)));\n"
    "HELPER vi q_i32(const void *p) {\n    return *(const q_lanes *)p;\n}\n"
    "HELPER vi q_splat(int v) {\n    return (vi){0} + v;\n}\n";

/* gcc 12 converts vectors between bytes and int32 a lane at a time on Arm. */
static const char generic_get[] =
    "#if defined(__ARM_NEON)\n"
    "#include <arm_neon.h>\n"
    "HELPER uint8x8_t q_load(const unsigned char *p, int n) {\n"
    "    unsigned v = 0;\n    __builtin_memcpy(&v, p, (unsigned)n);\n"
    "    return vreinterpret_u8_u32(vdup_n_u32(v));\n}\n"
    "HELPER vi q_get_u(const unsigned char *p, int n) {\n"
    "    return (vi)vmovl_u16(vget_low_u16(vmovl_u8(q_load(p, n))));\n}\n"
    "HELPER vi q_get_s(const unsigned char *p, int n) {\n"
    "    return (vi)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(q_load(p, n)))));\n}\n"
    "#else\n"
    "HELPER vi q_get_u(const unsigned char *p, int n) {\n"
    "    q_u8 v = {0};\n    __builtin_memcpy(&v, p, (unsigned)n);\n"
    "    return __builtin_convertvector(v, vi);\n}\n"
    "HELPER vi q_get_s(const unsigned char *p, int n) {\n"
    "    q_s8 v = {0};\n    __builtin_memcpy(&v, p, (unsigned)n);\n"
    "    return __builtin_convertvector(v, vi);\n}\n"
    "#endif\n";

/* Through an integer register: gcc 12 takes a vector of eight bytes through memory. */
static const char avx2_get[] = "HELPER __m128i q_load(const unsigned char *p, int n) {\n"
                               "    long long v = 0;\n    __builtin_memcpy(&v, p, (unsigned)n);\n"
                               "    return _mm_cvtsi64_si128(v);\n}\n"
                               "HELPER vi q_get_u(const unsigned char *p, int n) {\n"
                               "    return (vi)_mm256_cvtepu8_epi32(n == 8 ? "
                               "_mm_loadl_epi64((const __m128i_u *)p) : q_load(p, "
                               "n));\n}\n"
                               "HELPER vi q_get_s(const unsigned char *p, int n) {\n"
                               "    return (vi)_mm256_cvtepi8_epi32(n == 8 ? "
                               "_mm_loadl_epi64((const __m128i_u *)p) : q_load(p, "
                               "n));\n}\n";

static const char plus[] =
    "HELPER vi q_left(vi a, const int *h) {\n"
    "    return q_min(q_max(a, q_splat(-h[5])), q_splat(h[5])) << h[4];\n}\n"
    "HELPER vi q_plus(vi t, vi r, const int *h) {\n"
    "    return (t + (((r - h[6]) * h[7] + 512) >> 10) + 32) >> 6;\n}\n"
    "HELPER vi q_join(vi t, vi r, const int *h) {\n"
    "    const vi code = q_min(q_max(t + h[8], q_splat(h[9])), q_splat(h[10]));\n"
    "    return ((code - h[8]) * h[11] + (r - h[6]) * h[7] + 32768) >> 16;\n}\n\n";

static const char generic_round[] =
    "#if defined(__ARM_NEON)\n"
    "HELPER vi q_min(vi a, vi b) {\n    return (vi)vminq_s32((int32x4_t)a, (int32x4_t)b);\n}\n"
    "HELPER vi q_max(vi a, vi b) {\n    return (vi)vmaxq_s32((int32x4_t)a, (int32x4_t)b);\n}\n"
    "HELPER vi q_round(vi a, vi m) {\n"
    "    return (vi)vqrdmulhq_s32((int32x4_t)a, (int32x4_t)m);\n}\n"
    "#else\n"
    "HELPER vi q_min(vi a, vi b) {\n    const vi m = a < b;\n    return (a & m) | (b & ~m);\n}\n"
    "HELPER vi q_max(vi a, vi b) {\n    const vi m = a > b;\n    return (a & m) | (b & ~m);\n}\n"
    "HELPER vi q_round(vi a, vi m) {\n    vi r;\n"
    "    for (int i = 0; i < LANES; i++)\n"
    "        r[i] = (int)(((long long)a[i] * m[i] + (1LL << 30)) >> 31);\n"
    "    return r;\n}\n"
    "#endif\n";

/* Saturated at 16 bits the sum with a zero point is still outside of the codes. */
#define NEON_PUT(kind, narrow, type, vector)                                                       \
    "HELPER unsigned long long q_codes_" kind "(vi x, vi y, const int *h) {\n"                     \
    "    int16x8_t s = vcombine_s16(vqmovn_s32((int32x4_t)x), vqmovn_s32((int32x4_t)y));\n"        \
    "    s = vqaddq_s16(s, vdupq_n_s16((short)h[1]));\n"                                           \
    "    const " vector " b = vmax_" type "(" narrow "(s), vdup_n_" type "(h[2]));\n"              \
    "    return vget_lane_u64((uint64x1_t)vmin_" type "(b, vdup_n_" type "(h[3])), 0);\n}\n"       \
    "HELPER void q_put2_" kind "(unsigned char *p, vi x, vi y, int n, const int *h) {\n"           \
    "    const unsigned long long b = q_codes_" kind "(x, y, h);\n"                                \
    "    __builtin_memcpy(p, &b, (unsigned)n);\n}\n"                                               \
    "HELPER void q_put_" kind "(unsigned char *p, vi x, int n, const int *h) {\n"                  \
    "    const unsigned b = (unsigned)q_codes_" kind "(x, x, h);\n"                                \
    "    __builtin_memcpy(p, &b, (unsigned)n);\n}\n"

/* Clamped codes are in range for one of the two types; conversion keeps the low eight bits. */
static const char generic_put[] =
    "#if defined(__ARM_NEON)\n" NEON_PUT("u", "vqmovun_s16", "u8", "uint8x8_t") NEON_PUT(
        "s", "vqmovn_s16", "s8",
        "int8x8_t") "#else\n"
                    "HELPER void q_put(unsigned char *p, vi t, int n, const int *h) {\n"
                    "    const vi c = q_min(q_max(t + h[1], q_splat(h[2])), q_splat(h[3])) & 255;\n"
                    "    const q_u8 v = __builtin_convertvector(c, q_u8);\n"
                    "    __builtin_memcpy(p, &v, (unsigned)n);\n}\n"
                    "#define q_put_u q_put\n#define q_put_s q_put\n"
                    "#define q_put2_u(p, a, b, n, h) (q_put(p, a, LANES, h), q_put((p) + LANES, b, "
                    "(n) - LANES, "
                    "h))\n"
                    "#define q_put2_s q_put2_u\n#endif\n";

static const char words_stage[] =
    "typedef short qx;\n"
    "typedef short q_words __attribute__((vector_size(32)));\n"
    "typedef short q_words_out __attribute__((vector_size(32), aligned(2), may_alias));\n"
    "typedef unsigned char q_in_u __attribute__((vector_size(16), aligned(1), may_alias));\n"
    "typedef signed char q_in_s __attribute__((vector_size(16), aligned(1), may_alias));\n"
    "HELPER void q_stage_u(const unsigned char *p, qx *s, int n, int zero) {\n    int i = 0;\n"
    "    for (; i + 16 <= n; i += 16)\n"
    "        *(q_words_out *)(s + i) = __builtin_convertvector(*(const q_in_u *)(p + i), q_words) "
    "- (short)zero;\n"
    "    for (; i < n; i++) s[i] = (short)(p[i] - zero);\n}\n"
    "HELPER void q_stage_s(const unsigned char *p, qx *s, int n, int zero) {\n    int i = 0;\n"
    "    for (; i + 16 <= n; i += 16)\n"
    "        *(q_words_out *)(s + i) = __builtin_convertvector(*(const q_in_s *)(p + i), q_words) "
    "- (short)zero;\n"
    "    for (; i < n; i++) s[i] = (short)((signed char)p[i] - zero);\n}\n";

/* The sign bit turns int8 into uint8 and back, with the zero point moved by 128: see zero_left. */
static const char bytes_stage[] =
    "typedef unsigned char qx;\n"
    "typedef unsigned char q_in __attribute__((vector_size(4 * LANES), aligned(1), may_alias));\n"
    "HELPER void q_copy(const unsigned char *p, qx *s, int n, unsigned char flip) {\n"
    "    int i = 0;\n"
    "    for (; i + 4 * LANES <= n; i += 4 * LANES)\n"
    "        *(q_in *)(s + i) = *(const q_in *)(p + i) ^ flip;\n"
    "    for (; i < n; i++) s[i] = p[i] ^ flip;\n}\n"
    "#define q_stage_u(p, s, n, zero) ((void)(zero), q_copy(p, s, n, Q_FLIP_U))\n"
    "#define q_stage_s(p, s, n, zero) ((void)(zero), q_copy(p, s, n, Q_FLIP_U ^ 128))\n";

static const char plain[] =
    "typedef signed char q_s8_in __attribute__((vector_size(LANES), aligned(1), may_alias));\n"
    "HELPER vi q_x(const qx *p) {\n    return q_splat(*p);\n}\n"
    "HELPER vi q_w8(const unsigned char *p) {\n"
    "    return __builtin_convertvector(*(const q_s8_in *)p, vi);\n}\n"
    "HELPER vi q_w4_low(const unsigned char *p) {\n    return (vi)(q_w8(p) << 28) >> 28;\n}\n"
    "HELPER vi q_w4_high(const unsigned char *p) {\n    return q_w8(p) >> 4;\n}\n"
    "#define Q_W2(k) \\\n"
    "HELPER vi q_w2_##k(const unsigned char *p) { return (vi)(q_w8(p) << (30 - 2 * k)) >> 30; }\n"
    "Q_W2(0)\nQ_W2(1)\nQ_W2(2)\nQ_W2(3)\n"
    "HELPER vi q_power(vi n) {\n"
    "    const vi sign = (n << 28) >> 31, size = (((vi){0} + 1) << (n & 7)) >> 1;\n"
    "    return (size ^ sign) - sign;\n}\n"
    "HELPER vi q_p4_low(const unsigned char *p) {\n    return q_power(q_w8(p));\n}\n"
    "HELPER vi q_p4_high(const unsigned char *p) {\n    return q_power(q_w8(p) >> 4);\n}\n"
    "HELPER vi q_dot(vi acc, vi x, vi w) {\n    return acc + x * w;\n}\n";

/* MM: prefix of the intrinsics; MI: the integer vector; HALF: a vector of half the size. */
static const char x86_round[] =
    "HELPER vi q_min(vi a, vi b) {\n    return (vi)MM(min_epi32)((MI)a, (MI)b);\n}\n"
    "HELPER vi q_max(vi a, vi b) {\n    return (vi)MM(max_epi32)((MI)a, (MI)b);\n}\n"
    "HELPER vi q_round(vi a, vi m) { /* even and odd lanes */\n"
    "    const MI half = MM(set1_epi64x)(1 << 30);\n"
    "    MI e = MM(mul_epi32)((MI)a, (MI)m);\n"
    "    MI o = MM(mul_epi32)(MM(srli_epi64)((MI)a, 32), MM(srli_epi64)((MI)m, 32));\n"
    "    e = MM(srli_epi64)(MM(add_epi64)(e, half), 31);\n"
    "    o = MM(add_epi64)(o, half);\n"
    "    return (vi)MM_ODD(e, MM(add_epi64)(o, o));\n}\n";

static const char pair[] =
    "typedef short q_pairs __attribute__((vector_size(4 * LANES)));\n"
    "HELPER vi q_x(const qx *p) {\n    return Q_BROADCAST(p);\n}\n"
    "HELPER vi q_w16(const unsigned char *p) {\n    return q_i32(p);\n}\n"
    "HELPER vi q_w8(const unsigned char *p) {\n"
    "    return (vi)MM(cvtepi8_epi16)(*(const HALF *)p);\n}\n"
    "HELPER vi q_w4_low(const unsigned char *p) {\n"
    "    return (vi)((q_pairs)((q_pairs)q_w8(p) << 12) >> 12);\n}\n"
    "HELPER vi q_w4_high(const unsigned char *p) {\n    return (vi)((q_pairs)q_w8(p) >> 4);\n}\n"
    "#define Q_W2(k) \\\n"
    "HELPER vi q_w2_##k(const unsigned char *p) { \\\n"
    "    return (vi)((q_pairs)((q_pairs)q_w8(p) << (14 - 2 * k)) >> 14); }\n"
    "Q_W2(0)\nQ_W2(1)\nQ_W2(2)\nQ_W2(3)\n"
    "HELPER vi q_power(q_pairs n) {\n"
    "    const q_pairs sign = (q_pairs)(n << 12) >> 15, size = "
    "(q_pairs)MM(shuffle_epi8)(MM(set1_epi64x)(0x4020100804020100), (MI)(n & 7));\n"
    "    return (vi)((size ^ sign) - sign);\n}\n"
    "HELPER vi q_p4_low(const unsigned char *p) {\n    return q_power((q_pairs)q_w8(p));\n}\n"
    "HELPER vi q_p4_high(const unsigned char *p) {\n"
    "    return q_power((q_pairs)q_w8(p) >> 4);\n}\n"
    /* Left to itself gcc 12 gathers the products of several steps first and spills the sums. */
    "HELPER vi q_dot(vi acc, vi x, vi w) {\n    vi t;\n"
    "    __asm__(\"vpmaddwd %2, %3, %1\\n\\tvpaddd %1, %0, %0\" : \"+v\"(acc), \"=v\"(t) : "
    "\"v\"(w), \"v\"(x));\n    return acc;\n}\n";

#define AVX2_PUT(kind, pack, type)                                                                 \
    "HELPER __m128i q_codes_" kind "(__m256i s, const int *h) {\n"                                 \
    "    s = _mm256_adds_epi16(s, _mm256_set1_epi16((short)h[1]));\n"                              \
    "    const __m128i b = _mm_" pack "_epi16(_mm256_castsi256_si128(s), "                         \
    "_mm256_extracti128_si256(s, 1));\n"                                                           \
    "    return _mm_min_" type "(_mm_max_" type "(b, _mm_set1_epi8((char)h[2])), "                 \
    "_mm_set1_epi8((char)h[3]));\n}\n"                                                             \
    "HELPER void q_put2_" kind "(unsigned char *p, vi x, vi y, int n, const int *h) {\n"           \
    "    const __m256i s = _mm256_packs_epi32((__m256i)x, (__m256i)y);\n"                          \
    "    const __m128i b = q_codes_" kind "(_mm256_permute4x64_epi64(s, 0xd8), h);\n"              \
    "    __builtin_memcpy(p, &b, (unsigned)n);\n}\n"                                               \
    "HELPER void q_put_" kind "(unsigned char *p, vi x, int n, const int *h) {\n"                  \
    "    q_put2_" kind "(p, x, x, n, h);\n}\n"

static const char avx2_put[] = AVX2_PUT("u", "packus", "epu8") AVX2_PUT("s", "packs", "epi8");

static const char avx512_put[] =
    "HELPER void q_put(unsigned char *p, vi t, int n, const int *h) {\n"
    "    const vi c = q_min(q_max(t + h[1], q_splat(h[2])), q_splat(h[3]));\n"
    "    const __m128i b = _mm512_cvtepi32_epi8((__m512i)c);\n"
    "    __builtin_memcpy(p, &b, (unsigned)n);\n}\n"
    "#define q_put_u q_put\n#define q_put_s q_put\n"
    "#define q_put2_u(p, a, b, n, h) (q_put(p, a, LANES, h), q_put((p) + LANES, b, (n) - LANES, "
    "h))\n"
    "#define q_put2_s q_put2_u\n";

static const char vnni[] =
    "HELPER vi q_x(const qx *p) {\n    return Q_BROADCAST(p);\n}\n"
    "HELPER vi q_w8(const unsigned char *p) {\n    return q_i32(p);\n}\n"
    "HELPER vi q_nibbles(__m512i v) {\n"
    "    const __m512i n = _mm512_and_si512(v, _mm512_set1_epi8(15)), s = _mm512_set1_epi8(8);\n"
    "    return (vi)_mm512_sub_epi8(_mm512_xor_si512(n, s), s);\n}\n"
    "HELPER vi q_w4_low(const unsigned char *p) {\n    return q_nibbles((__m512i)q_i32(p));\n}\n"
    "HELPER vi q_w4_high(const unsigned char *p) {\n"
    "    return q_nibbles(_mm512_srli_epi16((__m512i)q_i32(p), 4));\n}\n"
    "HELPER vi q_twos(__m512i v) {\n"
    "    const __m512i n = _mm512_and_si512(v, _mm512_set1_epi8(3)), s = _mm512_set1_epi8(2);\n"
    "    return (vi)_mm512_sub_epi8(_mm512_xor_si512(n, s), s);\n}\n"
    "#define Q_W2(k) \\\n"
    "HELPER vi q_w2_##k(const unsigned char *p) { \\\n"
    "    return q_twos(_mm512_srli_epi16((__m512i)q_i32(p), 2 * k)); }\n"
    "Q_W2(0)\nQ_W2(1)\nQ_W2(2)\nQ_W2(3)\n"
    "HELPER vi q_power(__m512i v) {\n"
    "    const __m512i sizes = _mm512_set4_epi32((int)0xC0E0F0F8u, (int)0xFCFEFF00u, 0x40201008, "
    "0x04020100);\n"
    "    return (vi)_mm512_shuffle_epi8(sizes, _mm512_and_si512(v, _mm512_set1_epi8(15)));\n}\n"
    "HELPER vi q_p4_low(const unsigned char *p) {\n    return q_power((__m512i)q_i32(p));\n}\n"
    "HELPER vi q_p4_high(const unsigned char *p) {\n"
    "    return q_power(_mm512_srli_epi16((__m512i)q_i32(p), 4));\n}\n"
    "HELPER vi q_dot(vi acc, vi x, vi w) {\n"
    "    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)x, (__m512i)w);\n}\n";

/* Pixels in lanes: layer_qconv_pixels.c. */
static const char vnni_pixels[] =
    "HELPER vi q_splat4(const void *p) {\n"
    "    int v;\n    __builtin_memcpy(&v, p, 4);\n    return (vi)_mm512_set1_epi32(v);\n}\n"
    "HELPER MI q_splat8(const void *p) {\n"
    "    long long v;\n    __builtin_memcpy(&v, p, 8);\n    return _mm512_set1_epi64(v);\n}\n"
    "HELPER vi q_upper(vi a, MI m, MI half) {\n"
    "    const MI e = _mm512_add_epi64(_mm512_mul_epi32((MI)a, m), half);\n"
    "    const MI o = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64((MI)a, 32), m), half);\n"
    "    return (vi)_mm512_mask_shuffle_epi32(o, 0x5555, e, (_MM_PERM_ENUM)0xf5);\n}\n"
    "HELPER vi q_below(vi t, vi above, vi below) {\n"
    "    return (vi)_mm512_mask_blend_epi32(_mm512_cmplt_epi32_mask((MI)t, (MI)(vi){0}), "
    "(MI)above, "
    "(MI)below);\n}\n"
    "HELPER MI q_order(void) {\n"
    "    return _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);\n}\n"
    "HELPER MI q_pack_u(vi a, vi b, vi c, vi d) {\n"
    "    const MI v = _mm512_packus_epi16(_mm512_packs_epi32((MI)a, (MI)b), "
    "_mm512_packs_epi32((MI)c, (MI)d));\n"
    "    return _mm512_shuffle_epi8(v, q_order());\n}\n"
    "HELPER MI q_pack_s(vi a, vi b, vi c, vi d) {\n"
    "    const MI v = _mm512_packs_epi16(_mm512_packs_epi32((MI)a, (MI)b), "
    "_mm512_packs_epi32((MI)c, (MI)d));\n"
    "    return _mm512_shuffle_epi8(v, q_order());\n}\n"
    "HELPER vi q_single(vi a, vf m, vf shift) {\n"
    "    return (vi)_mm512_fmadd_ps(_mm512_cvtepi32_ps((MI)a), (__m512)m, (__m512)shift);\n}\n"
    "HELPER vi q_bent(vi t, vf above, vf below, vf shift) {\n"
    "    const vf x = (vf)t - splat(0x1.8p+23f);\n"
    "    return (vi)_mm512_fmadd_ps((__m512)x, (__m512)(vf)q_below((vi)x, (vi)above, (vi)below), "
    "(__m512)shift);\n}\n"
    /* halves of two vectors as the words of one: the lower ones, the upper ones, with the words of a in front */
    "HELPER MI q_swap(void) {\n"
    "    return _mm512_set4_epi32(0x0d0c0f0e, 0x09080b0a, 0x05040706, 0x01000302);\n}\n"
    "HELPER MI q_lower(vi a, vi b) {\n"
    "    return _mm512_mask_shuffle_epi8((MI)a, 0xccccccccccccccccULL, (MI)b, q_swap());\n}\n"
    "HELPER MI q_higher(vi a, vi b) {\n"
    "    return _mm512_mask_shuffle_epi8((MI)b, 0x3333333333333333ULL, (MI)a, q_swap());\n}\n"
    "HELPER MI q_words_order(void) {\n"
    "    return _mm512_set4_epi32(0x0f0e0706, 0x0d0c0504, 0x0b0a0302, 0x09080100);\n}\n"
    "HELPER MI q_narrow_u(MI ab, MI cd) {\n"
    "    return _mm512_shuffle_epi8(_mm512_packus_epi16(ab, cd), q_words_order());\n}\n"
    "HELPER MI q_narrow_s(MI ab, MI cd) {\n"
    "    return _mm512_shuffle_epi8(_mm512_packs_epi16(ab, cd), q_words_order());\n}\n"
    "#define q_least_u(v, low) _mm512_max_epu8(v, low)\n"
    "#define q_least_s(v, low) _mm512_max_epi8(v, low)\n"
    "#define q_most_u(v, high) _mm512_min_epu8(v, high)\n"
    "#define q_most_s(v, high) _mm512_min_epi8(v, high)\n"
    /* codes of two channels, then a word of each beside a word of r: the code in front, behind */
    "HELPER MI q_between(vi a, vi b, MI least, MI most) {\n"
    "    return _mm512_min_epi16(_mm512_max_epi16(q_lower(a, b), least), most);\n}\n"
    "HELPER MI q_of_0_1(void) {\n"
    "    return _mm512_set4_epi32((int)0x800c800d, (int)0x80088009, (int)0x80048005, "
    "(int)0x80008001);\n}\n"
    "HELPER MI q_of_2_3(void) {\n"
    "    return _mm512_set4_epi32((int)0x800e800f, (int)0x800a800b, (int)0x80068007, "
    "(int)0x80028003);\n}\n"
    "HELPER MI q_front(MI words, vi r, MI of) {\n"
    "    return _mm512_mask_shuffle_epi8(words, 0xccccccccccccccccULL, (MI)r, of);\n}\n"
    "HELPER MI q_behind(MI words, vi r, MI of) {\n"
    "    return _mm512_mask_shuffle_epi8(words, 0x3333333333333333ULL, (MI)r, of);\n}\n"
    "HELPER vi q_dot_words(vi acc, MI x, vi m) {\n"
    "    return (vi)_mm512_dpwssd_epi32((MI)acc, x, (MI)m);\n}\n"
    "#if defined(__clang__)\n"
    "#define Q_WEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)\n"
    "#else\n"
    "#define Q_WEAVE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})\n"
    "#endif\n"
    "HELPER vi q_pixels(const unsigned char *p, int n) {\n"
    "    vi v = {0};\n    __builtin_memcpy(&v, p, 4 * (unsigned)n);\n    return v;\n}\n"
    "HELPER void q_put_pixels(unsigned char *p, MI v, int n) {\n"
    "    __builtin_memcpy(p, &v, 4 * (unsigned)n);\n}\n";

static const char neon[] =
    "HELPER vi q_x(const qx *p) {\n"
    "    int v;\n    __builtin_memcpy(&v, p, 4);\n    return q_splat(v);\n}\n"
    "HELPER vi q_w8(const unsigned char *p) {\n    return q_i32(p);\n}\n"
    "HELPER vi q_w4_low(const unsigned char *p) {\n"
    "    return (vi)vshrq_n_s8(vshlq_n_s8((int8x16_t)q_i32(p), 4), 4);\n}\n"
    "HELPER vi q_w4_high(const unsigned char *p) {\n"
    "    return (vi)vshrq_n_s8((int8x16_t)q_i32(p), 4);\n}\n"
    "#define Q_W2(k) \\\n"
    "HELPER vi q_w2_##k(const unsigned char *p) { \\\n"
    "    return (vi)vshrq_n_s8(vshlq_n_s8((int8x16_t)q_i32(p), 6 - 2 * k), 6); }\n"
    "Q_W2(0)\nQ_W2(1)\nQ_W2(2)\nQ_W2(3)\n"
    "HELPER vi q_power(uint8x16_t n) {\n"
    "    static const signed char sizes[16] = {0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, "
    "-32, -64};\n"
    "    return (vi)vqtbl1q_s8(vld1q_s8(sizes), n);\n}\n"
    "HELPER vi q_p4_low(const unsigned char *p) {\n"
    "    return q_power(vandq_u8((uint8x16_t)q_i32(p), vdupq_n_u8(15)));\n}\n"
    "HELPER vi q_p4_high(const unsigned char *p) {\n"
    "    return q_power(vshrq_n_u8((uint8x16_t)q_i32(p), 4));\n}\n"
    "HELPER vi q_dot(vi acc, vi x, vi w) {\n"
    "    return (vi)vdotq_s32((int32x4_t)acc, (int8x16_t)x, (int8x16_t)w);\n}\n"
    "HELPER vi q_x4(const qx *p) {\n    return q_i32(p);\n}\n"
    "HELPER vi q_x2(const qx *p) {\n"
    "    return (vi)vcombine_u8(vld1_u8(p), vdup_n_u8(0));\n}\n"
    /* Left to itself gcc 12 copies sums, and keeps loads of one pass for the next: more than registers hold. */
    "#define Q_ANY(p) __asm__(\"\" : \"+r\"(p))\n"
    "#define Q_DOT(element) \\\n"
    "HELPER vi q_dot_##element(vi acc, vi x, vi w) { \\\n"
    "    __asm__(\"sdot %0.4s, %2.16b, %1.4b[\" #element \"]\" : \"+w\"(acc) : \"w\"(x), "
    "\"w\"(w)); \\\n"
    "    return acc; \\\n}\n"
    "Q_DOT(0) Q_DOT(1) Q_DOT(2) Q_DOT(3)\n";

/* Pairs of int16 for the products of Winograd. */
static const char words[] =
    "typedef short q_s16 __attribute__((vector_size(32), may_alias));\n"
    "typedef unsigned q_u32 __attribute__((vector_size(4 * LANES), may_alias));\n"
    "typedef unsigned char q_bytes_u __attribute__((vector_size(16)));\n"
    "typedef signed char q_bytes_s __attribute__((vector_size(16)));\n"
    "HELPER q_s16 q_words_u(const unsigned char *p, int n) {\n"
    "    q_bytes_u v = {0};\n    __builtin_memcpy(&v, p, (unsigned)n);\n"
    "    return (q_s16)__builtin_convertvector(v, q_s16);\n}\n"
    "HELPER q_s16 q_words_s(const unsigned char *p, int n) {\n"
    "    q_bytes_s v = {0};\n    __builtin_memcpy(&v, p, (unsigned)n);\n"
    "    return (q_s16)__builtin_convertvector(v, q_s16);\n}\n"
    "HELPER vi q_x16(const short *p) {\n    return Q_BROADCAST(p);\n}\n";
/* Outputs as two sums side by side: eight bytes of the input for all, and the sums of neighbours. */
static const char halves[] = "HELPER vi q_x2(const qx *p) {\n    return Q_BROADCAST2(p);\n}\n";
static const char fold_256[] =
    "HELPER vi q_fold(vi a, vi b) {\n"
    "    return (vi)_mm256_permute4x64_epi64(_mm256_hadd_epi32((__m256i)a, (__m256i)b), "
    "0xd8);\n}\n";
static const char fold_512[] =
    "HELPER vi q_fold(vi a, vi b) {\n"
    "    const vi even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};\n"
    "    return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);\n}\n";
/* Bytes as they are (int8 with the sign bit turned), products in 16 bits. */
static const char bytes_256[] =
    "HELPER void q_keep(const unsigned char *p, unsigned char *s, int n, unsigned char flip) {\n"
    "    int i = 0;\n"
    "    for (; i + 32 <= n; i += 32) {\n"
    "        const __m256i v = _mm256_loadu_si256((const __m256i_u *)(p + i));\n"
    "        _mm256_storeu_si256((__m256i_u *)(s + i), _mm256_xor_si256(v, "
    "_mm256_set1_epi8((char)flip)));\n    }\n"
    "    for (; i < n; i++) s[i] = p[i] ^ flip;\n}\n"
    "#define q_keep_u(p, s, n, zero) ((void)(zero), q_keep(p, s, n, 0))\n"
    "#define q_keep_s(p, s, n, zero) ((void)(zero), q_keep(p, s, n, 128))\n"
    "HELPER vi q_xb(const unsigned char *p) {\n    return Q_BROADCAST(p);\n}\n"
    "HELPER vi q_first16(vi x, vi w) {\n"
    "    return (vi)_mm256_maddubs_epi16((__m256i)x, (__m256i)w);\n}\n"
    "HELPER vi q_sum16(vi t, vi x, vi w) {\n    vi p;\n"
    "    __asm__(\"vpmaddubsw %2, %3, %1\\n\\tvpaddw %1, %0, %0\" : \"+v\"(t), \"=v\"(p) : "
    "\"v\"(w), \"v\"(x));\n    return t;\n}\n"
    "HELPER vi q_widen(vi acc, vi t) {\n"
    "    return acc + (vi)_mm256_madd_epi16((__m256i)t, _mm256_set1_epi16(1));\n}\n";
static const char words_pair[] = "#define q_dot16 q_dot\n";
static const char words_vnni[] =
    "HELPER vi q_dot16(vi acc, vi x, vi w) {\n"
    "    return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)x, (__m512i)w);\n}\n";
/* Two pixels share a vector; a sum is of two pixels (halves) and two channels. */
static const char mmla[] =
    "HELPER void q_mix(const unsigned char *p, const unsigned char *q, unsigned char *t, int n) {\n"
    "    int i = 0;\n"
    "    for (; i + 16 <= n; i += 16, t += 32) {\n"
    "        const uint64x2_t a = (uint64x2_t)vld1q_u8(p + i), b = (uint64x2_t)vld1q_u8(q + i);\n"
    "        vst1q_u8(t, (uint8x16_t)vzip1q_u64(a, b));\n"
    "        vst1q_u8(t + 16, (uint8x16_t)vzip2q_u64(a, b));\n    }\n"
    "    if (i < n) vst1q_u8(t, vcombine_u8(vld1_u8(p + i), vld1_u8(q + i)));\n}\n"
    "HELPER vi q_low(vi a, vi b) {\n    return (vi)vzip1q_s64((int64x2_t)a, (int64x2_t)b);\n}\n"
    "HELPER vi q_high(vi a, vi b) {\n    return (vi)vzip2q_s64((int64x2_t)a, (int64x2_t)b);\n}\n"
    /* Left to itself gcc 12 copies sums: ten of 80 instructions. */
    "HELPER vi q_mm_u(vi acc, vi x, vi w) {\n"
    "    __asm__(\"usmmla %0.4s, %1.16b, %2.16b\" : \"+w\"(acc) : \"w\"(x), \"w\"(w));\n"
    "    return acc;\n}\n"
    "HELPER vi q_mm_s(vi acc, vi x, vi w) {\n"
    "    __asm__(\"smmla %0.4s, %1.16b, %2.16b\" : \"+w\"(acc) : \"w\"(x), \"w\"(w));\n"
    "    return acc;\n}\n";

/* The intrinsics do not say that they read memory. */
static const char amx[] = "#define q_fence() __asm__ volatile(\"\" ::: \"memory\")\n";

/* From memory, always: gcc 12 sees that a step reads what the step before has read for the pixel beside, keeps it in a general
 * register, and moves it over for two instructions more. */
static const char broadcast[] =
    "typedef struct q_word { int v; } __attribute__((packed, may_alias)) q_word;\n"
    "typedef struct q_two { long long v; } __attribute__((packed, may_alias)) q_two;\n"
    "HELPER vi q_broadcast(const q_word *p) {\n"
    "    vi v;\n    __asm__(\"vpbroadcastd %1, %0\" : \"=v\"(v) : \"m\"(*p));\n    return v;\n}\n"
    "HELPER vi q_broadcast2(const q_two *p) {\n"
    "    vi v;\n    __asm__(\"vpbroadcastq %1, %0\" : \"=v\"(v) : \"m\"(*p));\n    return v;\n}\n"
    "#define Q_BROADCAST(p) q_broadcast((const q_word *)(const void *)(p))\n"
    "#define Q_BROADCAST2(p) q_broadcast2((const q_two *)(const void *)(p))\n";
/* Where the target's instructions are not there: emulated. */
static const char broadcast_plain[] =
    "HELPER int q_word(const void *p) {\n    int v;\n    __builtin_memcpy(&v, p, 4);\n    return "
    "v;\n}\n"
    "HELPER long long q_two(const void *p) {\n"
    "    long long v;\n    __builtin_memcpy(&v, p, 8);\n    return v;\n}\n"
    "#define Q_BROADCAST(p) ((vi)MM(set1_epi32)(q_word(p)))\n"
    "#define Q_BROADCAST2(p) ((vi)MM(set1_epi64x)(q_two(p)))\n";

static const char names_256[] =
    "#include <immintrin.h>\n#define MM(name) _mm256_##name\n#define MI __m256i\n"
    "#define HALF __m128i_u\n#define MM_ODD(e, o) _mm256_blend_epi32(e, o, 0xaa)\n";
static const char names_512[] =
    "#include <immintrin.h>\n#define MM(name) _mm512_##name\n#define MI __m512i\n"
    "#define HALF __m256i_u\n#define MM_ODD(e, o) _mm512_mask_blend_epi32(0xaaaa, e, o)\n"
    "#define _mm512_set1_epi64x _mm512_set1_epi64\n";

void nas__emit_quant_prelude(const nas_target *target, nas_buf *out) {
    nas_buf_puts(out, common);
    const bool avx2 = nas__dot_of(target) == NAS__DOT_PAIR && target->vector_bytes == 32;
    if (!avx2) nas_buf_puts(out, generic_get);
    switch (nas__dot_of(target)) {
    case NAS__DOT_PLAIN:
        nas_buf_printf(out, "%s%s%s%s", generic_round, generic_put, words_stage, plain);
        break;
    case NAS__DOT_PAIR:
        nas_buf_printf(out, "%s%s%s%s%s%s", target->vector_bytes == 64 ? names_512 : names_256,
                       broadcast, x86_round, words_stage, pair,
                       target->vector_bytes == 64 ? avx512_put : avx2_put);
        break;
    case NAS__DOT_VNNI:
        nas_buf_printf(out, "%s#if defined(__AVX512F__)\n%s#else\n%s#endif\n", names_512, broadcast,
                       broadcast_plain);
        nas_buf_printf(out, "%s#define Q_FLIP_U 0\n%s%s%s%s", x86_round, bytes_stage, vnni,
                       avx512_put, vnni_pixels);
        break;
    case NAS__DOT_BYTES: break; /* of single ways */
    case NAS__DOT_MMLA:
    case NAS__DOT_AMX: break; /* not of vectors */
    case NAS__DOT_NEON:
        nas_buf_printf(out, "%s%s#define Q_FLIP_U 128\n%s%s", generic_round, generic_put,
                       bytes_stage, neon);
        break;
    }
    if (nas__matrix_of(target) == NAS__DOT_MMLA) nas_buf_puts(out, mmla);
    if (nas__matrix_of(target) == NAS__DOT_AMX) nas_buf_puts(out, amx);
    if (avx2) nas_buf_puts(out, avx2_get);
    if (nas__dot_of(target) == NAS__DOT_PAIR) nas_buf_printf(out, "%s%s", words, words_pair);
    if (avx2) nas_buf_puts(out, bytes_256);
    if (nas__dot_of(target) == NAS__DOT_VNNI) nas_buf_printf(out, "%s%s", words, words_vnni);
    if (nas__dot_of(target) == NAS__DOT_PAIR || nas__dot_of(target) == NAS__DOT_VNNI)
        nas_buf_printf(out, "%s%s", halves, target->vector_bytes == 64 ? fold_512 : fold_256);
    nas_buf_puts(out, plus);
    nas__q_emit_deal_prelude(target, out);
}
