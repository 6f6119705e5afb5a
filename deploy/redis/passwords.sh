# Reads the password files. Sourced by start.sh and by the scripts that log in.
#
# PASSWORDS_FOLDER contains one file per user, named after the user. Every line is a valid password, and the scripts
# log in with the first one. This allows a password to be replaced without locking out any client. The rights of a
# user are in users.acl, where `#${NODE_PASSWORD_SHA256}` stands for the passwords in the file `node`.

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

# Prints all passwords of a user, one per line.
passwords_of() {
  [ -r "$PASSWORDS_FOLDER/$1" ] || bad_setting "PASSWORDS_FOLDER: $PASSWORDS_FOLDER/$1 cannot be read"
  grep . "$PASSWORDS_FOLDER/$1" || bad_setting "PASSWORDS_FOLDER: $PASSWORDS_FOLDER/$1 holds no password"
}

# Prints the password to log in with.
password_of() {
  passwords=$(passwords_of "$1") || exit
  printf '%s\n' "$passwords" | sed -n 1p
}

# Prints the SHA-256 of each password in ACL syntax without the first `#`: `<first> #<second>`. No password is passed
# as a program argument.
hashes_of() {
  passwords=$(passwords_of "$1") || exit
  printf '%s\n' "$passwords" | while IFS= read -r password; do
    printf '%s' "$password" | sha256sum
  done | awk '{ printf "%s%s", between, $1; between = " #" }'
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
