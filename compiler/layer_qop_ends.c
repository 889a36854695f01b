/* layer_qop_ends.c - the two ends of a network of integers on x86: the caller's planes of floats become pixels of codes and the
 * other way round, 16 channels of as many pixels as a vector has lanes at a time, transposed in registers.
 *
 * x / scale must round as the division does. With y + z = 1/scale, z far below y, q = x*y + x*z is off by less than a unit in
 * the last place, and q + (x - q*scale)*y is then the rounded quotient (Markstein): what a division takes several times as long
 * for. Both x and the scale are multiplied by the power of two that puts the scale in [1, 2), so that nothing underflows, and x
 * is held to a little more than the codes reach. */
#include "compiler/layer_qop_internal.h"

enum { CHANNELS = 16 /* in a row of 16 bytes */ };

bool nas__qop_transposes(const nas_target *target, const nas__qop *op) {
    const nas__dot dot = nas__dot_of(target);
    const int32_t channels = op->kind == NAS__QOP_QUANTIZE ? op->out.shape.c : op->in[0].shape.c;
    if (op->in[0].plane > 0 || op->out.plane > 0) return false; /* codes in planes stay there */
    return (dot == NAS__DOT_PAIR || dot == NAS__DOT_VNNI) && op->block <= 1 && channels >= CHANNELS;
}

int32_t nas__qop_transposed(const nas_target *target, const nas__qop *op) {
    const int32_t channels = op->kind == NAS__QOP_QUANTIZE ? op->out.shape.c : op->in[0].shape.c;
    return nas__qop_transposes(target, op) ? channels / CHANNELS * CHANNELS : 0;
}

/* ---- helpers of the text ----------------------------------------------------------------------------------------- */

static const char lines_512[] =
    "#define Q_MASK(n) ((__mmask16)((1u << (n)) - 1))\n"
    "#define Q_LINE(p, n) ((n) == LANES ? load(p) : (vf)_mm512_maskz_loadu_ps(Q_MASK(n), p))\n"
    "#define Q_TO_LINE(p, v, n) _mm512_mask_storeu_ps(p, Q_MASK(n), (__m512)(v))\n"
    "#define Q_FOURTH(v, k) _mm512_extracti32x4_epi32(v, k)\n"
    "#define Q_FOURTHS(q, n) _mm512_inserti32x4(_mm512_inserti32x4(_mm512_inserti32x4( \\\n"
    "    _mm512_castsi128_si512(q_pixel(q, 0, n)), q_pixel(q, 4, n), 1), q_pixel(q, 8, n), 2), \\\n"
    "    q_pixel(q, 12, n), 3)\n"
    "#define Q_EACH(v) _mm512_broadcast_i32x4(v)\n"
    "#define MF __m512\n";
static const char lines_256[] =
    "#define Q_LINE(p, n) ((n) == LANES ? load(p) : load_n(p, n))\n"
    "#define Q_TO_LINE(p, v, n) store_n(p, v, n)\n"
    "#define Q_FOURTH(v, k) _mm256_extracti128_si256(v, k)\n"
    "#define Q_FOURTHS(q, n) _mm256_inserti128_si256( \\\n"
    "    _mm256_castsi128_si256(q_pixel(q, 0, n)), q_pixel(q, 4, n), 1)\n"
    "#define Q_EACH(v) _mm256_broadcastsi128_si256(v)\n"
    "#define MF __m256\n";

static const char encode[] =
    "typedef struct q_coding {\n"
    "    vf unit, scale, first, second, least, most;\n"
    "    MI zero, low, high, order;\n} q_coding;\n"
    "HELPER q_coding q_coding_of(float scale, int zero, int low, int high) {\n"
    "    union { float f; unsigned u; } s = {scale}, unit;\n"
    "    const unsigned e = s.u >> 23;\n"
    "    unit.u = (254 - (e < 1 ? 1 : e > 253 ? 253 : e)) << 23;\n"
    "    s.f *= unit.f;\n"
    "    const double inverse = 1 / (double)s.f;\n"
    "    const float first = (float)inverse;\n"
    "    return (q_coding){splat(unit.f), splat(s.f), splat(first), splat((float)(inverse - "
    "first)),\n"
    "        splat((float)(low - zero - 1) * s.f), splat((float)(high - zero + 1) * s.f),\n"
    "        MM(set1_epi16)((short)zero), MM(set1_epi8)((char)low), MM(set1_epi8)((char)high),\n"
    "        Q_EACH(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15))};\n}\n"
    "HELPER MI q_code(vf x, const q_coding *s) {\n"
    "    const vf v = vmin(vmax(x * s->unit, s->least), s->most);\n"
    "    const MF q = MM(fmadd_ps)((MF)v, (MF)s->first, (MF)(v * s->second));\n"
    "    const MF r = MM(fnmadd_ps)(q, (MF)s->scale, (MF)v);\n"
    "    return MM(cvtps_epi32)(MM(fmadd_ps)(r, (MF)s->first, q));\n}\n"
    /* Four channels: words of pixels. */
    "#define Q_FOUR(kind, pack, type) \\\n"
    "HELPER MI q_four_##kind(const float *p, long plane, int n, const q_coding *s) { \\\n"
    "    const MI a = MM(packs_epi32)(q_code(Q_LINE(p, n), s), q_code(Q_LINE(p + plane, n), s)); "
    "\\\n"
    "    const MI b = MM(packs_epi32)(q_code(Q_LINE(p + 2 * plane, n), s), \\\n"
    "        q_code(Q_LINE(p + 3 * plane, n), s)); \\\n"
    "    const MI c = MM(pack)(MM(adds_epi16)(a, s->zero), MM(adds_epi16)(b, s->zero)); \\\n"
    "    return MM(shuffle_epi8)(MM(min_##type)(MM(max_##type)(c, s->low), s->high), s->order); "
    "\\\n} \\\n"
    "HELPER void q_pixels_##kind(const float *p, long plane, int n, unsigned char *o, long pitch, "
    "const q_coding *s) { \\\n"
    "    q_turn(q_four_##kind(p, plane, n, s), q_four_##kind(p + 4 * plane, plane, n, s), \\\n"
    "        q_four_##kind(p + 8 * plane, plane, n, s), q_four_##kind(p + 12 * plane, plane, n, "
    "s), n, o, pitch); \\\n}\n"
    "HELPER void q_keep_fourths(MI v, int first, int n, unsigned char *o, long pitch) {\n"
    "    if (first < n) *(__m128i_u *)(o + first * pitch) = Q_FOURTH(v, 0);\n"
    "    if (first + 4 < n) *(__m128i_u *)(o + (first + 4) * pitch) = Q_FOURTH(v, 1);\n"
    "#ifdef Q_MASK\n"
    "    if (first + 8 < n) *(__m128i_u *)(o + (first + 8) * pitch) = Q_FOURTH(v, 2);\n"
    "    if (first + 12 < n) *(__m128i_u *)(o + (first + 12) * pitch) = Q_FOURTH(v, 3);\n"
    "#endif\n}\n"
    "HELPER void q_turn(MI a, MI b, MI c, MI d, int n, unsigned char *o, long pitch) {\n"
    "    const MI e = MM(unpacklo_epi32)(a, b), f = MM(unpackhi_epi32)(a, b);\n"
    "    const MI g = MM(unpacklo_epi32)(c, d), i = MM(unpackhi_epi32)(c, d);\n"
    "    q_keep_fourths(MM(unpacklo_epi64)(e, g), 0, n, o, pitch);\n"
    "    q_keep_fourths(MM(unpackhi_epi64)(e, g), 1, n, o, pitch);\n"
    "    q_keep_fourths(MM(unpacklo_epi64)(f, i), 2, n, o, pitch);\n"
    "    q_keep_fourths(MM(unpackhi_epi64)(f, i), 3, n, o, pitch);\n}\n"
    "Q_FOUR(u, packus_epi16, epu8)\nQ_FOUR(s, packs_epi16, epi8)\n";

static const char decode[] =
    "#define q_pixel(q, k, n) ((k) + first < (n) ? *(const __m128i_u *)((q) + ((k) + first) * "
    "pitch) : (__m128i){0})\n"
    "HELPER MI q_fourths(const unsigned char *q, int first, int n, long pitch) {\n"
    "    return Q_FOURTHS(q, n);\n}\n"
    "HELPER void q_plane(vi v, float *o, int n, vi zero, vf scale) {\n"
    "    const vf f = __builtin_convertvector(v - zero, vf) * scale;\n"
    "    if (n == LANES) store(o, f);\n    else Q_TO_LINE(o, f, n);\n}\n"
    "#define Q_PLANES(kind, k0, k1, k2, k3) \\\n"
    "HELPER void q_four_planes_##kind(MI m, float *o, long plane, int n, vi zero, vf scale) { \\\n"
    "    const vi w = (vi)m; \\\n"
    "    q_plane(k0, o, n, zero, scale); \\\n"
    "    q_plane(k1, o + plane, n, zero, scale); \\\n"
    "    q_plane(k2, o + 2 * plane, n, zero, scale); \\\n"
    "    q_plane(k3, o + 3 * plane, n, zero, scale); \\\n} \\\n"
    "HELPER void q_planes_##kind(const unsigned char *q, long pitch, float *o, long plane, int n, "
    "vi zero, vf scale) { \\\n"
    "    const MI a = q_fourths(q, 0, n, pitch), b = q_fourths(q, 1, n, pitch); \\\n"
    "    const MI c = q_fourths(q, 2, n, pitch), d = q_fourths(q, 3, n, pitch); \\\n"
    "    const MI e = MM(unpacklo_epi32)(a, b), f = MM(unpackhi_epi32)(a, b); \\\n"
    "    const MI g = MM(unpacklo_epi32)(c, d), i = MM(unpackhi_epi32)(c, d); \\\n"
    "    q_four_planes_##kind(MM(unpacklo_epi64)(e, g), o, plane, n, zero, scale); \\\n"
    "    q_four_planes_##kind(MM(unpackhi_epi64)(e, g), o + 4 * plane, plane, n, zero, scale); "
    "\\\n"
    "    q_four_planes_##kind(MM(unpacklo_epi64)(f, i), o + 8 * plane, plane, n, zero, scale); "
    "\\\n"
    "    q_four_planes_##kind(MM(unpackhi_epi64)(f, i), o + 12 * plane, plane, n, zero, scale); "
    "\\\n}\n"
    "Q_PLANES(u, w & 255, (w >> 8) & 255, (w >> 16) & 255, (w >> 24) & 255)\n"
    "Q_PLANES(s, w << 24 >> 24, w << 16 >> 24, w << 8 >> 24, w >> 24)\n";

void nas__qop_emit_ends_prelude(const nas_target *target, const nas__qop *op, nas_buf *out) {
    if (!nas__qop_transposes(target, op)) return;
    const bool to = op->kind == NAS__QOP_QUANTIZE;
    nas_buf_printf(out, "#ifndef MF\n%s#endif\n#ifndef %s\n#define %s\n%s#endif\n",
                   target->vector_bytes == 64 ? lines_512 : lines_256,
                   to ? "Q_ENCODES" : "Q_DECODES", to ? "Q_ENCODES" : "Q_DECODES",
                   to ? encode : decode);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Steps along a row of `width` pixels; the last one goes back over pixels that are done rather than do fewer. */
static int32_t emit_steps(int32_t width, int32_t lanes, nas_buf *out) {
    nas_buf_printf(out, "            for (int first = 0; first < %d; first += LANES) {\n", width);
    if (width < lanes) {
        nas_buf_puts(out, "                const int x = first;\n");
        return width;
    }
    nas_buf_printf(out, "                const int x = first + LANES <= %d ? first : %d;\n", width,
                   width - lanes);
    return lanes;
}

void nas__qop_emit_to_pixels(const nas_target *target, const nas__qop *op, nas_buf *out) {
    const nas_shape s = op->out.shape;
    const size_t plane = (size_t)s.h * (size_t)s.w;
    nas_buf_printf(out,
                   "        const q_coding coding = q_coding_of(*(const q_float *)&h[%d], "
                   "h[%d], h[%d], h[%d]);\n"
                   "        for (int c = 0; c < %d; c += %d) {\n"
                   "            const float *p = (const float *)in + (long)c * %zu + (long)y * "
                   "%d;\n",
                   NAS__Q_SCALE, NAS__Q_ZERO_OUT, NAS__Q_LOW, NAS__Q_HIGH,
                   nas__qop_transposed(target, op), (int)CHANNELS, plane, s.w);
    const int32_t n = emit_steps(s.w, target->vector_bytes / 4, out);
    nas_buf_printf(out,
                   "                for (int k = 0; k < %d; k++) AHEAD(p + x + (long)k * %zu + "
                   "%d); /* the next row */\n",
                   (int)CHANNELS, plane, s.w);
    nas_buf_printf(out,
                   "                q_pixels_%c(p + x, %zu, %d, (unsigned char *)out + (long)y * "
                   "%zu + (long)x * %d + c, %d, &coding);\n            }\n        }\n",
                   op->out_signed ? 's' : 'u', plane, n, op->out.row, op->out.pitch, op->out.pitch);
}

void nas__qop_emit_to_planes(const nas_target *target, const nas__qop *op, nas_buf *out) {
    const nas_shape s = op->in[0].shape;
    const size_t plane = (size_t)s.h * (size_t)s.w;
    nas_buf_printf(out,
                   "        const vi zero = q_splat(h[%d]);\n"
                   "        for (int c = 0; c < %d; c += %d) {\n"
                   "            float *o = (float *)out + (long)c * %zu + (long)y * %d;\n",
                   NAS__Q_ZERO_IN, nas__qop_transposed(target, op), (int)CHANNELS, plane, s.w);
    const int32_t n = emit_steps(s.w, target->vector_bytes / 4, out);
    nas_buf_printf(
        out,
        "                q_planes_%c((const unsigned char *)in + (long)y * %zu + (long)x "
        "* %d + c, %d, o + x, %zu, %d, zero, scale);\n            }\n        }\n",
        op->in_signed[0] ? 's' : 'u', op->in[0].row, op->in[0].pitch, op->in[0].pitch, plane, n);
}
