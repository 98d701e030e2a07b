"""cuSPARSE's sparse x dense product, through CuPy's bindings, on torch's memory and stream.

Xᵀ (features, rows) is sparse. dY (rows, out_features) in row-major order is dYᵀ in the column-major
order that cuSPARSE takes, and so is dW: the product Xᵀ·(dYᵀ)ᵀ reads and writes torch's own memory,
without a copy at either end. Index arrays narrower than 32 bits are widened for the call.

The algorithms are those that cuSPARSE documents as deterministic to the bit. CSR_ALG3 does not
cover a sparse operand to be transposed, which Xᵀ, as it is stored, is not; from CUDA 12.2.1 on
cuSPARSE refuses what it does not cover, where it took another algorithm before.

CuPy refuses to call cuSPARSE while a CUDA graph is captured: backend=triton can be captured.
Unmeasured and not yet run: no GPU was at hand.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_DETERMINISTIC = {"Csr": 12, "Coo": 2}  # CUSPARSE_SPMM_CSR_ALG3, which CuPy does not name; COO_ALG2
_LIMIT = 2**31 - 1


def product(
    layout: str, columns: Tensor, rows: Tensor, values: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    """dYᵀ·X, (out_features, features), fp32 or fp64, from Xᵀ in a layout of cuSPARSE's.

    layout "Csr" has as columns where each starts, (features + 1,); "Coo" the column of each
    element, (nnz,), sorted. rows (nnz,), values (nnz,). The descriptors are freed whatever happens.
    Raises ValueError where an index needs more than 32 bits, and while a CUDA graph is captured.
    """
    library, out = _library(), grad_output.new_empty(grad_output.shape[1], features)
    sizes = features, len(grad_output), values.numel()
    if max(sizes) > _LIMIT:
        raise ValueError(
            f"activation: expected at most {_LIMIT} rows, features and kept elements for cuSPARSE, "
            f"got {sizes[1]}, {features} and {sizes[2]}; use backend=triton, or naive for float64"
        )
    grad_output = grad_output.contiguous()
    columns, rows = columns.to(torch.int32), rows.to(torch.int32)
    kind = _cuda_types()[out.dtype == torch.float64]
    with ExitStack() as cleanup:
        addresses = [part.data_ptr() for part in (columns, rows, values)]
        index = [library.CUSPARSE_INDEX_32I] * (2 if layout == "Csr" else 1)
        described = *sizes, *addresses, *index, library.CUSPARSE_INDEX_BASE_ZERO, kind
        sparse = getattr(library, f"create{layout}")(*described)
        cleanup.callback(library.destroySpMat, sparse)
        dense, result = (_transposed(matrix, kind) for matrix in (grad_output, out))
        cleanup.callback(library.destroyDnMat, dense)
        cleanup.callback(library.destroyDnMat, result)
        scalars = np.array([1, 0], np.float64 if out.dtype == torch.float64 else np.float32)
        one, zero = scalars.ctypes.data, scalars.ctypes.data + scalars.itemsize
        plain = library.CUSPARSE_OPERATION_NON_TRANSPOSE
        turned = library.CUSPARSE_OPERATION_TRANSPOSE
        call = (plain, turned, one, sparse, dense, zero, result, kind, _DETERMINISTIC[layout])
        handle = cleanup.enter_context(_handle(out.device))
        size = library.spMM_bufferSize(handle, *call)
        # torch frees it while it may still be in use: what takes its place runs on the same stream
        workspace = torch.empty(max(size, 1), dtype=torch.uint8, device=out.device)
        library.spMM(handle, *call, workspace.data_ptr())
    return out


def _transposed(matrix: Tensor, kind: int) -> int:
    """A descriptor of matrixᵀ in column-major order: `matrix` as it lies in memory."""
    library, (height, width) = _library(), matrix.shape
    order, address = library.CUSPARSE_ORDER_COL, matrix.data_ptr()
    made: int = library.createDnMat(width, height, width, address, kind, order)
    return made


class Handed(NamedTuple):
    """A stream's address for CuPy, by CUDA's stream protocol, which not every torch speaks."""

    address: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


@contextmanager
def _handle(device: torch.device) -> Iterator[int]:
    """CuPy's cuSPARSE handle on torch's current stream of `device`."""
    import cupy

    with cupy.cuda.Device(device.index), torch.cuda.device(device):
        if torch.cuda.is_current_stream_capturing():
            raise ValueError(
                "backend: expected no CUDA graph to be captured around cuSPARSE, which CuPy then "
                "refuses to call; use backend=triton"
            )
        address = torch.cuda.current_stream(device).cuda_stream
        with on_stream(cupy.cuda, address):
            yield cupy.cuda.device.get_cusparse_handle()


def on_stream(cuda: Any, address: int) -> Any:
    """A context in which CuPy's calls run on the stream at `address`; `cuda` is cupy.cuda."""
    if hasattr(cuda.Stream, "from_external"):  # from CuPy 14 on, where ExternalStream warns
        return cuda.Stream.from_external(Handed(address))
    return cuda.ExternalStream(address)


def _library() -> Any:
    import cupy  # noqa: F401  (finds CUDA's libraries)
    from cupy_backends.cuda.libs import cusparse

    return cusparse


def _cuda_types() -> tuple[int, int]:
    from cupy_backends.cuda.api import runtime

    return runtime.CUDA_R_32F, runtime.CUDA_R_64F
