"""Import indexes of other PLAID engines bit by bit; nothing is encoded again."""

from __future__ import annotations

from late_interaction.plaid.imports.run import import_index
from late_interaction.plaid.imports.texts import TsvCollection

__all__ = ["TsvCollection", "import_index"]
