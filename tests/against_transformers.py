"""Time the decoder's training step against transformers' Llama with the same weights; `make against-transformers`.

For each size and mode a plain pair (naive attention, transformers' `eager`) and the best pair (`sdpa` on both), five
processes a side in turn, alone on the machine. Both sides have the same loss, optimizer (AdamW foreach), tokens and
threads, so that the models are compared. It prints the ratio of our time to theirs with its interval, and the
operators of one step on each side, which no load changes; exit status 1 where a ratio is certainly above the target.

    python tests/against_transformers.py [--processes 5] [--sizes nano micro small] [--modes eager compiled]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics as plain_statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from stepbench.kernels import api
from stepbench.measure import environment
from stepbench.models.decoder import Decoder, next_token_loss
from stepbench.models.sizes import ModelSize
from stepbench.process import allocator
from stepbench.reporting import statistics

ROOT = Path(__file__).parents[1]
VOCABULARY = 10_000
TARGET_RATIO = 0.95
SHAPES = {"nano": (4, 128), "micro": (4, 128), "small": (1, 64)}  # batch, context
KINDS = {"plain": ("naive", "eager"), "best": ("sdpa", "sdpa")}  # our attention, theirs
OURS, THEIRS = SIDES = ("ours", "transformers")
WARMUP_STEPS, MEASURED_STEPS = 5, 15
NAMES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func.overloadpacket).removeprefix("aten.")] += 1
        return func(*args, **(kwargs or {}))


def model_of(side: str, size: ModelSize, kind: str) -> nn.Module:
    """Return the model of one side; both have the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    own, others = KINDS[kind]
    ours = Decoder(size, vocabulary=VOCABULARY, attention=api.bind(own))
    if side == OURS:
        return ours
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.d_model,
        intermediate_size=size.d_ff,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        attn_implementation=others,
    )
    theirs = LlamaForCausalLM(config)
    theirs.load_state_dict({their_name(name): weight for name, weight in ours.state_dict().items()})
    return theirs


def their_name(name: str) -> str:
    """Return transformers' name of one of our parameters."""
    module, _, last = name.rpartition(".")
    if module.startswith("blocks."):
        _, layer, part = module.split(".", 2)
        return f"model.layers.{layer}.{NAMES[part]}.{last}"
    return f"{NAMES[module]}.{last}"


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return the logits of either side's model."""
    output = model(tokens) if isinstance(model, Decoder) else model(input_ids=tokens, use_cache=False)
    return output if isinstance(output, Tensor) else output.logits


class Step:
    """A training step of one side."""

    def __init__(self, side: str, size_name: str, kind: str, mode: str) -> None:
        sizes = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["sizes"]
        self.model = model_of(side, ModelSize(**sizes[size_name]), kind)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, foreach=True)
        self.forward = torch.compile(logits_of, fullgraph=True) if mode == "compiled" else logits_of
        batch, context = SHAPES[size_name]
        both = torch.randint(VOCABULARY, (batch, context + 1), generator=torch.Generator().manual_seed(1))
        self.inputs, self.targets = both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def run(self) -> float:
        """Run the step and return its loss in nats."""
        loss = next_token_loss(self.forward(self.model, self.inputs), self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def measure_one(side: str, size: str, kind: str, mode: str) -> dict[str, Any]:
    """Return the median time of a step in this process, its first loss and its operators."""
    torch.set_num_threads(environment.cores())
    step = Step(side, size, kind, mode)
    loss = step.run()
    counts: Counter[str] = Counter()
    if mode == "eager":
        with Operators() as operators:
            step.run()
        counts = operators.counts
    for _ in range(WARMUP_STEPS):
        step.run()
    seconds = []
    for _ in range(MEASURED_STEPS):
        start = time.perf_counter()
        step.run()
        seconds.append(time.perf_counter() - start)
    return {"step_s": plain_statistics.median(seconds), "loss": loss, "operators": counts}


def in_a_process(*case: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", *case]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=allocator.environment(os.environ))
    return dict(json.loads(found.stdout.splitlines()[-1]))


def compare(size: str, kind: str, mode: str, processes: int) -> bool:
    """Measure one pair, print it, and return whether our step is certainly slower than the target."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(processes):
        for side in SIDES if number % 2 else reversed(SIDES):
            found[side].append(in_a_process(side, size, kind, mode))
    losses = [found[side][0]["loss"] for side in SIDES]
    if abs(losses[0] - losses[1]) > 1e-3:
        raise SystemExit(f"{size} {kind} {mode}: the losses must agree, got {losses}")
    ours, theirs = ([each["step_s"] for each in found[side]] for side in SIDES)
    compared = statistics.compare(theirs, ours)
    ratio, low, high = compared.time_ratio
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    print(
        f"{size:6} {kind:6} {mode:9} ours / transformers {ratio:.3f}{interval} of {1e3 * min(theirs):.1f} ms",
        flush=True,
    )
    if mode == "eager":
        mine, others = (Counter(found[side][0]["operators"]) for side in SIDES)
        names = sorted({*mine, *others}, key=lambda name: others[name] - mine[name])
        differing = [f"{name} {mine[name]}/{others[name]}" for name in names if mine[name] != others[name]]
        print(f"       operators {mine.total()} against {others.total()}: {', '.join(differing)}", flush=True)
    return low is not None and low > TARGET_RATIO


def main() -> int:
    """Measure all pairs, or one process of one pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=4, metavar=("SIDE", "SIZE", "KIND", "MODE"), help="one process of one pair")
    parser.add_argument("--processes", type=int, default=statistics.MIN_PROCESSES, help="of each side")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(*options.one)))
        return 0
    cases = itertools.product(options.sizes, options.kinds, options.modes)
    slower = [case for case in cases if compare(*case, options.processes)]
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
