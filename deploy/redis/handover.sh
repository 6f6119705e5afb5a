#!/bin/sh
# Hands over to the replica before this server is stopped: what a server's container runs first (`preStop`).
#
# A primary that just ends is missed for a second or two, until the others are sure of it. One that hands over waits, for
# some milliseconds, until its replica has all it has and leads; clients are then sent on.
#
# Environment: PASSWORDS_FOLDER (the file `admin`), TLS_FOLDER, PORT, ANNOUNCE_HOSTNAME as for start.sh, and CLI
# (valkey-cli).
#
# A server that is a replica, that serves nothing, or whose replica has not its data, has nothing to hand over. Whatever
# happens, this says one line and ends with exit code 0, soon: the server is going to be stopped in any case.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"

# All takes milliseconds; one that does not answer is no successor.
SESSION_S_MAX=3
HANDOVER_S_MAX=10
# A server gives a failover up after 5 s by itself, and can be asked once more then.
ASK_AGAIN_S=6

hand_over() {
  [ -n "${PASSWORDS_FOLDER:-}" ] || bad_setting "PASSWORDS_FOLDER is required"
  prepare_client
  here=127.0.0.1:${PORT:-6379}
  admin_password=$(password_of admin) || exit
  log_in_with "$admin_password"
  nodes=$(echo 'CLUSTER NODES' | ask "$here" | tr -d '\r')
  case $nodes in
    *myself,slave*) say "this server is a replica: there is nothing to hand over" && return ;;
    *myself,master*) ;;
    *) fail "this server does not tell: $(printf '%s' "$nodes" | sed -n 1p)" ;;
  esac
  printf '%s\n' "$nodes" | grep -q 'myself.*connected .*[0-9]$' ||
    { say "this server serves nothing: there is nothing to hand over" && return; }
  for successor in $(replicas "$nodes"); do
    in_step "$successor" || continue
    succeed "$successor"
    return
  done
  say "no replica has this server's data: nothing is handed over"
}

# The addresses of those who copy this server and are not known to be dead.
replicas() {
  printf '%s\n' "$1" | awk '
    $3 ~ /myself/ { us = $1 }
    { primary[NR] = $4; sub(/@.*/, "", $2); address[NR] = $2; flags[NR] = $3 }
    END { for (i = 1; i <= NR; i++) if (primary[i] == us && flags[i] !~ /fail|noaddr|handshake/) print address[i] }'
}

# Up to the last bytes, for which the failover itself waits.
in_step() {
  echo 'INFO replication' | ask "$1" | grep -q '^master_link_status:up'
}

succeed() {
  began=$(date +%s) asked_at=
  while :; do
    now=$(date +%s)
    [ $((now - began)) -lt "$HANDOVER_S_MAX" ] || fail "$1 does not lead after $HANDOVER_S_MAX s"
    if [ $((now - ${asked_at:-0})) -ge "$ASK_AGAIN_S" ]; then
      echo 'CLUSTER FAILOVER' | tell "$1" || exit
      asked_at=$now
    fi
    # This server knows it last: by then nobody finds it leading.
    case $(echo ROLE | ask "$here" | sed -n 1p) in slave*) break ;; esac
    sleep 0.1
  done
  say "$1 leads now"
}

# Errors are one line by themselves; that it ends well is all that is asked.
(hand_over) || exit 0
