#!/usr/bin/env bash
# Kafka Connect for tests, in the broker's version. Needs Java 17 or newer and Maven.
#   connect.sh install DIR   the jars of connect-pom.xml into DIR/connect-lib; may be called twice
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() { echo "connect.sh: $*" >&2; exit 1; }
[[ $# == 2 && $1 == install ]] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$2"
dir=$(cd "$2" && pwd -P)
exec 9>"$dir/.connect-lock"
flock -w 300 9 || die "another connect.sh has held $dir for 300 s"
want=$(cat "$here/pom.xml" "$here/connect-pom.xml" | sha256sum)
lib=$dir/connect-lib
[[ -f $lib/.from && $(<"$lib/.from") == "$want" ]] && exit
command -v mvn >/dev/null || die "no mvn in PATH"
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
rm -rf "$lib"
if ! mvn -q -B -ntp -f "$here/connect-pom.xml" "-Dkafka.version=$version" dependency:copy-dependencies \
       -DincludeScope=runtime -DoutputDirectory="$lib" >"$dir/connect-install.log" 2>&1; then
  tail -n 15 "$dir/connect-install.log" >&2
  die "maven could not fetch the jars; all of its output: $dir/connect-install.log"
fi
compgen -G "$lib/connect-runtime-*.jar" >/dev/null || die "maven ended well but brought no connect-runtime, see $dir/connect-install.log"
echo "$want" >"$lib/.from"
