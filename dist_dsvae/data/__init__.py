"""From tar shards to batches: order, reading, decoding, and where shards are found."""
