// Tables that a click on a heading sorts: those that stand in the page, and all rows, which are built when asked for.

const wide = (table, label) => make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": label }, table);

// What a cell is sorted by: its first number, else its text; a dash comes last, whichever way.
const worth = (text) => {
  const plain = text.replaceAll(",", "").replaceAll("−", "-").replace(/^[[<]/, "");
  const found = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?/i.exec(plain);
  return text === "" || text === NULL ? null : found ? Number(found[0]) : text;
};

const compare = (a, b) => {
  if (a === null || b === null) return 0;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
};

const sorted = (items, key, up) => {
  const keyed = items.map((item) => [worth(key(item)), item]);
  const known = keyed.filter(([value]) => value !== null).sort(([a], [b]) => (up ? 1 : -1) * compare(a, b));
  return [...known, ...keyed.filter(([value]) => value === null)].map(([, item]) => item);
};

// Buttons in the headings; `sort` is told of the column and the direction.
const sortable = (headings, sort) => headings.forEach((heading, column) => {
  const text = heading.textContent;
  heading.replaceChildren(make("button", { type: "button", click: () => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    sort(column, up);
  } }, text || "mark"));
});

const standing = (table) => {
  const body = table.tBodies[0];
  sortable([...table.tHead.rows[0].cells], (column, up) => {
    table.classList.add("sorted");
    body.append(...sorted([...body.rows], (row) => row.cells[column].textContent, up));
  });
};

const AT_ONCE = 100;

// All rows of a result, as result.csv has them.
const allRows = (place, { columns, rows }) => {
  const isNumber = columns.map((_, i) => rows.slice(0, 50).every((row) => row[i] === "" || !Number.isNaN(Number(row[i]))));
  const headings = columns.map((name, i) => make("th", { scope: "col", class: isNumber[i] ? null : "left" }, name));
  const body = make("tbody"), more = make("button", { type: "button" });
  let order = rows, shown = 0;
  const cell = (text, i) => {
    const value = isNumber[i] && text !== "" ? Number(text) : null;
    return make("td", { class: isNumber[i] ? null : "left", title: value === null ? null : text }, value === null ? text || NULL : Number.isInteger(value) ? count(value) : number(value));
  };
  const add = () => {
    body.append(...order.slice(shown, shown + AT_ONCE).map((row) => make("tr", {}, ...row.map(cell))));
    shown = Math.min(order.length, shown + AT_ONCE);
    more.textContent = `${Math.min(AT_ONCE, order.length - shown)} more of ${count(order.length)} rows`;
    more.hidden = shown === order.length;
  };
  more.addEventListener("click", add);
  sortable(headings, (column, up) => {
    order = sorted(rows, (row) => row[column], up);
    body.replaceChildren();
    shown = 0;
    add();
  });
  add();
  place.append(wide(make("table", {}, make("thead", {}, make("tr", {}, ...headings)), body), "All rows"), more);
};
