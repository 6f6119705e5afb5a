#!/bin/sh
# Promotes this server's replica before the server is stopped. Runs as the `preStop` hook of its container.
#
# When a primary simply stops, its shards are unavailable for a second or two, until the other servers agree that it
# failed. In a handover the primary waits until its replica has all data and is promoted, which takes milliseconds.
# Purchases of the pair then wait for up to a second, because a server looks for its new primary once per second. None
# fails.
#
# Environment: PASSWORDS_FOLDER (the file `replica`), TLS_FOLDER, PORT and ANNOUNCE_HOSTNAME as for start.sh, and CLI
# (default valkey-cli).
#
# A replica, a server without slots, and a primary whose replica does not have its data have nothing to hand over. In
# every case the script prints one line and exits with 0 soon, because the server will be stopped anyway.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"

# Normally everything takes milliseconds. A replica that does not answer cannot take over.
SESSION_S_MAX=3
HANDOVER_S_MAX=10
# A server abandons a failover after 5 s. It can be requested again after that.
RETRY_AFTER_S=6

hand_over() {
  [ -n "${PASSWORDS_FOLDER:-}" ] || bad_setting "PASSWORDS_FOLDER is required"
  prepare_client
  here=127.0.0.1:${PORT:-6379}
  password=$(own_password) || exit
  log_in_with replica "$password"
  nodes=$(echo 'CLUSTER NODES' | query "$here" | tr -d '\r')
  case $nodes in
    *myself,slave*) say "this server is a replica: there is nothing to hand over" && return ;;
    *myself,master*) ;;
    *WRONGPASS*) say "this server has joined no cluster, or has another password: there is nothing to hand over" && return ;;
    *) fail "this server does not answer: $(printf '%s' "$nodes" | sed -n 1p)" ;;
  esac
  printf '%s\n' "$nodes" | grep -q 'myself.*connected .*[0-9]$' ||
    { say "this server serves no slots: there is nothing to hand over" && return; }
  for successor in $(replicas "$nodes"); do
    in_step "$successor" || continue
    fail_over_to "$successor"
    return
  done
  say "no replica has this server's data: nothing is handed over"
}

# Prints the addresses of the replicas of this server that are not known to have failed.
replicas() {
  printf '%s\n' "$1" | awk '
    $3 ~ /myself/ { us = $1 }
    { primary[NR] = $4; sub(/@.*/, "", $2); address[NR] = $2; flags[NR] = $3 }
    END { for (i = 1; i <= NR; i++) if (primary[i] == us && flags[i] !~ /fail|noaddr|handshake/) print address[i] }'
}

# Returns 0 when a replica is connected. The failover itself waits for the last bytes.
in_step() {
  echo 'INFO replication' | query "$1" | grep -q '^master_link_status:up'
}

fail_over_to() {
  began=$(date +%s) requested_at=
  while :; do
    now=$(date +%s)
    [ $((now - began)) -lt "$HANDOVER_S_MAX" ] || fail "$1 is not the primary after $HANDOVER_S_MAX s"
    if [ $((now - ${requested_at:-0})) -ge "$RETRY_AFTER_S" ]; then
      echo 'CLUSTER FAILOVER' | send "$1" || exit
      requested_at=$now
    fi
    # This server is the last to learn of the failover. Once it reports the role `slave`, no client finds it as a
    # primary.
    case $(echo ROLE | query "$here" | sed -n 1p) in slave*) break ;; esac
    sleep 0.1
  done
  say "$1 is the primary now"
}

# hand_over prints errors as one line itself. The exit code is always 0.
(hand_over) || exit 0
