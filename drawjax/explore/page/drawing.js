// The tab of the model that draws: requests to the server between an easel and a player of the steps.
import {ask, bytes, complain, element, image, latest, tooLarge} from "./shared.js";
import {startEasel} from "./easel.js";
import {startPlayer} from "./player.js";

export function startDrawing(about) {
  const models = Object.fromEntries(about.models.map(model => [model.name, model]));
  for (const {name} of about.models) element("model").add(new Option(name, name));

  const player = startPlayer();
  let digit = 0;
  const easel = startEasel(() => request(false), () => image(`digit/${digit++}`));
  const mode = () => document.querySelector("input[name=mode]:checked").value;
  const model = () => models[element("model").value];
  const loaded = new Set();
  let playNext = false, opened = false;

  // What is shown is dim until it is what was asked for.
  function stale(is) {
    element("drawings").classList.toggle("stale", is);
    element("drawings").setAttribute("aria-busy", is);
  }

  function request(play) {
    playNext = play;
    draw();
  }

  const draw = latest(async () => {
    const field = element("seed"), {name} = model(), completing = mode() === "complete";
    const seed = Number(field.value);  // what is asked for, whatever is typed until it comes
    if (!field.checkValidity() || field.value === "") {
      complain("The seed must be a whole number from 0 to 2147483647.");
      return;
    }
    complain("");
    element("drawn").textContent = loaded.has(name + completing) ? "Drawing …" :
      `Loading ${name} … (some seconds, the first time)`;
    stale(true);
    let drawing;
    try {
      const query = new URLSearchParams({model: name, seed});
      if (element("label").value) query.set("label", element("label").value);
      const response = completing
        ? await ask("complete?" + query, {method: "POST", body: easel.content()})
        : await ask("draw?" + query, {method: "POST"});
      drawing = await response.json();
    } catch (problem) {
      element("drawn").textContent = "";
      element("drawings").setAttribute("aria-busy", "false");
      throw problem;
    }
    loaded.add(name + completing);
    stale(false);
    const [steps, count] = drawing.shape;
    const what = completing ? "completions of your drawing" : "drawings";
    element("drawn").textContent = `${count} ${what} in ${steps} steps, seed ${seed}.`;
    player.show({...drawing, frames: bytes(drawing.frames)}, playNext, what);
  });

  async function choose() {
    const {shape, steps, data, classes} = model();
    element("label-field").hidden = !classes;
    const labels = Array.from({length: classes ?? 0}, (_, label) => new Option(label, label));
    element("label").replaceChildren(new Option("one of each", ""), ...labels);
    element("model-text").textContent = `${shape[1]} × ${shape[0]} pixels, ${steps} steps` +
      (data && `, trained on ${data}`) + ".";
    await easel.resize(shape);
    request(true);
  }

  function another() {
    element("seed").value = Math.floor(Math.random() * 2 ** 31);
    request(true);
  }

  async function open(file) {
    complain("");
    if (file.size > about.maxBytes) return complain(tooLarge(file, about.maxBytes));
    if (!await easel.putWhenThere(image("image", {method: "POST", body: file}))) return;
    document.querySelector("input[name=mode][value=complete]").checked = true;
    element("easel").hidden = false;
    request(false);
  }

  element("model").addEventListener("change", () => choose().catch(complain));
  element("label").addEventListener("change", () => request(true));
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => {
      element("easel").hidden = mode() !== "complete";
      request(mode() === "seed");
    });
  }
  element("put-file").addEventListener("change", event => {
    if (event.target.files.length) open(event.target.files[0]).catch(complain);
    event.target.value = "";
  });
  element("another-seed").addEventListener("click", another);
  element("go").addEventListener("click", () => request(true));
  element("seed").addEventListener("keydown", event => { if (event.key === "Enter") request(true); });
  return {
    shown() {
      if (!opened) choose().catch(complain);
      opened = true;
    },
    left: player.stop,
    open,
  };
}
