"""launch/container/, read without building: what is copied exists, what runs are the README's lines."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = (REPOSITORY / "launch/container/Dockerfile").read_text(encoding="utf-8")
DEFINITION = (REPOSITORY / "launch/container/apptainer.def").read_text(encoding="utf-8")
INSTRUCTIONS = ("ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "WORKDIR")
SECTIONS = ("arguments", "environment", "files", "post", "runscript", "test")


def instructions(name: str) -> list[str]:
    """The arguments of all instructions of a kind, in their order."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    found = [line.split(maxsplit=1) for line in joined if line.strip()]
    assert {instruction for instruction, _ in found} == set(INSTRUCTIONS)
    return [arguments for instruction, arguments in found if instruction == name]


def section(name: str) -> str:
    parts = re.split(r"^%(\w+)\n", DEFINITION, flags=re.MULTILINE)
    assert sorted(parts[1::2]) == sorted(SECTIONS)
    return parts[parts.index(name) + 1]


def readme_commands() -> list[list[str]]:
    block = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("```")[1]
    return [shlex.split(part) for line in block.strip().splitlines() for part in line.split("&&")]


def test_what_is_copied_exists() -> None:
    copied = [word for arguments in instructions("COPY") for word in arguments.split()[:-1]]
    listed = [line.split()[0] for line in section("files").splitlines() if line.strip()]
    assert copied[:-1] == listed
    assert copied[-1] == "."
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []


def test_they_run_the_lines_of_the_readme() -> None:
    _, train, install, test = readme_commands()
    (command,) = instructions("CMD")
    alone = ["dsvae", "train", Path(train[-1]).stem]  # the same without a launcher, which keeps signals back
    assert json.loads(command) == alone
    assert shlex.split(section("runscript")) == ["exec", *alone, "$@"]
    assert test == ["pytest"]
    for script in (instructions("RUN")[-1], section("post")):
        words = [word for word in shlex.split(script) if word != "--no-cache-dir"]
        assert " ".join(install) in " ".join(words)  # which is also what the first line installs, and more


def test_both_have_the_same_base_and_packages() -> None:
    stages = dict(reversed(stage.split(" AS ")) for stage in instructions("FROM")[:-1])
    assert sorted(stages) == ["cpu", "cuda"]
    assert instructions("FROM")[-1] == "${DEVICE}"
    assert instructions("ARG")[0] == "DEVICE=cuda"
    arguments = dict(line.strip().split("=", 1) for line in section("arguments").splitlines() if line.strip())
    assert arguments["base"] == stages["cuda"]
    assert f"--build-arg base={stages['cpu']} " in DEFINITION
    assert set(re.findall(r"\{\{ (\w+) \}\}", DEFINITION)) == arguments.keys()
    packages = [
        re.search(r"--no-install-recommends ([^&\n]*)", script) for script in (DOCKERFILE, section("post"))
    ]
    assert len({found.group(1).rstrip(" \\") for found in packages if found}) == 1
    assert all(packages)


def test_the_shell_reads_their_scripts() -> None:
    for script in [*instructions("RUN"), *(section(name) for name in SECTIONS[3:])]:
        subprocess.run(["bash", "-n", "-c", script], check=True)


def is_ignored(path: str) -> bool:
    """By .dockerignore: patterns from the root, those of a folder for all in it; the last one counts."""
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = False
    for line in lines:
        pattern = line.removeprefix("!")
        regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if line and not line.startswith("#") and re.fullmatch(f"{regex}(?:/.*)?", path):
            ignored = not line.startswith("!")
    return ignored


def test_a_build_gets_the_repository_and_nothing_that_was_made_in_it() -> None:
    folders = (".ci", "configs", "dist_dsvae", "docs", "launch", "shards/fashion-mnist-mini", "tests")
    needed = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(REPOSITORY).as_posix() for path in needed if "__pycache__" not in path.parts]
    assert len(names) > 300
    names += ["pyproject.toml", "README.md", "mkdocs.yml", "shards/build.py", "shards/README.md"]
    assert [name for name in names if is_ignored(name)] == []
    made = (
        ".git/config",
        "runs/x/config.json",
        "site/index.html",
        "shards/mine/train/000000.tar",
        "dsvae.sif",
    )
    made += ("dist_dsvae.egg-info/PKG-INFO", "dist_dsvae/core/__pycache__/text.pyc", ".venv/bin/python")
    assert [name for name in made if not is_ignored(name)] == []
