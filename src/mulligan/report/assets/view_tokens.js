// The token view: what was forced and what was drawn, with log-prob or advantage as colour.
const LOG_BINS = [-0.1054, -0.6931, -2.3026, -4.6052, -6.9078]; // probabilities 0.9, 0.5, 0.1, 0.01, 0.001
const LOG_NAMES = ["above 0.9", "0.5 to 0.9", "0.1 to 0.5", "0.01 to 0.1", "0.001 to 0.01", "below 0.001"];
const SHARES = [0.05, 0.25, 0.5, 0.75]; // of the full colour's advantage

const logBin = (x) => { const bin = LOG_BINS.findIndex((edge) => x >= edge); return bin < 0 ? LOG_BINS.length : bin; };
function advantageBin(x) {
  const size = SHARES.filter((share) => Math.abs(x) > share * DATA.advantage_scale).length;
  return size === 0 ? "a0" : `${x > 0 ? "p" : "m"}${size}`;
}

/** The colour that is shown: what was asked for, where there is something to show. */
const colourOf = (tokens) => (state.colour === "advantage" && (tokens.advantages === null || DATA.advantage_scale === null) ? "logprob" : state.colour);

let facts = []; // per token of the dialogue what the line at the bottom says

function tokenView(i, texts, tokens, words) {
  const mode = colourOf(tokens), trained = tokens.advantages !== null && C.outcome[i] !== "broken" && C.outcome[i] !== "ungradable";
  facts = [];
  const place = new Array(tokens.ids.length).fill(-1); // its place among the sampled tokens
  let sampled = 0;
  for (const [start, end] of tokens.sampled) for (let n = start; n < end; n++) place[n] = sampled++;
  const control = new Set(words.control);
  const segments = segmentsOf(tokens.ids.length, texts.attempts);
  const turns = segments.map((segment) => {
    const nodes = [];
    for (let n = segment.start; n < segment.end; n++) {
      const word = tokens.ids[n], at = place[n];
      const fact = {
        n, id: words.ids[word], text: words.texts ? words.texts[word] : null, control: control.has(word), segment: segment.name, drawn: at >= 0, trained,
        logprob: at >= 0 && tokens.logprobs ? tokens.logprobs[at] : null, full: at >= 0 && tokens.full ? tokens.full[at] : null, advantage: at >= 0 && tokens.advantages ? tokens.advantages[at] : null,
      };
      facts.push(fact);
      nodes.push(tokenNode(fact, mode));
    }
    const count = `${segment.name} · ${plural(segment.end - segment.start, "token")}, ${segment.attempt === null ? "given: not trained" : trained ? "drawn and trained" : "drawn, not trained"}`;
    const beside = segment.attempt === null ? null : verdict(i, texts.attempts[segment.attempt]);
    return turn(segment.attempt === null ? "user" : "model", count, el("div", { class: "tokens", role: "listbox", "aria-label": `Tokens of: ${segment.name}`, "aria-orientation": "horizontal" }, nodes), beside);
  });
  return el("section", { class: `token-view by-${mode}`, "aria-label": "Tokens" }, legend(tokens, mode, trained), el("ol", { class: "turns", "aria-label": "Turns of the dialogue" }, turns), el("output", { id: "inspector", "aria-live": "polite" }, "Point at a token, tap it, or go along them with ← and →."));
}

/** Prompt, attempts and what stands between them, as spans of tokens that cover the dialogue. */
function segmentsOf(length, attempts) {
  const segments = [];
  let at = 0;
  const forced = (to, name) => { if (to > at) segments.push({ start: at, end: to, name, attempt: null }); at = Math.max(at, to); };
  attempts.forEach((attempt, a) => {
    forced(attempt.start, a === 0 ? "Prompt" : attempts[a - 1].anew ? "Prompt anew" : "Feedback");
    if (attempt.end > at) segments.push({ start: at, end: attempt.end, name: `Attempt ${a + 1}`, attempt: a });
    at = Math.max(at, attempt.end);
  });
  forced(length, attempts.length ? "Feedback" : "Prompt");
  return segments;
}

function tokenNode(fact, mode) {
  const value = mode === "advantage" ? fact.advantage : fact.logprob;
  const colour = !fact.drawn || value === null ? "" : mode === "advantage" ? advantageBin(value) : `l${logBin(value)}`;
  const kind = fact.drawn ? "drawn" : "forced";
  return el("span", { class: `token ${kind} ${colour} ${fact.control ? "control" : ""}`, role: "option", "aria-selected": "false", tabindex: fact.n === 0 ? "0" : "-1", "data-n": fact.n }, tokenText(fact));
}

function tokenText(fact) {
  if (fact.text === null || fact.text === "") return `#${fact.id}`;
  return fact.text.replaceAll("\t", "⇥\t").replaceAll("\n", "↵\n");
}

function legend(tokens, mode, trained) {
  const s = DATA.advantage_scale;
  const choice = (value, text, disabled) => el("button", { type: "button", id: `colour-${value}`, "aria-pressed": mode === value ? "true" : "false", disabled, on: { click: () => setColour(value) } }, text);
  const key = (colour, text) => el("li", null, el("span", { class: `swatch ${colour}`, "aria-hidden": "true" }), text);
  const round = (x) => signed(x, x >= 10 ? 0 : x >= 0.1 ? 2 : 4).replace("+", "");
  const keys = mode === "advantage"
    ? [key("m4", `below −${round(SHARES[3] * s)}`), key("m3", ""), key("m2", ""), key("m1", ""), key("a0", `within ±${round(SHARES[0] * s)}`), key("p1", ""), key("p2", ""), key("p3", ""), key("p4", `above +${round(SHARES[3] * s)}`)]
    : LOG_NAMES.map((name, n) => key(`l${n}`, name));
  const meaning = mode === "advantage"
    ? "Advantage: blue tokens were made likelier by this update, orange ones less likely."
    : `Probability that the token had when it was drawn (log-prob: its natural logarithm); the darker, the less likely.${tokens.advantages === null ? " There are no advantages: nothing was trained on this dialogue." : ""}`;
  return el(
    "div",
    { class: "legend" },
    el("span", { class: "switch", role: "group", "aria-label": "Colour of the tokens" }, choice("logprob", "Log-prob", false), choice("advantage", "Advantage", tokens.advantages === null || s === null)),
    el("ul", { class: `keys by-${mode}`, "aria-label": "Colours" }, keys),
    el("p", null, meaning, " ", el("span", { class: "token forced" }, "Grey, dotted"), " tokens were given (prompt, feedback) and carry no loss; ", el("span", { class: "token drawn" }, "underlined"), trained ? " ones were drawn by the model and trained." : " ones were drawn by the model."),
    DATA.no_tokenizer ? el("p", { class: "trouble", id: "no-tokenizer" }, DATA.no_tokenizer) : null,
  );
}

// -------------------------------------------------------------------------------------------------------- looking at one token

function startTokens() {
  const view = $("dialogue").querySelector(".token-view");
  const of = (event) => (event.target instanceof Element ? event.target.closest(".token[data-n]") : null);
  view.addEventListener("mouseover", (event) => { const node = of(event); if (node) inspect(node, false); });
  view.addEventListener("click", (event) => { const node = of(event); if (node) inspect(node, true); });
  view.addEventListener("focusin", (event) => { const node = of(event); if (node) inspect(node, true); });
}

/** To the next token, or the one before; from anywhere else, to the one that was looked at last. */
function alongTokens(by) {
  const last = document.querySelector('.token[data-n][tabindex="0"]');
  const next = last === document.activeElement ? document.querySelector(`.token[data-n="${Number(last.dataset.n) + by}"]`) : last;
  if (next) next.focus();
}

function inspect(node, chosen) {
  const fact = facts[Number(node.dataset.n)];
  if (chosen) {
    for (const other of document.querySelectorAll('.token[tabindex="0"]')) { other.tabIndex = -1; other.setAttribute("aria-selected", "false"); }
    node.tabIndex = 0;
    node.setAttribute("aria-selected", "true");
  }
  const item = (name, value) => el("span", { class: "item" }, `${name} `, el("b", null, value));
  const shownText = fact.text === null || fact.text === "" ? "no text" : fact.text;
  const parts = [el("code", { class: "inspected" }, shownText.replaceAll("\n", "↵").replaceAll("\t", "⇥")), item("id", fact.id), item("place", `${fact.n + 1} of ${facts.length}`)];
  if (!fact.drawn) parts.push(item("given:", `${fact.segment.toLowerCase()}, not trained`));
  else {
    if (fact.logprob !== null) parts.push(item("log-prob", signed(fact.logprob, 3)), item("probability", `${(100 * Math.exp(fact.logprob)).toPrecision(3)} %`));
    if (fact.full !== null && fact.full !== fact.logprob) parts.push(item("log-prob at temperature 1", signed(fact.full, 3)));
    parts.push(fact.advantage === null ? item("advantage", "none") : item("advantage", signed(fact.advantage, 4)));
    parts.push(item("drawn,", fact.trained ? "trained" : "not trained"));
  }
  if (fact.text !== null && fact.text.includes("\ufffd")) parts.push(el("span", { class: "item" }, "part of a character"));
  $("inspector").replaceChildren(...parts);
}
