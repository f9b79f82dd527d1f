"""The base of every JSON file on the disk: one model beside the code that writes the file, which readers import."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from stresslens.core.types import Estimate


class JsonFile(BaseModel):
    """A JSON file, or a part of one. It is lenient when read.

    Keys that this version does not know are left alone, since a later version may have written them. A field that came
    later has a default, since an earlier version did not write it.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


def _with_nan(values: Any) -> Any:
    """JSON has no NaN: a bound that is not finite was written as null."""
    if not isinstance(values, dict):
        return values
    return {k: math.nan if v is None and k in ("value", "low", "high") else v for k, v in values.items()}


Figure = Annotated[Estimate, BeforeValidator(_with_nan)]
"""An estimate, as `Estimate.as_json` writes it."""
