import pytest
from hypothesis import given
from hypothesis import strategies as st

from redifu.transcription.invented_words import spoken_tokens, without_invented_words
from redifu.transcription.timed_words import Word


def said(text: str, *, seconds: float = 0.25, start: float = 0.0, probability: float = 0.9) -> list[Word]:
    """Words of equal length, one after the other."""
    return [
        Word(word, start + seconds * number, start + seconds * (number + 1), probability)
        for number, word in enumerate(text.split())
    ]


def kept(words: list[Word], *, no_speech: float = 0.1) -> str:
    return " ".join(word.text for word in without_invented_words(words, no_speech=no_speech))


def test_ordinary_words_are_kept() -> None:
    assert kept(said("Well, it is 100 % true, isn't it?")) == "Well, it is 100 % true, isn't it?"


def test_words_that_are_really_repeated_are_kept() -> None:
    assert kept(said("No, no, no, no, we had a we had a plan.", seconds=0.12)) == (
        "No, no, no, no, we had a we had a plan."
    )


def test_a_repetition_without_time_is_cut() -> None:
    sentence = said("Dogs are sitting by the door.")
    loop = said("dogs are sitting by the door. " * 5, seconds=0.04, start=sentence[-1].end)
    rest = said("Come in!", start=loop[-1].end)
    assert kept([*sentence, *loop, *rest]) == "Dogs are sitting by the door. Come in!"


def test_a_run_of_words_without_duration_is_cut_and_a_single_one_is_not() -> None:
    first, last = said("We know"), said("it well.", start=1.0)
    crammed = said("and he said so", seconds=0.0, start=0.5)
    assert kept([*first, *crammed, *last]) == "We know it well."
    assert kept([*first, *crammed[:2], *last]) == "We know and he it well."


def test_marks_without_letters_are_no_words() -> None:
    assert kept(said("... ♪ - Yes! ...")) == "Yes!"


@pytest.mark.parametrize(
    ("no_speech", "probability", "text"),
    [
        (0.3, 0.2, ""),  # noise
        (0.9, 0.7, ""),  # a sentence in music
        (0.1, 0.5, "Thank you."),  # speech that is hard to understand
        (0.9, 0.9, "Thank you."),  # a short answer after a long silence
    ],
)
def test_a_window_without_speech_is_left_out(no_speech: float, probability: float, text: str) -> None:
    assert kept(said("Thank you.", probability=probability), no_speech=no_speech) == text


def test_a_repetition_does_not_make_an_invented_sentence_probable() -> None:
    sentence = said("I'm gonna go", probability=0.2)
    loop = said("I'm gonna go " * 10, seconds=0.0, start=1.0, probability=0.99)
    assert kept([*sentence, *loop]) == ""


@given(
    st.lists(
        st.builds(
            lambda text, start, seconds: Word(text, start, start + seconds, 0.9),
            st.sampled_from(["a", "b", "c."]),
            st.floats(0, 10),
            st.floats(0, 1),
        ),
        max_size=30,
    )
)
def test_nothing_is_added_moved_or_changed(words: list[Word]) -> None:
    left = iter(words)
    assert all(word in left for word in without_invented_words(words, no_speech=0.1))


def test_text_after_the_end_of_the_window_is_cut() -> None:
    # Text has the tokens 0 to 9, and a timestamp is 20 plus its time in steps of 0.02 s.
    tokens = [20, 1, 2, 70, 70, 3, 120, 120, 4, 5, 150]
    cut = {"end_of_text": 10, "first_timestamp": 20}
    assert spoken_tokens(tokens, seconds=2.0, **cut) == [1, 2, 3]
    assert spoken_tokens(tokens, seconds=3.0, **cut) == [1, 2, 3, 4, 5]
    assert spoken_tokens([], seconds=3.0, **cut) == []
