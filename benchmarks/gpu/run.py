"""One call: what is missing is measured, in order, until the time is over; a failure is a result like any other."""

import gc
import time

import torch
from benchmarks.gpu.clock import OutOfTime
from benchmarks.gpu.jobs import Choice, Job, jobs
from benchmarks.gpu.lab import Lab, is_out_of_memory, said, wait_for

from amsc.errors import TargetError

__all__ = ["DeviceLost", "work"]


SHOWN = 3
"""Jobs named among those that were not begun."""


class DeviceLost(Exception):
    """The device no longer answers, so that all that followed would fail too."""


def work(lab: Lab, choice: Choice) -> int:
    """Do what is missing; returns how many results came of it.

    Raises:
        DeviceLost: something failed so badly that the device can do nothing any more.
    """
    done, waiting = 0, list[str]()
    for job in jobs(lab, choice):
        if job.name in lab.store.results:
            continue
        if (reason := _in_the_way(lab, job)) is not None:
            waiting.append(f"{job.name} ({reason})")
            continue
        print(job.name, flush=True)
        start = time.monotonic()
        try:
            result = _result(lab, job)
        except OutOfTime as error:
            print(f"  the time is over: {error}", flush=True)
            break
        seconds = round(time.monotonic() - start, 1)
        lab.store.put(job.name, {**result, "job_seconds": seconds, "card": lab.card, "call": len(lab.store.calls)})
        done += 1
        print(f"  {result.get('failure', f'{seconds:.1f} s')}", flush=True)
        if "failure" in result:
            _clean_up(lab)
    if waiting:
        print(f"not begun: {', '.join(waiting[:SHOWN])}{f' and {len(waiting) - SHOWN} more' * (len(waiting) > SHOWN)}")
    return done


def _in_the_way(lab: Lab, job: Job) -> str | None:
    """Why a job is not begun in this call."""
    missing = [name for name in job.needs if lab.store.good(name) is None]
    missing += [name for name in job.after if name not in lab.store.results]
    if missing:
        return f"there is no {missing[0]}"
    left = lab.clock.left()
    return f"needs {job.seconds:.0f} s, {left:.0f} are left" if left < job.seconds or left <= 0 else None


def _result(lab: Lab, job: Job) -> dict[str, object]:
    """What the job gives, or why it could not."""
    try:
        return job.run()
    except OutOfTime:
        raise
    except TargetError as error:
        return {"unreachable": said(error)}
    except Exception as error:  # the next results do not depend on this one
        kind = "out of memory: " if is_out_of_memory(error) else ""
        return {"failure": kind + said(error)}


def _clean_up(lab: Lab) -> None:
    """Give the memory of what failed back, and see that the device still works."""
    gc.collect()
    if not lab.is_gpu:
        return
    try:
        torch.cuda.empty_cache()
        torch.ones(8, device=lab.device).sum().item()
        wait_for(lab.device)
    except RuntimeError as error:
        raise DeviceLost(f"the device no longer answers: {said(error)}") from error
