#!/usr/bin/env bash
# test.sh [ARGS of cargo test...]   Sets up, starts the real parts that the tests need, runs all tests, stops what it started.
# The exit code is that of the tests. With CI set nothing may be skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh test

servers=$PWD/target/test-servers
log=$servers/tests.log
mkdir -p "$servers"
kafka=$servers/kafka
engine=

# Stops what was started, by the ids it was started with.
stop() {
    [ ! -e "$kafka/shared/made" ] || tests/servers/kafka/kafka.sh stop "$kafka/shared" || true
    [ -n "$engine" ] || return 0
    kill "$engine" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$engine" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$engine" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "${CI:-}" ]; then
    export BIOGATE_TEST_REQUIRE_ALL=1
fi
export BIOGATE_TEST_SERVERS=$servers

# What an earlier run left in the engine's folder would be counted by this one.
rm -rf "$servers/ch" "$servers/chdb.pid"
no_engine=
if bash tests/servers/clickhouse.sh "$servers" >"$servers/clickhouse.env"; then
    engine=$(cat "$servers/chdb.pid")
    set -a
    # shellcheck source=/dev/null
    . "$servers/clickhouse.env"
    set +a
else
    engine=$(cat "$servers/chdb.pid" 2>/dev/null || true)
    if [ -n "${CI:-}" ]; then
        echo "the ClickHouse engine does not start, and CI may skip nothing" >&2
        exit 1
    fi
    no_engine="skipped: the ClickHouse engine does not start (see $servers/chdb.log)"
fi

# One broker for all tests; a test that kills, pauses or multiplies brokers has its own. What an earlier run left goes first.
no_kafka=
if [ -e "$kafka/shared/made" ]; then
    tests/servers/kafka/kafka.sh stop "$kafka/shared"
fi
rm -rf "$kafka/shared"
if tests/servers/kafka/kafka.sh install "$kafka" &&
    tests/servers/kafka/kafka.sh start "$kafka/shared" --lib "$kafka" --tls >"$servers/kafka.env"; then
    set -a
    # shellcheck source=/dev/null
    . "$servers/kafka.env"
    set +a
else
    if [ -n "${CI:-}" ]; then
        echo "the Kafka broker does not start, and CI may skip nothing" >&2
        exit 1
    fi
    no_kafka="skipped: the Kafka broker does not start (see $kafka/shared/node1/log)"
fi

# --show-output prints what passing tests said after the runner's own lines, so both stay readable.
# Both packages in one call: the gateway's library is built once, with all its features.
status=0
cargo test -p biogate -p biogate-analytics --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log" || status=${PIPESTATUS[0]}

# A program of its own, so that the tests do not compile FUSE; left out where only some tests are asked for.
if [ $# -eq 0 ]; then
    timeout 900 cargo run --quiet -p power-cut -- --cuts 24 2>&1 | tee -a "$log" || status=${PIPESTATUS[0]}
    # The same seed each time: what it shows is that nothing got worse. `make faults` draws others.
    timeout 1200 cargo test --quiet --features failpoints --test faults -- --kills 100 --seed 1000 --every-point 2>&1 |
        tee -a "$log" || status=${PIPESTATUS[0]}
fi

skipped=$( (
    [ -z "$no_engine" ] || echo "$no_engine"
    [ -z "$no_kafka" ] || echo "$no_kafka"
    grep -a '^skipped: ' "$log" || true
) | sed 's/^skipped: //' | sort | uniq -c | awk '{ n = $1; $1 = ""; printf "%s%s (%d)", (NR > 1 ? ";" : ""), $0, n }')
if [ -n "$skipped" ]; then
    echo "skipped:$skipped"
else
    echo "skipped: nothing"
fi
exit "$status"
