// A pretended NVML: what `devices.h` describes, with answers that an environment variable can refuse.
//
// FAKE_NVML_FAIL="function=code,function#index=code" refuses calls with NVML's error codes (3 not supported, 4 no
// permission, 15 lost, 18 mismatch); "@file" reads that from a file, which may change while a process runs.
// FAKE_OTHERS="position:pid,…" has processes run on GPUs, numbered by the bus.
// FAKE_REASONS (hexadecimal throttle reasons), FAKE_MAX_SM_MHZ, FAKE_POWER_LIMIT_MW and FAKE_DRIVER set answers.
#include "devices.h"

typedef int result;
typedef void *handle;
typedef struct { unsigned long long total, free, used; } memory_info;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } process;
typedef struct { unsigned long long reference_time, violation_time; } violation;

static int position(handle h) { return (int)(intptr_t)h - 1; }

static result refusal(const char *function, int index) {
  const char *text = getenv("FAKE_NVML_FAIL");
  static __thread char content[512];
  if (!text) return 0;
  if (*text == '@') {
    FILE *file = fopen(text + 1, "r");
    if (!file) return 0;
    content[fread(content, 1, sizeof content - 1, file)] = 0;
    fclose(file);
    text = content;
  }
  char of_one[128], of_all[128];
  snprintf(of_one, sizeof of_one, "%s#%d=", function, index);
  snprintf(of_all, sizeof of_all, "%s=", function);
  for (const char *entry = text; entry; entry = strchr(entry, ',') ? strchr(entry, ',') + 1 : NULL) {
    if (!strncmp(entry, of_one, strlen(of_one))) return atoi(entry + strlen(of_one));
    if (!strncmp(entry, of_all, strlen(of_all))) return atoi(entry + strlen(of_all));
  }
  return 0;
}

#define ANSWER(function, index)                    \
  do {                                             \
    read_gpus("FAKE_NVML_GPUS");                   \
    result refused = refusal(function, index);     \
    if (refused) return refused;                   \
  } while (0)
#define OF_WHOLE_GPUS(h)                           \
  do {                                             \
    if (is_slice(&gpus[position(h)])) return 3;    \
  } while (0)

result nvmlInit_v2(void) { ANSWER("nvmlInit", -1); return 0; }
result nvmlInitWithFlags(unsigned flags) { return nvmlInit_v2(); }
result nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(result code) {
  switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}
result nvmlSystemGetDriverVersion(char *text, unsigned length) {
  ANSWER("nvmlSystemGetDriverVersion", -1);
  const char *driver = getenv("FAKE_DRIVER");
  snprintf(text, length, "%s", driver ? driver : "580.95.05");
  return 0;
}
result nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return 0; }

result nvmlDeviceGetCount_v2(unsigned *count) {
  ANSWER("nvmlDeviceGetCount", -1);
  *count = 0;
  for (int i = 0; i < gpu_count; i++) *count += !is_slice(&gpus[i]);
  return 0;
}
result nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *h) {
  ANSWER("nvmlDeviceGetHandleByIndex", index);
  for (int i = 0; i < gpu_count; i++)
    if (!is_slice(&gpus[i]) && !index--) return *h = (handle)(intptr_t)(i + 1), 0;
  return 2;
}
result nvmlDeviceGetHandleByUUID(const char *uuid, handle *h) {
  read_gpus("FAKE_NVML_GPUS");
  for (int i = 0; i < gpu_count; i++)
    if (!strcmp(uuid, gpus[i].uuid)) {
      ANSWER("nvmlDeviceGetHandleByUUID", i);
      return *h = (handle)(intptr_t)(i + 1), 0;
    }
  return 6;
}
result nvmlDeviceGetName(handle h, char *text, unsigned length) {
  ANSWER("nvmlDeviceGetName", position(h));
  snprintf(text, length, "%s", gpus[position(h)].name);
  return 0;
}
result nvmlDeviceGetUUID(handle h, char *text, unsigned length) {
  ANSWER("nvmlDeviceGetUUID", position(h));
  snprintf(text, length, "%s", gpus[position(h)].uuid);
  return 0;
}
result nvmlDeviceGetCudaComputeCapability(handle h, int *major, int *minor) {
  ANSWER("nvmlDeviceGetCudaComputeCapability", position(h));
  *major = gpus[position(h)].major;
  *minor = gpus[position(h)].minor;
  return 0;
}
result nvmlDeviceGetMemoryInfo(handle h, memory_info *found) {
  ANSWER("nvmlDeviceGetMemoryInfo", position(h));
  found->total = gpus[position(h)].bytes;
  found->used = CONTEXT_BYTES;
  found->free = found->total - found->used;
  return 0;
}
result nvmlDeviceGetClockInfo(handle h, int kind, unsigned *mhz) {
  ANSWER("nvmlDeviceGetClockInfo", position(h));
  OF_WHOLE_GPUS(h);
  *mhz = kind == 2 ? 2619 : (unsigned)setting("FAKE_MAX_SM_MHZ", 1980);
  return 0;
}
result nvmlDeviceGetMaxClockInfo(handle h, int kind, unsigned *mhz) {
  ANSWER("nvmlDeviceGetMaxClockInfo", position(h));
  OF_WHOLE_GPUS(h);
  *mhz = kind == 2 ? 2619 : (unsigned)setting("FAKE_MAX_SM_MHZ", 1980);
  return 0;
}
result nvmlDeviceGetCurrentClocksEventReasons(handle h, unsigned long long *reasons) {
  ANSWER("nvmlDeviceGetCurrentClocksEventReasons", position(h));
  OF_WHOLE_GPUS(h);
  const char *text = getenv("FAKE_REASONS");
  *reasons = text ? strtoull(text, NULL, 16) : 1;
  return 0;
}
result nvmlDeviceGetViolationStatus(handle h, int policy, violation *found) {
  ANSWER("nvmlDeviceGetViolationStatus", position(h));
  OF_WHOLE_GPUS(h);
  found->reference_time = 1;
  found->violation_time = 0;
  return 0;
}
result nvmlDeviceGetTemperature(handle h, int sensor, unsigned *celsius) {
  ANSWER("nvmlDeviceGetTemperature", position(h));
  OF_WHOLE_GPUS(h);
  *celsius = 40;
  return 0;
}
result nvmlDeviceGetPowerUsage(handle h, unsigned *milliwatts) {
  ANSWER("nvmlDeviceGetPowerUsage", position(h));
  OF_WHOLE_GPUS(h);
  *milliwatts = 70000 + position(h);
  return 0;
}
// 70 W since an arbitrary moment, as the power says.
result nvmlDeviceGetTotalEnergyConsumption(handle h, unsigned long long *millijoules) {
  ANSWER("nvmlDeviceGetTotalEnergyConsumption", position(h));
  OF_WHOLE_GPUS(h);
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  *millijoules = 70000ull * now.tv_sec + 70 * (now.tv_nsec / 1000000);
  return 0;
}
result nvmlDeviceGetEnforcedPowerLimit(handle h, unsigned *milliwatts) {
  ANSWER("nvmlDeviceGetEnforcedPowerLimit", position(h));
  OF_WHOLE_GPUS(h);
  *milliwatts = (unsigned)setting("FAKE_POWER_LIMIT_MW", 700000);
  return 0;
}
result nvmlDeviceGetPowerManagementDefaultLimit(handle h, unsigned *milliwatts) {
  ANSWER("nvmlDeviceGetPowerManagementDefaultLimit", position(h));
  OF_WHOLE_GPUS(h);
  *milliwatts = 700000;
  return 0;
}
result nvmlDeviceGetPersistenceMode(handle h, int *mode) {
  ANSWER("nvmlDeviceGetPersistenceMode", position(h));
  OF_WHOLE_GPUS(h);
  *mode = 1;
  return 0;
}
result nvmlDeviceGetEccMode(handle h, int *current, int *pending) {
  ANSWER("nvmlDeviceGetEccMode", position(h));
  OF_WHOLE_GPUS(h);
  *current = *pending = 1;
  return 0;
}
result nvmlDeviceGetMigMode(handle h, unsigned *current, unsigned *pending) {
  ANSWER("nvmlDeviceGetMigMode", position(h));
  OF_WHOLE_GPUS(h);
  *current = *pending = 0;
  for (int i = 0; i < gpu_count; i++) *current |= is_slice(&gpus[i]);
  *pending = *current;
  return 0;
}
// The whole GPU that stands before a slice.
result nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle h, handle *whole) {
  ANSWER("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", position(h));
  int i = position(h);
  if (!is_slice(&gpus[i])) return 2;
  while (i > 0 && is_slice(&gpus[i])) i--;
  return *whole = (handle)(intptr_t)(i + 1), 0;
}
result nvmlDeviceIsMigDeviceHandle(handle h, unsigned *is_one) { *is_one = is_slice(&gpus[position(h)]); return 0; }
result nvmlDeviceGetUtilizationRates(handle h, utilization *found) {
  ANSWER("nvmlDeviceGetUtilizationRates", position(h));
  OF_WHOLE_GPUS(h);
  found->gpu = 10 * (position(h) + 1);
  found->memory = 1;
  return 0;
}
result nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *count, process *found) {
  ANSWER("nvmlDeviceGetComputeRunningProcesses", position(h));
  unsigned room = *count, number = 0;
  for (const char *entry = getenv("FAKE_OTHERS"); entry && *entry; entry = strchr(entry, ',') ? strchr(entry, ',') + 1 : NULL) {
    int gpu, pid;
    if (sscanf(entry, "%d:%d", &gpu, &pid) != 2 || gpu != position(h)) continue;
    if (number < room && found) found[number] = (process){pid, 1 << 20, 0, 0};
    number++;
  }
  *count = number;
  return number > room ? 7 : 0;
}
// torch asks for the unversioned one by name where memory runs out, to tell whose it is.
result nvmlDeviceGetComputeRunningProcesses(handle h, unsigned *count, void *processes) {
  *count = 0;
  return 0;
}
// torch asks these for groups of GPUs; there are no links.
result nvmlDeviceGetHandleByPciBusId_v2(const char *id, handle *h) { *h = (handle)1; return 0; }
result nvmlDeviceGetNvLinkRemoteDeviceType(handle h, unsigned link, int *type) { return 3; }
result nvmlDeviceGetNvLinkRemotePciInfo_v2(handle h, unsigned link, void *info) { return 3; }
result nvmlDeviceGetGpuFabricInfoV(handle h, void *info) { return 3; }
