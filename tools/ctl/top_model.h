// What `top` shows, made from Watch alone.

#ifndef FERMATA_TOOLS_CTL_TOP_MODEL_H_
#define FERMATA_TOOLS_CTL_TOP_MODEL_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "proto/fermata/v1/control_service.pb.h"

namespace fermata::ctl {

// Folds a watch's messages into the present. One thread.
class TopModel {
 public:
  // Takes in one message of a watch that began with a snapshot.
  void Take(const v1::WatchResponse& message);

  // Fills in what events do not say (class, priority, who holds a pause) of a live generation. The copy may be older
  // than the last event: one that has ended since does not come back.
  void Describe(const v1::Generation& generation);

  // The screen: totals, then at most `rows` generations, those with most tokens since the last call first. `elapsed`
  // is how long ago that was.
  std::string Screen(absl::Duration elapsed, int rows);

  // Live ones that Describe() is to be called for, because they are new or were paused since.
  std::map<std::string, bool>& undescribed() { return undescribed_; }

 private:
  struct Entry {
    v1::Generation generation;
    int64_t new_tokens = 0;  // since the last Screen()
  };

  void Take(const v1::Event& event);
  void Fill(Entry& entry, const v1::Generation& generation);

  std::map<std::string, Entry> live_;
  std::map<std::string, bool> undescribed_;
  int64_t new_steps_ = 0;
  int64_t new_tokens_ = 0;
  int64_t step_ = 0;
};

}  // namespace fermata::ctl

#endif  // FERMATA_TOOLS_CTL_TOP_MODEL_H_
