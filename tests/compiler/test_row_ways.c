/* test_row_ways.c - kernels of rows that compete: each computes the network, measured times decide, what is known is not
 * measured again. Which one is the fastest is never asserted: that is the machine's business. */
#include "compile_fixture.h"
#include "compiler/compiler_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static compile_fixture f;

static void setup(void) {
    compile_fixture_init(&f, 2);
    f.options.form = NAS_FORM_ROWS;
}

static void teardown(void) {
    compile_fixture_deinit(&f);
}

TestSuite(compiler_row_ways, .init = setup, .fini = teardown, .timeout = 300);

#define MUST(call) cr_assert_eq((int)(call), NAS_OK, "%s: %s", #call, nas_ctx_message(f.ctx))

/* A 3x3 convolution, a pair through a scratch, a 3x3 onto a sum, a transposed one: no two layers of one shape. */
static nas_graph *network(void) {
    nas_graph *g = nas_graph_new(f.ctx, "ways");
    nas_value x = 0, y = 0;
    nas_node up = {.op = NAS_OP_CONV_TRANSPOSE, .n_inputs = 1, .conv = nas_conv_same(3, 3)};
    up.conv.kernel_h = up.conv.kernel_w = 4;
    up.conv.stride_h = up.conv.stride_w = 2;
    nas_conv_attributes c = nas_conv_same(10, 3);
    MUST(nas_graph_add_input(f.ctx, g, "in", (nas_shape){1, 21, 50, 2}, &x));
    MUST(nas_graph_add_conv(f.ctx, g, "first", x, &c, &x));
    c = nas_conv_same(24, 1);
    MUST(nas_graph_add_conv(f.ctx, g, "wide", x, &c, &y));
    MUST(nas_graph_add_relu(f.ctx, g, "act", y, &y));
    c = nas_conv_same(7, 1);
    MUST(nas_graph_add_conv(f.ctx, g, "narrow", y, &c, &y));
    c = nas_conv_same(10, 3);
    MUST(nas_graph_add_conv(f.ctx, g, "last", y, &c, &y));
    MUST(nas_graph_add_add(f.ctx, g, "sum", x, y, &y));
    up.inputs[0] = y;
    MUST(nas_graph_add_node(f.ctx, g, "up", &up, &y));
    MUST(nas_graph_set_output(f.ctx, g, y));
    return g;
}

/* A memory in which each kernel's way number `favourite` takes half the time of the first, the others as long. */
typedef struct favourite_memory {
    char kernel[400];
    int favourite, at, most;
    double ratio;
} favourite_memory;

static bool favourite_find(void *user, const nas_tune_key *k, double *ns) {
    favourite_memory *m = user;
    cr_assert(eq(int, strncmp(k->kernel, "row f32 ", 8), 0), "%s", k->kernel);
    if (strcmp(m->kernel, k->kernel) != 0) m->at = 0;
    (void)snprintf(m->kernel, sizeof m->kernel, "%s", k->kernel);
    *ns = m->at == m->favourite ? 1000 * m->ratio : 1000;
    m->at++;
    m->most = m->at > m->most ? m->at : m->most;
    return true;
}

static nas_status never_store(nas_ctx *c, void *user, const nas_tune_key *k,
                              const nas_tune_timing *t) {
    (void)user;
    (void)k;
    (void)t;
    return nas_fail(c, NAS_ERR_INTERNAL, "something was measured");
}

Test(compiler_row_ways, whichever_wins_computes_the_network) {
    favourite_memory memory = {.most = 1, .ratio = 0.5};
    const nas_tune_memory hooks = {&memory, favourite_find, never_store};
    f.options.memory = &hooks;
    for (int i = 0; i < memory.most; i++) {
        char what[32];
        (void)snprintf(what, sizeof what, "way %d", i);
        memory.favourite = i;
        memory.kernel[0] = '\0';
        compile_check(&f, network(), what, 5, 2e-4);
    }
    cr_assert(memory.most >= 8, "%d ways", memory.most);
}

Test(compiler_row_ways, a_way_that_is_hardly_faster_does_not_replace_the_estimate) {
    favourite_memory memory = {.favourite = 1, .ratio = 0.98};
    const nas_tune_memory hooks = {&memory, favourite_find, never_store};
    nas_buf untuned = {0}, tuned = {0};
    nas_graph *g = network();
    MUST(nas_graph_alloc_weights(f.ctx, g));
    MUST(nas_dump_after(f.ctx, g, &f.options, "plan", &untuned));
    f.options.memory = &hooks;
    MUST(nas_dump_after(f.ctx, g, &f.options, "plan", &tuned));
    cr_assert(eq(str, tuned.data, untuned.data));
    nas_buf_deinit(&tuned);
    memory = (favourite_memory){.favourite = 1, .ratio = 0.9};
    tuned = (nas_buf){0};
    MUST(nas_dump_after(f.ctx, g, &f.options, "plan", &tuned));
    cr_assert(ne(str, tuned.data, untuned.data));
    nas_buf_deinit(&tuned);
    nas_buf_deinit(&untuned);
    nas_graph_free(g);
}

/* ---- measured --------------------------------------------------------------------------------------------------------- */

typedef struct list_memory {
    struct {
        char key[1200];
        double ns;
    } rows[200];
    int n;
} list_memory;

static void join(char out[1200], const nas_tune_key *k) {
    const int n = snprintf(out, 1200, "%s\n%s\n%s\n%d", k->kernel, k->way, k->device, k->threads);
    cr_assert(n > 0 && n < 1200);
}

static bool list_find(void *user, const nas_tune_key *k, double *ns) {
    list_memory *m = user;
    char key[1200];
    join(key, k);
    for (int i = 0; i < m->n; i++) {
        if (strcmp(m->rows[i].key, key) != 0) continue;
        *ns = m->rows[i].ns;
        return true;
    }
    return false;
}

static nas_status list_store(nas_ctx *c, void *user, const nas_tune_key *k,
                             const nas_tune_timing *t) {
    list_memory *m = user;
    (void)c;
    cr_assert(t->p50_ns > 0 && t->lo_ns <= t->p50_ns && t->p50_ns <= t->hi_ns && t->runs >= 3);
    cr_assert(m->n < 200);
    join(m->rows[m->n].key, k);
    m->rows[m->n++].ns = t->p50_ns;
    return NAS_OK;
}

/* The tuning program itself refuses ways that compute something else. */
static void check_measured(int32_t threads) {
    static list_memory list;
    const nas_tune_memory hooks = {&list, list_find, list_store};
    nas_buf text = {0}, again = {0};
    nas_graph *g = network();
    list.n = 0;
    MUST(nas_graph_alloc_weights(f.ctx, g));
    nas_rng rng = nas_rng_stream(1, 0, "ways");
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        for (size_t i = 0; i < param->count; i++)
            param->data[i] = (float)(nas_rng_uniform(&rng) - 0.5);
    }
    f.options.memory = &hooks;
    f.options.tune_s = 30; /* a bound: five stages of few ms */
    f.options.tune_threads = threads;
    MUST(nas_compile_explain(f.ctx, g, &f.options, &text));
    cr_assert(list.n >= 20, "%d times", list.n);
    cr_assert(ne(ptr, strstr(text.data, "kcycles a row estimated; measured "), NULL), "%s",
              text.data);
    cr_assert(ne(ptr, strstr(text.data, ", inside "), NULL), "%s", text.data);
    const int stored = list.n;
    MUST(nas_compile_explain(f.ctx, g, &f.options, &again));
    cr_assert(eq(int, list.n, stored)); /* all of it was remembered */
    cr_assert(eq(str, again.data, text.data));
    nas_buf_deinit(&text);
    nas_buf_deinit(&again);
    nas_graph_free(g);
}

Test(compiler_row_ways, every_way_of_every_layer_is_measured_once) {
    check_measured(1);
}

Test(compiler_row_ways, threads_share_the_rows) {
    check_measured(2);
}

Test(compiler_row_ways, without_time_or_memory_nothing_is_measured) {
    favourite_memory memory = {.favourite = -1, .ratio = 1};
    const nas_tune_memory hooks = {&memory, favourite_find, never_store};
    nas_buf text = {0};
    nas_graph *g = network();
    f.options.memory = &hooks;
    f.options.tune_s = 10;
    MUST(nas_compile_explain(f.ctx, g, &f.options, &text)); /* no weights, nothing to time */
    cr_assert(eq(ptr, strstr(text.data, "measured"), NULL), "%s", text.data);
    nas_buf_deinit(&text);
    nas_graph_free(g);
}
