"""`./scripts/test`: format, lint, types, the architecture, then the tests."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
STEPS = {
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "."],
    "types": ["mypy", "--no-error-summary"],
    "architecture": ["lint-imports", "--no-logo"],
}


def main(arguments: list[str]) -> int:
    """Stop at the first step that fails, with its status; pytest has the last word."""
    for name, command in STEPS.items():
        status = check(name, command)
        if status != 0:
            return status
    print("tests", flush=True)
    os.chdir(ROOT)
    command = [str(BIN / "pytest"), "-n", "auto", "--maxprocesses", "8", *arguments]
    return subprocess.run(command, check=False).returncode


def check(name: str, command: list[str]) -> int:
    """Run one step, its output shown only where it fails."""
    began = time.monotonic()
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    verdict = "ok" if done.returncode == 0 else f"failed ({' '.join(command)})"
    if done.returncode != 0:
        print(done.stdout, end="")
    print(f"{name:<13} {verdict}  {time.monotonic() - began:.1f} s", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
