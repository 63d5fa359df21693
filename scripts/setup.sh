#!/usr/bin/env bash
# setup.sh demo|test|bluez-vm   Installs the system packages that are missing on a Debian-like machine with git and Rust.
# As root, or where sudo asks nothing, it installs them; otherwise it prints the one line to run and exits 1.
set -euo pipefail

for_what=${1:-}
missing=()

# need PACKAGE COMMAND...   PACKAGE is missing when COMMAND fails.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

case $for_what in
demo | test | bluez-vm) ;;
*)
    echo "usage: scripts/setup.sh demo|test|bluez-vm" >&2
    exit 2
    ;;
esac

if ! command -v cargo >/dev/null; then
    echo "cargo is not on the PATH: install Rust first (https://rustup.rs), 1.95 or newer" >&2
    exit 1
fi

need gcc command -v cc
need libc6-dev test -e /usr/include/stdlib.h
need pkg-config command -v pkg-config
need libssl-dev test -e /usr/include/openssl/ssl.h
if [ "$for_what" = test ]; then
    # /usr/sbin is not on every user's PATH.
    need mosquitto test -x /usr/sbin/mosquitto
    # Debian's python3 comes without ensurepip, which a venv needs.
    need python3-venv python3 -c 'import ensurepip, venv'
    need util-linux command -v setpriv
    need util-linux command -v setsid
    # For the power cuts; /usr/sbin again.
    need util-linux command -v unshare
    need mount command -v mount
    need e2fsprogs test -x /usr/sbin/mkfs.ext4
    need systemd command -v systemd-analyze
    need procps command -v ps
    # A private bus for each test of Bluetooth, and the library that the gateway speaks D-Bus with.
    need dbus-daemon command -v dbus-daemon
    need libdbus-1-dev pkg-config --exists dbus-1
    need tzdata test -e /usr/share/zoneinfo/Europe/Berlin
    # What librdkafka is built with, and the Kafka broker of the tests.
    need make command -v make
    need g++ command -v c++
    need zlib1g-dev test -e /usr/include/zlib.h
    need default-jre-headless command -v java
    need maven command -v mvn
    need openssl command -v openssl
    # Reads deploy/compose.yaml; runs nothing.
    need docker-compose command -v docker-compose
    # deploy/compose/connect/apply.sh speaks to Kafka Connect by them.
    need curl command -v curl
    need jq command -v jq
fi
if [ "$for_what" = bluez-vm ]; then
    need qemu-system-x86 command -v qemu-system-x86_64
    need mmdebstrap command -v mmdebstrap
    need cpio command -v cpio
    need kmod test -x /usr/sbin/modprobe -o -x /sbin/modprobe
    need python3-venv python3 -c 'import ensurepip, venv'
    need util-linux command -v setpriv
    # To build the guest without being root, by subordinate ids.
    if [ "$(id -u)" -ne 0 ]; then
        need uidmap command -v newuidmap
    fi
fi

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (Debian's package names); install them with this system's package manager" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "some system packages are missing; run this line, then the same make command again:" >&2
        echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo -n)
fi
echo "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
