#!/bin/bash
# The ClickHouse engine behind a test HTTP front (chdb_http.py), on a free loopback port.
#   clickhouse.sh install DIR   makes DIR/venv once (about a minute, from PyPI)
#   clickhouse.sh start DIR     installs where needed, starts, and prints CLICKHOUSE_URL, _USER and _PASSWORD as lines of env
#   clickhouse.sh stop DIR      ends the process that start began, by its id
#   clickhouse.sh DIR           the same as start
set -eu
here=$(cd "$(dirname "$0")" && pwd)
case "${1:-}" in
install | start | stop) verb=$1; shift ;;
*) verb=start ;;
esac
[ $# -eq 1 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
dir=$(realpath -m "$1")

install() {
    [ -e "$dir/venv/ready" ] && return
    mkdir -p "$dir"
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install -q chdb-core==26.9.0 lz4 zstandard clickhouse-cityhash
    touch "$dir/venv/ready"
}

start() {
    install
    echo '{"default":"","gw":"password"}' >"$dir/users.json"
    : >"$dir/chdb.log"
    setsid nohup "$dir/venv/bin/python" "$here/chdb_http.py" --path "$dir/ch" --port 0 --users "$dir/users.json" \
        --faults >"$dir/chdb.log" 2>&1 &
    pid=$!
    echo "$pid" >"$dir/chdb.pid"
    for _ in $(seq 300); do
        grep -q READY "$dir/chdb.log" && break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    port=$(sed -n 's/^READY \([0-9]*\).*/\1/p' "$dir/chdb.log")
    [ -n "$port" ] || { echo "the ClickHouse engine did not start:" >&2; tail -5 "$dir/chdb.log" >&2; exit 1; }
    echo "CLICKHOUSE_URL=http://127.0.0.1:$port"
    echo "CLICKHOUSE_USER=gw"
    echo "CLICKHOUSE_PASSWORD=password"
}

stop() {
    [ -e "$dir/chdb.pid" ] || return 0
    kill "$(cat "$dir/chdb.pid")" 2>/dev/null || true
    rm -f "$dir/chdb.pid"
}

"$verb"
