"""Released feature pickles become a table that the recipes train on; hostile ones become one line."""

import builtins
import collections
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from redifu.cli import main as redifu
from redifu.data.readers import read_conversations
from redifu.model import ReDiFuConfig
from script_modules import load_script

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ["iemocap", "meld"]
SIZES = {"text": 6, "audio": 5, "visual": 4}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("convert_released_features")


def released_features(recipe: str, *, dialogues: int = 12) -> tuple:
    """The tuple that the released codes share, at toy sizes."""
    generator = np.random.default_rng(0)
    keys = [f"Ses{number:02}" if recipe == "iemocap" else number for number in range(dialogues)]
    lengths = {key: 2 + number % 3 for number, key in enumerate(keys)}

    def features(size: int) -> dict:
        return {key: [*generator.normal(size=(count, size))] for key, count in lengths.items()}

    num_labels = ReDiFuConfig.released(recipe).num_labels
    speakers: dict[Any, Any]
    if recipe == "iemocap":
        speakers = {key: [("M", "F")[turn % 2] for turn in range(count)] for key, count in lengths.items()}
    else:
        speakers = {
            key: [[0] * turn + [1] + [0] * (8 - turn) for turn in range(n)] for key, n in lengths.items()
        }
    content = (
        {key: [f"{key}_{turn}" for turn in range(count)] for key, count in lengths.items()},
        speakers,
        {
            key: [(turn + number) % num_labels for turn in range(lengths[key])]
            for number, key in enumerate(keys)
        },
        *(features(SIZES["text"]) for _ in range(4)),
        features(SIZES["audio"]),
        {key: np.stack(rows).astype("<f4") for key, rows in features(SIZES["visual"]).items()},
        {key: [f"Är {key} {turn}" for turn in range(count)] for key, count in lengths.items()},
        set(keys[:-2]),
        keys[-2:],
    )
    return content if recipe == "iemocap" else (*content, {})


@pytest.fixture
def convert(script: ModuleType, tmp_path: Path) -> Callable[..., int]:
    def run(content: Any, *more: str, recipe: str = "iemocap", protocol: int = 2) -> int:
        path = tmp_path / "features.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
        output = str(tmp_path / "features.parquet")
        return script.main(["--features", str(path), "--recipe", recipe, "--output", output, *more])

    return run


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_table_holds_what_the_pickle_holds(
    convert: Callable[..., int], tmp_path: Path, recipe: str, protocol: int
) -> None:
    content = released_features(recipe)
    assert convert(content, recipe=recipe, protocol=protocol) == 0
    labels = ReDiFuConfig.released(recipe).labels
    read = {each.id: each.utterances for each in read_conversations(tmp_path / "features.parquet")}
    assert sorted(read) == sorted(map(str, content[0]))
    for key in content[0]:
        utterances = read[str(key)]
        assert [one.text for one in utterances] == content[9][key]
        assert [one.label for one in utterances] == [labels[number] for number in content[2][key]]
        for name, place in (("text", 3), ("audio", 7), ("visual", 8)):
            got = np.array([getattr(one, f"{name}_features") for one in utterances])
            np.testing.assert_array_equal(got, np.asarray(content[place][key], dtype=np.float32))
    speakers = {"iemocap": ["M", "F", "M"], "meld": ["speaker 0", "speaker 1", "speaker 2"]}[recipe]
    assert [one.speaker for one in read[str([*content[0]][1])]] == speakers


def test_pickles_of_python_2_and_special_containers_are_read(
    convert: Callable[..., int], script: ModuleType, tmp_path: Path
) -> None:
    """Python 2 wrote bytes as short strings, which only Latin-1 gives back."""
    state = b"(I1\n(I3\ntcnumpy\ndtype\n(U\x02f8I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU\x18"
    numbers = struct.pack("<3d", 1.5, -2.0, 1e300)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR" + state + numbers + b"tb."
    )
    path = tmp_path / "array.pkl"
    path.write_bytes(b"\x80\x02" + array)
    with path.open("rb") as file:
        loaded = script.PlainUnpickler(file, encoding="latin1").load()
    assert np.asarray(loaded).tolist() == [1.5, -2.0, 1e300]

    content = [*released_features("iemocap")]
    content[1] = collections.OrderedDict(content[1])
    content[2] = collections.defaultdict(list, {k: np.array(v)[::-1] for k, v in content[2].items()})
    content[3] = {key: np.asfortranarray(np.stack(rows)).astype(">f4") for key, rows in content[3].items()}
    content[8] = {key: list(rows) for key, rows in content[8].items()}
    assert convert(tuple(content)) == 0
    first = next(read_conversations(tmp_path / "features.parquet", split="test"))
    assert first.utterances[0].text_features.tolist() == content[3][first.id][0].tolist()
    labels = ReDiFuConfig.released("iemocap").labels
    assert first.utterances[0].label == labels[content[2][first.id][0]]


def test_dev_is_drawn_from_the_training_dialogues(convert: Callable[..., int], tmp_path: Path) -> None:
    def splits(*more: str) -> dict[str, list[str]]:
        assert convert(released_features("iemocap"), *more) == 0
        path = tmp_path / "features.parquet"
        names = ("train", "dev", "test")
        return {name: [each.id for each in read_conversations(path, split=name)] for name in names}

    drawn = splits("--dev-share", "0.3")
    assert {name: len(ids) for name, ids in drawn.items()} == {"train": 7, "dev": 3, "test": 2}
    assert drawn["test"] == ["Ses10", "Ses11"]
    assert len({*drawn["train"], *drawn["dev"], *drawn["test"]}) == 12
    assert splits("--dev-share", "0.3") == drawn
    assert splits("--dev-share", "0.3", "--seed", "2") != drawn


@pytest.mark.parametrize("recipe", RECIPES)
def test_only_the_training_ids_of_meld_are_warned_of(
    convert: Callable[..., int], capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    assert convert(released_features(recipe), recipe=recipe) == 0
    assert ("may include MELD's dev set" in capsys.readouterr().err) == (recipe == "meld")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipe_trains_on_the_table(
    convert: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    assert convert(released_features(recipe), recipe=recipe) == 0
    monkeypatch.setenv(recipe.upper(), str(tmp_path / "features.parquet"))
    sizes = [f"model.{name}_size={size}" for name, size in SIZES.items()]
    small = ["model.hidden_size=16", "model.num_attention_heads=4", "training.epochs=1"]
    output = f"training.output={tmp_path / 'model'}"
    assert (
        redifu(["train", str(ROOT / "examples" / "recipes" / f"{recipe}.yaml"), *sizes, *small, output]) == 0
    )
    assert (tmp_path / "model" / "metrics.json").is_file()


# Hostile and broken files


class Reduced:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None):
        self.call = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    "attack",
    [
        lambda marker: Reduced(os.system, f"touch {marker}"),
        lambda marker: Reduced(builtins.eval, f"open({str(marker)!r}, 'w')"),
        lambda marker: Reduced(builtins.exec, f"open({str(marker)!r}, 'w')"),
        lambda marker: Reduced(builtins.getattr, Path(marker), "touch"),
        lambda marker: Reduced(np.load, str(marker), None, True),
        lambda marker: Reduced(np.fromfile, str(marker)),
        lambda marker: Reduced(pickle.loads, pickle.dumps(Reduced(os.system, f"touch {marker}"))),
        lambda marker: {"a": [(1, {2: Reduced(os.system, f"touch {marker}")})]},
        lambda marker: np.array([Reduced(os.system, f"touch {marker}")], dtype=object),
        lambda marker: Reduced(collections.Counter, "aab"),
        lambda marker: Path(marker),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_file_is_refused_and_nothing_runs(
    convert: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    attack: Callable[[Path], Any],
    protocol: int,
) -> None:
    marker = tmp_path / "marker"
    content = [*released_features("iemocap")]
    content[3] = attack(marker)
    assert convert(tuple(content), protocol=protocol) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not a pickle of features: expected " in line
    assert not marker.exists()
    assert not (tmp_path / "features.parquet").exists()


def test_the_attacks_would_work_on_a_plain_unpickler(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.load(io.BytesIO(pickle.dumps(Reduced(os.system, f"touch {marker}"))))
    assert marker.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a pickle of features"),
        (b"PK\x03\x04", "not a pickle of features"),
        (pickle.dumps(released_features("iemocap"))[:-400], "not a pickle of features"),
        (b"cnumpy\nndarray\n(tR(I1\n(I9999\ntI1\nI0\nS'x'\ntb.", "not a pickle of features"),
        (b"\x80\x02cos\nsystem\n.", "expected arrays and plain containers, got "),
        (b"c_codecs\nencode\n(Vx\nVzip\ntR.", "expected bytes as latin1, got 'zip'"),
        ([1, 2], "expected a tuple of 12 entries for iemocap, got 2 entries"),
        ({}, "expected a tuple of 12 entries for iemocap, got dict"),
        (released_features("meld"), "expected a tuple of 12 entries for iemocap, got 13 entries"),
    ],
)
def test_what_is_no_pickle_of_features_gets_one_line(
    convert: Callable[..., int], capsys: pytest.CaptureFixture[str], content: Any, complaint: str
) -> None:
    assert convert(content) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.parametrize(
    ("place", "change", "complaint"),
    [
        (
            2,
            lambda labels: {**labels, "Ses03": [0, 6]},
            "dialogue Ses03, utterance 1: expected a label below 6",
        ),
        (
            7,
            lambda audio: {**audio, "Ses03": audio["Ses03"][:1]},
            "dialogue Ses03: expected as many utterances",
        ),
        (
            8,
            lambda visual: {k: v for k, v in visual.items() if k != "Ses03"},
            "dialogue Ses03: expected it in",
        ),
        (9, lambda sentences: None, "expected it in entry 9 of the tuple, got none"),
        (11, lambda test: ["Ses03", *test], "dialogue Ses03 is in the training and in the test set"),
        (10, lambda train: ["Ses03"], "0.1 of 1 training dialogues leaves no dev or no training set"),
    ],
)
def test_features_that_do_not_fit_each_other_get_one_line(
    convert: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    place: int,
    change: Callable[[Any], Any],
    complaint: str,
) -> None:
    content = [*released_features("iemocap")]
    content[place] = change(content[place])
    assert convert(tuple(content)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert not (tmp_path / "features.parquet").exists()


def test_a_bad_output_or_a_missing_file_gets_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for features, output in (
        ("none.pkl", "a.parquet"),
        ("none.pkl", "a.csv"),
        ("none.pkl", "none/a.parquet"),
    ):
        paths = ["--features", str(tmp_path / features), "--output", str(tmp_path / output)]
        assert script.main([*paths, "--recipe", "meld"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
