// Algorithm 3, faster: the loads of ROWS rows are under way before the first of them is added.
//
// The idea: lcg.cu waits for global memory once for every row, since no load crosses the barrier of line 22, and a
// multiprocessor that holds one block (B_d as large as its shared memory) has nobody else to run meanwhile. But what
// a row adds does not depend on mem. So every thread fetches its entries of ROWS rows into registers first, and the
// barriers separate only the additions, which are as quick as shared memory.
// Saves: m - m / ROWS waits for global memory (about 600 cycles each) per slice. Where B_k <= THREADS the order of
// the sums stays the same: the result equals lcg.cu's bit for bit.
// Launch: any number of blocks, THREADS threads, B_d floats of dynamic shared memory.
// Claims: at most 64 registers with 1,024 threads and 8 rows, 168 with 128 threads and 16 rows.
#include "formats.cuh"

#ifndef ROWS
#define ROWS 8
#endif
#ifndef THREADS
#define THREADS 1024
#endif
#define BLOCKS (THREADS > 256 ? 1 : 3)   // that fit on a multiprocessor

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
lcg_rows(int B_d, int B_k, int d, int m, int k, const float *__restrict__ c, const index_t *__restrict__ I,
         const value_t *__restrict__ V, float *__restrict__ omega)
{
    extern __shared__ float mem[];
    int n_Bd = (d - 1) / B_d + 1, Tid = threadIdx.x;
    for (int i = Tid; i < B_d; i += THREADS)
        mem[i] = 0;
    __syncthreads();   // mem is zero
    for (int s = blockIdx.x; s < n_Bd; s += gridDim.x) {
        int start_d = B_d * s, width = min(B_d, d - start_d);
        int start_k = B_k * s, end_k = start_k + min(B_k, k - start_k);
        for (int row = 0; row < m; row += ROWS)
            for (int col = start_k; col < end_k; col += THREADS) {   // once, where B_k <= THREADS
                int rows = col + Tid < end_k ? min(ROWS, m - row) : 0;
                const index_t *indices = I + (long long) row * k + col + Tid;
                const value_t *values = V + (long long) row * k + col + Tid;
                index_t i[ROWS];
                float v[ROWS];
#pragma unroll
                for (int r = 0; r < ROWS; ++r, indices += k, values += k)
                    if (r < rows) {
                        i[r] = __ldcs(indices);
                        v[r] = c[row + r] * to_float(__ldcs(values));
                    }
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    if (r < rows)
                        mem[position(i[r], start_d)] += v[r];
                    __syncthreads();   // the next row may add to the same place
                }
            }
        for (int i = Tid; i < width; i += THREADS) {
            omega[start_d + i] = mem[i];
            mem[i] = 0;
        }
        __syncthreads();   // mem is zero again
    }
}
