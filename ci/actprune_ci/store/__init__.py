"""Runs kept as Parquet files: recorded, queried, exported."""
