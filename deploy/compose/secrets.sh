#!/bin/sh
# Creates the secrets of the sale in compose.yaml. They are random, are created once so that they survive a restart,
# and are in no file of the repository. Each reader has its own folder and can mount no other:
#
#   redis/        replica, the password of the servers; NAME.sha256, the hashes of all others
#   cluster/      password of `admin`: for the job that creates the cluster
#   node/         password
#   coordinator/  password; token, the bearer token of the admin API
#   ledger/       password; token, the bearer token of the orders API; database, the password for PostgreSQL; amqp, the
#                 password for RabbitMQ; webhook, the secret that signs deliveries
#   postgres/     database, the same
#   rabbitmq/     rabbitmq.conf, with the user `ledger` and its password
#   exporter/     password; passwords.json, the same for each server in the format of redis_exporter
#   grafana/      password, of the user `admin`
#
# Environment: SECRETS_FOLDER (/secrets), CONF_FOLDER (contains hashes.sh), SERVERS (host:port …, for
# exporter/passwords.json)

set -eu
umask 022
cd "${SECRETS_FOLDER:-/secrets}"
mkdir -p redis cluster node coordinator ledger postgres rabbitmq exporter grafana

# once FILE [PREFIX]. An existing file always holds a complete secret, because it is renamed into place.
once() {
  [ -s "$1" ] || {
    { printf %s "${2-}" && head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; } > "$1.new" && mv "$1.new" "$1"
  }
}

# Writes the hash of a user's password for the servers.
hashed() {
  sh "$CONF_FOLDER/hashes.sh" "$2" > "redis/$1.sha256"
}

once redis/replica
once cluster/password
once node/password
once coordinator/password
once coordinator/token
once ledger/password
once ledger/token
once ledger/database
once ledger/amqp
# Hexadecimal digits are valid base64.
once ledger/webhook whsec_
once exporter/password
once grafana/password

hashed admin cluster/password
hashed node node/password
hashed coordinator coordinator/password
hashed ledger ledger/password
hashed exporter exporter/password
[ -s postgres/database ] || { cp ledger/database postgres/database.new && mv postgres/database.new postgres/database; }
[ -s rabbitmq/rabbitmq.conf ] || {
  printf 'default_user = ledger\ndefault_pass = %s\n' "$(cat ledger/amqp)" > rabbitmq/rabbitmq.conf.new &&
    mv rabbitmq/rabbitmq.conf.new rabbitmq/rabbitmq.conf
}
# The exporter looks up the address with the user name. Versions before 1.46, including Debian's, look it up without.
password=$(cat exporter/password)
for server in $SERVERS; do
  printf '"redis://%s": "%s"\n' "exporter@$server" "$password" "$server" "$password"
done | sed '1s/^/{/; $!s/$/,/; $s/$/}/' > exporter/passwords.json
