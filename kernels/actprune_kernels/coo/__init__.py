"""Coordinates: kept elements, sorted by column and then by row of X.

values   (nnz,), the activation's dtype
rows     (nnz,), row of each element
columns  (nnz,), column of each element

Every backend exports
compress(activation, selection) -> values, rows, columns
grad_weight(values, rows, columns, grad_output, features) -> (out_features, features)
to_dense(values, rows, columns, shape) -> X, of that shape
and cpu row_dot(values, rows, columns, other) -> (rows,)
with half precision accumulated in fp32. Nobody compresses an empty activation, nor
multiplies where what is kept or the product is empty.

On CUDA, triton multiplies fp32, fp16 and bf16, cusparse fp32 and fp64; both give the same bits on
every run (cuSPARSE by its documentation), and both compress by triton's kernels. Only triton can be
captured into a CUDA graph. Neither has been run on a GPU yet: unmeasured.
"""

from actprune_kernels.backends import CPU, CUSPARSE, NAIVE, TRITON

HAS = (NAIVE, CPU, CUSPARSE, TRITON)
