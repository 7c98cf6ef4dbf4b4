"""Who can take part on this machine: every peer with its command and version, or with the reason it is skipped.

Compiled peers are built on the spot into `benchmarks/.build/`, without network:
C with `cc`; Go with `go`; tokio with `cargo`, from Debian's `librust-tokio-dev` (`/usr/share/cargo/registry`) when it
is there, otherwise from what cargo has already downloaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = HERE.parent / ".build"
DEBIAN_CRATES = Path("/usr/share/cargo/registry")


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer that can run, or `missing` says why it cannot."""

    name: str
    command: tuple[str, ...] = ()
    version: str = ""
    missing: str = ""


def _output(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, check=False, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()
        raise OSError(words[-1])
    return done.stdout.strip()


def _python(name: str, peer: str, interpreter: str | None) -> Entry:
    if interpreter is None:
        return Entry(name, missing="no such Python")
    command = (interpreter, "-m", "benchmarks.peers.driver", peer)
    found = json.loads(_output(*command, "probe", cwd=ROOT).splitlines()[-1])
    if "missing" in found:
        return Entry(name, missing=found["missing"])
    return Entry(name, command, ", ".join(f"{key} {value}" for key, value in found["versions"].items()))


def _interpreter(minor: int) -> str | None:
    if sys.version_info[:2] == (3, minor):
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for found in (shutil.which(f"python3.{minor}"), *root.glob(f"versions/3.{minor}.*/bin/python")):
        if found is not None and _runs(str(found)):
            return str(found)
    return None


def _runs(interpreter: str) -> bool:
    try:
        return _output(interpreter, "-c", "print('yes')") == "yes"
    except OSError:
        return False


def _c(name: str) -> Entry:
    if (cc := shutil.which("cc")) is None:
        return Entry(name, missing="no C compiler")
    target = BUILD / "c_posix_spawn"
    _output(cc, "-O2", "-o", str(target), str(HERE / "c_posix_spawn.c"))
    return Entry(name, (str(target),), f"cc {_output(cc, '-dumpfullversion')}")


def _go(name: str) -> Entry:
    if (go := shutil.which("go")) is None:
        return Entry(name, missing="no go (Debian: golang)")
    target, env = BUILD / "go_osexec", os.environ | {"GO111MODULE": "off"}
    _output(go, "build", "-o", str(target), str(HERE / "go_osexec" / "main.go"), env=env)
    return Entry(name, (str(target),), _output(go, "env", "GOVERSION", env=env))


def _tokio(name: str) -> Entry:
    if (cargo := shutil.which("cargo")) is None:
        return Entry(name, missing="no cargo (Debian: cargo, librust-tokio-dev)")
    crate = BUILD / "tokio_process"
    shutil.copytree(HERE / "tokio_process", crate, dirs_exist_ok=True)
    options = ["--offline", "--release", "--quiet", "--target-dir", str(BUILD / "cargo")]
    if any(DEBIAN_CRATES.glob("tokio-[0-9]*")):
        options += ["--config", 'source.crates-io.replace-with="debian"']
        options += ["--config", f'source.debian.directory="{DEBIAN_CRATES}"']
    try:
        _output(cargo, "build", *options, cwd=crate)
    except OSError as error:
        raise OSError(f"no tokio crate offline (Debian: librust-tokio-dev): {error}") from error
    lock = (crate / "Cargo.lock").read_text()
    _, _, rest = lock.partition('name = "tokio"\nversion = "')
    version = f"tokio {rest.partition(chr(34))[0]}, {' '.join(_output(cargo, '--version').split()[:2])}"
    return Entry(name, (str(BUILD / "cargo" / "release" / "tokio_process"),), version)


COMPILED = {"C posix_spawn": _c, "Go os/exec": _go, "tokio": _tokio}
PYTHON: dict[str, tuple[str, int | None]] = {  # name: driver, minor version it must run on
    "procession": ("procession", None),
    "procession, uvloop": ("procession-uvloop", None),
    "asyncio 3.11": ("asyncio", 11),
    "asyncio 3.11, pidfd": ("asyncio-pidfd", 11),
    "asyncio 3.13": ("asyncio", 13),
    "subprocess.run in threads": ("threads", None),
    "anyio": ("anyio", None),
    "trio": ("trio", None),
    "uvloop": ("uvloop", None),
    "os.read": ("os-read", None),
}


def find(name: str) -> Entry:
    """Build and probe one peer; whatever goes wrong is its reason to be missing."""
    BUILD.mkdir(exist_ok=True)
    try:
        if name in COMPILED:
            return COMPILED[name](name)
        driver, minor = PYTHON[name]
        return _python(name, driver, sys.executable if minor is None else _interpreter(minor))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Entry(name, missing=re.sub(r"/\S+/", "…/", str(error)))  # the reason, without this machine's folders
