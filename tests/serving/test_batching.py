"""The model's thread predicts together what waits, and nobody's mistake is anybody else's."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from answers import conversation_of, predicted
from model.tiny_models import tiny_model
from model.tiny_processors import conversation, feature_processor, utterance
from redifu.inference.recogniser import Recogniser
from redifu.serving.batching import ModelThread, TooManyWaitingError

GIVEN = [conversation(*[utterance(text_features=[0.1 * n] * 6)] * (n + 1), name=f"d{n}") for n in range(5)]
OVERFLOWING = conversation(utterance(text_features=[3e38] * 6), name="loud")


def answers_of(
    given: list[dict], *, max_batch: int = 9, max_waiting: int = 9, cancelled: tuple[int, ...] = ()
) -> tuple[list[Any], list[int]]:
    """Ask while the thread is busy, so that all wait; return answers or errors, and the sizes of batches."""
    batches: list[int] = []
    thread = ModelThread(
        Recogniser(tiny_model(), feature_processor()),
        max_batch=max_batch,
        max_waiting=max_waiting,
        observe_batch=batches.append,
    )

    async def ask() -> list[Any]:
        free = threading.Event()
        busy = asyncio.ensure_future(thread.run(free.wait))
        tasks = [asyncio.ensure_future(thread.predict(conversation_of(each))) for each in given]
        await asyncio.sleep(0)  # each of them runs as far as it can
        for number in cancelled:
            tasks[number].cancel()
        await asyncio.sleep(0)
        free.set()
        await busy
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        return asyncio.run(ask()), batches
    finally:
        thread.close()


def assert_predicted(answers: list[Any], given: list[dict]) -> None:
    expected = [rows for _, rows in predicted(tiny_model(), feature_processor(), given)]
    for answer, rows in zip(answers, expected, strict=True):
        actual = np.stack([prediction.probabilities for prediction in answer])
        np.testing.assert_allclose(actual, rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("max_batch", "sizes"), [(1, [1] * 5), (3, [3, 2]), (9, [5])])
def test_what_waits_is_predicted_in_one_call(max_batch: int, sizes: list[int]) -> None:
    answers, batches = answers_of(GIVEN, max_batch=max_batch)
    assert batches == sizes
    assert_predicted(answers, GIVEN)


def test_one_that_overflows_fails_alone() -> None:
    given = [*GIVEN[:2], OVERFLOWING, *GIVEN[2:]]
    answers, _ = answers_of(given)
    assert isinstance(error := answers.pop(2), FloatingPointError)
    assert "dialogue loud" in str(error)
    assert_predicted(answers, GIVEN)


def test_what_was_cancelled_before_its_turn_is_left_out() -> None:
    answers, batches = answers_of(GIVEN, cancelled=(0, 3))
    assert [number for number, answer in enumerate(answers) if isinstance(answer, BaseException)] == [0, 3]
    assert_predicted([answers[number] for number in (1, 2, 4)], [GIVEN[number] for number in (1, 2, 4)])
    assert batches == [3]


def test_no_more_than_so_many_may_wait() -> None:
    # The one that keeps the thread busy counts, too.
    answers, batches = answers_of(GIVEN, max_waiting=3)
    assert_predicted(answers[:2], GIVEN[:2])
    assert [type(answer) for answer in answers[2:]] == [TooManyWaitingError] * 3
    assert batches == [2]


def test_closing_answers_what_waits() -> None:
    thread = ModelThread(
        Recogniser(tiny_model(), feature_processor()),
        max_batch=2,
        max_waiting=9,
        observe_batch=lambda _: None,
    )

    async def close_with_waiting() -> list[Any]:
        free = threading.Event()
        given = map(thread.predict, map(conversation_of, GIVEN))
        tasks = [asyncio.ensure_future(each) for each in (thread.run(free.wait), *given)]
        await asyncio.sleep(0)
        threading.Timer(0.05, free.set).start()
        thread.close()
        return (await asyncio.gather(*tasks))[1:]

    assert_predicted(asyncio.run(close_with_waiting()), GIVEN)
