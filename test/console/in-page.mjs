/** Functions that run inside the page: they see its document, and nothing of this file. */

export const theme = () => document.documentElement.dataset.theme;

/** @param {string} wanted */
export const setTheme = (wanted) => {
  document.documentElement.dataset.theme = wanted;
};

export const scrollWidth = () => document.documentElement.scrollWidth;

/** As if the tab were in the background: then nothing is polled. */
export const hide = () => {
  Object.defineProperty(document, "hidden", { get: () => true });
};

export const rowCount = () => document.querySelectorAll("main tbody tr").length;

export const barCount = () => document.querySelectorAll("svg .hold").length;

/** What the page has left behind where other pages or later visits could find it. */
export const traces = () => [Object.keys(localStorage).join(), document.cookie];

export const reportViolations = () => {
  document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
    console.error(`policy: ${violatedDirective} ${blockedURI}`),
  );
};

/** What people who do not see could not tell. */
export const nameless = () =>
  [...document.querySelectorAll("a, button, input, svg[role=img], dialog")]
    .filter((element) => {
      const named = element.getAttribute("aria-label") ?? element.getAttribute("aria-labelledby");
      return !named && !element.labels?.length && element.textContent.trim() === "";
    })
    .map((element) => element.outerHTML);

/** The lowest contrast of a text and what is behind it, by the formula of WCAG. */
export function lowestContrast() {
  const numbers = (color) => (color.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = (color) => {
    const [r, g, b] = numbers(color).map((value) => {
      const part = value / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    if (element === null) return "rgb(255, 255, 255)";
    const color = getComputedStyle(element).backgroundColor;
    return numbers(color)[3] === 0 ? behind(element.parentElement) : color;
  };
  const contrasts = [...document.querySelectorAll("body *:not(:disabled)")]
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== ""))
    .filter((element) => element.getClientRects().length > 0)
    .map((element) => {
      const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
  return Math.min(...contrasts);
}
