#!/bin/sh
# Hands over to the replica what this server leads: what its container runs before it stops.
#
# A primary that is just gone is missed for as long as cluster-node-timeout and an election take. Asked for it, the two
# change places without that: the primary holds its clients back until its replica has everything, and follows it.
#
# Environment: PASSWORDS_FOLDER, TLS_FOLDER, PORT and CLI, as for start.sh and cluster.sh.
#   WAIT_LIMIT  longest wait, in seconds (20)
#
# Exit code 0: it leads nothing, or nothing any more. 1: nobody took over in time, one line; the server may be stopped all
# the same, and the cluster elects.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"

# A server gives an attempt up after 5 s; asked again before, it begins anew.
ATTEMPT_S=6
# Clients that were held back are told by this server where to go.
FAREWELL_S=1

: "${WAIT_LIMIT:=20}"
SESSION_S_MAX=4

# What follows from its own view of the cluster: `leads`, and the address of a `replica` that can be reached.
look_at_pair() {
  view=$(echo 'CLUSTER NODES' | ask "$own" | tr -d '\r')
  case $view in
    *myself*) ;;
    *) why="it does not answer: $(printf '%s\n' "$view" | sed -n 1p)" && return 1 ;;
  esac
  leads=$(printf '%s\n' "$view" | awk '$3 ~ /myself/ && $3 ~ /master/ && NF > 8 { print "yes" }')
  replica=$(printf '%s\n' "$view" | awk '
    { id[NR] = $1; at[NR] = $2; flags[NR] = $3; primary[NR] = $4; link[NR] = $8 }
    $3 ~ /myself/ { self = $1 }
    END {
      for (i = 1; i <= NR; i++)
        if (primary[i] == self && flags[i] ~ /slave/ && flags[i] !~ /fail|handshake|noaddr/ && link[i] == "connected") {
          sub(/@.*/, "", at[i])
          print at[i]
          exit
        }
    }')
}

# Content once the server leads nothing.
handed_over() {
  look_at_pair || return 1
  [ -n "$leads" ] || return 0
  why="it has no replica that can be reached"
  [ -n "$replica" ] || return 1
  now=$(date +%s)
  why="$replica does not lead yet"
  [ "$now" -ge "$ask_at" ] || return 1
  ask_at=$((now + ATTEMPT_S)) asked=$replica
  answer=$(echo 'CLUSTER FAILOVER' | ask "$replica" | sed -n 1p)
  [ "$answer" = OK ] || { why="$replica: $answer"; ask_at=0; }
  return 1
}

: "${TLS_FOLDER=}" "${CLI:=valkey-cli}" "${PORT:=6379}"
own=127.0.0.1:$PORT
admin_password=$(password_of admin)
log_in_with "$admin_password"
ask_at=0 asked=
wait_until "its replica to lead" handed_over
[ -z "$asked" ] || { say "$asked leads now"; sleep "$FAREWELL_S"; }
