#!/bin/bash
# clickhouse.sh DIR   - installs (once) and starts the ClickHouse engine behind the test HTTP front on loopback; prints env lines; stop: kill $(cat DIR/chdb.pid)
set -eu
D=$(realpath -m "$1"); H=$(cd "$(dirname "$0")" && pwd); mkdir -p "$D"
[ -x "$D/venv/bin/python" ] || { python3 -m venv "$D/venv"; "$D/venv/bin/pip" install -q chdb-core==26.9.0 lz4 zstandard clickhouse-cityhash; }
P=$(python3 -c 'import socket;s=socket.socket();s.bind(("127.0.0.1",0));print(s.getsockname()[1])')
echo '{"default":"","gw":"password"}' >"$D/users.json"
setsid nohup "$D/venv/bin/python" "$H/chdb_http.py" --path "$D/ch" --port $P --users "$D/users.json" --faults >"$D/chdb.log" 2>&1 & echo $! >"$D/chdb.pid"
for i in $(seq 150); do grep -q READY "$D/chdb.log" && break; kill -0 "$(cat "$D/chdb.pid")"; sleep 0.1; done
grep -q READY "$D/chdb.log" || { tail -5 "$D/chdb.log" >&2; exit 1; }
echo "CLICKHOUSE_URL=http://127.0.0.1:$P"; echo "CLICKHOUSE_USER=gw"; echo "CLICKHOUSE_PASSWORD=password"
