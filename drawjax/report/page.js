// The page of one run, or of several; follows runs that go on.

const UPDATE_EVERY = 10_000;  // milliseconds
const root = document.getElementById("report");
const opened = new Set();
// Where curves begin, as a share of the steps: a run's first steps would flatten all that follow.
const BEGINNINGS = [[0, "the first step on"], [0.1, "a tenth of the steps on"], [0.5, "half of the steps on"],
  [0.8, "four fifths of the steps on"]];
let data = null, follow = true, beginning = 0.1, held = false;

// A row's first cell is its name, or a name and a unit; columns from `numbers` on hold numbers.
function table(parent, id, label, columns, rows, numbers = 1) {
  const scroll = add(parent, "div", null, {class: "scroll", role: "region", "aria-label": label, tabindex: 0, id});
  const grid = add(scroll, "table", null);
  const style = i => i >= numbers ? {class: "number"} : {};
  if (columns) {
    const head = add(add(grid, "thead", null), "tr", null);
    columns.forEach((column, i) => add(head, "th", column, {scope: "col", ...style(i)}));
  }
  const body = add(grid, "tbody", null);
  for (const cells of rows) {
    const row = add(body, "tr", null);
    cells.forEach((cell, i) => {
      if (i) return add(row, "td", cell, style(i));
      const [name, unit] = [cell].flat(), head = add(row, "th", name, {scope: "row"});
      if (unit) add(head, "span", ` ${unit}`, {class: "unit"});
    });
  }
}

function fold(parent, id, title, heading, fill) {
  const box = add(parent, "details", null);
  add(add(box, "summary", null, {id}), heading, title);
  box.open = opened.has(id);
  let filled = false;
  const show = () => { if (!filled) { filled = true; fill(box); } };
  if (box.open) show();
  box.addEventListener("toggle", () => {
    if (box.open) { opened.add(id); show(); } else opened.delete(id);
  });
}

function points(run, split, name) {
  const {step, [name]: values} = run.metrics[split];
  return values ? step.map((x, i) => [x, values[i]]) : [];
}

function picture(parent, {title, description, source, width, height}, alt = description) {
  const figure = add(parent, "figure", null);
  add(figure, "img", null, {src: source, alt, width, height});
  add(figure, "figcaption", description ?? title, {class: "soft"});
}

// Fills a box with charts whose curves begin where a person chooses.
function charts(parent, id, fill) {
  const label = add(parent, "label", "From "), choice = add(label, "select", null, {id: `${id}-from`});
  for (const [share, said] of BEGINNINGS)
    add(choice, "option", said, {value: share, ...(share === beginning ? {selected: ""} : {})});
  const box = add(parent, "div", null, {class: "curves"});
  fill(box);
  choice.addEventListener("change", () => {
    beginning = Number(choice.value);
    box.replaceChildren();
    fill(box);
  });
}

function curves(box, id, run) {
  const both = (name, color) => ["train", "validation"].map(split => ({
    label: split === "train" ? "training" : split, points: points(run, split, name),
    color, dashed: split === "validation"}));
  const bySteps = (name, options) => chart(box, `${id}-${name}`, {across: "step", from: beginning, ...options});
  const unit = "nats per image";
  bySteps("loss", {title: "Loss", unit, wide: true, lines: both("loss", 0)});
  bySteps("reconstruction", {title: "Reconstruction loss", unit, lines: both("reconstruction", 1)});
  bySteps("latent", {title: "Latent loss (KL)", unit, lines: both("latent", 2)});
  bySteps("error", {title: "Error", unit: "%", wide: true, lines: both("error", 0)});
  run.drawings.filter(drawing => drawing.kl).forEach((drawing, i) => chart(box, `${id}-kl${i}`, {
    title: "KL by step of the drawing", unit: "nats", across: "drawing step",
    lines: [{label: drawing.title.toLowerCase(), color: 2, points: drawing.kl.map((value, i) => [i + 1, value])}]}));
  chart(box, `${id}-glimpses`, {title: "Test error after each glimpse", unit: "%", across: "glimpse",
    lines: [{label: "test", color: 0, points: run.by_glimpse}]});
  const one = name => [{label: "training", color: 1, points: points(run, "train", name)}];
  bySteps("rate", {title: "Learning rate", from: 0, lines: one("learning_rate")});
  bySteps("norm", {title: "Gradient norm", unit: "before clipping", lines: one("gradient_norm")});
  const drawn = new Set(["step", "loss", "reconstruction", "latent", "error", "learning_rate", "gradient_norm"]);
  const others = new Set(["train", "validation"].flatMap(split => Object.keys(run.metrics[split])));
  for (const name of others) if (!drawn.has(name))  // whatever else a loss returns
    bySteps(name, {title: name, lines: both(name, 1)});
}

function status(parent, run) {
  const line = add(parent, "div", null, {class: "status"});
  add(line, "progress", null, {value: run.step, max: run.steps || 1, "aria-label": `Training steps of ${run.name}`});
  add(line, "span", `${run.step.toLocaleString("en")} of ${run.steps.toLocaleString("en")} training steps` +
    (run.finished ? ", finished" : run.step >= run.steps ? ", evaluating" : ""));
}

function body(parent, id, run, level) {
  if (run.step || !run.finished) status(parent, run);  // else given parameters were evaluated
  for (const note of run.notes) add(parent, "p", note);
  for (const image of run.pictures) {
    add(parent, level, image.title);
    picture(parent, image);
  }
  if (run.drawings.length) add(parent, level, "Step by step");
  run.drawings.forEach((drawing, i) => player(parent, `${id}-player${i}`, drawing));
  const logged = run.metrics.train.step.length || run.metrics.validation.step.length;
  if (logged || run.by_glimpse.length) {
    add(parent, level, "Curves");
    charts(parent, id, box => curves(box, id, run));
  } else if (!run.finished) add(parent, "p", "No training step has been logged yet.");
  const side = add(parent, "div", null, {class: "side"});
  if (run.numbers.rows.length) {
    const box = add(side, "div", null);
    add(box, level, "Numbers");
    table(box, `${id}-numbers`, "Numbers", ["quantity", ...run.numbers.columns],
      run.numbers.rows.map(([name, unit, ...cells]) => [[name, unit], ...cells]));
  }
  if (run.facts.length) {
    const box = add(side, "div", null);
    add(box, level, "Data and machine");
    table(box, `${id}-facts`, "Data and machine", null, run.facts, 2);
  }
  fold(parent, `${id}-config`, "Config", level, box =>
    table(box, `${id}-fields`, "Config", null, Object.entries(run.config), 2));
}

function comparison(parent, runs) {
  const names = [...new Set(runs.flatMap(run => Object.keys(run.config)))];
  const differ = names.filter(name => name !== "workdir" && new Set(runs.map(run => run.config[name])).size > 1);
  const [title, unit] = runs.map(run => run.numbers.rows[0]).find(Boolean) || ["Loss", ""];
  const value = (run, kind) => {
    const column = run.numbers.columns.findIndex(name => name.startsWith(kind));
    const row = run.numbers.rows.find(([name]) => name === title);
    return column < 0 || !row ? "" : row[column + 2];
  };
  const what = `${title.toLowerCase()}${unit && ` (${unit})`}`;
  table(parent, "all-runs", "Runs", ["run", ...differ, "steps", `validation ${what}`, `test ${what}`], runs.map(run => [
    run.name, ...differ.map(name => run.config[name] ?? ""), run.step.toLocaleString("en"),
    value(run, "Validation"), value(run, "Test")]));
  // The first picture, and then the first drawing, of each run under its title.
  const first = (of, kind, fill) => {
    for (const title of new Set(runs.map(run => of(run)[0]?.title))) {
      if (title === undefined) continue;
      add(parent, "h2", title);
      const gallery = add(parent, "div", null, {class: kind});
      runs.forEach((run, i) => { if (of(run)[0]?.title === title) fill(gallery, run, i); });
    }
  };
  first(run => run.pictures, "gallery", (gallery, run) => picture(gallery,
    {...run.pictures[0], description: run.name}, `${run.pictures[0].title} of ${run.name}`));
  first(run => run.drawings, "players", (gallery, run, i) =>
    player(gallery, `all-player${i}`, {...run.drawings[0], title: run.name}));
  add(parent, "h2", "Curves");
  const lines = (split, name) => runs.map((run, i) => ({label: run.name, points: points(run, split, name),
    color: i % 6, dashed: i % 12 > 5}));
  charts(parent, "all", box => {
    for (const [name, unit] of [["loss", "nats per image"], ["error", "%"]])
      for (const [split, said] of [["validation", "Validation"], ["train", "Training"]])
        chart(box, `all-${split}-${name}`, {title: `${said} ${name}`, unit, across: "step", from: beginning,
          lines: lines(split, name), wide: true});
  });
  runs.forEach((run, i) => fold(parent, `run${i}`, run.name, "h2", box => body(box, `run${i}`, run, "h3")));
}

function render() {
  const {runs, written} = data, focused = document.activeElement?.id, top = window.scrollY;
  const page = document.createDocumentFragment();
  sized.length = 0;
  document.title = runs.length === 1 ? `${runs[0].name}: drawjax` : `${runs.length} runs: drawjax`;
  add(page, "h1", runs.length === 1 ? runs[0].name : `${runs.length} runs compared`);
  const line = add(page, "div", null, {class: "status"});
  add(line, "span", `Written ${new Date(1000 * written).toLocaleString()}`, {class: "soft"});
  if (runs.length === 1 && !runs[0].finished) {
    const label = add(line, "label", null), box = add(label, "input", null, {type: "checkbox", id: "follow"});
    label.append("Follow the run");
    box.checked = follow;
    box.addEventListener("change", () => { follow = box.checked; });
  }
  if (runs.length === 1) body(page, "run0", runs[0], "h2");
  else comparison(page, runs);
  root.replaceChildren(page);
  sized.forEach(check => check());  // so that all is as high as it was
  window.scrollTo(0, top);
  if (focused) document.getElementById(focused)?.focus({preventScroll: true});
}

// A page from a file may not fetch itself again, but may show itself in a frame, which then tells.
function update() {
  if (!follow || document.hidden || playing.size || !document.getElementById("follow")) return;
  document.getElementById("probe")?.remove();
  const address = new URL(location.href);
  address.search = `?probe=${Date.now()}`;
  add(document.body, "iframe", null, {id: "probe", hidden: "", title: "update", src: address.href});
}

function receive(event) {
  const probe = document.getElementById("probe");
  if (!probe || event.source !== probe.contentWindow) return;
  probe.remove();
  const news = JSON.parse(event.data);
  if (news.written === data.written || playing.size || held) return;
  data = news;
  render();
}

const text = document.getElementById("data").textContent;
if (new URLSearchParams(location.search).has("probe")) {
  parent.postMessage(text, location.protocol === "file:" ? "*" : location.origin);
} else {
  data = JSON.parse(text);
  render();
  window.addEventListener("message", receive);
  // What is being dragged stays on the page.
  for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"])
    document.addEventListener(name, event => { held = event.buttons > 0; }, true);
  setInterval(update, UPDATE_EVERY);
}
