#!/bin/sh
# sparse.sh - what leaving weights out gains on this machine: layers of ResNet-50 and MobileNet-V2 against our own best dense
# kernel, bytes of storage, and a network as a whole. Times of one line are from one process, kernels by turns. A few of the
# layers, minutes; with ALL=1 every layer and pattern of docs/sparse.md, more than half an hour.
#     [ALL=1] [CELL=0.4s] bench/sparse.sh NAS_COMPILE [MOBILENET.onnx]
set -eu
compile=$1
net=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cell=${CELL:-0.4s}

# KERNEL:IN:OUT:SIZE[:STRIDE]
resnet=1:256:64:56,1:64:256:56,1:512:128:28,1:1024:256:14,1:256:512:28:2,1:1024:2048:7:2,3:128:128:28:2,3:256:256:14:2
mobilenet=1:16:96:112,1:24:144:56,1:144:24:56,1:192:32:28,1:64:384:14,1:576:96:14,1:960:320:7,1:320:1280:7
winograd=3:64:64:56,3:128:128:28,3:256:256:14
sets=1:256:64:56,1:1024:256:14,1:576:96:14
big=1:256:64:56,1:512:128:28,1:1024:256:14
light=1:144:24:56,1:576:96:14,1:960:320:7
rates=0.25,0.5,0.75,0.9 # of floats
floats=1x4,1x16,punched4x4,N:8x4
floats_light=1x4,1x16,N:8x4
floats_3x3=1x4,1x16,punched8x8,pattern
codes=1x4,N:8x4,punched16x4,unstructured
codes_3x3=1x4,punched16x4
stored=1x2,1x4,1x8,1x16,N:8x4,punched4x4,unstructured
stored_shapes=1:256:64:14,3:128:128:7:2
if [ -z "${ALL:-}" ]; then
    resnet=1:256:64:56,1:1024:256:14,3:128:128:28:2 mobilenet=1:144:24:56,1:576:96:14 winograd=3:64:64:56
    big=1:256:64:56,1:1024:256:14 light=1:576:96:14 sets=1:256:64:56,1:576:96:14 rates=0.5,0.75,0.9
    floats=1x4,N:8x4 floats_light=1x4 floats_3x3=1x4 codes=1x4,punched16x4 codes_3x3=1x4
    stored=1x4,unstructured stored_shapes=1:256:64:14
fi

table() { # title, shapes, patterns [, rates [, dtype]]
    echo "== $1"
    "$compile" --break-even --cell "$cell" --db "$work/kernels.db" --shapes "$2" --patterns "$3" \
        --rates "${4:-$rates}" --dtype "${5:-f32}" 2>/dev/null
    echo
}
table "ResNet-50, 1x1 and strided" "$resnet" "$floats"
table "ResNet-50, 1x1, unstructured" "$big" unstructured 0.5,0.8,0.9
table "MobileNet-V2, 1x1" "$mobilenet" "$floats_light"
table "MobileNet-V2, 1x1, unstructured" "$light" unstructured 0.5,0.8,0.9
table "1x1, complementary (sets of 2, 4, 8) and 1x4" "$sets" complementary,1x4 0.5,0.75,0.875
table "3x3 of stride 1: the rival is Winograd" "$winograd" "$floats_3x3"

ints=0.5,0.75,0.9
table "int8: ResNet-50, 1x1 and strided" "$resnet" "$codes" $ints int8
table "int8: MobileNet-V2, 1x1" "$mobilenet" "$codes" $ints int8
table "int8: 3x3 of stride 1" "$winograd" "$codes_3x3" $ints int8

echo "== bytes of fp32 weights as a share of dense: bitmask and lists"
"$compile" --break-even --cell 0.05s --db "$work/bytes.db" --shapes "$stored_shapes" \
    --patterns "$stored" --rates 0.5,0.75,0.9 -f csv |
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        { printf "%sx%s %s->%s %-14s rate %.2f  bitmask %5.1f %%  lists %5.1f %%\n", $at["kernel"], $at["kernel"],
          $at["in_channels"], $at["out_channels"], $at["pattern"], $at["rate"],
          100 * $at["bitmask_bytes"] / $at["dense_bytes"], 100 * $at["list_bytes"] / $at["dense_bytes"] }'

[ -n "$net" ] || { echo "no MobileNet-V2 given: make bench-sparse NET=mobilenetv2.onnx"; exit 0; }

echo "== $(basename "$net") as a whole, one thread: 1x1 convolutions as 1x4, or half of their filters or inputs empty"
echo '{"graph_hash": "?"}' >"$work/r.json"
hash=$("$compile" "$net" --recipe "$work/r.json" --explain 2>&1 | sed -n 's/.*this model has \([0-9a-f]*\).*/\1/p')
"$compile" "$net" --tune "${TUNE:-20s}" --db "$work/net.db" -o "$work/dense" 2>/dev/null
variant() { # name, sparsity
    echo "{\"graph_hash\": \"$hash\", \"sparsity\": {\"kernels\": \"1x1\", $2}}" >"$work/r.json"
    "$compile" "$net" --recipe "$work/r.json" --tune "${TUNE:-20s}" --db "$work/net.db" -o "$work/$1" 2>/dev/null
}
for rate in 0.5 0.75 0.9; do
    variant $rate "\"pattern\": \"1xN\", \"n\": 4, \"rate\": $rate"
done
for pattern in filter channel; do # sliced
    variant $pattern "\"pattern\": \"$pattern\", \"rate\": 0.5"
done
p50() {
    "$1/model" --bench --threads 1 | sed -n 's/.*"min_us": *\([0-9.]*\).*/\1/p'
}
for _ in 1 2 3 4 5 6 7; do # by turns
    for v in dense 0.5 0.75 0.9 filter channel; do
        echo "$v $(p50 "$work/$v")"
    done
done | awk '{ if (!($1 in best) || $2 < best[$1]) best[$1] = $2 }
    END { for (v in best) printf "%-6s %8.0f us  %.2fx\n", v, best[v], best["dense"] / best[v] }' | sort
