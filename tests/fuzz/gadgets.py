"""Pickles that would run something when they are loaded."""

from __future__ import annotations

import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Gadget:
    """Unpickled, it calls a function."""

    def __init__(self, function: str, *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def pickled(self) -> bytes:
        """Return a pickle of protocol 2 that imports the function by its name and calls it."""
        module, _, name = self.function.rpartition(".")
        arguments = pickle.dumps(self.arguments, 2)[2:-1]  # without the head and the stop
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + arguments + b"R."


def gadgets(mark: str) -> list[Gadget]:
    """Return 20 that would make a file ``mark``, by all the ways that are usual in attacks."""
    touch, code = f"touch {mark}", f"open({mark!r}, 'w').close()"
    return [
        Gadget("os.system", touch),
        Gadget("posix.system", touch),
        Gadget("os.popen", touch),
        Gadget("os.mkdir", mark),
        Gadget("subprocess.Popen", ["touch", mark]),
        Gadget("subprocess.check_output", ["touch", mark]),
        Gadget("subprocess.getoutput", touch),
        Gadget("builtins.eval", code),
        Gadget("builtins.exec", code),
        Gadget("builtins.open", mark, "w"),
        Gadget("__builtin__.eval", code),
        Gadget("io.open", mark, "w"),
        Gadget("os.mknod", mark),
        Gadget("shutil.copy", "/etc/hostname", mark),
        Gadget("runpy._run_code", code, {}),
        Gadget("subprocess.call", ["touch", mark]),
        Gadget("os.symlink", "/etc/hostname", mark),
        Gadget("numpy.save", mark, [1]),
        Gadget("torch.save", [1], mark),
        Gadget("torch.utils.collect_env.run", touch),
    ]


def with_gadget(tensors: dict[str, Tensor], gadget: Gadget) -> bytes:
    """Return what `torch.save` would write of weights of which one is the gadget."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ckpt"
        torch.save({"state_dict": {"model.weight": next(iter(tensors.values())), "model.bias": "HERE"}}, path)
        with zipfile.ZipFile(path) as read:
            files = {name: read.read(name) for name in read.namelist()}
        data = next(name for name in files if name.endswith("data.pkl"))
        here = b"X\x04\x00\x00\x00HERE"
        assert files[data].count(here) == 1
        files[data] = files[data].replace(here, gadget.pickled()[2:-1])
        with zipfile.ZipFile(path, "w") as write:
            for name, content in files.items():
                write.writestr(name, content)
        return path.read_bytes()
