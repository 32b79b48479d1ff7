// URL COUNT: so many clients; prints which has opened its stream, and when, in ms since 1970, each time that one does.
import { EventSource } from "eventsource";

const [, url, count] = process.argv;
for (let n = 0; n < Number(count); n++) {
    new EventSource(url).addEventListener("open", () => process.stdout.write(`${n} ${Date.now()}\n`));
}
// A wait before a reconnect does not keep Node from ending.
setInterval(() => {}, 1_000_000);
