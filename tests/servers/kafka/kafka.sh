#!/usr/bin/env bash
# A real Apache Kafka (KRaft) for tests, on loopback. Needs Java 17 or newer, Maven, openssl (for --tls), util-linux.
#   kafka.sh install DIR             the jars of pom.xml into DIR/lib, and a class-data archive, which halves each start
#   kafka.sh start DIR [options]     make (the first time), start what does not run, wait; prints and writes DIR/env (KAFKA_BROKERS=...)
#       --lib DIR0    use DIR0/lib, so that many DIRs share one install     --nodes N   brokers, 1 (default) or 3
#       --tls         listeners with SSL (client certificates wanted) and SASL_SSL (SCRAM-SHA-512, PLAIN) too, an authorizer:
#                     `gateway` and the client's certificate may do all, `outsider` and its certificate nothing
#       --set K=V     one more broker property, may be repeated
#   kafka.sh grant DIR TOPIC         let `outsider` write to TOPIC
#   kafka.sh kill DIR [NODE]         SIGKILL broker NODE (default: all); a later start brings it back with its data and port
#   kafka.sh stop DIR                stop all brokers of DIR by their recorded pids; the data stay
# install, start and stop may be called twice. Options but --lib count when DIR is made.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() { echo "kafka.sh: $*" >&2; exit 1; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

archive() { echo "$lib/broker.jsa"; }

install() {
  local want; want=$(sha256sum <"$here/pom.xml")
  [[ -f $lib/.from && $(<"$lib/.from") == "$want" ]] && return
  command -v mvn >/dev/null || die "no mvn in PATH"
  command -v java >/dev/null || die "no java (17 or newer) in PATH"
  rm -rf "$lib" "$dir/training"
  if ! mvn -q -B -ntp -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
         -DoutputDirectory="$lib" >"$dir/install.log" 2>&1; then
    tail -n 15 "$dir/install.log" >&2; die "maven could not fetch the jars; all of its output: $dir/install.log"
  fi
  compgen -G "$lib/kafka_2.13-*.jar" >/dev/null || die "maven ended well but brought no broker jar, see $dir/install.log"
  # One start and stop of a broker tells which classes the archive must hold. Without it a broker starts too, but slower.
  (
    dir=$dir/training; mkdir -p "$dir"; KAFKA_OPTS="-XX:ArchiveClassesAtExit=$(archive)"
    tls=yes; start >/dev/null; stop_all
  ) || rm -f "$(archive)"
  rm -rf "$dir/training"
  echo "$want" >"$lib/.from"
}

# The recorded pid of node $1, only if that process is still our broker.
alive() {
  local pid; pid=$(cat "$dir/node$1/pid" 2>/dev/null) || return 1
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$dir/node$1/server.properties" && echo "$pid"
}
# How many brokers node $1 says are in the cluster: a Metadata v0 request by hand, so no JVM has to start for each try.
brokers_seen() {
  local port hex; port=$(sed -n "s/^PORT_PLAINTEXT_$1=//p" "$dir/made")
  hex=$( { exec 8<>"/dev/tcp/127.0.0.1/$port" && printf '\0\0\0\x10\0\3\0\0\0\0\0\1\0\2ks\0\0\0\0' >&8 &&
           timeout 2 head -c 12 <&8 | od -An -tx1 | tr -d ' \n'; } 2>/dev/null ) || true
  [[ ${#hex} == 24 && ${hex:8:8} == 00000001 ]] && echo $((16#${hex:16:8})) || echo 0
}
free_port() {                      # below the ephemeral range, so that no outgoing connection takes it
  local i
  for i in {1..200}; do
    port=$((20000 + RANDOM % 12000))
    [[ " ${taken:-} " == *" $port "* ]] && continue
    (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { taken="${taken:-} $port"; return; }
  done
  die "found no free port between 20000 and 32000"
}

cert() {                           # cert NAME CA USAGE: NAME.pem and NAME.key, signed by CA
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -set_serial "0x$(openssl rand -hex 8)" -days 30 -out "$1.pem" \
    -extfile <(printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=%s\n' "$3")
  rm "$1.csr"
}
make_tls() (                       # the authority, a server, two clients, and a stranger whose authority nobody knows
  command -v openssl >/dev/null || die "--tls needs openssl"
  mkdir -p "$dir/tls"; cd "$dir/tls"; umask 077
  { for ca in ca stranger-ca; do
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=test $ca" -keyout $ca.key -out $ca.pem
    done
    cert server ca serverAuth; cert client ca clientAuth; cert outsider ca clientAuth; cert stranger stranger-ca clientAuth
  } >openssl.log 2>&1 || { cat openssl.log >&2; die "openssl failed"; }
  cat server.key server.pem ca.pem >server-keystore.pem
)

properties() {                     # properties N LISTENERS VOTERS
  local isr=$(( nodes > 1 ? 2 : 1 ))
  cat <<-P
	process.roles=broker,controller
	node.id=$1
	controller.quorum.voters=$3
	listeners=$2,CONTROLLER://127.0.0.1:${C[$1]}
	advertised.listeners=$2
	listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
	controller.listener.names=CONTROLLER
	inter.broker.listener.name=PLAINTEXT
	log.dirs=$dir/node$1/data
	num.partitions=3
	default.replication.factor=$nodes
	min.insync.replicas=$isr
	offsets.topic.replication.factor=$nodes
	transaction.state.log.replication.factor=$nodes
	transaction.state.log.min.isr=$isr
	# for tests: no silent topics from a typing error, quick groups, few internal partitions;
	# the short session is for restarts: after a SIGKILL a broker may not register again before its old session has ended
	auto.create.topics.enable=false
	group.initial.rebalance.delay.ms=0
	offsets.topic.num.partitions=5
	transaction.state.log.num.partitions=5
	transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
	broker.session.timeout.ms=3000
	broker.heartbeat.interval.ms=500
	log.cleaner.dedupe.buffer.size=8388608
	P
  [[ $tls == no ]] || cat <<-P
	ssl.keystore.type=PEM
	ssl.keystore.location=$dir/tls/server-keystore.pem
	ssl.truststore.type=PEM
	ssl.truststore.location=$dir/tls/ca.pem
	listener.name.ssl.ssl.client.auth=required
	listener.name.sasl_ssl.ssl.client.auth=none
	listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
	listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
	listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_gateway="$pass" user_outsider="$pass";
	authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
	super.users=User:ANONYMOUS;User:CN=client;User:gateway
	P
  [[ ${#extra[@]} == 0 ]] || printf '%s\n' "${extra[@]}"
}

make_cluster() {                   # write DIR/nodeN/server.properties and format; DIR/made comes last and marks it complete
  local n port voters='' brokers='' ssl='' sasl='' pass='' l
  rm -rf "$dir"/node* "$dir/tls" "$dir/made" "$dir/made.new" "$dir/env"
  local -a P C S A scram=()
  for ((n = 1; n <= nodes; n++)); do
    free_port; P[n]=$port; free_port; C[n]=$port
    if [[ $tls == yes ]]; then free_port; S[n]=$port; free_port; A[n]=$port; fi
    voters+=",$n@127.0.0.1:${C[n]}"; brokers+=",127.0.0.1:${P[n]}"; ssl+=",127.0.0.1:${S[n]:-}"; sasl+=",127.0.0.1:${A[n]:-}"
    echo "PORT_PLAINTEXT_$n=${P[n]}" >>"$dir/made.new"
  done
  local id; id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | tr -d '=')   # a KRaft cluster id: 16 bytes in base64
  if [[ $tls == yes ]]; then
    make_tls; pass=$(openssl rand -hex 12)
    scram=(--add-scram "SCRAM-SHA-512=[name=gateway,password=$pass]" --add-scram "SCRAM-SHA-512=[name=outsider,password=$pass]")
  fi
  for ((n = 1; n <= nodes; n++)); do
    mkdir -p "$dir/node$n"
    l="PLAINTEXT://127.0.0.1:${P[n]}"
    [[ $tls == no ]] || l+=",SSL://127.0.0.1:${S[n]},SASL_SSL://127.0.0.1:${A[n]}"
    properties "$n" "$l" "${voters#,}" >"$dir/node$n/server.properties"
    tool kafka.tools.StorageTool format -t "$id" -c "$dir/node$n/server.properties" "${scram[@]}" >"$dir/node$n/format.log" 2>&1 ||
      { tail -n 15 "$dir/node$n/format.log" >&2; die "formatting node $n failed"; }
  done
  { echo "KAFKA_BROKERS=${brokers#,}"
    [[ $tls == no ]] || printf '%s\n' "KAFKA_BROKERS_SSL=${ssl#,}" "KAFKA_BROKERS_SASL_SSL=${sasl#,}" "KAFKA_TLS=$dir/tls" "KAFKA_SASL_PASSWORD=$pass"
    echo "KAFKA_DIR=$dir"; echo "KAFKA_LIB=${lib%/lib}"
  } >"$dir/env"
  echo "MADE=nodes=$nodes tls=$tls" >>"$dir/made.new"; mv "$dir/made.new" "$dir/made"
}

shared_classes() { [[ -f $(archive) ]] && echo "-XX:SharedArchiveFile=$(archive)" || true; }
tool() {                           # a command of Kafka's own
  # shellcheck disable=SC2046  # one option or none
  java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -XX:TieredStopAtLevel=1 $(shared_classes) -cp "$lib/*" "$@"
}
spawn() {                          # start node $1 unless it runs
  alive "$1" >/dev/null && return
  [[ ! -f $dir/node$1/log ]] || mv "$dir/node$1/log" "$dir/node$1/log.before"
  # Three brokers, one of them starting, would starve what is tested on a small machine.
  local heap=512m nice=0; ((nodes == 1)) || { heap=320m; nice=10; }
  # shellcheck disable=SC2046,SC2086  # lists of options
  setsid nohup nice -n "$nice" java "-Xmx$heap" ${KAFKA_OPTS:-} $(shared_classes) -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError \
    -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.defaultLogLevel=info -Dorg.slf4j.simpleLogger.showDateTime=true \
    -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS -Dkafka.logs.dir="$dir/node$1" \
    -cp "$lib/*" kafka.Kafka "$dir/node$1/server.properties" </dev/null >"$dir/node$1/log" 2>&1 9>&- &
  echo $! >"$dir/node$1/pid"
  local i; for i in {1..100}; do alive "$1" >/dev/null && return; sleep 0.02; done   # until the forked shell has become java
  return 0
}
wait_ready() {                     # until each node knows all nodes; 3: a port was taken
  local n end=$((SECONDS + 60)) up
  while :; do
    up=0
    for ((n = 1; n <= nodes; n++)); do
      if ! alive "$n" >/dev/null; then
        grep -q 'Address already in use' "$dir/node$n/log" && return 3
        tail -n 20 "$dir/node$n/log" >&2; echo "kafka.sh: broker $n ended while starting; its log: $dir/node$n/log" >&2; return 1
      fi
      [[ $(brokers_seen "$n") == "$nodes" ]] && up=$((up + 1))
    done
    [[ $up == "$nodes" ]] && return 0
    ((SECONDS < end)) || { tail -n 20 "$dir"/node*/log >&2; echo "kafka.sh: not ready after 60 s ($up of $nodes brokers)" >&2; return 1; }
    sleep 0.1
  done
}
start() {
  [[ -d $lib ]] || die "no jars in $lib: run 'kafka.sh install' first, or give --lib"
  command -v java >/dev/null || die "no java (17 or newer) in PATH"
  local n rc new=no
  if [[ -f $dir/made ]]; then
    local was; was=$(sed -n 's/^MADE=//p' "$dir/made")
    [[ $given == no || $was == "nodes=$nodes tls=$tls" ]] || die "$dir was made with $was; use another DIR, or stop and remove it"
    nodes=${was#nodes=}; nodes=${nodes%% *}
  else new=yes; fi
  for _ in 1 2 3; do
    [[ $new == no ]] || { stop_all; make_cluster; }
    for ((n = 1; n <= nodes; n++)); do spawn "$n"; done
    rc=0; wait_ready || rc=$?
    [[ $rc == 0 ]] && { cat "$dir/env"; return; }
    stop_all
    [[ $new == no ]] || rm -f "$dir/made"         # a first start that failed leaves only its logs: the next one begins anew
    [[ $rc == 3 && $new == yes ]] || break
  done
  [[ $rc != 3 ]] || die "a port of $dir/node*/server.properties is taken by another program"
  exit 1
}
node_numbers() { local d; for d in "$dir"/node*/; do d=${d%/}; [[ -d $d ]] && echo "${d##*node}"; done; return 0; }
stop_all() {
  local n pid i left=() still
  for n in $(node_numbers); do pid=$(alive "$n") && { kill -TERM "$pid"; left+=("$n"); }; done
  for ((i = 0; i < 100; i++)); do
    still=(); for n in "${left[@]}"; do alive "$n" >/dev/null && still+=("$n"); done
    left=("${still[@]}"); [[ ${#left[@]} == 0 ]] && break; sleep 0.1
  done
  for n in "${left[@]}"; do pid=$(alive "$n") && { kill -KILL "$pid"; echo "kafka.sh: broker $n did not stop in 10 s, killed" >&2; }; done
  rm -f "$dir"/node*/pid
}

[[ $# -ge 2 ]] || usage
verb=$1; mkdir -p "$2"; dir=$(cd "$2" && pwd -P); shift 2
exec 9>"$dir/.lock"; flock -w 300 9 || die "another kafka.sh has held $dir for 300 s"
lib=$dir/lib nodes=1 tls=no given=no extra=()
[[ ! -f $dir/env ]] || lib=$(sed -n 's/^KAFKA_LIB=//p' "$dir/env")/lib
case $verb in
  install) install ;;
  start)
    while (($#)); do
      case $1 in
        --tls) tls=yes given=yes; shift; continue ;;
        --lib|--nodes|--set) [[ $# -ge 2 ]] || die "$1 needs a value" ;;
        *) die "unknown option $1" ;;
      esac
      case $1 in
        --lib) lib=$(cd "$2" 2>/dev/null && pwd -P)/lib || die "no folder $2" ;;
        --nodes) [[ $2 == [13] ]] || die "--nodes is 1 or 3"; nodes=$2 given=yes ;;
        --set) extra+=("$2") ;;
      esac
      shift 2
    done
    start ;;
  grant)
    brokers=$(sed -n 's/^KAFKA_BROKERS=//p' "$dir/env")
    tool org.apache.kafka.tools.AclCommand --bootstrap-server "$brokers" --add --producer --topic "$1" \
      --allow-principal User:outsider --allow-principal User:CN=outsider >/dev/null ;;
  kill)
    for n in ${1:-$(node_numbers)}; do pid=$(alive "$n") || die "broker $n does not run"; kill -KILL "$pid"; rm -f "$dir/node$n/pid"; done ;;
  stop) stop_all ;;
  *) usage ;;
esac
