// URL [reports-empty]: prints each message as a line of JSON. Parses each message's data as JSON, as programs that use this
// client do; with `reports-empty`, a message without data is printed too. Run it with `--eval` in the package's folder.

// The client is written for browsers, and uses these.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

const [, url, reportsEmpty] = process.argv;
await fetchEventSource(url, {
    onmessage({ data, id }) {
        const value = reportsEmpty && data === "" ? "" : JSON.parse(data);
        process.stdout.write(JSON.stringify({ data: value, id }) + "\n");
    },
    // It reconnects unless this throws.
    onerror: (error) => console.error(`reconnects after ${error}`),
});
