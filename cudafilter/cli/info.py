"""``cudafilter info``: what runs here, and what is missing."""

from __future__ import annotations

from typing import Any

import click

from cudafilter import __version__
from cudafilter.cli import options
from cudafilter.cli.command import Command
from cudafilter.cli.terminal import put
from cudafilter.errors import EngineUnavailable, in_words
from cudafilter.host.escape import escaped

_PACKAGES = {
    "NumPy": "numpy",
    "Pillow": "pillow",
    "OpenCV": "opencv-python-headless",
    "PyCUDA": "pycuda",
}


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    try:
        from cudafilter.engines.cpu import CpuEngine
    except ImportError as error:
        what, mend = in_words(error)
        return {"available": False, "reason": what, "missing": [{"what": what, "mend": mend}]}
    engine = CpuEngine()
    engine.close()
    return {"available": True, "title": engine.title, "missing": []}


def _cuda() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The engine, and its devices."""
    from dataclasses import asdict

    from cudafilter.engines.cuda.device import gpus
    from cudafilter.engines.nvcc import require_cuda
    from cudafilter.nvidia.toolkit import missing

    listed: list[dict[str, Any]] = []
    lacking = [lack._asdict() for lack in missing()]
    try:
        for device in gpus():
            major, minor = device.compute_capability
            listed.append({**asdict(device), "compute_capability": f"{major}.{minor}"})
        require_cuda()
    except EngineUnavailable as error:
        if not lacking:
            lacking = [{"what": str(error), "mend": error.hint or ""}]
        return {"available": False, "reason": str(error), "missing": lacking}, listed
    return {"available": True, "title": f"cuda: {listed[0]['name']}", "missing": lacking}, listed


def gather() -> dict[str, Any]:
    """Everything ``info`` tells, as plain data."""
    import platform

    from cudafilter.engines.nvcc import cache_dir
    from cudafilter.nvidia.toolkit import find_compiler, find_toolkit

    cuda, devices = _cuda()
    compiler, toolkit = find_compiler(), find_toolkit()
    return {
        "versions": {
            "cudafilter": __version__,
            "Python": platform.python_version(),
            **{name: _version(package) for name, package in _PACKAGES.items()},
        },
        "engines": {"cuda": cuda, "cpu": _cpu()},
        "devices": devices,
        "toolkit": toolkit
        and {"nvcc": str(toolkit.nvcc), "root": str(toolkit.root), "origin": toolkit.origin},
        "compiler": compiler and str(compiler),
        "nvjpeg": _nvjpeg(devices),
        "cache": str(cache_dir()),
        "presets": _presets(),
    }


def _presets() -> dict[str, Any]:
    """The file of the user's presets, all that are in force, and variables that mean nothing."""
    import os

    from cudafilter.cli import presets

    ctx = click.get_current_context()
    app = ctx.find_root().command
    assert isinstance(app, click.Group)
    name = presets.file_name()
    return {
        "file": name,
        "found": name is not None and os.path.exists(name),
        "values": presets.gather(app, ctx),
        "strays": presets.strays(app, ctx),
    }


def _nvjpeg(devices: list[dict[str, Any]]) -> str | None:
    """The nvJPEG library; None where there is none, or no GPU."""
    from cudafilter.nvidia.nvjpeg import find

    return find(int(devices[0]["driver"].split(".")[0])) if devices else None


def _run(as_json: bool, debug: bool) -> None:
    import json

    found = gather()
    if as_json:
        put(json.dumps(found, indent=2))
        return
    rows = []
    for name, engine in found["engines"].items():
        if engine["available"]:
            rows.append((name, engine["title"].removeprefix(f"{name}: ")))
        else:
            rows.append((name, f"not available: {engine['reason']}"))
        for lack in engine["missing"]:
            rows += [("", f"- {lack['what']}"), ("", f"  {lack['mend']}")]
    _section("Engines", rows)
    _section("Devices", [_device_row(device) for device in found["devices"]])
    toolkit = found["toolkit"]
    toolkit_text = f"{toolkit['nvcc']} ({toolkit['origin']})" if toolkit else "no nvcc found"
    versions = [(name, v or "not installed") for name, v in found["versions"].items()]
    versions.append(("CUDA toolkit", toolkit_text))
    versions.append(("Compiler", found["compiler"] or "none found"))
    if found["devices"]:
        jpeg = found["nvjpeg"] or "not installed (the extra nvcodec): JPEG is coded on the CPU"
        versions.append(("nvJPEG", jpeg))
    _section("Versions", versions)
    _section("Compiled kernels are kept in", [(found["cache"], "")])
    _section("Presets", _preset_rows(found["presets"]))


def _preset_rows(presets: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (f"{p['command'] or 'all'} --{p['option']}", f"{p['value']}  ({p['place']})")
        for p in presets["values"]
    ]
    rows += [(name, "no option is called so") for name in presets["strays"]]
    if not presets["found"]:
        rows.append(("file", f"{presets['file']} (not there)" if presets["file"] else "none"))
    return rows


def _device_row(device: dict[str, Any]) -> tuple[str, str]:
    facts = (
        device["name"],
        f"compute capability {device['compute_capability']}",
        f"{device['memory_bytes'] / 2**30:.1f} GiB",
        f"driver for CUDA {device['driver']}",
    )
    return str(device["index"]), ", ".join(facts)


def _section(title: str, rows: list[tuple[str, str]]) -> None:
    """Print *rows* under *title*; unwrapped, so that paths and commands can be copied."""
    if not rows:
        return
    put(f"{title}:")
    width = max(len(name) for name, text in rows)
    for name, text in rows:
        put(escaped(f"  {name:{width}}  {text}".rstrip()))


command = Command(
    "info",
    sections={
        "Options": [
            options.as_json(),
            options.debug(),
        ]
    },
    example="cudafilter info --json",
    help="Show the engines, devices and versions here.",
    callback=_run,
)
