"""Compressed sparse rows of Xᵀ: kept elements column by column of X.

values  (nnz,), the activation's dtype
rows    (nnz,), index of each element's row, ascending within a column
colptr  (features + 1,), where each column starts

Every backend exports
compress(activation, sparsity, scope, draw, weights) -> values, rows, colptr
grad_weight(values, rows, colptr, grad_output) -> (out_features, features)
to_dense(values, rows, colptr, height) -> (height, features)
with `draw` and `weights` as in actprune_kernels.selection, and half precision accumulated in fp32.

On CUDA, triton multiplies fp32, fp16 and bf16, cusparse fp32 and fp64; both give the same bits on
every run (cuSPARSE by its documentation), and both compress by triton's kernels. Only triton can be
captured into a CUDA graph. Neither has been run on a GPU yet: unmeasured.
"""
