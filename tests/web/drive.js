// Uses the study on the page as a person does, and posts what the page shows to ./report.
//
// ?pause pauses and continues it, and lets a second worker ask for it at the end. ?kill posts while it is under way, and, if there is a
// study already when the page is loaded, continues that.

const element = (id) => document.getElementById(id);
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const scenario = location.search.slice(1);
const violations = [];
const blobs = new Map();

document.addEventListener("securitypolicyviolation", (event) => violations.push(`${event.effectiveDirective}: ${event.blockedURI}`));

// What is offered for download, by address.
const createObjectURL = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  const address = createObjectURL.call(URL, blob);
  blobs.set(address, blob);
  return address;
};

const rows = () => [...element("runs").tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent));
const done = () => rows().filter((row) => row[4] === "done").map(([run]) => run);

async function until(condition) {
  while (!condition()) {
    await sleep(20);
  }
}

async function post(more) {
  const files = {};
  for (const { download, href } of element("files").querySelectorAll("a")) {
    const text = await blobs.get(href).text();
    files[download] = download.endsWith(".csv") ? text : text.slice(0, 1000);
  }
  const { info } = await navigator.gpu.requestAdapter();
  const shown = { verdict: element("verdict").textContent, events: element("events").textContent, rows: rows(), done: done() };
  const report = { adapter: info.description, violations, files, ...shown, ...more };
  await fetch("report", { method: "POST", body: JSON.stringify(report) });
}

async function end(more) {
  await until(() => element("verdict").textContent && element("files").querySelector("a"));
  await post(more);
}

// What a second worker is told that asks for the same study.
const ask = () => new Promise((resolve) => {
  const worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => resolve(JSON.parse(data).what);
  worker.postMessage({ study: element("name").value });
});

async function pause() {
  element("go").click();
  await until(() => rows().some((row) => row[4] === "training"));
  element("pause").click();
  await until(() => element("pause").textContent === "Continue");
  const before = JSON.stringify(rows());
  await sleep(1500);
  const after = JSON.stringify(rows());
  element("pause").click();
  await until(() => element("verdict").textContent);
  await end({ paused: { before, after }, second: await ask() });
}

async function isStored() {
  const studies = await (await navigator.storage.getDirectory()).getDirectoryHandle("studies", { create: true });
  return !(await studies.keys().next()).done;
}

async function kill() {
  if (await isStored()) {
    // The rows follow the button in an event of their own.
    await until(() => element("go").textContent === "Continue" && rows().length > 0);
    const found = done();
    element("go").click();
    await end({ found });
  } else {
    element("go").click();
    await until(() => done().length >= 3 && rows().some((row) => row[4] === "training"));
    await post({});
  }
}

await until(() => element("toml").value);
await (scenario === "pause" ? pause() : kill());
