"""Multi-head attention whose projections keep their inputs compressed."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actprune.layers.foreign import called_by_fx, torch_alone
from actprune.layers.linear import Pruned


class PrunedMultiheadAttention(Pruned, nn.MultiheadAttention):
    """An nn.MultiheadAttention whose projections keep their inputs compressed.

    `actprune.convert` exchanges the class in place. Projected queries, keys and values, and what
    the attention itself keeps, stay dense. Where no gradient is needed it is nn.MultiheadAttention,
    and so it is where PrunedLinear is nn.Linear. Arguments, shapes and results are those of it.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (L, batch, E), keys and values (S, batch, E), or batch first where it is set."""
        given = query, key, value, key_padding_mask, need_weights, attn_mask
        rest = average_attn_weights, is_causal
        node: tuple[Tensor, Tensor | None] | None = called_by_fx(self, *given, *rest)
        if node is not None:
            return node
        parts = query, key, value, *self.parameters()
        needed = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
        if not needed or torch_alone() or any(part.is_nested for part in parts):
            return super().forward(*given, *rest)
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        mask = self._mask(query, key_padding_mask, attn_mask)
        q, k, v = (self._heads(part) for part in self._projected(query, key, value))
        mask = None if mask is None else mask.to(q.dtype)  # which autocast decides
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            scores = scores if mask is None else scores + mask
            weights = F.dropout(torch.softmax(scores, -1), dropout)
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if query.dim() == 3 else weights.squeeze(0)
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self._joined(out, query)
        return self.multiplied(out, self.out_proj.weight, self.out_proj.bias), weights

    def per_row(self, rows: int) -> Tensor | None:
        """None: rows of a batch that is not first would take other samples' importance."""
        return None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Each distinct input once: self-attention keeps one, not three."""
        if query is key and key is value:
            return self.multiplied(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        weights = self.in_proj_weight.chunk(3)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if key is not value:
            return tuple(map(self.multiplied, (query, key, value), weights, biases))
        first = self.multiplied(query, weights[0], biases[0])
        rest = slice(self.embed_dim, None)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rest]
        return first, *self.multiplied(key, self.in_proj_weight[rest], bias).chunk(2, -1)

    def _heads(self, x: Tensor) -> Tensor:
        """To (batch, heads, length, head_dim)."""
        x = x if x.dim() == 3 else x.unsqueeze(0 if self.batch_first else 1)
        x = x if self.batch_first else x.transpose(0, 1)
        return x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _joined(self, out: Tensor, query: Tensor) -> Tensor:
        """Back to the shape of the queries."""
        out = out.transpose(1, 2).flatten(2)
        out = out if self.batch_first else out.transpose(0, 1)
        return out if query.dim() == 3 else out.squeeze(0 if self.batch_first else 1)

    def _mask(
        self, query: Tensor, padding: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """What is added to the scores (batch, heads, L, S); None where nothing is."""
        parts = []
        for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", padding)):
            if mask is None:
                continue
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask, -math.inf)
            elif not mask.is_floating_point():
                raise TypeError(f"{name}: expected a bool or floating-point mask, got {mask.dtype}")
            if name == "key_padding_mask":
                mask = (mask if mask.dim() == 2 else mask[None])[:, None, None]
            elif mask.dim() == 3:
                mask = mask.view(-1, self.num_heads, *mask.shape[1:])
            parts.append(mask)
        return sum(parts[1:], parts[0]) if parts else None
