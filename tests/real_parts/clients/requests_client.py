# URL: prints each message's data as a line of JSON, read line by line, as in programs without a client for event streams.
import json
import sys

import requests

with requests.get(sys.argv[1], headers={"Accept": "text/event-stream"}, stream=True) as response:
    data = []
    for line in response.iter_lines(decode_unicode=True):
        if line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif not line and data:
            print(json.dumps({"data": "\n".join(data)}), flush=True)
            data = []
