// The report: what was found first, then its parts in order. Everything comes from the data as text.
(async () => {
  const { el } = Page;
  const main = document.getElementById("report");
  const data = await Page.data();
  const TONES = { yes: "shown", partly: "shown in part", no: "not shown", open: "open" };
  // A figure, its unit and its interval are not torn apart at the end of a line.
  const glued = (text) => text.replace(/ (?=(?:%|points)(?![a-z]))/g, "\u00a0").replace(/(?<=points) (?=\[)/g, "\u00a0").replace(/\[[^[\]]{1,30}\]/g, (range) => range.replaceAll(" ", "\u00a0"));

  function caveats(list) {
    if (!list.length) return null;
    const [first, ...rest] = list;
    return el("div", { class: "caveats" },
      el("p", {}, el("strong", {}, data.headline.tone === "no" ? "Mind: " : "But: "), glued(first)),
      rest.length ? el("ul", {}, ...rest.map((text) => el("li", {}, glued(text)))) : null);
  }

  function head() {
    const h = data.headline;
    return el("header", { class: `headline ${h.tone}` },
      el("p", { class: "eyebrow" }, data.title, el("span", {}, data.made)),
      el("h1", {}, h.verdict),
      el("p", { class: "tone" }, `Learning from failures: ${TONES[h.tone]}`),
      ...h.sentences.map((text) => el("p", { class: "lead" }, glued(text))),
      h.tiles.length ? el("dl", { class: "tiles" }, ...h.tiles.map((tile) => el("div", {},
        el("dt", {}, tile.label), el("dd", {}, el("b", {}, tile.value), el("span", {}, tile.interval), tile.note ? el("i", {}, tile.note) : null)))) : null,
      h.basis ? el("p", { class: "basis" }, h.basis) : null,
      caveats(h.caveats));
  }

  function arms() {
    if (data.arms.length < 2 && !data.warnings.length) return null;
    return el("section", { class: "arms" },
      data.arms.length < 2 ? null : el("ul", {}, ...data.arms.map((arm) => el("li", {},
        Charts.swatch({ kind: "arm", style: arm.style, label: arm.label }), el("b", {}, arm.label),
        el("span", {}, [arm.about, `${arm.seeds} seed${arm.seeds === 1 ? "" : "s"}`].filter(Boolean).join(", "))))),
      data.warnings.length ? el("details", { class: "warnings", open: data.warnings.length <= 3 }, el("summary", {}, `Warnings (${data.warnings.length})`),
        el("ul", {}, ...data.warnings.map((text) => el("li", {}, text)))) : null);
  }

  function section(part) {
    return el("section", { id: part.id },
      el("h2", {}, part.title),
      ...part.text.map((text) => el("p", { class: "text" }, text)),
      part.missing ? el("p", { class: "missing" }, part.missing) : null,
      ...part.charts.map((chart) => Charts.figure(chart, data.files)),
      ...part.tables.map((table) => part.charts.length && table.rows.length > 16 ? folded(table) : Charts.table(table)));
  }

  const folded = (table) => el("details", { class: "folded" }, el("summary", {}, table.title), Charts.table(table));

  const contents = el("nav", { "aria-label": "Contents" }, ...data.sections.map((part) => el("a", { href: `#${part.id}` }, part.title)));
  main.replaceChildren(...[head(), arms(), contents, ...data.sections.map(section)].filter(Boolean));
  main.removeAttribute("aria-busy");

  // Paper has nothing to click on: what is folded is opened for it, and closed again.
  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const part of main.querySelectorAll("details.folded:not([open]), details.warnings:not([open])")) {
      part.open = true;
      opened.push(part);
    }
  });
  window.addEventListener("afterprint", () => opened.splice(0).forEach((part) => { part.open = false; }));
})().catch((error) => {
  document.getElementById("report").replaceChildren(Page.el("p", { class: "failed" }, `This report cannot be shown: ${error.message}`));
});
