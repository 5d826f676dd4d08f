"""Limits of the HTTP service."""

from dataclasses import dataclass, field, fields
from typing import Any


def _limit(default: int, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Limits:
    """The limits of a service; the metadata of each field holds its help for the command line."""

    max_batch: int = _limit(32, "conversations per model call")
    max_waiting: int = _limit(256, "requests that may wait for the model")
    max_body_bytes: int = _limit(4 * 1024 * 1024, "bytes in a request body")
    max_utterances: int = _limit(512, "utterances in a request")
    max_text_characters: int = _limit(10_000, "characters in a text")
    max_sessions: int = _limit(256, "live sessions at the same time")
    max_client_sessions: int = _limit(32, "live sessions of one client address")
    max_streams: int = _limit(8, "live streams at the same time")
    max_client_streams: int = _limit(4, "live streams of one client address")
    max_connections: int = _limit(512, "connections at the same time")
    session_idle_seconds: int = _limit(900, "seconds without an utterance before a session ends")
    max_stream_seconds: int = _limit(14_400, "seconds of a live stream")
    max_stream_lag_seconds: int = _limit(30, "seconds of sound that may wait, or come ahead of time")
    stream_idle_seconds: int = _limit(60, "seconds without sound before a live stream ends")
    request_seconds: int = _limit(60, "seconds before a request times out")
    head_seconds: int = _limit(10, "seconds in which a connection must send the head of a request")
    drain_seconds: int = _limit(20, "seconds for the last answers when the service is stopped")

    def __post_init__(self) -> None:
        """Reject limits below 1.

        Raises:
            ValueError: naming the limit.
        """
        for limit in fields(self):
            if (value := getattr(self, limit.name)) < 1:
                raise ValueError(f"{limit.name}: expected at least 1, got {value}")
