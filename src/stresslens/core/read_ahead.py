"""Batches that a thread prepares while the one before is computed: read from disk, copied to a GPU from
pinned memory and augmented there, on a stream of their own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import torch
from torch import Tensor

from stresslens.core.data import Batch
from stresslens.core.stored_images import Stored


def worth_reading_ahead(images: Tensor | Stored) -> bool:
    """Whether batches of these images are prepared ahead: images on disk that a GPU computes with. On a
    CPU the thread would take time from the computation."""
    return isinstance(images, Stored) and images.device.type == "cuda"


def read_ahead(batches: Iterator[Batch], device: torch.device | str = "cpu") -> Iterator[Batch]:
    """The same batches, each prepared while its predecessor is in use. The random numbers of a batch
    belong to its images, so that nothing depends on who draws them. Raises what `batches` raises."""
    on_gpu = torch.device(device).type == "cuda"
    number = (torch.device(device).index or torch.cuda.current_device()) if on_gpu else None
    stream = torch.cuda.Stream(number) if on_gpu else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(number))  # the labels may still be on their way

    def following() -> tuple[Batch | None, torch.cuda.Event | None]:
        with ExitStack() as on:
            if stream is not None:  # the device and the stream of a thread are its own
                on.enter_context(torch.cuda.device(number))
                on.enter_context(torch.cuda.stream(stream))
            return next(batches, None), stream.record_event() if stream is not None else None

    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(following)
        while True:
            batch, ready = coming.result()
            if batch is None:
                return
            coming = thread.submit(following)
            if ready is not None:
                here = torch.cuda.current_stream(number)
                here.wait_event(ready)
                for tensor in batch:
                    tensor.record_stream(here)  # its memory is not used again before this stream is done
            yield batch
