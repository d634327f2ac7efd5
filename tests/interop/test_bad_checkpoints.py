"""A bad checkpoint ends as one line that names the file or the tensor, and the mend."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.random_params import random_params
from tests.small_model import small_model_json
from tpo_jax.errors import InputError
from tpo_jax.interop.reader import read_checkpoint
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("good")
    content = small_model_json(vocab_rows=20)
    config = config_from_json(content)
    write_checkpoint(folder, config=config, params=random_params(config), json=content)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    for path in good.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def change_config(folder: Path, **fields: Any) -> None:
    content = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(content))


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def write_index(folder: Path, content: Any) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps(content))


def broken_index(folder: Path) -> None:
    write_index(folder, {})
    cut(folder / INDEX, 1)


def duplicate_shards(folder: Path) -> None:
    save_file({"a": np.ones(1, np.float32)}, folder / "one.safetensors")
    save_file({"a": np.ones(1, np.float32)}, folder / "two.safetensors")
    write_index(folder, {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})


def text_only(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    kept = {k: v for k, v in content.items() if not k.startswith("mm_") and k != "vision_config"}
    (folder / "config.json").write_text(json.dumps(kept))


BAD: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no config": (
        lambda f: (f / "config.json").unlink(),
        ["config.json: not found; a checkpoint folder needs it"],
    ),
    "config not JSON": (
        lambda f: (f / "config.json").write_text('{"hidden_size": 1,'),
        ["config.json: not JSON (", "line 1", "write it again"],
    ),
    "config not text": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
        ["config.json: not JSON (", "write it again"],
    ),
    "config a list": (
        lambda f: (f / "config.json").write_text("[]"),
        ["config.json: holds no JSON object"],
    ),
    "config unknown field": (
        lambda f: change_config(f, mm_spatial_pool_mod="average"),
        ["config.json: mm_spatial_pool_mod is not a known", "did you mean mm_spatial_pool_mode?"],
    ),
    "text-only": (text_only, ["config.json: has neither mm_vision_tower nor", "text-only"]),
    "no weights": (
        lambda f: (f / WEIGHTS).unlink(),
        [f"{INDEX}: not found;", f"holds no {WEIGHTS} either"],
    ),
    "weights cut off": (lambda f: cut(f / WEIGHTS, -9), [f"{WEIGHTS}: not a whole", "fetch it"]),
    "header cut off": (lambda f: cut(f / WEIGHTS, 40), [f"{WEIGHTS}: not a whole", "fetch it"]),
    "weights empty": (lambda f: cut(f / WEIGHTS, 0), [f"{WEIGHTS}: not a whole", "fetch it"]),
    "weights a pickle": (
        lambda f: (f / WEIGHTS).write_bytes(b"PK\x03\x04 and so on, long enough for a header"),
        [f"{WEIGHTS}: not a whole"],
    ),
    "index not JSON": (
        broken_index,
        [f"{INDEX}: not JSON"],
    ),
    "index without a map": (
        lambda f: write_index(f, {"metadata": {}}),
        [f"{INDEX}: has no weight"],
    ),
    "index names a missing file": (
        lambda f: write_index(f, {"weight_map": {"lm_head.weight": "model-00002.safetensors"}}),
        [f"{INDEX}: names model-00002.safetensors, which is not there; fetch that file"],
    ),
    "a tensor in two shards": (
        duplicate_shards,
        ["two.safetensors: holds a, which another shard holds too"],
    ),
    "one missing": (
        lambda f: change_tensors(f, lambda t: t.pop("model.norm.weight")),
        ["config.json describes: 1 missing: model.norm.weight"],
    ),
    "embedding missing": (
        lambda f: change_tensors(f, lambda t: t.pop("model.embed_tokens.weight")),
        ["1 missing: model.embed_tokens.weight"],
    ),
    "a whole part missing": (
        lambda f: change_tensors(
            f, lambda t: [t.pop(name) for name in list(t) if "vision_tower" in name]
        ),
        ["53 missing: model.vision_tower", ", and 50 more"],
    ),
    "one unexpected": (
        lambda f: change_tensors(f, lambda t: t.update(extra=np.ones(2, np.float32))),
        ["1 unexpected: extra"],
    ),
    "another shape": (
        lambda f: change_tensors(f, lambda t: t.update({"model.norm.weight": t["lm_head.weight"]})),
        ["1 of another shape: model.norm.weight [20, 128] instead of [128]"],
    ),
    "head and embedding differ": (
        lambda f: change_tensors(
            f, lambda t: t.update({"lm_head.weight": np.ones((9, 128), "f4")})
        ),
        ["1 of another shape: lm_head.weight [9, 128] instead of [20, 128]"],
    ),
    "all three": (
        lambda f: change_tensors(
            f,
            lambda t: t.update(
                extra=t.pop("model.norm.weight"),
                **{"model.image_newline": np.ones(3, np.float32)},
            ),
        ),
        ["1 missing: model.norm.weight; 1 unexpected: extra; 1 of another shape: model.image"],
    ),
    "integers": (
        lambda f: change_tensors(f, lambda t: t.update({"model.norm.weight": np.ones(128, "i4")})),
        [f"{WEIGHTS}: model.norm.weight is stored as I32; only F32, F16, BF16 are read"],
    ),
    "config of a deeper model": (
        lambda f: change_config(f, num_hidden_layers=5),
        ["12 missing: ", "model.layers.4.", ", and 9 more"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_checkpoint_is_one_line_that_names_it(folder: Path, name: str) -> None:
    spoil, said = BAD[name]
    spoil(folder)
    with pytest.raises(InputError) as caught:
        read_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    for part in said:
        assert part in message


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder; give the folder of a check"):
        read_checkpoint(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: no such folder"):
        read_checkpoint(tmp_path / "file")


def test_the_unspoilt_checkpoint_is_read(folder: Path) -> None:
    assert read_checkpoint(folder).config.language.vocab_rows == 20
