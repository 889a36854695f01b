/* facts.c - what the agent's document says about architecture and features, in the names of the compiler's targets, and
 * the check that a program may be sent: one for another processor never leaves this machine. */
#include "latency/device_internal.h"

#include <elf.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* uname machine, or the agent's own word -> nas_target.arch. */
static const struct {
    const char *machine, *arch;
} arches[] = {{"x86_64", "x86-64"},   {"x86-64", "x86-64"}, {"amd64", "x86-64"},
              {"aarch64", "aarch64"}, {"arm64", "aarch64"}, {"armv7l", "armv7"},
              {"armv7", "armv7"},     {"armv8l", "armv7"},  {"arm", "armv7"},
              {"riscv64", "riscv64"}};

/* Words of /proc/cpuinfo and of people -> nas_target.needs. A word not listed is its own name. */
static const struct {
    const char *word, *name;
} synonyms[] = {{"abm", "lzcnt"},
                {"avx512_vnni", "avx512vnni"},
                {"avx512_vbmi2", "avx512vbmi2"},
                {"avx512_bitalg", "avx512bitalg"},
                {"avx512_vpopcntdq", "avx512vpopcntdq"},
                {"avx512_fp16", "avx512fp16"},
                {"avx512_bf16", "avx512bf16"},
                {"dotprod", "asimddp"},
                {"fp16", "asimdhp"},
                {"lse", "atomics"},
                {"svei8mm", "i8mm"},
                {"amx-int8", "amx_int8"},
                {"amx-tile", "amx_tile"},
                {"amx-bf16", "amx_bf16"}};

static size_t canonical(const char *word, size_t len, char *out, size_t size) {
    char text[32];
    if (len == 0 || len >= sizeof text) return 0;
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(word[i] >= 'A' && word[i] <= 'Z' ? word[i] - 'A' + 'a' : word[i]);
    text[len] = '\0';
    const char *name = text;
    for (size_t i = 0; i < sizeof synonyms / sizeof synonyms[0]; i++) {
        if (strcmp(synonyms[i].word, text) == 0) name = synonyms[i].name;
    }
    return (size_t)snprintf(out, size, "%s", name);
}

static bool has_name(const char *features, const char *name, size_t len) {
    for (const char *p = features; *p != '\0';) {
        const size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, name, n) == 0) return true;
        p += n + (p[n] == ' ');
    }
    return false;
}

/* NEON is optional and called so on 32-bit Arm, part of every 64-bit one and called asimd there. */
static bool has_word(const nas_device *d, const char *word, size_t len) {
    char name[32];
    const size_t n = canonical(word, len, name, sizeof name);
    if (n == 0 || d->features == NULL) return false;
    if (has_name(d->features, name, n)) return true;
    if (strcmp(name, "neon") == 0 || strcmp(name, "vfpv4") == 0)
        return has_name(d->features, "asimd", 5);
    return strcmp(name, "asimd") == 0 && strcmp(d->facts.arch, "aarch64") == 0 &&
           has_name(d->features, "neon", 4);
}

bool nas_device_has_feature(const nas_device *device, const char *name) {
    return has_word(device, name, strlen(name));
}

const nas_device_facts *nas_device_facts_of(const nas_device *device) {
    return &device->facts;
}

nas_status nas_device_suits(nas_ctx *ctx, const nas_device *d, const char *arch,
                            const char *needs) {
    if (d->simulated) return NAS_OK;
    if (strcmp(arch, d->facts.arch) != 0) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "device %s is %s, the program is for %s; choose a target of its own",
                        d->name,
                        d->facts.arch[0] != '\0' ? d->facts.arch : "of unknown architecture", arch);
    }
    for (const char *p = needs; *p != '\0';) {
        const size_t n = strcspn(p, ",");
        if (n > 0 && !has_word(d, p, n)) {
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                            "device %s (%s) has no %.*s, which the program needs; choose a target "
                            "without it",
                            d->name, d->facts.model[0] != '\0' ? d->facts.model : d->facts.arch,
                            (int)n, p);
        }
        p += n + (p[n] == ',');
    }
    return NAS_OK;
}

/* ---- the agent's document --------------------------------------------------------------------------------------- */

static void add_words(nas_buf *out, const char *text) {
    for (const char *p = text; *p != '\0';) {
        const size_t n = strcspn(p, " ,\t\n");
        char name[32];
        if (canonical(p, n, name, sizeof name) > 0)
            nas_buf_printf(out, "%s%s", out->len > 0 ? " " : "", name);
        p += n + (p[n] != '\0');
    }
}

/* A text of words, or an array of words, or an object of booleans. */
static void add_features(nas_buf *out, const json_t *features) {
    if (json_is_string(features)) add_words(out, json_string_value(features));
    for (size_t i = 0; i < json_array_size(features); i++) {
        const char *word = json_string_value(json_array_get(features, i));
        if (word != NULL) add_words(out, word);
    }
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)(uintptr_t)features, key, value) {
        if (json_is_true(value)) add_words(out, key);
    }
}

static void copy_text(char *out, size_t size, const json_t *text) {
    if (json_is_string(text)) (void)snprintf(out, size, "%s", json_string_value(text));
}

/* What one number of a CPU's description says, 0 where there is none. */
static int64_t number_of(const json_t *number, int64_t most) {
    const json_int_t n = json_integer_value(number); /* 0 unless it is one */
    return n > 0 && n <= most ? n : 0;
}

/* Clusters are listed from the slowest to the fastest. */
static void read_processor(const json_t *cpu, nas_device_facts *f) {
    enum { CPUS_MAX = 4096, FAMILIES_MAX = 4096, CACHE_MAX = 1 << 30 };
    const json_t *clusters = json_object_get(cpu, "clusters");
    const size_t n = json_array_size(clusters);
    const json_t *fastest = n > 0 ? json_array_get(clusters, n - 1) : NULL;
    f->cpus = (int32_t)number_of(json_object_get(cpu, "online"), CPUS_MAX);
    f->family = (int32_t)number_of(json_object_get(cpu, "family"), FAMILIES_MAX);
    f->l1_bytes = number_of(json_object_get(fastest, "l1d_bytes"), CACHE_MAX);
    f->l2_bytes = number_of(json_object_get(fastest, "l2_bytes"), CACHE_MAX);
    copy_text(f->vendor, sizeof f->vendor, json_object_get(cpu, "vendor"));
}

static void read_facts(const json_t *root, nas_device_facts *f, nas_buf *features) {
    const json_t *cpu = json_object_get(root, "cpu"), *system = json_object_get(root, "system");
    char machine[32] = "";
    copy_text(machine, sizeof machine, json_object_get(system, "machine"));
    copy_text(machine, sizeof machine, json_object_get(root, "arch")); /* what the agent was built
                                                     for: a 32-bit agent may run on a 64-bit kernel */
    for (size_t i = 0; i < sizeof arches / sizeof arches[0]; i++) {
        if (strcmp(arches[i].machine, machine) == 0)
            (void)snprintf(f->arch, sizeof f->arch, "%s", arches[i].arch);
    }
    char clock[32] = "";
    copy_text(clock, sizeof clock, json_object_get(system, "clock_source"));
    f->virtual_clock = strncmp(clock, "virtual", 7) == 0;
    copy_text(f->os, sizeof f->os, json_object_get(system, "os"));
    if (f->model[0] == '\0') copy_text(f->model, sizeof f->model, json_object_get(cpu, "model"));
    read_processor(cpu, f);
    add_features(features, json_object_get(cpu, "features"));
}

nas_status nas__facts_read(nas_ctx *ctx, nas_device *d) {
    json_error_t error;
    json_t *root = json_loads(d->info, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        json_decref(root);
        return nas_fail(ctx, NAS_ERR_PARSE, "the agent's info is no JSON object: %s", error.text);
    }
    nas_buf features = {0};
    nas_device_facts facts = {.os = "linux"};
    if (d->facts.serial[0] != '\0') { /* a phone: known before the agent ran */
        facts = d->facts;
        (void)snprintf(facts.os, sizeof facts.os, "android");
    }
    read_facts(root, &facts, &features);
    json_decref(root);
    nas_status status = nas_buf_status(ctx, &features);
    char *text = status == NAS_OK ? nas_strdup(ctx, features.len > 0 ? features.data : "") : NULL;
    nas_buf_deinit(&features);
    if (text == NULL) return NAS_ERR_NOMEM;
    nas_free(d->features);
    d->features = text;
    d->facts = facts;
    return NAS_OK;
}

/* ---- programs ------------------------------------------------------------------------------------------------------ */

/* Architecture of an ELF file's first bytes, NULL when it is none of ours. */
static const char *elf_arch(const unsigned char *h) {
    if (memcmp(h, ELFMAG, SELFMAG) != 0 || h[EI_DATA] != ELFDATA2LSB) return NULL;
    const bool wide = h[EI_CLASS] == ELFCLASS64;
    const unsigned machine = (unsigned)h[18] | (unsigned)h[19] << 8;
    if (machine == EM_X86_64 && wide) return "x86-64";
    if (machine == EM_AARCH64 && wide) return "aarch64";
    if (machine == EM_RISCV && wide) return "riscv64";
    return machine == EM_ARM && !wide ? "armv7" : NULL;
}

nas_status nas__artifact_suits(nas_ctx *ctx, const nas_device *d, const void *bytes, size_t len,
                               const char *needs) {
    const char *arch = len >= 20 ? elf_arch(bytes) : NULL;
    if (arch == NULL) arch = d->facts.arch; /* a script: the device refuses what it cannot run */
    return nas_device_suits(ctx, d, arch, needs != NULL ? needs : "");
}
