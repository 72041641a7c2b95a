"""Suite `quickstart`: lists how long finished quickstarts took. It runs none."""

from __future__ import annotations

import json

from benchmarks.table import Result, Settings, Table


def run(settings: Settings) -> Result:
    table = Table("Finished quickstarts", ["folder", "minutes", "seconds"])
    seconds = {}
    for folder in settings.quickstarts:
        try:
            seconds[folder.name] = float(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError) as error:
            table.add(folder.name, f"not readable: {type(error).__name__}")
            continue
        table.add(folder.name, f"{seconds[folder.name] / 60:.1f}", f"{seconds[folder.name]:.0f}")
    notes = [] if settings.quickstarts else ["None was named: --quickstart DIR, a folder that `mulligan quickstart --out` made."]
    return Result("Quickstart", [table] if table.rows else [], notes, {"seconds": seconds})
