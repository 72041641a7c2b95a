// One dialogue: its head, the strip of its problem's dialogues, and the chat.
let drawing = 0;

async function drawDialogue() {
  const run = ++drawing, i = state.d, main = $("dialogue");
  if (i === null) {
    main.replaceChildren(el("p", { class: "loading" }, "Choose a dialogue from the list."));
    return;
  }
  const [texts, tokens, words] = await Promise.all([textsOf(i), state.view === "tokens" ? tokensOf(i) : null, state.view === "tokens" ? vocabulary() : null]);
  if (run !== drawing) return; // another dialogue was asked for meanwhile
  const body = state.view === "tokens" ? tokenView(i, texts, tokens, words) : chatView(i, texts);
  const focused = main.contains(document.activeElement) ? document.activeElement : null;
  main.replaceChildren(...[bar(i), head(i, texts), strip(i), body].filter((node) => node !== null));
  scroller().scrollTop = 0;
  if (focused && focused !== main) refocus(focused);
  centreStrip();
  if (state.view === "tokens") startTokens();
}

/** What scrolls the dialogue: its own pane beside the list, the page where it stands alone. */
const scroller = () => (wide.matches ? $("dialogue") : document.scrollingElement);

/** The focus goes to what took the place of an element that was drawn anew, else it would be lost to the keyboard. */
function refocus(old) {
  const heir = old.matches(".cell") ? $("strip")?.querySelector("[aria-current]") : old.id && $(old.id);
  (heir && !heir.disabled ? heir : $("dialogue")).focus({ preventScroll: true });
}

// ---------------------------------------------------------------------------------------------------------------------- head

function bar(i) {
  const place = placeOf.get(i);
  const step = (by, id, label, text) => {
    const next = neighbour(by);
    return el("button", { type: "button", id, "aria-label": label, disabled: next === null || next === i, on: { click: () => move(by) } }, text);
  };
  const view = (value, text) => el("button", { type: "button", id: `view-${value}`, "aria-pressed": state.view === value ? "true" : "false", on: { click: () => setView(value) } }, text);
  return el(
    "nav",
    { class: "bar", "aria-label": "Dialogue" },
    el("button", { type: "button", id: "back", on: { click: backToList } }, "‹ List"),
    el("span", { class: "pair" }, step(-1, "previous", "Previous dialogue", "←"), step(1, "next", "Next dialogue", "→")),
    el("span", { class: "place" }, place === undefined ? "not in the list" : `${number(place + 1)} of ${number(shown.length)}`),
    el("span", { class: "switch", role: "group", "aria-label": "View" }, view("chat", "Chat"), view("tokens", "Tokens")),
  );
}

function head(i, texts) {
  const [id, question, gold] = DATA.problems[C.problem[i]];
  const fact = (name, ...value) => el("div", null, el("dt", null, name), el("dd", null, value));
  const stage = stageName(DATA.stages[C.stage[i]]);
  return el(
    "header",
    { class: `head o-${C.outcome[i]}` },
    el("h2", null, el("span", { class: "mark", "aria-hidden": "true" }, OUTCOMES[C.outcome[i]].symbol), " ", ending(i)),
    el(
      "dl",
      { class: "facts" },
      fact("Right answer", el("code", { id: "gold" }, gold || "(none recorded)")),
      fact("Reward", C.reward[i] === null ? "unknown" : signed(C.reward[i], 2)),
      fact("Stage", [stage, whenLong(i)].filter((part) => part).join(", ")),
      fact("Problem set", DATA.sets[C.set[i]] || "(unnamed)"),
      fact("Problem", el("code", null, id.slice(0, 12))),
      fact("Length", plural(C.tokens[i], "token")),
    ),
    texts.error !== null ? el("p", { class: "trouble" }, `Broken: ${texts.error}`) : null,
    texts.cut ? el("p", { class: "trouble" }, "Cut: the feedback after the last attempt did not fit the dialogue's token limit, though attempts were left.") : null,
    question ? null : el("p", { class: "trouble" }, "The question was not recorded."),
  );
}

/** All dialogues of the problem, in order of step: a cell each, by its outcome. */
function strip(i) {
  const all = BY_PROBLEM[C.problem[i]];
  if (all.length < 2) return null;
  const groups = [];
  for (const j of all) {
    const label = stripLabel(j);
    if (!groups.length || groups.at(-1).label !== label) groups.push({ label, cells: [] });
    const solved = C.outcome[j] === "solved";
    groups.at(-1).cells.push(
      el(
        "button",
        { type: "button", class: `cell o-${C.outcome[j]}`, "data-i": j, tabindex: j === i ? "0" : "-1", "aria-current": j === i ? "true" : null, "aria-label": describe(j).slice(0, 120), title: `${whenLong(j) || stripLabel(j)}: ${ending(j)}`, on: { click: () => open(j) } },
        solved && C.used[j] > 1 ? `✓${C.used[j]}` : OUTCOMES[C.outcome[j]].symbol,
      ),
    );
  }
  const whole = all.every((j) => placeOf.has(j)) && state.problem === C.problem[i];
  const only = el("button", { type: "button", id: "follow", disabled: whole, on: { click: () => change({ ...NO_FILTER, problem: C.problem[i] }) } }, whole ? "the list holds this problem alone" : "show only this problem in the list");
  const intro = el("p", { id: "strip-title" }, el("strong", null, "This problem over the run"), ` · ${plural(all.length, "dialogue")}, by step; ✓2: solved at attempt 2`, el("span", { class: "no-print" }, " · ", only));
  return el("section", { class: "strip", "aria-labelledby": "strip-title" }, intro, el("ol", { id: "strip", "aria-label": "Dialogues of this problem in order of step" }, groups.map((g) => el("li", null, el("span", { class: "cells" }, g.cells), el("span", { class: "strip-step" }, g.label)))));
}

/** `12`; `evaluation after 10, k = 3`. */
function stripLabel(i) {
  if (isTraining(i)) return whenShort(i);
  const stage = DATA.stages[C.stage[i]], name = [stageName(stage), whenShort(i)].filter((part) => part).join(" ");
  return stage.startsWith("samples") ? name : `${name}, k = ${C.k[i]}`;
}

/** The focus goes along the strip, which is one stop of the tab key however many dialogues it has. */
function alongStrip(cell, by) {
  const cells = [...$("strip").querySelectorAll(".cell")], next = cells[cells.indexOf(cell) + by];
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function centreStrip() {
  const box = $("strip"), current = box && box.querySelector("[aria-current]");
  if (current) box.scrollLeft = current.offsetLeft - box.offsetLeft - box.clientWidth / 2;
}

/** The dialogue of the same problem `by` places later. */
function alongProblem(by) {
  if (state.d === null) return;
  const all = BY_PROBLEM[C.problem[state.d]], place = all.indexOf(state.d) + by;
  if (place >= 0 && place < all.length) open(all[place]);
}

// ---------------------------------------------------------------------------------------------------------------------- chat

const ROLES = { system: "Instructions", user: "Question", prompt: "Prompt" };

function chatView(i, texts) {
  const turns = [];
  if (texts.prompt) for (const [role, text] of texts.prompt) turns.push(turn(role === "system" ? "system" : "user", ROLES[role] || role, el("div", { class: "text" }, text)));
  else turns.push(turn("user", "Question", el("div", { class: "text" }, DATA.problems[C.problem[i]][1])));
  texts.attempts.forEach((attempt, a) => {
    turns.push(turn("model", `Model · attempt ${a + 1}`, el("div", { class: "text" }, attempt.text || el("em", null, "(nothing)")), verdict(i, attempt)));
    if (attempt.feedback !== null) turns.push(turn("user", attempt.anew ? "Begins anew, without sight of the above" : "Feedback", el("div", { class: "text" }, attempt.feedback || el("em", null, "(an empty turn)"))));
  });
  return el("ol", { class: "turns", "aria-label": "Turns of the dialogue" }, turns);
}

const turn = (kind, name, content, beside) => el("li", { class: `turn ${kind}` }, el("div", { class: "bubble" }, el("h3", null, name), content), beside);

function verdict(i, attempt) {
  const [outcome, name] = Object.hasOwn(VERDICTS, attempt.outcome) ? VERDICTS[attempt.outcome] : ["broken", attempt.outcome];
  const wrong = attempt.outcome === "wrong";
  const details = [STOPS[attempt.stop] || attempt.stop, plural(attempt.end - attempt.start, "token")];
  if (attempt.reward !== null && attempt.reward !== 0) details.push(`reward ${signed(attempt.reward, 2)}`);
  return el(
    "div",
    { class: `verdict o-${outcome}` },
    el("p", { class: "verdict-name" }, el("span", { class: "mark", "aria-hidden": "true" }, OUTCOMES[outcome].symbol), " ", name),
    attempt.answer !== null ? el("p", null, "answer read: ", el("code", null, attempt.answer || "(empty)")) : null,
    wrong ? el("p", null, "right answer: ", el("code", null, DATA.problems[C.problem[i]][2])) : null,
    attempt.told ? el("p", { class: "reason" }, `told instead (a control): ${(VERDICTS[attempt.told] || [null, attempt.told])[1]}`) : null,
    attempt.reason ? el("p", { class: "reason" }, `grader: ${attempt.reason}`) : null,
    el("p", { class: "small" }, details.join(" · ")),
  );
}
