#!/bin/sh
# Updates the passwords on every running server of the cluster from the password files. No server restarts, and no
# connection is dropped.
#
# Environment:
#   PAIRS             host:port,host:port host:port,host:port …   All servers of the cluster
#   PASSWORDS_FOLDER  one file per user (format: see passwords.sh)
#   TLS_FOLDER        contains ca.crt; without it connections are not encrypted
#   CLI               the client program (default valkey-cli; redis-cli works as well)
#   CONF_FOLDER       contains users.acl (default: the folder of this script)
#
# To replace a password without locking out any client:
#
#   1. Add the new password as the second line of the user's file and run this script: both passwords are valid.
#   2. Make it the first line, run this script, and restart the programs that log in with it (nodes, coordinators, the
#      exporter).
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
  password=$(password_of replica) || exit
  printf 'CONFIG SET masterauth %s\n' "$(quoted "$password")"
}

log_in() {
  passwords=$(passwords_of admin) || exit
  while IFS= read -r password; do
    log_in_with "$password"
    case $(echo PING | query "$1" | sed -n 1p) in
      PONG) return 0 ;;
      *WRONGPASS*) ;;
      *) break ;;
    esac
  done << END
$passwords
END
  answers "$1" || fail "$1: $why"
}

prepare_servers
: "${CONF_FOLDER:=$(dirname "$0")}"
commands=$(new_passwords)
for server in $servers; do
  log_in "$server"
  printf '%s\n' "$commands" | send "$server"
  say "$server has the passwords of $PASSWORDS_FOLDER"
done
