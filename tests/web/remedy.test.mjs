// The page's advice to readers whose browser gives no WebGPU adapter.

import assert from "node:assert/strict";
import test from "node:test";
import { remedy } from "../../web/remedy.js";

const BROWSERS = {
  Firefox: "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0",
  Edge: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0",
  Chrome: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
  Safari: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
};

for (const [name, userAgent] of Object.entries(BROWSERS)) {
  test(`${name} gets advice of its own`, () => {
    assert.match(remedy(userAgent, true), new RegExp(`In ${name}, `));
  });
}

test("an unknown browser gets the list of those that serve", () => {
  assert.match(remedy("Lynx/2.9", true), /Chrome, Edge, Firefox and Safari/);
});

test("a page that came by plain http is told so first", () => {
  assert.match(remedy(BROWSERS.Chrome, false), /https/);
});
