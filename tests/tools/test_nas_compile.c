/* test_nas_compile.c - the program as people start it: from an ONNX file to a program that answers, and every refusal. */
#include "compiler/compiler.h"
#include "db/db.h"
#include "ir/graph.h"
#include "tests/tools/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[64], onnx[128];

#define OK(expr) cr_assert(eq(int, (int)(expr), (int)NAS_OK), "%s", nas_ctx_message(ctx))

/* y = relu(conv 3x3 stride 2 of x), 2 -> 5 channels, 6 x 8 pixels, as an ONNX file. */
static nas_graph *sample(void) {
    nas_graph *g = nas_graph_new(ctx, "sample");
    nas_conv_attributes a = nas_conv_same(5, 3);
    a.stride_h = a.stride_w = 2;
    nas_value v = NAS_VALUE_NONE;
    OK(nas_graph_add_input(ctx, g, "in", (nas_shape){1, 6, 8, 2}, &v));
    OK(nas_graph_add_conv(ctx, g, "conv", v, &a, &v));
    OK(nas_graph_add_relu(ctx, g, "act", v, &v));
    OK(nas_graph_set_output(ctx, g, v));
    OK(nas_graph_alloc_weights(ctx, g));
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        for (size_t i = 0; i < param->count; i++)
            param->data[i] = (float)((int)(i * 7 % 11) - 5) * 0.125F;
    }
    return g;
}

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(folder, sizeof folder, "/tmp/nas-compile-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    (void)snprintf(onnx, sizeof onnx, "%s/sample.onnx", folder);
    nas_graph *g = sample();
    OK(nas_onnx_export(ctx, g, onnx));
    nas_graph_free(g);
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, folder), NAS_OK));
    nas_ctx_free(ctx);
}

TestSuite(tools_nas_compile, .init = setup, .fini = teardown, .timeout = 120);

static int shell(const char *line, nas_buf *out) {
    return tool_shell(ctx, folder, line, out);
}

static void expect(const char *line, int code, const char *text) {
    tool_expect(ctx, folder, line, code, text);
}

/* The same convolution by definition, planar. */
static void by_definition(const nas_graph *g, const float *x, float *y) {
    const float *w = nas_graph_param_const(g, 0)->data, *b = nas_graph_param_const(g, 1)->data;
    for (int o = 0; o < 5; o++) {
        for (int h = 0; h < 3; h++) {
            for (int v = 0; v < 4; v++) {
                double sum = (double)b[o];
                for (int k = 0; k < 18; k++) {
                    const int ky = k / 6, kx = k / 2 % 3, c = k % 2, iy = 2 * h + ky - 1,
                              ix = 2 * v + kx - 1;
                    if (iy < 0 || ix < 0 || iy >= 6 || ix >= 8) continue;
                    sum += (double)w[(size_t)o * 18 + (size_t)k] * (double)x[(c * 6 + iy) * 8 + ix];
                }
                y[(o * 3 + h) * 4 + v] = sum > 0 ? (float)sum : 0;
            }
        }
    }
}

enum { IN = 2 * 6 * 8, OUT = 5 * 3 * 4, NPY_HEADER = 128 };

static void check_numbers(const char *name, size_t skip, const float *expected) {
    char path[160];
    nas_buf got = {0};
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(nas_file_read(ctx, path, SIZE_MAX, &got));
    cr_assert(eq(sz, got.len, skip + OUT * sizeof(float)), "%s", name);
    for (size_t i = 0; i < OUT; i++) {
        float v = 0;
        memcpy(&v, got.data + skip + i * sizeof v, sizeof v);
        cr_assert(fabs((double)v - (double)expected[i]) < 1e-5, "%s: number %zu is %g, not %g",
                  name, i, (double)v, (double)expected[i]);
    }
    nas_buf_deinit(&got);
}

Test(tools_nas_compile, a_program_answers_raw_and_numpy_files_and_times_itself) {
    char header[NPY_HEADER + 1], path[160];
    float x[IN], y[OUT];
    nas_graph *g = sample();
    nas_buf npy = {0}, out = {0};
    for (int i = 0; i < IN; i++)
        x[i] = (float)(i * 13 % 17) / 17;
    by_definition(g, x, y);
    nas_graph_free(g);
    (void)snprintf(path, sizeof path, "%s/in.raw", folder);
    OK(nas_file_write(ctx, path, x, sizeof x, 0644));
    (void)snprintf(header, sizeof header, "%-117s\n",
                   "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 6, 8), }");
    nas_buf_append(&npy, "\x93NUMPY\x01\x00\x76\x00", 10);
    nas_buf_append(&npy, header, 118);
    nas_buf_append(&npy, x, sizeof x);
    (void)snprintf(path, sizeof path, "%s/in.npy", folder);
    OK(nas_file_write(ctx, path, npy.data, npy.len, 0644));
    nas_buf_deinit(&npy);
    expect("$P sample.onnx -o out $C --threads 2", 0, "out/model");
    expect("out/model --run in.raw out.raw --threads 2", 0, "");
    check_numbers("out.raw", 0, y);
    expect("out/model --run in.npy out.npy", 0, "");
    check_numbers("out.npy", NPY_HEADER, y);
    expect("tail -c +11 out.npy | head -c 100", 0, "'shape': (1, 5, 3, 4)");
    expect("cp in.raw bad.npy; out/model --run bad.npy o.raw", 2, "no NumPy array");
    expect("sed 's/2, 6, 8/6, 8, 2/' in.npy > bad.npy; out/model --run bad.npy o.raw", 2,
           "2 x 6 x 8");
    expect("sed s/f4/f8/ in.npy > bad.npy; out/model --run bad.npy o.raw", 2, "need '<f4'");
    cr_assert(eq(int,
                 shell("out/model --bench --profile --min-batches 2 --min-time-ms 1 --max-time-ms "
                       "50 --warmup-ms 1 --warmup-cap-ms 5",
                       &out),
                 0),
              "%s", out.data);
    static const char *const keys[] = {"\"p50_us\"",   "\"p50_lo_us\"",  "\"p90_us\"",
                                       "\"gflops\"",   "\"peak_share\"", "\"threads\"",
                                       "\"layers\": ["};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        cr_assert(ne(ptr, strstr(out.data, keys[i]), NULL), "no %s in %s", keys[i], out.data);
    nas_buf_deinit(&out);
    expect("cat out/compile.json", 0, "\"graph_hash\":\"");
}

Test(tools_nas_compile, a_bundle_builds_by_its_own_line_and_answers) {
    float x[IN], y[OUT];
    char path[160];
    nas_graph *g = sample();
    for (int i = 0; i < IN; i++)
        x[i] = (float)(i * 5 % 19) / 19 - 0.5F;
    by_definition(g, x, y);
    nas_graph_free(g);
    (void)snprintf(path, sizeof path, "%s/in.raw", folder);
    OK(nas_file_write(ctx, path, x, sizeof x, 0644));
    expect("$P sample.onnx --emit c -o app $C", 0, "model.c");
    expect("cd app && sh -c \"$(grep -- '-o example' README.txt)\" && ./example ../in.raw "
           "../out.raw",
           0, "");
    check_numbers("out.raw", 0, y);
}

/* The number of a member of app/compile.json. */
static long member(const char *folder_name, const char *name) {
    char line[256];
    nas_buf out = {0};
    (void)snprintf(line, sizeof line, "sed 's/.*\"%s\":\\([0-9a-z]*\\).*/\\1/' %s/compile.json",
                   name, folder_name);
    cr_assert(eq(int, shell(line, &out), 0), "%s", out.data);
    const long value = strtol(out.data, NULL, 10);
    nas_buf_deinit(&out);
    return value;
}

Test(tools_nas_compile, a_bundle_says_how_large_its_code_is) {
    expect("$P sample.onnx --emit c -o app $C", 0, " KB of code, ");
    nas_buf out = {0};
    /* what a compiler makes of model.c: instructions and constants */
    cr_assert(eq(int,
                 shell("cd app && sh -c \"$(grep -- '-o example' README.txt | sed "
                       "'s/weights.c.*/-c/')\" && "
                       "size -A model.o | awk '/^[.](text|rodata)/ {n += $2} END {print n}'",
                       &out),
                 0),
              "%s", out.data);
    cr_assert(eq(long, member("app", "code_bytes"), strtol(out.data, NULL, 10)), "%s", out.data);
    nas_buf_deinit(&out);
    cr_assert(member("app", "weight_bytes") > 0);
    expect("grep bytes app/README.txt", 0, "bytes of code");
    expect("PATH=/none $P sample.onnx --emit c -o blind $C; grep code_bytes blind/compile.json", 0,
           "\"code_bytes\":null");
    expect("PATH=/none $P sample.onnx --emit c -o blind --max-code-kb 100 $C", 1, "not found");
}

Test(tools_nas_compile, the_code_of_a_bundle_is_bounded) {
    char line[256];
    nas_graph *g =
        nas_graph_new(ctx, "wide"); /* Winograd wins here, and is more code than direct */
    nas_value v = NAS_VALUE_NONE;
    const nas_conv_attributes a = nas_conv_same(64, 3);
    OK(nas_graph_add_input(ctx, g, "in", (nas_shape){1, 32, 32, 64}, &v));
    OK(nas_graph_add_conv(ctx, g, "conv", v, &a, &v));
    OK(nas_graph_set_output(ctx, g, v));
    OK(nas_graph_alloc_weights(ctx, g));
    nas_param *w = nas_graph_param(g, 0);
    for (size_t i = 0; i < w->count; i++)
        w->data[i] = (float)(i % 7) * 0.01F + 0.01F;
    (void)snprintf(line, sizeof line, "%s/wide.onnx", folder);
    OK(nas_onnx_export(ctx, g, line));
    nas_graph_free(g);
    expect("$P wide.onnx --emit c -o app --target x86-64-avx2 --threads 1 $C", 0, " KB of code, ");
    const long code = member("app", "code_bytes");
    (void)snprintf(
        line, sizeof line,
        "$P wide.onnx --emit c -o less --target x86-64-avx2 --threads 1 --max-code-kb %ld $C",
        code / 1024);
    expect(line, 0, "slower kernels");
    cr_assert(member("less", "code_bytes") <= code / 1024 * 1024);
    expect("grep -o '\"made_smaller\":true' less/compile.json", 0, "made_smaller");
    expect("$P wide.onnx --emit c -o none --target x86-64-avx2 --threads 1 --max-code-kb 1 $C", 1,
           "more than the bound of 1024; the largest kernels: ");
    expect("$P wide.onnx --emit c -o none --max-code-kb 0 $C", 2, "--max-code-kb 0");
    expect("$P wide.onnx -o none --max-code-kb 10 $C", 2, "belongs to --emit c");
}

Test(tools_nas_compile, tuning_is_remembered_and_explained) {
    expect("$P sample.onnx --explain $C", 0, "* direct");
    expect("$P sample.onnx --explain --tune 1s $C", 0, "; measured ");
    expect("$P sample.onnx --explain --tune 1s $C 2>&1 >/dev/null | grep -c tuned", 1, "0");
    expect("$P sample.onnx --explain $C", 0, "; measured ");
    expect("$P sample.onnx --explain --db none.db $C", 1, "--tune makes one");
    expect("$P sample.onnx --dump-after layers $C", 0, "3 layers");
    expect("$P sample.onnx --dump-after dead $C", 0, "conv");
    expect("$P sample.onnx --dump-after melt $C", 1, "batch_norm");
}

/* Explains the sample under a recipe with these layers. */
static void recipe_is(const char *hash, const char *layers, int code, const char *text) {
    char line[1024];
    (void)snprintf(line, sizeof line,
                   "echo '{\"graph_hash\": \"%s\", \"layers\": {%s}}' > r.json; $P sample.onnx "
                   "--recipe r.json --explain $C",
                   hash, layers);
    expect(line, code, text);
}

Test(tools_nas_compile, a_recipe_must_belong_to_the_model) {
    nas_graph *g = sample();
    char hash[NAS_SHA256_HEX], line[512];
    OK(nas_graph_hash(ctx, g, false, hash));
    nas_graph_free(g);
    (void)snprintf(line, sizeof line,
                   "echo '{\"graph_hash\": \"%s\", \"layers\": {}}' > r.json; $P sample.onnx "
                   "--recipe r.json --dump-after dead $C",
                   hash);
    expect(line, 0, "conv");
    expect("echo '{\"graph_hash\": \"ab\"}' > r.json; $P sample.onnx --recipe r.json -o o $C", 1,
           "another model");
    expect("echo '{\"graph_hash\": 1' > r.json; $P sample.onnx --recipe r.json -o o $C", 1,
           "r.json");
    expect("echo '[]' > r.json; $P sample.onnx --recipe r.json -o o $C", 1, "not an object");
    (void)snprintf(line, sizeof line,
                   "echo '{\"graph_hash\": \"%s\", \"layers\": {\"nobody\": {}}}' > r.json; $P "
                   "sample.onnx --recipe r.json -o o $C",
                   hash);
    expect(line, 1, "no layer 'nobody'");
    (void)snprintf(
        line, sizeof line,
        "echo '{\"graph_hash\": \"%s\", \"layers\": {\"conv\": {\"bits\": 8}}}' > r.json; "
        "$P sample.onnx --recipe r.json -o o $C",
        hash);
    expect(line, 1, "\"bits\"");
    recipe_is(hash, "\"conv\": {\"weight_bits\": 9}", 1, "from 2 to 8");
    recipe_is(hash, "\"act\": {\"weight_bits\": 4}", 1, "of a relu");
    recipe_is(hash, "\"conv\": {\"activation\": {\"scale\": 0}}", 1, "scale 0");
    recipe_is(hash, "\"conv\": {\"activation\": {\"zero_point\": 0}}", 1, "\"scale\": number");
    recipe_is(hash, "\"conv\": {\"activation\": {\"scale\": 1, \"zero_point\": 300}}", 1,
              "zero point");
}

/* Image, convolution and activation as codes, weights of four bits. */
static const char integer_layers[] =
    "\"in\": {\"activation\": {\"scale\": 0.02, \"zero_point\": 128}}, "
    "\"conv\": {\"weight_bits\": 4}, "
    "\"act\": {\"activation\": {\"scale\": 0.02, \"zero_point\": -128, \"signed\": true}}";

Test(tools_nas_compile, tuning_reaches_integers) {
    nas_graph *g = sample();
    char hash[NAS_SHA256_HEX], line[1024];
    OK(nas_graph_hash(ctx, g, false, hash));
    nas_graph_free(g);
    (void)snprintf(line, sizeof line, "echo '{\"graph_hash\": \"%s\", \"layers\": {%s}}' > r.json",
                   hash, integer_layers);
    expect(line, 0, "");
    expect("head -c 384 /dev/urandom > in.raw; $P sample.onnx --recipe r.json -o plain $C", 0,
           "plain/model");
    expect("$P sample.onnx --recipe r.json --explain --tune 1s --threads 1 $C", 0,
           "kcycles estimated; measured ");
    expect("$P sample.onnx --recipe r.json --explain --threads 1 $C", 0, "; measured ");
    expect(
        "$P sample.onnx --recipe r.json --tune 1s --threads 1 -o best $C 2>&1 | grep -c '^tuned'",
        1, "0");
    expect("for d in plain best; do $d/model --run in.raw $d.raw || exit 3; done; cmp plain.raw "
           "best.raw",
           0, "");
}

/* A way is known by the number of threads, too. */
Test(tools_nas_compile, tuning_takes_as_many_threads_as_the_program) {
    if (nas_cpu_count() < 2) cr_skip("one processor");
    expect("$P sample.onnx --explain --tune 1s --threads 1 $C", 0, ", 1 thread: ");
    expect("$P sample.onnx --explain --threads 2 $C 2>&1 | grep -c '; measured'", 1, "0");
    expect("$P sample.onnx --explain --tune 1s --threads 2 $C", 0, ", 2 threads: ");
    expect("$P sample.onnx --explain --threads 2 $C", 0, "; measured ");
}

#define WITH_AGENT                                                                                 \
    "A=$(dirname $P)/nas-agent; rm -f said key; $A keygen key && $A serve --listen 127.0.0.1:0 "   \
    "--key-file key "                                                                              \
    "--cache-dir blobs > said & trap \"kill $!\" EXIT; "                                           \
    "while ! grep -q listening said 2>/dev/null; do sleep 0.05; done; "                            \
    "D=http://$(sed 's/.*listening \\([^ ]*\\) .*/\\1/' said); "

Test(tools_nas_compile, tuning_on_a_device_through_its_agent) {
    expect(WITH_AGENT "$P sample.onnx --explain --tune 1s --device $D --key key $C", 0,
           "; measured ");
    /* known by the name of that device: neither asked again nor taken for this machine */
    expect(WITH_AGENT "$P sample.onnx --explain --tune 1s --device $D --key key --threads 1 $C && "
                      "$P sample.onnx --explain --tune 1s --device $D --key key --threads 1 $C | "
                      "grep -c '^tuned'",
           1, "0");
    expect("$P sample.onnx --explain $C | grep -c '; measured'", 1, "0");
    expect("$P sample.onnx --explain --tune 1s --device local $C", 0, "; measured ");
    expect("$P sample.onnx --explain --tune 1s $C 2>&1 | grep -c '^tuned'", 1, "0");
}

Test(tools_nas_compile, a_device_that_is_no_good_is_named) {
    expect("$P sample.onnx --explain --tune 1s --device nowhere $C", 2, "local, adb:SERIAL");
    expect("$P sample.onnx --explain --tune 1s --device local --target aarch64-linux $C", 1,
           "--device local");
    expect("$P sample.onnx --explain --key k $C", 2, "--key belongs to");
    expect("$P sample.onnx --explain --tune 1s --target aarch64-linux $C", 1, "name a device");
    expect("$(dirname $P)/nas-agent keygen k; $P sample.onnx --explain --tune 1s --device "
           "http://127.0.0.1:1 --key k $C",
           4, "127.0.0.1");
    expect("$P --break-even --shapes 1:64:64:8 --device local $C", 2, "by --target");
}

Test(tools_nas_compile, a_recipe_makes_integers) {
    nas_graph *g = sample();
    char hash[NAS_SHA256_HEX];
    OK(nas_graph_hash(ctx, g, false, hash));
    nas_graph_free(g);
    const char *layers = integer_layers;
    recipe_is(hash, layers, 0, "integer conv 3x3");
    recipe_is(hash, layers, 0, "4-bit weights");
}

Test(tools_nas_compile, what_is_wrong_is_named) {
    static const struct {
        const char *line;
        int code;
        const char *text;
    } rows[] = {
        {"$P", 2, "which model"},
        {"$P sample.onnx", 2, "-o DIR is missing"},
        {"$P sample.onnx other -o o", 2, "unexpected argument: other"},
        {"$P sample.onnx -o o --threads 65", 2, "from 1 to 64"},
        {"$P sample.onnx -o o --emit java", 2, "exe or c"},
        {"$P sample.onnx -o o --form round", 2, "rows-winograd or layers"},
        {"$P sample.onnx -o o --tune soon", 2, "60s"},
        {"$P sample.onnx -o o --target z80", 2, "known are native"},
        {"$P sample.onnx -o o --target aarch64-linux --cpu z80", 2, "cortex-a76"},
        {"$P sample.onnx -o o --compiler no-such-gcc $C", 1, "no-such-gcc"},
        {"$P nothing.onnx -o o $C", 1, "nothing.onnx"},
        {"echo hello > text.onnx; $P text.onnx -o o $C", 1, "not an ONNX file"},
        {"$P sample.onnx -o o --form rows $C", 1, "node 'conv'"},
        {"$P sample.onnx -o sample.onnx/o $C", 1, "sample.onnx/o"},
        {"$P --help", 0, "usage: nas-compile"},
        {"$P --version", 0, "nas-compile "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        expect(rows[i].line, rows[i].code, rows[i].text);
}

/* --explain needs no cross compiler. */
Test(tools_nas_compile, kernels_for_extensions_of_arm_are_those_of_the_processor) {
#define ARM "$P sample.onnx --explain $C --target aarch64-linux --cpu "
    expect(ARM "a64fx", 0, "* sve");
    expect(ARM "a64fx", 0, "  direct");
    expect(ARM "neoverse-n2 | grep -c sve", 1, "0");
    expect("$P sample.onnx --explain $C --target aarch64-sve", 0, "* sve");
    expect(ARM "neoverse-n2 --dtype bf16", 0, "* bf16");
    expect(ARM "neoverse-n2 | grep -c bf16", 1, "0");
    expect("$P sample.onnx --explain $C --target aarch64-bf16 --dtype bf16", 0, "* bf16");
    expect(ARM "cortex-a76 --dtype bf16", 1, "compute in bf16; take target aarch64-bf16");
    expect("$P sample.onnx --explain $C --target x86-64-amx --dtype bf16", 0, "  bf16_tile");
    expect("$P sample.onnx --explain $C --target x86-64-amx | grep -c bf16", 1, "0");
    expect("$P sample.onnx --explain $C --target x86-64-avx512bf16 --dtype bf16", 0, "  bf16_dot");
    expect("$P sample.onnx --explain $C --target x86-64-avx512vnni --dtype bf16", 1,
           "compute in bf16; take target x86-64-avx512bf16, x86-64-amx, or name a processor that "
           "does: cooperlake, sapphirerapids");
    expect(ARM "neoverse-n2 --dtype bf16 --form rows", 1, "layers alone");
    expect(ARM "neoverse-n2 --dtype bf16 --tune 1s", 2, "no kernels of bf16");
#undef ARM
}

/* By option and by recipe; the option goes first. --explain needs no cross compiler. */
Test(tools_nas_compile, half_precision_is_for_processors_that_compute_in_it) {
#define ARM "--target aarch64-linux --cpu cortex-a76 "
    nas_graph *g = nas_graph_new(ctx, "rows");
    nas_value v = NAS_VALUE_NONE;
    const nas_conv_attributes c = nas_conv_same(5, 3);
    char hash[NAS_SHA256_HEX], line[512], rows[160];
    OK(nas_graph_add_input(ctx, g, "in", (nas_shape){1, 6, 8, 2}, &v));
    OK(nas_graph_add_conv(ctx, g, "conv", v, &c, &v));
    OK(nas_graph_set_output(ctx, g, v));
    OK(nas_graph_alloc_weights(ctx, g));
    OK(nas_graph_hash(ctx, g, false, hash));
    (void)snprintf(rows, sizeof rows, "%s/rows.onnx", folder);
    OK(nas_onnx_export(ctx, g, rows));
    nas_graph_free(g);
    expect("$P rows.onnx --dtype fp16 " ARM "--explain $C", 0, "half precision: rows and weights");
    expect("$P rows.onnx --dtype fp16 --target aarch64-linux --explain $C", 1, "cortex-a76");
    expect("$P rows.onnx --dtype fp16 --target armv7-linux -o o $C", 1, "armv7-linux");
    expect("$P sample.onnx --dtype fp16 " ARM "-o o $C", 1, "node 'conv'");
    expect("$P sample.onnx --dtype tf32 -o o $C", 2, "fp32, fp16 or bf16");
    (void)snprintf(line, sizeof line,
                   "echo '{\"graph_hash\": \"%s\", \"dtype\": \"fp16\"}' > r.json; $P rows.onnx "
                   "--recipe r.json " ARM "--explain $C",
                   hash);
    expect(line, 0, "half precision");
    expect("$P rows.onnx --recipe r.json --target x86-64-avx2 --explain $C", 1,
           "take target x86-64-avx512fp16");
    expect("$P rows.onnx --recipe r.json --target x86-64-avx512fp16 --explain $C", 0,
           "half precision: rows and weights");
    /* Without a target: the row of this processor that computes in halves, if it has one. */
    const nas_target *native = NULL;
    OK(nas_target_native(ctx, NAS_DTYPE_FP16, &native));
    const bool halves = nas_target_check_dtype(ctx, native, NAS_DTYPE_FP16) == NAS_OK;
    expect("$P rows.onnx --dtype fp16 -o o $C", halves ? 0 : 1,
           halves ? native->name : "half precision (fp16)");
    expect("$P rows.onnx --recipe r.json -o o $C", halves ? 0 : 1,
           halves ? native->name : "half precision (fp16)");
    expect("$P rows.onnx --recipe r.json --dtype fp32 --explain $C && echo whole", 0, "whole");
    (void)snprintf(line, sizeof line,
                   "echo '{\"graph_hash\": \"%s\", \"dtype\": 16}' > r.json; $P rows.onnx "
                   "--recipe r.json " ARM "--explain $C",
                   hash);
    expect(line, 1, "\"dtype\" has to be");
#undef ARM
}
