// The search box: a combobox with a listbox, as the ARIA practices describe it. Without a query it lists everything.

/** Operations that match all words of `query`, best first: by name from its start, within it, by summary. */
export function find(operations, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return operations;
  const ranked = [];
  for (const operation of operations) {
    const title = operation.title.toLowerCase();
    const text = `${title} ${operation.summary.toLowerCase()} ${operation.tag}`;
    if (!words.every((word) => text.includes(word))) continue;
    const last = title.slice(title.lastIndexOf(".") + 1);
    const [word] = words;
    const rank = [title === word, last === word, last.startsWith(word), title.startsWith(word), title.includes(word)];
    const place = rank.indexOf(true);
    ranked.push([place < 0 ? rank.length : place, title.length, operation]);
  }
  // A stable sort: what ranks alike stays in the order of families and names.
  return ranked.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , operation]) => operation);
}

/** Makes `input` search `operations` into `list`; `choose(operation)` is called with what the reader picks. */
export function searchBox(input, list, status, operations, choose) {
  let hits = [];
  let active = -1;

  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const move = (to) => {
    list.children[active]?.removeAttribute("aria-selected");
    active = to;
    const option = list.children[active];
    if (!option) return;
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.id);
  };
  const open = () => {
    hits = find(operations, input.value);
    list.replaceChildren(...hits.map(option));
    list.hidden = false;
    list.scrollTop = 0;
    input.setAttribute("aria-expanded", "true");
    input.removeAttribute("aria-activedescendant");
    status.textContent = hits.length === 1 ? "1 operation" : `${hits.length || "No"} operations`;
    list.dataset.empty = String(!hits.length);
    active = -1;
    if (hits.length && input.value) move(0);
  };
  const pick = (at) => {
    const operation = hits[at];
    if (!operation) return;
    input.value = "";
    close();
    choose(operation);
  };

  input.addEventListener("input", open);
  input.addEventListener("focus", open);
  input.addEventListener("click", () => list.hidden && open());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const last = hits.length - 1;
    const keys = {
      ArrowDown: () => (list.hidden ? open() : move(active < last ? active + 1 : 0)),
      ArrowUp: () => (list.hidden ? open() : move(active > 0 ? active - 1 : last)),
      PageDown: () => move(Math.min(active + 8, last)),
      PageUp: () => move(Math.max(active - 8, 0)),
      Enter: () => pick(Math.max(active, 0)),
      Escape: () => (list.hidden ? input.blur() : close()),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  // The press must not take the focus away: the blur would close the list before the click arrives.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const row = event.target.closest("[role=option]");
    if (row) pick([...list.children].indexOf(row));
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    const slash = event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey;
    const control = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey);
    if (!slash && !control) return;
    event.preventDefault();
    input.focus();
    input.select();
  });
}

function option(operation, at) {
  const row = document.createElement("li");
  row.id = `hit-${at}`;
  row.setAttribute("role", "option");
  for (const [name, text] of [
    ["hit-name", operation.title],
    ["hit-tag", operation.tag],
    ["hit-summary", operation.summary],
  ]) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    row.append(part);
  }
  return row;
}
