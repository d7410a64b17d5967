// The trainer's thread: loads the module, trains, and tells the page in plain messages of a `kind`.

import init, { run } from "./moelab_web.js";

const tell = (kind, fields = {}) => postMessage({ kind, ...fields });

const fail = (error) => tell("failed", { message: String(error?.message ?? error) });

// navigator.gpu may be missing, give no adapter, or throw: all three mean the same to the reader.
async function adapterName() {
  try {
    const { info } = await navigator.gpu.requestAdapter();
    return [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ") || "an unnamed GPU";
  } catch {
    return null;
  }
}

async function config() {
  const response = await fetch("quickstart.toml");
  if (!response.ok) {
    throw new Error(`quickstart.toml: ${response.status} ${response.statusText}`);
  }
  return response.text();
}

onmessage = async ({ data: { updates } }) => {
  const name = await adapterName();
  if (name === null) {
    return tell("unsupported");
  }
  tell("adapter", { name });
  try {
    const [toml] = await Promise.all([config(), init()]);
    const start = performance.now();
    await run(toml, updates, (update, loss) => tell("loss", { update, loss }));
    tell("done", { seconds: (performance.now() - start) / 1000 });
  } catch (error) {
    fail(error);
  }
};

// A panic in wasm leaves run()'s promise open for ever and arrives here.
onunhandledrejection = (event) => fail(event.reason);
