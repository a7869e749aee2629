// The page: reads its data, draws, and remembers what a reader chose where it renews itself.

const read = async () => {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
};

const drawn = []; // charts that know how to draw themselves again

const chart = (figure, spec, i) => {
  if (spec.kind === "dots") return dots(figure, spec);
  if (spec.kind === "square") return square(figure, spec);
  if (spec.map) {
    const place = make("div", { class: "map" });
    figure.append(place);
    drawn.push(new ColourMap(place, spec, `map-${i}`));
  }
  return drawn.push(new Curves(figure, spec, `chart-${i}`));
};

const redraw = () => {
  colours.known = {};
  for (const one of drawn) one.draw();
};

const resize = () => drawn.forEach((one) => one.resize());

// --- light and dark

const theme = () => {
  const button = document.getElementById("theme"), root = document.documentElement;
  const set = (name) => {
    root.dataset.theme = name;
    button.textContent = name === "dark" ? "Light" : "Dark";
    redraw();
  };
  button.textContent = colours.isDark() ? "Light" : "Dark";
  button.hidden = false;
  button.addEventListener("click", () => set(colours.isDark() ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { redraw(); button.textContent = colours.isDark() ? "Light" : "Dark"; });
  choices.push(["theme", () => root.dataset.theme ?? "", (name) => name && set(name)]);
};

const printing = () => {
  addEventListener("beforeprint", () => { document.documentElement.classList.add("print"); redraw(); resize(); });
  addEventListener("afterprint", () => { document.documentElement.classList.remove("print"); redraw(); resize(); });
};

// --- pictures

const zoom = () => {
  const dialog = document.getElementById("zoom"), picture = dialog.querySelector("img");
  for (const button of document.querySelectorAll("button.zoom")) {
    button.addEventListener("click", () => {
      const small = button.querySelector("img");
      picture.src = small.src;
      picture.alt = small.alt;
      picture.classList.remove("full");
      dialog.showModal();
    });
  }
  dialog.querySelector(".size").addEventListener("click", () => picture.classList.toggle("full"));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
};

// --- a page that renews itself

const MEMORY = `diffscope ${location.pathname}`;

const remember = () => {
  const open = [...document.querySelectorAll("details")].map((details) => details.open);
  const known = { scroll: scrollY, open, choices: Object.fromEntries(choices.map(([name, get]) => [name, get()])) };
  sessionStorage.setItem(MEMORY, JSON.stringify(known));
};

const recall = () => {
  const known = JSON.parse(sessionStorage.getItem(MEMORY) ?? "null");
  sessionStorage.removeItem(MEMORY);
  if (!known) return;
  for (const [name, , set] of choices) {
    try {
      if (known.choices[name] !== undefined) set(known.choices[name]);
    } catch { /* there is more to choose from than there was */ }
  }
  document.querySelectorAll("details").forEach((details, i) => { details.open = known.open[i] ?? details.open; });
  scrollTo(0, known.scroll);
};

const renew = (seconds) => {
  const button = document.getElementById("pause");
  let paused = false;
  const told = () => { button.textContent = paused ? "Go on renewing" : "Stop renewing"; };
  button.addEventListener("click", () => { paused = !paused; told(); });
  told();
  setInterval(() => {
    if (paused || document.querySelector("dialog[open]")) return;
    remember();
    location.reload();
  }, 1000 * seconds);
};

// --- all of it

const start = async () => {
  const data = await read();
  const figures = [...document.querySelectorAll("[data-chart]")];
  for (const figure of figures) {
    chart(figure, data.charts[Number(figure.dataset.chart)], figure.dataset.chart);
    document.documentElement.dataset.first ??= Math.round(performance.now());
    await new Promise((done) => { setTimeout(done); }); // what is drawn is seen before the next is
  }
  document.querySelectorAll("table.sortable").forEach(standing);
  for (const details of document.querySelectorAll("[data-rows]")) {
    details.addEventListener("toggle", () => {
      if (details.open && !details.querySelector("table")) allRows(details, data.results[Number(details.dataset.rows)]);
    });
  }
  for (const button of document.querySelectorAll("button[data-save]")) {
    const { columns, rows, json, name } = data.results[Number(button.dataset.of)];
    const text = { csv: () => csv([columns, ...rows]), json: () => json }[button.dataset.save];
    const type = { csv: "text/csv", json: "application/json" }[button.dataset.save];
    button.addEventListener("click", () => download(`${name}.${button.dataset.save}`, type, text()));
    button.hidden = false;
  }
  theme();
  printing();
  zoom();
  recall();
  if (data.renewed) renew(data.renewed);
  new ResizeObserver(resize).observe(document.querySelector("main"));
  document.querySelectorAll("details").forEach((details) => details.addEventListener("toggle", resize));
  document.documentElement.dataset.drawn = Math.round(performance.now());
};

start();
