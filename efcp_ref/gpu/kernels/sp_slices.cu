// Algorithm 2, faster: a slice of g lives in shared memory.
//
// The idea: sp.cu gathers g from L2, and every 4 bytes of g cost a sector of 32. But an entry of a Top-k block reads
// only the B_d entries of g of that block. So a block copies one slice of g into shared memory once, takes all m rows
// through it, a warp for each row, and leaves one partial sum per slice and row; sp_sum adds these in a fixed order,
// so that the result is the same in every run.
// Saves: 32 m k bytes of L2 become 4 d bytes of global memory and m k reads of shared memory; costs 8 n m bytes for
// the partial sums, n = ceil(d / B_d).
// Launch: sp_slices with any number of blocks, a multiple of 32 threads, B_d floats of dynamic shared memory; then
// sp_sum with m blocks of 32 threads.
// Claims: at most 64 registers, so that a block of 1,024 threads fits.
#include "formats.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(1024, 1)
sp_slices(int B_d, int B_k, int d, int m, int k, const float *__restrict__ g, const index_t *__restrict__ I,
          const value_t *__restrict__ V, float *__restrict__ partial)
{
    extern __shared__ float slice[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int n_Bd = (d - 1) / B_d + 1;
    for (int s = blockIdx.x; s < n_Bd; s += gridDim.x) {
        int start_d = B_d * s, width = min(B_d, d - start_d);
        int start_k = B_k * s, end_k = start_k + min(B_k, k - start_k);
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            slice[i] = g[start_d + i];
        __syncthreads();   // the slice is there
        for (int r = warp; r < m; r += warps) {
            const index_t *indices = I + (long long) r * k;
            const value_t *values = V + (long long) r * k;
            float sigma = 0;
#pragma unroll 8
            for (int j = start_k + lane; j < end_k; j += 32)
                sigma += to_float(__ldcs(values + j)) * slice[position(__ldcs(indices + j), start_d)];
            sigma = warp_sum(sigma);
            if (lane == 0)
                partial[(long long) s * m + r] = sigma;
        }
        __syncthreads();   // nobody needs this slice any more
    }
}

extern "C" __global__ void sp_sum(int n_Bd, int m, const float *partial, float *omega)
{
    int r = blockIdx.x;
    float sigma = 0;
    for (int s = threadIdx.x; s < n_Bd; s += 32)
        sigma += partial[(long long) s * m + r];
    sigma = warp_sum(sigma);
    if (threadIdx.x == 0)
        omega[r] = sigma;
}
