"""One client's work holds another's no longer than a batch, and texts are tokenized once."""

import asyncio
import threading
import time
from typing import Any

import pytest

from answers import conversation_of
from model.tiny_models import text_model
from model.tiny_processors import conversation, text_processor, utterance
from redifu import ConversationSession
from redifu.inference.recogniser import Recogniser
from redifu.serving.batching import BATCH_TOKENS, FairThread, ModelThread
from redifu.serving.fair_queue import FairQueue
from redifu.serving.ready_texts import PART_CHARACTERS, ReadyTexts

MODEL = text_model("bert", visual_size=None)
PROCESSOR = text_processor(max_text_tokens=16)


def alone(taken: list[Any], item: Any) -> bool:
    return False


def test_each_client_gets_its_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    assert [queue.take(alone) for _ in range(6)] == [
        ([item[0]], [item]) for item in ("a1", "b1", "c1", "a2", "c2", "a3")
    ]
    assert queue.take(alone) == ([], [])


def test_a_batch_is_of_all_clients_and_what_does_not_fit_comes_next() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "B1", "c1"):
        queue.put(item[0], item)
    same_case = [queue.take(lambda taken, item: item.islower() is taken[0].islower() and len(taken) < 3)]
    same_case += [queue.take(lambda taken, item: item.islower() is taken[0].islower())]
    assert [taken for _, taken in same_case] == [["a1", "c1", "a2"], ["B1"]]


def test_clients_share_the_time_and_not_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    queue: FairQueue[str] = FairQueue()
    used = {"greedy": 0.0, "b": 0.0, "c": 0.0}
    for client in used:
        queue.put(client, client)
    while now < 300:
        (client,), _ = queue.take(alone)
        with queue.charged([client], [1]):
            seconds = 5.0 if client == "greedy" else 0.5
            now += seconds
        used[client] += seconds
        queue.put(client, client)
    assert all(seconds == pytest.approx(100, abs=5) for seconds in used.values())
    # One that comes late does not make up for the time when it asked for nothing.
    queue.put("late", "late")
    first = []
    for _ in range(8):
        (client,), _ = queue.take(alone)
        with queue.charged([client], [1]):
            now += 0.5
        first.append(client)
        queue.put(client, client)
    assert first.count("late") <= 3


def test_a_batch_is_charged_by_the_sizes_of_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    queue: FairQueue[str] = FairQueue()
    for client in ("large", "small"):
        queue.put(client, client)
    clients, _ = queue.take(lambda taken, item: True)
    queue.put("new", "new")
    with queue.charged(clients, [9, 1]):
        now += 10.0
    for client in ("large", "small"):
        queue.put(client, client)
    assert [queue.take(alone)[0] for _ in range(3)] == [["new"], ["small"], ["large"]]


def test_a_client_that_has_gone_is_forgotten() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(100):
        queue.put(f"client {number}", number)
        clients, _ = queue.take(alone)
        with queue.charged(clients, [1]):
            time.sleep(0.0001)
    assert len(queue._used) < 10


def test_a_small_client_waits_for_one_piece_of_a_greedy_one() -> None:
    thread = FairThread("work", max_waiting=1000)
    done: list[str] = []

    def work(name: str) -> None:
        time.sleep(0.002)
        done.append(name)

    async def ask() -> None:
        free = threading.Event()
        busy = asyncio.ensure_future(thread.run(free.wait, client="greedy"))
        greedy = [asyncio.ensure_future(thread.run(work, "greedy", client="greedy")) for _ in range(100)]
        small = asyncio.ensure_future(thread.run(work, "small", client="small"))
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(busy, small, *greedy)

    try:
        asyncio.run(ask())
    finally:
        thread.close()
    assert done.index("small") <= 1


def test_texts_of_a_greedy_client_are_embedded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    embed = MODEL.redifu.embed

    def counted(name: str, values: Any, mask: Any) -> Any:
        sizes.append(len(values))
        return embed(name, values, mask)

    monkeypatch.setattr(MODEL.redifu, "embed", counted)
    thread = ModelThread(Recogniser(MODEL, PROCESSOR), max_batch=9, max_waiting=99, observe_batch=str)
    greedy, small = [[2, 7, 8, 3] * 4] * 300, [[2, 9, 3]]

    async def ask() -> list[Any]:
        free = threading.Event()
        busy = asyncio.ensure_future(thread.run(free.wait))
        both = [asyncio.ensure_future(thread.embed(each, client=str(len(each)))) for each in (greedy, small)]
        await asyncio.sleep(0)
        free.set()
        await busy
        return await asyncio.gather(*both)

    try:
        rows, row = asyncio.run(ask())
    finally:
        thread.close()
    assert max(sizes) * 16 <= BATCH_TOKENS
    assert (rows.shape[0], row.shape[0]) == (300, 1)
    assert rows[0].equal(rows[299])


def test_ready_texts_give_the_same_predictions() -> None:
    sound = utterance("Ben", audio_features=[0.5] * 5)
    given = conversation_of(conversation(utterance(text="you came !"), sound, utterance(text="no")))
    texts = ReadyTexts(Recogniser(MODEL, PROCESSOR))
    assert texts.of(given) == ["you came !", "no"]
    thread = ModelThread(texts.recogniser, max_batch=9, max_waiting=9, observe_batch=str)

    async def ask() -> list[Any]:
        rows = await thread.embed(texts.tokens(texts.of(given)))
        return await thread.predict(texts.embedded(given, rows))

    try:
        answers = asyncio.run(ask())
    finally:
        thread.close()
    ((_, expected),) = Recogniser(MODEL, PROCESSOR).predict([given])
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.scores == pytest.approx(wanted.scores, abs=1e-6)


def test_parts_of_texts_are_small_and_together_all() -> None:
    texts = ["a" * 9000] * 5 + ["b" * (2 * PART_CHARACTERS)] + ["c"] * 3
    parts = list(ReadyTexts.parts(texts))
    assert [text for part in parts for text in part] == texts
    assert all(len(part) == 1 or sum(map(len, part)) <= PART_CHARACTERS for part in parts)


def test_a_session_tokenizes_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenized: list[str] = []
    processor = text_processor(max_text_tokens=16)
    call = type(processor.tokenizer).__call__

    def counted(self: Any, texts: Any, **options: Any) -> Any:
        tokenized.extend(texts)
        return call(self, texts, **options)

    monkeypatch.setattr(type(processor.tokenizer), "__call__", counted)
    session = ConversationSession(MODEL, processor, window=3)
    said = ["you came !", "no", "yes", "hello", "no hello"]
    for text in said:
        session.add(utterance(text=text))
    assert tokenized == said
