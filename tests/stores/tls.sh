# Part of tests/stores.sh: certificates, and nginx with TLS in front of a store or of the gateway.

# Prints the first block of code below a heading of a page of the book: page_block PAGE HEADING
page_block() {
  awk -v heading="## $2" '
    $0 == heading { below = 1 }
    below && /^```/ { if (inside) exit; inside = 1; next }
    inside' "docs/src/operating/$1"
}

# Makes the authority and the certificates that docs/src/operating/tls.md makes, with its own lines, and one for localhost.
make_certificates() {
  [ ! -d "$work/tls" ] || return 0
  install_packages openssl
  { page_block tls.md "An authority of one's own, in ten lines"; echo 'issue localhost'; } >"$work/certificates.sh"
  (cd "$work" && bash -euo pipefail certificates.sh) >"$work/certificates.log" 2>&1 \
    || die "the lines of docs/src/operating/tls.md make no certificates"
  # Some clients (Python from 3.13 on) let nothing pass that RFC 5280 does not.
  openssl verify -x509_strict -CAfile "$work/tls/ca.pem" "$work"/tls/{localhost,gateway.example,plant-7.example}.pem \
    >"$work/certificates.log" 2>&1 || die "the certificates of docs/src/operating/tls.md are not as RFC 5280 wants them"
}

# The directives for listening with TLS on a port of localhost, whatever addresses that has.
listen_with_tls() {
  echo "listen 127.0.0.1:$1 ssl;"
  if grep -q '^0*1 ' /proc/net/if_inet6 2>/dev/null; then echo "listen [::1]:$1 ssl;"; fi
}

# Starts nginx with the servers, maps and upstreams on standard input: start_nginx PORT
start_nginx() {
  local kind
  PATH=$PATH:/usr/sbin command -v nginx >/dev/null || install_packages nginx-light
  mkdir -p "$work/nginx"
  {
    [ "$(id -u)" -ne 0 ] || echo 'user root;' # its workers have to get into the temporary directory
    echo 'daemon off; worker_processes 1; pid nginx.pid; events { worker_connections 512; } http {'
    for kind in client_body proxy fastcgi uwsgi scgi; do echo "  ${kind}_temp_path $kind;"; done
    echo '  log_format told "$server_port $status $http_authorization"; access_log access.log told;'
    cat
    echo '}'
  } >"$work/nginx/nginx.conf"
  PATH=$PATH:/usr/sbin nginx -e stderr -p "$work/nginx/" -c nginx.conf >>"$work/nginx.log" 2>&1 &
  nginx_pid=$!
  until_true "nginx" is_open "$1"
}

stop_nginx() {
  [ -z "$nginx_pid" ] || end TERM "$nginx_pid"
  nginx_pid=
  rm -rf "$work/nginx"
}

is_open() { python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)' "$1" 2>/dev/null; }

# A store behind TLS: nginx asks for a client certificate of the authority, and for one of the secrets in secrets.conf. The
# store has two addresses there, one for each way of naming a node.
start_front() {
  make_certificates
  echo first >"$work/secret"
  front_port=$(free_port)
  other_front_port=$(free_port)
  nginx_accepts first second
  start_nginx "$front_port" <<NGINX
  map \$http_authorization \$is_known { include secrets.conf; default 0; }
  server {
    $(listen_with_tls "$front_port")
    $(listen_with_tls "$other_front_port")
    ssl_certificate $work/tls/localhost.pem;
    ssl_certificate_key $work/tls/localhost-key.pem;
    ssl_client_certificate $work/tls/ca.pem;
    ssl_verify_client on;
    client_max_body_size 8m;
    if (\$is_known = 0) { return 401; }
    location / { proxy_pass http://127.0.0.1:$port; }
  }
NGINX
}

# Says which secrets are right: nginx_accepts SECRET...
nginx_accepts() {
  mkdir -p "$work/nginx"
  printf '"Bearer %s" 1;\n' "$@" >"$work/nginx/secrets.conf"
  [ -z "$nginx_pid" ] || kill -HUP "$nginx_pid"
}

# The settings of the gateway for a store behind TLS, to stand behind those of [cluster].
front_settings() {
  cat <<TOML
[cluster.tls]
ca = "$work/tls/ca.pem"
certificate = "$work/tls/plant-7.example.pem"
key = "$work/tls/plant-7.example-key.pem"
[cluster.headers]
authorization = { file = "$work/secret", prefix = "Bearer " }
TOML
}

# Without the authority, the client certificate or the right secret nothing would be delivered, and the check says why.
prove_strangers_are_turned_away() {
  local whole=$work/forebay.toml.whole
  mv "$work/forebay.toml" "$whole"
  grep -v "^ca = " "$whole" >"$work/forebay.toml"
  is_turned_away "without the authority" certificate
  grep -v -e "^certificate = " -e "^key = " "$whole" >"$work/forebay.toml"
  is_turned_away "without a client certificate" "No required SSL certificate"
  cp "$whole" "$work/forebay.toml"
  echo neither >"$work/secret"
  is_turned_away "with a wrong secret" 401
  echo first >"$work/secret"
}
is_turned_away() { # HOW WORD
  ! takes_batches || die "the check finds no fault $1"
  grep -q "$2" "$work/check.log" || die "the check does not speak of '$2' $1: $(grep "^node " "$work/check.log")"
  say "$name: $1: it $(grep "^node " "$work/check.log" | head -1 | cut -d " " -f 3- | cut -c 1-120)"
}

# The gateway's secret changes while it runs: from then on that is what it sends.
change_secret() { echo second >"$work/secret"; }
has_come_with() { grep -q "^$1 20[0-9] Bearer $2\$" "$work/nginx/access.log"; }
sends_second() {
  post <"$awkward"
  sleep 0.5
  has_come_with "$front_port" second && has_come_with "$other_front_port" second
}
prove_changed_secret() {
  has_come_with "$front_port" first || die "nothing was delivered to https://localhost with the first secret"
  has_come_with "$other_front_port" first || die "nothing was delivered to dns+https://localhost with the first secret"
  until_true "the changed secret at both nodes" sends_second
  nginx_accepts second
  post <"$awkward"
  audit household-1 household-2
  say "$name: the secret was changed while it ran, at both nodes"
}
