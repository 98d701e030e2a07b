"""Compressed sparse rows of Xᵀ: kept elements column by column of X.

values  (nnz,), the activation's dtype
rows    (nnz,), index of each element's row, ascending within a column
colptr  (features + 1,), where each column starts

Every backend exports
compress(activation, selection) -> values, rows, colptr
grad_weight(values, rows, colptr, grad_output, features) -> (out_features, features)
to_dense(values, rows, colptr, shape) -> X, of that shape
and cpu row_dot(values, rows, colptr, other) -> (rows,)
with half precision accumulated in fp32. Nobody compresses an empty activation, nor
multiplies where what is kept or the product is empty.

On CUDA, triton multiplies fp32, fp16 and bf16, cusparse fp32 and fp64; both give the same bits on
every run (cuSPARSE by its documentation), and both compress by triton's kernels. Only triton can be
captured into a CUDA graph. Neither has been run on a GPU yet: unmeasured.
"""

from actprune_kernels.backends import CPU, CUSPARSE, NAIVE, TRITON

HAS = (NAIVE, CPU, CUSPARSE, TRITON)
