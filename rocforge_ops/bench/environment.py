"""Where numbers come from: device, versions, date."""

from __future__ import annotations

import datetime
import platform
import re
from pathlib import Path

import torch


def require_gpu(device: str) -> None:
    """RuntimeError with one clear sentence unless this PyTorch sees a GPU of that name."""
    if not torch.cuda.is_available():
        raise RuntimeError(f"no GPU: PyTorch {torch.__version__} ({_built_for()}) sees none on this machine")
    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        raise RuntimeError(f"no GPU {device}: this machine has {torch.cuda.device_count()}")


def describe(device: str) -> dict[str, str]:
    """Lines to print above a table."""
    import rocforge_ops

    lines = {
        "device": f"{_processor()}, {torch.get_num_threads()} thread(s)",
        "versions": f"rocforge_ops {rocforge_ops.__version__}, PyTorch {torch.__version__} ({_built_for()}), "
        f"Python {platform.python_version()}, {platform.system()} {platform.release()}",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        arch = properties.gcnArchName if torch.version.hip else f"sm_{properties.major}{properties.minor}"
        lines["device"] = (
            f"{properties.name}, {arch}, wave size {properties.warp_size}, "
            f"{properties.multi_processor_count} compute units, {properties.total_memory / 2**30:.0f} GiB"
        )
    return lines


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return model[1] if model else platform.machine()


def _built_for() -> str:
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "built without GPU support"
