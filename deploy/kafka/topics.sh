#!/usr/bin/env bash
# Makes the platform's topics (topics.conf) where they are missing and mends their settings. May run again at any time.
#   topics.sh --bootstrap-server HOST:PORT [--command-config FILE] [--replication N] [--check]
#       --command-config FILE   TLS and SASL settings for Kafka's own tools (client.properties)
#       --replication N         replicas of a new topic, 1 (default) or 3; with 3 also min.insync.replicas=2
#       --check                 change nothing; exit code 1 and a line for each thing that is missing or different
# Needs kafka-topics.sh and kafka-configs.sh of Apache Kafka 4 on the PATH or in KAFKA_BIN (/opt/kafka/bin in its image).
# What it does not mend, but name: another number of partitions or replicas. Keys would move to other partitions and lose
# their order; replicas are moved with kafka-reassign-partitions.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
server= replication=1 check=
connect=()
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --bootstrap-server) server=${2:-}; shift 2 || usage ;;
    --command-config) connect=(--command-config "${2:-}"); shift 2 || usage ;;
    --replication) replication=${2:-}; shift 2 || usage ;;
    --check) check=yes; shift ;;
    *) usage ;;
    esac
done
[ -n "$server" ] && [[ $replication =~ ^[0-9]+$ ]] || usage
[ -z "${KAFKA_BIN:-}" ] || PATH=$KAFKA_BIN:$PATH
command -v kafka-topics.sh >/dev/null || { echo "topics.sh: no kafka-topics.sh on the PATH; write KAFKA_BIN=/opt/kafka/bin" >&2; exit 2; }
connect+=(--bootstrap-server "$server")

# name partitions replicas settings, one topic a line
there=$(kafka-topics.sh "${connect[@]}" --describe | sed -n 's/^Topic: \([^[:space:]]*\).*PartitionCount: \([0-9]*\).*ReplicationFactor: \([0-9]*\).*Configs: *\(.*\)$/\1 \2 \3 \4/p')
wrong=0
differs() { echo "topics.sh: $*"; wrong=1; }

while read -r name partitions settings; do
    case $name in '' | '#'*) continue ;; esac
    [ "$replication" -lt 3 ] || settings="${settings:+$settings }min.insync.replicas=2"
    found=$(awk -v name="$name" '$1 == name' <<<"$there")
    if [ -z "$found" ]; then
        if [ -n "$check" ]; then
            differs "$name is missing"
            continue
        fi
        configs=()
        for setting in $settings; do configs+=(--config "$setting"); done
        kafka-topics.sh "${connect[@]}" --create --if-not-exists --topic "$name" --partitions "$partitions" \
            --replication-factor "$replication" "${configs[@]}" </dev/null >/dev/null
        echo "topics.sh: made $name, $partitions partitions"
        continue
    fi
    read -r _ has_partitions has_replicas has <<<"$found"
    [ "$has_partitions" = "$partitions" ] || differs "$name has $has_partitions partitions, and not $partitions: left as it is"
    [ "$has_replicas" -ge "$replication" ] || differs "$name has $has_replicas replicas, and not $replication: left as it is"
    for setting in $settings; do
        # A list as "compact,delete" holds the comma that also parts the settings.
        [[ ",$has," == *",$setting,"* ]] && continue
        if [ -n "$check" ]; then
            differs "$name lacks $setting"
            continue
        fi
        kafka-configs.sh "${connect[@]}" --alter --entity-type topics --entity-name "$name" \
            --add-config "${setting%%=*}=[${setting#*=}]" </dev/null >/dev/null
        echo "topics.sh: set $setting of $name"
    done
done <"$here/topics.conf"
exit "$wrong"
