"use strict";
document.querySelectorAll(".board").forEach((board) => {
  const table = board.querySelector("table"), body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  const pick = (name) => board.querySelector(`.pick-${name}`);

  function sortBy(heading) {
    const place = headings.indexOf(heading);
    const values = [...body.rows].map((row) => row.cells[place].dataset.value);
    const numeric = values.every((value) => value === "" || !Number.isNaN(Number(value)));
    const before = heading.getAttribute("aria-sort");
    const order = before === "none" ? (numeric ? "descending" : "ascending") : before === "descending" ? "ascending" : "descending";
    headings.forEach((other) => other.setAttribute("aria-sort", other === heading ? order : "none"));
    const sign = order === "ascending" ? 1 : -1;
    const compare = (one, other) => {
      const [a, b] = [one, other].map((row) => row.cells[place].dataset.value);
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b));
    };
    body.append(...[...body.rows].sort(compare));
  }

  function filter() {
    const method = pick("method").value.trim().toLowerCase();
    const [budget, question] = ["budget", "question"].map((name) => pick(name)?.value ?? "");
    let shown = 0;
    for (const row of body.rows) {
      const full = row.classList.contains("baseline");
      const fits = row.cells[0].dataset.value.toLowerCase().includes(method)
        && (!budget || full || row.dataset.budget === budget) && (!question || row.dataset.question === question);
      row.hidden = !fits;
      shown += fits;
    }
    board.querySelector("output").textContent = `${shown} of ${body.rows.length} runs`;
  }

  headings.forEach((heading) => heading.querySelector("button").addEventListener("click", () => sortBy(heading)));
  board.querySelectorAll(".controls select, .controls input[type=search]").forEach((control) => control.addEventListener("input", filter));
  pick("intervals").addEventListener("change", (event) => table.classList.toggle("intervals", event.target.checked));
  filter();
});
