"""The formats by name. A new one is a module here, a folder of kernels, and a line below."""

from actprune.formats.base import Compressed, Format, PruningFormat
from actprune.formats.bitmap import Bitmap
from actprune.formats.bsr import Bsr
from actprune.formats.codes import Codes
from actprune.formats.coo import Coo
from actprune.formats.csr import Csr
from actprune.formats.dense import Dense
from actprune.formats.derivative import Derivative
from actprune.formats.nm import Nm
from actprune.formats.quant import Quant
from actprune.formats.rows import Rows
from actprune.formats.spec import read_spec
from actprune.formats.topk import Topk

_ALL: tuple[type[Format], ...] = (Dense, Coo, Csr, Bsr, Codes, Quant, Bitmap, Topk, Rows, Nm)
FORMATS = {format.name: format for format in _ALL}
"""Of a matrix: what a linear layer saves."""
BASELINES = ("quant", "bitmap", "topk", "rows", "nm")
"""What other work keeps, in plain PyTorch."""

__all__ = [
    "BASELINES",
    "FORMATS",
    "Codes",
    "Compressed",
    "Dense",
    "Derivative",
    "Format",
    "PruningFormat",
    "parse",
    "parse_saved",
]


def parse(spec: "str | Format") -> Format:
    """Return the format that a spec describes.

    Args:
        spec: A name of FORMATS, then its options: `bsr:block=1x32,sparsity=0.9`. An option that
            is left out has its default. A format passes through, so that every function takes
            either; `parse(spec).spec` is the spec in its canonical form.

    Returns:
        The format, whose class says which options it takes.

    Raises:
        InputError: The text is no spec; the error names the option, what was expected and what
            came.

    Example:
        >>> actprune.parse("bsr:sparsity=0.90").spec
        'bsr:block=32x32,sparsity=0.9'
    """
    if isinstance(spec, str) and spec.strip().partition(":")[0] != Derivative.name:
        return read_spec(spec, FORMATS)
    made = parse_saved(spec)
    if isinstance(made, Derivative):
        raise made.refusal()
    return made


def parse_saved(spec: "str | Format") -> Format:
    """Return the format of a rule on what autograd saves: any, or `derivative` of an activation.

    Args and Raises are those of `parse`.
    """
    if isinstance(spec, Format):
        return spec
    return read_spec(spec, FORMATS | {Derivative.name: Derivative})
