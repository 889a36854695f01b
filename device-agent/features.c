/* features.c - what the processor can compute: the kernel's own list of names, and the few questions that decide which
 * program may be sent here.
 *
 * On Arm and RISC-V the list is made from AT_HWCAP, which is about this process (and right under emulation, where
 * /proc/cpuinfo shows the host's); elsewhere, and below --sys-root, it is /proc/cpuinfo's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

typedef struct bit {
    int word, number; /* of AT_HWCAP (0) or AT_HWCAP2 (1) */
    const char *name; /* as /proc/cpuinfo spells it */
} bit;

/* Numbers of the kernel's uapi/asm/hwcap.h, written out: static libcs come without kernel headers. */
static const bit bits[] = {
#if defined(__aarch64__)
    {0, 0, "fp"},       {0, 1, "asimd"},    {0, 3, "aes"},       {0, 7, "crc32"},
    {0, 8, "atomics"},  {0, 9, "fphp"},     {0, 10, "asimdhp"},  {0, 12, "asimdrdm"},
    {0, 20, "asimddp"}, {0, 22, "sve"},     {0, 23, "asimdfhm"}, {1, 1, "sve2"},
    {1, 9, "svei8mm"},  {1, 12, "svebf16"}, {1, 13, "i8mm"},     {1, 14, "bf16"},
    {1, 23, "sme"},
#elif defined(__arm__)
    {0, 1, "half"},     {0, 2, "thumb"},      {0, 6, "vfp"},    {0, 12, "neon"}, {0, 13, "vfpv3"},
    {0, 16, "vfpv4"},   {0, 17, "idiva"},     {0, 18, "idivt"}, {0, 22, "fphp"}, {0, 23, "asimdhp"},
    {0, 24, "asimddp"}, {0, 26, "asimdbf16"}, {0, 27, "i8mm"},
#elif defined(__riscv)
    {0, 'i' - 'a', "i"}, {0, 'm' - 'a', "m"}, {0, 'a' - 'a', "a"}, {0, 'f' - 'a', "f"},
    {0, 'd' - 'a', "d"}, {0, 'c' - 'a', "c"}, {0, 'v' - 'a', "v"},
#else
    {0, -1, ""}, /* none: the list is read */
#endif
};

bool nas__features_from_hwcap(char *out, size_t size) {
    const unsigned long words[2] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        if (bits[i].number < 0 || (words[bits[i].word] >> bits[i].number & 1ul) == 0) continue;
        const int n = snprintf(out + len, size - len, "%s%s", len > 0 ? " " : "", bits[i].name);
        if (n < 0 || (size_t)n >= size - len) break;
        len += (size_t)n;
    }
    return len > 0;
}

#if defined(__riscv)
/* Bits of a vector register: the system tells of the extension alone. */
static unsigned long vector_bits(void) {
    unsigned long bytes = 0;
    if ((getauxval(AT_HWCAP) >> ('v' - 'a') & 1ul) == 0) return 0;
    __asm__("csrr %0, 0xc22" : "=r"(bytes)); /* vlenb; older assemblers do not know its name */
    return 8 * bytes;
}
#else
static unsigned long vector_bits(void) {
    return 0;
}
#endif

void nas__features_add_vectors(char *list, size_t size) {
    const unsigned long bits_here = vector_bits();
    size_t len = strlen(list);
    if (bits_here > 0 && !nas__features_has(list, "v") && len + 2 < size) {
        memcpy(list + len, " v", 3);
        len += 2;
    }
    for (unsigned long b = 128; b <= bits_here && b <= 65536; b *= 2) {
        const int n = snprintf(list + len, size - len, " zvl%lub", b);
        if (n < 0 || (size_t)n >= size - len) {
            list[len] = '\0';
            return;
        }
        len += (size_t)n;
    }
}

bool nas__features_has(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *p = list; *p != '\0';) {
        p += strspn(p, " ");
        const size_t len = strcspn(p, " ");
        if (len == n && strncmp(p, name, n) == 0) return true;
        p += len;
    }
    return false;
}

/* RISC-V: "rv64imafdcv_zvfh" has v among the single letters. */
static bool isa_letter(const char *list, char letter) {
    if (strncmp(list, "rv", 2) != 0) return false;
    const char *p = list + 2 + strspn(list + 2, "0123456789");
    for (; *p != '\0' && *p != '_' && *p != ' '; p++) {
        if (*p == letter) return true;
    }
    return false;
}

void nas__features_json(nas_json *j, const char *list) {
    static const struct {
        const char *name, *spelled[3];
    } questions[] = {{"neon", {"neon", "asimd", NULL}},
                     {"dotprod", {"asimddp", NULL, NULL}},
                     {"i8mm", {"i8mm", NULL, NULL}},
                     {"fp16", {"asimdhp", "avx512_fp16", NULL}},
                     {"bf16", {"bf16", "asimdbf16", "avx512_bf16"}},
                     {"sve", {"sve", NULL, NULL}},
                     {"sve2", {"sve2", NULL, NULL}},
                     {"avx2", {"avx2", NULL, NULL}},
                     {"fma", {"fma", NULL, NULL}},
                     {"avx512", {"avx512f", NULL, NULL}},
                     {"vnni", {"avx512_vnni", "avx_vnni", NULL}},
                     {"amx", {"amx_tile", NULL, NULL}}};
    nas_json_object(j);
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        bool has = false;
        for (int k = 0; k < 3 && questions[i].spelled[k] != NULL; k++)
            has = has || nas__features_has(list, questions[i].spelled[k]);
        nas_json_key(j, questions[i].name);
        nas_json_bool(j, has);
    }
    nas_json_key(j, "rvv");
    nas_json_bool(j, isa_letter(list, 'v') || nas__features_has(list, "v"));
    nas_json_object_end(j);
}
