"""Coordinates: kept elements, sorted by column and then by row of X.

values   (nnz,), the activation's dtype
rows     (nnz,), row of each element
columns  (nnz,), column of each element

Every backend exports
compress(activation, sparsity, scope, draw) -> values, rows, columns
grad_weight(values, rows, columns, grad_output, features) -> (out_features, features)
to_dense(values, rows, columns, height, features) -> (height, features)
with `draw` as in actprune_kernels.selection, and half precision accumulated in fp32.
"""
