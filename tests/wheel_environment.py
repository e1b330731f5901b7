"""A fresh virtual environment with our wheel; its other packages are those of this environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def install_wheel(root: Path) -> Path:
    """Build the wheel and install it; returns the environment's folder."""
    source = root / "source"  # a copy, so that nothing is built inside the repository
    shutil.copytree(REPOSITORY, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "docs"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", root, source], check=True, cwd=root)
    venv.create(root / "env", with_pip=False)
    python = root / "env" / "bin" / "python"
    (wheel,) = root.glob("nnunet_covid-*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True, cwd=root)
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True, capture_output=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    site_packages = Path(found.stdout.strip())
    others = [p for p in sys.path if p.endswith("site-packages")]
    (site_packages / "others.pth").write_text("\n".join(others) + "\n")
    return root / "env"


def run_there(environment: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of that environment in a world where nothing of ours is exported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet", "NNUNET", "PYTHONPATH"))}
    program = [str(environment / "bin" / command[0]), *command[1:]]
    return subprocess.run(
        program,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**kept, **variables},
        cwd=environment,
        timeout=300,
    )
