"""A multi-attempt step as a good user of transformers would write it: `generate()` per attempt, then one padded pass over the dialogues.

Nothing of mulligan's is used but the task. History stays as token ids, so that what is trained on is what was sampled; only the
feedback goes through the chat template.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.task import DISCOUNT, FEEDBACK, WRONG_REWARD, Coin, messages, problems
from benchmarks.worker import Channel
from mulligan.types import Problem

MICRO_BATCH = 8


@dataclass(slots=True)
class Dialogue:
    problem: Problem
    ids: list[int]
    sampled: list[bool] = field(default_factory=list)
    attempts: int = 0
    solved: bool = False

    def append(self, ids: list[int], *, sampled: bool) -> None:
        self.ids += ids
        self.sampled += [sampled] * len(ids)

    @property
    def reward(self) -> float:
        return DISCOUNT ** (self.attempts - 1) if self.solved else WRONG_REWARD


class Counterpart:
    def __init__(self, model: str, *, attempts: int, new: int):
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()  # there is no dropout to switch on
        self.model.generation_config.eos_token_id = None  # every attempt has its full length
        self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.attempts, self.new = attempts, new

    def rollout(self, step: int, groups: int, group_size: int, right: float) -> list[Dialogue]:
        """Up to `attempts` rounds of generation; every round reads the whole history of those still at work."""
        coin = Coin(right)
        dialogues = []
        for problem in problems(step, groups):
            prompt = self._encode(self._render(messages(problem), generation=True))
            dialogues += [Dialogue(problem, list(prompt), [False] * len(prompt)) for _ in range(group_size)]
        for attempt in range(1, self.attempts + 1):
            active = [d for d in dialogues if not d.solved]
            if not active:
                break
            for dialogue, ids in zip(active, self._generate([d.ids for d in active]), strict=True):
                self.tokenizer.decode(ids, skip_special_tokens=True)  # what a grader would read
                dialogue.append(ids, sampled=True)
                dialogue.attempts, dialogue.solved = attempt, coin.toss(dialogue.problem)
                if not dialogue.solved and attempt < self.attempts:
                    dialogue.append(self._feedback(self.attempts - attempt), sampled=False)
        return dialogues

    def _generate(self, histories: list[list[int]]) -> list[list[int]]:
        batch = self.tokenizer.pad({"input_ids": histories}, return_tensors="pt")
        with torch.inference_mode():
            found = self.model.generate(
                **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=self.new, pad_token_id=self.tokenizer.pad_token_id
            )
        return found[:, batch["input_ids"].shape[1] :].tolist()

    def _feedback(self, left: int) -> list[int]:
        """What the template puts between an attempt and the next one."""
        text = FEEDBACK.format(n=left, s="" if left == 1 else "s")
        turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": "[[attempt]]"}, {"role": "user", "content": text}]
        return self._encode(self._render(turns, generation=True).partition("[[attempt]]")[2])

    def _render(self, turns: list[dict[str, str]], *, generation: bool) -> str:
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def update(self, dialogues: list[Dialogue], group_size: int) -> None:
        """Advantages within groups (GRPO), one pass over all dialogues, one optimiser step."""
        rewards = torch.tensor([d.reward for d in dialogues]).view(-1, group_size)
        advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten().tolist()
        total = sum(sum(d.sampled) for d in dialogues)
        pairs = sorted(zip(dialogues, advantages, strict=True), key=lambda pair: len(pair[0].ids))  # little padding
        for start in range(0, len(pairs), MICRO_BATCH):
            self._loss(pairs[start : start + MICRO_BATCH], total).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self, pairs: list[tuple[Dialogue, float]], total: int) -> Tensor:
        longest = max(len(d.ids) for d, _ in pairs)
        ids = torch.tensor([d.ids + [self.tokenizer.pad_token_id] * (longest - len(d.ids)) for d, _ in pairs])
        real = torch.tensor([[1] * len(d.ids) + [0] * (longest - len(d.ids)) for d, _ in pairs])
        mask = torch.tensor([d.sampled + [False] * (longest - len(d.ids)) for d, _ in pairs])[:, 1:]
        logits = self.model(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1]
        logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        ratios = torch.exp(logprobs - logprobs.detach())  # one update per batch: the old log-probs are these
        advantages = torch.tensor([a for _, a in pairs])[:, None]
        return -(ratios * advantages * mask).sum() / total


def serve(channel: Channel, *, model: str, groups: int, group_size: int, right: float, attempts: int, new: int) -> None:
    """Jobs: `step`."""
    counterpart = Counterpart(model, attempts=attempts, new=new)

    def run(job: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        dialogues = counterpart.rollout(job["step"], groups, group_size, right)
        sampled = time.perf_counter()
        counterpart.update(dialogues, group_size)
        ended = time.perf_counter()
        return {
            "seconds": ended - began,
            "sampling": sampled - began,
            "reference": 0.0,
            "update": ended - sampled,
            "tokens": sum(sum(d.sampled) for d in dialogues),
            "dialogue_tokens": sum(len(d.ids) for d in dialogues),
            "attempts": sum(d.attempts for d in dialogues) / len(dialogues),
        }

    channel.serve(run)
