#!/usr/bin/env bash
# Builds the image, brings the stack of docker-compose.yml up, and holds it to its promises: while readings
# are posted without a pause, a node is stopped and started again, the gateway is killed and started again with
# nodes away, and in the end every acknowledged reading is in the nodes' databases exactly once. The stack is taken down with its volumes in any case; the image
# forebay:compose-test stays, so that the next run finds the compiled dependencies.
#
# Needs: docker with an engine on this host, `docker compose` or docker-compose, curl, python3.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
export FOREBAY_IMAGE=forebay:compose-test
project="forebay-test-$$"
readings_per_step=1000       # at least so many are accepted between one step and the next
patience=90                  # seconds for each thing that is waited for
work=$(mktemp -d)
poster=                      # process id of the poster while it runs

# Every step is bounded; --foreground lets an interrupt from the terminal through.
bounded() { timeout --foreground --kill-after=20 "$@"; }
say() { echo "compose: $*"; }
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
  say "taking the stack down"
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
    [ "$SECONDS" -lt "$deadline" ] || die "waited $patience seconds in vain: $what"
    sleep 0.2
  done
}

get() { curl --silent --show-error --fail --noproxy '*' --max-time 30 "$@"; }
container_of() { compose ps --quiet "$1"; }
is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }
# The nodes publish no port; from this host their addresses on the stack's network can be reached.
node_url() { echo "http://$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"):9000"; }
accepted() { wc -l <"$work/accepted"; }
has_accepted() { [ "$(accepted)" -ge "$1" ]; }
gateway_answers() { get "http://127.0.0.1:$port/healthz" >/dev/null 2>&1; }
post_some() { until_true "$readings_per_step readings accepted" has_accepted $(($(accepted) + readings_per_step)); }
# kill -9, as when memory runs out, and a new start with the same volume.
kill_gateway() {
  docker kill --signal KILL "$gateway" >/dev/null
  docker start "$gateway" >/dev/null
  until_true "an answer of the gateway after it was killed" gateway_answers
}
stored_at() { get "$(node_url "$1")/v1/count" | python3 -c 'import json, sys; print(json.load(sys.stdin)["count"])'; }
holds_more_than() { [ "$(stored_at "$1")" -gt "$2" ]; }

# Prints one account of the ledger, after checking that all of them add up.
ledger() {
  get "http://127.0.0.1:$port/status" | python3 -c '
import json, sys
ledger = json.load(sys.stdin)["ledger"]
came = sum(ledger[a] for a in ("accepted", "recovered", "derived"))
went = sum(ledger[a] for a in ("delivered", "dead_lettered", "filtered", "merged", "dropped", "buffered"))
if came != went:
    sys.exit(f"the ledger does not add up, {came} came and {went} are accounted for: {ledger}")
print(ledger[sys.argv[1]])' "$1"
}
buffer_is_empty() {
  local buffered
  buffered=$(ledger buffered) || die "/status gave no sound ledger"
  [ "$buffered" -eq 0 ]
}

# Posts requests of 1 to 20 readings, each reading unlike all others, in the three JSON forms by turns, until
# the stop file is there. Every reading of a 202 goes into the file of the accepted ones; any other answer
# ends it with an error, because nodes that are away are no reason to turn readings away. A request without an
# answer is sent again with its Idempotency-Key until there is one.
cat >"$work/post.py" <<'PYTHON'
import http.client, itertools, json, os, sys, time, uuid

port, accepted_path, stop_path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
patience = 60  # seconds without an answer
numbers = itertools.count(1)
forms = [
    ("application/json", lambda readings: json.dumps(readings[0]), 1),
    ("application/json", lambda readings: json.dumps(readings), 12),
    ("application/x-ndjson", lambda readings: "\n".join(map(json.dumps, readings)), 20),
]
connection = None


def post(body, headers):
    global connection
    until = time.monotonic() + patience
    while True:
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", "/v1/readings", body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            connection = None
            if time.monotonic() > until:
                sys.exit(f"no answer within {patience} seconds: {error!r}")
            time.sleep(0.1)


with open(accepted_path, "a") as accepted:
    for media_type, body_of, size in itertools.cycle(forms):
        if os.path.exists(stop_path):
            break
        readings = [
            {"device": f"pump-{n % 50}", "sensor": "pressure", "value": n, "time": 1_750_000_000_000 + n, "unit": "bar"}
            for n in itertools.islice(numbers, size)
        ]
        status, text = post(body_of(readings), {"Content-Type": media_type, "Idempotency-Key": str(uuid.uuid4())})
        if status != 202 or json.loads(text)["accepted"] != size:
            sys.exit(f"{size} readings as {media_type} were answered with {status}: {text}")
        accepted.writelines(f"{r['device']} {r['value']}\n" for r in readings)
        accepted.flush()
        time.sleep(0.05)
PYTHON

# Compares the accepted readings with what the nodes hold.
cat >"$work/compare.py" <<'PYTHON'
import collections, json, sys

accepted = collections.Counter(line.strip() for line in open(sys.argv[1]))
stored = collections.Counter()
for path in sys.argv[2:]:
    with open(path) as lines:
        for reading in map(json.loads, lines):
            stored[f"{reading['device']} {reading['value']}"] += 1
missing, surplus = accepted - stored, stored - accepted
if missing or surplus:
    sys.exit(f"compose: FAILED: {missing.total()} accepted readings are missing, such as {list(missing)[:5]}; "
             f"{surplus.total()} are there twice or were never accepted, such as {list(surplus)[:5]}")
print(f"compose: {accepted.total()} readings were acknowledged and each is stored exactly once")
PYTHON

for tool in curl python3; do
  command -v "$tool" >/dev/null || die "$tool is not installed"
done

# Where no registry can be reached, stand-ins for the two base images can lie beside this repository.
if ! docker image inspect rust:1-slim-bookworm debian:bookworm-slim >/dev/null 2>&1 \
  && [ -x ../shared/docker/make-base-images ]; then
  say "making stand-ins for the base images"
  ../shared/docker/make-base-images
fi

say "building the image $FOREBAY_IMAGE"
bounded 2400 docker build --network host --tag "$FOREBAY_IMAGE" . >"$work/build.log" 2>&1 || { tail -50 "$work/build.log" >&2; die "the image does not build"; }
label=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$FOREBAY_IMAGE")
version=$(docker run --rm "$FOREBAY_IMAGE" --version)
[ "$version" = "forebay $label" ] || die "the image is labelled $label, and its program says: $version"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export FOREBAY_PORT=$port
say "bringing the stack up as $project, on port $port"
compose up --detach --no-build >"$work/up.log" 2>&1 || { tail -20 "$work/up.log" >&2; die "the stack does not come up"; }
until_true "an answer of the gateway" gateway_answers
gateway=$(container_of gateway)
nodes=()
for name in node1 node2 node3; do nodes+=("$(container_of "$name")"); done
for container in "$gateway" "${nodes[@]}"; do
  until_true "the health check of container $container" is_healthy "$container"
  [ "$(docker exec "$container" id -u)" = 10001 ] || die "container $container does not run as user 10001"
done
[ "$(docker port "$gateway")" = "8080/tcp -> 127.0.0.1:$port" ] || die "the gateway is published as: $(docker port "$gateway")"
say "all four containers are healthy"

: >"$work/accepted"
timeout --foreground 600 python3 "$work/post.py" "$port" "$work/accepted" "$work/stop" >"$work/post.log" 2>&1 &
poster=$!
post_some

say "stopping node2 while readings are posted ($(accepted) accepted so far)"
compose stop node2 >/dev/null 2>&1
post_some
[ "$(ledger dead_lettered)" -eq 0 ] || die "readings became dead letters while node2 was away"

say "starting node2 again ($(accepted) accepted so far)"
compose start node2 >/dev/null 2>&1
until_true "the health check of node2" is_healthy "${nodes[1]}"
before=$(stored_at "${nodes[1]}")
until_true "new readings in node2" holds_more_than "${nodes[1]}" "$before"
post_some
[ "$(ledger recovered)" -eq 0 ] || die "the ledger says that $(ledger recovered) readings are from an earlier start"

# From here on node2 is the only one that gets batches. What it was sent before the gateway was killed it is sent
# again afterwards, under the same keys; another node could not know that it has been stored.
say "killing the gateway with node1 and node3 away ($(accepted) accepted so far)"
compose stop node1 node3 >/dev/null 2>&1
post_some
kill_gateway
before=$(stored_at "${nodes[1]}")
until_true "new readings in node2" holds_more_than "${nodes[1]}" "$before"
post_some

say "killing the gateway with all nodes away ($(accepted) accepted so far)"
compose stop node2 >/dev/null 2>&1
post_some
kill_gateway
[ "$(ledger recovered)" -ge "$readings_per_step" ] || die "only $(ledger recovered) readings were found on disk"
post_some
docker start "${nodes[1]}" >/dev/null
until_true "the health check of node2" is_healthy "${nodes[1]}"

touch "$work/stop"
wait "$poster" || die "the poster failed: $(tail -3 "$work/post.log")"
poster=
say "posting has ended, $(accepted) readings are accepted; waiting for the buffer to empty"
until_true "an empty buffer" buffer_is_empty
[ "$(ledger dead_lettered)" -eq 0 ] || die "readings became dead letters"
for i in 0 2; do docker start "${nodes[$i]}" >/dev/null; done
for i in 0 2; do until_true "the health check of node$((i + 1))" is_healthy "${nodes[$i]}"; done

for i in 0 1 2; do
  get "$(node_url "${nodes[$i]}")/v1/readings" >"$work/node$((i + 1))"
  say "node$((i + 1)) holds $(wc -l <"$work/node$((i + 1))") readings"
done
python3 "$work/compare.py" "$work/accepted" "$work"/node[123]

say "stopping the gateway"
began=$SECONDS
compose stop gateway >/dev/null 2>&1
[ $((SECONDS - began)) -lt 30 ] || die "the gateway took $((SECONDS - began)) seconds to stop"
code=$(docker inspect --format '{{.State.ExitCode}}' "$gateway")
[ "$code" -eq 0 ] || die "the gateway ended with exit code $code"
say "the gateway ended after $((SECONDS - began)) seconds with exit code 0"
