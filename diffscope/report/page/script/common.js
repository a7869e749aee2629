// What all parts of the page use: elements, numbers, colours, and what is told to screen readers.

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children); // texts become text nodes: whatever a name holds is not read as HTML
  return element;
};

const NULL = "–";

// As report/text.py has it: significant digits, and an exponent only where a reader needs one.
const number = (value, digits = 4) => {
  if (value === null || value === undefined || Number.isNaN(value)) return NULL;
  const size = Math.abs(value);
  const text = value === 0 || (size >= 1e-3 && size < 1e6) ? String(Number(value.toPrecision(digits))) : value.toExponential(digits - 1);
  return text.replace("-", "−");
};

const count = (value) => Math.round(value).toLocaleString("en-US");

const short = (value) => {
  for (const [unit, name] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (Math.abs(value) >= unit) return number(value / unit, 4) + name;
  }
  return number(value);
};

const percent = (value, digits = 3) => (value > 0 ? "+" : "") + number(100 * value, digits) + " %";

const said = (axis, value) => {
  if (value === null || value === undefined) return NULL;
  return axis.whole ? count(value) : axis.signed ? percent(value) : number(value);
};

// --- axes of uPlot

const FONT = "12px system-ui, sans-serif";

// All labels of an axis with the same decimals, as many as its steps need.
const labels = (of) => (u, values, axis, space, step) => values.map((value) => {
  if (of.whole) return short(value);
  const decimals = (size) => {
    const found = [0, 1, 2, 3, 4, 5, 6, 7, 8].find((places) => Math.abs(size * 10 ** places - Math.round(size * 10 ** places)) < 1e-6);
    return found ?? 9;
  };
  if (of.signed) return `${value > 0 ? "+" : ""}${(100 * value).toFixed(decimals(100 * step)).replace("-", "−")} %`;
  return Math.abs(value) >= 1e6 ? number(value) : value.toFixed(decimals(step)).replace("-", "−");
});

// Powers of ten, and 1, 2, 5 where these are too few.
const decades = (u, axis, low, high) => {
  const found = [], steps = high / low > 300 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const step of steps) {
      const value = Number(`${step}e${power}`);
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
};

const plotAxis = (of, logarithmic, size, grid = true) => ({
  size, font: FONT, stroke: colours.of("quiet"),
  grid: { show: grid, stroke: colours.of("line"), width: 1 },
  ticks: { stroke: colours.of("line"), width: 1, size: 4 },
  ...(logarithmic
    ? { splits: decades, filter: (_, splits) => splits, values: (_, values) => values.map((value) => (of.whole ? short(value) : number(value))) }
    : { values: labels(of) }),
});

// A little room on both sides, in decades.
const roomy = (u, low, high) => {
  if (!(low > 0)) return [0.1, 1];
  const room = Math.max(0.03 * Math.log(high / low), 0.05);
  return [low * Math.exp(-room), high * Math.exp(room)];
};

// --- colours: those of the style sheet, as they are now (light, dark, print)

const colours = {
  known: {},
  of(name) {
    if (!(name in this.known)) {
      const probe = make("span");
      probe.style.color = `var(--${name})`;
      document.body.append(probe);
      this.known[name] = getComputedStyle(probe).color;
      probe.remove();
    }
    return this.known[name];
  },
  isDark() {
    return Number(this.of("ground").match(/\d+/)[0]) < 128;
  },
  faded(colour, alpha) {
    return colour.replace("rgb(", "rgba(").replace(")", `, ${alpha})`);
  },
};

const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];

const viridis = (share) => {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const below = Math.min(VIRIDIS.length - 2, Math.floor(place));
  const mixed = VIRIDIS[below].map((value, i) => Math.round(value + (place - below) * (VIRIDIS[below + 1][i] - value)));
  return `rgb(${mixed.join(", ")})`;
};

// Black or white, whichever has more contrast (WCAG 2, relative luminance).
const legibleOn = (colour) => {
  const [red, green, blue] = colour.match(/\d+/g).map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
};

const DISTINCT = 8;
const DASHES = [[], [8, 4], [10, 3, 2, 3], [2, 3], [14, 4], [6, 3, 2, 3, 2, 3], [4, 3], [12, 3, 3, 3]];

// Colour and dashes of one of several curves: eight are told apart, more are a scale from first to last.
const look = (place, of) => {
  if (of <= DISTINCT) return { colour: colours.of(`curve-${place}`), dash: DASHES[place] };
  const [from, to] = colours.isDark() ? [0.25, 1] : [0, 0.85];
  return { colour: viridis(from + ((to - from) * place) / (of - 1)), dash: [] };
};

const swatch = ({ colour, dash }) => {
  const canvas = make("canvas", { width: 44, height: 12, "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  pen.strokeStyle = colour;
  pen.lineWidth = 4;
  pen.setLineDash(dash.map((length) => 2 * length));
  pen.beginPath();
  pen.moveTo(0, 6);
  pen.lineTo(44, 6);
  pen.stroke();
  return canvas;
};

// --- choices

const choices = []; // what a reader has switched, so that a renewed page shows the same: [name, read, write]

const download = (name, type, text) => {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

// RFC 4180, as result.csv is written.
const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const csv = (lines) => lines.map((line) => line.map((cell) => field(String(cell ?? ""))).join(",") + "\r\n").join("");
