// A pretended CUDA runtime. Device memory is reserved address space, so sizes, peaks and out-of-memory are real; kernels
// do nothing; a stream is a moment until which it is busy, and an event is a moment.
//
// FAKE_KERNEL_US: how long each kernel takes. FAKE_BW_GBS: how fast copies and fills are. FAKE_CUDA_OLD_DRIVER: CUDA
// refuses the driver. FAKE_CUDA_NO_IMAGE: kernels have no code for the device. FAKE_HELD_MIB: what others hold of each
// device; it is given all the same, as under WSL2. FAKE_CUDA_TRACE: print calls.
#include "devices.h"
#include <dlfcn.h>
#include <driver_types.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

typedef cudaError_t error;
#define SPIN_HZ 1.98e9        // of torch.cuda._sleep
#define COPIED_BYTES (64u << 20)  // longer copies between devices or from one to the host only take their time

static int shown[MOST_GPUS], shown_count = -1;
static __thread int current = 0;
static __thread error last = 0;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t owner = 0;
static double kernel_s, bytes_per_s;

static gpu *device(int ordinal) { return &gpus[shown[ordinal]]; }

static void trace(const char *function) {
  static int on = -1;
  if (on < 0) on = getenv("FAKE_CUDA_TRACE") != NULL;
  if (on) fprintf(stderr, "[fake cuda] %s\n", function);
}

static error told(error e) { return e ? last = e : e; }

static error find(void) {
  read_gpus("FAKE_CUDA_GPUS");
  if (shown_count < 0) {
    kernel_s = setting("FAKE_KERNEL_US", 0) * 1e-6;
    bytes_per_s = setting("FAKE_BW_GBS", 2000) * 1e9;
    shown_count = shown_gpus(shown);
  }
  if (getenv("FAKE_CUDA_OLD_DRIVER")) return cudaErrorInsufficientDriver;
  return shown_count ? 0 : cudaErrorNoDevice;
}

static error begin(const char *function) {
  trace(function);
  error e = find();
  if (e) return told(e);
  if (!owner) owner = getpid();
  return owner == getpid() ? 0 : told(cudaErrorInitializationError);  // CUDA does not survive a fork
}
#define BEGIN() do { error e_ = begin(__func__); if (e_) return e_; } while (0)

// -- time --

typedef struct { size_t kernels; } graph;
typedef struct stream { double busy_until; int ordinal; graph *captured; struct stream *next; } stream;
typedef struct { double moment; } event;
static stream default_streams[MOST_GPUS], *made;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}
static void wait_until(double moment) {
  for (double left = moment - now(); left > 0; left = moment - now())
    if (left > 2e-4) {
      struct timespec t = {(long)left, (long)((left - (long)left) * 1e9)};
      nanosleep(&t, NULL);
    }
}
static stream *of(cudaStream_t s) { return (uintptr_t)s < 16 ? &default_streams[current] : (stream *)s; }
static void keep_busy(cudaStream_t s, double seconds) {
  stream *one = of(s);
  double t = now();
  one->busy_until = (one->busy_until < t ? t : one->busy_until) + seconds;
}

error cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority) {
  BEGIN();
  stream *one = calloc(1, sizeof *one);
  one->ordinal = current;
  pthread_mutex_lock(&lock);
  one->next = made;
  made = one;
  pthread_mutex_unlock(&lock);
  *s = (cudaStream_t)one;
  return 0;
}
error cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithPriority(s, 0, 0); }
error cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) { return cudaStreamCreateWithPriority(s, flags, 0); }
error cudaStreamDestroy(cudaStream_t s) { return 0; }
error cudaStreamSynchronize(cudaStream_t s) {
  BEGIN();
  if (of(s)->captured) return told(cudaErrorStreamCaptureUnsupported);
  wait_until(of(s)->busy_until);
  return 0;
}
error cudaStreamQuery(cudaStream_t s) { return of(s)->busy_until > now() ? cudaErrorNotReady : 0; }
error cudaStreamGetPriority(cudaStream_t s, int *priority) { *priority = 0; return 0; }
error cudaStreamIsCapturing(cudaStream_t s, int *status) { *status = of(s)->captured != NULL; return 0; }
error cudaStreamGetCaptureInfo(cudaStream_t s, int *status, unsigned long long *id) {
  graph *captured = of(s)->captured;
  *status = captured != NULL;
  if (id && captured) *id = (uintptr_t)captured;
  return 0;
}
// A graph is the number of kernels that were launched meanwhile; each takes its time when the graph is launched.
error cudaStreamBeginCapture(cudaStream_t s, int mode) { of(s)->captured = calloc(1, sizeof(graph)); return 0; }
error cudaStreamEndCapture(cudaStream_t s, graph **found) { *found = of(s)->captured; of(s)->captured = NULL; return 0; }
error cudaGraphInstantiateWithFlags(graph **ready, graph *found, unsigned long long flags) { *ready = found; return 0; }
error cudaGraphGetNodes(graph *found, void *nodes, size_t *count) { *count = found->kernels; return 0; }
error cudaThreadExchangeStreamCaptureMode(int *mode) { return 0; }
error cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) {
  stream *one = of(s);
  if (one->busy_until < ((event *)e)->moment) one->busy_until = ((event *)e)->moment;
  return 0;
}
error cudaDeviceSynchronize(void) {
  BEGIN();
  double until = default_streams[current].busy_until;
  for (stream *one = made; one; one = one->next)
    if (one->ordinal == current && one->busy_until > until) until = one->busy_until;
  wait_until(until);
  return 0;
}
error cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { BEGIN(); *e = (cudaEvent_t)calloc(1, sizeof(event)); return 0; }
error cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
error cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  double t = now(), until = of(s)->busy_until;
  ((event *)e)->moment = until > t ? until : t;
  return 0;
}
error cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned flags) { return cudaEventRecord(e, s); }
error cudaEventQuery(cudaEvent_t e) { return ((event *)e)->moment > now() ? cudaErrorNotReady : 0; }
error cudaEventSynchronize(cudaEvent_t e) { wait_until(((event *)e)->moment); return 0; }
error cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 1e3 * (((event *)b)->moment - ((event *)a)->moment); return 0; }
error cudaEventDestroy(cudaEvent_t e) { return 0; }

// -- devices --

error cudaGetDeviceCount(int *count) {
  error e = find();
  *count = e ? 0 : shown_count;
  return told(e);
}
error cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
error cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
error cudaSetDevice(int ordinal) {
  BEGIN();
  if (ordinal >= shown_count) return told(cudaErrorInvalidDevice);
  current = ordinal;
  return 0;
}
error cudaGetDevice(int *ordinal) { *ordinal = current; return 0; }

static int threads_per_sm(const gpu *g) {
  if (g->major == 7 && g->minor == 5) return 1024;
  return g->major == 12 || (g->major == 8 && g->minor >= 6) ? 1536 : 2048;
}
static size_t shared_bytes(const gpu *g) {
  if (g->major == 9 || g->major == 10) return 232448;
  if (g->major == 7) return 65536;
  return g->major == 8 && g->minor == 0 ? 166912 : 101376;
}
static void uuid_bytes(const char *text, char *bytes) {
  int digit = 0;
  for (text = strchr(text, '-'); text && *text && digit < 32; text++) {
    const char *found = strchr("0123456789abcdef", *text);
    if (found && *text != '-') {
      int value = found - "0123456789abcdef";
      bytes[digit / 2] = digit % 2 ? bytes[digit / 2] | value : value << 4;
      digit++;
    }
  }
}
error cudaGetDeviceProperties(struct cudaDeviceProp *p, int ordinal) {
  BEGIN();
  if (ordinal >= shown_count) return told(cudaErrorInvalidDevice);
  gpu *g = device(ordinal);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "%s", g->name);
  uuid_bytes(g->uuid, p->uuid.bytes);
  p->totalGlobalMem = g->bytes;
  p->major = g->major;
  p->minor = g->minor;
  p->multiProcessorCount = g->sms;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = shared_bytes(g);
  p->sharedMemPerMultiprocessor = shared_bytes(g) + 1024;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->memPitch = 2147483647;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = threads_per_sm(g);
  p->maxBlocksPerMultiProcessor = 32;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->textureAlignment = 512;
  p->texturePitchAlignment = 32;
  p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = p->managedMemory = p->cooperativeLaunch = 1;
  p->streamPrioritiesSupported = p->computePreemptionSupported = 1;
  p->memoryBusWidth = 5120;
  p->l2CacheSize = 50 << 20;
  p->asyncEngineCount = 3;
  p->pciBusID = shown[ordinal] + 1;
  return 0;
}
error cudaDeviceGetAttribute(int *value, int attribute, int ordinal) {
  BEGIN();
  struct cudaDeviceProp p;
  error e = cudaGetDeviceProperties(&p, ordinal);
  if (e) return e;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor: *value = 65536; break;
    case cudaDevAttrClockRate: *value = 1980000; break;
    case cudaDevAttrMemoryClockRate: *value = 2619000; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = p.memoryBusWidth; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = p.sharedMemPerMultiprocessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = p.sharedMemPerBlockOptin; break;
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    default: *value = 0;
  }
  return 0;
}
error cudaDeviceGetPCIBusId(char *text, int length, int ordinal) { snprintf(text, length, "0000:%02x:00.0", shown[ordinal] + 1); return 0; }
error cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
error cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 1; return 0; }
error cudaDeviceEnablePeerAccess(int ordinal, unsigned flags) { return 0; }

// -- memory --

typedef struct { char *start; size_t bytes; int ordinal; int on_host; } block;
static block *blocks;
static int block_count, block_room;
static unsigned long long used[MOST_GPUS];

static char *reserve(size_t bytes) {
  char *start = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return start == MAP_FAILED ? NULL : start;
}
static error allocate(void **out, size_t bytes, int on_host) {
  *out = NULL;
  pthread_mutex_lock(&lock);
  int fits = on_host || used[current] + bytes + CONTEXT_BYTES <= device(current)->bytes;
  char *start = fits ? reserve(bytes) : NULL;
  if (start) {
    if (block_count == block_room) blocks = realloc(blocks, sizeof(block) * (block_room = block_room ? 2 * block_room : 256));
    blocks[block_count++] = (block){start, bytes, current, on_host};
    if (!on_host) used[current] += bytes;
    *out = start;
  }
  pthread_mutex_unlock(&lock);
  return start ? 0 : told(cudaErrorMemoryAllocation);
}
static error release(void *start) {
  pthread_mutex_lock(&lock);
  for (int i = block_count - 1; start && i >= 0; i--)
    if (blocks[i].start == start) {
      munmap(start, blocks[i].bytes ? blocks[i].bytes : 1);
      if (!blocks[i].on_host) used[blocks[i].ordinal] -= blocks[i].bytes;
      blocks[i] = blocks[--block_count];
      break;
    }
  pthread_mutex_unlock(&lock);
  return 0;
}
error cudaMalloc(void **out, size_t bytes) { BEGIN(); return allocate(out, bytes, 0); }
error cudaMallocAsync(void **out, size_t bytes, cudaStream_t s) { return cudaMalloc(out, bytes); }
error cudaFree(void *start) { BEGIN(); return release(start); }
error cudaFreeAsync(void *start, cudaStream_t s) { return release(start); }
error cudaHostAlloc(void **out, size_t bytes, unsigned flags) { BEGIN(); return allocate(out, bytes, 1); }
error cudaFreeHost(void *start) { return release(start); }
error cudaHostRegister(void *start, size_t bytes, unsigned flags) { return 0; }
error cudaHostUnregister(void *start) { return 0; }
error cudaMemGetInfo(size_t *left, size_t *total) {
  BEGIN();
  *total = device(current)->bytes;
  *left = *total - used[current] - CONTEXT_BYTES - (size_t)setting("FAKE_HELD_MIB", 0) * 1048576;
  return 0;
}
error cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer) {
  memset(found, 0, sizeof *found);
  pthread_mutex_lock(&lock);
  for (int i = 0; i < block_count; i++)
    if ((char *)pointer >= blocks[i].start && (char *)pointer < blocks[i].start + blocks[i].bytes) {
      found->type = blocks[i].on_host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
      found->device = blocks[i].ordinal;
      found->devicePointer = (void *)pointer;
      if (blocks[i].on_host) found->hostPointer = (void *)pointer;
      break;
    }
  pthread_mutex_unlock(&lock);
  return 0;
}
static void copy(void *to, const void *from, size_t bytes, int kind) {
  if (kind == cudaMemcpyDeviceToDevice && bytes > COPIED_BYTES / 64) return;
  if (kind == cudaMemcpyDeviceToHost && bytes > COPIED_BYTES) return;
  memmove(to, from, bytes);
}
error cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
  BEGIN();
  copy(to, from, bytes, kind);
  wait_until(default_streams[current].busy_until);
  return 0;
}
error cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t s) {
  BEGIN();
  keep_busy(s, 2.0 * bytes / bytes_per_s);
  copy(to, from, bytes, kind);
  return 0;
}
error cudaMemcpy2DAsync(void *to, size_t tp, const void *from, size_t fp, size_t w, size_t h, int kind, cudaStream_t s) { return 0; }
error cudaMemcpyPeerAsync(void *to, int a, const void *from, int b, size_t bytes, cudaStream_t s) { return 0; }
error cudaMemcpyToSymbol(const void *to, const void *from, size_t bytes, size_t offset, int kind) { return 0; }
error cudaMemset(void *to, int value, size_t bytes) { if (value) memset(to, value, bytes); return 0; }
error cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) {
  BEGIN();
  keep_busy(s, bytes / bytes_per_s);
  if (value && bytes <= COPIED_BYTES / 64) memset(to, value, bytes);
  return 0;
}

// -- kernels --

typedef struct { unsigned x, y, z; } extent;
static __thread struct { extent grid, block; size_t shared; cudaStream_t stream; } configured;
static const void *spin;  // torch.cuda._sleep's kernel, whose argument is a number of cycles
static void *fat_binary[1];

static error launch(const void *function, void **arguments, cudaStream_t s) {
  BEGIN();
  if (getenv("FAKE_CUDA_NO_IMAGE")) return told(cudaErrorNoKernelImageForDevice);
  if (of(s)->captured) of(s)->captured->kernels++;
  else keep_busy(s, function && function == spin ? *(int64_t *)arguments[0] / SPIN_HZ : kernel_s);
  return 0;
}
void __cudaRegisterFunction(void **binary, const char *host, char *at, const char *name, int limit, void *tid, void *bid, void *b, void *g, int *w) {
  if (strstr(name, "spin_kernel")) spin = host;
}
error cudaGraphLaunch(graph *ready, cudaStream_t s) { BEGIN(); keep_busy(s, ready->kernels * kernel_s); return 0; }
error cudaLaunchKernel(const void *f, extent g, extent b, void **arguments, size_t shared, cudaStream_t s) { return launch(f, arguments, s); }
error __cudaLaunchKernel(void *f, extent g, extent b, void **arguments, size_t shared, cudaStream_t s) { return launch(f, arguments, s); }
error cudaLaunchCooperativeKernel(const void *f, extent g, extent b, void **arguments, size_t shared, cudaStream_t s) { return launch(f, arguments, s); }
error cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **arguments) { return launch(f, arguments, c->stream); }
unsigned __cudaPushCallConfiguration(extent g, extent b, size_t shared, cudaStream_t s) {
  configured.grid = g;
  configured.block = b;
  configured.shared = shared;
  configured.stream = s;
  return 0;
}
error __cudaPopCallConfiguration(extent *g, extent *b, size_t *shared, void *s) {
  *g = configured.grid;
  *b = configured.block;
  *shared = configured.shared;
  *(cudaStream_t *)s = configured.stream;
  return 0;
}
error __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return 0; }
void **__cudaRegisterFatBinary(void *binary) { return fat_binary; }
void __cudaRegisterFatBinaryEnd(void **binary) {}
void __cudaUnregisterFatBinary(void **binary) {}
char __cudaInitModule(void **binary) { return 1; }
void __cudaRegisterVar() {}
error cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *function) {
  BEGIN();
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  // That of the code that is loaded: of those in torch's libraries the newest that the device runs. cub refuses others.
  static const int compiled[] = {120, 100, 90, 86, 80, 75};
  int capability = 10 * device(current)->major + device(current)->minor, i = 0;
  while (compiled[i] > capability && compiled[i] > 75) i++;
  a->binaryVersion = a->ptxVersion = compiled[i];
  a->maxDynamicSharedSizeBytes = 49152;
  return 0;
}
error cudaFuncSetAttribute(const void *function, int attribute, int value) { return 0; }
error cudaKernelSetAttributeForDevice() { return 0; }
error cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *f, int threads, size_t shared) { *count = 2; return 0; }
error cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *f, int threads, size_t shared, unsigned flags) { *count = 2; return 0; }

// -- errors and the rest --

error cudaGetLastError(void) { error e = last; last = 0; return e; }
error cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorString(error e) {
  switch (e) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInitializationError: return "initialization error";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
    default: return "unknown error";
  }
}
const char *cudaGetErrorName(error e) { return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown"; }
static int nothing(void) { return 0; }
error cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags, int *status) {
  static void *driver;
  char second[128];
  if (!driver) driver = dlopen("libcuda.so.1", RTLD_NOW);
  snprintf(second, sizeof second, "%s_v2", name);
  *function = driver ? dlsym(driver, name) : NULL;
  if (!*function && driver) *function = dlsym(driver, second);
  if (!*function) *function = (void *)nothing;
  if (status) *status = 0;
  return 0;
}
error cudaGetSymbolAddress(void **address, const void *symbol) { static char room[1 << 16]; *address = room; return 0; }
error cudaMemPoolGetAttribute(void *pool, int attribute, void *value) { *(unsigned long long *)value = 0; return 0; }
error cudaDeviceGetDefaultMemPool(void **pool, int ordinal) { *pool = fat_binary; return 0; }
#define DOES_NOTHING(name) error name() { return 0; }
DOES_NOTHING(cudaProfilerStart) DOES_NOTHING(cudaProfilerStop)
DOES_NOTHING(cudaGraphAddNode) DOES_NOTHING(cudaGraphConditionalHandleCreate) DOES_NOTHING(cudaGraphDebugDotPrint)
DOES_NOTHING(cudaGraphDestroy) DOES_NOTHING(cudaGraphExecDestroy) DOES_NOTHING(cudaGraphNodeGetDependencies)
DOES_NOTHING(cudaIpcCloseMemHandle) DOES_NOTHING(cudaIpcGetEventHandle) DOES_NOTHING(cudaIpcGetMemHandle)
DOES_NOTHING(cudaIpcOpenEventHandle) DOES_NOTHING(cudaIpcOpenMemHandle) DOES_NOTHING(cudaLaunchHostFunc)
DOES_NOTHING(cudaLibraryGetKernel) DOES_NOTHING(cudaLibraryLoadData) DOES_NOTHING(cudaLibraryUnload)
DOES_NOTHING(cudaMemPoolSetAccess) DOES_NOTHING(cudaMemPoolSetAttribute) DOES_NOTHING(cudaMemPoolTrimTo)
DOES_NOTHING(cudaStreamAddCallback) DOES_NOTHING(cudaStreamBeginCaptureToGraph)
DOES_NOTHING(cudaStreamUpdateCaptureDependencies)

// -- what libcuda.c asks --

int fake_launch(void *s) { return launch(NULL, NULL, (cudaStream_t)s); }
int fake_current(void) { return current; }
int fake_count(void) { int count; cudaGetDeviceCount(&count); return count; }
int fake_attribute(int *value, int attribute, int ordinal) { return cudaDeviceGetAttribute(value, attribute, ordinal); }
int fake_device(int ordinal, char *name, int length, unsigned long long *bytes, char *uuid) {
  error e = find();
  if (e || ordinal >= shown_count) return cudaErrorInvalidDevice;
  snprintf(name, length, "%s", device(ordinal)->name);
  *bytes = device(ordinal)->bytes;
  uuid_bytes(device(ordinal)->uuid, uuid);
  return 0;
}
int fake_is_device_memory(const void *pointer) {
  struct cudaPointerAttributes found;
  cudaPointerGetAttributes(&found, pointer);
  return found.type == cudaMemoryTypeDevice;
}
