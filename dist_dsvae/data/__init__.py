"""From raw data sets to tar shards, and from tar shards to batches."""
