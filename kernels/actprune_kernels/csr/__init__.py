"""Compressed sparse rows of Xᵀ: kept elements column by column of X.

values  (nnz,), the activation's dtype
rows    (nnz,), index of each element's row, ascending within a column
colptr  (features + 1,), where each column starts

Every backend exports
compress(activation, sparsity, scope, draw) -> values, rows, colptr
grad_weight(values, rows, colptr, grad_output) -> (out_features, features)
to_dense(values, rows, colptr, height) -> (height, features)
with `draw` as in actprune_kernels.selection, and half precision accumulated in fp32.
"""
