// How one row of G = (I, V) is stored. The launcher picks one of four formats:
//   -DINDEX_BITS=32   I holds columns of G as int                            (appendix F)
//   -DINDEX_BITS=16   I holds positions inside a Top-k block, unsigned       (section 3.1; R13: signed 16 bits wrap)
//   -DVALUE_BITS=32   V holds float
//   -DVALUE_BITS=16   V holds bfloat16, as its 16 raw bits
#pragma once

#if INDEX_BITS == 16
typedef unsigned short index_t;
#else
typedef int index_t;
#endif

#if VALUE_BITS == 16
typedef unsigned short value_t;
__device__ inline float to_float(value_t v) { return __uint_as_float((unsigned) v << 16); }

// Round to nearest, ties to even.
__device__ inline value_t to_value(float x)
{
    unsigned bits = __float_as_uint(x);
    return (value_t) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#else
typedef float value_t;
__device__ inline float to_float(value_t v) { return v; }
__device__ inline value_t to_value(float x) { return x; }
#endif

// The column of G that entry j of a row stands for (R13).
__device__ inline int column(index_t i, int j, int B_d, int B_k)
{
#if INDEX_BITS == 16
    return j / B_k * B_d + i;
#else
    return i;
#endif
}

// The position inside its own Top-k block, which starts at column start_d (R13).
__device__ inline int position(index_t i, int start_d)
{
#if INDEX_BITS == 16
    return i;
#else
    return i - start_d;
#endif
}

// What is stored for a position inside the block that starts at column start_d (R13).
__device__ inline index_t stored(int position, int start_d)
{
#if INDEX_BITS == 16
    return (index_t) position;
#else
    return position + start_d;
#endif
}
