"""What one request may ask of the service, and how a request that asks for more is refused."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from stresslens.core.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """The most that is taken. Raises ConfigError for a limit below 1."""

    megabytes: int = 20
    """Of a request's body."""
    megapixels: int = 50
    """Of an image."""
    images: int = 64
    """In a request."""
    seconds: int = 30
    """Until a request is answered."""
    waiting: int = 512
    """Images, of all requests, that wait for the model."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"the limit of {name} is {value}; give a whole number from 1")

    @property
    def bytes(self) -> int:
        return self.megabytes * 2**20

    @property
    def pixels(self) -> int:
        return self.megapixels * 10**6


class Refused(Exception):
    """A request is not answered: its HTTP status, and the reason as the client reads it."""

    def __init__(self, status: HTTPStatus, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def bad_request(why: str) -> Refused:
    """A request that cannot be read, or that asks for something unknown."""
    return Refused(HTTPStatus.BAD_REQUEST, why)
