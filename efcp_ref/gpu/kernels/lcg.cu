// Linear combination of gradients: omega = sum over r of c[r] * G[r, :]. Algorithm 3 of the paper (appendix G.2).
//
// Textbook: one printed line is one line here, "// 3:20" is Algorithm 3, line 20; "(R19)" marks a line where the
// printed one cannot be meant as printed (docs/kernels.md says why).
// Launch: any number of blocks and of threads, B_d floats of dynamic shared memory.
// Bytes: m k (index + value) + 4 m + 4 d, the least possible; but a row's loads wait for the row before it.
// Claims: at most 64 registers, so that one block of 1,024 threads fits on a multiprocessor.
#include "formats.cuh"

extern "C" __global__ void lcg(int B_d, int B_k, int d, int m, int k, const float *c, const index_t *I,
                               const value_t *V, float *omega)
{
    int B = gridDim.x;                                                     //                                  // 3:2
    int BlockId = blockIdx.x;                                              // of a group of slices (R21)       // 3:3
    int ThreadId = threadIdx.x;                                            //                                  // 3:4
    int T = blockDim.x;                                                    //                                  // 3:5
    extern __shared__ float mem[];                                         // B_d components, not T (R17)      // 3:6
    for (int i = ThreadId; i < B_d; i += T) mem[i] = 0;                    //                                  // 3:7
    __syncthreads();                                                       //                                  // 3:8
    int n_Bd = (d - 1) / B_d + 1;                                          //                                  // 3:9
    int workload = (n_Bd - 1) / B + 1;                                     // slices, not columns (R18)        // 3:10
    for (int s = 0; s < min(workload, n_Bd - BlockId * workload); ++s) {   // the last block may have fewer    // 3:11
        int start_d = B_d * (BlockId * workload + s);                      //                                  // 3:12
        int end_d = start_d + min(B_d, d - start_d);                       //                                  // 3:13
        int start_k = B_k * (BlockId * workload + s);                      //                                  // 3:14
        int end_k = start_k + min(B_k, k - start_k);                       // within k, not B_k (R19)          // 3:15
        for (int row = 0; row < m; ++row) {                                // all rows, not workload (R20)     // 3:16
            long long start = (long long) row * k;                         // I and V are one-dimensional
            for (int col = start_k + ThreadId; col < end_k; col += T) {    // end_k alone bounds col (R21)     // 3:17
                int i = position(I[start + col], start_d);                 // (R13, R21)                       // 3:18
                float v = to_float(V[start + col]);                        // r is row (R21)                   // 3:19
                mem[i] += c[row] * v;                                      // distinct in a row (R13, R21)     // 3:20
            }
            __syncthreads();                                               // the next row may add to this i   // 3:22
        }
        for (int i = ThreadId; i < end_d - start_d; i += T) {              // (R21)                            // 3:25
            omega[i + start_d] = mem[i];                                   // (R21)                            // 3:26
            mem[i] = 0;                                                    // (R21)                            // 3:27
        }
        __syncthreads();                                                   //                                  // 3:29
    }
}
