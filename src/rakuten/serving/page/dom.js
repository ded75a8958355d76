/* Small pieces that the page is made of. Data becomes text nodes, never HTML. */

/** An element: h("p", {class: "note"}, "text", child). False and missing attributes and children are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(Boolean));
  return element;
}

export function $(id) {
  return document.getElementById(id);
}

/** A bar from 0 to 1, with a tick at `mark`. It only shows what a number beside it says. */
export function bar(value, mark) {
  const element = h("span", { class: mark === undefined ? "bar" : "bar marked", "aria-hidden": "true" });
  const share = (number) => `${100 * Math.min(1, Math.max(0, number))}%`;
  // By the object model: the content security policy lets no style attribute through.
  element.style.setProperty("--value", share(value));
  if (mark !== undefined) element.style.setProperty("--mark", share(mark));
  return element;
}

/** A table with a caption; a cell is a text or an element, the columns in `numeric` stand to the right. */
export function table(caption, head, rows, numeric = []) {
  const side = (at) => (numeric.includes(at) ? "number" : undefined);
  return h(
    "table",
    {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, head.map((text, at) => h("th", { scope: "col", class: side(at) }, text)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, at) => h("td", { class: side(at) }, cell))))),
  );
}

/** A label that a name of the catalogue, always French, is read out in. */
export function french(text) {
  return h("span", { lang: "fr" }, text);
}

/** Give files from a file input, and from a drop on its label, to `take`. */
export function takeFiles(input, label, take) {
  input.addEventListener("change", () => {
    if (input.files[0]) take(input.files[0]);
    input.value = ""; // so that the same file, mended, can be chosen again
  });
  for (const [name, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    label.addEventListener(name, (event) => {
      event.preventDefault();
      label.classList.toggle("over", over);
      if (name === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    });
  }
}

/** Hand out a text as a file. */
export function download(link, text, name) {
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
}
