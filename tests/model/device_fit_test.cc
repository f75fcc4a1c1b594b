// Goal: what does not fit into a device's memory is refused, and the numbers are told. Method: a table.

#include "engine/model/device_fit.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

using testing::HasSubstr;

TEST(DeviceFitTest, WeightsThatFitAreTaken) {
  EXPECT_TRUE(CheckDeviceMemory({.weight_bytes = 16, .free_bytes = 79, .total_bytes = 80, .fraction = 0.9}, "m").ok());
  EXPECT_TRUE(CheckDeviceMemory({.weight_bytes = 1000}, "in the host's memory").ok());
}

TEST(DeviceFitTest, WeightsThatDoNotFitAreRefusedWithTheNumbers) {
  const absl::Status status = CheckDeviceMemory({.weight_bytes = 141, .free_bytes = 79, .total_bytes = 80}, "folder");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "folder: the weights need 141 bytes of the device's memory, of which 79 of 80 are free");
}

TEST(DeviceFitTest, APoolThatDoesNotFitBesideTheWeightsIsRefusedToo) {
  const DeviceMemory memory = {.weight_bytes = 16, .kv_bytes = 64, .free_bytes = 79, .total_bytes = 80};
  EXPECT_THAT(CheckDeviceMemory(memory, "m").message(),
              HasSubstr("need 16 bytes of the device's memory, and --kv_bytes 64, of which 79"));
  // One that does may use what the fraction would keep.
  EXPECT_TRUE(CheckDeviceMemory({16, 63, 79, 80, 0.5}, "m").ok());
}

TEST(DeviceFitTest, WhatTheFractionKeepsFreeIsNotUsed) {
  const absl::Status status =
      CheckDeviceMemory({.weight_bytes = 40, .free_bytes = 79, .total_bytes = 80, .fraction = 0.5}, "m");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("--gpu_memory_fraction=0.5 keeps 40 of those free"));
}

}  // namespace
}  // namespace fermata
