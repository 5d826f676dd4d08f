"""The benchmark measures what it says, at toy size; it says nothing about speed here."""

import subprocess
import sys
from types import ModuleType

import pytest
import torch

from script_modules import SCRIPTS, load_script

SCRIPT = SCRIPTS / "benchmark.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmark")


def test_both_sides_are_of_one_size(benchmark: ModuleType) -> None:
    for setting in (*benchmark.SETTINGS.values(), *benchmark.TOY_SETTINGS.values()):
        with torch.device("meta"):
            counts = {
                name: sum(parameter.numel() for parameter in build(setting).model.parameters())
                for name, build in benchmark.SIDES.items()
            }
        assert counts["reference"] == counts["model"]


def test_a_side_predicts_without_training_and_trains(benchmark: ModuleType) -> None:
    for build in benchmark.SIDES.values():
        side = build(benchmark.TOY_SETTINGS["toy"])
        start = {name: x.clone() for name, x in side.model.state_dict().items()}
        side.forward()
        assert all(torch.equal(x, start[name]) for name, x in side.model.state_dict().items())
        side.step()
        assert any(not torch.equal(x, start[name]) for name, x in side.model.state_dict().items())


def test_a_training_step_counts_its_backward_products(benchmark: ModuleType) -> None:
    forward, step = benchmark.count_flops(benchmark.TOY_SETTINGS["toy"])
    # Backward each product is done twice, once a factor; those of features with no gradient only once.
    assert 2 * forward < step < 3 * forward


def test_turns_give_the_median_without_the_first(benchmark: ModuleType) -> None:
    values = {"left": iter([100.0, 3.0, 1.0, 2.0]), "right": iter([0.0, 7.0, 9.0, 8.0])}
    runs = {name: lambda name=name: next(values[name]) for name in values}
    assert benchmark.take_turns(runs, repeat=3) == {"left": 2.0, "right": 8.0}


def test_ratios_are_of_the_medians_and_the_faster_product(benchmark: ModuleType) -> None:
    lines = benchmark.describe(
        "forward", {"reference": 8.0, "model": 2.0}, {"small": 5e8, "large": 1e9}, flops=1_000_000_000
    )
    report = "\n".join(lines)
    assert "4.0 times faster than the reference" in report
    assert "2.00 times the plain product" in report


@pytest.mark.slow
def test_the_command_reports_every_side() -> None:
    command = [sys.executable, str(SCRIPT), "--setting", "toy", "--repeat", "1", "--threads", "1"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for words in ("forward", "step", "times the plain product", "of the reference's peak"):
        assert words in report
    alone = subprocess.run([*command, "--skip-reference"], check=True, capture_output=True, text=True).stdout
    assert "reference" not in alone


def test_options_and_lengths_are_tables(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)  # a new process finds the script there
    options = {"released": {}, "causal": {"causal": True}}
    lines = benchmark.measure_options(options, benchmark.TOY_SETTINGS["toy"], repeat=1)
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["released", "causal"]
    toy = {"released": {"hidden_size": 8, "num_attention_heads": 4}}
    lengths = benchmark.measure_lengths(toy, (2, 4), repeat=1, threads=1)
    for table in (lines, lengths):
        assert len({line.count("|") for line in table}) == 1


@pytest.mark.slow
def test_the_compiled_fusion_is_a_table(benchmark: ModuleType) -> None:
    lines = benchmark.measure_compiled(benchmark.TOY_SETTINGS["toy"], repeat=1)
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["mutual_attention", "text_diffusion"]


def test_every_option_builds(benchmark: ModuleType) -> None:
    for fields in (*benchmark.OPTIONS.values(), *benchmark.LONG_OPTIONS.values()):
        setting = benchmark.Setting(recipe="meld", dialogues=1, utterances=2, overrides=fields)
        named = setting.config.to_dict()
        if benchmark.EDGES_ABOVE in fields:
            model = benchmark.model_side(setting).model
            named[benchmark.EDGES_ABOVE] = model.redifu.relations["text"]._edges_above
        assert named.items() >= fields.items()
