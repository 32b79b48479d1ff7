// URL TYPE...: prints each event of these types as a line of JSON. Run it with `--eval` in the package's folder.
import { EventSource } from "eventsource";

const [, url, ...types] = process.argv;
const source = new EventSource(url);
for (const type of types) {
    source.addEventListener(type, ({ type, data, lastEventId }) => {
        process.stdout.write(JSON.stringify({ type, data, id: lastEventId }) + "\n");
    });
}
// Its wait before it reconnects does not keep Node running.
setInterval(() => {}, 1_000_000);
