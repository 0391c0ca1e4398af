// The pretended devices, as an environment variable describes them, and those of them that CUDA shows.
//
// FAKE_GPUS="name|MiB|capability|SMs|UUID;…", in the order of the bus; SMs and UUID may be left out. An entry whose UUID
// begins with MIG- is a slice: NVML finds it by UUID alone, and CUDA shows it in the place of whole GPUs.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define MOST_GPUS 16
#define CONTEXT_BYTES (500ull << 20)  // what a CUDA context takes of a device's memory

typedef struct {
  char name[96];
  unsigned long long bytes;
  int major, minor, sms;
  char uuid[64];
} gpu;

static gpu gpus[MOST_GPUS];
static int gpu_count = -1;

static int is_slice(const gpu *g) { return !strncmp(g->uuid, "MIG-", 4); }

static double setting(const char *name, double otherwise) {
  const char *text = getenv(name);
  return text ? atof(text) : otherwise;
}

// Reads `variable`, or FAKE_GPUS where it is not set: NVML and CUDA can be made to disagree.
static void read_gpus(const char *variable) {
  if (gpu_count >= 0) return;
  gpu_count = 0;
  const char *text = getenv(variable);
  if (!text) text = getenv("FAKE_GPUS");
  if (!text || !*text) return;
  char *copy = strdup(text), *rest = NULL;
  for (char *entry = strtok_r(copy, ";", &rest); entry && gpu_count < MOST_GPUS; entry = strtok_r(NULL, ";", &rest)) {
    gpu *g = &gpus[gpu_count];
    char *inner = NULL;
    char *name = strtok_r(entry, "|", &inner), *mib = strtok_r(NULL, "|", &inner);
    char *capability = strtok_r(NULL, "|", &inner), *sms = strtok_r(NULL, "|", &inner);
    char *uuid = strtok_r(NULL, "|", &inner);
    snprintf(g->name, sizeof g->name, "%s", name);
    g->bytes = mib ? strtoull(mib, NULL, 10) << 20 : 0;
    g->major = 9;
    g->minor = 0;
    if (capability) sscanf(capability, "%d.%d", &g->major, &g->minor);
    g->sms = sms ? atoi(sms) : 132;
    if (uuid) snprintf(g->uuid, sizeof g->uuid, "%s", uuid);
    else snprintf(g->uuid, sizeof g->uuid, "GPU-%08x-0000-0000-0000-%012x", 0xa0000000u + gpu_count * 0x1111u, gpu_count);
    gpu_count++;
  }
  free(copy);
}

static long speed(const gpu *g) { return (long)g->sms * (g->major * 10 + g->minor); }

// Fills `order` with the positions of the GPUs that CUDA shows and returns how many. As CUDA does, it numbers the
// fastest first unless CUDA_DEVICE_ORDER=PCI_BUS_ID, ends at the first entry of CUDA_VISIBLE_DEVICES that it does not
// know, and shows none where one is named twice.
static int shown_gpus(int *order) {
  int numbered[MOST_GPUS], count = 0, sliced = -1;
  for (int i = 0; i < gpu_count; i++) {
    if (is_slice(&gpus[i])) sliced = sliced < 0 ? i : sliced;
    else numbered[count++] = i;
  }
  const char *by = getenv("CUDA_DEVICE_ORDER");
  if (!by || strcmp(by, "PCI_BUS_ID")) {
    for (int i = 1; i < count; i++)
      for (int k = i; k > 0 && speed(&gpus[numbered[k]]) > speed(&gpus[numbered[k - 1]]); k--) {
        int swapped = numbered[k];
        numbered[k] = numbered[k - 1];
        numbered[k - 1] = swapped;
      }
  }
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (!visible) {
    if (sliced >= 0) return order[0] = sliced, 1;
    memcpy(order, numbered, sizeof numbered);
    return count;
  }
  int found = 0;
  char *copy = strdup(visible), *rest = NULL;
  for (char *word = strtok_r(copy, ",", &rest); word && found < MOST_GPUS; word = strtok_r(NULL, ",", &rest)) {
    while (*word == ' ') word++;
    int match = -1;
    if (*word >= '0' && *word <= '9') {
      int position = atoi(word);
      if (position < count) match = numbered[position];
    } else if (!strncmp(word, "GPU-", 4) || !strncmp(word, "MIG-", 4)) {
      int matches = 0;
      for (int i = 0; i < gpu_count; i++)
        if (!strncasecmp(gpus[i].uuid, word, strlen(word))) match = i, matches++;
      if (matches != 1) match = -1;
    }
    if (match < 0) break;
    for (int i = 0; i < found; i++)
      if (order[i] == match) return free(copy), 0;
    order[found++] = match;
    if (is_slice(&gpus[match])) break;  // CUDA shows one slice to a process
  }
  free(copy);
  return found;
}
