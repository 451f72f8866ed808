// Light or dark: as the system says, until somebody says otherwise.

const KEY = "leasehold.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function apply(button) {
  const chosen = localStorage.getItem(KEY);
  const theme = chosen ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  button.setAttribute("aria-label", `Theme: ${theme}. Switch to ${theme === "dark" ? "light" : "dark"}`);
}

export function startTheme(button) {
  dark.addEventListener("change", () => apply(button));
  button.addEventListener("click", () => {
    localStorage.setItem(KEY, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply(button);
  });
  apply(button);
}
