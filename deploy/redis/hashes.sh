#!/bin/sh
# Prints the SHA-256 of each password in a file, one per line. A server verifies passwords by these hashes
# (passwords.sh).
#
#   hashes.sh FILE

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
[ $# -eq 1 ] || bad_setting "usage: hashes.sh FILE"
[ -r "$1" ] || bad_setting "$1 cannot be read"
hash_lines < "$1"
