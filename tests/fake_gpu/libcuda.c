// A pretended CUDA driver: what torch and Triton ask of it, answered by the pretended runtime.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int result;
static int (*launch)(void *), (*current)(void), (*count)(void), (*attribute)(int *, int, int), (*is_device_memory)(const void *);
static int (*device)(int, char *, int, unsigned long long *, char *);

static result ready(void) {
  if (launch) return 0;
  void *runtime = dlopen("libcudart.so.13", RTLD_NOW);
  if (!runtime) return 999;
  current = dlsym(runtime, "fake_current");
  count = dlsym(runtime, "fake_count");
  attribute = dlsym(runtime, "fake_attribute");
  is_device_memory = dlsym(runtime, "fake_is_device_memory");
  device = dlsym(runtime, "fake_device");
  launch = dlsym(runtime, "fake_launch");
  return 0;
}

result cuInit(unsigned flags) { return ready(); }
result cuDriverGetVersion(int *version) { *version = 13000; return 0; }
result cuDeviceGet(int *d, int ordinal) { *d = ordinal; return 0; }
result cuDeviceGetCount(int *n) { ready(); *n = count(); return 0; }
result cuDeviceGetAttribute(int *value, int a, int d) { ready(); return attribute(value, a, d); }
result cuDeviceGetName(char *text, int length, int d) { char uuid[16]; unsigned long long bytes; ready(); return device(d, text, length, &bytes, uuid); }
result cuDeviceTotalMem_v2(size_t *bytes, int d) { char name[96], uuid[16]; unsigned long long found = 0; ready(); result r = device(d, name, 96, &found, uuid); *bytes = found; return r; }
result cuDeviceGetUuid(char *uuid, int d) { char name[96]; unsigned long long bytes; ready(); return device(d, name, 96, &bytes, uuid); }
result cuDeviceGetUuid_v2(char *uuid, int d) { return cuDeviceGetUuid(uuid, d); }
result cuCtxGetCurrent(void **c) { *c = (void *)16; return 0; }
result cuCtxSetCurrent(void *c) { return 0; }
result cuCtxGetDevice(int *d) { ready(); *d = current(); return 0; }
result cuCtxPushCurrent_v2(void *c) { return 0; }
result cuCtxPopCurrent_v2(void **c) { *c = (void *)16; return 0; }
result cuCtxGetLimit(size_t *value, int limit) { *value = 1 << 20; return 0; }
result cuCtxSetLimit(int limit, size_t value) { return 0; }
result cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)16; return 0; }
result cuDevicePrimaryCtxGetState(int d, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
result cuModuleLoad(void **m, const char *file) { *m = (void *)32; return 0; }
result cuModuleLoadData(void **m, const void *image) { *m = (void *)32; return 0; }
result cuModuleLoadDataEx(void **m, const void *image) { *m = (void *)32; return 0; }
result cuModuleUnload(void *m) { return 0; }
result cuModuleGetFunction(void **f, void *m, const char *name) { *f = (void *)48; return 0; }
result cuFuncGetAttribute(int *value, int a, void *f) { *value = a == 0 ? 1024 : a == 4 ? 64 : 0; return 0; }  // threads, registers
result cuFuncSetAttribute(void *f, int a, int value) { return 0; }
result cuFuncSetCacheConfig(void *f, int config) { return 0; }
result cuPointerGetAttribute(void *value, int a, uint64_t pointer) {
  ready();
  if (!is_device_memory((void *)pointer)) return 1;
  *(uint64_t *)value = a == 3 ? pointer : 0;  // 3: the pointer of the device
  return 0;
}
result cuPointerGetAttributes(unsigned n, int *a, void **values, uint64_t pointer) { return 0; }
result cuOccupancyMaxActiveClusters(int *n, void *f, void *config) { *n = 1; return 0; }
result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *f, int threads, size_t shared) { *n = 2; return 0; }
typedef struct { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; } configuration;
result cuLaunchKernelEx(const configuration *c, void *f, void **arguments, void **extra) { ready(); return launch(c->stream); }
result cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments, void **extra) { ready(); return launch(stream); }
result cuLaunchCooperativeKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments) { ready(); return launch(stream); }
result cuGetErrorString(result r, const char **text) { *text = "an error of the pretended driver"; return 0; }
result cuGetErrorName(result r, const char **text) { *text = "CUDA_ERROR"; return 0; }
result cuMemGetAddressRange_v2(uint64_t *base, size_t *bytes, uint64_t pointer) { *base = pointer; *bytes = 1; return 0; }
result cuMemGetAllocationGranularity(size_t *bytes) { *bytes = 2 << 20; return 0; }
#define DOES_NOTHING(name) result name() { return 0; }
DOES_NOTHING(cuTensorMapEncodeTiled) DOES_NOTHING(cuTensorMapEncodeIm2col) DOES_NOTHING(cuStreamSynchronize)
DOES_NOTHING(cuLinkCreate_v2) DOES_NOTHING(cuLinkAddData_v2) DOES_NOTHING(cuLinkComplete)
DOES_NOTHING(cuStreamWriteValue32_v2) DOES_NOTHING(cuMemsetD32Async)
