"""Slots for GPUs on Prefect's server: they limit the runs that use GPUs at a time, whatever the number of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from flows.session.errors import UserError

GPU_LIMIT = "traitline-gpu"
LEASE_S = 60.0  # after which a dead run loses its slot


def make_slots(slots: int) -> None:
    """Create the limit, or change its number of slots; held slots stay held."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, slots)


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold a slot while the block runs, if CUDA_VISIBLE_DEVICES assigns GPUs to the worker.

    If the server goes away, the run continues without a slot.

    Raises:
        UserError: the limit does not exist.
    """
    with ExitStack() as held:
        if os.environ.get("CUDA_VISIBLE_DEVICES", "-1") not in ("", "-1"):
            slot = concurrency(GPU_LIMIT, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False)
            try:
                held.enter_context(slot)
            except ConcurrencySlotAcquisitionError as error:
                raise UserError(
                    f"there is no concurrency limit {GPU_LIMIT}; create it with `traitline deploy --gpu-slots N`"
                ) from error
        yield
