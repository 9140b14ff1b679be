"""What a full queue says: busy, and when to try again. Gradio 6.31.0 names its own figures, and tells Python none.

A limit for each visitor is left to whoever runs the page: behind a proxy every visitor has the proxy's address, and
the header that names another one may be forged.
"""

from __future__ import annotations

import math
import time
from typing import Any

import gradio as gr
from fastapi import HTTPException
from gradio.queueing import EventQueue, Queue

from app.ui.session import LIMIT

__all__ = ["WAITING", "bound_queue"]

WAITING = 32
"""Requests that may wait."""

UNKNOWN = 1.0
"""Seconds an answer is taken to need before one was timed."""

BUSY = "Busy: {waiting} requests are waiting already. Please try again in {seconds} s."


def bound_queue(page: gr.Blocks, waiting: int = WAITING) -> None:
    """Lets so many requests wait; the next is answered 429 with a sentence, and ``Retry-After`` with its seconds.

    With 503, which is Gradio's, the page and the Python client show a text of their own. Nothing gets past the queue.
    """
    page.queue(max_size=waiting, api_open=False)
    queue = page._queue
    push = queue.push

    async def bounded(*args: Any, **kwargs: Any) -> Any:
        answer = await push(*args, **kwargs)
        if answer[-1] != "queue_full":
            return answer
        seconds = until_free(queue)
        sentence = BUSY.format(waiting=len(queue), seconds=seconds)
        raise HTTPException(429, sentence, {"Retry-After": str(seconds)})

    queue.push = bounded


def until_free(queue: Queue) -> int:
    """Whole seconds until the shortest line of a queue is done, by the mean time its answers took: 1 to LIMIT."""
    lines = [_line(queue, each) for each in queue.event_queue_per_concurrency_id.values() if each.queue]
    return math.ceil(min(max(min(lines, default=UNKNOWN), 1.0), LIMIT))


def _line(queue: Queue, line: EventQueue) -> float:
    known = queue.process_time_per_fn

    def takes(function: Any) -> float:
        return known[function].avg_time if function in known else UNKNOWN

    now = time.time()
    ends = (begun + takes(function) for function, begins in line.start_times_per_fn.items() for begun in begins)
    running = sum(max(0.0, end - now) for end in ends)
    return (running + sum(takes(event.fn) for event in line.queue)) / (line.concurrency_limit or 1)
