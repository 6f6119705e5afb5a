#!/bin/sh
# Creates each secret once, and prints all of them as the Secrets that the pods mount:
#
#   secrets.sh FOLDER | kubectl apply --server-side -f -
#
# FOLDER/redis-passwords/  one file per user of users.acl: every line is a valid password. It is in no Secret
# FOLDER/redis-logins/     node, coordinator, ledger, exporter, admin: the one password that each logs in with
# FOLDER/redis-servers/    replica, the passwords of the servers; NAME.sha256, the hashes of the others' passwords
# FOLDER/redis-tls/        tls.crt, tls.key and ca.crt of the servers; and ca.key, which is in no Secret
# FOLDER/flashsale-admin/  token, the bearer token of the admin API
# FOLDER/flashsale-ledger/ token, the bearer token of the orders API
# FOLDER/flashsale-csrf/   secret, the key with which nodes sign tokens
#
# Existing files are kept, so a second run prints the same Secrets. A file that was changed by hand is printed with
# its new contents.

set -eu
umask 077
[ $# -eq 1 ] || { echo "usage: secrets.sh FOLDER" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

# An existing file always holds a complete secret, because it is renamed into place. It has no newline at its end,
# because one of the secrets becomes an environment variable.
once() {
  [ -s "$1" ] || { openssl rand -hex 24 | tr -d '\n' > "$1.new" && mv "$1.new" "$1"; }
}

# secret NAME FOLDER KEY…
secret() {
  name=$1 folder=$2
  shift 2
  for key; do
    set -- "$@" "--from-file=$folder/$key"
    shift
  done
  echo ---
  kubectl create secret generic "$name" --namespace flashsale --dry-run=client --output yaml "$@"
}

mkdir -p redis-passwords redis-logins redis-servers flashsale-admin flashsale-csrf flashsale-ledger
for user in node coordinator ledger exporter replica admin; do once "redis-passwords/$user"; done
for user in node coordinator ledger exporter admin; do
  [ -s "redis-logins/$user" ] || cp "redis-passwords/$user" "redis-logins/$user"
  sh "$here/../redis/hashes.sh" "redis-passwords/$user" > "redis-servers/$user.sha256"
done
cp redis-passwords/replica redis-servers/replica
once flashsale-admin/token
once flashsale-csrf/secret
once flashsale-ledger/token
[ -s redis-tls/tls.crt ] || sh "$here/../redis/certificates.sh" redis-tls '*.flashsale.svc.cluster.local' >&2

secret redis-logins redis-logins node coordinator ledger exporter admin
secret redis-servers redis-servers replica node.sha256 coordinator.sha256 ledger.sha256 exporter.sha256 admin.sha256
secret redis-tls redis-tls tls.crt tls.key ca.crt
secret redis-ca redis-tls ca.crt
secret flashsale-admin flashsale-admin token
secret flashsale-csrf flashsale-csrf secret
secret flashsale-ledger flashsale-ledger token
