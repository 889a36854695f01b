/* layer_qop.c - integer kernels of the layer form other than convolutions: additions, pools, and the two ends of a network.
 * Memory bound all of them: whole vectors of channels, the last one exactly as wide as there are channels. */
#include "compiler/layer_qop_internal.h"

#include <stdio.h>
#include <string.h>

const char *nas__qop_kind_name(nas__qop_kind kind) {
    switch (kind) {
    case NAS__QOP_ADD: return "add";
    case NAS__QOP_MUL: return "mul";
    case NAS__QOP_MAX_POOL: return "max_pool";
    case NAS__QOP_AVG_POOL: return "avg_pool";
    case NAS__QOP_QUANTIZE: return "quantize";
    case NAS__QOP_DEQUANTIZE: return "dequantize";
    case NAS__QOP_ENCODE: return "encode";
    case NAS__QOP_DECODE: return "decode";
    case NAS__QOP_PRELU: return "prelu";
    case NAS__QOP_TABLE: return "table";
    case NAS__QOP_DEPTH_TO_SPACE: return "shuffle";
    case NAS__QOP_NEAREST: return "nearest";
    }
    return "";
}

bool nas__qop_has_table(const nas__qop *op) {
    return op->kind == NAS__QOP_TABLE || op->mapped;
}

nas__qop nas__qop_copy(void) {
    return (nas__qop){.kind = NAS__QOP_AVG_POOL,
                      .pool = {.kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1}};
}

int32_t nas__qop_units(const nas__qop *op) {
    return op->kind == NAS__QOP_DEQUANTIZE ? op->in[0].shape.h : op->out.shape.h;
}

enum { TABLE_BYTES = 256 };

static int32_t window(const nas__qop *op) {
    return op->pool.kernel_h * op->pool.kernel_w;
}

/* After the head: multipliers of each divisor 0..window, or of each channel in whole vectors; or the table. */
size_t nas__qop_weight_bytes(const nas__qop *op) {
    size_t n = NAS__Q_HEAD;
    if (op->kind == NAS__QOP_AVG_POOL) n += (size_t)window(op) + 1;
    if (op->kind == NAS__QOP_PRELU) n += (size_t)(op->out.shape.c + 15) / 16 * 16;
    if (nas__qop_has_table(op)) n += TABLE_BYTES / 4;
    return (4 * n + 63) / 64 * 64;
}

static nas_status pack_averages(nas_ctx *ctx, const nas__qop *op, const nas__qop_data *data,
                                int32_t *left, int32_t *out) {
    const int32_t least = op->pool.count_include_pad ? window(op) : 1;
    nas_status status = nas_quant_left(ctx, data->ratio / least, left);
    for (int32_t n = least; n <= window(op) && status == NAS_OK; n++)
        status = nas_quant_multiplier(ctx, data->ratio / n, *left, &out[n]);
    return status;
}

nas_status nas__qop_pack(nas_ctx *ctx, const nas__qop *op, const nas__qop_data *data, void *out) {
    int32_t *head = out, left = 0, product = 0;
    memset(out, 0, nas__qop_weight_bytes(op));
    if (op->kind == NAS__QOP_MUL) {
        nas_status status = nas_quant_left(ctx, data->ratio, &left);
        if (status == NAS_OK) status = nas_quant_multiplier(ctx, data->ratio, left, &product);
        if (status != NAS_OK) return status;
    }
    if (op->kind == NAS__QOP_AVG_POOL) {
        const nas_status status = pack_averages(ctx, op, data, &left, head + NAS__Q_HEAD);
        if (status != NAS_OK) return status;
    }
    if (op->kind == NAS__QOP_PRELU)
        memcpy(head + NAS__Q_HEAD, data->below, (size_t)op->out.shape.c * sizeof *data->below);
    if (nas__qop_has_table(op)) memcpy(head + NAS__Q_HEAD, data->table, TABLE_BYTES);
    head[NAS__Q_ZERO_IN] = data->zero_in[0];
    head[NAS__Q_ZERO_IN_2] = data->zero_in[1];
    head[NAS__Q_ZERO_OUT] = data->requant.zero_out;
    head[NAS__Q_LOW] = data->requant.low;
    head[NAS__Q_HIGH] = data->requant.high;
    head[NAS__Q_LEFT] = left;
    head[NAS__Q_MOST] = NAS_QUANT_ACC_MAX >> left;
    head[NAS__Q_MULTIPLIER_1] = op->kind == NAS__QOP_MUL ? product : data->multiplier[0];
    head[NAS__Q_MULTIPLIER_2] = data->multiplier[1];
    memcpy(&head[NAS__Q_SCALE], &data->scale, sizeof data->scale);
    return NAS_OK;
}

void nas__qop_name(const nas_target *target, const nas__qop *op, nas_buf *out) {
    char all[512];
    int n =
        snprintf(all, sizeof all, "%d %d|%d %d %d", target->vector_bytes, (int)nas__dot_of(target),
                 (int)op->in_signed[0], (int)op->in_signed[1], (int)op->out_signed);
    const nas__view *views[3] = {&op->in[0], &op->in[1], &op->out};
    for (int i = 0; i < 3 && n > 0; i++) {
        n += snprintf(all + n, sizeof all - (size_t)n, "|%d %d %d %d %zu", views[i]->shape.h,
                      views[i]->shape.w, views[i]->shape.c, views[i]->pitch, views[i]->row);
    }
    const nas_pool_attributes *p = &op->pool;
    n += snprintf(all + n, sizeof all - (size_t)n, "|%d %d %d %d %d %d %d %d %d %d", p->kernel_h,
                  p->kernel_w, p->stride_h, p->stride_w, p->pad_top, p->pad_left,
                  (int)p->count_include_pad, (int)op->block, (int)op->resize, (int)op->mapped);
    char hash[NAS_SHA256_HEX];
    nas_sha256_hex(all, (size_t)n, hash);
    nas_buf_printf(out, "q%s_%.12s", nas__qop_kind_name(op->kind), hash);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static char type_of(bool is_signed) {
    return is_signed ? 's' : 'u';
}

/* `body` once for the whole vectors of the channels [first, channels) (its %d is the number of lanes), once for the
 * rest. */
static void emit_channels_from(int32_t first, int32_t channels, int32_t lanes, const nas__qop *op,
                               void (*body)(const nas__qop *, int32_t, nas_buf *), nas_buf *out) {
    if (channels - first >= lanes) {
        nas_buf_printf(out, "            for (int c = %d; c < %d; c += LANES) {\n", first,
                       channels / lanes * lanes);
        body(op, lanes, out);
        nas_buf_puts(out, "            }\n");
    }
    if (channels % lanes > 0) {
        nas_buf_printf(out, "            {\n                const int c = %d;\n",
                       channels / lanes * lanes);
        body(op, channels % lanes, out);
        nas_buf_puts(out, "            }\n");
    }
}

static void emit_channels(int32_t channels, int32_t lanes, const nas__qop *op,
                          void (*body)(const nas__qop *, int32_t, nas_buf *), nas_buf *out) {
    emit_channels_from(0, channels, lanes, op, body, out);
}

static void add_body(const nas__qop *op, int32_t n, nas_buf *out) {
    nas_buf_printf(
        out,
        "                const vi x = q_get_%c(a + c, %d), y = q_get_%c(b + c, %d);\n"
        "                q_put_%c(o + c, ((x - h[%d]) * h[%d] + (y - h[%d]) * h[%d] + %d) "
        ">> %d, %d, h);\n",
        type_of(op->in_signed[0]), n, type_of(op->in_signed[1]), n, type_of(op->out_signed),
        NAS__Q_ZERO_IN, NAS__Q_MULTIPLIER_1, NAS__Q_ZERO_IN_2, NAS__Q_MULTIPLIER_2,
        1 << (NAS_QUANT_ADD_BITS - 1), NAS_QUANT_ADD_BITS, n);
}

static void mul_body(const nas__qop *op, int32_t n, nas_buf *out) {
    nas_buf_printf(
        out,
        "                const vi x = q_get_%c(a + c, %d) - h[%d], y1 = q_get_%c(b + c, "
        "%d) - h[%d];\n"
        "                q_put_%c(o + c, q_round(q_left(x * y1, h), q_splat(h[%d])), %d, "
        "h);\n",
        type_of(op->in_signed[0]), n, NAS__Q_ZERO_IN, type_of(op->in_signed[1]), n,
        NAS__Q_ZERO_IN_2, type_of(op->out_signed), NAS__Q_MULTIPLIER_1, n);
}

static void prelu_body(const nas__qop *op, int32_t n, nas_buf *out) {
    nas_buf_printf(out,
                   "                const vi x = q_get_%c(a + c, %d) - h[%d], below = x < 0;\n"
                   "                const vi m = (q_i32(h + %d + c) & below) | (above & ~below);\n"
                   "                q_put_%c(o + c, (x * m + %d) >> %d, %d, h);\n",
                   type_of(op->in_signed[0]), n, NAS__Q_ZERO_IN, (int)NAS__Q_HEAD,
                   type_of(op->out_signed), 1 << (NAS_QUANT_ADD_BITS - 1), NAS_QUANT_ADD_BITS, n);
}

static void table_body(const nas__qop *op, int32_t n, nas_buf *out) {
    (void)op;
    nas_buf_printf(out,
                   "                for (int i = 0; i < %d; i++) o[c + i] = table[a[c + i]];\n", n);
}

/* Codes to codes, one by one. */
static void emit_map(const nas__qop *op, int32_t lanes, nas_buf *out) {
    const bool table = op->kind == NAS__QOP_TABLE;
    if (table) {
        nas_buf_printf(out,
                       "        const unsigned char *table = (const unsigned char *)(h + %d);\n",
                       (int)NAS__Q_HEAD);
    } else {
        nas_buf_printf(out, "        const vi above = q_splat(h[%d]);\n", NAS__Q_MULTIPLIER_1);
    }
    nas_buf_printf(out,
                   "        const unsigned char *a = (const unsigned char *)in + (long)y * %zu;\n"
                   "        unsigned char *o = (unsigned char *)out + (long)y * %zu;\n"
                   "        for (int x = 0; x < %d; x++, a += %d, o += %d) {\n",
                   op->in[0].row, op->out.row, op->out.shape.w, op->in[0].pitch, op->out.pitch);
    emit_channels(op->out.shape.c, lanes, op, table ? table_body : prelu_body, out);
    nas_buf_puts(out, "        }\n");
}

/* Steps of an operand: 0 along an axis where its one row or column is repeated. */
static size_t row_of(const nas__qop *op, int32_t k) {
    return op->in[k].shape.h == op->out.shape.h ? op->in[k].row : 0;
}

static int32_t pitch_of(const nas__qop *op, int32_t k) {
    return op->in[k].shape.w == op->out.shape.w ? op->in[k].pitch : 0;
}

static void emit_pair(const nas__qop *op, int32_t lanes, nas_buf *out) {
    nas_buf_printf(out,
                   "        const unsigned char *a = (const unsigned char *)in + (long)y * %zu;\n"
                   "        const unsigned char *b = (const unsigned char *)residual + (long)y * "
                   "%zu;\n"
                   "        unsigned char *o = (unsigned char *)out + (long)y * %zu;\n"
                   "        for (int x = 0; x < %d; x++, a += %d, b += %d, o += %d) {\n",
                   row_of(op, 0), row_of(op, 1), op->out.row, op->out.shape.w, pitch_of(op, 0),
                   pitch_of(op, 1), op->out.pitch);
    emit_channels(op->out.shape.c, lanes, op, op->kind == NAS__QOP_MUL ? mul_body : add_body, out);
    nas_buf_puts(out, "        }\n");
}

/* The taps inside the input: rows [y0, y1), columns [x0, x1); p is the first of them, k their number. */
static void emit_window(const nas__qop *op, nas_buf *out) {
    const nas_pool_attributes *p = &op->pool;
    nas_buf_printf(
        out,
        "        int y0 = y * %d - %d, y1 = y0 + %d;\n"
        "        if (y1 > %d) y1 = %d;\n        if (y0 < 0) y0 = 0;\n"
        "        unsigned char *o = (unsigned char *)out + (long)y * %zu;\n"
        "        for (int x = 0; x < %d; x++, o += %d) {\n"
        "            int x0 = x * %d - %d, x1 = x0 + %d;\n"
        "            if (x1 > %d) x1 = %d;\n            if (x0 < 0) x0 = 0;\n"
        "            const unsigned char *p = (const unsigned char *)in + (long)y0 * %zu "
        "+ (long)x0 * %d;\n"
        "            const int k = (y1 - y0) * (x1 - x0);\n            (void)k;\n",
        p->stride_h, p->pad_top, p->kernel_h, op->in[0].shape.h, op->in[0].shape.h, op->out.row,
        op->out.shape.w, op->out.pitch, p->stride_w, p->pad_left, p->kernel_w, op->in[0].shape.w,
        op->in[0].shape.w, op->in[0].row, op->in[0].pitch);
}

static void max_body(const nas__qop *op, int32_t n, nas_buf *out) {
    const char type = type_of(op->in_signed[0]);
    nas_buf_printf(
        out,
        "                vi m = q_get_%c(p + c, %d);\n"
        "                for (int i = 0; i < y1 - y0; i++)\n"
        "                    for (int j = 0; j < x1 - x0; j++)\n"
        "                        m = q_max(m, q_get_%c(p + c + (long)i * %zu + (long)j * "
        "%d, %d));\n"
        "                q_put_%c(o + c, m - h[%d], %d, h);\n",
        type, n, type, op->in[0].row, op->in[0].pitch, n, type_of(op->out_signed), NAS__Q_ZERO_OUT,
        n);
}

/* Codes as they are, whole vectors of bytes; what does not fill one as before. */
static void emit_max_bytes(const nas_target *target, const nas__qop *op, nas_buf *out) {
    const int32_t width = target->vector_bytes, whole = op->out.shape.c / width * width;
    const char *type = width == 64 ? "__m512i" : "__m256i",
               *sign = op->out_signed ? "epi8" : "epu8";
    nas_buf_printf(
        out,
        "            for (int c = 0; c < %d; c += %d) {\n"
        "                %s m = q_bytes_%d(p + c);\n"
        "                for (int i = 0; i < y1 - y0; i++)\n"
        "                    for (int j = 0; j < x1 - x0; j++)\n"
        "                        m = MM(max_%s)(m, q_bytes_%d(p + c + (long)i * %zu + (long)j * "
        "%d));\n"
        "                q_keep_%d(o + c, MM(min_%s)(MM(max_%s)(m, MM(set1_epi8)((char)h[%d])), "
        "MM(set1_epi8)((char)h[%d])));\n            }\n",
        whole, width, type, width, sign, width, op->in[0].row, op->in[0].pitch, width, sign, sign,
        NAS__Q_LOW, NAS__Q_HIGH);
}

static void emit_max(const nas_target *target, const nas__qop *op, nas_buf *out) {
    const nas__dot dot = nas__dot_of(target);
    const int32_t bytes = target->vector_bytes, channels = op->out.shape.c;
    /* one quantization: the bytes compare */
    const bool whole = (dot == NAS__DOT_PAIR || dot == NAS__DOT_VNNI) &&
                       op->in_signed[0] == op->out_signed && channels >= bytes;
    if (whole) emit_max_bytes(target, op, out);
    emit_channels_from(whole ? channels / bytes * bytes : 0, channels, bytes / 4, op, max_body,
                       out);
}

static void average_body(const nas__qop *op, int32_t n, nas_buf *out) {
    nas_buf_printf(
        out,
        "                vi s = q_splat(-h[%d] * k);\n"
        "                for (int i = 0; i < y1 - y0; i++)\n"
        "                    for (int j = 0; j < x1 - x0; j++)\n"
        "                        s += q_get_%c(p + c + (long)i * %zu + (long)j * %d, %d);\n",
        NAS__Q_ZERO_IN, type_of(op->in_signed[0]), op->in[0].row, op->in[0].pitch, n);
    nas_buf_printf(out, "                s = q_round(q_left(s, h), q_splat(h[%d + ",
                   (int)NAS__Q_HEAD);
    if (op->pool.count_include_pad)
        nas_buf_printf(out, "%d", window(op));
    else
        nas_buf_puts(out, "k");
    nas_buf_printf(out, "]));\n                q_put_%c(o + c, s, %d, h);\n",
                   type_of(op->out_signed), n);
}

/* x, n: the pixels of a step. The last one goes back over pixels that are done rather than do fewer. */
static void emit_span(int32_t width, int32_t lanes, nas_buf *out) {
    nas_buf_printf(out, "        for (int first = 0; first < %d; first += LANES) {\n", width);
    if (width >= lanes) {
        nas_buf_printf(out,
                       "            const int x = first + LANES <= %d ? first : %d, n = LANES;\n",
                       width, width - lanes);
    } else {
        nas_buf_printf(out, "            const int x = first, n = %d;\n", width);
    }
}

enum { TOGETHER = 4 }; /* channels that the two ends of a network move as one word */

/* Codes of LANES pixels of channel c + k, in vector q<k>. 0x1.8p+23 leaves no bits below one: adding it rounds half to
 * even. */
static void quantize_channel(const nas__qop *op, int32_t k, nas_buf *out) {
    const nas_shape s = op->out.shape;
    nas_buf_printf(out,
                   "                vf v%d = {0};\n"
                   "                if (n == LANES) v%d = load(p + x + %zu);\n"
                   "                else for (int i = 0; i < n; i++) v%d[i] = p[x + i + %zu];\n"
                   "                v%d = vmin(vmax(v%d / scale, low), high) + splat(0x1.8p+23f);\n"
                   "                const vi q%d = (vi)v%d - 0x4b400000 + h[%d];\n",
                   k, k, (size_t)k * (size_t)s.h * (size_t)s.w, k,
                   (size_t)k * (size_t)s.h * (size_t)s.w, k, k, k, k, NAS__Q_ZERO_OUT);
}

/* `channels` from c on. Words of four channels: bytes one by one would go to memory four times as often. */
static void quantize_channels(const nas__qop *op, int32_t channels, nas_buf *out) {
    const nas_shape s = op->out.shape;
    nas_buf_printf(out,
                   "                const float *p = (const float *)in + (long)c * %zu + (long)y * "
                   "%d;\n",
                   (size_t)s.h * (size_t)s.w, s.w);
    for (int32_t k = 0; k < channels; k++)
        quantize_channel(op, k, out);
    if (channels == TOGETHER) {
        nas_buf_puts(out, "                const vi w = (q0 & 255) | (q1 & 255) << 8 | (q2 & 255) "
                          "<< 16 | q3 << 24;\n");
    }
    nas_buf_puts(out, "                for (int i = 0; i < n; i++) {\n");
    if (channels == TOGETHER) {
        nas_buf_printf(out,
                       "                    const int word = w[i];\n"
                       "                    __builtin_memcpy(o + (long)(x + i) * %d + c, &word, "
                       "4);\n",
                       op->out.pitch);
    }
    for (int32_t k = 0; k < channels && channels < TOGETHER; k++) {
        nas_buf_printf(out,
                       "                    o[(long)(x + i) * %d + c + %d] = (unsigned "
                       "char)q%d[i];\n",
                       op->out.pitch, k, k);
    }
    nas_buf_puts(out, "                }\n");
}

/* `body` for every TOGETHER channels from `first` on, then for the rest. */
static void emit_together(const nas__qop *op, int32_t first, int32_t channels,
                          void (*body)(const nas__qop *, int32_t, nas_buf *), nas_buf *out) {
    const int32_t whole = channels / TOGETHER * TOGETHER;
    if (whole > first) {
        nas_buf_printf(out, "            for (int c = %d; c < %d; c += %d) {\n", first, whole,
                       (int)TOGETHER);
        body(op, TOGETHER, out);
        nas_buf_puts(out, "            }\n");
    }
    if (channels > whole) {
        nas_buf_printf(out, "            {\n                const int c = %d;\n", whole);
        body(op, channels - whole, out);
        nas_buf_puts(out, "            }\n");
    }
}

static void emit_quantize(const nas_target *target, const nas__qop *op, nas_buf *out) {
    const int32_t done = nas__qop_transposed(target, op);
    if (done > 0) nas__qop_emit_to_pixels(target, op, out);
    if (done == op->out.shape.c) return;
    nas_buf_printf(
        out,
        "        const vf scale = splat(*(const q_float *)&h[%d]);\n"
        "        const vf low = splat((float)(h[%d] - h[%d])), high = splat((float)(h[%d] "
        "- h[%d]));\n"
        "        unsigned char *o = (unsigned char *)out + (long)y * %zu;\n",
        NAS__Q_SCALE, NAS__Q_LOW, NAS__Q_ZERO_OUT, NAS__Q_HIGH, NAS__Q_ZERO_OUT, op->out.row);
    emit_span(op->out.shape.w, target->vector_bytes / 4, out);
    emit_together(op, done, op->out.shape.c, quantize_channels, out);
    nas_buf_puts(out, "        }\n");
}

static void encode_body(const nas__qop *op, int32_t n, nas_buf *out) {
    nas_buf_printf(
        out,
        "                const vf v = vmin(vmax(load_n(p + c, %d) / scale, low), high) + "
        "splat(0x1.8p+23f);\n"
        "                q_put_%c(o + c, (vi)v - 0x4b400000, %d, h);\n",
        n, type_of(op->out_signed), n);
}

static void emit_encode(const nas__qop *op, int32_t lanes, nas_buf *out) {
    nas_buf_printf(
        out,
        "        const vf scale = splat(*(const q_float *)&h[%d]);\n"
        "        const vf low = splat((float)(h[%d] - h[%d])), high = splat((float)(h[%d] "
        "- h[%d]));\n"
        "        const float *p = (const float *)in + (long)y * %zu;\n"
        "        unsigned char *o = (unsigned char *)out + (long)y * %zu;\n"
        "        for (int x = 0; x < %d; x++, p += %d, o += %d) {\n",
        NAS__Q_SCALE, NAS__Q_LOW, NAS__Q_ZERO_OUT, NAS__Q_HIGH, NAS__Q_ZERO_OUT, op->in[0].row,
        op->out.row, op->out.shape.w, op->in[0].pitch, op->out.pitch);
    emit_channels(op->out.shape.c, lanes, op, encode_body, out);
    nas_buf_puts(out, "        }\n");
}

static void decode_body(const nas__qop *op, int32_t n, nas_buf *out) {
    nas_buf_printf(out,
                   "                const vi q = q_get_%c(p + c, %d) - h[%d];\n"
                   "                store_n(o + c, __builtin_convertvector(q, vf) * scale, %d);\n",
                   type_of(op->in_signed[0]), n, NAS__Q_ZERO_IN, n);
}

static void emit_decode(const nas__qop *op, int32_t lanes, nas_buf *out) {
    nas_buf_printf(out,
                   "        const vf scale = splat(*(const q_float *)&h[%d]);\n"
                   "        const unsigned char *p = (const unsigned char *)in + (long)y * %zu;\n"
                   "        float *o = (float *)out + (long)y * %zu;\n"
                   "        for (int x = 0; x < %d; x++, p += %d, o += %d) {\n",
                   NAS__Q_SCALE, op->in[0].row, op->out.row, op->out.shape.w, op->in[0].pitch,
                   op->out.pitch);
    emit_channels(op->out.shape.c, lanes, op, decode_body, out);
    nas_buf_puts(out, "        }\n");
}

/* Where channel c + k of row y goes at the caller's, as an expression. */
static void planes_at(const nas__qop *op, int32_t k, nas_buf *out) {
    const nas_shape s = op->in[0].shape;
    const int32_t r = op->block > 1 ? op->block : 1;
    const size_t width = (size_t)s.w * (size_t)r;
    if (r == 1) {
        nas_buf_printf(out, "(float *)out + (long)(c + %d) * %zu + (long)y * %zu", k,
                       (size_t)s.h * width, width);
    } else { /* depth to space */
        nas_buf_printf(out,
                       "(float *)out + (long)((c + %d) / %d) * %zu + (long)(y * %d + (c + %d) / %d "
                       "%% %d) * %zu + (c + %d) %% %d",
                       k, r * r, (size_t)s.h * (size_t)r * width, r, k, r, r, width, k, r);
    }
}

static void dequantize_channels(const nas__qop *op, int32_t channels, nas_buf *out) {
    const int32_t r = op->block > 1 ? op->block : 1;
    const char *type = op->in_signed[0] ? "signed" : "unsigned";
    for (int32_t k = 0; k < channels; k++) {
        nas_buf_printf(out, "                float *o%d = ", k);
        planes_at(op, k, out);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_printf(out,
                   "                const %s char *q = p + (long)x * %d + c;\n"
                   "                if (n == LANES) {\n"
                   "                    vi w = {0};\n"
                   "                    for (int i = 0; i < LANES; i++) {\n"
                   "                        int word = 0;\n"
                   "                        __builtin_memcpy(&word, q + (long)i * %d, %d);\n"
                   "                        w[i] = word;\n                    }\n",
                   type, op->in[0].pitch, op->in[0].pitch, channels);
    for (int32_t k = 0; k < channels;
         k++) { /* the byte at the top, down again with or without sign */
        if (op->in_signed[0]) {
            nas_buf_printf(out, "                    const vi q%d = w << %d >> 24;\n", k,
                           24 - 8 * k);
        } else {
            nas_buf_printf(out, "                    const vi q%d = (w >> %d) & 255;\n", k, 8 * k);
        }
        nas_buf_printf(
            out,
            "                    const vf v%d = __builtin_convertvector(q%d - h[%d], vf) "
            "* scale;\n",
            k, k, NAS__Q_ZERO_IN);
        if (r == 1) {
            nas_buf_printf(out, "                    store(o%d + x, v%d);\n", k, k);
        } else {
            nas_buf_printf(
                out,
                "                    for (int i = 0; i < LANES; i++) o%d[(x + i) * %d] = "
                "v%d[i];\n",
                k, r, k);
        }
    }
    nas_buf_puts(out, "                } else {\n"
                      "                    for (int i = 0; i < n; i++) {\n");
    for (int32_t k = 0; k < channels; k++) {
        nas_buf_printf(out,
                       "                        o%d[(x + i) * %d] = (float)(q[(long)i * %d + %d] - "
                       "h[%d]) * scale[0];\n",
                       k, r, op->in[0].pitch, k, NAS__Q_ZERO_IN);
    }
    nas_buf_puts(out, "                    }\n                }\n");
}

static void emit_dequantize(const nas_target *target, const nas__qop *op, nas_buf *out) {
    const nas_shape s = op->in[0].shape;
    const int32_t done = nas__qop_transposed(target, op);
    const char *type = op->in_signed[0] ? "signed" : "unsigned";
    nas_buf_printf(out, "        const vf scale = splat(*(const q_float *)&h[%d]);\n",
                   NAS__Q_SCALE);
    if (done > 0) nas__qop_emit_to_planes(target, op, out);
    if (done == s.c) return;
    nas_buf_printf(out, "        const %s char *p = (const %s char *)in + (long)y * %zu;\n", type,
                   type, op->in[0].row);
    emit_span(s.w, target->vector_bytes / 4, out);
    emit_together(op, done, s.c, dequantize_channels, out);
    nas_buf_puts(out, "        }\n");
}

void nas__qop_emit(const nas_target *target, const nas__qop *op, nas_buf *out) {
    const int32_t lanes = target->vector_bytes / 4;
    if (op->kind == NAS__QOP_QUANTIZE || op->kind == NAS__QOP_DEQUANTIZE)
        nas__qop_emit_ends_prelude(target, op, out);
    nas_buf_puts(out, "KERNEL void ");
    nas__qop_name(target, op, out);
    nas_buf_puts(out, "(const void *in, void *out, const void *residual,\n"
                      "    const void *weights, void *scratch, int begin, int end) {\n"
                      "    const int *h = (const int *)weights;\n"
                      "    (void)h; (void)residual; (void)scratch;\n"
                      "    for (int y = begin; y < end; y++) {\n");
    switch (op->kind) {
    case NAS__QOP_ADD:
    case NAS__QOP_MUL: emit_pair(op, lanes, out); break;
    case NAS__QOP_DEPTH_TO_SPACE:
    case NAS__QOP_NEAREST: nas__qop_emit_move(op, out); break;
    case NAS__QOP_MAX_POOL:
        emit_window(op, out);
        emit_max(target, op, out);
        nas_buf_puts(out, "        }\n");
        break;
    case NAS__QOP_AVG_POOL:
        emit_window(op, out);
        emit_channels(op->out.shape.c, lanes, op, average_body, out);
        nas_buf_puts(out, "        }\n");
        break;
    case NAS__QOP_QUANTIZE: emit_quantize(target, op, out); break;
    case NAS__QOP_DEQUANTIZE: emit_dequantize(target, op, out); break;
    case NAS__QOP_ENCODE: emit_encode(op, lanes, out); break;
    case NAS__QOP_DECODE: emit_decode(op, lanes, out); break;
    case NAS__QOP_PRELU:
    case NAS__QOP_TABLE: emit_map(op, lanes, out); break;
    }
    nas_buf_puts(out, "    }\n}\n\n");
}
