#!/bin/sh
# static_cost.sh - inner loops of the main kernels on 64-bit Arm, as llvm-mca sees them: cycles, and the share of the
# bound that the multiply-adds alone set. No Arm machine is needed, and none is measured: every load hits L1, every
# branch is predicted, and the models of llvm-mca are what they are (see the notes it prints).
#
# Needs llvm-mca (Debian: apt-get install llvm-19; before LLVM 17 there is no model of Neoverse N1) and the aarch64
# cross compiler. Options: MCA=<llvm-mca> CROSS=<prefix> FLAGS=<flags of gcc after the target's> KEEP=<folder for the loops>.
set -eu
cd "$(dirname "$0")/.."

. scripts/find_mca.sh

# Multiply-adds of 4 floats that a core starts in a cycle. Sources: neoverse-n1 and cortex-a53 measured (fmla.s, by
# vector and by element) in github.com/ocxtal/insn_bench_aarch64, results/aws_graviton2.md and
# raspberry-pi-3_cortex-a53.md; neoverse-n2: two 128-bit pipes, Arm's Neoverse N2 Software Optimization Guide (also
# en.wikichip.org/wiki/flops); cortex-a55: two 64-bit pipes make one, Arm's Cortex-A55 Software Optimization Guide.
cpus='neoverse-n1:2 neoverse-n2:2 cortex-a53:1 cortex-a55:1'
# Integer products of vectors (sdot) and matrices (smmla, usmmla) a cycle; Arm's Software Optimization Guides.
cpus_sdot='neoverse-n1:2 neoverse-n2:2 cortex-a55:1'
cpus_smmla='neoverse-n2:2 neoverse-v1:4'
# Vectors of SVE beside those of 16 bytes: Neoverse V1 has four pipes of 128 bits that join to two of 256, A64FX two of 512; Arm's
# Neoverse V1 Software Optimization Guide, Fujitsu's A64FX Microarchitecture Manual.
cpus_long='neoverse-v1:4 a64fx:2'
cpus_sve='neoverse-v1:2 a64fx:2'
# Products of bf16: each of 2 x 4 x 2; Arm's Neoverse N2 and V1 Software Optimization Guides.
cpus_bf16='neoverse-n2:2 neoverse-v1:4'
# Half precision: 8 lanes in the same pipes. The Cortex-A76 is the core of the Neoverse N1; llvm-mca has no model of its own for it.
cpus_half='neoverse-n1:2 neoverse-n2:2 cortex-a55:1'
rows=
for shape in 3x3_16_16 1x1_16_96 1x1_96_12 5x5_1_56; do rows="$rows rows_$shape half_rows_$shape"; done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lib=build/release/lib
make --no-print-directory -s MODE=release $lib/libcompiler.a $lib/libir.a $lib/libcore.a >&2

# ---- the kernels' text ------------------------------------------------------------------------------------------------
cat >"$work/emit.c" <<'SOURCE'
#include "compiler/layers_q_internal.h"

#include <stdio.h>
#include <string.h>

static int fail(nas_ctx *ctx) {
    fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    return 1;
}

/* Convolution on whole buffers, 56x56, the best way of an algorithm; a table keeps the static function. */
static void dense(const nas_target *target, nas__conv_algorithm algorithm, int32_t in_c, int32_t out_c, int32_t kernel,
    nas_buf *out) {
    const int32_t size = 56, edge = size + kernel - 1;
    const bool depthwise = algorithm == NAS__CONV_DEPTHWISE || algorithm == NAS__CONV_SVE_DEPTHWISE;
    const nas__conv c = {.in_c = in_c, .out_c = out_c, .groups = depthwise ? in_c : 1, .out_h = size, .out_w = size, .kernel_h = kernel,
        .kernel_w = kernel, .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .in_pitch = in_c,
        .out_pitch = out_c, .in_row = (size_t)(edge * in_c), .out_row = (size_t)(size * out_c),
        .act = NAS__LACT_RELU};
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, &c, ways);
    int32_t i = 0;
    while (i + 1 < n && ways[i].algorithm != algorithm) i++;
    nas__emit_vector_prelude(target, out);
    nas__conv_emit(target, &c, &ways[i], out);
    nas_buf_puts(out, "typedef void kernel(const float *, float *, const float *, const void *, void *, int, int);\n"
                      "kernel *const table[] = {");
    nas__conv_name(target, &c, &ways[i], out);
    nas_buf_puts(out, "};\n");
}

/* With products of bf16. */
static void bf16(const nas_target *target, int32_t in_c, int32_t out_c, int32_t kernel, nas_buf *out) {
    nas_target t = *target;
    t.bf16 = true;
    dense(&t, NAS__CONV_BF16, in_c, out_c, kernel, out);
}

/* Sparse 1x1 convolution, 56x56, 64 channels: the loop over one list; other zeros make no other text. */
static void sparse(const nas_target *target, nas__conv_algorithm algorithm, int32_t group, nas_buf *out) {
    enum { SIZE = 56, N_C = 64 };
    static uint8_t kept[N_C * N_C];
    const nas__conv c = {.in_c = N_C, .out_c = N_C, .groups = 1, .out_h = SIZE, .out_w = SIZE, .kernel_h = 1,
        .kernel_w = 1, .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .in_pitch = N_C,
        .out_pitch = N_C, .in_row = (size_t)(SIZE * N_C), .out_row = (size_t)(SIZE * N_C),
        .act = NAS__LACT_RELU, .kept = kept};
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, &c, ways);
    int32_t i = 0;
    while (i + 1 < n && (ways[i].algorithm != algorithm || ways[i].group != group)) i++;
    nas__emit_vector_prelude(target, out);
    nas__conv_emit(target, &c, &ways[i], out);
    nas_buf_puts(out, "typedef void kernel(const float *, float *, const float *, const void *, void *, int, int);\n"
                      "kernel *const table[] = {");
    nas__conv_name(target, &c, &ways[i], out);
    nas_buf_puts(out, "};\n");
}

/* Integer 3x3 convolution, 56x56, 64 channels, on dot products of vectors or on matrix products. */
static nas_status integers(nas_ctx *ctx, const char *name, nas__qconv_algorithm algorithm, nas_buf *out) {
    const int32_t size = 56, edge = size + 2, n_c = 64;
    const nas__conv c = {.in_c = n_c, .out_c = n_c, .groups = 1, .out_h = size, .out_w = size, .kernel_h = 3,
        .kernel_w = 3, .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .in_pitch = n_c,
        .out_pitch = n_c, .in_row = (size_t)(edge * n_c), .out_row = (size_t)(size * n_c)};
    const nas__qconv q = {.conv = c, .weight_bits = 8};
    const nas_target *target = NULL;
    const nas_status s = nas_target_find(ctx, name, &target);
    if (s != NAS_OK) return s;
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    const int32_t n = nas__qconv_ways(target, &q, ways);
    int32_t i = 0;
    while (i + 1 < n && ways[i].algorithm != algorithm) i++;
    nas__emit_vector_prelude(target, out);
    nas__emit_quant_prelude(target, out);
    nas__qconv_emit(target, &q, &ways[i], out);
    nas_buf_puts(out, "typedef void kernel(const void *, void *, const void *, const void *, void *, int, int);\n"
                      "kernel *const table[] = {");
    nas__qconv_name(target, &q, &ways[i], out);
    nas_buf_puts(out, "};\n");
    return NAS_OK;
}

/* Image-to-image networks: row pipeline, direct kernels. */
static nas_status rows(nas_ctx *ctx, const nas_target *target, nas_dtype dtype, int32_t in_c, int32_t out_c, int32_t kernel,
    nas_buf *out, nas_buf *header) {
    nas_graph *g = nas_graph_new(ctx, "rows");
    nas_compile_options options = nas_compile_options_default();
    options.target = target;
    options.max_threads = 1;
    options.form = NAS_FORM_ROWS;
    options.row_kernels = NAS_ROW_KERNELS_DIRECT;
    options.dtype = dtype;
    if (g == NULL) return NAS_ERR_NOMEM;
    nas_value x = 0;
    const nas_conv_attributes c = nas_conv_same(out_c, kernel);
    nas_status s = nas_graph_add_input(ctx, g, "in", (nas_shape){1, 360, 640, in_c}, &x);
    if (s == NAS_OK) s = nas_graph_add_conv(ctx, g, "conv", x, &c, &x);
    if (s == NAS_OK) s = nas_graph_set_output(ctx, g, x);
    if (s == NAS_OK) s = nas_graph_alloc_weights(ctx, g);
    if (s == NAS_OK) s = nas_emit_source(ctx, g, &options, out, header);
    nas_graph_free(g);
    return s;
}

static int save(nas_ctx *ctx, const char *folder, const char *name, nas_buf *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const bool ok = nas_buf_status(ctx, text) == NAS_OK &&
                    nas_file_write(ctx, path, text->data, text->len, 0644) == NAS_OK;
    nas_buf_deinit(text);
    return ok ? 0 : fail(ctx);
}

int main(int argc, char **argv) {
    nas_ctx *ctx = nas_ctx_new();
    const nas_target *target = NULL;
    nas_buf text = {0}, header = {0};
    if (argc < 2 || nas_target_find(ctx, "aarch64-linux", &target) != NAS_OK) return fail(ctx);
    if (argc == 3) { /* the flags of a processor */
        nas_target cpu;
        if (nas_target_find_cpu(ctx, target, argv[2], &cpu) != NAS_OK) return fail(ctx);
        puts(cpu.flags);
        return 0;
    }
    dense(target, NAS__CONV_DIRECT, 16, 16, 3, &text);
    if (save(ctx, argv[1], "direct_3x3_16_16.c", &text) != 0) return 1;
    dense(target, NAS__CONV_DIRECT, 64, 64, 1, &text);
    if (save(ctx, argv[1], "direct_1x1_64_64.c", &text) != 0) return 1;
    dense(target, NAS__CONV_DEPTHWISE, 96, 96, 3, &text);
    if (save(ctx, argv[1], "depthwise_3x3_96.c", &text) != 0) return 1;
    bf16(target, 16, 16, 3, &text);
    if (save(ctx, argv[1], "bf16_3x3_16_16.c", &text) != 0) return 1;
    bf16(target, 64, 64, 1, &text);
    if (save(ctx, argv[1], "bf16_1x1_64_64.c", &text) != 0) return 1;
    static const char *const long_vectors[] = {"neoverse-v1", "a64fx"}; /* a text for each */
    for (int32_t i = 0; i < 2; i++) {
        nas_target cpu;
        char name[64];
        if (nas_target_find_cpu(ctx, target, long_vectors[i], &cpu) != NAS_OK) return fail(ctx);
        dense(&cpu, NAS__CONV_SVE, 16, 16, 3, &text);
        snprintf(name, sizeof name, "sve_3x3_16_16.%s.c", long_vectors[i]);
        if (save(ctx, argv[1], name, &text) != 0) return 1;
        dense(&cpu, NAS__CONV_SVE, 64, 64, 1, &text);
        snprintf(name, sizeof name, "sve_1x1_64_64.%s.c", long_vectors[i]);
        if (save(ctx, argv[1], name, &text) != 0) return 1;
        dense(&cpu, NAS__CONV_SVE_DEPTHWISE, 96, 96, 3, &text);
        snprintf(name, sizeof name, "sve_depthwise_96.%s.c", long_vectors[i]);
        if (save(ctx, argv[1], name, &text) != 0) return 1;
    }
    sparse(target, NAS__CONV_SPARSE, 0, &text);
    if (save(ctx, argv[1], "sparse_vectors.c", &text) != 0) return 1;
    for (int32_t group = 1; group <= 4; group *= 2) {
        char name[32];
        sparse(target, NAS__CONV_SPARSE_PANEL, group, &text);
        snprintf(name, sizeof name, "sparse_px_%d.c", group);
        if (save(ctx, argv[1], name, &text) != 0) return 1;
    }
    if (integers(ctx, "aarch64-dotprod", NAS__QCONV_DIRECT, &text) != NAS_OK) return fail(ctx);
    if (save(ctx, argv[1], "sdot_3x3_64_64.c", &text) != 0) return 1;
    if (integers(ctx, "aarch64-i8mm", NAS__QCONV_MATRIX, &text) != NAS_OK) return fail(ctx);
    if (save(ctx, argv[1], "smmla_3x3_64_64.c", &text) != 0) return 1;
    const nas_target *half = NULL;
    if (nas_target_find(ctx, "aarch64-fp16", &half) != NAS_OK) return fail(ctx);
    static const int32_t shapes[][3] = {{16, 16, 3}, {16, 96, 1}, {96, 12, 1}, {1, 56, 5}};
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
        const int32_t *s = shapes[i / 2];
        char name[48];
        if (rows(ctx, i % 2 == 0 ? target : half, i % 2 == 0 ? NAS_DTYPE_FP32 : NAS_DTYPE_FP16, s[0], s[1], s[2], &text,
                &header) != NAS_OK) return fail(ctx);
        snprintf(name, sizeof name, "%srows_%dx%d_%d_%d.c", i % 2 == 0 ? "" : "half_", s[2], s[2], s[0], s[1]);
        if (save(ctx, argv[1], name, &text) != 0 || save(ctx, argv[1], "model.h", &header) != 0) return 1;
    }
    nas_ctx_free(ctx);
    return 0;
}
SOURCE
# shellcheck disable=SC2046 # a list of libraries
"${CC:-gcc}" -O1 -std=c17 -D_POSIX_C_SOURCE=200809L -I. "$work/emit.c" $lib/libcompiler.a $lib/libir.a $lib/libcore.a \
    $(pkg-config --libs libprotobuf-c) -lm -pthread -o "$work/emit"
"$work/emit" "$work"

# ---- table ----------------------------------------------------------------------------------------------------------------
iterations=1000
"$MCA" --version | sed -n 's/.*LLVM version/llvm-mca: LLVM/p'
"${CROSS}gcc" --version | sed -n 1p
[ -z "${FLAGS:-}" ] || echo "further flags: $FLAGS"
printf '\n%-19s %-12s %6s %6s %6s %6s %9s %9s %8s %11s\n' kernel cpu instr madd loads stores 'cycles' 'bound' 'share' 'op/cycle'
for kernel in direct_3x3_16_16 direct_1x1_64_64 depthwise_3x3_96 sve_3x3_16_16 sve_1x1_64_64 sve_depthwise_96 bf16_3x3_16_16 bf16_1x1_64_64 sparse_vectors sparse_px_4 sparse_px_2 sparse_px_1 $rows sdot_3x3_64_64 smmla_3x3_64_64; do
    case $kernel in
    sdot*) list=$cpus_sdot each=32 ;; # operations of an instruction
    smmla*) list=$cpus_smmla each=64 ;;
    half*) list=$cpus_half each=16 ;;
    bf16*) list=$cpus_bf16 each=32 ;;
    direct* | depthwise*) list="$cpus $cpus_long" each=8 ;;
    sve*) list=$cpus_sve each=0 ;; # by the length of the vectors
    *) list=$cpus each=8 ;;
    esac
    for row in $list; do
        cpu=${row%:*}
        width=${row#*:}
        source="$work/$kernel.c" ops=$each
        [ -s "$source" ] || source="$work/$kernel.$cpu.c"
        case $kernel:$cpu in
        sve*:neoverse-v1) ops=16 ;;
        sve*) ops=32 ;;
        esac
        asm="$work/$kernel.$cpu.s"
        loop="$work/$kernel.$cpu.loop.s"
        flags=$("$work/emit" "$work" "$cpu")
        # shellcheck disable=SC2086 # lists of flags
        "${CROSS}gcc" -S -O2 -std=gnu99 -ffp-contract=fast -pthread $flags -fno-asynchronous-unwind-tables \
            ${FLAGS:-} "$source" -o "$asm"
        awk -f scripts/find_loop.awk "$asm" >"$loop"
        [ -s "$loop" ] || { echo "error: no loop found in $asm" >&2; exit 1; }
        # The model of n2 without SVE would be that of another core; the loop has none either way.
        cycles=$("$MCA" -mtriple=aarch64-linux-gnu "-mcpu=$cpu" "-iterations=$iterations" "$loop" 2>"$work/mca.err" |
            awk '/^Total Cycles:/ { print $3 }')
        [ -n "$cycles" ] || { cat "$work/mca.err" >&2; exit 1; }
        awk -v kernel="$kernel" -v cpu="$cpu" -v width="$width" -v cycles="$cycles" -v times="$iterations" -v ops="$ops" '
            { instr++ }
            $1 ~ /^(fmla|sdot|u?smmla|bfmmla)$/ { madd++ }
            $1 ~ /^(ldr|ldur|ldp|ld1|ld1r|ld2|ld3|ld4|ld1w|ld1rw)$/ { loads++ }
            $1 ~ /^(str|stur|stp|st1|st1w)$/ { stores++ }
            END {
                each = cycles / times; bound = madd / width
                printf "%-19s %-12s %6d %6d %6d %6d %9.2f %9.2f %7.0f%% %11.1f%s\n", kernel, cpu, instr, madd, loads,
                    stores, each, bound, 100 * bound / each, ops * madd / each, each < bound - 0.005 ? "  (!)" : ""
            }' "$loop"
    done
done
cat <<'NOTES'

cycles: llvm-mca, one pass of the loop; bound: madd / (madd a cycle), multiply-adds of floats or integers; stores inside a loop are spills.
(!) the model is faster than the core can be: it starts more 128-bit multiply-adds a cycle than there are pipes. Read the
    bound instead of the cycles there. Models of in-order cores also take a 128-bit load for one cycle (a Cortex-A53
    takes two, same source), so real shares of cortex-a53 and cortex-a55 are lower.
NOTES
[ -z "${KEEP:-}" ] || { mkdir -p "$KEEP" && cp "$work"/*.c "$work"/*.s "$KEEP"; }
