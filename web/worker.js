// The trainer's thread: a host that takes commands and posts events, both as JSON text (src/run/protocol.rs).

import init, { WorkerHost } from "./moelab_web.js";

// Maximum milliseconds between two checks for messages, except for indivisible work.
const BUDGET = 20;

const fail = (error) => postMessage(JSON.stringify({ event: "failed", what: String(error?.message ?? error), reason: "failed" }));

const opened = init().then(() => new WorkerHost());
let isWorking = false;

// Gives control back to the browser, in which GPU work can complete. Timers of dedicated workers run at full speed in hidden tabs too.
const eventLoop = () => new Promise((resolve) => setTimeout(resolve, 1));

async function work(host) {
  isWorking = true;
  do {
    host.advance(BUDGET).forEach((event) => postMessage(event));
    await eventLoop();
  } while (!host.is_idle);
  isWorking = false;
}

onmessage = async ({ data }) => {
  try {
    const host = await opened;
    host.send(data);
    if (!isWorking) {
      await work(host);
    }
  } catch (error) {
    fail(error);
  }
};

// A panic in wasm may arrive here.
onunhandledrejection = (event) => fail(event.reason);
