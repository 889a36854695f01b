/* target.c - the table of targets, the processors by name, and the best row for this processor.
 *
 * Whether a row runs here is a question to the processor, asked once; a row that does not is a cross target like any
 * other: it compiles, links statically, and its program names the feature that is missing. */
#define _DEFAULT_SOURCE /* syscall, for cpu_check.h */
#include "compiler/compiler_internal.h"
#include "compiler/rt/cpu_check.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <sys/prctl.h>
#endif

#if defined(__x86_64__)
#define HERE "x86-64"
#define X86_COMPILER "gcc"
#else
#define X86_COMPILER "x86_64-linux-gnu-gcc"
#endif
#if defined(__aarch64__)
#define HERE "aarch64"
#define ARM_COMPILER "gcc"
#else
#define ARM_COMPILER "aarch64-linux-gnu-gcc"
#endif
#if !defined(HERE)
#define HERE "unknown"
#endif

/* Features that gcc uses for a -march, also outside of vector code. */
#define HASWELL "avx2,fma,f16c,bmi1,bmi2,lzcnt,movbe"
#define SKYLAKE HASWELL ",avx512f,avx512bw,avx512dq,avx512vl,avx512cd"
#define CASCADE SKYLAKE ",avx512vnni"
#define ICELAKE CASCADE ",avx512vbmi,avx512vbmi2,avx512ifma,avx512bitalg,avx512vpopcntdq"
#define SAPPHIRE ICELAKE ",avx512fp16,avx512bf16,amx_tile,amx_int8,amx_bf16"
#define HALVES CASCADE ",avx512fp16"
#define COOPER CASCADE ",avx512bf16"
#define WIDE " -mprefer-vector-width=512"

/* gcc for 64-bit Arm moves loads up before it hands out registers, so that a full tile spills: 7 to 15 stores in a pass
 * of the inner loops of scripts/static_cost.sh, at most one without. By the same model cores that run in order gain more
 * from the order than they lose by the spills. */
#define LATE " -fno-schedule-insns"

/* NEON flushes denormals, so gcc keeps vectors out of it unless told that this is welcome; what else the flag allows
 * (reordering sums, above all) is taken back. There are no vectors of doubles. */
#define ARMV7_FLAGS                                                                                \
    "-march=armv7-a -mfpu=neon-vfpv4 -mfloat-abi=hard -funsafe-math-optimizations "                \
    "-fno-associative-math -fno-reciprocal-math"
/* gcc has no vectors for RISC-V before its release 14. clang makes one vfmacc.vf of a multiply-add by one number. */
#define RISCV_CLANG "clang-16"
#define RISCV_LINUX "--target=riscv64-linux-gnu "
#define NDK_CLANG                                                                                  \
    "$ANDROID_NDK_HOME/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android21-clang"

enum { KIB = 1024 };

/* SVE is one row for vectors of any length, cut for the 64 bytes of A64FX, the only common processor with longer ones than 16
 * bytes and no dot products: all others find their row further down, and name themselves for kernels of SVE.
 *
 * Worst row of an architecture first: "native" takes the last one that runs here, in half precision the last of those that
 * compute in it. Cache sizes are those of the smallest common processor of the row; AVX-512 is taken to be that of Zen 4.
 * runs_here is filled in by prepare(). The 8 registers of riscv64 are its 32 scalar ones:
 * without the V extension a vector is four of them. */
static nas_target targets[] = {
    {"x86-64", 16, 16, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=x86-64", false, "x86-64", "",
     "-march=x86-64", false, 0, false, false},
    {"x86-64-avx2", 32, 16, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=haswell", false, "x86-64",
     HASWELL, "-march=x86-64", false, 0, false, false},
    {"x86-64-avx512", 64, 32, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=skylake-avx512" WIDE,
     false, "x86-64", SKYLAKE, "-march=x86-64", true, 0, false, false},
    {"x86-64-avx512fp16", 64, 32, 48 * KIB, 2048 * KIB, X86_COMPILER,
     "-march=cascadelake -mavx512fp16" WIDE, false, "x86-64", HALVES, "-march=x86-64", false, 0,
     false, false},
    {"x86-64-avx512bf16", 64, 32, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=cooperlake" WIDE,
     false, "x86-64", COOPER, "-march=x86-64", true, 0, false, false},
    {"x86-64-avx512vnni", 64, 32, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=cascadelake" WIDE,
     false, "x86-64", CASCADE, "-march=x86-64", true, 0, false, false},
    {"x86-64-amx", 64, 32, 48 * KIB, 2048 * KIB, X86_COMPILER, "-march=sapphirerapids" WIDE, false,
     "x86-64", SAPPHIRE, "-march=x86-64", false, 0, false, false},
    {"aarch64-linux", 16, 32, 32 * KIB, 512 * KIB, ARM_COMPILER, "-march=armv8-a" LATE, false,
     "aarch64", "asimd", "-march=armv8-a", false, 0, false, false},
    {"aarch64-fp16", 16, 32, 32 * KIB, 128 * KIB, ARM_COMPILER, "-march=armv8.2-a+fp16" LATE, false,
     "aarch64", "asimd,atomics,asimdhp", "-march=armv8-a", false, 0, false, false},
    {"aarch64-bf16", 16, 32, 32 * KIB, 128 * KIB, ARM_COMPILER, "-march=armv8.2-a+bf16" LATE, false,
     "aarch64", "asimd,atomics,bf16", "-march=armv8-a", false, 0, false, false},
    {"aarch64-sve", 16, 32, 64 * KIB, 512 * KIB, ARM_COMPILER, "-march=armv8.2-a+sve" LATE, false,
     "aarch64", "asimd,atomics,sve", "-march=armv8-a", false, 64, false, false},
    {"aarch64-dotprod", 16, 32, 32 * KIB, 512 * KIB, ARM_COMPILER, "-march=armv8.2-a+dotprod" LATE,
     false, "aarch64", "asimd,atomics,asimddp", "-march=armv8-a", false, 0, false, false},
    {"aarch64-i8mm", 16, 32, 64 * KIB, 512 * KIB, ARM_COMPILER,
     "-march=armv8.2-a+dotprod+i8mm" LATE, false, "aarch64", "asimd,atomics,asimddp,i8mm",
     "-march=armv8-a", false, 0, false, false},
    {"aarch64-android", 16, 32, 32 * KIB, 512 * KIB, NDK_CLANG, "-march=armv8-a", false, "aarch64",
     "asimd", "-march=armv8-a", false, 0, false, false},
    {"armv7-linux", 16, 16, 32 * KIB, 256 * KIB, "arm-linux-gnueabihf-gcc", ARMV7_FLAGS, false,
     "armv7", "neon,vfpv4", "", false, 0, false, false},
    {"riscv64-linux", 16, 8, 32 * KIB, 512 * KIB, "riscv64-linux-gnu-gcc", "-march=rv64gc", false,
     "riscv64", "", "-march=rv64gc", false, 0, false, false},
    {"riscv64-rvv", 16, 32, 32 * KIB, 512 * KIB, RISCV_CLANG, RISCV_LINUX "-march=rv64gcv", false,
     "riscv64", "v", RISCV_LINUX "-march=rv64gc", false, 0, false, false},
    {"riscv64-rvv256", 32, 32, 32 * KIB, 512 * KIB, RISCV_CLANG,
     RISCV_LINUX "-march=rv64gcv_zvl256b", false, "riscv64", "v,zvl256b",
     RISCV_LINUX "-march=rv64gc", false, 0, false, false},
};
enum { TARGET_COUNT = sizeof targets / sizeof targets[0] };

/* A processor: flags instead of the target's, caches of one core, all that its programs may use; its vectors of SVE. */
typedef struct cpu {
    const char *name, *arch, *flags, *needs;
    int32_t l1_bytes, l2_bytes, sve_bytes;
    bool sve_halves;
} cpu;

#define V8 "asimd"
#define V82 V8 ",atomics,asimddp,asimdhp"
#define V84 V82 ",i8mm"
#define V9 V84 ",bf16,sve,sve2"
static const cpu cpus[] = {
    {"haswell", "x86-64", "-march=haswell", HASWELL, 32 * KIB, 256 * KIB, 0, false},
    {"skylake", "x86-64", "-march=skylake", HASWELL, 32 * KIB, 256 * KIB, 0, false},
    {"znver2", "x86-64", "-march=znver2", HASWELL, 32 * KIB, 512 * KIB, 0, false},
    {"znver3", "x86-64", "-march=znver3", HASWELL, 32 * KIB, 512 * KIB, 0, false},
    {"skylake-avx512", "x86-64", "-march=skylake-avx512" WIDE, SKYLAKE, 32 * KIB, 1024 * KIB, 0,
     false},
    {"cascadelake", "x86-64", "-march=cascadelake" WIDE, CASCADE, 32 * KIB, 1024 * KIB, 0, false},
    {"cooperlake", "x86-64", "-march=cooperlake" WIDE, COOPER, 32 * KIB, 1024 * KIB, 0, false},
    {"icelake-server", "x86-64", "-march=icelake-server" WIDE, ICELAKE, 48 * KIB, 1280 * KIB, 0,
     false},
    {"sapphirerapids", "x86-64", "-march=sapphirerapids" WIDE, SAPPHIRE, 48 * KIB, 2048 * KIB, 0,
     false},
    {"cortex-a53", "aarch64", "-mcpu=cortex-a53", V8, 32 * KIB, 512 * KIB, 0, false},
    {"cortex-a55", "aarch64", "-mcpu=cortex-a55", V82, 32 * KIB, 128 * KIB, 0, false},
    {"cortex-a72", "aarch64", "-mcpu=cortex-a72" LATE, V8, 32 * KIB, 1024 * KIB, 0, false},
    {"cortex-a75", "aarch64", "-mcpu=cortex-a75" LATE, V82, 64 * KIB, 256 * KIB, 0, false},
    {"cortex-a76", "aarch64", "-mcpu=cortex-a76" LATE, V82, 64 * KIB, 512 * KIB, 0, false},
    {"cortex-x1", "aarch64", "-mcpu=cortex-x1" LATE, V82, 64 * KIB, 1024 * KIB, 0, false},
    {"neoverse-n1", "aarch64", "-mcpu=neoverse-n1" LATE, V82, 64 * KIB, 1024 * KIB, 0, false},
    {"neoverse-v1", "aarch64", "-mcpu=neoverse-v1" LATE, V84 ",bf16,sve", 64 * KIB, 1024 * KIB, 32,
     true},
    {"a64fx", "aarch64", "-mcpu=a64fx" LATE, V8 ",atomics,asimdhp,sve", 64 * KIB, 512 * KIB, 64,
     false},
    {"neoverse-n2", "aarch64", "-mcpu=neoverse-n2" LATE, V9, 64 * KIB, 1024 * KIB, 16, false},
    {"cortex-a510", "aarch64", "-mcpu=cortex-a510", V9, 32 * KIB, 128 * KIB, 16, false},
    {"cortex-a710", "aarch64", "-mcpu=cortex-a710" LATE, V9, 32 * KIB, 256 * KIB, 16, false},
    {"cortex-x2", "aarch64", "-mcpu=cortex-x2" LATE, V9, 64 * KIB, 512 * KIB, 16, false},
};
enum { CPU_COUNT = sizeof cpus / sizeof cpus[0] };

/* Programs for Android do not start elsewhere, whatever the processor. */
static bool runs_here(const nas_target *t) {
    size_t len = 0;
    return strcmp(t->arch, HERE) == 0 && t->compiler[0] != '$' &&
           cpu_missing(t->needs, &len) == NULL;
}

static bool in_list(const char *list, const char *name, size_t len) {
    for (const char *p = list; *p != '\0';) {
        const size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, name, n) == 0) return true;
        p += n + (p[n] == ',');
    }
    return false;
}

/* Arithmetic on vectors of _Float16, which kernels for x86-64 write 64 bytes long. */
static bool has_halves(const char *arch, const char *needs, int32_t vector_bytes) {
    if (strcmp(arch, "x86-64") == 0) return vector_bytes == 64 && in_list(needs, "avx512fp16", 10);
    return in_list(needs, "asimdhp", 7);
}

/* Products of bf16: dot products in vectors, which kernels for x86-64 write 64 bytes long; matrix products on 64-bit Arm. */
static bool has_bf16(const char *arch, const char *needs, int32_t vector_bytes) {
    if (strcmp(arch, "x86-64") == 0) return vector_bytes == 64 && in_list(needs, "avx512bf16", 10);
    return strcmp(arch, "aarch64") == 0 && in_list(needs, "bf16", 4);
}

static bool has_dtype(const char *arch, const char *needs, int32_t vector_bytes, nas_dtype dtype) {
    switch (dtype) {
    case NAS_DTYPE_FP32: return true;
    case NAS_DTYPE_FP16: return has_halves(arch, needs, vector_bytes);
    case NAS_DTYPE_BF16: return has_bf16(arch, needs, vector_bytes);
    }
    return false;
}

static bool computes_in(const nas_target *row, nas_dtype dtype) {
    return has_dtype(row->arch, row->needs, row->vector_bytes, dtype);
}

/* Bytes of a cache as the system tells them, or `row` where it says nothing sensible. */
static int32_t cache_bytes(int64_t found, int32_t row) {
    return found >= row / 4 && found <= INT64_C(64) * row ? (int32_t)found : row;
}

void nas_target_adapt(nas_target *row, const nas_target_cpu *told) {
    enum { ZEN_3_4 = 0x19 }; /* AMD's family of Zen 3 and 4, of which the latter has AVX-512 */
    if (row->sve_bytes > 0 && told->sve_bytes >= 16) {
        row->sve_halves = told->sve_bytes == 32; /* those of Neoverse V1 alone */
        row->sve_bytes = told->sve_bytes;
    }
    if (row->vector_bytes != 64) return;
    if (told->vendor[0] != '\0')
        row->splits_vectors = strcmp(told->vendor, "AuthenticAMD") == 0 && told->family == ZEN_3_4;
    row->l1_bytes = cache_bytes(told->l1_bytes, row->l1_bytes);
    row->l2_bytes = cache_bytes(told->l2_bytes, row->l2_bytes);
}

/* The rows for this processor, by what they compute in. */
static nas_target natives[NAS_DTYPE_BF16 + 1];

/* What this processor tells; vendor: room for its name. */
static nas_target_cpu this_cpu(char vendor[13]) {
    nas_target_cpu told = {.vendor = vendor};
    vendor[0] = '\0';
#if defined(__x86_64__)
    unsigned name[3] = {0}, a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(0, &a, &name[0], &name[2], &name[1]) && __get_cpuid(1, &a, &b, &c, &d)) {
        memcpy(vendor, name, 12);
        vendor[12] = '\0';
        told.family = (int32_t)((a >> 8 & 15) + ((a >> 8 & 15) == 15 ? a >> 20 & 255 : 0));
    }
#endif
#if defined(__aarch64__) && defined(PR_SVE_GET_VL)
    const int sve = prctl(PR_SVE_GET_VL); /* an error without SVE */
    if (sve > 0) told.sve_bytes = sve & PR_SVE_VL_LEN_MASK;
#endif
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
    told.l1_bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    told.l2_bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return told;
}

static void describe_native(nas_dtype dtype, nas_target *native) {
    char vendor[13];
    for (int i = 0; i < TARGET_COUNT; i++) {
        if (targets[i].runs_here && computes_in(&targets[i], dtype)) *native = targets[i];
    }
    const nas_target_cpu told = this_cpu(vendor);
    nas_target_adapt(native, &told);
}

static void prepare(void) {
    for (int i = 0; i < TARGET_COUNT; i++)
        targets[i].runs_here = runs_here(&targets[i]);
    for (int i = NAS_DTYPE_FP32; i <= NAS_DTYPE_BF16; i++)
        describe_native((nas_dtype)i, &natives[i]);
}

static void prepare_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, prepare); /* cannot fail with these arguments */
}

nas_status nas_target_find(nas_ctx *ctx, const char *name, const nas_target **out) {
    prepare_once();
    nas_buf known = {0};
    if (strcmp(name, "native") == 0 && natives[0].name != NULL) {
        *out = &natives[0];
        return NAS_OK;
    }
    for (int i = TARGET_COUNT - 1; i >= 0; i--) {
        const nas_target *row = &targets[i];
        if (strcmp(name, row->name) == 0) {
            nas_buf_deinit(&known);
            *out = row;
            return NAS_OK;
        }
        nas_buf_printf(&known, ", %s", row->name);
    }
    const nas_status status = nas_fail(ctx, NAS_ERR_NOTFOUND, "target '%s': known are native%s",
                                       name, known.data != NULL ? known.data : "");
    nas_buf_deinit(&known);
    return status;
}

nas_status nas_target_native(nas_ctx *ctx, nas_dtype dtype, const nas_target **out) {
    prepare_once();
    const nas_target *native = &natives[dtype];
    if (native->name == NULL) return nas_target_find(ctx, "native", out);
    *out = native;
    return NAS_OK;
}

static bool has_all(const nas_target *row, nas_target_has has, void *user) {
    for (const char *p = row->needs; *p != '\0';) {
        char feature[32];
        const size_t n = strcspn(p, ",");
        if (n >= sizeof feature) return false;
        memcpy(feature, p, n);
        feature[n] = '\0';
        if (!has(user, feature)) return false;
        p += n + (p[n] == ',');
    }
    return true;
}

nas_status nas_target_best(nas_ctx *ctx, const char *arch, nas_dtype dtype, nas_target_has has,
                           void *user, const nas_target_cpu *told, nas_target *out) {
    prepare_once();
    for (int i = TARGET_COUNT - 1; i >= 0; i--) {
        if (strcmp(targets[i].arch, arch) != 0 || targets[i].compiler[0] == '$' ||
            !computes_in(&targets[i], dtype) || !has_all(&targets[i], has, user))
            continue;
        *out = targets[i];
        if (told != NULL) nas_target_adapt(out, told);
        return NAS_OK;
    }
    if (dtype != NAS_DTYPE_FP32)
        return nas_target_best(ctx, arch, NAS_DTYPE_FP32, has, user, told, out);
    return nas_fail(ctx, NAS_ERR_NOTFOUND, "no target for architecture '%s'", arch);
}

/* Has the processor what the target's kernels are written for? */
static nas_status cpu_suits(nas_ctx *ctx, const cpu *c, const nas_target *target) {
    for (const char *p = target->needs; *p != '\0';) {
        const size_t n = strcspn(p, ",");
        if (!in_list(c->needs, p, n)) {
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "target %s needs %.*s, cpu %s has none",
                            target->name, (int)n, p, c->name);
        }
        p += n + (p[n] == ',');
    }
    return NAS_OK;
}

/* "a, b" of the rows of an architecture that compute in `dtype`, all rows for NULL; of the processors of `target`. */
static void list_rows(const nas_target *target, nas_dtype dtype, const char *arch, nas_buf *out) {
    for (int i = 0; i < TARGET_COUNT; i++) {
        const nas_target *row = &targets[i];
        if ((arch == NULL || strcmp(row->arch, arch) == 0) && computes_in(row, dtype))
            nas_buf_printf(out, "%s%s", out->len > 0 ? ", " : "", row->name);
    }
    bool any = false;
    for (int i = 0; i < CPU_COUNT && arch != NULL; i++) {
        const cpu *c = &cpus[i];
        if (strcmp(c->arch, arch) != 0 || !has_dtype(arch, c->needs, target->vector_bytes, dtype))
            continue;
        nas_buf_printf(out, "%s%s", any ? ", " : ", or name a processor that does: ", c->name);
        any = true;
    }
}

nas_status nas_target_check_dtype(nas_ctx *ctx, const nas_target *target, nas_dtype dtype) {
    if (computes_in(target, dtype)) return NAS_OK;
    nas_buf known = {0};
    list_rows(target, dtype, target->arch, &known);
    const bool some = known.len > 0;
    if (!some) list_rows(target, dtype, NULL, &known);
    const nas_status status = nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                                       "target %s (%s): it is not known to compute in %s; %s%s; or "
                                       "take dtype fp32",
                                       target->name, target->flags,
                                       dtype == NAS_DTYPE_BF16 ? "bf16" : "half precision (fp16)",
                                       some ? "take target " : "of other architectures do targets ",
                                       known.data != NULL ? known.data : "");
    nas_buf_deinit(&known);
    return status;
}

nas_status nas_target_find_cpu(nas_ctx *ctx, const nas_target *target, const char *name,
                               nas_target *out) {
    nas_buf known = {0};
    for (int i = 0; i < CPU_COUNT; i++) {
        const cpu *c = &cpus[i];
        if (strcmp(c->arch, target->arch) != 0) continue;
        if (strcmp(c->name, name) != 0) {
            nas_buf_printf(&known, "%s %s", known.len > 0 ? "," : "", c->name);
            continue;
        }
        nas_buf_deinit(&known);
        const nas_status status = cpu_suits(ctx, c, target);
        if (status != NAS_OK) return status;
        *out = *target;
        out->flags = c->flags;
        out->needs = c->needs;
        out->l1_bytes = c->l1_bytes;
        out->l2_bytes = c->l2_bytes;
        out->splits_vectors = false; /* none of the table does */
        out->sve_bytes = c->sve_bytes;
        out->sve_halves = c->sve_halves;
        out->runs_here = runs_here(out);
        return NAS_OK;
    }
    const nas_status status =
        nas_fail(ctx, NAS_ERR_NOTFOUND, "cpu '%s': known for target %s are%s", name, target->name,
                 known.data != NULL ? known.data : " none");
    nas_buf_deinit(&known);
    return status;
}
