"""The formats by name. A new one is a module here, a folder of kernels, and a line below."""

from actprune.formats.base import Compressed, Format, PruningFormat
from actprune.formats.bitmap import Bitmap
from actprune.formats.bsr import Bsr
from actprune.formats.coo import Coo
from actprune.formats.csr import Csr
from actprune.formats.dense import Dense
from actprune.formats.nm import Nm
from actprune.formats.quant import Quant
from actprune.formats.rows import Rows
from actprune.formats.spec import read_spec
from actprune.formats.topk import Topk

FORMATS: dict[str, type[Format]] = {
    "dense": Dense,
    "coo": Coo,
    "csr": Csr,
    "bsr": Bsr,
    "quant": Quant,
    "bitmap": Bitmap,
    "topk": Topk,
    "rows": Rows,
    "nm": Nm,
}
RIVALS = ("quant", "bitmap", "topk", "rows", "nm")
"""What other work keeps, in plain PyTorch."""

__all__ = ["FORMATS", "RIVALS", "Compressed", "Dense", "Format", "PruningFormat", "parse"]


def parse(spec: "str | Format") -> Format:
    """Return the format that a spec such as `bsr:block=1x32,sparsity=0.9` describes.

    Args:
        spec: text, or a format, which passes through, so that every function takes either.

    Returns:
        The format; its `spec` is the text in its canonical form.

    Raises:
        InputError: the text is wrong; it names the option, what was expected and what came.

    Example:
        >>> actprune.parse("bsr:sparsity=0.90").spec
        'bsr:block=32x32,sparsity=0.9'
    """
    return spec if isinstance(spec, Format) else read_spec(spec, FORMATS)
