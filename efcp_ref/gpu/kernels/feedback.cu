// Error feedback and blockwise Top-k: lines 5 to 7 of Algorithm 1, on the device.
//
//     a = xi + g;   c = TopK(a) in every block of B_d entries, ties to the lowest index (R12);   xi = a - c
//
// c goes to a row of the window as it is stored, and to x as a dense vector; xi keeps what the storage rounded off
// (R14). A block of threads takes one Top-k block. The k-th largest |a| is found by its bits: floats of one sign are
// ordered as their bits are, so four histograms of eight bits each fix the threshold, whatever the data.
// Launch: ceil(d / B_d) blocks, T threads, 2 T ints of dynamic shared memory.
// Bytes: 12 d read and written from memory, and about seven more passes over a, which stays in L2.
// Claims: at most 64 registers, so that a block of 1,024 threads fits.
#include "formats.cuh"

__device__ inline unsigned magnitude(float a) { return __float_as_uint(a) & 0x7fffffff; }

// Make counts[i] the sum of counts[0 .. i] over the T threads of the block.
__device__ void running_sum(int *counts, int T)
{
    int Tid = threadIdx.x;
    for (int distance = 1; distance < T; distance *= 2) {
        __syncthreads();
        int before = Tid >= distance ? counts[Tid - distance] : 0;
        __syncthreads();
        counts[Tid] += before;
    }
    __syncthreads();
}

// Where entry number `rank` of a bank goes: first the first of every bank, then the second of every bank, ...
__device__ inline int by_bank(const unsigned *in_bank, int bank, int rank)
{
    int place = 0;
    for (int b = 0; b < 32; ++b)
        place += min((int) in_bank[b], rank + (b < bank));
    return place;
}

extern "C" __global__ void __launch_bounds__(1024, 1)
feedback(int B_d, int B_k, int d, int k, int bank_ordered, const float *g, float *xi, float *x, index_t *I, value_t *V)
{
    extern __shared__ int counted[];
    __shared__ unsigned histogram[256];
    __shared__ unsigned found[3];      // the threshold's bits, how many of its ties are kept, the last tie that is
    int Tid = threadIdx.x, T = blockDim.x, s = blockIdx.x;
    int start_d = B_d * s, width = min(B_d, d - start_d);
    int start_k = B_k * s, kept = min(B_k, k - start_k);
    float *a = xi + start_d;
    for (int i = Tid; i < width; i += T)
        a[i] = a[i] + g[start_d + i];                                      //                                  // 1:5
    if (Tid == 0) {
        found[0] = 0;
        found[1] = kept;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int bin = Tid; bin < 256; bin += T)
            histogram[bin] = 0;
        __syncthreads();   // the histogram is empty, a is written
        unsigned known = shift == 24 ? 0 : ~0u << (shift + 8), prefix = found[0];
        for (int i = Tid; i < width; i += T)
            if ((magnitude(a[i]) & known) == prefix)
                atomicAdd(&histogram[magnitude(a[i]) >> shift & 255], 1u);
        __syncthreads();   // the histogram is full
        if (Tid == 0) {
            unsigned left = found[1];
            int bin = 255;
            while (left > histogram[bin])
                left -= histogram[bin--];
            found[0] = prefix | (unsigned) bin << shift;
            found[1] = left;
        }
        __syncthreads();   // eight more bits are known
    }
    unsigned threshold = found[0];
    int ties = found[1], each = (width - 1) / T + 1;
    int first = min(width, Tid * each), last = min(width, first + each);   // this thread's share, in order
    int *more = counted;
    int *same = counted + T;
    int my_more = 0, my_same = 0;
    for (int i = first; i < last; ++i) {
        my_more += magnitude(a[i]) > threshold;
        my_same += magnitude(a[i]) == threshold;
    }
    more[Tid] = my_more;
    same[Tid] = my_same;
    running_sum(more, T);
    running_sum(same, T);
    int tie = same[Tid] - my_same, place = more[Tid] - my_more + min(tie, ties);
    for (int i = first; i < last; ++i) {
        bool equal = magnitude(a[i]) == threshold;
        tie += equal;
        if (magnitude(a[i]) > threshold || (equal && tie <= ties)) {
            if (equal && tie == ties)
                found[2] = i;
            if (!bank_ordered) {
                I[start_k + place] = stored(i, start_d);                   // ascending in the block           // 1:6
                V[start_k + place] = to_value(a[i]);
            }
            ++place;
        }
    }
    __syncthreads();   // the last tie is known
    int cut = found[2];
    if (bank_ordered && Tid < 32)
        histogram[Tid] = 0;
    __syncthreads();
    if (bank_ordered && Tid < 32)
        for (int i = Tid; i < width; i += 32)
            histogram[Tid] += magnitude(a[i]) > threshold || (magnitude(a[i]) == threshold && i <= cut);
    __syncthreads();   // how many each bank holds
    if (bank_ordered && Tid < 32)
        for (int i = Tid, rank = 0; i < width; i += 32)
            if (magnitude(a[i]) > threshold || (magnitude(a[i]) == threshold && i <= cut)) {
                int to = by_bank(histogram, Tid, rank++);
                I[start_k + to] = stored(i, start_d);
                V[start_k + to] = to_value(a[i]);
            }
    __syncthreads();   // nobody needs a any more
    for (int i = Tid; i < width; i += T) {
        bool keep = magnitude(a[i]) > threshold || (magnitude(a[i]) == threshold && i <= cut);
        float c = keep ? to_float(to_value(a[i])) : 0;
        x[start_d + i] = c;
        a[i] = a[i] - c;                                                   // c as stored (R14)                // 1:7
    }
}
