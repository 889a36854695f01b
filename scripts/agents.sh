#!/bin/sh
# agents.sh [ARCH...] - static nas-agent programs for devices: build/agents/nas-agent-<arch>, arch one of aarch64, armv7,
# riscv64, x86_64 (default: all four). Needs the cross compilers of scripts/install_packages.sh and, the first time, apt
# (no root): it downloads musl-dev of the device's architecture into build/agents and unpacks it there; nothing is
# installed. Debian 12 has no riscv64, so for that one musl's source package is fetched and compiled.
#
# libc, in this order: Android's NDK for aarch64 and armv7 when one is found (ANDROID_NDK_HOME, ANDROID_NDK_ROOT,
# ANDROID_NDK, newest below $ANDROID_HOME/ndk); musl; static glibc of the cross compiler, said aloud, because it is
# larger. An architecture without a compiler is left out with a note; it is an error when it was named.
# AGENT_SIZE_MAX (bytes, 256000): a stripped agent above it is an error. AGENTS_OFFLINE=1: no apt.
set -eu
cd "$(dirname "$0")/.."
out=${BUILD:-build}/agents
size_max=${AGENT_SIZE_MAX:-256000}
mkdir -p "$out"
out=$(cd "$out" && pwd)
sources=$(ls core/*.c device-agent/*.c)
note() { echo "agents: $*" >&2; }

# ---- which names belong together ---------------------------------------------------------------------------------
debian_of() { case "$1" in aarch64) echo arm64 ;; armv7) echo armhf ;; riscv64) echo riscv64 ;; x86_64) echo amd64 ;; esac; }
tuple_of() { # of the cross compiler
    case "$1" in
    aarch64) echo aarch64-linux-gnu ;; armv7) echo arm-linux-gnueabihf ;; riscv64) echo riscv64-linux-gnu ;;
    x86_64) echo x86_64-linux-gnu ;;
    esac
}
gcc_of() {
    if [ "$(uname -m)" = "$1" ]; then command -v gcc || true; else command -v "$(tuple_of "$1")-gcc" || true; fi
}

# ---- Android's NDK --------------------------------------------------------------------------------------------------
ndk_root() {
    for dir in "${ANDROID_NDK_HOME:-}" "${ANDROID_NDK_ROOT:-}" "${ANDROID_NDK:-}"; do
        if [ -n "$dir" ] && [ -f "$dir/source.properties" ]; then echo "$dir"; return; fi
    done
    if [ -n "${ANDROID_HOME:-}" ]; then
        # shellcheck disable=SC2012 # folders named by version numbers
        for version in $(ls "$ANDROID_HOME/ndk" 2>/dev/null | sort -rV); do
            if [ -f "$ANDROID_HOME/ndk/$version/source.properties" ]; then
                echo "$ANDROID_HOME/ndk/$version"
                return
            fi
        done
    fi
}
ndk_clang_of() { # arch -> compiler, or nothing
    case "$1" in aarch64) name=aarch64-linux-android24-clang ;; armv7) name=armv7a-linux-androideabi24-clang ;; *) return 0 ;; esac
    root=$(ndk_root)
    clang=$root/toolchains/llvm/prebuilt/linux-x86_64/bin/$name
    if [ -n "$root" ] && [ -x "$clang" ]; then echo "$clang"; fi
}

# ---- musl -----------------------------------------------------------------------------------------------------------
# apt with its own lists and sources below build/, as another architecture: the system's apt is not touched.
private_apt() { # folder, architecture, arguments...
    dir=$1 architecture=$2
    shift 2
    apt-get -qq -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
        -o Dir::Etc::SourceList="$dir/sources" -o Dir::Etc::SourceParts=/dev/null -o Acquire::Languages=none \
        -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" -o APT::Sandbox::User="$(id -un)" "$@"
}
prepare_apt() { # folder, architecture, deb or deb-src
    # shellcheck disable=SC2016 # apt expands these
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk '$3 == "main" && $1 ~ /\/debian\/?$/ { print $1; exit }')
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -z "$uri" ] || [ -z "$codename" ]; then return 1; fi
    mkdir -p "$1/state/lists/partial" "$1/cache/archives/partial"
    : >"$1/status"
    if [ -f "$keyring" ]; then
        echo "$3 [signed-by=$keyring] $uri $codename main" >"$1/sources"
    else
        echo "$3 $uri $codename main" >"$1/sources"
    fi
    private_apt "$1" "$2" update
}
musl_package() { # arch, sysroot: unpacks Debian's musl-dev
    apt=$2/apt
    prepare_apt "$apt" "$(debian_of "$1")" deb && (cd "$2" && private_apt "$apt" "$(debian_of "$1")" download musl-dev) || return 1
    for deb in "$2"/musl-dev_*.deb; do dpkg-deb -x "$deb" "$2/unpacked" || return 1; done
    mv "$2"/unpacked/usr/lib/*-linux-musl* "$2/lib" && mv "$2"/unpacked/usr/include/*-linux-musl* "$2/include"
}
musl_source() { # arch, sysroot: compiles Debian's source package of musl
    apt=$2/apt
    prepare_apt "$apt" "$(dpkg --print-architecture)" deb-src || return 1
    (cd "$2" && private_apt "$apt" "$(dpkg --print-architecture)" source --download-only musl) || return 1
    mkdir "$2/source" && tar -xf "$2"/musl_*.orig.tar.?z -C "$2/source" --strip-components=1 || return 1
    tar -xf "$2"/musl_*.debian.tar.?z -C "$2/source" || return 1
    (
        cd "$2/source"
        if [ -f debian/patches/series ]; then
            while read -r patch; do
                case "$patch" in '' | '#'*) ;; *) patch -s -p1 <"debian/patches/$patch" || exit 1 ;; esac
            done <debian/patches/series
        fi
        ./configure --target="$1-linux-musl" --prefix=/ --disable-shared CC="$(gcc_of "$1")" AR="$(tuple_of "$1")-ar" \
            RANLIB="$(tuple_of "$1")-ranlib" >configure.log 2>&1 || exit 1
        make -s -j2 DESTDIR="$2" install-libs install-headers >make.log 2>&1
    )
}
# The C library's folder of an architecture; nothing when it cannot be had.
musl_of() {
    sysroot=$out/musl-$1
    if [ -f "$sysroot/ready" ]; then echo "$sysroot"; return; fi
    if [ -n "${AGENTS_OFFLINE:-}" ] || ! command -v apt-get >/dev/null; then return; fi
    rm -rf "$sysroot"
    mkdir -p "$sysroot"
    note "$1: fetching musl"
    if musl_package "$1" "$sysroot" >"$sysroot/log" 2>&1 || { rm -rf "$sysroot/apt" && musl_source "$1" "$sysroot" >>"$sysroot/log" 2>&1; }; then
        rm -rf "$sysroot/apt" "$sysroot/unpacked" "$sysroot/source" "$sysroot"/musl*
        touch "$sysroot/ready"
        echo "$sysroot"
    else
        note "$1: no musl: $(tail -1 "$sysroot/log")"
    fi
}

# ---- build ------------------------------------------------------------------------------------------------------------
flags='-std=c17 -D_POSIX_C_SOURCE=200809L -I. -Wall -Wextra -Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables
 -fno-ident -Wl,--gc-sections -Wl,-z,max-page-size=16384 -Wl,-z,noexecstack -static -pthread'
# shellcheck disable=SC2086 # lists of flags and files
build() { # arch, program
    clang=$(ndk_clang_of "$1")
    if [ -n "$clang" ]; then
        "$clang" $flags ${WERROR:-} -s -o "$2" $sources -lm || return 1
        echo "NDK $(sed -n 's/^Pkg.Revision *= *//p' "$(ndk_root)/source.properties")"
        return
    fi
    gcc=$(gcc_of "$1")
    musl=$(musl_of "$1")
    if [ -n "$musl" ]; then
        own=$("$gcc" -print-file-name=include)
        "$gcc" $flags ${WERROR:-} -no-pie -fno-pie -fno-stack-protector -U_FORTIFY_SOURCE -nostdinc -isystem "$musl/include" \
            -isystem "$own" -nostdlib -s -o "$2" \
            "$musl/lib/crt1.o" "$musl/lib/crti.o" $sources -L"$musl/lib" -lc -lgcc -lc "$musl/lib/crtn.o" || return 1
        echo "gcc $("$gcc" -dumpversion), musl"
    else
        "$gcc" $flags ${WERROR:-} -s -o "$2" $sources -lm || return 1
        echo "gcc $("$gcc" -dumpversion), static glibc (no musl to be had: larger)"
    fi
}

named=$*
failed=0
for arch in ${named:-aarch64 armv7 riscv64 x86_64}; do
    if [ -z "$(debian_of "$arch")" ]; then
        note "$arch: unknown; one of aarch64 armv7 riscv64 x86_64"
        exit 2
    fi
    program=$out/nas-agent-$arch
    if [ -f "$program" ] && [ -z "$(find core device-agent scripts/agents.sh -newer "$program" -name '*.[chds]*')" ]; then continue; fi
    if [ -z "$(gcc_of "$arch")" ] && [ -z "$(ndk_clang_of "$arch")" ]; then
        note "$arch: no $(tuple_of "$arch")-gcc (scripts/install_packages.sh installs it): left out"
        [ -z "$named" ] || failed=1
        continue
    fi
    if ! with=$(build "$arch" "$program.new"); then
        note "$arch: the build failed"
        failed=1
        continue
    fi
    size=$(wc -c <"$program.new")
    case "$with" in *glibc*) limit='' ;; *) limit=$size_max ;; esac
    if [ -n "$limit" ] && [ "$size" -gt "$limit" ]; then
        note "$arch: $size bytes stripped, limit $limit"
        failed=1
    fi
    mv "$program.new" "$program"
    echo "  LD    ${BUILD:-build}/agents/nas-agent-$arch ($with; $size bytes)"
done
exit "$failed"
