"""Head and loss of a language model: from the last hidden states to the mean cross-entropy.

`names` lists the implementations, `api` binds one by its name, `contract` says what all of them agree on. `whole` makes
all logits at once, `chunked` a few tokens at a time with the gradient in the forward pass, `triton` the same with loss
and gradient by one kernel, and `torch_own` is `torch.nn.functional.linear_cross_entropy`.
"""
