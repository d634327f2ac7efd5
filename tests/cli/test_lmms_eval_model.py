"""The model for lmms-eval, under a stand-in for the parts of lmms-eval that it uses."""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.data_pipelines.conftest import make_video  # noqa: F401
from tpo_jax.api import ask
from tpo_jax.errors import InputError
from tpo_jax.generation.sampling import SamplingConfig

GREEDY = {"max_new_tokens": 4, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}


class lmms:  # noqa: N801
    """What lmms-eval 0.7.3 gives its models: no more of it is used."""

    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


@dataclass(frozen=True)
class ModelManifest:
    """As in lmms_eval.models.registry_v2."""

    model_id: str
    simple_class_path: str


@dataclass(frozen=True)
class Instance:
    """A request; `args` as lmms-eval hands them to a simple model."""

    args: tuple[Any, ...]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """tpo_jax.cli.lmms_eval_model, imported on the stand-in."""
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, content in (("api.model", lmms), ("models.registry_v2", ModelManifest)):
        made = ModuleType(f"lmms_eval.{name}")
        setattr(made, content.__name__, content)
        monkeypatch.setitem(sys.modules, made.__name__, made)
    name = "tpo_jax.cli.lmms_eval_model"
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


def test_lmms_eval_finds_the_class(module: Any) -> None:
    setup = (Path(__file__).parents[2] / "setup.py").read_text()
    value = "tpo_jax.cli.lmms_eval_plugin:manifest"
    assert f'"lmms_eval.models": ["tpo_jax = {value}"]' in setup
    manifest = EntryPoint(name="tpo_jax", value=value, group="lmms_eval.models").load()()
    assert manifest.model_id == "tpo_jax"
    path, _, name = manifest.simple_class_path.rpartition(".")
    found = getattr(sys.modules[path], name)
    assert found is module.TpoJax and issubclass(found, lmms) and found.is_simple


def test_it_answers_what_ask_answers(
    module: Any,
    tmp_path: Path,
    make_video: Callable[..., Path],  # noqa: F811
) -> None:
    videos = [
        make_video(tmp_path / f"{name}.mp4", count=30, first=100 * n) for n, name in enumerate("ab")
    ]
    model = module.TpoJax(
        "demo_base",
        max_frames_num=4,
        pool="average",
        pixel_dtype="float16",
        compute_dtype="float32",
        batch_size=1,
        device="cuda:0",
    )
    docs = [
        {"video": str(videos[number % 2]), "ask": f"What comes {number}?"} for number in (0, 1, 2)
    ]
    model.task_dict["own"] = {"test": docs}
    requests = [
        Instance(
            (doc["ask"], dict(GREEDY, until=["\n\n"]), lambda d: [d["video"]], n, "own", "test")
        )
        for n, doc in enumerate(docs)
    ]
    sampling = SamplingConfig(max_new_tokens=4)
    expected = [
        ask(model._model, doc["video"], doc["ask"], frames=4, sampling=sampling) for doc in docs
    ]
    assert model.generate_until(requests) == expected


def test_what_it_cannot_do_is_refused(module: Any) -> None:
    read = module.read_generation
    assert read(GREEDY, "t") == SamplingConfig(max_new_tokens=4)
    drawn = read({"do_sample": True, "temperature": 0.5, "top_p": 0.9}, "t")
    assert (drawn.temperature, drawn.top_p, drawn.max_new_tokens) == (0.5, 0.9, 1024)
    assert read({"do_sample": False, "temperature": 0.5}, "t").temperature == 0.0
    with pytest.raises(InputError, match="t: generation_kwargs.num_beams=5 is not offered"):
        read({"num_beams": 5}, "t")
    assert module.one_video(["a.mp4"], "t: doc 0") == "a.mp4"
    for visuals in ([], ["a.mp4", "b.mp4"], [object()]):
        with pytest.raises(InputError, match="t: doc 0: shows"):
            module.one_video(visuals, "t: doc 0")
