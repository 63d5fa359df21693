#!/usr/bin/env bash
# run.sh [ARGS of check.py...]   Installs what is missing, builds the guest once and the gateway, and runs the gateway against
# the real bluetoothd in the guest (docs/testing.md). With --probe a small client of ours takes the gateway's place.
set -euo pipefail
cd "$(dirname "$0")/../.."

scripts/setup.sh bluez-vm

dir=$PWD/target/bluez-vm
requirements=tests/bluez_vm/requirements.txt
if ! cmp -s "$requirements" "$dir/venv/requirements.txt"; then
    rm -rf "$dir/venv"
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install -q -r "$requirements"
    cp "$requirements" "$dir/venv/"
fi
tests/bluez_vm/image.sh "$dir"

client=(--gateway target/debug/biogate)
for argument in "$@"; do
    if [ "$argument" = --probe ]; then
        client=()
    fi
done
if [ ${#client[@]} -gt 0 ]; then
    cargo build
fi
exec "$dir/venv/bin/python" -B tests/bluez_vm/check.py --image "$dir/image" "${client[@]}" "$@"
