// A stub of libcuda.so.1. It loads nothing. Its launch adds a simple function of every argument to the network.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int fails(const char* name) {
  const char* failing = getenv("STUB_CUDA_FAILS");
  return failing != NULL && strcmp(failing, name) == 0 ? 700 : 0;
}

int cuInit(unsigned flags) { return flags == 0 ? fails("cuInit") : 1; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char* name, int size, int device) { return strncpy(name, "Stub", size), device; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 97 ? 232448 : -1;
  return device;
}
int cuGetErrorString(int code, const char** text) {
  return *text = code == 700 ? "an illegal memory access was encountered" : NULL, code == 700 ? 0 : 1;
}

// NVRTC calls this, and accepts an error.
int cuGetExportTable(const void** table, const void* id) { return *table = NULL, id != NULL ? 500 : 1; }

static char elf[4];
int cuLibraryLoadData(void** library, const void* code, void* a, void* b, unsigned c, void* d, void* e, unsigned f) {
  memcpy(elf, code, 4);
  return *library = elf, a || b || c || d || e || f;
}
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  return *kernel = library, strcmp(name, "jaxgd_descend");
}
static int shared_bytes_allowed;
int cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
  return shared_bytes_allowed = value, attribute != 8 || kernel != elf || device != 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = elf, device; }
int cuCtxPushCurrent_v2(void* context) { return context != elf; }
int cuCtxPopCurrent_v2(void** context) { return *context = elf, 0; }
int cuKernelGetFunction(void** function, void* kernel) { return *function = kernel, 0; }
int cuFuncLoad(void* function) { return function != elf; }

#define ARGUMENT(i, type) (*(type*)parameters[i])

int cuLaunchKernel(void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream, void** parameters, void** extra) {
  if (fails("cuLaunchKernel")) return 700;
  if (kernel != elf || grid_y * grid_z * block_y * block_z != 1 || stream != NULL || extra != NULL) return 1;
  if ((int)shared_bytes != shared_bytes_allowed || block_x % 32 != 0) return 1;
  const uint8_t* x = ARGUMENT(0, const uint8_t*);
  const int32_t *labels = ARGUMENT(1, const int32_t*), *order = ARGUMENT(3, const int32_t*);
  const float *targets = ARGUMENT(2, const float*), *eta = ARGUMENT(4, const float*);
  const int n = ARGUMENT(10, int), batch_size = ARGUMENT(11, int);
  // The first number of each array changes. The strides are for the network of test_cuda_launch.py, [20,5,3].
  for (unsigned i = 0; i < grid_x; ++i) {
    ARGUMENT(5, float*)[i * 100] += eta[i] * x[1];
    ARGUMENT(6, float*)[i * 5] += (float)order[i * n];
    ARGUMENT(7, float*)[i * 15] += labels != NULL ? (float)labels[0] : 10 * targets[0];
    ARGUMENT(8, float*)[i * 3] += (float)(100 * n + batch_size);
    ARGUMENT(9, int32_t*)[i] = i != 1;
  }
  return 0;
}
