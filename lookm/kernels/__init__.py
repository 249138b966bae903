"""Where torch's and Triton's own kernels are called: attention with its log-sum-exp, and fused attention statistics."""
