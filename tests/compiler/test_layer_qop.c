/* test_layer_qop.c - integer additions, pools, quantization and its inverse against the plain reference, bit for bit, on
 * buffers of exactly the promised size. */
#include "emulated_intrinsics.h"
#include "quant_reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct op_row {
    nas__qop_kind kind;
    int32_t c, h, w; /* of the input */
    nas_pool_attributes pool;
    bool signed_a, signed_b, signed_out;
    double ratio;
    int32_t block;
    int32_t
        repeat; /* ADD, MUL: rows (1), columns (2), both (3) of the second operand, both of the first (4) */
    bool mapped, half; /* moves */
    bool
        planes; /* QUANTIZE, DEQUANTIZE: codes in planes, for targets with kernels for such values */
} op_row;

#define POOL(k, s, pt, pl, count)                                                                  \
    {                                                                                              \
        .kernel_h = k, .kernel_w = k, .stride_h = s, .stride_w = s, .pad_top = pt, .pad_left = pl, \
        .pad_bottom = pt, .pad_right = pl, .count_include_pad = count                              \
    }
static const op_row rows[] = {
    {NAS__QOP_ADD, 16, 3, 5, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_ADD, 19, 4, 3, {0}, 1, 0, 1, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_ADD, 1, 1, 1, {0}, 1, 1, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_MAX_POOL, 21, 7, 9, POOL(3, 2, 1, 1, 0), 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_MAX_POOL, 8, 6, 6, POOL(2, 2, 0, 0, 0), 1, 1, 1, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_AVG_POOL, 21, 7, 7, POOL(7, 1, 0, 0, 0), 0, 0, 1, 0.8, 0, 0, 0, 0, 0},
    {NAS__QOP_AVG_POOL, 11, 5, 6, POOL(3, 1, 1, 1, 0), 1, 0, 0, 3.7, 0, 0, 0, 0, 0},
    {NAS__QOP_AVG_POOL, 3, 5, 6, POOL(3, 2, 1, 1, 1), 0, 0, 0, 1, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 3, 5, 13, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 1, 4, 8, {0}, 0, 0, 1, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 7, 3, 21, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 8, 2, 9, {0}, 0, 0, 1, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 7, 3, 21, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 5, 3, 7, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 10, 1, 1, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 12, 3, 5, {0}, 0, 0, 0, 0, 2, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 9, 2, 1, {0}, 1, 0, 0, 0, 3, 0, 0, 0, 0},
    {NAS__QOP_ENCODE, 19, 3, 5, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_ENCODE, 3, 2, 1, {0}, 0, 0, 1, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DECODE, 19, 3, 5, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DECODE, 8, 1, 3, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_PRELU, 21, 3, 5, {0}, 0, 0, 1, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_PRELU, 16, 2, 2, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_TABLE, 21, 3, 5, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_TABLE, 3, 2, 7, {0}, 0, 0, 1, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_ADD, 11, 4, 3, {0}, 1, 0, 1, 0, 0, 3, 0, 0, 0},
    {NAS__QOP_ADD, 9, 4, 3, {0}, 0, 0, 1, 0, 0, 2, 0, 0, 0},
    {NAS__QOP_MUL, 21, 4, 3, {0}, 0, 0, 0, 0.004, 0, 0, 0, 0, 0},
    {NAS__QOP_MUL, 16, 3, 5, {0}, 1, 0, 1, 0.9, 0, 3, 0, 0, 0},
    {NAS__QOP_MUL, 5, 3, 5, {0}, 0, 1, 0, 3.3, 0, 1, 0, 0, 0},
    {NAS__QOP_MUL, 8, 3, 5, {0}, 0, 0, 1, 0.01, 0, 4, 0, 0, 0},
    {NAS__QOP_DEPTH_TO_SPACE, 12, 3, 5, {0}, 0, 0, 0, 0, 2, 0, 0, 0, 0},
    {NAS__QOP_DEPTH_TO_SPACE, 27, 2, 4, {0}, 1, 0, 0, 0, 3, 0, 1, 0, 0},
    {NAS__QOP_NEAREST, 7, 3, 5, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_NEAREST, 20, 4, 3, {0}, 1, 0, 1, 0, 0, 0, 0, 1, 0},
    {NAS__QOP_NEAREST, 6, 5, 3, {0}, 0, 0, 1, 0, 0, 0, 1, 1, 0},
    {NAS__QOP_QUANTIZE, 16, 3, 7, {0}, 0, 0, 0, 0x1.fffffep-7, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 37, 2, 21, {0}, 0, 0, 1, 0x1p-140, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 48, 2, 40, {0}, 0, 0, 1, 0x1.3p99, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 64, 9, 16, {0}, 0, 0, 0, 0x1.a36e2ep-3, 0, 0, 0, 0, 0},
    {NAS__QOP_QUANTIZE, 32, 9, 33, {0}, 0, 0, 1, 0x1.00001p0, 0, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 20, 3, 5, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 33, 2, 16, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_DEQUANTIZE, 48, 2, 27, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_MAX_POOL, 75, 7, 9, POOL(3, 2, 1, 1, 0), 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {NAS__QOP_MAX_POOL, 128, 4, 5, POOL(2, 2, 0, 0, 0), 1, 1, 1, 0, 0, 0, 0, 0, 0},
};
static const op_row planes_rows[] = {
    {NAS__QOP_QUANTIZE, 3, 2, 64, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 1},
    {NAS__QOP_QUANTIZE, 9, 3, 77, {0}, 0, 0, 1, 0, 0, 0, 0, 0, 1},
    {NAS__QOP_QUANTIZE, 35, 2, 67, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 1},
    {NAS__QOP_DEQUANTIZE, 35, 2, 67, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 1},
    {NAS__QOP_DEQUANTIZE, 5, 3, 70, {0}, 1, 0, 0, 0, 0, 0, 0, 0, 1},
    {NAS__QOP_DEQUANTIZE, 12, 3, 65, {0}, 0, 0, 0, 0, 2, 0, 0, 0, 1},
    {NAS__QOP_DEQUANTIZE, 9, 2, 64, {0}, 1, 0, 0, 0, 3, 0, 0, 0, 1},
    {NAS__QOP_DEQUANTIZE, 16, 2, 81, {0}, 0, 0, 0, 0, 4, 0, 0, 0, 1},
};
enum { PLANES_ROWS = sizeof planes_rows / sizeof planes_rows[0] };
enum { ROWS = sizeof rows / sizeof rows[0] };

static nas_ctx *ctx;
static char dir[64];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-layer-qop-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_layer_qop, .init = setup, .fini = teardown, .timeout = 200);

static nas__view view_of(int32_t h, int32_t w, int32_t c, int32_t extra) {
    return (nas__view){.shape = {1, h, w, c},
                       .pitch = c + extra,
                       .row = (size_t)w * (size_t)(c + extra) + (size_t)extra};
}

static nas__view planes_of(int32_t h, int32_t w, int32_t c) {
    const size_t plane = nas__q_plane_bytes(w, 3);
    return (nas__view){
        .shape = {1, h, w, c}, .pitch = 4, .row = (size_t)(c + 3) / 4 * plane, .plane = plane};
}

static size_t bytes_of(const nas__view *v) {
    if (v->plane > 0) return (size_t)v->shape.h * v->row;
    return (size_t)(v->shape.h - 1) * v->row + (size_t)(v->shape.w - 1) * (size_t)v->pitch +
           (size_t)v->shape.c;
}

static nas__qop op_of(const op_row *r) {
    nas__qop op = {.kind = r->kind, .pool = r->pool, .block = r->block};
    op.in_signed[0] = r->signed_a;
    op.in_signed[1] = r->signed_b;
    op.out_signed = r->signed_out;
    op.in[0] = view_of(r->h, r->w, r->c, 1);
    op.in[1] = view_of(r->h, r->w, r->c, 2);
    const nas_pool_attributes *p = &r->pool;
    const bool pool = r->kind == NAS__QOP_MAX_POOL || r->kind == NAS__QOP_AVG_POOL;
    op.out = view_of(
        pool ? (r->h + p->pad_top + p->pad_bottom - p->kernel_h) / p->stride_h + 1 : r->h,
        pool ? (r->w + p->pad_left + p->pad_right - p->kernel_w) / p->stride_w + 1 : r->w, r->c, 3);
    if (r->planes && r->kind == NAS__QOP_QUANTIZE) op.out = planes_of(r->h, r->w, r->c);
    if (r->planes && r->kind == NAS__QOP_DEQUANTIZE) op.in[0] = planes_of(r->h, r->w, r->c);
    op.mapped = r->mapped;
    op.resize = r->half ? NAS_RESIZE_NEAREST_HALF_PIXEL : NAS_RESIZE_NEAREST_ASYMMETRIC;
    if (r->kind == NAS__QOP_DEPTH_TO_SPACE)
        op.out = view_of(r->h * r->block, r->w * r->block, r->c / (r->block * r->block), 3);
    if (r->kind == NAS__QOP_NEAREST) op.out = view_of(r->h * 7 / 3, r->w * 5 / 4, r->c, 3);
    if (r->repeat > 0) {
        nas__view *v = &op.in[r->repeat < 4];
        v->shape.h = r->repeat == 2 ? r->h : 1;
        v->shape.w = r->repeat == 1 ? r->w : 1;
    }
    return op;
}

static nas__qop_data data_of(const op_row *r) {
    static int32_t below[32]; /* also negative ones and none */
    static uint8_t table[256];
    for (int32_t i = 0; i < 32; i++)
        below[i] = (i - 11) * 3001;
    for (int32_t i = 0; i < 256; i++)
        table[i] = (uint8_t)(i * 167 + 13);
    const int32_t least = r->signed_out ? -128 : 0;
    nas__qop_data d = {.below = below,
                       .table = table,
                       .zero_in = {r->signed_a ? -5 : 120, r->signed_b ? 3 : 7},
                       .multiplier = {70001, 40503},
                       .ratio = r->ratio,
                       .scale =
                           r->kind == NAS__QOP_QUANTIZE && r->ratio > 0 ? (float)r->ratio : 0.013F,
                       .requant = {.zero_out = least + 100, .low = least, .high = least + 240}};
    if (r->kind == NAS__QOP_MAX_POOL) { /* one quantization */
        d.requant.zero_out = d.zero_in[0];
    }
    return d;
}

static const char main_text[] =
    "typedef void kernel(const void *, void *, const void *, const void *, void *, int, int);\n"
    "static void *take(FILE *f, size_t n, size_t align) {\n"
    "    void *p = NULL;\n"
    "    if (n > 0 && posix_memalign(&p, align, n) != 0) exit(3);\n"
    "    if (n > 0 && f != NULL && fread(p, 1, n, f) != n) exit(3);\n"
    "    return p;\n}\n"
    "static void one(FILE *in, FILE *out, kernel *k, size_t n_in, size_t n_res, size_t n_w,\n"
    "    size_t n_out, int units) {\n"
    "    void *x = take(in, n_in, 8), *r = take(in, n_res, 8), *w = take(in, n_w, 64);\n"
    "    void *y = take(NULL, n_out, 8);\n    memset(y, 0xA5, n_out);\n"
    "    for (int u = units; u > 0; u--) k(x, y, r, w, NULL, u - 1, u);\n"
    "    if (fwrite(y, 1, n_out, out) != n_out) exit(6);\n"
    "    free(x); free(r); free(w); free(y);\n}\n"
    "int main(void) {\n"
    "    FILE *in = fopen(\"in.raw\", \"rb\"), *out = fopen(\"out.raw\", \"wb\");\n"
    "    if (in == NULL || out == NULL) return 2;\n";

static void run_program(const char *const *argv) {
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.cwd = dir;
    options.timeout_ms = 180 * 1000;
    nas_process_result r = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &options, &r), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(r.exit_code == 0, "%s: exit %d: %.2000s", argv[0], r.exit_code,
              r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
}

static void write_file(const char *name, const nas_buf *data) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    cr_assert(eq(int, (int)nas_buf_status(ctx, data), NAS_OK));
    cr_assert(eq(int, (int)nas_file_write(ctx, path, data->data, data->len, 0644), NAS_OK));
}

/* A value to code: anything, or within a few units in the last place of what two codes have in common. */
static float value_of(nas_rng *rng, float scale, size_t i) {
    const float v = (float)((double)scale * (600 * nas_rng_uniform(rng) - 300));
    if (i == 1) return scale * 2.5F;
    if (i % 29 == 5) return i % 2 == 0 ? INFINITY : -INFINITY;
    if (i % 3 == 0) return v;
    float tie = ((float)nas_rng_below(rng, 280) - 140 + 0.5F) * scale;
    for (uint32_t k = nas_rng_below(rng, 4); k > 0; k--)
        tie = nextafterf(tie, i % 2 == 0 ? INFINITY : -INFINITY);
    return tie;
}

/* Words of the last channels hold 0 beyond the last one. */
static void fill_words(const nas__qop *op, uint8_t *out) {
    const nas_shape *s = &op->out.shape;
    for (int32_t y = 0; y < s->h && s->c % 4 > 0; y++) {
        uint8_t *last = out + (size_t)y * op->out.row + (size_t)(s->c / 4) * op->out.plane;
        for (int32_t i = 0; i < 4 * s->w; i++)
            last[i] = i % 4 < s->c % 4 ? last[i] : 0;
    }
}

/* Appends inputs and weights of one row to `raw`, and what is expected to `want`. */
static void add_case(const nas_target *target, nas_rng *rng, const op_row *r, nas_buf *text,
                     nas_buf *calls, nas_buf *raw, nas_buf *want) {
    const nas__qop op = op_of(r);
    const nas__qop_data data = data_of(r);
    const bool pair = r->kind == NAS__QOP_ADD || r->kind == NAS__QOP_MUL;
    const size_t image = 4 * (size_t)(r->c * r->h * r->w);
    const bool to = r->kind == NAS__QOP_QUANTIZE || r->kind == NAS__QOP_ENCODE;
    const bool planes = r->kind == NAS__QOP_QUANTIZE || r->kind == NAS__QOP_DEQUANTIZE;
    const bool from = r->kind == NAS__QOP_DEQUANTIZE || r->kind == NAS__QOP_DECODE;
    const size_t n_in = to ? (planes ? image : 4 * bytes_of(&op.in[0])) : bytes_of(&op.in[0]);
    const size_t n_res = pair ? bytes_of(&op.in[1]) : 0;
    const size_t n_out = from ? (planes ? image : 4 * bytes_of(&op.out)) : bytes_of(&op.out);
    const size_t n_w = nas__qop_weight_bytes(&op);
    uint8_t *in = nas_alloc_array(ctx, n_in, 1), *res = nas_alloc_array(ctx, n_res, 1);
    uint8_t *out = nas_alloc_array(ctx, n_out, 1), *w = nas_alloc_array(ctx, n_w, 1);
    for (size_t i = 0; i < n_in && !to; i++)
        in[i] = (uint8_t)nas_rng_below(rng, 256);
    for (size_t i = 0; i < n_in / 4 && to; i++) {
        const float v = value_of(rng, data.scale, i);
        memcpy(in + 4 * i, &v, 4);
    }
    for (size_t i = 0; i < n_res; i++)
        res[i] = (uint8_t)nas_rng_below(rng, 256);
    memset(out, 0xA5, n_out);
    quant_reference_op(&op, &data, in, res, out);
    if (op.out.plane > 0) fill_words(&op, out);
    cr_assert(eq(int, (int)nas__qop_pack(ctx, &op, &data, w), NAS_OK));
    nas_buf_append(raw, in, n_in);
    nas_buf_append(raw, res, n_res);
    nas_buf_append(raw, w, n_w);
    nas_buf_append(want, out, n_out);
    nas__qop_emit(target, &op, text);
    nas_buf_puts(calls, "    one(in, out, ");
    nas__qop_name(target, &op, calls);
    nas_buf_printf(calls, ", %zu, %zu, %zu, %zu, %d);\n", n_in, n_res, n_w, n_out,
                   nas__qop_units(&op));
    nas_free(in);
    nas_free(res);
    nas_free(out);
    nas_free(w);
}

/* Every row on a target; one without flags is emulated. */
static void check_target(const nas_target *target) {
    nas_buf text = {0}, calls = {0}, raw = {0}, want = {0}, got = {0};
    nas_rng rng = nas_rng_stream(4, 0, "layer_qop");
    nas_buf_puts(&text, "#define _POSIX_C_SOURCE 200809L\n#include <stdio.h>\n"
                        "#include <stdlib.h>\n#include <string.h>\n");
    nas__emit_vector_prelude(target, &text);
    nas__emit_quant_prelude(target, &text);
    for (int i = 0; i < ROWS; i++)
        add_case(target, &rng, &rows[i], &text, &calls, &raw, &want);
    for (int i = 0; i < PLANES_ROWS && nas__matrix_of(target) == NAS__DOT_VNNI; i++)
        add_case(target, &rng, &planes_rows[i], &text, &calls, &raw, &want);
    nas_buf_puts(&text, main_text);
    nas_buf_puts(&text, calls.data);
    nas_buf_puts(&text, "    return fclose(out) != 0;\n}\n");
    write_file("kernels.c", &text);
    write_file("in.raw", &raw);
    char flag[64] = "-Wno-psabi";
    (void)sscanf(target->flags, "%63s", flag);
    const bool emulated = target->flags[0] == '\0';
    if (emulated) {
        nas_buf header = {0};
        nas_buf_printf(&header, "%s%s%s%s%s", emulated_intrinsics, emulated_widths, emulated_floats,
                       emulated_planes, emulated_tiles);
        write_file("immintrin.h", &header);
        nas_buf_deinit(&header);
    }
    const char *const build[] = {target->compiler,
                                 emulated ? "-O0" : "-O1",
                                 "-std=gnu99",
                                 "-Wall",
                                 "-Wextra",
                                 "-Werror",
                                 flag,
                                 "-I.",
                                 "-ffp-contract=fast",
                                 "-fsanitize=address",
                                 "kernels.c",
                                 "-o",
                                 "kernels",
                                 NULL};
    const char *const run[] = {"./kernels", NULL};
    run_program(build);
    run_program(run);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/out.raw", dir);
    cr_assert(eq(int, (int)nas_file_read(ctx, path, (size_t)1 << 24, &got), NAS_OK));
    cr_assert(eq(sz, got.len, want.len));
    for (size_t i = 0; i < want.len; i++) {
        cr_assert(got.data[i] == want.data[i], "%s: byte %zu of %zu: %d, want %d", target->name, i,
                  want.len, got.data[i], want.data[i]);
    }
    nas_buf_deinit(&text);
    nas_buf_deinit(&calls);
    nas_buf_deinit(&raw);
    nas_buf_deinit(&want);
    nas_buf_deinit(&got);
}

Test(compiler_layer_qop, every_operator_is_exact) {
    static const char *const names[] = {"x86-64", "x86-64-avx2", "x86-64-avx512",
                                        "x86-64-avx512vnni", "aarch64-linux"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        const nas_target *target = NULL;
        cr_assert(eq(int, (int)nas_target_find(ctx, names[k], &target), NAS_OK));
        if (target->runs_here) /* NEON: the helpers are those of the convolutions */
            check_target(target);
    }
}

Test(compiler_layer_qop, every_operator_is_exact_on_emulated_vnni) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512vnni", &target), NAS_OK));
    nas_target emulated = *target;
    emulated.flags = "";
    emulated.compiler = "gcc";
    check_target(&emulated);
}

Test(compiler_layer_qop, averages_without_a_multiplier_are_refused) {
    const nas__qop op = op_of(&rows[5]);
    nas__qop_data data = data_of(&rows[5]);
    uint8_t *w = nas_alloc_array(ctx, nas__qop_weight_bytes(&op), 1);
    data.ratio = 0;
    cr_assert(eq(int, (int)nas__qop_pack(ctx, &op, &data, w), NAS_ERR_INVALID));
    data.ratio = 1e9;
    cr_assert(eq(int, (int)nas__qop_pack(ctx, &op, &data, w), NAS_ERR_RANGE));
    nas_free(w);
}
