"""A rich console for untrusted texts: their control characters cannot move the cursor, set a title or change colours."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from late_interaction.text import printable

__all__ = ["Terminal"]


class Terminal(Console):
    r"""A console that prints control characters as escapes such as `\x1b`.

    The control sequences of rich's own styles are left as they are.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments with their control characters escaped."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)
