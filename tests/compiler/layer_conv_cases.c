/* layer_conv_cases.c - ways of single convolutions against a plain double reference.
 *
 * All kernels of one target go into one program, built with AddressSanitizer. It reads packed floats, gives each kernel
 * buffers of exactly the promised size, and writes the outputs of two splits of the units. */
#include "layer_conv_cases.h"

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

enum { CACHE = 20 << 10, EMULATED = 4300000, EMULATED_BF16 = 1500000 };

nas_ctx *layer_conv_ctx;
char layer_conv_dir[64];

void layer_conv_setup(void) {
    layer_conv_ctx = nas_ctx_new();
    (void)snprintf(layer_conv_dir, sizeof layer_conv_dir, "/tmp/nas-layer-conv-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(layer_conv_dir), NULL));
}

void layer_conv_teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(layer_conv_ctx, layer_conv_dir), NAS_OK));
    nas_ctx_free(layer_conv_ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

int32_t layer_conv_in_height(const nas__conv *c) {
    return (c->out_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
}
int32_t layer_conv_in_width(const nas__conv *c) {
    return (c->out_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
}

/* A buffer that ends with the last channel of the last pixel that a kernel may touch. */
size_t layer_conv_exact(int32_t height, int32_t width, size_t row, int32_t pitch,
                        int32_t channels) {
    return (size_t)(height - 1) * row + (size_t)(width - 1) * (size_t)pitch + (size_t)channels;
}

nas__conv layer_conv_of(const shape_row *r) {
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
    c.in_row = (size_t)layer_conv_in_width(&c) * (size_t)c.in_pitch + (size_t)r->in_extra;
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
double layer_conv_worst(const nas__conv *c, const float *in, const float *residual,
                        const float *weight, const float *bias, const float *slope,
                        const float *out, size_t out_floats) {
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

void layer_conv_fill(nas_rng *rng, float *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(2 * nas_rng_uniform(rng) - 1);
}

int layer_conv_run(const char *const *argv, nas_process_result *result) {
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.cwd = layer_conv_dir;
    options.timeout_ms = 200 * 1000;
    cr_assert(eq(int, (int)nas_process_run(layer_conv_ctx, &options, result), NAS_OK), "%s",
              nas_ctx_message(layer_conv_ctx));
    return result->exit_code;
}

void layer_conv_write(const char *name, const void *data, size_t len) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", layer_conv_dir, name);
    cr_assert(eq(int, (int)nas_file_write(layer_conv_ctx, path, data, len, 0644), NAS_OK));
}

/* Tensors of one shape. */
typedef struct tensors {
    nas__conv conv;
    float *in, *residual, *weight, *bias, *slope;
    size_t in_floats, out_floats, residual_floats;
} tensors;

static tensors tensors_of(nas_rng *rng, const shape_row *row) {
    tensors t = {.conv = layer_conv_of(row)};
    const nas__conv *c = &t.conv;
    t.in_floats = layer_conv_exact(layer_conv_in_height(c), layer_conv_in_width(c), c->in_row,
                                   c->in_pitch, c->in_c);
    t.out_floats = layer_conv_exact(c->out_h, c->out_w, c->out_row, c->out_pitch, c->out_c);
    t.residual_floats = c->has_residual ? layer_conv_exact(c->out_h, c->out_w, c->residual_row,
                                                           c->residual_pitch, c->out_c)
                                        : 0;
    const size_t weights =
        (size_t)c->out_c * (size_t)(c->kernel_h * c->kernel_w * (c->in_c / c->groups));
    t.in = nas_alloc_array(layer_conv_ctx, t.in_floats, sizeof(float));
    t.residual = nas_alloc_array(layer_conv_ctx, t.residual_floats, sizeof(float));
    t.weight = nas_alloc_array(layer_conv_ctx, weights, sizeof(float));
    t.bias = nas_alloc_array(layer_conv_ctx, (size_t)c->out_c, sizeof(float));
    t.slope = nas_alloc_array(layer_conv_ctx, (size_t)c->out_c, sizeof(float));
    layer_conv_fill(rng, t.in, t.in_floats);
    layer_conv_fill(rng, t.residual, t.residual_floats);
    layer_conv_fill(rng, t.weight, weights);
    layer_conv_fill(rng, t.bias, (size_t)c->out_c);
    layer_conv_fill(rng, t.slope, (size_t)c->out_c);
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
    float *packed = nas_alloc_array(layer_conv_ctx, n, sizeof *packed);
    cr_assert(ne(ptr, packed, NULL));
    cr_assert(eq(int,
                 (int)nas__conv_pack(layer_conv_ctx, target, &t->conv, way, t->weight, t->bias,
                                     t->slope, packed),
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

static bool is_winograd(const nas__conv_way *w) {
    return w->algorithm == NAS__CONV_WINOGRAD_2 || w->algorithm == NAS__CONV_WINOGRAD_4;
}

static const char *const sanitized[] = {"-fsanitize=address",
                                        "--param=asan-instrumentation-with-call-threshold=0"};
static const char *const guarded[] = {"-DGUARDED", "-static"};

/* Runs the program, on every processor of the NULL-terminated list by qemu-aarch64 when there is one; out.raw does not depend
 * on which. */
static void run_kernels(const nas_target *target, const char *const *models, nas_buf *out) {
    static const char *const here[] = {NULL, NULL};
    char path[128];
    (void)snprintf(path, sizeof path, "%s/out.raw", layer_conv_dir);
    for (int32_t i = 0; i == 0 || (models != NULL && models[i] != NULL); i++) {
        const char *model = (models != NULL ? models : here)[i];
        const char *const native[] = {"./kernels", NULL};
        const char *const emulated[] = {"qemu-aarch64", "-cpu", model, "./kernels", NULL};
        nas_process_result r = {0};
        nas_buf bytes = {0};
        const int code = layer_conv_run(model != NULL ? emulated : native, &r);
        cr_assert(code == 0, "%s: exit %d, signal %d: %.3000s",
                  model != NULL ? model : target->name, code, r.signal,
                  r.err.data != NULL ? r.err.data : "");
        nas_process_result_deinit(&r);
        cr_assert(
            eq(int, (int)nas_file_read(layer_conv_ctx, path, (size_t)1 << 28, &bytes), NAS_OK));
        if (i == 0) {
            *out = bytes;
            continue;
        }
        cr_assert(bytes.len == out->len && memcmp(bytes.data, out->data, out->len) == 0,
                  "%s: other bits than %s", model, models[0]);
        nas_buf_deinit(&bytes);
    }
}

/* What shape i is compiled for, and by which ways. */
static bool is_taken(const layer_conv_cases *cases, const nas__conv *c, const nas__conv_way *ways,
                     int32_t k, int i) {
    if (cases->winograd && !is_winograd(&ways[k])) return false;
    return is_compiled(cases->target, c, ways, k, i);
}

void layer_conv_check(const layer_conv_cases *cases) {
    const nas_target *target = cases->target;
    const char *const *models = cases->models;
    const char *const *checks = models != NULL ? guarded : sanitized;
    nas_target small = *target;
    small.l2_bytes = CACHE;
    nas_buf text = {0}, calls = {0}, raw = {0}, result = {0};
    nas_rng rng = nas_rng_stream(11, 0, "layer_conv");
    static tensors all[LAYER_CONV_CASES_MAX];
    static nas__conv_way ways[LAYER_CONV_CASES_MAX][NAS__CONV_WAYS_MAX];
    int32_t counts[LAYER_CONV_CASES_MAX];
    cr_assert(cases->n <= LAYER_CONV_CASES_MAX);
    nas_buf_puts(&text, "#define _DEFAULT_SOURCE\n#define _POSIX_C_SOURCE 200809L\n#include "
                        "<stdio.h>\n#include <stdlib.h>\n"
                        "#include <string.h>\n");
    nas_buf_puts(&text, nas__rt_file("cpu_check.h"));
    nas__emit_vector_prelude(target, &text);
    for (int i = 0; i < cases->n; i++) {
        all[i] = tensors_of(&rng, &cases->rows[i]);
        if (target->bf16) round_products(&all[i]);
        const nas_target *of = i >= cases->small_from && i < cases->small_to ? &small : target;
        counts[i] = nas__conv_ways(of, &all[i].conv, ways[i]);
        cr_assert(counts[i] >= 1 && counts[i] <= NAS__CONV_WAYS_MAX);
        for (int32_t k = 0; k < counts[i]; k++) {
            cr_assert(ways[i][k].cycles > 0 && isfinite(ways[i][k].cycles));
            cr_assert(k == 0 || ways[i][k].cycles >= ways[i][k - 1].cycles);
            if (is_taken(cases, &all[i].conv, ways[i], k, i))
                add_case(of, &all[i], &ways[i][k], &text, &calls, &raw);
        }
    }
    nas_buf_printf(&text, "#define NEEDS \"%s\"\n%s", target->needs, main_text);
    nas_buf_puts(&text, calls.data);
    nas_buf_puts(&text, "    return fclose(out) != 0;\n}\n");
    cr_assert(eq(int, (int)nas_buf_status(layer_conv_ctx, &text), NAS_OK));
    cr_assert(eq(int, (int)nas_buf_status(layer_conv_ctx, &raw), NAS_OK));
    layer_conv_write("kernels.c", text.data, text.len);
    layer_conv_write("in.raw", raw.data, raw.len);
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
    const int built = layer_conv_run(build, &r);
    cr_assert(built == 0, "%s: %.3000s", target->name, r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
    run_kernels(target, models, &result);
    const float *out = (const float *)(const void *)result.data;
    for (int i = 0; i < cases->n; i++) {
        const tensors *t = &all[i];
        for (int32_t k = 0; k < counts[i]; k++) {
            if (!is_taken(cases, &t->conv, ways[i], k, i)) continue;
            const nas__conv_way *w = &ways[i][k];
            const double error = layer_conv_worst(&t->conv, t->in, t->residual, t->weight, t->bias,
                                                  t->slope, out, t->out_floats);
            cr_expect(error <= (is_winograd(w) ? winograd_bound : direct_bound),
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
