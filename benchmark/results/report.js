// Tables are sorted by a click on a heading; rows and pictures of methods are chosen by words in the field on top.
"use strict";
const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell.textContent.trim();
  const number = Number.parseFloat(text);
  return cell.tagName === "TH" || Number.isNaN(number) ? text : number;
};
const compare = (a, b, way) => {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no number is last either way
  return way * (typeof a === "number" ? a - b : a.localeCompare(b));
};
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(value(a, column), value(b, column), rising ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
}
const field = document.getElementById("chosen");
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  for (const item of document.querySelectorAll("[data-cell]")) {
    item.hidden = words.length > 0 && !words.some((word) => item.dataset.cell.toLowerCase().includes(word));
  }
});
field.form.addEventListener("submit", (event) => event.preventDefault());
document.documentElement.classList.add("scripted");
