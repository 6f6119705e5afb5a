#!/bin/sh
# Whether this server holds what its pair holds: the readiness of its container. A replica that has still to copy from its
# primary does not, and while it is so nobody may stop that primary.
#
# Environment: PASSWORDS_FOLDER, TLS_FOLDER, PORT and CLI, as for start.sh and cluster.sh. Exit code 0: it does. 1: a line.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"

# The container's probe waits no longer than 5 s.
SESSION_S_MAX=4

: "${TLS_FOLDER=}" "${CLI:=valkey-cli}" "${PORT:=6379}"
own=127.0.0.1:$PORT
admin_password=$(password_of admin)
log_in_with "$admin_password"
facts=$(printf '%s\n' 'INFO persistence' 'INFO replication' | ask "$own" | tr -d '\r')
fact() {
  printf '%s\n' "$facts" | sed -n "s/^$1://p"
}
case $(fact loading),$(fact role),$(fact master_link_status) in
  0,master, | 0,slave,up) ;;
  ,*) fail "it does not answer: $(printf '%s\n' "$facts" | sed -n 1p)" ;;
  1,*) fail "it reads its file" ;;
  *) fail "it has not its primary's data yet" ;;
esac
