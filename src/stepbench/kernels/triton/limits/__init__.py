"""What limits the kernels for 16 bits on an H100 (sm_90): a prediction from their compiled code, without a GPU.

    sass     instructions with ptxas' control bits        replay   these instructions on a quarter of a multiprocessor
    machine  throughputs and latencies, with sources      grid     programs side by side, and the whole launch
    predict  the figures of a kernel                      refit    its constants, from times that a GPU measured

How far it can be trusted: predicted over published speeds on an H100 SXM, as slow tests hold them (test_calibration):

- Triton's tutorial kernel, whose algorithm ours is, forward, 27 points: 6 % too high on average, standard deviation
  7 %. Twelve points of compilers from July 2024 on are met within 4 %, earlier compilers up to 22 % too high.
- FlashAttention-2, CUDA C++ with mma.sync instead of wgmma, not causal. Backward, head dims 64 and 128, 12 points: 2 %
  too low on average, standard deviation 4 %, all within 8 %; the cost of an atomic was chosen for them. Forward, 12
  points: up to 6 % too high at head dim 64, 13 to 25 % at head dim 128.

A backward pass with wgmma, as ours is, is not among them. The prototype of this model met 25 points of five public
kernels with an error of 1 ± 7 %, and this code reproduces the prototype's figures within 5 %. Known to be wrong: eight
warps in one program at head dim 64 come out 21 to 28 % too low, warp-specialised kernels 12 % too low to 22 % too high,
and above some 600 TFLOP/s it is an upper bound. Differences of less than 15 % mean nothing. It knows no other
architecture.
"""
