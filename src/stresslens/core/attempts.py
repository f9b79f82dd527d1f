"""Parts of a computation that do not depend on each other: after one fails, the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stresslens.core.errors import ConfigError, DataError, StresslensError


class Attempts:
    """Keeps the errors of parts, to raise them when all parts have been tried."""

    def __init__(self) -> None:
        self._errors: list[Exception] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Tries one part. Its error is kept; the message of a StresslensError names the part."""
        try:
            yield
        except StresslensError as error:
            named = str(error) if name in str(error) else f"{name}: {error}"
            self._errors.append(_error_like(error, named))
        except Exception as error:
            self._errors.append(error)

    def unsuitable(self) -> list[str]:
        """Takes out the errors that say that a part does not suit what it was asked for, and returns
        their messages."""
        taken = [str(error) for error in self._errors if isinstance(error, ConfigError)]
        self._errors = [error for error in self._errors if not isinstance(error, ConfigError)]
        return taken

    def raise_failed(self) -> None:
        """Raises the error of the parts that failed: an unexpected one as it is, else one error with a
        line for each."""
        unexpected = [error for error in self._errors if not isinstance(error, StresslensError)]
        if unexpected:
            raise unexpected[0]
        if self._errors:
            raise _error_like(self._errors[0], "\n".join(map(str, self._errors)))


def _error_like(error: Exception, message: str) -> StresslensError:
    """An error of the same kind with another message."""
    kind = next((kind for kind in (ConfigError, DataError) if isinstance(error, kind)), StresslensError)
    return kind(message)
