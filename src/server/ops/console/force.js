// Taking a lock away: only after its name has been typed, with a reason, and with what it means beside the choice.

import { lockPath, post } from "./api.js";
import { foreign, h } from "./dom.js";
import { count, duration } from "./format.js";

/** Opens the dialog. Resolves with what to tell, or null when it was closed. */
export function askForce(name, token) {
  return new Promise((resolve) => {
    const typed = h("input", { class: "wide", id: "force-name", autocomplete: "off", spellcheck: "false" });
    const reason = h("input", { class: "wide", id: "force-reason", maxlength: "250", autocomplete: "off" });
    const now = h("input", { type: "radio", name: "when", value: "now" });
    const submit = h("button", { type: "submit", class: "danger", disabled: true }, "Take the lock away");
    const cancel = h("button", { type: "button" }, "Cancel");
    const problem = h("p", { class: "alert", role: "alert", hidden: true });
    const form = h(
      "form",
      {},
      h("h2", { id: "force-title" }, "Force release"),
      h(
        "p",
        {},
        token === 0 ? "All holders lose " : `The holder with token ${count(token)} loses `,
        foreign(name),
        ".",
      ),
      h(
        "label",
        { class: "choice" },
        h("input", { type: "radio", name: "when", value: "asked", checked: true }),
        " Ask the holder first: the next grant waits until it has confirmed, or its lease has run out. Nothing overlaps.",
      ),
      h(
        "label",
        { class: "choice" },
        now,
        " Now: the next is granted at once. The holder may still be working; only fences keep it out.",
      ),
      h("label", { for: "force-name" }, "Type the name of the lock"),
      typed,
      h("label", { for: "force-reason" }, "Reason (the holder and the audit log are told)"),
      reason,
      problem,
      h("p", { class: "bar" }, submit, cancel),
    );
    const dialog = h("dialog", { "aria-labelledby": "force-title" }, form);
    let told = null;
    typed.addEventListener("input", () => {
      submit.disabled = typed.value !== name;
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(told);
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (typed.value !== name) return;
      submit.disabled = true;
      try {
        told = tell(await post(lockPath(name, "force-release"), { token, reason: reason.value, now: now.checked }));
        dialog.close();
      } catch (error) {
        problem.hidden = false;
        problem.textContent = error.message;
        submit.disabled = false;
      }
    });
    document.body.append(dialog);
    dialog.showModal();
    typed.focus();
  });
}

function tell({ ended, revoking, withinMs }) {
  if (ended.length + revoking.length === 0) return "Nobody holds it.";
  if (ended.length > 0) return `Taken away: token ${ended.join(", ")}.`;
  return `Asked: token ${revoking.join(", ")} ends when its holder confirms, within ${duration(withinMs)} at the latest.`;
}
