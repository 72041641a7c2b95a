r"""What kind of answer a text is: number, expression, tuple, set, interval, union, matrix, equation, inequality, choice, text.

`read` looks at brackets, commas and relation signs alone: pure string work, linear in the text for each level of brackets. What an
answer is decides what it may be compared with (`compare.py`); algebra is done only on the expressions at the leaves (`symbolic.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from mulligan.grading.normalize import canonical, clean
from mulligan.grading.numeric import Number, parse_number
from mulligan.grading.text import unwrap_text
from mulligan.grading.units import DEGREES, PERCENT, split_unit

Kind = Literal[
    "number", "expression", "tuple", "list", "set", "interval", "union", "difference", "matrix", "equation", "relation", "choice", "text", "based", "ratio"
]

MAX_DEPTH = 100
"""Brackets within brackets in an answer; more would only exhaust the parser."""
MAX_SIGNS = 3
r"""`\pm` signs of one element that are written out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read.

    `text` is canonical LaTeX. `parts` are elements (tuple, list, set, union, ratio), the two ends (interval), the rows' cells one after
    the other (matrix), the two sides (equation that names nothing), the sides of a chain (relation). `name` is the left side that only
    names the answer: `x` in `x = 5` or `x \\in [0, 1]`. `signs`: relation signs, or the brackets of an interval; for a matrix `rows x columns`.
    """

    kind: Kind
    text: str
    parts: tuple[Answer, ...] = ()
    number: Number | None = None
    unit: str | None = None
    name: str | None = None
    signs: tuple[str, ...] = ()


def negated(answer: Answer) -> Answer:
    """A number or an expression with its sign turned."""
    number = None if answer.number is None else replace(answer.number, value=-answer.number.value)
    return replace(answer, text=f"-({answer.text})", number=number)


# ------------------------------------------------------------------------------------------------------------------ splitting

_TOKEN = re.compile(
    r"\\(?:text|mbox|mathrm|textrm|textnormal)\{,?(?P<word>and|or),?\}"
    r"|(?<=[0-9)\]}$ ,])(?P<bare>and|or)(?![a-z])|\\(?P<env>begin|end)\{[a-z*]+\}|(?P<command>\\[a-zA-Z]+)|\\.|.",
    re.DOTALL,
)
_OPEN, _CLOSE = frozenset({"(", "[", "{", r"\{"}), frozenset({")", "]", "}", r"\}"})
_RELATIONS = {"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\in": "in", r"\approx": "~", r"\sim": "~", r"\simeq": "~"}
_ALIKE = {r"\text{and}": "and", r"\text{or}": "or"}


def split(text: str, separators: frozenset[str]) -> tuple[list[str], list[str]]:
    """Pieces of `text` between separators that stand outside all brackets, and the separators. Words are given as `and`, `or`."""
    depth = start = 0
    pieces, found = [], []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _OPEN or match["env"] == "begin":
            depth += 1
        elif token in _CLOSE or match["env"] == "end":
            depth -= 1
        elif depth == 0:
            name = match["word"] or match["bare"] or token
            if name in separators:
                pieces.append(text[start : match.start()].strip())
                found.append(name)
                start = match.end()
    return [*pieces, text[start:].strip()], found


def enclosed(text: str) -> tuple[str, str, str] | None:
    r"""(opening, inside, closing) if one pair of brackets holds the whole text; the two may differ, as in `[0, 1)`."""
    if not text or text[-1] not in ")]}" or not (text[0] in "([{" or text.startswith(r"\{")):
        return None
    depth, last = 0, 0
    for match in _TOKEN.finditer(text):
        if depth == 0 and match.start() > 0:
            return None
        if match[0] in _OPEN or match["env"] == "begin":
            depth += 1
        elif match[0] in _CLOSE or match["env"] == "end":
            depth -= 1
            last = len(match[0])
    if depth != 0:
        return None
    first = 2 if text.startswith("\\") else 1
    return text[:first], text[first:-last].strip(), text[-last:]


def depth_of(text: str) -> int:
    """How deep brackets of any kind are nested."""
    depth = deepest = 0
    for sign in text:
        if sign in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "})]":
            depth -= 1
    return deepest


# --------------------------------------------------------------------------------------------------------------------- names

_NOT_A_NAME = re.compile(r"[0-9+*/^<>!-]|\\(?:frac|sqrt|cdot|times|div|pm|mp|sum|prod|int|sin|cos|tan|cot|log|ln|exp|binom|pi|infty)(?![a-zA-Z])")
_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\\?[A-Za-z0-9]+)|\\(?:text|mathrm|operatorname|mbox)\{[^{}]*\}|'|(?<=[A-Za-z])\^\{?(?:-1|[A-Z*])\}?(?=\()")
_CALL_OF_NUMBER = re.compile(r"(?<=[A-Za-z}])\(-?[0-9]{1,9}(?:,-?[0-9]{1,9})*\)")
_NAME_RATIO = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")


def is_name(left: str) -> bool:
    r"""Whether a left side only names what follows: `x`, `a_{1}`, `f(x)`, `f(3)`, `(p,q)`, `|AB|`, `\angle ABC`; not `x+y`, `2x` or `8`."""
    return bool(left) and not _NOT_A_NAME.search(_CALL_OF_NUMBER.sub("", _SUBSCRIPT.sub("", left)))


def _is_named_ratio(left: str) -> bool:
    r"""`\frac{NO}{BO}`, `A/S`, `S:T`: a gold answer may give a ratio of named things."""
    return is_name(_NAME_RATIO.sub(r"\1\2", left).replace("/", "").replace(":", ""))


# --------------------------------------------------------------------------------------------------------------------- reading

_CHOICE = re.compile(r"\(?([A-Z])[).]?")
_CHOICE_FIRST = re.compile(
    r"(?:\\text(?:bf)?\{\(?([A-Z])\)?[.:]?\}|\(([A-Z])\))(?![+*/^=_<>!-])(?:(?!\\text|\\mathrm|[(),;]|or|and|is|not).){1,200}|(?:[Oo]ption|[Cc]hoice|[Aa]nswer):? ?\(?([A-Z])\)?",
    re.DOTALL,
)
_BASED = re.compile(r"\(?([0-9][0-9A-Fa-f]{0,500})\)?_(?:\{(?:\\text\{)?([0-9]{1,2}|[a-z]+)\}?\}|([0-9]{1,2}))")
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16"}
_WORDS = re.compile(r"[A-Za-z]{3,}(?:[ '-][A-Za-z]+)*")
_WRAPPED_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ '-][A-Za-z]+)*")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_CURRENCY = re.compile(r"\\\$|[€£¥₹]")
_DEGREE = re.compile(r"\^\\circ$|\^\{\\circ\}$")
_TRIG = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_BUILDER = re.compile(r"[A-Za-z](?:\\in(?:\\mathbb\{R\}|R))?[|:](.+)", re.DOTALL)
_COMMA, _SEMICOLON, _LISTED = frozenset({","}), frozenset({";"}), frozenset({",", "and", "or"})
_CUP, _MINUS_SET, _RELATION_SIGNS, _COLON = frozenset({r"\cup"}), frozenset({r"\setminus"}), frozenset(_RELATIONS), frozenset({":"})


def read(answer: str, *, gold: bool = False) -> Answer:
    """Read an answer that was cut out. `gold`: left sides are taken for names more readily. Never raises on text within the caps."""
    cleaned = clean(answer)
    word = " ".join(unwrap_text(cleaned).split()) if "{" in cleaned else cleaned
    if word != cleaned:  # one `\text{}` holds the whole
        if match := _CHOICE.fullmatch(word):
            return Answer("choice", match[1])
        if word.lower() == "infinity":
            return Answer("expression", r"\infty")
        if _WRAPPED_WORDS.fullmatch(word) and word.lower() not in ("and", "or"):
            return Answer("text", _plain_text(word))
    short = canonical(cleaned)
    if match := _CHOICE_FIRST.fullmatch(short):
        return Answer("choice", match[1] or match[2] or match[3])
    found = _read_list(short, gold)
    if found.kind == "number" and found.unit is None and (currency := _CURRENCY.search(answer)):
        return replace(found, unit=currency[0].lstrip("\\"))
    return found


def _plain_text(text: str) -> str:
    return "".join(text.split()).casefold()


def _read_list(text: str, gold: bool) -> Answer:
    """Elements separated by semicolons, commas, `and`, `or` outside brackets; else one element."""
    if number := _number(text):
        return number
    groups, _ = split(text, _SEMICOLON)
    if len(groups) > 1:
        elements = [_grouped(group, gold) for group in groups if group]
        return elements[0] if len(elements) == 1 else Answer("list", text, tuple(elements))
    pieces, separators = split(text, _LISTED)
    if not separators:
        return _read_one(text, gold)
    elements = [_read_one(piece, gold) for piece in pieces if piece]
    if not elements:  # separators alone
        return Answer("expression", text)
    if len(elements) == 1:
        return elements[0]
    found = _listed(text, elements)
    word = "or" if "or" in separators else "and" if "and" in separators else None
    return replace(found, signs=(word,)) if word else found


def _grouped(group: str, gold: bool) -> Answer:
    found = _read_list(group, gold)
    return replace(found, kind="tuple") if found.kind == "list" else found


def _listed(text: str, elements: list[Answer]) -> Answer:
    """A list; `x = 1, 2` names all its elements, and what `\\pm` was written out is in line with the rest."""
    name = None
    if elements[0].name and not any(e.name or e.kind in ("equation", "relation") for e in elements[1:]):
        name = elements[0].name
        elements[0] = replace(elements[0], name=None)
    parts: list[Answer] = []
    for element in elements:
        parts += element.parts if element.kind == "list" and not element.name else (element,)
    return Answer("list", text, tuple(parts), name=name)


def _number(text: str) -> Answer | None:
    number = parse_number(text)
    if number is not None:
        return Answer("number", text, number=number, unit=DEGREES if "circ" in text else None)
    if not text or not (text[-1].isalpha() or text[-1] in "}0123456789"):
        return None
    body, unit = split_unit(text, number=True)
    if unit is None or (number := parse_number(body)) is None:
        return None
    if unit == PERCENT:
        return Answer("number", body, number=replace(number, percent=True))
    return Answer("number", body, number=number, unit=unit)


def _read_one(text: str, gold: bool) -> Answer:
    """An element: no comma outside brackets."""
    if number := _number(text):
        return number
    inside = enclosed(text)
    if inside and inside[0] == "{" and inside[2] == "}":
        return _read_list(inside[1], gold)
    sides, signs = split(text, _RELATION_SIGNS)
    if signs:
        return _related(text, sides, [_RELATIONS[s] for s in signs], gold)
    if inside:
        return _bracketed(text, *inside, gold)
    for separators, kind in ((_CUP, "union"), (_MINUS_SET, "difference")):
        pieces, found = split(text, separators)
        if found and all(pieces):
            return Answer(kind, text, tuple(_read_one(piece, gold) for piece in pieces))  # type: ignore[arg-type]
    if r"\pm" in text or r"\mp" in text:
        return _both_signs(text, gold)
    return _leaf(text, gold)


def _bracketed(text: str, opening: str, inside: str, closing: str, gold: bool) -> Answer:
    if opening == r"\{" and closing == r"\}":
        if not inside:
            return Answer("set", text)
        builder = _BUILDER.fullmatch(inside)
        if builder and split(builder[1], _RELATION_SIGNS)[1]:
            return _read_list(builder[1], gold)
        elements = _read_list(inside, gold)
        return Answer("set", text, elements.parts if elements.kind == "list" and not elements.name else (elements,))
    pieces, separators = split(inside, _COMMA)
    if not separators:
        pieces, separators = split(inside, _SEMICOLON)
    if opening in ("(", "[") and closing in (")", "]"):
        if separators:
            if opening == "(" and (r"\pm" in inside or r"\mp" in inside):
                return _both_signs(text, gold)
            parts = tuple(_read_one(piece, gold) for piece in pieces)
            interval = len(parts) == 2 and opening + closing != "()"
            return Answer("interval", text, parts, signs=(opening, closing)) if interval else Answer("tuple", text, parts)
        if opening == "(" and closing == ")":
            choice = _CHOICE.fullmatch(text)
            return Answer("choice", choice[1]) if choice else _read_list(inside, gold)
        matrix = _MATRIX.fullmatch(inside)
        if matrix and opening == "[":
            return _matrix(text, matrix, gold)
    return _leaf(text, gold)


def _related(text: str, sides: list[str], signs: list[str], gold: bool) -> Answer:
    while "~" in signs:  # what stands before an approximation is meant, unless it only names it
        at = signs.index("~")
        if at == 0 and is_name(sides[0]):
            signs[0] = "="
        elif at == 0 and _far_apart(sides[at], sides[at + 1]):
            return Answer("equation", text, (_leaf(sides[at], gold), _leaf(sides[at + 1], gold)))
        else:
            sides, signs = sides[: at + 1], signs[:at]
    if not signs:
        return _read_one(sides[0], gold)
    if all(sign == "=" for sign in signs):
        named = next((side for side in sides[:-1] if is_name(side)), None)
        if named is None and gold and _is_named_ratio(sides[0]):
            named = sides[0]
        right = _read_list(sides[-1], gold)
        if named is not None and (gold or is_name(sides[0])):
            return replace(right, text=right.text, name=named) if right.name is None else right
        return Answer("equation", text, (_leaf(sides[0], gold), right))
    if signs == ["in"] and is_name(sides[0]):
        return replace(_read_list(sides[1], gold), name=sides[0])
    return Answer("relation", text, tuple(_read_one(side, gold) if side else Answer("expression", "") for side in sides), signs=tuple(signs))


def _far_apart(left: str, right: str) -> bool:
    """Whether two plain numbers are no approximations of each other."""
    a, b = parse_number(left), parse_number(right)
    return a is not None and b is not None and abs(a.value - b.value) * 50 > abs(b.value)


def _both_signs(text: str, gold: bool) -> Answer:
    r"""`a \pm b` as the list of both values; several `\pm` are independent, unless a `\mp` ties them."""
    signs = [m for m in re.finditer(r"\\(pm|mp)(?![a-zA-Z])", text)]
    if not signs or len(signs) > MAX_SIGNS:
        return Answer("expression", text)
    tied = any(m[1] == "mp" for m in signs)
    texts = [text]
    for upper in (("+", "-"), ("-", "+")) if tied else ():
        texts.append(re.sub(r"\\(pm|mp)(?![a-zA-Z])", lambda m, u=upper: u[m[1] == "mp"], text))
    if tied:
        texts = texts[1:]
    for _ in () if tied else signs:
        texts = [re.sub(r"\\pm(?![a-zA-Z])", lambda m, s=sign: s, t, count=1) for t in texts for sign in "+-"]
    return Answer("list", text, tuple(_read_one(re.sub(r"(?<![^({,])\+", "", t), gold) for t in texts))


def _matrix(text: str, match: re.Match[str], gold: bool) -> Answer:
    if r"\begin" in match[2] or r"\end" in match[2]:
        return Answer("expression", text)
    rows = [row for row in re.split(r"\\\\(?:\[[0-9a-z]*\])?", match[2].replace(r"\hline", "")) if row.strip()]
    cells = [row.split("&") for row in rows]
    if not rows or len({len(row) for row in cells}) != 1:
        return Answer("expression", text)
    return Answer("matrix", text, tuple(_read_one(cell.strip(), gold) for row in cells for cell in row), signs=(f"{len(cells)}x{len(cells[0])}",))


def _leaf(text: str, gold: bool) -> Answer:
    if match := _BASED.fullmatch(text):
        base = match[2] or match[3]
        if base.isdigit() or base in _BASES:
            return Answer("based", match[1].upper(), signs=(_BASES.get(base, base),))
    if match := _MATRIX.fullmatch(text):
        return _matrix(text, match, gold)
    if _WORDS.fullmatch(text):
        return Answer("text", _plain_text(text))
    pieces, colons = split(text, _COLON)
    if colons and all(pieces):
        return Answer("ratio", text, tuple(_read_one(piece, gold) for piece in pieces))
    body, unit = split_unit(text)
    if unit in (None, DEGREES) and not _TRIG.search(body):
        without = _DEGREE.sub("", body)
        unit = DEGREES if without != body else unit
        body = without
    if body != text and (number := parse_number(body)) is not None:
        return Answer("number", body, number=replace(number, percent=unit == PERCENT), unit=None if unit == PERCENT else unit)
    if unit == PERCENT:
        return Answer("expression", body + r"\%")
    return Answer("expression", body, unit=unit)
