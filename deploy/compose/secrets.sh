#!/bin/sh
# Makes the secrets of the sale in compose.yaml: random ones, each once, so they outlive a restart and are in no file of the
# repository. A folder a reader, so that whoever mounts one reads no other's:
#
#   redis/        a password a user of users.acl: servers, and the job that makes the cluster
#   node/         password
#   coordinator/  password; token, the bearer token of the admin API
#   exporter/     passwords.json: the same password for each server, as redis_exporter wants it
#   grafana/      password, of the user `admin`
#
# Environment: SECRETS_FOLDER (/secrets), SERVERS (host:port …, for exporter/passwords.json)

set -eu
umask 022
cd "${SECRETS_FOLDER:-/secrets}"
mkdir -p redis node coordinator exporter grafana

# A name that is there holds a whole secret: it is moved into its place.
once() {
  [ -s "$1" ] || { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$1.new" && mv "$1.new" "$1"; }
}

for user in node coordinator exporter replica admin; do once "redis/$user"; done
once coordinator/token
once grafana/password

cp redis/node node/password
cp redis/coordinator coordinator/password
# It looks up the address with the user in it; versions before 1.46, Debian's among them, without.
password=$(cat redis/exporter)
for server in $SERVERS; do
  printf '"redis://%s": "%s"\n' "exporter@$server" "$password" "$server" "$password"
done | sed '1s/^/{/; $!s/$/,/; $s/$/}/' > exporter/passwords.json
