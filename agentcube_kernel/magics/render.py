"""How answers look: as text in a terminal, as html in a notebook. Everything shown is escaped here."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..text import harmless

if TYPE_CHECKING:
    from collections.abc import Sequence

# One click selects an id for copying.
_ID_STYLE = "user-select:all;cursor:copy"
_CELL_STYLE = "text-align:left;padding:2px 12px 2px 0"


@dataclass(frozen=True, slots=True)
class Id:
    """A text that people copy."""

    text: str

    def __str__(self) -> str:
        return self.text


Value = str | Id


class Answer:
    """What a `%sandbox` command answers: data as attributes, shown as html in a notebook and as text elsewhere."""

    __slots__ = ()

    def _text(self) -> str:
        raise NotImplementedError

    def _html(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._text()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("..." if cycle else self._text())

    def _repr_html_(self) -> str:
        return self._html()

    def bundle(self) -> dict[str, Any]:
        """The answer as a MIME bundle."""
        return {"text/plain": self._text(), "text/html": self._html()}


class Pairs(Answer):
    """An answer that is a list of names and values."""

    __slots__ = ()

    def _pairs(self) -> list[tuple[str, Value]]:
        raise NotImplementedError

    def _text(self) -> str:
        pairs = self._pairs()
        width = max((len(name) for name, _ in pairs), default=0)
        return "\n".join(f"{name:<{width}}  {harmless(str(value))}".rstrip() for name, value in pairs)

    def _html(self) -> str:
        rows = "".join(
            f'<tr><th style="{_CELL_STYLE}">{html.escape(name)}</th><td style="{_CELL_STYLE}">{_html_value(value)}'
            "</td></tr>"
            for name, value in self._pairs()
        )
        return f"<table>{rows}</table>"


class Table(Answer):
    """An answer that is a table."""

    __slots__ = ()

    def _columns(self) -> Sequence[str]:
        raise NotImplementedError

    def _rows(self) -> list[tuple[Value, ...]]:
        raise NotImplementedError

    def _empty(self) -> str:
        return "Nothing."

    def _text(self) -> str:
        rows = [[harmless(str(value)) for value in row] for row in self._rows()]
        if not rows:
            return self._empty()
        table = [list(self._columns()), *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        )

    def _html(self) -> str:
        rows = self._rows()
        if not rows:
            return f"<div>{html.escape(self._empty())}</div>"
        head = "".join(f'<th style="{_CELL_STYLE}">{html.escape(name)}</th>' for name in self._columns())
        body = "".join(
            "<tr>"
            + "".join(f'<td style="{_CELL_STYLE}">{_html_value(value)}</td>' for value in row)
            + "</tr>"
            for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Line(Answer):
    """An answer that is one quiet line; subclasses add data."""

    __slots__ = ()

    def _line(self) -> list[Value]:
        raise NotImplementedError

    def _text(self) -> str:
        return harmless("".join(str(part) for part in self._line()))

    def _html(self) -> str:
        return "<div>" + "".join(_html_value(part) for part in self._line()) + "</div>"


def _html_value(value: Value) -> str:
    escaped = html.escape(harmless(str(value)))
    return f'<code style="{_ID_STYLE}">{escaped}</code>' if isinstance(value, Id) else escaped
