"""Whether a change is a regression."""
