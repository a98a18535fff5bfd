"""Files that other programs read: workflow, issue forms, pre-commit's hooks, the citation."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]


def read(name: str) -> Any:
    return yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_workflow_runs_what_runs_everywhere() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert scripts == [".ci/run"]
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)
    oldest = re.fullmatch(r">=(\d+\.\d+)", project()["requires-python"])
    assert oldest is not None
    assert job["strategy"]["matrix"]["python"][0] == oldest.group(1)


def test_the_hooks_are_the_checks_of_a_pull_request() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = [hook["entry"] for hook in repository["hooks"]]
    asked = re.search(r"^(ruff .*) && pytest$", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert asked is not None
    assert hooks == [command.removesuffix(" .") for command in asked.group(1).split(" && ")]


def test_issue_forms() -> None:
    forms = sorted((REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 2
    for path in forms:
        form = read(str(path.relative_to(REPOSITORY)))
        assert {"name", "description", "body"} <= form.keys()
        assert len({field["id"] for field in form["body"]}) == len(form["body"]) <= 4
        assert all(field["attributes"]["label"] for field in form["body"])
        pages = re.findall(r"docs/[\w-]+\.md", path.read_text())
        assert [page for page in pages if not (REPOSITORY / page).is_file()] == []


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    citation = read("CITATION.cff")
    assert {key: citation[key] for key in ("title", "version", "license")} == {
        "title": project()["name"],
        "version": project()["version"],
        "license": project()["license"],
    }
    paper = citation["preferred-citation"]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in readme
    assert f"]({paper['url']})" in readme
