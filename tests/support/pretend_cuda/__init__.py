"""A pretend CUDA device, for tests on machines without a GPU: tensors say `cuda:0` and hold CPU data.

Autograd and `autocast("cuda")` are the real ones; every operation passes through `device.run`, which notes what would wait for the device, copy,
mix devices, or be refused. Losses in float32 are those of `trainer=cpu`. A test asks `process.results` for jobs: another process runs them,
since the device takes torch's place for CUDA for good. What may wait, and why, is listed in `allowed`.

It shows no time, memory, kernels, streams, NCCL or compilation. Attention takes the math form, draws are the CPU's.
"""
