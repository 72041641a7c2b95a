// State, the address's fragment, keys, and the start.
const NO_FILTER = { outcome: new Set(), used: new Set(), stage: new Set(), set: new Set(), k: new Set(), from: null, to: null, q: "", problem: null };
const state = { ...NO_FILTER, d: null, view: "chat", colour: "advantage" };
const wide = matchMedia("(min-width: 56rem)");

// ------------------------------------------------------------------------------------------------------------------ changes

/** Change filters: the list follows, and the address. */
function change(filters) {
  const text = state.q;
  Object.assign(state, filters);
  $("list").scrollTop = 0;
  if (state.q !== text) searchTexts().then(showListed).catch(fail);
  refreshList();
  showListed();
}

/** Where the list stands beside the dialogue, one of the list is shown. */
function showListed() {
  if (wide.matches && shown.length && !placeOf.has(state.d)) state.d = shown[0];
  scrollToSelected();
  drawRows(true);
  drawDialogue().catch(fail);
  writeFragment(false);
}

/** Show a dialogue. `remember`: the way back leads to what was shown before. */
function open(i, remember = true) {
  state.d = i;
  document.body.classList.toggle("reading", i !== null);
  if (i !== null) scrollToSelected();
  // where the list gives way to the dialogue, so does its focus
  if (i !== null && !wide.matches && !$("dialogue").contains(document.activeElement)) $("dialogue").focus({ preventScroll: true });
  drawRows(true);
  writeFragment(remember);
  return drawDialogue().catch(fail);
}

function move(by) {
  const next = neighbour(by);
  if (next === null || next === state.d) return;
  open(next, false);
}

function backToList() {
  document.body.classList.remove("reading");
  if (!wide.matches) { state.d = null; writeFragment(true); drawRows(true); }
  $("list").focus();
}

function setView(view) {
  state.view = view;
  writeFragment(false);
  drawDialogue().then(() => $(`view-${view}`)?.focus()).catch(fail);
}

function setColour(colour) {
  state.colour = colour;
  writeFragment(false);
  const top = scroller().scrollTop;
  drawDialogue().then(() => { scroller().scrollTop = top; }).catch(fail);
}

// ----------------------------------------------------------------------------------------------------------------- fragment

let written = null;

function writeFragment(remember) {
  const query = new URLSearchParams();
  if (state.d !== null) query.set("d", C.key[state.d]);
  if (state.view !== "chat") query.set("view", state.view);
  if (state.colour !== "advantage") query.set("colour", state.colour);
  for (const facet of FACETS) for (const value of state[facet.name]) query.append(facet.name, value);
  for (const key of ["from", "to"]) if (state[key] !== null) query.set(key, state[key]);
  if (state.q) query.set("q", state.q);
  if (state.problem !== null) query.set("problem", DATA.problems[state.problem][0]);
  written = `#${query}`;
  if (location.hash === written) return;
  try {
    history[remember ? "pushState" : "replaceState"](null, "", written);
  } catch {
    location.hash = written; // where a file may not rewrite its history
  }
}

/** Take the state from the address; what is not known there is left out. */
function readFragment() {
  let query;
  try { query = new URLSearchParams(location.hash.slice(1)); } catch { query = new URLSearchParams(); }
  const step = (key) => (/^\d{1,12}$/.test(query.get(key) || "") ? Number(query.get(key)) : null);
  for (const facet of FACETS) state[facet.name] = new Set(query.getAll(facet.name).filter((value) => chips.has(`${facet.name} ${value}`)));
  state.from = step("from");
  state.to = step("to");
  state.q = (query.get("q") || "").slice(0, 500);
  state.view = query.get("view") === "tokens" ? "tokens" : "chat";
  state.colour = query.get("colour") === "logprob" ? "logprob" : "advantage";
  const problem = DATA.problems.findIndex(([id]) => id === query.get("problem"));
  state.problem = problem < 0 ? null : problem;
  const asked = C.key.indexOf(query.get("d"));
  state.d = asked < 0 ? null : asked;
}

/** Show what the address says: at the start, after a link or the way back. */
async function follow() {
  written = location.hash;
  readFragment();
  searchTexts().catch(fail);
  refreshList();
  if (state.d === null && wide.matches && shown.length) state.d = shown[0];
  document.body.classList.toggle("reading", state.d !== null);
  scrollToSelected();
  drawRows(true);
  await drawDialogue();
}

// --------------------------------------------------------------------------------------------------------------------- keys

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (event.key === "Escape") {
    if (target.id === "search") $("list").focus();
    else backToList();
    return;
  }
  if (target.matches("input:not([type=checkbox]), textarea, select")) return;
  const inList = target.id === "list", cell = target.closest(".cell");
  const page = Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
  const acts = {
    j: () => move(1), n: () => move(1), k: () => move(-1), p: () => move(-1),
    "]": () => alongProblem(1), "[": () => alongProblem(-1),
    t: () => setView(state.view === "chat" ? "tokens" : "chat"),
    "/": () => { document.body.classList.remove("reading"); $("search").focus(); },
    ...(cell ? { ArrowRight: () => alongStrip(cell, 1), ArrowLeft: () => alongStrip(cell, -1) } : state.view === "tokens" ? { ArrowRight: () => alongTokens(1), ArrowLeft: () => alongTokens(-1) } : {}),
    ...(inList ? { ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(page), PageUp: () => move(-page), Home: () => move(-COUNT), End: () => move(COUNT), Enter: () => $("dialogue").focus() } : {}),
  };
  if (!Object.hasOwn(acts, event.key)) return;
  event.preventDefault();
  acts[event.key]();
}

// -------------------------------------------------------------------------------------------------------------------- start

function fail(error) {
  $("dialogue").replaceChildren(el("p", { class: "trouble", role: "alert" }, `This page could not be shown: ${error && error.message ? error.message : error}`));
  document.body.classList.add("reading");
}

async function start() {
  DATA = await Page.data();
  C = DATA.columns;
  COUNT = C.key.length;
  $("name").replaceChildren(Page.text(DATA.name));
  $("about").textContent = "A question, and several attempts at it: after a wrong one the model is told so and tries again.";
  orderProblems();
  buildFilters();
  prepareSearch();
  $("filter-box").open = wide.matches;
  $("list").addEventListener("scroll", () => drawRows(), { passive: true });
  addEventListener("resize", () => drawRows(true));
  addEventListener("hashchange", () => { if (location.hash !== written) follow().catch(fail); });
  document.addEventListener("keydown", onKey);
  await follow();
  document.body.classList.add("ready");
  requestAnimationFrame(() => performance.mark("ready"));
}

start().catch(fail);
