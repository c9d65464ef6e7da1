"use strict";
// Sorts and filters the page's own tables. Without it they are plain tables with all their rows.
(() => {
  const numberOf = (text) => {
    const found = text.replaceAll(",", "").match(/-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
  };
  const collator = new Intl.Collator("en", { numeric: true });

  const compare = (one, other, numeric, direction) => {
    if (!numeric) return direction * collator.compare(one, other);
    const [a, b] = [numberOf(one), numberOf(other)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // nothing known comes last
    return direction * (a - b);
  };

  const sort = (table, heading, place) => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const numeric = heading.classList.contains("number");
    const text = new Map(Array.from(table.tBodies[0].rows, (row) => [row, row.cells[place].textContent.trim()]));
    const rows = [...text.keys()].sort((a, b) => compare(text.get(a), text.get(b), numeric, ascending ? 1 : -1));
    table.tBodies[0].append(...rows);
  };

  for (const table of document.querySelectorAll("table")) {
    if (table.tBodies[0].rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((heading, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, heading, place));
    });
  }

  for (const box of document.querySelectorAll(".filter")) {
    const [input, count] = [box.querySelector("input"), box.querySelector("output")];
    const rows = document.getElementById(box.dataset.table).tBodies[0].rows;
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", filter);
    box.hidden = false;
    filter();
  }

  // Paper cannot be unfolded.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
