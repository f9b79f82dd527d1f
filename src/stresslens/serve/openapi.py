"""The description of the service in OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stresslens.core.version import __version__
from stresslens.serve.limits import Limits

NUMBER, TEXT, TRUTH = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
SHARE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}


def openapi(runs: Sequence[str], limits: Limits, *, has_token: bool) -> dict[str, Any]:
    """What the service takes and answers, as an OpenAPI document."""
    errors = {
        "400": "The request cannot be read.",
        "404": "There is no such run.",
        "413": f"More than {limits.megabytes} MB or {limits.images} images.",
        "415": "Another kind of content.",
        "422": "No image can be read, or nothing calibrates what is asked.",
        "500": "The image has ended the process that reads it, twice.",
        "503": f"More than {limits.waiting} images wait already, or the server is stopping.",
        "504": f"No answer within {limits.seconds} s.",
    } | ({"401": "Without the token."} if has_token else {})
    predict = {
        "operationId": "predict",
        "summary": "Classify images.",
        "description": "Images are prepared as the run's own were. One that cannot be read has `unreadable` "
        "in its place.",
        "parameters": [
            _parameter("run", {"type": "string", "enum": list(runs)}, "The run; the first without it."),
            _parameter("top", {"type": "integer", "minimum": 1, "maximum": 100, "default": 5}, "Classes."),
            _parameter("coverage", SHARE, "The set of classes has the true one with this chance."),
            _parameter("wrong_at_most", SHARE, "Answers, where given, are wrong at most so often."),
        ],
        "requestBody": _body(limits),
        "responses": {
            "200": _answer(
                "The predictions, in the order of the images.", {"$ref": "#/components/schemas/Answer"}
            ),
            **{code: _answer(said, {"$ref": "#/components/schemas/Error"}) for code, said in errors.items()},
        },
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "stresslens serve", "version": __version__},
        "paths": {
            "/predict": {"post": predict},
            "/health": {
                "get": _plain("health", "What is served, and whether it is ready.", "application/json")
            },
            "/metrics": {"get": _plain("metrics", "Counts for Prometheus.", "text/plain")},
        },
        "components": {"schemas": {"Answer": _ANSWER, "Prediction": _PREDICTION, "Error": _ERROR}},
    }
    if has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        document["paths"]["/health"]["get"]["security"] = []
    return document


def _body(limits: Limits) -> dict[str, Any]:
    """The three forms in which images are sent."""
    return {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "maxItems": limits.images,
                            "items": {"type": "string", "contentEncoding": "base64"},
                        }
                    },
                }
            },
        },
    }


def _parameter(name: str, schema: dict[str, Any], said: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": said}


def _answer(said: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": said, "content": {"application/json": {"schema": schema}}}


def _plain(name: str, said: str, kind: str) -> dict[str, Any]:
    content = {kind: {"schema": TEXT if kind == "text/plain" else {"type": "object"}}}
    return {
        "operationId": name,
        "summary": said,
        "responses": {"200": {"description": said, "content": content}},
    }


_PREDICTION = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "description": "The name that came with the image."},
        "predictions": {
            "type": "array",
            "description": "The most probable classes with their calibrated probabilities.",
            "items": {
                "type": "object",
                "required": ["class", "probability"],
                "properties": {"class": TEXT, "probability": NUMBER},
            },
        },
        "set": {"type": "array", "items": TEXT, "description": "The set of classes at the coverage."},
        "answers": {**TRUTH, "description": "Whether the model is sure enough (wrong_at_most)."},
        "ood_p_value": {
            "type": ["number", "null"],
            "description": "Share of held-out images that are as unlike the training images as this one.",
        },
        "out_of_distribution": {
            "type": ["boolean", "null"],
            "description": "Whether that share is at most the false-alarm rate (`ood_rate` in /health).",
        },
        "no_answer": {**TEXT, "description": "Why there is no prediction: the scores are not finite."},
        "unreadable": {**TEXT, "description": "Why the image cannot be read."},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model", "predictions"],
    "properties": {
        "model": {
            "type": "object",
            "required": ["run", "fingerprint", "version"],
            "properties": {"run": TEXT, "fingerprint": TEXT, "version": TEXT},
        },
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error", "status"],
    "properties": {"error": TEXT, "status": {"type": "integer"}},
}
