"""Files that are programs for whoever unpickles them, and what else NumPy's files can hold.

Each would write a canary, read a secret, remove a treasure or call a listener on this machine, if it were trusted.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Attacks = dict[str, bytes]


@dataclass(frozen=True)
class Box:
    """What attacks aim at.

    Args:
        canary: a file that is not there; whatever runs writes it.
        secret: folder of files that nobody may read.
        treasure: a file outside that nobody may remove; its name is that of a temporary file of ours.
        url: of a listener on this machine, which nobody may call.
    """

    canary: Path
    secret: Path
    treasure: Path
    url: str


class Calls:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def hostile_pickles(box: Box) -> Attacks:
    """Programs for the pickle machine, by each operation with which one can be made to act."""
    touch, canary = f"touch {box.canary}".encode(), str(box.canary).encode()
    write = b"(S'open(" + repr(str(box.canary)).encode().replace(b"'", b'"') + b',"w")\'\n'

    def calling(module: str, name: str, argument: bytes) -> bytes:
        return f"c{module}\n{name}\n".encode() + b"(S'" + argument + b"'\ntR."

    system, dtype, scalar = b"cos\nsystem\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\nscalar\n("
    structured = dtype + b"(S'V8'\nI0\nI1\ntR"  # a dtype with an object within, and flags that deny it
    forged = b"(I3\nS'|'\nN(S'o'\nt}S'o'\n(" + dtype + b"(S'O8'\nI0\nI1\ntRI0\ntsI8\nI1\nI0\ntb"
    inner = pickle.dumps(Calls(print, "x"), 2)
    made = {
        **{f"open, protocol {p}": pickle.dumps(Calls(open, str(box.canary), "w"), p) for p in range(6)},
        "os.system": calling("os", "system", touch),
        "posix.system": calling("posix", "system", touch),
        "subprocess.getoutput": calling("subprocess", "getoutput", touch),
        "by INST": b"(S'" + touch + b"'\nios\nsystem\n.",
        "by OBJ": b"(" + system + b"S'" + touch + b"'\no.",
        "by NEWOBJ": b"\x80\x02csubprocess\nPopen\n(]S'touch'\naS'" + canary + b"'\natt\x81.",
        "by NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n)}S'args'\nS'" + touch + b"'\ns\x92.",
        "by STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system(S'" + touch + b"'\ntR.",
        "by BUILD": b"\x80\x02cbuiltins\nobject\n)\x81}S'__setstate__'\n" + system + b"sbS'" + touch + b"'\nb.",
        "by EXT": b"\x82\x01(S'" + touch + b"'\ntR.",
        "by PERSID": b"P" + touch + b"\n.",
        "by a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x13dtype.__class__.mroo\x93.",
        "builtins.eval": b"cbuiltins\neval\n" + write + b"tR.",
        "builtins.exec": b"cbuiltins\nexec\n" + write + b"tR.",
        "__builtin__.eval": b"c__builtin__\neval\n" + write + b"tR.",
        "builtins.getattr": b"cbuiltins\ngetattr\n(cos\nenviron\nS'clear'\ntR(tR.",
        "import of a module": b"cevil\nanything\n.",
        "importlib": calling("importlib", "import_module", b"evil"),
        "runpy": calling("runpy", "run_path", b"evil.py"),
        "numpy's eval": calling("numpy.f2py.crackfortran", "param_eval", write[2:-2]),
        "numpy's exec": calling("numpy.testing._private.utils", "runstring", touch),
        "numpy.load": b"cnumpy\nload\n(S'" + str(box.secret / "secret.npy").encode() + b"'\ntR.",
        "numpy.fromfile": b"cnumpy\nfromfile\n(S'" + str(box.secret / "secret.npy").encode() + b"'\ntR.",
        "pickle in pickle": b"cpickle\nloads\n(C" + bytes([len(inner)]) + inner + b"tR.",
        "pandas.read_pickle": calling("pandas", "read_pickle", canary),
        "torch.load": calling("torch", "load", canary),
        "urlopen": calling("urllib.request", "urlopen", box.url.encode()),
        "webbrowser": calling("webbrowser", "open", box.url.encode()),
        "smtplib": b"csmtplib\nSMTP\n(S'127.0.0.1'\nI" + box.url.rpartition(":")[2].strip("/").encode() + b"\ntR.",
        "os.remove": calling("os", "remove", str(box.treasure).encode()),
        "shutil.rmtree": calling("shutil", "rmtree", str(box.secret).encode()),
        "codecs": b"c_codecs\nencode\n(V" + touch + b"\nS'latin1'\ntR.",
        "object in a scalar": scalar + dtype + b"(S'O'\ntRC" + bytes([len(inner)]) + inner + b"tR.",
        "forged dtype": scalar + structured + forged + b"S'AAAAAAAA'\ntR.",
        "state of a dtype": structured + b"(I3\nS'|'\nN(S'a'\nt}I9999999\nI1\nI63\ntb.",
        "_reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.",
        "number for the memo": b"\x80\x02}r\xff\xff\xff\x7f.",
        "more bytes than there are": b"\x80\x04\x8e" + b"\xff" * 6 + b"\0\0.",
        "a key whose hash takes for ever": b"\x80\x02})" + _nested_tuples(60) + b"Ns.",
        "zipped": gzip.compress(calling("os", "system", touch)),
        "after a good one": b"\x80\x02}." + calling("os", "system", touch),
    }  # fmt: skip
    return made


def _nested_tuples(depth: int) -> bytes:
    """Each of twice the one before: 2 to the power of `depth` steps for whoever hashes or prints the last."""
    return b"".join(b"q" + bytes([number]) + b"h" + bytes([number]) + b"\x86" for number in range(depth))


def pickles_of_some(pickles: Attacks) -> Attacks:
    """A few, for readers of other formats."""
    return {f"pickle, {name}": pickles[name] for name in ("open, protocol 4", "os.system", "import of a module")}


def hostile_npy(pickles: Attacks) -> Attacks:
    """Arrays of objects, whose bytes are a pickle, and headers that are expressions of Python."""

    def header(text: str, data: bytes = b"") -> bytes:
        body = text.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\0" + len(body).to_bytes(2, "little") + body + data

    objects = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    return {
        **{f"objects, {name}": header(objects, pickles[name]) for name in ("open, protocol 4", "os.system")},
        "objects within": header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}", b"A" * 8),
        "an expression": header("{'descr': __import__('evil'), 'fortran_order': False, 'shape': (1,)}"),
        "petabytes": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}"),
        "a shape below zero": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}"),
    }


def hostile_npz(pickles: Attacks, box: Box) -> Attacks:
    """The same in an archive, and archives that would be unpacked elsewhere, or to far too much."""
    facts = np.frombuffer(json.dumps({"identity": "identity", "history": {"loss": []}}).encode(), np.uint8)
    sink = io.BytesIO()
    np.save(sink, facts)
    good = {"facts.npy": sink.getvalue()}

    def packed(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return file.getvalue()

    arrays = hostile_npy(pickles)
    return {
        **{f"facts: {name}": packed({"facts.npy": data}) for name, data in arrays.items()},
        **{f"beside facts: {name}": packed({**good, "state0.npy": data}) for name, data in arrays.items()},
        "member above": packed({**good, f"../{box.canary.name}": b"x"}),
        "absolute member": packed({**good, str(box.canary): b"x"}),
        "bytes in place of an array": packed({**good, "state0.npy": b"cos\nsystem\n"}),
        "bomb": packed({**good, "state0.npy": bytes(300 * 2**20)}, zipfile.ZIP_DEFLATED),
        "pickle": pickles["os.system"],
    }
