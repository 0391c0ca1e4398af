// A pretended NCCL: ranks of one host meet in shared memory. Messages up to a MiB carry their values; longer ones only
// make the ranks wait for each other.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CARRIED_BYTES (1u << 20)
enum { INT32 = 2, INT64 = 4, FLOAT32 = 7, MAXIMUM = 2 };  // of ncclDataType_t and ncclRedOp_t
typedef int result;
typedef struct { char text[128]; } identity;
typedef struct { volatile int arrived, generation; char unused[56]; char slots[]; } meeting;
typedef struct { int ranks, rank; meeting *shared; } communicator;

static size_t size_of(int type) {
  static const int sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  return type < 12 ? sizes[type] : 1;
}
static void *slot(communicator *c, int rank) { return c->shared->slots + (size_t)rank * CARRIED_BYTES; }
static void meet(communicator *c) {
  int generation = c->shared->generation;
  if (__sync_add_and_fetch(&c->shared->arrived, 1) == c->ranks) {
    c->shared->arrived = 0;
    __sync_synchronize();
    c->shared->generation = generation + 1;
    return;
  }
  for (long turns = 0; c->shared->generation == generation; turns++)
    if (turns > 200) {
      struct timespec pause = {0, 20000};
      nanosleep(&pause, NULL);
    }
}
static result join(communicator **out, int ranks, const char *name, int rank) {
  communicator *c = calloc(1, sizeof *c);
  size_t bytes = sizeof(meeting) + (size_t)ranks * CARRIED_BYTES;
  int file = shm_open(name, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, bytes)) return 2;  // ncclSystemError
  c->ranks = ranks;
  c->rank = rank;
  c->shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  *out = c;
  meet(c);
  if (rank == 0) shm_unlink(name);
  return 0;
}

result ncclGetUniqueId(identity *id) {
  unsigned long long random = 0;
  FILE *file = fopen("/dev/urandom", "r");
  if (!file || fread(&random, sizeof random, 1, file) != 1) return 2;
  fclose(file);
  memset(id, 0, sizeof *id);
  snprintf(id->text, sizeof id->text, "/fake-nccl-%016llx", random);
  return 0;
}
result ncclCommInitRank(communicator **c, int ranks, identity id, int rank) { return join(c, ranks, id.text, rank); }
result ncclCommInitRankConfig(communicator **c, int ranks, identity id, int rank, void *config) { return join(c, ranks, id.text, rank); }
result ncclCommInitRankScalable(communicator **c, int ranks, int rank, int ids, identity *id, void *config) { return join(c, ranks, id->text, rank); }
result ncclCommSplit(communicator *parent, int color, int key, communicator **c, void *config) {
  static int splits;
  char name[64];
  snprintf(name, sizeof name, "/fake-nccl-split-%d-%d", getppid(), ++splits);
  return join(c, parent->ranks, name, parent->rank);
}
result ncclAllGather(const void *from, void *to, size_t count, int type, communicator *c, void *stream) {
  size_t bytes = count * size_of(type);
  int carried = bytes <= CARRIED_BYTES;
  if (carried) memcpy(slot(c, c->rank), from, bytes);
  meet(c);
  for (int i = 0; carried && i < c->ranks; i++) memcpy((char *)to + i * bytes, slot(c, i), bytes);
  meet(c);
  return 0;
}
result ncclBroadcast(const void *from, void *to, size_t count, int type, int root, communicator *c, void *stream) {
  size_t bytes = count * size_of(type);
  int carried = bytes <= CARRIED_BYTES;
  if (carried && c->rank == root) memcpy(slot(c, root), from, bytes);
  meet(c);
  if (carried && c->rank != root) memcpy(to, slot(c, root), bytes);
  meet(c);
  return 0;
}
result ncclBcast(void *both, size_t count, int type, int root, communicator *c, void *stream) { return ncclBroadcast(both, both, count, type, root, c, stream); }
static double read_one(communicator *c, int rank, size_t index, int type) {
  void *values = slot(c, rank);
  return type == FLOAT32 ? ((float *)values)[index] : type == INT32 ? ((int *)values)[index] : (double)((long *)values)[index];
}
result ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, communicator *c, void *stream) {
  size_t bytes = count * size_of(type);
  int carried = bytes <= CARRIED_BYTES && (type == FLOAT32 || type == INT32 || type == INT64);
  if (carried) memcpy(slot(c, c->rank), from, bytes);
  meet(c);
  for (size_t k = 0; carried && k < count; k++) {
    double sum = 0, most = read_one(c, 0, k, type);
    for (int i = 0; i < c->ranks; i++) {
      double value = read_one(c, i, k, type);
      sum += value;
      if (value > most) most = value;
    }
    double reduced = operation == MAXIMUM ? most : sum;
    if (type == FLOAT32) ((float *)to)[k] = reduced;
    else if (type == INT32) ((int *)to)[k] = reduced;
    else ((long *)to)[k] = reduced;
  }
  meet(c);
  return 0;
}
result ncclReduceScatter(const void *from, void *to, size_t count, int type, int operation, communicator *c, void *stream) { meet(c); meet(c); return 0; }
result ncclGetVersion(int *version) { *version = 22907; return 0; }
const char *ncclGetErrorString(result r) { return "an error of the pretended NCCL"; }
const char *ncclGetLastError(void *c) { return ""; }
result ncclCommGetAsyncError(void *c, int *error) { *error = 0; return 0; }
result ncclCommCount(communicator *c, int *ranks) { *ranks = c->ranks; return 0; }
result ncclCommUserRank(communicator *c, int *rank) { *rank = c->rank; return 0; }
result ncclCommCuDevice(communicator *c, int *ordinal) { *ordinal = c->rank; return 0; }
