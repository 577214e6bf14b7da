#!/usr/bin/env bash
# Builds the image, brings the stack of docker-compose.yml up, and holds it to its promises: while readings are posted
# without a pause, nodes are stopped, one is cut off from the network, and the gateway is restarted and killed with
# nodes away. Meanwhile /status must show who is down and why, and the other nodes take the batches; in the end every
# acknowledged reading must be in the nodes' databases, and twice in none of them. The stack is taken down with its
# volumes in any case; the image forebay:compose-test stays, so that the next run finds the compiled dependencies.
# The scripts that post readings, read /status and compare are in tests/compose/.
#
# To build the image as users do takes minutes. FOREBAY_BIN names a program, made on Debian 12 or an older system, that is
# put into the image instead: the image is then made by the last stage of the Dockerfile, and the sources that the other
# stages would compile are checked with the toolchain of this machine.
#
# Needs: docker with an engine on this host, `docker compose` or docker-compose, curl, openssl, python3; with FOREBAY_BIN, cargo.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
export FOREBAY_IMAGE=forebay:compose-test
project="forebay-test-$$"
readings_per_step=1000       # at least so many are accepted between one step and the next
patience=90                  # seconds for each thing that is waited for
work=$(mktemp -d)
target=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
sources=$target/image-sources
poster=                      # process id of the poster while it runs
doors=()                     # containers of gateways on an open network

# Every step is bounded; --foreground lets an interrupt from the terminal through.
bounded() { timeout --foreground --kill-after=20 "$@"; }
say() { printf 'compose: %3d s: %s\n' "$SECONDS" "$*"; }
die() { echo "compose: FAILED: $*" >&2; exit 1; }

if docker compose version >/dev/null 2>&1; then
  compose() { bounded 300 docker compose --project-name "$project" "$@"; }
elif command -v docker-compose >/dev/null; then
  compose() { bounded 300 docker-compose --project-name "$project" "$@"; }
else
  die "neither 'docker compose' nor docker-compose is installed"
fi

clean_up() {
  local status=$? container
  trap - EXIT
  trap '' INT TERM
  set +e
  [ -z "$poster" ] || kill "$poster" 2>/dev/null
  if [ "$status" -ne 0 ]; then
    for container in $(docker ps --all --quiet --filter "label=com.docker.compose.project=$project"); do
      echo "---- the last lines of $(docker inspect --format '{{.Name}} ({{.State.Status}}, exit code {{.State.ExitCode}})' "$container")"
      docker logs --tail 50 "$container" 2>&1
    done >&2
  fi
  audit=$(grep -E "^audit: [0-9]+ acknowledged" "$work/load") || die "load has audited nothing: $(cat "$work/load")"
say "  load through TLS, with a certificate and a key: $audit"
  [ "${#doors[@]}" -eq 0 ] || docker rm --force --volumes "${doors[@]}" >/dev/null
  compose down --volumes --remove-orphans --timeout 5 >"$work/down.log" 2>&1 || { tail -20 "$work/down.log" >&2; status=1; }
  rm -rf "$work"
  if [ "$status" -eq 0 ]; then echo "compose: passed"; else echo "compose: FAILED (status $status)" >&2; fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command until it succeeds: until WHAT COMMAND...
until_true() {
  local what=$1 deadline=$((SECONDS + patience))
  shift
  until "$@"; do
    [ -z "$poster" ] || kill -0 "$poster" 2>/dev/null || die "the poster ended early: $(tail -3 "$work/post.log")"
    [ ! -e "$work/unsound" ] || die "what /status says does not add up"
    [ "$SECONDS" -lt "$deadline" ] || die "waited $patience seconds in vain: $what"
    sleep 0.2
  done
}

get() { curl --silent --show-error --fail --noproxy '*' --max-time 30 "$@"; }
container_of() { compose ps --quiet "$1"; }
is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }
# The nodes publish no port; from this host their addresses on the stack's network can be reached.
node_url() { echo "http://$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "${node[$1]}"):9000"; }

# Load.
accepted() { wc -l <"$work/accepted"; }
has_accepted() { [ "$(accepted)" -ge "$1" ]; }
post_some() { until_true "$readings_per_step readings accepted" has_accepted $(($(accepted) + readings_per_step)); }

# The gateway as /status shows it; tests/compose/status.py lists the questions. A ledger that does not add up fails the
# test, whichever question was asked.
ask() {
  local status=0
  get "http://127.0.0.1:$port/status" 2>/dev/null | python3 tests/compose/status.py "$@" || status=$?
  [ "$status" -ne 3 ] || touch "$work/unsound"
  return "$status"
}
gateway_answers() { get "http://127.0.0.1:$port/healthz" >/dev/null 2>&1; }
buffer_is_empty() { [ "$(ask ledger buffered)" = 0 ]; }
has_delivered_more() {
  local now
  now=$(ask delivered "$1") && [ "$now" -gt "$2" ]
}
takes_batches() { # NODE
  local before
  before=$(ask delivered "$1")
  until_true "batches for $1" has_delivered_more "$1" "$before"
}
is_shown_down_while_others_take_batches() { # NODE
  local other
  until_true "$1 shown as down, with a reason" ask is-down "$1" >"$work/reason"
  say "  /status: $1 is down: $(cut -c 1-150 "$work/reason")"
  for other in node1 node2 node3; do [ "$other" = "$1" ] || takes_batches "$other"; done
  ask is-down "$1" >/dev/null || die "$1 is away, and shown as up again"
  [ "$(ask ledger dead_lettered)" -eq 0 ] || die "readings became dead letters while $1 was away"
}
is_used_again() { # NODE
  until_true "the health check of $1" is_healthy "${node[$1]}"
  until_true "$1 shown as up" ask is-up "$1"
  takes_batches "$1"
}

# Faults.
stop() { say "stopping $* ($(accepted) accepted so far)"; compose stop "$@" >/dev/null 2>&1; }
start() { say "starting $* ($(accepted) accepted so far)"; compose start "$@" >/dev/null 2>&1; }
# In the middle of a batch: the node stands still until one is on its way to it, and goes on without a network. So it
# stores the batch, and the gateway never hears of that.
cut_off() {
  say "cutting $1 off from the network while a batch is on its way to it ($(accepted) accepted so far)"
  bounded 60 docker pause "${node[$1]}" >/dev/null
  until_true "a batch on its way to $1" ask has-batch "$1"
  bounded 60 docker network disconnect "$network" "${node[$1]}"
  bounded 60 docker unpause "${node[$1]}" >/dev/null
}
# It gets the name again by which the gateway knows it, and maybe another address.
connect() {
  say "connecting $1 to the network again ($(accepted) accepted so far)"
  bounded 60 docker network connect --alias "$1" "$network" "${node[$1]}"
}
restart_gateway() {
  say "restarting the gateway ($(accepted) accepted so far)"
  bounded 60 docker restart --time 30 "$gateway" >/dev/null
  until_true "an answer of the gateway after its restart" gateway_answers
}
# kill -9, as when memory runs out, and a new start with the same volume.
kill_gateway() {
  say "killing the gateway ($(accepted) accepted so far)"
  bounded 60 docker kill --signal KILL "$gateway" >/dev/null
  bounded 60 docker start "$gateway" >/dev/null
  until_true "an answer of the gateway after it was killed" gateway_answers
}

# The image.
build() {
  bounded 2400 docker build --network host "$@" >"$work/build.log" 2>&1 || { tail -50 "$work/build.log" >&2; die "the image does not build"; }
}
# Takes out the sources as the builder stage has them, and checks that they are complete and need nothing that only tests
# ask of the dependencies. They lie in the target folder, so that the next check begins where this one ended.
check_sources() {
  local container
  build --target sources --tag "$FOREBAY_IMAGE-sources" .
  rm -rf "$sources"
  mkdir -p "$target"
  container=$(docker create "$FOREBAY_IMAGE-sources" true)
  docker cp "$container:/sources" "$sources"
  docker rm "$container" >/dev/null
  find "$sources" -name '*.rs' -exec touch {} + # with times of their own, they could pass for those of this folder
  (cd "$sources" && CARGO_TARGET_DIR=$target cargo check --quiet --locked) || die "the sources in the image do not compile"
}
# Makes the image from the last stage of the Dockerfile, with a program, licence texts and authorities of this machine in
# place of those of the builder stage.
build_around() { # PROGRAM
  local context=$work/context texts
  mkdir "$context"
  cp -r LICENSE config "$context"
  strip --strip-debug -o "$context/forebay" "$1"
  cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$context/authorities"
  texts=$PWD/.ci/licence-texts
  (cd "$sources" && "$texts" "$context/third-party") || die "the licence texts cannot be gathered"
  { cat .dockerignore; echo '!forebay'; echo '!third-party'; echo '!authorities'; } >"$context/.dockerignore"
  sed -e '1,/^# ---- runtime/d' -e 's| --from=builder /build/target/release/forebay | forebay |' \
    -e 's| --from=builder /third-party | third-party |' \
    -e 's| --from=builder /etc/ssl/certs/ca-certificates.crt | authorities |' Dockerfile >"$context/Dockerfile"
  build --tag "$FOREBAY_IMAGE" "$context"
}

for tool in curl openssl python3; do
  command -v "$tool" >/dev/null || die "$tool is not installed"
done

base=debian:bookworm-slim
toolchain=rust:1-slim-bookworm
[ -z "${FOREBAY_BIN:-}" ] || toolchain=$base # nothing is compiled in the image
# Where no registry can be reached, stand-ins for the base images can lie beside this repository.
if ! docker image inspect "$toolchain" "$base" >/dev/null 2>&1 && [ -x ../shared/docker/make-base-images ]; then
  say "making stand-ins for the base images"
  ../shared/docker/make-base-images --rust-tag "$toolchain" --debian-tag "$base"
fi

for stack in examples/*/docker-compose.yml; do
  compose --file "$stack" config --quiet || die "$stack is no stack"
done

if [ -z "${FOREBAY_BIN:-}" ]; then
  say "building the image $FOREBAY_IMAGE"
  build --tag "$FOREBAY_IMAGE" .
else
  say "checking the sources of the image"
  check_sources
  say "putting $FOREBAY_BIN into the image $FOREBAY_IMAGE"
  build_around "$FOREBAY_BIN"
fi
label=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$FOREBAY_IMAGE")
version=$(docker run --rm "$FOREBAY_IMAGE" --version)
[[ $version == "forebay $label ("* ]] || die "the image is labelled $label, and its program says: $version"
texts=/usr/share/doc/forebay/third-party
docker run --rm --entrypoint cat "$FOREBAY_IMAGE" "$texts/INDEX" >"$work/licences" || die "the image has no licence texts"
folders=$(docker run --rm --entrypoint find "$FOREBAY_IMAGE" "$texts" -mindepth 1 -maxdepth 1 -type d ! -empty -printf .)
without=$(sed -n 's/-[0-9].*(its package has no text)$//p' "$work/licences")
[ "$without" = cel ] || die "crates without a licence text, of which cel alone is known: $without"
grep -q '^tokio-[0-9].*: MIT$' "$work/licences" || die "the licence of tokio is not among those in the image"
[ "${#folders}" -eq $(($(wc -l <"$work/licences") - 1)) ] || die "${#folders} licence texts for $(wc -l <"$work/licences") crates"
docker run --rm --entrypoint grep "$FOREBAY_IMAGE" -q "BEGIN CERTIFICATE" /etc/ssl/certs/ca-certificates.crt || die "the image trusts no authority"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export FOREBAY_PORT=$port
say "bringing the stack up as $project, on port $port"
compose up --detach --no-build >"$work/up.log" 2>&1 || { tail -20 "$work/up.log" >&2; die "the stack does not come up"; }
until_true "an answer of the gateway" gateway_answers
gateway=$(container_of gateway)
declare -A node
for name in node1 node2 node3; do node[$name]=$(container_of "$name"); done
for container in "$gateway" "${node[@]}"; do
  until_true "the health check of container $container" is_healthy "$container"
  [ "$(docker exec "$container" id -u)" = 10001 ] || die "container $container does not run as user 10001"
done
[ "$(docker port "$gateway")" = "8080/tcp -> 127.0.0.1:$port" ] || die "the gateway is published as: $(docker port "$gateway")"
network=$(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' "$gateway")
say "all four containers are healthy"

: >"$work/accepted"
timeout --foreground 600 python3 tests/compose/post.py "$port" "$work/accepted" "$work/stop" >"$work/post.log" 2>&1 &
poster=$!
post_some

stop node2
is_shown_down_while_others_take_batches node2
start node2
is_used_again node2

cut_off node3
is_shown_down_while_others_take_batches node3
connect node3
is_used_again node3
[ "$(ask ledger recovered)" -eq 0 ] || die "the ledger says that $(ask ledger recovered) readings are from an earlier start"

stop node1
post_some
restart_gateway
is_shown_down_while_others_take_batches node1
kill_gateway
is_shown_down_while_others_take_batches node1
start node1
is_used_again node1

stop node1 node2 node3
post_some
kill_gateway
[ "$(ask ledger recovered)" -ge "$readings_per_step" ] || die "only $(ask ledger recovered) readings were found on disk"
post_some
start node1 node2 node3
for name in node1 node2 node3; do until_true "$name shown as up" ask is-up "$name"; done

touch "$work/stop"
wait "$poster" || die "the poster failed: $(tail -3 "$work/post.log")"
poster=
say "posting has ended, $(accepted) readings are accepted; waiting for the buffer to empty"
until_true "an empty buffer" buffer_is_empty
[ "$(ask ledger dead_lettered)" -eq 0 ] || die "readings became dead letters"
[ "$(ask ledger dropped)" -eq 0 ] || die "readings were dropped"
for name in node1 node2 node3; do
  until_true "the health check of $name" is_healthy "${node[$name]}"
  get "$(node_url "$name")/v1/readings" >"$work/$name"
  say "$name holds $(wc -l <"$work/$name") readings"
done
python3 tests/compose/audit.py "$work/accepted" "$work"/node[123]

say "stopping the gateway"
began=$SECONDS
compose stop gateway >/dev/null 2>&1
[ $((SECONDS - began)) -lt 30 ] || die "the gateway took $((SECONDS - began)) seconds to stop"
code=$(docker inspect --format '{{.State.ExitCode}}' "$gateway")
[ "$code" -eq 0 ] || die "the gateway ended with exit code $code"
say "the gateway ended after $((SECONDS - began)) seconds with exit code 0"

# Gateways on an open network, with the settings of examples/tls and certificates made as its README says.
say "starting gateways with TLS and keys"
cp -r examples/tls "$work/tls"
"$work/tls/make-certificates" >"$work/certificates.log" 2>&1 || die "no certificates: $(tail -5 "$work/certificates.log")"
key=$(docker run --rm --user "$(id -u)" --volume "$work/tls/secrets:/secrets" "$FOREBAY_IMAGE" \
  keys add load --file /secrets/keys.toml) || die "no key could be made"
sed '/^\[server.operator\]/,/^$/d' "$work/tls/forebay.toml" >"$work/tls/one-listener.toml"
chmod 644 "$work/tls/one-listener.toml"
open_door() { # NAME SETTINGS OPTION...: the hardening is that of examples/tls
  local name=$project-$1 settings=$work/tls/$2
  shift 2
  docker run --detach --name "$name" --hostname gateway.example --label "com.docker.compose.project=$project" \
    --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges:true --health-interval 1s \
    --env FOREBAY_CONFIG=/etc/forebay/forebay.toml --env FOREBAY__SERVER__LISTEN=0.0.0.0:8443 \
    --volume "$settings:/etc/forebay/forebay.toml:ro" --volume "$work/tls/secrets:/etc/forebay/secrets:ro" \
    "$@" "$FOREBAY_IMAGE" >/dev/null || die "$name does not start"
  doors+=("$name")
}
required=(--env FOREBAY__SERVER__TLS__CLIENT_CERTIFICATES=required)
open_door tls one-listener.toml
open_door mtls one-listener.toml "${required[@]}"
open_door operator forebay.toml "${required[@]}"
for door in "${doors[@]}"; do until_true "the health check of $door" is_healthy "$door"; done
# A client beside the last of them, on its network and with its name for itself.
bounded 120 docker run --rm --user "$(id -u)" --network "container:$project-operator" --volume "$work/tls/secrets:/secrets:ro" \
  --env "FOREBAY_KEY=$key" "$FOREBAY_IMAGE" load https://gateway.example:8443 --operator http://127.0.0.1:9090 \
  --tls-ca /secrets/ca.pem --cert /secrets/plant-7.example.pem --cert-key /secrets/plant-7.example-key.pem \
  --duration 1s >"$work/load" 2>&1 || die "load does not get through: $(cat "$work/load")"
audit=$(grep -E '^audit: [1-9][0-9]* acknowledged' "$work/load") || die "load has audited nothing: $(cat "$work/load")"
say "  load through TLS, with a certificate and a key: $audit"
