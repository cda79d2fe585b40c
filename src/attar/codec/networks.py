"""The networks of a bundle, run on whole arrays or on tiles with margins. The only module that imports ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attar.codec import gradient
from attar.codec.bundle import Bundle
from attar.codec.manifest import Hyperprior
from attar.codec.onnxfile import read_graph
from attar.codec.reach import Reach, UnboundedError, reach_of
from attar.codec.similarity import ms_ssim
from attar.codec.split import split
from attar.codec.tiling import Area, Kept, Plane, everything
from attar.errors import BundleError

__all__ = ["Begun", "Networks"]

MOST_WHOLE_PIXELS = 1 << 25
"""Larger images are not run through a network of unbounded reach: no machine has the memory."""

Floats = NDArray[np.float32]
Begun = dict[str, NDArray[Any]]
"""Tensors that a network goes on from, by name."""


class Networks:
    """Runs the networks of a bundle, each loaded at its first use. May be shared between threads.

    ``threads``: of each network; None lets ONNX Runtime choose.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle, self.threads = bundle, threads
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.reaches: dict[str, Reach | UnboundedError] = {}
        self.cuts: dict[str, tuple[str, ...]] = {}
        self.frugal = onnxruntime.RunOptions()
        self.frugal.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(self, name: str, inputs: Mapping[str, NDArray[Any]], *, frugal: bool = False) -> Floats:
        """The only output of a network, of those inputs that it has, each with a batch axis.

        ``frugal``: give the memory that it took back at once, rather than keep it for the next run.
        """
        return self.finish(name, self.begin(name, inputs, frugal=frugal), inputs, frugal=frugal)

    def begin(self, name: str, inputs: Mapping[str, NDArray[Any]], *, frugal: bool = False) -> Begun:
        """Run the part of a network that the input ``quality`` has no say in: what :meth:`finish` goes on from.

        Where a network has no such part, these are the inputs themselves.
        """
        if not self.is_cut(name):
            return dict(inputs)
        return dict(zip(self._cut(name), self._results(f"{name}, begun", inputs, frugal), strict=True))

    def finish(
        self, name: str, begun: Begun, inputs: Mapping[str, NDArray[Any]], *, frugal: bool = False
    ) -> Floats:
        """The output of a network that has begun. It always runs so: the output is the same however often."""
        network = f"{name}, finished" if self.is_cut(name) else name
        (result,) = self._results(network, {**inputs, **begun}, frugal)
        if result.dtype != np.float32:
            raise BundleError(f"{self.bundle.source}: the network gave {result.dtype}; float32 expected")
        return result

    def can_pull(self, name: str, by: str, scales: int = 0) -> bool:
        """Whether :meth:`pull` knows the gradient of a network by its input ``by``."""
        try:
            self._pulling(name, by, scales)
        except gradient.UnknownGradientError:
            return False
        return True

    def pull(
        self, name: str, by: str, inputs: Mapping[str, NDArray[Any]], scales: int = 0
    ) -> tuple[Floats, ...]:
        """The output of a network, and a gradient by its input ``by``: see :mod:`attar.codec.gradient`.

        Of the synthesis, that of the squared error, or that of the similarity at so many ``scales``, which comes third;
        of the others, that of what the output's ``SEED`` says.
        """
        return tuple(self._results(self._pulling(name, by, scales), inputs, frugal=False))

    def _pulling(self, name: str, by: str, scales: int) -> str:
        network = f"{name}, pulled back to {by}" + f" at {scales} scales" * bool(scales)
        if network not in self.sessions:
            data, source = self.bundle.graphs[name], f"{self.bundle.source}: {name}.onnx"
            if scales:
                channels = self.bundle.manifest.channels
                graph = gradient.of_value(
                    data, by, source, lambda tape, output: ms_ssim(tape, output, channels, scales)
                )
            elif name == "synthesis":
                graph = gradient.of_squared_error(data, by, source)
            else:
                graph = gradient.pulled_back(data, by, source)
            self.sessions[network] = self._session(graph, network)
        return network

    def is_cut(self, name: str) -> bool:
        """Whether a network has a part that can be run once for all qualities."""
        return bool(self._cut(name))

    def _cut(self, name: str) -> tuple[str, ...]:
        """The tensors that are handed over from one half of a network to the other; none where it is whole."""
        if name not in self.cuts:
            self.cuts[name] = self._halved(name) if name == "analysis" else ()
        return self.cuts[name]

    def _halved(self, name: str) -> tuple[str, ...]:
        halves = split(self.bundle.graphs[name], "quality")
        if halves is None:
            return ()
        try:
            early = self._session(halves.early, name)
            late = halves.late([item.type for item in early.get_outputs()])
            if late is None:
                return ()
            self.sessions[f"{name}, finished"] = self._session(late, name)
        except BundleError:  # the whole network may do
            return ()
        self.sessions[f"{name}, begun"] = early
        return halves.cut

    def _results(self, network: str, inputs: Mapping[str, NDArray[Any]], frugal: bool) -> list[NDArray[Any]]:
        session = self.sessions.get(network)
        if session is None:
            session = self.sessions.setdefault(network, self._session(self.bundle.graphs[network], network))
        wanted = {item.name for item in session.get_inputs()}
        try:
            given = {key: inputs[key] for key in inputs if key in wanted}
            return session.run(None, given, self.frugal if frugal else None)  # type: ignore[no-any-return]
        except Exception as error:
            sizes = ", ".join(f"{key} {values.shape}" for key, values in inputs.items())
            raise BundleError(
                f"{self.bundle.source}: the network failed on {sizes}: {_first_line(error)}"
            ) from error

    def run_on(
        self,
        name: str,
        area: Area,
        planes: Mapping[str, Plane],
        others: Mapping[str, NDArray[Any]] | None = None,
        kept: Kept | None = None,
    ) -> Floats:
        """The part ``area`` of the output of a network for one image, (h, w, C), from the part that decides it.

        ``planes``: its inputs that have rows and columns; ``others``: the rest. ``kept`` has, and is given, what
        of the network has begun. Raises :class:`BundleError`, also where the whole of a large image would be needed.
        """
        size = next(iter(planes.values())).shape
        ratio = self._ratio(name)
        needed, origin, frugal = everything(size), (0, 0), False
        if area != Area(*(int(edge / ratio) for edge in needed)):
            needed, origin = self.window(name, area, size)
            frugal = True
        self._check_memory(name, needed)
        begun = None if kept is None else kept.get(area)
        if begun is None:
            inputs = {key: _as_input(plane.read(needed)) for key, plane in planes.items()}
            begun = self.begin(name, {**inputs, **(others or {})}, frugal=frugal)
            if kept is not None and self.is_cut(name):
                kept.put(area, begun)
        result = self.finish(name, begun, others or {}, frugal=frugal)
        expected = (1, *(int(length / ratio) for length in needed.size))
        if result.ndim != 4 or result.shape[:3] != expected:
            raise BundleError(
                f"{self.bundle.source}: {name} gave a result of shape {result.shape}; "
                f"{expected} and channels expected"
            )
        return np.asarray(result[0][area.within(*origin)])

    def window(self, name: str, area: Area, size: tuple[int, ...]) -> tuple[Area, tuple[int, int]]:
        """The inputs, of a plane of ``size``, that decide ``area`` of the output, and the first output of these."""
        reach, ratio = self.reach(name), self._ratio(name)
        if not isinstance(reach, Reach):
            return everything(size), (0, 0)
        if (reach.rows.stride, reach.columns.stride) != (ratio, ratio):
            raise BundleError(
                f"{self.bundle.source}: {name} has an output every {reach.rows.stride} x "
                f"{reach.columns.stride} positions of its input; the manifest says {ratio}"
            )
        top, bottom, row = reach.window(0, area.top, area.bottom, size[0])
        left, right, column = reach.window(1, area.left, area.right, size[1])
        return Area(top, bottom, left, right), (row, column)

    def side(self, name: str, side: int | None) -> int | None:
        """The side of tiles for a network that is to have such tiles: None where it must run on whole images."""
        return side if side is None or isinstance(self.reach(name), Reach) else None

    def reach(self, name: str) -> Reach | UnboundedError:
        """How far a network sees, or why that is not known."""
        if name not in self.reaches:
            graph = read_graph(self.bundle.graphs[name], f"{self.bundle.source}: {name}.onnx")
            try:
                self.reaches[name] = reach_of(graph, self.bundle.manifest.multiple // self._grids(name)[0])
            except UnboundedError as error:
                self.reaches[name] = error
        return self.reaches[name]

    def _grids(self, name: str) -> tuple[int, int]:
        """Pixels of the image for each position of a network's inputs, and of its output."""
        entropy, latent = self.bundle.manifest.entropy, self.bundle.manifest.latent.stride or 1
        hyper = entropy.stride if isinstance(entropy, Hyperprior) else latent
        return {
            "analysis": (1, latent),
            "synthesis": (latent, 1),
            "hyper_analysis": (latent, hyper),
            "hyper_scales": (hyper, latent),
            "hyper_means": (hyper, latent),
        }.get(name, (latent, latent))

    def _ratio(self, name: str) -> Fraction:
        """Positions of the inputs for each position of the output."""
        given, made = self._grids(name)
        return Fraction(made, given)

    def _check_memory(self, name: str, needed: Area) -> None:
        pixels = needed.size[0] * needed.size[1] * self._grids(name)[0] ** 2
        if pixels > MOST_WHOLE_PIXELS:
            raise BundleError(
                f"{self.bundle.source}: {name} looks at the whole image ({self.reach(name)}), and would need the "
                f"memory for {pixels} pixels at once; at most {MOST_WHOLE_PIXELS} are tried: use a smaller image"
            )

    def _session(self, graph: bytes, name: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Threads of a network that is done would spin beside those of the next one, at twice the time for all.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        try:
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(
                f"{self.bundle.source}: {name}.onnx cannot be loaded: {_first_line(error)}"
            ) from error


def _as_input(values: NDArray[Any]) -> NDArray[Any]:
    """One image as a batch; pixels stay uint8, all else is float32."""
    return np.ascontiguousarray(
        values if values.dtype == np.uint8 else values.astype(np.float32, copy=False)
    )[None]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
