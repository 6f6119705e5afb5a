# Reads the password files of a server. Sourced by start.sh and by the scripts that log in.
#
# A server verifies the passwords of clients by their hashes. It has a password only for itself. PASSWORDS_FOLDER
# contains one file per user of users.acl:
#
#   replica        the password with which the server and its scripts log in
#   NAME.sha256    for any other user: the hash of the password, as hashes.sh prints it
#
# Every line of a file is valid, and the first one of `replica` is presented. This allows a password to be replaced
# without locking out any client. In users.acl `#${NODE_PASSWORD_SHA256}` stands for the lines of `node.sha256`.

# Treat text as bytes, in any locale.
export LC_ALL=C

say() {
  printf '%s\n' "${0##*/}: $1"
}

# Fails with one line: an error or a refusal.
fail() {
  say "$1" >&2
  exit 1
}

# Fails with one line for an invalid setting. The exit code 64 is the same in all programs of the service.
bad_setting() {
  say "$1" >&2
  exit 64
}

# Prints the lines of a password file.
lines_of() {
  [ -r "$PASSWORDS_FOLDER/$1" ] || bad_setting "PASSWORDS_FOLDER: $PASSWORDS_FOLDER/$1 cannot be read"
  grep . "$PASSWORDS_FOLDER/$1" || bad_setting "PASSWORDS_FOLDER: $PASSWORDS_FOLDER/$1 holds no password"
}

# Prints the password that this server presents.
own_password() {
  passwords=$(lines_of replica) || exit
  printf '%s\n' "$passwords" | sed -n 1p
}

# Prints the SHA-256 of each line of standard input. No password is passed as a program argument.
hash_lines() {
  command -v sha256sum > /dev/null || sha256sum() { openssl dgst -sha256 -r; }
  while IFS= read -r password || [ -n "$password" ]; do
    [ -z "$password" ] || printf '%s' "$password" | sha256sum
  done | awk '{ print $1 }'
}

# Prints the hashes of a user's passwords in ACL syntax without the first `#`: `<first> #<second>`.
hashes_of() {
  if [ "$1" = replica ]; then
    passwords=$(lines_of replica) || exit
    hashes=$(printf '%s\n' "$passwords" | hash_lines)
  else
    hashes=$(lines_of "$1.sha256") || exit
    ! printf '%s\n' "$hashes" | grep -q -v -x -E '[0-9a-f]{64}' ||
      bad_setting "PASSWORDS_FOLDER: $PASSWORDS_FOLDER/$1.sha256 has a line that is no SHA-256 of hashes.sh"
  fi
  printf '%s\n' "$hashes" | awk '{ printf "%s%s", between, $1; between = " #" }'
}

# Prints the users of an ACL file whose passwords come from files.
users_in() {
  # shellcheck disable=SC2016 # the placeholders are literal
  placeholders=$(grep -v '^#' "$1" | grep -o '\${[^}]*}' | sort -u) || true
  for placeholder in $placeholders; do
    user=$(printf '%s\n' "$placeholder" | sed -n 's/^\${\([A-Z]*\)_PASSWORD_SHA256}$/\1/p')
    [ -n "$user" ] || bad_setting "$1: unknown placeholder $placeholder"
    printf '%s\n' "$user" | tr '[:upper:]' '[:lower:]'
  done
}

# Quotes a value for the servers' configuration files and command lines.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}
