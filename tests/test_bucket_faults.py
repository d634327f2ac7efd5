"""What a bucket refuses is one line with its mend and exit code 2; what fails there is not."""

import argparse
import sys
import types

import pytest

from tpo_jax.bucket import fault_of_bucket
from tpo_jax.cli import main as main_module
from tpo_jax.cli.main import Verb, main

retry = pytest.importorskip("gcsfs.retry")
ADDRESS = "https://storage.googleapis.com/storage/v1/b/{}/o/{}"


def raised(status: int, message: str) -> Exception:
    """What gcsfs makes of an answer."""
    content = f'{{"error": {{"code": {status}, "message": "{message}"}}}}'.encode()
    with pytest.raises(Exception) as told:
        retry.validate_response(status, content, ADDRESS, ("mine", "a file"))
    return told.value


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (403, "x does not have storage.objects.get", "objects.get; give this account roles/"),
        (401, "Anonymous caller does not have access", "access, 401; log in: gcloud auth"),
        (404, "", "b/mine/o/a%20file: no such bucket or object; check the address"),
    ],
)
def test_what_is_refused(
    status: int,
    message: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = raised(status, message)

    def run(args: argparse.Namespace, config: object) -> None:
        raise error

    verb = types.ModuleType("verb")
    verb.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    verb.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "verb", verb)
    made = Verb(module="verb", summary="", takes_config=False)
    monkeypatch.setitem(main_module.VERBS, "look", made)
    assert main(["look"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tpo look: error: ") and said in line


def test_what_tensorstore_is_refused() -> None:
    told = fault_of_bucket(ValueError("PERMISSION_DENIED: Error writing gs://mine/a: HTTP 403"))
    assert told is not None and "HTTP 403; give this account roles/" in told


@pytest.mark.parametrize(
    "error",
    [raised(503, "try again"), FileNotFoundError(2, "No such file", "b/mine"), OSError("b/mine")],
)
def test_what_is_none_of_it(error: Exception) -> None:
    assert fault_of_bucket(error) is None
