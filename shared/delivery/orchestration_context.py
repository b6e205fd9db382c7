"""What the orchestrators use of `DurableOrchestrationContext`: the Durable SDK has no types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class OrchestrationContext(Protocol):
    """What an orchestrator is given: its input, its time, and the tasks it may schedule."""

    @property
    def instance_id(self) -> str:
        """The orchestration's instance id."""

    @property
    def current_utc_datetime(self) -> datetime:
        """The time, the same at every replay."""

    def get_input(self) -> Any:  # noqa: ANN401, it is any JSON
        """Give the orchestration's input."""

    def call_activity(self, name: str, input_: Any) -> Any:  # noqa: ANN401, a task of the Durable SDK, which is untyped
        """Schedule an activity."""

    def task_all(self, activities: Sequence[Any]) -> Any:  # noqa: ANN401, a task of the Durable SDK, which is untyped
        """Wait for all of the tasks."""

    def create_timer(self, fire_at: datetime) -> Any:  # noqa: ANN401, a task of the Durable SDK, which is untyped
        """Schedule a durable timer."""

    def set_custom_status(self, status: Any) -> None:  # noqa: ANN401, it is any JSON
        """Show a status to those who watch."""
