// Algorithm 2, a little faster: a row for each warp, no barrier at all.
//
// The idea: sp.cu gives a row to 1,024 threads, which then meet at ten barriers to add 1,024 numbers. Short rows
// leave most of them idle. A warp adds its 32 sums by exchanging registers, so 32 rows run in one block and nobody
// waits for a neighbour.
// Saves: log2(T) barriers for every row, and the idle threads of rows shorter than T; g still comes from L2.
// Launch: any number of blocks, a multiple of 32 threads, no shared memory.
// Claims: at most 64 registers, so that four blocks of 256 threads fit on a multiprocessor.
#include "formats.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(1024, 1)
sp_warps(int B_d, int B_k, int m, int k, const float *__restrict__ g, const index_t *__restrict__ I,
         const value_t *__restrict__ V, float *__restrict__ omega)
{
    int lane = threadIdx.x % 32, warps = blockDim.x / 32 * gridDim.x;
    for (int r = (blockIdx.x * blockDim.x + threadIdx.x) / 32; r < m; r += warps) {
        long long row = (long long) r * k;
        float sigma = 0;
        for (int j = lane; j < k; j += 32)
            sigma += to_float(__ldcs(V + row + j)) * g[column(__ldcs(I + row + j), j, B_d, B_k)];
        sigma = warp_sum(sigma);
        if (lane == 0)
            omega[r] = sigma;
    }
}
