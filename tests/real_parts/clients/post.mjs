// URL: posts with Node's fetch; prints a line of JSON per response. The last body is a stream, so it is chunked.
const url = process.argv.at(-1);

const post = async (body) => {
  const response = await fetch(url, { method: "POST", body, duplex: "half", signal: AbortSignal.timeout(10_000) });
  await response.text();
  console.log(JSON.stringify({ status: response.status }).replace(":", ": "));
};

await post("hello");
await post(new URLSearchParams({ a: "b c" }));
await post(new ReadableStream({
  async start(controller) {
    for (const part of ["in ", "chunks"]) {
      controller.enqueue(new TextEncoder().encode(part));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    controller.close();
  },
}));
