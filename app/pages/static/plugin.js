// What this project changes in Swagger UI, as its plugin interface has it: how references are resolved and documents parsed,
// how JSON is laid out, a table of an operation's parameters above its body, one line for each problem, and who is told when
// an operation is opened.
import { pretty } from "./json.js";
import { resolve } from "./resolve.js";

/** The plugin. `opened(tag, operationId, isOpen)` is called when the reader opens or closes an operation. */
export function plugin(opened) {
  return () => ({
    afterLoad() {
      const sample = this.fn.getSampleSchema;
      this.fn.getSampleSchema = (...args) => {
        const text = sample(...args);
        return typeof text === "string" ? pretty(text) : text;
      };
    },
    fn: {
      resolveSubtree: async (document, path) => ({ spec: resolve(document, path), errors: [] }),
    },
    statePlugins: {
      spec: {
        wrapActions: {
          // The documents are JSON; reading them as YAML takes longer.
          parseToJson: (original, system) => (text) => system.specActions.updateJsonSpec(JSON.parse(text)),
        },
      },
      layout: {
        wrapActions: {
          show: (original) => (thing, shown) => {
            const action = original(thing, shown);
            if (Array.isArray(thing) && thing[0] === "operations" && thing.length === 3) opened(thing[1], thing[2], shown);
            return action;
          },
        },
      },
    },
    wrapComponents: {
      response: problemInOneLine,
      responseBody: bodyAsItCame,
      RequestBody: parametersAboveBody,
    },
  });
}

// Every problem has the same body, described once; fourteen examples of it under each operation say nothing more.
function problemInOneLine(Original, { React }) {
  const element = React.createElement;
  return (props) => {
    if (!props.response?.getIn?.(["content", "application/problem+json"])) return element(Original, props);
    return element(
      "tr",
      { className: "response response-problem", "data-code": props.code },
      element("td", { className: "response-col_status" }, props.code),
      element("td", { className: "response-col_description", colSpan: 2 }, withCode(React, props.response.get("description"))),
    );
  };
}

/** Text in which `code` is marked: all the Markdown that short descriptions have. Swagger UI's takes 2 ms for each. */
function withCode(React, text) {
  return (text ?? "").split("`").map((part, at) => (at % 2 ? React.createElement("code", { key: at }, part) : part));
}

// Swagger UI would read the answer's numbers and write them again: 1.0 would be shown as 1.
function bodyAsItCame(Original, { React, getComponent }) {
  const element = React.createElement;
  return (props) => {
    if (typeof props.content !== "string" || !/json/i.test(props.contentType ?? "")) return element(Original, props);
    const Code = getComponent("HighlightCode", true);
    const code = { language: "json", downloadable: true, fileName: "answer.json", canCopy: true };
    return element("div", null, element("h5", null, "Response body"), element(Code, code, pretty(props.content)));
  };
}

function parametersAboveBody(Original, { React }) {
  const element = React.createElement;
  return (props) => {
    const schema = props.requestBody?.getIn?.(["content", "application/json", "schema"])?.toJS();
    const body = element(Original, props);
    if (!schema?.properties) return body;
    const rows = Object.entries(schema.properties).map(([name, property]) => {
      const required = schema.required?.includes(name);
      return element(
        "tr",
        { key: name },
        element("th", { scope: "row" }, name, required ? [" ", element("span", { key: 0, className: "must" }, "required")] : ""),
        element("td", null, element("code", null, typeOf(property))),
        element("td", null, "default" in property ? element("code", null, JSON.stringify(property.default)) : ""),
        element("td", null, withCode(React, property.description)),
      );
    });
    const head = ["Field", "Type", "Default", "Meaning"].map((word) => element("th", { key: word, scope: "col" }, word));
    return element(
      React.Fragment,
      null,
      element(
        "div",
        { className: "fields" },
        element("table", null, element("thead", null, element("tr", null, head)), element("tbody", null, rows)),
      ),
      body,
    );
  };
}

/** A schema's type in a few words: `Tensor`, `list of integer`, `Scalar or null`, `"mean" | "sum"`. */
export function typeOf(schema) {
  if (schema.title) return schema.title;
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map(typeOf))].join(" or ");
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `list of ${schema.items ? typeOf(schema.items) : "anything"}`;
  return [schema.type ?? "anything"].flat().join(" or ");
}
