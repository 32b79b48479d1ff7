// URL COUNT: runs COUNT clients. Each time one opens its stream, prints its number and the time, in ms since 1970.
import { EventSource } from "eventsource";

const [, url, count] = process.argv;
for (let n = 0; n < Number(count); n++) {
    new EventSource(url).addEventListener("open", () => process.stdout.write(`${n} ${Date.now()}\n`));
}
// A wait before a reconnect does not keep Node running.
setInterval(() => {}, 1_000_000);
