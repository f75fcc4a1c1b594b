// Goal: a library that asks for a small stack gets one with room for the thread-local memory of all others.
// Method: ask, and start a thread, in a program whose thread-local memory is larger than what was asked for.

#include "engine/serving/least_stack.h"

#include <pthread.h>

#include "gtest/gtest.h"

namespace fermata {
namespace {

thread_local char large[200 << 10];

void* Touch(void*) {
  large[1] = 1;
  return nullptr;
}

TEST(LeastStackTest, ASmallStackBecomesTheLeastAndAThreadStarts) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 100 << 10), 0);
  size_t bytes = 0;
  pthread_attr_getstacksize(&attributes, &bytes);
  EXPECT_EQ(bytes, kLeastStackBytes);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, Touch, nullptr), 0);
  pthread_join(thread, nullptr);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 4 * kLeastStackBytes), 0);
  pthread_attr_getstacksize(&attributes, &bytes);
  EXPECT_EQ(bytes, 4 * kLeastStackBytes);
  pthread_attr_destroy(&attributes);
}

}  // namespace
}  // namespace fermata
