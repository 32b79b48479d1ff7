// A server with better-sse: three events for each connection, and 204 after the ninth.
import { createServer } from "node:http";
import { createSession } from "better-sse";

const pause = time => new Promise(resolve => setTimeout(resolve, time));
const server = createServer(async (request, response) => {
    if (request.url === "/redirect") {
        response.writeHead(307, { Location: "/stream" }).end();
        return;
    }
    const last = Number(request.headers["last-event-id"] ?? 0);
    if (last >= 9) {
        response.writeHead(204).end();
        return;
    }
    const session = await createSession(request, response, { retry: 1, serializer: text => text });
    for (let id = last + 1; id <= last + 3; id++) {
        session.push(`event ${id} ✅`, id % 2 ? "odd" : "message", String(id));
        await pause(5);
    }
    response.write(`id: ${last + 4}\ndata: unfinished`);
    setTimeout(() => response.destroy(), 20);
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
