"""Commands on the pages: every one is understood by its program, and what can run here runs, at toy size.

The pages' own words run, in their order, in one folder, with what makes them small behind them: of an
option that is given twice the second counts.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from accelerate.commands.launch import launch_command_parser
from PIL import Image
from torch.distributed.run import get_args_parser

from dist_dsvae.config.reading import load_config
from tests.documented import PAGES, Command, commands
from tests.forking import run_program
from tests.programs import REPOSITORY, parser_of

COMMANDS = commands()
# What is not run here, by the words that tell it, and why
NOT_RUN = {
    r"--num_processes|--num_machines|--nproc_per_node": "several processes: tests/distributed has them",
    r"launch/explore\.py|dsvae explore": "serves a page until it is stopped: tests/unit/explore",
    r"launch/doctor\.py": "examines this machine: tests/unit/engine/test_doctor.py runs it",
    r"dsvae reproduce": "trains for hours: tests/unit/commands/test_reproduce.py, at toy size",
    r"launch/benchmark\.py": "measures: tests/unit/test_benchmark.py runs all that it can measure, smaller",
    r"dsvae generate grid$": "writes into the working directory: commands/test_model_in_the_box.py",
    r"--paste": "needs photographs of faces and their detector: tests/unit/engine/test_faces_end_to_end.py",
    r"train\.profile": "needs more iterations than are run here: tests/unit/engine/test_profiling.py",
    r"train\.trackers=": "tells others: tests/unit/engine/test_trackers.py, with their libraries offline",
    r"http://": "needs a server: tests/unit/data/test_remote.py has one",
    r"build\.py (cifar|cub200|facescrub|casia|fashion-mnist)": "needs raw data; tests/unit/data make some up",
    r"build\.py hf uoft": "needs the hub; a saved data set is built from",
    r"facescrub": "needs its shards; the same programs run on shards/mine",
    r"cifar10": "needs its shards; the same run on shards/mine",
    r"--compare runs/quickstart": "needs four trained runs; two of shards/mine are compared",
    r"lfw(?!.*runs/(classifier-)?mine)": "needs photographs of faces; shards/mine is built alike",
    r"shards/photos |runs/photos": "needs photographs of persons; shards/new is built and learned alike",
    r"theirs": "needs images of another program: tests/unit/engine/test_split_images.py draws some",
    r"any-pictures|made-elsewhere": "needs such a folder: tests/unit/data/test_unlabelled, test_indexing",
    r"quickstart-0|cvae_gan-0|--run-dir RUN|--run RUN": "measurements of a page; the same programs run",
}
# Behind every command of a kind: few samples, small networks, one iteration
SMALL_TRAIN = {
    "train.epochs": "1e-9",
    "train.max_seconds": "0",
    "train.cpu_threads": "1",
    "train.trackers": "[]",
    "train.evaluate_at_end": "false",
    "train.mixed_precision": "no",
    "data.batch_size": "4",
    "data.num_workers": "0",
}
SMALL_NETWORKS = {"model.architecture": "small", "model.zs_dim": "4", "model.zu_dim": "4"}
SMALL = {
    "evaluate.py": "--samples-per-class 4 --set evaluation.diversity_samples=3 --set evaluation.splits=2 "
    "--set evaluation.neighbour_samples=9",
    "generate.py many": "--per-class 2",
    "generate.py inpaint": "--refine-steps 1 --masks right-half",
    "generate.py points": "--num-points 20",
    "build.py toy": "--num-points 60 --num-test-points 12 --workers 1",
    **dict.fromkeys(("build.py folder", "build.py zip", "build.py csv", "build.py hf"), "--workers 1"),
}
SMALL_SPLIT = {"generate.py swap": "--rows 2 --columns 2", "generate.py inpaint": "--pictures 1"}
SMALL_CONSTANTS = {
    "dist_dsvae.engine.evaluating.test_codes:PROBE_TRAIN_SAMPLES": 100,
    "dist_dsvae.runs.measure_statistics:NUM_CODES": 64,
}
# Runs of `dsvae reproduce`, which is not run here, by the configs that it trains them with
REPRODUCED = {
    "runs/toy/dsvae-seed1": "toy",
    "runs/toy/paper-seed1": "paper/toy",
    "runs/toy/cvae_gan-seed1": "baselines/cvae_gan-toy",
}
ORDER = (
    "shards/README.md",
    "README.md",
    "docs/your-images.md",
    "docs/use-a-model.md",
    "docs/scores.md",
    "docs/results.md",
)


def script_of(command: Command) -> str:
    """The name of the door to a command, by which it is known here: of "dsvae train", too, it is train.py."""
    return f"{Path(command.program.removeprefix('dsvae ')).stem}.py"


def reasons(command: Command) -> list[str]:
    return [pattern for pattern in NOT_RUN if re.search(pattern, str(command))]


ONCE = {str(command): command for page in ORDER for command in COMMANDS if command.page == page}
RUN = {line: command for line, command in ONCE.items() if not reasons(command)}
PLACEHOLDERS = {"N": "2", "K": "0", "N*P": "4"}  # of the launcher's numbers


def test_every_page_is_looked_through() -> None:
    assert {command.page for command in COMMANDS} <= {str(page.relative_to(REPOSITORY)) for page in PAGES}
    assert len(COMMANDS) > 70


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_its_program_understands_it(command: Command) -> None:
    parsed = parser_of(command.program).parse_args(list(command.arguments))
    program, *inner = command.program.split()
    launcher = [PLACEHOLDERS.get(word, word) for word in command.launcher]
    if "accelerate" in launcher:
        launched = launch_command_parser().parse_args([*launcher[2:], program, *inner, *command.arguments])
        assert launched.training_script == program
        assert launched.config_file is None or (REPOSITORY / launched.config_file).is_file()
    if "torchrun" in launcher:
        launched = get_args_parser().parse_args([*launcher[1:], program, *inner, *command.arguments])
        assert launched.training_script == program
    if {"accelerate", "torchrun"} & set(launcher):
        assert bool(launched.no_python) == (program == "dsvae")
    if script_of(command) == "train.py":
        load_config(parsed.config, parsed.overrides)


def test_what_is_not_run_has_a_reason_and_every_reason_a_command() -> None:
    for command in COMMANDS:
        assert str(command) in RUN or reasons(command), f"{command} is neither run nor excused"
    used = {pattern for command in COMMANDS for pattern in reasons(command)}
    assert used == NOT_RUN.keys()
    assert len(RUN) > 20


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the repository, with a person's own pictures."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    (folder / "shards").mkdir()
    (folder / "shards/fashion-mnist-mini").symlink_to(REPOSITORY / "shards/fashion-mnist-mini")
    rng = np.random.default_rng(0)
    new = ("new-images/cleo", "new-images/dan")
    for name in ("my-images/anna", "my-images/ben", "other-images/more", *new):
        (folder / name).mkdir(parents=True)
        for number in range(60):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    with zipfile.ZipFile(folder / "my-images.zip", "w") as packed:
        for path in sorted((folder / "my-images").rglob("*.png")):
            packed.write(path, path.relative_to(folder))
    classes = ["anna", "ben"]
    listed = [f"{name}/{number:02d}.png" for name in classes for number in range(60)]
    rows = "".join(f"{path},{path.partition('/')[0]}\n" for path in listed)
    (folder / "my-images/list.csv").write_text(f"path,label\n{rows}")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    content = {"image": [str(folder / "my-images" / path) for path in listed], "label": [0] * 60 + [1] * 60}
    datasets.Dataset.from_dict(content, features=features).save_to_disk(folder / "my-set")
    for name in ("anna", "ben"):
        Image.open(folder / f"my-images/{name}/00.png").save(folder / f"{name}.jpg")
    return folder


def small(command: Command) -> list[str]:
    """The arguments, and what makes them small behind them."""
    words = list(command.arguments)
    script = script_of(command)
    if script == "train.py":
        settings = dict(SMALL_TRAIN)
        config = str(parser_of(command.program).parse_args(words).config)
        if "classifier" not in config and "toy" not in config:
            settings |= SMALL_NETWORKS
        return [*words, *(f"--set={key}={value}" for key, value in settings.items())]
    is_comparison = "--compare" in words
    extra = "" if is_comparison else SMALL.get(script, SMALL.get(f"{script} {words[0]}", ""))
    of_split = "" if "--images" in words else SMALL_SPLIT.get(f"{script} {words[0]}", "")
    return [*words, *extra.split(), *of_split.split()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_they_run_in_their_order(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    environment = os.environ | {"XDG_CACHE_HOME": str(workplace / "cache")}

    def run(script: str, *arguments: str) -> None:
        done = run_program(
            script, *arguments, environment=environment, folder=workplace, constants=SMALL_CONSTANTS
        )
        assert done.returncode == 0, f"{script} {arguments}\n{done.stdout}\n{done.stderr}"

    for command in RUN.values():
        for folder in REPRODUCED.keys() & set(command.arguments):
            settings = (f"--set={key}={value}" for key, value in SMALL_TRAIN.items())
            run("train.py", "--config", f"configs/{REPRODUCED[folder]}.json", "--run-dir", folder, *settings)
        run(script_of(command), *small(command))
        shutil.rmtree("generated", ignore_errors=True)  # two pages write it
    expected = ["model/README.md", "swap.png", "grid.png", "anna-and-ben.png", "path.png", "figure2.png"]
    assert [name for name in expected if not (workplace / name).stat().st_size] == []
