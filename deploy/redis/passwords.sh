# What the password files say. Sourced by the scripts that log in, and by start.sh.
#
# PASSWORDS_FOLDER holds one file a user, named like the user. Every line of it is a password that is good; the first is
# the one that we log in with ourselves. So a password changes without a moment in which nobody gets in. What a user may
# do stands in users.acl, where `#${NODE_PASSWORD_SHA256}` stands for whatever the file `node` holds.

# Bytes are bytes, whatever the place speaks.
export LC_ALL=C

say() {
  printf '%s\n' "${0##*/}: $1"
}

# Something went wrong, or is refused: one line.
fail() {
  say "$1" >&2
  exit 1
}

# A setting is bad: one line, and the exit code that the other programs have for it.
bad_setting() {
  say "$1" >&2
  exit 64
}

# The passwords of a user, one a line.
passwords_of() {
  [ -r "$PASSWORDS_FOLDER/$1" ] || bad_setting "PASSWORDS_FOLDER: $PASSWORDS_FOLDER/$1 cannot be read"
  grep . "$PASSWORDS_FOLDER/$1" || bad_setting "PASSWORDS_FOLDER: $PASSWORDS_FOLDER/$1 holds no password"
}

# The one to log in with.
password_of() {
  passwords=$(passwords_of "$1") || exit
  printf '%s\n' "$passwords" | sed -n 1p
}

# The SHA-256 of each, as they follow a `#` in an ACL: `<first> #<second>`. No password is an argument of a program.
hashes_of() {
  passwords=$(passwords_of "$1") || exit
  printf '%s\n' "$passwords" | while IFS= read -r password; do
    printf '%s' "$password" | sha256sum
  done | awk '{ printf "%s%s", between, $1; between = " #" }'
}

# The users of an ACL file whose passwords come from files.
users_in() {
  # shellcheck disable=SC2016 # placeholders are meant
  placeholders=$(grep -v '^#' "$1" | grep -o '\${[^}]*}' | sort -u) || true
  for placeholder in $placeholders; do
    user=$(printf '%s\n' "$placeholder" | sed -n 's/^\${\([A-Z]*\)_PASSWORD_SHA256}$/\1/p')
    [ -n "$user" ] || bad_setting "$1: nothing is known of $placeholder"
    printf '%s\n' "$user" | tr '[:upper:]' '[:lower:]'
  done
}

# A value as the servers' own files and command lines read it.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}
