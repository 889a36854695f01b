/* test_layer_conv_sparse.c - convolutions that leave zeros out: every sparse way of many shapes and masks against a plain
 * double reference. Targets that this processor lacks run under qemu-user; vectors of 64 bytes in plain C. */
#include "ir/sparsity.h"
#include "layer_conv_cases.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Error relative to the sum of the magnitudes of the products: rounding of float chains alone. */
static const double bound = 1e-5;

/* What the weights keep. */
typedef enum mask_kind {
    MASK_1X2,
    MASK_1X4,
    MASK_1X8,
    MASK_1X16,
    MASK_REARRANGED, /* 1x4 of outputs that are no neighbours */
    MASK_N_OF_M,
    MASK_PUNCHED,
    MASK_UNSTRUCTURED,
    MASK_FILTERS,  /* empty rows */
    MASK_CHANNELS, /* empty columns */
    MASK_NOTHING,  /* everything is zero */
    MASK_SINGLE,   /* one weight is not */
    MASK_BUT_ONE,  /* one weight is zero */
    MASK_SET2,     /* complementary */
    MASK_SET4,
    MASK_SET8,
    MASK_2_OF_4 /* each output its own */
} mask_kind;

typedef struct sparse_row {
    int32_t in_c, out_c, out_h, out_w, kh, kw, sh, sw, dh, dw, in_extra, out_extra;
    bool residual;
    nas__layer_act act;
    mask_kind mask;
} sparse_row;

static const sparse_row shapes[] = {
    {40, 24, 5, 9, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU, MASK_1X4},
    {13, 19, 7, 7, 1, 1, 1, 1, 1, 1, 3, 5, true, NAS__LACT_NONE, MASK_1X2},
    {16, 40, 4, 16, 1, 1, 2, 2, 1, 1, 0, 0, true, NAS__LACT_RELU, MASK_1X16},
    {8, 24, 6, 5, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_PRELU, MASK_PUNCHED},
    {24, 17, 3, 11, 3, 3, 2, 2, 1, 1, 1, 1, false, NAS__LACT_CLIP, MASK_1X8},
    {600, 9, 3, 7, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_HARD_SWISH, MASK_UNSTRUCTURED},
    {5, 6, 8, 8, 2, 3, 1, 2, 2, 1, 0, 2, false, NAS__LACT_LEAKY, MASK_N_OF_M},
    {33, 50, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU, MASK_1X8},
    {32, 32, 4, 8, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, MASK_REARRANGED},
    {10, 16, 2, 9, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_NONE, MASK_FILTERS},
    {12, 8, 6, 3, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU, MASK_CHANNELS},
    {9, 11, 5, 5, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_PRELU, MASK_NOTHING},
    {16, 16, 3, 5, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, MASK_SINGLE},
    {7, 5, 1, 19, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, MASK_BUT_ONE},
    /* more steps and more values of a group than one instruction of 64-bit Arm can address */
    {4200, 12, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, MASK_UNSTRUCTURED},
    {20, 50, 3, 7, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_NONE, MASK_UNSTRUCTURED},
    /* lanes that pick: partial vectors, narrow blocks, taps, gaps between pixels */
    {24, 19, 5, 7, 1, 1, 1, 1, 1, 1, 0, 3, true, NAS__LACT_RELU, MASK_SET2},
    {40, 24, 4, 9, 1, 1, 2, 2, 1, 1, 0, 0, false, NAS__LACT_PRELU, MASK_SET4},
    {16, 40, 3, 6, 3, 3, 1, 1, 1, 1, 3, 0, true, NAS__LACT_NONE, MASK_SET8},
    {12, 6, 2, 21, 2, 1, 1, 1, 1, 1, 1, 1, false, NAS__LACT_LEAKY, MASK_2_OF_4},
    {5200, 8, 1, 4, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, MASK_SET4}, /* wide indices */
    /* so many weights that tiles of machine code are several blocks of vectors, in parts of the sum */
    {600, 41, 5, 22, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_RELU, MASK_UNSTRUCTURED},
    /* images that do not fit L2: tiles ask for the pixels of the next one, or for where its outputs go */
    {256, 8, 33, 33, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_RELU, MASK_1X4},
    {16, 200, 37, 41, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_PRELU, MASK_1X2},
};
enum { FIXED = sizeof shapes / sizeof shapes[0], GENERATED = 8 };

TestSuite(compiler_layer_conv_sparse, .init = layer_conv_setup, .fini = layer_conv_teardown,
          .timeout = 240);

static sparse_row generated_shape(nas_rng *rng) {
    sparse_row r = {.dh = 1, .dw = 1};
    const int32_t widths[] = {1, 3, 8, 13, 16, 31, 40};
    r.in_c = widths[nas_rng_below(rng, 7)];
    r.out_c = widths[nas_rng_below(rng, 7)];
    r.out_h = 1 + (int32_t)nas_rng_below(rng, 11);
    r.out_w = 1 + (int32_t)nas_rng_below(rng, 40);
    r.kh = r.kw = 1 + (int32_t)nas_rng_below(rng, 3);
    r.sh = r.sw = nas_rng_below(rng, 3) == 0 ? 2 : 1;
    r.in_extra = (int32_t)nas_rng_below(rng, 3);
    r.out_extra = (int32_t)nas_rng_below(rng, 3);
    r.residual = nas_rng_below(rng, 2) == 0;
    r.act = (nas__layer_act)nas_rng_below(rng, 6);
    r.mask = (mask_kind)nas_rng_below(rng, MASK_FILTERS);
    return r;
}

static nas__conv conv_of(const sparse_row *r) {
    const shape_row dense = {r->in_c,      r->out_c,    1,     r->out_h, r->out_w, r->kh,
                             r->kw,        r->sh,       r->sw, r->dh,    r->dw,    r->in_extra,
                             r->out_extra, r->residual, r->act};
    return layer_conv_of(&dense);
}

static const char main_text[] =
    "typedef void kernel(const float *, float *, const float *, const void *, void *, int, int);\n"
    "static float *take(FILE *f, size_t n) {\n"
    "    float *p = n > 0 ? malloc(n * 4) : NULL;\n"
    "    if (n > 0 && fread(p, 4, n, f) != n) exit(3);\n"
    "    return p;\n"
    "}\n"
    "static void one(FILE *in, FILE *out, kernel *k, size_t n_in, size_t n_res, size_t n_w, size_t "
    "n_scratch,\n    size_t n_out, int units) {\n"
    "    float *x = take(in, n_in), *r = take(in, n_res), *w = take(in, n_w);\n"
    "    float *y[2], *scratch = NULL;\n"
    "    if (n_scratch > 0 && posix_memalign((void **)&scratch, 64, n_scratch * 4) != 0) exit(4);\n"
    "    for (int split = 0; split < 2; split++) {\n"
    "        y[split] = malloc(n_out * 4);\n"
    "        for (size_t i = 0; i < n_out; i++) y[split][i] = -777.0f;\n"
    "        for (size_t i = 0; i < n_scratch; i++) scratch[i] = 0x1p+100f;\n"
    "        if (split == 0) k(x, y[0], r, w, scratch, 0, units);\n"
    "        else for (int u = units; u > 0;) {\n"
    "            const int n = u % 3 + 1 < u ? u % 3 + 1 : u;\n"
    "            k(x, y[1], r, w, scratch, u - n, u);\n            u -= n;\n        }\n"
    "    }\n"
    "    if (memcmp(y[0], y[1], n_out * 4) != 0) exit(5);\n"
    "    if (fwrite(y[0], 4, n_out, out) != n_out) exit(6);\n"
    "    free(x); free(r); free(w); free(y[0]); free(y[1]); free(scratch);\n"
    "}\n"
    "int main(void) {\n"
    "    FILE *in = fopen(\"in.raw\", \"rb\"), *out = fopen(\"out.raw\", \"wb\");\n"
    "    if (in == NULL || out == NULL) return 2;\n";

/* Tensors of one shape. */
typedef struct tensors {
    nas__conv conv;
    uint8_t *kept;
    float *in, *residual, *weight, *bias, *slope;
    size_t in_floats, out_floats, residual_floats;
} tensors;

static nas_sparsity pattern_of(mask_kind kind) {
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.rate = 0.6;
    switch (kind) {
    case MASK_1X2: s.n = 2; break;
    case MASK_1X4: break;
    case MASK_1X8: s.n = 8; break;
    case MASK_1X16: s.n = 16; break;
    case MASK_REARRANGED: s.rearrange = true; break;
    case MASK_N_OF_M: s.pattern = NAS_SPARSITY_N_OF_M; break;
    case MASK_PUNCHED: s.pattern = NAS_SPARSITY_PUNCHED; break;
    case MASK_UNSTRUCTURED: s.pattern = NAS_SPARSITY_UNSTRUCTURED; break;
    case MASK_FILTERS: s.pattern = NAS_SPARSITY_FILTER; break;
    case MASK_CHANNELS: s.pattern = NAS_SPARSITY_CHANNEL; break;
    case MASK_SET2:
    case MASK_SET4:
    case MASK_SET8: s.pattern = NAS_SPARSITY_COMPLEMENTARY; break;
    case MASK_2_OF_4: s.pattern = NAS_SPARSITY_N_OF_M; break;
    case MASK_NOTHING:
    case MASK_SINGLE:
    case MASK_BUT_ONE: break;
    }
    s.outputs = s.inputs = 4;
    if (kind == MASK_SET2) s.outputs = 2;
    if (kind == MASK_SET8) s.outputs = 8;
    if (kind == MASK_2_OF_4) s.outputs = 1;
    return s;
}

static void make_mask(tensors *t, mask_kind kind, size_t weights) {
    const nas__conv *c = &t->conv;
    const nas_sparsity s = pattern_of(kind);
    const int32_t dims[4] = {c->out_c, c->kernel_h, c->kernel_w, c->in_c};
    cr_assert(eq(int, (int)nas_sparsity_mask(layer_conv_ctx, &s, t->weight, dims, t->kept), NAS_OK),
              "%s", nas_ctx_message(layer_conv_ctx));
    if (kind == MASK_NOTHING || kind == MASK_SINGLE) memset(t->kept, 0, weights);
    if (kind == MASK_SINGLE) t->kept[weights / 3] = 1;
    if (kind == MASK_BUT_ONE) memset(t->kept, 1, weights);
    if (kind == MASK_BUT_ONE) t->kept[weights / 2] = 0;
    for (size_t i = 0; i < weights; i++)
        t->weight[i] = t->kept[i] != 0 ? t->weight[i] : 0;
    t->conv.kept = t->kept;
}

static tensors tensors_of(nas_rng *rng, const sparse_row *row) {
    tensors t = {.conv = conv_of(row)};
    const nas__conv *c = &t.conv;
    t.in_floats = layer_conv_exact(layer_conv_in_height(c), layer_conv_in_width(c), c->in_row,
                                   c->in_pitch, c->in_c);
    t.out_floats = layer_conv_exact(c->out_h, c->out_w, c->out_row, c->out_pitch, c->out_c);
    t.residual_floats = c->has_residual ? layer_conv_exact(c->out_h, c->out_w, c->residual_row,
                                                           c->residual_pitch, c->out_c)
                                        : 0;
    const size_t weights = (size_t)c->out_c * (size_t)(c->kernel_h * c->kernel_w * c->in_c);
    t.in = nas_alloc_array(layer_conv_ctx, t.in_floats, sizeof(float));
    t.residual = nas_alloc_array(layer_conv_ctx, t.residual_floats, sizeof(float));
    t.weight = nas_alloc_array(layer_conv_ctx, weights, sizeof(float));
    t.kept = nas_alloc_array(layer_conv_ctx, weights, 1);
    t.bias = nas_alloc_array(layer_conv_ctx, (size_t)c->out_c, sizeof(float));
    t.slope = nas_alloc_array(layer_conv_ctx, (size_t)c->out_c, sizeof(float));
    layer_conv_fill(rng, t.in, t.in_floats);
    layer_conv_fill(rng, t.residual, t.residual_floats);
    layer_conv_fill(rng, t.weight, weights);
    layer_conv_fill(rng, t.bias, (size_t)c->out_c);
    layer_conv_fill(rng, t.slope, (size_t)c->out_c);
    make_mask(&t, row->mask, weights);
    return t;
}

static void tensors_free(tensors *t) {
    nas_free(t->in);
    nas_free(t->residual);
    nas_free(t->weight);
    nas_free(t->kept);
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

static bool build_and_run(const nas_target *target) {
    char flags[6][64] = {""};
    const int n = sscanf(target->flags, "%63s %63s %63s %63s %63s %63s", flags[0], flags[1],
                         flags[2], flags[3], flags[4], flags[5]);
    const bool emulated = target->flags[0] == '\0';
    const char *run = emulated ? "" : runner(target);
    const char *argv[32] = {target->compiler,
                            "-std=gnu99",
                            "-ffp-contract=fast",
                            "-Wall",
                            "-Wextra",
                            "-Werror",
                            "-Wno-psabi",
                            "kernels.c",
                            "-o",
                            "kernels",
                            emulated ? "-O0" : "-O1"};
    int k = 11;
    for (int i = 0; i < n; i++)
        argv[k++] = flags[i];
    if (run != NULL && run[0] == '\0') {
        argv[k++] = "-fsanitize=address";
        argv[k++] = "--param=asan-instrumentation-with-call-threshold=0";
    } else {
        argv[k++] = "-static";
    }
    if (!on_path(target->compiler) || run == NULL || (run[0] != '\0' && !on_path(run))) {
        cr_log_info("%s: its compiler or qemu-user is not installed", target->name);
        return false;
    }
    nas_process_result r = {0};
    const int built = layer_conv_run(argv, &r);
    cr_assert(built == 0, "%s: %.3000s", target->name, r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
    const char *const alone[] = {"./kernels", NULL};
    const char *under[5] = {run, "./kernels"};
    if (strcmp(target->name, "riscv64-rvv256") == 0) {
        under[1] = "-cpu";
        under[2] = "rv64,v=true,vext_spec=v1.0,vlen=256";
        under[3] = "./kernels";
    }
    r = (nas_process_result){0};
    const int code = layer_conv_run(run[0] == '\0' ? alone : under, &r);
    cr_assert(code == 0, "%s: exit %d: %.3000s", target->name, code,
              r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
    return true;
}

typedef struct case_row {
    tensors t;
    nas__conv_way ways[2 * NAS__CONV_WAYS_MAX];
    int32_t n;
} case_row;

/* Machine code for tiles of three blocks and parts of the sum as short as they can be, whatever the estimate prefers. */
static void add_cut_code(const nas_target *target, const nas__conv_way *way, case_row *out,
                         nas_buf *text, nas_buf *calls, nas_buf *raw) {
    nas__conv_way cut = *way;
    const int32_t lanes = target->vector_bytes / 4;
    if (!nas__sparse_code_writer(target)->parts) return; /* 64-bit Arm has neither */
    cut.vectors = 3 * way->pixels;
    cut.depth = out->t.conv.in_c % lanes == 0 && out->t.conv.in_c < 100 ? lanes : way->depth;
    if (cut.vectors == way->vectors && cut.depth == way->depth) return; /* it is that already */
    add_case(target, &out->t, &cut, text, calls, raw);
    out->ways[out->n++] = cut;
}

/* The sparse ways of a shape alone: machine code wherever it can run, of the others some, other ones for each shape: a
 * compiler takes minutes for all. */
static void add_cases(const nas_target *target, nas_rng *rng, const sparse_row *row, int32_t shape,
                      int32_t every, case_row *out, nas_buf *text, nas_buf *calls, nas_buf *raw) {
    nas__conv_way all[NAS__CONV_WAYS_MAX];
    out->t = tensors_of(rng, row);
    const int32_t n = nas__conv_ways(target, &out->t.conv, all);
    for (int32_t i = 0, k = 0; i < n; i++) {
        if (!nas__conv_is_sparse(&all[i])) continue;
        const bool code = all[i].algorithm == NAS__CONV_SPARSE_CODE;
        if (code ? target->flags[0] == '\0' : (k++ + shape) % every != 0) continue;
        cr_assert(all[i].cycles > 0 && isfinite(all[i].cycles));
        add_case(target, &out->t, &all[i], text, calls, raw);
        out->ways[out->n++] = all[i];
        if (code) add_cut_code(target, &all[i], out, text, calls, raw);
    }
}

static void check_target(const nas_target *target, int32_t every) {
    nas_buf text = {0}, calls = {0}, raw = {0}, result = {0};
    nas_rng rng = nas_rng_stream(12, 0, "layer_conv_sparse");
    case_row *cases = nas_alloc_array(layer_conv_ctx, FIXED + GENERATED, sizeof *cases);
    int32_t seen = 0;
    nas_buf_puts(&text, "#define _POSIX_C_SOURCE 200809L\n#include <stdio.h>\n#include <stdlib.h>\n"
                        "#include <string.h>\n");
    nas__emit_vector_prelude(target, &text);
    for (int i = 0; i < FIXED + GENERATED; i++) {
        const sparse_row row = i < FIXED ? shapes[i] : generated_shape(&rng);
        add_cases(target, &rng, &row, i, every, &cases[i], &text, &calls, &raw);
        seen += cases[i].n;
    }
    cr_assert(seen >= FIXED, "%d ways", seen);
    nas_buf_puts(&text, main_text);
    nas_buf_puts(&text, calls.data);
    nas_buf_puts(&text, "    return fclose(out) != 0;\n}\n");
    cr_assert(eq(int, (int)nas_buf_status(layer_conv_ctx, &text), NAS_OK));
    cr_assert(eq(int, (int)nas_buf_status(layer_conv_ctx, &raw), NAS_OK));
    layer_conv_write("kernels.c", text.data, text.len);
    layer_conv_write("in.raw", raw.data, raw.len);
    const bool ran = build_and_run(target);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/out.raw", layer_conv_dir);
    if (ran)
        cr_assert(
            eq(int, (int)nas_file_read(layer_conv_ctx, path, (size_t)1 << 28, &result), NAS_OK));
    const float *out = (const float *)(const void *)result.data;
    for (int i = 0; i < FIXED + GENERATED; i++) {
        const tensors *t = &cases[i].t;
        for (int32_t k = 0; k < cases[i].n && ran; k++) {
            const nas__conv_way *w = &cases[i].ways[k];
            const double error = layer_conv_worst(&t->conv, t->in, t->residual, t->weight, t->bias,
                                                  t->slope, out, t->out_floats);
            cr_expect(error <= bound, "%s shape %d: %s %dx%d group %d depth %d: error %g",
                      target->name, i, nas__conv_algorithm_name(w->algorithm), w->pixels,
                      w->vectors, w->group, w->depth, error);
            out += t->out_floats;
        }
        tensors_free(&cases[i].t);
    }
    nas_free(cases);
    nas_buf_deinit(&text);
    nas_buf_deinit(&calls);
    nas_buf_deinit(&raw);
    nas_buf_deinit(&result);
}

static void check_named(const char *name, int32_t every) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, name, &target), NAS_OK));
    check_target(target, every);
}

Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_16_bytes) {
    check_named("x86-64", 4);
}
Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_32_bytes) {
    check_named("x86-64-avx2", 2);
}
/* Kernels that ask for what the next tile reads or writes. */
Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_beyond_l2) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx2", &target), NAS_OK));
    nas_target small = *target;
    small.l2_bytes = 1024;
    check_target(&small, 4);
}
/* The same text as for AVX-512, with vectors that the compiler takes apart; masks as machine code it cannot. */
Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_64_bytes) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx512", &target), NAS_OK));
    nas_target plain = *target;
    plain.flags = "";
    check_target(&plain, 5);
}
/* Tiles that are cut from all rows of a call together, in plain C and where there is AVX-512 with machine code. */
Test(compiler_layer_conv_sparse, runs_of_rows_agree_with_the_reference_64_bytes) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx512", &target), NAS_OK));
    nas_target small = *target;
    small.l2_bytes = 64;
    const bool runs_here = target->runs_here;
    if (runs_here) check_target(&small, 3);
    small.flags = "";
    check_target(&small, 6);
}
Test(compiler_layer_conv_sparse, masks_as_code_agree_with_the_reference_avx512) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx512", &target), NAS_OK));
    if (target->runs_here)
        check_target(target, 4);
    else
        cr_log_info("this processor has no AVX-512");
}
Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_aarch64) {
    check_named("aarch64-linux", 3);
}
Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_armv7) {
    check_named("armv7-linux", 4);
}
Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_riscv64) {
    check_named("riscv64-linux", 4);
}
Test(compiler_layer_conv_sparse, every_way_agrees_with_the_reference_riscv64_vectors) {
    check_named("riscv64-rvv256", 4);
}

/* Which targets have an assembler for masks; what it writes lies where programs are read and run, never written. */
Test(compiler_layer_conv_sparse, masks_are_machine_code_in_the_section_of_the_program) {
    static const struct {
        const char *target, *directive;
    } rows[] = {{"x86-64", NULL},
                {"x86-64-avx2", ".quad "},
                {"x86-64-avx512", ".quad "},
                {"aarch64-linux", ".inst "},
                {"aarch64-dotprod", ".inst "},
                {"aarch64-i8mm", ".inst "},
                {"aarch64-android", ".inst "},
                {"armv7-linux", NULL},
                {"riscv64-linux", NULL}};
    nas_rng rng = nas_rng_stream(15, 0, "code");
    const sparse_row row = {
        64, 40, 4, 8, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, MASK_UNSTRUCTURED};
    tensors t = tensors_of(&rng, &row);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const nas_target *target = NULL;
        cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, rows[i].target, &target), NAS_OK));
        nas__conv_way ways[NAS__CONV_WAYS_MAX];
        const int32_t n = nas__conv_ways(target, &t.conv, ways);
        nas_buf text = {0};
        for (int32_t k = 0; k < n; k++) {
            if (ways[k].algorithm == NAS__CONV_SPARSE_CODE)
                nas__conv_emit(target, &t.conv, &ways[k], &text);
        }
        const bool written = text.data != NULL, wanted = rows[i].directive != NULL;
        cr_assert(written == wanted, "%s", rows[i].target);
        if (text.data != NULL) {
            cr_assert(ne(ptr, strstr(text.data, rows[i].directive), NULL), "%s", rows[i].target);
            cr_assert(ne(ptr, strstr(text.data, ".pushsection .text"), NULL));
        }
        nas_buf_deinit(&text);
    }
    tensors_free(&t);
}

/* A weight of AVX-512 is a third of the code that it is on AVX2. */
Test(compiler_layer_conv_sparse, masks_of_many_weights_are_code_where_code_is_short) {
    static const char *const names[] = {"x86-64-avx2", "x86-64-avx512"};
    enum { STEPS = 1000, OUTPUTS = 100 };
    static uint8_t kept[OUTPUTS * STEPS];
    for (int32_t i = 0; i < OUTPUTS * STEPS; i++)
        kept[i] = i % 4 != 0;
    const sparse_row row = {STEPS, OUTPUTS,        2,           8, 1, 1, 1, 1, 1, 1, 0, 0,
                            false, NAS__LACT_NONE, MASK_NOTHING};
    nas__conv c = conv_of(&row);
    c.kept = kept;
    for (int32_t i = 0; i < 2; i++) {
        const nas_target *target = NULL;
        cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, names[i], &target), NAS_OK));
        nas__conv_way ways[NAS__CONV_WAYS_MAX];
        const int32_t n = nas__conv_ways(target, &c, ways);
        bool code = false;
        for (int32_t k = 0; k < n; k++)
            code = code || ways[k].algorithm == NAS__CONV_SPARSE_CODE;
        cr_assert(code == (i == 1), "%s", names[i]);
    }
}

/* On AVX2 and AVX-512 lists ask for the next tile's pixels where those do not fit L2, else for its outputs, on AVX2 where
 * sums are short; on others this was not measured. */
Test(compiler_layer_conv_sparse, images_beyond_l2_are_asked_for) {
    static const struct {
        const char *target;
        int32_t in_c, out_c, height;
        const char *asks, *not ;
    } rows[] = {{"x86-64-avx512", 256, 8, 40, "AHEAD(ahead)", "AHEAD_TO(ahead)"},
                {"x86-64-avx512", 8, 256, 40, "AHEAD_TO(ahead)", "AHEAD(ahead)"},
                {"x86-64-avx512", 256, 8, 4, NULL, "AHEAD"},
                {"x86-64-avx2", 256, 8, 40, "AHEAD(ahead)", "AHEAD_TO(ahead)"},
                {"x86-64-avx2", 8, 256, 40, "AHEAD_TO(ahead)", "AHEAD(ahead)"},
                {"x86-64-avx2", 144, 256, 40, NULL, "AHEAD"},
                {"x86-64-avx2", 256, 8, 4, NULL, "AHEAD"},
                {"x86-64", 256, 8, 40, NULL, "AHEAD"}};
    nas_rng rng = nas_rng_stream(16, 0, "ahead");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const nas_target *target = NULL;
        cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, rows[i].target, &target), NAS_OK));
        const sparse_row row = {
            rows[i].in_c, rows[i].out_c,  rows[i].height, 40, 1, 1, 1, 1, 1, 1, 0, 0,
            false,        NAS__LACT_NONE, MASK_1X4};
        tensors t = tensors_of(&rng, &row);
        nas__conv_way way = {.algorithm = NAS__CONV_SPARSE_PANEL,
                             .vectors = 3,
                             .pixels = 1,
                             .group = 4,
                             .joined = 1};
        nas_buf text = {0};
        nas__conv_emit(target, &t.conv, &way, &text);
        cr_assert(eq(int, (int)nas_buf_status(layer_conv_ctx, &text), NAS_OK));
        if (rows[i].asks != NULL)
            cr_assert(ne(ptr, strstr(text.data, rows[i].asks), NULL), "row %zu", i);
        cr_assert(eq(ptr, strstr(text.data, rows[i].not ), NULL), "row %zu", i);
        nas_buf_deinit(&text);
        tensors_free(&t);
    }
}

/* A kernel's text and name depend on the shape alone: other zeros compile nothing. */
Test(compiler_layer_conv_sparse, masks_share_their_kernels) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx2", &target), NAS_OK));
    nas_rng rng = nas_rng_stream(13, 0, "masks");
    sparse_row row = shapes[0];
    tensors a = tensors_of(&rng, &row);
    row.mask = MASK_SINGLE;
    tensors b = tensors_of(&rng, &row);
    nas__conv_way way = {
        .algorithm = NAS__CONV_SPARSE_PANEL, .vectors = 3, .pixels = 1, .group = 4};
    nas__conv_way other = way;
    way.entries = 100;
    other.entries = 1;
    nas_buf texts[2] = {{0}, {0}};
    nas__conv_emit(target, &a.conv, &way, &texts[0]);
    nas__conv_emit(target, &b.conv, &other, &texts[1]);
    cr_assert(eq(str, texts[0].data, texts[1].data));
    cr_assert(nas__conv_weight_floats(target, &a.conv, &way) >
              nas__conv_weight_floats(target, &b.conv, &other));
    nas_buf_deinit(&texts[0]);
    nas_buf_deinit(&texts[1]);
    tensors_free(&a);
    tensors_free(&b);
}

/* Outputs that were put together for the mask lie apart in the tensor; their lists are as short as if they did not. */
Test(compiler_layer_conv_sparse, rearranged_outputs_are_found_again) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx2", &target), NAS_OK));
    nas_rng rng = nas_rng_stream(14, 0, "rearranged");
    sparse_row row = {
        128, 32, 4, 8, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, MASK_REARRANGED};
    tensors t = tensors_of(&rng, &row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, &t.conv, ways);
    int32_t entries = -1;
    for (int32_t i = 0; i < n; i++) {
        const bool is_lists = ways[i].algorithm != NAS__CONV_SPARSE_RUN;
        if (is_lists && ways[i].group == 4 && ways[i].joined == 0) entries = ways[i].entries;
    }
    cr_assert(eq(int, entries, 128 * 32 / 4 - (int)(0.6 * (128 * 32 / 4))));
    tensors_free(&t);
}

/* Of a complementary set the lanes of a vector pick one input each: an entry for each run, whatever the outputs keep. */
Test(compiler_layer_conv_sparse, sets_are_runs_that_lanes_pick_from) {
    static const struct {
        mask_kind mask;
        int32_t run, entries; /* of a block of 16 outputs */
    } rows[] = {{MASK_SET2, 4, 64 / 2}, {MASK_SET4, 4, 64 / 4}, {MASK_SET8, 8, 64 / 8}};
    const nas_target *target = NULL, *other = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx2", &target), NAS_OK));
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "aarch64-linux", &other), NAS_OK));
    nas_rng rng = nas_rng_stream(16, 0, "sets");
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        const sparse_row row = {
            64, 32, 4, 8, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE, rows[k].mask};
        tensors t = tensors_of(&rng, &row);
        nas__conv_way ways[NAS__CONV_WAYS_MAX];
        int32_t entries = 0;
        for (int32_t i = nas__conv_ways(target, &t.conv, ways) - 1; i >= 0; i--) {
            if (ways[i].algorithm == NAS__CONV_SPARSE_RUN && ways[i].vectors == 2 &&
                ways[i].group == rows[k].run)
                entries = ways[i].entries;
        }
        cr_assert(eq(int, entries, 2 * rows[k].entries));
        for (int32_t i = nas__conv_ways(other, &t.conv, ways) - 1; i >= 0; i--)
            cr_assert(ways[i].algorithm != NAS__CONV_SPARSE_RUN);
        tensors_free(&t);
    }
}
