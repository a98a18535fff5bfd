"""The page: which tabs a source has, and what is said where it cannot be shown."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from dist_dsvae.config import CGANConfig, ClassifierConfig, CVAEConfig, DSVAEConfig, MethodConfig
from dist_dsvae.methods.published import save_published
from tests.unit.explore.making import face_model, make_model, make_run, save_checkpoint
from tests.unit.pretrained.making import make_published

gr = pytest.importorskip("gradio", reason="the page needs the extra explore")

from dist_dsvae.explore.app import build_page, is_local, serve, usable_port  # noqa: E402
from dist_dsvae.explore.controls import telling  # noqa: E402
from dist_dsvae.explore.subject import ShownModel, Subject, open_source  # noqa: E402
from dist_dsvae.pretrained.requests import RequestError  # noqa: E402
from dist_dsvae.runs.checkpoint_folder import checkpoint_name  # noqa: E402

REPOSITORY = Path(__file__).parents[3]
DRAWING = ["Samples", "Between classes", "Looks"]


def tabs(source: Subject) -> list[str]:
    page = build_page(source, 1000)
    return [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]


@pytest.mark.parametrize(
    ("config", "architecture", "expected"),
    [
        (DSVAEConfig(), "small32", [*DRAWING, "Swap", "Inpaint"]),
        (CVAEConfig(), "small32", [*DRAWING, "Swap", "Inpaint"]),
        (CGANConfig(), "small32", DRAWING),
        (DSVAEConfig(), "mlp2d", ["Samples"]),
    ],
    ids=["dsvae", "cvae", "cgan", "points"],
)
def test_the_tabs_follow_from_what_the_method_can_do(
    config: MethodConfig, architecture: str, expected: list[str], tmp_path: Path
) -> None:
    model = make_model(config, architecture)
    assert tabs(Subject("tiny", ShownModel(model), None, "")) == expected
    make_run(tmp_path / "run")
    assert tabs(Subject("tiny", ShownModel(model), tmp_path / "run", "")) == [*expected, "Training"]


def test_a_run_without_a_checkpoint_is_watched_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "started")
    source = open_source(None, tmp_path / "started")
    assert source.name == "started"
    assert source.note.startswith("There is no checkpoint yet.")
    assert tabs(source) == ["Training"]


def test_a_newer_checkpoint_is_taken_and_an_unreadable_one_is_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run)
    save_checkpoint(run, 100)
    shown = open_source(None, run).shown
    assert shown is not None
    assert "Pictures are drawn from its iteration 100." in shown.note
    first = shown.model
    assert not shown.look_for_newer()
    assert shown.model is first
    save_checkpoint(run, 1200)
    assert shown.look_for_newer()
    assert shown.model is not first
    assert shown.checkpoint == checkpoint_name(1200)
    assert shown.note.endswith("Pictures are drawn from its iteration 1,200.")
    second, examples = shown.model, shown.examples
    save_checkpoint(run, 1300)
    damaged = run / "checkpoints" / checkpoint_name(1300)
    (next(damaged.glob("*.distcp"))).write_bytes(b"cut off")
    shown.look_for_newer()
    assert shown.model is second
    assert shown.examples is examples
    assert "iteration 1,200. A newer one cannot be read: " in shown.note
    assert not shown.look_for_newer(), "and it is not read again and again"


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    published = make_published(ClassifierConfig(), "resnet32")
    save_published(published, tmp_path / "model")
    with pytest.raises(RequestError, match="is a classifier, which draws nothing"):
        open_source(str(tmp_path / "model"), None)


def test_names_are_text_on_the_page() -> None:
    shown = ShownModel(make_model(CGANConfig()))
    page = build_page(Subject("<script>x</script>", shown, None, "<i>note</i>"), 1000)
    heading = next(block.value for block in page.blocks.values() if isinstance(block, gr.HTML))
    assert "<script" not in heading
    assert "<i>" not in heading


def test_a_message_of_an_error_is_text() -> None:
    @telling
    def fail() -> None:
        raise RequestError("no class '<b>'")

    with pytest.raises(gr.Error) as caught:
        fail()
    assert caught.value.message == "no class &#x27;&lt;b&gt;&#x27;"


def test_an_error_of_ours_is_no_message() -> None:
    @telling
    def fail() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        fail()


def test_a_published_model_is_opened(tmp_path: Path) -> None:
    published = make_published(DSVAEConfig())
    save_published(published._replace(about={"run": "faces"}), tmp_path / "model")
    source = open_source(str(tmp_path / "model"), None)
    assert source.name == "faces"
    assert source.note == "A dsvae of 32x32 pictures, 5 classes."
    assert source.shown is not None
    assert source.run is None


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(
            RequestError, match=rf"Port {taken} of 127\.0\.0\.1 cannot be listened on: Address"
        ):
            usable_port("127.0.0.1", taken)
        assert usable_port("127.0.0.1", 0) not in (0, taken)
    assert usable_port("127.0.0.1", taken) == taken
    with pytest.raises(RequestError, match=r"Port 80 of no\.such\.host\.invalid cannot"):
        usable_port("no.such.host.invalid", 80)


def test_without_gradio_the_command_says_what_to_install() -> None:
    script = (
        "import runpy, sys; sys.modules['gradio'] = None; sys.argv = ['explore.py', '--model', 'x'];"
        "runpy.run_path('launch/explore.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith('error: The page needs Gradio: pip install "dist_dsvae[explore]"\n')
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--model", "x", "--port", "70000"],
            "it must be a whole number from 0 to 65535",
        ),
        (["--model", "x", "--max-upload-mib", "0"], "'0' is not allowed; it must be a number above 0"),
        (["--model", "x", "--run", "y"], "not allowed with argument"),
        (["--run", "nowhere"], "error: nowhere is not a run directory"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], sentence: str) -> None:
    command = [sys.executable, "launch/explore.py", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_website_whose_name_leads_here_is_not_answered() -> None:
    page = build_page(Subject("model", ShownModel(make_model(DSVAEConfig())), None, ""), 1000)
    address = serve(page, "127.0.0.1", usable_port("127.0.0.1", 0), 1000)
    port = address.rstrip("/").rpartition(":")[2]

    def status(path: str, host: str) -> int:
        request = urllib.request.Request(address + path, headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    try:
        for path in ("", "config", "gradio_api/info"):
            for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:1234", "[::1]:80", "LOCALHOST"):
                assert status(path, host) == 200, (path, host)
            for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "localhost.x", ""):
                assert status(path, host) == 400, (path, host)
    finally:
        page.close(verbose=False)


@pytest.mark.parametrize(("host", "in_url"), [("::1", "[::1]"), ("::", "localhost")])
def test_an_address_of_ipv6(host: str, in_url: str) -> None:
    try:
        port = usable_port(host, 0)
    except RequestError:
        pytest.skip("needs IPv6")
    page = build_page(Subject("model", ShownModel(make_model(DSVAEConfig())), None, ""), 1000)
    try:
        assert serve(page, host, port, 1000) == f"http://{in_url}:{port}/"
        with urllib.request.urlopen(f"http://[::1]:{port}/config", timeout=60) as answer:
            assert answer.status == 200
    finally:
        page.close(verbose=False)
    with pytest.raises(RequestError, match="names an interface"):
        usable_port("fe80::1%lo", 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.8.0.1", True), ("127.1", True), ("::1", True), ("LocalHost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.7", False), ("no.such.host.invalid", False)),
    ],
)
def test_which_addresses_are_of_this_machine_alone(host: str, expected: bool) -> None:
    assert is_local(host) is expected


def test_a_picture_shown_again_is_not_written_in_place() -> None:
    """Whoever reads it at that moment would get a part of it."""
    page = build_page(Subject("model", ShownModel(make_model(DSVAEConfig())), None, ""), 1000)
    serve(page, "127.0.0.1", usable_port("127.0.0.1", 0), 1000)
    image = Image.new("RGB", (64, 64), "teal")
    try:
        edited = {"background": image, "layers": [], "composite": None}
        for component, value, place in (
            (gr.Image(format="png"), image, lambda data: data),
            (gr.Gallery(format="png"), [image], lambda data: data.root[0].image),
            (gr.ImageEditor(format="png"), edited, lambda data: data.background),
        ):
            path = Path(place(component.postprocess(value)).path)
            with path.open("rb") as reader:
                assert Path(place(component.postprocess(value)).path) == path
                assert not os.path.samestat(os.fstat(reader.fileno()), path.stat())
    finally:
        page.close(verbose=False)


def test_no_choice_is_dropped_while_another_is_drawn() -> None:
    """But the dice, which are done at once, and the clocks, which come again."""
    page = build_page(Subject("faces", ShownModel(face_model()), None, ""), 10**6)
    dropped = [
        f"{control and page.blocks[control].label}.{event}"
        for function in page.fns.values()
        if function.trigger_mode == "once"
        for control, event in function.targets
    ]
    assert dropped == ["None.click"]
    (dice,) = [f for f in page.fns.values() if f.trigger_mode == "once"]
    assert [page.blocks[number].value for number, _ in dice.targets] == ["\N{DIE FACE-5} Roll the dice"]
    assert not dice.queue
    for function in page.fns.values():
        with_event = any(event == "select" for _, event in function.targets)
        is_example = with_event and not isinstance(page.blocks[function.targets[0][0]], gr.Tab)
        assert (function.trigger_mode == "multiple") == is_example
