"""How an interpreter for workers is started, and the memory it shares with us."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_BOOT = """
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
def load(name, path):
    loader = SourceFileLoader(name, path)
    module = sys.modules[name] = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(module)
    return module
load("procession.pool._link", sys.argv[1] + "_link.py")
worker = load("_procession_worker", sys.argv[1] + "_worker.py")
"""
"""Loads the worker program by path: from its cache, which a script never is, and without a path to import from."""

RUN_TEMPLATE = _BOOT + 'load("_procession_template", sys.argv[2]).main(worker, int(sys.argv[3]), int(sys.argv[4]))\n'
RUN_WORKER = _BOOT + "sys.exit(worker.run(int(sys.argv[2]), int(sys.argv[3]), None))\n"


def interpreter(program: str, *words: str) -> list[str]:
    """The command line of a bare interpreter with our own flags: no site, nothing of the current directory."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    return [sys.executable, *flags, "-P", "-S", "-c", program, str(Path(__file__).parent) + os.sep, *words]


def shared(size: int, content: bytes = b"") -> int:
    """A descriptor of memory that can be handed to a child."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("procession", os.MFD_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp()
        os.unlink(path)  # noqa: PTH108 - the name was only needed to make it
    try:
        os.truncate(fd, size)
        if content:
            os.pwrite(fd, content, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd
