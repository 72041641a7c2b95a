"""The self-contained page: what stands in the file, and that no data can get out of its block."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

import pytest

from mulligan.report.page import asset, build_page

HOSTILE = ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028\u2029", "\u202e", "\x00\x07\x1b", "\ud800", "'\"`", "\r\n", "&lt;"]


def blocks_of(page: str) -> dict[str, str]:
    return dict(re.findall(r'<script type="application/octet-stream" id="([\w-]+)">([^<]*)</script>', page))


def unpacked(text: str):
    return json.loads(gzip.decompress(base64.b64decode(text, validate=True)))


def build(**changes) -> str:
    return build_page(**{"title": "t", "css": "p { color: red; }", "script": "Page.data();", "data": {}, **changes})


def test_data_comes_back_as_it_was_and_stands_there_in_base64_alone():
    data = {"texts": HOSTILE, "n": [1, 2.5, None, True]}
    page = build(data=data, blocks=[HOSTILE, {"b": HOSTILE[0]}])
    found = blocks_of(page)
    assert {name: unpacked(text) for name, text in found.items()} == {"page-data": data, "page-block-0": HOSTILE, "page-block-1": {"b": HOSTILE[0]}}
    assert all(re.fullmatch(r"[A-Za-z0-9+/]+=*", text) for text in found.values())
    assert "alert(1)" not in page


def test_the_policy_names_the_hashes_of_what_stands_in_the_file():
    page = build(css="b { margin: 0; } /* ü */", script="Page.data(); // ü")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in policy[1]
    assert set(directives) == {"default-src", "script-src", "style-src", "base-uri", "form-action", "require-trusted-types-for", "trusted-types"}
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[directive] == f"'sha256-{digest}'"


def test_own_style_and_script_come_behind_the_shared_ones():
    page = build(css=".mine {}", script="mine();")
    assert page.index("--paper") < page.index(".mine {}")
    assert page.index("const Page") < page.index("mine();")


def test_the_title_is_text_and_short():
    page = build(title="<b>\u202e\x00&" + "x" * 500)
    [title] = re.findall(r"<title>(.*)</title>", page)
    assert title == "&lt;b&gt;&amp;" + "x" * 196


def test_the_same_data_makes_the_same_file():
    assert build(data={"a": [1, 2]}) == build(data={"a": [1, 2]})


@pytest.mark.parametrize("changes", [{"script": "'</script>'"}, {"script": "'<!--'"}, {"script": "a\r\nb"}, {"css": "/* </STYLE> */"}])
def test_a_script_that_would_end_its_element_is_refused(changes):
    with pytest.raises(ValueError, match="may not hold"):
        build(**changes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_is_not_json_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        build(data=value)


@pytest.mark.parametrize("name", ["page.js", "view_data.js", "view_list.js", "view_dialogue.js", "view_tokens.js", "view.js", "charts.js", "report.js"])
def test_scripts_make_no_markup_from_strings(name):
    """A second look, beside Trusted Types: nothing in the sources even tries."""
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|createContextualFragment|\bimport\(|fetch\(|XMLHttpRequest", asset(name))


@pytest.mark.parametrize("name", ["page.css", "view.css", "view.html", "report.css"])
def test_nothing_is_named_that_would_be_loaded(name):
    assert not re.search(r"url\(|@import|https?:|src=|href=|style=| on\w+=", asset(name))
