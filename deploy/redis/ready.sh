#!/bin/sh
# Readiness probe of a server's container: the server has all data of its pair. A replica that is still copying is not
# ready, and its primary must not be stopped in the meantime. The same is true for a server that has joined no cluster:
# when it has lost its disk, its partner has the only copy of the data.
#
# Environment: PASSWORDS_FOLDER, TLS_FOLDER, PORT and CLI, as for start.sh and handover.sh. Exit codes: 0 when ready, 1
# with one line when not.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"

# The container's probe times out after 5 s.
SESSION_S_MAX=4

: "${TLS_FOLDER=}" "${CLI:=valkey-cli}" "${PORT:=6379}"
own=127.0.0.1:$PORT
password=$(own_password)
log_in_with replica "$password"
facts=$(printf '%s\n' 'INFO persistence' 'INFO replication' | query "$own" | tr -d '\r')
case $facts in
  # start.sh disables the user until the cluster is formed.
  *WRONGPASS*) fail "it has joined no cluster, or has another password" ;;
esac
fact() {
  printf '%s\n' "$facts" | sed -n "s/^$1://p"
}
case $(fact loading),$(fact role),$(fact master_link_status) in
  0,master, | 0,slave,up) ;;
  ,*) fail "it does not answer: $(printf '%s\n' "$facts" | sed -n 1p)" ;;
  1,*) fail "it is loading its data" ;;
  *) fail "it does not have its primary's data yet" ;;
esac
