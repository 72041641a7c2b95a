// Filters, search, and the list, of which only the rows in sight exist.
const ROW = 64; // pixels; as in view.css
const FACETS = [
  { name: "outcome", title: "Outcome", values: () => Object.keys(OUTCOMES), of: (i) => C.outcome[i], label: (v) => `${OUTCOMES[v].symbol} ${OUTCOMES[v].name}`, hint: (v) => OUTCOMES[v].what },
  { name: "used", title: "Attempts used", values: () => distinct(C.used), of: (i) => String(C.used[i]), label: (v) => v },
  { name: "stage", title: "Stage", values: () => DATA.stages, of: (i) => DATA.stages[C.stage[i]], label: stageName },
  { name: "set", title: "Problem set", values: () => DATA.sets, of: (i) => DATA.sets[C.set[i]], label: (v) => DATA.set_names[DATA.sets.indexOf(v)] || "(unnamed)", hint: (v) => v },
  { name: "k", title: "Attempts allowed", values: () => distinct(C.k), of: (i) => String(C.k[i]), label: (v) => v },
];
const distinct = (column) => [...new Set(column)].sort((a, b) => a - b).map(String);

let shown = []; // numbers of the dialogues that pass, in order
let placeOf = new Map(); // dialogue -> place in `shown`
let haystacks = []; // per dialogue what of it is searched at once
let fullTexts = []; // per dialogue its attempts and feedback, once unpacked
let searchRun = 0;
const chips = new Map(); // "facet value" -> {input, count}

// ------------------------------------------------------------------------------------------------------------------ filters

function buildFilters() {
  for (const facet of FACETS) {
    const present = new Set();
    for (let i = 0; i < COUNT; i++) present.add(facet.of(i));
    const values = facet.values().filter((v) => present.has(v));
    if (values.length < 2) continue;
    const boxes = values.map((value) => {
      const count = el("span", { class: "chip-count" });
      const input = el("input", { type: "checkbox", on: { change: () => toggle(facet.name, value, input.checked) } });
      chips.set(`${facet.name} ${value}`, { input, count });
      return el("label", { class: `chip ${facet.name === "outcome" ? `o-${value}` : ""}`, title: facet.hint && facet.hint(value) }, input, el("span", { class: "chip-text" }, facet.label(value)), count);
    });
    $("facets").append(el("fieldset", { "data-facet": facet.name }, el("legend", null, facet.title), el("div", { class: "chips" }, boxes)));
  }
  const steps = C.at.filter((step) => step !== null);
  if (new Set(steps).size > 1) {
    const [low, high] = [Math.min(...new Set(steps)), Math.max(...new Set(steps))];
    const field = (id, label, key, hint) => {
      const input = el("input", { id, type: "number", min: low, max: high, step: 1, placeholder: hint, inputmode: "numeric", on: { input: () => change({ [key]: input.value === "" ? null : Number(input.value) }) } });
      return el("label", { class: "step" }, el("span", null, label), input);
    };
    $("facets").append(el("fieldset", { "data-facet": "step" }, el("legend", null, "Step"), el("div", { class: "chips" }, field("from", "from", "from", low), field("to", "to", "to", high))));
  }
  $("facets").append(el("button", { type: "button", id: "clear", on: { click: () => { change({ ...NO_FILTER }); $("list").focus(); } } }, "Clear all filters"));
  $("search").addEventListener("input", () => change({ q: $("search").value }));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
}

function toggle(facet, value, on) {
  const values = new Set(state[facet]);
  if (on) values.add(value);
  else values.delete(value);
  change({ [facet]: values });
}

/** Which dialogues pass, and how many would under each value of each facet, the others as they are. */
function applyFilters() {
  const needle = state.q.trim().toLowerCase();
  const counts = FACETS.map(() => new Map());
  shown = [];
  for (let i = 0; i < COUNT; i++) {
    if (state.problem !== null && C.problem[i] !== state.problem) continue;
    if (state.from !== null && !(C.at[i] !== null && C.at[i] >= state.from)) continue;
    if (state.to !== null && !(C.at[i] !== null && C.at[i] <= state.to)) continue;
    if (needle && !haystacks[i].includes(needle) && !(fullTexts[i] && fullTexts[i].includes(needle))) continue;
    let failed = 0, only = -1;
    for (let f = 0; f < FACETS.length; f++) {
      const wanted = state[FACETS[f].name];
      if (wanted.size && !wanted.has(FACETS[f].of(i))) { failed++; only = f; }
    }
    if (failed > 1) continue;
    for (let f = 0; f < FACETS.length; f++) {
      if (failed && f !== only) continue;
      const value = FACETS[f].of(i);
      counts[f].set(value, (counts[f].get(value) || 0) + 1);
    }
    if (!failed) shown.push(i);
  }
  placeOf = new Map(shown.map((i, place) => [i, place]));
  FACETS.forEach((facet, f) => {
    for (const [key, chip] of chips) {
      if (!key.startsWith(`${facet.name} `)) continue;
      const value = key.slice(facet.name.length + 1);
      chip.count.textContent = number(counts[f].get(value) || 0);
      chip.input.checked = state[facet.name].has(value);
    }
  });
}

function showFilters() {
  for (const key of ["from", "to"]) if ($(key) && document.activeElement !== $(key)) $(key).value = state[key] ?? "";
  if (document.activeElement !== $("search")) $("search").value = state.q;
  const active = FACETS.filter((f) => state[f.name].size).length + (state.from !== null || state.to !== null) + (state.problem !== null);
  $("filter-summary").textContent = active ? ` (${active} on)` : "";
  $("clear").disabled = !active && !state.q;
  const count = $("count");
  count.replaceChildren(shown.length === COUNT ? plural(COUNT, "dialogue") : `${number(shown.length)} of ${plural(COUNT, "dialogue")}`);
  if (state.problem !== null) {
    count.append(" ", el("button", { type: "button", class: "drop", on: { click: () => { change({ problem: null }); $("list").focus(); } } }, `only problem ${DATA.problems[state.problem][0].slice(0, 10)} `, el("span", { "aria-label": "remove this filter" }, "✕")));
  }
  if (searching !== null) count.append(` · searching, ${Math.floor(100 * searching)} %`);
}

// ------------------------------------------------------------------------------------------------------------------- search

let searching = null; // share of the texts that is unpacked, while it goes on

function prepareSearch() {
  haystacks = Array.from({ length: COUNT }, (_, i) => [...DATA.problems[C.problem[i]], C.answer[i]].join("\n").toLowerCase());
}

/** Unpack the texts chunk by chunk, so that the search reaches into the attempts; what matches shows up as it is found. */
async function searchTexts() {
  const run = ++searchRun;
  if (!state.q.trim()) { searching = null; return; }
  for (let chunk = 0; chunk < DATA.chunks; chunk++) {
    const first = chunk * DATA.chunk;
    if (fullTexts[first] !== undefined) continue;
    const block = await Page.block(1 + chunk);
    block.dialogues.forEach((dialogue, j) => {
      const parts = dialogue.attempts.flatMap((a) => [a.text, a.answer, a.feedback, a.reason]);
      const prompt = block.prompts[dialogue.prompt] || [];
      fullTexts[first + j] = [...prompt.map((turn) => turn[1]), ...parts, dialogue.error].filter((part) => part).join("\n").toLowerCase();
    });
    if (run !== searchRun) return;
    if (chunk % 4 === 0) { searching = chunk / DATA.chunks; refreshList(); await new Promise((done) => setTimeout(done)); }
    if (run !== searchRun) return;
  }
  searching = null;
  refreshList();
}

// --------------------------------------------------------------------------------------------------------------------- list

/** Filter again and draw the list. */
function refreshList() {
  applyFilters();
  showFilters();
  $("list-space").style.height = `${shown.length * ROW}px`;
  drawRows(true);
}

let drawnFrom = -1, drawnTo = -1;

function drawRows(afresh = false) {
  const list = $("list");
  const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 6);
  const to = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 6);
  if (!afresh && from === drawnFrom && to === drawnTo) return;
  [drawnFrom, drawnTo] = [from, to];
  const rows = [];
  for (let place = from; place < to; place++) rows.push(row(shown[place], place));
  $("list-space").replaceChildren(...rows);
  if (placeOf.has(state.d) && placeOf.get(state.d) >= from && placeOf.get(state.d) < to) list.setAttribute("aria-activedescendant", `row-${state.d}`);
  else list.removeAttribute("aria-activedescendant");
  if (!shown.length) $("list-space").append(el("p", { class: "empty" }, "No dialogue passes these filters."));
}

function row(i, place) {
  const marks = [...C.path[i]].map((letter) => el("span", { class: `mark o-${LETTERS[letter] || "broken"}`, "aria-hidden": "true" }, OUTCOMES[LETTERS[letter] || "broken"].symbol));
  if (C.outcome[i] === "broken" || !marks.length) marks.push(el("span", { class: "mark o-broken", "aria-hidden": "true" }, OUTCOMES.broken.symbol));
  const node = el(
    "div",
    { id: `row-${i}`, class: `row o-${C.outcome[i]}`, role: "option", "aria-selected": i === state.d ? "true" : "false", "aria-posinset": place + 1, "aria-setsize": shown.length, "aria-label": describe(i).slice(0, 300), on: { click: () => open(i) } },
    el("div", { class: "row-top" }, el("span", { class: "marks" }, marks), el("span", { class: "row-outcome" }, OUTCOMES[C.outcome[i]].name), el("span", { class: "row-when" }, isTraining(i) ? whenLong(i) : stripLabel(i))),
    el("div", { class: "row-question" }, DATA.problems[C.problem[i]][1].slice(0, 200)),
  );
  node.style.transform = `translateY(${place * ROW}px)`;
  return node;
}

function scrollToSelected() {
  const list = $("list"), place = placeOf.get(state.d);
  if (place === undefined) return;
  const top = place * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

/** The dialogue `by` places further in the list; from a dialogue that is not in it, the first behind it. */
function neighbour(by) {
  if (!shown.length) return null;
  let place = placeOf.get(state.d);
  if (place === undefined) {
    const behind = shown.findIndex((i) => i > state.d);
    place = (behind < 0 ? shown.length : behind) - (by > 0 ? 1 : 0);
  }
  return shown[Math.max(0, Math.min(shown.length - 1, place + by))];
}
