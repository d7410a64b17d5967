// The worker of a page that `moelab serve` serves. It has no trainer: it passes the window's requests on to the server and the server's replies
// back, each a JSON text, as `worker.js` does. Requests that only read wait for a server that does not answer; others are refused then, because
// they may have been followed. The token is the fragment of its address.

const headers = { Authorization: `Bearer ${location.hash.slice(1)}` };
const READING = ["audit", "list", "look", "read", "watch"];
const AT_ONCE = 2; // Requests that read: a browser makes six connections to a server, which all its tabs share.
const LINES = 64; // Most requests in a body.
const PATIENCE = 30_000;
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const changing = [];
const reading = [];
let isChanging = false;
let readers = 0;
let denied = null;
let isLost = false;

const tell = (reply) => postMessage(JSON.stringify(reply));
const warn = (text) => tell({ reply: "warned", text });

// Refuses a request, as a workspace does.
function refuse(line, what) {
  const { request, command, run, study, name } = JSON.parse(line);
  const named = { session: command?.command, control: command?.command, study: `study ${command?.command}` };
  const about = run ?? study ?? name ?? command?.run ?? null;
  tell({ reply: "refused", request: named[request] ?? request, about, problem: { what, reason: "failed" } });
}

function lost() {
  if (!isLost && denied === null) {
    isLost = true;
    warn(`${location.host} does not answer since ${new Date().toLocaleTimeString()}: what is shown is from then. Trying again.`);
  }
}

function found() {
  if (isLost) {
    isLost = false;
    warn(`${location.host} answers again.`);
    pump();
  }
}

// The lines of a response; throws `TypeError` if there is none, and another error if the server refuses it.
async function ask(path, options) {
  const response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(PATIENCE) });
  const text = await response.text();
  if ([401, 403].includes(response.status)) {
    denied = text;
  } else if ([500, 502, 503, 504].includes(response.status)) {
    throw new TypeError(text);
  }
  if (!response.ok) {
    throw new Error(text);
  }
  return text === "" ? [] : text.split("\n");
}

const isUnanswered = (error) => error instanceof TypeError || error.name === "TimeoutError" || error.name === "AbortError";

async function post(lines, canWait) {
  try {
    const replies = await ask("requests", { method: "POST", body: lines.join("\n") });
    found();
    replies.forEach((reply) => postMessage(reply));
  } catch (error) {
    if (canWait && (isUnanswered(error) || denied !== null)) {
      reading.unshift(...lines);
      lost();
      return;
    }
    lines.forEach((line) => refuse(line, isUnanswered(error) ? `${location.host} does not answer` : error.message));
  }
}

// Sends what is waiting: requests that change something one after another, in their order.
function pump() {
  if (denied !== null) {
    changing.splice(0).forEach((line) => refuse(line, denied));
    return;
  }
  if (!isChanging && changing.length > 0) {
    isChanging = true;
    post(changing.splice(0, LINES), false).finally(() => {
      isChanging = false;
      pump();
    });
  }
  if (!isLost && readers < AT_ONCE && reading.length > 0) {
    readers += 1;
    post(reading.splice(0, LINES), true).finally(() => {
      readers -= 1;
      pump();
    });
  }
}

// Follows what the server's workspace reports, and notices when the server goes and comes.
async function follow() {
  let after = "";
  while (denied === null) {
    try {
      const [head, ...replies] = await ask(`replies?after=${after}`, {});
      const { next, are_lost } = JSON.parse(head);
      found();
      if (are_lost) {
        warn("Some messages of the server were lost: the list of the runs shows where they stand.");
      }
      replies.forEach((reply) => postMessage(reply));
      after = next;
      await sleep(100);
    } catch (error) {
      if (denied === null) {
        lost();
        await sleep(1000);
      }
    }
  }
  warn(denied);
  pump();
}

self.onmessage = ({ data }) => {
  (READING.includes(JSON.parse(data).request) ? reading : changing).push(data);
  pump();
};
follow();
