// Runs before the page's own scripts, and keeps what the trainer says to the page, and what the page was refused.

window.seen = { losses: {}, ended: {}, incidents: {}, rewound: [], refused: [], warned: [], listed: null, port: null, looked: {}, judged: null, progress: null, statuses: [], violations: [], persists: 0, created: 0, createdLater: 0 };

document.addEventListener("securitypolicyviolation", (event) => seen.violations.push(`${event.effectiveDirective}: ${event.blockedURI}`));

// The browser is asked to keep what is stored. A headless one refuses.
const persist = StorageManager.prototype.persist;
StorageManager.prototype.persist = function () {
  seen.persists += 1;
  return persist.call(this);
};

// Kernels that the window itself asks for: asynchronously, or so that it waits. (A worker has its own.)
const { createComputePipeline, createComputePipelineAsync } = globalThis.GPUDevice?.prototype ?? {};
if (createComputePipeline) {
  GPUDevice.prototype.createComputePipeline = function (descriptor) {
    seen.created += 1;
    return createComputePipeline.call(this, descriptor);
  };
  GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
    seen.createdLater += 1;
    return createComputePipelineAsync.call(this, descriptor);
  };
}

function note({ data }) {
  const text = Array.isArray(data) ? data[0] : data;
  if (typeof text !== "string") {
    return;
  }
  const message = JSON.parse(text);
  const { run, event } = message;
  const kind = event?.event;
  if (message.reply === "listed") {
    seen.listed = message;
  } else if (message.reply === "looked") {
    seen.looked[message.run] = message;
  } else if (message.reply === "refused") {
    seen.refused.push(message.problem.what);
  } else if (message.reply === "warned") {
    seen.warned.push(message.text);
  } else if (message.reply === "study" && kind === "judged") {
    seen.judged = event.text;
  } else if (message.reply === "study" && kind === "standing") {
    seen.progress = event.progress;
  } else if (message.reply === "session" && kind === "series") {
    const losses = (seen.losses[run] ??= {});
    event.updates.forEach((update, row) => { losses[update] = Number(event.columns[0].values[row]); });
  } else if (message.reply === "session" && kind === "ended") {
    seen.ended[run] = event;
  } else if (message.reply === "session" && kind === "failed") {
    seen.ended[run] = { exit: "failed", detail: event.what };
  } else if (message.reply === "session" && kind === "rewound") {
    seen.rewound.push(event);
  } else if (message.reply === "session" && kind === "incident") {
    (seen.incidents[run] ??= []).push(event);
  }
}

for (const Kind of [Worker, MessagePort]) {
  const post = Kind.prototype.postMessage;
  Kind.prototype.postMessage = function (...message) {
    if (!this.isObserved) {
      this.isObserved = true;
      seen.port = this;
      this.addEventListener("message", note);
    }
    return post.apply(this, message);
  };
}

document.addEventListener("DOMContentLoaded", () => {
  const status = document.getElementById("status");
  if (status) {
    new MutationObserver(() => seen.statuses.push(status.textContent)).observe(status, { childList: true, characterData: true, subtree: true });
  }
});
