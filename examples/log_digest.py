"""Which answers does a web server give, and who asks most? A pipeline of ordinary tools over ordinary log files.

    python examples/log_digest.py [--status 404] [ACCESS.LOG | ACCESS.LOG.gz ...]

Per kind of question one pipeline runs – ``zcat | awk | sort | uniq -c | sort -rn`` – with all stages at once and without a
shell, and its lines are read as they come; reading stops after the first few, which ends the stages as closing the
pipe would in a shell. Without files it makes a log of its own first.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import random
import sys
import tempfile
from pathlib import Path

from procession import Command, Pipeline

QUESTIONS = {"answers by status": "$9", "the busiest clients": "$1", "the most wanted pages": "$7"}


def question(files: list[Path], field: str, status: str) -> Pipeline:
    """``zcat -f`` reads plain files too. The awk program gets its value as a variable, so nothing needs quoting."""
    words = ["-v", f"status={status}", f'status == "" || $9 == status {{ print {field} }}']
    return (
        Command("zcat", "-f", *files)
        | Command("awk", *words)
        | Command("sort", env={"LC_ALL": "C"})
        | Command("uniq", "-c")
        | Command("sort", "-rn")
    )


async def digest(title: str, pipeline: Pipeline, top: int) -> bool:
    """Prints the first ``top`` lines; returns whether every stage did well."""
    shown = []
    async with pipeline.stream() as stream:
        async for line in stream.lines():
            shown.append(line)
            if len(shown) == top:
                break
        else:
            codes = await stream.wait()
            if any(codes):
                print(f"{title}: stages ended with {codes}", file=sys.stderr)
                return False
    print(f"\n{title}")
    for line in shown:
        count, what = line.split(maxsplit=1)
        print(f"  {int(count):>8,}  {what}")
    return True


def make_log(path: Path, lines: int) -> None:
    dice = random.Random(7)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for number in range(lines):
            client = f"192.0.2.{min(dice.randrange(1, 255), dice.randrange(1, 255))}"
            page = dice.choice(["/", "/", "/index.html", "/docs/", "/robots.txt", "/gone"])
            status = 404 if page == "/gone" else dice.choice([200, 200, 200, 304, 500])
            file.write(f'{client} - - [21/Nov/2026:08:00:{number % 60:02} +0000] "GET {page} HTTP/1.1" {status} 512\n')


async def main() -> int:
    parser = argparse.ArgumentParser(description="A digest of access logs in the common format.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--status", default="", help="look at answers with this status only")
    parser.add_argument("--top", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = options.files
        if not files:
            files = [Path(folder) / "access.log.gz"]
            make_log(files[0], 2_000 if os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1" else 200_000)
        well = [
            await digest(title, question(files, field, options.status), options.top)
            for title, field in QUESTIONS.items()
        ]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
