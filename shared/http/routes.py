"""The routes of a record type: accept a record or a batch, show the partner's record. And the route for all others."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from shared.durable.batch_input import batch_input
from shared.durable.durable_client import wait_until_finished
from shared.durable.starting import start_batch, start_one
from shared.errors import (
    ApiConnectError,
    ApiInterruptedError,
    Fault,
    ProblemError,
    RelayError,
    SettingsError,
    TokenError,
    TokenRejectedError,
)
from shared.http import intake
from shared.http.delivery_view import accepted, state_of, view
from shared.http.problem import phrase, problem, refuse
from shared.http.request import Reply
from shared.rules.text import id_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from shared.client.resource_api import ResourceApi
    from shared.durable.durable_client import DurableClient, Instance
    from shared.http.intake import IntakeBudget
    from shared.http.request import Request
    from shared.resource import ApiResponse, Resource

logger = logging.getLogger(__name__)

TOKEN_REFUSED = "The partner's token endpoint refuses this app; the log says why."  # noqa: S105, a sentence
NO_TOKEN = "No access token can be had now; the log says why."  # noqa: S105, a sentence
