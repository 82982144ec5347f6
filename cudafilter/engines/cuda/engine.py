"""The CUDA engine: an image's way through a device, in chunks and bands."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

import numpy as np

from cudafilter.engines import Result, Screening
from cudafilter.engines.chains import one_by_one, picked, run_plan
from cudafilter.engines.codecs import JpegPath, PngCodec
from cudafilter.engines.cuda.bands import Band, block_of
from cudafilter.engines.cuda.chains import Stretch, Stretched, placed, stretch_of
from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.jpeg import GpuJpeg
from cudafilter.engines.cuda.png import GpuPng
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.task import Launch, row_pitch
from cudafilter.engines.cuda.work import Work
from cudafilter.engines.resident import Resident
from cudafilter.errors import LimitError
from cudafilter.nvidia import nvjpeg
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import UNITS
from cudafilter.operations.operation import Operation, Stage, WholeImage, only_stage
from cudafilter.operations.pixels import KINDS, Pixels, require_pixels

MEMORY_SHARE = 0.9
"""Share of the free device memory that all slots together may take."""

SLOTS = 4
"""Images in flight. Filling and emptying pinned memory is the host's work and takes longest: on an
H100, 54 12-megapixel images/s with one slot, 147 with three, 183 with four, 204 with six."""


class CudaEngine:
    """Runs filters on one GPU; calls from several threads overlap, *slots* of them at a time.

    *memory_limit* caps the device memory in bytes that an image and its result may take; larger
    images are cut into bands with halos, with the same bits. *codec* ``cpu`` keeps JPEG files
    off the GPU's codec, and has PNGs compressed on the host; ``units`` has the GPU's JPEG units
    decode them, if it has any. Raises EngineUnavailable.
    """

    name = "cuda"
    note: str | None = None
    variant: str
    """The kernel to run filters with; may be changed between runs."""
    jpeg: JpegPath | None
    """See Engine.jpeg."""
    jpeg_reason: str | None
    """Why there is no ``jpeg``."""

    def __init__(
        self,
        gpu: int = 0,
        variant: str = "auto",
        memory_limit: int | None = None,
        *,
        slots: int = SLOTS,
        codec: str = "auto",
    ) -> None:
        self._device = device = Device(gpu, slots, memory_limit)
        self.variant = variant
        self.parallel = slots
        self._jpeg: GpuJpeg | None = None
        self.jpeg_reason = "--codec cpu was asked for" if codec == "cpu" else None
        if self.jpeg_reason is None:
            if (library := nvjpeg.find(device.cuda_version)) is not None:
                self._jpeg = GpuJpeg(device, library, variant, codec == UNITS)
                self.note = self._jpeg.note
            else:
                self.jpeg_reason = "nvJPEG is not installed (the extra nvcodec)"
        self.jpeg = self._jpeg
        self._png = None if codec == "cpu" else GpuPng(device, variant)
        self.png: PngCodec | None = self._png
        self.title = f"cuda: {device.title}"

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """See Engine.run. *overwrite* has no effect, since pixels are needed again after a failure.

        An image of up to slots.CHUNK_BYTES costs one upload, the filter's launches (one of most
        kernels), one download and one wait; a larger one as many of each as it has chunks.
        """
        started = perf_counter()
        pixels = require_pixels(pixels, alpha, KINDS)
        plan = filter.unrolled(border)
        if not plan:
            return Result(picked(pixels, rows).copy())
        stage = only_stage(plan)
        if stage is None or pixels.dtype == np.float64:
            stages = [each for each in plan if isinstance(each, Stage)]
            if len(stages) == len(plan) and (done := self._stretched(pixels, stages, alpha, rows)):
                return done
        if stage is None:
            return run_plan(self._linear, pixels, plan, alpha, rows)
        operation, border = stage
        if rows is not None and isinstance(operation, WholeImage):
            done = self.run(pixels, operation, border, alpha)
            return done._replace(pixels=picked(done.pixels, rows))
        ready = self.prepare(pixels, operation, border, alpha)
        out = np.empty_like(picked(pixels, rows))
        first = 0 if rows is None else rows[0]
        device, work = self._device, Work(self._device, ready, operation, border, first)
        with device.current():
            try:
                with device.slots.one() as slot:
                    self._filter(slot, work, pixels, out)
                    spent = slot.seconds()
            except (device.out_of_memory, LimitError):
                # The others' buffers may have taken what this image needs.
                self._free_codecs()
                with device.slots.alone() as slots:
                    for slot in slots:
                        slot.free()
                    self._squeeze(slots[0], work, pixels, out)
                    spent = slots[0].seconds()
        rest = perf_counter() - started - sum(spent.values())
        return Result(out, spent | {"download": max(0.0, rest)})

    def _linear(
        self, pixels: Pixels, stages: Sequence[Stage], alpha: bool, *, overwrite: bool
    ) -> Result:
        """See chains.Linear: pixels stay on the device between stages, where memory allows it."""
        done = self._stretched(pixels, stages, alpha) if len(stages) > 1 else None
        return done or one_by_one(self.run)(pixels, stages, alpha, overwrite=overwrite)

    def _stretched(
        self,
        pixels: Pixels,
        stages: Sequence[Stage],
        alpha: bool,
        rows: tuple[int, int] | None = None,
    ) -> Result | None:
        """*rows* of *pixels* after *stages*, in as few bands as memory allows.

        None where it takes the image as a whole and there is no memory for that.
        """
        started = perf_counter()
        channels, dtype = pixels.shape[2], pixels.dtype.name
        stretch = stretch_of(stages, channels, dtype, alpha, self.variant)
        device = self._device
        work = Stretched(device, stretch, pixels, rows or (0, len(pixels)))

        def run() -> tuple[bool, dict[str, float]]:
            with device.slots.one() as slot:
                done = work.run(slot, work.rows_at_once(slot, lambda: self._share(slot)))
                return done, slot.seconds() if done else {}

        with device.current():
            try:
                done, spent = run()
                if not done:  # codecs may have taken what a few rows need
                    self._free_codecs()
                    done, spent = run()
            except device.out_of_memory:
                # The others' buffers may have taken what this image needs.
                self._free_codecs()
                with device.slots.alone() as slots:
                    for slot in slots:
                        slot.free()
                    done = work.squeeze(slots[0])
                    spent = slots[0].seconds()
            if not done and stretch.joined and not stretch.whole:
                width = pixels.shape[1]
                raise device.full(f"a few rows of {width} pixels, in floats, do not find room")
        if not done:
            return None
        rest = perf_counter() - started - sum(spent.values())
        return Result(work.out, spent | {"download": max(0.0, rest)})

    def screen(
        self,
        source: Pixels,
        result: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
    ) -> Screening:
        """See Engine.screen. Both images go to the device, 3 ms of PCIe for 12 megapixels RGB, so
        what became of them on their ways there and back is proven too."""
        from cudafilter.engines.cuda import screen  # only a check needs it

        source = require_pixels(source, alpha)
        device = self._device
        stage = only_stage(plan) if (plan := filter.unrolled(border)) else None
        launch = screen.planned(stage, source.shape, source.dtype, alpha, device.slowness)
        if launch is None:
            return Screening()
        size = source.shape[0], source.shape[1]
        pitch = row_pitch(size[1], source[0, 0].nbytes)
        # Where memory lacks, the host does it.
        with device.current(), suppress(device.out_of_memory), device.slots.one() as slot:
            taken = 2 * size[0] * pitch + device.scratch_bytes(launch, size, size)
            if taken > (device.memory_limit or self._share(slot)):
                return Screening()
            for use, pixels in (("source", source), ("out", result)):
                address = slot.memory(use, size[0] * pitch)
                for _ in slot.upload(pixels, address, pitch):
                    pass
                slot.finish()  # its chunks are filled again
            found = screen.prove(device, slot, launch, source.shape, source.dtype)
            slot.seconds()
            return Screening(found)
        return Screening()

    def resident(self, number: int) -> Resident | None:
        """See resident_of()."""
        from cudafilter.engines.cuda.resident import resident_on  # files never need it

        return resident_on(self._device, self.variant) if number == self._device.number else None

    def prepare(
        self, pixels: Pixels, filter: Operation, border: Border = Border(), alpha: bool = False
    ) -> Launch:
        """The launch that run() would use; its ``variant`` tells what ``auto`` picked."""
        return prepare(filter, pixels.shape[2], pixels.dtype, border, alpha, self.variant)

    def time_kernel(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        warmup: int = 3,
        repeats: int = 15,
    ) -> tuple[Pixels, list[float]]:
        """The result, and the milliseconds of each of *repeats* launches on resident pixels.

        Of a chain without differences, it is the time of all its launches.
        """
        pixels = require_pixels(pixels, alpha)
        stages = [each for each in filter.unrolled(border) if isinstance(each, Stage)]
        channels, dtype = pixels.shape[2], pixels.dtype.name
        stretch = (
            stretch_of(stages, channels, dtype, alpha, self.variant)
            if len(stages) > 1
            else Stretch(tuple(stages), (self.prepare(pixels, *stages[0], alpha),))
        )
        out = np.empty_like(pixels)
        with self._device.current(), self._device.slots.one() as slot:
            applied = placed(self._device, slot, stretch, pixels.shape[:2], second="between")
            for _ in slot.upload(pixels, applied[0].source, applied[0].source_pitch):
                pass
            passes = [each.passes() for each in applied]

            def work() -> None:
                for each, own in zip(applied, passes, strict=True):
                    each.run(own)

            times = self._device.time(slot, work, warmup, repeats)
            slot.download(out, applied[-1].out, applied[-1].out_pitch)
            slot.finish()
        return out, times

    def time_copy(self, nbytes: int, *, warmup: int = 3, repeats: int = 15) -> list[float]:
        """The milliseconds of each of *repeats* device-to-device copies of *nbytes*.

        One read and one write of an image: the floor for a filter that is bound by memory.
        """
        with self._device.current(), self._device.slots.one() as slot:
            return self._device.time(slot, self._device.copy(slot, nbytes), warmup, repeats)

    def step(
        self, shape: tuple[int, ...], dtype: str, filter: Operation, border: Border, alpha: bool
    ) -> int:
        """See Engine.step: of most launches the bits depend on no cut."""
        if isinstance(filter, WholeImage):
            return shape[0]
        return prepare(filter, shape[2], dtype, border, alpha, self.variant).alignment

    def close(self) -> None:
        """See Engine.close."""
        if not self._device.lost:
            with self._device.current():
                self._free_codecs()
        self._device.close()

    def _free_codecs(self) -> None:
        """Give back what codecs hold; with current()."""
        for codec in (self._jpeg, self._png):
            if codec is not None:
                codec.free()

    def _squeeze(self, slot: Slot, work: Work, pixels: Pixels, out: Pixels) -> None:
        """*pixels* into *out*, in bands that are halved until they find memory.

        Raises EngineError, with the sizes, where not even the smallest do.
        """
        (height, width, channels), step = pixels.shape, work.launch.alignment
        budget = 2 * height * row_pitch(width, pixels[0, 0].nbytes)
        if self._device.memory_limit is not None:
            budget = min(budget, self._device.memory_limit)
        tried: int | None = None
        while True:
            try:
                return self._filter(slot, work, pixels, out, tried)
            except self._device.out_of_memory as full:
                slot.abandon()
                slot.free()
                if work.whole:
                    raise self._device.full(
                        f"{work.filter.name} needs all of the {width}x{height} pixels at once:"
                        f" {full}"
                    ) from full
                budget = tried = budget // 2
                try:
                    work.cut(pixels, out, budget)
                except LimitError:
                    raise self._device.full(
                        f"{width}x{height} pixels of {channels} channels and their result take"
                        f" {2 * pixels.nbytes:,} bytes, and not even {step}x{step} of them at a"
                        f" time find room: {full}"
                    ) from full

    def _filter(
        self, slot: Slot, work: Work, pixels: Pixels, out: Pixels, budget: int | None = None
    ) -> None:
        """*pixels* into *out*, in as few bands as memory, or *budget* bytes of it, allow."""
        if budget is None:
            bands = self._bands(slot, work, pixels, out)
        else:
            bands = work.cut(pixels, out, budget)
        for rows, columns in bands:
            part = out[slice(*rows), slice(*columns)]
            if part.shape == out.shape:
                work.stream(slot, pixels, part, (work.first, 0))
            else:
                there = rows[0] + work.first, rows[1] + work.first
                block, origin = block_of(pixels, work.filter, work.border, there, columns)
                work.stream(slot, block, part, origin)

    def _bands(self, slot: Slot, work: Work, pixels: Pixels, out: Pixels) -> list[Band]:
        """All of *out*, or bands of it that leave the other slots their share of the memory."""
        limit = self._device.memory_limit
        if work.whole:
            height, width, _ = pixels.shape
            return [((0, height), (0, width))]
        if limit is not None:
            return work.cut(pixels, out, limit)
        size, width = pixels.shape[:2], pixels.shape[1]
        whole = size[0] * row_pitch(width, pixels[0, 0].nbytes)
        scratch = self._device.scratch_bytes(work.launch, size, size)
        if slot.holds(source=whole, out=whole, scratch=scratch):
            return [((0, len(out)), (0, width))]
        return work.cut(pixels, out, self._share(slot) - scratch)

    def _share(self, slot: Slot) -> int:
        """Bytes of device memory that *slot* may take, what it holds included."""
        free = self._device.free_bytes() + slot.held
        return int(free * MEMORY_SHARE / self._device.slots.count)
