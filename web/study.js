// A study on the page: sends commands to its worker and shows the events that come back (src/lab/suite). The worker decides and
// words everything; here are only the elements of the page.

import { adapterName, remedy } from "./remedy.js";

const element = (id) => document.getElementById(id);
const STUDY = "suite.toml";
// The configs that a study can refer to, as far as none of these names was opened with it.
const CONFIGS = ["base.toml", "quickstart.toml"];
const TYPES = { csv: "text/csv", html: "text/html", md: "text/markdown", svg: "image/svg+xml" };

let worker = null;
let own = {};
let isRunning = false;
let isPaused = false;

const say = (text) => { element("standing").textContent = text; };
const send = (command) => worker?.postMessage(JSON.stringify(command));

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) {
    throw new Error(`${name}: ${response.status} ${response.statusText}`);
  }
  return response.text();
}

// The folder of all studies; null where the browser gives the page no storage.
async function folder() {
  try {
    return await (await navigator.storage.getDirectory()).getDirectoryHandle("studies", { create: true });
  } catch {
    return null;
  }
}

// The study that the page showed last, after setting it if one is given; null where the browser gives the page no storage.
function lastShown(study) {
  try {
    if (study) {
      localStorage.setItem("study", study);
    }
    return localStorage.getItem("study");
  } catch {
    return null;
  }
}

async function listStored() {
  const names = [];
  for await (const name of (await folder())?.keys() ?? []) {
    names.push(name);
  }
  element("stored").replaceChildren(...names.sort().map((name) => Object.assign(document.createElement("option"), { value: name })));
  return names;
}

// What the buttons offer: "none" without a study, "open", "running".
function offer(state, label = "Start") {
  isRunning = state === "running";
  element("go").disabled = element("name").disabled = isRunning;
  element("go").textContent = label;
  element("pause").disabled = element("halt").disabled = !isRunning;
  element("pause").textContent = isPaused ? "Continue" : "Pause";
  element("remove").hidden = state !== "open";
}

function close() {
  worker?.terminate();
  worker = null;
  isPaused = false;
  offer("none");
}

function show({ study }) {
  close();
  for (const id of ["question", "audit", "verdict", "events"]) {
    element(id).textContent = "";
  }
  element("files").replaceChildren();
  element("runs").hidden = element("done").hidden = element("history").hidden = true;
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => receive(JSON.parse(data));
  worker.onerror = (event) => receive({ event: "failed", what: event.message || "The trainer could not be loaded." });
  worker.postMessage({ study });
  lastShown(study);
}

// Starts the study that the page shows, or goes on with it.
async function go() {
  const study = element("name").value;
  if (!element("name").reportValidity()) {
    return;
  }
  if (!(await adapterName())) {
    return say(remedy(navigator.userAgent, isSecureContext));
  }
  navigator.storage?.persist?.();
  if (worker && element("go").textContent === "Continue") {
    send({ command: "run", retry_failed: true });
    return offer("running");
  }
  try {
    const files = { [STUDY]: element("toml").value, ...own };
    for (const name of CONFIGS.filter((name) => !(name in files))) {
      files[name] = await fetched(name);
    }
    show({ study });
    offer("running");
    send({ command: "open", study: STUDY, files });
    send({ command: "run" });
  } catch (error) {
    say(String(error?.message ?? error));
  }
}

const on = {
  opened({ question, runs, over }) {
    element("question").textContent = question;
    element("history").hidden = element("runs").hidden = element("done").hidden = false;
    if (!isRunning) {
      offer("open", over < runs ? "Continue" : "Start");
      if (over === runs) {
        send({ command: "judge" });
        send({ command: "report" });
      }
    }
  },
  standing({ progress, line, rows }) {
    element("done").value = progress.done;
    say(isPaused ? `Paused. ${line}` : line);
    const cell = (text) => Object.assign(document.createElement("td"), { textContent: text });
    const row = (cells) => {
      const line = document.createElement("tr");
      line.append(...cells.map(cell));
      return line;
    };
    element("runs").tBodies[0].replaceChildren(...rows.map(row));
  },
  paused() {
    isPaused = true;
    offer("running");
  },
  continued() {
    isPaused = false;
    offer("running");
  },
  ended({ is_complete }) {
    isPaused = false;
    offer("open", is_complete ? "Start" : "Continue");
    send({ command: "report" });
  },
  judged({ text, words }) {
    element("audit").textContent = words ?? "";
    element("verdict").textContent = text;
  },
  reported({ files }) {
    const link = ([name, text]) => {
      const blob = new Blob([text], { type: TYPES[name.split(".").pop()] });
      return Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name, textContent: name });
    };
    element("files").replaceChildren("Report: ", ...files.map(link));
  },
  rejected({ command, problem }) {
    if (["open", "reopen"].includes(command)) {
      close();
    } else if (command === "run") {
      offer("open", "Start");
    }
    // A study whose page was left before it was opened.
    say(command === "reopen" ? "" : problem.what);
  },
  failed({ what }) {
    close();
    say(what);
  },
};

function receive(event) {
  if (event.words) {
    element("events").append(`${event.words}\n`);
  }
  on[event.event]?.(event);
}

// The file that asks a question is the study.
async function open(files) {
  own = {};
  for (const file of files) {
    const text = await file.text();
    if (/^\s*question\s*=/m.test(text)) {
      element("toml").value = text;
      element("name").value = file.name.replace(/\.toml$/, "").replace(/[^A-Za-z0-9_-]/g, "-");
    } else {
      own[file.name] = text;
    }
  }
}

element("go").onclick = go;
element("pause").onclick = () => {
  element("pause").disabled = true;
  send({ command: isPaused ? "continue" : "pause" });
};
element("halt").onclick = () => {
  element("pause").disabled = element("halt").disabled = true;
  say("Stopping …");
  send({ command: "stop" });
};
element("remove").onclick = async () => {
  close();
  say("");
  element("runs").hidden = element("done").hidden = true;
  try {
    await (await folder())?.removeEntry(element("name").value, { recursive: true });
  } catch (error) {
    say(`The study could not be removed: ${error.message}`);
  }
  await listStored();
};
element("open").onchange = ({ target }) => open(target.files);
element("name").onchange = async () => {
  const study = element("name").value;
  if ((await listStored()).includes(study)) {
    show({ study });
    send({ command: "reopen" });
  } else {
    close();
  }
};

element("toml").value = await fetched(STUDY);
const stored = await listStored();
if (stored.length > 0) {
  const last = lastShown();
  element("name").value = stored.includes(last) ? last : stored[0];
  element("name").onchange();
}
