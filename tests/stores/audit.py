"""Reads everything back that a store holds, through the store's own query interface, and compares it with what was sent.

    audit.py STORE PORT CSV DEVICE...

STORE is clickhouse, influxdb, prometheus or victoriametrics, listening on PORT of the loopback. CSV was sent once for
each DEVICE: its first column is the time, each other one a sensor. Device, sensor, value and time must be those of the
file, exactly: values as the doubles that their text names, times to the nanosecond. Nothing else may be there, and no
reading twice.
"""

import csv
import datetime
import decimal
import json
import sys
import urllib.parse
import urllib.request

NS = 10**9
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def nanoseconds(text):
    """Of an RFC 3339 time in UTC with up to nine fraction digits."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    at = datetime.datetime.fromisoformat(whole.replace(" ", "T") + "+00:00")
    return int((at - EPOCH).total_seconds()) * NS + int(fraction.ljust(9, "0"))


def get(path, **query):
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return answer.read().decode()


# Each store gives its readings as (device, sensor, nanoseconds, value).


def clickhouse():
    for line in get("/", query="SELECT device, sensor, time, value FROM readings FINAL FORMAT TabSeparated").splitlines():
        device, sensor, time, value = line.split("\t")
        yield device, sensor, nanoseconds(time), float(value)


def influxdb():
    [result] = json.loads(get("/query", db="readings", epoch="ns", q="SELECT device, value FROM /.*/"))["results"]
    for series in result.get("series", []):
        for time, device, value in series["values"]:
            yield device, series["name"], time, float(value)


def prometheus():
    """As a range of raw samples: `query_range` would give values at the steps instead, repeated or left out."""
    answer = json.loads(get("/api/v1/query", query='{device!=""}[1d]', time="2007-02-01T23:59:59Z"))
    for series in answer["data"]["result"]:
        for time, value in series["values"]:
            at = int(decimal.Decimal(repr(time)) * NS)
            yield series["metric"]["device"], series["metric"]["__name__"], at, float(value)


def victoriametrics():
    """What it took is in the answers only once it is flushed, about a second later, or at once when asked."""
    get("/internal/force_flush")
    for line in get("/api/v1/export", **{"match[]": '{__name__!=""}', "reduce_mem_usage": "0"}).splitlines():
        series = json.loads(line)
        for time, value in zip(series["timestamps"], series["values"]):
            yield series["metric"]["device"], series["metric"]["__name__"], time * 10**6, float(value)


store, port, path, *devices = sys.argv[1:]
sent = {}
with open(path) as lines:
    for row in csv.DictReader(lines):
        at = nanoseconds(row.pop("time"))
        sent.update({(device, sensor, at): float(value) for device in devices for sensor, value in row.items()})

held, twice = {}, 0
for device, sensor, at, value in globals()[store]():
    twice += (device, sensor, at) in held
    held[device, sensor, at] = value

missing = sorted(sent.keys() - held.keys())
unknown = sorted(held.keys() - sent.keys())
different = [(key, sent[key], held[key]) for key in sorted(sent.keys() & held.keys()) if sent[key] != held[key]]
for what, readings in (("missing", missing), ("different", different), ("never sent", unknown)):
    if readings:
        print(f"{len(readings)} {what}, such as {readings[:3]}", file=sys.stderr)
if twice:
    print(f"{twice} are there twice", file=sys.stderr)
found = len(held) - len(unknown)
print(f"{len(sent)} readings, {found} read back, {len(missing)} missing, {len(different)} different")
sys.exit(bool(missing or different or unknown or twice))
