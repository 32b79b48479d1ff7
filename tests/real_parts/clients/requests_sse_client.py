# URL: prints each event as a line of JSON.
import json
import sys
from datetime import timedelta

from requests_sse import EventSource

with EventSource(sys.argv[1], reconnection_time=timedelta(milliseconds=10), max_connect_retry=20) as source:
    for event in source:
        print(json.dumps({"type": event.type, "data": event.data, "id": event.last_event_id}), flush=True)
