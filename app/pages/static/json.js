// JSON laid out for reading: short lists and objects on one line, so that a matrix looks like one. It works on the text, never
// on JavaScript's numbers, which know no difference between 1 and 1.0.

const TOKEN = /\s*([{}[\]:,]|"(?:[^"\\]|\\.)*"|[^\s{}[\]:,"]+)/y;
const WIDTH = 84;
const LONGEST = 400_000; // past this many characters, laying out would be felt; the text is shown as it came

/** The text with line breaks and indentation; unchanged where it is no JSON, or very long. */
export function pretty(text) {
  if (text.length > LONGEST) return text;
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  const tokens = [];
  TOKEN.lastIndex = 0;
  for (let match; (match = TOKEN.exec(text)); ) tokens.push(match[1]);
  return layOut(read(tokens, { at: 0 }), "");
}

// A value is its text, or { open, close, items } where an item is { key, value } with the key's text or "".
function read(tokens, position) {
  const open = tokens[position.at++];
  if (open !== "[" && open !== "{") return open;
  const close = open === "[" ? "]" : "}";
  const items = [];
  while (tokens[position.at] !== close) {
    if (tokens[position.at] === ",") position.at++;
    let key = "";
    if (open === "{") {
      key = `${tokens[position.at]}: `;
      position.at += 2;
    }
    items.push({ key, value: read(tokens, position) });
  }
  position.at++;
  return { open, close, items };
}

function layOut(value, indent) {
  const line = inOneLine(value, WIDTH - indent.length);
  // The outermost object always opens up: its fields are what the reader looks for.
  if (line !== null && (indent || value.open !== "{")) return line;
  const deeper = `${indent}  `;
  const lines = value.items.map(({ key, value: item }) => `${deeper}${key}${layOut(item, deeper)}`);
  return lines.length ? `${value.open}\n${lines.join(",\n")}\n${indent}${value.close}` : value.open + value.close;
}

/** The value on one line, or null where that takes more than `room` characters. */
function inOneLine(value, room) {
  if (typeof value === "string") return value;
  let line = value.open;
  for (const { key, value: item } of value.items) {
    const text = inOneLine(item, room - line.length);
    if (text === null) return null;
    line += `${line.length > 1 ? ", " : ""}${key}${text}`;
    if (line.length > room) return null;
  }
  return line + value.close;
}
