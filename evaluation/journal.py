"""Writes the predictions of one run as they come, and goes on where a killed process stopped.

A torn last line is dropped, finished rows are kept, and the final bytes are those of an unbroken run. Rows lie in
<run>.jsonl.part until the last one is there; the meta file is written last. Knows no engine and no dataset.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..runtime.files import canonical_json, sha256_file, write_bytes
from .jsonform import FormError, from_json, parse, to_json
from .prediction import Identity, Prediction, PredictionError, RunFiles, RunMeta, read_meta


class Journal:
    """Appends the rows of one run and finishes it. Use as a context; one process at a time writes a run.

    ids: the examples in the order of the rows. `done` tells how many rows were already there.
    """

    def __init__(self, folder: Path, identity: Identity, ids: Sequence[str]) -> None:
        self.files = RunFiles(folder, identity.run)
        self.identity = identity
        self.ids = tuple(ids)
        self.done = 0
        self._part = -1
        self._session: tuple[int, float] = (0, 0.0)

    def __enter__(self) -> Journal:
        self.files.rows.parent.mkdir(parents=True, exist_ok=True)
        if self.finished():
            self.done = len(self.ids)
            return self
        self._part = _lock(self.files.part)
        try:
            if not self.finished():
                self._take_up()
            else:  # another process finished the run while this one waited for the lock
                self.files.part.unlink(missing_ok=True)
                self.done = len(self.ids)
        except BaseException:
            os.close(self._part)
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._part >= 0:
            rows, seconds = self._session
            if seconds > 0:
                with self.files.speed.open("ab") as log:
                    log.write((json.dumps({"rows": rows, "seconds": round(seconds, 3)}) + "\n").encode())
            os.close(self._part)
            self._part = -1

    def append(self, prediction: Prediction, seconds: float) -> None:
        """Write the next row. seconds: how long it took, for the log beside the data."""
        if prediction.example_id != self.ids[self.done]:
            raise ValueError(f"row {self.done} is of {prediction.example_id!r}, not of {self.ids[self.done]!r}")
        line = memoryview(prediction.to_line())
        while line:
            line = line[os.write(self._part, line) :]
        self.done += 1
        self._session = (self._session[0] + 1, self._session[1] + seconds)

    def finish(self) -> RunMeta:
        """Give the rows their final name, then write the meta file: its existence says that the run is complete."""
        files = self.files
        if self.done != len(self.ids):
            raise ValueError(f"{self.done} of {len(self.ids)} rows are written")
        if not self.finished():
            if files.part.is_file() and (files.part.stat().st_size or not files.rows.is_file()):
                os.fsync(self._part)
                os.replace(files.part, files.rows)
            meta = RunMeta(self.identity, self.done, sha256_file(files.rows))
            write_bytes(files.meta, canonical_json(to_json(meta)))
        files.started.unlink(missing_ok=True)
        files.part.unlink(missing_ok=True)
        return from_json(RunMeta, parse(files.meta.read_bytes()), files.meta.name)

    def finished(self) -> bool:
        """Return whether the run is complete. Raises PredictionError for another run of its name, or changed rows."""
        meta = read_meta(self.files.rows.parent, self.identity.run)
        if meta is None:
            return False
        self._refuse_other(meta.identity, "holds")
        if sha256_file(self.files.rows) != meta.predictions_sha256:
            raise PredictionError(f"{self.files.rows} changed after it was written; remove the run's files first")
        return True

    def _refuse_other(self, found: Identity, verb: str) -> None:
        if difference := self.identity.difference(found):
            raise PredictionError(
                f"{self.files.rows.parent} {verb} a run {self.identity.run!r} whose {difference}; "
                "name another folder or remove that run's files"
            )

    def _take_up(self) -> None:
        """Go on with what an earlier process left, or begin."""
        files = self.files
        if files.started.is_file():
            try:
                found = from_json(Identity, parse(files.started.read_bytes()), files.started.name)
            except FormError as error:
                raise PredictionError(f"{files.started} cannot be read ({error}); remove it") from None
            self._refuse_other(found, "holds an unfinished")
        elif files.rows.exists() or os.fstat(self._part).st_size:
            raise PredictionError(f"{files.rows} or its part belongs to no known run; remove it or name another folder")
        else:
            write_bytes(files.started, canonical_json(to_json(self.identity)))
        if files.rows.is_file() and not os.fstat(self._part).st_size:
            # killed between the last rename and the meta file
            self.done = self._whole_rows(files.rows.read_bytes())[0]
            if self.done != len(self.ids):
                raise PredictionError(f"{files.rows} is not the whole run; remove the run's files and evaluate again")
            return
        self.done, kept_bytes = self._whole_rows(files.part.read_bytes())
        os.ftruncate(self._part, kept_bytes)
        os.lseek(self._part, 0, os.SEEK_END)

    def _whole_rows(self, data: bytes) -> tuple[int, int]:
        """Return how many leading rows are whole and in their place, and where they end."""
        count, end = 0, 0
        for line in data.split(b"\n")[:-1]:
            try:
                row = from_json(Prediction, parse(line), "row")
            except FormError:
                break
            if count >= len(self.ids) or row.example_id != self.ids[count]:
                break
            count, end = count + 1, end + len(line) + 1
        return count, end


def _lock(path: Path) -> int:
    """Open a file for one process; the lock dies with the process."""
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except OSError:
            os.close(handle)
            raise PredictionError(
                f"another process is writing {path.name}; wait for it or name another folder"
            ) from None
        os.close(handle)
