"""cuSPARSE's sparse x dense product, through CuPy's bindings, on torch's memory and stream.

Xᵀ (features, rows) is sparse. dY (rows, out_features) in row-major order is dYᵀ in the column-major
order that cuSPARSE takes, and so is dW: the product Xᵀ·(dYᵀ)ᵀ reads and writes torch's own memory,
without a copy at either end. The algorithms are those that cuSPARSE documents as deterministic to
the bit. Unmeasured and not yet run: no GPU was at hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

CSR_DETERMINISTIC = 12  # CUSPARSE_SPMM_CSR_ALG3; CuPy has no name for it
COO_DETERMINISTIC = 2  # CUSPARSE_SPMM_COO_ALG2
_LIMIT = 2**31 - 1


def csr(values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor) -> Tensor:
    """dW (out_features, features) from Xᵀ in CSR: values (nnz,), rows (nnz,), colptr (features+1,).

    fp32 or fp64. Raises ValueError beyond 2^31 - 1 elements.
    """
    library = _library()
    index, base = library.CUSPARSE_INDEX_32I, library.CUSPARSE_INDEX_BASE_ZERO
    rows, colptr = _int32(rows), _int32(colptr)
    shape = colptr.numel() - 1, grad_output.shape[0]
    made = library.createCsr(
        *shape,
        values.numel(),
        colptr.data_ptr(),
        rows.data_ptr(),
        values.data_ptr(),
        index,
        index,
        base,
        _cuda_type(values),
    )
    return _product(made, shape[0], grad_output, CSR_DETERMINISTIC)


def coo(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    """The same from Xᵀ in COO, sorted by `columns` (nnz,), its rows."""
    library = _library()
    rows, columns = _int32(rows), _int32(columns)
    made = library.createCoo(
        features,
        grad_output.shape[0],
        values.numel(),
        columns.data_ptr(),
        rows.data_ptr(),
        values.data_ptr(),
        library.CUSPARSE_INDEX_32I,
        library.CUSPARSE_INDEX_BASE_ZERO,
        _cuda_type(values),
    )
    return _product(made, features, grad_output, COO_DETERMINISTIC)


def _product(sparse: int, features: int, grad_output: Tensor, algorithm: int) -> Tensor:
    """Multiply the matrix that the descriptor `sparse` names, and free the descriptor."""
    library, kind = _library(), _cuda_type(grad_output)
    grad_output = grad_output.contiguous()
    rows, out_features = grad_output.shape
    out = grad_output.new_empty(out_features, features)
    scalars = np.array([1, 0], dtype=np.float32 if kind == _cuda_types()[0] else np.float64)
    one, zero = scalars.ctypes.data, scalars.ctypes.data + scalars.itemsize
    column_major = library.CUSPARSE_ORDER_COL
    dense = library.createDnMat(
        out_features, rows, out_features, grad_output.data_ptr(), kind, column_major
    )
    result = library.createDnMat(
        features, out_features, features, out.data_ptr(), kind, column_major
    )
    plain, turned = library.CUSPARSE_OPERATION_NON_TRANSPOSE, library.CUSPARSE_OPERATION_TRANSPOSE
    call = (plain, turned, one, sparse, dense, zero, result, kind, algorithm)
    try:
        with _handle(grad_output.device) as handle:
            size = library.spMM_bufferSize(handle, *call)
            workspace = torch.empty(max(size, 1), dtype=torch.uint8, device=grad_output.device)
            library.spMM(handle, *call, workspace.data_ptr())
    finally:
        library.destroySpMat(sparse)
        library.destroyDnMat(dense)
        library.destroyDnMat(result)
    return out


@contextmanager
def _handle(device: torch.device) -> Iterator[int]:
    """CuPy's cuSPARSE handle on torch's current stream of `device`."""
    import cupy

    stream = torch.cuda.current_stream(device)
    with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(stream.cuda_stream):
        yield cupy.cuda.device.get_cusparse_handle()


def _library() -> Any:
    from cupy_backends.cuda.libs import cusparse  # needs a GPU's driver: not at import

    return cusparse


def _cuda_types() -> tuple[int, int]:
    from cupy_backends.cuda.api import runtime

    return runtime.CUDA_R_32F, runtime.CUDA_R_64F


def _cuda_type(tensor: Tensor) -> int:
    return _cuda_types()[tensor.dtype == torch.float64]


def _int32(index: Tensor) -> Tensor:
    if index.numel() > _LIMIT:
        raise ValueError(
            f"activation: expected at most {_LIMIT} kept elements for cuSPARSE, got "
            f"{index.numel()}; use backend=naive"
        )
    return index.to(torch.int32)
