// The trainer behind a port: a host that takes messages and posts messages, both as JSON text. The first one tells which host: requests of the app
// (src/lab/workspace), {study: NAME} for commands of a study and its runs (src/lab/suite), others for those of one run (src/run/protocol.rs).
// The file of a run goes beside its message: [text, bytes].
//
// It is served by a worker (worker.js). Where workers have no access to the GPU, the window serves it itself, in short slices between
// its frames (app.js).

import init, { StudyHost, WorkerHost, WorkspaceHost } from "./moelab_web.js";
import { adapterName, remedy } from "./remedy.js";

// Maximum milliseconds between two checks for messages, except for indivisible work.
const BUDGET = 20;
// The same in a window, which has to draw in between.
const BUDGET_IN_WINDOW = 6;
// Milliseconds that a tab that is just being closed has to give up its study.
const PATIENCE = 3000;

const IN_WINDOW = "The trainer runs in the window itself, because this browser gives its workers no access to the GPU: the window may be less smooth.";

// Whether no other tab has this open; this worker has it from then on, until it ends.
const isFree = (name) => new Promise((resolve, reject) => {
  const hold = () => new Promise(() => resolve(true));
  const isBusy = (error) => (["AbortError", "TimeoutError"].includes(error.name) ? resolve(false) : reject(error));
  navigator.locks.request(name, { signal: AbortSignal.timeout(PATIENCE) }, hold).catch(isBusy);
});

// Gives control back to the browser, in which GPU work can complete. Timers of dedicated workers run at full speed in hidden tabs too.
const eventLoop = () => new Promise((resolve) => setTimeout(resolve, 1));

// The files of the log in this folder of the browser's private file system, and the bytes that are free.
async function files(path) {
  let folder = await navigator.storage.getDirectory();
  for (const name of path) {
    folder = await folder.getDirectoryHandle(name, { create: true });
  }
  const open = async (name) => {
    const file = await folder.getFileHandle(name, { create: true });
    if (!file.createSyncAccessHandle) {
      throw new DOMException("only workers can keep files open");
    }
    return file.createSyncAccessHandle();
  };
  const handles = [await open("log-0"), await open("log-1")];
  const { quota, usage } = await navigator.storage.estimate();
  return [...handles, quota - usage];
}

// Serves the trainer at a port. Returns what reports a failure that nobody awaits.
export function serve(port) {
  const isWindow = typeof document !== "undefined";
  const post = (event) => port.postMessage(JSON.stringify(event));
  // What a message of the host is: an event, or a reply.
  let kind = "event";
  let opened = null;
  let isWorking = false;
  const fail = (error) => post({ [kind]: "failed", what: String(error?.message ?? error), reason: "failed" });

  async function openStudy(study) {
    await init();
    const busy = `Another tab of this browser has the study “${study}” open: go on there, or close it and load this page again.`;
    if (!(await isFree(`moelab study ${study}`))) {
      throw new Error(busy);
    }
    try {
      return new StudyHost(study, ...(await files(["studies", study])));
    } catch (error) {
      if (error.name === "NoModificationAllowedError") {
        throw new Error(busy);
      }
      if (!(error instanceof DOMException)) {
        throw error;
      }
      post({ event: "warning", words: `This browser gives the page no storage (${error.message}): the study is lost with the tab.` });
      return new StudyHost(study);
    }
  }

  // The runs and studies of this browser. Where it gives the page no storage, they are lost with the tab.
  async function openWorkspace() {
    kind = "reply";
    await init();
    if (!(await isFree("moelab workspace"))) {
      throw new Error("Another tab of this browser has moelab open: go on there, or close it and load this page again.");
    }
    const adapter = await adapterName();
    const advice = adapter ? undefined : remedy(navigator.userAgent, isSecureContext);
    if (isWindow) {
      post({ reply: "warned", text: IN_WINDOW });
    }
    try {
      return new WorkspaceHost(adapter ?? "", advice, ...(await files(["workspace"])));
    } catch (error) {
      if (!(error instanceof DOMException)) {
        throw error;
      }
      const text = `This browser gives the page no storage (${error.message}): runs are lost with the tab. Download what you want to keep.`;
      post({ reply: "warned", text });
      return new WorkspaceHost(adapter ?? "", advice);
    }
  }

  async function work(host) {
    isWorking = true;
    do {
      for (const text of host.advance(isWindow ? BUDGET_IN_WINDOW : BUDGET)) {
        const file = text.startsWith('{"reply":"exported"') ? host.archive() : undefined;
        port.postMessage(file ? [text, file] : text, file ? [file.buffer] : []);
      }
      await eventLoop();
    } while (!host.is_idle);
    isWorking = false;
  }

  port.onmessage = async ({ data }) => {
    if (data.probe) {
      port.postMessage({ adapter: await adapterName() });
      return;
    }
    const [text, file] = Array.isArray(data) ? data : [data];
    try {
      const isRequest = typeof text === "string" && text.startsWith('{"request"');
      opened ??= text.study ? openStudy(text.study) : isRequest ? openWorkspace() : init().then(() => new WorkerHost());
      const host = await opened;
      if (typeof text !== "string") {
        return;
      }
      if (file) {
        host.send_file(text, file);
      } else {
        host.send(text);
      }
      if (!isWorking) {
        await work(host);
      }
    } catch (error) {
      fail(error);
    }
  };
  return { failed: (event) => fail(event.reason) };
}
