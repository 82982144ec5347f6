"""Which GPUs of a host are opened, and what is told of those that do not open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from cudafilter.engines.fleet import WINDOW, Fleet
from cudafilter.engines.open import open_engine
from cudafilter.errors import EngineUnavailable, ParameterError
from cudafilter.operations.choices import ALL, gpu_numbers
from cudafilter.start import gpus
from stand_in_gpus import BLUR, PIXELS, Clock, StandIn, clock, settle, within

__all__ = ["clock"]


@dataclass(frozen=True)
class Card:
    """What gpus() tells of a GPU."""

    index: int
    name: str = "H100"


@dataclass
class Host:
    """A host with stand-in GPUs."""

    cards: list[Card] = field(default_factory=list)
    refuse: set[int] = field(default_factory=set)
    opened: list[StandIn] = field(default_factory=list)
    codecs: list[str] = field(default_factory=list)

    def gpus(self) -> Sequence[Card]:
        if not self.cards:
            raise EngineUnavailable("the NVIDIA driver shows no GPU")
        return self.cards

    def open(self, gpu: int = 0, variant: str = "auto", *, codec: str = "auto") -> StandIn:
        self.gpus()
        if gpu >= len(self.cards) or gpu in self.refuse:
            raise EngineUnavailable(f"GPU {gpu} does not open")
        engine = StandIn(gpu)
        self.opened.append(engine)
        self.codecs.append(codec)
        return engine


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host([Card(0), Card(1), Card(2)])
    monkeypatch.setattr("cudafilter.engines.cuda.device.gpus", host.gpus)
    monkeypatch.setattr("cudafilter.engines.cuda.engine.CudaEngine", host.open)
    return host


class TestOpening:
    def test_one_image_takes_the_first_gpu(self, host: Host) -> None:
        assert open_engine().title == "GPU 0"
        assert len(host.opened) == 1

    def test_the_former_name_of_the_codec_of_the_cpu_is_still_taken(self, host: Host) -> None:
        for codec in ("auto", "cpu", "pillow"):
            open_engine(codec=codec)
        assert host.codecs == ["auto", "cpu", "cpu"]
        with pytest.raises(ParameterError, match="must be one of auto, units, cpu, not 'gpu'"):
            open_engine(codec="gpu")

    def test_all_that_were_asked_for_open_at_once(self, host: Host) -> None:
        engine = open_engine(gpu="all")
        assert engine.title == "cuda: 3 x H100 (GPUs 0, 1, 2)"
        assert engine.parallel == 6
        assert engine.note is None

    @pytest.mark.parametrize(
        ("codec", "jpeg", "units"),
        [("auto", True, False), ("units", True, True), ("cpu", False, False)],
    )
    def test_several_images_take_one_and_the_others_as_needed(
        self,
        codec: str,
        jpeg: bool,
        units: bool,
        host: Host,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        started: list[tuple[Sequence[int] | None, bool, bool]] = []

        def start(numbers: Sequence[int] | None, *, jpeg: bool, units: bool) -> None:
            started.append((numbers, jpeg, units))

        monkeypatch.setattr(gpus, "start", start)
        engine = open_engine(several=True, codec=codec)
        assert engine.title == "cuda: 3 x H100 (GPU 0; 1, 2 as needed)"
        assert (len(host.opened), started) == (1, [])
        host.opened[0].kernel = 1.0
        for opened in (2, 3, 3):
            clock.now += WINDOW
            engine.run(PIXELS, BLUR)
            settle(engine)
            assert len(host.opened) == opened
            for card in host.opened:
                card.kernel = float(opened)
        assert started == [((1,), jpeg, units), ((2,), jpeg, units)]
        engine.close()
        assert all(card.closed for card in host.opened)

    def test_a_host_of_one_gpu_has_no_fleet(self, host: Host) -> None:
        host.cards = [Card(0)]
        assert open_engine(several=True).title == "GPU 0"
        assert open_engine(gpu="all").title == "GPU 0"

    @pytest.mark.parametrize("several", [False, True])
    def test_those_asked_for_are_taken(self, host: Host, several: bool) -> None:
        host.cards[2] = Card(2, "T4")
        engine = open_engine(gpu="2,0", several=several)
        assert engine.title == "cuda: 1 x T4 + 1 x H100 (GPUs 2, 0)"
        assert [opened.title for opened in host.opened] == ["GPU 2", "GPU 0"]
        assert open_engine(gpu=1, several=several).title == "GPU 1"
        assert open_engine(gpu="all", several=several).title.endswith("(GPUs 0, 1, 2)")

    def test_of_all_those_that_do_not_open_are_left_out_and_told(self, host: Host) -> None:
        host.refuse = {1}
        engine = open_engine(gpu="all")
        assert engine.title == "cuda: 2 x H100 (GPUs 0, 2)"
        assert engine.note == "GPU 1 is left out: GPU 1 does not open"
        host.refuse = {0}
        engine = open_engine(several=True)
        assert engine.title == "cuda: 2 x H100 (GPU 1; 2 as needed)"
        assert engine.note == "GPU 0 is left out: GPU 0 does not open"

    @pytest.mark.parametrize("gpu", ["all", None])
    def test_where_one_alone_opens_it_is_the_engine(self, host: Host, gpu: str | None) -> None:
        host.refuse = {0, 1}
        engine = open_engine(gpu=gpu, several=True)
        assert engine.title == "GPU 2"
        assert engine.note is not None
        assert "GPU 0 is left out" in engine.note
        assert "GPU 1 is left out" in engine.note

    def test_of_those_named_each_must_open(self, host: Host) -> None:
        host.refuse = {1}
        with pytest.raises(EngineUnavailable, match="GPU 1 does not open"):
            open_engine(gpu="0,1,2")
        assert len(host.opened) == 2
        assert all(engine.closed for engine in host.opened)
        with pytest.raises(EngineUnavailable, match="GPU 7"):
            open_engine(gpu="7")

    def test_where_none_opens_the_cpu_serves_unless_gpus_were_asked_for(self, host: Host) -> None:
        host.refuse = {0, 1, 2}
        engine = open_engine(several=True)
        assert engine.name == "cpu"
        assert engine.note == "no CUDA: GPU 0 does not open"
        engine.close()
        for choice in ({"name": "cuda"}, {"gpu": "all"}, {"variant": "stream"}):
            with pytest.raises(EngineUnavailable):
                open_engine(several=True, **choice)

    def test_a_host_without_a_gpu_says_so(self, host: Host) -> None:
        host.cards = []
        assert open_engine(several=True).note == "no CUDA: the NVIDIA driver shows no GPU"
        with pytest.raises(EngineUnavailable, match="no GPU"):
            open_engine(gpu="all")

    @pytest.mark.parametrize("gpu", ["all", "0,1", 0])
    def test_gpus_are_not_for_the_cpu_engine(self, gpu: str | int) -> None:
        with pytest.raises(ParameterError) as caught:
            open_engine("cpu", gpu=gpu)
        assert caught.value.parameter == "gpu"

    def test_the_cpu_engine_serves_several_images(self) -> None:
        engine = open_engine("cpu", several=True)
        assert engine.name == "cpu"
        engine.close()

    @pytest.mark.parametrize(
        ("text", "numbers"),
        [("all", None), ("0", (0,)), ("3,1", (3, 1)), ("0, 2", (0, 2)), (5, (5,))],
    )
    def test_gpus_are_named_by_number(
        self, text: str | int, numbers: tuple[int, ...] | None
    ) -> None:
        assert gpu_numbers(text) == numbers

    @pytest.mark.parametrize("text", ["", "x", "-1", "0,", "0;1", "1.5", "All", "0,0", -1])
    def test_other_names_are_refused(self, text: str | int) -> None:
        with pytest.raises(ParameterError) as caught:
            gpu_numbers(text)
        assert caught.value.parameter == "gpu"
        assert ALL in str(caught.value) or "twice" in str(caught.value)


@pytest.mark.gpu
def test_the_gpus_of_the_host_open() -> None:
    from cudafilter.engines.cuda.device import gpus

    several = len(gpus()) > 1
    for options, title in (
        ({}, "(GPU 0, "),
        ({"several": True}, "(GPU 0; 1" if several else "(GPU 0, "),
        ({"gpu": "all"}, "(GPUs 0, 1" if several else "(GPU 0, "),
    ):
        engine = open_engine("cuda", **options)
        assert title in engine.title
        assert isinstance(within(engine), Fleet) == (several and bool(options))
        engine.close()
    with pytest.raises(EngineUnavailable, match="there is no GPU 99"):
        open_engine(gpu="0,99")
