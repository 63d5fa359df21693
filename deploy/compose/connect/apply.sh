#!/usr/bin/env bash
# Hands a connector's configuration to Kafka Connect and waits until all its tasks run. May run again: the same changes nothing.
#   apply.sh CONNECT_URL CONNECTOR.json [SETTING=VALUE...]   the settings take the place of those in the file
# Needs curl and jq.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
url=${1%/} file=$2
shift 2
name=$(jq -er .name "$file")
config=$(jq -e '.config + ($ARGS.positional | map(capture("^(?<key>[^=]+)=(?<value>.*)$")) | from_entries)' "$file" --args "$@")
# A worker that has just started answers 409 until its group is settled.
put() {
    curl -sS --max-time 60 --retry 20 --retry-delay 3 --retry-all-errors --fail-with-body \
        -X PUT -H 'Content-Type: application/json' -d "$config" "$url/connectors/$name/config"
}
answer=$(put) || { echo "apply.sh: $url refuses $name: $answer" >&2; exit 1; }
tasks=$(jq -er '."tasks.max" // 1' <<<"$config")
state=
for _ in $(seq 60); do
    # 404 until the workers have shared the tasks out.
    state=$(curl -fs --max-time 10 "$url/connectors/$name/status") || state='{}'
    running=$(jq '[.connector, .tasks[]?] | map(select(.state == "RUNNING")) | length' <<<"$state")
    # The connector itself and its tasks; fewer tasks than the maximum where there are fewer partitions.
    total=$(jq '[.connector, .tasks[]?] | length' <<<"$state")
    if [ "$running" -ge 2 ] && [ "$running" = "$total" ]; then
        echo "apply.sh: $name runs, $((running - 1)) of at most $tasks tasks"
        exit 0
    fi
    if jq -e '[.connector, .tasks[]?] | any(.state == "FAILED")' <<<"$state" >/dev/null; then break; fi
    sleep 2
done
echo "apply.sh: $name does not run:" >&2
jq -r '[.connector, .tasks[]?] | .[] | "  \(.id // "connector") \(.state) \(.trace // "" | split("\n")[0])"' <<<"$state" >&2
exit 1
