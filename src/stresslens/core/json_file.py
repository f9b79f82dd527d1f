"""Base model of the JSON files in run folders.

Each file's model is beside the code that writes the file; readers import it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from stresslens.core.files import UnreadableRun, read_json, whole_lines, write_json
from stresslens.core.types import Estimate, Finding, with_bounds

RESULT, TIMINGS = "result.json", "timings.json"
PARTIAL = "partial.npz"
"""What an interrupted computation keeps beside its result.json to be."""


class JsonFile(BaseModel):
    """A JSON file, or a part of one, that is read leniently.

    Unknown keys are ignored, because a later version may have written them. A field that was added
    later has a default, because an earlier version did not write it.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True, ser_json_inf_nan="constants")

    OLD_KEYS: ClassVar[Mapping[str, str]] = {}
    """A key and its name in version 0.1.0, under which this version writes it as well."""

    LATER_KEYS: ClassVar[frozenset[str]] = frozenset()
    """Keys that earlier versions did not write; a key is absent where it has its default."""

    REMEDY: ClassVar[str] = ""
    """How a damaged file is made anew, for the message about it."""

    @model_serializer(mode="wrap")
    def _without_defaults_of_later_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            key: value
            for key, value in values.items()
            if key not in self.LATER_KEYS or getattr(self, key) != fields[key].default
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises UnreadableRun for a file that is missing, damaged or of another form."""
        return cls._of(read_json(path, cls.REMEDY), path)

    @classmethod
    def _of(cls, values: Any, path: Path) -> Self:
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            why = f"{path}: {first_problem(error)}"
            raise UnreadableRun(f"{why}; {cls.REMEDY}" if cls.REMEDY else why) from None

    @classmethod
    def read_lines(cls, path: Path, *, skip_other_forms: bool = False) -> list[Self]:
        """The lines of a jsonl file, without a last line that is not complete; none without the file.

        Raises UnreadableRun for a line that is damaged or, unless those are skipped, of another form.
        """
        lines = []
        for number, line in enumerate(whole_lines(path), 1):
            try:
                lines.append(cls.model_validate_json(line))
            except ValidationError as error:
                if not skip_other_forms or error.errors()[0]["type"] == "json_invalid":
                    what = f"line {number}: {first_problem(error)}"
                    raise UnreadableRun(f"{path} is damaged: {what}") from None
        return lines

    def as_json(self) -> dict[str, Any]:
        """Plain values, as the file holds them."""
        values = self.model_dump(mode="json", by_alias=True)
        return values | {old: values[new] for new, old in self.OLD_KEYS.items()}


def first_problem(error: ValidationError) -> str:
    """The place of the first value that is wrong, and why it is wrong."""
    first = error.errors()[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


class OrderedJsonFile(JsonFile):
    """A JSON file that is read, changed and written back, or a part of one.

    Keys are written in the order in which they were read or set. A key that was neither read nor
    set stays absent, as does one of `LATER_KEYS` that has its default, and a key that this version
    does not know stays in the file.
    """

    _keys: dict[str, Any] = PrivateAttr(default_factory=dict)
    """Every key in its order, with the value of an unknown key."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `write_json` takes them."""
        return self.model_dump(mode="json", exclude_unset=True)

    def __eq__(self, other: object) -> bool:
        """Whether both are written alike, up to the order of keys."""
        return type(self) is type(other) and self.as_json() == other.as_json()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in type(self).model_fields:
            self._keys.setdefault(name)

    @model_validator(mode="wrap")
    @classmethod
    def _remember_order(
        cls, values: Any, handler: ModelWrapValidatorHandler[OrderedJsonFile]
    ) -> OrderedJsonFile:
        read = handler(values)
        if isinstance(values, dict):
            read._keys = {k: None if k in cls.model_fields else value for k, value in values.items()}
        return read

    @model_serializer(mode="wrap")
    def _in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        known = type(self).model_fields
        return {
            key: values[key] if key in known else kept
            for key, kept in self._keys.items()
            if key not in self.LATER_KEYS or getattr(self, key) != known[key].default
        }


def _restored(values: Any) -> Any:
    return with_bounds(values) if isinstance(values, dict) else values


Figure = Annotated[Estimate, BeforeValidator(_restored), PlainSerializer(Estimate.as_json)]
"""An estimate, as `Estimate.as_json` writes it."""
KeptFinding = Annotated[Finding, PlainSerializer(Finding.as_json)]
"""A finding, as `Finding.as_json` writes it."""


class Seconds(JsonFile):
    """What a result cost."""

    seconds: float | None = None


class ResultJson(JsonFile):
    """The result.json of a folder. It is written last and says that all is there.

    What a clock measured is in timings.json beside it, so the same computation gives the same
    result.json. Version 0.1.0 has all of it in result.json.
    """

    REMEDY = "set it aside, and the command that made it makes it anew"

    CLOCKS: ClassVar[Mapping[str, frozenset[str]]] = {"cost": frozenset({"seconds"})}
    """The keys of timings.json, by the part of the result that they belong to."""

    def save(self, folder: Path) -> None:
        """Writes timings.json and result.json, and removes what an interrupted computation kept."""
        result = self.as_json()
        write_json(folder / TIMINGS, {part: _taken(result[part], keys) for part, keys in self.CLOCKS.items()})
        write_json(folder / RESULT, result)
        _remove_partial(folder)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises UnreadableRun for a file that is missing, damaged or of another form."""
        result, timings = read_json(path, cls.REMEDY), path.with_name(TIMINGS)
        if isinstance(result, dict) and timings.is_file():
            result = _joined(
                result, read_json(timings, "set it aside; it holds only the seconds"), list(cls.CLOCKS)
            )
        return cls._of(result, path)

    @classmethod
    def read_finished(cls, folder: Path, fingerprint: str) -> Self | None:
        """The folder's result.json, if it is of this fingerprint."""
        path = folder / RESULT
        if not path.is_file() or read_json(path, cls.REMEDY)["fingerprint"] != fingerprint:
            return None
        _remove_partial(folder)
        return cls.read(path)


def _remove_partial(folder: Path) -> None:
    (folder / PARTIAL).unlink(missing_ok=True)


def _taken(part: Any, keys: frozenset[str]) -> Any:
    """The entries with these keys, which are removed from a part of a result or from each of its
    parts."""
    if isinstance(part, list):
        return [_taken(each, keys) for each in part]
    return {key: part.pop(key) for key in sorted(keys) if key in part}


def _joined(result: Any, timings: Any, parts: Sequence[str] | None = None) -> Any:
    """A result with its timings, where these have its form."""
    if isinstance(result, list) and isinstance(timings, list):
        return [*(_joined(*pair) for pair in zip(result, timings)), *result[len(timings) :]]
    if not isinstance(result, dict) or not isinstance(timings, dict):
        return result
    if parts is None:
        return result | timings
    return result | {part: _joined(result.get(part, {}), timings[part]) for part in parts if part in timings}
