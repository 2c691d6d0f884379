// Scalar products: omega[r] = sum over j of V[r, j] * g[I[r, j]]. Algorithm 2 of the paper (appendix G.1).
//
// Textbook: one printed line is one line here, "// 2:11" is Algorithm 2, line 11; "(R15)" marks a line where the
// printed one cannot be meant as printed (docs/kernels.md says why).
// Launch: m blocks (R15), T threads, a power of two (R16), T floats of dynamic shared memory.
// Bytes: m k (index + value) + 4 d if g stayed in a cache; in truth 32 bytes of L2 for each entry of g.
// Claims: at most 32 registers, so that two blocks of 1,024 threads fit on a multiprocessor.
#include "formats.cuh"

// Sum mem[0 .. T-1] into mem[0]: log2(T) levels, a barrier before each (R16).
__device__ void parallel_reduce(float *mem, int T)
{
    int Tid = threadIdx.x;
    for (int half = T / 2; half > 0; half /= 2) {
        __syncthreads();
        if (Tid < half)
            mem[Tid] += mem[Tid + half];
    }
}

extern "C" __global__ void sp(int B_d, int B_k, int k, const float *g, const index_t *I, const value_t *V, float *omega)
{
    extern __shared__ float mem[];                     // T components (R16)                                   // 2:2
    float sigma = 0;                                   //                                                      // 2:3
    int Bid = blockIdx.x;                              // m of them (R15)                                      // 2:4
    int Tid = threadIdx.x;                             //                                                      // 2:5
    int T = blockDim.x;                                // the launcher needs it before line 2 does (R16)       // 2:6
    int r = Bid;                                       //                                                      // 2:7
    long long row = (long long) r * k;                 // where row r starts: I and V are one-dimensional
    for (int j = Tid; j < k; j += T) {                 // neighbours read neighbours (R16)                     // 2:8
        int i = column(I[row + j], j, B_d, B_k);       // (R13)                                                // 2:9
        float v = to_float(V[row + j]);                //                                                      // 2:10
        sigma += v * g[i];                             // i is a column of g (R13)                             // 2:11
    }
    mem[Tid] = sigma;                                  //                                                      // 2:13
    parallel_reduce(mem, T);                           // (R16)                                                // 2:14
    if (Tid == 0)                                      //                                                      // 2:15
        omega[r] = mem[0];                             //                                                      // 2:16
}
