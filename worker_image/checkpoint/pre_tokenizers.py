"""How byte-level BPE tokenizers cut text before they merge: GGUF files give only the name of it.

A name we do not know is refused by the caller, because a wrong split changes what the model reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tokenizers import Regex, normalizers, pre_tokenizers

CONTRACTIONS: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Cutting:
    """What a name of `tokenizer.ggml.pre` stands for."""

    pattern: str | None = None
    """Pieces that are merged alone; None: GPT-2's own pattern."""
    digits_alone: bool = False
    ignore_merges: bool = False
    """A piece that is a token as a whole is taken without looking at merges."""
    add_bos: bool = False
    """Where the file does not say."""
    composed: bool = False
    """Text is brought into Unicode's form NFC first."""

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.composed else None

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        steps: list[pre_tokenizers.PreTokenizer] = []
        if self.digits_alone:
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        if self.pattern is not None:
            steps.append(pre_tokenizers.Split(Regex(self.pattern), behavior="isolated"))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.pattern is None))
        return pre_tokenizers.Sequence(steps)


_LLAMA_3: Final = Cutting(
    pattern=rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{REST}", ignore_merges=True, add_bos=True
)
CUTTINGS: Final[Mapping[str, Cutting]] = {
    "gpt-2": Cutting(),
    "default": Cutting(),
    "smollm": Cutting(digits_alone=True),
    "llama-bpe": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "qwen2": Cutting(pattern=rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{REST}", composed=True),
}
