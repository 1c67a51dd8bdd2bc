// The reference: Redoc over the whole document. It shows one operation at a time, so size costs it little.
import { init } from "./vendor/redoc/redoc.standalone.js";

start();

async function start() {
  const place = document.getElementById("content");
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`openapi.json: ${response.status} ${response.statusText}`);
    init(byName(await response.json()), options, place);
  } catch (error) {
    place.textContent = error.message;
  } finally {
    place.removeAttribute("aria-busy");
  }
}

const options = {
  disableTelemetry: true,
  downloadUrls: [{ title: "openapi.json", url: "openapi.json" }],
  skipBundle: true, // the document refers to nothing outside itself
};

/** Redoc lists operations by summary; readers look for them by name. The summary is said again by the description. */
function byName(document) {
  for (const [path, item] of Object.entries(document.paths)) {
    if (item.post && path.startsWith("/v1/ops/")) item.post.summary = path.slice("/v1/ops/".length);
  }
  return document;
}
