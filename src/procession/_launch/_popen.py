"""A command with what ``Popen`` can be told beyond a command's fields; only the drop-in for asyncio makes them."""

from __future__ import annotations

from typing import Any

from procession.command import Command


class PopenCommand(Command):
    """A command that hands some keywords to ``Popen`` as they are."""

    _given: dict[str, Any] = {}  # noqa: RUF012 - a private attribute of the model, copied for each instance

    @property
    def given(self) -> dict[str, Any]:
        """Those keywords."""
        return self._given
