"""Loading models: what is refused and with which words, what is read off a configuration, what a saved copy looks like."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    JambaConfig,
    Llama4TextConfig,
    MambaConfig,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from mulligan.config import ModelConfig, TinyModel
from mulligan.errors import ModelError
from mulligan.model import Policy, context_and_parameters, load_policy, load_tokenizer, make_critic
from mulligan.model.attention import ATTENTION
from mulligan.model.load import checkpoint_layers, probe

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY = TinyModel(hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48, max_position_embeddings=64)


def save(config, folder: Path, tokenizer=None) -> Path:
    """A folder with random weights, as anybody's `save_pretrained` leaves it."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, tokenizers) -> Path:
    """A complete small Qwen2 with tied embeddings."""
    size = SMALL | {"vocab_size": len(tokenizers["chatml"])}
    return save(Qwen2Config(**size, max_position_embeddings=128, tie_word_embeddings=True), tmp_path / "model", tokenizers["chatml"])


@pytest.fixture(scope="module")
def tiny_policy(tmp_path_factory) -> Policy:
    return load_policy(ModelConfig(path="tiny:", tiny=TINY), seed=3, folder=tmp_path_factory.mktemp("tiny") / "initial_model")


def refused(path: str | Path, match: str, **config) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        load_policy(ModelConfig(path=str(path), **config))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500


# ------------------------------------------------------------------------------------------------------------ what is there


def test_a_folder(folder):
    policy = load_policy(ModelConfig(path=str(folder)))
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        torch.testing.assert_close(policy.packed_logits([IDS])[0], plain(torch.tensor([IDS])).logits[0], atol=1e-5, rtol=0)
    assert policy.model.config._attn_implementation == ATTENTION
    assert not policy.model.training
    assert policy.context_length == 128
    assert policy.num_parameters == plain.num_parameters()
    assert policy.source == str(folder)
    assert policy.tokenizer.chat_template


def test_weights_are_float32_whatever_the_file_says(folder):
    path = folder / "model.safetensors"
    save_file({name: w.to(torch.bfloat16) for name, w in load_file(path).items()}, path, metadata={"format": "pt"})
    for dtype, autocast in (("float32", None), ("bfloat16", torch.bfloat16)):
        policy = load_policy(ModelConfig(path=str(folder), dtype=dtype))
        assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
        assert policy.autocast == autocast


def test_a_tokenizer_from_elsewhere(folder, tmp_path, tokenizers):
    tokenizers["plain"].save_pretrained(tmp_path / "other")
    policy = load_policy(ModelConfig(path=str(folder), tokenizer=str(tmp_path / "other")))
    assert policy.tokenizer.chat_template == tokenizers["plain"].chat_template


def test_tiny_is_built_once_and_read_again(tmp_path):
    config = ModelConfig(path="tiny:", tiny=TINY)
    first = load_policy(config, seed=1, folder=tmp_path / "a")
    again = load_policy(config, seed=2, folder=tmp_path / "a")  # the folder stands: its weights, not the seed's
    other = load_policy(config, seed=2, folder=tmp_path / "b")
    weights = [torch.cat([p.detach().flatten() for p in policy.model.parameters()]) for policy in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    refused("tiny:", "builds a model in the run folder")


def test_the_fingerprint_is_the_models_wherever_it_lies(folder, tmp_path):
    policy = load_policy(ModelConfig(path=str(folder)))
    found = policy.fingerprint()
    assert len(found) == 32
    shutil.copytree(folder, tmp_path / "moved")
    assert load_policy(ModelConfig(path=str(tmp_path / "moved"))).fingerprint() == found
    policy.model.save_pretrained(tmp_path / "saved")
    policy.tokenizer.save_pretrained(tmp_path / "saved")
    assert load_policy(ModelConfig(path=str(tmp_path / "saved"))).fingerprint() == found
    assert load_policy(ModelConfig(path=str(folder), dtype="bfloat16")).fingerprint() != found
    with torch.no_grad():
        next(policy.model.parameters()).view(-1)[5] += 1e-6
    assert policy.fingerprint() != found


@pytest.mark.parametrize("change", ["rms_norm_eps", "rope", "max_position_embeddings", "eos", "template", "vocabulary"])
def test_what_a_dialogue_depends_on_beside_the_weights_changes_the_fingerprint(folder, change):
    found = load_policy(ModelConfig(path=str(folder))).fingerprint()

    def edit(name: str, make) -> None:
        table = json.loads((folder / name).read_text())
        make(table)
        (folder / name).write_text(json.dumps(table))

    match change:
        case "rms_norm_eps" | "max_position_embeddings":
            edit("config.json", lambda table: table.update({change: table[change] * 2}))
        case "rope":
            edit("config.json", lambda table: table.get("rope_parameters", table).update(rope_theta=5000.0))
        case "eos":
            edit("generation_config.json", lambda table: table.update(eos_token_id=[3, 4]))
        case "template":
            template = folder / "chat_template.jinja"
            template.write_text(template.read_text() + " ")
        case "vocabulary":
            edit("tokenizer.json", lambda table: table["model"]["merges"].pop())
    assert load_policy(ModelConfig(path=str(folder))).fingerprint() != found


def test_the_model_refuses_other_uses(tiny_policy):
    with pytest.raises(RuntimeError, match=r"call it through mulligan\.model\.Policy"):
        tiny_policy.model(torch.tensor([IDS]))


# ----------------------------------------------------------------------------------------------------------- what is refused


def test_missing_paths(tmp_path):
    refused(tmp_path / "nowhere", "no such model folder")
    refused("./nowhere", "no such model folder")
    refused("nowhere", "no such model folder")
    refused(tmp_path / "model.gguf", "no such GGUF file")


def test_a_folder_that_lacks_something(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no config\.json in this folder")

    (folder / "model.safetensors").rename(folder / "weights")
    refused(folder, r"no weights \(\*\.safetensors\) in this folder$")
    with pytest.raises(ModelError, match="no weights"):
        context_and_parameters(ModelConfig(path=str(folder)))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    refused(folder, r"no weights .* \(pickled \.bin weights are not read: convert them")

    (folder / "weights").rename(folder / "model.safetensors")
    for file in folder.glob("*token*"):
        file.unlink()
    refused(folder, r"no usable tokenizer: .*set model\.tokenizer")


def test_broken_files(folder):
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(folder, "the model cannot be loaded")
    save_file({name: w for name, w in load_file_of(whole, folder).items() if "layers.1.mlp" not in name}, weights, metadata={"format": "pt"})
    refused(folder, r"3 weights of Qwen2ForCausalLM are not in the files \(model\.layers\.1\.mlp")
    save_file({name: w[..., :8].contiguous() for name, w in load_file_of(whole, folder).items()}, weights, metadata={"format": "pt"})
    refused(folder, "the model cannot be loaded")
    weights.write_bytes(whole)
    config.write_text(config.read_text().replace("qwen2", "no_such_type"))
    refused(folder, "the model cannot be loaded: .*no_such_type")
    config.write_text("{")
    refused(folder, "the model cannot be loaded")
    with pytest.raises(ModelError, match="no usable model configuration"):
        context_and_parameters(ModelConfig(path=str(folder)))


def load_file_of(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    (folder / "whole").write_bytes(content)
    return load_file(folder / "whole")


UNSUPPORTED = {
    "state space": (MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8), "MambaForCausalLM has layers of the kind linear_attention"),
    "hybrid": (JambaConfig(**SMALL, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_dt_rank=4, pad_token_id=0), "JambaForCausalLM has layers of the kind linear_attention"),
    "mask of its own": (
        Llama4TextConfig(**SMALL, intermediate_size_mlp=48, head_dim=8, attention_chunk_size=6, num_local_experts=2, no_rope_layers=[1, 0], pad_token_id=0),
        "Llama4ForCausalLM has layers of the kind chunked_attention",
    ),
    "attention of its own": (FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4), "this architecture has its own attention code"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_architectures(kind, tmp_path, tokenizers):
    config, message = UNSUPPORTED[kind]
    save(config, tmp_path / "model", tokenizers["chatml"])
    refused(tmp_path / "model", f"{message}.*use a decoder whose layers go through transformers' attention interface")


def test_an_encoder_and_decoder_is_refused(tmp_path):
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    refused(tmp_path, "the model cannot be loaded")
    with pytest.raises(ModelError, match="not a decoder that transformers can build"):
        context_and_parameters(ModelConfig(path=str(tmp_path)))


def test_the_probe_catches_what_a_configuration_does_not_say(tiny_policy):
    """Tokens mixed outside attention, and attention called twice in a layer (its cache would hold the second call's keys)."""
    for fault in ("mixing", "twice"):
        policy = Policy(model=copy.deepcopy(tiny_policy.model), tokenizer=tiny_policy.tokenizer)
        probe(policy)
        layer = policy.model.model.layers[1]
        if fault == "mixing":
            layer.mlp.register_forward_pre_hook(lambda _, args: (args[0] + args[0].roll(1, 1),))
        else:
            attend = layer.self_attn.forward

            def twice(hidden_states, *args, forward=attend, **kwargs):
                out, weights = forward(hidden_states, *args, **kwargs)
                return out + forward(hidden_states * 2 + 1, *args, **kwargs)[0], weights

            layer.self_attn.forward = twice
        with pytest.raises(ModelError, match="LlamaForCausalLM mixes tokens outside its attention layers"):
            probe(policy)


# ------------------------------------------------------------------------------------------------- shape without the weights


def test_shape_of_tiny(tiny_policy):
    shape = context_and_parameters(ModelConfig(path="tiny:", tiny=TINY))
    assert shape.parameters == tiny_policy.num_parameters
    assert (shape.context, shape.vocabulary) == (64, len(tiny_policy.tokenizer))
    assert shape.cache_per_token == 2 * 2 * 2 * 8


@pytest.mark.parametrize(
    ("config", "cache"),
    [
        (Qwen2Config(**SMALL, tie_word_embeddings=True), 2 * 2 * 2 * 8),
        (Gemma3TextConfig(**SMALL, head_dim=16), 2 * 2 * 2 * 16),
        (GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=100), 2 * 2 * 4 * 8),
    ],
    ids=["qwen2-tied", "gemma3", "gpt2"],
)
def test_shape_of_a_folder(config, cache, tmp_path):
    save(config, tmp_path)
    shape = context_and_parameters(ModelConfig(path=str(tmp_path)))
    assert shape.parameters == AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters()
    assert shape.context == config.max_position_embeddings
    assert shape.cache_per_token == cache


# ------------------------------------------------------------------------------------------------------------------- copies


def test_a_critic_is_a_copy(tiny_policy):
    critic = make_critic(tiny_policy)
    pairs = list(zip(critic.body.parameters(), tiny_policy.model.base_model.parameters(), strict=True))
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
    assert not critic.head.weight.any()


def test_gradient_checkpointing(folder):
    """Set from the configuration; a deep copy (critic, reference) runs its own layers, not those of the original."""
    policy = load_policy(ModelConfig(path=str(folder), gradient_checkpointing=True))
    original = load_policy(ModelConfig(path=str(folder)))
    twin = Policy(model=copy.deepcopy(policy.model), tokenizer=policy.tokenizer)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.zero_()
    calls = []
    twin.model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    loss = twin.packed_logits([IDS])[0].log_softmax(-1)[:, 0].sum()
    expected = original.packed_logits([IDS])[0].log_softmax(-1)[:, 0].sum()
    assert loss.item() == expected.item()
    loss.backward()
    expected.backward()
    assert len(calls) == 2
    for one, other in zip(twin.model.parameters(), original.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert policy.model.get_input_embeddings().weight.grad is None

    class NoLayers(torch.nn.Module):
        pass

    with pytest.raises(ModelError, match=r"model\.gradient_checkpointing = false"):
        checkpoint_layers(NoLayers())  # type: ignore[arg-type]


def check_saved(policy: Policy, folder: Path) -> None:
    """The folder loads as anybody's: same logits, nothing of ours in it."""
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in written
    assert ATTENTION not in "".join(file.read_text() for file in folder.glob("*config.json"))
    assert written["dtype"] == "float32"
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert plain.config._attn_implementation in ("sdpa", "eager")
    with torch.no_grad():
        torch.testing.assert_close(policy.packed_logits([IDS])[0], plain(torch.tensor([IDS])).logits[0], atol=1e-3, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "3 + 4?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == policy.tokenizer.apply_chat_template(messages, tokenize=False)


def test_a_saved_copy(folder, tmp_path):
    policy = load_policy(ModelConfig(path=str(folder), gradient_checkpointing=True))
    check_saved(policy, tmp_path / "saved")
    again = load_policy(ModelConfig(path=str(tmp_path / "saved")))
    for one, other in zip(policy.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_gguf(smollm2_policy, smollm2_folder, tmp_path):
    assert {p.dtype for p in smollm2_policy.model.parameters()} == {torch.float32}
    shape = context_and_parameters(ModelConfig(path=str(smollm2_folder / "SmolLM2-135M-Instruct.Q4_1.gguf")))
    assert shape.parameters == smollm2_policy.num_parameters == 134_515_008
    assert shape.context == smollm2_policy.context_length == 8192
    assert shape.vocabulary == 49_152
    assert shape.cache_per_token == 2 * 30 * 3 * 64
    check_saved(smollm2_policy, tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert again.encode("12 + 30 = 42") == smollm2_policy.tokenizer.encode("12 + 30 = 42")
    shutil.rmtree(tmp_path)  # half a gigabyte
