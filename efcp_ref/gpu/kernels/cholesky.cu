// The coefficients of eq. (2): c = (m lam I + S)^-1 h / lam by Cholesky's factorisation L L^T, in panels of 32 columns.
//
// For every panel two launches: cholesky_panel factors its diagonal tile and solves for the tiles below it,
// cholesky_trail subtracts their products from the rest, all tiles at once. cholesky_solve then substitutes forth and
// back. 1,024 threads are a tile of 32 x 32. The factors of the diagonal tiles go to D (m, 32), so that M's own stay
// as they are while other blocks read them.
// Every exact pivot is at least m lam, the smallest eigenvalue of M: a computed one that is smaller, or negative, is
// wrong by more than m lam is, and m lam takes its place. So no factorisation breaks down.
// Flops: m^3 / 3. Claims: at most 64 registers, so that a block of 1,024 threads fits.
#define N 32
#define PITCH 33   // a column of a tile then lies in 32 different banks

// M = S + shift I. Launch: any number of blocks and of threads.
extern "C" __global__ void damp(int m, float shift, const float *S, float *M)
{
    for (long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x; i < (long long) m * m;
         i += (long long) gridDim.x * blockDim.x)
        M[i] = S[i] + (i / m == i % m ? shift : 0);
}

// Columns first .. first + 31. Launch: one block for each tile from the diagonal down.
extern "C" __global__ void __launch_bounds__(1024, 1) cholesky_panel(int m, int first, float shift, float *M, float *D)
{
    __shared__ float L[N * PITCH];
    __shared__ float A[N * PITCH];
    int i = threadIdx.x / N, j = threadIdx.x % N;
    int row = first + (blockIdx.x * N) + i, diagonal = first + i, column = first + j;
    L[i * PITCH + j] = i == j;   // beyond m: the identity
    A[i * PITCH + j] = 0;
    if (diagonal < m && column < m)
        L[i * PITCH + j] = M[(long long) diagonal * m + column];
    if (row < m && column < m)
        A[i * PITCH + j] = M[(long long) row * m + column];
    __syncthreads();   // both tiles are there
    for (int p = 0; p < N; ++p) {
        float pivot = L[p * PITCH + p];
        pivot = sqrtf(fmaxf(pivot, first + p < m ? shift : 1.0f));
        float scaled = L[i * PITCH + p] / pivot;
        __syncthreads();   // everybody has read column p
        if (j == p && i >= p)
            L[i * PITCH + p] = i == p ? pivot : scaled;
        __syncthreads();   // column p is final
        if (j > p && i >= j)
            L[i * PITCH + j] -= L[i * PITCH + p] * L[j * PITCH + p];
        __syncthreads();   // so is what it changes
    }
    if (blockIdx.x == 0) {
        if (row < m)
            D[(long long) row * N + j] = L[i * PITCH + j];
        return;
    }
    for (int p = 0; p < N; ++p) {   // X L^T = A, column after column
        if (j == p)
            A[i * PITCH + p] /= L[p * PITCH + p];
        __syncthreads();   // column p of X is final
        if (j > p)
            A[i * PITCH + j] -= A[i * PITCH + p] * L[j * PITCH + p];
        __syncthreads();   // so is what it changes
    }
    if (row < m && column < m)
        M[(long long) row * m + column] = A[i * PITCH + j];
}

// Subtract the products of the panel's tiles. Launch: tiles^2 blocks, tiles those below the panel; the upper ones rest.
extern "C" __global__ void __launch_bounds__(1024, 1) cholesky_trail(int m, int first, int tiles, float *M)
{
    __shared__ float A[N * PITCH];
    __shared__ float B[N * PITCH];
    int i = threadIdx.x / N, j = threadIdx.x % N;
    int down = blockIdx.x / tiles, right = blockIdx.x % tiles;
    if (right > down)
        return;
    int row = first + N + down * N + i, other = first + N + right * N + i, column = first + N + right * N + j;
    A[i * PITCH + j] = B[i * PITCH + j] = 0;
    if (row < m)
        A[i * PITCH + j] = M[(long long) row * m + first + j];
    if (other < m)
        B[i * PITCH + j] = M[(long long) other * m + first + j];
    __syncthreads();   // both tiles are there
    float sum = 0;
    for (int p = 0; p < N; ++p)
        sum += A[i * PITCH + p] * B[j * PITCH + p];
    if (row < m && column < m)
        M[(long long) row * m + column] -= sum;
}

// L y = h, then L^T w = y, then c = w / lam. Launch: one block, at least 32 threads, m floats of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(1024, 1)
cholesky_solve(int m, float lam, const float *M, const float *D, const float *h, float *c)
{
    extern __shared__ float y[];
    int Tid = threadIdx.x, T = blockDim.x, panels = (m - 1) / N + 1;
    for (int i = Tid; i < m; i += T)
        y[i] = h[i];
    __syncthreads();   // y is h
    for (int first = 0; first < m; first += N) {
        if (Tid < N)
            for (int p = 0; p < min(N, m - first); ++p) {
                if (Tid == p)
                    y[first + p] /= D[(long long) (first + p) * N + p];
                __syncwarp();
                if (Tid > p && first + Tid < m)
                    y[first + Tid] -= D[(long long) (first + Tid) * N + p] * y[first + p];
                __syncwarp();
            }
        __syncthreads();   // these 32 are final
        for (int i = first + N + Tid; i < m; i += T)
            for (int p = 0; p < N; ++p)
                y[i] -= M[(long long) i * m + first + p] * y[first + p];
        __syncthreads();   // so is what they change
    }
    for (int first = (panels - 1) * N; first >= 0; first -= N) {
        if (Tid < N)
            for (int p = min(N, m - first) - 1; p >= 0; --p) {
                if (Tid == p)
                    y[first + p] /= D[(long long) (first + p) * N + p];
                __syncwarp();
                if (Tid < p)
                    y[first + Tid] -= D[(long long) (first + p) * N + Tid] * y[first + p];
                __syncwarp();
            }
        __syncthreads();   // these 32 are final
        for (int i = Tid; i < first; i += T)
            for (int p = 0; p < min(N, m - first); ++p)
                y[i] -= M[(long long) (first + p) * m + i] * y[first + p];
        __syncthreads();   // so is what they change
    }
    for (int i = Tid; i < m; i += T)
        c[i] = y[i] / lam;
}
