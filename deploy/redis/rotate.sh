#!/bin/sh
# Has every server of the cluster take over what the password files say now: nothing restarts, no connection is dropped.
#
# Environment: as for cluster.sh, and CONF_FOLDER, with users.acl (where this script lies).
#
# How a password is replaced, with nobody shut out at any time:
#
#   1. put the new one on a second line of the user's file; run this: both are good now
#   2. make it the first line; run this, and restart who logs in with it (nodes, coordinators, the exporter)
#   3. take the old line away; run this: only the new one is good
#
# A server that starts later reads the same files (start.sh), so nothing has to be kept. Run twice it does the same twice;
# killed halfway, some servers have the new passwords and some the old ones: run it again. It logs in with whichever of
# admin's passwords a server takes.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"

# Who is connected stays so. ACL LOAD would hang up on everybody.
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
    case $(echo PING | ask "$1" | sed -n 1p) in
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
orders=$(new_passwords)
for server in $servers; do
  log_in "$server"
  printf '%s\n' "$orders" | tell "$server"
  say "$server has the passwords of $PASSWORDS_FOLDER"
done
