// Figures drawn from data: panels side by side, one legend that switches curves on and off, values under pointer, finger or arrow keys,
// and a table of the same figures. Colours come from the style alone (class s0, s1, ...), so that they follow light, dark and print.
const Charts = (() => {
  const { el, svg } = Page;
  const W = 380, H = 260, LEFT = 46, RIGHT = 14, TOP = 16, BOTTOM = 40;
  const COLOURS = 7, MARKERS = 7;

  // Lines have no markers: those of one colour differ in their dashes.
  const colourOf = (curve) => (curve.kind === "bound" ? `bound d${curve.style % 4}` : `s${curve.style % COLOURS} l${curve.style % 3}`);
  const markerOf = (style) => (style + Math.floor(style / COLOURS)) % MARKERS;

  // Paths of a marker of radius r around (x, y): circle, square, triangle, diamond, triangle down, plus, cross.
  function marker(style, x, y, r) {
    const shape = (points) => "M" + points.map(([a, b]) => `${(x + a * r).toFixed(2)} ${(y + b * r).toFixed(2)}`).join("L") + "Z";
    const plus = [[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4], [0.4, 1.1], [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]];
    const turned = plus.map(([a, b]) => [(a - b) * 0.707, (a + b) * 0.707]);
    switch (markerOf(style)) {
      case 0: return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
      case 1: return shape([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
      case 2: return shape([[0, -1.15], [1.1, 0.85], [-1.1, 0.85]]);
      case 3: return shape([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]);
      case 4: return shape([[0, 1.15], [1.1, -0.85], [-1.1, -0.85]]);
      case 5: return shape(plus);
      default: return shape(turned);
    }
  }

  /** Round numbers from low to high, about `count` of them. */
  function ticks(low, high, count, whole) {
    if (!(high > low)) return [low];
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    let step = [1, 2, 2.5, 5, 10].map((x) => x * power).find((x) => x >= raw * 0.999);
    if (whole) step = Math.max(1, Math.ceil(step));
    const found = [];
    for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) found.push(Math.abs(i * step) < 1e-12 ? 0 : i * step);
    return found;
  }

  const trimmed = (text) => text.replace(/^([+-]?)0$/, "0").replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  function axisText(value, unit, step) {
    const scaled = unit === "number" ? value : 100 * value;
    const wide = unit === "number" ? step : 100 * step;
    let digits = 0; // as few as tell one tick from the next: 0.25 needs two
    while (digits < 6 && Math.abs(wide * 10 ** digits - Math.round(wide * 10 ** digits)) > 1e-6 * wide * 10 ** digits) digits++;
    const text = trimmed(Math.abs(scaled) >= 10000 ? scaled.toLocaleString("en", { maximumFractionDigits: 0 }) : scaled.toFixed(digits));
    if (unit === "percent") return `${text} %`;
    return unit === "points" && scaled > 0 && text !== "0" ? `+${text}` : text;
  }

  /** `45.2 % [41.0, 49.3]`, `+6.9 [+2.1, +11.4]`, `0.0123`. */
  function valueText([, mean, low, high], unit) {
    const one = (value) => {
      if (unit === "number") return Math.abs(value) >= 100 ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : String(+value.toPrecision(3));
      const text = (100 * value).toFixed(1);
      return unit === "points" && 100 * value >= 0.05 ? `+${text}` : text;
    };
    const range = low === mean && high === mean ? "" : ` [${one(low)}, ${one(high)}]`;
    return one(mean) + (unit === "percent" ? " %" : "") + range;
  }

  function scales(panel) {
    const xs = [...new Set(panel.curves.flatMap((c) => c.points.map((p) => p[0])))].sort((a, b) => a - b);
    let [low, high] = panel.bounds || [Infinity, -Infinity];
    if (!panel.bounds) {
      for (const curve of panel.curves) for (const [, mean, bottom, top] of curve.points) {
        low = Math.min(low, bottom, mean);
        high = Math.max(high, top, mean);
      }
      if (panel.unit !== "number") { low = Math.min(low, 0); high = Math.max(high, 0); }
      const gap = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.05;
      if (low !== 0) low -= gap;
      if (high !== 0 || panel.unit === "points") high += gap;
      if (!(high > low)) high = low + gap; // nothing but 0: an axis has to have two ends
    }
    const pad = xs.length > 1 ? (xs[xs.length - 1] - xs[0]) * 0.05 : 0.5;
    const x0 = xs[0] - pad, x1 = xs[xs.length - 1] + pad;
    return {
      xs, low, high,
      x: (value) => LEFT + ((value - x0) / (x1 - x0)) * (W - LEFT - RIGHT),
      y: (value) => H - BOTTOM - ((value - low) / (high - low)) * (H - TOP - BOTTOM),
    };
  }

  function axes(panel, s) {
    const parts = [];
    const places = ticks(s.low, s.high, 5, false);
    const step = places.length > 1 ? places[1] - places[0] : 1;
    for (const value of places) {
      const y = s.y(value).toFixed(1);
      parts.push(svg("line", { class: value === 0 && panel.unit === "points" ? "zero" : "grid", x1: LEFT, x2: W - RIGHT, y1: y, y2: y }));
      parts.push(svg("text", { class: "tick", x: LEFT - 6, y: +y + 4, "text-anchor": "end" }, axisText(value, panel.unit, step)));
    }
    const few = s.xs.length <= 12 ? s.xs : ticks(s.xs[0], s.xs[s.xs.length - 1], 6, true);
    for (const value of few) parts.push(svg("text", { class: "tick", x: s.x(value).toFixed(1), y: H - BOTTOM + 17, "text-anchor": "middle" }, String(+value.toFixed(6))));
    parts.push(svg("text", { class: "axis", x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, panel.xlabel));
    if (panel.trained !== null && s.xs[0] <= panel.trained && panel.trained < s.xs[s.xs.length - 1]) {
      const x = s.x(panel.trained + 0.5);
      parts.push(svg("rect", { class: "beyond", x: x.toFixed(1), y: TOP, width: (W - RIGHT - x).toFixed(1), height: H - TOP - BOTTOM }));
      parts.push(svg("line", { class: "edge", x1: x.toFixed(1), x2: x.toFixed(1), y1: TOP, y2: H - BOTTOM }));
      parts.push(svg("text", { class: "note", x: (x + 3).toFixed(1), y: TOP - 3 }, "beyond training"));
    }
    return parts;
  }

  /** Measured curves stand a little beside each other, so that their bars do not hide one another. */
  function asideOf(curve, panel) {
    const measured = panel.curves.filter((c) => c.kind === "arm" || c.kind === "pass");
    const place = measured.indexOf(curve);
    return place < 0 || measured[0].points.length > 12 ? 0 : (place - (measured.length - 1) / 2) * Math.min(2.6, 13 / measured.length);
  }

  function drawCurve(curve, panel, s) {
    const aside = asideOf(curve, panel);
    const at = curve.points.map(([x, mean, low, high]) => [s.x(x) + aside, s.y(mean), s.y(low), s.y(high)].map((v) => +v.toFixed(2)));
    const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");
    const group = svg("g", { class: `curve ${curve.kind} ${colourOf(curve)}`, "data-key": keyOf(curve) });
    const wide = at.some(([, , low, high]) => low !== high);
    if (wide && curve.kind !== "bound" && at.length > 1) {
      group.append(svg("path", { class: "band", d: path([...at.map((p) => [p[0], p[3]]), ...at.map((p) => [p[0], p[2]]).reverse()]) + "Z" }));
    }
    group.append(svg("path", { class: "stroke", d: path(at) }));
    if (curve.kind === "arm" || curve.kind === "pass") {
      for (const [x, , low, high] of at) if (low !== high) group.append(svg("path", { class: "bar", d: `M${x} ${low}V${high}M${x - 3} ${low}H${x + 3}M${x - 3} ${high}H${x + 3}` }));
      const size = at.length > 24 ? 2.4 : curve.kind === "arm" ? 3.6 : 3.1;
      for (const [x, y] of at) group.append(svg("path", { class: "dot", d: marker(curve.style, x, y, size) }));
    } else if (at.length === 1) group.append(svg("path", { class: "dot", d: marker(curve.style, at[0][0], at[0][1], 3) }));
    if (curve.hidden) group.setAttribute("hidden", "");
    return group;
  }

  const keyOf = (curve) => Page.visible(`${curve.kind}|${curve.style}|${curve.label}`); // as an attribute holds it

  function swatch(curve) {
    const parts = [svg("path", { class: "stroke", d: "M1 8H29" })];
    if (curve.kind !== "bound" && curve.kind !== "line") parts.push(svg("path", { class: "dot", d: marker(curve.style, 15, 8, 4) }));
    return svg("svg", { class: `swatch curve ${curve.kind} ${colourOf(curve)}`, viewBox: "0 0 30 16", "aria-hidden": "true" }, ...parts);
  }

  // ---------------------------------------------------------------------------------------------------- values at a place

  const tip = document.getElementById("tip");

  function showTip(root, panel, s, index, root_x) {
    const x = s.xs[index];
    const shown = panel.curves.filter((c) => !root.querySelector(`[data-key="${CSS.escape(keyOf(c))}"]`)?.hasAttribute("hidden"));
    const rows = shown.map((curve) => [curve, curve.points.find((p) => p[0] === x)]).filter(([, point]) => point);
    tip.replaceChildren(
      el("strong", {}, `${panel.xlabel}: ${x}`),
      ...rows.map(([curve, point]) => el("div", {}, swatch(curve), el("span", {}, curve.label), el("b", {}, valueText(point, panel.unit)))),
    );
    tip.hidden = false;
    root.querySelector(".cursor").setAttribute("d", `M${s.x(x).toFixed(1)} ${TOP}V${H - BOTTOM}`);
    const box = root.getBoundingClientRect(), place = box.left + (s.x(x) / W) * box.width;
    const width = tip.offsetWidth, height = tip.offsetHeight, edge = document.documentElement.clientWidth;
    const right = place + 14 + width < edge ? place + 14 : place - 14 - width;
    tip.style.left = `${Math.max(6, Math.min(right, edge - width - 6)) + window.scrollX}px`;
    tip.style.top = `${Math.max(6, box.top + 8 - Math.max(0, height - box.height)) + window.scrollY}px`;
  }

  function hideTip(root) {
    tip.hidden = true;
    root.querySelector(".cursor").setAttribute("d", "");
  }

  function drawPanel(panel, chart) {
    const s = scales(panel);
    const name = `${chart.title}. ${panel.title}. ${panel.ylabel} by ${panel.xlabel}. Arrow keys read the values; the table below has them all.`;
    const root = svg("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: "0", "aria-label": name });
    root.append(...axes(panel, s));
    const rank = { bound: 0, pass: 1, line: 2, arm: 3 };
    for (const curve of [...panel.curves].sort((a, b) => rank[a.kind] - rank[b.kind])) root.append(drawCurve(curve, panel, s));
    root.append(svg("path", { class: "cursor", d: "" }));
    let index = -1;
    const show = (i) => { index = Math.max(0, Math.min(i, s.xs.length - 1)); showTip(root, panel, s, index); };
    const nearest = (event) => {
      const box = root.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * W;
      show(s.xs.reduce((best, x, i) => (Math.abs(s.x(x) - at) < Math.abs(s.x(s.xs[best]) - at) ? i : best), 0));
    };
    root.addEventListener("pointermove", nearest);
    root.addEventListener("pointerdown", nearest);
    root.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hideTip(root); }); // a finger leaves when it is lifted
    document.addEventListener("pointerdown", (event) => { if (!root.contains(event.target) && root.querySelector(".cursor").getAttribute("d")) hideTip(root); });
    root.addEventListener("focus", () => { if (root.matches(":focus-visible")) show(index < 0 ? s.xs.length - 1 : index); });
    root.addEventListener("blur", () => hideTip(root));
    root.addEventListener("keydown", (event) => {
      const jump = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: s.xs.length - 1 }[event.key];
      if (event.key === "Escape") hideTip(root);
      if (jump === undefined) return;
      event.preventDefault();
      show(jump);
    });
    return el("div", { class: "panel" }, el("h4", {}, panel.title), el("p", { class: "ylabel" }, panel.ylabel), root);
  }

  function legend(chart, holder) {
    const seen = new Map();
    for (const panel of chart.panels) for (const curve of panel.curves) if (!seen.has(keyOf(curve))) seen.set(keyOf(curve), curve);
    const toggle = (button, key) => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      for (const group of holder.querySelectorAll(`g[data-key="${CSS.escape(key)}"]`)) group.toggleAttribute("hidden", !on);
    };
    return el("div", { class: "legend" }, ...[...seen].map(([key, curve]) => {
      const button = el("button", { type: "button", "aria-pressed": curve.hidden ? "false" : "true", title: "show or hide" }, swatch(curve), el("span", {}, curve.label));
      button.addEventListener("click", () => toggle(button, key));
      return button;
    }));
  }

  /** A table as Python gave it: {title, headers, rows, notes, labels}. The interval of a cell stands back. */
  function table(data) {
    const cell = (text, j) => {
      if (j < data.labels) return text.split(/(?<=[?&+/@])(?=\S)/).flatMap((part, i) => (i ? [el("wbr"), part] : [part])); // a source has no spaces to break at
      const parts = /^(.*?) (\[.*\])$/.exec(text);
      return parts ? [parts[1], " ", el("span", { class: "interval" }, parts[2])] : [text];
    };
    const body = data.rows.map((row) => el("tr", {}, ...row.map((text, j) => el(j === 0 ? "th" : "td", { class: j < data.labels ? "label" : "figure", scope: j === 0 ? "row" : null }, ...cell(text, j)))));
    const many = data.headers.length - data.labels > 5; // intervals below their values, where they would not fit beside them
    return el("div", { class: many ? "table many" : "table" },
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": data.title },
        el("table", {}, el("caption", {}, el("span", {}, data.title)),
          el("thead", {}, el("tr", {}, ...data.headers.map((text, j) => el("th", { scope: "col", class: j < data.labels ? "label" : "figure" }, text)))),
          el("tbody", {}, ...body))),
      ...data.notes.map((note) => el("p", { class: "note" }, note)));
  }

  /** A figure with its legend, its caption and its table. */
  function figure(chart, files) {
    const panels = el("div", { class: ["panels", "panels one", "panels two"][chart.panels.length] || "panels" }, ...chart.panels.map((panel) => drawPanel(panel, chart)));
    const more = el("details", {}, el("summary", {}, "The figures as a table"), ...chart.tables.map(table),
      el("p", { class: "note" }, `Files: ${files}/${chart.name}.png, .svg, .csv`));
    return el("figure", { id: `chart-${chart.name}` }, el("h3", {}, chart.title), legend(chart, panels), panels,
      chart.caption ? el("figcaption", {}, chart.caption) : null, more);
  }

  return { figure, table, swatch };
})();
