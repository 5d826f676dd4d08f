"""What one client may take of a service."""

from dataclasses import dataclass, field, fields
from typing import Any


def _limit(default: int, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Limits:
    """The limits of a service; each says what it is in its metadata, for the command line."""

    max_batch: int = _limit(32, "conversations of one call of the model")
    max_waiting: int = _limit(256, "requests that may wait for the model")
    max_body_bytes: int = _limit(4 * 1024 * 1024, "bytes of a request's body")
    max_utterances: int = _limit(512, "utterances of a request")
    max_sessions: int = _limit(256, "sessions at a time")
    session_idle_seconds: int = _limit(900, "after so long without an utterance a session ends")
    request_seconds: int = _limit(60, "time from a request's head to its answer")

    def __post_init__(self) -> None:
        """Refuse limits below 1.

        Raises:
            ValueError: naming the limit.
        """
        for limit in fields(self):
            if (value := getattr(self, limit.name)) < 1:
                raise ValueError(f"{limit.name}: expected at least 1, got {value}")
