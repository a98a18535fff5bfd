"""The config tree: strict reading, sentences for every mistake, identity of runs."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.checks import without_effect
from dist_dsvae.config.reading import ConfigError, differing_keys, from_tree, load_config, to_json, to_tree

REPOSITORY = Path(__file__).parents[3]
MINIMAL = {"data": {"train": "t"}, "model": {"architecture": "small32"}}


def config(**sections: object) -> ExperimentConfig:
    return from_tree(ExperimentConfig, MINIMAL | sections)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").rglob("*.json")), ids=lambda p: p.stem)
def test_shipped_configs_load_and_begin_with_their_command(path: Path) -> None:
    loaded = load_config(path)
    relative = path.relative_to(REPOSITORY).as_posix()
    assert next(iter(json.loads(path.read_text()))) == "command"
    assert loaded.command == f"accelerate launch launch/train.py --config {relative}"
    assert list(without_effect(loaded)) == []


def test_round_trip(tmp_path: Path) -> None:
    original = config(seed=3, optimizer={"learning_rate": 1e-3})
    (tmp_path / "c.json").write_text(to_json(original))
    assert load_config(tmp_path / "c.json") == original


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"optimzer": {}}, "Unknown key 'optimzer'. Did you mean 'optimizer'?"),
        (
            {"optimizer": {"learning_rat": 1}},
            "Unknown key 'optimizer.learning_rat'. Did you mean 'learning_rate'?",
        ),
        ({"optimizer": {"zzz": 1}}, "Unknown key 'optimizer.zzz'. Allowed here: beta1,"),
        ({"seed": "one"}, 'seed is "one"; it must be a whole number.'),
        ({"seed": True}, "seed is true; it must be a whole number."),
        ({"seed": 1.5}, "seed is 1.5; it must be a whole number."),
        ({"train": {"epochs": "ten"}}, 'train.epochs is "ten"; it must be a number.'),
        ({"train": {"epochs": 0}}, "train.epochs is 0; it must be greater than 0."),
        ({"optimizer": {"beta1": 1.5}}, "optimizer.beta1 is 1.5; it must be between 0 and 0.999999."),
        ({"train": {"cpu_threads": -2}}, "train.cpu_threads is -2; it must be between 0 and"),
        ({"method": {"kl_weight": -1}}, "method.kl_weight is -1; it must be between 0 and"),
        ({"seed": 10**24}, "it must be between"),
        ({"train": {"epochs": 1e308}}, "train.epochs is 1e+308; it must be"),
        ({"train": {"epochs": 10**400}}, "it must be a number."),
        (
            {"train": {"collective_timeout_seconds": 1e15}},
            "train.collective_timeout_seconds is 1000000000000000.0; it",
        ),
        ({"data": {"train": "x", "worker_timeout_seconds": 3e6}}, "it must be between 0 and 2,000,000"),
        ({"data": {"train": "x", "fetch_timeout_seconds": 1e10}}, "it must be"),
        ({"train": {"evaluate_at_end": 1}}, "train.evaluate_at_end is 1; it must be true or false."),
        (
            {"train": {"trackers": "wandb"}},
            'train.trackers is "wandb"; it must be a list, such as ["wandb"].',
        ),
        ({"train": {"trackers": ["wand"]}}, 'train.trackers[0] is "wand"; allowed: '),
        ({"train": {"trackers": ["wand"]}}, "Did you mean 'wandb'?"),
        ({"train": {"trackers": ["wandb", "wandb"]}}, 'train.trackers holds "wandb" twice; once is enough.'),
        (
            {"data": {"train": "t", "batch_size": -1}},
            "data.batch_size is -1; it must be between 2 and 1,000,000,000.",
        ),
        ({"data": {}}, "data.train is missing"),
        ({"data": []}, "data must be an object of keys, not []"),
        ({"model": {"architecture": "conv23"}}, 'model.architecture is "conv23"; allowed: "vgg"'),
        ({"model": {"architecture": "conv23"}}, "Did you mean 'conv32'?"),
    ],
)
def test_mistakes_get_sentences(sections: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config(**sections)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no config file"):
        load_config(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="must hold an object of keys"):
        load_config(tmp_path / "list.json", ["a.b=1"])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        load_config(tmp_path / "broken.json")


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(ConfigError, match=r"^x{300} cannot be read: File name too long\. Give"):
        load_config(Path(300 * "x"))


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(MINIMAL))
    loaded = load_config(path, ["train.epochs=2", "data.train=elsewhere", "method.adversarial=hinge"])
    assert (loaded.train.epochs, loaded.data.train, loaded.method.adversarial) == (2.0, "elsewhere", "hinge")
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        load_config(path, ["train.epoch=2"])
    with pytest.raises(ConfigError, match="is not of the form"):
        load_config(path, ["train.epochs"])
    with pytest.raises(ConfigError, match="is a value, not a section"):
        load_config(path, ["seed=1", "seed.x=2"])


@pytest.mark.parametrize("wrong", ["train.epochs=-1", "train.epochs=many", "train.epoch=2", "model.zs_dim=0"])
def test_a_mistake_on_the_command_line_is_not_put_on_the_file(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(MINIMAL))
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))} with --set {re.escape(wrong)}: "):
        load_config(path, ["data.batch_size=8", wrong])
    path.write_text(json.dumps(MINIMAL | {"train": {"epochs": -1}}))
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: train.epochs is -1"):
        load_config(path, ["data.batch_size=8"])


def test_keys_of_another_method_are_put_on_the_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(Path("quickstart"), ["method.name=cvae"])
    said = str(error.value)
    assert "quickstart.json with --set method.name=cvae: Unknown keys 'method.zs_posterior', " in said
    assert "'method.discriminator_gain': they are not of method 'cvae' (method.name). " in said
    assert said.endswith(" or begin with one of configs/baselines/cvae-*.json.")
    path = tmp_path / "c.json"
    path.write_text(
        json.dumps(MINIMAL | {"method": {"name": "cgan", "adversarial": "hinge", "kl_weight": 1}})
    )
    in_the_file = f"{path}: Unknown key 'method.kl_weight': it is not of method 'cgan' (method.name). "
    with pytest.raises(ConfigError, match=f"^{re.escape(in_the_file)}"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"Unknown key 'method\.adversary'. Did you mean 'adversarial'\?"):
        config(method={"name": "cgan", "adversary": "hinge"})  # of no method


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dsvae", "feature_weight"),
        ("cvae", "gm_updates"),
        ("cgan", "kl_weight"),
        ("cvae_gan", "gm_updates"),
        ("classifier", "kl_weight"),
    ],
)
def test_configs_that_a_sentence_points_to_are_of_that_method(name: str, other: str) -> None:
    with pytest.raises(ConfigError, match=f"'method.{other}': it is not of method '{name}'") as error:
        config(method={"name": name, other: 1})
    pointed_to = str(error.value).removesuffix(".").split()[-1]
    methods = {load_config(path).method.name for path in REPOSITORY.glob(pointed_to)}
    assert methods == {name}


def test_former_names_of_keys(tmp_path: Path) -> None:
    """Older files, records, and commands in people's scripts; what is given last counts."""
    former = {"gm_steps": 1, "joint_steps": 2, "unlabelled_steps": 3}
    now = {"gm_updates": 1, "joint_updates": 2, "unlabelled_updates": 3}
    assert differing_keys(config(method=former), config(method=now)) == []
    assert to_tree(config(method=former))["method"].items() >= now.items()
    path = tmp_path / "c.json"
    for name, overrides in [("gm_steps", ["gm_updates=5"]), ("gm_updates", ["gm_updates=4", "gm_steps=5"])]:
        path.write_text(json.dumps(MINIMAL | {"method": {name: 1}}))
        loaded = load_config(path, [f"method.{override}" for override in overrides])
        assert loaded.method == from_tree(ExperimentConfig, MINIMAL | {"method": {"gm_updates": 5}}).method
    with pytest.raises(ConfigError, match=r"method\.gm_steps is -1; it must be between 0 and 1,000"):
        config(method={"gm_steps": -1})
    with pytest.raises(ConfigError, match=r"Unknown key 'method\.gm_steps'"):
        config(method={"name": "cgan", "gm_steps": 1})


def test_identity_ignores_free_keys_only() -> None:
    before = config()
    after = config(
        seed=1,
        train={"epochs": 3, "log_every_steps": 7},
        optimizer={"learning_rate": 1e-3},
        run_dir="elsewhere",
    )
    assert differing_keys(before, after) == ["seed (0 -> 1)", "optimizer.learning_rate (0.0005 -> 0.001)"]
    assert differing_keys(before, dataclasses.replace(before)) == []


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["evaluation.samples_per_class=50"], "evaluation.diversity_samples is 100, more than the 50 of"),
        (["evaluation.fid_network=net.pt"], "evaluation.fid_network is net.pt, but evaluation.classifier is"),
        (["evaluation.every_steps=1"], "evaluation.every_steps is set, but data.test is not"),
        (["evaluation.weights=ema"], 'evaluation.weights is "ema", but train.ema_half_life_updates is 0'),
        (["method.unlabelled_updates=1"], "method.unlabelled_updates is 1, but data.unlabelled is not set"),
        (
            ["method.name=cvae", "evaluation.temperature_zs=0.5"],
            "evaluation.temperature_zs is 0.5, but cvae has one code",
        ),
        (["method.gm_updates=0", "method.joint_updates=0"], "are all 0, so there is nothing to train"),
        (["method.gm_updates=0", "method.joint_batch=last"], 'method.joint_batch is "last", the batch of'),
        (["method.joint_updates=2", "method.joint_batch=last"], "2 joint updates would see one batch"),
        (
            ["method.name=cgan", "evaluation.prior=fitted"],
            'evaluation.prior is "fitted", but method.name is "cgan", which does not encode images',
        ),
        (
            ["train.keep_every_steps=100", "train.checkpoint_every_steps=0"],
            "train.keep_every_steps is 100, but train.checkpoint_every_steps is 0",
        ),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, overrides: list[str], sentence: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(MINIMAL))
    load_config(path)
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    assert str(error.value).startswith(f"{path} with --set ")
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("name", "overrides", "sentence"),
    [
        (
            "quickstart",
            ["optimizer.variance_learning_rate=0.1"],
            "optimizer.variance_learning_rate is 0.1, which has no effect: method.mixture_fit is "
            '"moments", and only "gradient" trains variances. Leave it out, or set it to 0.0005, its '
            "default.",
        ),
        (
            "quickstart",
            ["optimizer.variance_schedule=constant"],
            'optimizer.variance_schedule is "constant",',
        ),
        (
            "baselines/cvae-quickstart",
            ["optimizer.variance_schedule=constant"],
            'has no effect: method.name is "cvae", which has no mixture. Leave it out, or set it to "paper"',
        ),
        (
            "cifar10",
            ["method.mixture_rate=0.5"],
            "method.mixture_rate is 0.5, which has no effect: method.mi",
        ),
        (
            "classifier/lfw",
            ["model.architecture=inception-resnet-v1", "method.width=7"],
            "method.width is 7, which has no effect: model.architecture is ",
        ),
        (
            "cifar10",
            ["train.ema_ramp_up=0.5"],
            "train.ema_ramp_up is 0.5, which has no effect: train.ema_half",
        ),
        ("cifar10", ["train.ema_networks=all"], 'train.ema_networks is "all", which has no effect'),
        (
            "cifar10",
            ["train.ema_ramp_up=0.5", "train.ema_half_life_samples=9"],
            "has no effect: the deprecated train.ema_half_life_samples has no ramp-up.",
        ),
    ],
)
def test_keys_without_effect_get_a_sentence(name: str, overrides: list[str], sentence: str) -> None:
    (found,) = without_effect(load_config(Path(name), overrides))
    assert sentence in found


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("cifar10", ["optimizer.variance_learning_rate=0.1", "optimizer.variance_schedule=constant"]),
        ("quickstart", ["method.mixture_rate=0.5", "optimizer.variance_schedule=paper"]),
        ("cifar10", ["train.ema_half_life_updates=9", "train.ema_ramp_up=0.5", "train.ema_networks=all"]),
    ],
)
def test_keys_that_have_an_effect_get_none(name: str, overrides: list[str]) -> None:
    loaded = load_config(Path(name), overrides)
    assert list(without_effect(loaded)) == []
    assert list(without_effect(from_tree(ExperimentConfig, to_tree(loaded)))) == []  # every key spelt out


def test_what_a_run_recorded_is_read_in_any_case() -> None:
    recorded = to_tree(config(evaluation={"samples_per_class": 50, "diversity_samples": 100}))
    assert from_tree(ExperimentConfig, recorded).evaluation.diversity_samples == 100
