# URL: posts over one connection with a session of requests; prints a line of JSON per response.
import json
import sys

import requests

with requests.Session() as session:
    bodies = [str(n) for n in range(100)] + [iter([b"in ", b"chunks"])]
    for body in bodies:
        response = session.post(sys.argv[1], data=body, timeout=10)
        print(json.dumps({"status": response.status_code}), flush=True)
