// Before the page is drawn, so that it does not flash: light or dark as the person chose, or else as the system says.
(() => {
  try {
    const chosen = localStorage.getItem("uno-actors-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* no storage: the system decides */ }
})();
