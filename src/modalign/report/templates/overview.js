(() => {
  const rows = [...document.querySelectorAll(".overview tbody tr")];
  const buttons = [...document.querySelectorAll("button[data-status]")];
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  let status = "";
  const filter = () => {
    const words = search.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = (!status || row.dataset.status === status) && row.textContent.toLowerCase().includes(words);
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} shown`;
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      status = button.dataset.status;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      filter();
    });
  }
  search.addEventListener("input", filter);
  filter();
})();
