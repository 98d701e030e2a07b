"""Block-sparse rows of Xᵀ: kept blocks in block-column order.

values      (nnz, bm, bn), the activation's dtype; beyond a ragged edge: zeros; or instead of
            them parts as in actprune_kernels.quantization, a block's values one after the other
block_rows  (nnz,), index of each block's row of blocks, ascending within a block column
colptr      (block columns + 1,), where each block column starts

The backward pass contracts over rows, so it walks one block column at a time: values in sequence,
matching rows of dY gathered, one GEMM. No transposition, no atomics, the same bits every time.

Every backend exports
compress(activation, block, norm, selection, kind, draw) -> values or parts, block_rows, colptr
grad_weight(values, block_rows, colptr, grad_output, features, scope) -> (out_features, features)
to_dense(values, block_rows, colptr, shape) -> X, of that shape
and cpu row_dot(values, block_rows, colptr, other) -> (rows,)
with `values` a tensor or quantization.Quantized, `kind` and `draw` as in
actprune_kernels.quantization, and half precision accumulated in fp32. `scope` tells a product,
which cannot wait to look at colptr, whether all columns keep equally many blocks. Nobody
compresses an empty activation, nor multiplies where what is kept or the product is empty.
"""

from actprune_kernels.backends import CPU, NAIVE, TRITON

HAS = (NAIVE, CPU, TRITON)
