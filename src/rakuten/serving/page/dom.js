/* Small pieces that the page is made of. Data becomes text nodes, never HTML. */

import { nameOf } from "./language.js";

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

/** The name of a code, as an element in the language that it is read out in. */
export function className(choice) {
  const { text, lang } = nameOf(choice);
  return h("span", { lang }, text);
}

/**
 * Make tabs of the ARIA pattern work: by click, arrows, Home and End, over those that are not hidden.
 * Returns what selects one; `opened` is called with each that is.
 */
export function startTabs(tabs, opened = () => {}) {
  const select = (tab) => {
    for (const one of tabs) {
      one.setAttribute("aria-selected", one === tab);
      one.tabIndex = one === tab ? 0 : -1;
      $(one.getAttribute("aria-controls")).hidden = one !== tab;
    }
    opened(tab);
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const seen = tabs.filter((one) => !one.hidden);
      const at = seen.indexOf(tab);
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      const other = seen.at(next % seen.length);
      select(other);
      other.focus();
    });
  }
  return select;
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

/** Hand out a Blob as a file. */
export function download(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser is still reading it
}
