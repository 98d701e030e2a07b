"""Sizes in bytes, as text."""

import re

from actprune_common.errors import expected

SIZE = "a size such as 4GiB or 800MB"
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtpe", 1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}


def parse_bytes(text: str, argument: str = "budget") -> int:
    """Return the bytes that a text such as 4GiB or 800MB says.

    Args:
        text: a number and a unit, in powers of 1000 (kB, MB, ...) or 1024 (KiB, MiB, ...), in
            whatever case; without a unit it is bytes.
        argument: what an error calls it.

    Returns:
        Whole bytes, rounded down.

    Raises:
        InputError: any other text.

    Example:
        >>> actprune.parse_bytes("1.5KiB")
        1536
    """
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*([a-z]*)\s*", str(text), re.IGNORECASE)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise expected(argument, SIZE, repr(text))
    return int(float(found[1]) * unit)
