// Names with intervals, and tables of two names: they are tables, which need no canvas.

const dots = (figure, spec) => {
  const known = [spec.reference, ...spec.dots.flatMap((dot) => [dot.value, dot.low, dot.high])].filter((value) => value !== null);
  const [first, last] = [Math.min(...known), Math.max(...known)];
  const margin = 0.04 * (last - first) || 0.1 * Math.abs(last) || 1;
  const low = first - margin, high = last + margin;
  const place = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const mark = (name, from, to) => {
    const bar = make("i", { class: name });
    bar.style.left = place(from);
    if (to !== undefined) bar.style.width = `calc(${place(to)} - ${place(from)})`;
    return bar;
  };
  const track = (dot) => make("div", { class: "track" },
    ...(spec.reference === null ? [] : [mark("reference", spec.reference)]),
    ...(dot.low === null || dot.high === null ? [] : [mark("reach", dot.low, dot.high)]),
    ...(dot.value === null ? [] : [mark("value", dot.value)]));
  const rows = spec.dots.map((dot) => make("tr", {},
    make("th", { scope: "row" }, dot.name),
    make("td", { "aria-hidden": "true", class: "drawn" }, track(dot)),
    make("td", {}, dot.said),
    make("td", {}, dot.interval)));
  const end = (value, text, side) => {
    const label = make("span", {}, text);
    label.style[side] = side === "left" ? place(value) : `calc(100% - ${place(value)})`;
    return label;
  };
  const ends = known.length ? [end(first, spec.ends[0], "left"), end(last, spec.ends[1], "right")] : [];
  const head = make("tr", {},
    make("th", { scope: "col", class: "left" }, "name"),
    make("td", { "aria-hidden": "true", class: "drawn" }, make("div", { class: "ends" }, ...ends)),
    make("th", { scope: "col" }, shortLabel(spec.axis.label)),
    make("th", { scope: "col" }, "95 % interval"));
  const table = make("table", { class: "dots" }, make("thead", {}, head), make("tbody", {}, ...rows));
  figure.append(wide(table, spec.title), make("p", { class: "said" }, spec.said));
};

const square = (figure, spec) => {
  const finite = spec.values.flatMap((line, i) => line.filter((value, j) => value !== null && i !== j));
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const cell = (value, i, j) => {
    const td = make("td", { title: `${spec.names[i]} and ${spec.names[j]}: ${number(value)}` }, value === null ? NULL : value.toFixed(2));
    if (value !== null) {
      const share = high > low ? (value - low) / (high - low) : 1;
      td.style.background = viridis(share);
      td.style.color = legibleOn(viridis(share));
    }
    return td;
  };
  const head = make("tr", {}, make("td"), ...spec.names.map((name) => make("th", { scope: "col" }, make("span", {}, name))));
  const rows = spec.values.map((line, i) => make("tr", {}, make("th", { scope: "row" }, spec.names[i]), ...line.map((value, j) => cell(value, i, j))));
  figure.append(wide(make("table", { class: "square" }, make("thead", {}, head), make("tbody", {}, ...rows)), spec.title), make("p", { class: "said" }, spec.said));
};
