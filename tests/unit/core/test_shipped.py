"""What comes with the project is found by its name, in a clone and in a wheel; a person's files go first."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import setuptools

from dist_dsvae.config.reading import ConfigError, load_config
from dist_dsvae.core import shipped
from dist_dsvae.core.shipped import at_hand, config_file, config_names, model_in_the_box
from dist_dsvae.data.open_split import open_split
from tests.programs import REPOSITORY

SPLIT = "shards/fashion-mnist-mini/test"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "empty"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up package with a box."""
    package = tmp_path / "site-packages/dist_dsvae"
    (package / "box/configs/more").mkdir(parents=True)
    (package / "box/configs/more/one.json").write_text("{}")
    (package / "box/shards/fashion-mnist-mini/model").mkdir(parents=True)
    monkeypatch.setattr(shipped, "PACKAGE", package)
    return package


def test_a_clone_has_them_at_its_top_level() -> None:
    assert config_file("quickstart") == REPOSITORY / "configs/quickstart.json"
    assert config_file("configs/quickstart.json") == REPOSITORY / "configs/quickstart.json"
    assert config_file("baselines/cvae-quickstart") == REPOSITORY / "configs/baselines/cvae-quickstart.json"
    assert at_hand(SPLIT) == REPOSITORY / SPLIT


def test_a_wheel_has_them_in_its_box(package: Path) -> None:
    assert config_file("more/one") == package / "box/configs/more/one.json"
    assert config_names() == ["more/one"]
    assert at_hand("shards/fashion-mnist-mini") == package / "box/shards/fashion-mnist-mini"


def test_what_a_person_has_goes_first(elsewhere: Path) -> None:
    (elsewhere / SPLIT).mkdir(parents=True)
    (elsewhere / "quickstart").mkdir()  # a folder is no config
    assert at_hand(SPLIT) == Path(SPLIT)
    assert config_file("quickstart") == REPOSITORY / "configs/quickstart.json"
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs/quickstart.json").write_text("{}")
    assert config_file("quickstart") == Path("configs/quickstart.json")
    (elsewhere / "toy").write_text("{}")
    assert config_file("toy") == Path("toy")


@pytest.mark.parametrize(
    "place", ["shards/mine", "docs", "/nowhere/at/all", "configs/../docs", "http://x/configs", ""]
)
def test_other_places_stay_what_they_are(place: str) -> None:
    assert at_hand(place) == Path(place)


def test_the_model_is_there_once_it_is_whole(package: Path) -> None:
    assert model_in_the_box() is None
    model = package / "box/shards/fashion-mnist-mini/model"
    (model / "config.json").write_text("{}")
    assert model_in_the_box() == model


def test_the_embedded_data_open_from_any_directory() -> None:
    assert open_split(SPLIT).num_samples == 2000


def test_a_mistyped_name_is_told_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"There is no config file quikstart. Did you mean 'quickstart'"):
        load_config(Path("quikstart"))
    with pytest.raises(ConfigError, match=r"There is no config file q/x.json. `dsvae config --names` lists"):
        load_config(Path("q/x.json"))


def test_every_name_is_an_experiment_that_names_its_own_file() -> None:
    assert "quickstart" in config_names()
    for name in config_names():
        assert json.loads(config_file(name).read_text())["command"].endswith(f"configs/{name}.json")


def test_the_build_carries_what_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    assert runpy.run_path(str(REPOSITORY / "setup.py"))["SHIPPED"] == shipped.SHIPPED
