// Algorithm 3 without shared memory: omega itself is the accumulator.
//
// For blocks that are larger than a block's shared memory, such as one block of all d entries. What shared memory is
// worth is the difference to lcg.cu: here each entry costs a read and a write of a 32-byte sector of L2.
// Launch: any number of blocks and of threads, no shared memory.
// Claims: at most 64 registers, so that one block of 1,024 threads fits on a multiprocessor.
#include "formats.cuh"

extern "C" __global__ void __launch_bounds__(1024, 1)
lcg_global(int B_d, int B_k, int d, int m, int k, const float *c, const index_t *I, const value_t *V, float *omega)
{
    int n_Bd = (d - 1) / B_d + 1;
    for (int s = blockIdx.x; s < n_Bd; s += gridDim.x) {
        int start_d = B_d * s, width = min(B_d, d - start_d);
        int start_k = B_k * s, end_k = start_k + min(B_k, k - start_k);
        float *mem = omega + start_d;
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            mem[i] = 0;
        __syncthreads();   // this slice of omega is zero
        for (int row = 0; row < m; ++row) {
            long long start = (long long) row * k;
            for (int col = start_k + threadIdx.x; col < end_k; col += blockDim.x)
                mem[position(I[start + col], start_d)] += c[row] * to_float(V[start + col]);
            __syncthreads();   // the next row may add to the same place
        }
    }
}
