"""Names to show for problem sets: of their sources only what tells them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SCHEMES = ("builtin:", "gym:")


def short_names(sources: Sequence[str]) -> dict[str, str]:
    """Source -> what to call it on a page where all of them stand: `guess (low=1, high=7)` beside `guess (low=11, high=17)`.

    A single source, a mixture, and whatever would no longer be told apart keep their whole text.
    """
    whole = {source: source for source in sources}
    if len(whole) < 2 or any(" + " in source for source in whole):
        return whole
    parts = {source: source.partition("?")[::2] for source in whole}
    settings = {source: {key: value for key, _, value in (pair.partition("=") for pair in query.split("&") if pair)} for source, (_, query) in parts.items()}
    short = {}
    for source, (head, _) in parts.items():
        alike = [settings[other] for other in whole if parts[other][0] == head]
        differing = [f"{key}={value}" for key, value in settings[source].items() if any(other.get(key) != value for other in alike)]
        name = next((head.removeprefix(scheme) for scheme in _SCHEMES if head.startswith(scheme)), head)
        short[source] = f"{name} ({', '.join(differing)})" if differing else name
    return short if len(set(short.values())) == len(short) else whole


def shortened(text: str, names: Mapping[str, str]) -> str:
    """`text` with every source in it by its short name; of sources that begin alike the longest is meant."""
    for source in sorted(names, key=len, reverse=True):
        text = re.sub(re.escape(source) + r"(?![\w?&=])", lambda _, source=source: names[source], text) if source else text
    return text
