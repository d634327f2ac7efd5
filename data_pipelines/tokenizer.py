"""The tokenizer of a checkpoint folder, from whichever of its files are there.

Qwen2 checkpoints hold one `tokenizer.json`, or the older set: `vocab.json`, `merges.txt`, and the
added tokens in `added_tokens.json` or `tokenizer_config.json`. Both give the same ids.
"""

from typing import Any

from etils import epath
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json

TURN = "<|im_start|>"
END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN, END)

WHOLE = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
ADDED, SETTINGS = "added_tokens.json", "tokenizer_config.json"

# Where Qwen2 cuts a text before it merges bytes: English contractions, words with the one mark
# before them, single digits, runs of marks with the line ends after them, line ends, spaces.
PIECES = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def tokenizer_files(folder: epath.PathLike) -> list[epath.Path]:
    """The files that `load_tokenizer` reads, in a fixed order.

    Raises:
      InputError: the folder holds neither form.
    """
    folder = epath.Path(folder)
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    if not (folder / VOCABULARY).exists() or not (folder / MERGES).exists():
        raise InputError(
            f"{folder / WHOLE}: not found; a checkpoint folder needs its {WHOLE}, or its "
            f"{VOCABULARY} and {MERGES}"
        )
    names = (VOCABULARY, MERGES, ADDED, SETTINGS)
    return [folder / name for name in names if (folder / name).exists()]


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """A checkpoint's tokenizer: from `tokenizer.json`, else from `vocab.json` and `merges.txt`.

    The folder is local or in a bucket (gs://).

    Raises:
      InputError: a file is missing, cannot be read, or lacks the ChatML tokens.
    """
    files = tokenizer_files(folder)
    tokenizer = _read_whole(files[0]) if files[0].name == WHOLE else _build(epath.Path(folder))
    for token in SPECIAL_TOKENS:
        if tokenizer.token_to_id(token) is None:
            named = " or ".join(str(path) for path in files if path.name != MERGES)
            raise InputError(f"{named}: has no token {token}; a ChatML (Qwen2) tokenizer is needed")
    # Trainers save theirs in the file; here texts are neither cut nor filled up unseen.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_whole(path: epath.Path) -> Tokenizer:
    content = _read_text(path)
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer file ({_line(error)})") from error


def _build(folder: epath.Path) -> Tokenizer:
    """Qwen2's recipe around the folder's vocabulary."""
    path = folder / VOCABULARY
    vocabulary = _read_object(path)
    if not vocabulary or any(type(number) is not int for number in vocabulary.values()):
        raise InputError(f"{path}: not a vocabulary; it must give each token its number")
    merges = _read_merges(folder / MERGES)
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            f"{folder / MERGES}: does not fit {path.name} ({_line(error)}); fetch both again"
        ) from error
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = _read_added(folder)
    for number in sorted(added):
        # The library gives out the next free number, or the one that the vocabulary has.
        tokenizer.add_tokens([added[number]])
        content = added[number].content
        if tokenizer.token_to_id(content) != number:
            raise InputError(
                f"{folder}: its added token {content} should be {number}, but "
                f"{tokenizer.token_to_id(content)} comes next; fetch {VOCABULARY}, {ADDED} and "
                f"{SETTINGS} of one checkpoint"
            )
    return tokenizer


def _read_merges(path: epath.Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        # The heading; a merge may begin with "#" too.
        if not line or line.startswith("#version"):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise InputError(f"{path}: line {number} is not two parts with a space between")
        merges.append((parts[0], parts[1]))
    return merges


def _read_added(folder: epath.Path) -> dict[int, AddedToken]:
    """Added tokens by number, from the two files that may list them."""
    entries: dict[int, dict[str, Any]] = {}
    if (folder / ADDED).exists():
        for content, number in _read_object(folder / ADDED).items():
            if type(number) is not int:
                raise InputError(f"{folder / ADDED}: {content} has no whole number")
            entries[number] = {"content": content}
    path = folder / SETTINGS
    listed = _read_object(path).get("added_tokens_decoder", {}) if path.exists() else {}
    if not isinstance(listed, dict):
        raise InputError(f"{path}: added_tokens_decoder must be an object")
    for key, entry in listed.items():
        if not key.isdecimal() or not isinstance(entry, dict) or "content" not in entry:
            raise InputError(f"{path}: added_tokens_decoder.{key} must be a number with its token")
        known = entries.get(int(key), entry)["content"]
        if known != entry["content"]:
            raise InputError(
                f"{path}: token {key} is {entry['content']}, in {ADDED} {known}; fetch both again"
            )
        entries[int(key)] = entry
    return {
        number: AddedToken(
            str(entry["content"]),
            special=bool(entry.get("special", True)),
            normalized=bool(entry.get("normalized", False)),
            single_word=bool(entry.get("single_word", False)),
            lstrip=bool(entry.get("lstrip", False)),
            rstrip=bool(entry.get("rstrip", False)),
        )
        for number, entry in entries.items()
    }


def _read_object(path: epath.Path) -> dict[str, Any]:
    try:
        content = parse_json(_read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object; fetch it again")
    return content


def _read_text(path: epath.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({_line(error)}); fetch it again") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
