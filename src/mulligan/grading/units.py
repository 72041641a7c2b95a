r"""Units behind a value: cut off, and compared only where both sides name one that is known.

A missing unit is no fault, nor is one that is unknown (`apples`): the question has said which is meant. Two known units that differ are,
and so are two unknown ones that have no word in common (`apples`, `pears`).
Units are not converted: `100 cm` is not `1 m`. Degrees and percent are no units: a degree sign is dropped, percent has its own rule.
"""

from __future__ import annotations

import re

_NAMES = """
m meter meters metre metres | cm centimeter centimeters centimetre centimetres | mm millimeter millimeters millimetre millimetres | km kilometer kilometers kilometre kilometres
nm nanometer nanometers | in inch inches | ft foot feet | yd yard yards | mi mile miles
s sec secs second seconds | ms millisecond milliseconds | min mins minute minutes | h hr hrs hour hours | d day days | week weeks wk wks | month months | year years yr yrs
g gram grams gm | kg kilogram kilograms kilo kilos | mg milligram milligrams | lb lbs | oz ounce ounces | ton tons tonne tonnes
l L liter liters litre litres | ml mL milliliter milliliters millilitre millilitres | gal gallon gallons | cc
N newton newtons | J joule joules | kJ kilojoule kilojoules | W watt watts | kW kilowatt kilowatts | V volt volts | A amp amps ampere amperes | Pa pascal pascals | kPa | Hz hertz | K kelvin kelvins
eV | keV | MeV | mol mole moles | ohm ohms | cal calorie calories | mph | kph kmh
$ dollar dollars usd | cent cents | € euro euros | £ | ¥ yen | ₹ rupee rupees | erg ergs | rad radian radians
unit units
"""
_KNOWN = {alias: group.split()[0] for group in re.split(r"[|\n]", _NAMES) for alias in group.split()}
_DEGREES = frozenset({"degree", "degrees", "deg"})
_PERCENT = frozenset({"percent", "percentage", "pct", "percents"})
_PLAIN = frozenset(alias for alias in _KNOWN if len(alias) > 1) | _DEGREES | _PERCENT

_NO_UNIT_WORDS = """
one two three four five six seven eight nine ten tenth tenths third thirds fourth fourths quarter quarters fifth fifths hundredth hundredths half halves
million millions billion billions trillion thousand thousands hundred hundreds dozen dozens squared cubed times double twice factorial choose divided
is are was not no or and but if more less than wrong right correct incorrect does do work works to only except least most about maybe plus minus mod modulo where for when
"""
_NO_UNIT = frozenset(_NO_UNIT_WORDS.split())
"""What changes the value, or speaks about it."""
_WRAPPED = re.compile(
    r"(?P<body>.*[0-9A-Za-z})\]!|'])\\(?:text|textbf|textit|textrm|textnormal|mbox|hbox|mathrm|operatorname|rm)\{(?P<unit>[^{}]{1,60})\}(?:\^\{?(?P<power>-?[0-9])\}?)?"
    r"(?P<rest>(?:[/ ]?\\(?:text|mathrm|mbox)\{[^{}]{1,40}\}(?:\^\{?-?[0-9]\}?)?){0,4})",
    re.DOTALL,
)
_WORDS = re.compile(r"(?P<body>.*[0-9})%])(?P<gap> ?)(?P<unit>[A-Za-z][A-Za-z ./]{0,60}?)(?:\^\{?(?P<power>[23])\}?)?", re.DOTALL)
_TAIL = re.compile(r"([/ ]?)\\(?:text|mathrm|mbox)\{([^{}]*)\}(?:\^\{?(-?[0-9])\}?)?")
PERCENT, DEGREES = "%", "degrees"


def split_unit(text: str, *, number: bool = False) -> tuple[str, str | None]:
    r"""A canonical answer and its unit: `15\mbox{cm}^2` to (`15`, `cm^2`). (text, None) if there is none.

    A unit in plain letters is looked for only behind a plain number (`number`), and must be a known word of two letters or more:
    `6m` is six times m. `PERCENT` and `DEGREES` stand for the words percent and degrees.
    """
    if text.endswith("}") or (len(text) > 2 and "}^" in text[-6:]):
        match = _WRAPPED.fullmatch(text)
        if match and _is_unit(match["unit"]):
            name = match["unit"] + (f"^{match['power']}" if match["power"] else "")
            for sign, more, power in _TAIL.findall(match["rest"] or ""):
                name += ("/" if sign == "/" or more.startswith("/") else "*") + more.lstrip("/") + (f"^{power}" if power else "")
            return match["body"], unit_name(name)
    if number and (match := _WORDS.fullmatch(text)):
        words = re.split(r"[ ./]+", match["unit"].strip())
        if _is_unit(match["unit"]) and (any(word in _PLAIN or word.lower() in _PLAIN for word in words) or (match["gap"] and len(match["unit"]) > 3)):
            return match["body"], unit_name(match["unit"] + (f"^{match['power']}" if match["power"] else ""))
    return text, None


def _is_unit(written: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", written)]
    return bool(words) and len(words) <= 4 and _NO_UNIT.isdisjoint(words) and not re.search(r"[0-9+=<>*]", written.replace("^2", "").replace("^3", ""))


def unit_name(written: str) -> str:
    """One name for the spellings of a unit: `square centimeters`, `sq cm` and `cm^2` are `cm^2`; an unknown unit gets a `?` in front."""
    text = " ".join(written.replace("~", " ").replace(".", " ").split())
    if text.lower() in _PERCENT or text.lower() == "per cent":
        return PERCENT
    if text.lower() in _DEGREES:
        return DEGREES
    text = re.sub(r"\bper\b", "/", text)
    text = re.sub(r"(?:per)?(?<=[a-z])per(?=(?:second|hour|minute|day|meter|metre|unit)s?$)", "/", text)
    factors = []
    for i, factor in enumerate(text.split("/")):
        for part in factor.split("*"):
            known = _factor(part.strip())
            if known is None:
                return "?" + text
            factors.append(("/" if i else "") + known)
    return "".join(factors)


def _factor(text: str) -> str | None:
    power = ""
    if match := re.fullmatch(r"(.*?)\^\{?(-?[0-9])\}?", text):
        text, power = match[1].strip(), "^" + match[2]
    for word, sign in (("square", "^2"), ("sq", "^2"), ("cubic", "^3"), ("cu", "^3")):
        if text.lower().startswith(word) and (rest := text[len(word) :].strip()) and (rest in _KNOWN or rest.lower() in _KNOWN):
            text, power = rest, sign
    known = _KNOWN.get(text) or _KNOWN.get(text.lower())
    return None if known is None else ("" if known == "unit" else known) + power


def units_differ(gold: str | None, answer: str | None) -> bool:
    """Whether the two are units of different things: known ones that differ, or unknown ones without a word in common."""
    if not gold or not answer or gold == answer:
        return False
    if gold[0] == "?" and answer[0] == "?":
        return _stems(gold).isdisjoint(_stems(answer))
    return gold[0] != "?" and answer[0] != "?"


def _stems(name: str) -> set[str]:
    return {word.casefold().rstrip("s") for word in re.findall(r"[^\W\d_]+", name)}
