#!/bin/bash
# The Python environment of schemathesis, the client that tries the Query API by its description (analytics/tests/it/fuzz).
#   schemathesis.sh install DIR   makes DIR/schemathesis-venv once (some seconds, from PyPI)
set -eu
[ "${1:-}" = install ] && [ $# -eq 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
dir=$(realpath -m "$2")

# Tests start in several processes; one of them installs.
mkdir -p "$dir"
exec 9>"$dir/schemathesis-venv.lock"
flock 9
[ -e "$dir/schemathesis-venv/ready" ] && exit 0
python3 -m venv "$dir/schemathesis-venv"
"$dir/schemathesis-venv/bin/pip" install -q --disable-pip-version-check schemathesis==4.32.5
touch "$dir/schemathesis-venv/ready"
