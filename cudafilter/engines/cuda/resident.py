"""Filters on pixels that are in the device's memory already, on the caller's stream.

PyCUDA launches on streams of its own only. So each stream of a caller has one here: it waits for
what the caller has queued, and the caller's stream waits for it. The host waits for nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import lcm
from threading import Lock
from typing import Any

import numpy as np

from cudafilter.engines.cuda.array import DeviceArray
from cudafilter.engines.cuda.chains import Stretch, scratch_bytes, stretch_for
from cudafilter.engines.cuda.device import Device, Place
from cudafilter.engines.cuda.kernels import Kernel
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.task import Launch, row_pitch
from cudafilter.engines.cuda.views import Stream, View, stream_of, view_of
from cudafilter.errors import ParameterError
from cudafilter.nvidia import driver as nvidia
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels

ALIGNED = 16
"""Bytes on which a row begins: lanes read and write so many at once."""

MOST_LANES = 8
"""Callers' streams that keep memory here. The one that was unused for longest goes first."""

MOST_KERNELS = 64
"""Kernels in work on a lane, after which the host waits for them."""


class Resident:
    """What *device* does to pixels in its memory by kernels of *variant*. See resident.Resident."""

    def __init__(self, device: Device, variant: str) -> None:
        self._device, self._variant = device, variant
        self._lock = Lock()
        """Held while work is queued: lanes have one image at a time."""
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()

    def run(
        self,
        pixels: Any,
        filter: Operation,
        border: Border,
        alpha: bool,
        out: Any = None,
        stream: object = None,
    ) -> Any:
        """*pixels* filtered into *out*, or into a new DeviceArray; see api.apply()."""
        device, driver = self._device, nvidia.driver()
        caller = stream_of(stream, pixels)
        source = self._view(pixels, caller, "pixels")
        target: View | None = None
        try:
            if alpha and source.shape[2] not in (2, 4):
                raise ParameterError("alpha", f"alpha needs 2 or 4 channels, not {source.shape[2]}")
            channels, dtype = source.shape[2], source.dtype.name
            stretch = stretch_for(filter, border, channels, dtype, alpha, self._variant)
            with device.current():
                made = None
                if out is None:
                    made = DeviceArray(driver, device.number, source.given, source.dtype, caller)
                    target = made.view
                else:
                    target = self._view(out, caller, "out")
                    _require_fit(target, source)
                with self._lock:
                    lane = self._lane(caller)
                    with lane.between(caller, source, target):
                        if stretch is None:
                            lane.copy(target, source)
                        else:
                            lane.queue(device, stretch, source, target)
                        if made is not None:
                            made.made(lane.handle)
                    if source.release is not None and caller.keeper is None:
                        lane.finish()  # who owns the source may know no stream that waits for it
            return out if made is None else made
        finally:
            for view in (source, target):
                if view is not None and view.release is not None:
                    view.release()

    def download(self, image: Any) -> Pixels:
        """*image*, an array on this device, as one of NumPy. Waits for it."""
        device = self._device
        caller = stream_of(None, image)
        view = self._view(image, caller, "pixels")
        out = np.empty(view.shape, view.dtype)
        try:
            with device.current(), self._lock:
                lane = self._lane(caller)
                pitch = row_pitch(view.shape[1], view.row // view.shape[1])
                with lane.between(caller, view):
                    address = lane.slot.memory("source", view.shape[0] * pitch)
                    lane.copy(replace(view, address=address, pitch=pitch), view)
                    lane.slot.download(out, address, pitch)
                lane.finish()
        finally:
            if view.release is not None:
                view.release()
        return out.reshape(view.given)

    def free(self) -> None:
        """Wait for what is queued and give all back; with the device current()."""
        with self._lock:
            while self._lanes:
                self._lanes.popitem()[1].free()

    def _view(self, image: Any, caller: Stream, name: str) -> View:
        view = view_of(image, caller, name)
        number = nvidia.driver().device_of(view.address)
        if number == self._device.number:
            return view
        if view.release is not None:
            view.release()
        where = "in no GPU's memory" if number is None else f"on GPU {number}"
        mine = self._device.number
        raise ParameterError(name, f"{name} must be on GPU {mine}, the engine's, and is {where}")

    def _lane(self, caller: Stream) -> _Lane:
        handle = caller.handle
        if handle not in self._lanes:
            if len(self._lanes) == MOST_LANES:
                self._lanes.popitem(last=False)[1].free()
            self._lanes[handle] = _Lane(self._device)
        self._lanes.move_to_end(handle)
        return self._lanes[handle]


def resident_on(device: Device, variant: str) -> Resident:
    """The one of *device* for *variant*; device.close() frees it."""
    kept = device.residents.get(variant) or device.residents.setdefault(
        variant, Resident(device, variant)
    )
    assert isinstance(kept, Resident)
    return kept


class _Lane:
    """A stream beside one of the caller's, with the memory that work there needs."""

    def __init__(self, device: Device) -> None:
        self._driver = nvidia.driver()
        self.slot = Slot(device.cuda)
        self.handle = int(self.slot.stream.handle)
        self._fork, self._join = self._driver.event(), self._driver.event()
        self._kernels: dict[int, Kernel] = {}
        """Those that may be at work: one without a reference is unloaded."""

    @contextmanager
    def between(self, caller: Stream, *views: View) -> Iterator[None]:
        """What is queued here inside comes behind what is queued on the caller's stream, and on
        those of *views*; what is queued on the caller's later comes behind it."""
        for handle in {caller.handle, *(view.stream for view in views if view.stream)}:
            self._driver.record(self._fork, handle)
            self._driver.wait(self.handle, self._fork)
        try:
            yield
            self._driver.record(self._join, self.handle)
            self._driver.wait(caller.handle, self._join)
        except BaseException:
            self.slot.abandon()  # nothing works on the caller's memory any more
            self._kernels.clear()
            raise

    def copy(self, to: View, source: View) -> None:
        """Queue a copy."""
        places = (to.address, to.pitch), (source.address, source.pitch)
        self._driver.copy(*places, source.row, source.shape[0], self.handle)

    def queue(self, device: Device, stretch: Stretch, source: View, target: View) -> None:
        """Queue the launches of *stretch*. The first one reads *source* and the last one writes
        *target* where they lie, if their rows are whole for it; else there is a copy."""
        if len(self._kernels) > MOST_KERNELS:
            self.finish()
        elif self._kernels and self._driver.reached(self._join):
            self._kernels.clear()
        size, launches = source.shape[:2], stretch.launches
        begin, end = _place(source, launches[0]), _place(target, launches[-1])
        # What launches hand on lies in two buffers by turns; the ends are the caller's.
        places = [begin, *[None] * (len(launches) - 1), end]
        names = [("source", "out")[i % 2] for i in range(len(places))]
        for name in {name for name, place in zip(names, places, strict=True) if place is None}:
            self.slot.memory(name, stretch.image_bytes(*size))  # before any launch has its address
        self.slot.memory("scratch", scratch_bytes(device, stretch, size))
        applied = [
            device.apply(
                self.slot, launch, size, size, uses=(names[i], names[i + 1], "scratch"),
                places=(places[i], places[i + 1]),
            )
            for i, launch in enumerate(launches)
        ]  # fmt: skip
        if begin is None:
            self.copy(
                replace(source, address=applied[0].source, pitch=applied[0].source_pitch), source
            )
        for each in applied:
            self._kernels[id(each.kernel)] = each.kernel
            each.run(each.passes())
        if end is None:
            self.copy(target, replace(target, address=applied[-1].out, pitch=applied[-1].out_pitch))

    def finish(self) -> None:
        """Wait for what is queued."""
        self.slot.finish()
        self._kernels.clear()

    def free(self) -> None:
        """Wait for what is queued and give all back."""
        self.finish()
        for event in (self._fork, self._join):
            self._driver.forget(event)
        self.slot.free()


def whole_of(launch: Launch) -> int:
    """Samples: *launch* leaves no row that holds a multiple of so many, as the next one begins on
    ALIGNED bytes then. Of others, pieces that lanes read and write at once reach past the end,
    where row_pitch() leaves room."""
    piece = ALIGNED // min(launch.itemsize, launch.out_itemsize)
    lane = launch.channels * launch.defines.get("RUN", 4)  # as in fours.cuh
    return lcm(piece, lane, launch.defines.get("OUTPUTS", 1))


def _place(view: View, launch: Launch) -> Place | None:
    """Where *launch* may read or write *view*; None where its rows are not whole for it."""
    if view.shape[1] * view.shape[2] % whole_of(launch) or (view.address | view.pitch) % ALIGNED:
        return None
    return view.address, view.pitch


def _require_fit(out: View, source: View) -> None:
    if (out.given, out.dtype) != (source.given, source.dtype):
        raise ParameterError(
            "out",
            f"out must be {source.dtype} {source.given} as the pixels, not {out.dtype} {out.given}",
        )
    if out.read_only:
        raise ParameterError("out", "out is read-only")
    if out.address < source.end and source.address < out.end:
        raise ParameterError("out", "out overlaps the pixels, which are read meanwhile")
