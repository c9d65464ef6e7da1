// Stands in for NVIDIA's driver (libcuda.so.1): as much of it as `cuda.core` asks for to run the engine gpu on a CPU.
//
// It is as lazy as a GPU may ever be: work in a stream runs when the host waits for it, and not before; only what an event
// orders runs first. Memory begins with nonsense, and is filled with nonsense when its release comes up in its stream. So
// results differ if the host does not wait, if streams are not ordered, or if memory is released or dropped too early.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, UNAVAILABLE = 46, NOT_FOUND = 500 };
constexpr int NONSENSE = 0xCD;

struct Stream {
    std::vector<std::function<void()>> work;
    size_t done = 0;
};
struct Record {  // of an event: the work of a stream up to here
    Stream* stream;
    size_t work;
};
struct Event {
    std::shared_ptr<Record> record;
};
struct Kernel {
    void (*prepare)(std::function<void()>*, void**, unsigned, unsigned, unsigned);
    int dynamic_shared = 48 * 1024;
};

std::recursive_mutex mutex;
std::map<uintptr_t, size_t> device_memory, pinned_memory;
size_t room = SIZE_MAX, held = 0, most_held = 0;
int reserved = 0;
int context, pool;
thread_local void* current = nullptr;

void run(Stream* stream, size_t until) {
    while (stream->done < until) {
        auto work = std::move(stream->work[stream->done++]);
        work();
    }
}
Stream* stream_of(void* handle) {
    static Stream unnamed;
    return (uintptr_t)handle <= 2 ? &unnamed : (Stream*)handle;
}
void run(void* stream) { run(stream_of(stream), stream_of(stream)->work.size()); }
void enqueue(void* stream, std::function<void()> work) { stream_of(stream)->work.push_back(std::move(work)); }

int take(uintptr_t* to, size_t size) {
    if (held + size > room) return OUT_OF_MEMORY;
    *to = (uintptr_t)aligned_alloc(512, (size + 1023) / 512 * 512);
    memset((void*)*to, NONSENSE, size);
    device_memory[*to] = size;
    held += size;
    if (held > most_held) most_held = held;
    return SUCCESS;
}

}  // namespace

#define LOCKED std::lock_guard<std::recursive_mutex> lock(mutex)

extern "C" {

// For tests.
void stand_in_room(size_t bytes) { room = bytes; }
void stand_in_reserved(int is) { reserved = is; }  // for another process
size_t stand_in_held() { return held; }
size_t stand_in_most_held() { return most_held; }
size_t stand_in_pinned() { return pinned_memory.size(); }

int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* status) {
    static void* self = [] {
        Dl_info info;
        dladdr((void*)stand_in_room, &info);
        return dlopen(info.dli_fname, RTLD_NOW);
    }();
    *function = dlsym(self, name);
    if (status) *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int* version) { *version = 12090; return SUCCESS; }
int cuGetErrorName(int error, const char** name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
        : error == UNAVAILABLE ? "CUDA_ERROR_DEVICE_UNAVAILABLE" : "CUDA_ERROR_INVALID_VALUE";
    return SUCCESS;
}
int cuGetErrorString(int, const char** text) { *text = "as the stand-in says"; return SUCCESS; }

int cuDeviceGet(int* device, int number) { *device = number; return SUCCESS; }
int cuDeviceGetCount(int* count) { *count = 1; return SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: *value = 6; break;            // multiprocessors
        case 75: *value = 9; break;            // compute capability
        case 76: *value = 0; break;
        case 95: *value = 1; break;            // cooperative launch
        case 97: *value = 160 * 1024; break;   // shared memory of a block
        case 115: *value = 1; break;           // memory pools
        default: *value = 1024;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** to, int) {
    if (!room) return OUT_OF_MEMORY;
    if (reserved) return UNAVAILABLE;
    *to = &context;
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease(int) { return SUCCESS; }
int cuCtxSetCurrent(void* to) { current = to; return SUCCESS; }
int cuCtxGetCurrent(void** to) { *to = current; return SUCCESS; }
int cuCtxPushCurrent(void* to) { current = to; return SUCCESS; }
int cuCtxPopCurrent(void** to) { if (to) *to = current; return SUCCESS; }
int cuCtxGetDevice(int* device) { *device = 0; return current ? SUCCESS : 201; }
int cuCtxGetStreamPriorityRange(int* least, int* most) { *least = 0; *most = -5; return SUCCESS; }

int cuStreamCreateWithPriority(void** stream, unsigned, int) { *stream = new Stream; return SUCCESS; }
int cuStreamDestroy(void* stream) { LOCKED; run(stream); return SUCCESS; }
int cuStreamGetCtx(void*, void** to) { *to = &context; return SUCCESS; }
int cuStreamSynchronize(void* stream) { LOCKED; run(stream); return SUCCESS; }
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    LOCKED;
    if (auto record = ((Event*)event)->record) enqueue(stream, [record] { run(record->stream, record->work); });
    return SUCCESS;
}
int cuStreamIsCapturing(void*, int* status) { *status = 0; return SUCCESS; }
int cuEventCreate(void** event, unsigned) { *event = new Event; return SUCCESS; }
int cuEventDestroy(void* event) { delete (Event*)event; return SUCCESS; }
int cuEventRecord(void* event, void* stream) {
    LOCKED;
    ((Event*)event)->record = std::make_shared<Record>(Record{stream_of(stream), stream_of(stream)->work.size()});
    return SUCCESS;
}

int cuDeviceGetDefaultMemPool(void** to, int) { *to = &pool; return SUCCESS; }
int cuDeviceGetMemPool(void** to, int) { *to = &pool; return SUCCESS; }
int cuMemPoolGetAttribute(void*, int, void* value) { *(uint64_t*)value = 0; return SUCCESS; }
int cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }
int cuMemAllocFromPoolAsync(uintptr_t* to, size_t size, void*, void*) { LOCKED; return take(to, size); }
int cuMemFreeAsync(uintptr_t memory, void* stream) {
    LOCKED;
    auto found = device_memory.find(memory);
    if (found == device_memory.end()) return INVALID_VALUE;
    size_t size = found->second;
    device_memory.erase(found);
    held -= size;
    // The memory itself is never given back, so that its nonsense stays.
    enqueue(stream, [=] { memset((void*)memory, NONSENSE, size); });
    return SUCCESS;
}
int cuMemAllocHost(void** to, size_t size) {
    LOCKED;
    *to = aligned_alloc(512, (size + 1023) / 512 * 512);
    memset(*to, NONSENSE, size);
    pinned_memory[(uintptr_t)*to] = size;
    return SUCCESS;
}
int cuMemHostAlloc(void** to, size_t size, unsigned) { return cuMemAllocHost(to, size); }
int cuMemFreeHost(void* memory) {
    LOCKED;
    size_t size = pinned_memory[(uintptr_t)memory];
    memset(memory, NONSENSE, size);
    pinned_memory.erase((uintptr_t)memory);
    return SUCCESS;
}
int cuMemcpyAsync(uintptr_t to, uintptr_t from, size_t size, void* stream) {
    LOCKED;
    enqueue(stream, [=] { memcpy((void*)to, (void*)from, size); });
    return SUCCESS;
}
int cuMemsetD8Async(uintptr_t to, unsigned char value, size_t size, void* stream) {
    LOCKED;
    enqueue(stream, [=] { memset((void*)to, value, size); });
    return SUCCESS;
}
int cuPointerGetAttributes(unsigned count, int* attributes, void** values, uintptr_t pointer) {
    LOCKED;
    auto holds = [&](std::map<uintptr_t, size_t>& memory) {
        auto next = memory.upper_bound(pointer);
        return next != memory.begin() && (--next, pointer < next->first + std::max<size_t>(next->second, 1));
    };
    bool device = holds(device_memory), pinned = holds(pinned_memory);
    for (unsigned i = 0; i < count; ++i) {
        switch (attributes[i]) {
            case 2: *(unsigned*)values[i] = device ? 2 : pinned ? 1 : 0; break;  // type of memory
            case 8: *(unsigned*)values[i] = 0; break;                            // managed
            case 9: *(int*)values[i] = device ? 0 : -2; break;                   // device
            default: *(void**)values[i] = nullptr;
        }
    }
    return SUCCESS;
}

// Machine code is the path of a library, with a function `prepare_KERNEL` for each kernel.
int cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned) {
    *library = dlopen((const char*)code, RTLD_NOW | RTLD_LOCAL);
    return *library ? SUCCESS : INVALID_VALUE;
}
int cuLibraryUnload(void*) { return SUCCESS; }
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
    auto prepare = dlsym(library, (std::string("prepare_") + name).c_str());
    if (!prepare) return NOT_FOUND;
    *kernel = new Kernel{(decltype(Kernel::prepare))prepare};
    return SUCCESS;
}
int cuKernelGetFunction(void** function, void* kernel) { *function = kernel; return SUCCESS; }
int cuKernelGetAttribute(int* value, int, void*, int) { *value = 0; return SUCCESS; }
int cuKernelSetAttribute(int attribute, int value, void* kernel, int) {
    if (attribute != 8) return INVALID_VALUE;
    ((Kernel*)kernel)->dynamic_shared = value;
    return SUCCESS;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) { *blocks = 1; return SUCCESS; }
struct Launch {
    unsigned grid[3], block[3], shared;
    void* stream;
};
int cuLaunchKernelEx(const Launch* launch, void* kernel, void** parameters, void**) {
    LOCKED;
    auto asked = (Kernel*)kernel;
    if (!launch->grid[0] || (int)launch->shared > asked->dynamic_shared) return INVALID_VALUE;
    std::function<void()> work;
    asked->prepare(&work, parameters, launch->grid[0], launch->block[0], launch->shared);
    enqueue(launch->stream, work);
    return SUCCESS;
}
int cuLaunchKernel(void* kernel, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void* stream, void** parameters, void**) {
    Launch launch{{x, y, z}, {bx, by, bz}, shared, stream};
    return cuLaunchKernelEx(&launch, kernel, parameters, nullptr);
}

}  // extern "C"
