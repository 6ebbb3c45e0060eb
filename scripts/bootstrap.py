"""Makes the project's own .venv from the lock file, on a machine that has only Python.

Standard library only, and free of newer syntax, so that an old Python gets a sentence
here and not a syntax error. Two may run at once, and one may be killed at any moment.
"""

import sys
from typing import NoReturn


def refuse(sentence: str) -> NoReturn:
    """Say in one line what to do, and end with status 2."""
    sys.stderr.write(f"counterfoil: {sentence}\n")
    raise SystemExit(2)


if sys.version_info < (3, 11):  # noqa: UP036 (older ones do come here)
    refuse(
        "Python 3.11 or newer is needed, this is {}.{}; install one, then run it with "
        "that python3 first on PATH.".format(*sys.version_info)
    )

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / "unfinished"
LOCKS = {"runtime": "requirements.lock", "dev": "requirements-dev.lock"}  # dev contains runtime
BESIDE_THE_RUNTIME = "dev"  # in UNFINISHED: what runs from .venv has all of its own
INSTALL_TIMEOUT_SECONDS = 1800
PROBE_TIMEOUT_SECONDS = 30
FETCH_TIMEOUT_SECONDS = 30

# What a machine without uv, ensurepip and pip installs with, from the index pip is configured for.
DEBIAN_PIP = "python3-pip-whl"
PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_WHEEL_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"

PIP_OPTIONS = [
    *("install", "--quiet", "--no-input", "--disable-pip-version-check", "--retries", "2"),
    *("--no-warn-script-location", "--no-deps", "--require-hashes", "--requirement"),
]


class InstallFailed(Exception):
    """A step of the set-up did not work; the text is one line."""


class NotHere(Exception):
    """This machine lacks this installer; the next one is tried."""


def run(module: str, kind: str = "runtime") -> NoReturn:
    """Become `.venv/bin/python -m module` with this program's arguments."""
    ensure(kind)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.execv(PYTHON, [str(PYTHON), "-P", "-m", module, *sys.argv[1:]])  # noqa: S606 (no shell)


def ensure(kind: str = "runtime") -> None:
    """.venv holds what the lock says; a few milliseconds when it already does."""
    try:
        if not is_ready(kind):
            with one_at_a_time():
                if not is_ready(kind):
                    install(kind)
    except InstallFailed as error:
        refuse(
            f"the dependencies could not be installed: {error} "
            "(check the network, or name a package index in PIP_INDEX_URL, then run this again)"
        )
    except OSError as error:
        refuse(f"{VENV} could not be made ({error}); make {ROOT} writable and run this again.")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def is_ready(kind: str) -> bool:
    stamp = stamp_path(kind)
    is_finished = not UNFINISHED.exists() or (kind == "runtime" and lacks_extras_only())
    return is_finished and stamp.exists() and stamp.read_text() == current_stamp(kind)


def lacks_extras_only() -> bool:
    """Whether the set-up that was interrupted had a whole runtime to begin with."""
    return UNFINISHED.read_text() == BESIDE_THE_RUNTIME


def stamp_path(kind: str) -> Path:
    return VENV / f"installed-{kind}"


def current_stamp(kind: str) -> str:
    """Differs when the lock, this file, the folder or the Python behind .venv does."""
    interpreter = PYTHON.resolve()
    status = interpreter.stat() if interpreter.exists() else None
    identity = [str(ROOT), str(interpreter), str(status and (status.st_size, status.st_mtime_ns))]
    contents = [(ROOT / LOCKS[kind]).read_bytes(), Path(__file__).read_bytes()]
    return hashlib.sha256(b"\0".join([*map(os.fsencode, identity), *contents])).hexdigest()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold a lock on the project's folder itself, so that no lock file stays behind."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of .venv to end")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def install(kind: str) -> None:
    say(f"setting up .venv ({LOCKS[kind]}), once")
    if not is_sound():
        make_venv()
    elif UNFINISHED.exists():
        forget_half_packages()
    UNFINISHED.write_text(BESIDE_THE_RUNTIME if is_ready("runtime") else "")
    install_lock(ROOT / LOCKS[kind])
    install_project()
    for each in ("runtime", kind):
        stamp_path(each).write_text(current_stamp(each))
    UNFINISHED.unlink()


def is_sound() -> bool:
    """A .venv that was finished once, and whose Python still runs and is of the same version."""
    if not PYTHON.exists() or (UNFINISHED.exists() and not lacks_extras_only()):
        return False
    probe = [str(PYTHON), "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]
    try:
        name = execute(probe, PROBE_TIMEOUT_SECONDS).strip()
    except InstallFailed:
        return False
    return site_packages().parent.name == name


def make_venv() -> None:
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    UNFINISHED.touch()
    execute([sys.executable, "-m", "venv", "--without-pip", str(VENV)], PROBE_TIMEOUT_SECONDS)


def forget_half_packages() -> None:
    """An installer takes for installed whatever is described; the list of its files comes last."""
    for described in site_packages().glob("*.dist-info"):
        if not (described / "RECORD").exists():
            shutil.rmtree(described)


def install_lock(lock: Path) -> None:
    """With the first installer that this machine has."""
    installers: list[Callable[[Path], None]]
    installers = [with_uv, with_bundled_pip, with_machine_pip, with_debian_pip, with_fetched_pip]
    for installer in installers:
        try:
            return installer(lock)
        except NotHere:
            continue
    raise InstallFailed("no installer was found")


def with_uv(lock: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise NotHere
    index = configured_index()
    if index is not None:
        os.environ.setdefault("UV_DEFAULT_INDEX", index)
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    if "PIP_CERT" in os.environ:
        os.environ.setdefault("SSL_CERT_FILE", os.environ["PIP_CERT"])
    command = [uv, "pip", "install", "--quiet", "--no-progress", "--python", str(PYTHON)]
    options = ["--no-deps", "--require-hashes", "--requirement", str(lock)]
    try:
        execute([*command, *options])
    except InstallFailed as error:
        raise NotHere from error  # pip may be configured for a network that uv does not know


def with_bundled_pip(lock: Path) -> None:
    """Run the wheel that ensurepip would install, without the seconds of installing it."""
    import sysconfig

    folders = [Path(os.__file__).parent / "ensurepip" / "_bundled"]
    if sysconfig.get_config_var("WHEEL_PKG_DIR"):
        folders.insert(0, Path(sysconfig.get_config_var("WHEEL_PKG_DIR")))
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]
    if not wheels:
        raise NotHere
    execute([str(PYTHON), f"{wheels[0]}/pip", *PIP_OPTIONS, str(lock)])


def with_machine_pip(lock: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("pip") is None:
        raise NotHere
    execute([sys.executable, "-m", "pip", "--python", str(PYTHON), *PIP_OPTIONS, str(lock)])


def with_debian_pip(lock: Path) -> None:
    """Unpack the distribution's own pip wheel into .venv; nothing is installed on the machine."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotHere
    folder = VENV / "debian-pip"
    folder.mkdir(exist_ok=True)
    try:
        if os.geteuid() == 0:
            execute(["apt-get", "-qq", "update"])
        # as root apt would change to a user of its own, who cannot write here
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", DEBIAN_PIP]
        execute(["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *download])
        for package in folder.glob("*.deb"):
            execute(["dpkg-deb", "-x", str(package), str(folder)])
    except InstallFailed as error:
        raise NotHere from error
    wheels = sorted(folder.rglob("pip-*.whl"))
    if not wheels:
        raise NotHere
    execute([str(PYTHON), f"{wheels[-1]}/pip", *PIP_OPTIONS, str(lock)])
    shutil.rmtree(folder)


def with_fetched_pip(lock: Path) -> None:
    if configured_index() is None:
        raise InstallFailed(
            "this Python has neither pip nor ensurepip; install them (Debian: python3-venv) or uv"
        )
    wheel = VENV / PIP_WHEEL
    wheel.write_bytes(fetch_pip())
    execute([str(PYTHON), f"{wheel}/pip", *PIP_OPTIONS, str(lock)])
    wheel.unlink()


def fetch_pip() -> bytes:
    """The pinned pip from the package index: its page names the address, the hash is ours."""
    import re
    from urllib.parse import urljoin

    page_address = (configured_index() or "").rstrip("/") + "/pip/"
    page = fetch(page_address).decode("utf-8", "replace")
    link = re.search(r'"([^"\s]*/' + re.escape(PIP_WHEEL) + r')[#"]', page)
    if link is None:
        raise InstallFailed(f"the package index does not list {PIP_WHEEL}")
    wheel = fetch(urljoin(page_address, link.group(1)))
    if hashlib.sha256(wheel).hexdigest() != PIP_WHEEL_SHA256:
        raise InstallFailed(f"the package index served a different {PIP_WHEEL}")
    return wheel


def fetch(address: str) -> bytes:
    import ssl
    import urllib.request

    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    try:
        with urllib.request.urlopen(  # noqa: S310 (the address is the machine's own setting)
            address, timeout=FETCH_TIMEOUT_SECONDS, context=context
        ) as answer:
            content: bytes = answer.read()
            return content
    except (OSError, ValueError) as error:
        raise InstallFailed(f"the package index did not answer: {error}") from error


def configured_index() -> str | None:
    """The package index that pip is configured for on this machine, if any."""
    import configparser

    if os.environ.get("PIP_INDEX_URL"):
        return os.environ["PIP_INDEX_URL"]
    settings = configparser.RawConfigParser()
    home = Path.home()
    files = [
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        home / ".config" / "pip" / "pip.conf",
    ]
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        settings.read([*files, os.environ.get("PIP_CONFIG_FILE", "")])
    return settings.get("global", "index-url", fallback=None)


def install_project() -> None:
    """An editable install, written by hand: it needs no build back end and no network."""
    (site_packages() / "counterfoil.pth").write_text(f"{ROOT}\n")
    command = VENV / "bin" / "counterfoil"
    unfinished = command.with_suffix(".unfinished")
    unfinished.write_text(
        "#!/bin/sh\n"
        f'\'\'\'exec\' "{PYTHON}" "$0" "$@"\n'  # a shebang allows neither spaces nor long paths
        "' '''\n"
        "import sys\n\n"
        f"sys.path[0] = {str(ROOT)!r}\n\n"
        "if __name__ == '__main__':  # which it is not in the processes of a rebuild\n"
        "    from scripts.cli import main\n\n"
        "    sys.exit(main())\n"
    )
    unfinished.chmod(0o755)
    unfinished.replace(command)


def site_packages() -> Path:
    return next(VENV.glob("lib/python*/site-packages"))


def execute(command: list[str], timeout_seconds: int = INSTALL_TIMEOUT_SECONDS) -> str:
    """Run a program to its end and answer what it printed."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallFailed(f"{Path(command[0]).name} took too long") from None
    if done.returncode != 0:
        raise InstallFailed(gist_of(done.stderr or done.stdout))
    return done.stdout


def gist_of(output: str) -> str:
    """The line of a long complaint that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no reason given"])[-1][:300]


def say(sentence: str) -> None:
    """Progress, for somebody who watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"counterfoil: {sentence}\n")


if __name__ == "__main__":
    ensure("dev" if "--dev" in sys.argv[1:] else "runtime")
