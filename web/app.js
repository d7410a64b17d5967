// Opens the app: the window is a canvas that the module `moelab_page` draws, the trainer is a worker of its own.
//
// ?main-thread trains in the window itself, as where workers have no access to the GPU.

import init, { Page } from "./moelab_page.js";
import { adapterName } from "./remedy.js";

const element = (id) => document.getElementById(id);
const MODULE = "moelab_page_bg.wasm";
// Milliseconds between two looks at the storage.
const STORAGE = 5000;
// Milliseconds after which graphics that were lost are not expected to come back.
const PATIENCE = 15000;

// Covers the window with a text.
const cover = (text) => {
  element("text").textContent = text;
  element("loading").hidden = false;
  element("bar").hidden = true;
};

const fail = (text) => {
  cover(text);
  if (!element("loading").querySelector("a")) {
    element("loading").append(Object.assign(document.createElement("a"), { href: "text.html", textContent: "The page without a canvas" }));
  }
};

// The module, with a bar that shows how much of it has arrived.
async function fetched() {
  const response = await fetch(MODULE);
  if (!response.ok) {
    throw new Error(`${MODULE}: ${response.status} ${response.statusText}`);
  }
  const length = Number(response.headers.get("Content-Length"));
  const parts = [];
  let arrived = 0;
  for await (const part of response.body) {
    parts.push(part);
    arrived += part.length;
    if (length) {
      element("bar").value = arrived / length;
    }
  }
  return new Response(new Blob(parts), { headers: { "Content-Type": "application/wasm" } });
}

// A worker that has access to the GPU, or has none as the window has none; else null.
async function worker() {
  try {
    const worker = new Worker("worker.js", { type: "module" });
    const found = new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data.adapter);
      worker.onerror = () => resolve(undefined);
    });
    worker.postMessage({ probe: true });
    const [there, here] = [await found, await adapterName()];
    worker.onmessage = worker.onerror = null;
    if (there || (there === null && !here)) {
      return worker;
    }
    worker.terminate();
  } catch {
    // No workers at all, or none with modules.
  }
  return null;
}

// The server `moelab serve` says in the page that it is one, and what it lets the page do.
const access = document.querySelector("meta[name=moelab-serve]")?.content;

// The way to such a server. Its token comes with the address, and is kept out of it and of the history from then on; a reload finds it in the tab's
// storage.
function server() {
  let token = new URLSearchParams(location.hash.slice(1)).get("token");
  try {
    if (token) {
      sessionStorage.setItem("token", token);
      history.replaceState(null, "", location.pathname);
    }
    token ??= sessionStorage.getItem("token");
  } catch {
    // Without storage a reload needs the printed address again.
  }
  return new Worker(`remote.js#${token ?? ""}`, { type: "module" });
}

// The way to the trainer.
async function trainer() {
  if (access !== undefined) {
    return server();
  }
  const found = new URLSearchParams(location.search).has("main-thread") ? null : await worker();
  if (found) {
    return found;
  }
  const { serve } = await import("./trainer.js");
  const { port1, port2 } = new MessageChannel();
  serve(port1);
  return port2;
}

// The GPU process of a browser can crash: then the canvas is empty until the browser gives its graphics back, and is opened again. The trainer has
// a device of its own, which it replaces itself.
function watchGraphics(page, canvas) {
  let timer = null;
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    page.close();
    cover("The browser starts its graphics again …");
    clearTimeout(timer);
    timer = setTimeout(() => fail("The browser does not give its graphics back: load the page again, and resume the run."), PATIENCE);
  });
  canvas.addEventListener("webglcontextrestored", async () => {
    clearTimeout(timer);
    try {
      await page.open(canvas);
      element("loading").hidden = true;
    } catch (error) {
      fail(`The window cannot be opened again: ${error?.message ?? error}`);
    }
  });
}

async function add(page, files) {
  for (const file of files) {
    page.add(file.name, new Uint8Array(await file.arrayBuffer()));
  }
}

async function noteStorage(page) {
  const { usage, quota } = (await navigator.storage?.estimate?.()) ?? {};
  if (quota) {
    page.note_storage(usage, quota);
  }
}

try {
  const [port] = await Promise.all([trainer(), init({ module_or_path: fetched() })]);
  const canvas = element("canvas");
  const page = new Page(port, access && `${location.host}, ${access}`);
  watchGraphics(page, canvas);
  await page.open(canvas);
  element("loading").hidden = true;
  canvas.focus();
  element("actions").addEventListener("click", ({ target }) => page.act(target.dataset.action ?? ""));
  element("file").addEventListener("change", async ({ target }) => {
    await add(page, target.files);
    target.value = "";
  });
  if (access === undefined) {
    await noteStorage(page);
    setInterval(() => noteStorage(page), STORAGE);
  }
  // A panic stops the window; the trainer goes on in its worker until the page is closed.
  setInterval(() => {
    const problem = page.problem();
    if (problem && element("loading").hidden) {
      canvas.hidden = true;
      fail(`The window has stopped: ${problem} Load the page again: what was saved is still there.`);
    }
  }, 1000);
} catch (error) {
  fail(`The window cannot be opened: ${error?.message ?? error}`);
}
