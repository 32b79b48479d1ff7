# URL [reports-empty]: prints each piece of a message's text as a line of JSON. With `reports-empty`, the events come from the
# client's own decoder: its stream skips those without a type or data.
import json
import sys

from anthropic import Anthropic, Stream

messages = Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0).messages
message = {"model": "none", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
if sys.argv[2:] == ["reports-empty"]:
    with messages.with_streaming_response.create(**message) as response:
        for event in Stream.raw_events(response.http_response):
            text = event.json()["delta"]["text"] if event.data else ""
            print(json.dumps({"data": text, "id": event.id or ""}), flush=True)
else:
    for event in messages.create(**message):
        print(json.dumps({"data": event.delta.text}), flush=True)
