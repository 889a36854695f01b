/* layer_qconv_deal.c - the epilogue of integer convolutions on x86: sums become codes by saturating packs.
 *
 * Packs work within 16 bytes. So the channels of two or four vectors of sums are dealt out beforehand, by the order of biases
 * and weights: 4 to each vector in turn, over 8 or 16 bytes of codes; packed, they lie in their own order again. The products
 * of the requantization have no sign: the biases are 2^31 too large, and what that adds to a result, the multiplier itself, is
 * subtracted together with the addition of the zero point. A block begins with biases, doubled multipliers, those of the odd
 * lanes in the even ones, and what is added. Where floats scale the sums (nas__q_is_single), with biases and factors: the sum
 * of a product and 0x1.8p+23, which is rounded once, ends in the result. */
#include "compiler/layer_qconv_internal.h"

#include <string.h>

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

bool nas__q_deals_outputs(const nas_target *target, const nas__qconv_way *way) {
    const nas__dot dot = nas__dot_of(target);
    if (way->algorithm == NAS__QCONV_MATRIX) return nas__matrix_of(target) == NAS__DOT_AMX;
    return way->algorithm == NAS__QCONV_DIRECT && (dot == NAS__DOT_PAIR || dot == NAS__DOT_VNNI);
}

int32_t nas__q_head_vectors(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    return nas__q_deals_outputs(target, way) && !nas__q_is_single(target, q, way) ? 4 : 2;
}

/* Vectors that are packed together, of those left. Outputs in two sums do not fill their last vector. */
static int32_t together(const nas__qconv_way *way, int32_t vectors) {
    return way->split > 1 ? 1 : vectors >= 4 ? 4 : min_i32(vectors, 2);
}

int32_t nas__q_slot(const nas_target *target, const nas__qconv_way *way, int32_t vectors,
                    int32_t channel) {
    const int32_t lanes = target->vector_bytes / 4;
    for (int32_t v = 0; v < vectors;) {
        const int32_t n = together(way, vectors - v), i = channel - v * lanes;
        if (i < n * lanes) return (v + i % (4 * n) / 4) * lanes + i / (4 * n) * 4 + i % 4;
        v += n;
    }
    return channel;
}

static void put_i32(uint8_t *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

void nas__q_pack_head(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                      const nas__qconv_data *d, int32_t channel, int32_t bias, int32_t slot,
                      int32_t array_bytes, uint8_t *out) {
    if (nas__q_is_single(target, q, way)) {
        put_i32(out + 4 * slot, (uint32_t)bias);
        put_i32(out + 4 * slot + array_bytes, nas__q_factor(q, d, channel));
        return;
    }
    const uint32_t m = (uint32_t)d->multiplier[channel], zero = (uint32_t)d->requant.zero_out;
    uint8_t *at = out + 4 * slot;
    put_i32(at, (uint32_t)bias + (q->has_left ? 0 : 1U << 31));
    put_i32(at + array_bytes, 2 * m);
    if (slot % 2 == 1) put_i32(at + 2 * array_bytes - 4, 2 * m);
    put_i32(at + 3 * array_bytes, (!q->conv.has_residual ? zero
                                   : q->joins            ? 0
                                                         : 64 * zero + 32) -
                                      m);
}

/* ---- text of one pixel ------------------------------------------------------------------------------------------- */

void nas__q_emit_dealt_constants(const nas_target *target, const nas__qconv *q,
                                 const nas__qconv_way *way, nas_buf *out) {
    if (nas__q_is_single(target, q, way)) {
        const bool wide = target->vector_bytes == 64;
        nas_buf_printf(out, "    const %s shift = %s_set1_ps(0x1.8p+23f%s);\n",
                       wide ? "__m512" : "__m256", wide ? "_mm512" : "_mm256",
                       !q->conv.has_residual ? " + (float)h[1]"
                       : q->joins            ? ""
                                             : " + (float)(64 * h[1] + 32)");
    }
    if (!q->conv.has_residual) return;
    nas_buf_printf(out, "    const vi rest = q_splat(%s(h[%d] + %d) * h[%d]);\n",
                   q->joins ? "32768 + h[1] * 65536 - " : "512 - ", (int)NAS__Q_ZERO_RESIDUAL,
                   q->residual_signed ? 128 : 0, (int)NAS__Q_MULTIPLIER_RESIDUAL);
}

/* r: the residual of `size` vectors, with the sign turned. */
static void emit_residual(const nas__qconv *q, int32_t width, int32_t n, size_t at, nas_buf *out) {
    static const char *const types[] = {"__m128i", "__m256i", "__m512i"};
    const int32_t load = width < 16 ? 16 : width;
    nas_buf_printf(out, "        const %s r = ", types[load / 32]);
    if (q->residual_signed) nas_buf_printf(out, "q_flip_%d(", load);
    if (n == load)
        nas_buf_printf(out, "q_bytes_%d(residual + %zu)", load, at);
    else
        nas_buf_printf(out, "q_part_%d(residual + %zu, %d)", load, at, n);
    nas_buf_puts(out, q->residual_signed ? ");\n" : ";\n");
}

static void emit_value(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                       int32_t pixel, int32_t v, int32_t size, int32_t k, int32_t vectors,
                       nas_buf *out) {
    const int32_t bytes = target->vector_bytes;
    const bool joins = q->conv.has_residual && !(size == 4 && nas__q_joins_words(target, q, way));
    nas_buf_printf(out, "        vi t%d = ", k);
    if (joins) nas_buf_puts(out, q->joins ? "q_join_dealt(" : "q_plus_dealt(");
    if (nas__q_is_single(target, q, way)) {
        nas_buf_printf(out, "(vi)q_single_%d(a%d_%d, m + %d, shift)", bytes, pixel, v, v * bytes);
    } else {
        nas_buf_printf(
            out, q->has_left ? "(vi)q_scale_%d(q_left_%d(a%d_%d, h)" : "(vi)q_scale_%d(a%d_%d",
            bytes, q->has_left ? bytes : pixel, q->has_left ? pixel : v, v);
        nas_buf_printf(out, ", m + %d, %d)", v * bytes, vectors * bytes);
    }
    if (joins) {
        if (size == 4)
            nas_buf_printf(out, ", (vi)q_dealt_u_%d(r, %d), rest, h)", bytes, k);
        else if (size == 2)
            nas_buf_printf(out, ", q_dealt_2(r, %d), rest, h)", k);
        else
            nas_buf_puts(out, ", q_dealt_1(r), rest, h)");
    }
    nas_buf_puts(out, ";\n");
}

/* Four vectors of codes, packed to words, beside those of the residual: the products of each pair are one sum. */
static void emit_words(const nas__qconv *q, nas_buf *out) {
    static const char *const halves[] = {"lo", "hi"};
    for (int32_t k = 0; k < 2; k++) {
        nas_buf_printf(out,
                       "        const __m512i w%d = q_words_between(t%d, t%d, h), r%d = "
                       "_mm512_unpack%s_epi8(r, (__m512i){0});\n",
                       k, 2 * k, 2 * k + 1, k, halves[k]);
    }
    for (int32_t k = 0; k < 4; k++) {
        nas_buf_printf(out, "        const vi p%d = (vi)_mm512_unpack%s_epi16(w%d, r%d);\n", k,
                       halves[k % 2], k / 2, k / 2);
        nas_buf_printf(out, "        t%d = ", k);
        for (int32_t i = 0; i < q->dots; i++)
            nas_buf_puts(out, "q_dot16(");
        nas_buf_puts(out, "rest");
        for (int32_t i = 0; i < q->dots; i++)
            nas_buf_printf(out, ", p%d, q_splat(h[%d]))", k, (int)NAS__Q_PAIRS + i);
        nas_buf_puts(out, " >> 16;\n");
    }
}

void nas__q_emit_dealt_epilogue(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way, int32_t pixel, int32_t vectors,
                                int32_t channels, size_t out_at, size_t residual_at, nas_buf *out) {
    const int32_t lanes = target->vector_bytes / 4;
    const char type = q->out_signed ? 's' : 'u';
    const char *vector = lanes == 16 ? "__m512i" : "__m256i",
               *prefix = lanes == 16 ? "_mm512" : "_mm256";
    const bool open = nas__q_is_open(target, q, way);
    const char *codes = open ? "_open" : "", *with = open ? "" : ", h";
    nas_buf_puts(out, "    Q_NEW(m);\n");
    for (int32_t v = 0; v < vectors;) {
        const int32_t size = together(way, vectors - v), first = v * lanes, width = size * lanes;
        const int32_t n = min_i32(channels - first, width), keep = width < 16 ? 16 : width;
        nas_buf_puts(out, "    {\n");
        if (q->conv.has_residual) emit_residual(q, width, n, residual_at + (size_t)first, out);
        for (int32_t k = 0; k < size; k++)
            emit_value(target, q, way, pixel, v + k, size, k, vectors, out);
        if (size == 4 && nas__q_joins_words(target, q, way)) emit_words(q, out);
        nas_buf_printf(out, "        q_keep_%s%d(out + %zu, ", n == keep ? "" : "part_", keep,
                       out_at + (size_t)first);
        if (size == 4) {
            nas_buf_printf(out,
                           "q_codes_%c%s_%d(%s_packs_epi32((%s)t0, (%s)t1), "
                           "%s_packs_epi32((%s)t2, (%s)t3)%s)",
                           type, codes, keep, prefix, vector, vector, prefix, vector, vector, with);
        } else {
            nas_buf_printf(out, size == 2 ? "q_two_%c%s(t0, t1%s)" : "q_one_%c%s(t0%s)", type,
                           codes, with);
        }
        nas_buf_printf(out, n == keep ? ");\n" : ", %d);\n", n);
        nas_buf_puts(out, "    }\n");
        v += size;
    }
}

/* ---- text of several pixels ---------------------------------------------------------------------------------------- */

int32_t nas__q_dealt_pixels(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way, int32_t vectors, int32_t channels) {
    const nas__conv *c = &q->conv;
    const bool whole = channels == vectors * 16 && c->out_pitch == channels;
    if (target->vector_bytes < 64 || vectors > 2 || !whole) return 1;
    if (c->has_residual && (c->residual_pitch != channels || !nas__q_joins_words(target, q, way)))
        return 1;
    return 4 / vectors;
}

void nas__q_emit_dealt_pixels(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, int32_t vectors, nas_buf *out) {
    const char type = q->out_signed ? 's' : 'u';
    const bool open = nas__q_is_open(target, q, way);
    nas_buf_puts(out, "    {\n");
    if (q->conv.has_residual)
        nas_buf_printf(out, "        const __m512i r = q_turn_%d(%sq_bytes_64(residual)%s);\n",
                       vectors, q->residual_signed ? "q_flip_64(" : "",
                       q->residual_signed ? ")" : "");
    for (int32_t k = 0; k < 4; k++)
        emit_value(target, q, way, k / vectors, k % vectors, 4, k, vectors, out);
    if (q->conv.has_residual) emit_words(q, out);
    nas_buf_printf(
        out,
        "        q_keep_64(out, q_back_%d(q_codes_%c%s_64(_mm512_packs_epi32((__m512i)t0, "
        "(__m512i)t1), _mm512_packs_epi32((__m512i)t2, (__m512i)t3)%s)));\n    }\n",
        vectors, type, open ? "_open" : "", open ? "" : ", h");
}

/* ---- helpers of the text ----------------------------------------------------------------------------------------- */

/* For vectors V of W bytes whose intrinsics begin with P:
 *   q_bytes_W, q_part_W, q_keep_part_W   all, the first n bytes
 *   q_scale_W    a*m rounded, of sums that are 2^31 too large, plus what follows the multipliers: products without sign of the
 *                even and of the odd lanes, whose upper halves are the results
 *   q_single_W   the same by floats, `shift` is 0x1.8p+23 plus what is added
 *   q_codes_*_W  of four vectors of dealt results, packed to two of words; q_two_*, q_one_*: of as many whole vectors; *_open: without bounds */
static const char deals[] =
    "#define Q_NEW(p) __asm__(\"\" : \"+r\"(p)) /* what is there is loaded again */\n"
    "#define Q_DEALS(W, V, P) \\\n"
    "typedef int q_ints_##W __attribute__((vector_size(W), may_alias)); \\\n"
    "typedef unsigned long long q_longs_##W __attribute__((vector_size(W), may_alias)); \\\n"
    "typedef q_ints_##W q_any_##W __attribute__((aligned(1), may_alias)); \\\n"
    "HELPER V q_bytes_##W(const unsigned char *p) { return (V)*(const q_any_##W *)p; } \\\n"
    "HELPER V q_flip_##W(V v) { return v ^ P##_set1_epi8(-128); } \\\n"
    "HELPER q_ints_##W q_scale_##W(q_ints_##W a, const unsigned char *m, int next) { \\\n"
    "    const q_longs_##W half = (q_longs_##W){0} + 0x80000000u; \\\n"
    "    const V odd = (V)((q_longs_##W)a >> 32); \\\n"
    "    const V e = P##_mul_epu32((V)a, q_bytes_##W(m)); \\\n"
    "    const V o = P##_mul_epu32(odd, q_bytes_##W(m + next)); \\\n"
    "    const V e_half = (V)((q_longs_##W)e + half), o_half = (V)((q_longs_##W)o + half); \\\n"
    "    return (q_ints_##W)Q_UPPER(W, P, e_half, o_half) + (q_ints_##W)q_bytes_##W(m + 2 * next); "
    "\\\n} \\\n"
    "HELPER q_ints_##W q_left_##W(q_ints_##W a, const int *h) { \\\n"
    "    const q_ints_##W most = (q_ints_##W){0} + h[5], least = -most; \\\n"
    "    const q_ints_##W above = a > most, below = a < least; \\\n"
    "    a = (a & ~(above | below)) | (most & above) | (least & below); \\\n"
    "    return (a << h[4]) ^ (-0x7fffffff - 1); \\\n} \\\n"
    "HELPER q_ints_##W q_plus_##W(q_ints_##W t, q_ints_##W r, const int *h) { \\\n"
    "    return ((t + (((r - h[6]) * h[7] + 512) >> 10) + 32) >> 6) + h[1]; \\\n} \\\n"
    "HELPER q_ints_##W q_join_##W(q_ints_##W t, q_ints_##W r, const int *h) { \\\n"
    "    q_ints_##W code = t + h[8]; \\\n"
    "    const q_ints_##W above = code > h[10], below = code < h[9]; \\\n"
    "    code = (code & ~(above | below)) | (h[10] & above) | (h[9] & below); \\\n"
    "    return (((code - h[8]) * h[11] + (r - h[6]) * h[7] + 32768) >> 16) + h[1]; \\\n} \\\n"
    "HELPER q_ints_##W q_dealt_u_##W(V r, int k) { \\\n"
    "    const V b = k < 2 ? P##_unpacklo_epi8(r, (V){0}) : P##_unpackhi_epi8(r, (V){0}); \\\n"
    "    return (q_ints_##W)(k % 2 == 0 ? P##_unpacklo_epi16(b, (V){0}) : P##_unpackhi_epi16(b, "
    "(V){0})); \\\n} \\\n"
    "HELPER q_ints_##W q_dealt_s_##W(V r, int k) { \\\n"
    "    return q_dealt_u_##W(q_flip_##W(r), k) - 128; \\\n} \\\n"
    "HELPER V q_codes_u_##W(V s, V t, const int *h) { \\\n"
    "    return P##_min_epu8(P##_max_epu8(P##_packus_epi16(s, t), P##_set1_epi8((char)h[2])), "
    "P##_set1_epi8((char)h[3])); \\\n} \\\n"
    "HELPER V q_codes_s_##W(V s, V t, const int *h) { \\\n"
    "    return P##_min_epi8(P##_max_epi8(P##_packs_epi16(s, t), P##_set1_epi8((char)h[2])), "
    "P##_set1_epi8((char)h[3])); \\\n} \\\n"
    "HELPER V q_part_##W(const unsigned char *p, int n) { Q_PART(W, V, P) } \\\n"
    "HELPER void q_keep_##W(unsigned char *p, V v) { *(q_any_##W *)p = (q_ints_##W)v; } \\\n"
    "HELPER void q_keep_part_##W(unsigned char *p, V v, int n) { Q_KEEP_PART(W, P) } \\\n"
    "Q_DOTS(W, V, P)\n";

static const char deals_masks[] =
    "#define Q_UPPER(W, P, e, o) P##_mask_shuffle_epi32(o, W == 64 ? 0x5555 : 0x55, e, 0xf5)\n"
    "#define Q_PART(W, V, P) return P##_maskz_loadu_epi8((__mmask##W)((1ULL << n) - 1), p);\n"
    "#define Q_KEEP_PART(W, P) P##_mask_storeu_epi8(p, (__mmask##W)((1ULL << n) - 1), v);\n";
static const char deals_copies[] =
    "#define Q_UPPER(W, P, e, o) P##_blend_epi32(P##_srli_epi64(e, 32), o, W == 32 ? 0xaa : 0xa)\n"
    "#define Q_PART(W, V, P) V v = {0}; __builtin_memcpy(&v, p, (unsigned)n); return v;\n"
    "#define Q_KEEP_PART(W, P) __builtin_memcpy(p, &v, (unsigned)n);\n";

/* Floats, and codes without bounds. */
static const char singles[] =
    "#define Q_SINGLES(W, V, F, P) \\\n"
    "HELPER q_ints_##W q_single_##W(q_ints_##W a, const unsigned char *m, F shift) { \\\n"
    "    return (q_ints_##W)P##_fmadd_ps(P##_cvtepi32_ps((V)a), (F)q_bytes_##W(m), shift) - "
    "0x4b400000; \\\n} \\\n"
    "HELPER V q_codes_u_open_##W(V s, V t) { return P##_packus_epi16(s, t); } \\\n"
    "HELPER V q_codes_s_open_##W(V s, V t) { return P##_packs_epi16(s, t); }\n"
    "Q_SINGLES(16, __m128i, __m128, _mm)\nQ_SINGLES(32, __m256i, __m256, _mm256)\n";
static const char singles_512[] =
    "Q_SINGLES(64, __m512i, __m512, _mm512)\n"
    "HELPER __m512i q_words_between(vi s, vi t, const int *h) {\n"
    "    const __m512i w = _mm512_packs_epi32((__m512i)s, (__m512i)t);\n"
    "    return _mm512_min_epi16(_mm512_max_epi16(w, _mm512_set1_epi16((short)(h[9] - h[8]))), "
    "_mm512_set1_epi16((short)(h[10] - h[8])));\n}\n";

static const char deals_vnni[] = "#define Q_DOTS(W, V, P) \\\n"
                                 "HELPER q_ints_##W q_dot_##W(q_ints_##W acc, V x, V w) { \\\n"
                                 "    return (q_ints_##W)P##_dpbusd_epi32((V)acc, x, w); }\n";
/* Weights from memory: sixteen registers do not hold them as well. */
static const char deals_pair[] =
    "#define Q_DOTS(W, V, P) \\\n"
    "HELPER q_ints_##W q_dot_##W(q_ints_##W acc, V x, const unsigned char *w) { \\\n"
    "    V t; \\\n"
    "    __asm__(\"vpmaddwd %2, %3, %1\\n\\tvpaddd %1, %0, %0\" : \"+v\"(acc), \"=v\"(t) : "
    "\"m\"(*(const q_any_##W *)w), \"v\"(x)); \\\n"
    "    return acc; }\n";

/* q_turn_N: codes of 64/16/N pixels of 16*N channels as packs leave them; q_back_N: in their own order. */
static const char some_512[] =
    "HELPER __m512i q_turn_1(__m512i v) {\n"
    "    return _mm512_permutexvar_epi32((__m512i)(vi){0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, "
    "7, "
    "11, 15}, v);\n}\n"
    "#define q_back_1 q_turn_1\n"
    "HELPER __m512i q_turn_2(__m512i v) {\n"
    "    return _mm512_permutexvar_epi64((__m512i){0, 4, 1, 5, 2, 6, 3, 7}, v);\n}\n"
    "HELPER __m512i q_back_2(__m512i v) {\n"
    "    return _mm512_permutexvar_epi64((__m512i){0, 2, 4, 6, 1, 3, 5, 7}, v);\n}\n"
    "typedef __m256i q_pair;\n"
    "HELPER q_pair q_two_u(vi s, vi t, const int *h) {\n"
    "    const __m512i w = _mm512_packs_epi32((__m512i)s, (__m512i)t);\n"
    "    return _mm512_cvtepi16_epi8(_mm512_min_epi16(_mm512_max_epi16(w, "
    "_mm512_set1_epi16((short)h[2])), _mm512_set1_epi16((short)h[3])));\n}\n"
    "HELPER __m128i q_one_u(vi t, const int *h) {\n"
    "    return _mm512_cvtepi32_epi8((__m512i)q_min(q_max(t, q_splat(h[2])), q_splat(h[3])));\n}\n"
    "HELPER q_pair q_two_u_open(vi s, vi t) {\n"
    "    const __m512i w = _mm512_max_epi16(_mm512_packs_epi32((__m512i)s, (__m512i)t), "
    "(__m512i){0});\n"
    "    return _mm512_cvtusepi16_epi8(w);\n}\n"
    "HELPER q_pair q_two_s_open(vi s, vi t) {\n"
    "    return _mm512_cvtsepi16_epi8(_mm512_packs_epi32((__m512i)s, (__m512i)t));\n}\n"
    "HELPER __m128i q_one_u_open(vi t) {\n"
    "    return _mm512_cvtusepi32_epi8((__m512i)q_max(t, (vi){0}));\n}\n"
    "HELPER __m128i q_one_s_open(vi t) {\n    return _mm512_cvtsepi32_epi8((__m512i)t);\n}\n"
    "#define q_two_s q_two_u\n#define q_one_s q_one_u\n"
    "HELPER vi q_dealt_2(__m256i r, int k) {\n"
    "    const __m512i w = _mm512_cvtepu8_epi16(r);\n"
    "    return (vi)(k == 0 ? _mm512_unpacklo_epi16(w, (__m512i){0}) : _mm512_unpackhi_epi16(w, "
    "(__m512i){0}));\n}\n"
    "HELPER vi q_dealt_1(__m128i r) {\n    return (vi)_mm512_cvtepu8_epi32(r);\n}\n";
static const char some_256[] =
    "typedef __m128i q_pair;\n"
    "#define Q_SOME(kind, pack, type) \\\n"
    "HELPER __m128i q_two_##kind##_open(vi s, vi t) { \\\n"
    "    const __m256i w = _mm256_packs_epi32((__m256i)s, (__m256i)t); \\\n"
    "    return _mm_##pack(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)); \\\n} \\\n"
    "HELPER __m128i q_two_##kind(vi s, vi t, const int *h) { \\\n"
    "    const __m128i b = q_two_##kind##_open(s, t); \\\n"
    "    return _mm_min_##type(_mm_max_##type(b, _mm_set1_epi8((char)h[2])), "
    "_mm_set1_epi8((char)h[3])); \\\n} \\\n"
    "HELPER __m128i q_one_##kind##_open(vi t) { \\\n"
    "    return _mm_shuffle_epi32(q_two_##kind##_open(t, t), 8); \\\n} \\\n"
    "HELPER __m128i q_one_##kind(vi t, const int *h) { \\\n"
    "    return _mm_shuffle_epi32(q_two_##kind(t, t, h), 8); \\\n}\n"
    "Q_SOME(u, packus_epi16, epu8)\nQ_SOME(s, packs_epi16, epi8)\n"
    "HELPER vi q_dealt_2(__m128i r, int k) {\n"
    "    const __m256i w = _mm256_cvtepu8_epi16(r);\n"
    "    return (vi)(k == 0 ? _mm256_unpacklo_epi16(w, (__m256i){0}) : _mm256_unpackhi_epi16(w, "
    "(__m256i){0}));\n}\n"
    "HELPER vi q_dealt_1(__m128i r) {\n    return (vi)_mm256_cvtepu8_epi32(r);\n}\n";
/* Of results without their zero points; `c` holds what is constant, the sign of r is turned. */
static const char residuals[] =
    "HELPER vi q_plus_dealt(vi t, vi r, vi c, const int *h) {\n"
    "    return (t + ((r * h[7] + c) >> 10)) >> 6;\n}\n"
    "HELPER vi q_join_dealt(vi t, vi r, vi c, const int *h) {\n"
    "    t = q_min(q_max(t, q_splat(h[9] - h[8])), q_splat(h[10] - h[8]));\n"
    "    return (t * h[11] + c + r * h[7]) >> 16;\n}\n";

void nas__q_emit_deal_prelude(const nas_target *target, nas_buf *out) {
    const nas__dot dot = nas__dot_of(target);
    const bool wide = target->vector_bytes == 64;
    if (dot != NAS__DOT_PAIR && dot != NAS__DOT_VNNI) return;
    nas_buf_printf(out, "%s%s%s", wide ? deals_masks : deals_copies,
                   dot == NAS__DOT_VNNI ? deals_vnni : deals_pair, deals);
    nas_buf_printf(out, "Q_DEALS(16, __m128i, _mm)\nQ_DEALS(32, __m256i, _mm256)\n%s",
                   wide ? "Q_DEALS(64, __m512i, _mm512)\n" : "");
    if (nas__qconv_looks(target)) nas_buf_printf(out, "%s%s", singles, wide ? singles_512 : "");
    nas_buf_printf(out, "%s%s", wide ? some_512 : some_256, residuals);
}
