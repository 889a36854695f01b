/* test_layer_conv.c - the convolutions of the layer form: every way of many shapes against a plain double reference.
 *
 * All kernels of one target go into one program, built with AddressSanitizer. It reads packed floats, gives each kernel
 * buffers of exactly the promised size, and writes the outputs of two splits of the units. */
#include "compiler/layer_conv_internal.h"
#include "compiler/layers_internal.h"
#include "compile_fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Error relative to the sum of the magnitudes of the products: rounding of float chains alone. */
static const double direct_bound = 1e-5;
/* The transforms of F(4x4,3x3) multiply by up to 8 and cancel: a few hundred times the rounding error of direct. */
static const double winograd_bound = 2e-4;

typedef struct shape_row {
    int32_t in_c, out_c, groups, out_h, out_w, kh, kw, sh, sw, dh, dw, in_extra, out_extra;
    bool residual;
    nas__layer_act act;
} shape_row;

static const shape_row fixed_shapes[] = {
    {3, 16, 1, 7, 13, 7, 7, 2, 2, 1, 1, 0, 0, false, NAS__LACT_RELU},
    {64, 40, 1, 7, 7, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_NONE},
    {16, 19, 1, 9, 10, 3, 3, 1, 1, 1, 1, 3, 5, true, NAS__LACT_RELU},
    {5, 8, 1, 8, 8, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_PRELU},
    {33, 100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE},
    {8, 210, 1, 1, 1, 2, 2, 1, 1, 1, 1, 0, 0, false, NAS__LACT_CLIP},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_LEAKY},
    {21, 21, 21, 6, 11, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_HARD_SWISH},
    {72, 72, 72, 5, 7, 5, 5, 2, 2, 1, 1, 4, 0, false, NAS__LACT_CLIP},
    {16, 16, 16, 4, 9, 3, 3, 1, 1, 2, 2, 0, 3, false, NAS__LACT_PRELU},
    {18, 30, 3, 5, 6, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_LEAKY},
    {6, 12, 6, 5, 5, 3, 3, 2, 2, 1, 1, 0, 0, false, NAS__LACT_RELU},
    {12, 20, 1, 3, 2, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_HARD_SWISH},
    {9, 35, 1, 17, 22, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_PRELU},
    {10, 24, 1, 4, 3, 3, 2, 1, 2, 3, 2, 2, 0, false, NAS__LACT_CLIP},
    /* weights or pixels that are asked for ahead; outputs far apart */
    {258, 264, 1, 3, 7, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_RELU},
    {258, 40, 1, 33, 34, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_CLIP},
    {104, 150, 1, 5, 6, 3, 3, 1, 1, 1, 1, 2, 0, false, NAS__LACT_PRELU},
    /* SMALL_CACHE of them: their outputs go past it, their inputs are asked for ahead */
    {8, 16, 1, 101, 103, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_PRELU},
    {3, 16, 1, 98, 108, 3, 3, 1, 1, 1, 1, 1, 16, false, NAS__LACT_RELU},
};
enum { FIXED = sizeof fixed_shapes / sizeof fixed_shapes[0], GENERATED = 12, SMALL_CACHE = 2 };
enum { CACHE = 20 << 10, EMULATED = 4300000, EMULATED_BF16 = 1500000 };

static nas_ctx *ctx;
static char dir[64];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-layer-conv-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_layer_conv, .init = setup, .fini = teardown, .timeout = 240);

static shape_row generated_shape(nas_rng *rng) {
    shape_row r = {.groups = 1};
    const int32_t widths[] = {1, 3, 8, 13, 16, 31, 40};
    r.in_c = widths[nas_rng_below(rng, 7)];
    r.out_c = widths[nas_rng_below(rng, 7)];
    r.out_h = 1 + (int32_t)nas_rng_below(rng, 11);
    r.out_w = 1 + (int32_t)nas_rng_below(rng, 15);
    r.kh = 1 + (int32_t)nas_rng_below(rng, 3);
    r.kw = nas_rng_below(rng, 2) == 0 ? r.kh : 1 + (int32_t)nas_rng_below(rng, 5);
    r.sh = r.sw = nas_rng_below(rng, 3) == 0 ? 2 : 1;
    r.dh = r.dw = nas_rng_below(rng, 4) == 0 ? 2 : 1;
    r.in_extra = (int32_t)nas_rng_below(rng, 3);
    r.out_extra = (int32_t)nas_rng_below(rng, 3);
    r.residual = nas_rng_below(rng, 2) == 0;
    r.act = (nas__layer_act)nas_rng_below(rng, 6);
    return r;
}

static int32_t in_height(const nas__conv *c) {
    return (c->out_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
}
static int32_t in_width(const nas__conv *c) {
    return (c->out_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
}

/* A buffer that ends with the last channel of the last pixel that a kernel may touch. */
static size_t exact(int32_t height, int32_t width, size_t row, int32_t pitch, int32_t channels) {
    return (size_t)(height - 1) * row + (size_t)(width - 1) * (size_t)pitch + (size_t)channels;
}

static nas__conv conv_of(const shape_row *r) {
    nas__conv c = {.in_c = r->in_c,
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
                   .has_residual = r->residual,
                   .act = r->act};
    c.in_pitch = r->in_c + r->in_extra;
    c.out_pitch = r->out_c + r->out_extra;
    c.in_row = (size_t)in_width(&c) * (size_t)c.in_pitch + (size_t)r->in_extra;
    c.out_row = (size_t)(c.out_w * c.out_pitch + r->out_extra);
    if (r->residual) {
        c.residual_pitch = r->out_c + 1;
        c.residual_row = (size_t)(c.out_w * c.residual_pitch);
    }
    if (r->act == NAS__LACT_CLIP) {
        c.lo = -0.25F;
        c.hi = 0.5F;
    } else if (r->act == NAS__LACT_LEAKY) {
        c.lo = 0.1F;
    }
    return c;
}

static double finish(const nas__conv *c, double v, double slope) {
    switch (c->act) {
    case NAS__LACT_NONE: return v;
    case NAS__LACT_RELU: return v > 0 ? v : 0;
    case NAS__LACT_CLIP: return fmin(fmax(v, (double)c->lo), (double)c->hi);
    case NAS__LACT_PRELU: return v > 0 ? v : v * slope;
    case NAS__LACT_LEAKY: return v > 0 ? v : v * (double)c->lo;
    case NAS__LACT_HARD_SWISH: return v * fmin(fmax(v / 6 + 0.5, 0), 1);
    }
    return 0;
}

/* The largest error over the bound's unit; gaps between pixels must keep their mark. */
static double worst(const nas__conv *c, const float *in, const float *residual, const float *weight,
                    const float *bias, const float *slope, const float *out, size_t out_floats) {
    const int32_t in_c = c->in_c / c->groups, out_c = c->out_c / c->groups;
    double most = 0;
    size_t kept = 0;
    for (size_t i = 0; i < out_floats; i++)
        kept += out[i] == -777.0F;
    if (kept != out_floats - (size_t)c->out_h * (size_t)c->out_w * (size_t)c->out_c) return 1e9;
    for (int32_t y = 0; y < c->out_h; y++) {
        for (int32_t x = 0; x < c->out_w; x++) {
            for (int32_t o = 0; o < c->out_c; o++) {
                double sum = (double)bias[o], size = fabs(sum);
                const float *w = weight + (size_t)o * (size_t)(c->kernel_h * c->kernel_w * in_c);
                for (int32_t ky = 0; ky < c->kernel_h; ky++) {
                    for (int32_t kx = 0; kx < c->kernel_w; kx++) {
                        const float *s =
                            in + (size_t)(y * c->stride_h + ky * c->dilation_h) * c->in_row +
                            (size_t)((x * c->stride_w + kx * c->dilation_w) * c->in_pitch) +
                            (size_t)(o / out_c * in_c);
                        for (int32_t i = 0; i < in_c; i++) {
                            const double p = (double)s[i] * (double)*w++;
                            sum += p;
                            size += fabs(p);
                        }
                    }
                }
                if (c->has_residual) {
                    const double r = (double)
                        residual[(size_t)y * c->residual_row + (size_t)(x * c->residual_pitch + o)];
                    sum += r;
                    size += fabs(r);
                }
                const double want = finish(c, sum, (double)slope[o]);
                const double got =
                    (double)out[(size_t)y * c->out_row + (size_t)(x * c->out_pitch + o)];
                const double error = fabs(got - want) / (size + 1e-3);
                if (!(error <= most)) most = isnan(error) ? 1e9 : error;
            }
        }
    }
    return most;
}

static const char main_text[] =
    "typedef void kernel(const float *, float *, const float *, const void *, void *, int, int);\n"
    "#ifdef GUARDED /* no sanitizer: a page behind the last float that nobody may touch */\n"
    "#include <sys/mman.h>\n"
    "static float *room(size_t n) {\n"
    "    const size_t page = 4096, all = (n * 4 + page - 1) / page * page;\n"
    "    char *p = mmap(NULL, all + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, "
    "0);\n"
    "    if (p == MAP_FAILED || mprotect(p + all, page, PROT_NONE) != 0) exit(4);\n"
    "    return (float *)(p + all) - n;\n"
    "}\n"
    "#define give(p) ((void)(p))\n"
    "#else\n"
    "static float *room(size_t n) {\n"
    "    void *p = NULL;\n"
    "    if (posix_memalign(&p, 64, n * 4) != 0) exit(4);\n"
    "    return p;\n"
    "}\n"
    "#define give(p) free(p)\n"
    "#endif\n"
    "static float *take(FILE *f, size_t n) {\n"
    "    float *p = n > 0 ? room(n) : NULL;\n"
    "    if (n > 0 && fread(p, 4, n, f) != n) exit(3);\n"
    "    return p;\n"
    "}\n"
    "static void one(FILE *in, FILE *out, kernel *k, size_t n_in, size_t n_res, size_t n_w, size_t "
    "n_scratch,\n    size_t n_out, int units) {\n"
    "    float *x = take(in, n_in), *r = take(in, n_res), *w = take(in, n_w);\n"
    "    float *y[2], *scratch = n_scratch > 0 ? room(n_scratch) : NULL;\n"
    "    for (int split = 0; split < 2; split++) {\n"
    "        y[split] = room(n_out);\n"
    "        for (size_t i = 0; i < n_out; i++) y[split][i] = -777.0f;\n"
    "        for (size_t i = 0; i < n_scratch; i++) scratch[i] = 0x1p+100f;\n"
    "        if (split == 0) k(x, y[0], r, w, scratch, 0, units);\n"
    "        else for (int u = units; u > 0;) {\n"
    "            const int n = u % 3 + 1 < u ? u % 3 + 1 : u;\n"
    "            k(x, y[1], r, w, scratch, u - n, u);\n            u -= n;\n        }\n"
    "    }\n"
    "    if (memcmp(y[0], y[1], n_out * 4) != 0) exit(5);\n"
    "    if (fwrite(y[0], 4, n_out, out) != n_out) exit(6);\n"
    "    give(x); give(r); give(w); give(y[0]); give(y[1]); give(scratch);\n"
    "}\n"
    "int main(void) {\n"
    "    size_t len = 0; /* to ask is what makes tile registers usable */\n"
    "    if (cpu_missing(NEEDS, &len) != NULL) return 7;\n"
    "    FILE *in = fopen(\"in.raw\", \"rb\"), *out = fopen(\"out.raw\", \"wb\");\n"
    "    if (in == NULL || out == NULL) return 2;\n";

static void fill(nas_rng *rng, float *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(2 * nas_rng_uniform(rng) - 1);
}

static int run_program(const char *const *argv, nas_process_result *result) {
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.cwd = dir;
    options.timeout_ms = 200 * 1000;
    cr_assert(eq(int, (int)nas_process_run(ctx, &options, result), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return result->exit_code;
}

static void write_text(const char *name, const void *data, size_t len) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, data, len, 0644), NAS_OK));
}

/* Tensors of one shape. */
typedef struct tensors {
    nas__conv conv;
    float *in, *residual, *weight, *bias, *slope;
    size_t in_floats, out_floats, residual_floats;
} tensors;

static tensors tensors_of(nas_rng *rng, const shape_row *row) {
    tensors t = {.conv = conv_of(row)};
    const nas__conv *c = &t.conv;
    t.in_floats = exact(in_height(c), in_width(c), c->in_row, c->in_pitch, c->in_c);
    t.out_floats = exact(c->out_h, c->out_w, c->out_row, c->out_pitch, c->out_c);
    t.residual_floats =
        c->has_residual ? exact(c->out_h, c->out_w, c->residual_row, c->residual_pitch, c->out_c)
                        : 0;
    const size_t weights =
        (size_t)c->out_c * (size_t)(c->kernel_h * c->kernel_w * (c->in_c / c->groups));
    t.in = nas_alloc_array(ctx, t.in_floats, sizeof(float));
    t.residual = nas_alloc_array(ctx, t.residual_floats, sizeof(float));
    t.weight = nas_alloc_array(ctx, weights, sizeof(float));
    t.bias = nas_alloc_array(ctx, (size_t)c->out_c, sizeof(float));
    t.slope = nas_alloc_array(ctx, (size_t)c->out_c, sizeof(float));
    fill(rng, t.in, t.in_floats);
    fill(rng, t.residual, t.residual_floats);
    fill(rng, t.weight, weights);
    fill(rng, t.bias, (size_t)c->out_c);
    fill(rng, t.slope, (size_t)c->out_c);
    return t;
}

static void round_to_bf16(float *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)nas__bf16_of(p[i]) << 16;
        memcpy(&p[i], &bits, sizeof bits);
    }
}

/* What bf16 holds exactly, so that products are exact too, and sums as near as those of floats. */
static void round_products(tensors *t) {
    const nas__conv *c = &t->conv;
    round_to_bf16(t->in, t->in_floats);
    round_to_bf16(t->weight,
                  (size_t)c->out_c * (size_t)(c->kernel_h * c->kernel_w * (c->in_c / c->groups)));
}

static void tensors_free(tensors *t) {
    nas_free(t->in);
    nas_free(t->residual);
    nas_free(t->weight);
    nas_free(t->bias);
    nas_free(t->slope);
}

static void add_case(const nas_target *target, const tensors *t, const nas__conv_way *way,
                     nas_buf *text, nas_buf *calls, nas_buf *raw) {
    const size_t n = nas__conv_weight_floats(target, &t->conv, way);
    float *packed = nas_alloc_array(ctx, n, sizeof *packed);
    cr_assert(ne(ptr, packed, NULL));
    cr_assert(eq(
        int, (int)nas__conv_pack(ctx, target, &t->conv, way, t->weight, t->bias, t->slope, packed),
        NAS_OK));
    nas_buf_append(raw, t->in, t->in_floats * sizeof(float));
    nas_buf_append(raw, t->residual, t->residual_floats * sizeof(float));
    nas_buf_append(raw, packed, n * sizeof(float));
    nas_free(packed);
    nas__conv_emit(target, &t->conv, way, text);
    nas_buf_puts(calls, "    one(in, out, ");
    nas__conv_name(target, &t->conv, way, calls);
    nas_buf_printf(calls, ", %zu, %zu, %zu, %zu, %zu, %d);\n", t->in_floats, t->residual_floats, n,
                   nas__conv_scratch_floats(target, &t->conv, way), t->out_floats,
                   nas__conv_units(target, &t->conv, way));
}

/* Every algorithm of a shape, and of its other ways each fourth: a compiler takes minutes for all of them. With products of
 * bf16 those alone that have them. Under an emulator those and those of SVE, and none of the large images. */
static bool is_compiled(const nas_target *target, const nas__conv *c, const nas__conv_way *ways,
                        int32_t k, int shape) {
    const double products =
        (double)c->out_h * c->out_w * c->out_c * c->kernel_h * c->kernel_w * c->in_c / c->groups;
    const bool emulated =
        target->sve_bytes > 0 || (target->bf16 && strcmp(target->arch, "aarch64") == 0);
    if (target->bf16 && !nas__conv_is_bf16(&ways[k])) return false;
    if (target->sve_bytes > 0 && !nas__conv_is_sve(&ways[k])) return false;
    if (emulated && products > (target->bf16 ? EMULATED_BF16 : EMULATED)) return false;
    for (int32_t i = 0; i < k; i++) {
        if (ways[i].algorithm == ways[k].algorithm) return (k + shape) % 4 == 0;
    }
    return true;
}

/* What shape i is compiled for. */
static const nas_target *target_of(const nas_target *target, const nas_target *small, int i) {
    return i >= FIXED - SMALL_CACHE && i < FIXED ? small : target;
}

static const char *const sanitized[] = {"-fsanitize=address",
                                        "--param=asan-instrumentation-with-call-threshold=0"};
static const char *const guarded[] = {"-DGUARDED", "-static"};

/* Runs the program, on every processor of the NULL-terminated list by qemu-aarch64 when there is one; out.raw does not depend
 * on which. */
static void run_kernels(const nas_target *target, const char *const *models, nas_buf *out) {
    static const char *const here[] = {NULL, NULL};
    char path[128];
    (void)snprintf(path, sizeof path, "%s/out.raw", dir);
    for (int32_t i = 0; i == 0 || (models != NULL && models[i] != NULL); i++) {
        const char *model = (models != NULL ? models : here)[i];
        const char *const native[] = {"./kernels", NULL};
        const char *const emulated[] = {"qemu-aarch64", "-cpu", model, "./kernels", NULL};
        nas_process_result r = {0};
        nas_buf bytes = {0};
        const int code = run_program(model != NULL ? emulated : native, &r);
        cr_assert(code == 0, "%s: exit %d, signal %d: %.3000s",
                  model != NULL ? model : target->name, code, r.signal,
                  r.err.data != NULL ? r.err.data : "");
        nas_process_result_deinit(&r);
        cr_assert(eq(int, (int)nas_file_read(ctx, path, (size_t)1 << 28, &bytes), NAS_OK));
        if (i == 0) {
            *out = bytes;
            continue;
        }
        cr_assert(bytes.len == out->len && memcmp(bytes.data, out->data, out->len) == 0,
                  "%s: other bits than %s", model, models[0]);
        nas_buf_deinit(&bytes);
    }
}

static void check_target(const nas_target *target, const char *const *models) {
    const char *const *checks = models != NULL ? guarded : sanitized;
    nas_target small = *target;
    small.l2_bytes = CACHE;
    nas_buf text = {0}, calls = {0}, raw = {0}, result = {0};
    nas_rng rng = nas_rng_stream(11, 0, "layer_conv");
    tensors all[FIXED + GENERATED];
    nas__conv_way ways[FIXED + GENERATED][NAS__CONV_WAYS_MAX];
    int32_t counts[FIXED + GENERATED];
    nas_buf_puts(&text, "#define _DEFAULT_SOURCE\n#define _POSIX_C_SOURCE 200809L\n#include "
                        "<stdio.h>\n#include <stdlib.h>\n"
                        "#include <string.h>\n");
    nas_buf_puts(&text, nas__rt_file("cpu_check.h"));
    nas__emit_vector_prelude(target, &text);
    for (int i = 0; i < FIXED + GENERATED; i++) {
        const shape_row row = i < FIXED ? fixed_shapes[i] : generated_shape(&rng);
        all[i] = tensors_of(&rng, &row);
        if (target->bf16) round_products(&all[i]);
        const nas_target *of = target_of(target, &small, i);
        counts[i] = nas__conv_ways(of, &all[i].conv, ways[i]);
        cr_assert(counts[i] >= 1 && counts[i] <= NAS__CONV_WAYS_MAX);
        for (int32_t k = 0; k < counts[i]; k++) {
            cr_assert(ways[i][k].cycles > 0 && isfinite(ways[i][k].cycles));
            cr_assert(k == 0 || ways[i][k].cycles >= ways[i][k - 1].cycles);
            if (is_compiled(of, &all[i].conv, ways[i], k, i))
                add_case(of, &all[i], &ways[i][k], &text, &calls, &raw);
        }
    }
    nas_buf_printf(&text, "#define NEEDS \"%s\"\n%s", target->needs, main_text);
    nas_buf_puts(&text, calls.data);
    nas_buf_puts(&text, "    return fclose(out) != 0;\n}\n");
    cr_assert(eq(int, (int)nas_buf_status(ctx, &text), NAS_OK));
    cr_assert(eq(int, (int)nas_buf_status(ctx, &raw), NAS_OK));
    write_text("kernels.c", text.data, text.len);
    write_text("in.raw", raw.data, raw.len);
    char flags[2][64] = {"-O1", "-O1"};
    (void)sscanf(target->flags, "%63s %63s", flags[0], flags[1]);
    /* checks as calls: a fraction of the time to compile */
    const char *const build[] = {target->compiler,
                                 "-O1",
                                 "-std=gnu99",
                                 "-ffp-contract=fast",
                                 "-Wall",
                                 "-Wextra",
                                 "-Werror",
                                 checks[0],
                                 checks[1],
                                 flags[0],
                                 flags[1],
                                 "kernels.c",
                                 "-o",
                                 "kernels",
                                 NULL};
    nas_process_result r = {0};
    const int built = run_program(build, &r);
    cr_assert(built == 0, "%s: %.3000s", target->name, r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
    run_kernels(target, models, &result);
    const float *out = (const float *)(const void *)result.data;
    for (int i = 0; i < FIXED + GENERATED; i++) {
        const tensors *t = &all[i];
        for (int32_t k = 0; k < counts[i]; k++) {
            if (!is_compiled(target, &t->conv, ways[i], k, i)) continue;
            const nas__conv_way *w = &ways[i][k];
            const bool winograd =
                w->algorithm == NAS__CONV_WINOGRAD_2 || w->algorithm == NAS__CONV_WINOGRAD_4;
            const double error = worst(&t->conv, t->in, t->residual, t->weight, t->bias, t->slope,
                                       out, t->out_floats);
            cr_expect(error <= (winograd ? winograd_bound : direct_bound),
                      "%s shape %d: %s %dx%d outer %d batch %d: error %g", target->name, i,
                      nas__conv_algorithm_name(w->algorithm), w->pixels, w->vectors, w->outer,
                      w->batch, error);
            out += t->out_floats;
        }
        tensors_free(&all[i]);
    }
    nas_buf_deinit(&text);
    nas_buf_deinit(&calls);
    nas_buf_deinit(&raw);
    nas_buf_deinit(&result);
}

/* Rows of the table that this processor cannot run are skipped: nas_target_find refuses them. */
static void check_named(const char *name) {
    const nas_target *target = NULL;
    if (nas_target_find(ctx, name, &target) != NAS_OK || !target->runs_here) {
        cr_log_info("%s does not run here", name);
        return;
    }
    check_target(target, NULL);
}

Test(compiler_layer_conv, every_way_agrees_with_the_reference_16_bytes) {
    check_named("x86-64");
    check_named("aarch64-linux");
}
Test(compiler_layer_conv, every_way_agrees_with_the_reference_32_bytes) {
    check_named("x86-64-avx2");
}
Test(compiler_layer_conv, every_way_agrees_with_the_reference_64_bytes) {
    check_named("x86-64-avx512");
}
/* A cache so small that images are large beside it: outputs are stored past it, pixels asked for. */
Test(compiler_layer_conv, every_way_agrees_with_the_reference_beyond_the_caches) {
    const nas_target *target = NULL;
    if (nas_target_find(ctx, "x86-64-avx512", &target) != NAS_OK || !target->runs_here) {
        cr_log_info("x86-64-avx512 does not run here");
        return;
    }
    nas_target small = *target;
    small.l2_bytes = 256;
    check_target(&small, NULL);
}

/* Kernels cut for vectors of 16 lanes on a processor with 4, 8, 16 and 64 of them. */
Test(compiler_layer_conv, vectors_of_any_length_agree_with_the_reference_and_one_another) {
    static const char *const models[] = {
        "max,sve-default-vector-length=16", "max,sve-default-vector-length=32",
        "max,sve-default-vector-length=64", "max,sve-default-vector-length=256", NULL};
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-sve", &target), NAS_OK));
    if (!compile_starts(ctx, target->compiler) || !compile_starts(ctx, "qemu-aarch64")) {
        (void)fprintf(stderr,
                      "skipped: needs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user\n");
        cr_skip_test("no cross compiler or no emulator");
    }
    check_target(target, models);
}

/* Also of grouped convolutions, which have none: then nothing is compiled. */
Test(compiler_layer_conv, products_of_bf16_agree_with_the_reference) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-bf16", &target), NAS_OK));
    if (!compile_starts(ctx, target->compiler) || !compile_starts(ctx, "qemu-aarch64")) {
        (void)fprintf(stderr,
                      "skipped: needs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user\n");
        cr_skip_test("no cross compiler or no emulator");
    }
    nas_target bf16 = *target;
    bf16.bf16 = true;
    check_target(&bf16, (const char *const[]){"max", NULL});
}

static void check_bf16_here(const char *name) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, name, &target), NAS_OK));
    if (!target->runs_here) {
        (void)fprintf(stderr, "skipped: this processor lacks what %s needs\n", name);
        cr_skip_test("not on this processor");
    }
    nas_target bf16 = *target;
    bf16.bf16 = true;
    check_target(&bf16, NULL);
}

Test(compiler_layer_conv, products_of_bf16_in_vectors_agree_with_the_reference) {
    check_bf16_here("x86-64-avx512bf16");
}
Test(compiler_layer_conv, products_of_bf16_in_tiles_agree_with_the_reference) {
    check_bf16_here("x86-64-amx");
}

Test(compiler_layer_conv, bf16_is_the_nearest_number_of_eight_bits) {
    static const struct {
        float value;
        uint16_t bf16;
    } rows[] = {{0, 0},
                {-0.0F, 0x8000},
                {1, 0x3f80},
                {-2, 0xc000},
                {1 + 0x1p-8F, 0x3f80}, /* ties: to the even one */
                {1 + 0x3p-8F, 0x3f82},
                {1 + 0x1.0002p-8F, 0x3f81},
                {0x1p-133F, 0x0001}, /* below the normal ones */
                {0x1.fffffep127F, 0x7f80},
                {INFINITY, 0x7f80}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect(nas__bf16_of(rows[i].value) == rows[i].bf16, "%a: %04x, not %04x",
                  (double)rows[i].value, nas__bf16_of(rows[i].value), rows[i].bf16);
    const uint16_t nan = nas__bf16_of(NAN);
    cr_expect(nan > 0x7f80, "%04x", nan);
}

/* The ways of `algorithm`, and where the first of them is in the order of the estimates; -1 without any. */
static int32_t count_ways(const nas_target *target, const nas__conv *c,
                          nas__conv_algorithm algorithm, int32_t *place) {
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, c, ways);
    int32_t count = 0;
    *place = -1;
    for (int32_t i = 0; i < n; i++) {
        if (ways[i].algorithm != algorithm) continue;
        if (count++ == 0) *place = i;
    }
    return count;
}

Test(compiler_layer_conv, long_vectors_compete_with_short_ones_where_the_processor_has_them) {
    static const struct {
        const char *cpu;
        bool offered;
    } rows[] = {{"neoverse-n1", false}, {"neoverse-n2", false}, {"cortex-a510", false},
                {"cortex-x2", false},   {"neoverse-v1", true},  {"a64fx", true}};
    const shape_row dense = {64, 64, 1, 28, 28, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    const shape_row depthwise = {64, 64, 64, 28, 28, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    const shape_row full = {128, 200, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE};
    const shape_row *const shapes[] = {&dense, &depthwise, &full};
    const nas__conv_algorithm algorithms[][2] = {{NAS__CONV_SVE, NAS__CONV_DIRECT},
                                                 {NAS__CONV_SVE_DEPTHWISE, NAS__CONV_DEPTHWISE},
                                                 {NAS__CONV_SVE, NAS__CONV_VECTOR}};
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-linux", &target), NAS_OK));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_target cpu;
        cr_assert(eq(int, (int)nas_target_find_cpu(ctx, target, rows[i].cpu, &cpu), NAS_OK));
        for (int k = 0; k < 3; k++) {
            const nas__conv c = conv_of(shapes[k]);
            int32_t sve = -1, neon = -1;
            cr_expect(eq(int, count_ways(&cpu, &c, algorithms[k][0], &sve) > 0, rows[i].offered));
            cr_expect(count_ways(&cpu, &c, algorithms[k][1], &neon) > 0, "%s", rows[i].cpu);
            cr_expect(sve < neon || rows[i].offered == false, "%s, shape %d: %d, %d", rows[i].cpu,
                      k, sve, neon);
        }
    }
}

/* A block of weights has as many channels as vectors of the processor take: the texts are others. */
Test(compiler_layer_conv, names_tell_for_which_length_a_kernel_is_cut) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-sve", &target), NAS_OK));
    nas_target shorter = *target;
    shorter.sve_bytes = 32;
    const nas__conv c = conv_of(&fixed_shapes[1]);
    const nas__conv_way way = {.algorithm = NAS__CONV_SVE, .pixels = 7, .vectors = 2};
    nas_buf a = {0}, b = {0};
    nas__conv_name(target, &c, &way, &a);
    nas__conv_name(&shorter, &c, &way, &b);
    cr_assert(ne(str, a.data, b.data));
    nas_buf_deinit(&a);
    nas_buf_deinit(&b);
}

Test(compiler_layer_conv, names_depend_on_everything_that_the_text_depends_on) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &target), NAS_OK));
    nas__conv a = conv_of(&fixed_shapes[2]), b = a;
    b.out_row += 8;
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &a, ways) >= 2);
    nas_buf first = {0}, same = {0}, other = {0}, row = {0};
    nas__conv_name(target, &a, &ways[0], &first);
    nas__conv_name(target, &a, &ways[0], &same);
    nas__conv_name(target, &a, &ways[1], &other);
    nas__conv_name(target, &b, &ways[0], &row);
    cr_assert(eq(str, first.data, same.data));
    cr_assert(ne(str, first.data, other.data));
    cr_assert(ne(str, first.data, row.data));
    nas_buf_deinit(&first);
    nas_buf_deinit(&same);
    nas_buf_deinit(&other);
    nas_buf_deinit(&row);
}

/* How often a text asks for memory ahead: `what` is the macro with its bracket. */
static int asks(const nas_target *target, const nas__conv *c, nas__conv_algorithm algorithm,
                const char *what) {
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, c, ways);
    int32_t k = 0;
    while (k < n && ways[k].algorithm != algorithm)
        k++;
    cr_assert(k < n);
    nas_buf text = {0};
    nas__conv_emit(target, c, &ways[k], &text);
    cr_assert(eq(int, (int)nas_buf_status(ctx, &text), NAS_OK));
    int times = 0;
    for (const char *at = strstr(text.data, what); at != NULL; at = strstr(at + 1, what))
        times++;
    nas_buf_deinit(&text);
    return times;
}

Test(compiler_layer_conv, images_beyond_the_caches_are_stored_past_them) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512", &target), NAS_OK));
    const shape_row small = {16, 64, 1, 36, 64, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    shape_row large = small;
    large.out_h = 360;
    large.out_w = 640;
    const nas__conv a = conv_of(&small), b = conv_of(&large);
    cr_assert(eq(int, asks(target, &a, NAS__CONV_WINOGRAD_4, "stream("), 0));
    cr_assert(eq(int, asks(target, &b, NAS__CONV_WINOGRAD_4, "stream("), 16));
    cr_assert(eq(int, asks(target, &b, NAS__CONV_WINOGRAD_4, "STREAMED()"), 1));
    cr_assert(eq(int, asks(target, &a, NAS__CONV_WINOGRAD_4, "*ahead = (const char *)(next"), 0));
    cr_assert(ne(int, asks(target, &b, NAS__CONV_WINOGRAD_4, "*ahead = (const char *)(next"), 0));
}

Test(compiler_layer_conv, what_lies_beyond_l2_is_asked_for_ahead) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx2", &target), NAS_OK));
    const shape_row small = {.in_c = 64,
                             .out_c = 128,
                             .groups = 1,
                             .out_h = 7,
                             .out_w = 7,
                             .kh = 1,
                             .kw = 1,
                             .sh = 1,
                             .sw = 1,
                             .dh = 1,
                             .dw = 1};
    shape_row large = small, square = small, image = small;
    large.in_c = 1024;
    large.out_c = 1024;
    square.in_c = square.out_c = 256;
    square.kh = square.kw = 3;
    image.out_h = image.out_w = 112;
    const nas__conv a = conv_of(&small), b = conv_of(&large), d = conv_of(&square),
                    e = conv_of(&image);
    cr_assert(eq(int, asks(target, &a, NAS__CONV_DIRECT, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &b, NAS__CONV_DIRECT, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &d, NAS__CONV_WINOGRAD_2, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &e, NAS__CONV_DIRECT, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &e, NAS__CONV_DIRECT, "ahead = (const char *)(corner"), 0));
    cr_assert(ne(int, asks(target, &a, NAS__CONV_DIRECT, "NEAR(out"), 0));
    cr_assert(eq(int, asks(target, &d, NAS__CONV_DIRECT, "NEAR("), 0));
    nas_target wide = *target; /* the same layer where it fits */
    wide.l2_bytes = 64 << 20;
    cr_assert(eq(int, asks(&wide, &b, NAS__CONV_DIRECT, "AHEAD("), 0));
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &b, ways) >= 1);
    nas_buf here = {0}, there = {0};
    nas__conv_name(target, &b, &ways[0], &here);
    nas__conv_name(&wide, &b, &ways[0], &there);
    cr_assert(ne(str, here.data, there.data));
    nas_buf_deinit(&here);
    nas_buf_deinit(&there);
}

/* 3x3, 512 channels at 7x7 from memory, on an Emerald Rapids: 1.9 ms with the 16.8 MB of F(2,3), 1.4 ms directly with the
 * sum in parts. On a Zen 4, of half as many products a cycle, the fewer products win. */
Test(compiler_layer_conv, sums_in_parts_win_where_weights_of_winograd_come_from_memory) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512vnni", &target), NAS_OK));
    const shape_row row = {512, 512, 1, 7, 7, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    const nas__conv c = conv_of(&row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_WINOGRAD_2));
    nas_target server;
    cr_assert(eq(int, (int)nas_target_find_cpu(ctx, target, "sapphirerapids", &server), NAS_OK));
    cr_assert(nas__conv_ways(&server, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_DIRECT));
    cr_assert(ways[0].depth > 0);
}

/* 3x3, 256 channels at 14x14: F(4,3) reads 9 MB of weights, which the products hide: measured 1.3 ms against 1.8. */
Test(compiler_layer_conv, winograd_of_large_tiles_wins_where_products_hide_its_weights) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx2", &target), NAS_OK));
    shape_row row = {256, 256, 1, 14, 14, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    nas__conv c = conv_of(&row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_WINOGRAD_4));
    row.in_c = row.out_c = 512; /* four times the weights for as many products */
    row.out_h = row.out_w = 7;
    c = conv_of(&row);
    cr_assert(nas__conv_ways(target, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_WINOGRAD_2));
}

/* 8x8 images have four tiles of F(4x4,3x3): one unit would leave a second thread without work. */
Test(compiler_layer_conv, winograd_of_few_tiles_leaves_work_for_a_second_thread) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512vnni", &target), NAS_OK));
    nas_target server;
    cr_assert(eq(int, (int)nas_target_find_cpu(ctx, target, "sapphirerapids", &server), NAS_OK));
    const shape_row row = {64, 64, 1, 8, 8, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_RELU};
    const nas__conv c = conv_of(&row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(&server, &c, ways) > 1);
    cr_assert(ways[0].algorithm == NAS__CONV_WINOGRAD_4);
    cr_assert(nas__conv_winograd_units(&server, &c, &ways[0]) % 2 == 0);
}
