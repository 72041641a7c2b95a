"""One self-contained HTML file: styles, script and data inside it, nothing loaded from anywhere.

What a model wrote is hostile until proven otherwise. Three walls stand between it and the reader's browser:

1. Data never stands in the file as text. It is JSON, compressed with gzip and written in base64, whose alphabet has no `<`, no quote
   and no control character: no text can end the block that it stands in.
2. A Content-Security-Policy names the hashes of the page's own script and style. Nothing else runs, no style attribute counts, nothing
   is loaded or sent; and Trusted Types turn every attempt to make markup from a string (`innerHTML` and its like) into an error.
3. The script puts text into the page through `textContent` alone, and `Page.text` shows control and bidirectional characters as marked
   escapes instead of obeying them.

The script finds `Page` (assets/page.js) in its scope: `Page.data()` and `Page.block(i)` give promises of the data, `Page.el` makes
elements, `Page.text` makes text visible. The style finds the colours of assets/page.css, light and dark.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

MAX_TITLE = 200
# C0 and C1 controls, zero-width and bidirectional marks, line separators, surrogates: never wanted in a title.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

_POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="mulligan">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript><p>This page shows its data by its own script, without loading anything: switch on JavaScript to read it.</p></noscript>
{body}
{blocks}
<script>{script}</script>
</body>
</html>
"""


def build_page(*, title: str, css: str, script: str, data: Any, body: str = "", blocks: Sequence[Any] = ()) -> str:
    """The text of the page, to be written as UTF-8.

    Args:
        title: any text; what is invisible in it is left out.
        css: the page's own style, put after that of assets/page.css.
        script: the page's own script, run in strict mode behind assets/page.js. It must not hold `</script` or `<!--`.
        data: JSON-able; what `Page.data()` gives. Lone surrogates pass; NaN and infinities do not (JSON has none).
        body: trusted markup of the page (a template of the package, never anything read from a run), without scripts and style attributes.
        blocks: further JSON-able data, each read only when `Page.block(i)` is called: for what need not be there when the page opens.

    Raises:
        ValueError: data that is not JSON, or a script or style that would end its own element.
    """
    whole_script = f'"use strict";\n{{\n{asset("page.js")}\n{script}\n}}\n'
    whole_style = f"{asset('page.css')}\n{css}\n"
    for text, ends in ((whole_script, ("</script", "<!--", "\r", "\0")), (whole_style, ("</style", "\r", "\0"))):
        if found := [end for end in ends if end in text.lower()]:
            raise ValueError(f"a page's script or style may not hold {found[0]!r}: it would end there, or its hash would not be the browser's")
    policy = _POLICY.format(script=_hash_source(whole_script), style=_hash_source(whole_style))
    stored = [f'<script type="application/octet-stream" id="{name}">{_packed(value)}</script>' for name, value in _named(data, blocks)]
    shown = html.escape(_INVISIBLE.sub("", title)[:MAX_TITLE])
    return _PAGE.format(policy=policy, title=shown, style=whole_style, body=body, blocks="\n".join(stored), script=whole_script)


def asset(name: str) -> str:
    """A file of assets/, which comes with the package."""
    return (files("mulligan.report") / "assets" / name).read_text(encoding="utf-8")


def _named(data: Any, blocks: Sequence[Any]) -> list[tuple[str, Any]]:
    return [("page-data", data), *((f"page-block-{i}", block) for i, block in enumerate(blocks))]


def _packed(value: Any) -> str:
    # ensure_ascii keeps lone surrogates (as escapes); mtime 0 makes the same data the same file
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0)).decode("ascii")


def _hash_source(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
