"""Measures speed and memory of ReDiFu beside a literal reference of the released equations.

Three sides take turns, so that a busy machine slows all of them alike: the reference, the model, and plain
matrix products with the same number of floating point operations (FLOP). Medians are printed. Peak memory
is measured in a separate process that takes training steps. Linux only.

    python scripts/benchmarks/model.py --reference tests/released_reference.py
    python scripts/benchmarks/model.py --setting iemocap-16x110 --repeat 7 --threads 2
    python scripts/benchmarks/model.py --options      # the cost of each option
    python scripts/benchmarks/model.py --lengths      # time and memory in long dialogues
    python scripts/benchmarks/model.py --compile      # torch.compile on the fusion
"""

import argparse
import math
import multiprocessing
import runpy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from redifu import ReDiFuConfig, ReDiFuForEmotionRecognition
from redifu.model.relation_attention import Subgraphs


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A released recipe and the shape of its batch; all dialogues are equally long."""

    recipe: str
    dialogues: int
    utterances: int
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ReDiFuConfig:
        fields = {name: value for name, value in self.overrides.items() if name != EDGES_ABOVE}
        return ReDiFuConfig.released(self.recipe, **fields)


# An override that is no field of the configuration: the number of utterances above which relations are edges.
EDGES_ABOVE = "edges_above"
SETTINGS = {
    "iemocap-16x110": Setting(recipe="iemocap", dialogues=16, utterances=110),
    "iemocap-16x60": Setting(recipe="iemocap", dialogues=16, utterances=60),
    "meld-16x33": Setting(recipe="meld", dialogues=16, utterances=33),
}
# Only to try out the script: toy sizes say nothing about speed.
TOY_SETTINGS = {
    "toy": Setting(
        recipe="meld", dialogues=2, utterances=5, overrides={"hidden_size": 8, "num_attention_heads": 4}
    )
}
# Each is compared with the released setting, which comes first.
OPTIONS: dict[str, dict[str, Any]] = {
    "released": {},
    "differential_attention none": {"differential_attention": "none"},
    "differential_attention dual_maps": {"differential_attention": "dual_maps"},
    "relations none": {"relation_modalities": []},
    "relations all": {"relation_modalities": ["text", "audio", "visual"]},
    "relations all + cross": {
        "relation_modalities": ["text", "audio", "visual"],
        "cross_modal_relations": True,
    },
    "graph sparse": {EDGES_ABOVE: 0},
    "fusion concat": {"fusion": "concat"},
    **{
        f"fusion text_diffusion, {steps} steps": {"fusion": "text_diffusion", "diffusion_steps": steps}
        for steps in (1, 2, 4)
    },
    "consistency_size 16": {"consistency_size": 16},
    "causal": {"causal": True},
    "attention_window 10": {"attention_window": 10},
}
LENGTHS = (100, 1000, 4000)
LONG_OPTIONS: dict[str, dict[str, Any]] = {
    "released": {},
    "graph dense": {EDGES_ABOVE: math.inf},
    "attention_window 25": {"attention_window": 25},
    "causal, attention_window 25": {"causal": True, "attention_window": 25},
    "text_diffusion": {"fusion": "text_diffusion"},
    "text_diffusion, attention_window 25": {"fusion": "text_diffusion", "attention_window": 25},
}
SIZES = ("hidden_size", "text_size", "audio_size", "visual_size", "num_labels", "num_speakers")
CUBE = 2048
CPU_HAS_AMX = "amx_bf16" in Path("/proc/cpuinfo").read_text("utf-8")


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model bound to its batch, ready to be timed."""

    model: nn.Module
    predict: Callable[[], object]
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer

    def forward(self, *, bf16: bool = False) -> None:
        """One forward pass in evaluation mode, without gradients."""
        self.model.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            self.predict()

    def step(self, *, bf16: bool = False) -> None:
        """One training step, optimizer included."""
        self.model.train()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = self.loss()
        loss.backward()
        self.optimizer.step()


def random_batch(setting: Setting) -> tuple[dict[str, Tensor], Tensor]:
    """Draw inputs in the form the processor returns, and labels."""
    config, shape = setting.config, (setting.dialogues, setting.utterances)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        f"{name}_features": torch.randn(*shape, getattr(config, f"{name}_size"), generator=generator)
        for name in config.modalities
    }
    inputs["utterance_mask"] = torch.ones(shape, dtype=torch.bool)
    inputs["modality_mask"] = torch.ones(*shape, len(config.modalities), dtype=torch.bool)
    inputs["speaker_ids"] = torch.randint(config.num_speakers, shape, generator=generator)
    return inputs, torch.randint(config.num_labels, shape, generator=generator)


def model_side(setting: Setting, *, attention: str = "sdpa") -> Side:
    model = ReDiFuForEmotionRecognition._from_config(setting.config, attn_implementation=attention)
    for module in model.modules():
        if isinstance(module, Subgraphs) and EDGES_ABOVE in setting.overrides:
            module._edges_above = setting.overrides[EDGES_ABOVE]
    inputs, labels = random_batch(setting)
    return Side(
        model=model,
        predict=lambda: model(**inputs),
        loss=lambda: model(**inputs, labels=labels).loss,
        optimizer=torch.optim.AdamW(model.parameters()),
    )


def reference_side(setting: Setting, *, file: Path) -> Side:
    """Build the reference from a Python file that defines `ReleasedReference` and `released_loss`."""
    config, defined = setting.config, runpy.run_path(str(file))
    reference = defined["ReleasedReference"](
        setting.recipe,
        num_heads=config.num_attention_heads,
        window=config.relation_window,
        **{name: getattr(config, name) for name in SIZES},
    )
    inputs, labels = random_batch(setting)
    names = ("text_features", "audio_features", "visual_features", "speaker_ids")
    positional = [inputs[name] for name in names]
    return Side(
        model=reference,
        predict=lambda: reference(*positional),
        loss=lambda: defined["released_loss"](reference(*positional), labels),
        optimizer=torch.optim.AdamW(reference.parameters()),
    )


Builders = dict[str, Callable[[Setting], Side]]


def sides_of(reference: Path | None) -> Builders:
    """Name the sides to measure: the model, and the reference where its file is given."""
    beside = {} if reference is None else {"reference": partial(reference_side, file=reference)}
    return {**beside, "model": model_side}


def count_flops(setting: Setting) -> tuple[int, int]:
    """Count the floating point operations of a forward pass and of a training step without the optimizer.

    The counter does not see into the CPU's fused attention. Eager attention does the same products visibly.
    """
    side = model_side(setting, attention="eager")
    with FlopCounterMode(display=False) as forward:
        side.forward()
    with FlopCounterMode(display=False) as step:
        side.step()
    return forward.get_total_flops(), step.get_total_flops()


def timed(run: Callable[..., object], **options: bool) -> Callable[[], float]:
    """Return a function that calls `run` and returns the seconds it took."""

    def seconds() -> float:
        start = time.perf_counter()
        run(**options)
        return time.perf_counter() - start

    return seconds


def product_rate(rows: int, inner: int, columns: int, *, flops: int) -> Callable[[], float]:
    """Return a function that does about `flops` FLOP in fp32 products of one shape and returns FLOP/s."""
    left, right, result = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    flops_each = 2 * rows * inner * columns
    count = max(1, round(flops / flops_each))
    seconds = timed(lambda: [torch.mm(left, right, out=result) for _ in range(count)])
    return lambda: count * flops_each / seconds()


def take_turns(sides: dict[str, Callable[[], float]], *, repeat: int) -> dict[str, float]:
    """Return the median of `repeat` values of each side; sides take turns, and the first turn is dropped."""
    turns = [{name: side() for name, side in sides.items()} for _ in range(repeat + 1)]
    return {name: median(turn[name] for turn in turns[1:]) for name in sides}


def measure(setting: Setting, builders: Builders, *, repeat: int) -> list[str]:
    """Time forward passes and training steps of each side, as lines of the report."""
    flops = dict(zip(("forward", "step"), count_flops(setting), strict=True))
    sides = {name: build(setting) for name, build in builders.items()}
    size, rows = setting.config.hidden_size, setting.dialogues * setting.utterances
    shapes = {f"{m} x {k} x {n}": (m, k, n) for m, k, n in [(rows, size, 4 * size), (CUBE, CUBE, CUBE)]}
    lines = []
    for kind in ("forward", "step"):
        runs = {name: timed(getattr(side, kind)) for name, side in sides.items()}
        if CPU_HAS_AMX:
            runs["model, bf16"] = timed(getattr(sides["model"], kind), bf16=True)
        # The rate of the products is the same for a training step, so a forward pass's work is enough.
        runs |= {name: product_rate(*shape, flops=flops["forward"]) for name, shape in shapes.items()}
        medians = take_turns(runs, repeat=repeat)
        rates = {name: medians.pop(name) for name in shapes}
        lines += describe(kind, medians, rates, flops=flops[kind])
    return lines


def describe(kind: str, medians: dict[str, float], rates: dict[str, float], *, flops: int) -> list[str]:
    """Return the lines of one kind of run; the model is compared with the faster plain product."""
    product = flops / max(rates.values())
    lines = [f"  {kind}, {flops / 1e9:.4g} GFLOP"]
    for name, seconds in medians.items():
        line = f"    {name:<14}{seconds:10.4f} s"
        if name != "reference" and "reference" in medians:
            line += f"   {medians['reference'] / seconds:6.1f} times faster than the reference"
        if name == "model":
            line += f"   {seconds / product:6.2f} times the plain product"
        lines.append(line)
    if not CPU_HAS_AMX:
        lines.append("    model, bf16   not measured: no AMX")
    shares = ", ".join(f"{name} at {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
    return [*lines, f"    plain product {product:10.4f} s   ({shares})"]


def in_its_own_process(function: Callable[..., int], *arguments: object, threads: int) -> int:
    """Call a function of this file in a fresh process, whose memory nothing else has touched."""
    with ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(threads,),
    ) as pool:
        return pool.submit(function, *arguments).result()


def memory_of_process(key: str) -> int:
    """Return bytes of this process: VmHWM is the peak, VmRSS the current value."""
    status = Path("/proc/self/status").read_text("utf-8")
    return 1024 * int(status.split(f"{key}:")[1].split()[0])


def peak_of_training(build: Callable[[Setting], Side], setting: Setting) -> int:
    """Return the peak bytes of this process after two steps; the second has the optimizer's state."""
    side = build(setting)
    side.step()
    side.step()
    return memory_of_process("VmHWM")


def growth_of_forward(setting: Setting) -> int:
    """Return by how many bytes a forward pass raises the peak, after a warm-up on a short dialogue."""
    model_side(replace(setting, utterances=2)).forward()
    side = model_side(setting)
    before = memory_of_process("VmRSS")
    side.forward()
    return memory_of_process("VmHWM") - before


def measure_memory(setting: Setting, builders: Builders, *, threads: int) -> list[str]:
    """Measure the peak memory of training steps of each side, as lines of the report."""
    peaks = {
        name: in_its_own_process(peak_of_training, build, setting, threads=threads)
        for name, build in builders.items()
    }
    lines = [f"    {name:<14}{peak / 1e9:10.3f} GB" for name, peak in peaks.items()]
    if "reference" in peaks:
        lines[-1] += f"  {peaks['model'] / peaks['reference']:6.3f} of the reference's peak"
    return ["  peak memory of a process that takes training steps", *lines]


def measure_options(options: dict[str, dict[str, Any]], setting: Setting, *, repeat: int) -> list[str]:
    """Time forward passes and training steps with each option, as a Markdown table."""
    sides = {
        name: model_side(replace(setting, overrides={**setting.overrides, **fields}))
        for name, fields in options.items()
    }
    medians = {
        kind: take_turns({name: timed(getattr(side, kind)) for name, side in sides.items()}, repeat=repeat)
        for kind in ("forward", "step")
    }
    lines = ["| option | forward | x released | training step | x released |", "|---|---|---|---|---|"]
    for name in options:
        cells = []
        for seconds in medians.values():
            cells += [f"{1000 * seconds[name]:.0f} ms", f"{seconds[name] / seconds['released']:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def measure_lengths(
    options: dict[str, dict[str, Any]], lengths: Sequence[int], *, repeat: int, threads: int
) -> list[str]:
    """Time the forward pass of one dialogue per utterance, and its memory, by length, as a Markdown table."""
    columns = [*(f"{length} utterances" for length in lengths), "last / first"]
    columns += [f"memory at {length}" for length in lengths[1:]]
    lines = [f"| option | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, fields in options.items():
        settings = {
            length: Setting(recipe="meld", dialogues=1, utterances=length, overrides=fields)
            for length in lengths
        }
        runs = {f"{length}": timed(model_side(setting).forward) for length, setting in settings.items()}
        medians = take_turns(runs, repeat=repeat)
        each = [1000 * medians[f"{length}"] / length for length in lengths]
        cells = [f"{value:.3f} ms" for value in each] + [f"{each[-1] / each[0]:.2f}"]
        for length in lengths[1:]:
            growth = in_its_own_process(growth_of_forward, settings[length], threads=threads)
            cells.append(f"{growth / 1e6:.0f} MB")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def measure_compiled(setting: Setting, *, repeat: int) -> list[str]:
    """Time the fusion eagerly and compiled without graph breaks, as a Markdown table."""
    shape = (setting.dialogues, setting.utterances)
    lines = ["| fusion | eager | compiled | gain | first call |", "|---|---|---|---|---|"]
    for name in ("mutual_attention", "text_diffusion"):
        config = replace(setting, overrides={**setting.overrides, "fusion": name}).config
        fusion = ReDiFuForEmotionRecognition(config).eval().redifu.fusion
        streams = {stream: torch.randn(*shape, config.hidden_size) for stream in config.modalities}
        given = {
            "present": {stream: torch.ones(shape, dtype=torch.bool) for stream in streams},
            "positions": torch.arange(shape[1]).expand(shape),
        }
        compiled = torch.compile(fusion, fullgraph=True)
        with torch.no_grad():
            runs = {
                "eager": timed(partial(fusion, streams, **given)),
                "compiled": timed(partial(compiled, streams, **given)),
            }
            first = runs["compiled"]()
            medians = take_turns(runs, repeat=repeat)
        gain = medians["eager"] / medians["compiled"]
        cells = [f"{1000 * seconds:.1f} ms" for seconds in medians.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {gain:.2f} | {first:.0f} s |")
    return lines


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--setting",
        choices=[*SETTINGS, *TOY_SETTINGS],
        action="append",
        help="may be repeated; default: all except toy",
    )
    parser.add_argument("--repeat", type=int, default=5, help="turns; the median is printed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument(
        "--reference", type=Path, metavar="FILE.py", help="measure this reference too; default: none"
    )
    parser.add_argument("--options", action="store_true", help="measure only the options")
    parser.add_argument("--lengths", action="store_true", help="measure only long dialogues")
    parser.add_argument("--compile", action="store_true", help="measure only torch.compile")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Print the report of each setting as soon as it is measured."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    settings = SETTINGS | TOY_SETTINGS
    builders = sides_of(options.reference)
    print(f"torch {torch.__version__}, {options.threads} threads, medians of {options.repeat}")
    setting = settings[options.setting[0] if options.setting else "meld-16x33"]
    if options.options:
        print("\n".join(measure_options(OPTIONS, setting, repeat=options.repeat)), flush=True)
    if options.lengths:
        lines = measure_lengths(LONG_OPTIONS, LENGTHS, repeat=options.repeat, threads=options.threads)
        print("\n".join(lines), flush=True)
    if options.compile:
        print("\n".join(measure_compiled(setting, repeat=options.repeat)), flush=True)
    if options.options or options.lengths or options.compile:
        return
    for setting_name in options.setting or SETTINGS:
        print(setting_name, flush=True)
        print("\n".join(measure(settings[setting_name], builders, repeat=options.repeat)), flush=True)
        print(
            "\n".join(measure_memory(settings[setting_name], builders, threads=options.threads)), flush=True
        )


if __name__ == "__main__":
    main()
