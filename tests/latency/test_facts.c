/* test_facts.c - which programs a device is told to suit, from the documents agents send. */
#include "latency/device_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <elf.h>
#include <stdio.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
}
TestSuite(latency_facts, .init = setup, .fini = teardown, .timeout = 30);

static nas_device device_of(const char *info, const char *serial) {
    nas_device d = {.name = (char *)(uintptr_t) "dev"};
    d.info = nas_strdup(ctx, info);
    (void)snprintf(d.facts.serial, sizeof d.facts.serial, "%s", serial);
    cr_assert(eq(int, (int)nas__facts_read(ctx, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    return d;
}

static void done(nas_device *d) {
    nas_free(d->info);
    nas_free(d->features);
}

#define ARM                                                                                        \
    "{\"cpu\":{\"model\":\"rig\",\"features\":\"fp asimd atomics asimdhp asimddp\",\"online\":8}," \
    "\"system\":{\"machine\":\"aarch64\"}}"

Test(latency_facts, the_document_of_a_phone_gives_what_a_target_is_chosen_by) {
    nas_device d = device_of(ARM, "R5CR1234");
    const nas_device_facts *f = nas_device_facts_of(&d);
    cr_assert(eq(str, (char *)(uintptr_t)f->arch, "aarch64"));
    cr_assert(eq(str, (char *)(uintptr_t)f->os, "android"));
    cr_assert(eq(str, (char *)(uintptr_t)f->serial, "R5CR1234"));
    cr_assert(eq(int, (int)f->cpus, 8));
    done(&d);
}

Test(latency_facts, vendor_and_caches_are_those_of_the_fastest_cores_or_untold) {
    nas_device d = device_of("{\"cpu\":{\"vendor\":\"GenuineIntel\",\"family\":6,\"clusters\":["
                             "{\"l1d_bytes\":1024,\"l2_bytes\":2048},"
                             "{\"l1d_bytes\":49152,\"l2_bytes\":{\"unavailable\":\"No data\"}}]}}",
                             "");
    const nas_device_facts *f = nas_device_facts_of(&d);
    cr_expect(eq(str, (char *)(uintptr_t)f->vendor, "GenuineIntel"));
    cr_expect(f->family == 6 && f->l1_bytes == 49152 && f->l2_bytes == 0);
    done(&d);
    d = device_of("{\"cpu\":{\"family\":-1,\"clusters\":[{\"l1d_bytes\":1e99,\"l2_bytes\":"
                  "9223372036854775807}]}}",
                  "");
    f = nas_device_facts_of(&d);
    cr_expect(f->family == 0 && f->l1_bytes == 0 && f->l2_bytes == 0 && f->vendor[0] == '\0');
    done(&d);
}

Test(latency_facts, names_of_kernel_compiler_and_people_mean_the_same) {
    static const struct {
        const char *features, *name;
        bool has;
    } rows[] = {
        {"\"asimd asimddp\"", "dotprod", true},
        {"\"asimd asimddp\"", "ASIMDDP", true},
        {"\"asimd\"", "asimddp", false},
        {"[\"neon\",\"dotprod\"]", "asimddp", true},
        {"[\"neon\",\"dotprod\"]", "asimd", true},
        {"{\"i8mm\":true,\"bf16\":false}", "i8mm", true},
        {"{\"i8mm\":true,\"bf16\":false}", "bf16", false},
        {"\"asimd asimddp2\"", "asimddp", false},
        {"\"asimd\"", "", false},
        {"\"asimd\"", "a_name_longer_than_any_feature_of_any_cpu", false},
        {"7", "asimd", false},
        {"\"abm avx512_vnni\"", "lzcnt", true},
        {"\"abm avx512_vnni\"", "avx512vnni", true},
        {"\"avx512_bf16 amx_bf16\"", "avx512bf16", true},
        {"\"avx512_fp16\"", "avx512fp16", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char info[200];
        (void)snprintf(info, sizeof info,
                       "{\"cpu\":{\"features\":%s},\"system\":{\"machine\":\"aarch64\"}}",
                       rows[i].features);
        nas_device d = device_of(info, "");
        cr_assert(eq(int, nas_device_has_feature(&d, rows[i].name), rows[i].has), "row %zu", i);
        done(&d);
    }
}

Test(latency_facts, a_program_for_missing_features_does_not_suit) {
    nas_device d = device_of(ARM, "");
    cr_assert(eq(int, (int)nas_device_suits(ctx, &d, "aarch64", ""), NAS_OK));
    cr_assert(eq(int, (int)nas_device_suits(ctx, &d, "aarch64", "asimd,atomics,asimddp"), NAS_OK));
    cr_assert(eq(int, (int)nas_device_suits(ctx, &d, "aarch64", "asimd,atomics,asimddp,i8mm"),
                 (int)NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "i8mm"), NULL), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_device_suits(ctx, &d, "x86-64", ""), (int)NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "aarch64"), NULL), "%s", nas_ctx_message(ctx));
    done(&d);
}

Test(latency_facts, the_architecture_of_an_artifact_is_read_from_its_bytes) {
    static const struct {
        unsigned char class, machine;
        bool suits;
    } rows[] = {{ELFCLASS64, EM_AARCH64, true},
                {ELFCLASS64, EM_X86_64, false},
                {ELFCLASS32, EM_ARM, false},
                {ELFCLASS64, EM_RISCV, false}};
    nas_device d = device_of(ARM, "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char head[64] = {0x7f, 'E', 'L', 'F', rows[i].class, ELFDATA2LSB};
        head[18] = rows[i].machine;
        const nas_status status = nas__artifact_suits(ctx, &d, head, sizeof head, NULL);
        cr_assert(eq(int, status == NAS_OK, rows[i].suits), "row %zu: %s", i, nas_ctx_message(ctx));
    }
    cr_assert(eq(int, (int)nas__artifact_suits(ctx, &d, "#!/bin/sh", 9, NULL), NAS_OK));
    cr_assert(eq(int, (int)nas__artifact_suits(ctx, &d, "#!/bin/sh", 9, "sve"),
                 (int)NAS_ERR_UNSUPPORTED));
    done(&d);
}

Test(latency_facts, a_document_that_says_nothing_gives_nothing) {
    nas_device d = device_of("{}", "");
    cr_assert(eq(str, (char *)(uintptr_t)nas_device_facts_of(&d)->arch, ""));
    cr_assert(not(nas_device_has_feature(&d, "avx2")));
    cr_assert(eq(int, (int)nas_device_suits(ctx, &d, "x86-64", ""), (int)NAS_ERR_UNSUPPORTED));
    done(&d);
}

Test(latency_facts, a_device_whose_clock_counts_instructions_is_simulated) {
    static const struct {
        const char *clock;
        bool simulated;
    } rows[] = {{"\"virtual-a76-50mhz\"", true},
                {"\"arch_sys_counter\"", false},
                {"{\"unavailable\":\"No such file or directory\"}", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char info[200];
        (void)snprintf(info, sizeof info, "{\"system\":{\"clock_source\":%s}}", rows[i].clock);
        nas_device d = device_of(info, "");
        cr_assert(eq(int, nas_device_is_simulated(&d), rows[i].simulated), "row %zu", i);
        cr_assert(not(d.simulated), "it is still asked, not computed");
        done(&d);
    }
}
