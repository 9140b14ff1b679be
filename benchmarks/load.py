"""Many clients at once on the page's API: how long answers take, what fails, what it holds, and whether maps are right.

``make bench-load`` serves the shipped models on this machine, asks for heatmaps one by one, and then with 1, 8 and 32
clients. Every answer must carry the map that was drawn one by one. At last the server is killed with requests on their
way and started again: all are asked once more, with what was uploaded before.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from app.imaging.examples import draw
from app.model.weights import ranked
from benchmarks.record import keep

IMAGES = 5
METHODS = ("gradcam", "gradcam++", "layercam", "ablationcam")
TARGETS = ("", "spiral")
ROUNDS = {1: 100, 8: 200, 32: 200}
"""Requests by the number of clients: 500 in all."""
AFTER_RESTART = 16
PATIENCE = 300.0

Job = tuple[int, str, str]
"""Which image, method and type."""


@dataclass
class Server:
    """The page in a process of its own, which may be killed and started again on the same port."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/gradio_api"

    def start(self) -> None:
        command = [sys.executable, "-m", "app", "serve", "--port", str(self.port)]
        environment = {**os.environ, "GRADIO_TEMP_DIR": str(self.folder)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while self.process.poll() is None:
            try:
                httpx.get(f"{self.api}/info", timeout=PATIENCE).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.5)
        raise RuntimeError("the server ended before it answered")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def memory(self, which: str) -> int:
        """Resident memory in MiB: VmRSS now, VmHWM at its peak."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{which}:\s+(\d+)", status, re.M)
        assert found
        return int(found[1]) // 1024


@dataclass
class Round:
    """What came of one round of requests: seconds of those answered with the right map, and the others by kind."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    took: float = 0.0

    def figures(self) -> dict[str, Any]:
        p50, p95 = np.percentile(self.seconds, (50, 95)) if self.seconds else (float("nan"),) * 2
        return {
            "answered": len(self.seconds),
            "wrong_maps": self.wrong,
            "failed": dict(self.failed),
            "p50_s": round(float(p50), 3),
            "p95_s": round(float(p95), 3),
            "answers_per_s": round(len(self.seconds) / self.took, 2),
        }


class Clients:
    """Ask a server for maps, and know the right ones."""

    def __init__(self, api: str) -> None:
        self.http = httpx.Client(base_url=api, timeout=PATIENCE, limits=httpx.Limits(max_connections=100))
        self.images = [self._upload(number) for number in range(IMAGES)]
        self.jobs = list(product(range(IMAGES), METHODS, TARGETS))
        self.right = {job: self.ask(job) for job in self.jobs}

    def _upload(self, seed: int) -> str:
        png = cv2.imencode(".png", draw("jagged", seed=seed, height=900 + 40 * seed, width=700))[1].tobytes()
        return self.http.post("upload", files={"files": ("xray.png", png)}).raise_for_status().json()[0]

    def ask(self, job: Job) -> np.ndarray:
        """The map, grey uint8; raises HTTPError or ValueError where there is none."""
        image, method, target = job
        data = [{"path": self.images[image]}, method, None, target, None, True]
        asked = self.http.post("call/explain", json={"data": data}).raise_for_status().json()
        told = self.http.get(f"call/explain/{asked['event_id']}").text
        answers = re.findall(r"^event: complete\ndata: (.*)$", told, re.M)
        if not answers:
            raise ValueError("the server answered with an error, or not to the end")
        file = b64decode(json.loads(answers[0])[0]["heatmap"].partition(",")[2])
        found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_GRAYSCALE)
        if found is None:
            raise ValueError("what the server sent as a map is no picture")
        return found

    def round(self, clients: int, jobs: Sequence[Job]) -> Round:
        found, lock = Round(), threading.Lock()

        def one(job: Job) -> None:
            began, kind = time.perf_counter(), ""
            try:
                # To a level: a server that is started again may choose another engine, which rounds otherwise.
                right = cv2.norm(self.ask(job), self.right[job], cv2.NORM_INF) <= 1.0
            except httpx.HTTPStatusError as error:
                kind = str(error.response.status_code)
            except (httpx.HTTPError, ValueError) as error:
                kind = type(error).__name__
            with lock:
                if kind:
                    found.failed[kind] += 1
                elif right:
                    found.seconds.append(time.perf_counter() - began)
                else:
                    found.wrong += 1

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(one, jobs))
        found.took = time.perf_counter() - began
        return found


@contextmanager
def serving() -> Generator[Server]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(Path(folder), free.getsockname()[1])
        free.close()
        try:
            server.start()
            yield server
        finally:
            server.kill()


def restarted(server: Server, clients: Clients, jobs: Sequence[Job]) -> dict[str, int]:
    """Kills the server with requests on their way, starts it again, and asks for the same maps."""
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(clients.round, 8, jobs)
        time.sleep(0.5)
        server.kill()
        lost = sum(before.result().failed.values())
    server.start()
    again = clients.round(8, jobs)
    return {"asked": len(jobs), "lost": lost, "right_when_asked_again": len(again.seconds), "wrong_maps": again.wrong}


def main() -> None:
    with serving() as server:
        loaded = server.memory("VmRSS")
        clients = Clients(server.api)
        print(f"{ranked()[0]}; {len(clients.right)} maps of {IMAGES} drawn images, one by one, are what is right")
        print(f"memory with the models loaded {loaded} MiB")
        rng = np.random.default_rng(0)
        rounds: dict[str, dict[str, Any]] = {}
        for count, requests in ROUNDS.items():
            jobs = [clients.jobs[i] for i in rng.integers(0, len(clients.jobs), requests)]
            figures = {**clients.round(count, jobs).figures(), "peak_mib": server.memory("VmHWM")}
            first = rounds.setdefault("1", figures)
            for name in ("p50", "p95"):
                figures[f"{name}_relative_to_one_client"] = round(figures[f"{name}_s"] / first[f"{name}_s"], 2)
            rounds[str(count)] = figures
            print(f"{count:3} clients: {json.dumps(figures)}")
        restart = restarted(server, clients, clients.jobs[:AFTER_RESTART])
        print(f"killed and started again: {json.dumps(restart)}")
    keep("load", {"model": ranked()[0], "mib_with_the_models_loaded": loaded, "clients": rounds, "restart": restart})


if __name__ == "__main__":
    main()
