#!/bin/sh
# Pins the images of other projects in compose.yaml, the Kubernetes manifests and the Dockerfile by digest, and updates
# the digests: NAME:TAG becomes NAME:TAG@sha256:DIGEST. The owner of a tag can move it to other content; a digest is the
# content.
#
#   pin.sh [FOLDER]
#
# FOLDER is the folder of the files (default: `deploy`, where this script is). Set a tag by hand first, to update to it.
# Needs Docker with buildx, and a connection to the registries. Without an answer for each image nothing is changed.

set -eu
export LC_ALL=C
cd "${1:-$(dirname "$0")/..}"
files="compose.yaml containers/Dockerfile $(find k8s -name '*.yaml')"
rust=$(sed -n 's/^ARG RUST_VERSION=//p' containers/Dockerfile)

# Prints the images, without digests. The project's own are built, not pulled.
images() {
  # shellcheck disable=SC2086 # splitting into words is intended
  sed -n -E 's/^ *(- )?image: +//p; s/^FROM +([^ ]+:[^ ]+) .*/\1/p; s/^# syntax=//p' $files |
    sed 's/@sha256:.*//' | grep -v '/\{0,1\}flashsale-' | sort -u
}

digest_of() {
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1") || digest='no answer'
  printf '%s\n' "$digest" | grep -x -E 'sha256:[0-9a-f]{64}' || { echo "pin.sh: no digest of $1: $digest" >&2 && exit 1; }
}

script=$(mktemp)
trap 'rm -f "$script" "$script.new"' EXIT
for image in $(images); do
  # shellcheck disable=SC2016 # the variable is one of the Dockerfile
  digest=$(digest_of "$(printf '%s' "$image" | sed 's/\${RUST_VERSION}/'"$rust/")") || exit 1
  pattern=$(printf '%s' "$image" | sed 's/[.$*{}]/\\&/g')
  printf '%s\n' "s#((image:|FROM) +|syntax=)$pattern(@sha256:[0-9a-f]{64})?( |\$)#\\1$image@$digest\\4#" >> "$script"
  echo "$image@$digest"
done
for file in $files; do
  sed -E -f "$script" "$file" > "$script.new"
  cmp -s "$script.new" "$file" || cat "$script.new" > "$file"
done
