#!/bin/sh
# setup.sh - everything `make bench-engines` needs besides our own programs, under build/: a Python environment with the
# rival engines at fixed versions, and the peak loop. Never part of the tests.
set -eu
cd "$(dirname "$0")/../.."
venv=build/engines-venv
wanted='onnxruntime==1.32.0 ncnn==1.0.20261020 openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6'

if [ "$(cat "$venv/wanted" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv "$venv"
    # shellcheck disable=SC2086 # a list of packages
    "$venv/bin/pip" install --quiet --disable-pip-version-check $wanted
    echo "$wanted" >"$venv/wanted"
fi
mkdir -p build/engines
"${CC:-gcc}" -std=c17 -D_GNU_SOURCE -Wall -Wextra -O2 -march=native -mprefer-vector-width=512 \
    -ffp-contract=fast -pthread -o build/engines/peak bench/engines/peak.c
