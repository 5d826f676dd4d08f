"""Leave out words that a speech model invents: in noise, and by repeating itself."""

from collections.abc import Sequence

from redifu.transcription.timed_words import Word

_SECONDS_PER_TIMESTAMP = 0.02
_MARKS = " .,!?…-–—'\"♪"  # a word of only these was not said
# The mean probability of a window's words. Measured with tiny.en and base: speech, acted and real, has 0.49
# and more, at no-speech probabilities up to 0.46. Noises, given to the models as if they were speech, have up
# to 0.39, and up to 0.72 at no-speech probabilities above 0.6.
_LOWEST_CONFIDENCE, _LOWEST_CONFIDENCE_IN_NOISE, _NO_SPEECH = 0.4, 0.75, 0.6
# Words that the model repeats without any sound for them get hardly any time. A repetition is dropped if it
# has fewer seconds per word than _FASTEST_REPETITION, and so is a run of words each shorter than _CRAMMED.
_FASTEST_REPETITION, _LONGEST_REPETITION = 0.08, 24
_CRAMMED_RUN, _CRAMMED = 3, 0.03


def spoken_tokens(
    tokens: Sequence[int], *, end_of_text: int, first_timestamp: int, seconds: float
) -> list[int]:
    """Return the text tokens of a window up to the first timestamp at its end.

    Args:
        tokens: as generated, text and timestamps.
        end_of_text: the first token that is not text.
        first_timestamp: the token of 0 s; those of later times follow it.
        seconds: length of the window.
    """
    last = first_timestamp + round(seconds / _SECONDS_PER_TIMESTAMP)
    spoken = []
    for token in tokens:
        if token >= last:
            break
        if token < end_of_text:
            spoken.append(token)
    return spoken


def without_invented_words(words: list[Word], *, no_speech: float) -> list[Word]:
    """Return the words of a window without those that nobody said.

    Args:
        words: in order, with times.
        no_speech: the model's probability that nobody speaks in the window.
    """
    words = [word for word in words if word.text.strip(_MARKS)]
    # A repetition is the more probable, the longer it goes on, so confidence is measured without it.
    words = without_crammed_words(without_repetitions(words))
    lowest = _LOWEST_CONFIDENCE_IN_NOISE if no_speech > _NO_SPEECH else _LOWEST_CONFIDENCE
    if not words or sum(word.probability for word in words) / len(words) < lowest:
        return []
    return words


def without_repetitions(words: list[Word]) -> list[Word]:
    """Leave out repetitions that follow faster than anybody speaks."""
    kept = list(words)
    at = 0
    while at < len(kept):
        size = _repeated(kept, at)
        del kept[at + size : at + 2 * size]
        at += not size
    return kept


def _repeated(words: list[Word], at: int) -> int:
    """Return the number of words at `at` that are repeated too fast, 0 for none."""
    for size in range(1, min(_LONGEST_REPETITION, (len(words) - at) // 2) + 1):
        again = words[at + size : at + 2 * size]
        if again[-1].end - again[0].start < _FASTEST_REPETITION * size and all(
            first.text.casefold() == second.text.casefold()
            for first, second in zip(words[at : at + size], again, strict=True)
        ):
            return size
    return 0


def without_crammed_words(words: list[Word]) -> list[Word]:
    """Leave out runs of words that have no duration: the aligner found no sound for them."""
    kept: list[Word] = []
    run: list[Word] = []
    for word in words:
        if word.end - word.start < _CRAMMED:
            run.append(word)
            continue
        kept += [*(run if len(run) < _CRAMMED_RUN else []), word]
        run = []
    return kept + (run if len(run) < _CRAMMED_RUN else [])
