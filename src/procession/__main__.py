"""``python -m procession check``: what this system offers to processes."""

from __future__ import annotations

import sys

from procession.process import system_report

if __name__ == "__main__":
    if sys.argv[1:] != ["check"]:
        sys.exit("usage: python -m procession check")
    sys.stdout.write(f"{system_report()}\n")
