"""Reads everything back that a store holds, through the store's own query interface, and compares it with the readings that were sent.

    audit.py STORE FORMAT PORT NDJSON CSV DEVICE...

STORE is clickhouse, influxdb, prometheus or victoriametrics, listening on PORT of the loopback. The readings of NDJSON
were sent, and those of CSV once for each DEVICE: its first column is the time, each other one a sensor. Device, sensor,
tags, value and time must be those that were sent: values as the doubles that their text names (in ClickHouse 18.16, whose
own reader of numbers is off by a unit in the last place now and then, as the doubles that it makes of that text), times to
the nanosecond, or to the millisecond where the store has no more; names and tags as docs/src/delivering/formats.md
says of the FORMAT. Nothing else may be there, and no reading twice.
"""

import collections
import csv
import datetime
import decimal
import json
import re
import sys
import urllib.parse
import urllib.request

NS = 10**9
MS = 10**6  # nanoseconds in a millisecond
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

# One value, and the series that it belongs to; `tags` is a frozen set of pairs.
Reading = collections.namedtuple("Reading", "device sensor tags at value")


def nanoseconds(text):
    """Of an RFC 3339 time in UTC with up to nine fraction digits."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    at = datetime.datetime.fromisoformat(whole + "+00:00")
    return int((at - EPOCH).total_seconds()) * NS + int(fraction.ljust(9, "0"))


def labelled(labels, name, at, value):
    """A reading whose tags are the labels beside the device."""
    tags = frozenset((key, text) for key, text in labels.items() if key not in ("device", "__name__"))
    return Reading(labels["device"], name, tags, at, float(value))


def get(path, **query):
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return answer.read().decode()


def post(body):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"http://127.0.0.1:{port}/", data=body.encode(), timeout=30
    ):
        pass


# What each store holds.


def clickhouse():
    """Its table has no column for tags."""
    rows = get("/", query="SELECT device, sensor, time, value FROM readings FINAL FORMAT JSONCompact")
    for device, sensor, time, value in json.loads(rows)["data"]:
        yield Reading(device, sensor, frozenset(), nanoseconds(time), float(value))


def as_clickhouse_reads(texts):
    """The numbers as it stores them, by their texts: written to another table in the same way and read back."""
    rows = "".join(f'{{"text":"{text}","value":{text}}}\n' for text in sorted(texts))
    post("CREATE TABLE numbers (text String, value Float64) ENGINE = Memory")
    post("INSERT INTO numbers FORMAT JSONEachRow\n" + rows)
    numbers = json.loads(get("/", query="SELECT text, value FROM numbers FORMAT JSONCompact"))["data"]
    post("DROP TABLE numbers")
    return {text: float(value) for text, value in numbers}


def influxdb():
    """Asked for series and not for columns, so that a tag that a reading lacks is not there."""
    [result] = json.loads(get("/query", db="readings", epoch="ns", q="SELECT value FROM /.*/ GROUP BY *"))["results"]
    for series in result.get("series", []):
        labels = {key: text for key, text in series["tags"].items() if text}
        for time, value in series["values"]:
            yield labelled(labels, series["name"], time, value)


def prometheus():
    """As ranges of raw samples: `query_range` would give values at the steps instead, repeated or left out."""
    answer = json.loads(get("/api/v1/query", query='{device!=""}[3d]', time="2007-02-03T23:59:59Z"))
    for series in answer["data"]["result"]:
        for time, value in series["values"]:
            yield labelled(series["metric"], series["metric"]["__name__"], int(decimal.Decimal(repr(time)) * NS), value)


def victoriametrics():
    """Readings are in its answers only after a flush, about a second later, or at once when asked."""
    get("/internal/force_flush")
    for line in get("/api/v1/export", **{"match[]": '{__name__!=""}', "reduce_mem_usage": "0"}).splitlines():
        series = json.loads(line)
        for time, value in zip(series["timestamps"], series["values"]):
            yield labelled(series["metric"], series["metric"]["__name__"], time * MS, value)


# The readings that were sent, as the store is to hold them.


def sent():
    with open(ndjson_path) as lines:
        for reading in map(json.loads, lines):
            tags = dict(reading.get("tags", {}))
            yield reading["device"], reading["sensor"], tags, reading.get("unit"), reading["time"], reading["value"]
    for device in devices:
        with open(csv_path) as lines:
            for row in csv.DictReader(lines):
                time = row.pop("time")
                for sensor, value in row.items():
                    yield device, sensor, {}, None, time, value


def expected(device, sensor, tags, unit, time, value):
    at = nanoseconds(time)
    if store in ("prometheus", "victoriametrics"):
        at -= at % MS
    if form == "remote-write":
        sensor = re.sub(r"[^a-zA-Z0-9_:]", "_", sensor)
    if store == "clickhouse":
        tags = {}
    return Reading(device, sensor, frozenset(tags.items()), at, number(value))


def number(value):
    return numbers[str(value)] if numbers else float(value)


store, form, port, ndjson_path, csv_path, *devices = sys.argv[1:]
numbers = as_clickhouse_reads({str(reading[-1]) for reading in sent()}) if store == "clickhouse" else {}
wanted = {reading[:-1]: reading.value for reading in (expected(*reading) for reading in sent())}
held, twice = {}, 0
for reading in globals()[store]():
    twice += reading[:-1] in held
    held[reading[:-1]] = reading.value

missing = sorted(wanted.keys() - held.keys(), key=str)
unknown = sorted(held.keys() - wanted.keys(), key=str)
different = [(key, wanted[key], held[key]) for key in wanted.keys() & held.keys() if wanted[key] != held[key]]
for what, readings in (("missing", missing), ("different", different), ("never sent", unknown)):
    for reading in readings[:3]:
        print(f"{what}, one of {len(readings)}: {reading}", file=sys.stderr)
if twice:
    print(f"{twice} are there twice", file=sys.stderr)
found = len(wanted) - len(missing)
print(f"{len(wanted)} readings, {found} read back, {len(missing)} missing, {len(different)} different")
sys.exit(bool(missing or different or unknown or twice))
