"""A worker in Python: shows its pod's token, says hello, prints what comes back, and reconnects."""

import os
import random
import sys
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

GATEWAY_URL = os.environ.get("GATEWAY_URL", "ws://openclaw-gateway:18789")
TOKEN_FILE = Path(os.environ.get("TOKEN_FILE", "/var/run/secrets/openclaw/token"))
BACKOFF_S = float(os.environ.get("BACKOFF_MS", "1000")) / 1000
BACKOFF_S_MAX = 30
CONNECT_S_MAX = 10
# The worker sends pings too; a peer that answers none of them is gone.
PING_S, PONG_S_MAX = 30, 60


class Refused(Exception):
    """Another try would end the same way."""


class Restarting(Exception):
    """The other side restarts: somebody else is ready."""


def run_stream():
    """One stream, from the connection to its end; yields each message."""
    token = TOKEN_FILE.read_text().strip()
    try:
        with connect(
            GATEWAY_URL,
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            open_timeout=CONNECT_S_MAX,
            ping_interval=PING_S,
            ping_timeout=PONG_S_MAX,
            proxy=None,  # HTTP_PROXY would reveal the token to a third party.
        ) as stream:
            stream.send("hello from Python")
            while True:
                yield stream.recv()
    except InvalidStatus as error:
        status = error.response.status_code
        if 400 <= status < 500 and status not in (408, 429):
            raise Refused(f"HTTP {status}") from error
        raise
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd else 1006
        reason = error.rcvd.reason if error.rcvd else ""
        if code == 1008 and reason != "token_expired":
            raise Refused(f"{code} {reason}") from error
        if code == 1012:
            raise Restarting(f"{code} {reason}") from error
        raise


def main():
    failures = 0
    while True:
        try:
            for message in run_stream():
                failures = 0
                print(f"received: {message}", flush=True)
        except Refused as refusal:
            print(f"closed: {refusal}", flush=True)
            sys.exit(1)
        except Restarting as restart:
            failures = 0
            print(f"closed: {restart}", flush=True)
        except (ConnectionClosed, InvalidHandshake, OSError) as error:
            print(f"closed: {error}", flush=True)
        time.sleep(random.random() * min(BACKOFF_S * 2**failures, BACKOFF_S_MAX))
        # 2 ** 1024 exceeds a float.
        failures = min(failures + 1, 30)


main()
