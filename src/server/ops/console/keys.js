// The keyboard: what works in all views. Keys that are typed into a field are that field's.

const VIEWS = { o: "overview", l: "locks", e: "elections", s: "leases" };
/** How long "g" waits for its second key. */
const SECOND_MS = 1_500;

const isField = (target) => target instanceof HTMLElement && target.matches("input, textarea, select");

/** `view`: () => the view that is shown, with `rows` where it has some. */
export function startKeys(view, help) {
  let goUntil = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (isField(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const going = performance.now() < goUntil;
    goUntil = 0;
    if (going && VIEWS[event.key] !== undefined) location.hash = `#/${VIEWS[event.key]}`;
    else if (event.key === "g") goUntil = performance.now() + SECOND_MS;
    else if (event.key === "?") help.showModal();
    else if (event.key === "/") search();
    else if (event.key === "j") view().rows?.move(1);
    else if (event.key === "k") view().rows?.move(-1);
    else if (event.key === "Enter" && event.target.matches("body, main")) view().rows?.open();
    else if (event.key === "Escape") view().back?.();
    else return;
    event.preventDefault();
  });
}

function search() {
  const field = document.querySelector('input[type="search"]');
  if (field !== null) field.focus();
  else location.hash = "#/locks?focus=search";
}
