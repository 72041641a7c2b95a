// What every page of mulligan's stands on. Text goes into the page as text nodes alone; nothing here makes markup from a string.
const Page = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  // Characters that would act instead of being seen: controls but for tab and line feed, zero-width, bidirectional, separators,
  // tags, lone surrogates, non-characters.
  const HIDDEN =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff]|[\u{e0000}-\u{e0fff}]|\p{Cs}/gu;
  const NAMES = {
    0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x0b: "VT", 0x0c: "FF", 0x0d: "CR", 0x1b: "ESC", 0x7f: "DEL", 0xad: "SHY", 0x200b: "ZWSP", 0x200c: "ZWNJ",
    0x200d: "ZWJ", 0x200e: "LRM", 0x200f: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO",
    0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM",
  };

  /** The data block with this id: base64 of gzip of JSON. */
  async function read(id) {
    const block = document.getElementById(id);
    if (!block) throw new Error(`the page has no data block ${id}`);
    if (typeof DecompressionStream === "undefined") throw new Error("this browser cannot unpack the page's data: open it in one of 2023 or later");
    const binary = atob(block.textContent);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const kept = new Map();
  /** As `read`, once per block: the promise is kept. */
  function once(id) {
    if (!kept.has(id)) kept.set(id, read(id));
    return kept.get(id);
  }

  /** How a hidden character is shown: ⟨RLO⟩, ⟨U+0003⟩. */
  function escape(character) {
    const code = character.codePointAt(0);
    return `⟨${NAMES[code] || "U+" + code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  }

  /** Any text as a string in which every character is seen (for labels, where no markup is possible). */
  const visible = (text) => String(text).replace(HIDDEN, escape);

  /** Any text as nodes: what would act is an element of class `hidden-character` around its escape. */
  function text(value) {
    const fragment = document.createDocumentFragment();
    const string = String(value);
    let last = 0;
    for (const match of string.matchAll(HIDDEN)) {
      if (match.index > last) fragment.append(string.slice(last, match.index));
      const code = match[0].codePointAt(0);
      const mark = el("span", { class: "hidden-character", title: `character U+${code.toString(16).toUpperCase().padStart(4, "0")}, shown instead of obeyed` });
      mark.textContent = escape(match[0]);
      fragment.append(mark);
      last = match.index + match[0].length;
    }
    if (last < string.length) fragment.append(string.slice(last));
    return fragment;
  }

  const FORBIDDEN = /^(on|style$|src|href$|srcdoc$|action$|formaction$|xlink:)/i;

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else if (name === "href" && String(value).startsWith("#")) node.setAttribute(name, value);
      else if (FORBIDDEN.test(name)) throw new Error(`attribute ${name} is not set by this page`);
      else node.setAttribute(name, value === true ? "" : visible(value));
    }
    for (const child of children.flat()) if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : text(child));
    return node;
  }

  /** An element: `el("p", {class: "x", on: {click: f}}, "any text", node, ...)`. Strings become visible text. */
  const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

  /** The same for SVG. */
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  return { data: () => once("page-data"), block: (i) => once(`page-block-${i}`), el, svg, text, visible };
})();
