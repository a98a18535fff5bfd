"""The files of a split: manifest, table and indexes of its tar shards."""
