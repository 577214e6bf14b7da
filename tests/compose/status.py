"""Answers one question about the gateway's /status, which it reads from standard input.

    status.py ledger ACCOUNT     prints how many readings are in that account
    status.py delivered NODE     prints how many readings were delivered to that node since the gateway's start
    status.py has-batch NODE     succeeds if a batch is on its way to that node
    status.py is-up NODE         succeeds if the node is up
    status.py is-down NODE       succeeds if the node is down, with a reason, which it prints

Whatever is asked, all accounts must add up, and what was delivered must be what was delivered to the nodes: exit
status 3 if they do not. Without an answer of the gateway it is 1. A NODE is the name of a service of docker-compose.yml.
"""

import json
import sys
import urllib.parse


def fault(what):
    print(f"{what}: {status}", file=sys.stderr)
    sys.exit(3)


try:
    status = json.load(sys.stdin)
except ValueError:  # the gateway did not answer
    sys.exit(1)
ledger = status["ledger"]
came = sum(ledger[account] for account in ("accepted", "recovered", "derived"))
went = sum(ledger[account] for account in ("delivered", "dead_lettered", "filtered", "merged", "dropped", "buffered"))
if came != went:
    fault(f"the ledger does not add up, {came} came and {went} are accounted for")
if ledger["delivered"] != sum(node["delivered"] for node in status["nodes"]) + ledger["delivered_to_gone"]:
    fault("what was delivered is not what was delivered to the nodes")

question, name = sys.argv[1:]
if question == "ledger":
    print(ledger[name])
    sys.exit()
[node] = [node for node in status["nodes"] if urllib.parse.urlsplit(node["url"]).hostname == name]
if question == "delivered":
    print(node["delivered"])
elif question == "has-batch":
    sys.exit(node["in_flight"] == 0)
elif question == "is-up":
    sys.exit(not node["up"])
elif question == "is-down":
    if not node["up"] and node["reason"]:
        print(node["reason"])
    else:
        sys.exit(1)
else:
    sys.exit(f"no such question: {question}")
