"""Compares the accepted readings with those that the nodes hold.

    audit.py ACCEPTED NODE...

ACCEPTED has a line for each reading of a 202, a NODE is what one node answered to GET /v1/readings. Each accepted
reading must be at some node, and nothing else. At one node it must not be twice: it always travels in the same batch
under the same key, and the node stores a key once. At two nodes it may be: where the answer to a batch was lost, the
batch goes to another node, which cannot know that the first one has it. Such readings are counted.
"""

import collections
import json
import sys


def stored_at(path):
    with open(path) as lines:
        readings = map(json.loads, lines)
        return collections.Counter(f"{reading['device']} {reading['value']}" for reading in readings)


def fail(what, readings):
    sys.exit(f"compose: FAILED: {len(readings)} readings {what}, such as {sorted(readings)[:5]}")


with open(sys.argv[1]) as lines:
    accepted = collections.Counter(line.strip() for line in lines)
nodes = [stored_at(path) for path in sys.argv[2:]]
at = collections.Counter(reading for node in nodes for reading in node)

checks = {
    "were acknowledged twice: this test is at fault": [reading for reading, count in accepted.items() if count > 1],
    "were acknowledged and are at no node": accepted.keys() - at.keys(),
    "are at a node and were never acknowledged": at.keys() - accepted.keys(),
    "are twice at one node": {reading for node in nodes for reading, count in node.items() if count > 1},
}
for what, readings in checks.items():
    if readings:
        fail(what, readings)
twice = sum(1 for count in at.values() if count > 1)
print(f"compose: {len(accepted)} readings were acknowledged, and each is stored; none is twice at one node, {twice} are at two or more")
