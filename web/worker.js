// The trainer's thread: a host that takes messages and posts messages, both as JSON text. The first one tells which host: requests of the app
// (src/lab/workspace), {study: NAME} for commands of a study and its runs (src/lab/suite), others for those of one run (src/run/protocol.rs).

import init, { StudyHost, WorkerHost, WorkspaceHost } from "./moelab_web.js";
import { adapterName, remedy } from "./remedy.js";

// Maximum milliseconds between two checks for messages, except for indivisible work.
const BUDGET = 20;
// Milliseconds that a tab that is just being closed has to give up its study.
const PATIENCE = 3000;

const post = (event) => postMessage(JSON.stringify(event));
const fail = (error) => post({ [kind]: "failed", what: String(error?.message ?? error), reason: "failed" });

let opened = null;
// What a message of the host is: an event, or a reply.
let kind = "event";
let isWorking = false;

// Whether no other tab has this open; this worker has it from then on, until it ends.
const isFree = (name) => new Promise((resolve, reject) => {
  const hold = () => new Promise(() => resolve(true));
  const isBusy = (error) => (["AbortError", "TimeoutError"].includes(error.name) ? resolve(false) : reject(error));
  navigator.locks.request(name, { signal: AbortSignal.timeout(PATIENCE) }, hold).catch(isBusy);
});

async function openStudy(study) {
  await init();
  const busy = `Another tab of this browser has the study “${study}” open: go on there, or close it and load this page again.`;
  if (!(await isFree(`moelab study ${study}`))) {
    throw new Error(busy);
  }
  try {
    const root = await navigator.storage.getDirectory();
    const studies = await root.getDirectoryHandle("studies", { create: true });
    const folder = await studies.getDirectoryHandle(study, { create: true });
    const open = async (name) => (await folder.getFileHandle(name, { create: true })).createSyncAccessHandle();
    const files = [await open("log-0"), await open("log-1")];
    const { quota, usage } = await navigator.storage.estimate();
    return new StudyHost(study, ...files, quota - usage);
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
  try {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("workspace", { create: true });
    const open = async (name) => (await folder.getFileHandle(name, { create: true })).createSyncAccessHandle();
    const files = [await open("log-0"), await open("log-1")];
    const { quota, usage } = await navigator.storage.estimate();
    return new WorkspaceHost(adapter ?? "", advice, ...files, quota - usage);
  } catch (error) {
    if (!(error instanceof DOMException)) {
      throw error;
    }
    post({ reply: "warned", text: `This browser gives the page no storage (${error.message}): runs are lost with the tab.` });
    return new WorkspaceHost(adapter ?? "", advice);
  }
}

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
    const isRequest = typeof data === "string" && data.startsWith('{"request"');
    opened ??= data.study ? openStudy(data.study) : isRequest ? openWorkspace() : init().then(() => new WorkerHost());
    const host = await opened;
    if (typeof data !== "string") {
      return;
    }
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
