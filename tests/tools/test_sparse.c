/* test_sparse.c - compressed layers as people ask for them: recipes that leave weights out, models that have zeros, and
 * the table of what that gains. */
#include "compiler/compiler.h"
#include "db/sparse_cells.h"
#include "ir/sparsity.h"
#include "latency/latency.h"
#include "tests/tools/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[64];

#define OK(expr) cr_assert(eq(int, (int)(expr), (int)NAS_OK), "%s", nas_ctx_message(ctx))

enum { IN_C = 64, OUT_C = 48, SIDE = 9, PIXELS = SIDE * SIDE };

/* y = relu(conv 1x1 of x), 64 -> 48 channels, 9 x 9 pixels. */
static nas_graph *sample(void) {
    nas_graph *g = nas_graph_new(ctx, "sample");
    const nas_conv_attributes a = nas_conv_same(OUT_C, 1);
    nas_value v = NAS_VALUE_NONE;
    OK(nas_graph_add_input(ctx, g, "in", (nas_shape){1, SIDE, SIDE, IN_C}, &v));
    OK(nas_graph_add_conv(ctx, g, "conv", v, &a, &v));
    OK(nas_graph_add_relu(ctx, g, "act", v, &v));
    OK(nas_graph_set_output(ctx, g, v));
    OK(nas_graph_alloc_weights(ctx, g));
    nas_rng rng = nas_rng_stream(5, 0, "sample");
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        for (size_t i = 0; i < param->count; i++)
            param->data[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
    }
    return g;
}

static void export(const nas_graph *g, const char *name) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(nas_onnx_export(ctx, g, path));
}

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(folder, sizeof folder, "/tmp/nas-sparse-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    nas_graph *g = sample();
    export(g, "sample.onnx");
    nas_graph_free(g);
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, folder), NAS_OK));
    nas_ctx_free(ctx);
}

TestSuite(tools_sparse, .init = setup, .fini = teardown, .timeout = 120);

static int shell(const char *line, nas_buf *out) {
    return tool_shell(ctx, folder, line, out);
}

static void expect(const char *line, int code, const char *text) {
    tool_expect(ctx, folder, line, code, text);
}

/* A recipe for the sample: `entries` after the hash. */
static void write_recipe(const char *entries) {
    nas_graph *g = sample();
    char hash[NAS_SHA256_HEX], path[128], text[1024];
    OK(nas_graph_hash(ctx, g, false, hash));
    nas_graph_free(g);
    const int n = snprintf(text, sizeof text, "{\"graph_hash\": \"%s\", %s}", hash, entries);
    (void)snprintf(path, sizeof path, "%s/r.json", folder);
    OK(nas_file_write(ctx, path, text, (size_t)n, 0644));
}

static void recipe_is(const char *entries, int code, const char *text) {
    write_recipe(entries);
    expect("$P sample.onnx --recipe r.json --explain $C", code, text);
}

/* The output of `program --run` against the masked weights by definition. */
static void check_output(const nas_graph *g, const float *x, const char *name) {
    char path[128];
    nas_buf got = {0};
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(nas_file_read(ctx, path, SIZE_MAX, &got));
    cr_assert(eq(sz, got.len, OUT_C * PIXELS * sizeof(float)));
    const float *w = nas_graph_param_const(g, 0)->data, *b = nas_graph_param_const(g, 1)->data;
    const float *y = (const float *)(const void *)got.data;
    for (int o = 0; o < OUT_C; o++) {
        for (int p = 0; p < PIXELS; p++) {
            double sum = (double)b[o];
            for (int c = 0; c < IN_C; c++)
                sum += (double)w[o * IN_C + c] * (double)x[c * PIXELS + p];
            const double want = sum > 0 ? sum : 0;
            cr_assert(fabs(want - (double)y[o * PIXELS + p]) < 1e-4, "output %d, pixel %d", o, p);
        }
    }
    nas_buf_deinit(&got);
}

Test(tools_sparse, a_recipe_makes_a_sparse_layer_that_computes_the_same) {
    nas_graph *g = sample();
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.rate = 0.75;
    OK(nas_sparsity_apply(ctx, g, nas_graph_find(g, "conv"), &s));
    float x[IN_C * PIXELS];
    char path[128];
    for (int i = 0; i < IN_C * PIXELS; i++)
        x[i] = (float)(i * 31 % 97) * 0.02F - 1;
    (void)snprintf(path, sizeof path, "%s/x.raw", folder);
    OK(nas_file_write(ctx, path, x, sizeof x, 0644));
    write_recipe("\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"1xN\", \"n\": 4, "
                 "\"rate\": 0.75}}}");
    expect("$P sample.onnx --recipe r.json --explain $C", 0, "* sparse");
    expect("$P sample.onnx --recipe r.json --explain $C", 0, "75.0 % of the weights are zero");
    expect("$P sample.onnx --recipe r.json -o o $C && o/model --run x.raw y.raw", 0, "");
    check_output(g, x, "y.raw");
    /* the same zeros in the model need no recipe, and all forms of output know them */
    export(g, "zeros.onnx");
    expect("$P zeros.onnx --explain $C", 0, "* sparse");
    expect("$P zeros.onnx -o z $C && z/model --run x.raw z.raw --threads 2", 0, "");
    check_output(g, x, "z.raw");
    expect("$P zeros.onnx --emit c -o b --target x86-64 $C && gcc -c -O1 -pthread -Wall -Werror "
           "b/model.c b/weights.c && echo compiles",
           0, "compiles");
    write_recipe("\"layers\": {\"conv\": {\"sparsity\": {\"from\": \"weights\"}}}");
    expect("$P zeros.onnx --recipe r.json --explain $C", 0, "* sparse");
    nas_graph_free(g);
}

Test(tools_sparse, measured_ways_are_sparse_and_dense) {
    write_recipe("\"sparsity\": {\"kernels\": \"1x1\", \"pattern\": \"1xN\", \"n\": 16, \"rate\": "
                 "0.9}");
    expect("$P sample.onnx --recipe r.json --explain --tune 1s $C", 0, "measured speed of direct");
}

Test(tools_sparse, every_pattern_can_be_asked_for) {
    recipe_is(
        "\"sparsity\": {\"kernels\": \"all\", \"pattern\": \"N:M\", \"keep\": 1, \"group\": 4, "
        "\"outputs\": 4}",
        0, "75.0 % of the weights are zero");
    recipe_is("\"sparsity\": {\"kernels\": \"1x1\", \"pattern\": \"punched\", \"outputs\": 8, "
              "\"inputs\": 4, \"rate\": 0.5}",
              0, "50.0 % of the weights are zero");
    recipe_is("\"sparsity\": {\"kernels\": \"1x1\", \"pattern\": \"unstructured\", \"rate\": 0.8}",
              0, "80.0 % of the weights are zero");
    recipe_is("\"sparsity\": {\"kernels\": \"1x1\", \"pattern\": \"filter\", \"rate\": 0.5}", 0,
              "50.0 % of the weights are zero");
    recipe_is("\"sparsity\": {\"kernels\": \"1x1\", \"pattern\": \"1xN\", \"rate\": 0.5, "
              "\"rearrange\": true}",
              0, "50.0 % of the weights are zero");
}

/* Codes of `in` are exact for x; weights and results are rounded. */
static void check_rounded(const nas_graph *g, const float *x, const char *name) {
    char path[128];
    nas_buf got = {0};
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(nas_file_read(ctx, path, SIZE_MAX, &got));
    cr_assert(eq(sz, got.len, OUT_C * PIXELS * sizeof(float)));
    const float *w = nas_graph_param_const(g, 0)->data, *b = nas_graph_param_const(g, 1)->data;
    const float *y = (const float *)(const void *)got.data;
    for (int i = 0; i < OUT_C * PIXELS; i++) {
        double sum = (double)b[i / PIXELS];
        for (int c = 0; c < IN_C; c++)
            sum += (double)w[i / PIXELS * IN_C + c] * (double)x[c * PIXELS + i % PIXELS];
        const double want = sum < 0 ? 0 : sum > 255 * 0.02 ? 255 * 0.02 : sum;
        cr_assert(fabs(want - (double)y[i]) < 0.04, "output %d: %g, not %g", i, (double)y[i], want);
    }
    nas_buf_deinit(&got);
}

Test(tools_sparse, layers_of_integers_leave_zeros_out) {
    nas_graph *g = sample();
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.rate = 0.9;
    OK(nas_sparsity_apply(ctx, g, nas_graph_find(g, "conv"), &s));
    float x[IN_C * PIXELS];
    char path[128];
    for (int i = 0; i < IN_C * PIXELS; i++)
        x[i] = (float)(i * 31 % 97 - 48) * 0.02F;
    (void)snprintf(path, sizeof path, "%s/x.raw", folder);
    OK(nas_file_write(ctx, path, x, sizeof x, 0644));
    write_recipe("\"sparsity\": {\"kernels\": \"1x1\", \"pattern\": \"1xN\", \"rate\": 0.9}, "
                 "\"layers\": {\"in\": {\"activation\": {\"scale\": 0.02, \"zero_point\": 128}}, "
                 "\"conv\": {\"weight_bits\": 8}, "
                 "\"act\": {\"activation\": {\"scale\": 0.02, \"zero_point\": 0}}}");
    expect("$P sample.onnx --recipe r.json --explain --target x86-64-avx2 $C", 0, "* sparse");
    expect("$P sample.onnx --recipe r.json --explain --target aarch64-dotprod $C", 0,
           "the estimated speed of direct");
    expect("$P sample.onnx --recipe r.json -o o $C && o/model --run x.raw y.raw --threads 2", 0,
           "");
    check_rounded(g, x, "y.raw");
    /* beside tile registers the best dense way is a matter of microseconds here: without them there is one */
    const nas_target *native = NULL;
    OK(nas_target_native(ctx, NAS_DTYPE_FP32, &native));
    expect(strcmp(native->name, "x86-64-amx") == 0
               ? "$P sample.onnx --recipe r.json --target x86-64-avx512vnni --explain --tune 1s $C"
               : "$P sample.onnx --recipe r.json --explain --tune 1s $C",
           0, "the measured speed of direct");
    nas_graph_free(g);
}

/* The recipe's numbers of the convolution, for codes from the image on. */
static void write_codes(const nas_graph *g, const char *bits) {
    char hash[NAS_SHA256_HEX], path[128], text[2048];
    OK(nas_graph_hash(ctx, g, false, hash));
    const int n = snprintf(
        text, sizeof text,
        "{\"graph_hash\": \"%s\", \"layers\": {\"in\": {\"activation\": {\"scale\": 0.01}}, "
        "\"conv\": {%s}, \"act\": {\"activation\": {\"scale\": 0.05}}}}",
        hash, bits);
    (void)snprintf(path, sizeof path, "%s/r.json", folder);
    OK(nas_file_write(ctx, path, text, (size_t)n, 0644));
}

/* Fewer bytes of weights than a byte each, in the program and in what it says of itself, and the same results. */
Test(tools_sparse, weights_of_few_bits_are_packed_where_bytes_count) {
    static const struct {
        const char *bits;
        int most; /* bytes of weights */
    } rows[] = {{"\"weight_bits\": 4", IN_C * OUT_C / 2},
                {"\"weight_bits\": 2", IN_C * OUT_C / 4},
                {"\"weight_bits\": 8", IN_C * OUT_C / 2}}; /* powers of two */
    enum { HEADS = 1500 }; /* biases and multipliers in whole vectors; heads of all layers */
    nas_graph *g = sample();
    float *w = nas_graph_param(g, 0)->data;
    char line[512];
    for (int i = 0; i < IN_C * OUT_C; i++)
        w[i] = ldexpf(w[i] < 0 ? -1 : 1, -(i * 5 % 7));
    export(g, "powers.onnx");
    expect("head -c 20736 /dev/urandom > in.raw", 0, "");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *model = i == 2 ? "powers.onnx" : "sample.onnx";
        write_codes(g, rows[i].bits);
        (void)snprintf(line, sizeof line,
                       "for s in fast small; do $P %s --recipe r.json --weights $s -o $s $C && "
                       "$s/model --run in.raw $s.raw || exit 3; done; cmp fast.raw small.raw && "
                       "sed 's/.*\"weight_bytes\":\\([0-9]*\\).*/bytes \\1/' small/compile.json",
                       model);
        nas_buf out = {0};
        const int code = shell(line, &out);
        cr_assert(eq(int, code, 0), "%s", out.data);
        const char *bytes = strstr(out.data, "\nbytes ");
        cr_assert(bytes != NULL, "%s", out.data);
        cr_assert(strtol(bytes + strlen("\nbytes "), NULL, 10) < rows[i].most + HEADS,
                  "row %zu: %s", i, out.data);
        nas_buf_deinit(&out);
    }
    expect("$P powers.onnx --recipe r.json --weights small --explain $C", 0, "4-bit weights");
    expect("$P sample.onnx --weights tiny --explain $C", 2, "fast or small, not 'tiny'");
    nas_graph_free(g);
}

Test(tools_sparse, what_is_wrong_in_a_recipe_is_named) {
    static const char *const rows[][2] = {
        {"\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"2xN\", \"rate\": 0.5}}}",
         "no pattern \"2xN\""},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"1xN\"}}}", "needs a \"rate\""},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"N:M\", \"rate\": 0.5}}}",
         "has no \"rate\""},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"1xN\", \"rate\": 1.5}}}",
         "layer 'conv'"},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"1xN\", \"rate\": 0.5, \"n\": 5}}}",
         "\"n\" is 5"},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"1xN\", \"rate\": 0.5, \"m\": 5}}}",
         "not \"m\""},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"pattern\": \"pattern\", \"rate\": 0.5}}}",
         "for 3x3 kernels, this one is 1x1"},
        {"\"layers\": {\"act\": {\"sparsity\": {\"pattern\": \"1xN\", \"rate\": 0.5}}}",
         "layer 'act' is a relu"},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"from\": \"weights\"}}}", "is zero"},
        {"\"layers\": {\"conv\": {\"sparsity\": {\"from\": \"space\"}}}",
         "can only be \"weights\""},
        {"\"layers\": {\"conv\": {\"sparsity\": 4}}", "has to be an object"},
        {"\"sparsity\": {\"kernels\": \"5x5\", \"pattern\": \"1xN\", \"rate\": 0.5}",
         "no convolution is of that kind"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        recipe_is(rows[i][0], 1, rows[i][1]);
}

Test(tools_sparse, break_even_is_measured_and_remembered) {
    expect("$P --break-even --layers sample.onnx --patterns 1x8,pattern --rates 0.5,0.9 --cell "
           "0.05s $C",
           0, "1x1 s1 64->48 @9x9");
    expect("$P --break-even --shapes 1:64:48:9 --patterns 1x8 --rates 0.5,0.9 --cell 0.05s -f csv "
           "$C",
           0, "remembered");
    expect("$P --break-even --shapes 1:32:48:9 --patterns N:4x4 --rates 0.75 --cell 0.05s -f json "
           "$C",
           0, "\"rate\":0.7500");
}

/* The gain of 1x8 at a rate, as a search would ask for it; -1 when nobody measured it. */
static double kept_gain(const char *fingerprint, int32_t bits, double rate) {
    const nas_db_sparse_layer layer = {1, 1, 64, 48, 9, 9, bits};
    char path[128];
    nas_db *db = NULL;
    nas_db_sparse_answer a = {0};
    (void)snprintf(path, sizeof path, "%s/t.db", folder);
    OK(nas_db_open(ctx, path, &db));
    OK(nas_db_sparse_gain(ctx, db, fingerprint, &layer, "1x8", rate, &a));
    OK(nas_db_close(ctx, db));
    return a.known ? a.gain : -1;
}

static void fingerprint_here(char out[NAS_SHA256_HEX]) {
    nas_device_options o = nas_device_options_default();
    const char *bin = getenv("NAS_BIN_DIR");
    char agent[4096];
    (void)snprintf(agent, sizeof agent, "%s/nas-agent", bin != NULL ? bin : "build/release/bin");
    o.name = "here";
    o.agent_path = agent;
    o.work_dir = folder;
    nas_device *device = NULL;
    OK(nas_device_open(ctx, &o, &device));
    (void)snprintf(out, NAS_SHA256_HEX, "%s", nas_device_fingerprint(device));
    nas_device_close(device);
}

Test(tools_sparse, break_even_is_kept_for_searches_with_the_device) {
    char here[NAS_SHA256_HEX];
    fingerprint_here(here);
    expect("$P --break-even --shapes 1:64:48:9 --patterns 1x8 --rates 0.5,0.9 --cell 0.05s --db "
           "t.db $C",
           0, "1x1 s1 64->48 @9x9");
    cr_expect(kept_gain(here, 32, 0.9) > 0);
    cr_expect(kept_gain(here, 32, 0.7) > 0);
    cr_expect(kept_gain("another machine", 32, 0.9) < 0);
}

Test(tools_sparse, break_even_knows_integers) {
    char here[NAS_SHA256_HEX];
    fingerprint_here(here);
    expect("$P --break-even --dtype f32,int8 --shapes 1:64:48:9 --patterns 1x8 --rates 0.5,0.9 "
           "--cell 0.05s --db t.db $C",
           0, "int8");
    cr_expect(kept_gain(here, 8, 0.9) > 0);
    cr_expect(kept_gain(here, 32, 0.9) > 0);
    expect("$P --break-even --dtype int8 --shapes 1:64:48:9 --patterns 1x8 --rates 0.5,0.9 --cell "
           "0.05s -f csv --db t.db $C",
           0, "1,1,64,48,9,9,int8,1x8,0.5000,");
}

Test(tools_sparse, break_even_is_measured_by_an_agent) {
    char here[NAS_SHA256_HEX];
    fingerprint_here(here);
    expect("$P --break-even --target local --shapes 1:64:48:9 --patterns 1x8 --rates 0.9 --cell "
           "0.05s --db t.db -f csv $C",
           0, "1,1,64,48,9,9,f32,1x8,");
    cr_expect(kept_gain(here, 32, 0.9) > 0);
}

/* Bytes are those of the mask, whoever measures: 48 x 64 weights, half of them in eights of outputs. */
Test(tools_sparse, cells_of_devices_carry_the_bytes_of_their_storage) {
    static const char *const wheres[] = {"", "--target local "};
    for (int i = 0; i < 2; i++) {
        char line[256];
        (void)snprintf(line, sizeof line,
                       "$P --break-even %s--shapes 1:64:48:9 --patterns 1x8 --rates 0.5 --cell "
                       "0.05s -f json $C",
                       wheres[i]);
        expect(line, 0, "\"dense_bytes\":12288,\"bitmask_bytes\":6528,\"list_bytes\":6556");
        (void)snprintf(line, sizeof line,
                       "$P --break-even %s--shapes 1:64:48:9 --patterns complementary --rates 0.75 "
                       "--cell 0.05s -f json $C",
                       wheres[i]);
        expect(line, 0, "\"packed_bytes\":3264");
    }
}

Test(tools_sparse, what_break_even_cannot_do_is_named) {
    static const struct {
        const char *line;
        int code;
        const char *text;
    } rows[] = {
        {"$P --break-even $C", 1, "--layers MODEL.onnx or --shapes"},
        {"$P --break-even --shapes 1:64 $C", 1, "'1:64' is not KERNEL:IN:OUT:SIZE"},
        {"$P --break-even --shapes 1:64:64:1 $C", 1, "one output pixel"},
        {"$P --break-even --shapes 1:64:9999:8 $C", 1, "output channels is 9999"},
        {"$P --break-even --shapes 1:64:64:8 --patterns 1y4 $C", 1, "no pattern '1y4'"},
        {"$P --break-even --shapes 1:64:64:8 --patterns 1x5 $C", 1, "\"n\" is 5"},
        {"$P --break-even --shapes 1:64:64:8 --rates 0.5,0.2 $C", 1, "'0.2'"},
        {"$P --break-even --shapes 1:64:64:8 --dtype int4 $C", 1, "'int4'; there are f32 and int8"},
        {"$P sample.onnx -o o --dtype int8", 2, "belong to --break-even"},
        {"$P --break-even --shapes 1:64:64:8 -f xml $C", 1, "xml"},
        {"$P --break-even --shapes 1:64:64:8 --cell never $C", 2, "--cell wants"},
        {"$P --break-even --shapes 1:64:64:8 --target aarch64-linux $C", 1, "do not run here"},
        {"$P --break-even --shapes 1:64:64:8 --target adb:nobody $C", 4, "nobody"},
        {"$P sample.onnx -o o --target local", 2, "given as --device"},
        {"$P --break-even sample.onnx", 2, "by --layers"},
        {"$P sample.onnx -o o --shapes 1:64:64:8", 2, "belong to --break-even"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        expect(rows[i].line, rows[i].code, rows[i].text);
}
