# A server with sse-starlette: a queue for each stream.
import asyncio
import sys

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

streams = set()


async def subscribe(request):
    queue = asyncio.Queue(1024)
    streams.add(queue)

    async def events():
        try:
            while True:
                yield ServerSentEvent(await queue.get())
        finally:
            streams.discard(queue)

    return EventSourceResponse(events())


async def publish(request):
    text = (await request.body()).decode()
    for queue in streams:
        # A client that is too slow misses the event.
        if not queue.full():
            queue.put_nowait(text)
    return Response(status_code=204)


application = Starlette(
    routes=[Route("/events", subscribe), Route("/events", publish, methods=["POST"])]
)
uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", backlog=4096)
