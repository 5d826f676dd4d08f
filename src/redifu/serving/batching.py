"""Threads for the work of many clients, which get equal shares of the time and wait for at most one batch."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from redifu.conversation import Conversation, Prediction
from redifu.inference.predictions import BATCH_UTTERANCES
from redifu.inference.recogniser import Recogniser
from redifu.serving.fair_queue import FairQueue

# A client's texts are embedded in parts of about this many tokens, between which others have their turn.
PART_TOKENS = 256
# Parts of several clients are embedded together up to this many.
BATCH_TOKENS = 512


class TooManyWaitingError(Exception):
    """The maximum number of requests is already waiting for the model."""


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A piece of work that is done alone."""

    work: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A conversation to predict."""

    conversation: Conversation
    answer: Future[list[Prediction]] = field(default_factory=Future)


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """The tokens of some texts to embed."""

    tokens: Sequence[Sequence[int]]
    answer: Future[Tensor] = field(default_factory=Future)


class FairThread:
    """Does the work of many clients in one thread, or a few. Call all methods from one event loop."""

    def __init__(self, name: str, *, max_waiting: int, workers: int = 1):
        """Build it; the first piece of work starts the thread.

        Args:
            name: of the thread.
            max_waiting: maximum number of pieces of work without an answer.
            workers: number of threads.
        """
        self._workers = workers
        self._max_waiting = max_waiting
        self._queue: FairQueue[Any] = FairQueue()
        self._unanswered = 0
        self._name = name
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[..., Any], *arguments: Any, client: str = "") -> Any:
        """Call a function in the thread; return its result or raise its exception.

        Raises:
            TooManyWaitingError: too many requests are waiting; nothing was done.
        """
        return await self._put(client, _Call(work=lambda: work(*arguments)))

    def close(self) -> None:
        """Finish all that waits, then end the thread; the next piece of work starts another one."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        self._thread = None

    async def _put(self, client: str, item: Any) -> Any:
        if self._unanswered >= self._max_waiting:
            raise TooManyWaitingError(f"too many waiting requests ({self._unanswered}): try again later")
        self._unanswered += 1
        try:
            self._queue.put(client, item)
            if self._thread is None:
                self._thread = ThreadPoolExecutor(self._workers, thread_name_prefix=self._name)
            # One turn per item; if an earlier turn has already taken it, this one has less to do.
            self._thread.submit(self._take_turn)
            return await asyncio.wrap_future(item.answer)
        finally:
            self._unanswered -= 1

    def _take_turn(self) -> None:
        clients, taken = self._queue.take(self._fits)
        if batch := [each for each in taken if each.answer.set_running_or_notify_cancel()]:
            with self._queue.charged(clients, [self._size(each) for each in taken]):
                self._finish(batch)

    def _finish(self, batch: Sequence[Any]) -> None:
        try:
            answers = self._answers(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            # An error in one conversation, such as an overflow, must not fail the others.
            for each in batch:
                self._finish([each])
        else:
            for each, answer in zip(batch, answers, strict=True):
                each.answer.set_result(answer)

    def _size(self, item: Any) -> int:
        return 1

    def _fits(self, taken: list[Any], item: Any) -> bool:
        return False

    def _answers(self, batch: Sequence[Any]) -> list[Any]:
        return [each.work() for each in batch]


class ModelThread(FairThread):
    """Runs all work of a model in one thread.

    Conversations, or texts, that arrive while the model is busy are answered in one call; no request waits
    for others to arrive. A request that is cancelled before its turn is dropped.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        max_batch: int,
        max_waiting: int,
        observe_batch: Callable[[int], object],
    ):
        """Build it; the first piece of work starts the thread.

        Args:
            recogniser: the model.
            max_batch: maximum number of conversations per model call.
            max_waiting: maximum number of unanswered requests.
            observe_batch: called in the thread with the number of conversations of each model call.
        """
        super().__init__("model", max_waiting=max_waiting)
        self._recogniser = recogniser
        self._max_batch = max_batch
        self._observe_batch = observe_batch

    async def predict(self, conversation: Conversation, *, client: str = "") -> list[Prediction]:
        """Predict a checked conversation together with others that are waiting.

        Returns:
            The predictions of its utterances.

        Raises:
            TooManyWaitingError: too many requests are waiting; nothing was done.
            ValueError: the processor rejects the conversation.
            FloatingPointError: a logit of the model is not finite.
        """
        return await self._put(client, _Request(conversation=conversation))

    async def embed(self, tokens: Sequence[Sequence[int]], *, client: str = "") -> Tensor:
        """Embed texts with the model's text backbone, in parts of about `PART_TOKENS` tokens.

        Args:
            tokens: the tokens of each text.
            client: whose texts they are.

        Returns:
            (texts, text size).

        Raises:
            TooManyWaitingError: too many requests are waiting.
        """
        parts: list[list[Sequence[int]]] = [[]]
        for each in tokens:
            if parts[-1] and _length([*parts[-1], each]) > PART_TOKENS:
                parts.append([])
            parts[-1].append(each)
        return torch.cat([await self._put(client, _Texts(tokens=part)) for part in parts])

    def _size(self, item: Any) -> int:
        if isinstance(item, _Texts):
            return _length(item.tokens)
        return len(item.conversation.utterances) if isinstance(item, _Request) else 1

    def _fits(self, taken: list[Any], item: Any) -> bool:
        if type(item) is not type(taken[0]) or isinstance(item, _Call):
            return False
        together = [*taken, item]
        if isinstance(item, _Texts):
            return sum(_length(each.tokens) for each in together) <= BATCH_TOKENS
        lengths = [len(each.conversation.utterances) for each in together]
        return len(together) <= self._max_batch and max(lengths) * len(lengths) <= BATCH_UTTERANCES

    def _answers(self, batch: Sequence[Any]) -> list[Any]:
        if isinstance(batch[0], _Call):
            return super()._answers(batch)
        if isinstance(batch[0], _Texts):
            rows = self._embed([each for texts in batch for each in texts.tokens])
            return list(rows.split([len(texts.tokens) for texts in batch]))
        self._observe_batch(len(batch))
        given = [request.conversation for request in batch]
        return [rows for _, rows in self._recogniser.predict(given)]

    def _embed(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        model = self._recogniser.model.eval()
        shape = (len(tokens), max(1, *map(len, tokens)))
        input_ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        for row, each in enumerate(tokens):
            input_ids[row, : len(each)], mask[row, : len(each)] = torch.tensor(each), True
        with torch.no_grad():
            return model.redifu.embed("text", input_ids.to(model.device), mask.to(model.device)).cpu()


def _length(tokens: Sequence[Sequence[int]]) -> int:
    return sum(map(len, tokens))
