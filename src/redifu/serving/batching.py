"""The thread in which a model answers many requests, as many as wait in one call."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from redifu.conversation import Conversation, Prediction
from redifu.inference.recogniser import Recogniser


class TooManyWaitingError(Exception):
    """So many requests wait for the model that no other is taken."""


class _Request(NamedTuple):
    conversation: Conversation
    answer: Future[list[Prediction]]


class ModelThread:
    """One thread for all that a model does, in the order in which it was asked.

    Conversations that came while the model was busy are predicted in one call; none waits for others to come.
    A request that is cancelled before its turn is left out. Its methods are called from one event loop.
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
            max_batch: most conversations of one call.
            max_waiting: most requests without an answer.
            observe_batch: called with the number of conversations of each call, in the thread.
        """
        self._recogniser = recogniser
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe_batch = observe_batch
        self._requests: deque[_Request] = deque()
        self._unanswered = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def predict(self, conversation: Conversation) -> list[Prediction]:
        """Predict a checked conversation, with others that wait.

        Returns:
            The predictions of its utterances.

        Raises:
            TooManyWaitingError: nothing was done.
            ValueError: the processor refuses the conversation.
            FloatingPointError: the model gave a logit that is not a number.
        """
        self._refuse_if_full()
        answer: Future[list[Prediction]] = Future()
        self._requests.append(_Request(conversation, answer))
        # A turn for each request: one whose conversation was taken along by an earlier turn finds less to do.
        self._thread.submit(self._take_turn)
        return await self._wait_for(answer)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread and return what it returns, or raises.

        Raises:
            TooManyWaitingError: nothing was done.
        """
        self._refuse_if_full()
        return await self._wait_for(self._thread.submit(function, *arguments))

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._thread.shutdown(wait=True)

    def _refuse_if_full(self) -> None:
        if self._unanswered >= self._max_waiting:
            raise TooManyWaitingError(f"{self._unanswered} requests wait for the model: try again later")

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
            # What is wrong with one of them, an overflow for instance, is no matter of the others.
            for request in batch:
                self._answer([request])
        else:
            for request, rows in zip(batch, answers, strict=True):
                request.answer.set_result(rows)
