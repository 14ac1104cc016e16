"""What every figure is stated with."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def context() -> dict[str, str]:
    """CPU model, Python, and the commit measured."""
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {"cpu": model, "python": platform.python_version(), "commit": commit}
