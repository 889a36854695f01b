#!/bin/sh
# install_packages.sh - installs the Debian packages this project needs and says why each is needed.
# Does nothing when all are there. Root, or sudo. The second list is installed where apt can: without them the tests of
# other architectures skip and say so.
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
zlib1g-dev:reads gzip data sets and tables of latencies
libopenblas-serial-dev:matrix products of least-squares repair
liblapacke-dev:its Cholesky solver
libcurl4-openssl-dev:talks to device agents
libjansson-dev:reads JSON
libprotobuf-c-dev:writes ONNX
protobuf-c-compiler:generates the ONNX writer
libonnx-dev:the ONNX schema
libcriterion-dev:the test framework
'

optional='
gcc-aarch64-linux-gnu:compiles networks for 64-bit Arm
libc6-dev-arm64-cross:its C library
gcc-arm-linux-gnueabihf:compiles networks for 32-bit Arm
libc6-dev-armhf-cross:its C library
gcc-riscv64-linux-gnu:compiles networks for RISC-V
libc6-dev-riscv64-cross:its C library
clang-16:compiles networks for RISC-V with vectors
patch:builds the C library of the riscv64 agent from its source package
xz-utils:unpacks it
qemu-user:runs what was compiled for them in the tests, and the programs of fake phones
adb:reaches phones, fake ones in the tests
python3:plays the phones in the tests
'

# Names of the lines "name:why" of $1 that are not installed; the reasons go to stderr.
missing_of() {
    while IFS=: read -r name why; do
        [ -n "$name" ] || continue
        if ! dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed'; then
            printf 'needs %-24s %s\n' "$name" "$why" >&2
            printf '%s ' "$name"
        fi
    done <<LIST
$1
LIST
}

missing=$(missing_of "$packages")
wanted=$(missing_of "$optional")
[ -n "$missing$wanted" ] || exit 0

sudo=''
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null 2>&1; then
        sudo='sudo'
    elif [ -n "$missing" ]; then
        echo "error: run this as root, or install sudo; or install by hand:" >&2
        echo "  apt-get install --no-install-recommends $missing$wanted" >&2
        exit 1
    else
        echo "note: not root and no sudo, so these stay away and their tests skip: $wanted" >&2
        exit 0
    fi
fi

install() {
    echo "installing: $*"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

if [ -n "$missing" ]; then
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    install $missing
else
    $sudo apt-get update -qq || echo "note: apt-get update failed, trying with what it knows" >&2
fi
for name in $wanted; do
    # One at a time: some are not made for every architecture and release.
    if ! apt-cache show --no-all-versions "$name" >/dev/null 2>&1; then
        echo "note: apt has no $name here: tests that need it skip" >&2
    elif ! install "$name"; then
        echo "note: $name cannot be installed: tests that need it skip" >&2
    fi
done
