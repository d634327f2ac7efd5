"""`tpo import` and `tpo export`: no bit is lost, nothing half-written, others open the result."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from data_pipelines.prompts import PromptPolicy, make_prompt
from tests.golden import FAMILIES, golden_folder
from tests.random_params import random_params
from tests.small_model import small_model_json
from tests.torch_rows import our_video_logits
from tpo_jax.api import ASSETS, load
from tpo_jax.cli.main import main
from tpo_jax.interop import keys
from tpo_jax.interop.reader import read_checkpoint
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json, model_config
from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.parallel.rules import VOCABULARY_MULTIPLE

TOKENIZER = ASSETS / "demo_base" / "tokenizer.json"
ROWS = 540  # more than the demo's tokenizer has: there is room for <image> and <video>


def content(**fields: Any) -> dict[str, Any]:
    """config.json of a small model."""
    return small_model_json(vocab_rows=ROWS) | {"num_hidden_layers": 2} | fields


def write_source(
    folder: Path, described: dict[str, Any], naming: keys.Naming = keys.LLAVA, **options: Any
) -> Path:
    """A checkpoint of random weights with a tokenizer."""
    config = model_config(described)
    params = random_params(config)
    write_checkpoint(
        folder,
        config=config,
        params=params,
        json=described,
        naming=naming,
        side_files=[TOKENIZER],
        **options,
    )
    return folder


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of every shard by name."""
    return {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def assert_bit_equal(found: Path, expected: Path) -> None:
    ours, theirs = tensors_of(found), tensors_of(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].tobytes() == tensor.tobytes(), name


def through(source: Path, work: Path, *options: str) -> Path:
    """Imported and exported again."""
    imported, exported = work / "imported", work / "exported"
    assert main(["import", str(source), str(imported)]) == 0
    assert main(["export", str(exported), f"--checkpoint={imported}", *options]) == 0
    return exported


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_import_and_export_give_the_same_bits(tmp_path: Path, dtype: str) -> None:
    source = write_source(tmp_path / "source", content(), dtype=dtype, max_shard_bytes=400_000)
    assert len(list(source.glob("*.safetensors"))) > 3
    exported = through(source, tmp_path)
    assert_bit_equal(exported, source)
    described = [json.loads((f / "config.json").read_text()) for f in (source, exported)]
    assert described[0] == described[1]
    assert (exported / "tokenizer.json").read_bytes() == TOKENIZER.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_the_authors_code_comes_back(family: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(golden_folder(family) / name, source)
    shutil.copy(TOKENIZER, source)
    assert_bit_equal(through(source, tmp_path), source)


@pytest.mark.parametrize("name", [name for name in keys.NAMINGS if name != "llava"])
def test_every_generation_of_names_comes_back(
    name: str, tmp_path: Path, onevision_content: dict[str, Any]
) -> None:
    naming = keys.NAMINGS[name]
    described = onevision_content
    source = write_source(tmp_path / "source", described, naming, dtype="bfloat16")
    assert keys.find_naming(tensors_of(source)) is naming
    assert_bit_equal(through(source, tmp_path), source)


@pytest.fixture(scope="module")
def onevision_content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """config.json of the small model in the layout of transformers."""
    work = tmp_path_factory.mktemp("onevision")
    source = write_source(work / "llava", content(mm_newline_position="one_token"))
    out = work / "as_onevision"
    assert main(["export", str(out), f"--checkpoint={source}", "--layout=onevision"]) == 0
    described: dict[str, Any] = json.loads((out / "config.json").read_text())
    return described


def test_an_imported_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", content(vocab_size=ROWS - 1), dtype="bfloat16")
    imported = tmp_path / "imported"
    assert main(["import", str(source), str(imported)]) == 0
    stored = load(str(source))
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    assert load(str(imported)).fingerprint == stored.fingerprint
    for folder, placed in ((imported, None), (imported, mesh), (source, mesh)):
        found = load(str(folder), mesh=placed)
        padding = found.config.language.padding_rows
        assert padding == (-(ROWS - 1) % VOCABULARY_MULTIPLE if placed else 0)
        assert (padding > 0) == (placed is not None)
        for (path, leaf), (_, expected) in zip(
            keys.flat_paths(found.params), keys.flat_paths(stored.params), strict=True
        ):
            assert leaf.dtype == np.float32
            if placed:
                assert leaf.sharding.mesh == mesh
            array = np.asarray(leaf)
            if path == "language/embed/embedding":
                np.testing.assert_array_equal(array[ROWS - 1 :], np.zeros((padding, 128)))
                array = array[: ROWS - 1]
            if path == "language/head/kernel":
                array = array[:, : ROWS - 1]
            np.testing.assert_array_equal(array, expected, err_msg=path)
        if placed:
            gate = found.params["language"]["layers"]["gate"]["kernel"]
            assert gate.addressable_shards[0].data.size * 8 == gate.size


def test_padding_is_cut_off_at_export(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", content(vocab_size=ROWS - 1))
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    model = load(str(source), mesh=mesh)
    write_checkpoint(
        tmp_path / "out", config=model.config, params=model.params, json=model.json, dtype=None
    )
    assert_bit_equal(tmp_path / "out", source)


def test_transformers_opens_the_onevision_layout(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    source = write_source(tmp_path / "source", content(mm_newline_position="one_token"))
    exported = through(source, tmp_path, "--layout=onevision")
    model = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(exported).eval()
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 56, 56, 3), np.uint8)
    # Its processor needs torchvision; what the processor would read is read here.
    pictures = json.loads((exported / "video_preprocessor_config.json").read_text())
    assert pictures["size"] == {"height": 56, "width": 56}
    mean, std = (torch.tensor(pictures[name]) for name in ("image_mean", "image_std"))
    scaled = (torch.tensor(frames).float() * pictures["rescale_factor"] - mean) / std
    checkpoint = read_checkpoint(exported)
    video_token = json.loads((exported / "config.json").read_text())["video_token_index"]
    visual = checkpoint.config.tokens_per_video(3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    turn = [{"type": "video"}, {"type": "text", "text": "What comes first in the video?"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
    )
    ids = np.array(tokenizer(text.replace("<video>", "<video>" * visual))["input_ids"])
    with torch.no_grad():
        theirs = (
            model(
                input_ids=torch.tensor(ids[None]),
                pixel_values_videos=scaled.permute(0, 3, 1, 2)[None],
            )
            .logits[0]
            .numpy()
        )
    ours = our_video_logits(checkpoint, frames, ids, video_token)
    assert np.std(theirs) > 0.1
    assert np.max(np.abs(ours - theirs)) < 2e-4
    # The tokens around the video are those that this project makes.
    prompt_tokens = make_prompt(
        load(str(source)).tokenizer,
        "What comes first in the video?",
        visual_tokens=visual,
        policy=PromptPolicy(),
    )
    said = prompt_tokens.visual_index < 0
    np.testing.assert_array_equal(ids == video_token, ~said)
    np.testing.assert_array_equal(ids[said], prompt_tokens.tokens[said])


def test_onevision_becomes_the_authors_layout(
    tmp_path: Path, onevision_content: dict[str, Any]
) -> None:
    source = write_source(tmp_path / "source", onevision_content, keys.ONEVISION)
    out = tmp_path / "out"
    assert main(["export", str(out), f"--checkpoint={source}", "--layout=llava"]) == 0
    ours, theirs = read_checkpoint(out), read_checkpoint(source)
    assert ours.config == theirs.config
    assert config_from_json(ours.json) == ours.config
    for (path, found), (_, expected) in zip(
        keys.flat_paths(ours.params), keys.flat_paths(theirs.params), strict=True
    ):
        np.testing.assert_array_equal(found, expected, err_msg=path)


def test_a_chat_template_and_generation_settings_are_added(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    exported = through(write_source(tmp_path / "source", content()), tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    turns = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    settings = transformers.GenerationConfig.from_pretrained(exported)
    ends = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")]
    assert settings.eos_token_id == ends


def test_what_the_source_says_of_itself_stays(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", content())
    own = {"tokenizer_config.json": {"chat_template": "mine"}, "generation_config.json": {"a": 1}}
    for name, settings in own.items():
        (source / name).write_text(json.dumps(settings))
    exported = through(source, tmp_path)
    for name, settings in own.items():
        assert json.loads((exported / name).read_text()) == settings


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip().split("\n")
    assert [("error: " in line) for line in said].index(True) == len(said) - 1
    return said[-1]


def test_grid_newlines_in_transformers_must_be_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source", content())
    arguments = ["export", tmp_path / "out", f"--checkpoint={source}", "--layout=onevision"]
    assert "newline" in refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()
    assert main([*map(str, arguments), "--accept-other-newlines"]) == 0


def test_longva_has_no_onevision_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    shutil.copytree(golden_folder("longva"), source)
    (source / "reference.safetensors").unlink()
    (source / "grads.safetensors").unlink()
    shutil.copy(TOKENIZER, source)
    refused(capsys, "export", tmp_path / "out", f"--checkpoint={source}", "--layout=onevision")
    assert not (tmp_path / "out").exists()


def test_a_full_vocabulary_has_no_row_for_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Tokenizer.from_file(str(TOKENIZER)).get_vocab_size()
    described = content(mm_newline_position="one_token", vocab_size=rows)
    source = write_source(tmp_path / "source", described)
    arguments = ["export", tmp_path / "out", f"--checkpoint={source}", "--layout=onevision"]
    assert f"{rows} rows" in refused(capsys, *arguments)


def test_a_bad_checkpoint_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source", content())
    tensors = load_file(source / "model.safetensors")
    names = [name for name in tensors if "q_proj" in name]
    for name in names:
        tensors[f"{name}.old"] = tensors.pop(name)
    save_file(tensors, source / "model.safetensors")
    assert main(["import", str(source), str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert f"{len(names)} missing" in said.err and said.err.count("\n") == 1
    # Every key is told, not only the first few.
    for name in names:
        assert f"missing: {name}\n" in said.out
        assert f"unexpected: {name}.old" in said.out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_layers_of_two_dtypes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source", content())
    tensors: dict[str, Any] = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].astype(jnp.bfloat16)
    save_file(tensors, source / "model.safetensors")
    line = refused(capsys, "import", source, tmp_path / "out")
    assert f"{name} is stored as BF16" in line
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_what_is_there_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source", content())
    (tmp_path / "out").mkdir()
    assert "exists already" in refused(capsys, "import", source, tmp_path / "out")
    line = refused(capsys, "export", tmp_path / "out", f"--checkpoint={source}")
    assert "exists already" in line
    assert "give the folder" in refused(capsys, "export", f"--checkpoint={source}")


def test_a_damaged_import_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / "source", content())
    imported = tmp_path / "imported"
    assert main(["import", str(source), str(imported)]) == 0
    for path in (imported / "params").rglob("language.layers.up.kernel/[0-9]*"):
        path.write_bytes(path.read_bytes()[:-100])
    line = refused(capsys, "export", tmp_path / "out", f"--checkpoint={imported}")
    assert "imported/params" in line
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]
    shutil.rmtree(imported / "params")
    (imported / "params").mkdir()
    line = refused(capsys, "export", tmp_path / "out", f"--checkpoint={imported}")
    assert "imported/params" in line
