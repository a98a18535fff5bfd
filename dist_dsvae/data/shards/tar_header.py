"""What training asks of the block before a member's content; ``index`` asks the same beforehand."""

from __future__ import annotations

BLOCK = 512


def promises(header: bytes | memoryview, size: int) -> bool:
    """Whether a block is the header of a USTAR, GNU or PAX member whose content takes ``size`` bytes."""
    if bytes(header[257:262]) != b"ustar":
        return False
    digits = bytes(header[124:136]).strip(b" \0")
    return digits.isdigit() and size == _octal(digits)


def _octal(digits: bytes) -> int:
    try:
        return int(digits, 8)
    except ValueError:
        return -1
