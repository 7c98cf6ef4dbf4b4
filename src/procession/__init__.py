"""Own child processes from asyncio."""

__version__ = "0.1.0"
