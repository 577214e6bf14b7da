"""Posts readings to the gateway until the stop file is there.

    post.py PORT ACCEPTED STOP

Requests have 1 to 20 readings, each reading unlike all others, in the three JSON forms by turns. Every reading of a
202 goes into the file ACCEPTED. A request without an answer, or with a 503 that says that the gateway is shutting down,
is sent again with its Idempotency-Key. Any other answer ends it with an error, because nodes that are away are no reason
to turn readings away.
"""

import http.client
import itertools
import json
import os
import sys
import time
import uuid

PATIENCE = 60  # seconds in which a request must be taken
PAUSE = 0.05  # seconds from one request to the next
FORMS = [
    ("application/json", lambda readings: json.dumps(readings[0]), 1),
    ("application/json", lambda readings: json.dumps(readings), 12),
    ("application/x-ndjson", lambda readings: "\n".join(map(json.dumps, readings)), 20),
]

port, accepted_path, stop_path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
connection = None


def post(body, headers):
    global connection
    until = time.monotonic() + PATIENCE
    while True:
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", "/v1/readings", body, headers)
            response = connection.getresponse()
            status, text = response.status, response.read().decode()
            if status != 503 or "shutting down" not in text:
                return status, text
            trouble = text
        except (OSError, http.client.HTTPException) as error:
            trouble = error
        connection = None
        if time.monotonic() > until:
            sys.exit(f"not taken within {PATIENCE} seconds: {trouble!r}")
        time.sleep(0.1)


numbers = itertools.count(1)
with open(accepted_path, "a") as accepted:
    for media_type, body_of, size in itertools.cycle(FORMS):
        if os.path.exists(stop_path):
            break
        readings = [
            {"device": f"pump-{n % 50}", "sensor": "pressure", "value": n, "time": 1_750_000_000_000 + n, "unit": "bar"}
            for n in itertools.islice(numbers, size)
        ]
        status, text = post(body_of(readings), {"Content-Type": media_type, "Idempotency-Key": str(uuid.uuid4())})
        if status != 202 or json.loads(text)["accepted"] != size:
            sys.exit(f"{size} readings as {media_type} were answered with {status}: {text}")
        accepted.writelines(f"{reading['device']} {reading['value']}\n" for reading in readings)
        accepted.flush()
        time.sleep(PAUSE)
