# URL: prints each event as a line of JSON.
import json
import sys

from ld_eventsource import SSEClient
from ld_eventsource.config import ErrorStrategy

client = SSEClient(sys.argv[1], initial_retry_delay=0.1, error_strategy=ErrorStrategy.always_continue())
for event in client.events:
    print(json.dumps({"type": event.event, "data": event.data, "id": event.last_event_id}), flush=True)
