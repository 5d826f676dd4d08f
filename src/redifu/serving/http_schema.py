"""OpenAPI schemas of the service's requests and responses."""

from typing import Any

from redifu.conversation import FEATURES

_FEATURES = {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 1}
_UTTERANCE: dict[str, Any] = {
    "type": "object",
    "description": "A speaker with a text or precomputed features. Other keys are returned unchanged. The "
    "service opens no files: audio and video must be null.",
    "required": ["speaker"],
    "properties": {
        "speaker": {"type": "string", "minLength": 1},
        "text": {"type": ["string", "null"]},
        **dict.fromkeys(FEATURES, _FEATURES),
        **dict.fromkeys(("audio", "video"), {"type": "null"}),
    },
}
_PREDICTION = {
    "emotion": {
        "type": ["string", "null"],
        "description": "null if the model can use none of the streams",
    },
    "scores": {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
}
_REASONS = {"reasons": {"type": "array", "items": {"type": "string"}, "description": "reasons to doubt it"}}
_ANSWER = {"type": "object", "required": list(_PREDICTION), "properties": _PREDICTION | _REASONS}


def _conversation(utterance: dict[str, Any], *, required: list[str]) -> dict[str, Any]:
    utterances = {"type": "array", "minItems": 1, "items": utterance}
    properties = {"id": {"type": "string", "minLength": 1}, "utterances": utterances}
    return {"type": "object", "required": required, "properties": properties}


def _strings(*names: str) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in names}
    return {"type": "object", "required": list(names), "properties": properties}


_SAID = [{"speaker": "Ana", "text": "You came!"}, {"speaker": "Ben", "text": "I promised."}]
_SCORES = [{"joy": 0.9, "neutral": 0.1}, {"neutral": 0.7, "joy": 0.3}]
_ANSWERS = [{"emotion": next(iter(scores)), "scores": scores} for scores in _SCORES]
_PREDICTED = [{**said, **answer} for said, answer in zip(_SAID, _ANSWERS, strict=True)]

_MISTAKES = {
    401: "missing or wrong key",
    403: "the request comes from a web page of another site",
    404: "no such session",
    413: "request body too large",
    415: "Content-Type must be application/json",
    422: "invalid input; the message says what is wrong",
    429: "too many live sessions",
    503: "too many waiting requests",
    504: "request timed out",
}


def _json(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, "example": example}}


def _operation(
    status: int,
    description: str,
    *,
    gives: dict[str, Any] | None,
    takes: dict[str, Any] | None = None,
    mistakes: tuple[int, ...],
) -> dict[str, Any]:
    """Return the arguments of a route: schemas of its request body, its response and its errors."""
    responses: dict[int | str, Any] = {status: {"description": description, "content": gives or {}}}
    for mistake in sorted((401, 403, 504, *mistakes)):
        content = _json(_strings("error"), {"error": _MISTAKES[mistake]})
        responses[mistake] = {"description": _MISTAKES[mistake], "content": content}
    body = None if takes is None else {"requestBody": {"required": True, "content": takes}}
    return {"status_code": status, "responses": responses, "openapi_extra": body}


PREDICT = _operation(
    200,
    "the conversation, with the emotion and the scores of each utterance",
    takes=_json(_conversation(_UTTERANCE, required=["utterances"]), {"id": "dinner", "utterances": _SAID}),
    gives=_json(
        _conversation(_ANSWER, required=["id", "utterances"]), {"id": "dinner", "utterances": _PREDICTED}
    ),
    mistakes=(413, 415, 422, 503),
)
CREATE_SESSION = _operation(
    201,
    "the id of the new session",
    takes=_json({"type": "object"}, {}),
    gives=_json(_strings("id"), {"id": "yFz0eQvT6kM"}),
    mistakes=(413, 415, 429),
)
ADD_UTTERANCE = _operation(
    200,
    "the emotion and the scores of the utterance",
    takes=_json(_UTTERANCE, _SAID[0]),
    gives=_json(_ANSWER, _ANSWERS[0]),
    mistakes=(404, 413, 415, 422, 503),
)
END_SESSION = _operation(204, "the session has ended", gives=None, mistakes=(404,))
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
HEALTH = _operation(200, "the service is up", gives=_json(_strings("status"), {"status": "ok"}), mistakes=())
METRICS = _operation(200, "metrics for Prometheus", gives=_TEXT, mistakes=())
