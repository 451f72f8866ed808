// The token of whoever looks. It stays in this tab. `then`: where to go with it, which is where it was asked for.

import { get, token } from "../api.js";
import { foreign, h } from "../dom.js";

export function signin(root, parameters, { signedIn }) {
  const then = parameters.get("then") ?? "";
  const field = h("input", { class: "wide", id: "token", type: "password", autocomplete: "off", spellcheck: "false" });
  const said = h("p", { class: "alert", role: "alert", hidden: true });
  const out = h("button", { type: "button", disabled: token.get() === "" }, "Sign out");
  const who = h("p", { class: "quiet" });
  const form = h(
    "form",
    { class: "panel" },
    h("h1", {}, "Sign in"),
    h("p", {}, "With a bearer token. It is kept for this tab only, and forgotten when the tab is closed."),
    who,
    h("label", { for: "token" }, "Token"),
    field,
    said,
    h("p", { class: "bar" }, h("button", { type: "submit" }, "Sign in"), out),
  );
  root.replaceChildren(form);
  const show = ({ you }) => {
    if (!you.authentication)
      who.textContent = "This server does not ask who calls; without authentication it takes no lock away.";
    else who.replaceChildren("You are ", foreign(you.principal), ".");
  };
  get("status").then(show, () => undefined);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const before = token.get();
    token.set(field.value.trim());
    try {
      await get("status");
      signedIn();
      location.hash = then.startsWith("#/") ? then : "#/overview";
    } catch (error) {
      token.set(before);
      said.hidden = false;
      said.textContent = error.message;
    }
  });
  out.addEventListener("click", () => {
    token.set("");
    signedIn();
    out.disabled = true;
    who.textContent = "Signed out.";
  });
  field.focus();
  return { title: "Sign in", target: null, refresh: async () => undefined };
}
