"""Eight users at once with mixed methods: what it costs in time and memory beside one after the other.

``make bench-users`` asks the first of the shipped models every method for drawn images, once in one thread and once
in eight, compares every map, and prints the resident memory at its peak.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from app.explain.methods import METHODS, draw, map_request
from app.imaging.examples import draw as phantom
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import ranked
from benchmarks.fuzz import peak_memory
from benchmarks.record import keep

USERS = 8
IMAGES = 4


def main() -> None:
    classifier = Classifier.load(ranked()[0])
    images = [Radiograph(phantom("jagged", seed=i, height=900 + 40 * i, width=700), (0, 255)) for i in range(IMAGES)]
    slow = [name for name, how in METHODS.items() if how.cost == "slow"]
    quick = [name for name in METHODS if name not in slow]
    jobs = [(image, name) for image in images for name in quick] + [(images[0], name) for name in slow]
    print(f"{classifier.card.title}; {len(jobs)} maps by {len(METHODS)} methods of {IMAGES} images")
    loaded = peak_memory()
    print(f"peak resident memory with the model loaded   {loaded:8.0f} MiB")

    def run(job: tuple[Radiograph, str]) -> np.ndarray:
        return draw(map_request(classifier, job[0]), job[1])

    began = time.perf_counter()
    serial = [run(job) for job in jobs]
    alone = time.perf_counter() - began
    one = peak_memory()
    print(f"peak after one user                          {one:8.0f} MiB")
    began = time.perf_counter()
    with ThreadPoolExecutor(USERS) as pool:
        together = list(pool.map(run, jobs))
    crowd = time.perf_counter() - began
    all_at_once = peak_memory()
    print(f"peak after {USERS} users at once                   {all_at_once:8.0f} MiB")
    print(f"time of {USERS} at once relative to one by one     {crowd / alone:8.2f} x")
    off = [float(np.abs(a - b).max() / max(float(a.max()), 1e-12)) for a, b in zip(serial, together, strict=True)]
    print(f"largest difference of a map, share of its peak {max(off):10.1e}")
    keep(
        "users",
        {
            "users": USERS,
            "model": classifier.card.name,
            "maps": len(jobs),
            "mib_with_the_model_loaded": round(loaded),
            "mib_after_one_user": round(one),
            "mib_after_all_at_once": round(all_at_once),
            "time_relative_to_one_by_one": round(crowd / alone, 3),
            "largest_difference_as_share_of_peak": max(off),
        },
    )


if __name__ == "__main__":
    main()
