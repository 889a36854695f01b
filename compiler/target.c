/* target.c - the table of targets, the processors by name, and the best row for this processor.
 *
 * Whether a row runs here is a question to the processor, asked once; a row that does not is a cross target like any
 * other: it compiles, links statically, and its program names the feature that is missing. */
#define _DEFAULT_SOURCE /* syscall, for cpu_check.h */
#include "compiler/compiler_internal.h"
#include "compiler/rt/cpu_check.h"

#include <pthread.h>
#include <string.h>

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
#define SAPPHIRE ICELAKE ",avx512fp16,amx_tile,amx_int8,amx_bf16"
/* Kernels are written for two 64-byte integer products a cycle where this is needed, which no other feature tells: Zen 4 has
 * all those of Ice Lake and starts one. */
#define TWO_DOTS CASCADE ",avx512fp16"
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
#define NDK_CLANG                                                                                  \
    "$ANDROID_NDK_HOME/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android21-clang"

enum { KIB = 1024 };

/* Worst row of an architecture first: "native" takes the last one that runs here. Cache sizes are those of the smallest
 * common processor of the row. runs_here is filled in by prepare(). The 8 registers of riscv64 are its 32 scalar ones:
 * without the V extension a vector is four of them. */
static nas_target targets[] = {
    {"x86-64", 16, 16, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=x86-64", false, "x86-64", "",
     "-march=x86-64"},
    {"x86-64-avx2", 32, 16, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=haswell", false, "x86-64",
     HASWELL, "-march=x86-64"},
    {"x86-64-avx512", 64, 32, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=skylake-avx512" WIDE,
     false, "x86-64", SKYLAKE, "-march=x86-64"},
    {"x86-64-avx512vnni", 64, 32, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=cascadelake" WIDE,
     false, "x86-64", CASCADE, "-march=x86-64"},
    {"x86-64-avx512vnni2", 64, 32, 32 * KIB, 1024 * KIB, X86_COMPILER, "-march=cascadelake" WIDE,
     false, "x86-64", TWO_DOTS, "-march=x86-64"},
    {"x86-64-amx", 64, 32, 48 * KIB, 2048 * KIB, X86_COMPILER, "-march=sapphirerapids" WIDE, false,
     "x86-64", SAPPHIRE, "-march=x86-64"},
    {"aarch64-linux", 16, 32, 32 * KIB, 512 * KIB, ARM_COMPILER, "-march=armv8-a" LATE, false,
     "aarch64", "asimd", "-march=armv8-a"},
    {"aarch64-fp16", 16, 32, 32 * KIB, 128 * KIB, ARM_COMPILER, "-march=armv8.2-a+fp16" LATE, false,
     "aarch64", "asimd,atomics,asimdhp", "-march=armv8-a"},
    {"aarch64-dotprod", 16, 32, 32 * KIB, 512 * KIB, ARM_COMPILER, "-march=armv8.2-a+dotprod" LATE,
     false, "aarch64", "asimd,atomics,asimddp", "-march=armv8-a"},
    {"aarch64-i8mm", 16, 32, 64 * KIB, 512 * KIB, ARM_COMPILER,
     "-march=armv8.2-a+dotprod+i8mm" LATE, false, "aarch64", "asimd,atomics,asimddp,i8mm",
     "-march=armv8-a"},
    {"aarch64-android", 16, 32, 32 * KIB, 512 * KIB, NDK_CLANG, "-march=armv8-a", false, "aarch64",
     "asimd", "-march=armv8-a"},
    {"armv7-linux", 16, 16, 32 * KIB, 256 * KIB, "arm-linux-gnueabihf-gcc", ARMV7_FLAGS, false,
     "armv7", "neon,vfpv4", ""},
    {"riscv64-linux", 16, 8, 32 * KIB, 512 * KIB, "riscv64-linux-gnu-gcc", "-march=rv64gc", false,
     "riscv64", "", "-march=rv64gc"},
};
enum { TARGET_COUNT = sizeof targets / sizeof targets[0] };

/* A processor: flags instead of the target's, caches of one core, all that its programs may use. */
typedef struct cpu {
    const char *name, *arch, *flags, *needs;
    int32_t l1_bytes, l2_bytes;
} cpu;

#define V8 "asimd"
#define V82 V8 ",atomics,asimddp,asimdhp"
#define V84 V82 ",i8mm"
#define V9 V84 ",bf16,sve,sve2"
static const cpu cpus[] = {
    {"haswell", "x86-64", "-march=haswell", HASWELL, 32 * KIB, 256 * KIB},
    {"skylake", "x86-64", "-march=skylake", HASWELL, 32 * KIB, 256 * KIB},
    {"znver2", "x86-64", "-march=znver2", HASWELL, 32 * KIB, 512 * KIB},
    {"znver3", "x86-64", "-march=znver3", HASWELL, 32 * KIB, 512 * KIB},
    {"skylake-avx512", "x86-64", "-march=skylake-avx512" WIDE, SKYLAKE, 32 * KIB, 1024 * KIB},
    {"cascadelake", "x86-64", "-march=cascadelake" WIDE, CASCADE, 32 * KIB, 1024 * KIB},
    {"icelake-server", "x86-64", "-march=icelake-server" WIDE, ICELAKE, 48 * KIB, 1280 * KIB},
    {"sapphirerapids", "x86-64", "-march=sapphirerapids" WIDE, SAPPHIRE, 48 * KIB, 2048 * KIB},
    {"cortex-a53", "aarch64", "-mcpu=cortex-a53", V8, 32 * KIB, 512 * KIB},
    {"cortex-a55", "aarch64", "-mcpu=cortex-a55", V82, 32 * KIB, 128 * KIB},
    {"cortex-a72", "aarch64", "-mcpu=cortex-a72" LATE, V8, 32 * KIB, 1024 * KIB},
    {"cortex-a75", "aarch64", "-mcpu=cortex-a75" LATE, V82, 64 * KIB, 256 * KIB},
    {"cortex-a76", "aarch64", "-mcpu=cortex-a76" LATE, V82, 64 * KIB, 512 * KIB},
    {"cortex-x1", "aarch64", "-mcpu=cortex-x1" LATE, V82, 64 * KIB, 1024 * KIB},
    {"neoverse-n1", "aarch64", "-mcpu=neoverse-n1" LATE, V82, 64 * KIB, 1024 * KIB},
    {"neoverse-v1", "aarch64", "-mcpu=neoverse-v1" LATE, V84 ",bf16,sve", 64 * KIB, 1024 * KIB},
    {"neoverse-n2", "aarch64", "-mcpu=neoverse-n2" LATE, V9, 64 * KIB, 1024 * KIB},
    {"cortex-a510", "aarch64", "-mcpu=cortex-a510", V9, 32 * KIB, 128 * KIB},
    {"cortex-a710", "aarch64", "-mcpu=cortex-a710" LATE, V9, 32 * KIB, 256 * KIB},
    {"cortex-x2", "aarch64", "-mcpu=cortex-x2" LATE, V9, 64 * KIB, 512 * KIB},
};
enum { CPU_COUNT = sizeof cpus / sizeof cpus[0] };

/* Programs for Android do not start elsewhere, whatever the processor. */
static bool runs_here(const nas_target *t) {
    size_t len = 0;
    return strcmp(t->arch, HERE) == 0 && t->compiler[0] != '$' &&
           cpu_missing(t->needs, &len) == NULL;
}

static void prepare(void) {
    for (int i = 0; i < TARGET_COUNT; i++)
        targets[i].runs_here = runs_here(&targets[i]);
}

nas_status nas_target_find(nas_ctx *ctx, const char *name, const nas_target **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, prepare); /* cannot fail with these arguments */
    nas_buf known = {0};
    for (int i = TARGET_COUNT - 1; i >= 0; i--) {
        const nas_target *row = &targets[i];
        if ((row->runs_here && strcmp(name, "native") == 0) || strcmp(name, row->name) == 0) {
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

nas_status nas_target_best(nas_ctx *ctx, const char *arch, nas_target_has has, void *user,
                           const nas_target **out) {
    for (int i = TARGET_COUNT - 1; i >= 0; i--) {
        if (strcmp(targets[i].arch, arch) != 0 || targets[i].compiler[0] == '$' ||
            !has_all(&targets[i], has, user))
            continue;
        return nas_target_find(ctx, targets[i].name, out); /* which also prepares the table */
    }
    return nas_fail(ctx, NAS_ERR_NOTFOUND, "no target for architecture '%s'", arch);
}

static bool in_list(const char *list, const char *name, size_t len) {
    for (const char *p = list; *p != '\0';) {
        const size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, name, n) == 0) return true;
        p += n + (p[n] == ',');
    }
    return false;
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

#define HALF "asimdhp" /* arithmetic on vectors of _Float16 */

nas_status nas_target_check_dtype(nas_ctx *ctx, const nas_target *target, nas_dtype dtype) {
    if (dtype == NAS_DTYPE_FP32 || in_list(target->needs, HALF, sizeof HALF - 1)) return NAS_OK;
    nas_buf known = {0};
    for (int i = 0; i < CPU_COUNT; i++) {
        const cpu *c = &cpus[i];
        if (strcmp(c->arch, target->arch) == 0 && in_list(c->needs, HALF, sizeof HALF - 1))
            nas_buf_printf(&known, "%s%s", known.len > 0 ? ", " : "", c->name);
    }
    const bool some = known.len > 0;
    const nas_status status = nas_fail(
        ctx, NAS_ERR_UNSUPPORTED,
        "target %s (%s): it is not known to compute in half precision (fp16); %s%s%s", target->name,
        target->flags, some ? "take target aarch64-fp16, or name a processor that does: " : "",
        some ? known.data : "only 64-bit Arm processors do here, see target aarch64-fp16",
        some ? "; or dtype fp32" : "; or take dtype fp32");
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
        out->runs_here = runs_here(out);
        return NAS_OK;
    }
    const nas_status status =
        nas_fail(ctx, NAS_ERR_NOTFOUND, "cpu '%s': known for target %s are%s", name, target->name,
                 known.data != NULL ? known.data : " none");
    nas_buf_deinit(&known);
    return status;
}
