"""A program that uses procession itself, as a user who may start no more processes. Says what it met, as JSON."""

import asyncio
import json
import os
import resource

from procession import Command, SpawnError, run


async def main():
    told: list[object] = []
    told.append((await run(Command("true"))).returncode)
    if os.getuid() == 0:  # whom the limit does not bind
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    for _ in range(2):
        try:
            told.append((await run(Command("true"))).returncode)
        except SpawnError as error:
            told.append([error.reason.name, error.command.program])
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    told.append((await run(Command("true"))).returncode)
    print(json.dumps(told))


asyncio.run(main())
