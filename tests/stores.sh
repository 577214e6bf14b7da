#!/usr/bin/env bash
# Holds the formats towards nodes to real stores: InfluxDB, VictoriaMetrics, Prometheus and ClickHouse, as Debian packages
# them. For each store and format, real readings (tests/data/) and some with awkward names, tags and times go through a
# gateway into an empty store and are read back through the store's own query interface: each must be there, with its
# device, sensor, tags, value and time. Then a second device's readings are sent, and the store is ended in the middle of
# that and started again: nothing may be missing. Before, a reading that the store refuses is sent among others: it has to
# become a dead letter, and the others have to be there. One of them is behind TLS, with a client certificate and a secret.
#
# Last, clients of InfluxDB write to a gateway that wants a key, over TLS and through a proxy, and what they wrote is compared
# with what comes out.
#
#   tests/stores.sh                   all of them
#   tests/stores.sh clickhouse        one of them; several may be named, and clients
#
# The stores listen on free ports of the loopback and keep everything in one temporary directory; each is ended, and the
# directory removed, in any case. Missing packages are installed with apt-get, which needs root.
# FOREBAY_BIN names the gateway's binary; without it a debug build is made. tests/stores/ has the script that reads back and
# compares, the clients, and what concerns TLS.
#
# Needs: Debian 12 or the packages influxdb 1.6, victoria-metrics, prometheus, clickhouse-server, nginx-light and openssl; curl,
# python3; for the clients PyPI, by pip.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."

readings=tests/data/household_power_2007-02.csv
awkward=tests/stores/awkward.ndjson
rate=4000
patience=60                  # seconds for each thing that is waited for
all=(clickhouse influxdb prometheus-remote-write victoriametrics-influx-tls victoriametrics-remote-write clients)
work=$(mktemp -d)
store_pid=                   # process ids of what is running
gateway_pid=
load_pid=
nginx_pid=
authority=                   # the file with the authority of the gateway's certificate, if it speaks TLS
front=                       # `tls` for a store behind TLS
policy=                      # the file that keeps apt-get from starting services, if it is ours

say() { echo "stores: $*"; }
die() { echo "stores: FAILED: $*" >&2; exit 1; }
. tests/stores/tls.sh
. tests/stores/clients.sh

# Ends a process of ours and waits for it: end SIGNAL PID. A process that ignores the signal is killed. The shell's own words
# about that are not wanted.
end() {
  kill "-$1" "$2" || true
  for _ in $(seq 300); do
    kill -0 "$2" || break
    sleep 0.1
  done
  kill -KILL "$2" || true
  wait "$2" || true
} 2>/dev/null

clean_up() {
  local status=$? pid
  trap - EXIT
  trap '' INT TERM PIPE
  set +e
  for pid in $load_pid $gateway_pid $store_pid; do end KILL "$pid"; done
  stop_nginx
  if [ "$status" -ne 0 ]; then
    for log in "$work"/*.log; do
      [ -s "$log" ] && { echo "---- the last lines of $(basename "$log")"; tail -20 "$log" | cut -c 1-300; }
    done >&2
  fi
  [ -z "$policy" ] || rm -f "$policy"
  rm -rf "$work"
  if [ "$status" -eq 0 ]; then echo "stores: passed"; else echo "stores: FAILED (status $status)" >&2; fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command until it succeeds: until_true WHAT COMMAND...
until_true() {
  local what=$1 deadline=$((SECONDS + patience))
  shift
  until "$@"; do
    [ -z "$gateway_pid" ] || kill -0 "$gateway_pid" 2>/dev/null || die "the gateway has ended"
    [ -z "$store_pid" ] || kill -0 "$store_pid" 2>/dev/null || die "the store has ended"
    [ -z "$nginx_pid" ] || kill -0 "$nginx_pid" 2>/dev/null || die "nginx has ended"
    [ "$SECONDS" -lt "$deadline" ] || die "waited $patience seconds in vain: $what"
    sleep 0.1
  done
}

get() { curl --silent --show-error --fail --noproxy '*' --max-time 30 ${authority:+--cacert "$authority"} "$@"; }
answers() { get --output /dev/null "$1" 2>/dev/null; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Installs missing packages; without a policy file they would start their services.
install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "not installed, and only root can: apt-get install ${missing[*]}"
  command -v apt-get >/dev/null || die "not installed, and there is no apt-get: ${missing[*]}"
  say "installing ${missing[*]}"
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$work/apt.log" 2>&1 \
    || die "cannot be installed: ${missing[*]}"
  if [ -n "$policy" ]; then
    rm -f "$policy"
    policy=
  fi
}

# The stores. Each has: its package, how it is started and, where there is something to set up, prepared, when it is ready, the gateway's settings for it, the
# signal that ends it in the middle of a load, and a reading that it refuses, if it refuses any.

clickhouse_package=clickhouse-server
clickhouse_ready=/ping
clickhouse_signal=KILL
clickhouse_refuses='{"device":"household-1","sensor":"door","value":"open","time":"2007-02-01T04:00:00Z"}'
clickhouse_start() {
  cat >"$work/users.xml" <<XML
<yandex>
  <profiles><default/></profiles>
  <users><default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
  <quotas><default/></quotas>
</yandex>
XML
  cat >"$work/config.xml" <<XML
<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <http_port>$port</http_port>
  <listen_host>127.0.0.1</listen_host>
  <path>$work/store/</path>
  <tmp_path>$work/store/tmp/</tmp_path>
  <users_config>$work/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
</yandex>
XML
  clickhouse-server --config-file="$work/config.xml" >>"$work/store.log" 2>&1 &
}
# This release has no DateTime64 and takes no deduplication token. The engine keeps one row of those with the same device,
# sensor and time, so that a batch whose answer was lost with the store is there once.
clickhouse_prepare() {
  get --output /dev/null --data-binary @- "http://127.0.0.1:$port/" <<SQL
CREATE TABLE readings (device String, sensor String, value Float64, time String, unit String)
ENGINE = ReplacingMergeTree PARTITION BY substring(time, 1, 7) ORDER BY (device, sensor, time)
SQL
}
# The table has no column for tags.
clickhouse_settings() {
  nodes "/?input_format_skip_unknown_fields=1"
  echo 'format = "clickhouse"'
  echo '[cluster.clickhouse]'
  echo 'deduplication_token = false'
}

# Acknowledged writes are synced to its log (wal-fsync-delay is 0s by default), so that they survive the kill.
influxdb_package=influxdb
influxdb_ready=/ping
influxdb_signal=KILL
influxdb_refuses='{"device":"household-1","sensor":"voltage","value":"none","time":"2007-02-01T04:00:00Z"}'
influxdb_start() {
  cat >"$work/influxdb.conf" <<TOML
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
dir = "$work/store/meta"
[data]
dir = "$work/store/data"
wal-dir = "$work/store/wal"
query-log-enabled = false
[http]
bind-address = "127.0.0.1:$port"
log-enabled = false
[monitor]
store-enabled = false
TOML
  influxd run -config "$work/influxdb.conf" >>"$work/store.log" 2>&1 &
}
influxdb_prepare() {
  get --output /dev/null --data-urlencode "q=CREATE DATABASE readings" "http://127.0.0.1:$port/query"
}
# Sensors of the file have whole values at some times and not at others: one kind of field holds both.
influxdb_settings() {
  nodes "/write?db=readings"
  echo 'format = "influx"'
  echo '[cluster.influx]'
  echo 'integers = "float"'
}

# Without the window, batches that arrive in another order than that of their times would be refused. Each request is in the
# write-ahead log when it is answered; that is not synced, which a kill does not touch, but power loss would. Another value
# at a time that is there is refused within the last hour of what it holds, and passed over without a word before.
prometheus_package=prometheus
prometheus_ready=/-/ready
prometheus_signal=KILL
prometheus_refuses='{"device":"precise","sensor":"large","value":1,"time":"2007-02-03T03:00:00Z"}'
prometheus_start() {
  echo 'storage: { tsdb: { out_of_order_time_window: 100y } }' >"$work/prometheus.yml"
  prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/store" --storage.tsdb.retention.time=100y \
    --web.enable-remote-write-receiver --web.listen-address="127.0.0.1:$port" >>"$work/store.log" 2>&1 &
}
prometheus_settings() {
  nodes "/api/v1/write"
  echo 'format = "remote-write"'
}

# It has no log and keeps what it acknowledged in memory for some seconds, so that a kill loses readings: that is its own
# choice, and it gets a signal to end instead. A repeated batch is stored again unless told otherwise, hence the last flag.
victoriametrics_package=victoria-metrics
victoriametrics_ready=/health
victoriametrics_signal=TERM
victoriametrics_refuses=
victoriametrics_start() {
  victoria-metrics -httpListenAddr="127.0.0.1:$port" -storageDataPath="$work/store" -retentionPeriod=100y \
    -influxSkipSingleField -dedup.minScrapeInterval=1ms >>"$work/store.log" 2>&1 &
}
victoriametrics_settings() {
  case $1 in
    influx)
      nodes /write
      echo 'format = "influx"' ;;
    remote-write)
      nodes /api/v1/write
      echo 'format = "remote-write"' ;;
  esac
}

# Prints the setting of the store as a node, under a path and a query; behind TLS it is a node twice, under a fixed name and under
# one that is looked up.
nodes() {
  if [ -n "$front" ]; then
    echo "nodes = [\"https://localhost:$front_port$1\", \"dns+https://localhost:$other_front_port$1\"]"
  else
    echo "nodes = [\"http://127.0.0.1:$port$1\"]"
  fi
}

start_store() {
  local ready=${store}_ready
  "${store}_start"
  store_pid=$!
  until_true "an answer of $store" answers "http://127.0.0.1:$port${!ready}"
}

write_settings() {
  gateway=http://127.0.0.1:$(free_port)
  cat >"$work/forebay.toml" <<TOML
[server]
listen = "${gateway#http://}"
[buffer]
path = "$work/gateway/buffer"
[dead_letter]
path = "$work/gateway/dead-letters"
[batch]
max_readings = 100
max_age = "100ms"
[cluster.retry]
max = "500ms"
[cluster.health]
probe = "200ms"
[cluster]
$("${store}_settings" "$form")
$([ -z "$front" ] || front_settings)
TOML
}

start_gateway() {
  "$forebay" serve --config "$work/forebay.toml" >>"$work/gateway.log" 2>&1 &
  gateway_pid=$!
  until_true "an answer of the gateway" answers "$gateway/healthz"
}

takes_batches() { "$forebay" check --config "$work/forebay.toml" >"$work/check.log" 2>&1; }

# Sends the file as the readings of one device: load DEVICE [OPTION...]
load() {
  timeout --foreground 60 "$forebay" load "$gateway" --csv "$readings" --no-audit --device "$@" >>"$work/load.log" 2>&1
}

# Sends the readings on standard input, all in one request.
post() {
  get --output /dev/null --header 'content-type: application/x-ndjson' --data-binary @- "$gateway/v1/readings?strict=true"
}

ledger() { get "$gateway/status" | python3 tests/compose/status.py ledger "$1"; }
has_delivered() { [ "$(ledger delivered)" -ge "$1" ]; }
is_empty() { [ "$(ledger buffered)" = 0 ]; }

# Checks that the store has every reading of these devices except those that it refused: audit DEVICE...
audit() {
  local result
  until_true "an empty buffer" is_empty
  [ "$(ledger dead_lettered)" = "$refused" ] \
    || die "not $refused but these were refused: $("$forebay" dead-letters list --config "$work/forebay.toml" 2>&1)"
  result=$(python3 tests/stores/audit.py "$store" "$form" "$port" "$awkward" "$readings" "$@") || die "$name: $result"
  say "$name: ok: $result"
}

prove() {
  local package signal refuses before
  name=$1
  store=${name%%-*}
  form=${name#"$store"}
  form=${form#-}
  front=
  [[ $form != *-tls ]] || front=tls
  form=${form%-tls}
  package=${store}_package signal=${store}_signal refuses=${store}_refuses
  refused=0
  install_packages "${!package}"
  port=$(free_port)
  start_store
  [ -z "$front" ] || start_front
  write_settings
  # Before there is a table or a database `forebay check` says so, and afterwards that all is well.
  if declare -F "${store}_prepare" >/dev/null; then
    ! takes_batches || die "the check finds no fault before the store is set up: $(tail -1 "$work/check.log")"
    say "$name: before it is set up: it $(grep '^node ' "$work/check.log" | cut -d ' ' -f 3- | cut -c 1-120)"
    "${store}_prepare"
  fi
  [ -z "$front" ] || prove_strangers_are_turned_away
  takes_batches || die "the check finds a fault: $(tail -1 "$work/check.log")"
  start_gateway
  [ -z "$front" ] || change_secret

  post <"$awkward"
  load household-1 --rate 0
  audit household-1

  # The others are there already: the store holds each once all the same.
  if [ -n "${!refuses}" ]; then
    { grep --invert-match '"precise"' "$awkward"; echo "${!refuses}"; } | post
    refused=1
    audit household-1
    say "$name: what it refused is a dead letter, what came with that is there"
  fi

  before=$(ledger delivered)
  load household-2 --rate "$rate" &
  load_pid=$!
  until_true "readings of the second device in the store" has_delivered $((before + 100))
  end "${!signal}" "$store_pid"
  store_pid=
  wait "$load_pid" || die "the gateway did not take all readings while the store was away"
  load_pid=
  ! is_empty || die "the store was ended too late: nothing was left to be delivered"
  say "$name: ended with SIG${!signal}; $(ledger buffered) readings wait in the gateway; starting it again"
  start_store
  audit household-1 household-2
  [ -z "$front" ] || prove_changed_secret

  end TERM "$gateway_pid"
  gateway_pid=
  end TERM "$store_pid"
  store_pid=
  stop_nginx
  rm -rf "$work/store" "$work/gateway" "$work"/*.log
}

# A store's name alone means all of its formats.
chosen=()
for wanted in "${@:-}"; do
  count=${#chosen[@]}
  for name in "${all[@]}"; do
    [[ $name != "${wanted:-$name}" && $name != "$wanted"-* ]] || chosen+=("$name")
  done
  [ ${#chosen[@]} -gt "$count" ] || die "no such store: $wanted; there are ${all[*]}"
done
for tool in curl python3; do
  command -v "$tool" >/dev/null || die "$tool is not installed"
done
forebay=${FOREBAY_BIN:-}
if [ -z "$forebay" ]; then
  say "building the gateway"
  cargo build --locked --quiet
  forebay=${CARGO_TARGET_DIR:-target}/debug/forebay
fi
for each in "${chosen[@]}"; do
  case $each in
    clients) prove_clients ;;
    *) prove "$each" ;;
  esac
done
