#!/bin/sh
# Updates the passwords on every running server of the cluster from the password files of a server, and lets each server
# read its certificate, key and CA again. No server restarts, and no connection is dropped. The passwords of `admin` are
# read from standard input, one per line, because no server has them:
#
#   rotate.sh < FILE
#
# Environment:
#   PAIRS             host:port,host:port host:port,host:port …   All servers of the cluster
#   PASSWORDS_FOLDER  the files of a server (format: see passwords.sh)
#   TLS_FOLDER        contains ca.crt; without it connections are not encrypted
#   CLI               the client program (default valkey-cli; redis-cli works as well)
#   CONF_FOLDER       contains users.acl (default: the folder of this script)
#
# To replace a password without locking out any client:
#
#   1. Add the new password, or its hash, as the second line of the user's file and run this script: both passwords are
#      valid.
#   2. Restart the programs that log in as the user (nodes, coordinators, ledgers, the exporter) with the new password. Of
#      `replica`, make it the first line and run this script.
#   3. Remove the old line and run this script: only the new password is valid.
#
# A server that starts later reads the same files (start.sh), so the change is permanent. The script can be repeated.
# When it was killed, some servers have the new passwords and some the old ones: run it again. It logs in with any of
# admin's passwords that a server accepts.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"

# ACL SETUSER keeps existing connections. ACL LOAD would close all of them.
new_passwords() {
  for user in $(users_in "$CONF_FOLDER/users.acl"); do
    hashes=$(hashes_of "$user") || exit
    printf 'ACL SETUSER %s resetpass #%s\n' "$user" "$hashes"
  done
  password=$(own_password) || exit
  printf 'CONFIG SET masterauth %s\n' "$(quoted "$password")"
}

# Prints the command with which a server reads its TLS files again. The setting keeps its value; key and certificate
# change together.
new_certificate() {
  printf 'CONFIG SET'
  for setting in tls-cert-file tls-key-file tls-ca-cert-file; do
    path=$(echo "CONFIG GET $setting" | query "$1" | tr -d '\r' | sed -n 2p)
    printf ' %s %s' "$setting" "$(quoted "$path")"
  done
  echo
}

log_in() {
  while IFS= read -r password; do
    log_in_with admin "$password"
    case $(echo PING | query "$1" | sed -n 1p) in
      PONG) return 0 ;;
      *WRONGPASS*) ;;
      *) break ;;
    esac
  done << END
$admin_passwords
END
  answers "$1" || fail "$1: $why"
}

prepare_servers
: "${CONF_FOLDER:=$(dirname "$0")}"
[ ! -t 0 ] || bad_setting "the passwords of admin are read from standard input: rotate.sh < FILE"
admin_passwords=$(grep .) || bad_setting "standard input has no password of admin"
commands=$(new_passwords)
for server in $servers; do
  log_in "$server"
  printf '%s\n' "$commands" | send "$server"
  [ -z "$TLS_FOLDER" ] || new_certificate "$server" | send "$server"
  say "$server has the passwords of $PASSWORDS_FOLDER${TLS_FOLDER:+, and has read its certificate}"
done
