#!/bin/bash
# promtool.sh DIR   Prints where promtool is: the system's, or one from Debian's package, unpacked into DIR. Installs nothing:
#                   the package would start a server.
set -eu
[ $# -eq 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
if command -v promtool; then
    exit 0
fi
dir=$(realpath -m "$1")/promtool
if [ ! -x "$dir/usr/bin/promtool" ]; then
    mkdir -p "$dir"
    cd "$dir"
    # An index that is older than the mirror names a package that is gone.
    apt-get download prometheus >&2 || { apt-get update -qq >&2 && apt-get download prometheus >&2; }
    dpkg -x prometheus_*.deb .
    rm -f prometheus_*.deb
fi
echo "$dir/usr/bin/promtool"
