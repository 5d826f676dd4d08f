"""Leave out words that a speech model invents: in noise, and by repeating itself."""

from collections.abc import Sequence

from redifu.transcription.timed_words import Word

_SECONDS_PER_TIMESTAMP = 0.02
# Nobody repeats words faster than this, in seconds a word; the aligner crams repetitions that nobody said.
_FASTEST_REPETITION = 0.12
_LONGEST_REPETITION = 24  # words
_CRAMMED, _CRAMMED_RUN = 0.03, 3


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


def without_invented_words(words: list[Word], *, score: float, no_speech: float) -> list[Word]:
    """Return the words of a window without those that nobody said."""
    return without_crammed_words(without_repetitions(words))


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
