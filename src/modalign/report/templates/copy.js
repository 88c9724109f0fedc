// Buttons that copy the command beside them.
(() => {
  "use strict";

  const byHand = (text) => {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return byHand(text);
    }
  };

  for (const button of document.querySelectorAll("button.copy")) {
    const code = button.parentElement.querySelector("code");
    button.setAttribute("aria-label", "Copy the command");
    button.addEventListener("click", async () => {
      button.textContent = (await copy(code.textContent)) ? "Copied" : "Press Ctrl+C";
      getSelection().selectAllChildren(code);
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
})();
