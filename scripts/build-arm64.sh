#!/usr/bin/env bash
# build-arm64.sh [ARGS of cargo build...]   Builds the aarch64 binary with Debian's toolchain, no containers:
# target/arm64/aarch64-unknown-linux-gnu/release/biogate. Installs the packages as root or where sudo asks nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# The distribution's Rust comes with the target's standard library; its OpenSSL and its D-Bus library are those on the hub.
packages=(rustc-web cargo-web libstd-rust-web-dev libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    libssl-dev:arm64 libdbus-1-dev:arm64 pkg-config qemu-user-static)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case $state in
    ii*) ;;
    *) missing+=("$package") ;;
    esac
done
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            echo "some system packages are missing; run this line, then make arm64 again:" >&2
            echo "  sudo dpkg --add-architecture arm64 && sudo apt-get update &&" \
                "sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo -n)
    fi
    echo "installing ${missing[*]}"
    "${as_root[@]}" dpkg --add-architecture arm64
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Debian's cargo and rustc, not rustup's: only they have this target's standard library.
export PATH=/usr/bin:/bin
export RUSTC=/usr/bin/rustc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
export PKG_CONFIG_ALLOW_CROSS=1
# The target's libraries and never this machine's.
export PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig

# A folder of its own: the two compilers are of different versions and would build everything anew at each change.
cargo build --locked --release --target aarch64-unknown-linux-gnu --target-dir target/arm64 "$@"

binary=target/arm64/aarch64-unknown-linux-gnu/release/biogate
if [ -e "$binary" ]; then
    ls -l "$binary"
fi
