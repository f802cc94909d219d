"""Networks in plain torch: towers, two-tower and fused models. `forward` is pure."""
