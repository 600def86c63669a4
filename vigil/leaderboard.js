// The leaderboard page: its tables, filters and pairs. leaderboard_row.js follows in the same module.
const byId = (id) => document.getElementById(id);
const ENTRIES = JSON.parse(byId("entries").textContent);

/** An element: text goes in as text, never as HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

async function inflate(id) {
  const stream = new Blob([bytesOf(byId(id).textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

/** A row's curves, {video: {edge, score, refined, …}}, out of the arrays that hold all videos one after the other. */
function unpackCurves(packed) {
  const edge = new Uint32Array(bytesOf(packed.edge));
  const scores = (text) => text && Array.from(new Uint16Array(bytesOf(text)), (value) => value / 65535);
  const score = scores(packed.score), refined = scores(packed.refined);
  const curves = {};
  let run = 0;
  for (const [index, [name, runs, n_frames, fps, category, anomalies]] of packed.videos.entries()) {
    curves[name] = {
      n_frames, fps, category, anomalies, edge: Array.from(edge.slice(run + index, run + index + runs + 1)),
      score: score.slice(run, run + runs), refined: refined?.slice(run, run + runs),
    };
    run += runs;
  }
  return curves;
}

const asFile = (text) => URL.createObjectURL(new Blob([text], { type: "text/javascript" }));

// ---- tables, filters -----------------------------------------------------------------------------------------------
const tables = [];

async function startTables() {
  const { default: DataTable } = await import(asFile(await inflate("datatables")));
  for (const table of document.querySelectorAll("table.rows, table.claims")) {
    const own = table.matches(".rows");
    const rows = table.tBodies[0].rows.length;
    const most = own ? 50 : 10;
    const paged = rows > most;
    const label = { paginate: { first: "first", previous: "previous", next: "next", last: "last" } };
    const api = new DataTable(table, {
      autoWidth: false, order: [], searching: true, info: paged, paging: paged,
      pageLength: most, lengthMenu: [most, 100, { label: "all", value: -1 }],
      layout: {
        topStart: null, topEnd: null, bottomStart: null, bottomEnd: null,
        bottom: paged ? ["info", "pageLength", "paging"] : null,
      },
      language: {
        info: "_START_ to _END_ of _TOTAL_", infoEmpty: "none", infoFiltered: "(of _MAX_)",
        lengthMenu: "rows a page _MENU_", zeroRecords: "No row fits the filters.", emptyTable: "No row.", aria: label,
      },
    });
    const section = table.closest("section");
    api.search.fixed("page", (text, data, index) => fits(api.row(index).node(), own && section.dataset, text));
    tables.push({ api, own, section });
    const scroll = table.closest(".scroll");  // page buttons stand outside of what scrolls
    const below = scroll.querySelector(".dt-layout-row:not(.dt-layout-table)");
    if (below) scroll.after(below);
  }
}

const has = (fields, [field, value]) => JSON.parse(fields).some((one) => one[0] === field && one[1] === value);

/** Whether a row passes the filters; table: what its section says of a measured row, false for a published number. */
function fits(row, table, text) {
  const dataset = byId("filter-dataset").value;
  if (dataset && (table || row.dataset).dataset !== dataset) return false;
  const supervision = byId("filter-supervision").value;
  if (supervision && row.dataset.supervision !== supervision && !row.matches(".control")) return false;
  const words = byId("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.every((word) => text.toLowerCase().includes(word))) return false;
  if (!table) return true;
  if (row.matches(".control") && !byId("filter-controls").checked) return false;
  const protocol = byId("filter-protocol").value && JSON.parse(byId("filter-protocol").value);
  return !protocol || has(table.judged, protocol) || has(row.dataset.stated, protocol);
}

function applyFilters() {
  const protocol = byId("filter-protocol").value;
  let rows = 0, numbers = 0;
  for (const { api, own, section } of tables) {
    api.draw();
    const left = api.rows({ search: "applied" }).count();
    const shown = left > 0 && (own || (byId("filter-claims").checked && !protocol));
    section.hidden = !shown;
    if (shown && own) rows += left;
    if (shown && !own) numbers += left;
  }
  const hidden = protocol ? "; no published number states this field" : "";
  byId("filter-told").textContent = `${rows} measured, ${numbers} published${hidden}`;
}

// ---- pairs ---------------------------------------------------------------------------------------------------------
function drawsOf(entry) {
  const element = byId(`draws-${entry}`);
  if (!element) return {};
  const found = {};
  for (const [key, text] of Object.entries(JSON.parse(element.textContent))) {
    found[key] = new Float32Array(bytesOf(text));
  }
  return found;
}

function quantile(sorted, share) {
  const place = (sorted.length - 1) * share, below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/** The second row's value less the first's, its interval over the same draws of videos, and p of no difference. */
function paired(first, second, key) {
  const mine = drawsOf(first)[key], other = drawsOf(second)[key];
  const gain = Float64Array.from(other, (value, index) => value - mine[index]);
  const lost = gain.filter((value) => value <= 0).length, won = gain.filter((value) => value >= 0).length;
  gain.sort();
  return {
    value: ENTRIES[second].metrics[key][2][0] - ENTRIES[first].metrics[key][2][0],
    low: quantile(gain, 0.025), high: quantile(gain, 0.975),
    p: Math.min(1, (2 * (1 + Math.min(lost, won))) / (1 + gain.length)), resamples: gain.length,
  };
}

const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

function strip({ value, low, high }) {
  const most = 1.05 * Math.max(Math.abs(low), Math.abs(high), Math.abs(value), 1e-9);
  const at = (x) => (50 + (46 * x) / most).toFixed(1);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const add = (tag, attributes) => {
    const part = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, one] of Object.entries(attributes)) part.setAttribute(name, one);
    svg.append(part);
  };
  svg.setAttribute("class", "whisker");
  svg.setAttribute("viewBox", "0 0 100 8");
  svg.setAttribute("aria-hidden", "true");
  add("line", { class: "zero", x1: 50, x2: 50, y1: -3, y2: 11 });
  add("line", { x1: at(low), x2: at(high), y1: 4, y2: 4 });
  add("circle", { cx: at(value), cy: 4, r: 2.6 });
  return svg;
}

function startPairs() {
  for (const form of document.querySelectorAll("form.pair")) {
    const rows = [...form.closest("section").querySelectorAll("tr.entry")].map((row) => Number(row.dataset.entry));
    const drawn = rows.filter((entry) => Object.keys(drawsOf(entry)).length);
    if (drawn.length >= 2) startPair(form, drawn);
    else if (rows.length < 2) form.append("A second row is needed to compare.");
    else form.append("No two of these rows have draws to compare.");
  }
}

/** The form below a table: any two of its rows that have draws, and a metric that both have. */
function startPair(form, drawn) {
  const options = () => drawn.map((entry) => make("option", { value: entry }, ENTRIES[entry].name));
  const first = make("select", { "aria-label": "First row" }, ...options());
  const second = make("select", { "aria-label": "Second row" }, ...options());
  const metric = make("select", { "aria-label": "Metric" });
  const said = make("output", { role: "status" });
  second.selectedIndex = 1;
  const tell = () => {
    const a = Number(first.value), b = Number(second.value);
    const both = (key) => key in drawsOf(b) && ENTRIES[a].metrics[key] && ENTRIES[b].metrics[key];
    const shared = Object.keys(drawsOf(a)).filter(both);
    const before = metric.value || form.closest("section").dataset.metric;
    const option = (key) => make("option", { value: key, selected: key === before }, ENTRIES[a].metrics[key][0]);
    metric.replaceChildren(...shared.map(option));
    if (a === b) return said.replaceChildren("Choose two different rows.");
    if (!shared.length) return said.replaceChildren("These two share no metric with draws.");
    const found = paired(b, a, metric.value);
    const seeds = [a, b].some((entry) => ENTRIES[entry].seeds.length > 1) ? ", of the first seed of each" : "";
    const p = found.p.toFixed(found.p < 0.0095 ? 4 : 3);
    said.replaceChildren(
      make("b", {}, `${signed(found.value)} [${signed(found.low)}, ${signed(found.high)}], p = ${p}`),
      `; the first row less the second, over ${found.resamples.toLocaleString("en")} draws of whole videos${seeds}`,
      strip(found),
    );
    Object.assign(said.dataset, found);
  };
  for (const select of [first, second, metric]) select.addEventListener("change", tell);
  form.addEventListener("submit", (event) => event.preventDefault());
  const word = (text) => make("span", {}, text);
  form.append(word("Compare"), first, word("with"), second, word("in"), metric, said);
  tell();
}
