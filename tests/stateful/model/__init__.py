"""What the functions of the schema should do, as plain Python: the model that the database is held against."""

from stateful.model.limits import OFFERS, SHARED
from stateful.model.returns import Returns as QueueModel
from stateful.model.things import SECOND, Task

__all__ = ["OFFERS", "SECOND", "SHARED", "QueueModel", "Task"]
