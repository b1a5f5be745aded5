// The live page: a program, its output, and the steps of its packets through the rings.
const here = new URL(".", import.meta.url);
const find = (name) => document.getElementById(`live-${name}`);
const [program, choice, output, status, run, stop, slider, table, rings, counter, play] = [
  "program", "choice", "output", "status", "run", "stop", "step", "packets", "rings", "counter", "play",
].map(find);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 62;
const WAIT = 350; // Milliseconds of a step.
let worker, steps = [], timer, ready = false;

function say(text, state) {
  status.textContent = text;
  status.dataset.state = state;
}

function start() {
  worker?.terminate();
  ready = false;
  run.disabled = true;
  stop.disabled = true;
  say("Loading Python…", "loading");
  worker = new Worker(new URL("worker.js", here), { type: "module" });
  worker.onmessage = ({ data: { kind, value } }) => answers[kind](value);
  worker.onerror = (event) => answers.failed(event.message);
}

const answers = {
  ready(version) {
    ready = true;
    run.disabled = false;
    say(`Ready: ${version}, in your browser.`, "ready");
  },
  failed(text) { say(`Python could not be loaded: ${text}`, "failed"); },
  output(text) {
    output.textContent += text;
    output.scrollTop = output.scrollHeight;
  },
  done({ failed, steps: found }) {
    run.disabled = false;
    stop.disabled = true;
    say(failed ? "The program ended by an error." : "The program has ended.", failed ? "error" : "done");
    steps = found;
    slider.max = steps.length;
    slider.disabled = play.disabled = !steps.length;
    list();
    show(0);
    if (calm) show(steps.length);
    else animate();
  },
};

function execute() {
  if (run.disabled) return;
  output.textContent = "";
  run.disabled = true;
  stop.disabled = false;
  clearInterval(timer);
  say("Running…", "running");
  worker.postMessage(program.value);
}

function animate() {
  clearInterval(timer);
  if (Number(slider.value) >= steps.length) show(0);
  play.textContent = "Pause";
  timer = setInterval(() => {
    show(Number(slider.value) + 1);
    if (Number(slider.value) >= steps.length) pause();
  }, WAIT);
}

function pause() {
  clearInterval(timer);
  timer = undefined;
  play.textContent = "Play";
}

function list() {
  table.replaceChildren();
  steps.forEach((step, index) => {
    for (const packet of step.packets) {
      const row = table.insertRow();
      row.dataset.step = index + 1;
      for (const text of [index + 1, `ring ${step.ring + 1}`, step.kind === "write" ? "sent" : "received", packet]) {
        row.insertCell().textContent = text;
      }
    }
  });
  rings.replaceChildren();
  table.closest(".live-scroll").hidden = !steps.length;
  const numbers = [...new Set(steps.map((step) => step.ring))].sort();
  for (const number of numbers) rings.append(ring(number));
}

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

function ring(number) {
  const figure = document.createElement("figure");
  figure.id = `live-ring-${number + 1}`;
  const svg = element("svg", { viewBox: "-104 -96 208 192", "aria-hidden": "true" });
  element("circle", { r: RADIUS, class: "live-track" }, svg);
  element("path", { class: "live-filled" }, svg);
  for (const [name, outer] of [["head", -RADIUS - 14], ["tail", -RADIUS]]) {
    const mark = element("g", { class: `live-${name}` }, svg);
    element("line", { y1: outer, y2: outer + 14 }, mark);
    element("text", { class: `live-${name}`, "text-anchor": "middle" }, svg).textContent = name;
  }
  element("text", { class: "live-bytes", "text-anchor": "middle", y: 5 }, svg);
  const caption = document.createElement("figcaption");
  figure.append(svg, caption);
  return figure;
}

function show(wanted) {
  const at = Math.min(wanted, steps.length);
  slider.value = at;
  counter.textContent = steps.length ? `Step ${at} of ${steps.length}` : "No packet passed.";
  slider.setAttribute("aria-valuetext", counter.textContent);
  for (const figure of rings.children) {
    const number = Number(figure.id.split("-").pop()) - 1;
    const of_ring = steps.filter((step) => step.ring === number);
    const last = steps.slice(0, at).filter((step) => step.ring === number).pop();
    draw(figure, number, last ?? { head: 0, tail: 0, capacity: of_ring[0].capacity });
  }
  for (const row of table.rows) {
    const step = Number(row.dataset.step);
    row.className = step === at ? "live-now" : step > at ? "live-later" : "";
  }
  const now = table.querySelector(".live-now");
  const scroll = table.closest(".live-scroll");
  if (now) scroll.scrollTop += now.getBoundingClientRect().top - scroll.getBoundingClientRect().top - 80;
}

function draw(figure, number, { head, tail, capacity }) {
  const used = (tail - head + capacity) % capacity;
  const angle = (offset) => (offset / capacity) * 360;
  const point = (offset, radius = RADIUS) => {
    const turn = (angle(offset) - 90) * (Math.PI / 180);
    return `${radius * Math.cos(turn)} ${radius * Math.sin(turn)}`;
  };
  const large = used > capacity / 2 ? 1 : 0;
  figure.querySelector(".live-filled").setAttribute(
    "d", used ? `M ${point(head)} A ${RADIUS} ${RADIUS} 0 ${large} 1 ${point(tail)}` : "");
  for (const [name, offset, radius] of [["head", head, RADIUS + 24], ["tail", tail, RADIUS - 26]]) {
    figure.querySelector(`g.live-${name}`).setAttribute("transform", `rotate(${angle(offset)})`);
    const [x, y] = point(offset, radius).split(" ");
    const label = figure.querySelector(`text.live-${name}`);
    label.setAttribute("x", x);
    label.setAttribute("y", Number(y) + 4);
  }
  figure.querySelector(".live-bytes").textContent = `${used} bytes`;
  figure.querySelector("figcaption").textContent =
    `Ring ${number + 1}: head ${head}, tail ${tail}, of ${capacity} bytes`;
}

async function choose() {
  program.value = await (await fetch(new URL(choice.value, here))).text();
}

run.addEventListener("click", execute);
stop.addEventListener("click", () => { start(); output.textContent += "\nStopped.\n"; });
find("reset").addEventListener("click", choose);
choice.addEventListener("change", choose);
slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
play.addEventListener("click", () => (timer ? pause() : animate()));
program.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    execute();
  }
});
await choose();
start();
