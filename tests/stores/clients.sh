# Part of tests/stores.sh: clients of InfluxDB that write to the gateway with a key, over TLS and through a proxy.

# What is installed from PyPI lies in the target folder until the list changes.
clients_packages=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")/influxdb-clients

install_clients() {
  ! cmp --silent tests/stores/requirements.txt "$clients_packages/requirements.txt" || return 0
  python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip
  say "installing the clients"
  rm -rf "$clients_packages"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-compile --no-deps \
    --only-binary :all: --target "$clients_packages" --requirement tests/stores/requirements.txt >"$work/pip.log" 2>&1 \
    || die "cannot be installed: $(tail -1 "$work/pip.log")"
  cp tests/stores/requirements.txt "$clients_packages/"
}

# Starts a gateway with keys, whose node is tests/stores/clients.py. Its [server] is on standard input.
start_gateway_with_keys() {
  node_port=$(free_port)
  operator=127.0.0.1:$(free_port)
  {
    cat
    cat <<TOML
[server.operator]
listen = "$operator"
[limits]
unauthorized = "10/h"
[auth]
keys = "$work/keys.toml"
[buffer]
path = "$work/gateway/buffer"
[dead_letter]
path = "$work/gateway/dead-letters"
[batch]
max_age = "50ms"
[cluster]
nodes = ["http://127.0.0.1:$node_port/"]
[cluster.health]
probe = "100ms"
TOML
  } >"$work/forebay.toml"
  printf '[[key]]\nname = "plant-8"\ncertificate = "plant-7.example"\ndevices = ["plant-8/*"]\n' >"$work/keys.toml"
  key=$("$forebay" keys add plant-7 --device 'plant-7/*' --config "$work/forebay.toml" 2>>"$work/gateway.log")
  start_gateway
}
stop_gateway() {
  end TERM "$gateway_pid"
  gateway_pid=
  rm -rf "$work/gateway"
}

# Each client writes, and what comes to the node is what it wrote: clients_write WHERE GATEWAY [CERTIFICATE KEY]
clients_write() {
  local result where=$1 at=$2
  shift 2
  result=$(PYTHONPATH=$clients_packages python3 tests/stores/clients.py "$at" "$key" "$work/tls/ca.pem" "$node_port" "$@") \
    || die "$name: $where: $result"
  say "$name: $where: ok: $result"
}

prove_clients() {
  name=clients
  install_clients
  make_certificates
  authority=$work/tls/ca.pem

  gateway=https://localhost:$(free_port)
  start_gateway_with_keys <<TOML
[server]
listen = "${gateway/https:\/\/localhost/127.0.0.1}"
[server.tls]
certificate = "$work/tls/localhost.pem"
key = "$work/tls/localhost-key.pem"
client_ca = "$work/tls/ca.pem"
TOML
  clients_write "over TLS" "$gateway" "$work"/tls/plant-7.example{,-key}.pem
  stop_gateway

  gateway=http://127.0.0.1:$(free_port)
  start_gateway_with_keys < <(page_block proxy.md 'The settings of the gateway' | sed "s|127.0.0.1:8080|${gateway#http://}|")
  start_proxy
  clients_write "through nginx" "$proxy"
  prove_proxy
  stop_nginx
  stop_gateway
  authority=
  rm -f "$work"/*.log
}

# Starts nginx with the block of docs/src/operating/proxy.md, as it stands there but for ports and files.
start_proxy() {
  local proxy_port
  proxy_port=$(free_port)
  proxy=https://localhost:$proxy_port
  start_nginx "$proxy_port" < <(page_block proxy.md nginx | sed \
    -e "s|127.0.0.1:8080|${gateway#http://}|" -e "s|listen 443 ssl|listen 127.0.0.1:$proxy_port ssl|" \
    -e "s|/etc/ssl/gateway.pem|$work/tls/localhost.pem|" -e "s|/etc/ssl/gateway-key.pem|$work/tls/localhost-key.pem|")
}

# Sends something through nginx and compares the status: expect STATUS WHAT KEY [OPTION...]
expect() {
  local status=$1 what=$2 as=$3 answered
  shift 3
  answered=$(curl --silent --show-error --output "$work/answer" --write-out '%{http_code}' --noproxy '*' --max-time 30 \
    --cacert "$authority" --header "authorization: Bearer $as" --header 'content-type: application/x-ndjson' "$@" \
    "$proxy/v1/readings") || die "$name: $what: no answer"
  [ "$answered" = "$status" ] || die "$name: $what: not $status but $answered: $(head -c 300 "$work/answer")"
}

# Prints so many bytes of readings, whole lines.
many_readings() {
  local padding
  padding=$(printf '%0200d' 0)
  { yes "{\"device\":\"plant-7/a\",\"sensor\":\"s\",\"value\":1,\"tags\":{\"note\":\"$padding\"}}" || true; } 2>/dev/null |
    head -c "$1" | sed '$d'
}

prove_proxy() {
  local one='{"device":"plant-7/a","sensor":"s","value":1}' claim attempt connections
  # Bodies have the gateway's bound, whether their length is said or not. An answer that is there before the end of the body
  # comes through.
  many_readings 4000000 >"$work/large"
  many_readings 9000000 >"$work/too-large"
  expect 202 "a body of 4 MB" "$key" --data-binary @"$work/large"
  expect 202 "a body of 4 MB in chunks" "$key" --request POST --upload-file - <"$work/large"
  expect 413 "a body of 9 MB" "$key" --data-binary @"$work/too-large"
  expect 413 "a body of 9 MB in chunks" "$key" --request POST --upload-file - <"$work/too-large"
  expect 401 "a body of 4 MB with a wrong key" wrong --data-binary @"$work/large"

  # The name that clients ask for comes through, and the gateway answers to its own alone.
  expect 202 "its own name" "$key" --header 'host: gateway.example' --data "$one"
  expect 421 "another name" "$key" --header 'host: other.example' --data "$one"

  # Each client is limited by its own address, and not by one that it claims to have.
  for attempt in $(seq 10); do
    expect 401 "wrong key $attempt of a client" wrong --interface 127.0.0.2 --data "$one"
  done
  for claim in 'x-forwarded-for: 127.0.0.9' 'forwarded: for=127.0.0.9' 'x-real-ip: 127.0.0.9'; do
    expect 429 "a further one with '$claim'" "$key" --interface 127.0.0.2 --header "$claim" --data "$one"
  done
  expect 202 "the key of another client" "$key" --interface 127.0.0.3 --header 'x-forwarded-for: 127.0.0.2' --data "$one"

  # A connection that is not kept is closed by then. One of those that are open is that of the question.
  sleep 0.5
  connections=$(get "http://$operator/metrics" | sed -n 's/^forebay_connections //p')
  [ "$connections" -gt 1 ] || die "$name: nginx keeps no connection to the gateway"
  say "$name: through nginx: ok: large bodies, names, clients by their own addresses; connections are kept"
}
