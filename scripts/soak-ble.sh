#!/usr/bin/env bash
# soak-ble.sh [MINUTES]   Twenty straps under the fake BlueZ with everything that goes wrong with them, an hour by default:
# lost links, silence, phantoms, restarts of bluetoothd, unplugged adapters, rotating addresses, SIGKILLs of the gateway.
# Fails unless each value that was emitted to a listener has arrived once, but for those in flight at a SIGKILL.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:-60}
case $minutes in
'' | *[!0-9]*)
    echo "usage: scripts/soak-ble.sh [MINUTES]" >&2
    exit 2
    ;;
esac

scripts/setup.sh test
cargo bench --bench bluetooth -- soak --seconds $((minutes * 60))
