#!/bin/bash
# The Python environment of the fake org.bluez (fake_bluez/), which tests start themselves, each its own.
#   bluez.sh install DIR   makes DIR/bluez-venv once (a few seconds, from PyPI)
set -eu
[ "${1:-}" = install ] && [ $# -eq 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
dir=$(realpath -m "$2")

# Tests start in several processes; one of them installs.
mkdir -p "$dir"
exec 9>"$dir/bluez-venv.lock"
flock 9
[ -e "$dir/bluez-venv/ready" ] && exit 0
python3 -m venv "$dir/bluez-venv"
"$dir/bluez-venv/bin/pip" install -q --disable-pip-version-check dbus-fast==5.2.0
touch "$dir/bluez-venv/ready"
