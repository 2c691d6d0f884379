// What is left of a step of Sparse M-FAC: the scalar products S, and the direction u = x / lam - c G (eq. (2)).
//
// Claims: at most 32 registers.
#include "formats.cuh"

// The scalar products h = G g of the newest row are row and column `row` of S (R7). Launch: enough threads for m.
extern "C" __global__ void place_row(int m, int row, const float *h, float *S)
{
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < m) {
        S[(long long) row * m + j] = h[j];
        if (j != row)
            S[(long long) j * m + row] = h[j];
    }
}

// u = x / lam - omega, omega = c G. Launch: any number of blocks and of threads. 12 d bytes.
extern "C" __global__ void direction(int d, float lam, const float *x, const float *omega, float *u)
{
    for (long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x; i < d; i += (long long) gridDim.x * blockDim.x)
        u[i] = x[i] / lam - omega[i];
}

// Write a row of the window into x, which is zero. Launch: any number of blocks and of threads.
extern "C" __global__ void scatter(int B_d, int B_k, int k, const index_t *I, const value_t *V, float *x)
{
    for (int j = blockIdx.x * blockDim.x + threadIdx.x; j < k; j += gridDim.x * blockDim.x)
        x[column(I[j], j, B_d, B_k)] = to_float(V[j]);
}
