// Not a module: the colours are set before anything is drawn.
(() => {
  const name = "colbert-vespa-theme";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage is blocked: the system's colours
    }
  }

  function apply(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme-button");
    const show = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      apply(next);
      try {
        localStorage.setItem(name, next);
      } catch {
        // kept for this page alone
      }
      show();
    });
    dark.addEventListener("change", show);
    show();
  });
})();
