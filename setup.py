"""What a wheel carries besides the code, as dist_dsvae/box; all else stands in pyproject.toml.

configs/ and the embedded data set, with its judge and its model, have their place at the top level of a
clone. dist_dsvae/core/shipped.py finds them there as well as in the box: an editable installation needs none.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

SHIPPED = ("configs", "shards/fashion-mnist-mini")


class BuildBox(Command):
    """A step of the build (setuptools' protocol ``SubCommand``): ``SHIPPED``, copied below the package."""

    description = "put the configs and the embedded data into the package"
    user_options = ()
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = ""

    def finalize_options(self) -> None:
        self.build_lib = self.get_finalized_command("build_py").build_lib

    def run(self) -> None:
        if self.editable_mode:
            return
        for target, source in self.get_output_mapping().items():
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_source_files(self) -> list[str]:
        return list(self.get_output_mapping().values())

    def get_outputs(self) -> list[str]:
        return list(self.get_output_mapping())

    def get_output_mapping(self) -> dict[str, str]:
        """Source by target, of every file. Raises FileNotFoundError where there is nothing to carry."""
        box, mapping = Path(self.build_lib) / "dist_dsvae" / "box", {}
        for folder in map(Path, SHIPPED):
            files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
            if not files:
                raise FileNotFoundError(f"{folder} is not there, but belongs into the wheel")
            mapping |= {str(box / path): str(path) for path in files}
        return mapping


build.sub_commands = [*build.sub_commands, ("build_box", None)]
setup(cmdclass={"build_box": BuildBox})
