// A libcuda.so.1 whose one device is the CPU: as much of the driver's interface as PyCUDA needs to load a module, to
// allocate, copy and clear memory, to launch a kernel, and to take the time of an event. A "cubin" is the path of a
// library that build.py made (nvcc.py writes it). It refuses what a GPU refuses: more than 1,024 threads, more than
// 48 KB of dynamic shared memory unless the attribute allows it, arguments of the wrong size. Like a GPU it wants a
// context that is current in the thread, and once a kernel has failed, every further call fails too. Every other name of
// the interface returns "not supported". driver.py builds it.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <vector>
#include <dlfcn.h>

#define API extern "C" __attribute__((visibility("default"))) int
typedef unsigned long long Pointer;
struct Launch { unsigned blocks, threads, shared_bytes; int order; unsigned seed; };      // as in cuda_on_cpu.h
typedef const char *(*Packed)(const Launch *, const char *, size_t);
struct Function { Packed run; std::string name; int dynamic_shared = 48 * 1024; };
struct Context { bool alive; };
struct Allocation { size_t bytes; Context *owner; };
enum { OK = 0, INVALID_VALUE = 1, NO_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       NOT_FOUND = 500, DESTROYED = 709, LAUNCH_FAILED = 719 };

static std::string last;                            // what cuGetErrorString adds to the code
static int failed;                                  // the error that every call returns since a kernel failed
static thread_local std::vector<Context *> stack;   // contexts of this thread, the last is current
static std::mutex guard;                            // of what follows
static std::map<Pointer, Allocation> allocations;   // by the first byte
static size_t used;                                 // bytes allocated

static long number(const char *name, long otherwise) { const char *s = getenv(name); return s ? atol(s) : otherwise; }
static int shared_memory() { return number("EFCP_CPU_SHARED", 227 * 1024); }
static size_t memory() { return number("EFCP_CPU_MEMORY", 1l << 34); }
static int fail(int code, std::string why) { last = why; return code; }

// ---- the device ----------------------------------------------------------------------------------------------------

API cuInit(unsigned) { return number("EFCP_CPU_INIT", OK); }      // a test says that there is no device: 100
API cuDriverGetVersion(int *v) { *v = 13000; return OK; }
API cuDeviceGetCount(int *n) { *n = 1; return OK; }
API cuDeviceGet(int *d, int i) { *d = i; return i ? INVALID_DEVICE : OK; }
API cuDeviceGetName(char *s, int n, int) { snprintf(s, n, "CPU behind cuda_on_cpu.h"); return OK; }
API cuDeviceTotalMem_v2(size_t *n, int) { *n = memory(); return OK; }
API cuDeviceComputeCapability(int *a, int *b, int) { *a = 9; *b = 0; return OK; }
API cuDeviceGetAttribute(int *v, int attribute, int)
{
    switch (attribute) {
    case 1: case 2: *v = 1024; break;                  // threads of a block, in x
    case 5: *v = 2147483647; break;                    // blocks in x
    case 8: *v = 48 * 1024; break;                     // bytes of shared memory of a block
    case 97: *v = shared_memory(); break;              // at most
    case 81: *v = shared_memory() + 1024; break;       // of a multiprocessor
    case 10: *v = 32; break;                           // threads of a warp
    case 16: *v = 3; break;                            // multiprocessors
    case 39: *v = 2048; break;                         // threads of a multiprocessor
    case 106: *v = 32; break;                          // blocks of a multiprocessor
    case 75: *v = 9; break;                            // compute capability
    default: *v = 0;
    }
    return OK;
}

// ---- contexts ------------------------------------------------------------------------------------------------------

static Context primary{false};
static int primary_users;

static int ready() { return failed ? failed : stack.empty() ? INVALID_CONTEXT : stack.back()->alive ? OK : DESTROYED; }
#define NEEDS_A_CONTEXT if (int error = ready()) return error;

API cuCtxCreate_v2(Context **c, unsigned, int) { stack.push_back(*c = new Context{true}); return failed; }
API cuCtxCreate_v4(Context **c, void *, unsigned, int) { return cuCtxCreate_v2(c, 0, 0); }
API cuDevicePrimaryCtxRetain(Context **c, int) { *c = &primary; primary.alive = true; ++primary_users; return failed; }
API cuDevicePrimaryCtxRelease_v2(int) { primary.alive = --primary_users; return failed; }
API cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return OK; }
API cuCtxDetach(Context *c) { c->alive = false; stack.pop_back(); return failed; }
API cuCtxPushCurrent_v2(Context *c)
{
    if (failed || !c->alive) return failed ? failed : DESTROYED;
    stack.push_back(c);
    return OK;
}
API cuCtxPopCurrent_v2(Context **c)
{
    if (failed || stack.empty()) return failed ? failed : INVALID_CONTEXT;
    *c = stack.back();
    stack.pop_back();
    return OK;
}
API cuCtxGetCurrent(Context **c) { *c = stack.empty() ? nullptr : stack.back(); return OK; }
API cuCtxGetDevice(int *d) { NEEDS_A_CONTEXT *d = 0; return OK; }
API cuCtxGetApiVersion(void *, unsigned *v) { *v = 13000; return OK; }
API cuCtxSynchronize() { return ready(); }

// ---- memory --------------------------------------------------------------------------------------------------------

API cuMemAlloc_v2(Pointer *p, size_t n)
{
    NEEDS_A_CONTEXT
    std::lock_guard<std::mutex> locked(guard);
    if (!n) return INVALID_VALUE;
    if (used + n > memory()) return NO_MEMORY;
    void *q = aligned_alloc(256, (n + 255) / 256 * 256);
    if (!q) return NO_MEMORY;
    memset(q, 0xff, n);      // NaN, as in shared memory
    used += n;
    allocations[*p = (Pointer) q] = {n, stack.back()};
    return OK;
}
API cuMemFree_v2(Pointer p)
{
    NEEDS_A_CONTEXT
    std::lock_guard<std::mutex> locked(guard);
    auto found = allocations.find(p);
    if (found == allocations.end()) return fail(INVALID_VALUE, "cuMemFree: no such allocation");
    used -= found->second.bytes;
    allocations.erase(found);
    free((void *) p);
    return OK;
}
API cuPointerGetAttribute(void *out, int attribute, Pointer p)
{
    std::lock_guard<std::mutex> locked(guard);
    auto next = allocations.upper_bound(p);
    if (next == allocations.begin() || p >= std::prev(next)->first + std::prev(next)->second.bytes) return INVALID_VALUE;
    if (attribute == 1) *(Context **) out = std::prev(next)->second.owner;
    else if (attribute == 9) *(int *) out = number("EFCP_CPU_ORDINAL", 0);      // a test lets it lie
    else return INVALID_VALUE;
    return OK;
}
API cuMemGetInfo_v2(size_t *free_bytes, size_t *all) { NEEDS_A_CONTEXT *all = memory(); *free_bytes = memory() - used; return OK; }
API cuMemcpyHtoD_v2(Pointer d, const void *s, size_t n) { NEEDS_A_CONTEXT memcpy((void *) d, s, n); return OK; }
API cuMemcpyDtoH_v2(void *d, Pointer s, size_t n) { NEEDS_A_CONTEXT memcpy(d, (void *) s, n); return OK; }
API cuMemcpyDtoD_v2(Pointer d, Pointer s, size_t n) { NEEDS_A_CONTEXT memcpy((void *) d, (void *) s, n); return OK; }
API cuMemcpyHtoDAsync_v2(Pointer d, const void *s, size_t n, void *) { NEEDS_A_CONTEXT memcpy((void *) d, s, n); return OK; }
API cuMemcpyDtoHAsync_v2(void *d, Pointer s, size_t n, void *) { NEEDS_A_CONTEXT memcpy(d, (void *) s, n); return OK; }
API cuMemsetD8_v2(Pointer d, unsigned char v, size_t n) { NEEDS_A_CONTEXT memset((void *) d, v, n); return OK; }
API cuMemsetD8Async(Pointer d, unsigned char v, size_t n, void *) { NEEDS_A_CONTEXT memset((void *) d, v, n); return OK; }

// ---- kernels -------------------------------------------------------------------------------------------------------

API cuModuleLoadDataEx(void **m, const void *image, unsigned, int *, void **)
{
    NEEDS_A_CONTEXT
    *m = dlopen((const char *) image, RTLD_NOW | RTLD_LOCAL);
    return *m ? OK : fail(INVALID_IMAGE, dlerror());
}
API cuModuleLoadData(void **m, const void *image) { return cuModuleLoadDataEx(m, image, 0, nullptr, nullptr); }
API cuModuleUnload(void *) { return ready(); }      // a sanitizer wants the code kept for its report
API cuModuleGetFunction(Function **f, void *m, const char *name)
{
    Packed run = (Packed) dlsym(m, (std::string("packed_") + name).c_str());
    if (!run) return fail(NOT_FOUND, std::string("no kernel ") + name);
    *f = new Function{run, name};
    return OK;
}
API cuFuncSetAttribute(Function *f, int attribute, int v)
{
    if (attribute != 8) return OK;
    if (v > shared_memory()) return fail(INVALID_VALUE, f->name + ": more shared memory than a block can have");
    f->dynamic_shared = v;
    return OK;
}
API cuFuncGetAttribute(int *v, int a, Function *f) { *v = a == 8 ? f->dynamic_shared : a == 0 ? 1024 : 0; return OK; }
API cuFuncSetBlockShape(Function *, int, int, int) { return OK; }
API cuFuncSetCacheConfig(Function *, int) { return OK; }
API cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *, void **, void **extra)
{
    NEEDS_A_CONTEXT
    if (!gx || gy != 1 || gz != 1 || by != 1 || bz != 1 || !bx || bx > 1024)
        return fail(INVALID_VALUE, f->name + ": no such grid or block");
    if ((int) shared > f->dynamic_shared)
        return fail(INVALID_VALUE, f->name + ": more dynamic shared memory than MAX_DYNAMIC_SHARED_SIZE_BYTES allows");
    const char *buffer = nullptr;
    size_t bytes = 0;
    for (void **e = extra; e && (intptr_t) *e; e += 2)
        if ((intptr_t) e[0] == 1) buffer = (const char *) e[1];
        else if ((intptr_t) e[0] == 2) bytes = *(size_t *) e[1];
    const char *order = getenv("EFCP_CPU_ORDER");
    Launch l{gx, bx, shared, !order ? 0 : order[0] == 'r' ? 1 : order[0] == 's' ? 2 : 0, (unsigned) number("EFCP_CPU_SEED", 0)};
    const char *error = f->run(&l, buffer, bytes);
    return error ? failed = fail(LAUNCH_FAILED, f->name + ": " + error) : OK;
}

// ---- streams and events --------------------------------------------------------------------------------------------

API cuStreamCreate(void **s, unsigned) { NEEDS_A_CONTEXT *s = &primary; return OK; }
API cuStreamDestroy_v2(void *) { return ready(); }
API cuStreamSynchronize(void *) { return ready(); }
typedef std::chrono::steady_clock Clock;
API cuEventCreate(Clock::time_point **e, unsigned) { NEEDS_A_CONTEXT *e = new Clock::time_point; return OK; }
API cuEventDestroy_v2(Clock::time_point *e) { NEEDS_A_CONTEXT delete e; return OK; }
API cuEventRecord(Clock::time_point *e, void *) { NEEDS_A_CONTEXT *e = Clock::now(); return OK; }
API cuEventSynchronize(void *) { return ready(); }
API cuEventElapsedTime_v2(float *ms, Clock::time_point *a, Clock::time_point *b)
{
    *ms = std::chrono::duration<float, std::milli>(*b - *a).count();
    return OK;
}
API cuEventElapsedTime(float *ms, Clock::time_point *a, Clock::time_point *b) { return cuEventElapsedTime_v2(ms, a, b); }
API cuGetErrorString(int code, const char **s)
{
    static std::string text;
    text = "CUDA error " + std::to_string(code) + (last.empty() ? "" : ": " + last);
    *s = text.c_str();
    return OK;
}
