// A server with better-sse: one channel.
import { createServer } from "node:http";
import { createChannel, createSession } from "better-sse";

const channel = createChannel();
const server = createServer(async (request, response) => {
    if (request.method === "POST") {
        let body = "";
        request.setEncoding("utf8");
        for await (const text of request) {
            body += text;
        }
        channel.broadcast(body);
        response.writeHead(204).end();
    } else {
        channel.register(await createSession(request, response, { serializer: text => text }));
    }
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
