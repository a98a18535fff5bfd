"""Names that systems, file browsers and editors leave behind: never classes, splits, samples or shards.

Whoever lists a folder or a tar asks here, so that all agree; what was passed over is counted under
``HEADING`` in the report.
"""

from __future__ import annotations

HEADING = "hidden and system files"
_SYSTEM_NAMES = frozenset(
    {
        # macOS; Windows; Synology and QNAP; Linux; Python
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("$recycle.bin", "recycler", "system volume information", "found.000"),
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
        *("lost+found", "__pycache__"),
    }
)


def is_system_name(name: str) -> bool:
    """Whether one name, without its folder, is hidden (begins with a dot) or the system's own."""
    return (name.startswith(".") and name not in (".", "..")) or name.casefold() in _SYSTEM_NAMES


def is_system_path(path: str) -> bool:
    """Whether any part of a relative path with slashes, such as a tar member's name, is so."""
    return any(map(is_system_name, path.split("/")))
