// What a user can do whose browser provides no WebGPU adapter. Browsers do not report the reason, so the advice
// depends on the browser.

const MISSING = "This browser gives no access to a GPU through WebGPU.";
const NATIVE = "moelab also runs without a browser: `cargo xtask run`.";

const REMEDIES = [
  // [sign in the user agent, what to do]; the first sign found counts, and Edge and Opera also sign as Chrome.
  ["Firefox/", "In Firefox, open about:config, set dom.webgpu.enabled and dom.webgpu.workers.enabled to true, and restart it; on Windows and on Macs a current Firefox needs neither."],
  ["Edg/", "In Edge, update to the newest version, turn on “Use graphics acceleration when available” in Settings › System, and look at edge://gpu; on Linux also enable edge://flags/#enable-unsafe-webgpu."],
  ["Chrome/", "In Chrome, update to the newest version, turn on “Use graphics acceleration when available” in Settings › System, and look at chrome://gpu; on Linux also enable chrome://flags/#enable-unsafe-webgpu."],
  ["Safari/", "In Safari, update to version 26 or newer (macOS 26, iOS 26); older ones have it in Develop › Feature Flags › WebGPU."],
];

const OTHER = "Current versions of Chrome, Edge, Firefox and Safari have WebGPU.";

// The name of the adapter. navigator.gpu may be missing, return no adapter, or throw: all three mean the same to the user, and null here.
export async function adapterName() {
  try {
    const { info } = await navigator.gpu.requestAdapter();
    return [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ") || "an unnamed GPU";
  } catch {
    return null;
  }
}

export function remedy(userAgent, secure) {
  if (!secure) {
    return "WebGPU works only on pages that come by https or from localhost. Open this page by https.";
  }
  const [, advice] = REMEDIES.find(([sign]) => userAgent.includes(sign)) ?? [null, OTHER];
  return `${MISSING} ${advice} ${NATIVE}`;
}
