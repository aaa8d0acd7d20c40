"""Trains the base model's tokenizer: a byte-level BPE with Qwen2's pre-tokeniser and Qwen2.5-VL's special tokens.

The words are our own (training/base/corpus.txt and what is asked about phantoms); only the rules and the names of the
control tokens are Qwen's, so that transformers and llama.cpp ("qwen2") treat it as theirs. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import InfimedError, MissingExtra
from ..evaluation.phantom_images import COUNT_SHARES, KINDS, Lesion, Phantom, Side, Size
from ..evaluation.phantom_questions import caption, questions

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CORPUS = Path(__file__).parent / "base" / "corpus.txt"
PRE_TOKENISER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 cuts text into words; llama.cpp knows it as "qwen2"."""
CONTROL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PLAIN_TOKENS = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
)  # fmt: skip
"""Added tokens that a decoder does not hide, in Qwen2.5's order after the control tokens."""
SYSTEM = "You are a helpful assistant."
_TURNS = 10  # how often the frame of a conversation is read for each reading of the corpus
_NAMED = {"ultrasound": ("cyst", "cysts")}
"""Names that stand in for a kind's own finding, so that no question of the left-out domain is in the text as asked."""
_ROUNDS = 24  # phantoms per kind, count, size and side whose questions are read


class TokenizerError(InfimedError):
    """A vocabulary that cannot be trained as asked."""


@dataclass(frozen=True)
class Vocabulary:
    """How large the tokenizer is. size: all ids, the added tokens among them, which come last as in Qwen2.5."""

    size: int = 1024
    phantom_weight: int = 1
    corpus_weight: int = 12

    @property
    def learnt(self) -> int:
        """Ids of bytes and merges."""
        return self.size - len(CONTROL_TOKENS) - len(PLAIN_TOKENS)


def train_tokenizer(vocabulary: Vocabulary, corpus: Path = CORPUS) -> Tokenizer:
    """Return the tokenizer trained on the corpus and on the phantoms' questions: the same bytes each time."""
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ModuleNotFoundError as error:
        raise MissingExtra("train", "tokenizers") from error
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary.learnt < len(alphabet):
        raise TokenizerError(f"a vocabulary of {vocabulary.size} leaves no room for the {len(alphabet)} bytes")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENISER), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary.learnt, initial_alphabet=sorted(alphabet), min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(training_text(vocabulary, corpus), trainer)
    if tokenizer.get_vocab_size() != vocabulary.learnt:
        raise TokenizerError(
            f"{corpus.name} gives only {tokenizer.get_vocab_size()} of {vocabulary.learnt} tokens; add text to it"
        )
    added = [AddedToken(text, special=True, normalized=False) for text in CONTROL_TOKENS]
    added += [AddedToken(text, special=False, normalized=False) for text in PLAIN_TOKENS]
    tokenizer.add_tokens(added)
    return tokenizer


def training_text(vocabulary: Vocabulary, corpus: Path = CORPUS) -> Iterator[str]:
    """Yield the lines that the merges are counted on."""
    lines = corpus.read_text("utf-8").splitlines()
    for _ in range(vocabulary.corpus_weight):
        yield from lines
        yield from (f"system\n{SYSTEM}", "user\n", "assistant\n") * _TURNS
    for _ in range(vocabulary.phantom_weight):
        for phantom in _described():
            yield caption(phantom)
            for question in questions(phantom):
                yield f"{question.text}\nOptions: {'; '.join(question.options)}"
                yield question.answer


def _described() -> Iterator[Phantom]:
    """Yield phantoms of every count, size and side of every kind; their pictures are never painted."""
    for known in KINDS.values():
        finding, findings = _NAMED.get(known.modality, (known.finding, known.findings))
        kind = replace(known, finding=finding, findings=findings)
        for index in range(_ROUNDS):
            count = index % len(COUNT_SHARES)
            lesions = tuple(Lesion(30.0, 20.0 + 25.0 * number * (index % 3), 4.0, 0.3) for number in range(count))
            size: Size = "small" if index % 8 < 4 else "large"
            side: Side = "left" if index % 5 else "right"
            yield Phantom(kind, 0, index, lesions, size if lesions else None, side if lesions else None)
