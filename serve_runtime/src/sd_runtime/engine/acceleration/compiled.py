# SPDX-License-Identifier: Apache-2.0
"""Compiled network calls that no request waits for.

A call whose shapes were not compiled yet runs as it is written, and a thread beside compiles it; the next such call runs
compiled. Three properties of torch 2.15's compiler shape this module:

- A thread that calls compiled code compiles when a guard fails. `torch._dynamo.run` runs what was compiled before, and
  else the code as it is written.
- Guards hold the number of threads and the inference mode, so the compiling thread takes over both from the caller.
- Settings are local to a thread, so limits are arguments.
"""

import itertools
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from sd_runtime.engine import failures
from sd_runtime.engine.device import Device, set_threads

logger = logging.getLogger(__name__)

BACKEND = "inductor"
MOST_SHAPES = 128
"""Combinations of shapes and LoRAs that are compiled for one network; a client could ask for thousands of sizes."""
_WAITING = 64  # combinations that wait for the compiler; others ask again with their next call
_TURN_SECONDS, _PAUSE_SECONDS = 0.002, 0.007  # see `Compiler`
_SWITCH_SECONDS = 5e-4

Call = Callable[..., Any]
Key = tuple[Hashable, int, Hashable]


class Compiler:
    """The thread that compiles, one combination at a time.

    To trace a network is seconds of Python. The interpreter runs one thread at a time, and one that launches a thousand short
    operations waits for its turn after each: it would take three times as long beside this one. So this thread pauses
    again and again while images are generated. It then takes ten times as long, which nobody waits for.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._jobs: queue.PriorityQueue[tuple[bool, int, bool, Callable[[], None]]] = queue.PriorityQueue(
            _WAITING
        )
        self._numbers = itertools.count()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="compiling", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None], *, ahead: bool = False, wait: bool = False) -> bool:
        """Compile after what waits already; False if too much does.

        Args:
            job: compiles.
            ahead: it comes before what nobody asked for.
            wait: for a place; somebody waits for the result too, so the thread does not pause.
        """
        try:
            self._jobs.put((not ahead, next(self._numbers), not wait, job), block=wait)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Compile nothing more after what is being compiled; the thread ends."""
        self._is_open = False
        with suppress(queue.Full):
            self._jobs.put_nowait((False, next(self._numbers), False, lambda: None))

    def _run(self) -> None:
        while self._is_open:
            _, _, beside, job = self._jobs.get()
            if not self._is_open:
                return
            usual = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_SECONDS)
            if beside:
                sys.setprofile(self._pausing())  # called for each call of a function, in this thread
            try:
                job()
            finally:
                sys.setprofile(None)
                sys.setswitchinterval(usual)

    def _pausing(self) -> Callable[[Any, str, Any], None]:
        """Pauses this thread after each turn while the device is at work."""
        began = time.perf_counter()

        def pause(_: Any, __: str, ___: Any) -> None:
            nonlocal began
            if self._device.at_work and time.perf_counter() - began > _TURN_SECONDS:
                time.sleep(_PAUSE_SECONDS)
                began = time.perf_counter()

        return pause


class CompiledCall:
    """A network call that runs compiled once it can.

    Attributes:
        on_call: called after each call with whether it ran compiled, and for how many combinations there is code.
        example: the tensors of the first call; None before it.
        failure: why the last compilation that failed did; empty where none has.
    """

    def __init__(
        self,
        name: str,
        eager: Call,
        compiler: Compiler,
        *,
        device: Device,
        variant: Callable[[], Hashable] = lambda: None,
        build: Callable[[Any], Call] | None = None,
        may_compile: Callable[[Any], bool] = lambda _: True,
        options: dict[str, Any] | None = None,
        most: int = MOST_SHAPES,
    ) -> None:
        """Compile nothing yet.

        Args:
            name: of the network, for the log.
            eager: the call as it is written; tensors, and dictionaries of tensors.
            compiler: the thread.
            device: where it computes.
            variant: of the network at the moment, such as its active LoRAs.
            build: a call of that variant whose state nothing else changes; default: `eager`.
            may_compile: whether a variant is compiled at all.
            options: of torch's compiler.
            most: combinations to compile.
        """
        self.on_call: Callable[[bool, int], None] = lambda _, __: None
        self.example: Any = None
        self.failure = ""
        self._name = name
        self._eager = eager
        self._compiler = compiler
        self._device = device
        self._variant = variant
        self._build = build or (lambda _: eager)
        self._may_compile = may_compile
        self._options = options
        self._most = most
        self._traced: dict[Hashable, _Traced] = {}
        self._ready: dict[Key, _Traced] = {}
        self._wanted: dict[Key, threading.Event] = {}
        self._waits = False
        self._is_full = False

    def close(self) -> None:
        """Have nothing more compiled; what is compiled stays."""
        self._compiler.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this block a call waits for its compilation: before the first request there is time."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        """As the eager call."""
        key = (self._variant(), torch.get_num_threads(), _shapes(inputs, settings))
        if self.example is None:
            self.example = inputs
        if key not in self._ready:
            done = self._have(key, inputs, settings, ahead=True)
            if self._waits and done is not None:
                done.wait()
        traced = self._ready.get(key)
        if traced is None:
            self.on_call(False, len(self._ready))
            return self._eager(*inputs, **settings)
        result, compiled = traced.run(inputs, settings)
        if not compiled:
            del self._ready[key]
            logger.warning("the compiled %s no longer fits %s; it runs uncompiled", self._name, key)
        self.on_call(compiled, len(self._ready))
        return result

    def compiling(self, *inputs: Any) -> bool:
        """Whether compiled code for such a call is still to come."""
        variant = self._variant()
        asked = self._wanted.get((variant, torch.get_num_threads(), _shapes(inputs, {})))
        if asked is not None:
            return not asked.is_set()
        return self._may_compile(variant) and len(self._wanted) < self._most

    def prepare(self, variant: Hashable, threads: int, *inputs: Any) -> None:
        """Have compiled what no request asked for yet: a variant, for a thread with so many threads and inputs of such shapes."""
        self._have((variant, threads, _shapes(inputs, {})), inputs, {}, ahead=False)

    def pending(self) -> list[threading.Event]:
        """Of each combination that was asked for, an event that is set once its compilation is over."""
        return list(self._wanted.values())

    def _have(
        self, key: Key, inputs: Any, settings: dict[str, Any], *, ahead: bool
    ) -> threading.Event | None:
        """Have a combination compiled; the event is set once that is over, None where it will not be tried now."""
        if key in self._wanted:
            return self._wanted[key]
        if not self._may_compile(key[0]):
            return None
        if len(self._wanted) >= self._most:
            if not self._is_full:
                self._is_full = True
                logger.warning(
                    "%d combinations of the %s were compiled; others run uncompiled", self._most, self._name
                )
            return None
        done, ready = threading.Event(), self._device.mark()
        job = partial(self._compile, key, inputs, settings, ready, done)
        if not self._compiler.put(job, ahead=ahead, wait=self._waits):
            return None
        self._wanted[key] = done
        return done

    def _compile(
        self, key: Key, inputs: Any, settings: dict[str, Any], ready: Any, done: threading.Event
    ) -> None:
        variant, threads, shapes = key
        began = time.monotonic()
        try:
            set_threads(threads)
            traced = self._traced.get(variant)
            if traced is None:
                traced = self._traced[variant] = _Traced(self._build(variant), self._options)
            tensors = [(tensor, ready) for tensor in _tensors(inputs)]
            with torch.inference_mode(), self._device.aside(tensors):
                traced.compile(inputs, settings)
            self._ready[key] = traced
            logger.info("compiled the %s for %s in %.1f s", self._name, shapes, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - calls run as they are written
            self.failure = (
                f"torch: the {self._name} cannot be compiled and runs uncompiled: {failures.one_line(error)}"
            )
            logger.error("%s", self.failure)  # noqa: TRY400
        finally:
            done.set()


class _Traced:
    """One call and what was compiled of it."""

    def __init__(self, call: Call, options: dict[str, Any] | None) -> None:
        self._eager_runs = threading.local()

        def traced(*inputs: Any, **settings: Any) -> Any:
            if not torch.compiler.is_compiling():  # what is compiled has no trace of this
                self._eager_runs.count = self._count() + 1
            return call(*inputs, **settings)

        # Torch keeps compiled code by code object, which all functions made here would share.
        traced.__code__ = traced.__code__.replace(co_name=f"traced_{id(self)}")
        self._compiled = torch.compile(
            traced, backend=BACKEND, dynamic=False, recompile_limit=MOST_SHAPES, options=options
        )
        self._run = torch._dynamo.run(self._compiled)  # noqa: SLF001 - there is no public name

    def compile(self, inputs: Any, settings: dict[str, Any]) -> None:
        """Compile for these inputs, and call it once."""
        self._compiled(*inputs, **settings)

    def run(self, inputs: Any, settings: dict[str, Any]) -> tuple[Any, bool]:
        """The result, and whether compiled code made it."""
        before = self._count()
        result = self._run(*inputs, **settings)
        return result, self._count() == before

    def _count(self) -> int:
        return getattr(self._eager_runs, "count", 0)


def _shapes(inputs: Any, settings: dict[str, Any]) -> Hashable:
    found = tuple(
        tuple((name, tuple(tensor.shape)) for name, tensor in each.items())
        if isinstance(each, dict)
        else tuple(each.shape)
        for each in inputs
    )
    return (*found, *sorted(settings.items()))


def _tensors(inputs: Any) -> list[torch.Tensor]:
    return [tensor for each in inputs for tensor in (each.values() if isinstance(each, dict) else (each,))]
