// The page: starts and stops the trainer's worker and shows what it says as text.
//
// ?updates=N starts at once; ?report=1 also posts the outcome to ./report, for tests that serve the page.

import { remedy } from "./remedy.js";

const element = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const outcome = { adapter: null, losses: [], message: null, violations: [] };
let worker = null;

document.addEventListener("securitypolicyviolation", (event) => {
  outcome.violations.push(`${event.effectiveDirective}: ${event.blockedURI}`);
});

function say(text) {
  element("status").textContent = text;
}

function start(updates) {
  Object.assign(outcome, { adapter: null, losses: [], message: null });
  element("losses").textContent = "";
  element("start").disabled = true;
  element("stop").disabled = false;
  say("Looking for a GPU …");
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => receive[data.kind](data);
  worker.onerror = (event) => receive.failed({ message: event.message || "The trainer could not be loaded." });
  worker.postMessage({ updates });
}

function stop(text) {
  worker?.terminate();
  worker = null;
  element("start").disabled = false;
  element("stop").disabled = true;
  say(text);
}

function finish(text, message) {
  stop(text);
  outcome.message = message;
  if (query.has("report")) {
    fetch("report", { method: "POST", body: JSON.stringify(outcome) });
  }
}

// What the worker says, by kind.
const receive = {
  adapter({ name }) {
    outcome.adapter = name;
    say(`Training on ${name} …`);
  },
  loss({ update, loss }) {
    outcome.losses.push(loss);
    element("losses").append(`update ${String(update).padStart(5)}   loss ${loss.toFixed(4)}\n`);
  },
  done({ seconds }) {
    finish(`${outcome.losses.length} updates in ${seconds.toFixed(1)} s on ${outcome.adapter}.`, null);
  },
  unsupported() {
    const text = remedy(navigator.userAgent, isSecureContext);
    finish(text, text);
  },
  failed({ message }) {
    finish(`Training ended: ${message}`, message);
  },
};

element("start").onclick = () => {
  if (element("updates").reportValidity()) {
    start(element("updates").valueAsNumber);
  }
};
element("stop").onclick = () => stop(`Stopped after ${outcome.losses.length} updates.`);
if (query.has("updates")) {
  element("updates").value = query.get("updates");
  element("start").click();
}
