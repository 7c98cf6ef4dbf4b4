"""Configuration from files: TOML, YAML or JSON, checked as a whole, every complaint with its line.

::

    config = load("stack.toml", ManagerConfig)

Works for any pydantic model. ``${NAME}`` in a text value is replaced by that variable of the environment, or of a
``.env`` file beside the configuration; nothing is executed, and no other file is read.
"""

from procession.config._load import load as load
from procession.config._load import loads as loads
