// Uses the app as a person does who cannot see it: by its buttons and its status. Trains the quickstart, pauses, continues and stops it; after
// a reload of the page, resumes it from the browser's storage. Posts what the status said to ./report, once before the reload and once after it.

const element = (id) => document.getElementById(id);
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const press = (action) => element("actions").querySelector(`[data-action=${action}]`).click();
const status = () => element("status").textContent;
const violations = [];
const losses = {};

document.addEventListener("securitypolicyviolation", (event) => violations.push(`${event.effectiveDirective}: ${event.blockedURI}`));

// The update of the status, and its loss, which is kept.
function seen() {
  const [, update, loss] = status().match(/update (\d+) of \d+, training loss ([\d.]+)/) ?? [];
  if (update) {
    losses[update] = Number(loss);
  }
  return Number(update ?? 0);
}

async function until(condition) {
  while (!condition()) {
    seen();
    await sleep(5);
  }
}

const isOver = () => status().startsWith("quickstart: stopped") || status().startsWith("quickstart: failed");

async function post(more) {
  const { info } = await navigator.gpu.requestAdapter();
  const origins = performance.getEntriesByType("resource").map(({ name }) => new URL(name).origin);
  const others = [...new Set(origins)].filter((origin) => origin !== location.origin);
  const report = { adapter: info.description, violations, others, losses, status: status(), ...more };
  await fetch("report", { method: "POST", body: JSON.stringify(report) });
}

await until(() => element("loading").hidden);
if (sessionStorage.getItem("stopped")) {
  const stopped = Number(sessionStorage.getItem("stopped"));
  // The list of the runs has to arrive first.
  while (!status()) {
    press("resume");
    await sleep(100);
  }
  await until(() => isOver() || seen() >= stopped + 3);
  press("stop");
  await until(isOver);
  await post({ stopped });
} else {
  press("quickstart");
  await until(() => isOver() || seen() >= 5);
  press("pause");
  await until(() => isOver() || status().startsWith("quickstart: paused"));
  const before = seen();
  await sleep(1500);
  const paused = [before, seen()];
  press("continue");
  await until(() => isOver() || seen() >= before + 2);
  press("stop");
  await until(isOver);
  sessionStorage.setItem("stopped", seen());
  await post({ paused });
  location.reload();
}
