"""The page of a report: what it shows is what was predicted, and it stands alone."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from answers import answer_of
from redifu.data.writers import prediction_writer
from redifu.reports.html_report import emotion_colours, model_notice, render_report, report_writer

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


def page_of(*conversations, labels=LABELS, **options):
    answers = [answer_of(each, rows, labels) for each, rows in conversations]
    return render_report(answers, labels, streams=["text", "audio", "visual"], model_name="mood", **options)


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
            answer = answer_of(conversation, rows, LABELS)
            lines(*answer)
            page(*answer)
    written = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert written == page_of(*given)
    expected = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    for shown, conversation in zip(data_of(written), expected, strict=True):
        for one, other in zip(shown, conversation["utterances"], strict=True):
            for name in ("speaker", "text", "emotion", "scores", "explanation"):
                assert one[name] == other[name]
            assert "audio_features" not in one


def unsure_dialogue():
    """A dialogue of two, in the first of which the model abstains."""
    conversation, (first, last) = answer_of(*dialogue(2), LABELS)
    return conversation, [replace(first, unsure=True, reasons=["not sure", "too short <b>"]), last]


def test_an_utterance_without_a_sure_emotion_says_so_and_why():
    page = render_report([unsure_dialogue()], LABELS, streams=["text"], model_name="mood")
    (rows,) = data_of(page)
    assert (rows[0]["emotion"], rows[0]["unsure"]) == (None, True)
    assert rows[0]["reasons"] == ["not sure", "too short <b>"]
    # The list shows the reasons where there is no emotion, and reads them aloud elsewhere.
    assert '<div class="soft">not sure, too short &lt;b&gt;</div>' in page
    conversation, (first, last) = unsure_dialogue()
    sure = [(conversation, [replace(first, unsure=False), last])]
    page_of_sure = render_report(sure, LABELS, streams=["text"], model_name="mood")
    assert '<div class="streams soft">not sure, too short &lt;b&gt;</div>' in page_of_sure
    button = next(attrs for tag, attrs in Tags(page).tags if tag == "button" and "data-turn" in attrs)
    assert button["aria-label"].startswith("A, utterance 1: not sure.")


def test_nothing_half_written_stays(tmp_path):
    def fail():
        with report_writer(tmp_path / "a.html", LABELS, streams=["text"], model_name="mood") as page:
            page(*answer_of(*dialogue(2), LABELS))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "complaint"), [("a.htm", "ending in .html"), ("no/a.html", "does not exist")]
)
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
    page = render_report(
        [answer_of(given, [[0.75, 0.25]], labels)], labels, streams=["text"], model_name=NASTY, notice=NASTY
    )
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


def test_the_policy_allows_the_page_its_own_script_and_no_other():
    page = page_of(dialogue(3))
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "media-src": "'self'",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
    }


CARD = "---\n{}\n---\n# Mood\n"


@pytest.mark.parametrize(
    ("card", "notice"),
    [
        (None, ""),
        ("# Mood, without metadata", ""),
        (CARD.format("license: mit"), ""),
        (CARD.format("license: [broken"), ""),
        (CARD.format("- a list"), ""),
        (CARD.format("license: cc-by-nc-4.0"), "Not for commercial use (licence cc-by-nc-4.0)."),
        (CARD.format("tags: [redifu, demonstration]"), "This checkpoint is a demonstration."),
    ],
)
def test_the_notice_is_what_the_model_card_says(tmp_path, card, notice):
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert model_notice(tmp_path) == notice


def test_the_page_states_what_it_shows_and_the_notice_of_the_model():
    notice = model_notice(Path(__file__).parents[2] / "model_cards" / "redifu-meld-ravdess")
    text = "".join(Tags(page_of(dialogue(2), notice=notice)).text)
    assert "This checkpoint is a demonstration. Not for commercial use (licence cc-by-nc-sa-4.0)." in text
    assert "The emotion label that the model gives to each utterance" in text
    assert "never what a person feels" in text
    assert 'class="notice"' not in page_of(dialogue(2))


def blocks_of(page):
    """Left and right edges of the buttons by turn, and the marks of the axis."""
    buttons = {
        int(attributes["data-turn"]): [
            float(value) for value in re.findall(r"([\d.]+)%", attributes["style"])
        ]
        for tag, attributes in Tags(page).tags
        if tag == "button" and "data-turn" in attributes
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


def lanes_of(page):
    """The lane of each stream."""
    found = page.split('<span class="name">')
    return {lane[: lane.index("<")]: lane for lane in found if not lane.startswith("<")}


def test_streams_show_what_is_there_how_far_it_is_trusted_and_how_good_it_is():
    lanes = lanes_of(page_of(dialogue(2)))
    assert lanes["audio"].count("height:40.0%") == lanes["audio"].count("17 dB") == 1
    assert lanes["text"].count("height:100.0%") == 1
    # The second utterance has no stream at all.
    assert [lanes[name].count("cell missing") for name in ("text", "audio", "visual")] == [1, 1, 2]
    assert "text trusted 100%; audio trusted 40%, signal-to-noise ratio 17 dB; visual missing (no face)" in (
        page_of(dialogue(2))
    )


def test_the_number_in_a_bar_is_how_full_it_is():
    given, rows = dialogue(6)
    for turn, utterance in enumerate(given["utterances"][:-1]):
        trust = {"text": 1.0, "audio": turn / 4, "visual": 0.0}
        explanation = {**EXPLANATION, "contributions": dict.fromkeys(trust, 0.1), "reliability": trust}
        explanation["quality"] = {"visual": {"face_share": 1.0}}
        utterance["explanation"] = explanation
    lanes = lanes_of(page_of((given, rows)))
    bars = {name: re.findall(r'height:([\d.]+)%"></i><span>(.*?)</span>', lanes[name]) for name in lanes}
    assert bars["audio"] == [
        ("0.0", "0%"),
        ("25.0", "25%"),
        ("50.0", "50%"),
        ("75.0", "75%"),
        ("100.0", "100%"),
    ]
    assert bars["visual"] == [("0.0", "0%")] * 5


def test_a_model_without_reliabilities_shows_no_trust():
    given, rows = dialogue(3)
    for utterance in given["utterances"][:-1]:
        utterance["explanation"] = {**EXPLANATION, "reliability": None}
    page = page_of((given, rows))
    assert "trusted" not in "".join(Tags(page).text)
    assert "text present; audio present, signal-to-noise ratio 17 dB; visual missing (no face)" in page
    assert not re.findall(r"</i><span>\d+%", lanes_of(page)["text"])


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
