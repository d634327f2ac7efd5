"""The configs that come with tpo_jax: each loads, and the recipes hold the paper's values."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from tpo_jax.cli.config import find_config, load_config
from tpo_jax.cli.settings import read_settings
from tpo_jax.errors import InputError
from tpo_jax.preference.losses import DPO, SFT, RobustDPO

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs"
NAMES = sorted(path.relative_to(FOLDER).as_posix()[:-3] for path in FOLDER.rglob("*.py"))
RECIPES = ("llava_video_7b_tpo", "longva_7b_tpo")
TAG = re.compile(r"# (paper|inferred|ours)\b")

# What each changes of LongVA-TPO, beside where it keeps its artefacts.
ABLATIONS: dict[str, dict[str, Any]] = {
    "pairs_2k": {"curate.pairs": 2_000},
    "pairs_5k": {"curate.pairs": 5_000},
    "pairs_10k": {"curate.pairs": 10_000},
    "mix_10_0": {"curate.localized_share": 1.0},
    "mix_8_2": {"curate.localized_share": 0.8},
    "mix_5_5": {"curate.localized_share": 0.5},
    "mix_2_8": {"curate.localized_share": 0.2},
    "mix_0_10": {"curate.localized_share": 0.0},
    "no_filter": {"curate.post_filter": False},
    "sft_self": {"loss.dpo_weight": 0.0, "loss.sft_weight": 1.0},
    # The same loss; what differs is whose answers are learned (`tpo curate --answers`).
    "sft_llm": {"loss.dpo_weight": 0.0, "loss.sft_weight": 1.0},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with no configs of its own."""
    monkeypatch.chdir(tmp_path)


def flat(config: ConfigDict, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its value."""
    for name, value in config.items():
        if isinstance(value, ConfigDict) and value:
            yield from flat(value, f"{where}{name}.")
        else:
            yield where + name, value


# ------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("name", NAMES)
def test_every_config_loads(name: str) -> None:
    assert read_settings(load_config(name)).loss is not None


@pytest.mark.parametrize(
    "name", ["ablations/pairs_2k", "configs/ablations/pairs_2k", "ablations/pairs_2k.py"]
)
def test_an_ablation_is_found_by_name(name: str) -> None:
    assert find_config(name) == FOLDER / "ablations/pairs_2k.py"


def test_every_config_is_in_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setuptools")
    from distutils.core import run_setup

    monkeypatch.chdir(ROOT)
    build = run_setup("setup.py", stop_after="init").get_command_obj("build_py")
    build.ensure_finalized()
    packed = {Path(file).resolve() for _, _, file in build.find_all_modules()}
    assert set(FOLDER.rglob("*.py")) <= packed
    for path in FOLDER.rglob("*.py"):
        package = ".".join(["tpo_jax.configs", *path.relative_to(FOLDER).parts[:-1]])
        assert (package, path.stem, str(path.relative_to(ROOT))) in build.find_all_modules()


def test_no_two_configs_share_a_folder() -> None:
    folders = [load_config(name).run_dir for name in NAMES]
    assert len(set(folders)) == len(folders)


# ------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("name", "beta", "alpha", "rate", "localized_share"),
    [("llava_video_7b_tpo", 0.2, 1.0, 3e-7, 0.0), ("longva_7b_tpo", 0.3, 0.5, 4e-6, 0.5)],
)
def test_a_recipe_is_the_papers(
    name: str, beta: float, alpha: float, rate: float, localized_share: float
) -> None:
    settings = read_settings(load_config(name))
    loss, train = settings.loss, settings.train
    assert loss.pair_loss == DPO(beta=beta)
    assert (loss.dpo_weight, loss.sft_weight) == (1.0, alpha)
    assert loss.sft == SFT(reduction="pair_mean")
    assert (train.learning_rate, train.warmup_ratio) == (rate, 0.1)
    assert (train.batch_pairs, train.epochs, train.steps) == (64, 1, 0)
    assert train.frozen == ("vision",)
    assert settings.train_frames == 32 and settings.curate.dense_frames == 32
    assert settings.curate.pairs == 10_000
    assert settings.curate.localized_share == localized_share
    assert settings.curate.post_filter
    assert settings.compute_dtype == "bfloat16"


@pytest.mark.parametrize("name", RECIPES)
def test_every_value_says_where_it_comes_from(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    lines = text.splitlines()
    values = [
        value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Dict)
        for value in node.values
        if not (isinstance(value, ast.Dict) and value.keys)
    ]
    assert len(values) == len(dict(flat(load_config(name))))
    for value in values:
        assert TAG.search(lines[value.lineno - 1]), lines[value.lineno - 1]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_leaves_out_no_key_of_the_demo(name: str) -> None:
    # What a config does not hold cannot be set on the command line.
    demo, recipe = (dict(flat(load_config(one))) for one in ("demo", name))
    assert set(demo) - set(recipe) == set()


def test_an_ablation_changes_one_thing() -> None:
    assert {f"ablations/{name}" for name in ABLATIONS} == {name for name in NAMES if "/" in name}
    recipe = dict(flat(load_config("longva_7b_tpo")))
    for name, changed in ABLATIONS.items():
        folder = f"runs/ablations/{name}"
        paths = {
            "run_dir": folder,
            "eval.videos": f"{folder}/videos/heldout",
            "eval.truth": f"{folder}/truth/heldout.json",
        }
        assert dict(flat(load_config(f"ablations/{name}"))) == recipe | paths | changed, name


# ---------------------------------------------------------------------------- choosing a loss


def with_loss(*options: str, name: str = "longva_7b_tpo") -> Any:
    """The loss of a config, with options as on the command line."""
    return read_settings(load_config(name, [f"--config.loss.{one}" for one in options])).loss


def test_a_loss_is_chosen_by_name_on_the_command_line() -> None:
    loss = with_loss("preference=robust", "label_smoothing=0.1", "sft_reduction=sum")
    assert loss.pair_loss == RobustDPO(beta=0.3, label_smoothing=0.1)
    assert loss.sft == SFT(reduction="sum")
    assert not with_loss("dpo_weight=0").needs_reference
    assert not with_loss("dpo_weight=0", name="demo").needs_reference


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["preference=ipo", "label_smoothing=0.1"], "label_smoothing is 0.1, but preference 'ipo'"),
        (["length_alpha=0.5"], "length_alpha is 0.5, but preference 'sigmoid'"),
        (["preference=robust"], "preference 'robust' needs a label_smoothing"),
        (["preference=orpo"], "config key loss.preference: expected one of 'sigmoid', 'ipo'"),
        (["sft_reduction=mean"], "config key loss.sft_reduction: expected one of 'pair_mean'"),
        (["length_alpha=long"], "config key loss.length_alpha: expected float"),
    ],
)
def test_a_wrong_loss_is_one_sentence(options: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        with_loss(*options)
