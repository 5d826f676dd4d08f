"""The page of a report: what it shows is what was predicted, and it stands alone."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from redifu.data.writers import prediction_writer, with_predictions
from redifu.reports.html_report import emotion_colours, render_report, report_writer

LABELS = ["calm", "glad", "cross"]
NASTY = "</script><script>alert('Ana & \"Ben\"')</script><img src=x onerror=alert(1)>"
EXPLANATION = {
    "contributions": {"text": 0.31, "audio": -0.05},
    "emotion_without": {"text": "glad", "audio": "calm"},
    "reliability": {"text": 1.0, "audio": 0.4},
    "attended": [{"turn": 0, "weight": 0.25}],
    "quality": {"audio": {"snr": 17.25, "silence": 0.125}},
    "missing": {"visual": "no face"},
}


def dialogue(number, *, name="dinner", timed=True):
    """Explained utterances of two speakers, the last without a stream that can be used."""
    utterances = []
    for turn in range(number):
        last = turn == number - 1
        attended = [] if turn == 0 else EXPLANATION["attended"]
        each = {"speaker": "AB"[turn % 2], "text": f"text {turn}", "audio_features": [1.0, 2.0]}
        times = {"start": 2.0 * turn, "end": 2.0 * turn + 1.5} if timed else {}
        explanation = None if last else {**EXPLANATION, "attended": attended}
        utterances.append({**each, **times, "explanation": explanation})
    rows = [[float("nan")] * 3 if turn == number - 1 else [0.5, 0.3, 0.2] for turn in range(number)]
    return {"id": name, "utterances": utterances}, rows


def page_of(*conversations, labels=LABELS):
    predicted = [with_predictions(each, rows, labels=labels) for each, rows in conversations]
    return render_report(predicted, labels, streams=["text", "audio", "visual"], model_name="mood")


def data_of(page):
    """The figures in a page, by section."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]


class Tags(HTMLParser):
    """All tags of a page with their attributes, and its text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self._inside = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text.append(data)


def test_the_figures_are_those_of_the_json_lines(tmp_path):
    given = [dialogue(4), dialogue(2, name="other", timed=False)]
    streams = ["text", "audio", "visual"]
    with (
        prediction_writer(tmp_path / "a.jsonl", LABELS) as lines,
        report_writer(tmp_path / "a.html", LABELS, streams=streams, model_name="mood") as page,
    ):
        for conversation, rows in given:
            lines.write(conversation, rows)
            page.write(conversation, rows)
    written = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert written == page_of(*given)
    expected = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    for shown, conversation in zip(data_of(written), expected, strict=True):
        for one, other in zip(shown, conversation["utterances"], strict=True):
            for name in ("speaker", "text", "emotion", "scores", "explanation"):
                assert one[name] == other[name]
            assert "audio_features" not in one


def test_nothing_half_written_stays(tmp_path):
    def fail():
        with report_writer(tmp_path / "a.html", LABELS, streams=["text"], model_name="mood") as page:
            page.write(*dialogue(2))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "complaint"), [("a.htm", "ending in .html"), ("no/a.html", "to exist")])
def test_a_bad_name_is_refused(tmp_path: Path, name, complaint):
    with (
        pytest.raises(ValueError, match=complaint),
        report_writer(tmp_path / name, LABELS, streams=["text"], model_name="mood"),
    ):
        raise AssertionError("expected no page")


def test_what_people_said_is_never_markup():
    labels = [NASTY, "b<i>"]
    utterance = {"speaker": NASTY, "text": NASTY, "label": NASTY}
    explanation = {**EXPLANATION, "emotion_without": {"text": NASTY}, "missing": {"audio": NASTY}}
    given = {"id": NASTY, "utterances": [{**utterance, "explanation": explanation}]}
    predicted = with_predictions(given, [[0.75, 0.25]], labels=labels)
    page = render_report([predicted], labels, streams=["text"], model_name=NASTY)
    plain = Tags(page_of(dialogue(2)))
    found = Tags(page)
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in plain.tags} | {"li"}
    assert sum(tag == "script" for tag, _ in found.tags) == 2
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    ((shown,),) = data_of(page)
    assert (shown["text"], shown["speaker"], shown["emotion"]) == (NASTY, NASTY, NASTY)
    assert "".join(found.text).count(NASTY) >= 6


def test_the_page_refers_to_nothing_outside():
    page = page_of(dialogue(3))
    names = {name for _, attributes in Tags(page).tags for name in attributes}
    assert not names & {"src", "href", "srcset", "action", "data"}
    assert not re.findall(r"url\(|@import|https?:|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


def blocks_of(page):
    """Left and right edges of the buttons by turn, and the marks of the axis."""
    buttons = {
        int(attributes["data-turn"]): [
            float(value) for value in re.findall(r"([\d.]+)%", attributes["style"])
        ]
        for tag, attributes in Tags(page).tags
        if tag == "button"
    }
    (axis,) = re.findall(r'<div class="axis">(.*?)</div>', page)
    return buttons, re.findall(r">([\d:]+)<", axis)


def test_utterances_stand_at_their_times():
    buttons, marks = blocks_of(page_of(dialogue(9)))
    # 2 s from start to start, in order, and none beyond the end.
    lefts = [buttons[turn][0] for turn in range(9)]
    steps = {round(after - before, 2) for before, after in zip(lefts, lefts[1:], strict=False)}
    assert lefts[0] == 0 and len(steps) <= 2 and max(steps) - min(steps) < 0.02
    assert all(left + room <= 100.001 for left, room in buttons.values())
    assert marks[0] == "0:00"


@pytest.mark.parametrize("starts", [(0.0, 5.0, 3.0), (1.0, 1.0, 1.0), (0.0, None, 3.0)])
def test_without_times_of_one_recording_turns_stand_on_an_even_grid(starts):
    given, rows = dialogue(3, timed=False)
    for utterance, start in zip(given["utterances"], starts, strict=True):
        utterance["start"] = start
    page = page_of((given, rows))
    buttons, marks = blocks_of(page)
    assert buttons[1][0] == pytest.approx(buttons[2][0] / 2, abs=0.01)
    assert marks == ["1", "2", "3"]
    assert blocks_of(page_of(dialogue(3, timed=False)))[0] == buttons


def test_an_utterance_without_end_lasts_until_the_next_begins():
    given, rows = dialogue(3)
    for utterance in given["utterances"]:
        utterance["end"] = None
    assert len(blocks_of(page_of((given, rows)))[0]) == 3


def test_streams_show_what_is_there_and_how_good_it_is():
    page = page_of(dialogue(2))
    found = page.split('<span class="name">')
    rows = {row[: row.index("<")]: row for row in found}
    assert rows["audio"].count("height:40.0%") == rows["audio"].count("17 dB") == 1
    assert rows["text"].count("height:100.0%") == 1
    # The second utterance has no stream at all.
    assert [rows[name].count("cell missing") for name in ("text", "audio", "visual")] == [1, 1, 2]


def test_colours_differ_as_long_as_there_are_enough():
    meld = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"]
    colours = emotion_colours([*meld, "other"])
    assert list(colours) == [*meld, "other"]
    assert len(set(colours.values())) == 8
    # Names in use have the same colour in every model.
    assert emotion_colours(["bored", "sadness"])["sadness"] == colours["sadness"]
    many = emotion_colours([f"label {number}" for number in range(20)])
    assert len(set(many.values())) == 8
    labels = list(many)
    given = {"id": "d", "utterances": [{"speaker": "A", "text": "Hi", "explanation": None}]}
    assert page_of((given, [[0.05] * 20]), labels=labels).count("repeating-linear-gradient") == 12


def test_a_thousand_turns_are_a_page_of_moderate_size():
    page = page_of(dialogue(1000))
    assert len(data_of(page)[0]) == 1000
    assert len(page) < 3_000_000
