"""Images: what is known of each, and what it was made of, back to the recordings."""

from __future__ import annotations

from absurd.product_rows import Document
from absurd.web.repositories.interfaces import ImageRepositoryProtocol
from absurd.web.services.records import RecordService

MOST = 1000
"""How many products a provenance tells of, and how many inputs and uses of each step."""


class ImageService(RecordService):
    """Images and mosaics."""

    def __init__(self, repository: ImageRepositoryProtocol, what: str = "image") -> None:
        super().__init__(repository, what)
        self._images = repository

    async def show(self, id: int) -> Document:
        """An image with what gates have measured of it.  Raises NotFoundError."""
        return await self.get(id) | {"qa": await self._images.list_measures(id)}

    async def trace(self, id: int) -> Document:
        """What an image was made of, and what was made of it.

        ``ancestors`` are the products behind it, nearest first, each with its own ``inputs``; ``complete`` is false
        where there are more than are told.  Raises NotFoundError.
        """
        image = await self.get(id)
        found = await self.trace_products([image])
        return {
            "product": found["products"][0],
            "ancestors": found["products"][1:],
            "used_in": [each["product_id"] for each in await self._images.list_uses([id], MOST)],
            "complete": found["complete"],
        }

    async def trace_products(self, products: list[Document]) -> Document:
        """Products and all behind them, each with its ``inputs``, and whether these are all: step by step back."""
        told: dict[int, Document] = {each["id"]: each for each in products}
        step, complete = list(told), True
        while step:
            inputs = await self._images.list_inputs(step, MOST)
            complete &= len(inputs) < MOST
            for number in step:
                told[number] = told[number] | {
                    "inputs": [
                        {name: each[name] for name in ("path", "role", "input_id")}
                        for each in inputs
                        if each["product_id"] == number
                    ]
                }
            wanted = sorted({each["input_id"] for each in inputs if each["input_id"] is not None} - told.keys())
            step = wanted[: max(0, MOST - len(told))]
            complete &= len(step) == len(wanted)
            found = await self._images.list_products(step) if step else []
            told |= {each["id"]: each for each in found}
            step = [each["id"] for each in found]
        return {"products": list(told.values()), "complete": complete}
