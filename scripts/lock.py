"""Renew both lock files from pyproject.toml, with uv: hashes for every platform, no addresses."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILE = [
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-emit-index-url", "--no-header", "pyproject.toml"),
]
RUNTIME = ["--output-file", "requirements.lock"]
DEV = ["--extra", "dev", "--constraints", "requirements.lock"]
DEV += ["--output-file", "requirements-dev.lock"]


def main(options: list[str]) -> None:
    for which in (RUNTIME, DEV):
        subprocess.run([*COMPILE, *which, *options], cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
