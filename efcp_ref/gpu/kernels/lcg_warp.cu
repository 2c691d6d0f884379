// Algorithm 3, for small blocks: one warp for each block, and a warp's own barrier.
//
// The idea: with B_d = 3,200 and 1 % kept a row of a slice has 32 entries, one for each lane. A block is then a single
// warp: its barrier costs a few cycles, all its lanes have work, and a multiprocessor holds as many blocks as its
// shared memory has slices (about 17), which hide each other's waits. Rows are fetched ROWS at a time, as in
// lcg_rows.cu.
// Saves: the block-wide barrier for every row, and the 43 to 59 % of the threads that lcg.cu leaves idle when B_k is
// not a multiple of 1,024. Costs: B_d is a parameter of Top-k, so smaller blocks keep other entries.
// Launch: any number of blocks of 32 threads, B_d floats of dynamic shared memory.
// Claims: at most 120 registers, so that 17 blocks fit.
#include "formats.cuh"

#ifndef ROWS
#define ROWS 16
#endif

extern "C" __global__ void __launch_bounds__(32)
lcg_warp(int B_d, int B_k, int d, int m, int k, const float *__restrict__ c, const index_t *__restrict__ I,
         const value_t *__restrict__ V, float *__restrict__ omega)
{
    extern __shared__ float mem[];
    int n_Bd = (d - 1) / B_d + 1, lane = threadIdx.x;
    for (int s = blockIdx.x; s < n_Bd; s += gridDim.x) {
        int start_d = B_d * s, width = min(B_d, d - start_d);
        int start_k = B_k * s, end_k = start_k + min(B_k, k - start_k);
        for (int i = lane; i < width; i += 32)
            mem[i] = 0;
        __syncwarp();   // mem is zero
        for (int row = 0; row < m; row += ROWS)
            for (int col = start_k; col < end_k; col += 32) {   // once, where B_k <= 32
                int rows = col + lane < end_k ? min(ROWS, m - row) : 0;
                const index_t *indices = I + (long long) row * k + col + lane;
                const value_t *values = V + (long long) row * k + col + lane;
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
                    __syncwarp();   // the next row may add to the same place
                }
            }
        for (int i = lane; i < width; i += 32)
            omega[start_d + i] = mem[i];
        __syncwarp();   // everybody has read mem
    }
}
