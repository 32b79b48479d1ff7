# URL [reports-empty]: prints the text of each chunk of a chat as a line of JSON. With `reports-empty`, the messages come from
# the client's own decoder: its stream parses each as JSON, and ends at one without data.
import json
import sys

from openai import OpenAI
from openai._streaming import SSEDecoder

chats = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0).chat.completions
chat = {"model": "none", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
if sys.argv[2:] == ["reports-empty"]:
    with chats.with_streaming_response.create(**chat) as response:
        for message in SSEDecoder().iter_bytes(response.iter_bytes()):
            text = json.loads(message.data)["choices"][0]["delta"]["content"] if message.data else ""
            print(json.dumps({"data": text, "id": message.id or ""}), flush=True)
else:
    for chunk in chats.create(**chat):
        print(json.dumps({"data": chunk.choices[0].delta.content}), flush=True)
