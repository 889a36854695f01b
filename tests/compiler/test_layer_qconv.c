/* test_layer_qconv.c - the integer convolutions of the layer form: every way of many shapes against the plain reference,
 * bit for bit.
 *
 * All kernels of one target go into one program. It reads packed bytes, gives each kernel buffers of exactly the promised
 * size, and writes the outputs of two splits of the units. Built with AddressSanitizer where it runs here, statically for
 * qemu-user elsewhere; what cannot run is compiled. */
#include "emulated_intrinsics.h"
#include "qconv_cases.h"
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
    int32_t counts[CASES], singles = 0, words = 0;
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
        all[i] = tensors_of(ctx, &rng, &row, planes, looks);
        singles += all[i].q.single;
        words += all[i].q.single && all[i].q.joins && all[i].q.dots > 0;
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
    cr_assert(ge(int, words, looks ? 3 : 0)); /* 16, 32 and 64 channels among them */
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
    tensors t = tensors_of(ctx, &rng, &fixed_shapes[7], NULL, false); /* one weight of two bits */
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
