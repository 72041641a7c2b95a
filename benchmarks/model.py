"""The model of a benchmark, saved once as a plain Hugging Face folder that every contender loads."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.worker import Channel
from mulligan.config import ModelConfig, TinyModel
from mulligan.model import load_policy
from mulligan.model.tiny import build_tiny

TINY = TinyModel(hidden_size=64, layers=2, heads=2, kv_heads=1, intermediate_size=172, max_position_embeddings=1024)


def serve(channel: Channel, *, source: str, folder: str) -> None:
    """Write `source` to `folder`, unless it stands there already; says only that it is done."""
    path, mark = Path(folder), Path(folder) / "source.json"
    if not mark.exists() or json.loads(mark.read_text(encoding="utf-8")) != source:
        if source == "tiny:":
            build_tiny(TINY, path, seed=0)
        else:
            save_plain(source, path)
        mark.write_text(json.dumps(source), encoding="utf-8")
    channel.send({"ready": True})


def save_plain(source: str, folder: Path) -> None:
    """In float32, without a trace of how it was quantised, with transformers' own attention."""
    policy = load_policy(ModelConfig(path=source, device="cpu"))
    config = policy.model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._attn_implementation = "sdpa"
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
