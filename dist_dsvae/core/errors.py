"""The errors about data that a user can mend."""

from __future__ import annotations


class DataError(ValueError):
    """Something about the data is not as it must be.

    Its text is a sentence for the person at the terminal: what was found, where (directory, file,
    shard, key), what is allowed, and what to do.
    """


class CorruptSampleError(DataError):
    """One sample cannot be read: the only error to which data.corrupt_sample applies."""
