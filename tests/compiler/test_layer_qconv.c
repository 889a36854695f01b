/* test_layer_qconv.c - the integer convolutions of the layer form: every way of many shapes against the plain reference,
 * bit for bit.
 *
 * All kernels of one target go into one program. It reads packed bytes, gives each kernel buffers of exactly the promised
 * size, and writes the outputs of two splits of the units. Built with AddressSanitizer where it runs here, statically for
 * qemu-user elsewhere; what cannot run is compiled. */
#include "emulated_intrinsics.h"
#include "qconv_shapes.h"
#include "quant_reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PLANES = sizeof planes_shapes / sizeof planes_shapes[0],
    FIXED = sizeof fixed_shapes / sizeof fixed_shapes[0],
    GENERATED = 10,
    CASES = FIXED + GENERATED + PLANES,
    TRIED = 3,       /* ways of a shape, taken in turn: compiling all of them takes minutes */
    SPARSE_TRIED = 6 /* all that leave zeros out */
};

static nas_ctx *ctx;
static char dir[64];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-layer-qconv-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_layer_qconv, .init = setup, .fini = teardown, .timeout = 400);

static bool coin(nas_rng *rng) {
    return nas_rng_below(rng, 2) == 0;
}

static shape_row generated_shape(nas_rng *rng) {
    shape_row r = {.groups = 1};
    const int32_t widths[] = {1, 3, 8, 13, 16, 31, 40};
    r.in_c = widths[nas_rng_below(rng, 7)];
    r.out_c = widths[nas_rng_below(rng, 7)];
    r.out_h = 1 + (int32_t)nas_rng_below(rng, 11);
    r.out_w = 1 + (int32_t)nas_rng_below(rng, 15);
    r.kh = 1 + (int32_t)nas_rng_below(rng, 3);
    r.kw = coin(rng) ? r.kh : 1 + (int32_t)nas_rng_below(rng, 5);
    r.sh = r.sw = nas_rng_below(rng, 3) == 0 ? 2 : 1;
    r.dh = r.dw = nas_rng_below(rng, 4) == 0 ? 2 : 1;
    r.in_extra = (int32_t)nas_rng_below(rng, 3);
    r.out_extra = (int32_t)nas_rng_below(rng, 3);
    r.residual = coin(rng);
    r.in_signed = coin(rng);
    r.out_signed = coin(rng);
    r.residual_signed = coin(rng);
    r.has_left = coin(rng);
    r.bits = coin(rng) ? 8 : 2 + (int32_t)nas_rng_below(rng, 7);
    r.fill = coin(rng) ? ANY : EXTREME;
    return r;
}

/* A buffer that ends with the last channel of the last pixel that a kernel may touch. */
static size_t exact(int32_t height, int32_t width, size_t row, int32_t pitch, int32_t channels) {
    return (size_t)(height - 1) * row + (size_t)(width - 1) * (size_t)pitch + (size_t)channels;
}

static int32_t in_height(const nas__conv *c) {
    return (c->out_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
}
static int32_t in_width(const nas__conv *c) {
    return (c->out_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
}

static nas__qconv conv_of(const shape_row *r) {
    nas__qconv q = {.in_signed = r->in_signed,
                    .out_signed = r->out_signed,
                    .residual_signed = r->residual_signed,
                    .joins = r->residual && r->out_c % 2 == 0,
                    .weight_bits = r->bits,
                    .powers = r->fill == POWERS,
                    .has_left = r->has_left};
    nas__conv *c = &q.conv;
    *c = (nas__conv){.in_c = r->in_c,
                     .out_c = r->out_c,
                     .groups = r->groups,
                     .out_h = r->out_h,
                     .out_w = r->out_w,
                     .kernel_h = r->kh,
                     .kernel_w = r->kw,
                     .stride_h = r->sh,
                     .stride_w = r->sw,
                     .dilation_h = r->dh,
                     .dilation_w = r->dw,
                     .has_residual = r->residual};
    c->in_pitch = r->in_c + r->in_extra;
    c->out_pitch = r->out_c + r->out_extra;
    c->in_row = (size_t)in_width(c) * (size_t)c->in_pitch + (size_t)r->in_extra;
    c->out_row = (size_t)(c->out_w * c->out_pitch + r->out_extra);
    if (r->residual) {
        c->residual_pitch = r->out_c + 1;
        c->residual_row = (size_t)(c->out_w * c->residual_pitch);
    }
    return q;
}

static uint8_t gaps[400]; /* the first one, then some */

/* Puts the values of a convolution in planes, those of one input channel excepted. */
static void lay_planes(nas__qconv *q, const planes_row *row) {
    nas__conv *c = &q->conv;
    const size_t groups = (size_t)(c->out_c + 3) / 4;
    q->half = row->scaling != WIDE;
    q->single = row->scaling >= SINGLE_FLOAT;
    if (row->gaps) q->absent = gaps;
    q->prelu = row->prelu;
    q->out_plane = nas__q_plane_bytes(c->out_w, row->shape.out_extra);
    c->out_pitch = 4;
    c->out_row = groups * q->out_plane;
    if (c->in_c > 1) {
        q->in_plane = nas__q_plane_bytes(c->out_w, in_width(c) - c->out_w);
        c->in_pitch = 4;
        c->in_row = (size_t)(c->in_c + 3) / 4 * q->in_plane;
    }
    if (!c->has_residual) return;
    q->residual_plane = nas__q_plane_bytes(c->out_w, 16);
    c->residual_pitch = 4;
    c->residual_row = groups * q->residual_plane;
}

/* Tensors of one shape. */
typedef struct tensors {
    nas__qconv q;
    nas__qconv_data data;
    uint8_t *in, *residual, *want;
    int8_t *weight;
    uint8_t *kept; /* NULL: dense */
    int32_t *bias, *multiplier, *below;
    size_t in_bytes, out_bytes, residual_bytes;
} tensors;

static void fill_codes(nas_rng *rng, uint8_t *p, size_t n, fill_mode mode) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t v = nas_rng_below(rng, 256);
        p[i] = (uint8_t)(mode != EXTREME ? v
                         : (v & 1) != 0  ? 127 + (v & 2) / 2
                         : (v & 2) != 0  ? 255
                                         : 0);
    }
}

static int32_t code_between(nas_rng *rng, int32_t low, int32_t high) {
    return low + (int32_t)nas_rng_below(rng, (uint32_t)(high - low + 1));
}

static nas_requant requant_of(nas_rng *rng, const nas__qconv *q) {
    const int32_t least = q->out_signed ? -128 : 0, most = least + 255;
    nas_requant r = {.zero_out = code_between(rng, least, most), .low = least, .high = most};
    if (coin(rng)) r.low = r.zero_out; /* ReLU */
    if (coin(rng)) r.high = code_between(rng, r.low, most);
    if (q->has_left) r.left = 1 + (int32_t)nas_rng_below(rng, NAS_QUANT_LEFT_MAX);
    r.zero_residual = q->residual_signed ? code_between(rng, -128, 127) : code_between(rng, 0, 255);
    r.multiplier_residual = 1 + (int32_t)nas_rng_below(rng, coin(rng) ? 1 << 17 : (1 << 21) - 1);
    return r;
}

static bool is_kept(nas_rng *rng, zeros mode, int32_t o, int32_t input, size_t i, size_t n) {
    switch (mode) {
    case DENSE:
    case FULL: return true;
    case BLOCKS: return (o / 4 * 7 + input * 5 + (input & o / 4 & 3)) % 4 < 2;
    case TILES: return (o / 8 * 3 + input / 4 * 5) % 4 < 2;
    case SCATTERED: return nas_rng_below(rng, 5) == 0;
    case SINGLE: return i + 1 == n;
    case LINES: return o % 3 == 1 && input % 4 > 1;
    case EMPTY: break;
    }
    return false;
}

static void make_zeros(nas_rng *rng, const shape_row *row, size_t taps, tensors *t) {
    const size_t n = (size_t)row->out_c * taps;
    if (row->zeros == DENSE) return;
    t->kept = nas_alloc_array(ctx, n, 1);
    for (size_t i = 0; i < n; i++) {
        t->kept[i] =
            is_kept(rng, row->zeros, (int32_t)(i / taps), (int32_t)(i % taps) % row->in_c, i, n);
        if (t->kept[i] == 0) t->weight[i] = 0;
    }
    t->q.conv.kept = t->kept;
}

static int8_t power_below(int8_t code) {
    int size = code < 0 ? -code : code, power = size > 0;
    while (power > 0 && 2 * power <= size)
        power *= 2;
    return (int8_t)(code < 0 ? -power : power);
}

/* What the words of the last four channels hold beyond the last channel: 0, between the bounds. */
static void fill_words(tensors *t) {
    const nas__conv *c = &t->q.conv;
    const nas_requant *r = &t->data.requant;
    const int32_t code = r->low > 0 ? r->low : r->high < 0 ? r->high : 0;
    for (int32_t y = 0; y < c->out_h; y++) {
        uint8_t *last = t->want + (size_t)y * c->out_row + (size_t)(c->out_c / 4) * t->q.out_plane;
        for (int32_t i = 0; i < 4 * c->out_w && c->out_c % 4 > 0; i++) {
            if (i % 4 >= c->out_c % 4) last[i] = (uint8_t)code;
        }
    }
}

/* Where floats are not to be exact only the bounds are looked at. */
static void look_at_numbers(const planes_row *row, tensors *t) {
    nas__qconv *q = &t->q;
    if (row->scaling >= SINGLE_FLOAT) {
        nas__qconv_look(q, &t->data);
        cr_assert(q->single);
    } else {
        const int32_t least = q->out_signed ? -128 : 0;
        q->open_low = t->data.requant.low == least;
        q->open_high = t->data.requant.high == least + 255;
    }
    if (row->scaling == WORDS) cr_assert(q->prelu ? q->late : q->dots > 0);
}

/* Multipliers of more bits than a float has stay where floats do what they do; every other shape has no bounds. */
static void look_at_pixels(nas_rng *rng, tensors *t) {
    nas__qconv *q = &t->q;
    if (coin(rng)) {
        t->data.requant.low = q->out_signed ? -128 : 0;
        t->data.requant.high = t->data.requant.low + 255;
    }
    nas__qconv_look(q, &t->data);
    for (int32_t o = 0; o < q->conv.out_c && !q->single; o++)
        t->multiplier[o] = (t->multiplier[o] & ((1 << 23) - 1)) | 1;
    nas__qconv_look(q, &t->data);
}

static tensors tensors_of(nas_rng *rng, const shape_row *row, const planes_row *planes,
                          bool looks) {
    tensors t = {.q = conv_of(row)};
    const nas__conv *c = &t.q.conv;
    if (planes != NULL) lay_planes(&t.q, planes);
    t.in_bytes = t.q.in_plane > 0
                     ? (size_t)in_height(c) * c->in_row
                     : exact(in_height(c), in_width(c), c->in_row, c->in_pitch, c->in_c);
    t.out_bytes = t.q.out_plane > 0 ? (size_t)c->out_h * c->out_row
                                    : exact(c->out_h, c->out_w, c->out_row, c->out_pitch, c->out_c);
    t.residual_bytes = c->has_residual
                           ? exact(c->out_h, c->out_w, c->residual_row, c->residual_pitch, c->out_c)
                           : 0;
    if (t.q.residual_plane > 0) t.residual_bytes = (size_t)c->out_h * c->residual_row;
    const size_t taps = (size_t)(c->kernel_h * c->kernel_w * (c->in_c / c->groups));
    t.in = nas_alloc_array(ctx, t.in_bytes, 1);
    t.residual = nas_alloc_array(ctx, t.residual_bytes, 1);
    t.want = nas_alloc_array(ctx, t.out_bytes, 1);
    t.weight = nas_alloc_array(ctx, (size_t)c->out_c * taps, 1);
    t.bias = nas_alloc_array(ctx, (size_t)c->out_c, 4);
    t.multiplier = nas_alloc_array(ctx, (size_t)c->out_c, 4);
    t.below = nas_alloc_array(ctx, (size_t)c->out_c, 4);
    fill_codes(rng, t.in, t.in_bytes, row->fill);
    fill_codes(rng, t.residual, t.residual_bytes, row->fill);
    const int32_t most = (1 << (row->bits - 1)) - 1;
    for (size_t i = 0; i < (size_t)c->out_c * taps; i++) {
        t.weight[i] = (int8_t)(row->fill != EXTREME ? code_between(rng, -most, most)
                               : coin(rng)          ? most
                                                    : -most);
        if (row->fill == POWERS) t.weight[i] = power_below(t.weight[i]);
    }
    make_zeros(rng, row, taps, &t);
    for (size_t i = 0; i < sizeof gaps; i++)
        gaps[i] = i == 0 || i * i % 7 < 3;
    for (size_t i = 0; i < (size_t)c->out_c * taps && t.q.absent != NULL; i++)
        t.weight[i] = gaps[i / (size_t)c->in_c] != 0 ? 0 : t.weight[i];
    t.data = (nas__qconv_data){.weight = t.weight,
                               .bias = t.bias,
                               .multiplier = t.multiplier,
                               .below = t.below,
                               .zero_in = row->in_signed ? code_between(rng, -128, 127)
                                                         : code_between(rng, 0, 255),
                               .requant = requant_of(rng, &t.q)};
    const bool words = planes != NULL && planes->scaling == WORDS;
    if (t.q.joins || t.q.prelu) {
        t.data.between = requant_of(rng, &t.q);
        t.data.between.left = t.data.requant.left;
        t.data.multiplier_between = code_between(rng, 1000, words ? 98000 : 200000) / 16 * 16;
        if (words) t.data.requant.multiplier_residual = 1 + (int32_t)nas_rng_below(rng, 98301);
    }
    const double spread = 255.0 * most * sqrt((double)taps);
    for (int32_t o = 0; o < c->out_c; o++) {
        t.bias[o] = (int32_t)(spread * (2 * nas_rng_uniform(rng) - 1));
        const double fraction = c->has_residual && !t.q.joins ? 64 : 1;
        const double m =
            ldexp(fraction * 200 / spread * nas_rng_uniform(rng), 31 - t.data.requant.left);
        t.multiplier[o] = coin(rng) && coin(rng) ? INT32_MAX : (int32_t)fmin(m, 2147483647.0);
        if (t.q.half && t.multiplier[o] >= 1 << 30) t.multiplier[o] = (1 << 30) - 1;
        if (t.q.single && t.multiplier[o] >= 1 << 23) t.multiplier[o] = (1 << 22) + 1;
        /* of few bits, so that there are ties, and a float for each */
        if (t.q.prelu) t.below[o] = 16 * code_between(rng, words ? 0 : -6000, 6000);
    }
    if (planes != NULL) look_at_numbers(planes, &t);
    if (looks) look_at_pixels(rng, &t);
    memset(t.want, 0xA5, t.out_bytes);
    quant_reference_conv(&t.q, &t.data, t.in, t.residual, t.want);
    if (t.q.out_plane > 0) fill_words(&t);
    return t;
}

static void tensors_free(tensors *t) {
    nas_free(t->in);
    nas_free(t->residual);
    nas_free(t->want);
    nas_free(t->weight);
    nas_free(t->kept);
    nas_free(t->bias);
    nas_free(t->multiplier);
    nas_free(t->below);
}

static const char main_text[] =
    "typedef void kernel(const void *, void *, const void *, const void *, void *, int, int);\n"
    "static void *take(FILE *f, size_t n, size_t align) {\n"
    "    void *p = NULL;\n"
    "    if (n > 0 && (align > 1 ? posix_memalign(&p, align, n) != 0 : (p = malloc(n)) == NULL)) "
    "exit(3);\n"
    "    if (n > 0 && f != NULL && fread(p, 1, n, f) != n) exit(3);\n"
    "    return p;\n"
    "}\n"
    "static void one(FILE *in, FILE *out, kernel *k, size_t n_in, size_t n_res, size_t n_w, size_t "
    "n_scratch,\n    size_t n_out, int units) {\n"
    "    void *x = take(in, n_in, 1), *r = take(in, n_res, 1), *w = take(in, n_w, 64);\n"
    "    unsigned char *y[2], *scratch = take(NULL, n_scratch, 64);\n"
    "    for (int split = 0; split < 2; split++) {\n"
    "        y[split] = take(NULL, n_out, 1);\n"
    "        memset(y[split], 0xA5, n_out);\n"
    "        if (n_scratch > 0) memset(scratch, 0x5A, n_scratch);\n"
    "        if (split == 0) k(x, y[0], r, w, scratch, 0, units);\n"
    "        else for (int u = units; u > 0;) {\n"
    "            const int n = u % 3 + 1 < u ? u % 3 + 1 : u;\n"
    "            k(x, y[1], r, w, scratch, u - n, u);\n            u -= n;\n        }\n"
    "    }\n"
    "    if (memcmp(y[0], y[1], n_out) != 0) exit(5);\n"
    "    if (fwrite(y[0], 1, n_out, out) != n_out) exit(6);\n"
    "    free(x); free(r); free(w); free(y[0]); free(y[1]); free(scratch);\n"
    "}\n"
    "#ifdef __AMX_INT8__ /* a program asks for tile registers, ARCH_REQ_XCOMP_PERM */\n"
    "#include <sys/syscall.h>\n#include <unistd.h>\n"
    "long syscall(long number, ...);\n"
    "static void ask(void) { (void)syscall(SYS_arch_prctl, 0x1023, 18); }\n"
    "#else\nstatic void ask(void) {}\n#endif\n"
    "int main(void) {\n    ask();\n"
    "    FILE *in = fopen(\"in.raw\", \"rb\"), *out = fopen(\"out.raw\", \"wb\");\n"
    "    if (in == NULL || out == NULL) return 2;\n";

static int run_program(const char *const *argv, nas_process_result *result) {
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.cwd = dir;
    options.timeout_ms = 300 * 1000;
    cr_assert(eq(int, (int)nas_process_run(ctx, &options, result), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return result->exit_code;
}

static void write_text(const char *name, const void *data, size_t len) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, data, len, 0644), NAS_OK));
}

static void add_case(const nas_target *target, const tensors *t, const nas__qconv_way *way,
                     nas_buf *text, nas_buf *calls, nas_buf *raw) {
    const size_t n = nas__qconv_weight_bytes(target, &t->q, way);
    uint8_t *packed = nas_alloc_array(ctx, n, 1);
    cr_assert(ne(ptr, packed, NULL));
    cr_assert(eq(int, (int)nas__qconv_pack(ctx, target, &t->q, way, &t->data, packed), NAS_OK),
              "%s", nas_ctx_message(ctx));
    nas_buf_append(raw, t->in, t->in_bytes);
    nas_buf_append(raw, t->residual, t->residual_bytes);
    nas_buf_append(raw, packed, n);
    nas_free(packed);
    nas__qconv_emit(target, &t->q, way, text);
    nas_buf_puts(calls, "    one(in, out, ");
    nas__qconv_name(target, &t->q, way, calls);
    nas_buf_printf(calls, ", %zu, %zu, %zu, %zu, %zu, %d);\n", t->in_bytes, t->residual_bytes, n,
                   nas__qconv_scratch_bytes(target, &t->q, way), t->out_bytes,
                   nas__qconv_units(target, &t->q, way));
}

static bool on_path(const char *program) {
    const char *path = getenv("PATH");
    for (; path != NULL && *path != '\0';) {
        const size_t n = strcspn(path, ":");
        char file[512];
        (void)snprintf(file, sizeof file, "%.*s/%s", (int)n, path, program);
        if (access(file, X_OK) == 0) return true;
        path += n + (path[n] == ':');
    }
    return false;
}

/* The program that runs a target's programs; "" when this processor does, NULL when there is none. */
static const char *runner(const nas_target *target) {
    if (target->runs_here) return "";
    if (strcmp(target->arch, "aarch64") == 0) return "qemu-aarch64";
    if (strcmp(target->arch, "armv7") == 0) return "qemu-arm";
    if (strcmp(target->arch, "riscv64") == 0) return "qemu-riscv64";
    return NULL;
}

/* The least processor of qemu that has what the target needs: one instruction too many and the program dies there. */
static const char *weakest(const nas_target *target) {
    static const char *const rows[][2] = {
        {"aarch64-linux", "cortex-a53"},
        {"aarch64-dotprod", "cortex-a76"},
        {"armv7-linux", "cortex-a7"},
        {"riscv64-rvv", "rv64,v=true,vext_spec=v1.0,vlen=128"},
        {"riscv64-rvv256", "rv64,v=true,vext_spec=v1.0,vlen=256"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(target->name, rows[i][0]) == 0) return rows[i][1];
    }
    return "max"; /* i8mm and bf16: qemu 7.2 names no other processor with them */
}

static bool build_and_run(const nas_target *target) {
    char flags[8][64] = {""};
    const int n = sscanf(target->flags, "%63s %63s %63s %63s %63s %63s", flags[0], flags[1],
                         flags[2], flags[3], flags[4], flags[5]);
    const bool emulated = target->flags[0] == '\0';
    const char *run = emulated ? "" : runner(target);
    const char *argv[32] = {target->compiler, "-std=gnu99", "-ffp-contract=fast",
                            "-Wall",          "-Wextra",    "-Werror",
                            "kernels.c",      "-o",         "kernels"};
    int k = 9;
    argv[k++] = emulated ? "-O0" : "-O1"; /* vectors of 64 bytes on 16 take minutes to optimize */
    argv[k++] = run != NULL && run[0] == '\0' ? "-fsanitize=address" : "-static";
    if (emulated) {
        argv[k++] = "-I.";
        argv[k++] = "-Wno-psabi";
        nas_buf header = {0};
        nas_buf_printf(&header, "%s%s%s%s%s", emulated_intrinsics, emulated_widths, emulated_floats,
                       emulated_planes, emulated_tiles);
        write_text("immintrin.h", header.data, header.len);
        nas_buf_deinit(&header);
    }
    for (int i = 0; i < n && !emulated; i++)
        argv[k++] = flags[i];
    nas_process_result r = {0};
    const int built = run_program(argv, &r);
    cr_assert(built == 0, "%s: %.3000s", target->name, r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
    if (run == NULL || (run[0] != '\0' && !on_path(run))) {
        (void)fprintf(stderr, "skipped: %s compiled, nothing here runs it\n", target->name);
        return false;
    }
    const char *const here[] = {"./kernels", NULL};
    const char *const there[] = {run, "-cpu", weakest(target), "./kernels", NULL};
    r = (nas_process_result){0};
    const int code = run_program(run[0] == '\0' ? here : there, &r);
    cr_assert(code == 0, "%s: exit %d: %.3000s", target->name, code,
              r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
    return true;
}

static size_t differences(const uint8_t *a, const uint8_t *b, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += a[i] != b[i];
    return count;
}

static int32_t choose_sparse(const nas__qconv_way *ways, int32_t n,
                             nas__qconv_way out[SPARSE_TRIED]) {
    int32_t kept = 0;
    for (int32_t k = 0; k < n && kept < SPARSE_TRIED; k++) {
        if (nas__qconv_is_sparse(&ways[k])) out[kept++] = ways[k];
    }
    return kept;
}

/* Checks the list of ways and keeps up to TRIED of them, others for every shape: those of the matrix unit where there is
 * one, since the vectors of such a target are those of another. */
static int32_t choose(const nas_target *target, const nas__qconv *q, int turn,
                      nas__qconv_way out[SPARSE_TRIED]) {
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    int32_t n = nas__qconv_ways(target, q, ways), matrix = 0;
    cr_assert(n >= 1 && n <= NAS__QCONV_WAYS_MAX);
    for (int32_t k = 0; k < n; k++) {
        cr_assert(ways[k].cycles > 0 && isfinite(ways[k].cycles));
        cr_assert(k == 0 || ways[k].cycles >= ways[k - 1].cycles);
    }
    for (int32_t k = 0; k < n; k++) {
        if (ways[k].algorithm == NAS__QCONV_MATRIX) ways[matrix++] = ways[k];
    }
    if (q->conv.kept != NULL) return choose_sparse(ways, n, out);
    if (q->out_plane > 0) {
        cr_assert(n <= SPARSE_TRIED && matrix == 0);
        int32_t tiles = 0; /* vectors are those of another target */
        for (int32_t k = 0; k < n; k++) {
            if (ways[k].algorithm == NAS__QCONV_PLANE_TILES) out[tiles++] = ways[k];
        }
        if (tiles == 0) memcpy(out, ways, (size_t)n * sizeof *ways);
        return tiles > 0 ? tiles : n;
    }
    if (matrix > 0) n = matrix;
    const int32_t kept = n < TRIED ? n : TRIED;
    for (int32_t k = 0; k < kept; k++)
        out[k] = ways[k == 0 ? 0 : (turn + k * (n / kept)) % n];
    for (int32_t k = 0; k < n && kept == TRIED; k++) {
        if (ways[k].split > 0 || ways[k].sums16 > 0) out[1] = ways[k];
    }
    int32_t packed = 0; /* and one of these, the tiles in turn */
    for (int32_t k = 0; k < n && kept == TRIED; k++) {
        const bool is = ways[k].stored_bits == 2 || nas__qconv_exponents(q, &ways[k]);
        if (is && packed++ <= turn % 6) out[1] = ways[k];
    }
    int32_t winograd = 0; /* one of these always, both sizes in turn */
    for (int32_t k = 0; k < n && kept == TRIED; k++) {
        if (ways[k].batch > 0 && winograd++ <= turn % 6) out[TRIED - 1] = ways[k];
    }
    if (kept > 1 && memcmp(&out[1], &out[0], sizeof out[0]) == 0) return 1;
    return kept > 2 && (memcmp(&out[2], &out[0], sizeof out[0]) == 0 ||
                        memcmp(&out[2], &out[1], sizeof out[0]) == 0)
               ? 2
               : kept;
}

static void check_target(const nas_target *target, bool in_planes, bool looks) {
    nas_buf text = {0}, calls = {0}, raw = {0}, result = {0};
    nas_rng rng = nas_rng_stream(12, 0, "layer_qconv");
    tensors all[CASES];
    nas__qconv_way ways[CASES][SPARSE_TRIED];
    int32_t counts[CASES], singles = 0;
    const int from = in_planes ? FIXED + GENERATED : 0, to = in_planes ? CASES : FIXED + GENERATED;
    nas_buf_puts(&text, "#define _POSIX_C_SOURCE 200809L\n#include <stdio.h>\n#include <stdlib.h>\n"
                        "#include <string.h>\n");
    nas__emit_vector_prelude(target, &text);
    nas__emit_quant_prelude(target, &text);
    for (int i = from; i < to; i++) {
        const planes_row *planes =
            i < FIXED + GENERATED ? NULL : &planes_shapes[i - FIXED - GENERATED];
        const shape_row row = planes != NULL ? planes->shape
                              : i < FIXED    ? fixed_shapes[i]
                                             : generated_shape(&rng);
        all[i] = tensors_of(&rng, &row, planes, looks);
        singles += all[i].q.single;
        counts[i] = choose(target, &all[i].q, i, ways[i]);
        cr_assert(row.zeros == DENSE || (counts[i] == 0) == (row.zeros == FULL),
                  "%s shape %d: %d ways leave zeros out", target->name, i, counts[i]);
        if (target->flags[0] == '\0') { /* emulated: slow */
            if (counts[i] > 0) ways[i][0] = ways[i][i % counts[i]];
            counts[i] = (i < FIXED || planes != NULL) && counts[i] > 0;
        }
        for (int32_t k = 0; k < counts[i]; k++)
            add_case(target, &all[i], &ways[i][k], &text, &calls, &raw);
    }
    cr_assert(ge(int, singles, looks ? 30 : 0));
    nas_buf_puts(&text, main_text);
    nas_buf_puts(&text, calls.data);
    nas_buf_puts(&text, "    return fclose(out) != 0;\n}\n");
    cr_assert(eq(int, (int)nas_buf_status(ctx, &text), NAS_OK));
    cr_assert(eq(int, (int)nas_buf_status(ctx, &raw), NAS_OK));
    write_text("kernels.c", text.data, text.len);
    write_text("in.raw", raw.data, raw.len);
    const bool ran = build_and_run(target);
    if (ran) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/out.raw", dir);
        cr_assert(eq(int, (int)nas_file_read(ctx, path, (size_t)1 << 28, &result), NAS_OK));
    }
    const uint8_t *out = (const uint8_t *)result.data;
    for (int i = from; i < to; i++) {
        for (int32_t k = 0; ran && k < counts[i]; k++, out += all[i].out_bytes) {
            const nas__qconv_way *w = &ways[i][k];
            const size_t wrong = differences(out, all[i].want, all[i].out_bytes);
            cr_expect(wrong == 0, "%s shape %d: %s %dx%d, %d bits: %zu of %zu bytes differ",
                      target->name, i, nas__qconv_algorithm_name(w->algorithm), w->pixels,
                      w->vectors, w->stored_bits, wrong, all[i].out_bytes);
        }
        tensors_free(&all[i]);
    }
    nas_buf_deinit(&text);
    nas_buf_deinit(&calls);
    nas_buf_deinit(&raw);
    nas_buf_deinit(&result);
}

static void check_named(const char *name, bool in_planes, bool looks) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, name, &target), NAS_OK));
    if (!on_path(target->compiler)) {
        (void)fprintf(stderr, "skipped: %s is not installed\n", target->compiler);
        return;
    }
    check_target(target, in_planes, looks);
}

Test(compiler_layer_qconv, every_way_is_exact_on_plain_vectors) {
    check_named("x86-64", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_pairs_of_words) {
    check_named("x86-64-avx2", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_where_floats_scale_its_sums) {
    check_named("x86-64-avx2", false, true);
}
Test(compiler_layer_qconv, every_way_compiles_on_wide_pairs_of_words) {
    check_named("x86-64-avx512", false, false);
}
Test(compiler_layer_qconv, every_way_compiles_on_vnni) {
    check_named("x86-64-avx512vnni", false, false);
}
Test(compiler_layer_qconv, every_way_compiles_on_tile_registers) {
    check_named("x86-64-amx", false, false);
}
Test(compiler_layer_qconv, every_way_compiles_on_tile_registers_where_floats_scale_its_sums) {
    check_named("x86-64-amx", false, true);
}

/* No flags: plain vectors of 64 bytes and the helpers of the target on emulated instructions. */
static void check_emulation(const char *name, bool in_planes, bool looks) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, name, &target), NAS_OK));
    nas_target emulated = *target;
    emulated.flags = "";
    emulated.compiler = "gcc";
    check_target(&emulated, in_planes, looks);
}
Test(compiler_layer_qconv, every_way_is_exact_on_emulated_vnni) {
    check_emulation("x86-64-avx512vnni", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_emulated_vnni_where_floats_scale_its_sums) {
    check_emulation("x86-64-avx512vnni", false, true);
}
Test(compiler_layer_qconv, every_way_is_exact_on_emulated_tile_registers) {
    check_emulation("x86-64-amx", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_emulated_tile_registers_where_floats_scale) {
    check_emulation("x86-64-amx", false, true);
}
Test(compiler_layer_qconv, every_way_is_exact_on_planes_and_tile_registers) {
    check_named("x86-64-amx", true, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_planes_and_emulated_tile_registers) {
    check_emulation("x86-64-amx", true, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_planes) {
    check_named("x86-64-avx512vnni", true, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_planes_and_emulated_vnni) {
    check_emulation("x86-64-avx512vnni", true, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_neon) {
    check_named("aarch64-linux", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_neon_of_32_bits) {
    check_named("armv7-linux", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_neon_with_dot_products) {
    check_named("aarch64-dotprod", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_vectors_of_riscv) {
    check_named("riscv64-rvv256", false, false);
}
Test(compiler_layer_qconv, every_way_is_exact_on_matrix_products) {
    check_named("aarch64-i8mm", false, false);
}

/* Vectors of pixels of the tile that is taken first. */
static int32_t pixels_on(bool splits_vectors) {
    const nas_target *named = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512vnni", &named), NAS_OK));
    nas_target target = *named;
    target.splits_vectors = splits_vectors;
    const planes_row row = {
        {16, 16, 1, 8, 640, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, ANY, DENSE}, 0, 0, HALF};
    nas__qconv q = conv_of(&row.shape);
    lay_planes(&q, &row);
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    cr_assert(ge(int, nas__qconv_ways(&target, &q, ways), 2));
    return ways[0].pixels;
}

/* Small tiles hide what makes codes of sums behind the products of one port; two ports have to be fed by fewer loads. */
Test(compiler_layer_qconv, tiles_of_planes_are_large_where_two_products_start_in_a_cycle) {
    cr_assert(eq(int, pixels_on(true), 2));
    cr_assert(eq(int, pixels_on(false), 6));
}

/* A convolution of one weight, on planes; its sums are the multiples of the weight and the bias. */
static bool scales_all_sums(int32_t multiplier, int8_t weight, int32_t zero_out, bool *checked) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512vnni", &target), NAS_OK));
    const planes_row row = {
        {2, 1, 1, 1, 64, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, ANY, DENSE}, 0, 0, HALF};
    nas__qconv q = conv_of(&row.shape);
    lay_planes(&q, &row);
    const int8_t weights[2] = {weight, (int8_t)-weight};
    const int32_t bias = 7, largest = 255 * weight + bias;
    const nas__qconv_data data = {.weight = weights,
                                  .bias = &bias,
                                  .multiplier = &multiplier,
                                  .zero_in = 0,
                                  .requant = {.zero_out = zero_out, .low = 0, .high = 255}};
    nas__qconv_look(&q, &data);
    *checked = q.single;
    if (!*checked) return true;
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    cr_assert(ge(int, nas__qconv_ways(target, &q, ways), 1));
    uint8_t *block = nas_alloc_array(ctx, nas__qconv_weight_bytes(target, &q, &ways[0]), 1);
    cr_assert(eq(int, (int)nas__qconv_pack(ctx, target, &q, &ways[0], &data, block), NAS_OK));
    float f = 0;
    memcpy(&f, block + 4 * NAS__Q_HEAD, sizeof f);
    nas_free(block);
    bool same = true;
    for (int32_t sum = -largest; sum <= largest; sum++) {
        const double code = nearbyint((double)sum * (double)f + zero_out);
        same = same &&
               (int32_t)fmin(fmax(code, 0), 255) == nas_requantize(sum, multiplier, &data.requant);
    }
    return same;
}

Test(compiler_layer_qconv, floats_scale_every_sum_as_integers_do) {
    /* of 24 bits; halves of a step; more bits than a float has; steps of more than a sum */
    const int32_t fixed[] = {0, 1, 12345679, 1 << 23, 1 << 27, 3 << 24, 5 << 25, (1 << 30) - 1};
    nas_rng rng = nas_rng_stream(7, 0, "layer_qconv");
    int singles = 0;
    for (int i = 0; i < 200; i++) {
        const int32_t m = i < 8 ? fixed[i] : (int32_t)nas_rng_below(&rng, 1U << (20 + i % 11));
        bool checked = false;
        cr_assert(scales_all_sums(m, (int8_t)code_between(&rng, 1, 127), code_between(&rng, 0, 255),
                                  &checked),
                  "multiplier %d", m);
        singles += checked;
    }
    cr_assert(ge(int, singles, 100));
}

/* Sums of nine products, whatever the number of channels. */
Test(compiler_layer_qconv, floats_scale_the_sums_of_single_channels) {
    enum { CHANNELS = 200, TAPS = 9 };
    const shape_row row = {CHANNELS, CHANNELS, CHANNELS, 4, 4, 3, 3, 1, 1,   1,    1,
                           0,        0,        0,        0, 0, 0, 0, 8, ANY, DENSE};
    nas__qconv q = conv_of(&row);
    int8_t weights[CHANNELS * TAPS];
    int32_t bias[CHANNELS] = {0}, multiplier[CHANNELS];
    memset(weights, 127, sizeof weights);
    for (int i = 0; i < CHANNELS; i++)
        multiplier[i] = (1 << 20) + 1;
    const nas__qconv_data data = {.weight = weights,
                                  .bias = bias,
                                  .multiplier = multiplier,
                                  .requant = {.low = 0, .high = 255}};
    nas__qconv_look(&q, &data);
    cr_assert(q.single && q.open_low && q.open_high);
}

Test(compiler_layer_qconv, layers_that_differ_in_scales_alone_share_a_function) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &target), NAS_OK));
    const nas__qconv a = conv_of(&fixed_shapes[2]);
    nas__qconv b = a;
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    cr_assert(nas__qconv_ways(target, &a, ways) >= 2);
    nas_buf first = {0}, same = {0}, other = {0}, type = {0};
    nas__qconv_name(target, &a, &ways[0], &first);
    nas__qconv_name(target, &b, &ways[0], &same);
    nas__qconv_name(target, &a, &ways[1], &other);
    b.out_signed = !b.out_signed;
    nas__qconv_name(target, &b, &ways[0], &type);
    cr_assert(eq(str, first.data, same.data));
    cr_assert(ne(str, first.data, other.data));
    cr_assert(ne(str, first.data, type.data));
    nas_buf_deinit(&first);
    nas_buf_deinit(&same);
    nas_buf_deinit(&other);
    nas_buf_deinit(&type);
}

Test(compiler_layer_qconv, numbers_that_do_not_fit_are_refused) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &target), NAS_OK));
    nas_rng rng = nas_rng_stream(3, 0, "layer_qconv");
    tensors t = tensors_of(&rng, &fixed_shapes[7], NULL, false); /* one weight of two bits */
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    cr_assert(nas__qconv_ways(target, &t.q, ways) >= 1);
    uint8_t *block = nas_alloc_array(ctx, nas__qconv_weight_bytes(target, &t.q, &ways[0]), 1);
    cr_assert(eq(int, (int)nas__qconv_pack(ctx, target, &t.q, &ways[0], &t.data, block), NAS_OK));
    t.weight[0] = 2;
    cr_assert(eq(int, (int)nas__qconv_pack(ctx, target, &t.q, &ways[0], &t.data, block),
                 NAS_ERR_INVALID));
    t.weight[0] = 1;
    t.bias[0] = NAS_QUANT_ACC_MAX - 254;
    cr_assert(
        eq(int, (int)nas__qconv_pack(ctx, target, &t.q, &ways[0], &t.data, block), NAS_ERR_RANGE));
    t.bias[0] = 0;
    t.data.requant.left = 1;
    cr_assert(eq(int, (int)nas__qconv_pack(ctx, target, &t.q, &ways[0], &t.data, block),
                 NAS_ERR_INVALID));
    nas_free(block);
    tensors_free(&t);
}
