// What Hopper alone has: products of warpgroups (128 threads), barriers in shared memory, and copies by the tensor
// memory accelerator, as the PTX ISA gives them. In code for other devices, none of it is called.
//
// Tiles in shared memory have rows of 64 bfloat16 (128 bytes), each 16 bytes at place c of row r moved to c ^ (r % 8);
// they begin at a multiple of 1024 bytes.

#ifndef FERMATA_KERNELS_CUDA_WARPGROUP_OPS_CUH_
#define FERMATA_KERNELS_CUDA_WARPGROUP_OPS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace fermata::kernels::cuda {

__device__ inline uint32_t SharedAddress(const void* place) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(place));
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// How a product finds an operand: `next_columns` bytes from 64 columns to the next 64 where rows are summed over, 1024
// from 8 rows to the next 8.
__device__ inline uint64_t DescribeTile(uint32_t address, uint32_t next_columns) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{next_columns >> 4} << 16 |
         uint64_t{1024 >> 4} << 32;
}

__device__ inline void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void CommitProducts() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kPending>
__device__ inline void AwaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Nothing that uses them is moved to before this.
template <int kCount>
__device__ inline void Pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

// The operands of a product's sums d: their places in its text, sixteen at a time, and what stands there.
#define FERMATA_PLACES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define FERMATA_PLACES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FERMATA_PLACES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define FERMATA_PLACES_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FERMATA_PLACES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define FERMATA_PLACES_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define FERMATA_PLACES_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define FERMATA_PLACES_112 \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define FERMATA_SUMS(i)                                                                                             \
  "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]), "+f"(d[(i) + 4]), "+f"(d[(i) + 5]),             \
      "+f"(d[(i) + 6]), "+f"(d[(i) + 7]), "+f"(d[(i) + 8]), "+f"(d[(i) + 9]), "+f"(d[(i) + 10]), "+f"(d[(i) + 11]), \
      "+f"(d[(i) + 12]), "+f"(d[(i) + 13]), "+f"(d[(i) + 14]), "+f"(d[(i) + 15])

// d (+)= a b: a 64 x 16 and b 16 x 256, 224, 128, 64, 32 or 16, both in shared memory, summed over columns of both. A
// lane's d is that of mma.sync's fragments, side by side.
__device__ inline void MultiplyShared(uint64_t a, uint64_t b, int accumulate, float (&d)[128]) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" FERMATA_PLACES_0 FERMATA_PLACES_16 FERMATA_PLACES_32
          FERMATA_PLACES_48 FERMATA_PLACES_64 FERMATA_PLACES_80 FERMATA_PLACES_96 FERMATA_PLACES_112
      "}, %128, %129, p, 1, 1, 0, 0;\n}\n"
      : FERMATA_SUMS(0), FERMATA_SUMS(16), FERMATA_SUMS(32), FERMATA_SUMS(48), FERMATA_SUMS(64), FERMATA_SUMS(80),
        FERMATA_SUMS(96), FERMATA_SUMS(112)
      : "l"(a), "l"(b), "r"(accumulate));
}
__device__ inline void MultiplyShared(uint64_t a, uint64_t b, int accumulate, float (&d)[112]) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %114, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n224k16.f32.bf16.bf16 {" FERMATA_PLACES_0 FERMATA_PLACES_16 FERMATA_PLACES_32
          FERMATA_PLACES_48 FERMATA_PLACES_64 FERMATA_PLACES_80 FERMATA_PLACES_96 "}, %112, %113, p, 1, 1, 0, 0;\n}\n"
      : FERMATA_SUMS(0), FERMATA_SUMS(16), FERMATA_SUMS(32), FERMATA_SUMS(48), FERMATA_SUMS(64), FERMATA_SUMS(80),
        FERMATA_SUMS(96)
      : "l"(a), "l"(b), "r"(accumulate));
}
__device__ inline void MultiplyShared(uint64_t a, uint64_t b, int accumulate, float (&d)[64]) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FERMATA_PLACES_0 FERMATA_PLACES_16 FERMATA_PLACES_32
          FERMATA_PLACES_48 "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : FERMATA_SUMS(0), FERMATA_SUMS(16), FERMATA_SUMS(32), FERMATA_SUMS(48)
      : "l"(a), "l"(b), "r"(accumulate));
}
__device__ inline void MultiplyShared(uint64_t a, uint64_t b, int accumulate, float (&d)[32]) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" FERMATA_PLACES_0 FERMATA_PLACES_16
      "}, %32, %33, p, 1, 1, 0, 0;\n}\n"
      : FERMATA_SUMS(0), FERMATA_SUMS(16)
      : "l"(a), "l"(b), "r"(accumulate));
}
__device__ inline void MultiplyShared(uint64_t a, uint64_t b, int accumulate, float (&d)[16]) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" FERMATA_PLACES_0 "}, %16, %17, p, 1, 1, 0, 0;\n}\n"
      : FERMATA_SUMS(0)
      : "l"(a), "l"(b), "r"(accumulate));
}
__device__ inline void MultiplyShared(uint64_t a, uint64_t b, int accumulate, float (&d)[8]) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7"
      "}, %8, %9, p, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
      : "l"(a), "l"(b), "r"(accumulate));
}

// d += a b: a in registers as mma.sync's fragment, b 16 x 128 in shared memory, summed over its rows.
__device__ inline void MultiplyRegisters(const uint32_t* a, uint64_t b, float (&d)[64]) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FERMATA_PLACES_0 FERMATA_PLACES_16
                   FERMATA_PLACES_32 FERMATA_PLACES_48 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
               : FERMATA_SUMS(0), FERMATA_SUMS(16), FERMATA_SUMS(32), FERMATA_SUMS(48)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef FERMATA_PLACES_0
#undef FERMATA_PLACES_16
#undef FERMATA_PLACES_32
#undef FERMATA_PLACES_48
#undef FERMATA_PLACES_64
#undef FERMATA_PLACES_80
#undef FERMATA_PLACES_96
#undef FERMATA_PLACES_112
#undef FERMATA_SUMS

__device__ inline void InitBarrier(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(count) : "memory");
}
__device__ inline void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
__device__ inline void ArriveExpecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void AwaitBarrier(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// The same at the barrier that is at this place in a block of threads of this cluster. For what products have read:
// what this thread wrote is not made to be seen there (a release to the cluster would wait for all of the thread's
// memory).
__device__ inline void ArriveAt(uint32_t barrier, int block) {
  asm volatile(
      "{\n.reg .b32 place;\nmapa.shared::cluster.u32 place, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [place];\n}\n" ::"r"(barrier),
      "r"(block)
      : "memory");
}

// Has a map at hand when the first box is asked for.
__device__ inline void FetchMap(const void* map) { asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory"); }

// Brings the box at (column, row) of a tensor to shared memory, and tells the barrier its bytes.
__device__ inline void BringBox(uint32_t to, const void* map, int32_t column, int32_t row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];\n" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The same to this place in all blocks of threads of this cluster that have a bit in `blocks`; the barrier of each is
// told, too.
__device__ inline void BringBoxToAll(uint32_t to, const void* map, int32_t column, int32_t row, uint32_t barrier,
                                     uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}

// The same as BringBox() for what is read once: others keep their place in the cache.
__device__ inline void BringBoxOnce(uint32_t to, const void* map, int32_t column, int32_t row, uint32_t barrier,
                                    uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ inline uint64_t ReadOncePolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}

// All threads of a cluster; what they wrote to shared memory before is seen by all after it.
__device__ inline void SyncCluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}

// The place that is at `address` here, in the shared memory of a block of threads of this cluster.
__device__ inline uint32_t SharedOf(uint32_t address, int block) {
  uint32_t place;
  asm("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(place) : "r"(address), "r"(block));
  return place;
}
__device__ inline float4 LoadShared(uint32_t place) {
  float4 value;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];\n"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "r"(place)
               : "memory");
  return value;
}

// What this thread wrote to shared memory is seen by products and copies after this.
__device__ inline void ShowToProducts() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// A warpgroup's registers, each thread's, from here on.
template <int kCount>
__device__ inline void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kCount));
}
template <int kCount>
__device__ inline void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

// Two halves of kThreads go on in turn: each waits for its own turn, which the other one gives.
template <int kThreads>
__device__ inline void TakeTurn(int half) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(2 + half), "n"(kThreads) : "memory");
}
template <int kThreads>
__device__ inline void GiveTurn(int half) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(2 + half), "n"(kThreads) : "memory");
}

template <int kThreads>
__device__ inline void SyncSome() {
  asm volatile("bar.sync 1, %0;\n" ::"n"(kThreads) : "memory");
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_WARPGROUP_OPS_CUH_
