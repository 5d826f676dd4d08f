"""A page beside its recording: it plays utterances, and what readers correct in it can be read again."""

import json
import wave

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from answers import answer_of
from redifu import read_conversations
from redifu.conversation import Conversation
from redifu.reports.html_report import _marked, report_writer
from reports.test_html_report import LABELS, NASTY, Tags, data_of, dialogue, page_of

# A folder and a file whose names hold what an address, a tag or a script could stumble over.
FOLDER, NAME = "a<", 'script> 100% #1? "it\'s" c:\\d \u00e9\u05d3.wav'
SECONDS = 12


@pytest.fixture
def spoken(tmp_path):
    """A conversation about a recording, with what speech recognition found; the page goes elsewhere."""
    (tmp_path / "talks" / FOLDER).mkdir(parents=True)
    (tmp_path / "pages").mkdir()
    path = tmp_path / "talks" / FOLDER / NAME
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 8000 * SECONDS))
    value, rows = dialogue(4, name=NASTY)
    for turn, utterance in enumerate(value["utterances"]):
        utterance |= {"text": f"{NASTY} {turn}", "audio": f"{FOLDER}/{NAME}", "overlap": turn / 8}
        utterance["end"] = utterance["start"] + 0.8
        words = [{"word": NASTY, "probability": 0.25}, {"word": f" {turn}", "probability": 0.75}]
        utterance["words"] = [{**word, "start": 0.5, "end": 1.25} for word in words]
        utterance["text_confidence"] = 0.5
        del utterance["audio_features"]
    value["utterances"][1]["label"] = "glad"
    return {**value, "split": "dev"}, rows


def page_beside(tmp_path, spoken):
    """Write the page of a conversation in the folder `talks` to the folder `pages`."""
    value, rows = spoken
    conversation = Conversation.from_dict(value, folder=tmp_path / "talks")
    path = tmp_path / "pages" / "page.html"
    with report_writer(path, LABELS, streams=["text", "audio"], model_name="mood") as write:
        write(*answer_of(conversation, rows, LABELS))
    return path


def sections_of(page):
    return [attributes for tag, attributes in Tags(page).tags if tag == "section"]


def test_paths_are_relative_to_the_page(tmp_path, spoken):
    page = page_beside(tmp_path, spoken).read_text(encoding="utf-8")
    assert {row["audio"] for row in data_of(page)[0]} == {f"../talks/{FOLDER}/{NAME}"}
    assert {row["video"] for row in data_of(page)[0]} == {None}
    (section,) = sections_of(page)
    assert "data-plays" in section and section["data-split"] == "dev"


def test_a_page_without_a_place_or_without_media_plays_nothing(tmp_path, spoken):
    assert all("data-plays" not in each for each in sections_of(page_of(spoken)))
    value, rows = spoken
    for utterance in value["utterances"]:
        utterance["audio"] = {"array": [0.0], "sampling_rate": 8000}
    path = tmp_path / "page.html"
    with report_writer(path, LABELS, streams=["text", "audio"], model_name="mood") as write:
        write(*answer_of(value, rows, LABELS))
    page = path.read_text(encoding="utf-8")
    assert "data-plays" not in sections_of(page)[0] and "sampling_rate" not in page


def test_unsure_words_and_overlap_are_marked(spoken):
    page = page_of(spoken)
    marks = [attributes["title"] for tag, attributes in Tags(page).tags if tag == "u"]
    assert marks == ["recognised with probability 0.25"] * 4
    assert page.count("others speak in 38% of it") == 1
    # The first two overlap too little to be said in the list: 0 and 12.5 %.
    assert page.count("others speak in") == 3
    spoken[0]["utterances"][0]["words"][0]["probability"] = 0.5
    assert [tag for tag, _ in Tags(page_of(spoken)).tags].count("u") == 3


WORDS = st.lists(st.tuples(st.sampled_from(["I", "am", " am", "a", "Mira.", "x"]), st.floats(0, 1)))


@drawn(text=st.text("Iam Mira.x", max_size=30), words=WORDS)
def test_marks_never_change_a_text(text, words):
    given = [{"word": word, "probability": probability} for word, probability in words]
    pieces = list(_marked(text, given))
    assert "".join(piece for piece, _ in pieces) == text
    assert all(probability is None or probability < 0.5 for _, probability in pieces)


def test_each_word_is_marked_where_it_was_said():
    said = [
        {"word": word, "probability": 0.25 + 0.5 * (turn < 2)} for turn, word in enumerate(["I", "am", "I"])
    ]
    assert list(_marked("I am, I", said)) == [("I am, ", None), ("I", 0.25), ("", None)]


# In Chromium


@pytest.fixture
def opened(browser):
    """Opens pages; what a page complained about is checked in the end."""
    complaints = []

    def open_page(path, **options):
        page = browser.new_page(viewport={"width": 1280, "height": 800}, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.complaints = complaints
        page.goto(path.as_uri())
        return page

    yield open_page
    assert complaints == []


def film(page, ask):
    return page.locator("video").evaluate(f"(film) => {ask}")


def wait_for(page, condition):
    page.wait_for_function(f"() => {{ const film = document.querySelector('video'); return {condition}; }}")


@pytest.mark.slow
def test_a_click_plays_the_utterance_from_its_start_to_its_end(opened, tmp_path, spoken):
    page = opened(page_beside(tmp_path, spoken))
    page.evaluate("""() => document.querySelector("video").addEventListener(
        "playing", (event) => { window.began = event.target.currentTime; })""")
    for locator, start in (("button.utterance[data-turn='3']", 6.0), ("tr[data-turn='1'] .what", 2.0)):
        page.locator(locator).click()
        wait_for(page, f"!film.paused && film.currentTime > {start}")
        assert start <= page.evaluate("window.began") < start + 0.3
        assert film(page, "film.duration") == SECONDS
        wait_for(page, "film.paused")
        assert start + 0.8 <= film(page, "film.currentTime") < start + 1.1
    # Sound has no picture.
    assert not page.locator("video").is_visible()


@pytest.mark.slow
def test_playing_is_paused_and_resumed_by_keyboard(opened, tmp_path, spoken):
    spoken[0]["utterances"][1]["end"] = SECONDS
    page = opened(page_beside(tmp_path, spoken))
    assert not page.locator(".player").is_visible()
    page.locator("button.utterance[data-turn='0']").focus()
    page.keyboard.press("ArrowRight")
    assert film(page, "film.paused") and page.get_by_role("button", name="Play").is_visible()
    page.keyboard.press("Enter")
    wait_for(page, "!film.paused && film.currentTime > 2.2")
    # The control is a button like any other; pausing keeps the place.
    control = page.get_by_role("button", name="Pause")
    control.focus()
    page.keyboard.press("Space")
    wait_for(page, "film.paused")
    place = film(page, "film.currentTime")
    page.get_by_role("button", name="Play").press("Enter")
    wait_for(page, f"film.currentTime > {place} && film.currentTime < {place} + 2")
    # So does a click on what plays; another utterance stops it.
    page.locator("button.utterance[data-turn='1']").click()
    wait_for(page, "film.paused")
    page.locator("button.utterance[data-turn='1']").click()
    wait_for(page, "!film.paused")
    page.keyboard.press("ArrowRight")
    assert film(page, "film.paused")


@pytest.mark.slow
def test_a_recording_that_is_gone_is_named(opened, tmp_path, spoken):
    path = page_beside(tmp_path, spoken)
    (tmp_path / "talks" / FOLDER / NAME).unlink()
    page = opened(path)
    page.locator("button.utterance[data-turn='0']").click()
    alert = page.locator(".player").get_by_role("alert")
    alert.filter(has_text="Cannot play").wait_for()
    assert f"../talks/{FOLDER}/{NAME}" in alert.inner_text()
    assert page.get_by_role("button", name="Play").is_visible()
    assert [text for text in page.complaints if "ERR_FILE_NOT_FOUND" not in text] == []
    page.complaints.clear()


@pytest.mark.slow
def test_a_page_without_media_has_no_player(opened, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_of(dialogue(3)), encoding="utf-8")
    page = opened(path)
    page.locator("button.utterance[data-turn='0']").click()
    assert page.locator("video, .player").count() == 0


@pytest.mark.slow
def test_a_recording_without_speech_says_so(opened, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_of(({"id": NASTY, "utterances": []}, [])), encoding="utf-8")
    page = opened(path)
    assert page.get_by_role("region", name=NASTY).inner_text() == (
        f"{NASTY}\n\nNo utterances: no speech was found."
    )
    assert page.locator("button:visible").count() == 0


def saved(page, path):
    """Download what was corrected and read it as the commands do."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    download.value.save_as(path)
    return list(read_conversations(path))


@pytest.mark.slow
def test_what_is_not_corrected_comes_back_as_it_was(opened, tmp_path, spoken):
    page = opened(page_beside(tmp_path, spoken))
    page.get_by_role("button", name="Make corrections").click()
    (read,) = saved(page, tmp_path / "pages" / "corrected.json")
    value, _ = spoken
    assert (read.id, read.split) == (NASTY, "dev")
    for one, given in zip(read.utterances, value["utterances"], strict=True):
        expected = {name: each for name, each in given.items() if name != "explanation"}
        assert one.given == {**expected, "audio": f"../talks/{FOLDER}/{NAME}"}
        assert (tmp_path / "pages" / one.audio).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_names_text_and_labels_are_corrected(opened, tmp_path, spoken, width):
    spoken[0]["utterances"][0]["speaker"] = spoken[0]["utterances"][2]["speaker"] = NASTY
    page = opened(page_beside(tmp_path, spoken))
    page.set_viewport_size({"width": width, "height": 800})
    assert not page.get_by_label(f"Name of {NASTY}").is_visible()
    page.get_by_role("button", name="Make corrections").click()
    page.locator("button.utterance[data-turn='2']").click()
    renamed = f"Ana {NASTY}"
    page.get_by_label(f"Name of {NASTY}").fill(f" {renamed} ")
    page.keyboard.press("Tab")
    page.get_by_label("Name of B").fill("  ")
    page.keyboard.press("Tab")
    assert page.get_by_label("Name of B").input_value() == "B"
    shown = page.locator(".who, .lane > .name, .summary tbody th, .card h3, .by-speaker option")
    texts = shown.all_text_contents()
    assert sum(text.startswith(renamed) for text in texts) >= 6 and NASTY not in texts
    assert page.get_by_role("group", name=renamed, exact=True).count() == 1
    page.locator(".card textarea").fill(f"Corrected.\n{NASTY}")
    page.locator(".card").get_by_label("Label").select_option("cross")
    names = page.locator("button.utterance").evaluate_all("(all) => all.map((each) => each.ariaLabel)")
    assert f"{renamed}, utterance 3: calm, probability 0.50. Corrected.\n{NASTY}" in names
    assert page.locator("tr[data-turn='2'] .what").text_content() == f"Corrected.\n{NASTY}"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    (read,) = saved(page, tmp_path / "pages" / "corrected.json")
    said = [(each.speaker, each.label, each.text, each.words is None) for each in read.utterances]
    assert said == [
        (renamed, None, f"{NASTY} 0", False),
        ("B", "glad", f"{NASTY} 1", False),
        (renamed, "cross", f"Corrected.\n{NASTY}", True),
        ("B", None, f"{NASTY} 3", False),
    ]
    assert [each.text_confidence for each in read.utterances] == [0.5, 0.5, None, 0.5]
    # The filter knows the new name, and the details show the correction.
    page.locator(".by-speaker").select_option(renamed)
    assert page.locator(".transcript tbody tr:visible").count() == 2
    page.get_by_role("button", name="Make corrections").click()
    assert page.locator(".card blockquote").inner_text().startswith("Corrected.")


@pytest.mark.slow
def test_several_conversations_are_saved_as_a_list(opened, tmp_path):
    path = tmp_path / "page.html"
    given, rows = dialogue(2)
    given["utterances"][1]["text"] = None
    path.write_text(page_of((given, rows), dialogue(3, name="other")), encoding="utf-8")
    page = opened(path)
    page.get_by_role("button", name="Make corrections").click()
    # Features are not in the page, and an utterance without anything would not be read again.
    page.get_by_role("button", name="Download JSON").click()
    assert page.get_by_role("alert").inner_text() == (
        "Utterance 2 of dinner has neither text nor a recording; write its text first."
    )
    page.locator(".card textarea").first.fill("Yes.")
    read = saved(page, tmp_path / "corrected.json")
    assert [(each.id, len(each.utterances)) for each in read] == [("dinner", 2), ("other", 3)]
    assert json.loads((tmp_path / "corrected.json").read_text(encoding="utf-8"))[0]["utterances"][1] == {
        "speaker": "B",
        "text": "Yes.",
        "start": 2,
        "end": 3.5,
    }
