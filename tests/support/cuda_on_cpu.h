// Runs CUDA kernels on a CPU, in place of `device.cuh`: every thread of a group of blocks is a fibre that gives way at
// barriers, at shuffles and while it waits for a word. It checks arithmetic, indices and barriers, not the memory model.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#define DEVICE static inline
#define __global__
#define __restrict__
#define ALL_LANES 0xffffffffu

using std::max;
using std::min;
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
DEVICE float2 make_float2(float x, float y) { return {x, y}; }
DEVICE float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class To, class From> DEVICE To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
DEVICE unsigned __float_as_uint(float f) { return bits_of<unsigned>(f); }
DEVICE float __uint_as_float(unsigned u) { return bits_of<float>(u); }
DEVICE int __float_as_int(float f) { return bits_of<int>(f); }
DEVICE float __int_as_float(int i) { return bits_of<float>(i); }
DEVICE int __float2int_rn(float x) { return (int)lrintf(x); }
DEVICE float fast_sqrt(float x) { return sqrtf(x); }
DEVICE float fast_reciprocal(float x) { return 1.0f / x; }

namespace emulated {

struct Barrier {
    int arrived = 0;
    unsigned generation = 0;
};
struct Warp {
    float slots[2][32];
    Barrier barrier;
};
struct Block {
    std::vector<float4> shared;
    std::vector<Warp> warps;
    Barrier barrier;
    unsigned number;
};
struct Fibre {
    void* stack_pointer;
    Block* block;
    unsigned thread, shuffles = 0;
    bool done = false;
};

static std::vector<Block> blocks;
static std::vector<Fibre> fibres;
static std::vector<std::unique_ptr<char[]>> stacks;
static Fibre* current;
static void* scheduler;
static std::function<void()> kernel;
static unsigned threads_per_block;
constexpr size_t STACK_BYTES = 32768;

// Save the callee's registers and the stack pointer, and go on where another stack left off (System V ABI).
extern "C" void switch_stack(void** save, void* load);
asm(R"(
.text
.globl switch_stack
switch_stack:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

static void yield() { switch_stack(&current->stack_pointer, scheduler); }

static void meet(Barrier& barrier, int count) {
    unsigned generation = barrier.generation;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    while (barrier.generation == generation) yield();
}

static void enter() {
    kernel();
    current->done = true;
    yield();
    abort();
}

// Run one group of blocks to its end. Shared memory begins as NaN. Threads take turns in their order (0), in the reverse
// one (1), or in a random one (2); a missing barrier makes results differ.
static void run_group(unsigned first_block, int group, unsigned threads, size_t shared_bytes, int turns) {
    threads_per_block = threads;
    blocks.assign(group, Block());
    for (int b = 0; b < group; ++b) {
        blocks[b].shared.assign((shared_bytes + 15) / 16, float4{NAN, NAN, NAN, NAN});
        blocks[b].warps.assign(threads / 32, Warp());
        blocks[b].number = first_block + b;
    }
    fibres.assign((size_t)group * threads, Fibre());
    std::vector<size_t> sequence(fibres.size());
    for (size_t i = 0; i < fibres.size(); ++i) {
        if (stacks.size() <= i) stacks.emplace_back(new char[STACK_BYTES]);
        fibres[i].block = &blocks[i / threads];
        fibres[i].thread = i % threads;
        uintptr_t end = ((uintptr_t)stacks[i].get() + STACK_BYTES) & ~(uintptr_t)63;
        void** top = (void**)(end - 64);
        *--top = nullptr;  // aligns the stack as a call does
        *--top = (void*)enter;
        for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
        fibres[i].stack_pointer = top;
        sequence[i] = turns == 1 ? fibres.size() - 1 - i : i;
    }
    std::mt19937 random(7);
    for (size_t left = fibres.size(); left;) {
        if (turns == 2) std::shuffle(sequence.begin(), sequence.end(), random);
        for (size_t i : sequence) {
            if (fibres[i].done) continue;
            current = &fibres[i];
            switch_stack(&scheduler, current->stack_pointer);
            left -= current->done;
        }
    }
}

static void launch(unsigned grid, int group, unsigned threads, size_t shared_bytes, int turns, std::function<void()> body) {
    kernel = body;
    for (unsigned block = 0; block < grid; block += group) run_group(block, group, threads, shared_bytes, turns);
}

static float shuffle(float value, int source) {
    Fibre* me = current;
    Warp& warp = me->block->warps[me->thread / 32];
    unsigned turn = me->shuffles++ & 1;  // whoever is ahead by one shuffle writes to the other slots
    warp.slots[turn][me->thread % 32] = value;
    meet(warp.barrier, 32);
    return warp.slots[turn][source & 31];
}

struct Index { unsigned x; };

}  // namespace emulated

#define threadIdx (emulated::Index{emulated::current->thread})
#define blockIdx (emulated::Index{emulated::current->block->number})
#define blockDim (emulated::Index{emulated::threads_per_block})
DEVICE int lane_of_thread() { return emulated::current->thread % 32; }
DEVICE void __syncthreads() { emulated::meet(emulated::current->block->barrier, emulated::threads_per_block); }
DEVICE float __shfl_up_sync(unsigned, float v, int by) {
    int lane = lane_of_thread();
    return emulated::shuffle(v, lane >= by ? lane - by : lane);
}
DEVICE float __shfl_down_sync(unsigned, float v, int by) {
    int lane = lane_of_thread();
    return emulated::shuffle(v, lane + by < 32 ? lane + by : lane);
}
DEVICE float __shfl_xor_sync(unsigned, float v, int mask) { return emulated::shuffle(v, lane_of_thread() ^ mask); }
DEVICE float4* shared_memory() { return emulated::current->block->shared.data(); }
DEVICE void post(uint4* to, float a, float b, unsigned tag) { *to = {__float_as_uint(a), tag, __float_as_uint(b), tag}; }
DEVICE uint4 look(const uint4* from) { return *from; }
DEVICE void give_way() { emulated::yield(); }
DEVICE unsigned take_number(unsigned* queue) { return (*queue)++; }
DEVICE unsigned volatile_block_index() { return emulated::current->block->number; }
