// One row's own page, in a dialog: curves, diagrams, numbers, command, protocol; and, last, the start of everything.
const dialog = byId("row");
let plotly = null, redraw = () => {};

/** Plotly, unpacked when the first chart is asked for. */
function charts() {
  plotly ??= inflate("plotly").then((text) => new Promise((done, failed) => {
    document.head.append(make("script", { src: asFile(text), onload: () => done(window.Plotly), onerror: failed }));
  }));
  return plotly;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function layout(x, y, more = {}) {
  const axis = {
    gridcolor: colour("rule"), linecolor: colour("soft"), tickcolor: colour("rule"), ticks: "outside", zeroline: false,
    automargin: true,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 48, r: 12, t: 8, b: 44 },
    font: { family: colour("sans"), size: 12, color: colour("ink") },
    xaxis: { ...axis, title: { text: x, standoff: 6 }, showgrid: false },
    yaxis: { ...axis, title: { text: y, standoff: 6 } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    hoverlabel: { font: { size: 12 } }, dragmode: TOUCH ? false : "zoom", ...more,
  };
}
// a drag zooms and a double click goes back; one of the bar's buttons would send the chart to a cloud
const CONFIG = { displayModeBar: false, responsive: true };
const TOUCH = matchMedia("(pointer: coarse)").matches;  // there a drag scrolls the page

async function drawCurve(place, said, name, curve) {
  const Plotly = await charts();
  const seconds = curve.fps > 0;
  const x = curve.edge.map((frame) => (seconds ? frame / curve.fps : frame));
  const held = (score) => [...score, score.at(-1)];
  const line = (label, score, own, width) => ({
    x, y: held(score), name: label, mode: "lines", line: { shape: "hv", color: own, width }, hovertemplate: "%{y:.3f}",
  });
  const traces = [line("score", curve.score, curve.refined ? colour("raw") : colour("accent"), 1.2)];
  if (curve.refined) traces.push(line("refined", curve.refined, colour("accent"), 2));
  const anomalies = curve.anomalies ?? [];
  const shapes = anomalies.map((event) => {
    const [x0, x1] = event.map((frame) => (seconds ? frame / curve.fps : frame));
    const look = { fillcolor: colour("event"), opacity: 0.28, line: { width: 0 }, layer: "below" };
    return { type: "rect", xref: "x", yref: "paper", x0, x1, y0: 0, y1: 1, ...look };
  });
  const marker = { symbol: "square", size: 11, color: colour("event"), opacity: 0.5 };
  if (shapes.length) traces.push({ x: [null], y: [null], name: "annotated event", mode: "markers", marker });
  const more = { shapes, hovermode: "x unified", showlegend: true };
  const plan = layout(seconds ? "seconds" : "frame", "anomaly score", more);
  plan.yaxis.range = [-0.02, 1.02];
  plan.xaxis.range = [0, x.at(-1)];
  await Plotly.react(place, traces, plan, CONFIG);
  const events = anomalies.map(([first, end]) => `frames ${first} to ${end - 1}`).join(", ");
  const highest = curve.score.reduce((a, b) => Math.max(a, b)).toFixed(3);
  const what = events ? `annotated ${events}` : "no annotated event";
  const told = `${name}: ${curve.n_frames} frames, ${what}; highest score ${highest}.`;
  said.textContent = told;
  place.setAttribute("aria-label", told);
}

async function drawReliability(place, bins) {
  const Plotly = await charts();
  const most = Math.max(...bins.frames);
  const dotted = { color: colour("soft"), dash: "dot", width: 1 };
  const even = { x: [0, 1], y: [0, 1], mode: "lines", line: dotted, hoverinfo: "skip", showlegend: false };
  const points = {
    x: bins.score, y: bins.anomalous, mode: "lines+markers", customdata: bins.frames, showlegend: false,
    hovertemplate: "score %{x:.3f}, anomalous %{y:.3f}, %{customdata:,} frames<extra></extra>",
    line: { color: colour("accent"), width: 1 },
    marker: { color: colour("accent"), size: bins.frames.map((count) => 5 + 13 * Math.sqrt(count / most)) },
  };
  const plan = layout("mean score", "share of anomalous frames");
  plan.xaxis.range = [-0.03, 1.03];
  plan.yaxis.range = [-0.03, 1.03];
  await Plotly.react(place, [even, points], plan, CONFIG);
}

async function drawClasses(place, classes) {
  const Plotly = await charts();
  const names = [...new Set(Object.keys(classes).map((key) => key.replace(/_refined$/, "")))];
  names.sort((a, b) => (classes[a] ?? 0) - (classes[b] ?? 0));
  place.style.height = `${Math.max(19, 5 + 1.5 * names.length)}rem`;
  const points = (label, end, marker) => {
    const shown = names.filter((name) => `${name}${end}` in classes);
    const x = shown.map((name) => classes[name + end]);
    return { x, y: shown, name: label, mode: "markers", marker, hovertemplate: "%{y}: %{x:.3f}" };
  };
  const traces = [points("score", "", { color: colour("raw"), size: 9, symbol: "circle-open", line: { width: 1.5 } })];
  const refined = points("refined", "_refined", { color: colour("accent"), size: 9 });
  if (refined.x.length) traces.push(refined);
  const dotted = { color: colour("soft"), dash: "dot", width: 1 };
  const chance = { type: "line", x0: 0.5, x1: 0.5, yref: "paper", y0: 0, y1: 1, line: dotted };
  const plan = layout("frame AUROC", "", { shapes: [chance], showlegend: traces.length > 1 });
  plan.xaxis.range = [Math.min(0.45, ...Object.values(classes)) - 0.02, 1.02];
  plan.yaxis = { ...plan.yaxis, type: "category", categoryorder: "array", categoryarray: names, dtick: 1 };
  await Plotly.react(place, traces, plan, CONFIG);
}

const figure = (size, about) => make("div", { class: `chart ${size}`, role: "img", "aria-label": about });
const paragraph = (text) => make("p", { class: "said" }, text);

function list(pairs) {
  const term = ([name, value]) =>
    make("div", {}, make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, String(value)));
  return make("dl", {}, ...pairs.map(term));
}

function numbersTable(entry) {
  const seeds = entry.seeds.length > 1;
  const head = ["Metric", "Value", ...(seeds ? entry.seeds.map((seed) => `seed ${seed}`) : [])];
  const number = (text) => make("td", { class: "number" }, text);
  const row = ([label, value, each]) => make("tr", {}, make("th", { scope: "row" }, label), number(value),
    ...(seeds ? each.map((one) => number(one.toFixed(4))) : []));
  const heads = head.map((text, index) => make("th", { scope: "col", class: index ? "number" : "" }, text));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...Object.values(entry.metrics).map(row)));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers" }, table);
}

function commandBlock(command) {
  const text = make("pre", { tabindex: "0" }, command);
  const told = make("span", { role: "status", class: "said" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      told.textContent = "copied";
    } catch {  // a browser that keeps the clipboard from files: leave the command selected
      getSelection().selectAllChildren(text);
      told.textContent = document.execCommand("copy") ? "copied" : "selected; copy it with your keyboard";
    }
  };
  const button = make("button", { type: "button", class: "copy", onclick: copy }, "Copy the command");
  return [text, make("div", { class: "picker" }, button, told)];
}

function curveSection(curves) {
  const names = Object.keys(curves);
  const words = (name) => (curves[name].category ? `${name} (${curves[name].category})` : name);
  const options = names.map((name) => make("option", { value: name }, words(name)));
  const select = make("select", { id: "row-video" }, ...options);
  const place = figure("", "score curve");
  const said = make("p", { class: "said", role: "status" });
  const eventful = names.findIndex((name) => curves[name].anomalies?.length);
  select.selectedIndex = Math.max(0, eventful);
  const draw = () => drawCurve(place, said, select.value, curves[select.value]);
  const step = (by) => () => {
    select.selectedIndex = (select.selectedIndex + by + names.length) % names.length;
    draw();
  };
  select.addEventListener("change", draw);
  const button = (text, by) => make("button", { type: "button", onclick: step(by) }, text);
  const picker = make("div", { class: "picker" }, make("label", { for: "row-video" }, "Video"), select,
    button("previous", -1), button("next", 1));
  return { parts: [make("h3", {}, `Score curves of ${names.length} test videos`), picker, place, said], draw };
}

/** Curves and diagrams of a row: what to show, and what draws them once they are shown. */
async function figures(number) {
  const entry = ENTRIES[number];
  if (!byId(`curves-${number}`)) return [[paragraph("This page holds no curves of this row.")], []];
  const found = JSON.parse(await inflate(`curves-${number}`));
  const parts = [], drawings = [], small = make("div", { class: "charts" });
  const add = (title, about, draw) => {
    const place = figure("small", about);
    small.append(make("div", {}, make("h3", {}, title), place));
    drawings.push(() => draw(place));
  };
  if (entry.seeds.length > 1) parts.push(paragraph(`Curves and diagrams are of seed ${entry.seeds[0]}.`));
  if (found.videos.length) {
    const section = curveSection(unpackCurves(found));
    parts.push(...section.parts);
    drawings.push(section.draw);
  }
  if (found.reliability?.score?.length) {
    const about = "Reliability diagram: the share of anomalous frames at each score";
    add("Reliability", about, (place) => drawReliability(place, found.reliability));
  }
  const classes = Object.entries(found.classes ?? {});
  if (classes.length) {
    const told = classes.map(([name, value]) => `${name.replaceAll("_", " ")} ${value.toFixed(3)}`).join(", ");
    add("Frame AUROC per class", `Frame AUROC per class: ${told}`, (place) => drawClasses(place, found.classes));
  }
  return [[...parts, small], drawings];
}

/** Published numbers of the row's method, with marks and notes; nothing where there are none. */
function publishedList(entry) {
  const item = ([value, source, mark, notes]) => make("li", {}, `${value}, ${source}`,
    ...(mark ? [make("div", { class: "mark" }, `contradicted: ${mark}`)] : []),
    ...notes.map((note) => make("div", { class: "said" }, note)));
  const title = make("h3", {}, "Published, under another or an unknown protocol");
  return entry.published.length ? [title, make("ul", {}, ...entry.published.map(item))] : [];
}

async function openRow(number) {
  const entry = ENTRIES[number];
  const about = [
    entry.dataset + (entry.demo ? ", demo copy" : ""), entry.kind === "system" ? entry.supervision : entry.kind,
    entry.seeds.length > 1 ? `seeds ${entry.seeds.join(", ")}` : `seed ${entry.seeds[0]}`,
    entry.oracle && "chosen on the test set",
  ];
  const title = make("h2", { id: "row-title" }, entry.name);
  const beneath = make("p", {}, about.filter(Boolean).join("; "));
  const close = make("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const [parts, drawings] = await figures(number);
  const where = [["benchmark", entry.table], ["fitted on", entry.fit || "nothing"], ["tested on", entry.test]];
  const heading = (text) => make("h3", {}, text);
  const command = entry.command ? commandBlock(entry.command) : [paragraph("None of its own.")];
  const body = make("div", { class: "body" }, ...parts,
    heading("Numbers"), numbersTable(entry), ...publishedList(entry), heading("Command"), ...command,
    heading("Protocol: what judged"), list(entry.judged), heading("Protocol: what was judged"), list(entry.stated),
    heading("Provenance"), list([...where, ...Object.entries(entry.provenance)]));
  dialog.replaceChildren(make("div", { class: "bar" }, make("div", {}, title, beneath), close), body);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  close.focus();
  redraw = () => Promise.all(drawings.map((draw) => draw()));
  await redraw();
}

dialog.addEventListener("close", () => { redraw = () => {}; });
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.addEventListener("click", (event) => {
  const row = event.target.closest("tr.entry");
  if (!row || event.target.closest("summary, details, a, select, input")) return;
  row.querySelector("button.open").focus();  // closing gives the focus back here
  openRow(Number(row.dataset.entry));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

startPairs();
await startTables();
applyFilters();
byId("filters").addEventListener("input", applyFilters);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
document.documentElement.dataset.ready = "yes";
