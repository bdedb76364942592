"""Jobs: tasks of the queue with the products they have made."""

from __future__ import annotations

from collections.abc import Sequence

from absurd.product_rows import Document
from absurd.web.repositories.interfaces import ProductRepositoryProtocol
from absurd.web.services.images import ImageService

TOLD = ("id", "name", "params", "depends_on", "children", "workflow_id", "runs")
"""What a provenance tells of a task."""


class JobService:
    """Puts products to documents of tasks, which the queue gives."""

    def __init__(self, repository: ProductRepositoryProtocol) -> None:
        self._repository = repository
        self._products = ImageService(repository, "product")

    async def add_products(self, tasks: Sequence[Document]) -> list[Document]:
        """Tasks with the numbers of their products."""
        made = await self._repository.list_of_tasks([each["id"] for each in tasks]) if tasks else []
        return [task | {"products": [each["id"] for each in made if each["task_id"] == task["id"]]} for task in tasks]

    async def trace(self, task: Document) -> Document:
        """What a task was given, how it ran, and its products with all that is behind them."""
        made = await self._repository.list_of_tasks([task["id"]])
        return {name: task[name] for name in TOLD} | await self._products.trace_products(made)
