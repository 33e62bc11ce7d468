"""Builds librocforge_ops with CMake against the PyTorch that is installed."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
NO_TORCH = (
    "rocforge_ops is built against an installed PyTorch (2.11 or newer) and none was found for {python}: install the "
    "PyTorch of your GPU first (https://pytorch.org/get-started), then `pip install .` again; a tool that hides the "
    "environment from the build (uv) needs --no-build-isolation as well."
)


def installed_torch() -> str:
    """Version of the PyTorch being installed next to; -I looks past pip's build isolation."""
    code = "import torch; print(torch.__version__)"
    probe = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    if probe.returncode:
        sys.exit(NO_TORCH.format(python=sys.executable))
    return probe.stdout.strip()


class CMakeBuild(build_ext):
    def get_ext_filename(self, name):
        return os.path.join(*name.split(".")) + ".so"

    def build_extension(self, ext):
        python = f"py{sys.version_info.major}{sys.version_info.minor}"
        default = ROOT / "build" / f"torch-{installed_torch()}-{python}"
        build = Path(os.environ.get("ROCFORGE_BUILD_DIR", default)).resolve()
        prefix = Path(self.get_ext_fullpath(ext.name)).resolve().parents[1]
        configure = [
            "cmake", "-S", ROOT, "-B", build, "-G", "Ninja",
            f"-DPython_EXECUTABLE={sys.executable}",
            # Named anew each time: an isolated build leaves the path of a deleted ninja in the cache.
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        subprocess.check_call(configure)
        subprocess.check_call(["cmake", "--build", build, "--target", "rocforge_ops"])
        subprocess.check_call(["cmake", "--install", build, "--prefix", prefix])


class Wheel(bdist_wheel):
    """The library uses no Python API: one wheel serves every Python of the platform."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


installed_torch()
setup(
    ext_modules=[Extension("rocforge_ops.librocforge_ops", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": Wheel},
)
