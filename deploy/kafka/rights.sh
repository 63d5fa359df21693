#!/usr/bin/env bash
# Says what hubs may do: write to the platform's topics, and keep their own cursors. May run again at any time.
#   rights.sh --bootstrap-server HOST:PORT [--command-config FILE] [--hubs PRINCIPAL]
#       --hubs PRINCIPAL   User:* by default: whoever has a certificate of our authority; or User:hub-0042, for one hub
# Needs kafka-acls.sh of Apache Kafka 4 on the PATH or in KAFKA_BIN. A hub may read no topic, and write no person's clicks.
set -euo pipefail
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
server= hubs='User:*'
connect=()
while [ $# -gt 0 ]; do
    case $1 in
    --bootstrap-server) server=${2:-}; shift 2 || usage ;;
    --command-config) connect=(--command-config "${2:-}"); shift 2 || usage ;;
    --hubs) hubs=${2:-}; shift 2 || usage ;;
    *) usage ;;
    esac
done
[ -n "$server" ] || usage
[ -z "${KAFKA_BIN:-}" ] || PATH=$KAFKA_BIN:$PATH
command -v kafka-acls.sh >/dev/null || { echo "rights.sh: no kafka-acls.sh on the PATH; write KAFKA_BIN=/opt/kafka/bin" >&2; exit 2; }
connect+=(--bootstrap-server "$server")
allow() { kafka-acls.sh "${connect[@]}" --add --allow-principal "$hubs" "$@" >/dev/null; }

topics=()
for topic in biometric-events gateway-status gateway-gaps reconciliation coverage device-assignments; do
    topics+=(--topic "$topic")
done
# DescribeConfigs: a hub asks how large a record may be.
allow --operation Write --operation Describe --operation DescribeConfigs "${topics[@]}"
# For exactly_once: the cursor is a committed offset of the group biogate-GATEWAY on a topic that nobody writes to.
allow --operation Read --operation Describe --topic biogate-cursors
allow --operation Read --operation Describe --group biogate- --resource-pattern-type prefixed
allow --operation Write --operation Describe --transactional-id biogate- --resource-pattern-type prefixed
echo "rights.sh: $hubs may write to the platform's topics and keep cursors"
