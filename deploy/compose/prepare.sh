#!/usr/bin/env bash
# Makes what compose.yaml needs and the repository must not hold: passwords, an authority, certificates, the broker's file.
#   prepare.sh HOST          HOST is the name or address by which hubs reach this machine
#   prepare.sh --hub NAME    a certificate for one more hub: generated/hubs-certificates/NAME.pem and .key
# May run again: what is there stays, so no password changes; remove a file of generated/ to have it made anew.
# Needs openssl and sha256sum.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${BIOGATE_GENERATED:-$here/generated}
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
die() { echo "prepare.sh: $*" >&2; exit 1; }

# The folder is this user's alone. Inside, files can be read by all: containers run as other users than this one, and a
# secret is mounted with the rights of its file.
mkdir -p "$out"
chmod 700 "$out"
umask 022
days=825

# certificate NAME SUBJECT EXTENSIONS: NAME.key and NAME.pem, signed by the authority
certificate() {
    [ ! -e "$1.pem" ] || return 0
    mkdir -p "$(dirname "$1")"
    {
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" -keyout "$1.key" -out "$1.csr"
        openssl x509 -req -in "$1.csr" -CA "$out/ca.pem" -CAkey "$out/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
            -days $days -out "$1.new" -extfile <(printf '%b\n' "$3")
    } 2>"$out/openssl.log" || { cat "$out/openssl.log" >&2; die "openssl failed"; }
    rm -f "$1.csr" "$out/openssl.log"
    chmod 644 "$1.key"
    mv "$1.new" "$1.pem"
    echo "prepare.sh: made ${1#"$out"/}.pem"
}

case ${1:-} in
--hub)
    [[ ${2:-} =~ ^[A-Za-z0-9._-]+$ ]] || usage
    [ -e "$out/ca.key" ] || die "there is no authority yet: run prepare.sh HOST first"
    certificate "$out/hubs-certificates/$2" "$2" 'extendedKeyUsage=clientAuth'
    exit
    ;;
'' | -*) usage ;;
esac
host=$1
[[ $host =~ ^[A-Za-z0-9.:-]+$ ]] || die "$host is no name or address of a host"

if [ ! -e "$out/ca.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=biogate landing zone" \
        -keyout "$out/ca.key" -out "$out/ca.new" 2>/dev/null || die "openssl failed"
    chmod 600 "$out/ca.key"
    mv "$out/ca.new" "$out/ca.pem"
    echo "prepare.sh: made ca.pem; give it to the hubs as ca_file"
fi
if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then named="IP:$host"; else named="DNS:$host"; fi
certificate "$out/clickhouse" "$host" "subjectAltName=$named,DNS:clickhouse,DNS:localhost\nextendedKeyUsage=serverAuth"
certificate "$out/kafka" "$host" "subjectAltName=$named,DNS:kafka,DNS:localhost\nextendedKeyUsage=serverAuth"
cat "$out/kafka.key" "$out/kafka.pem" "$out/ca.pem" >"$out/kafka-keystore.pem"

for secret in clickhouse-{admin,reader,sink,writer} metabase-{admin,database} grafana-admin hubs-token; do
    [ -s "$out/$secret" ] || { openssl rand -hex 24 | tr -d '\n' >"$out/$secret"; echo "prepare.sh: made $secret"; }
done
# The entries that `biogate-analytics token new` prints are added to it.
[ -e "$out/api-tokens.toml" ] || : >"$out/api-tokens.toml"

{
    echo '<clickhouse><users>'
    for user in admin reader sink writer; do
        hash=$(sha256sum <"$out/clickhouse-$user" | cut -d' ' -f1)
        echo "    <$user><password_sha256_hex>$hash</password_sha256_hex></$user>"
    done
    echo '</users></clickhouse>'
} >"$out/clickhouse-passwords.xml"

mkdir -p "$out/kafka" "$out/hubs"
address=$host
[[ $host != *:* ]] || address="[$host]"
sed "s/@HOST@/$address/" "$here/kafka/server.properties" >"$out/kafka/server.properties"
echo "prepare.sh: $out is ready for $host"
