#!/bin/sh
# Creates the secrets of the sale in compose.yaml. They are random, are created once so that they survive a restart,
# and are in no file of the repository. Each reader has its own folder and can mount no other:
#
#   redis/        one password per user of users.acl: for the servers, and the job that creates the cluster
#   node/         password
#   coordinator/  password; token, the bearer token of the admin API
#   exporter/     passwords.json: the same password for each server, in the format of redis_exporter
#   grafana/      password, of the user `admin`
#
# Environment: SECRETS_FOLDER (/secrets), SERVERS (host:port …, for exporter/passwords.json)

set -eu
umask 022
cd "${SECRETS_FOLDER:-/secrets}"
mkdir -p redis node coordinator exporter grafana

# An existing file always holds a complete secret, because it is renamed into place.
once() {
  [ -s "$1" ] || { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$1.new" && mv "$1.new" "$1"; }
}

for user in node coordinator exporter replica admin; do once "redis/$user"; done
once coordinator/token
once grafana/password

cp redis/node node/password
cp redis/coordinator coordinator/password
# The exporter looks up the address with the user name. Versions before 1.46, including Debian's, look it up without.
password=$(cat redis/exporter)
for server in $SERVERS; do
  printf '"redis://%s": "%s"\n' "exporter@$server" "$password" "$server" "$password"
done | sed '1s/^/{/; $!s/$/,/; $s/$/}/' > exporter/passwords.json
