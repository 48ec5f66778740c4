"""The console that everything for a person at the terminal is printed through."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from runner.errors import printable

_LOG_COLUMNS = 160


class SafeConsole(Console):
    """Shows what steers a terminal as text (rows and messages of libraries may hold it), and asks for the size of the
    terminal that it prints to: file descriptors 1 and 2 lead to a log while a stage runs."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Rich calls this for each text that it is given, those in tables included."""
        return super().render_str(printable(text), **how)

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and rows now: a terminal can be resized."""
        if self._width is None:
            with suppress(OSError, ValueError, AttributeError):
                columns, rows = os.get_terminal_size(self.file.fileno())
                if columns:
                    return ConsoleDimensions(columns, rows or 25)
        return super().size

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    @property
    def can_redraw(self) -> bool:
        """Whether a line can be written again in its place."""
        return self.is_terminal and not self.is_dumb_terminal


def console_for(stream: TextIO) -> SafeConsole:
    """A console that prints to the stream. Without a terminal rich assumes 80 columns; a log has no width."""
    width = None if stream.isatty() else _LOG_COLUMNS
    return SafeConsole(file=stream, width=width, highlight=False, soft_wrap=True)
