"""An engine whose answers are hashes of what it is shown and asked: fast, the same anywhere, and it opens no model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from infimed.runtime.engine import Completion, OptionScore, PrefixHandle, Sampling, Scores
from infimed.runtime.messages import ImagePart, Message


class HashedEngine:
    """seen: the keys of all images that were shown. fail_after: so many questions are answered, then it breaks."""

    level = "hashed"

    def __init__(self, fail_after: int = 10**9, wait_s: float = 0.0) -> None:
        self.seen: set[str] = set()
        self.asked, self.fail_after, self.wait_s = 0, fail_after, wait_s

    def _digest(self, messages: Sequence[Message], more: str) -> bytes:
        parts = [
            part.key if isinstance(part, ImagePart) else part.text for message in messages for part in message.parts
        ]
        self.seen |= {part.key for message in messages for part in message.parts if isinstance(part, ImagePart)}
        return hashlib.sha256("\0".join((*parts, more)).encode()).digest()

    def _count(self) -> None:
        self.asked += 1
        time.sleep(self.wait_s)
        if self.asked > self.fail_after:
            raise RuntimeError("the power went")

    def score(self, messages: Sequence[Message], options: Sequence[str], prefix: PrefixHandle | None = None) -> Scores:
        self._count()
        values = [int.from_bytes(self._digest(messages, option)[:4], "big") / 2**32 for option in options]
        return Scores(tuple(OptionScore(*one, 1) for one in zip(options, [-v for v in values], strict=True)), 1, 0)

    def generate(self, messages: Sequence[Message], sampling: Sampling = Sampling()) -> Completion:
        self._count()
        return Completion(self._digest(messages, "reply").hex()[:8], (1,), (-1.0,), "stop", 1, 0)

    def close(self) -> None:
        pass
