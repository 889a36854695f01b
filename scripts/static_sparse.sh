#!/bin/sh
# static_sparse.sh - what leaving weights out would gain on 64-bit Arm, as llvm-mca sees the loops: cycles and instructions
# of whole layers, sparse against dense. No Arm machine is needed, and none is measured.
#
# A layer is the passes of its loops: those of the products, and of the sparse kernels with pixels in lanes also those that
# turn the input and the output. What a tile does before and after its loops is not counted, in neither kind: at 90 % it
# weighs more than what is left of the products. Where the loop that turns bytes back also rounds them, that is counted, for
# the dense kernels it is not. Every load hits L1, every branch is predicted.
#
# Needs what scripts/static_cost.sh needs. Options: MCA=<llvm-mca> CROSS=<prefix> CPUS=<list> LAYERS=<list> KEEP=<folder>.
set -eu
cd "$(dirname "$0")/.."

. scripts/find_mca.sh
cpus=${CPUS:-neoverse-n1 neoverse-n2 cortex-a53 cortex-a55}
# KERNEL:IN:OUT:SIZE:STRIDE
layers=${LAYERS:-1:256:64:56:1 1:64:256:56:1 1:1024:256:14:1 3:128:128:28:2 1:144:24:56:1 1:576:96:14:1}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lib=build/release/lib
make --no-print-directory -s MODE=release $lib/libcompiler.a $lib/libir.a $lib/libcore.a >&2

# ---- the kernels' text, and how much of the products each of them makes --------------------------------------------------
cat >"$work/emit.c" <<'SOURCE'
#include "compiler/layers_q_internal.h"
#include "ir/sparsity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static const nas_target *target;
static const char *folder;

static void need(nas_status status) {
    if (status == NAS_OK) return;
    fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    exit(1);
}

/* One kernel as a file of its own; a table keeps the static function. */
static void save(const nas_buf *name, nas_buf *text) {
    char path[600];
    nas_buf_printf(text, "typedef void kernel();\nkernel *const table[] = {(kernel *)%s};\n", name->data);
    snprintf(path, sizeof path, "%s/%s.c", folder, name->data);
    need(nas_buf_status(ctx, text));
    need(nas_file_write(ctx, path, text->data, text->len, 0644));
}

/* A line: layer, dtype, pattern, rate, products of this kernel, of the dense layer, steps and outputs to turn, kernel. */
static void line(const char *layer, const char *dtype, const char *pattern, double rate, const nas__conv *c, double share,
    bool turned, bool joined, const nas_buf *name) {
    const double pixels = (double)c->out_h * c->out_w, steps = (double)c->kernel_h * c->kernel_w * c->in_c;
    const double macs = pixels * steps * c->out_c;
    printf("%s %s %s %g %.0f %.0f %.0f %.0f %s\n", layer, dtype, pattern, rate, macs * share, macs,
        turned ? pixels * steps : 0, turned && !joined ? pixels * c->out_c : 0, name->data);
}

/* code: the mask as instructions instead of the best lists */
static void floats(const char *layer, const nas__conv *c, const char *pattern, double rate, bool code) {
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, c, ways);
    const bool want = c->kept != NULL;
    int32_t i = 0;
    while (i < n && (nas__conv_is_sparse(&ways[i]) != want || ways[i].batch > 0 ||
            (ways[i].algorithm == NAS__CONV_SPARSE_CODE) != code)) i++;
    if (i == n) return;
    nas_buf name = {0}, text = {0};
    nas__conv_name(target, c, &ways[i], &name);
    nas__emit_vector_prelude(target, &text);
    nas__conv_emit(target, c, &ways[i], &text);
    save(&name, &text);
    const double all = (double)c->kernel_h * c->kernel_w * c->in_c * c->out_c;
    const bool panel = code || ways[i].algorithm == NAS__CONV_SPARSE_PANEL;
    line(layer, "f32", pattern, rate, c, want ? nas__sparse_products(target, c, &ways[i]) / all : 1, panel,
        ways[i].joined != 0, &name);
    nas_buf_deinit(&name);
    nas_buf_deinit(&text);
}

static void integers(const char *layer, const nas__conv *c, const char *pattern, double rate) {
    const nas__qconv q = {.conv = *c, .weight_bits = 8};
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    const int32_t n = nas__qconv_ways(target, &q, ways);
    const bool want = c->kept != NULL;
    int32_t i = 0;
    while (i < n && (nas__qconv_is_sparse(&ways[i]) != want || ways[i].batch > 0)) i++;
    if (i == n) return;
    nas_buf name = {0}, text = {0};
    nas__qconv_name(target, &q, &ways[i], &name);
    nas__emit_vector_prelude(target, &text);
    nas__emit_quant_prelude(target, &text);
    nas__qconv_emit(target, &q, &ways[i], &text);
    save(&name, &text);
    const double all = (double)c->kernel_h * c->kernel_w * c->in_c * c->out_c;
    line(layer, "int8", pattern, rate, c, want ? nas__qconv_sparse_products(target, &q, &ways[i]) / all : 1, want, false,
        &name);
    nas_buf_deinit(&name);
    nas_buf_deinit(&text);
}

static void one_layer(const char *layer, bool dotprod) {
    int k = 0, in_c = 0, out_c = 0, size = 0, stride = 0;
    if (sscanf(layer, "%d:%d:%d:%d:%d", &k, &in_c, &out_c, &size, &stride) != 5) exit(2);
    const int width = (size - 1) * stride + k;
    nas__conv c = {.in_c = in_c, .out_c = out_c, .groups = 1, .out_h = size, .out_w = size, .kernel_h = k, .kernel_w = k,
        .stride_h = stride, .stride_w = stride, .dilation_h = 1, .dilation_w = 1, .in_pitch = in_c, .out_pitch = out_c,
        .in_row = (size_t)(width * in_c), .out_row = (size_t)(size * out_c)};
    floats(layer, &c, "dense", 0, false);
    if (dotprod) integers(layer, &c, "dense", 0);
    const size_t n = (size_t)(k * k) * (size_t)in_c * (size_t)out_c;
    const int32_t dims[4] = {out_c, k, k, in_c};
    float *weight = malloc(n * sizeof *weight);
    uint8_t *kept = malloc(n);
    if (weight == NULL || kept == NULL) exit(3);
    nas_rng rng = nas_rng_stream(1, 0, "static");
    for (size_t i = 0; i < n; i++) weight[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
    for (int pattern = 0; pattern < 4; pattern++) {
        static const char *const names[] = {"1x4", "1x16", "punched8x4", "unstructured"};
        static const double rates[] = {0.5, 0.75, 0.9};
        if (pattern == 1 && out_c % 16 != 0) continue;
        for (int r = 0; r < 3; r++) {
            static const nas_sparsity_pattern kinds[] = {NAS_SPARSITY_1XN, NAS_SPARSITY_1XN, NAS_SPARSITY_PUNCHED,
                NAS_SPARSITY_UNSTRUCTURED};
            nas_sparsity s = nas_sparsity_default(kinds[pattern]);
            if (pattern < 2) s.n = pattern == 0 ? 4 : 16;
            s.outputs = pattern == 2 ? 8 : s.outputs;
            s.inputs = pattern == 2 ? 4 : s.inputs;
            s.rate = rates[r];
            need(nas_sparsity_mask(ctx, &s, weight, dims, kept));
            c.kept = kept;
            floats(layer, &c, names[pattern], rates[r], false);
            if (pattern == 3) floats(layer, &c, "as_code", rates[r], true);
            if (dotprod) integers(layer, &c, names[pattern], rates[r]);
        }
    }
    free(weight);
    free(kept);
}

/* emit FOLDER CPU LAYER ... */
int main(int argc, char **argv) {
    if (argc < 4) return 2;
    ctx = nas_ctx_new();
    folder = argv[1];
    const bool dotprod = strcmp(argv[2], "cortex-a53") != 0;
    nas_target cpu;
    need(nas_target_find(ctx, dotprod ? "aarch64-dotprod" : "aarch64-linux", &target));
    need(nas_target_find_cpu(ctx, target, argv[2], &cpu));
    target = &cpu;
    fprintf(stderr, "%s\n", cpu.flags);
    for (int i = 3; i < argc; i++) one_layer(argv[i], dotprod);
    nas_ctx_free(ctx);
    return 0;
}
SOURCE
# shellcheck disable=SC2046 # a list of libraries
"${CC:-gcc}" -O1 -std=c17 -D_POSIX_C_SOURCE=200809L -I. "$work/emit.c" $lib/libcompiler.a $lib/libir.a $lib/libcore.a \
    $(pkg-config --libs libprotobuf-c) -lm -pthread -o "$work/emit"

# ---- loops ----------------------------------------------------------------------------------------------------------------
iterations=500
# "cycles instructions multiply-adds" of one pass of the loop of `role` in the assembly of a kernel.
cost() { # assembly, role, cpu
    awk -v role="$2" -f scripts/find_loop.awk "$1" >"$work/loop.s"
    [ -s "$work/loop.s" ] || { echo "0 0 0"; return; }
    cycles=$("$MCA" -mtriple=aarch64-linux-gnu "-mcpu=$3" "-iterations=$iterations" "$work/loop.s" 2>"$work/mca.err" |
        awk '/^Total Cycles:/ { print $3 }')
    [ -n "$cycles" ] || { cat "$work/mca.err" >&2; exit 1; }
    awk -v cycles="$cycles" -v times=$iterations '{ n++ } $1 ~ /^(fmla|sdot|u?smmla)$/ { m++ }
        END { print cycles / times, n, m + 0 }' "$work/loop.s"
}

# The same of a mask as instructions, for one vector of pixels of all outputs: as the assembler wrote them, jumps apart.
code_cost() { # object, cpu
    "${CROSS}objdump" -d --no-show-raw-insn "$1" | awk -F'\t' '/^[0-9a-f]+ <.*>:$/ { wanted = /_code>:$/; next }
        wanted && NF > 1 && $2 !~ /^(b\.|ret|stp|ldp)/ { sub(/[ \t]*\/\/.*/, ""); $1 = ""; print }' >"$work/code.s"
    cycles=$("$MCA" -mtriple=aarch64-linux-gnu "-mcpu=$2" -iterations=2 "$work/code.s" 2>"$work/mca.err" |
        awk '/^Total Cycles:/ { print $3 }')
    [ -n "$cycles" ] || { cat "$work/mca.err" >&2; exit 1; }
    awk -v cycles="$cycles" '{ n++ } $1 == "fmla" { m++ } END { print cycles / 2, n, m + 0 }' "$work/code.s"
}

"$MCA" --version | sed -n 's/.*LLVM version/llvm-mca: LLVM/p'
"${CROSS}gcc" --version | sed -n 1p
for cpu in $cpus; do
    mkdir -p "$work/$cpu"
    # shellcheck disable=SC2086 # a list
    "$work/emit" "$work/$cpu" "$cpu" $layers >"$work/$cpu/lines" 2>"$work/$cpu/flags"
    flags=$(cat "$work/$cpu/flags")
    for source in "$work/$cpu"/*.c; do
        kernel=$(basename "$source" .c)
        asm="$work/$cpu/$kernel.s"
        # shellcheck disable=SC2086 # lists of flags
        "${CROSS}gcc" -S -w -O2 -std=gnu99 -ffp-contract=fast -pthread $flags -fno-asynchronous-unwind-tables "$source" -o "$asm"
        case $kernel in
        *sparse_code*)
            "${CROSS}gcc" -c "$asm" -o "$work/code.o"
            echo "$kernel $(code_cost "$work/code.o" "$cpu") $(cost "$asm" _gather "$cpu") $(cost "$asm" _finish "$cpu")"
            ;;
        *sparse_px*) echo "$kernel $(cost "$asm" _sum "$cpu") $(cost "$asm" _gather "$cpu") $(cost "$asm" _finish "$cpu")" ;;
        *) echo "$kernel $(cost "$asm" '' "$cpu") 0 0 0 0 0 0" ;;
        esac
    done >"$work/$cpu/costs"
    # Elements of one pass of the loops that turn: 4x4 floats; 16 pixels x 8 channels and 4 x 8 results of bytes.
    printf '\n%s\n%-18s %-5s %-13s %9s   %s\n' "$cpu" layer dtype pattern "dense Mcyc" \
        "gain in cycles 50 75 90 %    gain in instructions 50 75 90 %"
    awk '
        FNR == NR { for (i = 2; i <= 10; i++) c[$1, i] = $i; next }
        {
            k = $9; per = k ~ /matrix/ ? 32 : $2 == "int8" ? 16 : 4
            if (c[k, 4] == 0) next
            passes = $5 / (c[k, 4] * per) # multiply-adds of an instruction
            cycles = passes * c[k, 2] + $7 / ($2 == "int8" ? 128 : 16) * c[k, 5] + $8 / ($2 == "int8" ? 32 : 16) * c[k, 8]
            instr = passes * c[k, 3] + $7 / ($2 == "int8" ? 128 : 16) * c[k, 6] + $8 / ($2 == "int8" ? 32 : 16) * c[k, 9]
            if ($3 == "dense") { dc[$1, $2] = cycles; di[$1, $2] = instr; next }
            row = $1 " " $2 " " $3
            if (!(row in gains)) order[++rows] = row
            gains[row] = gains[row] sprintf(" %5.2f", dc[$1, $2] / cycles)
            fewer[row] = fewer[row] sprintf(" %5.2f", di[$1, $2] / instr)
        }
        END {
            for (i = 1; i <= rows; i++) {
                split(order[i], f, " ")
                printf "%-18s %-5s %-13s %9.2f     %s        %s\n", f[1], f[2], f[3], dc[f[1], f[2]] / 1e6, gains[order[i]],
                    fewer[order[i]]
            }
        }' "$work/$cpu/costs" "$work/$cpu/lines"
done
cat <<'NOTES'

dense: the best kernel by the estimate that is not Winograd, of integers on Neoverse N2 that of the matrix unit; sparse: the
best one with lists; as_code: unstructured as instructions, where a layer has at most 60000 weights left. Cortex-A53 has no dot product: floats alone. Models of in-order cores take a 128-bit load for one cycle, a Cortex-A53 takes two.
NOTES
[ -z "${KEEP:-}" ] || { mkdir -p "$KEEP" && cp -r "$work"/*/ "$KEEP"; }
