// The documentation page: Swagger UI over one small document at a time, a list of all families, and a search over all
// operations. The address tells what is shown: `#/family` or `#/family/operationId`.
import { plugin } from "./plugin.js";
import { searchBox } from "./search.js";

const byId = (id) => document.getElementById(id);
const address = (tag, id) => `#/${[tag, id].filter(Boolean).map(encodeURIComponent).join("/")}`;
const texts = new Map(); // document name -> promise of its text
let index;
let ui;
let shown; // name of the document that is shown
let turn = 0; // of several routes asked for in a row, the last one wins

start();

async function start() {
  try {
    index = await fetched("index").then(JSON.parse);
    byId("version").textContent = index.version;
    fillNavigation();
    searchBox(byId("search"), byId("hits"), byId("search-status"), index.operations, (hit) => go(address(hit.tag, hit.id)));
    addEventListener("hashchange", route);
    await route();
  } catch (error) {
    fail(error);
  }
}

async function fetched(name) {
  const response = await fetch(`openapi/${name}.json`);
  if (!response.ok) throw new Error(`openapi/${name}.json: ${response.status} ${response.statusText}`);
  return response.text();
}

function load(name) {
  if (!texts.has(name)) {
    const text = fetched(name);
    texts.set(name, text);
    text.catch(() => texts.delete(name)); // so that it can be tried again
  }
  return texts.get(name);
}

function go(hash) {
  if (location.hash === hash) route();
  else location.hash = hash;
}

async function route() {
  const mine = ++turn;
  const [tag, id] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const operation = id && index.operations.find((candidate) => candidate.tag === tag && candidate.id === id);
  const wanted = operation?.document ?? documentOf(tag);
  byId("failure").hidden = true;
  byId("content").setAttribute("aria-busy", "true");
  try {
    const text = await load(wanted);
    if (mine !== turn) return;
    show(wanted, text);
    mark(wanted, tag);
    if (operation) openOperation(tag, id);
    else if (id) fail(new Error(`There is no operation ${id} in ${tag}.`));
    else if (tag) reveal(`operations-tag-${tag}`);
    else scrollTo(0, 0);
  } catch (error) {
    if (mine === turn) fail(error);
  } finally {
    if (mine === turn) byId("content").removeAttribute("aria-busy");
  }
}

/** The document that `tag` stands for: one of that name, the first of a family's parts, or the one of the fixed routes. */
function documentOf(tag) {
  const found = index.documents.find((one) => one.name === tag) ?? index.documents.find((one) => one.family === tag);
  return found?.name ?? index.documents[0].name;
}

function show(name, text) {
  if (name === shown) return;
  shown = name;
  if (ui) {
    ui.specActions.updateUrl(`openapi/${name}.json`);
    ui.specActions.updateSpec(text);
    scrollTo(0, 0);
  } else {
    ui = SwaggerUIBundle({
      dom_id: "#swagger-ui",
      spec: JSON.parse(text),
      plugins: [plugin(opened)],
      docExpansion: "list",
      defaultModelsExpandDepth: -1,
      displayRequestDuration: true,
      deepLinking: false, // it takes `_` in names for spaces, and knows one document only
      validatorUrl: null,
      queryConfigEnabled: false,
    });
  }
  byId("content").dataset.document = name;
  document.title = `${name === index.documents[0].name ? "API" : name} · ${index.title}`;
}

function openOperation(tag, id) {
  ui.layoutActions.show(["operations-tag", tag], true);
  ui.layoutActions.show(["operations", tag, id], true);
  reveal(`operations-${tag}-${id}`, ".responses-wrapper");
}

/** Scrolls to an element once Swagger UI has made it; to an operation once it has `whole` in it, which gets the focus too. */
function reveal(id, whole, tries = 120) {
  const element = document.getElementById(id);
  if (!element || (whole && !element.querySelector(whole))) {
    if (tries) requestAnimationFrame(() => reveal(id, whole, tries - 1));
    return;
  }
  element.scrollIntoView({ block: "start" });
  if (whole) element.querySelector("button")?.focus({ preventScroll: true });
}

/** The reader opened or closed an operation: the address follows, so it can be copied and kept. */
function opened(tag, id, isOpen) {
  const hash = isOpen ? address(tag, id) : address(tag);
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

function fillNavigation() {
  const groups = [
    ["Service", countsByTag(index.documents[0].name)],
    ["Operations", index.documents.slice(1).map((one) => [one.name, one.family, one.count, one])],
  ];
  for (const [title, entries] of groups) {
    const list = document.createElement("ul");
    const select = document.createElement("optgroup");
    select.label = title;
    let family;
    for (const [name, label, count, part] of entries) {
      const several = part && part.name !== part.family;
      if (several && family !== label) list.append(heading(label, familyCount(label)));
      family = label;
      const words = several ? `${lastPart(part.first)} – ${lastPart(part.last)}` : label;
      list.append(link(name, words, count, several));
      select.append(new Option(several ? `${label}: ${words}` : `${label} (${count})`, name));
    }
    const head = document.createElement("h2");
    head.textContent = title;
    byId("families").append(head, list);
    byId("family-select").append(select);
  }
  byId("family-select").addEventListener("change", (event) => go(address(event.target.value)));
}

const lastPart = (name) => name.slice(name.lastIndexOf(".") + 1);

function countsByTag(name) {
  const counts = new Map();
  for (const { document, tag } of index.operations) if (document === name) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  return [...counts].map(([tag, count]) => [tag, tag, count]);
}

function familyCount(family) {
  return index.documents.reduce((sum, one) => sum + (one.family === family ? one.count : 0), 0);
}

function heading(label, count) {
  const item = document.createElement("li");
  item.className = "split";
  item.append(words(label), number(count));
  return item;
}

function link(name, label, count, isPart) {
  const item = document.createElement("li");
  const anchor = document.createElement("a");
  anchor.href = address(name);
  anchor.dataset.name = name;
  if (isPart) item.className = "part";
  anchor.append(words(label), number(count));
  // Fetched ahead; a failure is told when it is chosen, which fetches it again.
  anchor.addEventListener("pointerenter", () => load(documentOf(name)).catch(() => {}));
  item.append(anchor);
  return item;
}

function words(text) {
  const part = document.createElement("span");
  part.textContent = text;
  return part;
}

function number(count) {
  const part = words(count);
  part.className = "count";
  return part;
}

/** Marks where the reader is: the document, or, of the fixed routes, the tag. */
function mark(name, tag) {
  const current = name === index.documents[0].name ? tag : name;
  for (const anchor of document.querySelectorAll("#families a")) {
    if (anchor.dataset.name === current) {
      anchor.setAttribute("aria-current", "true");
      anchor.scrollIntoView({ block: "nearest" });
    } else anchor.removeAttribute("aria-current");
  }
  byId("family-select").value = current || "";
}

function fail(error) {
  const place = byId("failure");
  place.textContent = error.message;
  place.hidden = false;
}
