"""infimed takes a medical vision-language model to an edge device and proves what quantisation did to it.

This file holds only what every room needs: the version, the root of all errors, and the defaults that keep the
process offline and silent. It imports nothing of the package and nothing outside the standard library.
"""

import os

__version__ = "0.1.0"

# onnxruntime reads this once, while it is imported: later calls do not stop its events (docs/decisions/003).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# No library of the chain may reach a model hub unless the user says so.
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")
# llama.cpp spins idle threads otherwise; two spinning teams on two cores fall to a tenth of their speed.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class InfimedError(Exception):
    """Every error that a user can act on: what happened, the value, what to do, in one line."""

    exit_code = 2


class CheckFailed(InfimedError):
    """A check was made and said no (a changed file, a drift beyond the margin): exit code 1."""

    exit_code = 1


class MissingExtra(InfimedError):
    """A library of an optional extra is not installed; the message names the command, as README.md gives it."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(f"{module} is not installed; in infimed's source folder run: pip install '.[{extra}]'")
        self.extra = extra
        self.module = module
