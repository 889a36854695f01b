# shellcheck shell=sh
# find_mca.sh - read by the scripts of static cost: MCA, the newest llvm-mca, and CROSS, the prefix of the aarch64 compiler,
# unless the caller has set them. Ends the script when one is missing.
CROSS=${CROSS:-aarch64-linux-gnu-}
if [ -z "${MCA:-}" ]; then
    for version in '' 14 15 16 17 18 19 20 21 22; do # the newest one wins
        name="llvm-mca${version:+-$version}"
        ! command -v "$name" >/dev/null 2>&1 || MCA=$name
    done
fi
if [ -z "${MCA:-}" ] || ! command -v "${CROSS}gcc" >/dev/null 2>&1; then
    echo "error: needs llvm-mca and ${CROSS}gcc (Debian: apt-get install llvm-19 gcc-aarch64-linux-gnu)" >&2
    exit 1
fi
