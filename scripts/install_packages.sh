#!/bin/sh
# install_packages.sh - installs the Debian packages this project needs and says why each is needed.
# Does nothing when all are there. Root, or sudo.
set -eu

packages='
gcc:the C compiler (also compiles every candidate network)
g++:the C++ compiler (TOML shim)
libc6-dev:C library headers
make:the build
pkg-config:finds the libraries
libtomlplusplus-dev:reads the TOML configs
libsqlite3-dev:the study database
libgsl-dev:statistics and the latency predictor
libpng-dev:reads PNG images
libjpeg62-turbo-dev:reads JPEG images
libcurl4-openssl-dev:talks to device agents
libjansson-dev:reads JSON
libprotobuf-c-dev:writes ONNX
protobuf-c-compiler:generates the ONNX writer
libonnx-dev:the ONNX schema
libcriterion-dev:the test framework
gcc-aarch64-linux-gnu:compiles networks for 64-bit Arm
libc6-dev-arm64-cross:its C library
gcc-arm-linux-gnueabihf:compiles networks for 32-bit Arm
libc6-dev-armhf-cross:its C library
gcc-riscv64-linux-gnu:compiles networks for RISC-V
libc6-dev-riscv64-cross:its C library
qemu-user:runs what was compiled for them in the tests
'

missing=''
while IFS=: read -r name why; do
    [ -n "$name" ] || continue
    if ! dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed'; then
        printf 'needs %-24s %s\n' "$name" "$why"
        missing="$missing $name"
    fi
done <<LIST
$packages
LIST

[ -n "$missing" ] || exit 0

sudo=''
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "error: run this as root, or install sudo; or install by hand:" >&2
        echo "  apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    sudo='sudo'
fi
echo "installing:$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
