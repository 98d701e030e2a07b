"""Block-sparse rows of Xᵀ: kept blocks in block-column order.

values      (nnz, bm, bn), the activation's dtype; beyond a ragged edge: zeros; or instead of
            them parts as in actprune_kernels.codes, a block's values one after the other
block_rows  (nnz,), index of each block's row of blocks, ascending within a block column
colptr      (block columns + 1,), where each block column starts

The backward pass contracts over rows, so it walks one block column at a time: values in sequence,
matching rows of dY gathered, one GEMM. No transposition, no atomics, the same bits every time.

Every backend exports
compress(activation, bm, bn, sparsity, scope, norm, draw, weights, kind, rounding)
    -> values or parts, block_rows, colptr
grad_weight(kept, block_rows, colptr, grad_output, features, scope) -> (out_features, features)
to_dense(kept, block_rows, colptr, rows, features) -> (rows, features)
with `kept` the values or a codes.Coded, `kind` and `rounding` (a draw) as in
actprune_kernels.codes, `draw` and `weights` (by default None) as in actprune_kernels.selection, and
half precision accumulated in fp32. `scope` tells a product, which cannot wait to look at colptr,
whether all columns keep equally many blocks.
"""
