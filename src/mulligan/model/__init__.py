"""The policy's model: any Hugging Face decoder behind one flat forward pass, with a KV cache of our own."""

from mulligan.model.attention import CachedLayout, KVCache, PackedLayout
from mulligan.model.load import ModelShape, autocast_of, context_and_parameters, load_policy, load_tokenizer, make_critic, resolve_device
from mulligan.model.packed import PackedLinears, Precision, TrainableLayers, check_int8
from mulligan.model.policy import Critic, Policy, value_head

__all__ = ["CachedLayout", "Critic", "KVCache", "ModelShape", "PackedLayout", "PackedLinears", "Policy", "Precision", "TrainableLayers", "autocast_of", "check_int8", "context_and_parameters", "load_policy", "load_tokenizer", "make_critic", "resolve_device", "value_head"]
