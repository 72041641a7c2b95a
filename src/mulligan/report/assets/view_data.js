// The data of the page and the words for it. A dialogue is its number i in the columns of the index.
const el = Page.el;
const $ = (id) => document.getElementById(id);

const OUTCOMES = {
  solved: { symbol: "✓", name: "solved", what: "an attempt was right" },
  unsolved: { symbol: "✗", name: "unsolved", what: "every attempt was used and the last answer was wrong" },
  truncated: { symbol: "✂", name: "truncated", what: "ended by a token limit" },
  no_answer: { symbol: "∅", name: "no answer", what: "the last attempt held no answer" },
  ungradable: { symbol: "?", name: "ungradable", what: "the grader failed; carries no reward and no gradient" },
  broken: { symbol: "⚠", name: "broken", what: "the dialogue itself failed; carries no gradient" },
};
const LETTERS = { c: "solved", w: "unsolved", n: "no_answer", t: "truncated", u: "ungradable" };
const VERDICTS = {
  correct: ["solved", "Correct"], wrong: ["unsolved", "Wrong"], no_answer: ["no_answer", "No answer found"],
  truncated: ["truncated", "Cut off before an answer"], ungradable: ["ungradable", "Could not be graded"],
};
const STOPS = {
  answer: "stopped at its answer", end_of_turn: "ended its turn",
  attempt_length: "cut at the attempt's token limit", dialogue_length: "cut at the dialogue's token limit",
};
const STAGES = { train: "training", attempts: "evaluation", samples: "independent samples" };

let DATA; // what the index block holds
let C; // its columns
let COUNT = 0;

const number = (n, digits = 0) => Number(n).toLocaleString("en-GB", { maximumFractionDigits: digits }).replace("-", "−");
const signed = (x, digits) => (x > 0 ? "+" : x < 0 ? "−" : "") + Math.abs(x).toFixed(digits);
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
const stageName = (stage) => (stage.startsWith("samples at ") ? `independent samples, temperature ${stage.slice(11)}` : Object.hasOwn(STAGES, stage) ? STAGES[stage] : `control: ${stage.replaceAll("_", " ")}`);

const isTraining = (i) => DATA.stages[C.stage[i]] === "train";
/** Whether evaluations stand beside training here, so that "at the end" means something. */
const hasTraining = () => DATA.stages.includes("train");
/** Short: `12`, `after 10`, `end`. */
const whenShort = (i) => (isTraining(i) ? String(C.at[i] ?? "?") : C.at[i] !== null ? `after ${C.at[i]}` : hasTraining() ? "end" : "");
/** In words: `step 12`, `after 10 steps`, `at the end`; nothing where the evaluation stands alone. */
const whenLong = (i) => (isTraining(i) ? `step ${C.at[i] ?? "?"}` : C.at[i] !== null ? `after ${plural(C.at[i], "step")}` : hasTraining() ? "at the end" : "");

/** How the dialogue ended, as a sentence's beginning. */
function ending(i) {
  const used = C.used[i], allowed = C.k[i] ?? used;
  switch (C.outcome[i]) {
    case "solved": return used === 1 ? `Solved at the first attempt of ${allowed} allowed` : `Solved at attempt ${used} of ${allowed} allowed`;
    case "unsolved": return `Not solved: ${plural(used, "attempt")} of ${allowed} allowed`;
    case "truncated": return `Ended by a token limit at attempt ${used} of ${allowed} allowed`;
    case "no_answer": return `Not solved: no answer in attempt ${used} of ${allowed} allowed`;
    case "ungradable": return `Not gradable: the grader failed at attempt ${used} of ${allowed} allowed`;
    default: return `Broken after ${plural(used, "attempt")} of ${allowed} allowed`;
  }
}

const describe = (i) => `${isTraining(i) ? whenLong(i) : stripLabel(i)}, ${OUTCOMES[C.outcome[i]].name}, ${plural(C.used[i], "attempt")}: ${DATA.problems[C.problem[i]][1]}`;

const textsOf = async (i) => {
  const block = await Page.block(1 + Math.floor(i / DATA.chunk));
  const dialogue = block.dialogues[i % DATA.chunk];
  return { ...dialogue, prompt: block.prompts[dialogue.prompt] };
};
const tokensOf = async (i) => (await Page.block(1 + DATA.chunks + Math.floor(i / DATA.chunk)))[i % DATA.chunk];
const vocabulary = () => Page.block(0);

/** The dialogues of each problem in order of step, evaluations behind the steps that they followed, those of the end last. */
let BY_PROBLEM;
function orderProblems() {
  BY_PROBLEM = DATA.problems.map(() => []);
  for (let i = 0; i < COUNT; i++) BY_PROBLEM[C.problem[i]].push(i);
  const place = (i) => (C.at[i] === null ? Infinity : isTraining(i) ? C.at[i] + 0.5 : C.at[i]);
  for (const list of BY_PROBLEM) list.sort((a, b) => (place(a) === place(b) ? C.stage[a] - C.stage[b] || C.k[a] - C.k[b] || a - b : place(a) - place(b)));
}
