"""Notes: what a reader of figures must know, with a code for programs and a text for people."""

from typing import Any, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

Code = Literal[
    "clock-jumped",
    "device-lost",
    "slow-governor",
    "processor-throttled",
    "gpu-throttled",
    "other-work",
    "not-imported",
    "budget-used-up",
    "interrupted",
    "no-calibration",
    "other-calibration",
    "other",
]
BEFORE_CODES: dict[str, Code] = {"clock jumped": "clock-jumped", "device lost": "device-lost"}
"""How the notes began that broke a machine while notes were texts alone."""


@dataclass(frozen=True)
class Note:
    """One note of an A/B run or of a gate's report."""

    code: Code
    """What policies match."""
    text: str
    """What people read."""

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, given: Any) -> Any:
        """A note in a file from before codes is its text: its code is derived here, once."""
        if not isinstance(given, str):
            return given
        found = (code for begins, code in BEFORE_CODES.items() if given.startswith(begins))
        return {"code": next(found, "other"), "text": given}
