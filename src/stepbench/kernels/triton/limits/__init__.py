"""What limits the kernels for 16 bits on an H100 (sm_90): a prediction from their compiled code, without a GPU.

    sass     instructions with ptxas' control bits        replay   these instructions on a quarter of a multiprocessor
    machine  throughputs and latencies, with sources      grid     programs side by side, and the whole launch
    predict  the figures of a kernel                      refit    its constants, from times that a GPU measured

How far it can be trusted: the prototype of this model was compared with 25 published points of five public kernels on
an H100 SXM, compiled with the compilers of their time: mean error +1 %, standard deviation 7 %, worst 12 %, before any
constant was fitted; counting instructions alone was off by 29 ± 26 %. This code reproduces the prototype's figures
within 5 %; those five kernels are not part of its tests. Of 27 published points of Triton's tutorial kernel, whose
algorithm ours is, it misses twelve (compilers from July 2024 on) by at most 4 % and predicts the others, of earlier
compilers, up to 22 % too high. Known to be wrong: eight warps in one program at head dim 64
come out 21 to 28 % too low, warp-specialised kernels 12 % too low to 22 % too high, and above some 600 TFLOP/s it is an
upper bound. Differences of less than 15 % mean nothing. It knows no other architecture.
"""
