"""All commands, and running them."""

from __future__ import annotations

# Importing a module of commands registers them, in the order in which help lists them.
from . import session_commands  # isort: skip
from . import file_commands  # isort: skip
from . import variable_commands  # isort: skip
from . import other_commands  # isort: skip
from .cell_magic import CELL, run_cell_magic
from .command import COMMANDS, Context, find_command, run_line

__all__ = [
    "CELL",
    "COMMANDS",
    "Context",
    "file_commands",
    "find_command",
    "other_commands",
    "run_cell_magic",
    "run_line",
    "session_commands",
    "variable_commands",
]
