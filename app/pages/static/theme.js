// Runs before the page is painted, so a dark page never flashes white. Swagger UI and page.css go by the class `dark-mode`.
"use strict";
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("curlgrad-theme");
    } catch {
      return null; // storage may be forbidden; then the page goes by the system's scheme
    }
  };
  const apply = () => {
    const dark = chosen() ? chosen() === "dark" : system.matches;
    document.documentElement.classList.toggle("dark-mode", dark);
    const button = document.querySelector("#theme");
    if (button) button.setAttribute("aria-pressed", String(dark));
  };
  apply();
  system.addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.querySelector("#theme")?.addEventListener("click", () => {
      const dark = !document.documentElement.classList.contains("dark-mode");
      try {
        localStorage.setItem("curlgrad-theme", dark ? "dark" : "light");
      } catch {
        // as above: the choice then lasts as long as the page
      }
      document.documentElement.classList.toggle("dark-mode", dark);
      document.querySelector("#theme").setAttribute("aria-pressed", String(dark));
    });
  });
})();
