"""Makes text safe to show: a file's name, chosen by whoever made the file, must not steer the terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return the text with every character that cannot be seen written as an escape, such as \x1b or \u202e."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
