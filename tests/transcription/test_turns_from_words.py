"""Turns from words: no word is lost or doubled, and examples with numbers worked out by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redifu.transcription.timed_words import SpeakerSegment, Word
from redifu.transcription.turns_from_words import (
    LONGEST_SECONDS,
    LONGEST_WORDS,
    overlap_share,
    turns_from_words,
    words_on_turns,
)

SECONDS = st.integers(0, 2000).map(lambda hundredths: hundredths / 20)
LENGTHS = st.sampled_from([0.0, 0.05, 0.2, 0.35, 0.6, 1.5, 4.0, 40.0])
ENDINGS = st.sampled_from(["", "", "", ",", ".", "?", "...", "。"])
PROBABILITIES = st.floats(0, 1, width=32)


@st.composite
def spoken_words(draw):
    """Words with a number each, half of the time one after the other as a recogniser gives them."""
    steps = draw(st.lists(st.tuples(SECONDS, LENGTHS, ENDINGS, PROBABILITIES), max_size=150))
    in_order, words, now = draw(st.booleans()), [], 0.0
    for number, (time, length, ending, probability) in enumerate(steps):
        start = now + min(time, 2) / 2 * (number % 3 == 0) if in_order else time
        words.append(Word(f"w{number}{ending}", start, start + length, probability))
        now = start + length
    return words


@st.composite
def speaker_segments(draw):
    spans = draw(st.lists(st.tuples(SECONDS, LENGTHS, st.sampled_from("ABC")), max_size=20))
    return [SpeakerSegment(start, start + length + 0.05, speaker) for start, length, speaker in spans]


def words_of(text, start=0.0, *, step=0.3):
    """Words of equal length, one right after the other."""
    return [
        Word(word, round(start + place * step, 3), round(start + (place + 1) * step, 3), 0.9)
        for place, word in enumerate(text.split())
    ]


def said(turns):
    return [(turn.speaker, turn.text) for turn in turns]


@given(spoken_words(), speaker_segments())
def test_each_word_is_in_exactly_one_turn_and_in_order(words, segments):
    turns = turns_from_words(words, segments)
    found = [word.text for turn in turns for word in turn.words]
    assert Counter(found) == Counter(word.text for word in words)
    for turn in turns:
        starts = [word.start for word in turn.words]
        assert starts == sorted(starts)
    if all(one.end <= other.start for one, other in zip(words, words[1:], strict=False)):
        assert found == [word.text for word in words]


@given(spoken_words(), speaker_segments())
def test_turns_cover_their_words_and_are_bounded(words, segments):
    turns = turns_from_words(words, segments)
    given_words = {word.text: word for word in words}
    assert [turn.start for turn in turns] == sorted(turn.start for turn in turns)
    for turn in turns:
        assert turn.words
        assert turn.start == turn.words[0].start
        assert turn.end >= max(word.end for word in turn.words)
        assert turn.end - turn.start > 0
        assert 0 <= turn.overlap <= 1
        assert 0 <= turn.text_confidence <= 1
        assert len(turn.words) <= LONGEST_WORDS
        assert len(turn.words) == 1 or turn.end - turn.start <= LONGEST_SECONDS
        for word in turn.words:  # times may be cut, never extended
            assert given_words[word.text].start <= word.start <= word.end <= given_words[word.text].end
    names = list(dict.fromkeys(turn.speaker for turn in turns))
    assert names == [f"speaker {number}" for number in range(1, len(names) + 1)]


@given(spoken_words(), speaker_segments())
def test_a_word_is_on_one_given_turn_at_most(words, turns):
    found = words_on_turns(words, turns)
    assert len(found) == len(turns)
    placed = Counter(word for each in found for word in each)
    assert all(count == 1 for count in placed.values())
    for word in words:
        gaps = [max(turn.start - word.end, word.start - turn.end) for turn in turns]
        assert (word in placed) == (min(gaps, default=np.inf) <= 0.5)


@given(SECONDS, SECONDS.filter(bool), speaker_segments())
def test_the_share_of_overlap_is_that_of_sampled_instants(start, length, others):
    instants = start + (np.arange(2000) + 0.5) / 2000 * length
    active = [any(each.start <= instant < each.end for each in others) for instant in instants]
    assert overlap_share(start, start + length, others) == pytest.approx(np.mean(active), abs=0.03)


def test_a_turn_ends_where_the_speaker_changes():
    words = words_of("How are you today? I am well, thanks.")
    segments = [SpeakerSegment(0, 1.2, "B"), SpeakerSegment(1.2, 2.4, "A")]
    first, second = turns_from_words(words, segments)
    assert first == ("speaker 1", 0.0, 1.2, tuple(words[:4]), 0.0)
    assert second == ("speaker 2", 1.2, 2.4, tuple(words[4:]), 0.0)
    assert (second.text, second.text_confidence) == ("I am well, thanks.", pytest.approx(0.9))


def test_without_segments_there_is_one_speaker():
    assert said(turns_from_words(words_of("Nobody knows who said this."), [])) == [
        ("speaker 1", "Nobody knows who said this.")
    ]
    assert turns_from_words([], [SpeakerSegment(0, 1, "A")]) == []


def test_a_word_outside_of_all_segments_goes_to_the_nearest():
    words = [*words_of("well hello there", 1.0), *words_of("good evening sir", 5.0)]
    segments = [SpeakerSegment(0, 0.5, "A"), SpeakerSegment(4.0, 4.5, "B")]
    assert said(turns_from_words(words, segments)) == [
        ("speaker 1", "well hello there"),
        ("speaker 2", "good evening sir"),
    ]


def test_a_turn_ends_at_a_pause_but_not_at_a_hesitation():
    words = [*words_of("we could leave tomorrow"), *words_of("or maybe on Friday", 1.6)]
    assert len(turns_from_words(words, [])) == 1
    words = [*words_of("we could leave tomorrow"), *words_of("or maybe on Friday", 1.8)]
    assert len(turns_from_words(words, [])) == 2


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("We saw him there. He was all right.", 2),
        ("Did you see him? He was all right.", 2),
        ("「我 看见 了 他。」 你 看见 了 吗？", 2),
        ("I went to see Dr. Smith about that.", 1),
        ("They met John F. Kennedy in the U.S. Senate then.", 1),
        ("I really wanted... to say that before.", 1),
        ("It was him and I. Nobody else was there.", 2),
        ('She said "leave me alone." Then she went away.', 2),
    ],
)
def test_turns_end_with_sentences(text, sentences):
    turns = turns_from_words(words_of(text), [])
    assert len(turns) == sentences
    assert " ".join(word.text for turn in turns for word in turn.words) == text


def test_scripts_without_spaces_get_none():
    (turn,) = turns_from_words(words_of("我 看见 OK computer 了。"), [])
    assert turn.text == "我看见 OK computer 了。"


def test_short_sentences_of_a_speaker_are_joined():
    words = words_of("Yes. I know. That is what she told me.")
    assert len(turns_from_words(words, [])) == 1
    apart = [*words_of("Yes."), *words_of("That is what she told me.", 1.5)]
    assert len(turns_from_words(apart, [])) == 2


def test_a_lone_answer_of_another_speaker_is_a_turn():
    words = words_of("Did you see that? Yes. And did you like it?")
    segments = [SpeakerSegment(0, 1.2, "A"), SpeakerSegment(1.2, 1.5, "B"), SpeakerSegment(1.5, 3.0, "A")]
    assert said(turns_from_words(words, segments)) == [
        ("speaker 1", "Did you see that?"),
        ("speaker 2", "Yes."),
        ("speaker 1", "And did you like it?"),
    ]


def test_a_lone_word_within_a_clause_is_an_error_of_a_boundary():
    # Three of four words in the first clause are A's, too few to take it; the second is in the middle.
    words = words_of("you really should come")
    segments = [SpeakerSegment(0, 0.3, "A"), SpeakerSegment(0.3, 0.6, "B"), SpeakerSegment(0.6, 1.2, "A")]
    assert said(turns_from_words(words, segments)) == [("speaker 1", "you really should come")]


def test_the_speaker_of_nearly_all_words_said_the_clause():
    # The last of five words: 80 % are A's. With two words of five, both speakers keep theirs.
    words = words_of("kids are talking over there.")
    four, three = ([SpeakerSegment(0, end, "A"), SpeakerSegment(end, 1.5, "B")] for end in (1.2, 0.9))
    assert said(turns_from_words(words, four)) == [("speaker 1", "kids are talking over there.")]
    assert said(turns_from_words(words, three)) == [
        ("speaker 1", "kids are talking"),
        ("speaker 2", "over there."),
    ]


def test_a_stretched_word_is_cut_to_its_segment():
    # "by" reaches over the speech of B that was not recognised: 4 of its 6 s.
    words = [*words_of("dogs are sitting", 1.0), Word("by", 1.9, 7.9, 0.5)]
    segments = [SpeakerSegment(1.0, 3.4, "A"), SpeakerSegment(3.9, 7.4, "B")]
    *_, last = turns_from_words(words, segments)
    assert (last.speaker, last.start, last.end) == ("speaker 2", 3.9, 7.4)
    segments = [SpeakerSegment(1.0, 4.4, "A"), SpeakerSegment(5.4, 7.4, "B")]
    (turn,) = turns_from_words(words, segments)
    assert (turn.start, turn.end) == (1.0, 4.4)


def test_overlap_counts_the_others_once():
    # Of A's 2 s, B and C speak from 0.5 to 1.5, partly together: half. A's own second segment is no overlap.
    words = words_of("this is what I am telling you,", step=2 / 7)
    others = [SpeakerSegment(0.5, 1.2, "B"), SpeakerSegment(0.8, 1.5, "C")]
    segments = [SpeakerSegment(0, 2, "A"), SpeakerSegment(0.2, 2.5, "A"), *others]
    (turn,) = turns_from_words(words, segments)
    assert turn.overlap == 0.5
    assert overlap_share(0, 3, [SpeakerSegment(0.5, 1.5, "B")]) == 0.333


def test_a_long_turn_is_cut_at_its_longest_pause():
    words = words_of(" ".join(f"w{number}" for number in range(80)))
    # A pause of 0.4 s after the 35th word; one of 0.45 s after the 5th would leave a short rest.
    late = [word._replace(start=word.start + 0.45, end=word.end + 0.45) for word in words[5:]]
    words = [*words[:5], *late[:30], *(w._replace(start=w.start + 0.4, end=w.end + 0.4) for w in late[30:])]
    assert [len(turn.words) for turn in turns_from_words(words, [])] == [35, 45]


def test_a_long_word_stays_whole():
    (turn,) = turns_from_words([Word("Ommm", 0.0, 45.0, 0.9)], [])
    assert (turn.start, turn.end) == (0.0, 45.0)


def test_words_without_a_length_make_a_turn_with_one():
    (turn,) = turns_from_words([Word("door.", 2.0, 2.0, 0.9)], [])
    assert turn.end == pytest.approx(2.02)


def test_words_go_to_given_turns_by_overlap_or_distance():
    turns = [SpeakerSegment(0, 2, "A"), SpeakerSegment(1.5, 4, "B"), SpeakerSegment(8, 9, "A")]
    words = [
        Word("both", 1.2, 1.9, 0.9),  # 0.7 s in the first turn, 0.4 s in the second
        Word("second", 1.8, 2.4, 0.9),  # 0.2 s and 0.6 s
        Word("close", 4.5, 5.0, 0.9),  # 0.5 s behind the second
        Word("far", 5.5, 6.0, 0.9),
        Word("instant", 8.5, 8.5, 0.9),
    ]
    found = words_on_turns(words, turns)
    assert [[word.text for word in each] for each in found] == [["both"], ["second", "close"], ["instant"]]
    assert words_on_turns(words, []) == []
