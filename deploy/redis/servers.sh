# How the servers of the cluster are asked and told. Sourced by cluster.sh, handover.sh, ready.sh and rotate.sh, after passwords.sh.
#
# PAIRS names them, `host:port,host:port host:port,host:port …`; a server is called `host:port` throughout. We are the user
# `admin`; the password goes through the environment. Whatever is asked has a deadline: a frozen server answers nothing.

# Longest time for one session with a server; the longest, with some hundred slots that move, takes seconds.
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
  # shellcheck disable=SC2086 # words are meant
  twice=$(printf '%s\n' $servers | sort | uniq -d | sed -n 1p)
  [ -z "$twice" ] || bad_setting "PAIRS: $twice stands there twice"
}

prepare_client() {
  : "${TLS_FOLDER=}" "${CLI:=valkey-cli}"
  command -v "$CLI" > /dev/null || bad_setting "CLI: there is no $CLI"
  [ -z "$TLS_FOLDER" ] || [ -r "$TLS_FOLDER/ca.crt" ] || bad_setting "TLS_FOLDER: $TLS_FOLDER/ca.crt cannot be read"
}

# Valkey's client knows the first name from 9.0 on, Redis' and older ones the second.
log_in_with() {
  export VALKEYCLI_AUTH="$1" REDISCLI_AUTH="$1"
}

# Asks a server what is on standard input, a command a line; the answers come in that order, errors among them.
ask() {
  server=$1
  shift
  set -- -h "${server%:*}" -p "${server##*:}" --user admin "$@"
  [ -z "$TLS_FOLDER" ] || set -- --tls --cacert "$TLS_FOLDER/ca.crt" "$@"
  timeout "$SESSION_S_MAX" "$CLI" "$@" 2>&1 || echo "no answer within $SESSION_S_MAX s"
}

# Tells a server what is on standard input; anything but an OK to each command ends it all.
tell() {
  wrong=$(ask "$1" | grep -v -x -e OK -e '' | sed -n 1p)
  [ -z "$wrong" ] || fail "$1: $wrong"
}

# Waits until every server answers, and says once in a while for whom.
wait_for_servers() {
  for server in $servers; do
    wait_until "$server to answer" answers "$server"
  done
}

answers() {
  answer=$(echo PING | ask "$1" | sed -n 1p)
  case $answer in
    PONG) return 0 ;;
    *WRONGPASS* | *NOAUTH* | *NOPERM*) bad_setting "$1 does not let admin in: $answer" ;;
  esac
  why=$answer
  return 1
}

# wait_until WHAT CONDITION…: tries until WAIT_LIMIT seconds are over. The condition leaves in `why` what is missing.
wait_until() {
  what=$1 deadline=$(($(date +%s) + ${WAIT_LIMIT:=300})) told_at=$(date +%s)
  shift
  while ! "$@"; do
    now=$(date +%s)
    [ "$now" -lt "$deadline" ] || fail "waited $WAIT_LIMIT s for $what: $why"
    [ "$now" -lt $((told_at + 5)) ] || { say "waiting for $what: $why"; told_at=$now; }
    sleep 0.2
  done
}
