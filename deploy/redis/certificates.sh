#!/bin/sh
# Creates the TLS files: a private CA, and one certificate for all Redis servers.
#
#   certificates.sh [--days N] FOLDER NAME[,NAME…]
#
# FOLDER/ca.crt   trusted by clients and servers (REDIS_CA_FILE, --tls-ca-cert-file); not secret
# FOLDER/ca.key   signs further certificates; keep it on a machine that runs no server
# FOLDER/tls.crt  the servers' certificate, valid for every NAME: host names, `*.names`, and IP addresses
# FOLDER/tls.key  its key, only for the servers
#
# A CA that already exists in FOLDER signs the new certificate. To renew a certificate or to add names, run the script
# again in the same folder: clients keep their ca.crt. The certificate is valid for N days (default 365), a new CA for
# ten times as long.
set -eu
umask 077

fail() {
    echo "certificates.sh: $1" >&2
    exit 64
}

days=365
if [ "${1-}" = --days ]; then
    [ $# -ge 2 ] || fail '--days needs a number'
    days=$2
    shift 2
fi
case $days in '' | *[!0-9]* | 0*) fail "--days must be a whole number above 0, not \"$days\"" ;; esac
[ $# -eq 2 ] || fail 'usage: certificates.sh [--days N] FOLDER NAME[,NAME…]'
folder=$1

# Converts `a,10.0.0.1` to `DNS:a,IP:10.0.0.1`.
alternative_names() {
    echo "$1" | tr ',' '\n' | while read -r name; do
        case $name in
        '' | *[!A-Za-z0-9.:*-]*) fail "\"$name\" is no host name and no IP address" ;;
        *:*) echo "IP:$name" ;;
        *[!0-9.]*) echo "DNS:$name" ;;
        *) echo "IP:$name" ;;
        esac
    done
}
names=$(alternative_names "$2") || exit 64
names=$(echo "$names" | paste -s -d , -)

mkdir -p "$folder"
# Elliptic curves: a server signs fifteen times as many handshakes as with RSA (`openssl speed ecdsap256 rsa2048`),
# and after a failover all clients reconnect at once.
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -e "$folder/ca.key" ]; then
    # The random suffix tells two CAs apart. Clients trust both while one replaces the other.
    new_key "$folder/ca.key"
    openssl req -x509 -new -key "$folder/ca.key" -sha256 -days $((days * 10)) -subj "/CN=flash sale Redis CA $(openssl rand -hex 4)" \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -out "$folder/ca.crt"
fi

# A server is also a client: of its primary, and of the other servers' bus.
new_key "$folder/tls.key"
openssl req -new -key "$folder/tls.key" -subj '/CN=flash sale Redis' -out "$folder/tls.csr"
cat >"$folder/tls.ext" <<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$names
EXTENSIONS
openssl x509 -req -in "$folder/tls.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -sha256 -days "$days" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$folder/tls.ext" -out "$folder/tls.crt" 2>"$folder/tls.log" ||
    { cat "$folder/tls.log" >&2; exit 1; }
rm -f "$folder/tls.csr" "$folder/tls.ext" "$folder/tls.log"
chmod 644 "$folder/ca.crt" "$folder/tls.crt"
