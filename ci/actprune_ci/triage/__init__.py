"""What somebody decided about a change: expected, ignored until, a new baseline from here."""
