from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def tiny_layers_are_packed_too(monkeypatch: pytest.MonkeyPatch):
    """The models here are far below the size from which oneDNN is used; what is tested has to be what large models run."""
    monkeypatch.setattr("mulligan.model.packed.SMALL", 0)
