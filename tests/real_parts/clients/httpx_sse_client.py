# URL: prints each message as a line of JSON. Reconnects and resumes by the recipe of the client's documentation.
import json
import sys
import time

import httpx
from httpx_sse import connect_sse

headers = {}
with httpx.Client(timeout=None) as client:
    while True:
        try:
            with connect_sse(client, "GET", sys.argv[1], headers=dict(headers)) as source:
                for message in source.iter_sse():
                    print(json.dumps({"data": message.data, "id": message.id}), flush=True)
                    headers["Last-Event-ID"] = message.id
        except httpx.TransportError as error:
            print(f"reconnects after {error!r}", file=sys.stderr)
        time.sleep(0.1)
