// What the kernels use of a GPU beyond plain C++. Tests replace this file by one that runs the kernels on a CPU.

#define DEVICE static __device__ __forceinline__
#define ALL_LANES 0xffffffffu

extern __shared__ float4 dynamic_shared[];

DEVICE float4* shared_memory() { return dynamic_shared; }

DEVICE float fast_sqrt(float x) {
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
}

DEVICE float fast_reciprocal(float x) {
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
    return reciprocal;
}

// Blocks exchange words of two floats, each with a tag beside it, through global memory. A float and its tag are written
// and read in one access, so whoever sees the tag sees the float; no fence is needed.
DEVICE void post(uint4* to, float a, float b, unsigned tag) {
    asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(__float_as_uint(a)), "r"(tag),
                 "r"(__float_as_uint(b)), "r"(tag)
                 : "memory");
}

DEVICE uint4 look(const uint4* from) {
    uint4 word;
    asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w)
                 : "l"(from)
                 : "memory");
    return word;
}

// Called while a thread waits for a tag: on a GPU, other warps run anyway.
DEVICE void give_way() {}

DEVICE unsigned take_number(unsigned* queue) { return atomicAdd(queue, 1); }

// Read again at each use: the compiler would otherwise keep addresses derived from it in registers and spill others.
DEVICE unsigned volatile_block_index() {
    unsigned index;
    asm volatile("mov.u32 %0, %ctaid.x;" : "=r"(index));
    return index;
}
