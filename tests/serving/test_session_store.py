"""Sessions end when they are told to or idle, and there are never more than may be."""

import pytest

from model.tiny_models import tiny_model
from model.tiny_processors import feature_processor
from redifu.inference.session import ConversationSession
from redifu.serving.session_store import SessionStore, TooManySessionsError, UnknownSessionError


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def make_store(clock: Clock, *, max_sessions: int = 2) -> SessionStore:
    model, processor = tiny_model(), feature_processor()
    return SessionStore(
        lambda: ConversationSession(model, processor), max_sessions=max_sessions, idle_seconds=10, clock=clock
    )


def test_a_session_is_found_by_its_name_until_it_is_ended() -> None:
    store = make_store(Clock())
    first, second = store.create(), store.create()
    assert store.use(first) is store.use(first) is not store.use(second)
    store.end(first)
    assert len(store) == 1
    for call in (store.use, store.end):
        with pytest.raises(UnknownSessionError, match=f"session {first} does not exist or has ended"):
            call(first)


def test_a_session_that_idles_ends_and_one_in_use_does_not() -> None:
    clock = Clock()
    store = make_store(clock)
    used, idle = store.create(), store.create()
    clock.seconds = 9.9
    kept = store.use(used)
    assert len(store) == 2
    clock.seconds = 10
    assert len(store) == 1
    clock.seconds = 19.8
    assert store.use(used) is kept
    with pytest.raises(UnknownSessionError):
        store.use(idle)


def test_a_place_is_free_again_when_a_session_has_ended() -> None:
    clock = Clock()
    store = make_store(clock, max_sessions=1)
    name = store.create()
    with pytest.raises(TooManySessionsError, match=r"too many live sessions \(1\)"):
        store.create()
    store.end(name)
    store.create()
    clock.seconds = 10
    store.create()
    assert len(store) == 1
