"""One thread in which a model answers many requests, batching those that are waiting."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from redifu.conversation import Conversation, Prediction
from redifu.inference.recogniser import Recogniser


class TooManyWaitingError(Exception):
    """The maximum number of requests is already waiting for the model."""


class _Request(NamedTuple):
    conversation: Conversation
    answer: Future[list[Prediction]]


class ModelThread:
    """Runs all work of a model in one thread, in the order of the requests.

    Conversations that arrive while the model is busy are predicted in one call; no request waits for others
    to arrive. A request that is cancelled before its turn is dropped. Call all methods from one event loop.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        max_batch: int,
        max_waiting: int,
        observe_batch: Callable[[int], object],
    ):
        """Start the thread.

        Args:
            recogniser: the model.
            max_batch: maximum number of conversations per model call.
            max_waiting: maximum number of unanswered requests.
            observe_batch: called in the thread with the number of conversations of each model call.
        """
        self._recogniser = recogniser
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe_batch = observe_batch
        self._requests: deque[_Request] = deque()
        self._unanswered = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def predict(self, conversation: Conversation) -> list[Prediction]:
        """Predict a checked conversation together with others that are waiting.

        Returns:
            The predictions of its utterances.

        Raises:
            TooManyWaitingError: too many requests are waiting; nothing was done.
            ValueError: the processor rejects the conversation.
            FloatingPointError: a logit of the model is not finite.
        """
        self._refuse_if_full()
        answer: Future[list[Prediction]] = Future()
        self._requests.append(_Request(conversation, answer))
        # One turn per request; if an earlier turn has already predicted it, this one has less to do.
        self._thread.submit(self._take_turn)
        return await self._wait_for(answer)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread; return its result or raise its exception.

        Raises:
            TooManyWaitingError: too many requests are waiting; nothing was done.
        """
        self._refuse_if_full()
        return await self._wait_for(self._thread.submit(function, *arguments))

    def close(self) -> None:
        """Answer all waiting requests, then end the thread."""
        self._thread.shutdown(wait=True)

    def _refuse_if_full(self) -> None:
        if self._unanswered >= self._max_waiting:
            raise TooManyWaitingError(f"too many waiting requests ({self._unanswered}): try again later")

    async def _wait_for(self, answer: Future[Any]) -> Any:
        self._unanswered += 1
        try:
            return await asyncio.wrap_future(answer)
        finally:
            self._unanswered -= 1

    def _take_turn(self) -> None:
        batch: list[_Request] = []
        while self._requests and len(batch) < self._max_batch:
            request = self._requests.popleft()
            if request.answer.set_running_or_notify_cancel():
                batch.append(request)
        if batch:
            self._answer(batch)

    def _answer(self, batch: Sequence[_Request]) -> None:
        self._observe_batch(len(batch))
        given = [request.conversation for request in batch]
        try:
            answers = [rows for _, rows in self._recogniser.predict(given)]
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            # An error in one conversation, such as an overflow, must not fail the others.
            for request in batch:
                self._answer([request])
        else:
            for request, rows in zip(batch, answers, strict=True):
                request.answer.set_result(rows)
