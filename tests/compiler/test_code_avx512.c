/* test_code_avx512.c - the instructions that a mask becomes for AVX-512, byte for byte as the system's assembler writes them:
 * they are checked where no processor runs them. */
#include "compiler/layer_conv_code_x86.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

static nas_ctx *ctx;
static char dir[64];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-code-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_code_avx512, .init = setup, .fini = teardown, .timeout = 60);

static void run_program(const char *const *argv) {
    nas_process_options options = nas_process_options_default();
    nas_process_result r = {0};
    options.argv = argv;
    options.cwd = dir;
    options.timeout_ms = 30 * 1000;
    cr_assert(eq(int, (int)nas_process_run(ctx, &options, &r), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(r.exit_code == 0, "%s: %.2000s", argv[0], r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
}

/* What `as` makes of the text is what was written. */
static void check(nas_buf *text, const nas_buf *written) {
    static const char *const assemble[] = {"as", "--64", "code.s", "-o", "code.o", NULL};
    static const char *const extract[] = {"objcopy", "-O",     "binary",   "-j",
                                          ".text",   "code.o", "code.bin", NULL};
    char path[96];
    nas_buf wanted = {0};
    (void)snprintf(path, sizeof path, "%s/code.s", dir);
    cr_assert(eq(int, (int)nas_buf_status(ctx, text), NAS_OK));
    cr_assert(eq(int, (int)nas_file_write(ctx, path, text->data, text->len, 0644), NAS_OK));
    run_program(assemble);
    run_program(extract);
    (void)snprintf(path, sizeof path, "%s/code.bin", dir);
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 1 << 20, &wanted), NAS_OK));
    cr_assert(eq(sz, written->len, wanted.len));
    for (size_t i = 0; i < wanted.len; i++)
        cr_assert(written->data[i] == wanted.data[i], "byte %zu", i);
    nas_buf_deinit(&wanted);
}

/* The assembler leaves a displacement of 0 out unless it is told not to; here it is written. */
static const char *prefix(int32_t offset) {
    return offset == 0 ? "{disp8} " : "";
}

Test(compiler_code_avx512, moves_and_broadcasts_are_those_of_the_assembler) {
    static const int32_t offsets[] = {0, 64, -64, -8192, 8128, 8192, -8256, 100000};
    static const int32_t values[] = {0, 4, -512, 508, 512, -516, 70000};
    nas__x86_code a = {.isa = &nas__x86_avx512};
    nas_buf text = {0};
    for (int32_t reg = 0; reg < 32; reg++) {
        for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
            const char *p = prefix(offsets[i]);
            a.isa->put_move(&a, false, reg, NAS__X86_PANEL, offsets[i]);
            a.isa->put_move(&a, true, reg, NAS__X86_SUMS, offsets[i]);
            nas_buf_printf(&text, "%svmovups %d(%%rdi), %%zmm%d\n%svmovups %%zmm%d, %d(%%rdx)\n", p,
                           offsets[i], reg, p, reg, offsets[i]);
        }
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            a.isa->put_value(&a, reg, values[i]);
            nas_buf_printf(&text, "%svbroadcastss %d(%%rsi), %%zmm%d\n", prefix(values[i]),
                           values[i], reg);
        }
    }
    check(&text, &a.bytes);
    nas_buf_deinit(&text);
    nas_buf_deinit(&a.bytes);
}

/* Steps of a mask that keeps all but the diagonal and the whole of step 5: each loads its vector once or not at all. Values and
 * vectors pass the ends of what their bases reach. */
Test(compiler_code_avx512, a_step_loads_its_vector_once_and_multiplies_for_each_that_keeps_it) {
    enum { STEPS = 140, OUTPUTS = 28, SKIPPED = 5, REACH_VALUES = 512, REACH_PANEL = 8192 };
    static uint8_t kept[OUTPUTS * STEPS];
    for (int32_t o = 0; o < OUTPUTS; o++) {
        for (int32_t k = 0; k < STEPS; k++)
            kept[o * STEPS + k] = k != SKIPPED && k != o;
    }
    const nas__conv c = {
        .in_c = STEPS, .out_c = OUTPUTS, .kernel_h = 1, .kernel_w = 1, .groups = 1, .kept = kept};
    const nas__x86_group g = {.conv = &c, .n = OUTPUTS, .to = STEPS, .row = 64};
    nas__x86_code a = {.isa = &nas__x86_avx512, .weight_at = -REACH_VALUES};
    nas_buf text = {0};
    int32_t value = -REACH_VALUES, panel = 0;
    for (int32_t k = 0; k < STEPS; k++) {
        a.isa->put_step(&a, &g, k, 64 * k);
        if (k == SKIPPED) continue;
        if (64 * k - panel == REACH_PANEL) {
            nas_buf_printf(&text, "add $%d, %%rdi\n", 2 * REACH_PANEL);
            panel += 2 * REACH_PANEL;
        }
        nas_buf_printf(&text, "%svmovups %d(%%rdi), %%zmm%d\n", prefix(64 * k - panel),
                       64 * k - panel, 28 + k % 4);
        for (int32_t o = 0; o < OUTPUTS; o++) {
            if (k == o) continue;
            if (value == REACH_VALUES) {
                nas_buf_printf(&text, "add $%d, %%rsi\n", 2 * REACH_VALUES);
                value = -REACH_VALUES;
            }
            nas_buf_printf(&text, "%svfmadd231ps %d(%%rsi){1to16}, %%zmm%d, %%zmm%d\n",
                           prefix(value), value, 28 + k % 4, o);
            value += 4;
        }
    }
    cr_assert(eq(int, a.values, OUTPUTS *STEPS - OUTPUTS - (OUTPUTS - 1)));
    check(&text, &a.bytes);
    nas_buf_deinit(&text);
    nas_buf_deinit(&a.bytes);
}

/* A mask that keeps nothing: what is left is the frame, and in it what a pass asks for, spread over its steps. */
Test(compiler_code_avx512, a_pass_asks_for_lines_of_the_next_tile) {
    enum { STEPS = 4, LINES = 3 };
    static const uint8_t kept[STEPS];
    const nas__conv c = {
        .in_c = STEPS, .out_c = 1, .kernel_h = 1, .kernel_w = 1, .groups = 1, .kept = kept};
    const nas__conv_way way = {
        .algorithm = NAS__CONV_SPARSE_CODE, .pixels = 1, .vectors = 2, .group = 1};
    for (int32_t write = 0; write < 2; write++) {
        const nas__code_asks asks = {write != 0 ? NAS__ASKS_OUTPUTS : NAS__ASKS_PIXELS, LINES};
        nas_buf bytes = {0}, text = {0};
        nas__code_avx512.write(&c, &way, &asks, &bytes);
        nas_buf_puts(&text, "mov %rdi, %r11\nmov %rdx, %r10\nadd $512, %rsi\n"
                            "mov %r11, %rdi\nmov %r10, %rdx\nmov %r8d, %ecx\n"
                            "1: vbroadcastss -512(%rsi), %zmm0\n");
        for (int32_t k = 0; k < LINES; k++)
            nas_buf_printf(&text, "{disp32} %s %d(%%r9)\n", write != 0 ? "prefetchw" : "prefetcht1",
                           64 * k);
        nas_buf_puts(&text, "{disp8} vmovups %zmm0, 0(%rdx)\nadd $192, %r9\n"
                            "add $256, %rdi\nadd $64, %rdx\ndec %ecx\n{disp32} jnz 1b\n"
                            "vzeroupper\nret\n.balign 8, 0xcc\n");
        check(&text, &bytes);
        nas_buf_deinit(&text);
        nas_buf_deinit(&bytes);
    }
}
