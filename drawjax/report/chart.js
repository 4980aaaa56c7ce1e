// Line charts in SVG, drawn for the width there is, with a cursor that pointer and keys move.

const SVG = "http://www.w3.org/2000/svg";

function add(parent, tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

function draw(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const sized = [];  // checks of widths, for who cannot wait until the browser looks

// Acts once an element has a width, and whenever it has another.
function onWidth(element, act) {
  let width = -1;
  const check = () => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    act();
  };
  new ResizeObserver(check).observe(element);
  sized.push(check);
}

// Round numbers between low and high, about `count` of them.
function ticks(low, high, count, whole) {
  const rough = (high - low) / Math.max(count, 1), unit = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 2.5, 5, 10].map(factor => factor * unit).find(size => size >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({length: last - first + 1}, (_, i) => (first + i) * step);
}

// A number on an axis of such steps: as many digits as tell it from its neighbors.
function tick(value, step) {
  if (value === 0) return "0";
  const digits = Math.ceil(Math.log10(Math.abs(value) / step)) + 2;
  if (step < 1e-5) return value.toExponential(Math.min(digits, 20)).replace(/\.?0+e/, "e");
  if (Math.abs(value) >= 1e6)
    return value.toLocaleString("en", {notation: "compact", maximumSignificantDigits: Math.min(digits, 21)});
  return value.toLocaleString("en", {maximumFractionDigits: Math.max(0, Math.ceil(-Math.log10(step)) + 1)});
}

const places = new Map();  // where a person left a chart's cursor, by its id: kept in an update

function short(value, digits = 6) {  // as many as the data have
  if (value === 0) return "0";
  if (Math.abs(value) < 1e-4) return value.toExponential(2).replace(/\.?0+e/, "e");
  return value.toLocaleString("en", {maximumSignificantDigits: digits});
}

// lines: [{label, points: [[x, y or null, its standard error if known], ...], color: 0.., dashed}];
// from: the share of x left out
function chart(parent, id, {title, unit, across, lines, wide = false, from = 0}) {
  const begin = from * Math.min(...lines.filter(line => line.points.length).map(line => line.points.at(-1)[0]));
  lines = lines.map(line => ({...line, points: line.points.filter(point => point[0] >= begin)}))
    .filter(line => line.points.some(point => Number.isFinite(point[1])));
  if (!lines.length) return;
  const figure = add(parent, "figure", null, wide ? {class: "wide"} : {});
  const heading = add(figure, "figcaption", title);
  if (unit) add(heading, "span", ` (${unit})`, {class: "soft"});
  const plot = add(figure, "div", null, {class: "plot", id, tabindex: 0, role: "slider",
    "aria-label": `${title}${unit ? `, ${unit}` : ""}, by ${across}`});
  const list = add(figure, "ul", null, {class: "key"});
  const place = add(list, "li", "", {class: "soft"});
  const outputs = lines.map(line => {
    const item = add(list, "li", null), mark = draw(item, "svg", {"aria-hidden": "true"});
    draw(mark, "line", {x1: 0, x2: "100%", y1: "50%", y2: "50%", stroke: `var(--c${line.color})`,
      "stroke-width": 2.5, ...(line.dashed ? {"stroke-dasharray": "4 3"} : {})});
    item.append(line.label);
    return add(item, "output", "", {"aria-live": "off"});
  });
  const xs = [...new Set(lines.flatMap(line => line.points.map(point => point[0])))].sort((a, b) => a - b);
  const ys = lines.flatMap(line => line.points).filter(point => Number.isFinite(point[1]))
    .flatMap(([, y, error = 0]) => [y - error, y + error]);
  let [x0, x1] = [xs[0], xs.at(-1)], y0 = ys.reduce((a, b) => Math.min(a, b)), y1 = ys.reduce((a, b) => Math.max(a, b));
  const room = (y1 - y0) * 0.05 || Math.abs(y1) * 0.1 || 1;
  [y0, y1] = [y0 >= 0 ? Math.max(0, y0 - room) : y0 - room, y1 + room];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  const kept = xs.indexOf(places.get(id));
  let at = kept < 0 ? xs.length - 1 : kept, cursor = null, px = null;

  function show(index) {
    at = Math.min(Math.max(index, 0), xs.length - 1);
    const x = xs[at];
    if (at === xs.length - 1) places.delete(id); else places.set(id, x);
    place.textContent = `${across} ${x.toLocaleString("en")}`;
    const said = lines.map((line, i) => {
      // Lines have steps of their own: the last that was logged before, and none after the end.
      const last = x > line.points.at(-1)[0] ? null : line.points.findLast(point => point[0] <= x);
      const point = last?.[1] == null ? null : last;
      const value = point ? short(point[1]) + (point[2] ? ` ± ${short(point[2], 2)}` : "") : "";
      outputs[i].textContent = value;
      return point ? `${line.label} ${value}` : null;
    }).filter(Boolean);
    plot.setAttribute("aria-valuetext", `${place.textContent}: ${said.join(", ")}`);
    plot.setAttribute("aria-valuenow", x);
    if (cursor) { cursor.setAttribute("x1", px(x)); cursor.setAttribute("x2", px(x)); }
  }

  function render() {
    const width = Math.max(240, plot.clientWidth), height = wide ? Math.min(340, 180 + width / 6) : 220;
    const left = 56, right = 26, top = 14, bottom = 28;
    px = x => left + (width - left - right) * (x - x0) / (x1 - x0);
    const py = y => top + (height - top - bottom) * (1 - (y - y0) / (y1 - y0));
    plot.replaceChildren();
    const svg = draw(plot, "svg", {viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true"});
    const marks = ticks(y0, y1, height / 50), step = marks.length > 1 ? marks[1] - marks[0] : y1 - y0;
    for (const y of marks) {
      draw(svg, "line", {x1: left, x2: width - right, y1: py(y), y2: py(y), stroke: "var(--line)"});
      draw(svg, "text", {x: left - 7, y: py(y) + 4, "text-anchor": "end"}, tick(y, step));
    }
    for (const x of ticks(x0, x1, width / 80, true)) {
      draw(svg, "line", {x1: px(x), x2: px(x), y1: height - bottom, y2: height - bottom + 5, stroke: "var(--soft)"});
      draw(svg, "text", {x: px(x), y: height - bottom + 19, "text-anchor": "middle"}, x.toLocaleString("en"));
    }
    draw(svg, "line", {x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, stroke: "var(--soft)"});
    for (const line of lines) {
      let path = "", pen = "M";
      for (const [x, y] of line.points) {
        if (!Number.isFinite(y)) { pen = "M"; continue; }
        path += `${pen}${px(x).toFixed(1)} ${py(y).toFixed(1)}`;
        pen = "L";
      }
      const stroke = `var(--c${line.color})`;
      draw(svg, "path", {d: path, fill: "none", stroke, "stroke-width": 1.8, "stroke-linejoin": "round",
        ...(line.dashed ? {"stroke-dasharray": "5 4"} : {})});
      line.points.forEach(([x, y, error = 0], i) => {
        const joined = [i - 1, i + 1].some(j => Number.isFinite(line.points[j]?.[1]));
        if (!Number.isFinite(y) || joined && line.points.length > 40) return;
        draw(svg, "circle", {cx: px(x), cy: py(y), r: 2.5, fill: stroke});
        if (error) draw(svg, "line", {x1: px(x), x2: px(x), y1: py(y - error), y2: py(y + error), stroke});
      });
    }
    cursor = draw(svg, "line", {y1: top, y2: height - bottom, stroke: "var(--soft)", "stroke-dasharray": "2 2"});
    show(at);
  }

  function point(event) {
    const x = x0 + (x1 - x0) * (event.clientX - plot.getBoundingClientRect().left - px(x0)) / (px(x1) - px(x0));
    let best = 0;
    xs.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = i; });
    show(best);
  }
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", event => {
    if (event.pointerType === "mouse") show(xs.length - 1);  // a finger that is lifted leaves, too
  });
  plot.addEventListener("keydown", event => {
    const page = Math.max(1, Math.round(xs.length / 10));
    const moves = {ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - page, PageUp: at + page, Home: 0, End: xs.length - 1};
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(moves[event.key]);
  });
  plot.setAttribute("aria-valuemin", xs[0]);
  plot.setAttribute("aria-valuemax", xs.at(-1));
  onWidth(plot, render);
}
