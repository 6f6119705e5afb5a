#!/bin/sh
# Starts one Redis (or Valkey) server of the cluster: what its container runs.
#
# It writes what differs from server to server, and what is secret, into RUN_FOLDER, and becomes the server:
#
#   users.acl    who may do what, with the passwords' hashes in their places
#   server.conf  redis.conf, tls.conf with TLS, and then addresses, folders and the password for the own primary
#
# Environment:
#   PASSWORDS_FOLDER   one file a user: node, coordinator, exporter, replica, admin (passwords.sh says what is in them)
#   TLS_FOLDER         tls.crt, tls.key and ca.crt; without it nothing is encrypted
#   DATA_FOLDER        what must outlive the server: the append-only file, and nodes.conf (/data)
#   CONF_FOLDER        redis.conf, tls.conf and users.acl (where this script lies)
#   RUN_FOLDER         a folder in memory that is the server's alone (/run/flashsale)
#   PORT               for clients; the cluster's bus is 10000 above (6379)
#   ANNOUNCE_HOSTNAME  the name that the others and the clients know it by, and that its certificate carries
#   ANNOUNCE_IP        its address for the others; without it, what ANNOUNCE_HOSTNAME resolves to
#   SERVER             the program (valkey-server)
# Arguments go to the server.
#
# A bad setting is one line and exit code 64. Running it again is safe: it writes the same files anew and touches
# nothing in DATA_FOLDER. Passwords are in no command line, and the files are the user's alone.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"

# A name may be known a moment later than the server that it belongs to.
NAME_TRIES_MAX=30

prepare() {
  [ -n "${PASSWORDS_FOLDER:-}" ] || bad_setting "PASSWORDS_FOLDER is required"
  : "${TLS_FOLDER=}" "${DATA_FOLDER:=/data}" "${CONF_FOLDER:=$(dirname "$0")}" "${RUN_FOLDER:=/run/flashsale}"
  : "${PORT:=6379}" "${ANNOUNCE_HOSTNAME=}" "${ANNOUNCE_IP=}" "${SERVER:=valkey-server}"
  for file in redis.conf users.acl ${TLS_FOLDER:+tls.conf}; do
    [ -r "$CONF_FOLDER/$file" ] || bad_setting "CONF_FOLDER: $CONF_FOLDER/$file cannot be read"
  done
  for file in ${TLS_FOLDER:+tls.crt tls.key ca.crt}; do
    [ -r "$TLS_FOLDER/$file" ] || bad_setting "TLS_FOLDER: $TLS_FOLDER/$file cannot be read"
  done
  case $PORT in *[!0-9]* | '') bad_setting "PORT: $PORT is not a port" ;; esac
  command -v "$SERVER" > /dev/null || bad_setting "SERVER: there is no $SERVER"
  [ -w "$DATA_FOLDER" ] || bad_setting "DATA_FOLDER: $DATA_FOLDER cannot be written"
  umask 077
  mkdir -p "$RUN_FOLDER" || bad_setting "RUN_FOLDER: $RUN_FOLDER cannot be made"
}

# users.acl with hashes where it has placeholders. A server reads no comments there.
users() {
  users=$(users_in "$CONF_FOLDER/users.acl") || exit
  hashes=$(for user in $users; do
    hashes=$(hashes_of "$user") || exit
    # shellcheck disable=SC2016 # a placeholder is meant
    printf '${%s_PASSWORD_SHA256} %s\n' "$(printf '%s' "$user" | tr '[:lower:]' '[:upper:]')" "$hashes"
  done) || exit
  printf '%s\n' "$hashes" | awk -v taken_in="$(taken_in && echo yes)" '
    NR == FNR { hashes[$1] = substr($0, length($1) + 2); next }
    /^#/ || /^$/ { next }
    !taken_in { sub(/^user replica reset on/, "user replica reset off") }
    {
      for (name in hashes)
        while (name != "" && (at = index($0, name)))
          $0 = substr($0, 1, at - 1) hashes[name] substr($0, at + length(name))
      print
    }' - "$CONF_FOLDER/users.acl"
}

# Whether this server has had a part in a cluster. One that has not lets no replica in, until cluster.sh says so: replicas
# copy an address. Where a primary lost its disk, its replica would find an empty server there, copy that, and the only
# copy of the data would be gone before the replica is promoted.
taken_in() {
  grep -q -s -e 'myself,slave' -e 'myself,master.* connected [0-9]' "$DATA_FOLDER/nodes.conf"
}

was_replica() {
  grep -q -s 'myself,slave' "$DATA_FOLDER/nodes.conf"
}

# Some shells' echo takes backslashes for more than they are.
line() {
  printf '%s\n' "$1"
}

settings() {
  line "include $(quoted "$CONF_FOLDER/redis.conf")"
  listening
  announced
  line "dir $(quoted "$DATA_FOLDER")"
  # A replica copies its primary before it can lead: a write that a kill cut short does not keep it down.
  ! was_replica || line "aof-load-truncated yes"
  line "aclfile $(quoted "$RUN_FOLDER/users.acl")"
  password=$(password_of replica) || exit
  line "masteruser replica"
  line "masterauth $(quoted "$password")"
}

listening() {
  if [ -z "$TLS_FOLDER" ]; then
    line "port $PORT"
  else
    line "include $(quoted "$CONF_FOLDER/tls.conf")"
    line "port 0"
    line "tls-port $PORT"
    line "tls-cert-file $(quoted "$TLS_FOLDER/tls.crt")"
    line "tls-key-file $(quoted "$TLS_FOLDER/tls.key")"
    line "tls-ca-cert-file $(quoted "$TLS_FOLDER/ca.crt")"
  fi
}

# Clients are sent on to names, for certificates carry names; servers find each other by address. A primary lists its
# replicas by the address that they announce to it, and barriers look for the cluster's replicas there: it must be the same.
announced() {
  [ -n "$ANNOUNCE_IP" ] || [ -z "$ANNOUNCE_HOSTNAME" ] || ANNOUNCE_IP=$(address_of "$ANNOUNCE_HOSTNAME") || exit
  [ -z "$ANNOUNCE_IP" ] || line "cluster-announce-ip $ANNOUNCE_IP"
  [ -z "$ANNOUNCE_IP" ] || line "replica-announce-ip $ANNOUNCE_IP"
  [ -z "$ANNOUNCE_HOSTNAME" ] || line "cluster-announce-hostname $ANNOUNCE_HOSTNAME"
  [ -z "$ANNOUNCE_HOSTNAME" ] || line "cluster-preferred-endpoint-type hostname"
}

address_of() {
  tries=1
  until found=$(getent hosts "$1"); do
    [ "$tries" -lt "$NAME_TRIES_MAX" ] || fail "ANNOUNCE_HOSTNAME: $1 is not known after $tries s"
    tries=$((tries + 1))
    sleep 1
  done
  line "${found%% *}"
}

prepare
users > "$RUN_FOLDER/users.acl"
settings > "$RUN_FOLDER/server.conf"
exec "$SERVER" "$RUN_FOLDER/server.conf" "$@"
