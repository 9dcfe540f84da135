"""Damaged pictures of every format that Pillow writes: `read_picture` reads or refuses each of them.

No picture may take more than 10 seconds of processor time or 1 GiB of memory.
"""

import functools
import io
import random
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.play import Try, isolated

_MOST = 2**30
# Limit on the address space in bytes, above the memory that jaxgd may use.
_MEMORY = 8 * 2**30
# Bytes that claim huge sizes, offsets and counts.
_EXTREMES = (b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\0" * 4, b"\x80\0\0\0", b"\xff\xff")


def attacks(options: Options) -> Iterator[Attack]:
    """Damage pictures, `count` of each format, and yield the outcome of each attack."""
    rng = random.Random(options.seed)
    tries = []
    for name, content in formats().items():
        for _ in range(options.count):
            seed = rng.getrandbits(32)
            about = f"{name} picture, damaged with seed {seed}"
            tries.append(Try(name, about, functools.partial(_read, name, damaged(content, seed), about)))
    yield from isolated(tries, options.work / "pictures", options)


@functools.cache
def formats() -> dict[str, bytes]:
    """Return a picture of a bar in every format that the installed Pillow can write."""
    from PIL import Image

    Image.init()
    picture = Image.new("L", (24, 24), 255)
    picture.paste(0, (10, 4, 13, 20))
    found = {}
    for name in sorted(Image.SAVE):
        for mode in ("L", "RGB", "1", "P", "RGBA"):
            stream = io.BytesIO()
            try:
                picture.convert(mode).save(stream, name)
            except Exception:  # An encoder may raise any type for a mode or size that it cannot write.
                continue
            found[name] = stream.getvalue()
            break
    return found


def damaged(content: bytes, seed: int) -> bytes:
    """Return the content with one kind of random damage."""
    rng = random.Random(seed)
    new = bytearray(content)
    kind = rng.choice(("bytes", "bits", "header", "extreme", "cut", "doubled", "swapped"))
    if kind in ("bytes", "header"):
        for _ in range(rng.randint(1, 4)):
            new[rng.randrange(len(new) if kind == "bytes" else min(64, len(new)))] = rng.randrange(256)
    elif kind == "bits":
        new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    elif kind == "extreme":
        value, at = rng.choice(_EXTREMES), rng.randrange(len(new))
        new[at : at + len(value)] = value
    else:
        a, b = sorted(rng.sample(range(len(new) + 1), 2))
        new = {"cut": new[:a], "doubled": new[:b] + new[a:], "swapped": new[b:] + new[a:b] + new[:a]}[kind]
    return bytes(new)


def _read(target: str, content: bytes, about: str) -> Attack:
    from jaxgd.data.image import read_picture
    from jaxgd.errors import JaxgdError

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.RLIM_INFINITY))
    path = Path("picture")
    path.write_bytes(content)
    # Reset the peak memory that Linux records for this process.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_memory()
    try:
        read_picture(path)
        end = Attack(target, "read", False, about)
    except JaxgdError:
        end = Attack(target, "refused", False, about)
    except Exception as error:
        end = Attack(target, "raw exception", True, f"{about}: {type(error).__name__}: {error}")
    if (used := _peak_memory() - before) > _MOST:
        end = Attack(target, "too much memory", True, f"{about}: {used / 2**30:.1f} GiB, {end.kind}")
    return end


def _peak_memory() -> int:
    """Return the peak resident memory of this process since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
