"""What lies in a folder, file by file: its bytes, or what shows that a file was written anew."""

from __future__ import annotations

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes by its path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def traces(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, links and time of the last change (ns) of the folder and all in it, by path."""
    found = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {str(path.relative_to(folder)): (s.st_ino, s.st_nlink, s.st_mtime_ns) for path, s in found.items()}
