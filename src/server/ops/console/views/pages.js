// Lists that are longer than a page: how many there are is not known, only whether there are more.

import { h } from "../dom.js";

export const PAGE = 100;

/** Where in a list one is: the last entries of the pages before. */
export class Pages {
  #starts = [""];

  get after() {
    return this.#starts.at(-1);
  }

  get number() {
    return this.#starts.length;
  }

  reset() {
    this.#starts = [""];
  }

  forward(next) {
    if (next !== "") this.#starts.push(next);
  }

  back() {
    if (this.#starts.length > 1) this.#starts.pop();
  }
}

export const pageBar = (pages, next) =>
  h(
    "p",
    { class: "bar" },
    h("button", { type: "button", "data-action": "previous", disabled: pages.number === 1 }, "Previous"),
    h("span", { class: "quiet" }, `Page ${pages.number}`),
    h("button", { type: "button", "data-action": "next", disabled: next === "" }, "Next"),
  );

/** Lets the buttons of a bar below `root` move. */
export function listenToPages(root, pages, next, refresh) {
  root.addEventListener("click", ({ target }) => {
    const action = target.dataset?.action;
    if (action === "next") pages.forward(next());
    else if (action === "previous") pages.back();
    else return;
    refresh();
  });
}
