"""A question of ``absurd top``, before what cannot be taken back."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static


class Question(ModalScreen[bool]):
    """Asks, and gives whether ``y`` was the answer."""

    CSS = """
    Question { align: center middle; }
    #question { width: auto; max-width: 80%; padding: 1 3; border: round $warning; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text in the middle."""
        yield Static(Text(f"{self._text}  y/n"), id="question")

    def action_answer(self, yes: bool) -> None:
        """Go back with the answer."""
        _ = self.dismiss(yes)  # to wait for it here would be to wait for oneself
