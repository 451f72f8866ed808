// The rows of a table, one of which is selected by the keyboard. The selection stays with its row, not with its place.

export class Rows {
  #selected = null;

  constructor(root) {
    this.root = root;
  }

  get #all() {
    return [...this.root.querySelectorAll("tr[data-key]")];
  }

  /** For the row of this key, when it is made. */
  isSelected(key) {
    return key === this.#selected;
  }

  move(by) {
    const all = this.#all;
    if (all.length === 0) return;
    const at = all.findIndex((row) => row.dataset.key === this.#selected);
    const next = at === -1 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1);
    this.#selected = all[next].dataset.key;
    for (const [i, row] of all.entries()) row.setAttribute("aria-selected", String(i === next));
    all[next].scrollIntoView({ block: "nearest" });
  }

  open() {
    const row = this.#all.find(({ dataset }) => dataset.key === this.#selected);
    row?.querySelector("a")?.click();
  }
}
