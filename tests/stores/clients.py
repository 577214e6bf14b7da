"""Writes readings to a gateway with clients of InfluxDB, as they are on PyPI, and compares what comes to the gateway's node.

    clients.py GATEWAY KEY AUTHORITY PORT [CERTIFICATE CERTIFICATE_KEY]

GATEWAY is the address of a gateway that wants a key, or of a proxy before it, over TLS with a certificate of the file
AUTHORITY. KEY may write the devices plant-7/*, and CERTIFICATE is a key for plant-8/*. The gateway's node is this program, on
PORT of the loopback.

Each client writes a device of its own, with tags, whole numbers, fractions, texts, truth values and times to the
nanosecond, and has to fail with a wrong key. There is no Telegraf on PyPI or in Debian 12: `telegraf_*` send what its
source (plugins/outputs/influxdb*/http.go of 1.40) does.
"""

import base64
import collections
import datetime
import gzip
import http.client
import http.server
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse

import influxdb
import influxdb_client
import influxdb_client.client.write_api
import influxdb_client_3

os.environ["NO_PROXY"] = "*"
PATIENCE = 30  # seconds for what was written to come to the node
NS = 10**9
START = 1_170_288_000 * NS + 123_456_789  # in February 2007
EPOCH = datetime.datetime(1970, 1, 1)

gateway, key, authority, port, *certificate = sys.argv[1:]
address = urllib.parse.urlsplit(gateway)

# A reading as it is sent and as it has to come.
Reading = collections.namedtuple("Reading", "device sensor tags value at")
sent, came = collections.Counter(), collections.Counter()


class Node(http.server.BaseHTTPRequestHandler):
    """Takes batches of NDJSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        for line in self.rfile.read(int(self.headers["content-length"])).splitlines():
            came[reading(json.loads(line))] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def reading(it):
    tags = tuple(sorted(it.get("tags", {}).items()))
    return Reading(it["device"], it["sensor"], tags, value(it["value"]), it["time"])


def value(it):
    """Whole numbers and fractions are told apart by nothing but their value in JSON."""
    return (type(it).__name__, it) if isinstance(it, (bool, str)) else ("number", float(it))


def rfc3339(at):
    seconds, rest = divmod(at, NS)
    text = (EPOCH + datetime.timedelta(seconds=seconds)).isoformat()
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


# What each client writes: points of one measurement, with fields of all kinds.
POINTS = 300
FIELDS = {"temperature": 61.5, "pumps": 2, "whole": 5.0, "burning": True, "state": 'run "2", cellar=east'}
TAGS = {"floor": "-1", "room": "boiler room, 2nd=east"}


def points(device, unit=1):
    """Yields the time of each point and notes its readings as sent; times are a multiple of the unit, in nanoseconds."""
    for number in range(POINTS):
        at = (START + number * NS) // unit * unit
        for field, content in FIELDS.items():
            sent[Reading(device, f"boiler_{field}", tuple(sorted(TAGS.items())), value(content), rfc3339(at))] += 1
        yield at


def expect_refusal(write, error, status_of):
    try:
        write()
    except error as refusal:
        if status_of(refusal) == 401:
            return
        raise
    sys.exit("a wrong key was taken")


# The clients.


def influxdb_2(token=key, **options):
    return influxdb_client.InfluxDBClient(gateway, token, org="any", ssl_ca_cert=authority, **options)


def point_2(device, at):
    point = influxdb_client.Point("boiler").tag("device", device).time(at)
    for name, text in TAGS.items():
        point = point.tag(name, text)
    for name, content in FIELDS.items():
        point = point.field(name, content)
    return point


def influxdb_client_synchronous():
    with influxdb_2() as client:
        if not client.ping():
            sys.exit("influxdb-client gets no answer to its ping")
        device = "plant-7/influxdb-client"
        write = client.write_api(write_options=influxdb_client.client.write_api.SYNCHRONOUS)
        write.write("any", record=[point_2(device, at) for at in points(device)])
    with influxdb_2("wrong") as client:
        write = client.write_api(write_options=influxdb_client.client.write_api.SYNCHRONOUS)
        refused = lambda: write.write("any", record="boiler,device=plant-7/wrong value=1")
        expect_refusal(refused, influxdb_client.rest.ApiException, lambda refusal: refusal.status)


def influxdb_client_in_batches():
    """In threads of its own, compressed."""
    device = "plant-7/influxdb-client-batches"
    faults = []
    options = influxdb_client.WriteOptions(batch_size=100, flush_interval=100)
    with influxdb_2(enable_gzip=True) as client:
        with client.write_api(write_options=options, error_callback=lambda _, __, error: faults.append(error)) as write:
            for at in points(device):
                write.write("any", record=point_2(device, at))
    if faults:
        sys.exit(f"influxdb-client in batches: {faults[0]}")


def influxdb_client_by_certificate():
    device = "plant-8/influxdb-client"
    with influxdb_2(None, cert_file=certificate[0], cert_key_file=certificate[1]) as client:
        write = client.write_api(write_options=influxdb_client.client.write_api.SYNCHRONOUS)
        write.write("any", record=[point_2(device, at) for at in points(device)])


def influxdb_1(password=key, **options):
    return influxdb.InfluxDBClient(
        address.hostname, address.port, "any", password, "any", ssl=True, verify_ssl=authority, **options
    )


def influxdb_python():
    device = "plant-7/influxdb"
    client = influxdb_1(gzip=True)
    client.ping()
    client.create_database("any")
    json_points = [
        {"measurement": "boiler", "tags": {"device": device, **TAGS}, "time": at, "fields": FIELDS}
        for at in points(device)
    ]
    client.write_points(json_points, time_precision="n", batch_size=100)
    refused = lambda: influxdb_1("wrong").write_points(json_points[:1], time_precision="n")
    expect_refusal(refused, influxdb.exceptions.InfluxDBClientError, lambda refusal: refusal.code)


def influxdb_3():
    device = "plant-7/influxdb3-python"

    def client(token):
        return influxdb_client_3.InfluxDBClient3(gateway, database="any", token=token, ssl_ca_cert=authority)

    def point(at):
        fields = {name: content for name, content in FIELDS.items()}
        return {"measurement": "boiler", "tags": {"device": device, **TAGS}, "fields": fields, "time": at}

    with client(key) as it:
        it.write([point(at) for at in points(device)])
    with client("wrong") as it:
        refused = lambda: it.write("boiler,device=plant-7/wrong value=1")
        expect_refusal(refused, Exception, lambda refusal: refusal.status)


# What Telegraf sends.


def escaped(text, characters):
    return "".join("\\" + each if each in characters else each for each in text)


def telegraf_lines(device):
    def field(content):
        if isinstance(content, bool):
            return str(content).lower()
        if isinstance(content, str):
            return '"' + escaped(content, '"\\') + '"'
        return f"{content}i" if isinstance(content, int) else f"{content:g}"

    tags = "".join(f",{name}={escaped(text, ', =')}" for name, text in sorted({"host": device, **TAGS}.items()))
    fields = ",".join(f"{name}={field(content)}" for name, content in FIELDS.items())
    return "".join(f"boiler{tags} {fields} {at}\n" for at in points(device))


class Telegraf:
    """A connection as Go's client has it: the body in chunks, any encoding wished for, HTTP/1.1."""

    def __init__(self, certificate=()):
        context = ssl.create_default_context(cafile=authority)
        if certificate:
            context.load_cert_chain(*certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=30)

    def post(self, path, body, **headers):
        chunks = body if isinstance(body, bytes) else iter(body)
        headers = {name.replace("_", "-"): text for name, text in headers.items()}
        headers |= {"User-Agent": "Telegraf/1.40.0 Go/1.26.2", "Accept-Encoding": "gzip"}
        if not isinstance(body, bytes):
            headers["Transfer-Encoding"] = "chunked"
        self.connection.request("POST", path, chunks, headers, encode_chunked=not isinstance(body, bytes))
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def compressed(lines):
    whole = gzip.compress(lines.encode())
    return [whole[at : at + 4096] for at in range(0, len(whole), 4096)]


TEXT = "text/plain; charset=utf-8"


def telegraf_influxdb_v2():
    telegraf, path = Telegraf(), "/api/v2/write?bucket=any&org=any"
    body = compressed(telegraf_lines("plant-7/telegraf-v2"))
    for token, expected in (("wrong", 401), (key, 204)):
        status, text = telegraf.post(
            path, body, Authorization=f"Token {token}", Content_Encoding="gzip", Content_Type=TEXT
        )
        if status != expected:
            sys.exit(f"Telegraf's influxdb_v2 gets {status} and not {expected}: {text}")


def telegraf_by_certificate():
    """It sends the header without a token, too."""
    status, text = Telegraf(certificate).post(
        "/api/v2/write?bucket=any&org=any",
        compressed(telegraf_lines("plant-8/telegraf")),
        Authorization="Token ",
        Content_Encoding="gzip",
        Content_Type=TEXT,
    )
    if status != 204:
        sys.exit(f"Telegraf's influxdb_v2 gets {status} with a certificate and no token: {text}")


def telegraf_influxdb():
    """It makes its database first, and would log that this failed."""
    telegraf = Telegraf()
    basic = "Basic " + base64.b64encode(f"any:{key}".encode()).decode()
    form = b"q=CREATE+DATABASE+%22telegraf%22"
    status, text = telegraf.post(
        "/query", form, Authorization=basic, Content_Type="application/x-www-form-urlencoded"
    )
    if status != 200 or "error" in json.loads(text)["results"][0]:
        sys.exit(f"Telegraf's influxdb can make no database: {status} {text}")
    body = compressed(telegraf_lines("plant-7/telegraf"))
    status, text = telegraf.post(
        "/write?consistency=any&db=telegraf", body, Authorization=basic, Content_Encoding="gzip", Content_Type=TEXT
    )
    if status != 204:
        sys.exit(f"Telegraf's influxdb gets {status}: {text}")


CLIENTS = [
    influxdb_client_synchronous,
    influxdb_client_in_batches,
    influxdb_python,
    influxdb_3,
    telegraf_influxdb_v2,
    telegraf_influxdb,
]
if certificate:
    CLIENTS += [influxdb_client_by_certificate, telegraf_by_certificate]

node = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Node)
threading.Thread(target=node.serve_forever, daemon=True).start()
for write in CLIENTS:
    write()

deadline = time.monotonic() + PATIENCE
while came.total() < sent.total() and time.monotonic() < deadline:
    time.sleep(0.05)
for what, readings in (("missing", sent - came), ("never sent", came - sent)):
    for each in list(readings)[:3]:
        print(f"{what}, one of {readings.total()}: {each}", file=sys.stderr)
print(f"{len(CLIENTS)} clients, {sent.total()} readings, {(sent & came).total()} of them came to the node")
sys.exit(sent != came)
