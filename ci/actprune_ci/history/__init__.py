"""Changes and creep over the commits of a branch."""
