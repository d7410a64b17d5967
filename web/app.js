// Opens the app: the window is a canvas that the module `moelab_page` draws, the trainer is a worker of its own.

import init, { Page } from "./moelab_page.js";

const element = (id) => document.getElementById(id);
const MODULE = "moelab_page_bg.wasm";

const fail = (text) => {
  element("text").textContent = text;
  element("loading").append(Object.assign(document.createElement("a"), { href: "text.html", textContent: "The page without a canvas" }));
  element("bar").hidden = true;
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

try {
  await init({ module_or_path: fetched() });
  const page = new Page();
  await page.open(element("canvas"));
  element("loading").hidden = true;
  element("canvas").focus();
  element("actions").addEventListener("click", ({ target }) => page.act(target.dataset.action ?? ""));
  // A panic stops the window; the trainer goes on in its worker until the page is closed.
  setInterval(() => {
    const problem = page.problem();
    if (problem && element("loading").hidden) {
      element("loading").hidden = false;
      element("canvas").hidden = true;
      fail(`The window has stopped: ${problem} Load the page again: what was saved is still there.`);
    }
  }, 1000);
} catch (error) {
  fail(`The window cannot be opened: ${error?.message ?? error}`);
}
