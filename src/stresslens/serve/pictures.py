"""The pictures of a request, in each form in which they may be sent."""

from __future__ import annotations

import base64
import binascii
import json
from http import HTTPStatus
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from stresslens.core.text import printable
from stresslens.evaluation.classify_files import Upload
from stresslens.serve.limits import Limits, Refused, bad_request

LONGEST_NAME = 200
FORMS = (
    "send the bytes of an image (Content-Type: image/jpeg, image/png, …), a form with files "
    '(multipart/form-data), or JSON: {"images": ["BASE64", …]}'
)


async def pictures_of(request: Request, limits: Limits) -> list[Upload]:
    """The pictures that a request brings. Raises Refused for more than the limits, and for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        pictures = await _of_form(request, limits)
    elif kind == "application/json":
        pictures = _of_json(await body_of(request, limits), limits)
    elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
        content = await body_of(request, limits)
        pictures = [Upload("", content)] if content else []
    else:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{printable(kind)} is not understood; {FORMS}")
    if not pictures:
        raise bad_request(f"there is no image in the request; {FORMS}")
    return pictures


async def body_of(request: Request, limits: Limits) -> bytes:
    """The whole body of a request. Raises Refused if it is too long, or cut off."""
    _check_length(request, limits)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limits.bytes:
                raise _too_long(limits)
            parts.append(part)
    except ClientDisconnect:
        raise bad_request("the request was cut off") from None
    return b"".join(parts)


def _check_length(request: Request, limits: Limits) -> None:
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > limits.bytes:
        raise _too_long(limits)


def _too_long(limits: Limits) -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has more than {limits.megabytes} MB; send less"
    )


def _too_many(limits: Limits) -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the request has more than {limits.images} images; send several requests",
    )


async def _of_form(request: Request, limits: Limits) -> list[Upload]:
    body = await body_of(request, limits)

    async def again() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form = await Request(request.scope, again).form(
            max_files=limits.images + 1, max_fields=limits.images, max_part_size=limits.bytes
        )
    except HTTPException as error:
        raise bad_request(f"the form cannot be read: {error.detail}") from None
    try:
        files = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
        if len(files) > limits.images:
            raise _too_many(limits)
        return [Upload(_name(each.filename), await each.read()) for each in files]
    finally:
        await form.close()


def _of_json(body: bytes, limits: Limits) -> list[Upload]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    listed = values.get("images", values.get("image")) if isinstance(values, dict) else values
    texts = [listed] if isinstance(listed, str) else listed
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise bad_request('expected {"images": ["BASE64", …]}, each the base64 of an image file')
    if len(texts) > limits.images:
        raise _too_many(limits)
    return [Upload("", _decoded(number, text)) for number, text in enumerate(texts)]


def _decoded(number: int, text: str) -> bytes:
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(f"images[{number}] is not base64") from None


def _name(given: str | None) -> str:
    return printable(given or "")[:LONGEST_NAME]
