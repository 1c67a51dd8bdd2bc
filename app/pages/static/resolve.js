// Swagger UI resolves references by reading the whole document anew for each operation that is opened: 1 s for 50 operations,
// 8 s for 650. Our documents refer only to their own components, so walking the operation alone does the same in a millisecond.

/** The value at `path` of `document`, with its local references replaced by what they refer to. */
export function resolve(document, path) {
  const found = path.reduce((value, key) => value?.[key], document);
  return found === undefined ? null : inline(document, found, []);
}

function inline(document, value, open) {
  if (Array.isArray(value)) return value.map((item) => inline(document, item, open));
  if (value === null || typeof value !== "object") return value;
  const { $ref: reference, ...own } = value;
  const rest = Object.fromEntries(Object.entries(own).map(([key, item]) => [key, inline(document, item, open)]));
  if (typeof reference !== "string") return "$ref" in value ? { $ref: reference, ...rest } : rest;
  // Inside itself a schema stays a reference: nested lists have no end.
  if (open.includes(reference)) return { ...rest, $ref: reference };
  const target = follow(document, reference);
  if (target === undefined) return { ...rest, $ref: reference };
  const name = reference.startsWith("#/components/schemas/") ? { title: reference.split("/").pop() } : {};
  return { ...name, ...inline(document, target, [...open, reference]), ...rest };
}

function follow(document, reference) {
  if (!reference.startsWith("#/")) return undefined;
  const keys = reference.slice(2).split("/");
  return keys.reduce((value, key) => value?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], document);
}
