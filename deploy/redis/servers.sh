# Queries and commands to the servers of the cluster. Sourced by handover.sh, ready.sh and rotate.sh, after
# passwords.sh.
#
# PAIRS lists the servers: `host:port,host:port host:port,host:port …`. The scripts identify a server by its
# `host:port`. The password of their login is in the environment. Every query has a deadline, because a frozen server
# never answers.

# Maximum time for one session with a server.
SESSION_S_MAX=60

prepare_servers() {
  [ -n "${PAIRS:-}" ] || bad_setting "PAIRS is required: host:port,host:port host:port,host:port …"
  [ -n "${PASSWORDS_FOLDER:-}" ] || bad_setting "PASSWORDS_FOLDER is required"
  prepare_client
  servers=
  for pair in $PAIRS; do
    case $pair in
      *,*,* | *[!0-9],* | *[!0-9]) bad_setting "PAIRS: $pair is not host:port,host:port" ;;
      *:*,*:*) servers="$servers ${pair%,*} ${pair#*,}" ;;
      *) bad_setting "PAIRS: $pair is not host:port,host:port" ;;
    esac
  done
  # shellcheck disable=SC2086 # splitting into words is intended
  duplicate=$(printf '%s\n' $servers | sort | uniq -d | sed -n 1p)
  [ -z "$duplicate" ] || bad_setting "PAIRS: $duplicate is listed twice"
}

prepare_client() {
  : "${TLS_FOLDER=}" "${CLI:=valkey-cli}"
  command -v "$CLI" > /dev/null || bad_setting "CLI: there is no $CLI"
  [ -z "$TLS_FOLDER" ] || [ -r "$TLS_FOLDER/ca.crt" ] || bad_setting "TLS_FOLDER: $TLS_FOLDER/ca.crt cannot be read"
}

# Valkey's client reads the first variable since version 9.0. Redis' client and older versions read the second.
log_in_with() {
  login=$1
  export VALKEYCLI_AUTH="$2" REDISCLI_AUTH="$2"
}

# Sends the commands on standard input to a server, one per line. Prints the replies in the same order, including
# errors.
query() {
  server=$1
  shift
  set -- -h "${server%:*}" -p "${server##*:}" --user "$login" "$@"
  [ -z "$TLS_FOLDER" ] || set -- --tls --cacert "$TLS_FOLDER/ca.crt" "$@"
  timeout "$SESSION_S_MAX" "$CLI" "$@" 2>&1 || echo "no answer within $SESSION_S_MAX s"
}

# Sends the commands on standard input to a server, and fails on the first reply other than OK.
send() {
  refused=$(query "$1" | grep -v -x -e OK -e '' | sed -n 1p)
  [ -z "$refused" ] || fail "$1: $refused"
}

answers() {
  answer=$(echo PING | query "$1" | sed -n 1p)
  case $answer in
    PONG) return 0 ;;
    *WRONGPASS* | *NOAUTH* | *NOPERM*) bad_setting "$1 does not let $login in: $answer" ;;
  esac
  why=$answer
  return 1
}
