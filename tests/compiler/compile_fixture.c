/* compile_fixture.c - see compile_fixture.h. */
#include "compile_fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(call) cr_assert_eq((int)(call), NAS_OK, "%s: %s", #call, nas_ctx_message(f->ctx))

void compile_fixture_init(compile_fixture *f, int32_t max_threads) {
    *f = (compile_fixture){.ctx = nas_ctx_new(), .options = nas_compile_options_default()};
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/nas-compiler-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(f->dir), NULL));
    f->options.cache_dir = f->dir;
    f->options.max_threads = max_threads;
    f->options.form = NAS_FORM_ROWS;
    MUST(nas_target_find(f->ctx, "native", &f->options.target));
}

void compile_fixture_deinit(compile_fixture *f) {
    cr_assert(eq(int, (int)nas_remove_tree(f->ctx, f->dir), NAS_OK));
    nas_ctx_free(f->ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

void compile_check(compile_fixture *f, nas_graph *g, const char *what, uint64_t seed,
                   double tolerance) {
    reference_fill(f->ctx, g, seed);
    const size_t n_in = reference_count(g, nas_graph_input(g)),
                 n_out = reference_count(g, nas_graph_output(g));
    float *in = reference_image(f->ctx, n_in, seed);
    float *out = nas_alloc_array(f->ctx, 2 * n_out, sizeof *out);
    double *expected = nas_alloc_array(f->ctx, n_out, sizeof *expected), magnitude = 0, worst = 0;
    reference_forward(f->ctx, g, in, expected, &magnitude);
    nas_artifact artifact;
    cr_assert(eq(int, (int)nas_compile(f->ctx, g, &f->options, &artifact), NAS_OK), "%s: %s", what,
              nas_ctx_message(f->ctx));
    for (int32_t threads = 1; threads <= f->options.max_threads; threads++) {
        float *y = threads == 1 ? out : out + n_out;
        cr_assert(
            eq(int, (int)nas_artifact_run(f->ctx, &artifact, g, 1, in, y, threads, f->dir), NAS_OK),
            "%s: %s", what, nas_ctx_message(f->ctx));
        cr_assert(eq(int, memcmp(out, y, n_out * sizeof *y), 0), "%s: %d threads change the result",
                  what, threads);
    }
    for (size_t i = 0; i < n_out; i++) { /* a NaN sticks */
        const double off = fabs((double)out[i] - expected[i]);
        if (!(off <= worst)) worst = off;
    }
    cr_assert(worst <= tolerance * magnitude, "%s: off by %g of %g", what, worst, magnitude);
    nas_free(in);
    nas_free(out);
    nas_free(expected);
    nas_graph_free(g);
}

bool compile_says(compile_fixture *f, const nas_graph *g, const char *pass, const char *text) {
    nas_buf out = {0};
    if (pass != NULL)
        MUST(nas_dump_after(f->ctx, g, &f->options, pass, &out));
    else
        MUST(nas_compile_explain(f->ctx, g, &f->options, &out));
    const bool found = strstr(out.data, text) != NULL;
    nas_buf_deinit(&out);
    return found;
}

nas_target compile_cramped(compile_fixture *f, const char *name, int32_t l2_bytes) {
    const nas_target *found = NULL;
    MUST(nas_target_find(f->ctx, name, &found));
    nas_target target = *found;
    target.l2_bytes = l2_bytes;
    return target;
}

nas_graph *compile_upscaling(compile_fixture *f, const nas_conv_attributes *c, int32_t output_pad,
                             int32_t channels, int32_t height, int32_t width, bool behind) {
    const nas_conv_attributes first = nas_conv_same(channels, 3), last = nas_conv_same(3, 3);
    nas_node up = {.op = NAS_OP_CONV_TRANSPOSE,
                   .n_inputs = 1,
                   .conv = *c,
                   .output_pad_h = output_pad,
                   .output_pad_w = output_pad};
    nas_graph *g = nas_graph_new(f->ctx, "upscaling");
    nas_value x = 0;
    MUST(nas_graph_add_input(f->ctx, g, "in", (nas_shape){1, height, width, 2}, &x));
    MUST(nas_graph_add_conv(f->ctx, g, "features", x, &first, &x));
    MUST(nas_graph_add_prelu(f->ctx, g, "features.act", x, &x));
    up.inputs[0] = x;
    MUST(nas_graph_add_node(f->ctx, g, "deconv", &up, &x));
    if (behind) MUST(nas_graph_add_relu(f->ctx, g, "relu", x, &x));
    if (behind) MUST(nas_graph_add_conv(f->ctx, g, "last", x, &last, &x));
    MUST(nas_graph_set_output(f->ctx, g, x));
    return g;
}

bool compile_starts(nas_ctx *ctx, const char *program) {
    const char *const argv[] = {program, "--version", NULL};
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    nas_process_result r = {0};
    const bool found = nas_process_run(ctx, &o, &r) == NAS_OK && r.exit_code == 0;
    nas_process_result_deinit(&r);
    nas_ctx_clear(ctx);
    return found;
}
