"""The readers hold against damaged files, here a few; and what fuzzing would find is found."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

pytest.importorskip("av", reason="PyAV is not installed: it comes with the extra media")

from data import fuzz_readers  # noqa: E402
from redifu.conversation import Conversation  # noqa: E402


@pytest.fixture
def fuzz(tmp_path: Path) -> Callable[..., Any]:
    def fuzz(reader: Any) -> Any:
        return fuzz_readers.fuzz(reader, examples=100, start=0, folder=tmp_path)

    return fuzz


@pytest.mark.parametrize("name", fuzz_readers.readers())
def test_every_input_is_read_or_refused_in_one_clear_line(fuzz: Callable[..., Any], name: str) -> None:
    outcome = fuzz(fuzz_readers.readers()[name])
    assert outcome.findings == {}
    # Both ways are looked at.
    assert min(outcome.read, outcome.refused) >= 5
    assert outcome.read + outcome.refused == outcome.inputs == 100


def wrong(file: Path) -> Iterable[Conversation]:
    content = file.read_bytes()
    if content == b"key":
        return {}["talk"]
    if content == b"silent":
        return []
    if content == b"broken":
        return [Conversation(id="broken", utterances=())]
    raise ValueError({b"lines": f"{file}: one\ntwo", b"nameless": "no"}.get(content, f"{file}: {content!r}"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"key", "KeyError: "),
        (b"silent", "nothing read, and nothing said"),
        (b"lines", "a complaint of more than one line"),
        (b"nameless", "a complaint that does not begin with the file"),
        (b"x" * 2000, "a complaint of over 1000 characters"),
    ],
)
def test_what_a_user_should_not_see_is_a_finding(tmp_path: Path, content: bytes, complaint: str) -> None:
    reader = fuzz_readers.Reader(".json", wrong, st.nothing(), ())
    outcome = fuzz_readers.Outcome()
    for given in (content, b"broken", b"refused"):
        fuzz_readers.try_input(reader, given, tmp_path / "input.json", outcome)
    ((found, shortest),) = outcome.findings.items()
    assert found.startswith(complaint)
    assert shortest == content


def test_a_finding_keeps_its_shortest_input_and_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = st.sampled_from(["long", "ab"])
    reader = fuzz_readers.Reader(".json", lambda file: {}[file.stem], files, ("",))
    monkeypatch.setattr(fuzz_readers, "readers", lambda: {"broken": reader})
    monkeypatch.setattr("sys.argv", ["fuzz_readers.py", "--examples", "50"])
    assert fuzz_readers.main() == 1
    printed = capsys.readouterr().out
    assert "KeyError: outside" in printed
    assert "50 inputs, 1 findings" in printed
