"""Dates, which tools write in many ways: as this project writes them, and as instants."""

import re
from datetime import datetime, timezone

YEARS = range(1970, 2200)
"""In which a benchmark can have run."""
ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?")


def utc(date: str) -> str:
    """The date in ISO 8601 and UTC; one without a zone is taken for UTC.

    Raises ValueError for anything else, and for years in which nothing was measured.
    """
    if not (found := ISO.fullmatch(date)):
        raise ValueError(f"expected ISO 8601, got {date!r:.60}")
    day, fraction, zone = found.groups()
    zone = zone if zone not in (None, "Z") else "+00:00"
    # Python 3.10 takes three or six digits alone
    whole = f"{day}.{(fraction or '')[:6].ljust(6, '0')}{zone}"
    try:
        at = datetime.fromisoformat(whole).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise ValueError(f"expected ISO 8601, got {date!r:.60}") from None
    if at.year not in YEARS:
        raise ValueError(f"expected a year from {YEARS[0]} to {YEARS[-1]}, got {date!r:.60}")
    return at.isoformat()


def instant(date: str) -> datetime:
    """Return when an ISO 8601 date is, to compare it by. Raises ValueError as `utc` does."""
    return datetime.fromisoformat(utc(date))
