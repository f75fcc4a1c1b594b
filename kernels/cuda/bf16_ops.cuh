// What the kernels share: bfloat16 in and out of registers, copies to shared memory, tensor-core products, and meeting
// other blocks of threads.
//
// Fragments are those of mma.sync.m16n8k16 as the PTX ISA gives them: a lane holds row lane / 4 (and 8 below it) and
// columns 2 * (lane % 4) and the next (and 8 further).

#ifndef FERMATA_KERNELS_CUDA_BF16_OPS_CUH_
#define FERMATA_KERNELS_CUDA_BF16_OPS_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace fermata::kernels::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Eight neighbouring bfloat16.
struct alignas(16) Bf16x8 {
  uint32_t words[4];
};

__device__ inline float LowFloat(uint32_t word) { return __uint_as_float(word << 16); }
__device__ inline float HighFloat(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }

// Rounded to nearest; `low` at the lower address.
__device__ inline uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline float Rounded(float value) { return __bfloat162float(__float2bfloat16_rn(value)); }

// silu(gate) * up, each rounded before.
__device__ inline float GateRounded(float gate, float up) {
  gate = Rounded(gate);
  return __fdividef(gate, 1.0f + __expf(-gate)) * Rounded(up);
}

__device__ inline float SumOverWarp(float value) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// c += a b, with a 16 x 16, b 16 x 8.
__device__ inline void MultiplyAdd(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 tiles; lane l gives the address of row l % 8 of tile l / 8.
__device__ inline void LoadTiles(const void* row, uint32_t (&tiles)[4]) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
               : "r"(address)
               : "memory");
}

// The same, each tile transposed.
__device__ inline void LoadTilesTransposed(const void* row, uint32_t (&tiles)[4]) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
               : "r"(address)
               : "memory");
}

// Copies 16 bytes to shared memory in the background; zeros if not `valid`.
__device__ inline void CopyAsync(void* to, const void* from, bool valid) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int kPending>
__device__ inline void AwaitCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// 2^x, to 2 units in the last place; 0 for minus infinity.
__device__ inline float FastExp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

// Adds 1, and returns what was there. By one thread of a block, between two meetings of it: what all of its threads
// wrote before is seen by those of other blocks that add later, after their second meeting.
__device__ inline uint32_t AddForAll(uint32_t* place) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;\n" : "=r"(before) : "l"(place) : "memory");
  return before;
}

// A kernel launched by LaunchEarly() may begin while the one before it still runs: it touches nothing that others write
// or read before AwaitPrevious(). LetNextBegin() lets the next one begin so: called late, lest those that wait take the
// room of those that work.
__device__ inline void AwaitPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
__device__ inline void LetNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

// `cluster`: how many blocks of threads, one after the other, can see each other's shared memory.
template <typename... Parameters, typename... Arguments>
cudaError_t LaunchEarlyInClusters(void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes,
                                  unsigned cluster, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

template <typename... Parameters, typename... Arguments>
cudaError_t LaunchEarly(void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes, cudaStream_t stream,
                        Arguments... arguments) {
  return LaunchEarlyInClusters(kernel, grid, threads, shared_bytes, 1, stream, arguments...);
}

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_BF16_OPS_CUH_
