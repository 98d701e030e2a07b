"""A module per command of `actprune-ci`, each with a function `command`."""
