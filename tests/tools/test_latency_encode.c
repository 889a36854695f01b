/* test_latency_encode.c - architecture texts as rows of features. */
#include "tools/latency_encode.h"

#include "latency/model.h"
#include "tools/latency_kernels.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

static nas_ctx *ctx;
static long blocks_before;

static void setup(void) {
    blocks_before = nas_mem_live();
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), blocks_before));
}
TestSuite(tools_latency_encode, .init = setup, .fini = teardown, .timeout = 60);

static nas_encoder *encoder_of(const char *space) {
    nas_encoder *e = NULL;
    cr_assert(eq(int, (int)nas_encoder_new(ctx, space, &e), NAS_OK), "%s", nas_ctx_message(ctx));
    return e;
}

static double value_of(const nas_encoder *e, const char *arch, const char *name) {
    size_t n = 0;
    const nas_feature *features = nas_encoder_features(e, &n);
    double *x = nas_alloc_array(ctx, n, sizeof *x);
    cr_assert(eq(int, (int)nas_encoder_row(ctx, e, arch, x), NAS_OK), "%s", nas_ctx_message(ctx));
    double value = NAN;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(features[i].name, name) == 0) value = x[i];
    }
    nas_free(x);
    return value;
}

Test(tools_latency_encode, the_forms_of_a_cell_have_features_of_their_own) {
    nas_encoder *e = encoder_of("nb201");
    /* 303000: two convolutions 3x3 of which none reaches the output */
    cr_assert(eq(dbl, value_of(e, "303000", "layers.conv3x3"), 2.0 * 15 + 5));
    cr_assert(eq(dbl, value_of(e, "303000", "reached.layers.conv3x3"), 5.0));
    cr_assert(eq(dbl, value_of(e, "000003", "reached.layers.conv3x3"), 15.0 + 5));
    cr_assert(eq(dbl, value_of(e, "000003", "folded.layers.conv3x3"), 5.0));
    cr_assert(eq(dbl, value_of(e, "300030", "folded.reads.1"), 1.0));
    cr_assert(eq(dbl, value_of(e, "300030", "alive"), 1.0));
    cr_assert(eq(dbl, value_of(e, "000003", "alive"), 0.0));
    nas_encoder_free(e);
}

Test(tools_latency_encode, features_vary_and_none_follows_another) {
    static const char *const spaces[] = {"nb201", "fbnet:32x32", "ofa", "kernel"};
    for (size_t s = 0; s < 4; s++) {
        nas_encoder *a = encoder_of(spaces[s]), *b = encoder_of(spaces[s]);
        size_t n = 0, m = 0;
        const nas_feature *fa = nas_encoder_features(a, &n), *fb = nas_encoder_features(b, &m);
        cr_assert(eq(sz, n, m));
        cr_assert(n > 15 && n <= 512, "%s: %zu", spaces[s], n);
        for (size_t i = 0; i < n; i++) {
            cr_assert(eq(str, (char *)fa[i].name, (char *)fb[i].name));
            for (size_t k = 0; k < i; k++)
                cr_assert(ne(str, (char *)fa[i].name, (char *)fa[k].name));
        }
        nas_encoder_free(a);
        nas_encoder_free(b);
    }
}

Test(tools_latency_encode, rows_together_are_the_rows_alone) {
    static const char *const archs[] = {"421211", "000000", "333333", "120034"};
    nas_encoder *e = encoder_of("nb201");
    size_t n = 0;
    (void)nas_encoder_features(e, &n);
    double *all = nas_alloc_array(ctx, 4 * n, sizeof *all),
           *one = nas_alloc_array(ctx, n, sizeof *one);
    cr_assert(eq(int, (int)nas_encoder_rows(ctx, e, archs, 4, all), NAS_OK));
    for (size_t i = 0; i < 4; i++) {
        cr_assert(eq(int, (int)nas_encoder_row(ctx, e, archs[i], one), NAS_OK));
        cr_assert(eq(int, memcmp(all + i * n, one, n * sizeof *one), 0), "%s", archs[i]);
    }
    static const char *const bad[] = {"421211", "9"};
    cr_assert(nas_encoder_rows(ctx, e, bad, 2, all) != NAS_OK);
    nas_free(all);
    nas_free(one);
    nas_encoder_free(e);
}

Test(tools_latency_encode, kernels_round_trip_and_name_what_is_wrong) {
    nas_rng rng = nas_rng_stream(5, 0, "kernels");
    nas_buf text = {0};
    for (int i = 0; i < 600; i++) {
        nas_kernel_shape a, b;
        nas_kernel_shape_sample(i % NAS_KERNEL_FAMILIES, &rng, &a);
        nas_buf_clear(&text);
        nas_kernel_shape_format(&a, &text);
        cr_assert(eq(int, (int)nas_kernel_shape_parse(ctx, text.data, &b), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        nas_buf again = {0};
        nas_kernel_shape_format(&b, &again);
        cr_assert(eq(str, text.data, again.data));
        nas_buf_deinit(&again);
    }
    nas_buf_deinit(&text);
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"pool h8 w8", "neither conv nor dwconv"},
        {"conv h8", "expected \" w\""},
        {"conv h8 w0 i1 o1 k3 s1", "w is no whole number 1..4096"},
        {"conv h8 w8 i1 o99999 k3 s1", "o is no whole number"},
        {"conv h8 w8 i1 o1 k4 s1", "k is even"},
        {"dwconv h8 w8 i2 o1 k3 s1", "as many o as i"},
        {"conv h8 w8 i1 o1 k3 s1 ", "expected the end"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        nas_kernel_shape s;
        cr_assert(nas_kernel_shape_parse(ctx, bad[i].text, &s) != NAS_OK, "%s", bad[i].text);
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), bad[i].message), NULL), "%s: %s",
                  bad[i].text, nas_ctx_message(ctx));
    }
}

Test(tools_latency_encode, lanes_that_stay_empty_show) {
    nas_encoder *e = encoder_of("kernel");
    cr_assert(
        epsilon_eq(dbl, value_of(e, "conv h14 w14 i16 o16 k3 s1", "waste.w8"), 2.0 / 14, 1e-12));
    cr_assert(
        epsilon_eq(dbl, value_of(e, "conv h14 w16 i16 o17 k3 s1", "waste.o16"), 15.0 / 17, 1e-12));
    cr_assert(eq(dbl, value_of(e, "conv h14 w16 i16 o16 k3 s1", "waste.o16"), 0.0));
    nas_encoder_free(e);
}

/* A device that takes a slower way when its lanes of 8 are not full: 64 channels are faster than 57 to 63. */
static double stepped_ms(const nas_kernel_shape *s) {
    const double macs = (double)s->height * s->width * s->in * s->out * s->kernel * s->kernel;
    return 0.01 + 1e-8 * macs * (s->out % 8 != 0 ? 1.35 : 1);
}

static nas_kernel_shape width_of(int32_t in, int32_t out) {
    return (nas_kernel_shape){
        .height = 28, .width = 28, .in = in, .out = out, .kernel = 3, .stride = 1};
}

static void row_of(const nas_encoder *e, const nas_kernel_shape *s, double *x) {
    nas_buf text = {0};
    nas_kernel_shape_format(s, &text);
    cr_assert(eq(int, (int)nas_encoder_row(ctx, e, text.data, x), NAS_OK), "%s",
              nas_ctx_message(ctx));
    nas_buf_deinit(&text);
}

Test(tools_latency_encode, a_model_of_layers_falls_where_the_device_falls) {
    enum { ROWS = 200 };
    nas_encoder *e = encoder_of("kernel");
    size_t width = 0;
    nas_latency_table table = {
        .device = "stepped", .features = nas_encoder_features(e, &width), .n_rows = ROWS};
    table.n_features = width;
    double *x = nas_alloc_array(ctx, ROWS * width, sizeof *x), y[ROWS];
    nas_rng rng = nas_rng_stream(1, 0, "layers of a stepped device");
    for (size_t i = 0; i < ROWS; i++) {
        nas_kernel_shape s =
            width_of(8 + (int32_t)nas_rng_below(&rng, 57), 8 + (int32_t)nas_rng_below(&rng, 89));
        if (i % 2 == 0) s.out = s.out / 8 * 8; /* as collect draws them */
        if (s.in == 40) s.in = 41;             /* kept for the question below */
        row_of(e, &s, x + i * width);
        y[i] = stepped_ms(&s) * exp(0.02 * nas_rng_normal(&rng));
    }
    table.x = x;
    table.y = y;
    const nas_device_model_options options = nas_device_model_options_default();
    nas_device_model *model = NULL;
    cr_assert(nas_device_model_fit(ctx, &table, &options, &model) == NAS_OK, "%s",
              nas_ctx_message(ctx));
    for (int32_t out = 32; out <= 80; out += 8) {
        const nas_kernel_shape ragged = width_of(40, out - 1), full = width_of(40, out);
        double rows[1024], ms[2];
        cr_assert(2 * width <= sizeof rows / sizeof rows[0]);
        row_of(e, &ragged, rows);
        row_of(e, &full, rows + width);
        const nas_latency_table two = {.device = "stepped",
                                       .features = table.features,
                                       .n_features = width,
                                       .n_rows = 2,
                                       .x = rows};
        cr_assert(nas_device_model_predict_fast(ctx, model, &two, ms) == NAS_OK);
        cr_assert(stepped_ms(&full) < stepped_ms(&ragged)); /* the truth */
        cr_assert(ms[1] < 0.9 * ms[0], "%d channels %g ms, %d channels %g ms", (int)out - 1, ms[0],
                  (int)out, ms[1]);
        cr_assert(fabs(ms[0] / stepped_ms(&ragged) - 1) < 0.1, "%g", ms[0]);
        cr_assert(fabs(ms[1] / stepped_ms(&full) - 1) < 0.1, "%g", ms[1]);
    }
    nas_device_model_free(model);
    nas_free(x);
    nas_encoder_free(e);
}
