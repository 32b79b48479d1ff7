# URL: prints each sample of the statistics there as a line of JSON.
import json
import sys
from urllib.request import urlopen

from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.parser import text_string_to_metric_families

with urlopen(sys.argv[1]) as answer:
    assert answer.headers["content-type"] == CONTENT_TYPE_LATEST, answer.headers["content-type"]
    text = answer.read().decode()
for family in text_string_to_metric_families(text):
    for sample in family.samples:
        print(json.dumps({"type": family.type, "name": sample.name, "labels": sample.labels, "value": sample.value}))
