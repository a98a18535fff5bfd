"""Numbers and files on the command line: what no command can work with is refused where it is typed."""

from __future__ import annotations

import argparse
import errno
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.toy import toy
from dist_dsvae.config import EvaluationConfig, option_types
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import Codec
from dist_dsvae.core.paths import path_argument, place_argument
from dist_dsvae.engine.evaluating.evaluate import with_changes
from tests.programs import PROGRAMS, options_of, parser_of

NONSENSE = ("nan", "inf", "-inf", "1e400", "1e30", "-7", "99999999999999999999", "one", "")


def refuses(kind: object, text: str) -> bool:
    assert callable(kind)
    try:
        kind(text)
    except argparse.ArgumentTypeError:
        return True
    return False


FILES = (option_types.png_file, option_types.png_or_film_file, path_argument, place_argument)
NO_NUMBERS = (None, Path, str, *FILES)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_number_of_every_program_is_bounded(program: str) -> None:
    for name, action in options_of(parser_of(program)):
        if action.type in NO_NUMBERS or action.choices:
            continue
        assert inspect.getmodule(action.type) is option_types, f"{name} takes any {action.type}"
        accepted = [text for text in NONSENSE if not refuses(action.type, text)]
        assert accepted == [], name
        assert action.default is None or not isinstance(action.default, str), name


FIELDS = EvaluationConfig.__dataclass_fields__
NUMBERS = {name for name, field in FIELDS.items() if field.type in ("int", "float")}


@pytest.mark.parametrize("name", sorted(NUMBERS - {"radius"}))  # which no option changes
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 1e30])
def test_numbers_of_evaluate_meet_the_checks_of_the_config(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.{name} is "):
        with_changes(EvaluationConfig(), [f"evaluation.{name}={json.dumps(value)}"])


def test_bounds() -> None:
    assert [option_types.whole(0, 5)(text) for text in ("0", "5")] == [0, 5]
    with pytest.raises(argparse.ArgumentTypeError, match="'6' is not allowed; it must be a whole"):
        option_types.whole(0, 5)("6")
    with pytest.raises(argparse.ArgumentTypeError, match=r"'0' is not allowed; .* of at least 1$"):
        option_types.positive("0")
    assert option_types.share("0") == 0
    assert option_types.number(0, 2, above=True)("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="of at least 0 and below 1"):
        option_types.share("1")
    with pytest.raises(argparse.ArgumentTypeError, match="above 0 and at most 2"):
        option_types.number(0, 2, above=True)("0")


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert option_types.png_file(str(tmp_path / "new/grid.png")) == tmp_path / "new/grid.png"
    assert option_types.png_file("grid") == Path("grid")
    assert option_types.png_or_film_file("way.GIF") == Path("way.GIF")
    for directory in (".", "/", str(tmp_path), ".."):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is a directory; give the name of a file"):
            option_types.png_file(directory)
    with pytest.raises(argparse.ArgumentTypeError, match=r"ends in .jpg, but .* name it grid.png"):
        option_types.png_file("grid.jpg")
    with pytest.raises(
        argparse.ArgumentTypeError, match="cannot be written: File name too long; give another"
    ):
        option_types.png_file(300 * "x")

    def forbidden(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", forbidden)  # for root no folder is closed
    with pytest.raises(argparse.ArgumentTypeError, match=r"'closed/a\.png' cannot be written: Permission"):
        option_types.png_file("closed/a.png")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: FileEncoder(size=0, channels=3, resize="crop", codec=Codec()),
            "The image size is 0; it must be at least 1 pixel",
        ),
        (lambda: Codec(quality=100), "The JPEG quality is 100; allowed are 1 to 95"),
        (lambda: Codec(png_level=10), "The PNG compression level is 10; allowed are 0 to 9"),
        (lambda: toy(num_train=0, num_test=1), "0 training and 1 test points were asked for"),
    ],
)
def test_the_library_says_so_too(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("program", "typed", "sentence"),
    [
        ("launch/benchmark.py", "gm-loss --classes 0", "argument --classes: '0' is not allowed"),
        (
            "launch/generate.py",
            "vary --run R --out F --extent nan",
            "--extent: 'nan' is not allowed",
        ),
        ("launch/generate.py", "grid --run R --out .", "argument --out: '.' is a directory; give the name"),
        (
            "launch/generate.py",
            "grid --out F --temperature-zs 0",
            "it must be a number above 0 and at most 10",
        ),
        ("launch/generate.py", "many --out F --temperature-zu 11", "argument --temperature-zu: '11' is not"),
        ("shards/build.py", "toy OUT --workers 0", "argument --workers: '0' is not allowed"),
        ("shards/build.py", "toy OUT --num-points 0", "it must be a whole number from 1 to"),
        (
            "shards/build.py",
            "folder RAW OUT --test-fraction 1",
            "it must be a number of at least 0 and below 1",
        ),
        ("shards/build.py", "folder RAW OUT --size 0", "argument --size: '0' is not allowed"),
        ("shards/build.py", "folder RAW OUT --quality 100", "it must be a whole number from 1 to 95"),
        ("shards/build.py", "folder RAW OUT --png-level 10", "it must be a whole number from 0 to 9"),
        ("shards/build.py", "cub200 RAW OUT --margin -0.1", "argument --margin: '-0.1' is not allowed"),
        ("shards/build.py", "casia RAW OUT --identities 0", "it must be a whole number of at least 1"),
        ("shards/build.py", "casia RAW OUT --held-out-classes -1", "it must be a whole number of at least 0"),
    ],
)
def test_the_sentence_names_the_option(
    program: str, typed: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parser_of(program).parse_args(typed.split())
    assert exit_.value.code == 2
    assert sentence in capsys.readouterr().err
