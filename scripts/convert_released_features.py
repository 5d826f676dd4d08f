"""Converts the feature pickles that published code in this field shares into a Parquet table.

    python scripts/convert_released_features.py --features iemocap_multimodal_features.pkl --recipe iemocap \\
        --output iemocap.parquet

The pickle is one tuple of dicts by dialogue: ids, speakers, labels, four layers of RoBERTa, audio, visual,
sentences, then the ids of the training and test dialogues; MELD's has one more entry. The table's text
features are the first of the four layers, as in the released model.

A pickle is a program. This script reads only numpy arrays and plain containers from it, rejects everything
else, and never executes anything in the file.
"""

import argparse
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from redifu import ReDiFuConfig

ENTRIES = {"iemocap": 12, "meld": 13}
# Places of the entries that are read.
SPEAKERS, LABELS, TEXT, AUDIO, VISUAL, SENTENCES, TRAIN, TEST = 1, 2, 3, 7, 8, 9, 10, 11
NUMBERS = re.compile(r"[<>|=]?[biuf][1248]")


class DataType:
    """Stands for numpy.dtype; only numeric types are allowed."""

    def __init__(self, name: Any, *_: Any):
        if not isinstance(name, str) or not NUMBERS.fullmatch(name):
            raise pickle.UnpicklingError(f"expected arrays of numbers, got the type {name!r:.80}")
        self.name = name.lstrip("<>|=")
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def numbers(self, content: Any) -> np.ndarray:
        """Return the numbers in these bytes; pickles from Python 2 hold bytes as Latin-1 text."""
        if isinstance(content, str):
            content = content.encode("latin1")
        return np.frombuffer(content, dtype=np.dtype(self.order + self.name))


class Array:
    """Stands for numpy.ndarray until its content is known; `numpy.asarray` accepts it."""

    def __init__(self, *_: Any):
        self.values = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, data_type, in_columns, content = state
        self.values = data_type.numbers(content).reshape(shape, order="F" if in_columns else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype=dtype)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values.tolist())


def array_of_buffer(content: Any, data_type: DataType, shape: Any, order: str) -> Array:
    array = Array()
    array.values = data_type.numbers(content).reshape(shape, order=order)
    return array


def number(data_type: DataType, content: Any) -> int | float:
    return data_type.numbers(content).item()


def encoded(text: str, encoding: str) -> bytes:
    """Return bytes from the form in which Python 3 writes them for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected bytes as latin1, got {encoding!r:.80}")
    return text.encode("latin1")


def dictionary(*_: Any) -> dict:
    return {}


# Everything a file may name, with a harmless stand-in for each.
KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): DataType,
    ("_codecs", "encode"): encoded,
    ("collections", "OrderedDict"): dictionary,
    ("collections", "defaultdict"): dictionary,
}
for core in ("numpy.core", "numpy._core"):
    KNOWN |= {
        (f"{core}.multiarray", "_reconstruct"): Array,
        (f"{core}.multiarray", "scalar"): number,
        (f"{core}.numeric", "_frombuffer"): array_of_buffer,
    }
for builtins in ("__builtin__", "builtins"):
    KNOWN |= {(builtins, kind.__name__): kind for kind in (list, set, frozenset)}


class PlainUnpickler(pickle.Unpickler):
    """Reads numpy arrays of numbers and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"expected arrays and plain containers, got {module}.{name}")
        return KNOWN[module, name]


def read_features(path: Path, *, recipe: str) -> tuple:
    """Read the tuple in a pickle, with its arrays as `Array`.

    Raises:
        ValueError: it is not such a pickle, or names anything but arrays and plain containers.
    """
    with path.open("rb") as file:
        try:
            content = PlainUnpickler(file, encoding="latin1").load()
        except MemoryError:
            raise
        except Exception as error:  # a damaged pickle may raise anything
            raise ValueError(f"not a pickle of features: {error}") from error
    if not isinstance(content, tuple | list) or len(content) != ENTRIES[recipe]:
        got = f"{len(content)} entries" if isinstance(content, tuple | list) else type(content).__name__
        raise ValueError(f"expected a tuple of {ENTRIES[recipe]} entries for {recipe}, got {got}")
    return tuple(content)


def split_of_dialogues(content: tuple, *, dev_share: float, seed: int) -> dict[Any, str]:
    """Return the split of each dialogue; dev is drawn from the training dialogues."""
    train, test = (sorted(content[place], key=str) for place in (TRAIN, TEST))
    if both := set(train) & set(test):
        raise ValueError(f"dialogue {min(both, key=str)} is in the training and in the test set")
    number_of_dev = round(dev_share * len(train))
    if not 0 < number_of_dev < len(train):
        raise ValueError(f"{dev_share:g} of {len(train)} training dialogues leaves no dev or no training set")
    order = np.random.default_rng(seed).permutation(len(train))
    dev = {train[place] for place in order[:number_of_dev]}
    return {key: "dev" if key in dev else "train" for key in train} | dict.fromkeys(test, "test")


def rows_of_dialogue(content: tuple, key: Any, *, labels: list[str]) -> Iterator[dict[str, Any]]:
    """Yield one row of the table per utterance, without the split."""
    columns: dict[str, list] = {}
    for name, place in (("speaker", SPEAKERS), ("label", LABELS), ("text", SENTENCES)):
        columns[name] = list(part(content, place, key))
    for name, place in (("text", TEXT), ("audio", AUDIO), ("visual", VISUAL)):
        columns[f"{name}_features"] = list(np.asarray(part(content, place, key), dtype=np.float32))
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"dialogue {key}: expected as many utterances everywhere, got {lengths}")
    for turn, cells in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(columns, cells, strict=True))
        if row["label"] not in range(len(labels)):
            where = f"dialogue {key}, utterance {turn}"
            raise ValueError(f"{where}: expected a label below {len(labels)}, got {row['label']!r}")
        row |= {"speaker": speaker_name(row["speaker"]), "label": labels[int(row["label"])]}
        yield {"dialogue_id": str(key), "turn": turn, **row}


def part(content: tuple, place: int, key: Any) -> Any:
    if not isinstance(content[place], dict) or key not in content[place]:
        raise ValueError(f"dialogue {key}: expected it in entry {place} of the tuple, got none")
    return content[place][key]


def speaker_name(given: Any) -> str:
    """Return a letter as it is, and name a one-hot row by the position of its 1."""
    return given if isinstance(given, str) else f"speaker {int(np.asarray(given).argmax())}"


def convert(path: Path, output: Path, *, recipe: str, dev_share: float, seed: int) -> None:
    """Write the table.

    Raises:
        ValueError: the file or its features do not match the recipe.
    """
    if output.suffix != ".parquet" or not output.parent.is_dir():
        raise ValueError(f"--output must be a .parquet file in a folder that exists, got {output}")
    config = ReDiFuConfig.released(recipe)
    content = read_features(path, recipe=recipe)
    rows = [
        {"split": split, **row}
        for key, split in split_of_dialogues(content, dev_share=dev_share, seed=seed).items()
        for row in rows_of_dialogue(content, key, labels=config.labels)
    ]
    pq.write_table(pa.Table.from_pylist(rows), output)


def main(arguments: list[str] | None = None) -> int:
    """Convert, and return the exit status: 0, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=Path, required=True, help="the pickle")
    parser.add_argument("--recipe", choices=tuple(ENTRIES), required=True, help="dataset of the features")
    parser.add_argument(
        "--dev-share", type=float, default=0.1, help="share of training dialogues to use as dev"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed for drawing dev")
    parser.add_argument("--output", type=Path, required=True, help=".parquet file to write")
    options = vars(parser.parse_args(arguments))
    path = options.pop("features")
    try:
        convert(path, **options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {path}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if options["recipe"] == "meld":
        print(
            f"{parser.prog}: warning: the training ids of such files may include MELD's dev set",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
