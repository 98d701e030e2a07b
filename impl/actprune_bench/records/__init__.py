"""Records of measurements, from the process that makes them to results.json."""
