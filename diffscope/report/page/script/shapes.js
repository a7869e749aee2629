// Names with intervals, and tables of two names: they are tables, which need no canvas.

const dots = (figure, spec) => {
  const ends = spec.dots.flatMap((dot) => [dot.value, dot.low, dot.high]).filter((value) => value !== null);
  if (spec.reference !== null) ends.push(spec.reference);
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  const margin = 0.04 * (high - low) || Math.abs(high) * 0.1 || 1;
  [low, high] = [low - margin, high + margin];
  const place = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const mark = (name, from, to) => {
    const bar = make("i", { class: name });
    bar.style.left = place(from);
    if (to !== undefined) bar.style.width = `calc(${place(to)} - ${place(from)})`;
    return bar;
  };
  const rows = spec.dots.map((dot) => {
    const known = dot.value !== null, reach = known && dot.low !== null && dot.high !== null;
    const track = make("div", { class: "track" }, ...(spec.reference === null ? [] : [mark("reference", spec.reference)]),
      ...(reach ? [mark("reach", dot.low, dot.high)] : []), ...(known ? [mark("value", dot.value)] : []));
    const interval = reach ? `[${said(spec.axis, dot.low)}, ${said(spec.axis, dot.high)}]` : NULL;
    return make("tr", {}, make("th", { scope: "row" }, dot.name), make("td", { "aria-hidden": "true", class: "drawn" }, track), make("td", {}, said(spec.axis, dot.value)), make("td", {}, interval));
  });
  const head = make("tr", {}, make("th", { scope: "col" }, "name"), make("td", { "aria-hidden": "true", class: "drawn" },
    make("span", { class: "ends" }, make("span", {}, said(spec.axis, low + margin)), make("span", {}, said(spec.axis, high - margin)))),
  make("th", { scope: "col" }, shortLabel(spec.axis.label)), make("th", { scope: "col" }, "95 % interval"));
  figure.append(wide(make("table", { class: "dots" }, make("thead", {}, head), make("tbody", {}, ...rows)), spec.title), make("p", { class: "said" }, spec.said));
};

const square = (figure, spec) => {
  const finite = spec.values.flatMap((line, i) => line.filter((value, j) => value !== null && i !== j));
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const cell = (value, i, j) => {
    const td = make("td", { title: `${spec.names[i]} and ${spec.names[j]}: ${number(value)}` }, value === null ? NULL : value.toFixed(2));
    if (value !== null) {
      const share = high > low ? (value - low) / (high - low) : 1;
      td.style.background = viridis(share);
      td.style.color = share > 0.55 ? "#000" : "#fff";
    }
    return td;
  };
  const head = make("tr", {}, make("td"), ...spec.names.map((name) => make("th", { scope: "col" }, make("span", {}, name))));
  const rows = spec.values.map((line, i) => make("tr", {}, make("th", { scope: "row" }, spec.names[i]), ...line.map((value, j) => cell(value, i, j))));
  figure.append(wide(make("table", { class: "square" }, make("thead", {}, head), make("tbody", {}, ...rows)), spec.title), make("p", { class: "said" }, spec.said));
};
