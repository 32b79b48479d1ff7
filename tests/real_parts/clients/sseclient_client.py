# URL: prints each message as a line of JSON.
import json
import sys

from sseclient import SSEClient

# The client logs there why it reconnects.
output, sys.stdout = sys.stdout, sys.stderr
for message in SSEClient(sys.argv[1], retry=100):
    print(json.dumps({"data": message.data, "id": message.id or ""}), file=output, flush=True)
