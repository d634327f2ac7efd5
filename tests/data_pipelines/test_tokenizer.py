"""Tokenizer files: both forms give the same ids, and broken ones are refused in one line."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_pipelines.errors import InputError
from data_pipelines.tokenizer import load_tokenizer, tokenizer_files
from tests.qwen_vocabulary import ADDED, SPLIT, qwen_ranks, qwen_tokenizer, qwen_vocabulary

TEXT = "<|im_start|>user\nWhat comes first in the video?<|im_end|>\n"
# What Qwen2 cuts in its own way, and what NFC joins, besides any character at all.
ODD = ["\n", "\n\n", " \n", "\r\n", "  ", "\t", "'s", "'LL", "12.50s", "user", "What", "...", "#"]
ODD += ["?\n\n", "é", "e\u0301", "你好", "🎬", "<image>"]
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs", "Cn"])),
        st.sampled_from([*ODD, *ADDED]),
    )
).map("".join)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2's tokenizer as vocab.json, merges.txt and added_tokens.json."""
    folder = tmp_path_factory.mktemp("parts")
    known = qwen_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(known.vocabulary, ensure_ascii=False), "utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in known.merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", "utf-8")
    (folder / "added_tokens.json").write_text(json.dumps(ADDED))
    return folder


@pytest.fixture(scope="module")
def built(parts: Path) -> Tokenizer:
    return load_tokenizer(parts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("whole")
    qwen_tokenizer().save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


# ------------------------------------------------------------------------------- Qwen2's own ids


def test_the_ids_are_qwens(built: Tokenizer, whole: Tokenizer) -> None:
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    expected = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198]
    for one in (built, whole):
        assert one.encode(system).ids == expected
        assert one.encode("<|im_start|>user\n").ids == [151644, 872, 198]
        assert one.encode("<|im_start|>assistant\n").ids == [151644, 77091, 198]
        assert one.encode("<|endoftext|>\n\n").ids == [151643, 271]
        assert one.get_vocab_size() == 151646
        assert one.decode([151644, 9707, 1879, 151645]) == "Hello world"


@given(TEXTS)
@settings(deadline=None, max_examples=150)
def test_both_forms_give_equal_ids(built: Tokenizer, whole: Tokenizer, text: str) -> None:
    assert built.encode(text).ids == whole.encode(text).ids
    # Not every wrong cut shows in the ids: with this vocabulary digits never merge, for one.
    cuts = [one.pre_tokenizer.pre_tokenize_str(text) for one in (built, whole)]
    assert cuts[0] == cuts[1]
    assert built.decode(built.encode(text).ids) == whole.decode(whole.encode(text).ids)


@pytest.fixture(scope="module")
def tiktoken_ids(parts: Path) -> Callable[[str], list[int]]:
    """Qwen's first tokenizer, which works on the ranks and knows no merges."""
    tiktoken = pytest.importorskip("tiktoken")
    encoding = tiktoken.Encoding(
        "qwen", pat_str=SPLIT, mergeable_ranks=qwen_ranks(), special_tokens=ADDED
    )
    return lambda text: encoding.encode(unicodedata.normalize("NFC", text), allowed_special="all")


@given(TEXTS)
@settings(deadline=None, max_examples=150)
def test_ids_are_those_of_the_ranks(
    built: Tokenizer, tiktoken_ids: Callable[[str], list[int]], text: str
) -> None:
    assert built.encode(text).ids == tiktoken_ids(text)


def test_ids_are_those_of_transformers_from_the_same_files(
    built: Tokenizer, parts: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(parts / name, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(settings_with(ADDED))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    for text in ("<|im_start|>user\n 12.50s, cafe\u0301?\n\nIt's  OK<|im_end|>", *ODD):
        assert ours.encode(text).ids == built.encode(text).ids == theirs(text).input_ids


# ------------------------------------------------------------------------------- the older form


def settings_with(added: dict[str, int], **entry: bool) -> str:
    listed = {str(number): {"content": token} | entry for token, number in added.items()}
    return json.dumps({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": listed})


def split_up(tokenizer: Tokenizer, folder: Path) -> dict[str, int]:
    """A small tokenizer as vocab.json and merges.txt; returns the numbers for its added tokens."""
    model = json.loads(tokenizer.to_str())["model"]
    plain = sorted(model["vocab"], key=model["vocab"].get)[3:]
    (folder / "vocab.json").write_text(json.dumps({t: n for n, t in enumerate(plain)}))
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return {name: len(plain) + number for number, name in enumerate(names)}


def test_line_ends_headings_and_their_absence_do_not_matter(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    added = split_up(tokenizer, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    ids = load_tokenizer(tmp_path).encode(TEXT).ids
    assert len(ids) < len(TEXT) / 2  # merged
    path = tmp_path / "merges.txt"
    lines = path.read_bytes().split(b"\n")
    for content in (b"\r\n".join(lines), b"\n".join(lines[1:]), b"\n".join(lines[:-1])):
        path.write_bytes(content)
        assert load_tokenizer(tmp_path).encode(TEXT).ids == ids


def test_a_merge_of_hashes_is_not_a_heading(tokenizer: Tokenizer, tmp_path: Path) -> None:
    added = split_up(tokenizer, tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    pair = len(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary | {"##": pair}))
    (tmp_path / "merges.txt").write_text("# #\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({t: n + 1 for t, n in added.items()}))
    assert load_tokenizer(tmp_path).encode("##").ids == [pair]


def test_added_tokens_come_from_either_file_or_from_both(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    added = split_up(tokenizer, tmp_path)
    first = dict(list(added.items())[:1])
    ids = []
    for here, there in ((added, None), (None, added), (first, added), (added, first)):
        for name in ("added_tokens.json", "tokenizer_config.json"):
            (tmp_path / name).unlink(missing_ok=True)
        if here is not None:
            (tmp_path / "added_tokens.json").write_text(json.dumps(here))
        if there is not None:
            (tmp_path / "tokenizer_config.json").write_text(settings_with(there, special=True))
        read = load_tokenizer(tmp_path)
        assert {token: read.token_to_id(token) for token in added} == added
        ids.append(read.encode(TEXT).ids)
        assert read.decode(ids[-1]) == TEXT[12:-11] + "\n"  # they are special: not in the text
    assert all(one == ids[0] for one in ids)


def test_a_token_that_is_not_special_stays_in_the_text(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    added = split_up(tokenizer, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    more = {"<tool_call>": max(added.values()) + 1}
    (tmp_path / "tokenizer_config.json").write_text(settings_with(more, special=False))
    read = load_tokenizer(tmp_path)
    assert read.decode(read.encode("<tool_call> user<|im_end|>").ids) == "<tool_call> user"


def test_tokenizer_json_is_preferred(tokenizer: Tokenizer, tmp_path: Path) -> None:
    added = split_up(tokenizer, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    names = ["vocab.json", "merges.txt", "added_tokens.json"]
    assert tokenizer_files(tmp_path) == [tmp_path / name for name in names]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_files(tmp_path) == [tmp_path / "tokenizer.json"]
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.json", "[1]", "must be a JSON object"),
        ("vocab.json", "{", "not JSON"),
        ("vocab.json", "{}", "not a vocabulary"),
        ("vocab.json", '{"a": "b"}', "not a vocabulary"),
        ("vocab.json", '{"a": 0, "b": 1}', "does not fit vocab.json"),
        ("vocab.json", b"\xff", "cannot be read"),
        ("merges.txt", "#version: 0.2\na b c\n", "line 2 is not two parts"),
        ("merges.txt", "a b\nab\n", "line 2 is not two parts"),
        ("added_tokens.json", '{"<|im_end|>": "7"}', "<|im_end|> has no whole number"),
        ("added_tokens.json", '{"<|im_end|>": 7000}', "<|im_end|> should be 7000, but"),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}', "must be an object"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "added_tokens_decoder.x"),
    ],
)
def test_a_broken_file_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    added = split_up(tokenizer, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    message = str(error.value)
    assert said in message and str(tmp_path) in message and "\n" not in message


def test_files_of_two_checkpoints_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    added = split_up(tokenizer, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    other = {"<other>": added["<|im_start|>"]}
    (tmp_path / "tokenizer_config.json").write_text(settings_with(other))
    with pytest.raises(InputError, match=r"is <other>, in added_tokens.json <\|im_start\|>; fetch"):
        load_tokenizer(tmp_path)


def test_without_added_tokens_it_is_no_chatml_tokenizer(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    split_up(tokenizer, tmp_path)
    with pytest.raises(InputError, match=r"vocab.json: has no token <\|endoftext\|>"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"tokenizer.json: not found; .* vocab.json and merges"):
        load_tokenizer(tmp_path)


# ---------------------------------------------------------------------------- the one-file form


def test_a_tokenizer_is_read_from_its_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path)
    assert read.get_vocab() == tokenizer.get_vocab()
    assert read.encode(TEXT).ids == tokenizer.encode(TEXT).ids


def test_padding_and_truncation_saved_in_the_file_are_not_used(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other = Tokenizer.from_str(tokenizer.to_str())
    other.enable_padding(length=64)
    other.enable_truncation(max_length=4)
    other.save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path)
    assert read.encode(TEXT).ids == tokenizer.encode(TEXT).ids


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_a_tokenizer_without_a_chatml_token_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, token: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str().replace(json.dumps(token), '"<other>"'))
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    assert str(path) in str(error.value) and token in str(error.value)


@pytest.mark.parametrize("content", [None, "", "{}", "not json", '{"model": 3}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="tokenizer.json") as error:
        load_tokenizer(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
