"""Which importance a GGUF level's tensors are quantised by: activations of a calibration, under GGUF's names.

As in llama.cpp, the token embedding has none (it multiplies nothing), the output head only where it was measured, and
the vision tower none. Refuses a level that needs what was not given. Knows no file.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import InfimedError
from ..runtime.levels import QuantLevel
from ..runtime.llama_files import EMBEDDING
from ..runtime.llama_mix import Importance
from ..runtime.tensors import HEAD
from .activations import Activations
from .gguf_model import GgufModel


class NoImportance(InfimedError):
    """A level is to weigh its errors by an importance matrix, and there is none."""


def importance_of(model: GgufModel, levels: Sequence[QuantLevel], activations: Activations | None) -> Importance | None:
    """Return the importance matrix of a text model, None where no level asks for one.

    Raises NoImportance, or ActivationsError naming the weight that was not measured or has another width.
    """
    asked = [row for row in levels if row.imatrix]
    if not asked:
        return None
    if activations is None:
        raise NoImportance(
            f"level {asked[0].name} weighs its errors by an importance matrix, and there is no calibration to take it "
            "from; add --calibration DATASET"
        )
    return {
        tensor.name: activations.importance(tensor.source, tensor.shape[-1])
        for tensor in model.tensors
        if not tensor.is_vector
        and tensor.name != EMBEDDING
        and (tensor.name != HEAD or tensor.source in activations.mean_square)
    }
