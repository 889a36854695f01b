/* test_onnx_export.c - the exported bytes: read here by a few lines of protobuf, and judged from outside by
 * onnx_check.py where python3 with onnx and numpy is installed. */
#include "ir/graph.h"
#include "tests/ir/ir_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[64];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(folder, sizeof folder, "/tmp/nas-onnx-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
}

static void teardown(void) {
    cr_expect(eq(int, (int)nas_remove_tree(ctx, folder), NAS_OK));
    nas_ctx_free(ctx);
}

TestSuite(ir_onnx_export, .init = setup, .fini = teardown);

static const char *in_folder(const char *name) {
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- protobuf, as much as is needed to look into a file ----------------------------------------------------------- */

typedef struct slice {
    const uint8_t *data;
    size_t len;
} slice;

/* Next field of a message: number, and its varint value or bytes. false at the end; malformed input fails the test. */
static bool next_field(slice *message, uint64_t *number, uint64_t *value, slice *bytes) {
    if (message->len == 0) return false;
    uint64_t numbers[2] = {0, 0}; /* key, then varint or length */
    for (int k = 0; k < 2; k++) {
        for (int shift = 0;; shift += 7) {
            cr_assert(message->len > 0 && shift < 64, "varint runs past the end");
            const uint8_t byte = *message->data++;
            message->len--;
            numbers[k] |= (uint64_t)(byte & 0x7f) << shift;
            if ((byte & 0x80) == 0) break;
        }
    }
    *number = numbers[0] >> 3;
    *value = numbers[1];
    *bytes = (slice){0};
    if ((numbers[0] & 7) == 0) return true;
    cr_assert(eq(u64, numbers[0] & 7, 2)); /* only varints and length-delimited fields occur */
    cr_assert(numbers[1] <= message->len, "field runs past the end");
    *bytes = (slice){message->data, (size_t)numbers[1]};
    message->data += numbers[1];
    message->len -= (size_t)numbers[1];
    return true;
}

/* `skip`-th field `number` of a message; a missing one fails the test. */
static slice field(slice message, uint64_t wanted, int skip, uint64_t *varint) {
    uint64_t number = 0, value = 0;
    slice bytes;
    while (next_field(&message, &number, &value, &bytes)) {
        if (number != wanted || skip-- > 0) continue;
        if (varint != NULL) *varint = value;
        return bytes;
    }
    cr_assert(false, "field %" PRIu64 " is missing", wanted);
    return bytes;
}

static bool is_text(slice s, const char *text) {
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

static float float_at(slice raw, size_t index) {
    cr_assert(4 * index + 4 <= raw.len);
    const uint8_t *b = raw.data + 4 * index;
    const uint32_t bits =
        (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    float value = 0;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Field numbers of onnx.proto used below. */
enum {
    MODEL_IR_VERSION = 1,
    MODEL_PRODUCER_NAME = 2,
    MODEL_PRODUCER_VERSION = 3,
    MODEL_GRAPH = 7,
    MODEL_OPSET = 8,
    OPSET_VERSION = 2,
    GRAPH_NODE = 1,
    GRAPH_INITIALIZER = 5,
    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_OP_TYPE = 4,
    TENSOR_DIMS = 1,
    TENSOR_DATA_TYPE = 2,
    TENSOR_NAME = 8,
    TENSOR_RAW_DATA = 9
};

/* ---- tests -------------------------------------------------------------------------------------------------------- */

static nas_graph *weighted_sr(void) {
    nas_graph *g = NULL;
    nas_rng rng = nas_rng_stream(7, 0, "onnx");
    cr_assert(eq(int, (int)small_sr_graph(ctx, 5, 6, &g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    fill_weights(g, &rng);
    return g;
}

Test(ir_onnx_export, the_header_names_versions_and_producer) {
    nas_graph *g = weighted_sr();
    nas_buf file = {0};
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, in_folder("m.onnx")), NAS_OK));
    cr_assert(eq(int, (int)nas_file_read(ctx, in_folder("m.onnx"), 1 << 20, &file), NAS_OK));
    const slice model = {(const uint8_t *)file.data, file.len};
    uint64_t value = 0;
    (void)field(model, MODEL_IR_VERSION, 0, &value);
    cr_assert(eq(u64, value, 7));
    (void)field(field(model, MODEL_OPSET, 0, NULL), OPSET_VERSION, 0, &value);
    cr_assert(eq(u64, value, 13));
    cr_assert(is_text(field(model, MODEL_PRODUCER_NAME, 0, NULL), "nas-search"));
    cr_assert(is_text(field(model, MODEL_PRODUCER_VERSION, 0, NULL), NAS_VERSION));
    nas_buf_deinit(&file);
    nas_graph_free(g);
}

Test(ir_onnx_export, nodes_carry_operands_and_weights_are_oihw) {
    nas_graph *g = weighted_sr();
    nas_buf file = {0};
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, in_folder("m.onnx")), NAS_OK));
    cr_assert(eq(int, (int)nas_file_read(ctx, in_folder("m.onnx"), 1 << 20, &file), NAS_OK));
    const slice graph = field((slice){(const uint8_t *)file.data, file.len}, MODEL_GRAPH, 0, NULL);
    static const char *const operators[] = {"Add",  "Conv", "Relu", "Conv",         "Add",
                                            "Conv", "Conv", "Add",  "DepthToSpace", "Add"};
    for (int i = 0; i < 10; i++) {
        cr_assert(
            is_text(field(field(graph, GRAPH_NODE, i, NULL), NODE_OP_TYPE, 0, NULL), operators[i]),
            "node %d", i);
    }
    const slice head = field(graph, GRAPH_NODE, 1, NULL);
    cr_assert(is_text(field(head, NODE_INPUT, 0, NULL), "center"));
    cr_assert(is_text(field(head, NODE_INPUT, 1, NULL), "head.weight"));
    cr_assert(is_text(field(head, NODE_INPUT, 2, NULL), "head.bias"));
    cr_assert(is_text(field(head, NODE_OUTPUT, 0, NULL), "head"));
    const slice tensor = field(graph, GRAPH_INITIALIZER, 1, NULL); /* 0 is center.scalar */
    cr_assert(is_text(field(tensor, TENSOR_NAME, 0, NULL), "head.weight"));
    uint64_t value = 0;
    (void)field(tensor, TENSOR_DATA_TYPE, 0, &value);
    cr_assert(eq(u64, value, 1)); /* FLOAT */
    static const uint64_t dims[] = {8, 3, 3, 3};
    for (int i = 0; i < 4; i++) {
        (void)field(tensor, TENSOR_DIMS, i, &value);
        cr_assert(eq(u64, value, dims[i]));
    }
    const slice raw = field(tensor, TENSOR_RAW_DATA, 0, NULL);
    const nas_param *weight = nas_graph_param_const(g, 0);
    cr_assert(eq(sz, raw.len, weight->count * 4));
    for (size_t o = 0; o < 8; o++) {
        for (size_t i = 0; i < 3; i++) {
            for (size_t tap = 0; tap < 9; tap++) {
                cr_assert(eq(flt, float_at(raw, (o * 3 + i) * 9 + tap),
                             weight->data[(o * 9 + tap) * 3 + i]));
            }
        }
    }
    nas_buf_deinit(&file);
    nas_graph_free(g);
}

Test(ir_onnx_export, the_same_graph_gives_the_same_bytes) {
    nas_graph *g = weighted_sr(), *copy = NULL;
    cr_assert(eq(int, (int)nas_graph_clone(ctx, g, &copy), NAS_OK));
    char a[NAS_SHA256_HEX], b[NAS_SHA256_HEX];
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, in_folder("m.onnx")), NAS_OK));
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, in_folder("m.onnx"), a), NAS_OK));
    cr_assert(eq(int, (int)nas_onnx_export(ctx, copy, in_folder("m.onnx")),
                 NAS_OK)); /* over the old one */
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, in_folder("m.onnx"), b), NAS_OK));
    cr_assert(eq(str, a, b));
    nas_graph_free(copy);
    nas_graph_free(g);
}

Test(ir_onnx_export, what_cannot_be_exported_is_refused_and_leaves_no_file) {
    nas_graph *g = weighted_sr();
    const char *path = in_folder("m.onnx");
    nas_graph_param(g, 0)->data[0] = 1.0f / 0.0f;
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, path), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "'head.weight' element 0"), NULL));
    nas_graph_drop_weights(g);
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, path), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "no weights"), NULL));
    nas_graph_free(g);
    g = nas_graph_new(ctx, "nothing");
    nas_value x = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 2, 2, 1}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, path), (int)NAS_ERR_INVALID)); /* no output */
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, path),
                 (int)NAS_ERR_INVALID)); /* output is the input */
    cr_assert(not(nas_file_exists(path)));
    nas_graph_free(g);
    g = weighted_sr();
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, in_folder("absent/m.onnx")), (int)NAS_ERR_IO));
    nas_graph_free(g);
}

Test(ir_onnx_export, failed_allocations_leave_no_file_and_no_leak) {
    nas_graph *g = weighted_sr();
    const char *path = in_folder("m.onnx");
    const long before = nas_mem_live();
    long n = 1;
    for (;; n++) {
        nas_mem_fail_after(n);
        const nas_status status = nas_onnx_export(ctx, g, path);
        nas_mem_fail_after(0);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before), "allocation %ld", n);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM), "allocation %ld", n);
        cr_assert(not(nas_file_exists(path)), "allocation %ld", n);
    }
    cr_assert(n > 4);
    cr_assert(nas_file_exists(path));
    nas_graph_free(g);
}

/* ---- from outside --------------------------------------------------------------------------------------------------- */

/* NHWC values as raw NCHW floats, little-endian like every machine these tests run on. */
static void write_planar(const char *name, nas_shape s, const float *f, const double *d) {
    float *planar = nas_alloc_array(ctx, shape_count(s), sizeof *planar);
    const size_t n_c = (size_t)s.c, area = (size_t)s.h * (size_t)s.w;
    for (size_t n = 0; n < (size_t)s.n; n++) {
        for (size_t c = 0; c < n_c; c++) {
            for (size_t i = 0; i < area; i++) {
                const size_t from = (n * area + i) * n_c + c;
                planar[(n * n_c + c) * area + i] = f != NULL ? f[from] : (float)d[from];
            }
        }
    }
    cr_assert(eq(int, (int)nas_file_write(ctx, in_folder(name), planar, shape_count(s) * 4, 0600),
                 NAS_OK));
    nas_free(planar);
}

/* NAME.onnx, NAME.in, NAME.out in the folder. */
static void write_case(const nas_graph *g, int number, nas_rng *rng) {
    char name[32];
    const nas_shape in_shape = nas_graph_node(g, nas_graph_input(g))->shape;
    const size_t count = shape_count(in_shape);
    float *in = nas_alloc_array(ctx, count, sizeof *in);
    for (size_t i = 0; i < count; i++)
        in[i] = (float)nas_rng_uniform(rng);
    double *out = NULL;
    cr_assert(eq(int, (int)naive_forward(ctx, g, in, &out), NAS_OK));
    (void)snprintf(name, sizeof name, "case%d.onnx", number);
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, in_folder(name)), NAS_OK), "%s",
              nas_ctx_message(ctx));
    (void)snprintf(name, sizeof name, "case%d.in", number);
    write_planar(name, in_shape, in, NULL);
    (void)snprintf(name, sizeof name, "case%d.out", number);
    write_planar(name, nas_graph_node(g, nas_graph_output(g))->shape, NULL, out);
    nas_free(out);
    nas_free(in);
}

Test(ir_onnx_export, checker_and_evaluation_agree_with_the_naive_forward, .timeout = 120) {
    enum { RANDOM_CASES = 40 };
    const uint64_t seed = test_seed(1);
    cr_log_info("seed %" PRIu64, seed);
    nas_rng rng = nas_rng_stream(seed, 0, "onnx cases");
    nas_graph *g = weighted_sr();
    write_case(g, 0, &rng);
    nas_graph_free(g);
    for (int i = 1; i <= RANDOM_CASES; i++) {
        cr_assert(eq(int, (int)random_graph(ctx, &rng, 6, &g), NAS_OK));
        write_case(g, i, &rng);
        nas_graph_free(g);
    }
    run_onnx_check(ctx, folder);
}
