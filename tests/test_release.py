"""What a release carries: licence, citation, change log, links, container file, manifest."""

import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import setuptools

from tpo_jax import __version__

yaml: Any = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PAPERS = ("2501.13919", "2406.16852", "2410.02713")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def packaging() -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    handed: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", handed.update)
        runpy.run_path(str(ROOT / "setup.py"))
    return handed


def test_the_licence_is_whole(packaging: dict[str, Any]) -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n                           Version 2.0" in text
    assert all(f"   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text
    assert packaging["license"] == "Apache-2.0"
    assert packaging["license_files"] == ["LICENSE"]


def test_the_citation_is_of_this_version_and_its_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"] and citation["authors"]
    assert str(citation["version"]) == __version__
    assert citation["license"] == "Apache-2.0"
    urls = [reference["url"] for reference in citation["references"]]
    assert urls == [f"https://arxiv.org/abs/{paper}" for paper in PAPERS]
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()


def test_the_change_log_knows_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert __version__ in headings[:2]


def broken_links(page: Path) -> list[str]:
    """Relative links of a page to what is not there."""
    links = LINK.findall(page.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    return [link for link in local if not (page.parent / link).exists()]


def test_links_lead_somewhere(tmp_path: Path) -> None:
    assert {page.name: broken for page in PAGES if (broken := broken_links(page))} == {}
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#part) [b](gone.md) [c](https://example.com)")
    assert broken_links(page) == ["gone.md"]


def test_the_index_lists_every_page() -> None:
    linked = LINK.findall((ROOT / "docs/README.md").read_text("utf-8"))
    missing = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md", *linked}
    assert missing == set()


# ----------------------------------------------------------------------------- the container file


def test_the_container_file_copies_what_is_there(packaging: dict[str, Any]) -> None:
    text = (ROOT / "Containerfile").read_text("utf-8")
    copied = [
        name
        for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    # setup.py reads these, and finds the packages among the folders.
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= set(copied)
    packages = {name.partition(".")[0] for name in packaging["packages"]} | {"configs"}
    assert packages <= set(copied)


def test_the_container_file_names_extras_that_exist(packaging: dict[str, Any]) -> None:
    text = (ROOT / "Containerfile").read_text("utf-8")
    named = re.findall(r"EXTRAS=(\S+)", text)
    assert named and '".[${EXTRAS}]"' in text
    extras = {extra for names in named for extra in names.split(",")}
    assert extras <= packaging["extras_require"].keys()
    assert {"tpu", "gcs"} <= extras


# ------------------------------------------------------------------------------------ the manifest


def need(where: str, mapping: Any, **kinds: type | tuple[type, ...]) -> list[str]:
    """A sentence for each field that is missing or of another type."""
    if not isinstance(mapping, dict):
        return [f"{where} is no mapping"]
    return [
        f"{where}.{name} is missing or no {kind}"
        for name, kind in kinds.items()
        if not isinstance(mapping.get(name), kind)
    ]


def jobset_faults(jobset: Any) -> list[str]:
    """What of a JobSet's required fields, and of what this project relies on, is not there."""
    faults = need("jobset", jobset, apiVersion=str, kind=str, metadata=dict, spec=dict)
    if faults:
        return faults
    if (jobset["apiVersion"], jobset["kind"]) != ("jobset.x-k8s.io/v1alpha2", "JobSet"):
        faults.append("it is no JobSet of v1alpha2")
    faults += need("metadata", jobset["metadata"], name=str)
    faults += need("spec", jobset["spec"], replicatedJobs=list, failurePolicy=dict)
    faults += need("failurePolicy", jobset["spec"].get("failurePolicy"), maxRestarts=int)
    for job in jobset["spec"].get("replicatedJobs") or ["nothing"]:
        faults += need("job", job, name=str, replicas=int, template=dict) or job_faults(
            job["template"].get("spec")
        )
    return faults


def job_faults(job: Any) -> list[str]:
    """The same for a Job that runs on one host."""
    faults = need("job", job, parallelism=int, completions=int, backoffLimit=int, template=dict)
    if faults:
        return faults
    if (job["parallelism"], job["completions"], job["backoffLimit"]) != (1, 1, 0):
        faults.append("parallelism and completions are 1, one host, and JobSet does the restarts")
    pod = job["template"].get("spec")
    missing = need("pod", pod, restartPolicy=str, containers=list, nodeSelector=dict)
    if missing:
        return faults + missing
    if "podFailurePolicy" in job and pod["restartPolicy"] != "Never":
        faults.append("podFailurePolicy wants restartPolicy: Never")
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    names = {container.get("name") for container in pod["containers"]}
    for rule in job.get("podFailurePolicy", {}).get("rules", []):
        if rule.get("onExitCodes", {}).get("containerName") not in names:
            faults.append("podFailurePolicy names a container that is not there")
    for container in pod["containers"]:
        faults += need("container", container, name=str, image=str, command=list, resources=dict)
        asked = container.get("resources", {})
        for part in ("requests", "limits"):
            if asked.get(part, {}).get("google.com/tpu") != rows * columns:
                faults.append(f"{part} of chips are not those of the topology")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                faults.append(f"volume {mount['name']} is not there")
    return faults


@pytest.fixture
def manifest() -> list[Any]:
    text = (ROOT / "configs/launch/v6e_8.yaml").read_text("utf-8")
    return list(yaml.safe_load_all(text))


def test_the_manifest_is_a_whole_jobset(manifest: list[Any]) -> None:
    storage, claim, jobset = manifest
    assert jobset_faults(jobset) == []
    assert need("claim", claim["spec"], accessModes=list, resources=dict) == []
    assert claim["spec"]["storageClassName"] == storage["metadata"]["name"]
    (job,) = jobset["spec"]["replicatedJobs"]
    disk, mine = job["template"]["spec"]["template"]["spec"]["volumes"]
    assert disk["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    page = (ROOT / "docs/tpu_pods.md").read_text("utf-8")
    assert f"create configmap {mine['configMap']['name']} --from-file=MINE.py=MINE.py" in page


# Stands for `tpo`: says what it is asked, and in `train` waits for SIGTERM or ends as it is told.
STUB = """#!/bin/bash
trap 'echo saved; exit 143' TERM
echo "$1"
if [ "$1" = train ]; then
  [ -n "$ENDS" ] && exit "$ENDS"
  for i in $(seq 600); do sleep 0.1; done
fi
"""


@pytest.mark.parametrize("ends", ["0", "2", "75", ""])
def test_the_manifests_script(manifest: list[Any], tmp_path: Path, ends: str) -> None:
    """Verbs one after another, up to one that fails; a SIGTERM reaches the one that runs."""
    pod = manifest[-1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (script,) = pod["containers"][0]["args"]
    (tmp_path / "tpo").write_text(STUB)
    (tmp_path / "tpo").chmod(0o755)
    running = subprocess.Popen(
        [*pod["containers"][0]["command"], script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ENDS": ends},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    told = []
    for line in running.stdout:
        told.append(line.strip())
        if told[-1] == "train" and not ends:
            running.terminate()
    last = {"": ["saved"], "0": ["export"]}.get(ends, [])
    assert told == ["doctor", "frames", "curate", "reference", "train", *last]
    assert running.wait(timeout=10) == int(ends or 143)


def test_status_2_is_not_tried_again(manifest: list[Any]) -> None:
    from tpo_jax.cli.main import EXIT_INPUT_ERROR

    spec = manifest[-1]["spec"]
    (rule,) = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": "tpo",
        "operator": "In",
        "values": [EXIT_INPUT_ERROR],
    }
    (ends,) = spec["failurePolicy"]["rules"]
    assert (ends["action"], ends["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_faults_of_a_manifest_are_found(manifest: list[Any]) -> None:
    jobset = manifest[-1]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    pod["containers"][0]["resources"]["limits"]["google.com/tpu"] = 4
    pod["restartPolicy"] = "OnFailure"
    pod["volumes"][0]["name"] = "other"
    job["parallelism"] = 2
    del jobset["spec"]["failurePolicy"]["maxRestarts"]
    said = " ".join(jobset_faults(jobset))
    for word in ("limits", "restartPolicy: Never", "volume runs", "one host", "maxRestarts"):
        assert word in said
