// A chart of curves: drawn by uPlot, read by pointer, by keyboard and by ear, with its facets to switch on and off.

class Curves {
  constructor(figure, spec, name) {
    Object.assign(this, { figure, spec, name });
    this.on = spec.on.map((values) => new Set(values));
    this.logarithmic = { x: spec.x.log, y: spec.y.log };
    this.focus = null; // { curve, point }: what the pointer or the keyboard is at
    this.controls = make("div", { class: "controls" });
    this.plot = make("div", {
      class: "plot", tabindex: "0", role: "group", "aria-roledescription": "chart",
      "aria-label": `${spec.title}. Arrow keys read its points.`, keydown: (event) => this.key(event),
      blur: () => this.point(null),
    });
    this.tip = make("div", { class: "tip", hidden: true });
    this.dot = make("div", { class: "dot", hidden: true });
    this.marks = make("p", { class: "marks" });
    this.spoken = make("div", { class: "spoken", "aria-live": "polite" });
    this.legend = make("ul", { class: "legend" });
    const upwards = make("div", { class: "label", "data-axis": "y" });
    this.upwards = upwards;
    figure.append(this.controls, upwards, this.plot, make("div", { class: "label", "data-axis": "x" }, spec.x.label),
      this.legend, this.marks, make("p", { class: "said" }, spec.said), this.spoken);
    this.buildControls();
    this.draw();
    choices.push([name, () => [this.on.map((set) => [...set]), this.logarithmic], ([on, logarithmic]) => {
      this.on = on.map((values) => new Set(values));
      this.logarithmic = logarithmic;
      this.buildControls();
      this.draw();
    }]);
  }

  visible() {
    return this.spec.curves.filter((curve) => curve.at.every((value, facet) => this.on[facet].has(value)));
  }

  // --- what can be switched

  buildControls() {
    const { facets } = this.spec;
    const selects = facets.flatMap((facet, i) => (facet.single ? [this.select(facet, i)] : []));
    const boxes = facets.flatMap((facet, i) => (facet.single ? [] : [this.boxes(facet, i)]));
    this.controls.replaceChildren(...selects, ...boxes, this.options());
  }

  select(facet, i) {
    const chosen = make("select", { change: (event) => this.switch(i, [Number(event.target.value)]) });
    chosen.append(...facet.values.map((value, j) => make("option", { value: j, selected: this.on[i].has(j) }, value)));
    return make("label", { class: "choice" }, `${facet.name} `, chosen);
  }

  boxes(facet, i) {
    const boxes = facet.values.map((value, j) => {
      const box = make("input", { type: "checkbox", value: j, checked: this.on[i].has(j) });
      return make("label", { class: "choice" }, box, " ", make("span", {}, value));
    });
    const inputs = () => [...group.querySelectorAll("input")];
    const set = (wanted) => {
      for (const box of inputs()) box.checked = wanted(box);
      this.switch(i, inputs().filter((box) => box.checked).map((box) => Number(box.value)));
    };
    const group = make("fieldset", { change: () => set((box) => box.checked) },
      make("legend", {}, facet.name), make("div", { class: facet.values.length > 16 ? "many" : "few", tabindex: facet.values.length > 16 ? "0" : null,
        role: facet.values.length > 16 ? "group" : null, "aria-label": facet.values.length > 16 ? facet.name : null }, ...boxes));
    if (facet.values.length > 3) {
      group.append(make("button", { type: "button", click: () => set(() => true) }, "all"), " ",
        make("button", { type: "button", click: () => set(() => false) }, "none"));
    }
    return group;
  }

  switch(facet, values) {
    this.on[facet] = new Set(values);
    this.draw();
  }

  options() {
    const box = (axis, text) => make("label", { class: "choice" }, make("input", {
      type: "checkbox", checked: this.logarithmic[axis],
      change: (event) => { this.logarithmic[axis] = event.target.checked; this.draw(); } }), " ", text);
    const group = make("div", { class: "options" });
    const positive = (key) => this.spec.curves.every((curve) => curve[key].every((value) => value === null || value > 0));
    if (this.spec.x.whole && positive("x")) group.append(box("x", "logarithmic steps"));
    if (!this.spec.y.signed && positive("y")) group.append(box("y", "logarithmic values"));
    group.append(make("button", { type: "button", click: () => this.save() }, "CSV of this chart"));
    return group;
  }

  save() {
    const { spec } = this;
    const head = [...spec.facets.map((facet) => facet.name), spec.x.label, spec.y.label, "low", "high"];
    const lines = this.visible().flatMap((curve) => curve.x.map((x, i) => [
      ...curve.at.map((value, facet) => spec.facets[facet].values[value]), x, curve.y[i], curve.low?.[i], curve.high?.[i]]));
    download(`${spec.title}.csv`, "text/csv", csv([head, ...lines]));
  }

  // --- drawing

  title(curve) {
    const own = curve.at.map((value, facet) => this.spec.facets[facet].values[value]).filter((_, facet) => !this.spec.facets[facet].single);
    return own.length ? own.join(", ") : this.spec.same.join(", ");
  }

  // All curves that can be shown at once: those of the measure that is chosen.
  rivals() {
    const { facets, curves } = this.spec;
    return curves.filter((curve) => curve.at.every((value, facet) => !facets[facet].single || this.on[facet].has(value)));
  }

  measure() {
    const single = this.spec.facets.findIndex((facet) => facet.single);
    return single < 0 ? this.spec.y.label : this.spec.facets[single].values[[...this.on[single]][0]] ?? "";
  }

  draw() {
    this.chart?.destroy();
    this.point(null);
    this.shown = this.visible();
    const all = this.rivals(); // a few keep their colours, whatever is switched off
    this.looks = this.shown.map((curve, i) => (all.length <= DISTINCT ? look(all.indexOf(curve), all.length) : look(i, this.shown.length)));
    this.upwards.textContent = this.measure();
    this.fillLegend();
    this.tellMarks();
    const { data, series, bands } = this.aligned();
    this.chart = new uPlot(this.described(series, bands), data, this.plot);
    this.chart.over.append(this.dot, this.tip);
    this.chart.over.addEventListener("mouseleave", () => this.point(null));
  }

  aligned() {
    const xs = [...new Set(this.shown.flatMap((curve) => curve.x))].sort((a, b) => a - b);
    const place = new Map(xs.map((x, i) => [x, i]));
    const data = [xs.length ? xs : [0]], series = [{}], bands = [];
    const spread = (curve, values) => {
      const line = new Array(data[0].length); // undefined: not measured there; null: measured without a value
      curve.x.forEach((x, i) => { line[place.get(x)] = this.logarithmic.y && values[i] <= 0 ? null : values[i]; });
      return line;
    };
    this.shown.forEach((curve, i) => {
      const { colour, dash } = this.looks[i];
      if (curve.low && this.shown.length <= 12) {
        for (const end of ["high", "low"]) {
          data.push(spread(curve, curve[end]));
          series.push({ stroke: "transparent", width: 0, points: { show: false } });
        }
        bands.push({ series: [data.length - 2, data.length - 1], fill: colours.faded(colour, this.shown.length <= 3 ? 0.18 : 0.09) });
      }
      data.push(spread(curve, curve.y));
      series.push({ stroke: colour, width: this.shown.length > 30 ? 1 : 2, dash, points: {
        show: curve.x.length <= 60 && this.shown.length <= 30, size: 7, width: 1.5, stroke: colour, fill: colours.of("ground") } });
    });
    if (data.length === 1) { data.push([null]); series.push({}); }
    return { data, series, bands };
  }

  described(series, bands) {
    const { spec, logarithmic } = this;
    return {
      width: this.width(), height: this.height(), series, bands, legend: { show: false },
      scales: {
        x: { time: false, ...(logarithmic.x ? { distr: 3, range: roomy } : {}) },
        y: logarithmic.y ? { distr: 3, range: roomy } : { range: (u, low, high) => this.range(low, high) },
      },
      axes: [plotAxis(spec.x, logarithmic.x, 30), plotAxis(spec.y, logarithmic.y, 62)],
      cursor: { points: { show: false }, y: false, drag: { x: true, y: false } },
      hooks: {
        drawClear: [(u) => this.drawMarks(u)], draw: [(u) => this.drawBest(u)], setCursor: [(u) => this.follow(u)],
      },
    };
  }

  range(low, high) {
    if (low === null) return [0, 1];
    const all = this.spec.reference === null ? [low, high] : [Math.min(low, this.spec.reference), Math.max(high, this.spec.reference)];
    const margin = 0.06 * (all[1] - all[0]) || Math.abs(all[0]) * 0.1 || 1;
    return [all[0] - margin, all[1] + margin];
  }

  width() { return Math.max(240, this.plot.clientWidth); }
  height() { return this.width() < 500 ? 260 : 340; }

  resize() {
    if (this.chart && this.chart.width !== this.width()) {
      this.point(null);
      this.chart.setSize({ width: this.width(), height: this.height() });
    }
  }

  // The curve whose marks are drawn: the one that is read, else the best that is shown.
  marked() {
    if (this.focus) return this.focus.curve;
    const known = this.shown.filter((curve) => curve.marks);
    const sign = this.spec.best === "highest" ? -1 : 1;
    const value = (curve) => Math.min(...curve.y.filter((y) => y !== null).map((y) => sign * y));
    return known.reduce((best, curve) => (best === null || value(curve) < value(best) ? curve : best), null);
  }

  drawMarks(u) {
    const marks = this.marked()?.marks, pen = u.ctx, { left, top, width, height } = u.bbox;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    if (marks?.span) {
      const [from, to] = marks.span.map((x) => u.valToPos(x, "x", true));
      pen.fillStyle = colours.of("shade");
      pen.fillRect(from, top, to - from, height);
    }
    pen.strokeStyle = colours.of("quiet");
    pen.lineWidth = 1.2 * devicePixelRatio;
    const line = (x0, y0, x1, y1, dash) => {
      pen.setLineDash(dash.map((length) => length * devicePixelRatio));
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
      pen.stroke();
    };
    if (marks && marks.rule !== null) {
      const x = u.valToPos(marks.rule, "x", true);
      line(x, top, x, top + height, [5, 4]);
    }
    if (this.spec.reference !== null) {
      const y = u.valToPos(this.spec.reference, "y", true);
      line(left, y, left + width, y, []);
    }
    pen.restore();
  }

  drawBest(u) {
    if (!this.spec.best || this.shown.length > 12) return;
    const sign = this.spec.best === "highest" ? -1 : 1;
    this.shown.forEach((curve, i) => {
      const best = curve.y.reduce((at, y, j) => (y !== null && (at < 0 || sign * y < sign * curve.y[at]) ? j : at), -1);
      if (best < 0) return;
      u.ctx.fillStyle = this.looks[i].colour;
      u.ctx.beginPath();
      u.ctx.arc(u.valToPos(curve.x[best], "x", true), u.valToPos(curve.y[best], "y", true), 5 * devicePixelRatio, 0, 7);
      u.ctx.fill();
    });
  }

  fillLegend() {
    const most = 12, named = this.shown.filter((curve) => this.title(curve)).slice(0, most);
    const entries = named.map((curve, i) => make("li", {}, swatch(this.looks[i]), this.title(curve)));
    if (this.shown.length > most) entries.push(make("li", { class: "more" }, `and ${this.shown.length - most} more, by colour`));
    if (!this.shown.length) entries.push(make("li", { class: "more" }, "Nothing is switched on."));
    this.legend.replaceChildren(...entries);
  }

  tellMarks() {
    const curve = this.marked(), text = curve?.marks?.said;
    const whose = this.shown.length > 1 && text ? `${this.title(curve)}: ` : "";
    this.marks.textContent = text ? `${whose}${text}.` : "";
  }

  // --- reading

  follow(u) {
    const { left, top } = u.cursor;
    if (left === undefined || left < 0) return;
    let found = null, least = 40;
    for (const curve of this.shown) {
      const point = nearest(curve, u.posToVal(left, "x"), this.logarithmic.x);
      if (point < 0) continue;
      const away = Math.hypot(0.5 * (u.valToPos(curve.x[point], "x") - left), u.valToPos(curve.y[point], "y") - top);
      if (away < least) [found, least] = [{ curve, point }, away];
    }
    this.point(found);
  }

  point(found) {
    const before = this.focus?.curve;
    this.focus = found;
    this.tip.hidden = this.dot.hidden = !found;
    if (!this.chart) return;
    if (found) this.place(found);
    if (before !== found?.curve && this.shown) {
      this.tellMarks();
      if (this.shown.some((curve) => curve.marks)) this.chart.redraw(false);
    }
  }

  place({ curve, point }) {
    const u = this.chart, x = u.valToPos(curve.x[point], "x"), y = u.valToPos(curve.y[point], "y");
    const { colour } = this.looks[this.shown.indexOf(curve)];
    this.dot.style.cssText = `left:${x}px;top:${y}px;background:${colour}`;
    const [where, what] = this.told({ curve, point });
    const title = this.title(curve);
    this.tip.replaceChildren(...(title ? [make("strong", {}, title)] : []), make("span", {}, where), make("span", {}, what));
    const width = u.over.clientWidth;
    this.tip.style.cssText = x > width / 2 ? `right:${width - x + 14}px;top:${y}px` : `left:${x + 14}px;top:${y}px`;
  }

  told({ curve, point }) {
    const { spec } = this, low = curve.low?.[point], high = curve.high?.[point];
    const ends = low === null || low === undefined ? "" : ` [${said(spec.y, low)}, ${said(spec.y, high)}]`;
    return [`${shortLabel(spec.x.label)} ${said(spec.x, curve.x[point])}`, `${shortLabel(this.measure())} ${said(spec.y, curve.y[point])}${ends}`];
  }

  key(event) {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e9], End: [0, 1e9] };
    if (event.key === "Escape") return this.point(null);
    if (!(event.key in moves) || !this.shown.length) return undefined;
    event.preventDefault();
    const [across, along] = moves[event.key];
    const at = this.focus ?? { curve: this.marked() ?? this.shown[0], point: -1 };
    const place = (this.shown.indexOf(at.curve) + across + this.shown.length) % this.shown.length;
    const curve = this.shown[place];
    const known = curve.y.flatMap((y, i) => (y === null ? [] : [i]));
    if (!known.length) return undefined;
    const from = across ? known.indexOf(nearest(curve, at.curve.x[Math.max(0, at.point)], this.logarithmic.x)) : known.indexOf(at.point);
    const point = known[Math.min(known.length - 1, Math.max(0, from + along))];
    this.point({ curve, point });
    this.spoken.textContent = [this.title(curve), ...this.told({ curve, point })].filter(Boolean).join(", ");
    return undefined;
  }
}

// The point of a curve that is nearest to x, of those that have a value; -1 where none has.
const nearest = (curve, x, logarithmic) => {
  const scale = logarithmic ? Math.log : (value) => value;
  let found = -1, least = Infinity;
  for (let i = 0; i < curve.x.length; i++) {
    const away = Math.abs(scale(curve.x[i]) - scale(x));
    if (curve.y[i] !== null && away < least) [found, least] = [i, away];
  }
  return found;
};

// "noise level σ (noise-to-signal ratio)" beside a number: "σ"; else what stands before a bracket.
const shortLabel = (label) => label.split(" (")[0].replace("noise level ", "").replace("training steps", "step").replace("training step", "step");
