/* A text field that lists what it may mean (ARIA 1.2: combobox with a listbox, the first option active). */

import { h } from "../dom.js";

/**
 * @param {HTMLInputElement} input
 * @param {HTMLElement} list role listbox
 * @param {{find: (text: string) => {content: Node[], act: Function|null}[], leave: Function}} how
 *   `find`: the options for a text; one without `act` is a message. `leave`: the field is left by Escape.
 * @returns {() => void} empties and closes it
 */
export function startCombobox(input, list, { find, leave }) {
  let options = [];
  let active = -1;

  const close = () => {
    [options, active] = [[], -1];
    list.hidden = true;
    list.replaceChildren();
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const activate = (at) => {
    active = at;
    [...list.children].forEach((one, index) => one.setAttribute("aria-selected", index === at));
    const one = list.children[at];
    if (one) input.setAttribute("aria-activedescendant", one.id);
    else input.removeAttribute("aria-activedescendant");
    one?.scrollIntoView({ block: "nearest" });
  };
  const open = () => {
    options = find(input.value);
    list.replaceChildren(...options.map(optionOf));
    list.hidden = options.length === 0;
    list.scrollTop = 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    activate(options[0]?.act ? 0 : -1);
  };
  const clear = () => {
    input.value = "";
    close();
  };
  const pick = (at) => {
    const act = options[at]?.act;
    if (!act) return;
    clear();
    act();
  };
  const optionOf = ({ content, act }, at) => {
    const one = h("li", { role: "option", id: `${list.id}-${at}`, "aria-disabled": !act && "true" }, content);
    one.addEventListener("click", () => pick(at));
    return one;
  };

  input.addEventListener("input", () => (input.value.trim() ? open() : close()));
  input.addEventListener("blur", close);
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (list.hidden) open();
      else if (options[0]?.act) activate((active + step + options.length) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      pick(active);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (input.value || !list.hidden) clear();
      else leave();
    }
  });
  return clear;
}
