// A single run on the page: sends commands to the trainer's worker and shows the events that come back (src/run/protocol.rs).
//
// ?updates=N starts at once; ?report=1 also posts the outcome to ./report, for tests that serve the page.

import { adapterName, remedy } from "./remedy.js";

const element = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const outcome = { adapter: null, losses: [], message: null, violations: [] };
let worker = null;
let isStopping = false;
let started = 0;

document.addEventListener("securitypolicyviolation", (event) => {
  outcome.violations.push(`${event.effectiveDirective}: ${event.blockedURI}`);
});

function say(text) {
  element("status").textContent = text;
}

const send = (command) => worker.postMessage(JSON.stringify(command));

async function start(updates) {
  Object.assign(outcome, { adapter: null, losses: [], message: null });
  element("losses").textContent = "";
  element("start").disabled = true;
  element("stop").disabled = false;
  say("Looking for a GPU …");
  started = performance.now();
  isStopping = false;
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    receive[event.event]?.(event);
  };
  worker.onerror = (event) => receive.failed({ what: event.message || "The trainer could not be loaded." });
  try {
    const response = await fetch("quickstart.toml");
    if (!response.ok) {
      throw new Error(`quickstart.toml: ${response.status} ${response.statusText}`);
    }
    // The page only shows losses, and the first one should appear soon.
    const sets = [`train.updates=${updates}`, "train.evaluation.every=0", "train.checkpoint.every=0", "sample.prompts=[]"];
    send({ command: "subscribe", series: ["train_ce"] });
    send({ command: "start", run: "page", config: await response.text(), sets });
  } catch (error) {
    receive.failed({ what: String(error?.message ?? error) });
  }
}

function close(text) {
  worker?.terminate();
  worker = null;
  element("start").disabled = false;
  element("stop").disabled = true;
  say(text);
}

function finish(text, message) {
  close(text);
  outcome.message = message;
  if (query.has("report")) {
    fetch("report", { method: "POST", body: JSON.stringify(outcome) });
  }
}

const phases = {
  device: "Looking for a GPU …",
  data: "Preparing the text …",
  kernels: "Compiling kernels",
  model: "Setting up the model …",
  baselines: "Fitting the baselines …",
  folder: "Starting …",
};

// The events that the page shows.
const receive = {
  opening({ phase, done, total }) {
    say(total > 0 ? `${phases[phase]}: ${done} of ${total}` : phases[phase]);
  },
  async opened({ adapter }) {
    // Browsers do not provide the adapter's name to a worker's module.
    outcome.adapter = adapter || (await adapterName());
    say(`Training on ${outcome.adapter} …`);
  },
  series({ updates, columns: [{ values }] }) {
    updates.forEach((update, row) => {
      const loss = Number(values[row]);
      outcome.losses.push(loss);
      element("losses").append(`update ${String(update).padStart(5)}   loss ${loss.toFixed(4)}\n`);
    });
  },
  ended({ exit, detail, updates }) {
    const failed = ["completed", "early_stopped", "interrupted"].includes(exit) ? null : (detail ?? exit);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    finish(failed ? `Training ended: ${failed}` : `${updates} updates in ${seconds} s on ${outcome.adapter}.`, failed);
  },
  async failed({ what }) {
    const text = (await adapterName()) ? `Training ended: ${what}` : remedy(navigator.userAgent, isSecureContext);
    finish(text, text);
  },
};

// The first click stops the run cleanly, the second terminates the worker.
function stop() {
  if (isStopping) {
    return close(`Stopped after ${outcome.losses.length} updates.`);
  }
  isStopping = true;
  say("Stopping …");
  send({ command: "stop" });
}

element("start").onclick = () => {
  if (element("updates").reportValidity()) {
    start(element("updates").valueAsNumber);
  }
};
element("stop").onclick = stop;
if (query.has("updates")) {
  element("updates").value = query.get("updates");
  element("start").click();
}
