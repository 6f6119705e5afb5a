#!/bin/sh
# Starts one Redis (or Valkey) server of the cluster. This is the entry point of its container.
#
# It writes the settings that differ between servers, and the secrets, to RUN_FOLDER and then becomes the server:
#
#   users.acl    users and rights, with the hashes of the passwords
#   server.conf  redis.conf, tls.conf with TLS, then addresses, folders and the password for its primary
#
# Environment:
#   PASSWORDS_FOLDER   the password of this server, and the hashes of all others (format: see passwords.sh)
#   TLS_FOLDER         tls.crt, tls.key and ca.crt; without it connections are not encrypted
#   DATA_FOLDER        the data that must survive a restart: the append-only file and nodes.conf (default /data)
#   CONF_FOLDER        redis.conf, tls.conf and users.acl (default: the folder of this script)
#   RUN_FOLDER         a folder in memory, only for this server (default /run/flashsale)
#   PORT               the port for clients; the cluster bus uses this port + 10000 (default 6379)
#   ANNOUNCE_HOSTNAME  the name that other servers and clients use, and that is in its certificate
#   ANNOUNCE_IP        its address for other servers; default: the address of ANNOUNCE_HOSTNAME
#   SERVER             the server program (default valkey-server)
# Arguments are passed to the server.
#
# An invalid setting is reported in one line, with exit code 64. The script can be run again: it rewrites the same
# files and does not touch DATA_FOLDER. Passwords are in no command line, and only the server's user can read the
# files.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"

# DNS may learn a name shortly after its server starts.
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

# Prints users.acl with hashes in place of the placeholders. A server does not accept comments in this file.
users() {
  users=$(users_in "$CONF_FOLDER/users.acl") || exit
  hashes=$(for user in $users; do
    hashes=$(hashes_of "$user") || exit
    # shellcheck disable=SC2016 # the placeholder is literal
    printf '${%s_PASSWORD_SHA256} %s\n' "$(printf '%s' "$user" | tr '[:lower:]' '[:upper:]')" "$hashes"
  done) || exit
  printf '%s\n' "$hashes" | awk -v was_member="$(was_member && echo yes)" '
    NR == FNR { hashes[$1] = substr($0, length($1) + 2); next }
    /^#/ || /^$/ { next }
    !was_member { sub(/^user replica reset on/, "user replica reset off") }
    {
      for (name in hashes)
        while (name != "" && (at = index($0, name)))
          $0 = substr($0, 1, at - 1) hashes[name] substr($0, at + length(name))
      print
    }' - "$CONF_FOLDER/users.acl"
}

# Returns 0 when this server has been part of a cluster. A server that has not blocks replicas until the program that
# forms the cluster allows them, because a replica copies from an address. When a primary lost its disk, its replica
# would find an empty server at that address and copy it, and the only copy of the data would be gone before the replica
# is promoted.
was_member() {
  grep -q -s -e 'myself,slave' -e 'myself,master.* connected [0-9]' "$DATA_FOLDER/nodes.conf"
}

was_replica() {
  grep -q -s 'myself,slave' "$DATA_FOLDER/nodes.conf"
}

# The echo of some shells interprets backslashes.
line() {
  printf '%s\n' "$1"
}

settings() {
  line "include $(quoted "$CONF_FOLDER/redis.conf")"
  listening
  announced
  line "dir $(quoted "$DATA_FOLDER")"
  # A replica copies its primary before it can be promoted, so it may start with a file that a kill has truncated.
  ! was_replica || line "aof-load-truncated yes"
  line "aclfile $(quoted "$RUN_FOLDER/users.acl")"
  password=$(own_password) || exit
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

# Clients are redirected to names, because certificates contain names. Servers find each other by address. A primary
# lists its replicas by the address that they announce to it, and barriers look for the cluster's replicas under that
# address, so both announced addresses must be equal.
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
