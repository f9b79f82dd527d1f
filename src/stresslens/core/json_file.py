"""Base model of the JSON files in run folders.

Each file's model is beside the code that writes the file; readers import it from there.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from stresslens.core.types import Estimate


class JsonFile(BaseModel):
    """A JSON file, or a part of one, that is read leniently.

    Unknown keys are ignored, because a later version may have written them. A field that was added
    later has a default, because an earlier version did not write it.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


def _with_nan(values: Any) -> Any:
    """Restores NaN: JSON has none, so a bound that is not finite is written as null."""
    if not isinstance(values, dict):
        return values
    return {k: math.nan if v is None and k in ("value", "low", "high") else v for k, v in values.items()}


Figure = Annotated[Estimate, BeforeValidator(_with_nan)]
"""An estimate, as `Estimate.as_json` writes it."""
