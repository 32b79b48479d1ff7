# A server with sse-starlette: three events for each connection, and 204 after the ninth.
import asyncio
import socket

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route


async def stream(request):
    last = int(request.headers.get("Last-Event-ID", 0))
    if last >= 9:
        return Response(status_code=204)

    async def events():
        for id in range(last + 1, last + 4):
            yield {"id": str(id), "event": "odd" if id % 2 else "message", "data": f"event {id} ✅", "retry": 1}
            await asyncio.sleep(0.005)
        # The server breaks the connection within its chunked body.
        raise RuntimeError("broken")

    return EventSourceResponse(events())


def redirect(request):
    return RedirectResponse("/stream")


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
application = Starlette(routes=[Route("/stream", stream), Route("/redirect", redirect)])
uvicorn.Server(uvicorn.Config(application, log_level="critical")).run(sockets=[listener])
