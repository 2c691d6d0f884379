// Runs CUDA C kernels on a CPU: this header stands before the kernel's source, and g++ compiles both as C++20.
//
// The threads of a block are fibers (coroutines with a stack) on one thread of the system. A fiber runs until it
// meets a barrier or ends, then the next one runs. Blocks run one after another. What that gives:
//   * any number of threads, and every run can be repeated;
//   * the order of the threads between two barriers is a parameter (forward, reverse, shuffled by a seed), and shared
//     memory starts as NaN: a result that depends on either shows a missing barrier;
//   * a barrier that not all threads of a block reach is reported, and nothing hangs;
//   * under -fsanitize=thread every fiber is a thread, and only barriers and atomics synchronise: each data race is
//     found in whatever order the run happens to take;
//   * before and behind every shared array lies a guard zone, as far as a 16-bit index reaches. It reads as NaN, and a
//     launch that has changed it is an error. Under -fsanitize=address who touches it is reported, with the kernel's line;
//   * under -DOBSERVE every access to global and shared memory and every barrier is recorded, with the lane, the place
//     in the code and the turns of the loops around it (../observation.py makes steps of warps of them).
// Covered: one-dimensional launches, __shared__ arrays, __syncthreads, __syncwarp, __shfl_down_sync, atomicAdd and a
// few intrinsics. build.py rewrites what no macro can: declarations of shared arrays, and pointers (see there).
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define NOT_TRACED __attribute__((no_sanitize("thread"), noinline))
#else
#define NOT_TRACED __attribute__((noinline))
#endif

namespace cuda_on_cpu {

// ---- what a launch is ----------------------------------------------------------------------------------------------

struct Index { unsigned x, y, z; };
struct Launch { unsigned blocks, threads, shared_bytes; int order; unsigned seed; };   // order: 0 forward, 1 reverse, 2 shuffled
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
constexpr size_t STACK = 64 * 1024;

struct Fiber {
    State state;
    const char *file;      // the barrier that it waits at
    int line;
    unsigned thread, barriers, turn;      // its number, barriers passed, events recorded
    uint64_t path;         // where it is in the loops, as a number: see Loop
    char *stack;
    void *pointer;         // of its stack, where the switch is ours
    ucontext_t context;    // where it is the system's
    void *tsan, *fake_stack;
};

struct Block {
    void (*body)(void *);      // the kernel, its arguments bound
    void *arguments;
    std::vector<Fiber> fibers;
    Fiber *now = nullptr;
    unsigned threads, phase = 0;
    std::vector<unsigned> warp_phase;
    std::vector<uint64_t> exchange;      // one slot for each thread, for the shuffles
    char *stacks = nullptr, *sync = nullptr, end = 0;      // sync, end: what the thread sanitizer takes for barriers
    char *dynamic = nullptr;
    char *fixed[16];                     // __shared__ arrays of a fixed size, in the order of the source
    void *pointer = nullptr;             // of the scheduler's stack
    ucontext_t context;
    void *tsan = nullptr, *fake_stack = nullptr;
    const void *bottom = nullptr;
    size_t size = 0;
    char error[400] = "";
};

inline const std::vector<size_t> &fixed_sizes();      // build.py writes it behind the kernel's source

inline thread_local Block *block;
inline thread_local Index threadIdx, blockIdx, blockDim, gridDim;

// ---- switching from one stack to another ---------------------------------------------------------------------------

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(CUDA_ON_CPU_UCONTEXT)
#define OWN_SWITCH 1
// Save the registers that a call preserves on this stack, leave its pointer in *from, take up the stack `to`.
extern "C" void cuda_on_cpu_switch(void **from, void *to);
asm(R"(
    .text
    .p2align 4
    .weak cuda_on_cpu_switch
    .hidden cuda_on_cpu_switch
    .type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
#else
#define OWN_SWITCH 0
#endif

NOT_TRACED inline void to_fiber(Fiber &f)
{
    block->now = &f;
    threadIdx = {f.thread, 0, 0};
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(f.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&block->fake_stack, f.stack, STACK);
#endif
#if OWN_SWITCH
    cuda_on_cpu_switch(&block->pointer, f.pointer);
#else
    swapcontext(&block->context, &f.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(block->fake_stack, nullptr, nullptr);
#endif
}

NOT_TRACED inline void to_scheduler(Fiber &f)
{
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(block->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(f.state == DONE ? nullptr : &f.fake_stack, block->bottom, block->size);
#endif
#if OWN_SWITCH
    cuda_on_cpu_switch(&f.pointer, block->pointer);
#else
    swapcontext(&f.context, &block->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f.fake_stack, &block->bottom, &block->size);
#endif
}

// ---- barriers ------------------------------------------------------------------------------------------------------

NOT_TRACED inline void wait(State at, const char *file, int line)
{
    Fiber &f = *block->now;
    f.state = at;
    f.file = file;
    f.line = line;
    ++f.barriers;
#if defined(__SANITIZE_THREAD__)
    unsigned warp = f.thread / 32;
    bool all = at == AT_BLOCK_BARRIER;
    // Two objects in turn: what follows this barrier must not leak to those who have not left it yet.
    char *object = block->sync + 2 * (all ? 0 : 1 + warp) + (all ? block->phase : block->warp_phase[warp]) % 2;
    __tsan_release(object);
#endif
    to_scheduler(f);
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(object);
#endif
}

NOT_TRACED inline void entry()
{
    Fiber &f = *block->now;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block->bottom, &block->size);
#endif
    block->body(block->arguments);
    f.state = DONE;
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&block->end);
#endif
    to_scheduler(f);
    abort();      // not reached: a fiber that has ended is never taken up again
}

NOT_TRACED inline void start(Fiber &f, unsigned thread)
{
    f.state = READY;
    f.thread = thread;
    f.barriers = f.turn = f.path = 0;
    f.fake_stack = nullptr;
    f.stack = block->stacks + (size_t) thread * STACK;
#if OWN_SWITCH
    void **top = (void **) (f.stack + STACK);
    *--top = nullptr;      // the stack is then aligned as after a call
    *--top = (void *) entry;
    for (int i = 0; i < 6; ++i)
        *--top = nullptr;
    f.pointer = top;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, entry, 0);
#endif
#if defined(__SANITIZE_THREAD__)
    f.tsan = __tsan_create_fiber(0);
#endif
}

NOT_TRACED inline bool fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(block->error, sizeof block->error, format, list);
    va_end(list);
    return false;
}

inline bool apart(const Fiber &a, const Fiber &b) { return a.line != b.line || a.file != b.file || a.state != b.state; }

// Let the lanes of warp w go if all that are left wait at one warp barrier. False: they wait at different ones.
NOT_TRACED inline bool release_warp(unsigned w, bool &released)
{
    unsigned end = std::min(block->threads, w * 32 + 32);
    Fiber *first = nullptr;
    bool all = true;
    for (unsigned t = w * 32; t < end; ++t) {
        Fiber &f = block->fibers[t];
        if (f.state == AT_WARP_BARRIER && !first) first = &f;
        else if (f.state == AT_WARP_BARRIER && apart(f, *first))
            return fail("block %u, warp %u: thread %u waits at %s:%d, thread %u at %s:%d", blockIdx.x, w, first->thread,
                        first->file, first->line, f.thread, f.file, f.line);
        all = all && (f.state == AT_WARP_BARRIER || f.state == DONE);
    }
    if (!first || !all) return true;
    for (unsigned t = w * 32; t < end; ++t)
        if (block->fibers[t].state == AT_WARP_BARRIER) block->fibers[t].state = READY;
    ++block->warp_phase[w];
    return released = true;
}

// Let go of whoever waits at a barrier that is complete. False: nobody can run any more.
NOT_TRACED inline bool release()
{
    Block &b = *block;
    bool released = false;
    for (unsigned w = 0; w * 32 < b.threads; ++w)
        if (!release_warp(w, released)) return false;
    if (released) return true;
    Fiber *first = nullptr;
    unsigned waiting = 0;
    for (Fiber &f : b.fibers) {
        if (f.state == DONE) continue;
        ++waiting;
        if (!first) first = &f;
        else if (apart(f, *first))
            return fail("block %u: thread %u waits at %s:%d, thread %u at %s:%d", blockIdx.x, first->thread, first->file,
                        first->line, f.thread, f.file, f.line);
    }
    if (!waiting) return false;
    if (waiting != b.threads)      // CUDA may let threads that have returned be left out; no kernel here relies on it
        return fail("block %u: %u threads wait at %s:%d, %u have returned", blockIdx.x, waiting, first->file, first->line,
                    b.threads - waiting);
    for (Fiber &f : b.fibers) f.state = READY;
    ++b.phase;
    return true;
}

// ---- running -------------------------------------------------------------------------------------------------------

constexpr size_t GUARD = 4 * 65536;      // bytes: a 16-bit index of 4-byte entries, of either sign, reaches no farther

// Stacks and shared memory; for the thread sanitizer no block may have those of another one.
struct Memory {
    struct Guard { char *first; size_t bytes; const char *array; size_t size; };      // a zone beside an array
    std::vector<std::pair<char *, size_t>> maps;
    std::vector<Guard> guards;
    ~Memory();
    char *map(size_t bytes);
    char *between_guards(size_t bytes);
    void guard(Guard g);
    bool guards_hold() const;
};

NOT_TRACED inline Memory::~Memory()
{
    for (auto &m : maps) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(m.first, m.second);
#endif
        munmap(m.first, m.second);
    }
}

NOT_TRACED inline char *Memory::map(size_t bytes)
{
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fail("out of memory: a block of %u threads needs %zu bytes", block->threads, bytes);
        return nullptr;
    }
    maps.push_back({(char *) p, bytes});
    return (char *) p;
}

NOT_TRACED inline char *Memory::between_guards(size_t bytes)
{
    size_t room = (bytes + 15) / 16 * 16;
    char *before = map(GUARD + room + GUARD), *array = before + GUARD;
    if (!before) return nullptr;
    guard({before, GUARD, array, bytes});
    guard({array + bytes, room - bytes + GUARD, array, bytes});
    return array;
}

NOT_TRACED inline void Memory::guard(Guard g)
{
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(g.first, g.bytes);
#elif !defined(__SANITIZE_THREAD__)      // which looks for races alone
    memset(g.first, 0xff, g.bytes);      // NaN in every floating-point format, -1 as an integer
    guards.push_back(g);
#endif
}

NOT_TRACED inline bool Memory::guards_hold() const
{
    for (const Guard &g : guards) {
        if (*g.first == (char) 0xff && !memcmp(g.first, g.first + 1, g.bytes - 1)) continue;      // all bytes are 0xff
        const char *p = g.first;
        while (*p == (char) 0xff) ++p;
        return fail("a thread writes outside an array of %zu bytes of shared memory, %td bytes from its start", g.size, p - g.array);
    }
    return true;
}

NOT_TRACED inline bool furnish(Memory &memory, const Launch &l)
{
    Block &b = *block;
    b.stacks = memory.map(l.threads * STACK);
    b.sync = memory.map(2 * (l.threads / 32 + 2));
    b.dynamic = memory.between_guards(l.shared_bytes);
    for (size_t i = 0; i < fixed_sizes().size(); ++i) b.fixed[i] = memory.between_guards(fixed_sizes()[i]);
    return !b.error[0];
}

// Put the threads in another order (Fisher and Yates; the numbers are Marsaglia's xorshift).
NOT_TRACED inline void shuffle(std::vector<unsigned> &order, uint64_t &random)
{
    for (size_t n = order.size(); n > 1; --n) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        std::swap(order[n - 1], order[random % n]);
    }
}

NOT_TRACED inline void run_block(const Launch &l, std::vector<unsigned> &order, uint64_t &random)
{
    Block &b = *block;
    memset(b.dynamic, 0xff, l.shared_bytes);      // NaN in every floating-point format
    for (size_t i = 0; i < fixed_sizes().size(); ++i) memset(b.fixed[i], 0xff, fixed_sizes()[i]);
    for (unsigned t = 0; t < l.threads; ++t) start(b.fibers[t], t);
    do {
        if (l.order == 2) shuffle(order, random);
        for (unsigned t : order)
            if (b.fibers[t].state == READY) to_fiber(b.fibers[t]);
    } while (release());
}

NOT_TRACED inline const char *run(Launch l, void (*body)(void *), void *arguments)
{
    static thread_local char message[400];
    Block b;
    Memory memory;
    block = &b;
    b.body = body;
    b.arguments = arguments;
    b.threads = l.threads;
    b.fibers.resize(l.threads);
    b.exchange.resize(l.threads);
    b.warp_phase.resize(l.threads / 32 + 1);
    std::vector<unsigned> order(l.threads);
    for (unsigned t = 0; t < l.threads; ++t) order[t] = l.order == 1 ? l.threads - 1 - t : t;
    uint64_t random = 0x9e3779b97f4a7c15 * (2 * (uint64_t) l.seed + 1);      // never 0
    gridDim = {l.blocks, 1, 1};
    blockDim = {l.threads, 1, 1};
#if defined(__SANITIZE_THREAD__)
    b.tsan = __tsan_get_current_fiber();
    const bool fresh = true;
    std::vector<void *> fibers;
#else
    const bool fresh = false;
#endif
    for (unsigned i = 0; i < l.blocks && !b.error[0]; ++i) {
        blockIdx = {i, 0, 0};
        if ((fresh || !i) && !furnish(memory, l)) break;
        run_block(l, order, random);
#if defined(__SANITIZE_THREAD__)
        for (Fiber &f : b.fibers) fibers.push_back(f.tsan);      // a destroyed one's number would serve again,
        if (fibers.size() + l.threads > 8000) {                  // but there is room for 8128 alone
            for (void *f : fibers) __tsan_destroy_fiber(f);
            fibers.clear();
        }
#endif
    }
#if defined(__SANITIZE_THREAD__)
    for (void *f : fibers) __tsan_destroy_fiber(f);
    __tsan_acquire(&b.end);      // the caller sees what the kernel did; no block has seen another's end
#endif
    if (!b.error[0]) memory.guards_hold();
    block = nullptr;
    memcpy(message, b.error, sizeof message);
    return message[0] ? message : nullptr;
}

// parameters: one pointer to each argument, as cuLaunchKernel takes them.
template <class... A, size_t... n>
const char *launch(void (*kernel)(A...), Launch l, void **parameters, std::index_sequence<n...>)
{
    struct Bound { void (*kernel)(A...); void **p; } bound{kernel, parameters};
    return run(l, [](void *raw) { Bound &k = *(Bound *) raw; k.kernel(*(std::decay_t<A> *) k.p[n]...); }, &bound);
}

template <class... A>
const char *launch(void (*kernel)(A...), Launch l, void **parameters)
{
    return launch(kernel, l, parameters, std::index_sequence_for<A...>());
}

// arguments: packed as PyCUDA packs them, each at its natural alignment.
template <class... A>
const char *launch_packed(void (*kernel)(A...), Launch l, const char *arguments, size_t bytes)
{
    static thread_local char message[100];
    void *p[sizeof...(A)];
    size_t at = 0, i = 0;
    ((at = (at + alignof(A) - 1) / alignof(A) * alignof(A), p[i++] = (void *) (arguments + at), at += sizeof(A)), ...);
    if (at == bytes)
        return launch(kernel, l, p);
    snprintf(message, sizeof message, "the kernel takes %zu bytes of arguments, not %zu", at, bytes);
    return message;
}

// ---- memory --------------------------------------------------------------------------------------------------------

enum Space { GLOBAL, SHARED };
enum Kind { READ, WRITE, ATOMIC };

enum Meeting { BLOCK_BARRIER = 3, WARP_BARRIER, EXCHANGE };      // what else an event may be, beside a Kind

#ifdef OBSERVE
typedef std::source_location Place;
constexpr size_t MOST = 4'000'000;      // events kept; the others are counted

// One access or barrier: by which block and thread, after how many barriers of this thread, on which turn of the loops,
// its how-manieth event, from which place in the code, and what it touched. address of shared memory: bytes from the
// array's start.
struct Event {
    uint64_t address, path;
    const char *file;
    uint32_t block, thread, barriers, turn, line, column, array;
    uint16_t bytes;
    uint8_t space, kind;
};
inline std::vector<Event> events;
inline size_t made = 0;

__attribute__((noinline)) inline void push(Event e)
{
    Fiber &f = *block->now;
    e.path = f.path, e.block = blockIdx.x, e.thread = f.thread, e.barriers = f.barriers, e.turn = f.turn++;
    if (made++ < MOST) events.push_back(e);
}

inline void record(const void *p, const void *array, size_t bytes, Space space, Kind kind, Place at)
{
    uint32_t which = 0;      // 0: dynamic shared memory or global memory, n: the n-th array of a fixed size
    if (space == SHARED)
        for (size_t i = 0; i < fixed_sizes().size(); ++i)
            if (block->fixed[i] == array) which = i + 1;
    uint64_t address = space == SHARED ? (const char *) p - (const char *) array : (uint64_t) p;
    push({.address = address, .file = at.file_name(), .line = at.line(), .column = at.column(), .array = which,
          .bytes = (uint16_t) bytes, .space = (uint8_t) space, .kind = (uint8_t) kind});
}

inline void meet(Meeting kind, const char *file, int line) { push({.file = file, .line = (uint32_t) line, .kind = (uint8_t) kind}); }

// A loop of the kernel; build.py puts one around each. Lanes do the same step when they are at the same place on the same
// turns of the loops around it: path stands for these turns.
struct Loop {
    uint64_t outside, number, turns = 0;
    explicit Loop(uint64_t n) : outside(block->now->path), number(n) {}
    ~Loop() { block->now->path = outside; }
    bool next()
    {
        uint64_t x = outside * 0x9e3779b97f4a7c15 + (number << 40) + ++turns;      // mixed as splitmix64 does
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9, x = (x ^ x >> 27) * 0x94d049bb133111eb;
        block->now->path = x ^ x >> 31;
        return true;
    }
};

// An index, and the place in the code where it became one.
struct At {
    long long i;
    Place place;
    template <class I> At(I j, Place p = Place::current()) : i((long long) j), place(p) {}
};

#define ALWAYS __attribute__((always_inline)) inline
template <class T, Space S> struct Pointer;

// What *p is: reading and writing it leaves an event.
template <class T, Space S> struct Element {
    using Value = std::remove_cv_t<T>;
    T *p;
    const void *array;
    Place at;
    ALWAYS operator Value() const { record(p, array, sizeof(T), S, READ, at); return *p; }
    ALWAYS Value operator=(Value v) const { record(p, array, sizeof(T), S, WRITE, at); return *p = v; }
    ALWAYS Value operator=(const Element &e) const { return *this = (Value) e; }
    ALWAYS Value operator+=(Value v) const { return *this = (Value) *this + v; }
    ALWAYS Value operator-=(Value v) const { return *this = (Value) *this - v; }
    ALWAYS Value operator/=(Value v) const { return *this = (Value) *this / v; }
    ALWAYS Pointer<T, S> operator&() const { return {p, array}; }
};

// A pointer into global or shared memory: exactly as large as a plain one where the launcher passes it.
template <class T> struct Pointer<T, GLOBAL> {
    T *p;
    Pointer() = default;
    ALWAYS Pointer(T *q, const void * = nullptr) : p(q) {}
    ALWAYS Element<T, GLOBAL> operator[](At a) const { return {p + a.i, nullptr, a.place}; }
    ALWAYS Pointer operator+(long long i) const { return {p + i}; }
    ALWAYS Pointer &operator+=(long long i) { p += i; return *this; }
};
template <class T> struct Pointer<T, SHARED> {
    T *p;
    const void *array;
    ALWAYS Element<T, SHARED> operator[](At a) const { return {p + a.i, array, a.place}; }
    ALWAYS Pointer operator+(long long i) const { return {p + i, array}; }
};
template <class T> using Global = Pointer<T, GLOBAL>;
template <class T> using Shared = Pointer<T, SHARED>;
template <class T> Shared<T> shared(char *array) { return {(T *) array, array}; }

template <class T, Space S> ALWAYS T add_atomically(Pointer<T, S> p, T v, Place at)
{
    record(p.p, p[0].array, sizeof(T), S, ATOMIC, at);
    T old = *p.p;
    *p.p = old + v;
    return old;
}

#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT size_t cuda_on_cpu_events(const Event **first) { *first = events.data(); return made; }
EXPORT void cuda_on_cpu_forget() { events = {}; made = 0; }
#else
template <class T> using Global = T *;
template <class T> using Shared = T *;
template <class T> Shared<T> shared(char *array) { return (T *) array; }
inline void meet(Meeting, const char *, int) {}
template <class T> T add_atomically(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }      // integers alone
#endif

template <class T> NOT_TRACED T shuffle_down(T v, unsigned distance, const char *file, int line)
{
    static_assert(sizeof(T) <= 8);
    unsigned thread = threadIdx.x, from = thread + distance;
    meet(EXCHANGE, file, line);
    __builtin_memcpy(&block->exchange[thread], &v, sizeof v);
    wait(AT_WARP_BARRIER, file, line);
    T r = v;
    if (from / 32 == thread / 32 && from < block->threads) __builtin_memcpy(&r, &block->exchange[from], sizeof r);
    wait(AT_WARP_BARRIER, file, line);
    return r;
}

}  // namespace cuda_on_cpu

// ---- the names of CUDA C -------------------------------------------------------------------------------------------

using cuda_on_cpu::blockDim, cuda_on_cpu::blockIdx, cuda_on_cpu::gridDim, cuda_on_cpu::threadIdx;
using std::max, std::min;

#define __global__
#define __device__
#define __restrict__
#define __launch_bounds__(...)
#define MEET(what) (cuda_on_cpu::meet(cuda_on_cpu::what, __FILE__, __LINE__), cuda_on_cpu::wait(cuda_on_cpu::AT_##what, __FILE__, __LINE__))
#define __syncthreads() MEET(BLOCK_BARRIER)
#define __syncwarp(...) MEET(WARP_BARRIER)
#define __shfl_down_sync(mask, v, n) cuda_on_cpu::shuffle_down(v, n, __FILE__, __LINE__)

#define sqrtf __builtin_sqrtf
#define fmaxf __builtin_fmaxf
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
#ifdef OBSERVE
template <class T> ALWAYS std::remove_cv_t<T> __ldcs(cuda_on_cpu::Global<T> p, cuda_on_cpu::Place at = cuda_on_cpu::Place::current()) { return p[{0, at}]; }
template <class T, cuda_on_cpu::Space S> ALWAYS T atomicAdd(cuda_on_cpu::Pointer<T, S> p, T v, cuda_on_cpu::Place at = cuda_on_cpu::Place::current()) { return cuda_on_cpu::add_atomically(p, v, at); }
#else
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> T atomicAdd(T *p, T v) { return cuda_on_cpu::add_atomically(p, v); }
#endif

#define CUDA_ON_CPU_KERNEL(f) \
    extern "C" const char *launch_##f(const cuda_on_cpu::Launch *l, void **p) { return cuda_on_cpu::launch(f, *l, p); } \
    extern "C" const char *packed_##f(const cuda_on_cpu::Launch *l, const char *p, size_t bytes) { return cuda_on_cpu::launch_packed(f, *l, p, bytes); }
