// Curves as a map: one facet upwards, values as colours, the window drawn over it; a slider shows one column as a curve.

class ColourMap {
  constructor(figure, spec, name) {
    Object.assign(this, { figure, spec, name });
    const { facet } = spec.map;
    this.others = spec.facets.map((_, i) => i).filter((i) => i !== facet);
    this.chosen = this.others.map((i) => spec.on[i][0]);
    this.levels = spec.facets[facet].values.map((text, place) => ({ place, value: Number(text) })).sort((a, b) => a.value - b.value);
    const finite = spec.curves.flatMap((curve) => curve.y).filter((y) => y !== null);
    this.range = [Math.min(...finite.slice(0, 1e5)), Math.min(1, Math.max(...finite.slice(0, 1e5)))];
    this.build();
    choices.push([name, () => [this.chosen, this.column], ([chosen, column]) => {
      this.chosen = chosen;
      this.read();
      this.slider.value = this.column = Math.min(column, this.xs.length - 1);
      for (const [i, select] of this.selects.entries()) select.value = chosen[i];
      this.draw();
    }]);
  }

  build() {
    const { spec } = this;
    this.selects = this.others.map((facet, i) => {
      const select = make("select", { change: (event) => { this.chosen[i] = Number(event.target.value); this.read(); this.draw(); } });
      select.append(...spec.facets[facet].values.map((value, j) => make("option", { value: j, selected: this.chosen[i] === j }, value)));
      return select;
    });
    this.controls = make("div", { class: "controls" }, ...this.others.map((facet, i) => make("label", { class: "choice" }, `${spec.facets[facet].name} `, this.selects[i])));
    this.plot = make("div", { class: "plot" });
    this.tip = make("div", { class: "tip", hidden: true });
    this.slider = make("input", { type: "range", min: "0", step: "1", id: `${this.name}-slider`, input: (event) => { this.column = Number(event.target.value); this.show(); } });
    this.output = make("output", { for: `${this.name}-slider` });
    this.sliced = make("div", { class: "plot" });
    this.key = make("div", { class: "scale", role: "img" });
    this.figure.append(this.controls, make("div", { class: "label" }, spec.map.label), this.plot, make("div", { class: "label", "data-axis": "x" }, spec.x.label),
      this.key, make("p", { class: "said" }, spec.map.windows.length ? "White: the recommended level, where there is a window; dashed: its ends." : ""),
      make("label", { class: "slide", for: `${this.name}-slider` }, `${shortLabel(spec.x.label)} `, this.output), this.slider, make("div", { class: "label" }, spec.y.label), this.sliced,
      make("div", { class: "label", "data-axis": "x" }, spec.map.label));
    this.read();
    this.column = this.xs.length - 1;
    this.draw();
  }

  // The cells of what is chosen: by level, then by column.
  read() {
    const { spec } = this;
    const own = spec.curves.filter((curve) => this.others.every((facet, i) => curve.at[facet] === this.chosen[i]));
    this.xs = [...new Set(own.flatMap((curve) => curve.x))].sort((a, b) => a - b);
    const place = new Map(this.xs.map((x, i) => [x, i]));
    const blank = () => new Array(this.xs.length).fill(null);
    this.cells = this.levels.map(({ place: at }) => {
      const cells = { y: blank(), low: blank(), high: blank() };
      for (const curve of own.filter((one) => one.at[spec.map.facet] === at)) {
        curve.x.forEach((x, i) => { for (const key of ["y", "low", "high"]) cells[key][place.get(x)] = curve[key]?.[i] ?? null; });
      }
      return cells;
    });
    this.windows = spec.map.windows.find((one) => one.at.every((value, i) => value === this.chosen[i]))?.points ?? [];
    this.slider.max = this.xs.length - 1;
    this.column = Math.min(this.column ?? 0, this.xs.length - 1);
  }

  share(value) {
    const [low, high] = this.range;
    return high > low ? (value - low) / (high - low) : 0.5;
  }

  draw() {
    this.chart?.destroy();
    const ys = this.levels.map((level) => level.value);
    this.edges = { x: edges(this.xs), y: edges(ys.map(Math.log)).map(Math.exp) };
    if (this.xs[0] >= 0) this.edges.x[0] = Math.max(0, this.edges.x[0]); // there are no steps before the first
    const { x, y } = this.edges, last = (list) => list[list.length - 1];
    this.chart = new uPlot({
      width: this.width(), height: 300, legend: { show: false }, series: [{}, { show: false }],
      scales: { x: { time: false, range: () => [x[0], last(x)] }, y: { distr: 3, range: () => [y[0], last(y)] } },
      axes: [plotAxis(this.spec.x, false, 30, false), plotAxis({}, true, 62, false)],
      cursor: { points: { show: false }, drag: { x: false, y: false } },
      hooks: { drawClear: [(u) => this.paint(u)], draw: [(u) => this.trace(u)], setCursor: [(u) => this.follow(u)] },
    }, [this.xs, this.xs.map(() => ys[0])], this.plot);
    this.chart.over.append(this.tip);
    this.chart.over.addEventListener("click", () => { this.column = this.at(this.chart)?.column ?? this.column; this.slider.value = this.column; this.show(); });
    this.key.replaceChildren(make("span", {}, number(this.range[0])), make("i"), make("span", {}, number(this.range[1])));
    this.key.setAttribute("aria-label", `colours from ${number(this.range[0])} (dark) to ${number(this.range[1])} (light)`);
    this.key.querySelector("i").style.background = `linear-gradient(90deg, ${VIRIDIS.map((c) => `rgb(${c})`).join(", ")})`;
    this.slice?.destroy();
    this.slice = null;
    this.slider.value = this.column;
    this.show();
  }

  paint(u) {
    const { x, y } = this.edges, pen = u.ctx;
    const across = x.map((edge) => u.valToPos(edge, "x", true)), upwards = y.map((edge) => u.valToPos(edge, "y", true));
    this.cells.forEach((cells, row) => cells.y.forEach((value, column) => {
      if (value === null) return;
      pen.fillStyle = viridis(this.share(value));
      pen.fillRect(across[column], upwards[row + 1], across[column + 1] - across[column] + 0.6, upwards[row] - upwards[row + 1] + 0.6);
    }));
  }

  trace(u) {
    const pen = u.ctx, scale = devicePixelRatio;
    const line = (key, dash, width) => {
      for (const [colour, more] of [["rgba(0, 0, 0, 0.6)", 2], ["#fff", 0]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = (width + more) * scale;
        pen.setLineDash(dash.map((length) => length * scale));
        pen.beginPath();
        this.windows.forEach((point, i) => {
          if (point[key] !== null) pen[i ? "lineTo" : "moveTo"](u.valToPos(point.x, "x", true), u.valToPos(point[key], "y", true));
        });
        pen.stroke();
      }
    };
    pen.save();
    line("low", [4, 3], 1);
    line("high", [4, 3], 1);
    line("level", [], 2);
    pen.setLineDash([]);
    for (const point of this.windows) {
      pen.beginPath();
      pen.arc(u.valToPos(point.x, "x", true), u.valToPos(point.level, "y", true), 4 * scale, 0, 7);
      pen.fillStyle = "#fff";
      pen.fill();
      pen.lineWidth = scale;
      pen.strokeStyle = "rgba(0, 0, 0, 0.7)";
      pen.stroke();
    }
    const { x } = this.edges, [from, to] = [x[this.column], x[this.column + 1]].map((edge) => u.valToPos(edge, "x", true));
    pen.setLineDash([]);
    for (const [colour, width] of [["#fff", 4], ["#000", 1.5]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width * scale;
      pen.strokeRect(from, u.bbox.top, to - from, u.bbox.height);
    }
    pen.restore();
  }

  // The curve of the column that the slider is at.
  show() {
    const cells = (key) => this.cells.map((line) => line[key][this.column]);
    const data = [this.levels.map((level) => level.value), cells("high"), cells("low"), cells("y")];
    this.output.textContent = said(this.spec.x, this.xs[this.column]);
    this.slider.setAttribute("aria-valuetext", this.output.textContent);
    this.chart.redraw(false);
    if (this.slice) this.slice.setData(data);
    else this.slice = this.drawSlice(data);
  }

  drawSlice(data) {
    const colour = colours.of("curve-0"), all = ["y", "low", "high"].flatMap((key) => this.cells.flatMap((cells) => cells[key])).filter((value) => value !== null);
    const [low, high] = [Math.min(...all), Math.max(...all)], margin = 0.06 * (high - low) || 1;
    const hidden = { stroke: "transparent", width: 0, points: { show: false } };
    return new uPlot({
      width: this.width(), height: 220, legend: { show: false }, bands: [{ series: [1, 2], fill: colours.faded(colour, 0.18) }],
      series: [{}, hidden, hidden, { stroke: colour, width: 2, points: { show: true, size: 7, width: 1.5, stroke: colour, fill: colours.of("ground") } }],
      scales: { x: { time: false, distr: 3, range: roomy }, y: { range: () => [low - margin, high + margin] } },
      axes: [plotAxis({}, true, 30), plotAxis(this.spec.y, false, 62)],
      cursor: { show: false },
    }, data, this.sliced);
  }

  at(u) {
    const { left, top } = u.cursor;
    if (left === undefined || left < 0) return null;
    const find = (list, value) => list.findIndex((edge, i) => i + 1 < list.length && value >= edge && value < list[i + 1]);
    const column = find(this.edges.x, u.posToVal(left, "x")), row = find(this.edges.y, u.posToVal(top, "y"));
    return column < 0 || row < 0 ? null : { column, row };
  }

  follow(u) {
    const cell = this.at(u);
    this.tip.hidden = !cell;
    if (!cell) return;
    const { y, low, high } = this.cells[cell.row], { left, top } = u.cursor;
    const ends = low[cell.column] === null ? "" : ` [${number(low[cell.column])}, ${number(high[cell.column])}]`;
    this.tip.replaceChildren(make("span", {}, `${shortLabel(this.spec.x.label)} ${said(this.spec.x, this.xs[cell.column])}, ${shortLabel(this.spec.map.label)} ${number(this.levels[cell.row].value)}`),
      make("span", {}, `${shortLabel(this.spec.y.label)} ${said(this.spec.y, y[cell.column])}${ends}`));
    this.tip.style.cssText = left > u.over.clientWidth / 2 ? `right:${u.over.clientWidth - left + 14}px;top:${top}px` : `left:${left + 14}px;top:${top}px`;
  }

  width() { return Math.max(240, this.plot.clientWidth); }

  resize() {
    if (this.chart.width === this.width()) return;
    this.chart.setSize({ width: this.width(), height: 300 });
    this.slice.setSize({ width: this.width(), height: 220 });
  }
}

// Of cells around centres.
const edges = (centres) => {
  if (centres.length === 1) return [centres[0] - 0.5, centres[0] + 0.5];
  const middle = centres.slice(1).map((value, i) => (value + centres[i]) / 2);
  return [2 * centres[0] - middle[0], ...middle, 2 * centres[centres.length - 1] - middle[middle.length - 1]];
};
