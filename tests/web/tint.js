// Gives every module of modules.json to the browser's WGSL compiler, creates the pipeline of each entry point on a device
// with default limits, and posts {adapter, pipelines, skipped: [..], problems: [..]} to ./report.

const FEATURES = [
  // [named in the module as `enable ...`, the device feature that it needs]
  ["subgroups", "subgroups"],
  ["f16", "shader-f16"],
];

const outcome = { adapter: null, pipelines: 0, skipped: [], problems: [] };

function needed({ source, subgroups }) {
  const enabled = FEATURES.filter(([name]) => new RegExp(`^\\s*enable\\b[^;]*\\b${name}\\b`, "m").test(source));
  return new Set([...enabled.map(([, feature]) => feature), ...(subgroups ? ["subgroups"] : [])]);
}

async function compile(device, { name, source }) {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code: source });
  const { messages } = await module.getCompilationInfo();
  await device.popErrorScope(); // says the same as the messages, without their lines
  const errors = messages.filter(({ type }) => type === "error");
  for (const { lineNum, linePos, message } of errors) {
    outcome.problems.push(`${name}:${lineNum}:${linePos}: ${message}\n    ${source.split("\n")[lineNum - 1]?.trim()}`);
  }
  if (errors.length > 0) {
    return;
  }
  for (const [, entryPoint] of source.matchAll(/@compute\b[^{]*?\bfn\s+(\w+)/g)) {
    try {
      await device.createComputePipelineAsync({ label: `${name}.${entryPoint}`, layout: "auto", compute: { module, entryPoint } });
      outcome.pipelines += 1;
    } catch (error) {
      outcome.problems.push(`${name}.${entryPoint}: ${error.message}`);
    }
  }
}

try {
  const adapter = await navigator.gpu.requestAdapter();
  const { vendor, architecture, device: model, description } = adapter.info;
  outcome.adapter = [vendor, architecture, model, description].filter(Boolean).join(" ");
  const requiredFeatures = FEATURES.map(([, feature]) => feature).filter((feature) => adapter.features.has(feature));
  const device = await adapter.requestDevice({ requiredFeatures });
  const response = await fetch("modules.json");
  for (const module of await response.json()) {
    const lacking = [...needed(module)].filter((feature) => !device.features.has(feature));
    if (lacking.length > 0) {
      outcome.skipped.push(`${module.name}: the adapter has no ${lacking.join(", ")}`);
    } else {
      await compile(device, module);
    }
  }
} catch (error) {
  outcome.problems.push(String(error));
}
await fetch("report", { method: "POST", body: JSON.stringify(outcome) });
