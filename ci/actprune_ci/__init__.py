"""The harness: it measures, records, judges and publishes, without torch."""
